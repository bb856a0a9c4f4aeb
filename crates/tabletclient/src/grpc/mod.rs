//! The query service over gRPC: [`dial`] makes a client of a tablet, [`QueryServer`] serves one.
//!
//! Owns: connection settings and how a broken connection looks to the caller. What the calls mean
//! is [`crate::QueryService`]'s business.

mod client;
mod server;

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

pub use client::GrpcTablet;
pub use server::QueryServer;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use vterrors::{Code, Result, VtError, go_code_name};
use vtproto::topodata::Tablet;

use crate::QueryService;

/// What an error text holds when the request has certainly not reached the tablet.
pub(crate) const NEVER_SENT: &str = "all SubConns are in TransientFailure, latest connection error:";
/// What an error text holds when the connection broke with the request on its way.
pub(crate) const CLOSING: &str = "transport is closing";

/// Certificates for connections to tablets: the `-tablet_grpc_{ca,cert,key,server_name}` flags.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// PEM file of the authorities to trust.
    pub ca: Option<PathBuf>,
    /// PEM files of the client's own certificate, where the tablet asks for one.
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    /// The name expected in the tablet's certificate, when it is not its host name.
    pub server_name: Option<String>,
}

impl TlsOptions {
    /// Whether any of the flags was given: only then are connections encrypted.
    pub fn is_set(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.server_name.is_some()
    }
}

/// A user name and password sent with every call (`-grpc_auth_static_client_creds`).
#[derive(Clone)]
pub struct StaticCreds {
    pub username: String,
    pub password: String,
}

impl StaticCreds {
    /// Reads the file of `-grpc_auth_static_client_creds`: `{"Username": …, "Password": …}`. An empty path is nobody.
    ///
    /// # Errors
    /// INVALID_ARGUMENT naming the flag and what is wrong with the file.
    pub fn read(path: &str) -> Result<Option<Self>> {
        if path.is_empty() {
            return Ok(None);
        }
        let problem = |problem: &dyn fmt::Display| {
            VtError::new(Code::InvalidArgument, format!("-grpc_auth_static_client_creds: {path}: {problem}"))
        };
        let text = std::fs::read_to_string(path).map_err(|error| problem(&error))?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| problem(&error))?;
        let field = |name: &str| {
            value[name].as_str().map(str::to_owned).ok_or_else(|| problem(&format_args!("{name} is missing")))
        };
        Ok(Some(Self { username: field("Username")?, password: field("Password")? }))
    }
}

impl fmt::Debug for StaticCreds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticCreds").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Told of every unary call how much of its time was spent on the way: what the caller waited less the time that the tablet
/// had the request for. Only a tablet that speaks the framed transport says how long that was.
#[derive(Clone)]
pub struct HopObserver(Arc<dyn Fn(Duration) + Send + Sync>);

impl HopObserver {
    pub fn new(note: impl Fn(Duration) + Send + Sync + 'static) -> Self {
        Self(Arc::new(note))
    }

    pub(crate) fn note(&self, hop: Duration) {
        (self.0)(hop);
    }
}

impl fmt::Debug for HopObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HopObserver").finish_non_exhaustive()
    }
}

/// How to connect to tablets.
#[derive(Debug, Clone)]
pub struct DialOptions {
    /// Connections to one tablet, used in turn. One HTTP/2 connection is driven by one task, which
    /// is what limits the rate of small calls.
    pub channels: usize,
    /// Largest message either way, in bytes (`-grpc_max_message_size`).
    pub max_message_size: usize,
    /// HTTP/2 flow control window of one call, in bytes (`-grpc_initial_window_size`).
    pub stream_window: u32,
    /// HTTP/2 flow control window of a connection, in bytes (`-grpc_initial_conn_window_size`).
    pub connection_window: u32,
    /// HTTP/2 pings on a silent connection (`-grpc_keepalive_time`); none by default, because Go
    /// servers end a connection that pings more often than they allow. TCP keepalive is always on.
    pub keepalive_time: Option<Duration>,
    /// How long to wait for the answer to a ping (`-grpc_keepalive_timeout`).
    pub keepalive_timeout: Duration,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// Deadline of every unary call that has no other; none leaves it to the caller.
    pub call_timeout: Option<Duration>,
    pub tls: Option<TlsOptions>,
    pub creds: Option<StaticCreds>,
    pub hop: Option<HopObserver>,
}

impl Default for DialOptions {
    fn default() -> Self {
        Self {
            channels: 4,
            max_message_size: 128 << 20,
            stream_window: 1024 * 1024,
            connection_window: 4 * 1024 * 1024,
            keepalive_time: None,
            keepalive_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            call_timeout: None,
            tls: None,
            creds: None,
            hop: None,
        }
    }
}

/// The `host:port` of a tablet's gRPC server.
///
/// # Errors
/// FAILED_PRECONDITION when its record names no host or no `grpc` port.
pub fn grpc_address(tablet: &Tablet) -> Result<String> {
    let alias = crate::alias_text(tablet.alias.as_ref());
    if tablet.hostname.is_empty() {
        return Err(VtError::new(Code::FailedPrecondition, format!("tablet {alias} has no host name in its record")));
    }
    let port = tablet.port_map.get("grpc").filter(|port| **port > 0).ok_or_else(|| {
        VtError::new(Code::FailedPrecondition, format!("tablet {alias} has no grpc port in its record"))
    })?;
    let host = &tablet.hostname;
    // An IPv6 address needs brackets in front of a port.
    Ok(if host.contains(':') && !host.starts_with('[') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// An endpoint with everything of `options` but the number of channels and the credentials.
///
/// # Errors
/// INVALID_ARGUMENT for an address or a certificate that cannot be used.
pub fn endpoint(address: &str, options: &DialOptions) -> Result<Endpoint> {
    let tls = options.tls.as_ref().filter(|tls| tls.is_set());
    let scheme = if tls.is_some() { "https" } else { "http" };
    let invalid = |what: &str, error: &dyn fmt::Display| {
        VtError::new(Code::InvalidArgument, format!("cannot connect to {address}: {what}: {error}"))
    };
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(|e| invalid("address", &e))?
        .tcp_nodelay(true)
        .tcp_keepalive(Some(Duration::from_secs(10)))
        .tcp_keepalive_interval(Some(Duration::from_secs(10)))
        .tcp_keepalive_retries(Some(3))
        .connect_timeout(options.connect_timeout)
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window);
    if let Some(interval) = options.keepalive_time {
        endpoint = endpoint
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(options.keepalive_timeout)
            .keep_alive_while_idle(true);
    }
    if let Some(timeout) = options.call_timeout {
        endpoint = endpoint.timeout(timeout);
    }
    if let Some(tls) = tls {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|e| invalid(&path.display().to_string(), &e));
        let mut config = ClientTlsConfig::new();
        if let Some(ca) = &tls.ca {
            config = config.ca_certificate(Certificate::from_pem(read(ca)?));
        }
        if let (Some(cert), Some(key)) = (&tls.cert, &tls.key) {
            config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
        }
        if let Some(name) = &tls.server_name {
            config = config.domain_name(name.clone());
        }
        endpoint = endpoint.tls_config(config).map_err(|e| invalid("TLS", &e))?;
    }
    Ok(endpoint)
}

/// A client of a tablet's query service. Connects when first used, and again after every failure.
///
/// # Errors
/// FAILED_PRECONDITION for a record without an address, INVALID_ARGUMENT for certificates that
/// cannot be read. A tablet that does not answer shows in the calls.
pub fn dial(tablet: &Tablet, options: &DialOptions) -> Result<Arc<dyn QueryService>> {
    let endpoint = endpoint(&grpc_address(tablet)?, options)?;
    let channels: Vec<Channel> = (0..options.channels.max(1)).map(|_| endpoint.connect_lazy()).collect();
    Ok(Arc::new(GrpcTablet::new(channels, options)))
}

/// The error of a call as vtgate reports it: `vttablet: rpc error: code = C desc = TEXT`. A failure
/// of the connection becomes UNAVAILABLE; [`never_sent`] tells whether the tablet saw the request.
pub fn tablet_error(status: &tonic::Status) -> VtError {
    // A status that came from the tablet has no source; one made by our own transport has.
    let mut source = std::error::Error::source(status);
    if source.is_none() {
        return VtError::from_tablet_status(status);
    }
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return local_error(Code::Unavailable, &format!("{NEVER_SENT} {}", innermost(error)));
        }
        if error.is::<tonic::TimeoutExpired>() {
            return local_error(Code::DeadlineExceeded, "context deadline exceeded");
        }
        source = error.source();
    }
    match status.code() {
        // Messages over the size limit and undecodable ones are also found on our side.
        tonic::Code::OutOfRange | tonic::Code::ResourceExhausted => {
            local_error(Code::ResourceExhausted, status.message())
        }
        tonic::Code::Cancelled | tonic::Code::DeadlineExceeded => VtError::from_tablet_status(status),
        _ => local_error(Code::Unavailable, CLOSING),
    }
}

/// An error as a client of a tablet words it, whoever found it.
pub(crate) fn local_error(code: Code, text: &str) -> VtError {
    VtError::new(code, format!("vttablet: rpc error: code = {} desc = {text}", go_code_name(code)))
}

/// Whether a call failed before the tablet could have acted on it, so that even a write may be
/// tried elsewhere.
pub fn never_sent(error: &VtError) -> bool {
    error.code() == Code::Unavailable && error.message().contains(NEVER_SENT)
}

/// Whether the connection broke under a call: the tablet may or may not have acted on it.
pub fn connection_lost(error: &VtError) -> bool {
    error.code() == Code::Unavailable && error.message().contains(CLOSING)
}

fn innermost<'a>(mut error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
