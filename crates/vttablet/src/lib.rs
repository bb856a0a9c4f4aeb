//! vttablet: serves the queries of one mysqld and manages its life in the cluster.
//!
//! Owns: the query service ([`queryservice`]) and the tablet manager ([`tabletmanager`]) of one tablet, and their
//! wiring ([`run`]), with the look at the replicas that both need not know of ([`replica_lag`]). Does not own: mysqld itself, which `mysqlctl` starts and stops.

pub mod config;
pub mod queryservice;
pub mod replica_lag;
pub mod tabletmanager;

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};
use servenv::{Env, Role, Server};
use tabletclient::{QueryService, framed, grpc::QueryServer};
use throttler::ThrottlerService;
use tokio_util::sync::CancellationToken;
use topo::{TopoOptions, TopoServer, topoproto};
use vreplication::target::Engine;
use vterrors::VtError;
use vtproto::{
    binlogservice::update_stream_server::UpdateStreamServer, cutover::cutover_server::CutoverServer, query::Target,
    tabletmanagerservice::tablet_manager_server, throttlerservice::throttler_server::ThrottlerServer,
};

use config::TabletConfig;
use queryservice::{TabletServer, TxThrottler};
use tabletmanager::{
    Addresses, CutoverService, Mysqld, ServedQueries, TabletManager, TabletManagerService, custom_rules, update_stream,
};
use vreplication::source::{SourceConfig, UpdateStreamService};

/// A real vttablet from its flags until `shutdown` resolves. Then gates are sent elsewhere, open transactions end, and
/// the record loses its addresses.
pub async fn run(env: Env, shutdown: impl Future<Output = ()>) -> Result<()> {
    let config = TabletConfig::from_flags(env.flags())?;
    // A second vttablet on the same ports must not touch the record of the first.
    for (name, port) in [("port", config.http_port), ("grpc_port", config.grpc_port)] {
        if port != 0 {
            mysqlctl::port::check_free(port).with_context(|| format!("-{name}"))?;
        }
    }
    let topo = &config.topo;
    let observer = Some(Arc::new(env.stats().topology_calls()) as _);
    let options = TopoOptions { observer, ..topo.options.clone() };
    let topo = TopoServer::open(&topo.implementation, &topo.address, &topo.root, options).await?;
    tabletmanager::refuse_second(&config.manager.alias, &topo, config.health_dial()).await?;
    let tablet = tabletmanager::register(&config.manager, &topo).await?;

    let mut target = Target { keyspace: tablet.keyspace.clone(), shard: tablet.shard.clone(), ..Default::default() };
    target.set_tablet_type(tablet.r#type());
    let queries = TabletServer::new(config.query_service(&topoproto::tablet_db_name(&tablet)), target, env.stats())?;
    let stop = CancellationToken::new();
    let _stop_on_return = stop.clone().drop_guard();
    load_rules(&config, &queries, &topo, &stop)?;

    let control =
        ServedQueries::new(queries.clone(), config.manager.alias.clone(), config.manager.health_check_interval);
    let mysqld = Mysqld::new(config.logins.clone(), env.stats());
    let source = SourceConfig {
        params: config.logins.dba.clone(),
        database: topoproto::tablet_db_name(&tablet),
        cell: config.manager.alias.cell.clone(),
        keyspace: tablet.keyspace.clone(),
        key_range: topoproto::key_range(tablet.key_range.as_ref()),
        max_message: env.grpc_max_message_size(),
        by_vschema: env.flags().bool("binlog_use_v3_resharding_mode"),
    };
    let changes = UpdateStreamService::new(source, topo.clone(), env.stats());
    let vreplication = Engine::new(config.vreplication(&tablet), topo.clone());
    let throttlers = vreplication.throttlers();
    if let Some(config) = &config.tx_throttler {
        let throttler = TxThrottler::new(config.rate, &throttlers, env.stats());
        queries.throttle_transactions(throttler.clone());
        let follow = replica_lag::follow(queries.clone(), throttler, config.clone(), topo.clone(), stop.clone());
        tokio::spawn(follow);
    }
    let manager =
        TabletManager::new(config.manager.clone(), tablet, topo, mysqld, Arc::new(control), vreplication, env.stats());
    tokio::spawn(update_stream::follow(changes.clone(), manager.streaming(), stop.clone()));
    tokio::spawn(watch_mysqld(queries.clone(), manager.clone(), stop.clone()));
    tokio::spawn(watch_gate(queries.clone(), manager.clone(), stop.clone()));

    let mut server = env.server();
    pages(&mut server, &manager, &queries);
    services(&mut server, &env, &manager, &queries, changes);
    server.grpc("grpc-throttler", ThrottlerServer::new(ThrottlerService::new(throttlers)));
    let lameduck = env.flags().duration("lameduck-period");
    {
        let manager = manager.clone();
        server.on_term_sync(move || async move { manager.drain(lameduck).await });
    }
    {
        let manager = manager.clone();
        server.on_close(move || async move { manager.close().await });
    }
    // Who waits for the HTTP port may send the first command: the record says by then where the tablet is.
    let addresses = Addresses {
        hostname: config.hostname.clone(),
        http_port: config.http_port.into(),
        grpc_port: config.grpc_port.into(),
        mysql_hostname: config.mysql_hostname.clone(),
    };
    manager.announce(addresses).await?;
    let running = server.start().await?;
    let mut starting = tokio::spawn(async move { manager.start().await });
    let mut failure = None;
    let until = async {
        tokio::pin!(shutdown);
        tokio::select! {
            () = &mut shutdown => {}
            started = &mut starting => {
                failure = match started {
                    Ok(Ok(())) => None,
                    Ok(Err(error)) => Some(anyhow::Error::from(error)),
                    Err(panic) => Some(panic.into()),
                };
                if failure.is_none() {
                    shutdown.await;
                }
            }
        }
    };
    running.wait(until).await?;
    starting.abort();
    failure.map_or(Ok(()), |error| Err(error.context("the tablet cannot start")))
}

fn load_rules(
    config: &TabletConfig,
    queries: &TabletServer,
    topo: &TopoServer,
    stop: &CancellationToken,
) -> Result<()> {
    if let Some(path) = &config.rules_file {
        custom_rules::load_rules_file(queries, path)?;
    }
    if let Some((cell, path)) = &config.topo_rules {
        let follow =
            custom_rules::follow_topo_rules(queries.clone(), topo.clone(), cell.clone(), path.clone(), stop.clone());
        tokio::spawn(follow);
    }
    match &config.table_acl {
        Some(path) => {
            match custom_rules::load_table_acl(queries, path) {
                Err(error) if config.enforce_table_acl => return Err(error.into()),
                Err(error) => tracing::error!("no table ACL is in force: {error}"),
                Ok(()) => {}
            }
            tokio::spawn(custom_rules::reload_table_acl(queries.clone(), path.clone(), stop.clone()));
        }
        None if config.enforce_table_acl => {
            anyhow::bail!("-enforce-tableacl-config needs -table-acl-config");
        }
        None => {}
    }
    Ok(())
}

/// A query that finds mysqld gone asks for a health check at once.
async fn watch_mysqld(queries: TabletServer, manager: Arc<TabletManager>, stop: CancellationToken) {
    // A mysqld that is down fails every query: one check for all of them is enough.
    const PAUSE: Duration = Duration::from_millis(100);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = queries.mysql_lost() => {}
        }
        manager.request_health_check();
        tokio::time::sleep(PAUSE).await;
    }
}

/// A gate that its coordinator abandoned leaves the tablet as the topology wants it.
async fn watch_gate(queries: TabletServer, manager: Arc<TabletManager>, stop: CancellationToken) {
    let cutover = CutoverService::new(manager, queries.clone());
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = queries.gate_lapsed() => cutover.gate_lapsed().await,
        }
    }
}

fn pages(server: &mut Server, manager: &Arc<TabletManager>, queries: &TabletServer) {
    server.redirect_root_to_status();
    server.guarded_routes(Role::Debugging, queryservice::debugging_routes(queries.clone()));
    server.guarded_routes(Role::Admin, queryservice::admin_routes(queries.clone()));
    let healthz = {
        let manager = manager.clone();
        get(move || {
            let answer = match manager.healthy() {
                Ok(()) => (StatusCode::OK, "ok\n".to_owned()),
                Err(error) => {
                    let text = format!("500 internal server error: agent not healthy: {error}");
                    (StatusCode::INTERNAL_SERVER_ERROR, text)
                }
            };
            async move { answer.into_response() }
        })
    };
    server.routes(Router::new().route("/healthz", healthz));
    let section = |read: fn(&TabletManager) -> String| {
        let manager = manager.clone();
        move || read(&manager)
    };
    server.status_section("Tablet", section(TabletManager::status_html));
    server.status_section("Health", section(TabletManager::health_html));
    server.status_section("VReplication", section(TabletManager::vreplication_html));
    let manager = manager.clone();
    server.health(move || {
        let health = manager.healthy().map_err(|error| format!("not ok: {error}"));
        async move { health }
    });
}

/// The query service over the framed transport, to callers that gRPC would let in.
fn framed_service(queries: TabletServer, max_message_size: usize) -> servenv::grpc::ServeProtocol {
    let queries: Arc<dyn QueryService> = Arc::new(queries);
    Arc::new(move |accepted| {
        let servenv::grpc::Accepted { io, caller, stop } = accepted;
        let authenticate: framed::Authenticate = Arc::new(move |credentials| {
            let pair = credentials.map(|pair| (pair.username.as_str(), pair.password.as_str()));
            caller
                .authenticate(pair)
                .map_err(|status| VtError::new(vterrors::code_of_status(&status), status.message()))
        });
        let options = framed::ServeOptions { max_message_size, authenticate, stop };
        Box::pin(framed::serve(io, queries.clone(), options))
    })
}

fn services(
    server: &mut Server,
    env: &Env,
    manager: &Arc<TabletManager>,
    queries: &TabletServer,
    changes: UpdateStreamService,
) {
    let limit = env.grpc_max_message_size();
    let offered = server.grpc("grpc-queryservice", QueryServer::new(Arc::new(queries.clone())).into_service(limit));
    if offered && env.flags().bool("framed_transport") {
        server.protocol(framed::MAGIC, framed_service(queries.clone(), limit));
    }
    let service = tablet_manager_server::TabletManagerServer::new(TabletManagerService::new(manager.clone()));
    server.grpc("grpc-tabletmanager", service.max_decoding_message_size(limit).max_encoding_message_size(limit));
    server.grpc("grpc-tabletmanager", CutoverServer::new(CutoverService::new(manager.clone(), queries.clone())));
    let service = UpdateStreamServer::new(changes);
    server.grpc("grpc-updatestream", service.max_decoding_message_size(limit).max_encoding_message_size(limit));
}
