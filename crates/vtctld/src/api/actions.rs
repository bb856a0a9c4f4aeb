//! Actions: commands run for a form or a script.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use wrangler::logger::MemorySink;
use wrangler::{Error, Logger, run_command};

use super::collections::elements;
use super::{Shared, go_json};

type Params = Query<HashMap<String, String>>;

/// Runs a command and collects its log, within `-action_timeout`.
async fn run(state: &super::State, args: &[String]) -> (Result<(), Error>, String) {
    let sink = Arc::new(MemorySink::default());
    let wr = state.wr.with_logger(Logger::new(sink.clone()));
    tracing::info!("running for HTTP: {}", args.join(" "));
    let outcome = match tokio::time::timeout(state.action_timeout, run_command(&wr, args)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::rule(format!("not done after {:?} (-action_timeout)", state.action_timeout))),
    };
    (outcome, sink.text())
}

/// The `action` of a form, from the query or from the body.
fn action(params: &HashMap<String, String>, body: &[u8]) -> Option<String> {
    if let Some(action) = params.get("action") {
        return Some(action.clone());
    }
    // Names of actions are plain words: nothing in them is percent-encoded.
    let body = std::str::from_utf8(body).ok()?;
    body.split('&').find_map(|pair| pair.strip_prefix("action=")).map(str::to_owned)
}

/// Runs one of the allowed actions on `what` and answers with its result.
async fn act(
    state: &super::State,
    allowed: &[&str],
    what: &str,
    params: &HashMap<String, String>,
    body: &[u8],
) -> Response {
    let Some(action) = action(params, body).filter(|action| !action.is_empty()) else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "missing action\n").into_response();
    };
    let (outcome, output) = if allowed.contains(&action.as_str()) {
        run(state, &[action.clone(), what.to_owned()]).await
    } else {
        (Err(Error::rule("Unknown action")), String::new())
    };
    let output = match &outcome {
        Ok(()) => output,
        Err(error) => format!("{output}{error}"),
    };
    go_json(&json!({ "Name": action, "Parameters": what, "Output": output, "Error": outcome.is_err() }))
}

pub(super) async fn keyspace(
    State(state): Shared,
    Path(keyspace): Path<String>,
    Query(params): Params,
    body: Bytes,
) -> Response {
    let allowed =
        ["ValidateKeyspace", "ValidateSchemaKeyspace", "ValidateVersionKeyspace", "ValidatePermissionsKeyspace"];
    act(&state, &allowed, &keyspace, &params, &body).await
}

pub(super) async fn shard(
    State(state): Shared,
    Path(path): Path<String>,
    Query(params): Params,
    body: Bytes,
) -> Response {
    let [keyspace, shard] = elements(&path)[..] else {
        return super::cannot_get("shards", &Error::rule(format!("invalid shards path: {path:?}")));
    };
    let allowed = ["ValidateShard", "ValidateSchemaShard", "ValidateVersionShard", "ValidatePermissionsShard"];
    act(&state, &allowed, &format!("{keyspace}/{shard}"), &params, &body).await
}

pub(super) async fn tablet(
    State(state): Shared,
    Path(alias): Path<String>,
    Query(params): Params,
    body: Bytes,
) -> Response {
    act(&state, &["Ping", "RefreshState", "DeleteTablet", "ReloadSchema"], &alias, &params, &body).await
}

/// Any command: a JSON array of its words.
pub(super) async fn vtctl(State(state): Shared, body: Bytes) -> Response {
    let args: Vec<String> = match serde_json::from_slice(&body) {
        Ok(args) => args,
        Err(error) => return super::error_text(Error::rule(format!("can't unmarshal request: {error}"))),
    };
    let (outcome, output) = run(&state, &args).await;
    let error = outcome.err().map(|error| error.to_string()).unwrap_or_default();
    go_json(&json!({ "Error": error, "Output": output }))
}

/// The body of `/api/schema/apply`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ApplySchema {
    keyspace: String,
    #[serde(rename = "SQL")]
    sql: String,
    #[serde(default)]
    slave_timeout_seconds: u64,
}

pub(super) async fn apply_schema(State(state): Shared, body: Bytes) -> Response {
    let request: ApplySchema = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return super::error_text(Error::rule(format!("can't unmarshal request: {error}"))),
    };
    let seconds = if request.slave_timeout_seconds == 0 { 10 } else { request.slave_timeout_seconds };
    let args = [
        "ApplySchema".to_owned(),
        format!("-wait_slave_timeout={seconds}s"),
        format!("-sql={}", request.sql),
        request.keyspace,
    ];
    match run(&state, &args).await {
        (Ok(()), output) => output.into_response(),
        (Err(error), _) => super::error_text(error),
    }
}
