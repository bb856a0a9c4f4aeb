//! A pool of connections to mysqld.
//!
//! Owns: how many connections there are, who gets the next one, and when an idle one is closed.
//! Invariants: connections out plus idle never exceed the capacity. A connection that comes back goes
//! straight to the caller who has waited longest, so that nobody overtakes and nobody is woken in
//! vain. A broken connection gives its place to the next waiter, who connects anew. Settings that no idle
//! connection has are put on a new one while there is room, so that callers with different settings do
//! not take turns with one connection, setting it each time. No lock is held while anything is awaited.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use mysql::ConnectParams;
use tokio::sync::oneshot;
use vterrors::Code;

use super::conn::{ConnCounts, DbConn};
use super::error::ExecError;
use super::live::{LiveQueries, lock};

/// How a pool answers when it cannot serve.
#[derive(Debug, Clone)]
pub struct PoolTexts {
    /// RESOURCE_EXHAUSTED: too many wait already.
    pub waiters: &'static str,
    /// RESOURCE_EXHAUSTED: waited too long.
    pub timeout: &'static str,
}

/// Settings of a pool.
#[derive(Debug, Clone)]
pub struct PoolConfig {
    /// Prefix of its metrics: `ConnPool`, `TransactionPool` …
    pub name: String,
    pub capacity: usize,
    pub idle_timeout: Duration,
    /// Callers that may wait at once.
    pub waiter_cap: usize,
    /// Longest wait.
    pub wait_timeout: Duration,
    pub texts: PoolTexts,
}

/// Counters of a pool.
#[derive(Debug, Default)]
pub struct PoolStats {
    pub wait_count: AtomicU64,
    pub wait_nanos: AtomicU64,
    /// Times that the last connection was taken.
    pub exhausted: AtomicU64,
    pub idle_closed: AtomicU64,
    pub conns: ConnCounts,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<DbConn>,
    waiters: VecDeque<oneshot::Sender<PooledConn>>,
    /// Places taken: connections out, and those being made.
    out: usize,
    open: bool,
    capacity: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Pool {
    config: PoolConfig,
    label: Arc<str>,
    params: ConnectParams,
    live: Arc<LiveQueries>,
    state: Mutex<State>,
    pub stats: PoolStats,
}

/// A place in a pool, nearly always with a connection. Dropping it gives both back.
#[derive(Debug)]
pub struct PooledConn {
    /// `None` once the place has been passed on.
    pool: Option<Arc<Pool>>,
    conn: Option<DbConn>,
}

impl Pool {
    pub fn new(config: PoolConfig, params: ConnectParams, live: Arc<LiveQueries>) -> Arc<Self> {
        let state = State { capacity: config.capacity, ..State::default() };
        Arc::new(Self {
            label: config.name.as_str().into(),
            config,
            params,
            live,
            state: Mutex::new(state),
            stats: PoolStats::default(),
        })
    }

    pub fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Starts giving out connections; they are made when asked for.
    pub fn open(&self) {
        lock(&self.state).open = true;
    }

    /// Whether it gives out connections.
    pub fn is_open(&self) -> bool {
        lock(&self.state).open
    }

    /// Makes every connection that the pool may have, `parallel` at a time. The pool is not in use yet.
    ///
    /// Errors: the first that kept one from being made.
    pub async fn prefill(self: &Arc<Self>, parallel: usize) -> Result<(), ExecError> {
        let missing = self.available();
        let made: Vec<PooledConn> =
            futures::stream::iter(0..missing).map(|_| self.get(&[])).buffer_unordered(parallel).try_collect().await?;
        // Only now: one that came back at once would have been given out again.
        drop(made);
        Ok(())
    }

    /// Stops: idle connections close now, others when they come back; waiters are told.
    pub fn close(&self) {
        let (idle, waiters) = {
            let mut state = lock(&self.state);
            state.open = false;
            (std::mem::take(&mut state.idle), std::mem::take(&mut state.waiters))
        };
        drop(idle);
        drop(waiters);
    }

    /// Closes idle connections: after one was found dead, the others are not worth trying.
    pub fn drop_idle(&self) {
        let idle = std::mem::take(&mut lock(&self.state).idle);
        drop(idle);
    }

    /// A connection that has these settings.
    ///
    /// Errors: RESOURCE_EXHAUSTED with the pool's texts; mysqld's when connecting or setting fails;
    /// UNAVAILABLE when the pool is closed.
    pub async fn get(self: &Arc<Self>, settings: &[String]) -> Result<PooledConn, ExecError> {
        let mut place = self.place(settings).await?;
        if place.conn.is_none()
            && let Err(error) = place.connect().await
        {
            // One whose settings have to be changed is better than none.
            place.conn = lock(&self.state).idle.pop();
            if place.conn.is_none() {
                return Err(error);
            }
        }
        let conn = place.get_mut()?;
        match conn.prepare(settings).await {
            Ok(()) => Ok(place),
            // The connection died while it was idle: nothing of the caller's has run yet.
            Err(error) if error.is_connection_error() => {
                self.drop_idle();
                place.reconnect().await?;
                place.get_mut()?.prepare(settings).await?;
                Ok(place)
            }
            Err(error) => Err(error),
        }
    }

    async fn place(self: &Arc<Self>, settings: &[String]) -> Result<PooledConn, ExecError> {
        let receiver = {
            let mut state = lock(&self.state);
            if !state.open {
                return Err(closed());
            }
            let conn = state.take_idle(settings);
            if conn.is_some() || state.out < state.capacity {
                state.out += 1;
                if state.out == state.capacity {
                    self.stats.exhausted.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(PooledConn { pool: Some(self.clone()), conn });
            }
            if state.waiters.len() >= self.config.waiter_cap {
                // Those who gave up still stand in the queue until someone looks.
                state.waiters.retain(|waiter| !waiter.is_closed());
            }
            if state.waiters.len() >= self.config.waiter_cap {
                return Err(ExecError::new(Code::ResourceExhausted, self.config.texts.waiters));
            }
            let (sender, receiver) = oneshot::channel();
            state.waiters.push_back(sender);
            receiver
        };
        let started = Instant::now();
        let outcome = tokio::time::timeout(self.config.wait_timeout, receiver).await;
        self.stats.wait_count.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.stats.wait_nanos.fetch_add(nanos, Ordering::Relaxed);
        match outcome {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(closed()),
            Err(_) => Err(ExecError::new(Code::ResourceExhausted, self.config.texts.timeout)),
        }
    }

    /// Gives a place back: to the next waiter, or to the idle ones. What a statement left on the connection (locks, settings) is
    /// cleared first: nobody may have to wait for it until the connection is used again.
    fn put(self: &Arc<Self>, mut conn: Option<DbConn>) {
        if let Some(mut dirty) = conn.take_if(|conn| conn.is_dirty() && !conn.is_broken() && !conn.slot.is_running())
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let pool = self.clone();
            runtime.spawn(async move {
                let cleared = dirty.prepare(&[]).await;
                pool.put(cleared.is_ok().then_some(dirty));
            });
            return;
        }
        let mut conn = conn.filter(|conn| !conn.is_broken() && !conn.slot.is_running());
        loop {
            let waiter = {
                let mut state = lock(&self.state);
                let shrunk = state.out > state.capacity;
                match state.waiters.pop_front() {
                    Some(waiter) if state.open && !shrunk => waiter,
                    _ => {
                        state.out -= 1;
                        if state.open
                            && !shrunk
                            && let Some(conn) = conn.take()
                        {
                            state.idle.push(conn);
                        }
                        break;
                    }
                }
            };
            // Handed over as it is: the place stays taken. A waiter that gave up sends it back.
            match waiter.send(PooledConn { pool: Some(self.clone()), conn: conn.take() }) {
                Ok(()) => return,
                Err(mut returned) => {
                    conn = returned.conn.take();
                    returned.pool = None;
                }
            }
        }
        drop(conn);
    }

    /// Closes connections that have been idle too long.
    pub fn close_idle(&self) {
        if self.config.idle_timeout.is_zero() {
            return;
        }
        let old: Vec<DbConn> = {
            let mut state = lock(&self.state);
            let limit = self.config.idle_timeout;
            let idle = std::mem::take(&mut state.idle);
            let (old, young) = idle.into_iter().partition(|conn| conn.last_used.elapsed() > limit);
            state.idle = young;
            old
        };
        self.stats.idle_closed.fetch_add(old.len() as u64, Ordering::Relaxed);
    }

    pub fn capacity(&self) -> usize {
        lock(&self.state).capacity
    }

    /// Connections that exist: out and idle.
    pub fn active(&self) -> usize {
        let state = lock(&self.state);
        state.out + state.idle.len()
    }

    pub fn in_use(&self) -> usize {
        lock(&self.state).out
    }

    pub fn available(&self) -> usize {
        let state = lock(&self.state);
        state.capacity.saturating_sub(state.out)
    }

    pub fn waiters(&self) -> usize {
        lock(&self.state).waiters.iter().filter(|waiter| !waiter.is_closed()).count()
    }
}

impl State {
    /// The idle connection used last whose settings fit. Without one and without room for a new one the connection that has
    /// been idle longest: its settings are those that are missed least.
    fn take_idle(&mut self, settings: &[String]) -> Option<DbConn> {
        match self.idle.iter().rposition(|conn| conn.matches(settings)) {
            Some(fits) => Some(self.idle.remove(fits)),
            None if self.idle.is_empty() || self.out + self.idle.len() < self.capacity => None,
            None => Some(self.idle.remove(0)),
        }
    }
}

fn closed() -> ExecError {
    ExecError::new(Code::Unavailable, "connection pool is closed")
}

impl PooledConn {
    async fn connect(&mut self) -> Result<(), ExecError> {
        let Some(pool) = &self.pool else { return Err(closed()) };
        let made = DbConn::connect(&pool.params, &pool.live, pool.label.clone()).await;
        pool.stats.conns.count(made.is_ok());
        self.conn = Some(made?);
        Ok(())
    }

    /// A new connection in the same place.
    pub async fn reconnect(&mut self) -> Result<(), ExecError> {
        self.conn = None;
        self.connect().await
    }

    /// The connection; an error only after a failed [`PooledConn::reconnect`].
    pub fn get_mut(&mut self) -> Result<&mut DbConn, ExecError> {
        self.conn.as_mut().ok_or_else(|| ExecError::new(Code::Unavailable, "not connected to mysqld"))
    }

    /// Whether a transaction's opening waits there for a statement.
    pub(crate) fn is_deferred(&self) -> bool {
        self.conn.as_ref().is_some_and(DbConn::is_deferred)
    }

    pub fn is_broken(&self) -> bool {
        self.conn.as_ref().is_none_or(|conn| conn.is_broken() || conn.slot.is_running())
    }
}

impl Drop for PooledConn {
    fn drop(&mut self) {
        let conn = self.conn.take();
        if let Some(pool) = self.pool.take() {
            pool.put(conn);
        }
    }
}
