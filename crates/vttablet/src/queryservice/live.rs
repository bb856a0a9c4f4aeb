//! What runs on which connection right now, and how it is ended.
//!
//! Owns: one [`LiveSlot`] a connection, the registry of them, the watchdog that ends statements past
//! their deadline, and the `KILL` through a connection of user dba.
//! Invariants: a statement's deadline costs no timer of its own, the watchdog looks at all slots every
//! [`WATCH_INTERVAL`]. A connection is given to nobody else before a `KILL` aimed at it is answered.
//! A mysqld that answers neither the statement nor the `KILL` does not hold its caller: after
//! [`KILL_GRACE`] the connection is given up.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::task::AtomicWaker;
use mysql::{ClientError, ConnectParams, Connection};
use tokio::sync::{Notify, Semaphore};
use vterrors::{Code, MysqlError};

use super::schema::cells;

/// How often statements are held against their deadlines: the precision of a query timeout.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// How long a statement may go on after the `KILL` before its connection is given up.
pub const KILL_GRACE: Duration = Duration::from_secs(3);
/// Bound on one `KILL`, connecting included.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// Kills under way at once; more wait their turn.
const KILLS_AT_ONCE: usize = 8;

/// A lock whose holders never panic half way; a poisoned one is as good as a clean one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a statement is ended from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KillReason {
    /// It ran longer than allowed.
    Timeout(Duration),
    /// Its transaction is open longer than allowed.
    Transaction,
    /// An operator or the end of serving.
    Terminated,
    /// Nobody waits for it any more.
    Canceled,
    /// It did not end before its tables were to be served elsewhere.
    Cutover,
}

impl KillReason {
    pub fn code(&self) -> Code {
        match self {
            Self::Timeout(_) => Code::DeadlineExceeded,
            Self::Terminated | Self::Canceled => Code::Canceled,
            Self::Transaction | Self::Cutover => Code::Aborted,
        }
    }

    /// The reason as it stands in the error text.
    pub fn text(&self) -> String {
        match self {
            Self::Timeout(limit) => format!("it ran longer than {limit:?}"),
            Self::Transaction => "its transaction is open longer than allowed".into(),
            Self::Terminated => "it was terminated".into(),
            Self::Canceled => "its caller is gone".into(),
            Self::Cutover => "a cutover did not wait for it any longer".into(),
        }
    }
}

/// A statement that is running.
#[derive(Debug, Clone)]
pub struct Running {
    /// The statement with its placeholders: values are not shown.
    pub sql: Arc<str>,
    pub caller: String,
    pub started: Instant,
    /// When it is killed.
    pub deadline: Option<Instant>,
    pub streaming: bool,
}

#[derive(Debug, Default)]
struct SlotState {
    running: Option<Running>,
    kill: Option<KillReason>,
    /// When the kill was asked for.
    killed_at: Option<Instant>,
    /// The `KILL` has been answered, or given up.
    kill_done: bool,
}

/// One connection as others see it.
#[derive(Debug)]
pub struct LiveSlot {
    /// Key in the registry.
    id: u64,
    /// What `KILL` takes.
    pub thread_id: u32,
    /// Name of the pool it belongs to.
    pub pool: Arc<str>,
    state: Mutex<SlotState>,
    aborted: AtomicBool,
    waker: AtomicWaker,
    killed: Notify,
}

/// A statement's row on a page.
#[derive(Debug, Clone)]
pub struct LiveRow {
    pub thread_id: u32,
    pub pool: Arc<str>,
    pub running: Running,
    pub killing: bool,
}

impl LiveSlot {
    /// Marks the connection as running a statement.
    pub fn begin(&self, running: Running) {
        let mut state = lock(&self.state);
        *state = SlotState { running: Some(running), ..SlotState::default() };
    }

    /// The rows of the running statement are passed on as they come from here on.
    pub fn streams(&self) {
        if let Some(running) = &mut lock(&self.state).running {
            running.streaming = true;
        }
    }

    /// Marks the end, and says whether and why a kill was aimed at the statement.
    pub fn end(&self) -> Option<KillReason> {
        let mut state = lock(&self.state);
        state.running = None;
        state.kill.clone()
    }

    /// Whether a statement is marked as running: true in a drop means that its future was dropped.
    pub fn is_running(&self) -> bool {
        lock(&self.state).running.is_some()
    }

    /// Waits until the `KILL` aimed at this connection was answered, so that it cannot hit a later
    /// statement. Bounded by the kill's own bound.
    pub async fn kill_settled(&self) -> bool {
        tokio::time::timeout(KILL_TIMEOUT, self.kill_answered()).await.is_ok()
    }

    /// Waits until a `KILL` aimed at the statement has been answered, or given up.
    pub async fn kill_answered(&self) {
        loop {
            let settled = self.killed.notified();
            if lock(&self.state).kill_done {
                return;
            }
            settled.await;
        }
    }

    /// Resolves to `None` if the connection is given up before `work` ends.
    pub async fn abortable<F: Future>(&self, work: F) -> Option<F::Output> {
        let mut work = std::pin::pin!(work);
        std::future::poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            self.waker.register(cx.waker());
            if self.aborted.load(Ordering::Acquire) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    fn abort(&self) {
        self.aborted.store(true, Ordering::Release);
        self.waker.wake();
    }
}

/// Kills through connections of user dba, made when needed: kills are rare, and must work when every
/// pool is exhausted.
#[derive(Debug)]
pub struct Killer {
    params: ConnectParams,
    permits: Semaphore,
}

impl Killer {
    /// `KILL [QUERY] id`. An unknown id means that the statement is over: no error.
    async fn kill(&self, thread_id: u32, query_only: bool) {
        let work = async {
            let Ok(_permit) = self.permits.acquire().await else { return };
            let statement = if query_only { format!("kill query {thread_id}") } else { format!("kill {thread_id}") };
            let outcome = match Connection::connect(&self.params).await {
                Ok(mut connection) => connection.execute(&statement).await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = outcome
                && error.errno() != 1094
            {
                tracing::warn!("{statement}: {error}");
            }
        };
        if tokio::time::timeout(KILL_TIMEOUT, work).await.is_err() {
            tracing::warn!("kill of connection {thread_id} took longer than {KILL_TIMEOUT:?}");
        }
    }
}

/// Every connection of the query service.
#[derive(Debug)]
pub struct LiveQueries {
    slots: Mutex<HashMap<u64, Arc<LiveSlot>>>,
    next: AtomicU64,
    killer: Arc<Killer>,
    /// Statements killed: a cell of the variable `Kills`.
    kills: Arc<AtomicI64>,
    /// Where tasks are spawned from a drop, which may run outside a task.
    runtime: tokio::runtime::Handle,
}

impl LiveQueries {
    /// Must be called inside a tokio runtime. The watchdog ends with the registry.
    pub fn new(dba: ConnectParams, kills: Arc<AtomicI64>) -> Arc<Self> {
        let live = Arc::new(Self {
            slots: Mutex::default(),
            next: AtomicU64::new(1),
            killer: Arc::new(Killer { params: dba, permits: Semaphore::new(KILLS_AT_ONCE) }),
            kills,
            runtime: tokio::runtime::Handle::current(),
        });
        tokio::spawn(watch(Arc::downgrade(&live)));
        live
    }

    /// A slot for a new connection.
    pub fn register(&self, thread_id: u32, pool: Arc<str>) -> Arc<LiveSlot> {
        let slot = Arc::new(LiveSlot {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            thread_id,
            pool,
            state: Mutex::default(),
            aborted: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            killed: Notify::new(),
        });
        lock(&self.slots).insert(slot.id, slot.clone());
        slot
    }

    /// Forgets a connection that is closed.
    pub fn unregister(&self, slot: &LiveSlot) {
        lock(&self.slots).remove(&slot.id);
    }

    /// The statements running now, oldest first.
    pub fn rows(&self) -> Vec<LiveRow> {
        let slots: Vec<Arc<LiveSlot>> = lock(&self.slots).values().cloned().collect();
        let mut rows: Vec<LiveRow> = slots
            .iter()
            .filter_map(|slot| {
                let state = lock(&slot.state);
                let running = state.running.clone()?;
                Some(LiveRow {
                    thread_id: slot.thread_id,
                    pool: slot.pool.clone(),
                    running,
                    killing: state.kill.is_some(),
                })
            })
            .collect();
        rows.sort_by_key(|row| row.running.started);
        rows
    }

    /// Ends the statement that runs on a connection. False when none runs there.
    pub fn terminate(self: &Arc<Self>, thread_id: u32) -> bool {
        let slot = lock(&self.slots).values().find(|slot| slot.thread_id == thread_id).cloned();
        slot.is_some_and(|slot| self.kill(&slot, KillReason::Terminated))
    }

    /// Ends every streaming statement.
    pub fn terminate_streams(self: &Arc<Self>) {
        let slots: Vec<Arc<LiveSlot>> = lock(&self.slots).values().cloned().collect();
        for slot in slots {
            if lock(&slot.state).running.as_ref().is_some_and(|r| r.streaming) {
                self.kill(&slot, KillReason::Terminated);
            }
        }
    }

    /// Ends every statement made from one of these very texts. How many that were.
    pub(crate) fn kill_texts(self: &Arc<Self>, texts: &[Arc<str>], reason: &KillReason) -> i64 {
        let slots: Vec<Arc<LiveSlot>> = lock(&self.slots).values().cloned().collect();
        let is_meant = |slot: &&Arc<LiveSlot>| {
            let state = lock(&slot.state);
            state.running.as_ref().is_some_and(|running| texts.iter().any(|text| Arc::ptr_eq(text, &running.sql)))
        };
        let meant: Vec<&Arc<LiveSlot>> = slots.iter().filter(is_meant).collect();
        meant.into_iter().map(|slot| i64::from(self.kill(slot, reason.clone()))).sum()
    }

    /// Statements that mysqld still runs as the user and in the database of `app`, although their
    /// connections were given up here.
    ///
    /// Errors: mysqld's.
    pub(crate) async fn orphans(&self, app: &ConnectParams) -> Result<usize, ClientError> {
        let ask = async {
            let mut connection = Connection::connect(&self.killer.params).await?;
            let threads = connection.execute("show full processlist").await?;
            let own = connection.thread_id();
            connection.close().await;
            Ok((threads, own))
        };
        let (threads, own) = match tokio::time::timeout(KILL_TIMEOUT, ask).await {
            Ok(threads) => threads?,
            Err(_) => {
                let text = format!("mysqld did not list its threads within {KILL_TIMEOUT:?}");
                return Err(ClientError::Connection(MysqlError::new(2013, "HY000", text)));
            }
        };
        let mut known: HashSet<u32> = lock(&self.slots).values().map(|slot| slot.thread_id).collect();
        known.insert(own);
        // Id, User, Host, db, Command.
        let is_orphan = |row: &Vec<String>| {
            row.get(1).is_some_and(|user| *user == app.user)
                && row.get(3).is_some_and(|db| *db == app.db_name)
                && row.get(4).is_some_and(|command| !["Sleep", "Connect"].contains(&command.as_str()))
                && row.first().and_then(|id| id.parse().ok()).is_some_and(|id| !known.contains(&id))
        };
        Ok(threads.rows.iter().map(cells).filter(is_orphan).count())
    }

    /// Starts the kill of whatever runs in a slot; false when nothing runs or it is being killed.
    pub(crate) fn kill(self: &Arc<Self>, slot: &Arc<LiveSlot>, reason: KillReason) -> bool {
        {
            let mut state = lock(&slot.state);
            if state.running.is_none() || state.kill.is_some() {
                return false;
            }
            state.kill = Some(reason);
            state.killed_at = Some(Instant::now());
        }
        self.kills.fetch_add(1, Ordering::Relaxed);
        let (killer, slot) = (self.killer.clone(), slot.clone());
        self.runtime.spawn(async move {
            killer.kill(slot.thread_id, true).await;
            lock(&slot.state).kill_done = true;
            slot.killed.notify_waiters();
        });
        true
    }

    /// Ends a connection whose statement nobody waits for any more. Does not wait.
    pub fn kill_connection(&self, thread_id: u32) {
        self.kills.fetch_add(1, Ordering::Relaxed);
        let killer = self.killer.clone();
        self.runtime.spawn(async move { killer.kill(thread_id, false).await });
    }
}

/// Kills what is past its deadline, and gives up what a kill did not end.
async fn watch(live: Weak<LiveQueries>) {
    let mut tick = tokio::time::interval(WATCH_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(live) = live.upgrade() else { return };
        let now = Instant::now();
        let mut overdue = Vec::new();
        for slot in lock(&live.slots).values() {
            let state = lock(&slot.state);
            let Some(running) = &state.running else { continue };
            match state.killed_at {
                Some(at) if now.duration_since(at) > KILL_GRACE => slot.abort(),
                Some(_) => {}
                None if running.deadline.is_some_and(|deadline| deadline <= now) => overdue.push(slot.clone()),
                None => {}
            }
        }
        for slot in overdue {
            let limit = lock(&slot.state).running.as_ref().map(|r| now.duration_since(r.started)).unwrap_or_default();
            tracing::info!("killing the query on connection {}: it has run for {limit:?}", slot.thread_id);
            let limit = Duration::from_millis(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
            live.kill(&slot, KillReason::Timeout(limit));
        }
    }
}

/// Start of a statement as a wall-clock time, for pages.
pub fn wall_clock(started: Instant) -> DateTime<Utc> {
    Utc::now() - chrono::Duration::from_std(started.elapsed()).unwrap_or_default()
}
