//! What ran: one line a statement, for `-log_queries_to_file` and `/debug/querylog`.
//!
//! Owns: the line's form and its readers. Invariants: with no reader a statement costs nothing here;
//! a slow reader loses lines, never holds up a statement; what is lost is counted.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::Write as _,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use servenv::{Registry, stats::MultiCounter};
use tokio::sync::{broadcast, mpsc};
use vtproto::query::BindVariable;

/// Lines that wait for a slow reader.
const QUEUE: usize = 1000;
/// Longest statement in a line, in bytes.
const MAX_SQL: usize = 64 * 1024;

/// How lines look: `-querylog-format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Settings of a [`QueryLog`].
#[derive(Debug, Clone)]
pub struct QueryLogOptions {
    pub format: Format,
    /// Leave out statements and values (`-redact-debug-ui-queries`).
    pub redact: bool,
    /// Log only statements that hold this text (`-querylog-filter-tag`).
    pub filter_tag: String,
}

/// One statement that ran.
#[derive(Debug, Clone)]
pub struct Record {
    pub method: &'static str,
    pub remote: String,
    pub username: String,
    pub immediate: String,
    pub effective: String,
    pub started: SystemTime,
    pub total: Duration,
    pub plan: Duration,
    pub statement: &'static str,
    pub sql: String,
    pub bind_variables: BTreeMap<String, BindVariable>,
    pub shard_queries: u64,
    pub rows_affected: u64,
    pub error: String,
}

/// Where records go.
pub struct QueryLog {
    options: QueryLogOptions,
    lines: broadcast::Sender<Arc<str>>,
    file: Option<mpsc::Sender<String>>,
    /// Readers of `/debug/querylog` and the like.
    readers: AtomicUsize,
    sent: MultiCounter,
    delivered: MultiCounter,
    dropped: MultiCounter,
}

impl QueryLog {
    /// `file`: where to append lines, if anywhere.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(registry: &Registry, options: QueryLogOptions, file: Option<&Path>) -> std::io::Result<Arc<Self>> {
        let sent = registry.multi_counter("StreamlogSend", "stream log send count", &["logger_names"]);
        let delivered = registry.multi_counter("StreamlogDelivered", "Stream log delivered", &["Log", "Subscriber"]);
        let dropped = registry.multi_counter(
            "StreamlogDeliveryDroppedMessages",
            "Dropped messages by streamlog delivery",
            &["Log", "Subscriber"],
        );
        let file = match file {
            None => None,
            Some(path) => {
                let mut output = servenv::logging::open_to_append(path)?;
                let (sender, mut lines) = mpsc::channel::<String>(QUEUE);
                let delivered = delivered.clone();
                std::thread::Builder::new().name("query log".into()).spawn(move || {
                    while let Some(line) = lines.blocking_recv() {
                        if let Err(error) = output.write_all(line.as_bytes()) {
                            tracing::error!("cannot write the query log: {error}");
                        }
                        delivered.inc(&["VTGate", "log"]);
                    }
                })?;
                Some(sender)
            }
        };
        let lines = broadcast::channel(QUEUE).0;
        Ok(Arc::new(Self { options, lines, file, readers: AtomicUsize::new(0), sent, delivered, dropped }))
    }

    /// Whether anybody reads: if not, a record need not be made.
    pub fn wanted(&self) -> bool {
        self.file.is_some() || self.readers.load(Ordering::Relaxed) > 0
    }

    pub fn send(&self, record: &Record) {
        if !self.options.filter_tag.is_empty() && !record.sql.contains(&self.options.filter_tag) {
            return;
        }
        self.sent.inc(&["VTGate"]);
        let line = record.line(&self.options);
        if let Some(file) = &self.file
            && file.try_send(line.clone()).is_err()
        {
            self.dropped.inc(&["VTGate", "log"]);
        }
        if self.readers.load(Ordering::Relaxed) > 0 && self.lines.send(line.into()).is_ok() {
            self.delivered.inc(&["VTGate", "http"]);
        }
    }

    /// Lines from now on.
    pub fn subscribe(self: &Arc<Self>) -> Subscription {
        self.readers.fetch_add(1, Ordering::Relaxed);
        Subscription { lines: self.lines.subscribe(), log: self.clone() }
    }
}

/// A reader of the log.
pub struct Subscription {
    lines: broadcast::Receiver<Arc<str>>,
    log: Arc<QueryLog>,
}

impl Subscription {
    /// The next line; `None` when the log has ended.
    pub async fn next(&mut self) -> Option<Arc<str>> {
        loop {
            match self.lines.recv().await {
                Ok(line) => return Some(line),
                Err(broadcast::error::RecvError::Lagged(lost)) => {
                    self.log.dropped.add(&["VTGate", "http"], i64::try_from(lost).unwrap_or(i64::MAX));
                }
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.log.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Record {
    /// The statement's line with its closing newline.
    fn line(&self, options: &QueryLogOptions) -> String {
        let time = |time: SystemTime| chrono::DateTime::<chrono::Local>::from(time).format("%Y-%m-%d %H:%M:%S%.6f");
        let (sql, variables) = if options.redact {
            ("[REDACTED]".to_string(), "\"[REDACTED]\"".to_string())
        } else {
            (cut(&self.sql).to_string(), self.variables(options.format))
        };
        let execute = self.total.saturating_sub(self.plan);
        let ended = self.started + self.total;
        match options.format {
            Format::Text => format!(
                "{}\t{}\t{}\t'{}'\t'{}'\t{}\t{}\t{:.6}\t{:.6}\t{:.6}\t{:.6}\t{}\t{:?}\t{}\t{}\t{}\t{:?}\t\n",
                self.method,
                self.remote,
                self.username,
                self.immediate,
                self.effective,
                time(self.started),
                time(ended),
                self.total.as_secs_f64(),
                self.plan.as_secs_f64(),
                execute.as_secs_f64(),
                0.0,
                self.statement,
                sql,
                variables,
                self.shard_queries,
                self.rows_affected,
                self.error,
            ),
            Format::Json => {
                let text = |s: &str| serde_json::Value::from(s).to_string();
                format!(
                    "{{\"Method\": {}, \"RemoteAddr\": {}, \"Username\": {}, \"ImmediateCaller\": {}, \
                     \"Effective Caller\": {}, \"Start\": \"{}\", \"End\": \"{}\", \"TotalTime\": {:.6}, \
                     \"PlanTime\": {:.6}, \"ExecuteTime\": {:.6}, \"CommitTime\": {:.6}, \"StmtType\": {}, \
                     \"SQL\": {}, \"BindVars\": {}, \"ShardQueries\": {}, \"RowsAffected\": {}, \"Error\": {}}}\n",
                    text(self.method),
                    text(&self.remote),
                    text(&self.username),
                    text(&self.immediate),
                    text(&self.effective),
                    time(self.started),
                    time(ended),
                    self.total.as_secs_f64(),
                    self.plan.as_secs_f64(),
                    execute.as_secs_f64(),
                    0.0,
                    text(self.statement),
                    text(&sql),
                    variables,
                    self.shard_queries,
                    self.rows_affected,
                    text(&self.error),
                )
            }
        }
    }

    fn variables(&self, format: Format) -> String {
        let value = |variable: &BindVariable| String::from_utf8_lossy(cut_bytes(&variable.value)).into_owned();
        match format {
            Format::Text => {
                let mut out = String::from("map[");
                for (name, variable) in &self.bind_variables {
                    // Writing into a String cannot fail.
                    let _ = write!(out, "{name}:type:{} value:{:?} ", variable.r#type().as_str_name(), value(variable));
                }
                out.push(']');
                out
            }
            Format::Json => {
                let entries = self.bind_variables.iter().map(|(name, variable)| {
                    let entry = serde_json::json!({"type": variable.r#type().as_str_name(), "value": value(variable)});
                    (name.clone(), entry)
                });
                serde_json::Value::Object(entries.collect()).to_string()
            }
        }
    }
}

fn cut(sql: &str) -> &str {
    let mut end = sql.len().min(MAX_SQL);
    while !sql.is_char_boundary(end) {
        end -= 1;
    }
    &sql[..end]
}

fn cut_bytes(value: &[u8]) -> &[u8] {
    &value[..value.len().min(1024)]
}
