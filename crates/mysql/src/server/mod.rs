//! The MySQL server side: what a client of vtgate talks to.

mod auth;
mod config;
mod handler;
mod writer;

pub use auth::{AuthError, AuthServer, Identity};
pub use config::ServerConfig;
pub use handler::{ConnectionInfo, Handler, HandlerError, Prepared};
pub use writer::{OkInfo, ResultWriter};

use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

/// Accepts connections and runs their commands through a [`Handler`].
#[derive(Debug)]
pub struct Server<H> {
    _handler: Arc<H>,
}

impl<H: Handler> Server<H> {
    pub fn new(_config: ServerConfig, _handler: Arc<H>) -> Arc<Self> {
        unimplemented!()
    }
    /// Accepts until `stop`; connections that are open then stay open ([`Server::drain`]).
    pub async fn serve_tcp(self: Arc<Self>, _listener: TcpListener, _stop: CancellationToken) {
        unimplemented!()
    }
    pub async fn serve_unix(self: Arc<Self>, _listener: UnixListener, _stop: CancellationToken) {
        unimplemented!()
    }
    /// Closes idle connections, lets running statements and open transactions end, and closes what is left after
    /// `grace`.
    pub async fn drain(&self, _grace: std::time::Duration) {
        unimplemented!()
    }
    /// KILL (`query_only` false) or KILL QUERY; false when there is no such connection.
    pub fn kill(&self, _connection_id: u32, _query_only: bool) -> bool {
        unimplemented!()
    }
    /// Open connections, for metrics.
    pub fn connection_count(&self) -> usize {
        unimplemented!()
    }
}

/// Binds a unix socket that everybody may connect to. A stale socket file is removed when nobody accepts on it.
pub fn bind_unix(_path: &std::path::Path) -> std::io::Result<UnixListener> {
    unimplemented!()
}
