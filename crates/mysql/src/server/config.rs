//! Settings of the MySQL server side.

use std::sync::Arc;
use std::time::Duration;

use super::AuthServer;
use crate::constants::DEFAULT_MAX_ALLOWED_PACKET;

/// One listener's settings.
#[derive(Clone)]
pub struct ServerConfig {
    /// -mysql_server_version
    pub server_version: String,
    pub auth: AuthServer,
    /// -mysql_server_ssl_cert, _key, _ca; none: clients that ask for TLS do not find it offered.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// -mysql_server_require_secure_transport: TCP connections without TLS are refused with errno 3159.
    pub require_secure_transport: bool,
    /// Connections open at once, 0 for no bound; one more gets errno 1040.
    pub max_connections: usize,
    /// Largest command, bytes; more gets errno 1153 and the connection closes.
    pub max_allowed_packet: usize,
    /// Bound on handshake and login.
    pub connect_timeout: Duration,
    /// -mysql_server_read_timeout: longest wait for a client's next bytes, also between commands. `None`: no bound.
    pub read_timeout: Option<Duration>,
    /// -mysql_server_write_timeout: longest time one write may stall on a client that does not read.
    pub write_timeout: Option<Duration>,
    /// -mysql_slow_connect_warn_threshold: logins that take longer are logged.
    pub slow_connect_warn: Option<Duration>,
    /// Prepared statements of one connection; one more gets errno 1461.
    pub max_prepared_statements: usize,
    /// How long a statement may go on after its client has gone or was killed, before its future is dropped.
    pub cancel_grace: Duration,
}

impl ServerConfig {
    pub fn new(auth: AuthServer) -> Self {
        Self {
            server_version: "5.7.9-Vitess".into(),
            auth,
            tls: None,
            require_secure_transport: false,
            max_connections: 0,
            max_allowed_packet: DEFAULT_MAX_ALLOWED_PACKET,
            connect_timeout: Duration::from_secs(10),
            read_timeout: None,
            write_timeout: None,
            slow_connect_warn: None,
            max_prepared_statements: 16_382,
            cancel_grace: Duration::from_secs(10),
        }
    }
}

impl std::fmt::Debug for ServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerConfig")
            .field("server_version", &self.server_version)
            .field("auth", &self.auth)
            .field("tls", &self.tls.is_some())
            .field("max_connections", &self.max_connections)
            .finish_non_exhaustive()
    }
}
