//! How far a job is: written by the job, read by pages, progress bars and log lines.
//!
//! Invariant: rows are counted with atomics; the lock is held for text only, never while rows are handled.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a job is doing; the texts are those of Vitess.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    NotStarted,
    Init,
    FindTargets,
    SyncReplication,
    CloneOnline,
    CloneOffline,
    Diff,
    DiffWillFail,
    Debug,
    CleanUp,
    Done,
    Error,
}

impl State {
    pub fn text(self) -> &'static str {
        match self {
            Self::NotStarted => "not started",
            Self::Init => "initializing",
            Self::FindTargets => "finding target instances",
            Self::SyncReplication => "synchronizing replication",
            Self::CloneOnline => "cloning the data (online)",
            Self::CloneOffline => "cloning the data (offline)",
            Self::Diff => "running the diff",
            Self::DiffWillFail => "running the diff, already found differences",
            Self::Debug => "running an internal debug command",
            Self::CleanUp => "cleaning up",
            Self::Done => "done",
            Self::Error => "error",
        }
    }

    fn is_pass(self) -> bool {
        matches!(self, Self::CloneOnline | Self::CloneOffline | Self::Diff | Self::DiffWillFail)
    }
}

/// How far one table is in the present pass.
#[derive(Debug)]
pub struct TableProgress {
    pub name: String,
    /// Rows to expect, an estimate of the server.
    pub expected_rows: u64,
    pub chunks: u64,
    pub chunks_done: AtomicU64,
    pub rows: AtomicU64,
    pub bytes: AtomicU64,
    /// Rows that the destination lacked.
    pub inserts: AtomicU64,
    /// Rows that differed.
    pub updates: AtomicU64,
    /// Rows that only the destination had.
    pub deletes: AtomicU64,
    pub equal: AtomicU64,
    started: Instant,
    ended: Mutex<Option<Instant>>,
}

/// A reading of [`TableProgress`].
#[derive(Debug, Clone, PartialEq)]
pub struct TableReading {
    pub name: String,
    pub rows: u64,
    pub expected_rows: u64,
    pub bytes: u64,
    pub elapsed: Duration,
    pub done: bool,
}

impl TableReading {
    /// Rows per second so far.
    pub fn rate(&self) -> f64 {
        self.rows as f64 / self.elapsed.as_secs_f64().max(0.001)
    }

    /// Share of the whole, 0 to 1.
    pub fn share(&self) -> f64 {
        if self.done {
            return 1.0;
        }
        // An estimate may be too low: only the end is the end.
        (self.rows as f64 / self.expected_rows.max(1) as f64).min(0.99)
    }

    /// Time left at the present rate; `None` before there is one.
    pub fn left(&self) -> Option<Duration> {
        if self.done {
            return Some(Duration::ZERO);
        }
        let rows = self.expected_rows.saturating_sub(self.rows) as f64;
        (self.rows > 0).then(|| Duration::try_from_secs_f64(rows / self.rate()).unwrap_or(Duration::MAX))
    }
}

impl TableProgress {
    pub fn new(name: impl Into<String>, expected_rows: u64, chunks: u64) -> Self {
        Self {
            name: name.into(),
            expected_rows,
            chunks,
            chunks_done: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            inserts: AtomicU64::new(0),
            updates: AtomicU64::new(0),
            deletes: AtomicU64::new(0),
            equal: AtomicU64::new(0),
            started: Instant::now(),
            ended: Mutex::new((chunks == 0).then(Instant::now)),
        }
    }

    /// A chunk has been handled.
    pub fn chunk_done(&self) {
        if self.chunks_done.fetch_add(1, Ordering::Relaxed) + 1 == self.chunks {
            *lock(&self.ended) = Some(Instant::now());
        }
    }

    pub fn read(&self) -> TableReading {
        let ended = *lock(&self.ended);
        TableReading {
            name: self.name.clone(),
            rows: self.rows.load(Ordering::Relaxed),
            expected_rows: self.expected_rows,
            bytes: self.bytes.load(Ordering::Relaxed),
            elapsed: ended.unwrap_or_else(Instant::now).duration_since(self.started),
            done: ended.is_some(),
        }
    }

    /// What a clone did: `customer: 3 inserted, 1 updated, 0 deleted, 96 equal`.
    pub fn clone_result(&self) -> String {
        let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{}: {} inserted, {} updated, {} deleted, {} equal",
            self.name,
            n(&self.inserts),
            n(&self.updates),
            n(&self.deletes),
            n(&self.equal)
        )
    }

    /// What a comparison found: `customer: 96 equal, 1 different, 3 missing, 0 extra`.
    pub fn diff_result(&self) -> String {
        let n = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        format!(
            "{}: {} equal, {} different, {} missing, {} extra",
            self.name,
            n(&self.equal),
            n(&self.updates),
            n(&self.inserts),
            n(&self.deletes)
        )
    }
}

#[derive(Debug, Default)]
struct Inner {
    state: Option<State>,
    subject: String,
    source: String,
    tables: Vec<Arc<TableProgress>>,
    results: Vec<(String, Vec<String>)>,
    error: String,
}

/// The state of one job.
#[derive(Debug)]
pub struct Status {
    pub command: String,
    pub started: Instant,
    inner: Mutex<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Status {
    pub fn new(command: impl Into<String>) -> Self {
        Self { command: command.into(), started: Instant::now(), inner: Mutex::default() }
    }

    pub fn state(&self) -> State {
        lock(&self.inner).state.unwrap_or(State::NotStarted)
    }

    pub fn set_state(&self, state: State) {
        let mut inner = lock(&self.inner);
        let before = inner.state.unwrap_or(State::NotStarted);
        inner.state = Some(state);
        drop(inner);
        if before != state {
            tracing::info!("{} -> {}", before.text(), state.text());
        }
    }

    /// `keyspace/shard` that is worked on.
    pub fn set_subject(&self, subject: impl Into<String>) {
        lock(&self.inner).subject = subject.into();
    }

    /// Begins a pass over tables, read from these tablets.
    pub fn begin_pass(&self, source: impl Into<String>, tables: Vec<Arc<TableProgress>>) {
        let mut inner = lock(&self.inner);
        inner.source = source.into();
        inner.tables = tables;
    }

    /// Ends a pass: its outcome, a line for each table, is kept under this title.
    pub fn end_pass(&self, title: &str, line: fn(&TableProgress) -> String) {
        let mut inner = lock(&self.inner);
        let lines: Vec<String> = inner.tables.iter().map(|table| line(table)).collect();
        for line in &lines {
            tracing::info!("{title}: {line}");
        }
        inner.results.push((title.to_owned(), lines));
        inner.tables.clear();
    }

    pub fn set_error(&self, error: impl Into<String>) {
        lock(&self.inner).error = error.into();
        self.set_state(State::Error);
    }

    /// The tables of the present pass.
    pub fn tables(&self) -> Vec<TableReading> {
        lock(&self.inner).tables.iter().map(|table| table.read()).collect()
    }

    /// As `/status` and the command line show it.
    pub fn text(&self) -> String {
        let inner = lock(&self.inner);
        let state = inner.state.unwrap_or(State::NotStarted);
        let mut text = String::new();
        // Writing to a string cannot fail.
        if !inner.subject.is_empty() {
            let _ = writeln!(text, "Working on: {}", inner.subject);
        }
        let _ = writeln!(text, "State: {}", state.text());
        if state.is_pass() {
            let how =
                if state == State::CloneOffline { "Copying from" } else { "Comparing source and destination using" };
            let _ = writeln!(text, "Running:\n{how}: {}", inner.source);
            let readings: Vec<_> = inner.tables.iter().map(|table| table.read()).collect();
            let _ = writeln!(text, "ETA: {}", eta(&readings));
            for table in &readings {
                let _ = writeln!(text, "{}", table_line(table));
            }
        }
        if state == State::Done {
            let _ = writeln!(text, "Success:");
        }
        if matches!(state, State::Done | State::Error) {
            for (title, lines) in &inner.results {
                let _ = writeln!(text, "{title}:");
                for line in lines {
                    let _ = writeln!(text, "{line}");
                }
            }
        }
        if !inner.error.is_empty() {
            let _ = writeln!(text, "Error: {}", inner.error);
        }
        text
    }
}

/// The time until the slowest table is done.
fn eta(tables: &[TableReading]) -> String {
    match tables.iter().map(TableReading::left).collect::<Option<Vec<_>>>() {
        Some(left) => seconds(left.into_iter().max().unwrap_or_default()),
        None => "not known yet".into(),
    }
}

/// `customer: 120000/500000 rows, 12.1 MB, 80000 rows/s, 5s left`
pub fn table_line(table: &TableReading) -> String {
    let left = match table.left() {
        _ if table.done => "done".to_owned(),
        Some(left) => format!("{} left", seconds(left)),
        None => "waiting".to_owned(),
    };
    let total = table.expected_rows.max(table.rows);
    format!(
        "{}: {}/{total} rows, {}, {:.0} rows/s, {left}",
        table.name,
        table.rows,
        megabytes(table.bytes),
        table.rate()
    )
}

pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// `1h02m`, `3m04s`, `5s`
pub fn seconds(duration: Duration) -> String {
    let all = duration.as_secs();
    match (all / 3600, all / 60 % 60, all % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_clone_names_its_source_and_its_tables() {
        let status = Status::new("VerticalSplitClone");
        status.set_subject("customer/0");
        status.set_state(State::CloneOnline);
        let table = Arc::new(TableProgress::new("corder", 10, 1));
        table.rows.store(5, Ordering::Relaxed);
        status.begin_pass("zone1-0000000102", vec![table.clone()]);
        let text = status.text();
        assert!(text.starts_with("Working on: customer/0\nState: cloning the data (online)\nRunning:\n"), "{text}");
        assert!(text.contains("Comparing source and destination using: zone1-0000000102\nETA: "), "{text}");
        assert!(text.contains("corder: 5/10 rows, 0.0 MB"), "{text}");
        table.inserts.store(10, Ordering::Relaxed);
        table.chunk_done();
        status.end_pass("Online Clone Result", TableProgress::clone_result);
        status.set_state(State::Done);
        let end = "State: done\nSuccess:\nOnline Clone Result:\ncorder: 10 inserted, 0 updated, 0 deleted, 0 equal\n";
        assert!(status.text().ends_with(end), "{}", status.text());
    }

    #[test]
    fn times_and_shares() {
        assert_eq!(seconds(Duration::from_secs(3725)), "1h02m");
        assert_eq!(seconds(Duration::from_secs(65)), "1m05s");
        let empty = TableProgress::new("t", 0, 0).read();
        assert!(empty.done && empty.share() == 1.0);
    }
}
