//! What `/debug/status` shows of the tablet and its health.

use std::fmt::Write;

use servenv::html_escape;
use topo::topoproto;

use super::{decision::Replication, manager::TabletManager};

/// Pages of the query service, linked from the status page.
const PAGES: [&str; 8] = [
    "/queryz",
    "/querylogz",
    "/txlogz",
    "/livequeryz",
    "/streamqueryz",
    "/schemaz",
    "/twopcz",
    "/debug/consolidations",
];

impl TabletManager {
    /// The tablet: who it is and whether it serves. Tests and operators look for these lines.
    pub fn status_html(&self) -> String {
        let state = self.state();
        let tablet = &state.tablet;
        let vtctld = self.config.vtctld_addr.trim_end_matches('/');
        let (keyspace, shard) = (html_escape(&tablet.keyspace), html_escape(&tablet.shard));
        let link =
            |path: String, text: &str| format!("<a href=\"{}{path}\">{}</a>", html_escape(vtctld), html_escape(text));
        let mut out = format!(
            "Alias: {}<br>\nKeyspace: {} Shard: {}<br>\n",
            link(format!("/app/dashboard#/tablet/{}", self.alias_string()), &self.alias_string()),
            link(format!("/app/dashboard#/keyspace/{keyspace}"), &tablet.keyspace),
            link(format!("/app/dashboard#/shard/{keyspace}/{shard}"), &tablet.shard),
        );
        // Writing to a String cannot fail.
        if let Some(range) = &tablet.key_range {
            let _ = writeln!(out, "KeyRange: {}<br>", html_escape(&topoproto::key_range_string(Some(range))));
        }
        let _ = writeln!(
            out,
            "Serving graph: {}<br>",
            link(format!("/app/dashboard#/keyspace/{keyspace}"), &tablet.keyspace)
        );
        let _ = writeln!(out, "Tablet Type: {}<br>", tablet.r#type().as_str_name());
        if !state.permit.denied_tables.is_empty() {
            let names: String =
                state.permit.denied_tables.iter().map(|name| format!("{} ", html_escape(name))).collect();
            let _ = writeln!(out, "BlacklistedTables: {names}<br>");
        }
        if let Some(reason) = &state.permit.refused {
            let _ = writeln!(out, "Query Service disabled: {}<br>", html_escape(reason));
        }
        if let Some(gate) = self.query.gated() {
            let since: chrono::DateTime<chrono::Local> = gate.since.into();
            let _ = writeln!(
                out,
                "Cutover: {} by {} since {}, {} requests held back<br>",
                gate.phase.name(),
                html_escape(&gate.id),
                since.format("%b %d, %Y at %H:%M:%S%.3f (%Z)"),
                gate.refused
            );
        }
        let _ = writeln!(out, "Query Service state: {}<br>", self.query.state_name());
        for page in PAGES {
            let _ = writeln!(out, "<a href=\"{page}\">{page}</a>&nbsp;");
        }
        out
    }

    /// The latest health checks, newest first.
    pub fn health_html(&self) -> String {
        let state = self.state();
        let mut sources = vec!["mysqld"];
        if self.config.enable_replication_reporter {
            sources.push("MySQLReplicationLag");
        }
        if self.query.has_heartbeats() {
            sources.push("MySQLHeartbeat");
        }
        let mut out = format!("<p>Polling health information from {}. Current status: ", sources.join(" and "));
        let lag = match &state.replication {
            Replication::Lag(lag) => *lag,
            Replication::NotWatched | Replication::Broken(_) => Default::default(),
        };
        let (class, word) = match &state.health_error {
            Some(_) => ("unhealthy", "unhealthy"),
            None if state.checked.is_none() => ("unhappy", "unknown"),
            None if lag > self.config.degraded_threshold => ("unhappy", "unhappy"),
            None => ("healthy", "healthy"),
        };
        let _ = write!(out, "<b class=\"{class}\">{word}</b></p>\n<table>\n<tr><th>time</th><th>status</th></tr>\n");
        for record in &state.history {
            let time: chrono::DateTime<chrono::Local> = record.time.into();
            let (class, text) = match (&record.error, &record.ignored) {
                (Some(error), _) => ("unhealthy", format!("unhealthy: {error}")),
                (None, Some(ignored)) => ("unhappy", format!("ignored: {ignored}")),
                (None, None) if record.lag > self.config.degraded_threshold => {
                    ("unhappy", format!("degraded: {} s behind", record.lag.as_secs()))
                }
                (None, None) => ("healthy", "healthy".to_owned()),
            };
            let _ = writeln!(
                out,
                "<tr class=\"{class}\"><td>{}</td><td>{}</td></tr>",
                time.format("%b %d, %Y at %H:%M:%S (%Z)"),
                html_escape(&text)
            );
        }
        out.push_str("</table>\n");
        out
    }
}
