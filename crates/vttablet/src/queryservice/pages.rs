//! HTTP pages of the query service.
//!
//! Owns: the routes of `commands.md`-style endpoints that show plans, statistics, schema, live queries,
//! logs, rules. Statements are shown with placeholders; what users wrote is escaped.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::error::truncate;
use super::live::wall_clock;
use super::logs::StreamLog;
use super::server::TabletServer;

/// How long `/querylogz` and `/txlogz` listen when they are not told, and at most.
const LISTEN: Duration = Duration::from_secs(10);
const LISTEN_AT_MOST: Duration = Duration::from_secs(300);
/// Lines such a page shows when it is not told, and at most.
const LINES: usize = 300;
const LINES_AT_MOST: usize = 10_000;

/// The page of the query service that changes something.
pub fn admin_routes(server: TabletServer) -> Router {
    Router::new().route("/streamqueryz/terminate", get(terminate)).with_state(server)
}

/// Every page of the query service that shows something.
pub fn debugging_routes(server: TabletServer) -> Router {
    let (query_log, tx_log) = (server.config.query_log_path.clone(), server.config.tx_log_path.clone());
    let mut router = Router::new()
        .route("/queryz", get(queryz))
        .route("/querylogz", get(querylogz))
        .route("/txlogz", get(txlogz))
        .route("/streamqueryz", get(streamqueryz))
        .route("/livequeryz", get(livequeryz))
        .route("/schemaz", get(schemaz))
        .route("/twopcz", get(twopcz))
        .route("/debug/schema", get(async |State(s): State<TabletServer>| pretty(&s.schema.json())))
        .route("/debug/tablet_plans", get(tablet_plans))
        .route("/debug/query_stats", get(query_stats))
        .route("/debug/query_rules", get(async |State(s): State<TabletServer>| pretty(&s.with_rules(|r| r.json()))))
        .route("/debug/consolidations", get(consolidations))
        .route("/debug/hotrows", get(hot_rows))
        .route("/debug/acl", get(async |State(s): State<TabletServer>| pretty(&s.acl().json())));
    if query_log.starts_with('/') {
        router = router.route(&query_log, get(async |State(s): State<TabletServer>| listen(&s.query_log)));
    }
    if tx_log.starts_with('/') {
        router = router.route(&tx_log, get(async |State(s): State<TabletServer>| listen(&s.tx_log.stream)));
    }
    router.with_state(server)
}

/// JSON as Go's `MarshalIndent` with one blank prints it.
fn pretty(value: &Value) -> Response {
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    match value.serialize(&mut serializer) {
        Ok(()) => {
            out.push(b'\n');
            ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], out).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// A log as it comes, until the client leaves.
fn listen(log: &StreamLog) -> Response {
    let lines = ReceiverStream::new(log.listen()).map(|line| Ok::<_, std::convert::Infallible>(line.to_string()));
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(lines)).into_response()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A page with one table.
fn table(title: &str, head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> Html<String> {
    let mut out = format!(
        "<!DOCTYPE html>\n<html><head><title>{title}</title><style>\
         body {{ font-family: sans-serif; }} table {{ border-collapse: collapse; }} \
         td, th {{ border: 1px solid #999; padding: 0.3em; text-align: left; }}</style></head>\
         <body><h1>{title}</h1>\n<table><thead><tr>"
    );
    for name in head {
        let _ = write!(out, "<th>{}</th>", escape(name));
    }
    out.push_str("</tr></thead>\n");
    for row in rows {
        out.push_str("<tr>");
        for cell in row {
            let _ = write!(out, "<td>{}</td>", escape(&cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</table></body></html>\n");
    Html(out)
}

fn seconds(nanos: i64) -> f64 {
    nanos as f64 / 1e9
}

async fn queryz(State(server): State<TabletServer>) -> Html<String> {
    let mut plans = server.plans.plans();
    plans.sort_by_key(|plan| std::cmp::Reverse(plan.own.nanos.load(Ordering::Relaxed)));
    let max = server.config.sql_max_length_ui;
    let rows = plans.into_iter().map(|plan| {
        let read = |cell: &std::sync::atomic::AtomicI64| cell.load(Ordering::Relaxed);
        let count = read(&plan.own.queries);
        let each = count.max(1) as f64;
        vec![
            truncate(&plan.shape.sql, max).into_owned(),
            plan.shape.table.clone(),
            plan.shape.kind.name().to_owned(),
            count.to_string(),
            format!("{:.6}", seconds(read(&plan.own.nanos))),
            format!("{:.6}", seconds(read(&plan.own.mysql_nanos))),
            read(&plan.own.rows).to_string(),
            read(&plan.own.errors).to_string(),
            format!("{:.6}", seconds(read(&plan.own.nanos)) / each),
            format!("{:.6}", seconds(read(&plan.own.mysql_nanos)) / each),
            format!("{:.6}", read(&plan.own.rows) as f64 / each),
            format!("{:.6}", read(&plan.own.errors) as f64 / each),
        ]
    });
    let head = [
        "Query",
        "Table",
        "Plan",
        "Count",
        "Time",
        "MySQL Time",
        "Rows",
        "Errors",
        "Time per query",
        "MySQL Time per query",
        "Rows per query",
        "Errors per query",
    ];
    table("Queries", &head, rows)
}

async fn tablet_plans(State(server): State<TabletServer>) -> Response {
    let mut plans = server.plans.plans();
    plans.sort_by(|a, b| a.shape.sql.cmp(&b.shape.sql));
    let plan = |plan: Arc<super::plan_cache::Plan>| {
        let permissions: Vec<Value> =
            plan.shape.permissions.iter().map(|p| json!({"TableName": p.table, "Role": p.role.name()})).collect();
        json!({
            "Query": &*plan.shape.sql, "PlanID": plan.shape.kind.name(), "TableName": plan.shape.table,
            "Permissions": permissions, "FieldQuery": plan.shape.field_query(), "FullQuery": plan.shape.full_query(),
        })
    };
    pretty(&plans.into_iter().map(plan).collect())
}

async fn query_stats(State(server): State<TabletServer>) -> Response {
    let mut plans = server.plans.plans();
    plans.sort_by(|a, b| a.shape.sql.cmp(&b.shape.sql));
    let max = server.config.sql_max_length_ui;
    let stats = |plan: Arc<super::plan_cache::Plan>| {
        let read = |cell: &std::sync::atomic::AtomicI64| cell.load(Ordering::Relaxed);
        json!({
            "Query": truncate(&plan.shape.sql, max), "Table": plan.shape.table, "Plan": plan.shape.kind.name(),
            "QueryCount": read(&plan.own.queries), "Time": read(&plan.own.nanos),
            "MysqlTime": read(&plan.own.mysql_nanos), "RowCount": read(&plan.own.rows),
            "ErrorCount": read(&plan.own.errors),
        })
    };
    pretty(&plans.into_iter().map(stats).collect())
}

async fn consolidations(State(server): State<TabletServer>) -> String {
    let joins = server.consolidator.joins();
    let mut out = format!("Length: {}\n", joins.len());
    for (sql, count) in joins {
        let shown = if server.config.redact_debug_ui_queries { "[REDACTED]" } else { sql.as_str() };
        let _ = writeln!(out, "{count}: {shown}");
    }
    out
}

async fn hot_rows(State(server): State<TabletServer>) -> String {
    let ranges = server.hot_rows.hottest();
    let mut out = format!("Length: {}\n", ranges.len());
    for (count, range) in ranges {
        let shown = if server.config.redact_debug_ui_queries { "[REDACTED]" } else { &*range };
        let _ = writeln!(out, "{count}: {shown}");
    }
    out
}

async fn schemaz(State(server): State<TabletServer>) -> Html<String> {
    let snapshot = server.schema.snapshot();
    let rows = snapshot.tables.values().map(|t| {
        let columns: Vec<String> = t.columns.iter().map(|c| format!("{}: {}", c.name, c.column_type)).collect();
        vec![
            t.name.clone(),
            columns.join(", "),
            t.primary_key.join(", "),
            t.kind.name().to_owned(),
            t.rows.to_string(),
            t.data_length.to_string(),
            t.index_length.to_string(),
            t.data_free.to_string(),
        ]
    });
    let head = ["Table Name", "Columns", "Primary Key", "Type", "Rows", "Data Length", "Index Length", "Data Free"];
    table("Schema", &head, rows)
}

#[derive(Debug, Deserialize)]
struct LiveParams {
    format: Option<String>,
}

fn live_page(server: &TabletServer, streaming_only: bool, params: &LiveParams) -> Response {
    let rows = server.live.rows().into_iter().filter(|row| row.running.streaming || !streaming_only);
    let max = server.config.sql_max_length_ui;
    let described = rows.map(|row| {
        let sql = truncate(&row.running.sql, max).into_owned();
        (row.running.caller.clone(), row.pool, sql, row.running.started, row.thread_id, row.killing)
    });
    if params.format.as_deref() == Some("json") {
        let all = described.map(|(caller, pool, sql, started, id, killing)| {
            json!({
                "Query": sql, "Context": caller, "Pool": &*pool, "Start": wall_clock(started).to_rfc3339(),
                "Duration": started.elapsed().as_nanos() as u64, "ConnID": id, "State": if killing { "terminating" } else { "running" },
                "ShowTerminateLink": true,
            })
        });
        return pretty(&all.collect());
    }
    let mut page = table(
        if streaming_only { "Streaming Queries" } else { "Live Queries" },
        &["Query", "Caller", "Pool", "Duration", "Start", "ConnectionID", "Current State", "Terminate"],
        described.map(|(caller, pool, sql, started, id, killing)| {
            vec![
                sql,
                caller,
                pool.to_string(),
                format!("{:?}", started.elapsed()),
                wall_clock(started).to_rfc3339(),
                id.to_string(),
                if killing { "terminating" } else { "running" }.into(),
                format!("/streamqueryz/terminate?connID={id}"),
            ]
        }),
    );
    // The last column is our own text and becomes a link.
    page.0 = page.0.replace("<td>/streamqueryz/terminate?connID=", "<td><a href=\"/streamqueryz/terminate?connID=");
    let mut linked = String::with_capacity(page.0.len());
    for line in page.0.lines() {
        match line.split_once("<a href=\"/streamqueryz/terminate?connID=") {
            Some((head, tail)) => {
                let id = tail.split('<').next().unwrap_or_default();
                let rest = &tail[id.len()..];
                let _ = writeln!(linked, "{head}<a href=\"/streamqueryz/terminate?connID={id}\">Terminate</a>{rest}");
            }
            None => {
                let _ = writeln!(linked, "{line}");
            }
        }
    }
    Html(linked).into_response()
}

async fn streamqueryz(State(server): State<TabletServer>, Query(params): Query<LiveParams>) -> Response {
    live_page(&server, true, &params)
}

async fn livequeryz(State(server): State<TabletServer>, Query(params): Query<LiveParams>) -> Response {
    live_page(&server, false, &params)
}

#[derive(Debug, Deserialize)]
struct TerminateParams {
    #[serde(rename = "connID")]
    id: Option<String>,
}

async fn terminate(State(server): State<TabletServer>, Query(params): Query<TerminateParams>) -> Response {
    let Some(id) = params.id.as_deref().and_then(|id| id.parse().ok()) else {
        return (StatusCode::INTERNAL_SERVER_ERROR, "invalid connID\n").into_response();
    };
    if server.live.terminate(id) {
        live_page(&server, true, &LiveParams { format: None })
    } else {
        let text = format!("error: query {id} not found in the list of live queries\n");
        (StatusCode::INTERNAL_SERVER_ERROR, text).into_response()
    }
}

async fn twopcz(State(server): State<TabletServer>) -> Response {
    match server.unresolved().await {
        Ok(all) => {
            let rows = all.into_iter().map(|t| {
                vec![t.dtid, t.state, chrono::DateTime::from_timestamp_nanos(t.time_created).to_rfc3339(), t.detail]
            });
            table("Two-phase commit", &["DTID", "State", "Time created", "Kind"], rows).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

#[derive(Debug, Deserialize)]
struct LogParams {
    /// Seconds to listen.
    timeout: Option<u64>,
    /// Lines to show.
    limit: Option<usize>,
}

async fn log_page(log: &StreamLog, title: &str, params: &LogParams) -> Html<String> {
    let limit = params.limit.unwrap_or(LINES).min(LINES_AT_MOST);
    let listen = params.timeout.map_or(LISTEN, Duration::from_secs).min(LISTEN_AT_MOST);
    let mut lines = log.listen();
    let mut rows = Vec::new();
    let deadline = tokio::time::Instant::now() + listen;
    while rows.len() < limit {
        match tokio::time::timeout_at(deadline, lines.recv()).await {
            Ok(Some(line)) => rows.push(line.trim_end().split('\t').map(str::to_owned).collect()),
            Ok(None) | Err(_) => break,
        }
    }
    table(title, &[], rows)
}

async fn querylogz(State(server): State<TabletServer>, Query(params): Query<LogParams>) -> Html<String> {
    log_page(&server.query_log, "Query log", &params).await
}

async fn txlogz(State(server): State<TabletServer>, Query(params): Query<LogParams>) -> Html<String> {
    log_page(&server.tx_log.stream, "Transaction log", &params).await
}
