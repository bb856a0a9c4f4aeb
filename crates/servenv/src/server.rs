//! The HTTP and the gRPC server of a program, and the order in which they stop.
//!
//! Order of a stop: `on_term` hooks begin in the background and `on_term_sync` hooks run, while
//! everything still serves (an open transaction has to reach its COMMIT); at least
//! `-lameduck-period` passes; gRPC stops taking calls and finishes those under way; HTTP follows;
//! `on_close` hooks run; the pid file goes. Hooks and gRPC together get `-onterm_timeout`.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::future::BoxFuture;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;

use crate::http::{Health, Pages};
use crate::lifecycle::PidFile;
use crate::{Env, Error, Role, grpc, heap, http, program_text};

type Hook = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;

/// A server being put together. Nothing listens before [`Server::start`].
pub struct Server {
    env: Env,
    pages: Pages,
    services: RoutesBuilder,
    service_names: Vec<&'static str>,
    protocols: Vec<grpc::Protocol>,
    on_term: Vec<Hook>,
    on_term_sync: Vec<Hook>,
    on_close: Vec<Hook>,
}

impl Server {
    pub(crate) fn new(env: Env) -> Self {
        let pages = Pages::new(env.clone());
        Self {
            env,
            pages,
            services: RoutesBuilder::default(),
            service_names: Vec::new(),
            protocols: Vec::new(),
            on_term: Vec::new(),
            on_term_sync: Vec::new(),
            on_close: Vec::new(),
        }
    }

    /// Adds HTTP routes that everybody may open. `-security_policy` guards only
    /// [`Server::guarded_routes`]. A path that is there already panics: it is a mistake of the program.
    pub fn routes(&mut self, routes: Router) {
        self.pages.routes(routes);
    }

    /// Adds HTTP routes that `-security_policy` may refuse.
    pub fn guarded_routes(&mut self, role: Role, routes: Router) {
        self.pages.guarded_routes(role, routes);
    }

    /// Makes `/` lead to `/debug/status`.
    pub fn redirect_root_to_status(&mut self) {
        self.pages.redirect_root_to_status();
    }

    /// Adds a section to `/debug/status`, in the order of the calls. `html` is called at each request
    /// and returns HTML that goes onto the page as it is: escape what comes from outside with
    /// [`crate::html_escape`].
    pub fn status_section(&mut self, title: &str, html: impl Fn() -> String + Send + Sync + 'static) {
        self.pages.status_section(title, Arc::new(html));
    }

    /// What `/debug/health` answers: `Ok` is 200 `ok`; an error is 500 with its text as the body
    /// (vtgate: `not ok`, vttablet: `not ok: <error>`). Without a check it is always `ok`.
    pub fn health<F, Fut>(&mut self, check: F)
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        let check: Health = Arc::new(move || Box::pin(check()));
        self.pages.health(check);
    }

    /// Whether `-service_map` names the service: `grpc-queryservice` and the like.
    pub fn offers(&self, service: &str) -> bool {
        grpc::offers(self.env.flags().str("service_map"), service)
    }

    /// Adds a gRPC service if `-service_map` names it and says whether it did. Set the service's
    /// message limits to [`Env::grpc_max_message_size`] before.
    pub fn grpc<S>(&mut self, name: &'static str, service: S) -> bool
    where
        S: Service<axum::http::Request<tonic::body::Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        let offered = self.offers(name);
        if offered {
            self.services.add_service(service);
            // Several services may stand behind one entry of -service_map.
            if !self.service_names.contains(&name) {
                self.service_names.push(name);
            }
        }
        offered
    }

    /// Serves connections to `-grpc_port` whose first bytes are `magic` with something else than gRPC.
    /// TLS comes before that, as for gRPC.
    pub fn protocol(&mut self, magic: grpc::Magic, serve: grpc::ServeProtocol) {
        self.protocols.push(grpc::Protocol { magic, serve });
    }

    /// Begins when the stop begins; nobody waits for it.
    pub fn on_term<Fut: Future<Output = ()> + Send + 'static>(&mut self, hook: impl FnOnce() -> Fut + Send + 'static) {
        self.on_term.push(Box::new(move || Box::pin(hook())));
    }

    /// Runs while everything still serves; waited for up to `-onterm_timeout`.
    pub fn on_term_sync<Fut: Future<Output = ()> + Send + 'static>(
        &mut self,
        hook: impl FnOnce() -> Fut + Send + 'static,
    ) {
        self.on_term_sync.push(Box::new(move || Box::pin(hook())));
    }

    /// Runs when nothing serves any more; waited for up to `-onterm_timeout`.
    pub fn on_close<Fut: Future<Output = ()> + Send + 'static>(&mut self, hook: impl FnOnce() -> Fut + Send + 'static) {
        self.on_close.push(Box::new(move || Box::pin(hook())));
    }

    /// Binds the ports of `-port` and `-grpc_port` (0: none) and serves.
    ///
    /// # Errors
    /// A port is taken, a file of TLS or of users cannot be read, the pid file cannot be written.
    pub async fn start(self) -> Result<Running, Error> {
        let flags = self.env.flags();
        let stop_http = CancellationToken::new();
        let stop_grpc = CancellationToken::new();
        let grpc_settings = grpc::ServerSettings::from_flags(flags)?;
        let http_listener = listen("port", flags).await?;
        let grpc_listener = listen("grpc_port", flags).await?;
        let socket = listen_socket(flags.str("socket_file")).await?;
        let pid_file = PidFile::write(flags.str("pid_file"));
        let mut running = Running {
            http: address(&http_listener),
            grpc: address(&grpc_listener),
            lameduck: flags.duration("lameduck-period"),
            onterm_timeout: flags.duration("onterm_timeout"),
            http_task: None,
            grpc_task: None,
            socket_task: None,
            ticker: tokio::spawn(ticks(self.env.clone())),
            stop_http: stop_http.clone(),
            stop_grpc: stop_grpc.clone(),
            on_term: self.on_term,
            on_term_sync: self.on_term_sync,
            on_close: self.on_close,
            _pid_file: pid_file,
        };
        if let Some(listener) = http_listener {
            tracing::info!("HTTP on {}", shown(running.http));
            running.http_task = Some(tokio::spawn(http::serve(listener, self.pages, stop_http)));
        }
        let routes = self.services.routes();
        if let Some((listener, file)) = socket {
            tracing::info!("gRPC on socket {}", file.path.display());
            let serve = grpc::serve_socket(listener, routes.clone(), grpc_settings.clone(), stop_grpc.clone());
            running.socket_task = Some(tokio::spawn(async move {
                // The file goes when serving ends.
                let _file = file;
                serve.await
            }));
        }
        if let Some(listener) = grpc_listener {
            if self.service_names.is_empty() {
                tracing::warn!("-grpc_port is set but -service_map names no service of this program");
            }
            tracing::info!("gRPC on {}: {}", shown(running.grpc), self.service_names.join(", "));
            running.grpc_task =
                Some(tokio::spawn(grpc::serve(listener, routes, self.protocols, grpc_settings, stop_grpc)));
        }
        tokio::spawn(program_text::give_back_after_start());
        // By now every part has read what it uses.
        self.env.flags().warn_without_effect();
        Ok(running)
    }

    /// [`Server::start`], then [`Running::wait`].
    ///
    /// # Errors
    /// As those two.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        self.start().await?.wait(shutdown).await
    }
}

/// A server that serves. Dropping it stops it without grace.
pub struct Running {
    /// Where HTTP listens, if it does.
    pub http: Option<SocketAddr>,
    /// Where gRPC listens, if it does.
    pub grpc: Option<SocketAddr>,
    lameduck: Duration,
    onterm_timeout: Duration,
    http_task: Option<JoinHandle<Result<(), Error>>>,
    grpc_task: Option<JoinHandle<Result<(), Error>>>,
    socket_task: Option<JoinHandle<Result<(), Error>>>,
    ticker: JoinHandle<()>,
    stop_http: CancellationToken,
    stop_grpc: CancellationToken,
    on_term: Vec<Hook>,
    on_term_sync: Vec<Hook>,
    on_close: Vec<Hook>,
    _pid_file: Option<PidFile>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ticker.abort();
        for task in [&self.http_task, &self.grpc_task, &self.socket_task].into_iter().flatten() {
            task.abort();
        }
    }
}

impl Running {
    /// Serves until `shutdown` resolves, then stops in order.
    ///
    /// # Errors
    /// One of the servers ended by itself.
    pub async fn wait(mut self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            outcome = ended(&mut self.http_task) => outcome,
            outcome = ended(&mut self.grpc_task) => outcome,
            outcome = ended(&mut self.socket_task) => outcome,
        };
        let begin = Instant::now();
        // Hooks may have to serve on for the lameduck period before they begin to stop.
        let deadline = begin + self.lameduck + self.onterm_timeout;
        tracing::info!("entering lameduck mode for at least {:?}", self.lameduck);
        let mut background = JoinSet::new();
        for hook in self.on_term.drain(..) {
            background.spawn(hook());
        }
        run_hooks(&mut self.on_term_sync, deadline, "-onterm_timeout is over, some OnTermSync hooks did not end").await;
        tokio::time::sleep_until(begin + self.lameduck).await;
        self.stop_grpc.cancel();
        let deadline = deadline.max(Instant::now() + MIN_GRACE);
        tokio::join!(finish(&mut self.grpc_task, deadline), finish(&mut self.socket_task, deadline));
        self.stop_http.cancel();
        finish(&mut self.http_task, Instant::now() + MIN_GRACE).await;
        let deadline = Instant::now() + self.onterm_timeout;
        run_hooks(&mut self.on_close, deadline, "-onterm_timeout is over, some OnClose hooks did not end").await;
        outcome
    }
}

/// Least time for calls under way to end, however short `-onterm_timeout` is.
const MIN_GRACE: Duration = Duration::from_millis(200);

async fn ended(task: &mut Option<JoinHandle<Result<(), Error>>>) -> Result<(), Error> {
    let Some(running) = task else { return std::future::pending().await };
    let outcome = running.await.unwrap_or_else(|panic| Err(Error::Http(panic.to_string())));
    *task = None;
    outcome
}

async fn finish(task: &mut Option<JoinHandle<Result<(), Error>>>, deadline: Instant) {
    let Some(running) = task else { return };
    match tokio::time::timeout_at(deadline, &mut *running).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err(error))) => tracing::warn!("{error}"),
        Ok(Err(panic)) => tracing::error!("server task: {panic}"),
        // Streams such as health checks have no end of their own.
        Err(_) => running.abort(),
    }
    *task = None;
}

async fn run_hooks(hooks: &mut Vec<Hook>, deadline: Instant, late: &str) {
    let mut tasks = JoinSet::new();
    for hook in hooks.drain(..) {
        tasks.spawn(hook());
    }
    let all = async {
        while let Some(done) = tasks.join_next().await {
            if let Err(panic) = done {
                tracing::error!("shutdown hook: {panic}");
            }
        }
    };
    if tokio::time::timeout_at(deadline, all).await.is_err() {
        tracing::warn!("{late}");
    }
}

/// What a server does again and again, whatever it serves.
async fn ticks(env: Env) {
    tokio::join!(tick(env), heap::give_back_what_is_free());
}

/// Lets rates take their samples.
async fn tick(env: Env) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        env.stats().tick();
    }
}

fn shown(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "no address".to_owned(), |address| address.to_string())
}

fn address(listener: &Option<TcpListener>) -> Option<SocketAddr> {
    listener.as_ref().and_then(|listener| listener.local_addr().ok())
}

/// Binds the port of a flag; `None` when it is 0.
async fn listen(flag: &'static str, flags: &crate::Parsed) -> Result<Option<TcpListener>, Error> {
    let number = flags.int(flag);
    if number == 0 {
        return Ok(None);
    }
    let port = u16::try_from(number)
        .map_err(|_| Error::Flag { flag: flag.into(), problem: format!("{number} is not a port") })?;
    let host = flags.str("bind_address");
    let wrap = |address: String| move |source| Error::Listen { flag, address, source };
    if host.is_empty() {
        // Both families where there are both, as Go listens.
        let v6 = SocketAddr::new(IpAddr::from([0u16; 8]), port);
        if let Ok(listener) = TcpListener::bind(v6).await {
            return Ok(Some(listener));
        }
        let v4 = SocketAddr::new(IpAddr::from([0u8; 4]), port);
        return TcpListener::bind(v4).await.map(Some).map_err(wrap(v4.to_string()));
    }
    TcpListener::bind((host, port)).await.map(Some).map_err(wrap(format!("{host}:{port}")))
}

/// Removes the file of a socket when serving on it ends.
struct SocketFile {
    path: std::path::PathBuf,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Binds `-socket_file`; `None` when it is empty. A file that nobody serves any more is replaced.
async fn listen_socket(path: &str) -> Result<Option<(UnixListener, SocketFile)>, Error> {
    if path.is_empty() {
        return Ok(None);
    }
    if std::fs::exists(path).unwrap_or(false) && UnixStream::connect(path).await.is_err() {
        let _ = std::fs::remove_file(path);
    }
    let listener = UnixListener::bind(path).map_err(|source| Error::Listen {
        flag: "socket_file",
        address: path.to_owned(),
        source,
    })?;
    Ok(Some((listener, SocketFile { path: path.into() })))
}
