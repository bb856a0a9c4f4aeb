//! Channels to other servers.

use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::{CONNECTION_WINDOW, ClientAuth, STREAM_WINDOW, read, window};
use crate::{Error, Parsed};

/// The files of a TLS client, already read. Nothing set is plain HTTP/2.
#[derive(Clone, Default)]
pub struct Tls {
    identity: Option<Identity>,
    ca: Option<Certificate>,
    server_name: String,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").field("on", &self.is_on()).field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files of `-<prefix>_{cert,key,ca,server_name}`; `prefix` is `tablet_grpc`,
    /// `vtctld_grpc` and so on.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn from_flags(flags: &Parsed, prefix: &str) -> Result<Self, Error> {
        let file = |suffix: &str| {
            let flag = format!("{prefix}_{suffix}");
            match flags.str(&flag) {
                "" => Ok(None),
                path => read(&flag, path).map(Some),
            }
        };
        let identity = file("cert")?.zip(file("key")?).map(|(cert, key)| Identity::from_pem(cert, key));
        let ca = file("ca")?.map(Certificate::from_pem);
        Ok(Self { identity, ca, server_name: flags.str(&format!("{prefix}_server_name")).into() })
    }

    /// Vitess's rule: a certificate with its key, or an authority, turns TLS on.
    pub fn is_on(&self) -> bool {
        self.identity.is_some() || self.ca.is_some()
    }

    fn config(&self) -> ClientTlsConfig {
        let mut config = ClientTlsConfig::new();
        if let Some(identity) = &self.identity {
            config = config.identity(identity.clone());
        }
        if let Some(ca) = &self.ca {
            config = config.ca_certificate(ca.clone());
        }
        if !self.server_name.is_empty() {
            config = config.domain_name(&self.server_name);
        }
        config
    }
}

/// How this program calls others. Clones share what was read.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    pub tls: Tls,
    pub auth: ClientAuth,
    /// Bytes, both ways: give it to `max_decoding_message_size` and `max_encoding_message_size` of
    /// the generated client.
    pub max_message_size: usize,
    /// Time without traffic after which the connection is checked; `None` is never.
    pub keepalive_time: Option<Duration>,
    /// How long a check may take.
    pub keepalive_timeout: Duration,
    /// Limit of one attempt to connect.
    pub connect_timeout: Duration,
    stream_window: u32,
    connection_window: u32,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            tls: Tls::default(),
            auth: ClientAuth::default(),
            max_message_size: 128 << 20,
            keepalive_time: None,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
        }
    }
}

/// gRPC's default for `-grpc_keepalive_timeout=0`.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// gRPC's minimum time for one attempt to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

impl ClientOptions {
    /// Reads the client flags and the TLS flags of one prefix (`tablet_grpc`, `vtctld_grpc`, …).
    ///
    /// # Errors
    /// A file of TLS or of credentials cannot be read.
    pub fn from_flags(flags: &Parsed, tls_prefix: &str) -> Result<Self, Error> {
        let positive = |name: &str| Some(flags.duration(name)).filter(|duration| !duration.is_zero());
        Ok(Self {
            tls: Tls::from_flags(flags, tls_prefix)?,
            auth: ClientAuth::read(flags.str("grpc_auth_static_client_creds"))?,
            max_message_size: flags.size("grpc_max_message_size"),
            keepalive_time: positive("grpc_keepalive_time"),
            keepalive_timeout: positive("grpc_keepalive_timeout").unwrap_or(KEEPALIVE_TIMEOUT),
            connect_timeout: CONNECT_TIMEOUT,
            stream_window: window(flags, "grpc_initial_window_size", STREAM_WINDOW),
            connection_window: window(flags, "grpc_initial_conn_window_size", CONNECTION_WINDOW),
        })
    }

    /// The endpoint of an address such as `host:15999`, `:15999` (this machine) or `[::1]:15999`.
    ///
    /// # Errors
    /// The address or the TLS files are malformed.
    pub fn endpoint(&self, address: &str) -> Result<Endpoint, Error> {
        let host = if address.starts_with(':') { "localhost" } else { "" };
        let scheme = if self.tls.is_on() { "https" } else { "http" };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{host}{address}"))
            .map_err(|error| Error::Flag { flag: "server".into(), problem: format!("{address}: {error}") })?
            .tcp_nodelay(true)
            .connect_timeout(self.connect_timeout)
            .initial_stream_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window);
        if let Some(time) = self.keepalive_time {
            endpoint = endpoint
                .http2_keep_alive_interval(time)
                .keep_alive_timeout(self.keepalive_timeout)
                .keep_alive_while_idle(true);
        }
        if self.tls.is_on() {
            endpoint = endpoint.tls_config(self.tls.config()).map_err(|error| Error::Tls(chain(&error)))?;
        }
        Ok(endpoint)
    }

    /// A channel that connects at its first call and again after a loss.
    ///
    /// # Errors
    /// As [`ClientOptions::endpoint`].
    pub fn channel(&self, address: &str) -> Result<Channel, Error> {
        Ok(self.endpoint(address)?.connect_lazy())
    }
}

/// An error with everything that caused it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
