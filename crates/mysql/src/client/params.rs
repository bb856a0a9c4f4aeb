//! Where and how to connect.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::constants::DEFAULT_MAX_ALLOWED_PACKET;

/// TLS towards mysqld.
#[derive(Clone)]
pub struct ClientTls {
    pub config: Arc<rustls::ClientConfig>,
    /// The name the server's certificate has to carry.
    pub server_name: String,
}

impl std::fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientTls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// What [`super::Connection::connect`] needs. `Debug` does not show the password.
#[derive(Clone)]
pub struct ConnectParams {
    /// The unix socket; when set, `host`, `port` and `tls` are not used.
    pub socket: Option<PathBuf>,
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    /// Database to start in; empty for none.
    pub db_name: String,
    /// rows_affected counts matched rows.
    pub client_found_rows: bool,
    /// Allow several statements in one text ([`super::Connection::query_multi`]).
    pub multi_statements: bool,
    /// Character set by name (`utf8`, `utf8mb4`, …), or a collation id in digits. Empty is `utf8mb4`, of which MySQL's old `utf8` is a part.
    pub charset: String,
    /// Bound on connecting, handshake included.
    pub connect_timeout: Duration,
    pub tls: Option<ClientTls>,
    /// Largest statement or row, bytes.
    pub max_allowed_packet: usize,
}

impl Default for ConnectParams {
    fn default() -> Self {
        Self {
            socket: None,
            host: String::new(),
            port: 3306,
            user: String::new(),
            password: String::new(),
            db_name: String::new(),
            client_found_rows: false,
            multi_statements: true,
            charset: "utf8mb4".into(),
            connect_timeout: Duration::from_secs(30),
            tls: None,
            max_allowed_packet: DEFAULT_MAX_ALLOWED_PACKET,
        }
    }
}

impl ConnectParams {
    /// By unix socket, which is how a tablet reaches its mysqld.
    pub fn unix(socket: impl Into<PathBuf>, user: impl Into<String>) -> Self {
        Self { socket: Some(socket.into()), user: user.into(), ..Self::default() }
    }

    pub fn tcp(host: impl Into<String>, port: u16, user: impl Into<String>) -> Self {
        Self { host: host.into(), port, user: user.into(), ..Self::default() }
    }

    /// The same, starting in a database.
    #[must_use]
    pub fn database(mut self, name: impl Into<String>) -> Self {
        self.db_name = name.into();
        self
    }
}

impl std::fmt::Debug for ConnectParams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectParams")
            .field("socket", &self.socket)
            .field("host", &self.host)
            .field("port", &self.port)
            .field("user", &self.user)
            .field("db_name", &self.db_name)
            .field("charset", &self.charset)
            .field("tls", &self.tls)
            .finish_non_exhaustive()
    }
}
