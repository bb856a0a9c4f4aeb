//! The server of `-grpc_port` and `-socket_file`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::net::{TcpListener, UnixListener};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto::ring};
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::service::Routes;

use super::accept::{Acceptor, Handshake, Plain, Protocol};
use super::auth::{MtlsAuth, StaticAuth};
use super::{CONNECTION_WINDOW, STREAM_WINDOW, read, subject, window};
use crate::{Error, Parsed};

/// What the flags say about the server; files are read before a port is bound.
#[derive(Clone)]
pub(crate) struct ServerSettings {
    tls: Option<TlsAcceptor>,
    auth: Option<Auth>,
    max_connection_age: Option<Duration>,
    max_connection_age_grace: Option<Duration>,
    stream_window: u32,
    connection_window: u32,
}

/// How callers prove who they are.
#[derive(Clone)]
pub(super) enum Auth {
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

fn tls(flags: &Parsed) -> Result<Option<TlsAcceptor>, Error> {
    let (cert, key, ca) = (flags.str("grpc_cert"), flags.str("grpc_key"), flags.str("grpc_ca"));
    let invalid = |flag: &str, problem: String| Error::Flag { flag: flag.into(), problem };
    match (cert.is_empty(), key.is_empty()) {
        (true, true) => return Ok(None),
        (false, true) => return Err(invalid("grpc_key", "-grpc_cert needs it".to_owned())),
        (true, false) => return Err(invalid("grpc_cert", "-grpc_key needs it".to_owned())),
        (false, false) => {}
    }
    let certificates = |flag: &str, path: &str| {
        rustls_pemfile::certs(&mut &read(flag, path)?[..])
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| invalid(flag, format!("{path}: {error}")))
    };
    let private = rustls_pemfile::private_key(&mut &read("grpc_key", key)?[..])
        .map_err(|error| invalid("grpc_key", format!("{key}: {error}")))?
        .ok_or_else(|| invalid("grpc_key", format!("{key}: no private key in it")))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Tls(error.to_string()))?;
    let builder = if ca.is_empty() {
        builder.with_no_client_auth()
    } else {
        // Clients then have to show a certificate of this authority.
        let mut roots = RootCertStore::empty();
        for certificate in certificates("grpc_ca", ca)? {
            roots.add(certificate).map_err(|error| invalid("grpc_ca", format!("{ca}: {error}")))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.map_err(|error| invalid("grpc_ca", format!("{ca}: {error}")))?)
    };
    let mut config = builder
        .with_single_cert(certificates("grpc_cert", cert)?, private)
        .map_err(|error| invalid("grpc_cert", format!("{cert}: {error}")))?;
    // Clients of gRPC insist on it; one that offers nothing gets in as well.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

/// Refuses calls without valid credentials.
async fn authenticate(State(auth): State<Auth>, request: Request, next: Next) -> Response {
    let outcome = match &auth {
        Auth::Static(auth) => auth.check(request.headers()),
        Auth::Mtls(auth) => auth.check_subjects(subject::peer_subjects(request.extensions()).as_deref()),
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
    protocols: Vec<Protocol>,
    settings: ServerSettings,
    stop: CancellationToken,
) -> Result<(), Error> {
    // Dropped with this future: the connections of other protocols then end too.
    let tasks = AbortAll::default();
    let acceptor = Acceptor {
        auth: settings.auth.clone(),
        protocols,
        max_connection_age: settings.max_connection_age,
        max_connection_age_grace: settings.max_connection_age_grace,
        stop: stop.clone(),
        tasks: tasks.tracker.clone(),
        abort: tasks.abort.clone(),
    };
    let outcome = match settings.tls.clone() {
        Some(tls) => serve_accepted(acceptor, listener, tls, routes, settings, stop).await,
        None => serve_accepted(acceptor, listener, Plain, routes, settings, stop).await,
    };
    tasks.tracker.close();
    tasks.tracker.wait().await;
    outcome
}

/// The tasks of connections, which end when this is dropped.
#[derive(Default)]
struct AbortAll {
    tracker: TaskTracker,
    abort: CancellationToken,
}

impl Drop for AbortAll {
    fn drop(&mut self) {
        self.abort.cancel();
    }
}

async fn serve_accepted<H: Handshake>(
    acceptor: Acceptor,
    listener: TcpListener,
    handshake: H,
    routes: Routes,
    settings: ServerSettings,
    stop: CancellationToken,
) -> Result<(), Error> {
    let incoming = ReceiverStream::new(acceptor.grpc_connections(listener, handshake));
    builder(&settings)
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
    let router = routes.into_axum_router().fallback(unknown_service);
    Routes::from(match auth {
        Some(auth) => router.layer(middleware::from_fn_with_state(auth, authenticate)),
        None => router,
    })
    .prepare()
}

/// What gRPC for Go answers when no service of the name is served: here `-service_map` does not name it.
async fn unknown_service(request: axum::extract::Request) -> axum::response::Response {
    let service = request.uri().path().trim_start_matches('/').split('/').next().unwrap_or_default();
    Status::unimplemented(format!("unknown service {service}")).into_http()
}
