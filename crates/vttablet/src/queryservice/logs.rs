//! The query log and the transaction log: one line an event, for whoever listens.
//!
//! Owns: the formats of Vitess's logs, the listeners (HTTP clients, the file of `-log_queries_to_file`).
//! Invariants: without listeners an event costs one atomic load. A listener that does not keep up
//! loses lines, and the loss is counted; nobody waits for it.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::json;
use vtproto::query::VtGateCallerId;
use vtproto::vtrpc::CallerId;
use vtsql::BindVars;

use super::config::LogFormat;
use super::error::{bind_var_text, go_quote};
use super::live::lock;
use super::stats::Stats;
use super::tx::{Conclusion, Transaction};

/// Lines a listener may be behind.
const BACKLOG: usize = 10_000;
/// How long the file writer gathers lines before it writes them: a wake-up a line would cost more than
/// the line.
const GATHER: Duration = Duration::from_millis(20);
const MICROS: &str = "%Y-%m-%d %H:%M:%S%.6f";

/// Hands lines to listeners.
#[derive(Debug)]
pub struct StreamLog {
    name: &'static str,
    listeners: Mutex<Vec<Listener>>,
    active: AtomicUsize,
    stats: Arc<Stats>,
}

#[derive(Debug)]
enum Listener {
    Http(tokio::sync::mpsc::Sender<Arc<str>>),
    File(SyncSender<Arc<str>>),
}

impl StreamLog {
    pub fn new(name: &'static str, stats: Arc<Stats>) -> Self {
        Self { name, listeners: Mutex::default(), active: AtomicUsize::new(0), stats }
    }

    /// Whether anybody listens.
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Relaxed) > 0
    }

    /// A new listener's lines; it is forgotten once the receiver is dropped.
    pub fn listen(&self) -> tokio::sync::mpsc::Receiver<Arc<str>> {
        let (sender, receiver) = tokio::sync::mpsc::channel(BACKLOG);
        self.add(Listener::Http(sender));
        receiver
    }

    /// Appends every line to a file, from a thread of its own. Makes the file's directory where it is missing.
    ///
    /// Errors: the file cannot be opened.
    pub fn log_to_file(&self, path: &Path) -> std::io::Result<()> {
        let file = servenv::logging::open_to_append(path)?;
        let (sender, receiver) = sync_channel(BACKLOG);
        let shown = path.display().to_string();
        std::thread::Builder::new().name(self.name.into()).spawn(move || write_lines(file, &receiver, &shown))?;
        self.add(Listener::File(sender));
        Ok(())
    }

    fn add(&self, listener: Listener) {
        let mut listeners = lock(&self.listeners);
        listeners.push(listener);
        self.active.store(listeners.len(), Ordering::Relaxed);
    }

    /// Hands a line (with its newline) to everybody who listens.
    pub fn send(&self, line: String) {
        self.stats.log_sent.inc(&[self.name]);
        let line: Arc<str> = line.into();
        let mut listeners = lock(&self.listeners);
        listeners.retain(|listener| {
            let (kind, delivered, gone) = match listener {
                Listener::Http(sender) => match sender.try_send(line.clone()) {
                    Ok(()) => ("http", true, false),
                    Err(tokio::sync::mpsc::error::TrySendError::Full(_)) => ("http", false, false),
                    Err(tokio::sync::mpsc::error::TrySendError::Closed(_)) => ("http", false, true),
                },
                Listener::File(sender) => match sender.try_send(line.clone()) {
                    Ok(()) => ("file", true, false),
                    Err(TrySendError::Full(_)) => ("file", false, false),
                    Err(TrySendError::Disconnected(_)) => ("file", false, true),
                },
            };
            if !gone {
                let counter = if delivered { &self.stats.log_delivered } else { &self.stats.log_dropped };
                counter.inc(&[self.name, kind]);
            }
            !gone
        });
        self.active.store(listeners.len(), Ordering::Relaxed);
    }
}

fn write_lines(mut file: std::fs::File, lines: &Receiver<Arc<str>>, path: &str) {
    let mut buffer = String::new();
    while let Ok(first) = lines.recv() {
        buffer.clear();
        buffer.push_str(&first);
        std::thread::sleep(GATHER);
        buffer.extend(lines.try_iter().take(BACKLOG).map(|line| line.to_string()));
        if let Err(error) = file.write_all(buffer.as_bytes()) {
            tracing::error!("{path}: {error}; no more queries are logged there");
            return;
        }
    }
}

/// One statement that was executed.
#[derive(Debug)]
pub struct QueryRecord<'a> {
    pub method: &'a str,
    pub plan: &'a str,
    pub immediate: Option<&'a VtGateCallerId>,
    pub effective: Option<&'a CallerId>,
    pub start: DateTime<Utc>,
    pub total: Duration,
    pub sql: &'a str,
    pub bind_vars: &'a BindVars,
    /// What was sent to mysqld; empty when nothing was.
    pub sent: &'a str,
    /// Statements sent to mysqld.
    pub queries: u32,
    pub mysql_time: Duration,
    pub wait_time: Duration,
    /// `mysql`, `consolidator`; empty when none answered.
    pub source: &'a str,
    pub rows_affected: u64,
    pub response_bytes: usize,
    pub error: &'a str,
}

impl QueryRecord<'_> {
    /// The line, newline included. `redact` leaves out values and the text with them.
    pub fn line(&self, format: LogFormat, redact: bool) -> String {
        const REDACTED: &str = "[REDACTED]";
        let start = self.start.format(MICROS);
        let end = (self.start + chrono::Duration::from_std(self.total).unwrap_or_default()).format(MICROS);
        let user = self.immediate.map_or("", |caller| caller.username.as_str());
        let principal = self.effective.map_or("", |caller| caller.principal.as_str());
        let sent = if redact { REDACTED } else { self.sent };
        let (total, mysql, wait) =
            (self.total.as_secs_f64(), self.mysql_time.as_secs_f64(), self.wait_time.as_secs_f64());
        match format {
            LogFormat::Text => {
                let vars = if redact { format!("{REDACTED:?}") } else { vars_text(self.bind_vars) };
                format!(
                    "{}\t\t\t'{user}'\t'{principal}'\t{start}\t{end}\t{total:.6}\t{}\t{}\t{vars}\t{}\t{}\t{}\t{mysql:.6}\t{wait:.6}\t{}\t{}\t{}\t\n",
                    self.method,
                    self.plan,
                    go_quote(self.sql.as_bytes()),
                    self.queries,
                    go_quote(sent.as_bytes()),
                    if self.source.is_empty() { "none" } else { self.source },
                    self.rows_affected,
                    self.response_bytes,
                    go_quote(self.error.as_bytes()),
                )
            }
            LogFormat::Json => {
                let vars: serde_json::Value = if redact {
                    REDACTED.into()
                } else {
                    let value = |var: &vtproto::query::BindVariable| {
                        let kind = vtproto::query::Type::try_from(var.r#type)
                            .map_or_else(|_| var.r#type.to_string(), |t| t.as_str_name().to_owned());
                        json!({"type": kind, "value": String::from_utf8_lossy(&var.value)})
                    };
                    let vars = self.bind_vars.iter().map(|(name, var)| (name.clone(), value(var)));
                    serde_json::Value::Object(vars.collect())
                };
                let mut line = json!({
                    "Method": self.method, "RemoteAddr": "", "Username": "", "ImmediateCaller": user,
                    "Effective Caller": principal, "Start": start.to_string(), "End": end.to_string(),
                    "TotalTime": total, "PlanType": self.plan, "OriginalSQL": self.sql, "BindVars": vars,
                    "Queries": self.queries, "RewrittenSQL": sent, "QuerySources": self.source,
                    "MysqlTime": mysql, "ConnWaitTime": wait, "RowsAffected": self.rows_affected,
                    "ResponseSize": self.response_bytes, "Error": self.error,
                })
                .to_string();
                line.push('\n');
                line
            }
        }
    }
}

fn vars_text(vars: &BindVars) -> String {
    let parts: Vec<String> =
        vars.iter().map(|(name, var)| format!("{name}:{}", bind_var_text(var).trim_end())).collect();
    format!("map[{}]", parts.join(" "))
}

/// The transaction log.
#[derive(Debug)]
pub struct TxLog {
    pub stream: StreamLog,
}

impl TxLog {
    pub fn new(stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self { stream: StreamLog::new("TxLog", stats) })
    }

    /// Tells the listeners of a transaction that ended.
    pub fn send(&self, tx: &Transaction, conclusion: Conclusion) {
        if !self.stream.is_active() {
            return;
        }
        let statements: Vec<&str> = tx.shown.iter().map(AsRef::as_ref).collect();
        self.stream.send(format!(
            "{}\t'{}'\t'{}'\t{}\t{}\t{:.6}\t{}\t{}\t\n",
            tx.id,
            tx.effective.as_ref().map_or("", |caller| caller.principal.as_str()),
            tx.immediate.as_ref().map_or("", |caller| caller.username.as_str()),
            tx.started_at.format("%b %e %H:%M:%S%.6f"),
            Utc::now().format("%b %e %H:%M:%S%.6f"),
            tx.started.elapsed().as_secs_f64(),
            conclusion.name(),
            statements.join(";"),
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use servenv::stats::Registry;
    use vtproto::query::{BindVariable, Type};

    fn record(bind_vars: &BindVars) -> String {
        query_record(bind_vars).line(LogFormat::Text, false)
    }

    fn query_record(bind_vars: &BindVars) -> QueryRecord<'_> {
        QueryRecord {
            method: "Execute",
            plan: "PASS_SELECT",
            immediate: None,
            effective: None,
            start: DateTime::<Utc>::UNIX_EPOCH,
            total: Duration::from_millis(2),
            sql: "select :a",
            bind_vars,
            sent: "select 1 limit 10001",
            queries: 1,
            mysql_time: Duration::from_millis(1),
            wait_time: Duration::ZERO,
            source: "mysql",
            rows_affected: 1,
            response_bytes: 3,
            error: "",
        }
    }

    #[test]
    fn lines_have_vitess_fields() {
        let var = BindVariable { r#type: Type::Int64.into(), value: "1".into(), values: vec![] };
        let vars = BindVars::from([("a".to_owned(), var)]);
        assert_eq!(
            record(&vars),
            "Execute\t\t\t''\t''\t1970-01-01 00:00:00.000000\t1970-01-01 00:00:00.002000\t0.002000\tPASS_SELECT\t\
             \"select :a\"\tmap[a:type:INT64 value:\"1\"]\t1\t\"select 1 limit 10001\"\tmysql\t0.001000\t0.000000\t1\t3\t\"\"\t\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&query_record(&vars).line(LogFormat::Json, true)).expect("JSON");
        assert_eq!(json["BindVars"], "[REDACTED]");
        assert_eq!(json["RewrittenSQL"], "[REDACTED]");
        assert_eq!(json["OriginalSQL"], "select :a");
    }

    #[test]
    fn listeners_come_and_go() {
        let log = StreamLog::new("QueryLog", Stats::new(&Registry::new("vttablet")));
        assert!(!log.is_active());
        let mut lines = log.listen();
        log.send("one\n".into());
        assert_eq!(lines.try_recv().as_deref(), Ok("one\n"));
        drop(lines);
        log.send("two\n".into());
        assert!(!log.is_active());
    }

    #[test]
    fn lines_reach_the_file() {
        let dir = std::env::temp_dir().join(format!("querylog-{}", std::process::id()));
        let file = dir.join("not there yet").join("query.log");
        let log = StreamLog::new("QueryLog", Stats::new(&Registry::new("vttablet")));
        log.log_to_file(&file).expect("a file");
        log.send("one\n".into());
        log.send("two\n".into());
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        while std::fs::read_to_string(&file).unwrap_or_default() != "one\ntwo\n" {
            assert!(std::time::Instant::now() < deadline, "the lines never came");
            std::thread::yield_now();
        }
        std::fs::remove_dir_all(&dir).expect("its directory");
    }
}
