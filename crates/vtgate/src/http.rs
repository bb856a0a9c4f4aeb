//! vtgate's pages: the vschema, the plans, the query log, the tablets.
//!
//! Owns: their paths and forms. Every number is read from the thing itself when a page is opened.

use std::{
    convert::Infallible,
    fmt::Write as _,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Query, State},
    http::{StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use servenv::{Role, Server, html_escape};
use tabletclient::health_check::{TabletHealth, type_text};

use crate::{
    executor::{Executor, Prepared},
    plan_cache::Cached,
};

/// Longest time a page of `/debug/querylogz` waits for statements.
const MAX_LOG_WAIT: Duration = Duration::from_secs(60);
/// Most statements on such a page.
const MAX_LOG_LINES: usize = 10_000;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    pub executor: Executor,
    /// Longest statement shown, in bytes; 0 is all of it.
    pub sql_max_length: usize,
    /// Hide statements (`-redact-debug-ui-queries`).
    pub redact: bool,
}

/// Adds the pages to a server.
pub fn register(server: &mut Server, pages: Pages) {
    let debugging = Router::new()
        .route("/debug/vschema", get(vschema))
        .route("/debug/query_plans", get(query_plans))
        .route("/debug/scatter_stats", get(scatter_stats))
        .route("/debug/queryz", get(queryz))
        .route("/queryz", get(queryz))
        .route("/debug/querylog", get(querylog))
        .route("/debug/querylogz", get(querylogz))
        .route("/querylogz", get(querylogz))
        .with_state(pages.clone());
    server.guarded_routes(Role::Debugging, debugging);
    let monitoring = Router::new()
        .route("/debug/gateway", get(gateway))
        .route("/api/health-check", get(health_all))
        .route("/api/health-check/", get(health_all))
        .route("/api/health-check/{*item}", get(health_some))
        .with_state(pages.clone());
    server.guarded_routes(Role::Monitoring, monitoring);
    server.redirect_root_to_status();
    let source = pages.executor.clone();
    server.status_section("Gateway Status", move || tablets_table(&source));
    let source = pages.executor;
    server.status_section("Topology Cache", move || keyspaces_table(&source));
}

/// JSON as Go's MarshalIndent prints it with this indentation.
fn indented(value: &Value, indent: &str) -> String {
    use serde::Serialize;
    let mut out = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
    // A Value always serialises, and into memory nothing can fail.
    let _ = value.serialize(&mut serializer);
    String::from_utf8(out).unwrap_or_default()
}

fn json_response(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json; charset=utf-8")], text).into_response()
}

fn plain(text: String) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response()
}

impl Pages {
    fn sql(&self, sql: &str) -> String {
        if self.redact {
            return "[REDACTED]".into();
        }
        if self.sql_max_length == 0 || sql.len() <= self.sql_max_length {
            return sql.into();
        }
        let mut end = self.sql_max_length;
        while !sql.is_char_boundary(end) {
            end -= 1;
        }
        format!("{} [TRUNCATED]", &sql[..end])
    }
}

async fn vschema(State(pages): State<Pages>) -> Response {
    let current = pages.executor.parts().vschema.current().clone();
    json_response(indented(&current.vschema.debug_json(), " "))
}

fn plan_json(pages: &Pages, plan: &Cached<Prepared>) -> Value {
    json!({
        "Original": pages.sql(&plan.sql),
        "Target": plan.target,
        "Instructions": plan.value.name,
        "ExecCount": plan.executions.load(Relaxed),
        "ExecTime": plan.nanos.load(Relaxed),
        "ShardQueries": plan.shard_queries.load(Relaxed),
        "Rows": plan.rows.load(Relaxed),
        "Errors": plan.errors.load(Relaxed),
    })
}

async fn query_plans(State(pages): State<Pages>) -> Response {
    let plans = pages.executor.parts().plans.entries();
    let mut text = format!("Length: {}\n", plans.len());
    for plan in &plans {
        let key = pages.sql(&format!("{}:{}", plan.target, plan.sql));
        // Writing into a String cannot fail.
        let _ = write!(text, "{key:?}\n{}\n\n", indented(&plan_json(&pages, plan), "  "));
    }
    plain(text)
}

async fn scatter_stats(State(pages): State<Pages>) -> Response {
    let plans = pages.executor.parts().plans.entries();
    let scatter = |plan: &&Arc<Cached<Prepared>>| plan.value.name.ends_with("Scatter");
    let total: u64 = plans.iter().map(|plan| plan.nanos.load(Relaxed)).sum();
    let all: u64 = plans.iter().map(|plan| plan.executions.load(Relaxed)).sum();
    let mut found: Vec<_> = plans.iter().filter(scatter).collect();
    found.sort_by_key(|plan| std::cmp::Reverse(plan.nanos.load(Relaxed)));
    let mut rows = String::new();
    for plan in &found {
        let (count, nanos) = (plan.executions.load(Relaxed), plan.nanos.load(Relaxed));
        let percent = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
        let _ = writeln!(
            rows,
            "<tr><td>{:.2}%</td><td>{:.2}%</td><td>{count}</td><td>{}</td></tr>",
            percent(nanos, total),
            percent(count, all),
            html_escape(&pages.sql(&plan.sql)),
        );
    }
    page(
        "Scatter statistics",
        &format!(
            "<p>{} of {} plans scatter.</p><table><tr><th>% of time</th><th>% of queries</th><th>Count</th>\
             <th>Query</th></tr>\n{rows}</table>",
            found.len(),
            plans.len(),
        ),
    )
}

fn page(title: &str, body: &str) -> Response {
    Html(format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>{title}</title></head>\n<body><h1>{title}</h1>\n\
         {body}\n</body></html>\n"
    ))
    .into_response()
}

async fn queryz(State(pages): State<Pages>) -> Response {
    let mut plans = pages.executor.parts().plans.entries();
    plans.sort_by_key(|plan| std::cmp::Reverse(plan.nanos.load(Relaxed)));
    let mut rows = String::new();
    for plan in &plans {
        let count = plan.executions.load(Relaxed);
        let seconds = plan.nanos.load(Relaxed) as f64 / 1e9;
        let per = |number: f64| if count == 0 { 0.0 } else { number / count as f64 };
        let _ = writeln!(
            rows,
            "<tr><td>{}</td><td>{count}</td><td>{seconds:.6}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.6}</td>\
             <td>{:.6}</td></tr>",
            html_escape(&pages.sql(&plan.sql)),
            plan.shard_queries.load(Relaxed),
            plan.rows.load(Relaxed),
            plan.errors.load(Relaxed),
            per(seconds),
            per(plan.rows.load(Relaxed) as f64),
        );
    }
    page(
        "Queries",
        &format!(
            "<table><tr><th>Query</th><th>Count</th><th>Time</th><th>Shard Queries</th><th>Rows</th><th>Errors</th>\
             <th>Time per query</th><th>Rows per query</th></tr>\n{rows}</table>"
        ),
    )
}

async fn querylog(State(pages): State<Pages>) -> Response {
    let lines = pages.executor.parts().log.subscribe();
    let body = futures::stream::unfold(lines, |mut lines| async move {
        let line = lines.next().await?;
        Some((Ok::<_, Infallible>(line.as_bytes().to_vec()), lines))
    });
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], Body::from_stream(body)).into_response()
}

/// What `/debug/querylogz` may be asked.
#[derive(serde::Deserialize)]
struct LogQuery {
    /// Seconds.
    timeout: Option<u64>,
    limit: Option<usize>,
}

async fn querylogz(State(pages): State<Pages>, Query(query): Query<LogQuery>) -> Response {
    let wait = Duration::from_secs(query.timeout.unwrap_or(10)).min(MAX_LOG_WAIT);
    let limit = query.limit.unwrap_or(300).min(MAX_LOG_LINES);
    let mut lines = pages.executor.parts().log.subscribe();
    let mut rows = String::new();
    let gather = async {
        for _ in 0..limit {
            let Some(line) = lines.next().await else { return };
            let cells: String =
                line.trim_end().split('\t').map(|cell| format!("<td>{}</td>", html_escape(cell))).collect();
            let _ = writeln!(rows, "<tr>{cells}</tr>");
        }
    };
    // The time being over is how the page ends on a quiet server.
    let _ = tokio::time::timeout(wait, gather).await;
    let heads = [
        "Method",
        "Client",
        "User",
        "Immediate Caller",
        "Effective Caller",
        "Start",
        "End",
        "Duration",
        "Plan Time",
        "Execute Time",
        "Commit Time",
        "Stmt Type",
        "SQL",
        "Bind Variables",
        "ShardQueries",
        "RowsAffected",
        "Error",
    ];
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    page("Query log", &format!("<table><tr>{heads}</tr>\n{rows}</table>"))
}

fn tablet_json(health: &TabletHealth) -> Value {
    json!({
        "Key": tabletclient::grpc::grpc_address(&health.tablet).unwrap_or_default(),
        "Tablet": vtjson::go_json(&*health.tablet),
        "Name": health.alias(),
        "Target": vtjson::go_json(&*health.target),
        "Up": health.up,
        "Serving": health.serving,
        "TabletExternallyReparentedTimestamp": health.reparented_timestamp,
        "Stats": vtjson::go_json(&health.stats),
        "LastError": health.last_error,
    })
}

/// Tablets by cell and target, filtered.
fn health_json(executor: &Executor, wanted: impl Fn(&TabletHealth) -> bool) -> Value {
    let mut groups: Vec<(String, Value, Vec<Value>)> = Vec::new();
    let mut tablets = executor.parts().scatter.gateway().health().tablets();
    tablets.sort_by_cached_key(|health| {
        let target = &health.target;
        (health.cell().to_string(), target.keyspace.clone(), target.shard.clone(), target.tablet_type, health.alias())
    });
    for health in tablets.iter().filter(|health| wanted(health)) {
        let (cell, target) = (health.cell().to_string(), vtjson::go_json(&*health.target));
        match groups.last_mut() {
            Some((last_cell, last_target, list)) if *last_cell == cell && *last_target == target => {
                list.push(tablet_json(health));
            }
            _ => groups.push((cell, target, vec![tablet_json(health)])),
        }
    }
    let groups = groups.into_iter();
    groups.map(|(cell, target, tablets)| json!({"Cell": cell, "Target": target, "TabletsStats": tablets})).collect()
}

async fn gateway(State(pages): State<Pages>) -> Response {
    json_response(indented(&health_json(&pages.executor, |_| true), "  "))
}

async fn health_all(State(pages): State<Pages>) -> Response {
    json_response(indented(&health_json(&pages.executor, |_| true), "  "))
}

async fn health_some(State(pages): State<Pages>, Path(item): Path<String>) -> Response {
    let Some((by, value)) = item.trim_end_matches('/').split_once('/') else {
        let text = format!(
            "invalid health-check path: {item:?}  expected path: / or /cell/<cell> or /keyspace/<keyspace> or /tablet/<tablet|mysql_hostname>"
        );
        return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
    };
    let matches: Box<dyn Fn(&TabletHealth) -> bool> = match by {
        "cell" => Box::new(|health| health.cell() == value),
        "keyspace" => Box::new(|health| health.target.keyspace == value),
        "tablet" | "alias" => Box::new(|health| health.alias() == value || health.tablet.mysql_hostname == value),
        "tablet_type" => Box::new(|health| type_text(health.target.tablet_type()).eq_ignore_ascii_case(value)),
        other => {
            let text = format!("cannot filter tablets by {other:?}: cell, keyspace, tablet or tablet_type");
            return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
        }
    };
    json_response(indented(&health_json(&pages.executor, matches), "  "))
}

fn tablets_table(executor: &Executor) -> String {
    let mut html = String::from(
        "<table><tr><th>Cell</th><th>Keyspace</th><th>Shard</th><th>Type</th><th>Tablet</th><th>State</th><th>Lag</th>\
         <th>QPS</th><th>Error</th></tr>\n",
    );
    let mut tablets = executor.parts().scatter.gateway().health().tablets();
    tablets.sort_by_cached_key(|health| {
        let target = &health.target;
        (target.keyspace.clone(), target.shard.clone(), target.tablet_type, health.alias())
    });
    for health in &tablets {
        let healthy = health.is_healthy();
        let http = health.tablet.port_map.get("vt").copied().unwrap_or_default();
        let _ = writeln!(
            html,
            "<tr class=\"{}\"><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td><a href=\"http://{}:{http}\">{}</a></td>\
             <td>{}</td><td>{}s</td><td>{:.1}</td><td>{}</td></tr>",
            if healthy { "healthy" } else { "unhealthy" },
            html_escape(health.cell()),
            html_escape(&health.target.keyspace),
            html_escape(&health.target.shard),
            type_text(health.target.tablet_type()),
            html_escape(&health.tablet.hostname),
            html_escape(&health.alias()),
            if health.up && health.serving { "SERVING" } else { "NOT_SERVING" },
            health.lag_seconds(),
            health.stats.qps,
            html_escape(health.last_error.as_deref().unwrap_or_default()),
        );
    }
    html.push_str("</table>");
    html
}

fn keyspaces_table(executor: &Executor) -> String {
    let mut html =
        String::from("<table><tr><th>Cell</th><th>Keyspace</th><th>Type</th><th>Shards</th><th>Error</th></tr>\n");
    for cached in executor.parts().resolver.cache().snapshot() {
        let error = cached.error.as_ref().map(|(error, age)| format!("{error} ({}s ago)", age.as_secs()));
        let partitions: Vec<(String, String)> = match &cached.value {
            Some(record) if !record.partitions.is_empty() => record
                .partitions
                .iter()
                .map(|partition| {
                    let shards: Vec<&str> = partition.shard_references.iter().map(|s| s.name.as_str()).collect();
                    (type_text(partition.served_type()).to_string(), shards.join(" "))
                })
                .collect(),
            _ => vec![Default::default()],
        };
        for (of, shards) in partitions {
            let _ = writeln!(
                html,
                "<tr><td>{}</td><td>{}</td><td>{of}</td><td>{}</td><td>{}</td></tr>",
                html_escape(&cached.cell),
                html_escape(&cached.keyspace),
                html_escape(&shards),
                html_escape(error.as_deref().unwrap_or_default()),
            );
        }
    }
    html.push_str("</table>");
    html
}
