//! Open transactions: by id, each with its connection.
//!
//! Owns: ids, who may use a transaction right now, which tables it has used, its end and the memory of
//! how it ended, the killer of those that stay open too long. Does not own: which transactions are
//! allowed (`server`), nor prepared ones (`twopc`).
//! Invariants: a transaction is used by one caller at a time; whoever finds it in use is told so. A
//! transaction whose connection broke is over. Every transaction that was ended is remembered for a
//! while, so that a late caller learns why. An id is told to a caller only when mysqld has answered BEGIN,
//! which may have waited for the first statement until then ([`BeginOptions::deferred`]). Ids grow: what
//! has an id above one that was read before was opened after that reading.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Local, Utc};
use tokio::sync::Notify;
use vterrors::Code;
use vtproto::query::VtGateCallerId;
use vtproto::query::execute_options::TransactionIsolation;
use vtproto::vtrpc::CallerId;

use super::conn::{DbConn, OpeningTexts};
use super::cutover::{Progress, Tables};
use super::error::ExecError;
use super::live::{LiveSlot, lock};
use super::logs::TxLog;
use super::plan::Shape;
use super::pool::{Pool, PooledConn};
use super::stats::{Stats, nanos};
use super::tx_limiter::TxSlot;

/// Ended transactions that are remembered.
const REMEMBERED: usize = 1000;
/// Bound on ROLLBACK and COMMIT: mysqld may have to write a large transaction.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// How a transaction ended that mysqld did not begin.
const NOT_BEGUN: &str = "not begun";

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conclusion {
    Commit,
    Rollback,
    Prepare,
    Kill,
    Close,
}

impl Conclusion {
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Rollback => "rollback",
            Self::Prepare => "prepare",
            Self::Kill => "kill",
            Self::Close => "close",
        }
    }
}

/// An open transaction.
#[derive(Debug)]
pub struct Transaction {
    pub id: i64,
    conn: PooledConn,
    opening: OpeningTexts,
    pub started: Instant,
    long_read: bool,
    pub started_at: DateTime<Utc>,
    pub effective: Option<CallerId>,
    pub immediate: Option<VtGateCallerId>,
    /// Statements that changed something and those about savepoints, with values: what a prepared transaction is
    /// remembered by. Values may be any bytes. Settings of the session that are not the default are among them.
    pub queries: Vec<Bytes>,
    /// Settings after the last of `queries`.
    settings_of_queries: Vec<String>,
    /// Statements for the transaction log, with placeholders; only filled when it has readers.
    pub shown: Vec<Arc<str>>,
    /// Opened for one statement each: nothing to commit.
    pub autocommit: bool,
    /// Something was written.
    pub wrote: bool,
    /// It has temporary tables, which the schema does not know.
    pub temporary_tables: bool,
    /// Its place in the count of its user.
    _slot: Option<TxSlot>,
    used: Arc<Used>,
}

/// The tables that a transaction has named so far.
#[derive(Debug, Default)]
pub(crate) struct Used(Mutex<UsedTables>);

#[derive(Debug, Default)]
struct UsedTables {
    names: BTreeSet<String>,
    /// Something ran whose tables cannot be told.
    opaque: bool,
}

impl Used {
    pub(crate) fn note(&self, shape: &Shape) {
        let mut used = lock(&self.0);
        used.opaque |= shape.opaque;
        for table in &shape.tables {
            if !used.names.contains(table) {
                used.names.insert(table.clone());
            }
        }
    }

    /// Takes note of a statement that cannot be looked into.
    pub(crate) fn note_opaque(&self) {
        lock(&self.0).opaque = true;
    }

    /// Whether one of them is among `tables`, or may be.
    pub fn meets(&self, tables: &Tables) -> bool {
        let used = lock(&self.0);
        used.opaque || used.names.iter().any(|name| tables.contain(name))
    }
}

impl Transaction {
    pub fn conn(&mut self) -> Result<&mut DbConn, ExecError> {
        self.conn.get_mut()
    }

    pub fn is_broken(&self) -> bool {
        self.conn.is_broken()
    }

    /// Whether its deferred BEGIN has failed, so that there was never a transaction.
    pub fn has_failed_to_begin(&mut self) -> bool {
        // Only a BEGIN is tried again on a new connection: without one, that failed too.
        self.conn.get_mut().map_or(true, |conn| conn.has_failed_to_open())
    }

    /// Remembers a statement that has just been run, and what it depends on in its session.
    ///
    /// Errors: ABORTED when the connection is gone.
    pub(crate) fn remember(&mut self, sql: Bytes) -> Result<(), ExecError> {
        let conn = self.conn.get_mut()?;
        if let Some(change) = conn.settings_since(&self.settings_of_queries) {
            self.settings_of_queries = conn.settings().to_vec();
            self.queries.push(change.into());
        }
        self.queries.push(sql);
        Ok(())
    }

    pub(crate) fn used(&self) -> &Arc<Used> {
        &self.used
    }

    fn user(&self) -> &str {
        self.immediate.as_ref().map_or("", |caller| caller.username.as_str())
    }
}

#[derive(Debug)]
enum Entry {
    Free(Box<Transaction>),
    InUse { purpose: &'static str },
}

#[derive(Debug)]
struct Open {
    entry: Entry,
    autocommit: bool,
    used: Arc<Used>,
    slot: Option<Arc<LiveSlot>>,
    /// What the timeout counts from: the beginning or, of a [`BeginOptions::long_read`], the end of its last use. `None`: it
    /// does not count now.
    counts_from: Option<Instant>,
    /// Rolled back as soon as it is not in use, for this reason.
    doomed: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<i64, Open>,
    ended: HashMap<i64, (DateTime<Utc>, String)>,
    order: VecDeque<i64>,
    /// `Free` ones are rolled back as they come back: serving stops.
    draining: bool,
}

impl State {
    /// Why a transaction ends with the statement that has just ended, if it does. Until it is concluded it stays doomed,
    /// so that who dooms it again meanwhile is not told to be the first.
    fn why_ended(&self, id: i64) -> Option<String> {
        if self.draining {
            return Some("transaction rolled back: serving stops".to_owned());
        }
        self.open.get(&id)?.doomed.clone()
    }

    fn remember(&mut self, id: i64, reason: String) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ended.remove(&oldest);
        }
        self.order.push_back(id);
        self.ended.insert(id, (Utc::now(), reason));
    }
}

/// What [`Transactions::doom`] found.
#[derive(Debug)]
pub(crate) enum Doom {
    /// It has ended, or is ending by itself.
    Over,
    RolledBack,
    /// A statement of it runs there; the transaction ends with it.
    Running {
        slot: Arc<LiveSlot>,
        /// Nobody had said so before.
        first: bool,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Transactions {
    state: Mutex<State>,
    last_id: AtomicI64,
    /// Longest life, of a [`BeginOptions::long_read`] longest time without use; zero is unlimited.
    pub timeout: Duration,
    /// Told whenever the last transaction has ended.
    empty: Notify,
    /// Told whenever one has ended, while a cutover waits for that.
    progress: Arc<Progress>,
    pub pool: Arc<Pool>,
    pub found_rows_pool: Arc<Pool>,
    stats: Arc<Stats>,
    pub log: Arc<TxLog>,
}

/// A transaction in use; dropping it gives it back.
#[derive(Debug)]
pub struct TxGuard {
    owner: Arc<Transactions>,
    tx: Option<Box<Transaction>>,
}

/// What a new transaction is opened with.
#[derive(Debug, Default)]
pub struct BeginOptions<'a> {
    pub found_rows: bool,
    pub isolation: TransactionIsolation,
    /// A snapshot that a job reads tables from, for as long as it uses it.
    pub long_read: bool,
    pub settings: &'a [String],
    /// BEGIN goes to mysqld together with the first statement, or in [`Transactions::settle`], which has to follow.
    pub deferred: bool,
    pub effective: Option<CallerId>,
    pub immediate: Option<VtGateCallerId>,
    /// Its place in the count of its user, if users are limited.
    pub slot: Option<TxSlot>,
}

impl Transactions {
    pub fn new(
        pool: Arc<Pool>,
        found_rows_pool: Arc<Pool>,
        timeout: Duration,
        stats: Arc<Stats>,
        log: Arc<TxLog>,
        progress: Arc<Progress>,
    ) -> Arc<Self> {
        // The clock makes ids of a restarted tablet differ from those its callers may still hold.
        let seed = Utc::now().timestamp_nanos_opt().unwrap_or(1);
        Arc::new(Self {
            state: Mutex::default(),
            last_id: AtomicI64::new(seed),
            timeout,
            empty: Notify::new(),
            progress,
            pool,
            found_rows_pool,
            stats,
            log,
        })
    }

    /// Ids from now on are larger: a prepared transaction of before holds this one.
    pub fn ids_above(&self, id: i64) {
        self.last_id.fetch_max(id, Ordering::SeqCst);
    }

    /// Opens the pools and takes transactions again.
    pub fn open(&self) {
        lock(&self.state).draining = false;
        self.pool.open();
        self.found_rows_pool.open();
    }

    pub fn close_pools(&self) {
        self.pool.close();
        self.found_rows_pool.close();
    }

    /// A connection of the right pool, for a transaction or a single write.
    pub async fn connection(&self, found_rows: bool, settings: &[String]) -> Result<PooledConn, ExecError> {
        let pool = if found_rows { &self.found_rows_pool } else { &self.pool };
        pool.get(settings).await
    }

    /// Opens a transaction and returns it in use.
    pub async fn begin(self: &Arc<Self>, options: BeginOptions<'_>) -> Result<TxGuard, ExecError> {
        let mut conn = self.connection(options.found_rows, options.settings).await?;
        let autocommit = options.isolation == TransactionIsolation::Autocommit;
        let opening = opening_texts(options.isolation);
        conn.get_mut()?.defer(opening);
        if !options.deferred {
            self.open_now(&mut conn, opening, options.settings).await?;
        } else if conn.get_mut()?.conn.is_closed_by_server() {
            // Found now, it costs nothing but a new connection; with a write under way it would be an error.
            self.renew(&mut conn, opening, options.settings).await?;
        }
        let slot = conn.get_mut()?.slot.clone();
        let used = Arc::new(Used::default());
        // With the lock held, so that whoever reads the last id under it finds every smaller one among the open.
        let mut state = lock(&self.state);
        let tx = Box::new(Transaction {
            id: self.last_id.fetch_add(1, Ordering::SeqCst) + 1,
            conn,
            opening,
            started: Instant::now(),
            long_read: options.long_read,
            started_at: Utc::now(),
            effective: options.effective,
            immediate: options.immediate,
            queries: Vec::new(),
            settings_of_queries: Vec::new(),
            shown: Vec::new(),
            autocommit,
            wrote: false,
            temporary_tables: false,
            _slot: options.slot,
            used: used.clone(),
        });
        let entry = Entry::InUse { purpose: "for begin" };
        let counts_from = (!tx.long_read).then(Instant::now);
        state.open.insert(tx.id, Open { entry, autocommit, used, slot: Some(slot), counts_from, doomed: None });
        drop(state);
        Ok(TxGuard { owner: self.clone(), tx: Some(tx) })
    }

    /// Sends a deferred opening to mysqld.
    async fn open_now(
        &self,
        conn: &mut PooledConn,
        opening: OpeningTexts,
        settings: &[String],
    ) -> Result<(), ExecError> {
        match conn.get_mut()?.open(END_TIMEOUT).await {
            // The connection died while it was idle; nothing has been done on it yet.
            Err(error) if error.is_connection_error() => {
                self.renew(conn, opening, settings).await?;
                conn.get_mut()?.open(END_TIMEOUT).await
            }
            outcome => outcome,
        }
    }

    /// A new connection in place of a dead one, and the same opening deferred on it.
    async fn renew(&self, conn: &mut PooledConn, opening: OpeningTexts, settings: &[String]) -> Result<(), ExecError> {
        self.pool.drop_idle();
        self.found_rows_pool.drop_idle();
        conn.reconnect().await?;
        let conn = conn.get_mut()?;
        conn.prepare(settings).await?;
        conn.defer(opening);
        Ok(())
    }

    /// Makes a transaction ready for its first statement again, whose connection died before BEGIN was answered.
    pub(crate) async fn renew_unbegun(&self, tx: &mut Transaction, settings: &[String]) -> Result<(), ExecError> {
        self.renew(&mut tx.conn, tx.opening, settings).await?;
        let slot = tx.conn.get_mut()?.slot.clone();
        if let Some(open) = lock(&self.state).open.get_mut(&tx.id) {
            open.slot = Some(slot);
        }
        Ok(())
    }

    /// Makes sure that a transaction with a deferred BEGIN has begun, if no statement got as far as mysqld. False when its
    /// first statement has failed because of BEGIN.
    ///
    /// Errors: why it cannot begin; it is no more then.
    pub(crate) async fn settle(self: &Arc<Self>, id: i64, settings: &[String]) -> Result<bool, ExecError> {
        {
            let state = lock(&self.state);
            match state.open.get(&id).map(|open| &open.entry) {
                Some(Entry::Free(tx)) if tx.conn.is_deferred() => {}
                Some(_) => return Ok(true),
                None => return Ok(state.ended.get(&id).is_none_or(|(_, reason)| reason != NOT_BEGUN)),
            }
        }
        let mut guard = self.take(id, "for begin")?;
        let tx = guard.get()?;
        let opened = self.open_now(&mut tx.conn, tx.opening, settings).await;
        if opened.is_err()
            && let Ok(conn) = tx.conn()
        {
            conn.mark_broken();
        }
        opened.map(|()| true)
    }

    /// Takes a transaction into use for a statement, whose tables it is remembered to have used.
    pub fn take_for(self: &Arc<Self>, id: i64, purpose: &'static str, shape: &Shape) -> Result<TxGuard, ExecError> {
        let guard = self.take(id, purpose)?;
        if let Some(tx) = &guard.tx {
            tx.used.note(shape);
        }
        Ok(guard)
    }

    /// Takes a transaction into use.
    ///
    /// Errors: ABORTED `transaction N: not found`, `…: in use: PURPOSE`, `…: ended at TIME (REASON)`.
    pub fn take(self: &Arc<Self>, id: i64, purpose: &'static str) -> Result<TxGuard, ExecError> {
        let mut state = lock(&self.state);
        let gone = |text: String| ExecError::new(Code::Aborted, format!("transaction {id}: {text}"));
        match state.open.get_mut(&id) {
            None => Err(gone(match state.ended.get(&id) {
                Some((at, reason)) => {
                    let at = at.with_timezone(&Local).format("%Y-%m-%d %H:%M:%S%.3f %Z");
                    format!("ended at {at} ({reason})")
                }
                None => "not found".into(),
            })),
            Some(open) => match std::mem::replace(&mut open.entry, Entry::InUse { purpose }) {
                Entry::Free(tx) => {
                    if tx.long_read {
                        open.counts_from = None;
                    }
                    Ok(TxGuard { owner: self.clone(), tx: Some(tx) })
                }
                Entry::InUse { purpose } => {
                    open.entry = Entry::InUse { purpose };
                    Err(gone(format!("in use: {purpose}")))
                }
            },
        }
    }

    /// An open transaction that a statement uses, for tests without a mysqld.
    #[cfg(test)]
    pub(crate) fn open_without_connection(&self, slot: Option<Arc<LiveSlot>>) -> (i64, Arc<Used>) {
        let (id, used) = (self.last_id.fetch_add(1, Ordering::SeqCst) + 1, Arc::new(Used::default()));
        let entry = Entry::InUse { purpose: "for query" };
        let open = Open { entry, autocommit: false, used: used.clone(), slot, counts_from: None, doomed: None };
        lock(&self.state).open.insert(id, open);
        (id, used)
    }

    /// Whether the end of its statement ends an open transaction, for tests without a mysqld.
    #[cfg(test)]
    pub(crate) fn ends_with_its_statement(&self, id: i64) -> bool {
        lock(&self.state).why_ended(id).is_some()
    }

    /// The newest id there is: transactions opened from now on have larger ones.
    pub(crate) fn newest_id(&self) -> i64 {
        let _state = lock(&self.state);
        self.last_id.load(Ordering::SeqCst)
    }

    /// Whether a transaction is open. One that commits each statement by itself never counts.
    pub(crate) fn is_open(&self, id: i64) -> bool {
        lock(&self.state).open.get(&id).is_some_and(|open| !open.autocommit)
    }

    /// The open transactions, of those that `counts` is true of, that have used one of `tables`.
    pub(crate) fn using(&self, tables: &Tables, counts: impl Fn(i64) -> bool) -> Vec<i64> {
        let state = lock(&self.state);
        let uses = |(id, open): &(&i64, &Open)| counts(**id) && !open.autocommit && open.used.meets(tables);
        state.open.iter().filter(uses).map(|(id, _)| *id).collect()
    }

    /// Ends a transaction: at once if nobody uses it, otherwise when its statement, which is for the
    /// caller to kill, has ended. One that commits or rolls back already is left to itself.
    pub(crate) async fn doom(self: &Arc<Self>, id: i64, reason: &str) -> Doom {
        let free = {
            let mut state = lock(&self.state);
            let Some(open) = state.open.get_mut(&id) else { return Doom::Over };
            match &open.entry {
                Entry::Free(_) => true,
                Entry::InUse { purpose } if ["for query", "for streaming query"].contains(purpose) => {
                    let first = open.doomed.replace(reason.to_owned()).is_none();
                    return match &open.slot {
                        Some(slot) => Doom::Running { slot: slot.clone(), first },
                        None => Doom::Over,
                    };
                }
                Entry::InUse { .. } => return Doom::Over,
            }
        };
        match self.take(id, "for rollback") {
            Ok(guard) if free => {
                guard.rollback(Conclusion::Kill, reason).await;
                Doom::RolledBack
            }
            _ => Doom::Over,
        }
    }

    /// Forgets an ended transaction and frees its connection.
    fn conclude(&self, tx: Box<Transaction>, conclusion: Conclusion, reason: String) {
        let elapsed = tx.started.elapsed();
        let user = tx.user();
        self.stats.user_transactions.inc(&[user, conclusion.name()]);
        self.stats.user_transaction_nanos.add(&[user, conclusion.name()], nanos(elapsed));
        let label = if conclusion == Conclusion::Commit { "Completed" } else { "Aborted" };
        self.stats.transactions.record(&[label], elapsed);
        self.log.send(&tx, conclusion);
        let emptied = {
            let mut state = lock(&self.state);
            state.open.remove(&tx.id);
            state.remember(tx.id, reason);
            state.open.is_empty()
        };
        drop(tx);
        self.progress.note();
        if emptied {
            self.empty.notify_waiters();
        }
    }

    /// Rolls back every transaction that nobody uses at this moment; those in use follow when they
    /// come back, until [`Transactions::open`].
    pub async fn rollback_free(self: &Arc<Self>) {
        let free: Vec<i64> = {
            let mut state = lock(&self.state);
            state.draining = true;
            state.open.iter().filter(|(_, o)| matches!(o.entry, Entry::Free(_))).map(|(id, _)| *id).collect()
        };
        for id in free {
            if let Ok(guard) = self.take(id, "for rollback") {
                guard.rollback(Conclusion::Kill, "transaction rolled back: serving stops").await;
            }
        }
    }

    /// Waits until no transaction is open.
    pub async fn wait_empty(&self) {
        loop {
            let emptied = self.empty.notified();
            if lock(&self.state).open.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    pub fn count(&self) -> usize {
        lock(&self.state).open.len()
    }

    /// Rolls back transactions that are open longer than allowed. Those in use follow when their statements have ended,
    /// which are for the caller to kill.
    pub async fn kill_outdated(self: &Arc<Self>) -> Vec<Arc<LiveSlot>> {
        let mut running = Vec::new();
        if self.timeout.is_zero() {
            return running;
        }
        let old: Vec<i64> = {
            let state = lock(&self.state);
            let outdated = |open: &Open| open.counts_from.is_some_and(|from| from.elapsed() >= self.timeout);
            state.open.iter().filter(|(_, open)| outdated(open)).map(|(id, _)| *id).collect()
        };
        for id in old {
            let killed = match self.doom(id, &format!("exceeded timeout: {}", go_duration(self.timeout))).await {
                Doom::Over => false,
                Doom::RolledBack => true,
                Doom::Running { slot, first } => {
                    running.push(slot);
                    first
                }
            };
            if killed {
                tracing::warn!("killing transaction {id}: it is open longer than {:?}", self.timeout);
                self.stats.kills.inc(&["Transactions"]);
            }
        }
        running
    }
}

/// A duration of whole seconds or milliseconds as Go prints it.
pub fn go_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let rest =
        |s: u64| if millis > 0 { format!("{}s", s as f64 + f64::from(millis) / 1000.0) } else { format!("{s}s") };
    match seconds {
        0 if millis > 0 => format!("{}ms", duration.as_secs_f64() * 1000.0),
        0..60 => rest(seconds),
        60..3600 => format!("{}m{}", seconds / 60, rest(seconds % 60)),
        _ => format!("{}h{}m{}", seconds / 3600, seconds / 60 % 60, rest(seconds % 60)),
    }
}

fn opening_texts(isolation: TransactionIsolation) -> OpeningTexts {
    match isolation {
        TransactionIsolation::Autocommit => &[],
        TransactionIsolation::Default => &["begin"],
        TransactionIsolation::RepeatableRead => &["set transaction isolation level repeatable read", "begin"],
        TransactionIsolation::ReadCommitted => &["set transaction isolation level read committed", "begin"],
        TransactionIsolation::ReadUncommitted => &["set transaction isolation level read uncommitted", "begin"],
        TransactionIsolation::Serializable => &["set transaction isolation level serializable", "begin"],
        TransactionIsolation::ConsistentSnapshotReadOnly => &[
            "set transaction isolation level repeatable read",
            "start transaction with consistent snapshot, read only",
        ],
    }
}

impl TxGuard {
    /// The transaction; an error only after it was ended.
    pub fn get(&mut self) -> Result<&mut Transaction, ExecError> {
        self.tx.as_deref_mut().ok_or_else(|| ExecError::new(Code::Aborted, "transaction ended"))
    }

    pub fn id(&self) -> i64 {
        self.tx.as_ref().map_or(0, |tx| tx.id)
    }

    /// Commits and ends the transaction, whatever comes of it.
    pub async fn commit(mut self) -> Result<(), ExecError> {
        let Some(tx) = self.tx.as_deref_mut() else { return Ok(()) };
        if !tx.autocommit {
            let conn = tx.conn()?;
            if !conn.cancel_opening()
                && let Err(error) = conn.run("commit", END_TIMEOUT).await
            {
                // Whether it is committed is not known: closing leaves mysqld to decide, and nobody goes on with it.
                conn.mark_broken();
                return Err(error);
            }
        }
        if let Some(tx) = self.tx.take() {
            self.owner.conclude(tx, Conclusion::Commit, "transaction committed".into());
        }
        Ok(())
    }

    /// Rolls back and ends the transaction; a connection that cannot roll back is closed, which comes
    /// to the same.
    pub async fn rollback(mut self, conclusion: Conclusion, reason: &str) {
        let Some(tx) = self.tx.as_deref_mut() else { return };
        if !tx.autocommit
            && let Ok(conn) = tx.conn()
            && !conn.cancel_opening()
            && let Err(error) = conn.run("rollback", END_TIMEOUT).await
        {
            tracing::warn!("rollback: {error}");
            conn.mark_broken();
        }
        if let Some(tx) = self.tx.take() {
            self.owner.conclude(tx, conclusion, reason.into());
        }
    }

    /// Takes the transaction out of the open ones: it is prepared now, and lives elsewhere.
    pub fn into_prepared(mut self) -> Option<Box<Transaction>> {
        let tx = self.tx.take()?;
        let mut state = lock(&self.owner.state);
        state.open.remove(&tx.id);
        state.remember(tx.id, "prepared".into());
        let emptied = state.open.is_empty();
        drop(state);
        if emptied {
            self.owner.empty.notify_waiters();
        }
        Some(tx)
    }

    /// A prepared transaction on its way to commit or rollback.
    pub fn from_prepared(owner: &Arc<Transactions>, tx: Box<Transaction>) -> Self {
        let (entry, used) = (Entry::InUse { purpose: "for commit prepared" }, tx.used.clone());
        let open = Open { entry, autocommit: false, used, slot: None, counts_from: None, doomed: None };
        lock(&owner.state).open.insert(tx.id, open);
        Self { owner: owner.clone(), tx: Some(tx) }
    }
}

impl Drop for TxGuard {
    fn drop(&mut self) {
        let Some(mut tx) = self.tx.take() else { return };
        if tx.conn.is_broken() {
            let reason = if tx.has_failed_to_begin() { NOT_BEGUN } else { "closed" };
            self.owner.conclude(tx, Conclusion::Close, reason.into());
            return;
        }
        let mut state = lock(&self.owner.state);
        if let Some(reason) = state.why_ended(tx.id) {
            drop(state);
            // Closing the connection rolls back without a statement that would have to be awaited.
            if let Ok(conn) = tx.conn.get_mut() {
                conn.mark_broken();
            }
            self.owner.conclude(tx, Conclusion::Kill, reason);
            return;
        }
        // Nobody else removes the entry of a transaction in use.
        if let Some(open) = state.open.get_mut(&tx.id) {
            if tx.long_read {
                open.counts_from = Some(Instant::now());
            }
            open.entry = Entry::Free(tx);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_prints_them() {
        for (millis, text) in [
            (30_000, "30s"),
            (500, "500ms"),
            (1500, "1.5s"),
            (60_000, "1m0s"),
            (90_000, "1m30s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(go_duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn ended_transactions_are_forgotten_in_order() {
        let mut state = State::default();
        for id in 0..=REMEMBERED as i64 {
            state.remember(id, "transaction committed".into());
        }
        assert!(!state.ended.contains_key(&0));
        assert!(state.ended.contains_key(&1));
        assert_eq!(state.ended.len(), REMEMBERED);
    }
}
