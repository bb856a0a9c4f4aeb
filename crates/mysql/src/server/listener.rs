//! Accepting connections.

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_util::sync::CancellationToken;
use vterrors::MysqlError;

use super::handshake::{self, LoginError};
use super::registry::{Killed, Registered, Registry};
use super::{Handler, ServerConfig, connection};
use crate::constants::errno;
use crate::stream::Socket;

/// A host that has vanished without a word is noticed after this time and some probes.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// Pause after a failed accept: out of file descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Bound on telling a client that it is one too many.
const REFUSE_TIME: Duration = Duration::from_secs(1);

/// Accepts connections and runs their commands through a [`Handler`]. One server may have several listeners; they
/// share its bound on connections and its connection ids.
#[derive(Debug)]
pub struct Server<H> {
    handler: Arc<H>,
    config: Arc<ServerConfig>,
    registry: Arc<Registry>,
    slow_logins: AtomicU64,
}

impl<H: Handler> Server<H> {
    pub fn new(config: ServerConfig, handler: Arc<H>) -> Arc<Self> {
        Arc::new(Self { handler, config: Arc::new(config), registry: Arc::default(), slow_logins: AtomicU64::new(0) })
    }

    /// Accepts until `stop`; connections that are open then stay open ([`Server::drain`]).
    pub async fn serve_tcp(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Err(error) = prepare_tcp(&stream) {
                        tracing::debug!(%peer, %error, "connection lost before its greeting");
                        continue;
                    }
                    // An IPv4 client of an IPv6 socket is shown as the IPv4 client it is.
                    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                    self.clone().spawn(Socket::Tcp(stream), peer.to_string());
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a MySQL connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Like [`Server::serve_tcp`] for a unix socket ([`bind_unix`]).
    pub async fn serve_unix(self: Arc<Self>, listener: UnixListener, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => self.clone().spawn(Socket::Unix(stream), "localhost".into()),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a MySQL connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// The task lives as long as the connection, which the registry knows and [`Server::drain`] ends.
    fn spawn(self: Arc<Self>, socket: Socket, peer: String) {
        match self.registry.register(self.config.max_connections) {
            Some(registered) => {
                tokio::spawn(async move {
                    // The login's future is large and short-lived, the connection's small and long-lived.
                    if let Some((registered, logged_in)) = Box::pin(self.login(socket, peer, registered)).await {
                        connection::serve(
                            self.handler.clone(),
                            self.config.clone(),
                            self.registry.clone(),
                            registered,
                            logged_in,
                        )
                        .await;
                    }
                });
            }
            None => {
                tracing::warn!(peer, max = self.config.max_connections, "too many MySQL connections");
                tokio::spawn(async move {
                    let refusal = handshake::refuse(socket, errno::CON_COUNT, "Too many connections");
                    // A client that does not read is not waited for.
                    let _ = tokio::time::timeout(REFUSE_TIME, refusal).await;
                });
            }
        }
    }

    async fn login(
        &self,
        socket: Socket,
        peer: String,
        registered: Registered,
    ) -> Option<(Registered, handshake::LoggedIn)> {
        let started = Instant::now();
        let close = registered.entry.close.clone();
        let login = handshake::login(socket, peer.clone(), registered.entry.id, &self.config);
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(self.config.connect_timeout, login) => outcome,
            () = close.cancelled() => return None,
        };
        match outcome {
            Ok(Ok(logged_in)) => {
                let took = started.elapsed();
                if self.config.slow_connect_warn.is_some_and(|limit| took > limit) {
                    self.slow_logins.fetch_add(1, Ordering::Relaxed);
                    tracing::warn!(peer, user = logged_in.info.user, ?took, "slow MySQL login");
                }
                return Some((registered, logged_in));
            }
            Ok(Err((LoginError::Silent, _))) => {}
            Ok(Err((LoginError::Refused(error), Some(mut output)))) => {
                tracing::info!(peer, %error, "MySQL login refused");
                output.put_error(&error);
                let _ = tokio::time::timeout(REFUSE_TIME, output.flush()).await;
            }
            Ok(Err((error, _))) => tracing::info!(peer, %error, "MySQL login failed"),
            Err(_) => tracing::info!(peer, "MySQL login took longer than the connect timeout"),
        }
        None
    }

    /// Closes idle connections, lets running statements and open transactions end, and closes what is left after
    /// `grace`. Stop accepting before. Returns when every connection has ended, [`Handler::closed`] included.
    pub async fn drain(&self, grace: Duration) {
        self.registry.start_draining();
        if tokio::time::timeout(grace, self.registry.empty()).await.is_err() {
            tracing::warn!(left = self.registry.len(), "closing MySQL connections that did not end");
            self.registry.kill_all();
            // Statements get their own grace to stop; a handler that ignores it is left behind.
            let _ = tokio::time::timeout(self.config.cancel_grace * 2, self.registry.empty()).await;
        }
    }

    /// KILL (`query_only` false) or KILL QUERY. `by`: the user who asks, who may kill only their own; `None` for one who
    /// may kill any.
    ///
    /// Errors: MySQL's `Unknown thread id` and `You are not owner of thread`.
    pub fn kill(&self, connection_id: u64, query_only: bool, by: Option<&str>) -> Result<(), MysqlError> {
        match u32::try_from(connection_id) {
            Ok(id) => self.registry.kill(id, query_only, by),
            Err(_) => Killed::NoSuchConnection,
        }
        .into_result(connection_id)
    }

    /// Open connections, those logging in included.
    pub fn connection_count(&self) -> usize {
        self.registry.len()
    }

    /// Logins that took longer than [`ServerConfig::slow_connect_warn`].
    pub fn slow_logins(&self) -> u64 {
        self.slow_logins.load(Ordering::Relaxed)
    }

    pub fn handler(&self) -> &Arc<H> {
        &self.handler
    }
}

fn prepare_tcp(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}

/// Binds a unix socket that everybody may connect to. A stale socket file is removed when nobody accepts on it.
///
/// Errors: `AddrInUse` when somebody does.
pub fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if std::os::unix::net::UnixStream::connect(path).is_ok() {
                return Err(error);
            }
            std::fs::remove_file(path)?;
            UnixListener::bind(path)?
        }
        other => other?,
    };
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777))?;
    Ok(listener)
}
