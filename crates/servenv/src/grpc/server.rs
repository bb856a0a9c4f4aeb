//! The server of `-grpc_port` and `-socket_file`.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::net::{TcpListener, UnixListener};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use super::auth::{MtlsAuth, StaticAuth};
use super::{CONNECTION_WINDOW, STREAM_WINDOW, read, window};
use crate::{Error, Parsed};

/// What the flags say about the server; files are read before a port is bound.
#[derive(Clone)]
pub(crate) struct ServerSettings {
    tls: Option<ServerTlsConfig>,
    auth: Option<Auth>,
    max_connection_age: Option<Duration>,
    max_connection_age_grace: Option<Duration>,
    stream_window: u32,
    connection_window: u32,
}

/// How callers prove who they are.
#[derive(Clone)]
enum Auth {
    Static(StaticAuth),
    Mtls(MtlsAuth),
}

impl ServerSettings {
    pub(crate) fn from_flags(flags: &Parsed) -> Result<Self, Error> {
        let auth = match flags.str("grpc_auth_mode") {
            "" => None,
            "static" => Some(Auth::Static(StaticAuth::read(flags.str("grpc_auth_static_password_file"))?)),
            "mtls" => Some(Auth::Mtls(MtlsAuth::new(flags.str("grpc_auth_mtls_allowed_substrings"))?)),
            mode => {
                let problem = format!("no AuthPlugin name {mode} registered; static and mtls are");
                return Err(Error::Flag { flag: "grpc_auth_mode".into(), problem });
            }
        };
        // 292 years is Go's "never".
        let age = |name: &str| Some(flags.duration(name)).filter(|age| *age < Duration::from_nanos(i64::MAX as u64));
        Ok(Self {
            tls: tls(flags)?,
            auth,
            max_connection_age: age("grpc_max_connection_age"),
            max_connection_age_grace: age("grpc_max_connection_age_grace"),
            stream_window: window(flags, "grpc_server_initial_window_size", STREAM_WINDOW),
            connection_window: window(flags, "grpc_server_initial_conn_window_size", CONNECTION_WINDOW),
        })
    }
}

fn tls(flags: &Parsed) -> Result<Option<ServerTlsConfig>, Error> {
    let (cert, key, ca) = (flags.str("grpc_cert"), flags.str("grpc_key"), flags.str("grpc_ca"));
    if cert.is_empty() || key.is_empty() {
        return Ok(None);
    }
    let identity = Identity::from_pem(read("grpc_cert", cert)?, read("grpc_key", key)?);
    let mut config = ServerTlsConfig::new().identity(identity);
    if !ca.is_empty() {
        // Clients then have to show a certificate of this authority.
        config = config.client_ca_root(Certificate::from_pem(read("grpc_ca", ca)?));
    }
    Ok(Some(config))
}

/// Refuses calls without valid credentials.
async fn authenticate(State(auth): State<Auth>, request: Request, next: Next) -> Response {
    let outcome = match &auth {
        Auth::Static(auth) => auth.check(request.headers()),
        Auth::Mtls(auth) => auth.check(request.extensions()),
    };
    match outcome {
        Ok(()) => next.run(request).await,
        Err(status) => status.into_http::<axum::body::Body>().into_response(),
    }
}

/// Serves until `stop`, then finishes the calls under way; streams without an end keep it waiting,
/// so the caller bounds the wait.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Routes,
    settings: ServerSettings,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut builder = builder(&settings);
    if let Some(tls) = settings.tls {
        builder = builder.tls_config(tls).map_err(|error| Error::Tls(super::client::chain(&error)))?;
    }
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true)).with_keepalive(Some(TCP_KEEPALIVE));
    builder
        .add_routes(guarded(routes, settings.auth))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
        .map_err(|error| Error::Grpc(super::client::chain(&error)))
}

/// The same on a local socket, without TLS: only who may open the file gets in.
pub(crate) async fn serve_socket(
    listener: UnixListener,
    routes: Routes,
    settings: ServerSettings,
    stop: CancellationToken,
) -> Result<(), Error> {
    builder(&settings)
        .add_routes(guarded(routes, settings.auth))
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), stop.cancelled_owned())
        .await
        .map_err(|error| Error::Grpc(super::client::chain(&error)))
}

fn builder(settings: &ServerSettings) -> tonic::transport::Server {
    let mut builder = tonic::transport::Server::builder()
        .initial_stream_window_size(settings.stream_window)
        .initial_connection_window_size(settings.connection_window);
    if let Some(age) = settings.max_connection_age {
        builder = builder.max_connection_age(age);
    }
    if let Some(grace) = settings.max_connection_age_grace {
        builder = builder.max_connection_age_grace(grace);
    }
    builder
}

/// A layer costs every call something: it is there only when it has work.
fn guarded(routes: Routes, auth: Option<Auth>) -> Routes {
    match auth {
        Some(auth) => Routes::from(routes.into_axum_router().layer(middleware::from_fn_with_state(auth, authenticate))),
        None => routes,
    }
    .prepare()
}

/// Go's default for accepted connections.
const TCP_KEEPALIVE: Duration = Duration::from_secs(15);
