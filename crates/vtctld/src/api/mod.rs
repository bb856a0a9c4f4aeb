//! The REST API: what the cluster looks like, as JSON, and a few actions.
//!
//! Answers have the shapes of Vitess's vtctld: single records as PB-JSON, lists and maps as Go's
//! `encoding/json`; a missing record is 404, any other failure 500 with its text. `overview/` is our own,
//! for the page.
//! Invariants: a GET changes nothing; a POST needs the ADMIN role, and a browser may only send it from a
//! page of this server.

mod actions;
mod collections;
mod explorer;
mod overview;
mod realtime;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use servenv::{Acl, Role};
use wrangler::{Error, Wrangler};

use crate::HealthCache;
use crate::web::redirect;

/// What handlers share.
pub struct State {
    pub wr: Wrangler,
    pub health: HealthCache,
    pub acl: Acl,
    /// `-cell`: what `local` means.
    pub cell: String,
    /// `-action_timeout`: bound of one action over HTTP.
    pub action_timeout: Duration,
    pub show_topology_crud: bool,
    pub realtime_stats: bool,
    pub workflows: bool,
}

pub(crate) type Shared = axum::extract::State<Arc<State>>;

/// The first path elements that stand for a collection, with a slash behind.
const COLLECTIONS: &[&str] = &[
    "cells",
    "keyspaces",
    "keyspace",
    "shards",
    "srv_keyspace",
    "tablets",
    "tablet_statuses",
    "tablet_health",
    "topology_info",
    "topodata",
    "vtctl",
    "overview",
];

pub fn routes(state: Arc<State>) -> Router {
    let mut routes = Router::new()
        .route("/api/cells/", get(collections::cells))
        .route("/api/keyspaces/", get(collections::keyspaces))
        .route("/api/keyspaces/{keyspace}", get(collections::keyspace).post(actions::keyspace))
        .route("/api/keyspace/{*path}", get(collections::keyspace_tablets))
        .route("/api/shards/{*path}", get(collections::shards).post(actions::shard))
        .route("/api/srv_keyspace/{*path}", get(collections::srv_keyspaces))
        .route("/api/tablets/", get(collections::tablets))
        .route("/api/tablets/{alias}", get(collections::tablet).post(actions::tablet))
        .route("/api/tablets/{alias}/health", get(realtime::health_of_tablet))
        .route("/api/tablet_statuses/", get(realtime::statuses))
        .route("/api/tablet_health/", get(realtime::tablet_health))
        .route("/api/tablet_health/{*path}", get(realtime::tablet_health))
        .route("/api/topology_info/", get(realtime::topology_info))
        .route("/api/topodata/", get(explorer::root))
        .route("/api/topodata/{*path}", get(explorer::node))
        .route("/api/vtctl/", post(actions::vtctl))
        .route("/api/schema/apply", post(actions::apply_schema))
        .route("/api/features", get(collections::features))
        .route("/api/overview/", get(overview::overview))
        .route("/api/workflow/{*path}", any(async || error_text(Error::rule("workflows are not built yet"))))
        .route("/explorers/redirect", get(collections::explorers_redirect));
    for name in COLLECTIONS {
        routes = routes.route(&format!("/api/{name}"), any(with_slash));
    }
    routes.layer(middleware::from_fn_with_state(state.clone(), guard_posts)).with_state(state)
}

/// Sends `/api/x` to `/api/x/`, method and query kept.
async fn with_slash(uri: Uri) -> Response {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    redirect(StatusCode::TEMPORARY_REDIRECT, "Temporary Redirect", &format!("{}/{query}", uri.path()))
}

/// Lets POSTs through only if the policy allows changes and no foreign page sends them.
async fn guard_posts(axum::extract::State(state): Shared, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    if let Err(refused) = state.acl.check(Role::Admin) {
        return refused;
    }
    if is_foreign(request.headers()) {
        return (StatusCode::FORBIDDEN, "requests from pages of other servers are refused\n").into_response();
    }
    next.run(request).await
}

/// Whether a browser sends this from a page of another server.
fn is_foreign(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = text(header::ORIGIN) else { return false };
    origin.split_once("://").map(|(_, host)| host) != text(header::HOST)
}

/// A JSON answer.
pub(crate) fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response()
}

/// A value as Go prints it.
pub(crate) fn go_json(value: &serde_json::Value) -> Response {
    json(vtjson::go_indent(value))
}

/// The answer to a request that failed as a whole.
pub(crate) fn error_text(error: Error) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response()
}

/// The answer of a collection that could not be read.
pub(crate) fn cannot_get(collection: &str, error: &Error) -> Response {
    if error.is_no_node() {
        return not_found();
    }
    (StatusCode::INTERNAL_SERVER_ERROR, format!("can't get {collection}: {error}\n")).into_response()
}

pub(crate) fn not_found() -> Response {
    (StatusCode::NOT_FOUND, "404 page not found\n").into_response()
}
