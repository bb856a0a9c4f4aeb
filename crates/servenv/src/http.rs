//! The HTTP server: standard pages, the status page, and what a program adds.
//!
//! Owns: `/debug/vars`, `/debug/status`, `/debug/health`, `/debug/liveness`, `/debug/flushlogs`,
//! `/debug/profile`, `/debug/pprof/*`, `/metrics`. Trailing slashes of `/debug/vars/` and `/debug/health/` are accepted:
//! scripts use both. HEAD works wherever GET does.

use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::SystemTime;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Router, serve::Listener};
use chrono::{DateTime, Local};
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::stats::{Counter, Gauge};
use crate::{Acl, Env, Error, Role};

pub(crate) type Health = Arc<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;
type Section = Arc<dyn Fn() -> String + Send + Sync>;

/// The pages of one program.
pub(crate) struct Pages {
    env: Env,
    acl: Acl,
    sections: Vec<(String, Section)>,
    health: Option<Health>,
    routes: Router,
}

impl Pages {
    pub(crate) fn new(env: Env) -> Self {
        let acl = env.acl();
        Self { env, acl, sections: Vec::new(), health: None, routes: Router::new() }
    }

    pub(crate) fn routes(&mut self, routes: Router) {
        self.routes = std::mem::take(&mut self.routes).merge(routes);
    }

    pub(crate) fn guarded_routes(&mut self, role: Role, routes: Router) {
        let acl = self.acl;
        self.routes(routes.route_layer(middleware::from_fn_with_state((acl, role), guard)));
    }

    pub(crate) fn redirect_root_to_status(&mut self) {
        self.routes(Router::new().route("/", get(async || Redirect::to("/debug/status"))));
    }

    pub(crate) fn status_section(&mut self, title: &str, html: Section) {
        self.sections.push((title.into(), html));
    }

    pub(crate) fn health(&mut self, check: Health) {
        self.health = Some(check);
    }

    /// All routes, ready to serve.
    fn into_router(mut self) -> Router {
        let stats = self.env.stats().clone();
        let vars = get(async move || ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], stats.expvar()));
        let stats = self.env.stats().clone();
        let metrics = get(async move || ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], stats.prometheus()));
        let check = self.health.take();
        let health = get(move || {
            let check = check.clone();
            async move { health_response(check).await }
        });
        let status = get({
            let (env, sections) = (self.env.clone(), std::mem::take(&mut self.sections));
            move || {
                let page = status_page(&env, &sections);
                async move { Html(page) }
            }
        });
        let flush = get(async || {
            crate::logging::flush();
            "flushed\n"
        });
        self.guarded_routes(Role::Admin, Router::new().route("/debug/flushlogs", flush));
        self.guarded_routes(Role::Debugging, Router::new().route("/debug/status", status));
        self.guarded_routes(
            Role::Monitoring,
            Router::new().route("/debug/health", health.clone()).route("/debug/health/", health),
        );
        self.guarded_routes(
            Role::Debugging,
            Router::new()
                .route("/debug/profile", get(crate::profile::profile))
                .route("/debug/pprof", get(no_pprof))
                .route("/debug/pprof/", get(no_pprof))
                .route("/debug/pprof/{*rest}", get(no_pprof)),
        );
        self.routes
            .route("/debug/vars", vars.clone())
            .route("/debug/vars/", vars)
            .route("/metrics", metrics)
            .route("/debug/liveness", get(async || ()))
    }
}

/// Lets a request through if the policy does.
async fn guard(State((acl, role)): State<(Acl, Role)>, request: Request, next: Next) -> Response {
    match acl.check(role) {
        Ok(()) => next.run(request).await,
        Err(refused) => refused,
    }
}

async fn health_response(check: Option<Health>) -> Response {
    let outcome = match check {
        Some(check) => check().await,
        None => Ok(()),
    };
    let plain = [(header::CONTENT_TYPE, "text/plain")];
    match outcome {
        Ok(()) => (plain, "ok").into_response(),
        Err(text) => (StatusCode::INTERNAL_SERVER_ERROR, plain, text).into_response(),
    }
}

async fn no_pprof() -> Response {
    let text = "Go profiles do not exist here: this program is not written in Go. Take a flame graph with /debug/profile?seconds=10.\n";
    (StatusCode::NOT_IMPLEMENTED, text).into_response()
}

/// Makes a text safe inside of HTML elements and quoted attributes.
pub fn html_escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

const STYLE: &str = "body{font-family:sans-serif;margin:0 auto;max-width:80em;padding:0 1em 2em;color:#222}\
h1{font-size:1.4em;border-bottom:1px solid #ccc;padding:.6em 0}h2{font-size:1.1em;margin-top:1.6em}\
table{border-collapse:collapse;margin:.4em 0}td,th{border:1px solid #ccc;padding:.25em .6em;text-align:left;vertical-align:top}\
th{background:#f3f3f3}.healthy{background:#dfd}.unhealthy{background:#fcc}.unhappy{background:#ffd}\
nav a{margin-right:1em}code,pre{font-family:monospace}";

/// A whole page from its title and body, in the style of the status page.
pub(crate) fn page(title: &str, body: &str) -> String {
    let title = html_escape(title);
    format!(
        "<!DOCTYPE html>\n<html>\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         </head>\n<body>\n{body}\n</body>\n</html>"
    )
}

fn local_time(time: SystemTime) -> String {
    DateTime::<Local>::from(time).format("%Y-%m-%d %H:%M:%S %z").to_string()
}

fn status_page(env: &Env, sections: &[(String, Section)]) -> String {
    let host = nix::unistd::gethostname().map(|host| host.to_string_lossy().into_owned()).unwrap_or_default();
    let name = env.program().name();
    // Writing into a String cannot fail.
    let mut body = format!("<h1>Status for {name}</h1>\n");
    let _ = write!(
        body,
        "<table>\n<tr><td>Host</td><td>{}</td></tr>\n<tr><td>Process</td><td>{}</td></tr>\n\
         <tr><td>Started</td><td>{}</td></tr>\n<tr><td>Now</td><td>{}</td></tr>\n</table>\n\
         <nav><a href=\"/debug/vars\">/debug/vars</a><a href=\"/metrics\">/metrics</a>\
         <a href=\"/debug/health\">/debug/health</a><a href=\"/debug/profile\">/debug/profile</a></nav>\n",
        html_escape(&host),
        std::process::id(),
        local_time(env.started()),
        local_time(SystemTime::now()),
    );
    for (title, html) in sections {
        let _ = write!(body, "<h2>{}</h2>\n{}\n", html_escape(title), html());
    }
    page(&format!("{name} {host}"), &body)
}

/// Serves until `stop`, then finishes the requests under way.
pub(crate) async fn serve(listener: TcpListener, pages: Pages, stop: CancellationToken) -> Result<(), Error> {
    let stats = pages.env.stats();
    let listener = Counting {
        listener,
        room: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        open: stats.gauge("ConnCount", "Active connections accepted by counting listener"),
        accepted: stats.counter("ConnAccepted", "Count of connections accepted by counting listener"),
    };
    axum::serve(listener, pages.into_router())
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
        .map_err(|error| Error::Http(error.to_string()))
}

/// Most HTTP connections at a time; further ones wait in the system's queue. Pages are for people and
/// monitoring, and must not take the file descriptors that queries need.
const MAX_CONNECTIONS: usize = 1000;

/// Bounds connections and counts them for `ConnCount` and `ConnAccepted`.
struct Counting {
    listener: TcpListener,
    room: Arc<Semaphore>,
    open: Gauge,
    accepted: Counter,
}

impl Listener for Counting {
    type Io = Counted;
    type Addr = std::net::SocketAddr;

    async fn accept(&mut self) -> (Counted, Self::Addr) {
        // Never closed, so a permit always comes.
        let permit = self.room.clone().acquire_owned().await.ok();
        let (stream, address) = Listener::accept(&mut self.listener).await;
        self.accepted.inc();
        self.open.add(1);
        (Counted { stream, open: self.open.clone(), _permit: permit }, address)
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that takes itself off the count when it closes.
struct Counted {
    stream: TcpStream,
    open: Gauge,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.open.add(-1);
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
