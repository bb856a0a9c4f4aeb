//! How each stream fares: for health messages, variables, the status page and those who wait for a position.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use mysql::Position;
use tokio::sync::{Notify, watch};

use super::row::{State, StreamRow};

/// A stream that is open and silent for this long has nothing to say: its source is idle.
const IDLE: Duration = Duration::from_secs(1);

/// Seconds since 1970.
pub(super) fn unix_now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// One stream at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamStatus {
    pub id: i64,
    pub workflow: String,
    /// `keyspace/shard`
    pub source: String,
    /// Where it reads from now; empty when it does not.
    pub source_tablet: String,
    pub state: State,
    pub stop_position: String,
    /// The position stored with the rows.
    pub position: String,
    pub seconds_behind: i64,
    /// Statements applied.
    pub queries: i64,
    /// Source transactions with such statements.
    pub transactions: i64,
    pub message: String,
}

#[derive(Debug)]
struct Live {
    workflow: String,
    source: String,
    source_tablet: String,
    stop_position: String,
    message: String,
    /// Lag at the last event, and when that was.
    lag: i64,
    seen: Instant,
    /// The stream is open since then.
    streaming: Option<Instant>,
    /// An event has come since it was opened.
    heard: bool,
}

/// How far a stream is stored.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Progress {
    pub position: Position,
    pub state: State,
}

/// What is known of one stream in this process. Outlives the controllers that come and go with changes of its row.
#[derive(Debug)]
pub(super) struct Stream {
    pub id: i64,
    queries: AtomicI64,
    transactions: AtomicI64,
    live: Mutex<Live>,
    progress: watch::Sender<Progress>,
    wanted: Mutex<HashMap<u64, Position>>,
    next_waiter: AtomicU64,
    /// Somebody waits for a position that may be reached but not stored yet.
    pub asked: Notify,
}

/// Takes a waiter off the list.
pub(super) struct Waiting<'a> {
    stream: &'a Stream,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.stream.wanted).remove(&self.number);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream {
    pub fn new(row: &StreamRow) -> Self {
        let stream = Self {
            id: row.id,
            queries: AtomicI64::new(0),
            transactions: AtomicI64::new(0),
            live: Mutex::new(Live {
                workflow: String::new(),
                source: String::new(),
                source_tablet: String::new(),
                stop_position: String::new(),
                message: String::new(),
                lag: 0,
                seen: Instant::now(),
                streaming: None,
                heard: false,
            }),
            progress: watch::channel(Progress { position: Position::default(), state: State::Init }).0,
            wanted: Mutex::default(),
            next_waiter: AtomicU64::new(0),
            asked: Notify::new(),
        };
        stream.read(row);
        stream
    }

    /// Takes over what the row says.
    pub fn read(&self, row: &StreamRow) {
        {
            let mut live = lock(&self.live);
            live.workflow.clone_from(&row.workflow);
            live.source = super::read_source(&row.source)
                .map_or_else(|_| String::new(), |source| format!("{}/{}", source.keyspace, source.shard));
            live.stop_position.clone_from(&row.stop_pos);
            live.message.clone_from(&row.message);
            if row.transaction_timestamp > 0 {
                live.lag = (unix_now() - row.transaction_timestamp).max(0);
                live.seen = Instant::now();
            }
        }
        let position = row.position().unwrap_or_default();
        let state = row.state.parse().unwrap_or(State::Error);
        self.progress.send_replace(Progress { position, state });
    }

    pub fn set_source_tablet(&self, alias: &str) {
        alias.clone_into(&mut lock(&self.live).source_tablet);
    }

    /// The stream of the source is open, or not any more.
    pub fn set_streaming(&self, streaming: bool) {
        let mut live = lock(&self.live);
        live.streaming = streaming.then(Instant::now);
        live.heard = false;
        if !streaming {
            live.source_tablet.clear();
        }
    }

    /// An event of the source with its time.
    pub fn heard(&self, timestamp: i64) {
        let mut live = lock(&self.live);
        live.lag = (unix_now() - timestamp).max(0);
        live.seen = Instant::now();
        live.heard = true;
    }

    pub fn applied(&self, queries: i64, transactions: i64) {
        self.queries.fetch_add(queries, Ordering::Relaxed);
        self.transactions.fetch_add(transactions, Ordering::Relaxed);
    }

    /// The row says now that it is in this state.
    pub fn set_state(&self, state: State, message: &str) {
        message.clone_into(&mut lock(&self.live).message);
        self.progress.send_modify(|progress| progress.state = state);
    }

    /// The row says now that it has reached this position, and is in this state.
    pub fn stored(&self, position: Position, state: State, message: &str) {
        {
            let mut live = lock(&self.live);
            if live.message != message {
                message.clone_into(&mut live.message);
            }
        }
        self.progress.send_replace(Progress { position, state });
    }

    pub fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// From now on somebody waits for `position`, until the value is dropped.
    pub fn wait_for(&self, position: Position) -> Waiting<'_> {
        let number = self.next_waiter.fetch_add(1, Ordering::Relaxed);
        lock(&self.wanted).insert(number, position);
        self.asked.notify_one();
        Waiting { stream: self, number }
    }

    /// Whether somebody waits for a position that `reached` includes.
    pub fn is_awaited(&self, reached: &Position) -> bool {
        lock(&self.wanted).values().any(|wanted| reached.at_least(wanted))
    }

    pub fn counts(&self) -> (i64, i64) {
        (self.queries.load(Ordering::Relaxed), self.transactions.load(Ordering::Relaxed))
    }

    pub fn seconds_behind(&self) -> i64 {
        let state = self.progress.borrow().state;
        let live = lock(&self.live);
        let elapsed = |since: Instant| i64::try_from(since.elapsed().as_secs()).unwrap_or(i64::MAX);
        match live.streaming {
            _ if state == State::Stopped => 0,
            Some(_) if live.heard => live.lag,
            Some(since) if since.elapsed() >= IDLE => 0,
            // Nobody knows what the source has done since.
            _ => live.lag.saturating_add(elapsed(live.seen)),
        }
    }

    pub fn status(&self) -> StreamStatus {
        let seconds_behind = self.seconds_behind();
        let (queries, transactions) = self.counts();
        let progress = self.progress.borrow().clone();
        let live = lock(&self.live);
        StreamStatus {
            id: self.id,
            workflow: live.workflow.clone(),
            source: live.source.clone(),
            source_tablet: live.source_tablet.clone(),
            state: progress.state,
            stop_position: live.stop_position.clone(),
            position: progress.position.to_string(),
            seconds_behind,
            queries,
            transactions,
            message: live.message.clone(),
        }
    }
}
