//! One connection to mysqld with what the query service knows of it.
//!
//! Owns: running a statement under a deadline, and the session settings a connection carries.
//! A transaction's opening statements may wait for its first statement, to be one round trip with it
//! ([`DbConn::defer`]); the first is not run unless they have succeeded.
//! Invariants: a connection whose state is not known (a dropped future, a protocol fault) says so with
//! [`DbConn::is_broken`] and is used by nobody again. Settings of one caller never reach a statement of
//! another: [`DbConn::prepare`] runs before every use.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mysql::client::{Pending, RawResult, RawRows};
use mysql::{Behind, ConnectParams, Connection};
use tabletclient::RowSink;
use vterrors::{Code, MysqlError};
use vtproto::query::QueryResult;

use super::error::ExecError;
use super::live::{KillReason, LiveQueries, LiveSlot, Running};

/// Bound on putting a connection into the state a caller wants.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes up to which a result is held and sent in one piece. Of one that grows beyond it, rows are passed on as they come.
const WHOLE: usize = 128 << 10;
/// Bytes of one piece of it: what fits a frame of the way to vtgate, and stays in a processor's cache on the way.
const PIECE: usize = 60 << 10;

/// What a statement is run under.
#[derive(Clone)]
pub struct RunAs<'a> {
    /// The statement as it is shown while it runs.
    pub sql: Arc<str>,
    pub caller: &'a str,
    /// Longest run; `None` is unlimited.
    pub timeout: Option<Duration>,
    /// Most rows of the answer.
    pub max_rows: usize,
    /// Rows may come as `QueryResult.raw_rows`.
    pub raw: bool,
    /// Where raw rows go that are too many to be held. Without one they are held.
    pub sink: Option<&'a dyn RowSink>,
}

impl RunAs<'_> {
    /// For statements of the tablet's own.
    pub fn internal(sql: &str, timeout: Duration) -> Self {
        let (timeout, max_rows) = (Some(timeout), usize::MAX);
        Self { sql: sql.into(), caller: "", timeout, max_rows, raw: false, sink: None }
    }

    /// Whether rows have been passed on: the statement cannot be run again.
    pub fn has_passed_rows(&self) -> bool {
        self.sink.is_some_and(RowSink::has_begun)
    }

    pub(crate) fn running(&self, streaming: bool) -> Running {
        let started = Instant::now();
        Running {
            sql: self.sql.clone(),
            caller: self.caller.to_owned(),
            started,
            deadline: self.timeout.map(|timeout| started + timeout),
            streaming,
        }
    }
}

/// Statements that open a transaction.
pub(crate) type OpeningTexts = &'static [&'static str];

/// What is to be sent before the next statement.
#[derive(Debug, Clone, Copy)]
enum Opening {
    Nothing,
    Deferred(OpeningTexts),
    /// It was sent and is not known to have succeeded. The connection is of no more use.
    Failed,
}

/// A connection of a pool.
#[derive(Debug)]
pub struct DbConn {
    pub(crate) conn: Connection,
    pub(crate) slot: Arc<LiveSlot>,
    live: Arc<LiveQueries>,
    /// Character set of the login, which a reset does not bring back.
    charset: String,
    /// Settings in force, as they were asked for.
    settings: Vec<String>,
    /// A statement changed session state in a way that is not tracked.
    dirty: bool,
    broken: bool,
    opening: Opening,
    pub(crate) last_used: Instant,
}

impl DbConn {
    /// Connects and registers.
    pub async fn connect(params: &ConnectParams, live: &Arc<LiveQueries>, pool: Arc<str>) -> Result<Self, ExecError> {
        let conn = Connection::connect(params).await?;
        let slot = live.register(conn.thread_id(), pool);
        Ok(Self {
            conn,
            slot,
            live: live.clone(),
            charset: params.charset.clone(),
            settings: Vec::new(),
            dirty: false,
            broken: false,
            opening: Opening::Nothing,
            last_used: Instant::now(),
        })
    }

    /// Whether nobody must use the connection again.
    pub fn is_broken(&self) -> bool {
        self.broken || self.conn.is_broken()
    }

    /// Whether the next user needs [`DbConn::prepare`] to change something.
    pub fn matches(&self, settings: &[String]) -> bool {
        !self.dirty && self.settings == settings
    }

    /// Settings in force, as they were asked for.
    pub fn settings(&self) -> &[String] {
        &self.settings
    }

    /// The statement that leads from `before` to the settings in force; `None` when they are the same.
    pub fn settings_since(&self, before: &[String]) -> Option<String> {
        settings_statement(before, &self.settings, &self.charset)
    }

    /// Says that the statement just run left state behind (SET, LOCK TABLES, a user variable …).
    pub fn mark_dirty(&mut self) {
        self.dirty = true;
    }

    /// Whether a statement left state behind that [`DbConn::prepare`] has not cleared yet.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Says that nobody may use the connection again.
    pub fn mark_broken(&mut self) {
        self.broken = true;
    }

    /// Has a transaction opened together with the next statement, whichever it is. No texts: nothing is opened.
    pub(crate) fn defer(&mut self, opening: OpeningTexts) {
        self.opening = if opening.is_empty() { Opening::Nothing } else { Opening::Deferred(opening) };
    }

    /// Whether an opening waits for the next statement.
    pub(crate) fn is_deferred(&self) -> bool {
        matches!(self.opening, Opening::Deferred(_))
    }

    /// Whether a deferred opening has failed.
    pub(crate) fn has_failed_to_open(&self) -> bool {
        matches!(self.opening, Opening::Failed)
    }

    /// Forgets a deferred opening; whether there was one.
    pub(crate) fn cancel_opening(&mut self) -> bool {
        let deferred = self.is_deferred();
        if deferred {
            self.opening = Opening::Nothing;
        }
        deferred
    }

    /// Sends a deferred opening without waiting for a statement.
    pub(crate) async fn open(&mut self, timeout: Duration) -> Result<(), ExecError> {
        let Opening::Deferred(texts) = std::mem::replace(&mut self.opening, Opening::Nothing) else { return Ok(()) };
        for text in texts {
            self.run(text, timeout).await?;
        }
        Ok(())
    }

    /// Brings the session to exactly these settings. Nothing is sent when it is there already.
    ///
    /// Errors: mysqld's, when a setting is not one; the connection then counts as dirty.
    pub async fn prepare(&mut self, settings: &[String]) -> Result<(), ExecError> {
        // Of a user who never got to his first statement.
        self.opening = Opening::Nothing;
        if self.matches(settings) {
            return Ok(());
        }
        match tokio::time::timeout(PREPARE_TIMEOUT, self.change_settings(settings)).await {
            Ok(done) => done,
            Err(_) => {
                self.broken = true;
                Err(ExecError::new(Code::DeadlineExceeded, "session settings: mysqld did not answer"))
            }
        }
    }

    async fn change_settings(&mut self, settings: &[String]) -> Result<(), ExecError> {
        if self.dirty {
            self.conn.reset().await?;
            self.settings.clear();
            self.dirty = false;
            // A reset returns to the server's character set, not to the one of the login.
            if !self.charset.is_empty() && !self.charset.bytes().all(|b| b.is_ascii_digit()) {
                self.conn.execute(&format!("set names {}", self.charset)).await?;
            }
        }
        if let Some(statement) = settings_statement(&self.settings, settings, &self.charset) {
            self.dirty = true;
            self.conn.query(statement.as_bytes(), 0).await?;
            self.dirty = false;
            self.settings = settings.to_vec();
        }
        Ok(())
    }

    /// The same inside a transaction, which a reset would end: only settings change.
    pub async fn prepare_in_transaction(&mut self, settings: &[String]) -> Result<(), ExecError> {
        if let Some(statement) = settings_statement(&self.settings, settings, &self.charset) {
            self.run(&statement, PREPARE_TIMEOUT).await?;
            self.settings = settings.to_vec();
        }
        Ok(())
    }

    /// Runs one statement and reads its whole result, of which `run.sink` may get the larger part. The bytes are sent as
    /// they are.
    pub async fn exec(&mut self, sql: &[u8], run: &RunAs<'_>) -> Result<QueryResult, ExecError> {
        let slot = self.slot.clone();
        slot.begin(run.running(false));
        let outcome = slot.abortable(self.send(sql, run, &slot)).await;
        let kill = slot.end();
        self.last_used = Instant::now();
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => {
                self.broken = true;
                Err(ExecError::mysql(MysqlError::new(2013, "HY000", "Lost connection to MySQL server"), Code::Unknown))
            }
        };
        match kill {
            None => outcome,
            Some(reason) => {
                let killed = self.after_kill(reason).await;
                // A write that was done before the kill came is done. A read may have swallowed the kill
                // (`select sleep(9)` answers 1) and is over its time all the same.
                match outcome {
                    Ok(result) if result.fields.is_empty() => Ok(result),
                    _ => killed,
                }
            }
        }
    }

    async fn send(&mut self, sql: &[u8], run: &RunAs<'_>, slot: &LiveSlot) -> Result<QueryResult, ExecError> {
        let pending = match self.opening {
            Opening::Deferred(before) => {
                // Until the answer is here.
                self.opening = Opening::Failed;
                match self.conn.query_behind(before, sql).await {
                    Behind::Sent(pending) => pending,
                    Behind::Failed(error) => {
                        self.broken = true;
                        return Err(error.into());
                    }
                    Behind::Apart => {
                        for text in before {
                            if let Err(error) = self.conn.execute(text).await {
                                self.broken = true;
                                return Err(error.into());
                            }
                        }
                        self.opening = Opening::Nothing;
                        self.conn.send_query(sql).await?
                    }
                }
            }
            Opening::Nothing | Opening::Failed => self.conn.send_query(sql).await?,
        };
        let outcome = match run.raw {
            true => raw_answer(pending, run, slot).await,
            false => pending.result(run.max_rows).await.map_err(ExecError::from),
        };
        self.opening = Opening::Nothing;
        outcome
    }

    /// The statement was aimed at by a `KILL`: wait for it, so that it hits nothing later.
    pub(crate) async fn after_kill<T>(&mut self, reason: KillReason) -> Result<T, ExecError> {
        if !self.is_broken() {
            // A kill that came late sticks to the session until its next command: let that be a ping.
            let settled =
                self.slot.kill_settled().await && tokio::time::timeout(PREPARE_TIMEOUT, self.conn.ping()).await.is_ok();
            self.broken |= !settled;
        }
        Err(killed_error(&reason))
    }

    /// A statement of the tablet's own.
    pub async fn run(&mut self, sql: &str, timeout: Duration) -> Result<QueryResult, ExecError> {
        self.exec(sql.as_bytes(), &RunAs::internal(sql, timeout)).await
    }
}

async fn raw_answer(pending: Pending<'_>, run: &RunAs<'_>, slot: &LiveSlot) -> Result<QueryResult, ExecError> {
    let most = if run.sink.is_some() { WHOLE } else { usize::MAX };
    match (pending.raw_result(run.max_rows, most).await?, run.sink) {
        (RawResult::Whole(result), _) => Ok(result),
        // On the heap: most results are whole, and their futures no larger for this.
        (RawResult::Growing(rows), Some(sink)) => Box::pin(pass_on(rows, sink, slot)).await,
        (RawResult::Growing(_), None) => Err(ExecError::new(Code::Internal, "a result without an end")),
    }
}

/// Passes rows on as they come and as the caller takes them. Returns the last of them, with all there is to say of the whole.
async fn pass_on(mut rows: RawRows<'_>, sink: &dyn RowSink, slot: &LiveSlot) -> Result<QueryResult, ExecError> {
    slot.streams();
    let mut held = rows.take_begun();
    let fields = held.fields.clone();
    while let Some(raw_rows) = rows.next(PIECE).await? {
        let piece = std::mem::replace(&mut held, QueryResult { raw_rows, ..QueryResult::default() });
        tokio::select! {
            biased;
            taken = sink.piece(piece) => taken?,
            // The caller may never read on. What mysqld still sends ends with its answer to the kill, and the connection
            // is good for the next statement.
            () = slot.kill_answered() => {
                while rows.next(PIECE).await?.is_some() {}
                break;
            }
        }
    }
    Ok(QueryResult { fields, rows_affected: rows.rows(), ..held })
}

/// What the caller of a killed statement is told.
pub fn killed_error(reason: &KillReason) -> ExecError {
    let text = format!("Query execution was interrupted: {}", reason.text());
    ExecError::mysql(MysqlError::new(1317, "70100", text), reason.code())
}

impl Drop for DbConn {
    fn drop(&mut self) {
        if self.slot.is_running() {
            // The caller is gone in the middle of a statement; closing the socket would not stop mysqld.
            self.slot.end();
            self.live.kill_connection(self.slot.thread_id);
        }
        self.live.unregister(&self.slot);
    }
}

/// The one SET that leads from some settings to others; `None` when they are the same. A setting that
/// is not wanted any more goes back to what the server gives a new session.
fn settings_statement(now: &[String], wanted: &[String], charset: &str) -> Option<String> {
    let name = |setting: &String| {
        let end = setting.find(|c: char| c == '=' || c == ':' || c.is_whitespace()).unwrap_or(setting.len());
        setting[..end].to_ascii_lowercase()
    };
    let wanted_names: Vec<String> = wanted.iter().map(name).collect();
    let mut parts = Vec::new();
    for old in now.iter().map(name).filter(|old| !wanted_names.contains(old)) {
        let back = match old.as_str() {
            "names" | "charset" | "character" => {
                format!("names {}", if charset.is_empty() { "utf8mb4" } else { charset })
            }
            user if user.starts_with('@') && !user.starts_with("@@") => format!("{old} = null"),
            _ => format!("{old} = default"),
        };
        parts.push(back);
    }
    parts.extend(wanted.iter().filter(|setting| !now.contains(setting)).cloned());
    (!parts.is_empty()).then(|| format!("set {}", parts.join(", ")))
}

/// Counts of one pool's connections, shared with its pages.
#[derive(Debug, Default)]
pub struct ConnCounts {
    pub opened: AtomicU64,
    pub open_errors: AtomicU64,
}

impl ConnCounts {
    pub(crate) fn count(&self, ok: bool) {
        let counter = if ok { &self.opened } else { &self.open_errors };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(settings: &[&str]) -> Vec<String> {
        settings.iter().map(|s| s.to_string()).collect()
    }

    #[test]
    fn settings_change_with_one_statement() {
        let change = |now: &[&str], wanted: &[&str]| settings_statement(&list(now), &list(wanted), "utf8");
        assert_eq!(change(&[], &[]), None);
        assert_eq!(change(&["sql_mode = ''"], &["sql_mode = ''"]), None);
        assert_eq!(change(&[], &["a = 1", "b = 2"]).as_deref(), Some("set a = 1, b = 2"));
        assert_eq!(change(&["a = 1"], &["a = 2"]).as_deref(), Some("set a = 2"));
        assert_eq!(change(&["a = 1", "b = 2"], &["b = 2"]).as_deref(), Some("set a = default"));
        assert_eq!(change(&["names latin1"], &[]).as_deref(), Some("set names utf8"));
        assert_eq!(change(&["@x = 1"], &["c = 3"]).as_deref(), Some("set @x = null, c = 3"));
    }
}
