//! The etcd backend, over etcd's version 3 API (the name `etcd2` is the one users know).
//!
//! Owns: the connection, keys and values (here), leases and the locks and elections built on them
//! (`lease.rs`, `queue.rs`, `leased_key.rs`), and watches that outlive the server (`watch.rs`).
//! Layout: one flat key per record, root and path joined; a version is the key's modification revision.
//! Invariants: every call has a deadline; what is repeated after a broken connection is only what did
//! not reach the server or changes nothing; the server being away is always told as `Timeout`.

mod lease;
mod leased_key;
mod queue;
mod watch;

use std::{
    error::Error as _,
    future::Future,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, Error as EtcdError, GetOptions, GetResponse, Identity,
    KvClient, PutOptions, SortOrder, SortTarget, TlsOptions, Txn, TxnOp,
};

use crate::{
    conn::{Conn, DirEntry, LeasedKey, LockDescriptor, MasterParticipation, Version, WatchData, WatchStream},
    error::{Result, TopoError},
    paths::{self, join},
    server::{Factory, TopoOptions},
};

/// HTTP/2 pings while calls are open, so that a stopped server is noticed. etcd closes connections
/// that ping more often than every 5 seconds, or without open calls.
const PING_INTERVAL: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(4);
/// Largest answer: a listing of many keys can be larger than gRPC's default of 4 MiB.
const MAX_ANSWER_BYTES: usize = 64 << 20;
/// Pause before a call that failed for lack of a connection is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

pub(crate) struct EtcdFactory {
    options: TopoOptions,
    tls: Option<TlsOptions>,
}

impl EtcdFactory {
    /// Reads the TLS files, if there are any.
    pub(crate) fn new(options: TopoOptions) -> Result<Self> {
        let read = |path: &std::path::Path| {
            std::fs::read(path).map_err(|error| TopoError::other(format!("cannot read {}: {error}", path.display())))
        };
        let tls = match &options.etcd_tls {
            None => None,
            Some(files) => {
                let identity = Identity::from_pem(read(&files.cert)?, read(&files.key)?);
                let ca = Certificate::from_pem(read(&files.ca)?);
                Some(TlsOptions::new().ca_certificate(ca).identity(identity))
            }
        };
        Ok(Self { options, tls })
    }
}

#[async_trait]
impl Factory for EtcdFactory {
    async fn create(&self, cell: &str, server_address: &str, root: &str) -> Result<Arc<dyn Conn>> {
        let addresses: Vec<&str> =
            server_address.split(',').map(str::trim).filter(|address| !address.is_empty()).collect();
        if addresses.is_empty() {
            return Err(TopoError::other(format!("no server address for the topology of cell {cell}")));
        }
        let mut connect = ConnectOptions::new()
            .with_connect_timeout(self.options.dial_timeout)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            .with_keep_alive_while_idle(false);
        if let Some(tls) = &self.tls {
            connect = connect.with_tls(tls.clone());
        }
        let client = Client::connect(addresses, Some(connect)).await.map_err(|error| convert(error, server_address))?;
        Ok(Arc::new(EtcdConn {
            inner: Arc::new(Inner {
                client,
                root: root.to_owned(),
                timeout: self.options.remote_operation_timeout,
                reconnect: self.options.dial_timeout,
                lease_ttl_seconds: self.options.etcd_lease_ttl_seconds.max(1),
            }),
        }))
    }
}

struct EtcdConn {
    inner: Arc<Inner>,
}

/// What locks, elections and watches share with the connection they come from.
struct Inner {
    client: Client,
    root: String,
    /// Bound of one call.
    timeout: Duration,
    /// How long a call is repeated while there is no connection.
    reconnect: Duration,
    lease_ttl_seconds: i64,
}

/// Whether a call may be sent twice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing, or doing it twice is the same as once.
    Safe,
    /// Only if the connection was refused, so that it was certainly not sent.
    IfRefused,
}

impl Inner {
    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// One call within the deadline, repeated for a short while if there is no connection, so that a
    /// restart of etcd goes unnoticed by most callers.
    async fn call<T, F, Fut>(&self, path: &str, repeat: Repeat, call: F) -> Result<T>
    where
        F: Fn() -> Fut + Send,
        Fut: Future<Output = Result<T, EtcdError>> + Send,
    {
        let started = Instant::now();
        let attempts = async {
            loop {
                let error = match call().await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                let again = is_disconnected(&error) && (repeat == Repeat::Safe || is_refused(&error));
                if !again || started.elapsed() >= self.reconnect {
                    return Err(convert(error, path));
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        };
        match tokio::time::timeout(self.timeout, attempts).await {
            Ok(outcome) => outcome,
            Err(_) => Err(TopoError::Timeout { path: path.to_owned() }),
        }
    }

    async fn get(&self, key: &str, options: Option<GetOptions>) -> Result<GetResponse> {
        self.call(key, Repeat::Safe, || {
            let (mut kv, key, options) = (self.kv(), key.to_owned(), options.clone());
            async move { kv.get(key, options).await }
        })
        .await
    }

    /// A transaction of one comparison and one operation: whether it was done, and the revision.
    async fn compare_and(&self, key: &str, compare: Compare, operation: TxnOp) -> Result<(bool, Version)> {
        let txn = Txn::new().when([compare]).and_then([operation]);
        let answer = self
            .call(key, Repeat::IfRefused, || {
                let (mut kv, txn) = (self.kv(), txn.clone());
                async move { kv.txn(txn).await }
            })
            .await?;
        Ok((answer.succeeded(), Version(revision(answer.header()))))
    }
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> i64 {
    header.map_or(0, etcd_client::ResponseHeader::revision)
}

/// Whether the failure is one of the connection: the server did not answer this call.
fn is_disconnected(error: &EtcdError) -> bool {
    match error {
        EtcdError::TransportError(_) | EtcdError::IoError(_) => true,
        // A status of the server has no source; the client's own has the failure it was made from.
        EtcdError::GRpcStatus(status) => status.source().is_some() || status_code(error) == GrpcCode::Unavailable,
        _ => false,
    }
}

/// Whether no connection could be made, so that nothing was sent.
fn is_refused(error: &EtcdError) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = match error {
        EtcdError::GRpcStatus(status) => status.source(),
        EtcdError::TransportError(error) => error.source(),
        _ => None,
    };
    while let Some(error) = source {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = error.source();
    }
    false
}

/// The codes of gRPC statuses that mean something here.
#[derive(Clone, Copy, PartialEq, Eq)]
enum GrpcCode {
    Cancelled,
    DeadlineExceeded,
    NotFound,
    Unavailable,
    Other,
}

fn status_code(error: &EtcdError) -> GrpcCode {
    let EtcdError::GRpcStatus(status) = error else { return GrpcCode::Other };
    match i32::from(status.code()) {
        1 => GrpcCode::Cancelled,
        4 => GrpcCode::DeadlineExceeded,
        5 => GrpcCode::NotFound,
        14 => GrpcCode::Unavailable,
        _ => GrpcCode::Other,
    }
}

fn convert(error: EtcdError, path: &str) -> TopoError {
    let path = path.to_owned();
    if is_disconnected(&error) {
        tracing::debug!(path, %error, "etcd cannot be reached");
        return TopoError::Timeout { path };
    }
    match status_code(&error) {
        GrpcCode::Cancelled => TopoError::Interrupted { path },
        GrpcCode::DeadlineExceeded | GrpcCode::Unavailable => TopoError::Timeout { path },
        GrpcCode::NotFound => TopoError::NoNode { path },
        GrpcCode::Other => TopoError::other(format!("etcd: {path}: {error}")),
    }
}

#[async_trait]
impl Conn for EtcdConn {
    async fn list_dir(&self, dir: &str, full: bool) -> Result<Vec<DirEntry>> {
        let prefix = paths::dir_prefix(&self.full_path(dir));
        let options = GetOptions::new().with_prefix().with_keys_only().with_sort(SortTarget::Key, SortOrder::Ascend);
        let answer = self.inner.get(&prefix, Some(options)).await?;
        let keys = answer.kvs().iter().map(|kv| (String::from_utf8_lossy(kv.key()), kv.lease() != 0));
        let entries = paths::entries_under(&prefix, keys, full);
        if entries.is_empty() {
            return Err(TopoError::NoNode { path: prefix });
        }
        Ok(entries)
    }

    async fn create(&self, path: &str, contents: Bytes) -> Result<Version> {
        let key = self.full_path(path);
        let is_new = Compare::version(key.as_str(), CompareOp::Equal, 0);
        let put = TxnOp::put(key.as_str(), contents, None);
        match self.inner.compare_and(&key, is_new, put).await? {
            (true, version) => Ok(version),
            (false, _) => Err(TopoError::NodeExists { path: key }),
        }
    }

    async fn update(&self, path: &str, contents: Bytes, version: Option<Version>) -> Result<Version> {
        let key = self.full_path(path);
        let Some(version) = version else {
            let answer = self
                .inner
                .call(&key, Repeat::IfRefused, || {
                    let (mut kv, key, contents) = (self.inner.kv(), key.clone(), contents.clone());
                    async move { kv.put(key, contents, None).await }
                })
                .await?;
            return Ok(Version(revision(answer.header())));
        };
        let unchanged = Compare::mod_revision(key.as_str(), CompareOp::Equal, version.0);
        let put = TxnOp::put(key.as_str(), contents, None);
        match self.inner.compare_and(&key, unchanged, put).await? {
            (true, version) => Ok(version),
            (false, _) => Err(TopoError::BadVersion { path: key }),
        }
    }

    async fn get(&self, path: &str) -> Result<(Bytes, Version)> {
        let key = self.full_path(path);
        let mut answer = self.inner.get(&key, None).await?;
        match answer.take_kvs().pop() {
            Some(kv) => {
                let version = Version(kv.mod_revision());
                Ok((kv.into_key_value().1.into(), version))
            }
            None => Err(TopoError::NoNode { path: key }),
        }
    }

    async fn delete(&self, path: &str, version: Option<Version>) -> Result<()> {
        let key = self.full_path(path);
        let Some(version) = version else {
            let answer = self
                .inner
                .call(&key, Repeat::IfRefused, || {
                    let (mut kv, key) = (self.inner.kv(), key.clone());
                    async move { kv.delete(key, None).await }
                })
                .await?;
            return if answer.deleted() == 1 { Ok(()) } else { Err(TopoError::NoNode { path: key }) };
        };
        let unchanged = Compare::mod_revision(key.as_str(), CompareOp::Equal, version.0);
        let delete = TxnOp::delete(key.as_str(), None);
        if self.inner.compare_and(&key, unchanged, delete).await?.0 {
            return Ok(());
        }
        match self.get(path).await {
            Ok(_) => Err(TopoError::BadVersion { path: key }),
            Err(error) => Err(error),
        }
    }

    async fn lock(&self, dir: &str, contents: &str, timeout: Duration) -> Result<Box<dyn LockDescriptor>> {
        let key = self.full_path(dir);
        let locking = async {
            self.list_dir(dir, false).await?;
            queue::Place::take(&self.inner, &key, contents).await
        };
        // A wait that is given up drops its place, whose lease is then revoked in the background.
        match tokio::time::timeout(timeout, locking).await {
            Ok(Ok(place)) => Ok(Box::new(place)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(TopoError::Timeout { path: key }),
        }
    }

    async fn watch(&self, path: &str) -> Result<(WatchData, WatchStream)> {
        watch::start(&self.inner, self.full_path(path)).await
    }

    fn leased_key(&self, path: &str) -> Box<dyn LeasedKey> {
        Box::new(leased_key::EtcdLeasedKey::new(self.inner.clone(), self.full_path(path)))
    }

    fn new_master_participation(&self, name: &str, id: &str) -> Arc<dyn MasterParticipation> {
        Arc::new(queue::Candidate::new(self.inner.clone(), self.full_path(&paths::election_dir(name)), id))
    }

    fn full_path(&self, path: &str) -> String {
        join(&self.inner.root, path)
    }
}

/// Puts a key that lives as long as a lease, if it is new; answers with the revision.
async fn create_leased(inner: &Inner, key: &str, contents: &str, lease: i64) -> Result<i64> {
    let is_new = Compare::version(key, CompareOp::Equal, 0);
    let put = TxnOp::put(key, contents, Some(PutOptions::new().with_lease(lease)));
    match inner.compare_and(key, is_new, put).await? {
        (true, version) => Ok(version.0),
        (false, _) => Err(TopoError::NodeExists { path: key.to_owned() }),
    }
}
