//! vtctld: the commands of `wrangler` over gRPC and HTTP, and a web page of the cluster.
//!
//! Owns: the gRPC service ([`service`]), the REST API ([`api`]), the page ([`web`]), the health of
//! tablets that both show ([`health`]), and the election among vtctlds ([`election`]). Does not own:
//! what a command does.
//! Invariants: a command is cancelled when its client goes away; nothing is changed by a GET.

pub mod api;
mod election;
mod error;
mod health;
mod schema_dir;
mod service;
mod web;

use std::future::Future;
use std::sync::Arc;

use servenv::Env;
use vtproto::vtctlservice::vtctl_server::VtctlServer;
use wrangler::Wrangler;

pub use error::Error;
pub use health::{HealthCache, Settings as HealthSettings};
pub use service::VtctlService;
pub use web::routes as web_routes;

/// Serves until `shutdown` resolves.
pub async fn run(env: Env, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
    let flags = env.flags();
    let topo = wrangler::flags::open_topo(flags).await?;
    let wr = wrangler::flags::wrangler(flags, topo.clone())?;
    let health = HealthCache::new(&wr, health::Settings::from_flags(flags));
    if flags.bool("enable_realtime_stats") {
        health.watch_everything().await?;
    }
    let election = election::Election::start(&env, &topo)?;
    let schema_dir = schema_dir::SchemaDir::start(&env, &wr)?;

    let mut server = env.server();
    let check = topo.clone();
    server.health(move || {
        let topo = check.clone();
        async move { topo.get_keyspaces().await.map(drop).map_err(|_| "not ok".to_owned()) }
    });
    let state = Arc::new(api::State {
        wr: wr.clone(),
        health,
        acl: env.acl(),
        cell: flags.str("cell").to_owned(),
        action_timeout: flags.duration("action_timeout"),
        show_topology_crud: flags.bool("vtctld_show_topology_crud"),
        realtime_stats: flags.bool("enable_realtime_stats"),
        workflows: flags.bool("workflow_manager_init"),
    });
    server.guarded_routes(servenv::Role::Debugging, api::routes(state));
    server.guarded_routes(servenv::Role::Debugging, web::routes());
    status_sections(&mut server, &wr, &election);
    let limit = env.grpc_max_message_size();
    let service =
        VtctlServer::new(VtctlService::new(wr)).max_decoding_message_size(limit).max_encoding_message_size(limit);
    server.grpc("grpc-vtctl", service);
    if let Some(election) = election {
        server.on_term_sync(move || async move { election.stop().await });
    }
    server.on_close(move || async move { drop(schema_dir) });
    server.run(shutdown).await?;
    Ok(())
}

fn status_sections(server: &mut servenv::Server, wr: &Wrangler, election: &Option<election::Election>) {
    let groups: usize = wrangler::groups().iter().map(|group| group.commands().count()).sum();
    let queries = if wr.config().enable_queries { "allowed" } else { "disabled (-enable_queries)" };
    server.status_section("Commands", move || {
        format!("<p>{groups} commands; those that send queries are {queries}. <a href=\"/app/\">Cluster</a></p>")
    });
    if let Some(election) = election {
        let state = election.state();
        server.status_section("Election", move || format!("<p>{}</p>", servenv::html_escape(&state.borrow())));
    }
}
