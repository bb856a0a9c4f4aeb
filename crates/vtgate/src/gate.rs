//! A vtgate put together: discovery, executor, servers; and how it stops.
//!
//! Owns: the order of a start (the topology, tablets, then clients) and of a stop (no new clients,
//! running statements end, then the rest).

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use mysql::server::{AuthServer, Server as MysqlServer, ServerConfig, bind_unix};
use servenv::{Env, Registry, Server, hostname};
use tabletclient::{
    Gateway, GatewayOptions, HealthCheck, Region, TopologyWatcher,
    buffer::Buffer,
    grpc::{DialOptions, HopObserver},
    health_check::target_text,
};
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topo::{TopoServer, srv_cache::SrvTopoCache};
use vtproto::{query::Target, topodata::TabletType};

use crate::{
    acknowledge::Acknowledger,
    config::{Config, MysqlConfig},
    cutover::CutoverWaits,
    executor::{Executor, ExecutorConfig, Parts},
    grpc::VitessService,
    http::{self, Pages},
    mysql_server::MysqlHandler,
    plan_cache::PlanCache,
    query_log::QueryLog,
    resolver::Resolver,
    scatter::Scatter,
    stats::{self, Stats},
    vschema_watch::VSchemaWatch,
};

/// A running vtgate without its HTTP and gRPC servers, which the program (or a test) adds. Dropping
/// it stops everything without grace.
pub struct Gate {
    pub executor: Executor,
    config: Config,
    mysql: Option<MysqlFront>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// It goes: balancers are to send nobody any more.
    draining: AtomicBool,
    _watchers: Arc<Vec<TopologyWatcher>>,
}

struct MysqlFront {
    server: Arc<MysqlServer<MysqlHandler>>,
    address: Option<SocketAddr>,
    /// Ends the listeners, not the connections.
    stop_accepting: CancellationToken,
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(mysql) = &self.mysql {
            mysql.stop_accepting.cancel();
        }
    }
}

impl Gate {
    /// Starts discovery, waits for tablets as configured, and only then lets MySQL clients in.
    ///
    /// # Errors
    /// A listener cannot be bound, a file cannot be read, the settings of MySQL logins are wrong.
    pub async fn start(config: Config, topo: TopoServer, registry: &Registry) -> Result<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let stats = Stats::new(registry);
        let hops = stats.hop_phase.clone();
        let hop = HopObserver::new(move |hop| hops.record(hop));
        let (dial, framed) = (DialOptions { hop: Some(hop), ..config.dial.clone() }, config.framed);
        let health = HealthCheck::new(config.health.clone(), move |tablet| match framed {
            true => tabletclient::framed::dial(tablet, &dial),
            false => tabletclient::grpc::dial(tablet, &dial),
        });
        let options = GatewayOptions {
            region: Region::follow(topo.clone(), &config.cell, config.watcher.refresh_interval).await,
            retry_count: config.retry_count,
            allowed_types: config.allowed_tablet_types.clone(),
            max_calls_per_tablet: config.max_calls_per_tablet,
        };
        let buffer = Buffer::new(config.buffer.clone());
        let gateway = Gateway::start(options, health.clone(), buffer, Arc::new(stats.clone()));
        stats::register_gateway(registry, &gateway);
        let watch = |cell: &String| TopologyWatcher::start(topo.clone(), cell, config.watcher.clone(), health.clone());
        let watchers: Arc<Vec<TopologyWatcher>> = Arc::new(config.cells_to_watch.iter().map(watch).collect());
        stats::register_watchers(registry, &watchers);

        let cache = SrvTopoCache::new(topo.clone(), config.srv_cache);
        let vschema = VSchemaWatch::new();
        let plans = Arc::new(PlanCache::new(config.plan_cache_entries));
        stats::register_plans(registry, &plans, &vschema);
        let cutovers = CutoverWaits::new(config.cutover.clone(), registry);
        health.add_listener(Arc::new(cutovers.clone()));
        let vschema_changed = Arc::new(Notify::new());
        let states = cache.watch_srv_vschema(&config.cell);
        let (follower, to_clear, stopped) = (vschema.clone(), plans.clone(), stop.clone());
        let (waits, told) = (cutovers.clone(), vschema_changed.clone());
        tasks.spawn(async move {
            let changed = move || {
                to_clear.clear();
                waits.note_change();
                told.notify_one();
            };
            stopped.run_until_cancelled(follower.follow(states, changed)).await;
        });
        let (mut changes, waits, stopped) = (cache.changes(), cutovers.clone(), stop.clone());
        tasks.spawn(async move {
            let forward = async {
                while changes.changed().await.is_ok() {
                    waits.note_change();
                }
            };
            stopped.run_until_cancelled(forward).await;
        });
        let host = hostname::fully_qualified();
        let acknowledger = Acknowledger {
            topo: topo.clone(),
            cell: config.cell.clone(),
            address: format!("{}:{}", host, if config.grpc_port > 0 { config.grpc_port } else { config.http_port }),
            cache: cache.clone(),
            vschema: vschema.clone(),
            vschema_changed,
        };
        let stopped = stop.clone();
        tasks.spawn(async move {
            stopped.run_until_cancelled(acknowledger.run()).await;
        });
        let log =
            QueryLog::new(registry, config.query_log.clone(), config.query_log_file.as_deref()).with_context(|| {
                let file = config.query_log_file.as_deref().unwrap_or(std::path::Path::new(""));
                format!("-log_queries_to_file {}", file.display())
            })?;
        let executor = Executor::new(Parts {
            config: executor_config(&config, &host),
            scatter: Scatter::new(gateway, config.transaction_mode, config.max_memory_rows),
            resolver: Resolver::new(cache, &config.cell),
            vschema,
            plans,
            stats,
            log,
            cutovers,
            topo,
        });
        let draining = AtomicBool::new(false);
        let mut gate = Self { executor, config, mysql: None, tasks, stop, draining, _watchers: watchers };
        gate.wait_for_tablets().await;
        if gate.config.mysql.is_wanted() {
            gate.mysql = Some(gate.start_mysql(registry).await?);
        }
        Ok(gate)
    }

    /// Waits until every shard that our cell serves has a tablet of the types of
    /// `-tablet_types_to_wait`, or until the time for that is over.
    async fn wait_for_tablets(&self) {
        let limit = self.config.initial_tablet_timeout;
        let deadline = tokio::time::Instant::now() + limit;
        let resolver = &self.executor.parts().resolver;
        let mut targets: Vec<Target> = Vec::new();
        if !self.config.tablet_types_to_wait.is_empty() {
            let find = async {
                let keyspaces = resolver.keyspaces().await?;
                for keyspace in keyspaces.iter() {
                    for tablet_type in &self.config.tablet_types_to_wait {
                        targets.extend(self.served(keyspace, *tablet_type).await);
                    }
                }
                Ok::<_, vterrors::VtError>(())
            };
            match tokio::time::timeout_at(deadline, find).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!("cannot list keyspaces: {error}"),
                Err(_) => tracing::warn!("listing keyspaces took longer than {limit:?}"),
            }
        }
        targets.sort_by_cached_key(target_text);
        targets.dedup();
        tracing::info!("waiting for tablets of {} targets for up to {limit:?}", targets.len());
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let health = self.executor.parts().scatter.gateway().health();
        if let Err(error) = health.wait_for_tablets(&targets, left).await {
            tracing::warn!("serving in degraded mode: {error}");
        }
    }

    async fn served(&self, keyspace: &str, tablet_type: TabletType) -> Vec<Target> {
        match self.executor.parts().resolver.shards(keyspace, tablet_type).await {
            Ok((keyspace, shards)) => shards
                .into_iter()
                .map(|shard| Target {
                    keyspace: keyspace.clone(),
                    shard: shard.name,
                    tablet_type: tablet_type.into(),
                    cell: String::new(),
                })
                .collect(),
            Err(error) => {
                tracing::debug!(keyspace, "not waited for: {error}");
                Vec::new()
            }
        }
    }

    async fn start_mysql(&self, registry: &Registry) -> Result<MysqlFront> {
        let settings = &self.config.mysql;
        let auth = AuthServer::from_flags(&settings.auth_implementation, &settings.auth_file, &settings.auth_string)?;
        self.reload_users(&auth);
        let server_config = ServerConfig {
            server_version: settings.server_version.clone(),
            tls: mysql_tls(settings)?,
            require_secure_transport: settings.require_tls,
            read_timeout: settings.read_timeout,
            write_timeout: settings.write_timeout,
            slow_connect_warn: settings.slow_connect_warn,
            max_connections: match settings.max_connections {
                0 => connections_of_open_files(),
                most => most,
            },
            ..ServerConfig::new(auth)
        };
        let handler = Arc::new(MysqlHandler::new(self.executor.clone(), registry));
        let server = MysqlServer::new(server_config, handler);
        let killer = Arc::downgrade(&server);
        self.executor.set_killer(Box::new(move |kill, by| match killer.upgrade() {
            Some(server) => server.kill(kill.id, kill.query, by),
            None => Ok(()),
        }));
        register_server(registry, &server);
        let stop_accepting = CancellationToken::new();
        let mut address = None;
        if let Some(port) = settings.port {
            let listener = bind_tcp(&settings.bind_address, port).await?;
            let bound = listener.local_addr().context("-mysql_server_port")?;
            tracing::info!("MySQL on {bound}");
            address = Some(bound);
            self.tasks.spawn(server.clone().serve_tcp(listener, stop_accepting.clone()));
        }
        if let Some(path) = &settings.socket {
            let listener = bind_unix(path).with_context(|| format!("-mysql_server_socket_path {}", path.display()))?;
            tracing::info!("MySQL on {}", path.display());
            self.tasks.spawn(server.clone().serve_unix(listener, stop_accepting.clone()));
        }
        Ok(MysqlFront { server, address, stop_accepting })
    }

    /// Reads the file of users again at SIGHUP and, if asked for, now and then.
    fn reload_users(&self, auth: &AuthServer) {
        if self.config.mysql.auth_file.is_empty() || self.config.mysql.auth_implementation != "static" {
            return;
        }
        let (auth, every, stop) = (auth.clone(), self.config.mysql.auth_reload, self.stop.clone());
        self.tasks.spawn(async move {
            let mut hangups = match servenv::hangups() {
                Ok(hangups) => hangups,
                Err(error) => {
                    tracing::error!("SIGHUP will not reload users: {error}");
                    return;
                }
            };
            loop {
                let tick = async {
                    match every {
                        Some(every) => tokio::time::sleep(every).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    () = stop.cancelled() => return,
                    Some(()) = hangups.recv() => {}
                    () = tick => {}
                }
                if let Err(error) = auth.reload() {
                    tracing::error!("users are unchanged: {error}");
                }
            }
        });
    }

    /// Where MySQL clients connect over TCP, if they can.
    pub fn mysql_address(&self) -> Option<SocketAddr> {
        self.mysql.as_ref()?.address
    }

    /// The gRPC service for clients.
    pub fn grpc_service(&self) -> VitessService {
        VitessService::new(self.executor.clone(), self.config.use_effective_caller_id, self.config.stream_buffer_size)
    }

    /// What the HTTP pages need.
    pub fn pages(&self) -> Pages {
        Pages {
            executor: self.executor.clone(),
            sql_max_length: self.config.sql_max_length_ui,
            redact: self.config.query_log.redact,
        }
    }

    /// Says that it goes, serves on for `lameduck`, then lets no new MySQL clients in and waits for running statements and open
    /// transactions, up to `-onterm_timeout`.
    pub async fn drain(&self, lameduck: Duration) {
        self.draining.store(true, Ordering::Relaxed);
        tokio::time::sleep(lameduck).await;
        if let Some(mysql) = &self.mysql {
            mysql.stop_accepting.cancel();
            if let Some(path) = &self.config.mysql.socket {
                // The next vtgate would find it and ask itself who it belongs to.
                let _ = std::fs::remove_file(path);
            }
            // What is left of the time is for the transactions of those that are closed.
            mysql.server.drain(self.config.onterm_timeout * 4 / 5).await;
        }
    }
}

/// What only the server itself knows of its connections.
fn register_server(registry: &Registry, server: &Arc<MysqlServer<MysqlHandler>>) {
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let source = Arc::downgrade(server);
    registry.gauge_func(
        "MysqlServerConnCountUnauthenticated",
        "Active MySQL server connections that haven't authenticated yet",
        move || {
            let count = |server: Arc<MysqlServer<MysqlHandler>>| {
                (number(server.connection_count()) - server.handler().open_connections()).max(0)
            };
            source.upgrade().map_or(0, count)
        },
    );
    let source = Arc::downgrade(server);
    registry.counter_func(
        "MysqlServerConnSlow",
        "Connections that took more than the configured mysql_slow_connect_warn_threshold to establish",
        move || source.upgrade().map_or(0, |server| i64::try_from(server.slow_logins()).unwrap_or(i64::MAX)),
    );
}

fn executor_config(config: &Config, host: &str) -> ExecutorConfig {
    ExecutorConfig {
        error_prefix: format!("vtgate: http://{host}:{}/", config.http_port),
        default_tablet_type: config.default_tablet_type,
        normalize: config.normalize,
        warn_memory_rows: config.warn_memory_rows,
        terse_errors: config.terse_errors,
        vschema_ddl_users: config.vschema_ddl_users.clone(),
        kill_users: config.kill_users.clone(),
        query_timeout: config.query_timeout,
    }
}

async fn bind_tcp(address: &str, port: u16) -> Result<TcpListener> {
    let bound = match TcpListener::bind(format!("{address}:{port}")).await {
        // A machine without IPv6.
        Err(_) if address == "[::]" => TcpListener::bind(("0.0.0.0", port)).await,
        bound => bound,
    };
    bound.with_context(|| format!("-mysql_server_port {port}: cannot listen on {address}"))
}

/// Connections that the limit of open files leaves room for beside everything else. Beyond it a client would wait for a
/// greeting that never comes.
fn connections_of_open_files() -> usize {
    const OTHERS: u64 = 200;
    match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) => usize::try_from(soft.saturating_sub(OTHERS).max(1)).unwrap_or(usize::MAX),
        Err(_) => 0,
    }
}

fn mysql_tls(settings: &MysqlConfig) -> Result<Option<Arc<rustls::ServerConfig>>> {
    let (cert, key, ca) = (&settings.tls_cert, &settings.tls_key, &settings.tls_ca);
    if cert.as_os_str().is_empty() != key.as_os_str().is_empty() {
        anyhow::bail!("-mysql_server_ssl_cert and -mysql_server_ssl_key go together: only one of them is set");
    }
    if cert.as_os_str().is_empty() || key.as_os_str().is_empty() {
        if settings.require_tls {
            anyhow::bail!(
                "-mysql_server_require_secure_transport needs -mysql_server_ssl_cert and -mysql_server_ssl_key"
            );
        }
        return Ok(None);
    }
    let ca = (!ca.as_os_str().is_empty()).then_some(ca.as_path());
    mysql::server::tls_config(cert, key, ca).map(Some).context("-mysql_server_ssl_cert, _key and _ca")
}

/// Runs vtgate until `shutdown` resolves.
///
/// # Errors
/// What keeps it from starting: bad flags, no topology, ports that are taken.
pub async fn run(env: Env, shutdown: impl Future<Output = ()>) -> Result<()> {
    let config = Config::from_env(&env)?;
    let topo = crate::config::open_topo(&env).await?;
    let gate = Arc::new(Gate::start(config, topo, env.stats()).await?);
    let mut server: Server = env.server();
    server.grpc("grpc-vtgateservice", gate.grpc_service().into_service(env.grpc_max_message_size()));
    http::register(&mut server, gate.pages());
    let serving = gate.clone();
    server.health(move || {
        let draining = serving.draining.load(Ordering::Relaxed);
        async move { if draining { Err("not ok".to_owned()) } else { Ok(()) } }
    });
    let (draining, lameduck) = (gate.clone(), env.flags().duration("lameduck-period"));
    server.on_term_sync(move || async move { draining.drain(lameduck).await });
    server.run(shutdown).await?;
    Ok(())
}
