//! A lease which is kept alive until it is released.
//!
//! Invariants: a lease that goes out of scope is revoked in the background, and expires by itself if
//! etcd cannot be reached; a lease that could not be extended for its whole time counts as lost.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use etcd_client::Error as EtcdError;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{GrpcCode, Inner, RETRY_PAUSE, Repeat, convert, is_disconnected, status_code};
use crate::error::{Result, TopoError};

/// What is waited for the answer to one keep-alive.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Lease {
    id: i64,
    inner: Arc<Inner>,
    health: Arc<Health>,
    keeper: CancellationToken,
    released: AtomicBool,
}

/// What the keeper knows of a lease.
struct Health {
    ttl: Duration,
    /// When the last request that was answered had been sent: the lease lives for its ttl from then on.
    extended_at: Mutex<Instant>,
    /// Cancelled when the server no longer has the lease, or its time ran out unextended.
    lost: CancellationToken,
}

impl Health {
    fn extended_at(&self) -> Instant {
        *self.extended_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn extended(&self, sent_at: Instant) {
        *self.extended_at.lock().unwrap_or_else(PoisonError::into_inner) = sent_at;
    }

    fn is_lost(&self) -> bool {
        self.lost.is_cancelled() || self.extended_at().elapsed() > self.ttl
    }
}

/// Why a keep-alive stream ended.
enum End {
    /// The server does not have the lease.
    Gone,
    Broken(EtcdError),
    Silent,
}

impl Lease {
    /// A lease of the time that `-topo_etcd_lease_ttl` says.
    pub(super) async fn grant(inner: &Arc<Inner>, path: &str) -> Result<Self> {
        Self::grant_for(inner, path, inner.lease_ttl_seconds).await
    }

    pub(super) async fn grant_for(inner: &Arc<Inner>, path: &str, ttl_seconds: i64) -> Result<Self> {
        let sent_at = Instant::now();
        let granted = inner
            .call(path, Repeat::Safe, || {
                let mut leases = inner.client.lease_client();
                async move { leases.grant(ttl_seconds, None).await }
            })
            .await?;
        let ttl = Duration::from_secs(granted.ttl().max(1).unsigned_abs());
        let health = Arc::new(Health { ttl, extended_at: Mutex::new(sent_at), lost: CancellationToken::new() });
        let keeper = CancellationToken::new();
        let keeping = keep(inner.clone(), granted.id(), health.clone());
        tokio::spawn(keeper.clone().run_until_cancelled_owned(keeping));
        Ok(Self { id: granted.id(), inner: inner.clone(), health, keeper, released: AtomicBool::new(false) })
    }

    pub(super) fn id(&self) -> i64 {
        self.id
    }

    pub(super) fn is_lost(&self) -> bool {
        self.health.is_lost()
    }

    /// Cancelled when the lease is lost.
    pub(super) fn loss(&self) -> CancellationToken {
        self.health.lost.clone()
    }

    /// Resolves when the lease is lost.
    pub(super) async fn lost(&self) {
        self.health.lost.cancelled().await;
    }

    /// Asks the server, which extends the lease if it has it.
    pub(super) async fn check(&self, path: &str) -> Result<()> {
        let sent_at = Instant::now();
        let kept = self
            .inner
            .call(path, Repeat::Safe, || {
                let (mut leases, id) = (self.inner.client.lease_client(), self.id);
                async move {
                    match leases.keep_alive(id).await {
                        Ok(_) => Ok(true),
                        Err(EtcdError::LeaseKeepAliveError(_)) => Ok(false),
                        Err(error) => Err(error),
                    }
                }
            })
            .await?;
        if !kept {
            self.health.lost.cancel();
            return Err(TopoError::LockLost { path: path.to_owned() });
        }
        self.health.extended(sent_at);
        Ok(())
    }

    /// Gives the lease and its keys back. `LockLost` when the server did not have it any more.
    pub(super) async fn release(self, path: &str) -> Result<()> {
        self.released.store(true, Ordering::Relaxed);
        self.keeper.cancel();
        revoke(&self.inner, self.id, path).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.keeper.cancel();
        if self.released.load(Ordering::Relaxed) {
            return;
        }
        // Without a runtime (at exit) the lease expires by itself.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (inner, id) = (self.inner.clone(), self.id);
            runtime.spawn(async move {
                if let Err(error) = revoke(&inner, id, &inner.root).await {
                    debug!(lease = id, %error, "a lease was left to expire");
                }
            });
        }
    }
}

async fn revoke(inner: &Inner, id: i64, path: &str) -> Result<()> {
    let attempts = std::sync::atomic::AtomicUsize::new(0);
    inner
        .call(path, Repeat::Safe, || {
            let mut leases = inner.client.lease_client();
            let repeated = attempts.fetch_add(1, Ordering::Relaxed) > 0;
            async move {
                match leases.revoke(id).await {
                    Ok(_) => Ok(()),
                    // An earlier attempt did it and only its answer was lost.
                    Err(error) if repeated && status_code(&error) == GrpcCode::NotFound => Ok(()),
                    Err(error) => Err(error),
                }
            }
        })
        .await
        .map_err(|error| match error {
            TopoError::NoNode { .. } => TopoError::LockLost { path: path.to_owned() },
            error => error,
        })
}

/// Extends a lease three times in its life until it is gone.
async fn keep(inner: Arc<Inner>, id: i64, health: Arc<Health>) {
    let interval = health.ttl / 3;
    loop {
        match keep_on_one_stream(&inner, id, &health, interval).await {
            End::Gone => break,
            End::Broken(error) if !is_disconnected(&error) => {
                debug!(lease = id, error = %convert(error, &inner.root), "keep-alive refused");
            }
            End::Broken(_) | End::Silent => {}
        }
        if health.is_lost() {
            break;
        }
        tokio::time::sleep(RETRY_PAUSE.min(interval)).await;
    }
    warn!(lease = id, root = inner.root, "a lease was lost: its locks may be taken by others");
    health.lost.cancel();
}

async fn keep_on_one_stream(inner: &Inner, id: i64, health: &Health, interval: Duration) -> End {
    let answer_timeout = ANSWER_TIMEOUT.min(interval.max(RETRY_PAUSE));
    let sent_at = Instant::now();
    let mut leases = inner.client.lease_client();
    // The first request is sent with the stream, and its answer is awaited.
    let (mut keeper, mut answers) = match tokio::time::timeout(answer_timeout, leases.keep_alive(id)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(EtcdError::LeaseKeepAliveError(_))) => return End::Gone,
        Ok(Err(error)) => return End::Broken(error),
        Err(_) => return End::Silent,
    };
    health.extended(sent_at);
    loop {
        tokio::time::sleep(interval).await;
        let sent_at = Instant::now();
        if let Err(error) = keeper.keep_alive().await {
            return End::Broken(error);
        }
        match tokio::time::timeout(answer_timeout, answers.message()).await {
            Ok(Ok(Some(answer))) if answer.ttl() > 0 => health.extended(sent_at),
            Ok(Ok(Some(_))) => return End::Gone,
            Ok(Err(error)) => return End::Broken(error),
            Ok(Ok(None)) | Err(_) => return End::Silent,
        }
    }
}
