//! Two-phase commit: prepared transactions of this shard, and the metadata of distributed ones.
//!
//! Owns: the tables `_vt.redo_state`, `redo_statement`, `dt_state`, `dt_participant`, and the prepared
//! transactions in memory. Layout and states are those of Vitess, so that either can take over.
//! Invariants: a transaction counts as prepared only after its statements are stored, byte for byte; it leaves
//! the store in the same transaction that commits it. A master that starts finds what was prepared and
//! makes it again before it serves. One step at a time is under way for a dtid, and a step that does not come to
//! its end leaves the dtid as the store knows it. Callers of the steps see to it that they are not dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::Utc;
use tokio::sync::Notify;
use vterrors::{Code, Result, VtError};
use vtproto::query::{PrepareResponse, Target, TransactionMetadata, TransactionState};
use vtproto::topodata::TabletType;
use vtproto::{vtgate, vtgateservice};

use super::conn::{DbConn, RunAs};
use super::cutover::{Progress, Tables};
use super::error::ExecError;
use super::live::lock;
use super::plan::Shape;
use super::schema::{cell_bytes, cells};
use super::server::{TabletServer, bare};
use super::tx::{BeginOptions, Conclusion, Transaction, TxGuard, Used};

/// Bound on each statement about metadata.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long a cutover waits for the coordinator of a transaction that was decided here to remove its record. One that
/// has died never does.
const CONCLUDING: Duration = Duration::from_secs(2);
/// Bound on asking the coordinator to resolve one transaction.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);

/// `redo_state.state`.
const REDO_FAILED: i64 = 0;
const REDO_PREPARED: i64 = 1;

const TABLES: [&str; 4] = [
    "create table if not exists _vt.redo_state(dtid varbinary(512), state bigint, time_created bigint, primary key(dtid)) engine=InnoDB",
    "create table if not exists _vt.redo_statement(dtid varbinary(512), id bigint, statement mediumblob, primary key(dtid, id)) engine=InnoDB",
    "create table if not exists _vt.dt_state(dtid varbinary(512), state bigint, time_created bigint, primary key(dtid)) engine=InnoDB",
    "create table if not exists _vt.dt_participant(dtid varbinary(512), id bigint, keyspace varchar(256), shard varchar(256), primary key(dtid, id)) engine=InnoDB",
];

/// A transaction on its way through the two phases.
#[derive(Debug)]
enum Prepared {
    /// Its statements are being stored; it is still among the open ones.
    Preparing,
    Ready(Box<Transaction>),
    /// Somebody commits it right now.
    Committing,
    /// Its commit was interrupted or its connection lost: nothing of it is left in memory, and whoever commits it makes
    /// it from the store.
    Stored,
    /// mysqld refused to commit it: it needs a person.
    Failed,
}

/// See the module.
#[derive(Debug)]
pub struct TwoPc {
    enabled: bool,
    capacity: usize,
    prepared: Mutex<HashMap<String, Prepared>>,
    /// Those decided here of which the record may still be there, with the tables that they used here, and since when.
    decided: Mutex<HashMap<String, (Arc<Used>, Instant)>>,
    /// Told whenever a step has ended.
    settled: Notify,
    /// Told the same, while a cutover waits for that.
    progress: Arc<Progress>,
    last_watch: Mutex<Instant>,
}

/// The entry of a dtid while a step is under way, [`Prepared::Preparing`] or [`Prepared::Committing`].
struct Step<'a> {
    twopc: &'a TwoPc,
    dtid: &'a str,
    /// What the entry is when the step is over; `None` is no entry.
    then: Option<Prepared>,
}

impl Drop for Step<'_> {
    fn drop(&mut self) {
        {
            let mut prepared = lock(&self.twopc.prepared);
            // Otherwise it was put in its place, rolled back or forgotten in between.
            if matches!(prepared.get(self.dtid), Some(Prepared::Preparing | Prepared::Committing)) {
                match self.then.take() {
                    Some(then) => prepared.insert(self.dtid.to_owned(), then),
                    None => prepared.remove(self.dtid),
                };
            }
        }
        self.twopc.note();
    }
}

impl TwoPc {
    pub(crate) fn new(enabled: bool, capacity: usize, progress: Arc<Progress>) -> Self {
        Self {
            enabled,
            capacity,
            prepared: Mutex::default(),
            decided: Mutex::default(),
            settled: Notify::new(),
            progress,
            last_watch: Mutex::new(Instant::now()),
        }
    }

    fn note(&self) {
        self.settled.notify_waiters();
        self.progress.note();
    }

    /// Keeps a place for what is about to be prepared.
    ///
    /// Errors: why not.
    fn begin_prepare<'a>(&'a self, dtid: &'a str) -> Result<Step<'a>, String> {
        let mut prepared = lock(&self.prepared);
        if prepared.contains_key(dtid) {
            return Err("duplicate DTID in Prepare".to_owned());
        }
        if prepared.len() >= self.capacity {
            return Err(format!("prepared transactions exceeded limit: {}", self.capacity));
        }
        prepared.insert(dtid.to_owned(), Prepared::Preparing);
        Ok(Step { twopc: self, dtid, then: None })
    }

    /// Takes what is to be committed; `None` is only in the store, or nowhere.
    ///
    /// Errors: the state that it cannot be committed from.
    fn begin_commit<'a>(&'a self, dtid: &'a str) -> Result<(Step<'a>, Option<Box<Transaction>>), &'static str> {
        let mut prepared = lock(&self.prepared);
        let (then, tx) = match prepared.remove(dtid) {
            Some(Prepared::Ready(tx)) => (Some(Prepared::Stored), Some(tx)),
            Some(Prepared::Stored) => (Some(Prepared::Stored), None),
            None => (None, None),
            Some(other) => {
                let state = match other {
                    Prepared::Preparing => "preparing",
                    Prepared::Failed => "failed",
                    Prepared::Committing | Prepared::Ready(_) | Prepared::Stored => "committing",
                };
                prepared.insert(dtid.to_owned(), other);
                return Err(state);
            }
        };
        prepared.insert(dtid.to_owned(), Prepared::Committing);
        Ok((Step { twopc: self, dtid, then }, tx))
    }

    /// Waits until nobody prepares `dtid`: its coordinator may give up before the answer has come.
    async fn wait_prepared(&self, dtid: &str) {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if !matches!(lock(&self.prepared).get(dtid), Some(Prepared::Preparing)) {
                return;
            }
            settled.await;
        }
    }

    /// Drops what is prepared in memory; the store keeps it for the next master.
    pub fn forget_all(&self) {
        let prepared = std::mem::take(&mut *lock(&self.prepared));
        for entry in prepared.into_values() {
            if let Prepared::Ready(mut tx) = entry
                && let Ok(conn) = tx.conn()
            {
                // Closing rolls back; a pool must not hand the open transaction to somebody else.
                conn.mark_broken();
            }
        }
        self.note();
    }

    fn note_decided(&self, dtid: &str, used: Arc<Used>) {
        let mut decided = lock(&self.decided);
        decided.retain(|_, (_, since)| since.elapsed() < CONCLUDING);
        decided.insert(dtid.to_owned(), (used, Instant::now()));
    }

    fn note_concluded(&self, dtid: &str) {
        lock(&self.decided).remove(dtid);
        self.note();
    }

    /// Prepared transactions that have used one of `tables`, or may have, and decided ones whose record is about to be
    /// removed. Only their coordinator may end them.
    pub(crate) fn using(&self, tables: &Tables) -> usize {
        let concluding = {
            let decided = lock(&self.decided);
            decided.values().filter(|(used, since)| since.elapsed() < CONCLUDING && used.meets(tables)).count()
        };
        let prepared = lock(&self.prepared);
        let uses = |entry: &&Prepared| match entry {
            Prepared::Ready(tx) => tx.used().meets(tables),
            Prepared::Committing | Prepared::Stored => true,
            Prepared::Preparing | Prepared::Failed => false,
        };
        prepared.values().filter(uses).count() + concluding
    }

    fn check(&self) -> Result<()> {
        if self.enabled { Ok(()) } else { Err(VtError::new(Code::InvalidArgument, "2pc is not enabled")) }
    }

    fn failed(&self) -> i64 {
        lock(&self.prepared).values().filter(|entry| matches!(entry, Prepared::Failed)).count() as i64
    }
}

/// What the store knows of a prepared transaction.
struct Stored {
    dtid: String,
    state: i64,
    statements: Vec<Bytes>,
}

/// A literal of any bytes, whatever the character set and the modes of the connection.
fn hex(value: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(2 * value.len() + 3);
    out.push_str("x'");
    for byte in value {
        let _ = write!(out, "{byte:02x}");
    }
    out.push('\'');
    out
}

fn text(value: &str) -> String {
    let mut out = Vec::new();
    vtsql::quote_string(value.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn now_nanos() -> i64 {
    Utc::now().timestamp_nanos_opt().unwrap_or(i64::MAX)
}

/// A distributed transaction as `/twopcz` shows it.
#[derive(Debug, Clone)]
pub struct Unresolved {
    pub dtid: String,
    pub state: String,
    pub time_created: i64,
    pub detail: String,
}

impl TabletServer {
    /// Runs statements in a transaction of its own.
    async fn metadata(&self, statements: &[String]) -> Result<()> {
        let mut guard = self.tx.begin(BeginOptions::default()).await.map_err(bare)?;
        for statement in statements {
            if let Err(error) = run(&mut guard, statement).await {
                guard.rollback(Conclusion::Rollback, "transaction rolled back").await;
                return Err(bare(error));
            }
        }
        guard.commit().await.map_err(bare)
    }

    /// Phase one: stores the statements of a transaction and keeps it open under `dtid`. One that has written nothing is
    /// over, and the answer says so.
    pub(crate) async fn twopc_prepare(&self, transaction_id: i64, dtid: &str) -> Result<PrepareResponse> {
        self.twopc.check()?;
        let mut guard = self.tx.take(transaction_id, "for prepare").map_err(bare)?;
        let tx = guard.get().map_err(bare)?;
        let (statements, wrote) = (std::mem::take(&mut tx.queries), tx.wrote);
        if !wrote {
            guard.rollback(Conclusion::Rollback, "transaction rolled back: nothing to prepare").await;
            return Ok(PrepareResponse { nothing_written: true });
        }
        let _step = match self.twopc.begin_prepare(dtid) {
            Ok(step) => step,
            Err(reason) => {
                guard.rollback(Conclusion::Rollback, "transaction rolled back").await;
                let text = format!("prepare failed for transaction {transaction_id}: {reason}");
                return Err(VtError::new(Code::ResourceExhausted, text));
            }
        };
        let mut redo = vec![format!(
            "insert into _vt.redo_state(dtid, state, time_created) values ({}, {REDO_PREPARED}, {})",
            text(dtid),
            now_nanos()
        )];
        redo.extend(statements.iter().enumerate().map(|(at, statement)| {
            let (dtid, statement) = (text(dtid), hex(statement));
            format!("insert into _vt.redo_statement(dtid, id, statement) values ({dtid}, {}, {statement})", at + 1)
        }));
        if let Err(error) = self.metadata(&redo).await {
            guard.rollback(Conclusion::Rollback, "transaction rolled back").await;
            return Err(error.wrap(format!("prepare failed for transaction {transaction_id}")));
        }
        // Under the lock, so that it is always found among the open or among the prepared ones.
        let mut prepared = lock(&self.twopc.prepared);
        match prepared.get_mut(dtid) {
            Some(entry @ Prepared::Preparing) => {
                if let Some(tx) = guard.into_prepared() {
                    *entry = Prepared::Ready(tx);
                }
                Ok(PrepareResponse::default())
            }
            _ => {
                // Serving has stopped meanwhile: what is stored is for the next master.
                drop(prepared);
                if let Ok(tx) = guard.get()
                    && let Ok(conn) = tx.conn()
                {
                    conn.mark_broken();
                }
                let text = format!("prepare failed for transaction {transaction_id}: serving stops");
                Err(VtError::new(Code::Unavailable, text))
            }
        }
    }

    /// Phase two. Doing it twice is no error.
    pub(crate) async fn twopc_commit(&self, dtid: &str) -> Result<()> {
        self.twopc.check()?;
        let refuse = |state: &str| {
            let text = format!("cannot commit dtid {dtid}, state: {state}");
            Err(VtError::new(Code::InvalidArgument, text))
        };
        let (mut step, tx) = match self.twopc.begin_commit(dtid) {
            Ok(begun) => begun,
            Err(state) => return refuse(state),
        };
        let tx = match tx {
            Some(tx) => tx,
            None => {
                let mut place = self.tx_reads.get(&[]).await.map_err(bare)?;
                let stored = stored(place.get_mut().map_err(bare)?, Some(dtid)).await.map_err(bare)?.pop();
                drop(place);
                match stored {
                    None => {
                        step.then = None;
                        return Ok(());
                    }
                    Some(stored) if stored.state != REDO_PREPARED => {
                        step.then = Some(Prepared::Failed);
                        return refuse("failed");
                    }
                    Some(stored) => {
                        self.check_tx_mode(false).map_err(bare)?;
                        let tx = self.resurrect(&stored).await.map_err(bare)?;
                        step.then = Some(Prepared::Stored);
                        tx
                    }
                }
            }
        };
        let mut guard = TxGuard::from_prepared(&self.tx, tx);
        let [forget_state, forget_statements] = forget_redo(dtid);
        let outcome = async {
            if run(&mut guard, &forget_state).await? == 0 {
                // A commit whose answer was lost has been done after all: these changes are in the data already.
                guard.rollback(Conclusion::Rollback, "committed already").await;
                return Ok(());
            }
            run(&mut guard, &forget_statements).await?;
            guard.commit().await
        }
        .await;
        self.consolidator.written();
        match outcome {
            Ok(()) => {
                step.then = None;
                Ok(())
            }
            Err(error) if !refuses(&error) => {
                // The record is still there, unless it was committed: whoever commits again finds out.
                self.stats.internal_errors.inc(&["TwopcCommit"]);
                tracing::warn!("{dtid} is prepared still, its commit has to be tried again: {error}");
                step.then = Some(Prepared::Stored);
                Err(bare(error))
            }
            Err(error) => {
                self.stats.internal_errors.inc(&["TwopcCommit"]);
                step.then = Some(Prepared::Failed);
                let mark = format!("update _vt.redo_state set state = {REDO_FAILED} where dtid = {}", text(dtid));
                if let Err(error) = self.metadata(&[mark]).await {
                    tracing::error!("marking {dtid} as failed: {error}");
                }
                Err(bare(error))
            }
        }
    }

    /// Gives up a prepared transaction, or one that never got so far (`original`, 0 if unknown).
    pub(crate) async fn twopc_rollback(&self, dtid: &str, original: i64) -> Result<()> {
        self.twopc.check()?;
        self.twopc.wait_prepared(dtid).await;
        self.metadata(&forget_redo(dtid)).await?;
        let entry = lock(&self.twopc.prepared).remove(dtid);
        self.twopc.note();
        if let Some(Prepared::Ready(tx)) = entry {
            let guard = TxGuard::from_prepared(&self.tx, tx);
            guard.rollback(Conclusion::Rollback, "transaction rolled back").await;
        }
        if original != 0
            && let Ok(guard) = self.tx.take(original, "for rollback")
        {
            guard.rollback(Conclusion::Rollback, "transaction rolled back").await;
        }
        Ok(())
    }

    /// On the first shard of a distributed transaction: who else takes part.
    pub(crate) async fn twopc_create(&self, dtid: &str, participants: &[Target]) -> Result<()> {
        self.twopc.check()?;
        let mut statements = vec![format!(
            "insert into _vt.dt_state(dtid, state, time_created) values ({}, {}, {})",
            text(dtid),
            TransactionState::Prepare as i32,
            now_nanos()
        )];
        statements.extend(participants.iter().enumerate().map(|(at, target)| {
            format!(
                "insert into _vt.dt_participant(dtid, id, keyspace, shard) values ({}, {}, {}, {})",
                text(dtid),
                at + 1,
                text(&target.keyspace),
                text(&target.shard)
            )
        }));
        self.metadata(&statements).await
    }

    /// The decision to commit, and the commit of this shard's own part, in one transaction.
    pub(crate) async fn twopc_start_commit(&self, transaction_id: i64, dtid: &str) -> Result<()> {
        self.twopc.check()?;
        let mut guard = self.tx.take(transaction_id, "for 2pc commit").map_err(bare)?;
        let decided = transition(&mut guard, dtid, TransactionState::Commit).await;
        if let Err(error) = decided {
            guard.rollback(Conclusion::Rollback, "transaction rolled back").await;
            return Err(error);
        }
        // Before it counts as ended.
        let used = guard.get().map_err(bare)?.used().clone();
        self.twopc.note_decided(dtid, used);
        let outcome = guard.commit().await.map_err(bare);
        self.consolidator.written();
        outcome
    }

    /// The decision to roll back.
    pub(crate) async fn twopc_set_rollback(&self, dtid: &str, transaction_id: i64) -> Result<()> {
        self.twopc.check()?;
        if transaction_id != 0
            && let Ok(guard) = self.tx.take(transaction_id, "for rollback")
        {
            guard.rollback(Conclusion::Rollback, "transaction rolled back").await;
        }
        let mut guard = self.tx.begin(BeginOptions::default()).await.map_err(bare)?;
        match transition(&mut guard, dtid, TransactionState::Rollback).await {
            Ok(()) => guard.commit().await.map_err(bare),
            Err(error) => {
                guard.rollback(Conclusion::Rollback, "transaction rolled back").await;
                Err(error)
            }
        }
    }

    /// Everybody is done: the metadata goes.
    pub(crate) async fn twopc_conclude(&self, dtid: &str) -> Result<()> {
        self.twopc.check()?;
        let quoted = text(dtid);
        let removed = self
            .metadata(&[
                format!("delete from _vt.dt_state where dtid = {quoted}"),
                format!("delete from _vt.dt_participant where dtid = {quoted}"),
            ])
            .await;
        self.twopc.note_concluded(dtid);
        removed
    }

    /// What is known of a distributed transaction; empty for one that is not known.
    pub(crate) async fn twopc_read(&self, dtid: &str) -> Result<TransactionMetadata> {
        self.twopc.check()?;
        let mut place = self.tx_reads.get(&[]).await.map_err(bare)?;
        let conn = place.get_mut().map_err(bare)?;
        let quoted = text(dtid);
        let select = format!("select dtid, state, time_created from _vt.dt_state where dtid = {quoted}");
        let state = conn.run(&select, TIMEOUT).await.map_err(bare)?;
        let Some(row) = state.rows.first() else { return Ok(TransactionMetadata::default()) };
        let row = cells(row);
        let number: i32 = row[1].parse().unwrap_or(0);
        let select = format!("select keyspace, shard from _vt.dt_participant where dtid = {quoted} order by id");
        let participants = conn.run(&select, TIMEOUT).await.map_err(bare)?;
        let target = |row: &vtproto::query::Row| {
            let row = cells(row);
            let mut target = Target { keyspace: row[0].clone(), shard: row[1].clone(), ..Target::default() };
            target.set_tablet_type(TabletType::Master);
            target
        };
        Ok(TransactionMetadata {
            dtid: row[0].clone(),
            state: number,
            time_created: row[2].parse().unwrap_or(0),
            participants: participants.rows.iter().map(target).collect(),
        })
    }

    /// Makes the tables. Every tablet makes its own, past the binary log: a master that waits for replicas could not
    /// make them otherwise, and a replica without them could not follow what its master prepares.
    pub(crate) async fn ensure_twopc_tables(&self) -> Result<DbConn> {
        let dba = mysql::ConnectParams { db_name: String::new(), ..self.config.dba.clone() };
        let mut conn = DbConn::connect(&dba, &self.live, "Dba".into()).await.map_err(bare)?;
        conn.run("set @@session.sql_log_bin = 0", TIMEOUT).await.map_err(bare)?;
        conn.run("create database if not exists _vt", TIMEOUT).await.map_err(bare)?;
        for table in TABLES {
            conn.run(table, TIMEOUT).await.map_err(bare)?;
        }
        Ok(conn)
    }

    /// Makes what was prepared when the last master stopped.
    pub(crate) async fn recover_prepared(&self) -> Result<()> {
        self.twopc.forget_all();
        let mut conn = self.ensure_twopc_tables().await?;
        for stored in stored(&mut conn, None).await.map_err(bare)? {
            // dtid is keyspace:shard:id, and ids must not be given out again.
            if let Some(id) = stored.dtid.rsplit(':').next().and_then(|id| id.parse().ok()) {
                self.tx.ids_above(id);
            }
            let entry = if stored.state == REDO_PREPARED {
                match self.resurrect(&stored).await {
                    Ok(tx) => Prepared::Ready(tx),
                    Err(error) => {
                        self.stats.internal_errors.inc(&["TwopcResurrection"]);
                        tracing::error!("prepared transaction {} could not be made again: {error}", stored.dtid);
                        if refuses(&error) { Prepared::Failed } else { Prepared::Stored }
                    }
                }
            } else {
                Prepared::Failed
            };
            lock(&self.twopc.prepared).insert(stored.dtid, entry);
        }
        Ok(())
    }

    /// Makes a prepared transaction from its statements.
    async fn resurrect(&self, stored: &Stored) -> Result<Box<Transaction>, ExecError> {
        let mut guard = self.tx.begin(BeginOptions::default()).await?;
        let made = async {
            let tx = guard.get()?;
            for statement in &stored.statements {
                let shown = String::from_utf8_lossy(statement);
                let dirties = match Shape::new(&shown) {
                    Ok(shape) => {
                        tx.used().note(&shape);
                        shape.dirties
                    }
                    Err(_) => {
                        tx.used().note_opaque();
                        true
                    }
                };
                if dirties {
                    tx.conn()?.mark_dirty();
                }
                tx.conn()?.exec(statement, &RunAs::internal(&shown, TIMEOUT)).await?;
            }
            Ok(())
        };
        if let Err(error) = made.await {
            guard.rollback(Conclusion::Rollback, "transaction rolled back").await;
            return Err(error);
        }
        guard.into_prepared().ok_or_else(|| ExecError::new(Code::Aborted, "transaction ended"))
    }

    /// Has abandoned distributed transactions resolved by the coordinator, and counts what is stuck.
    pub(crate) async fn watch_prepared(&self) {
        let age = self.config.twopc_abandon_age;
        if !self.config.twopc_enable || age.is_zero() || self.target().tablet_type() != TabletType::Master {
            return;
        }
        {
            let mut last = lock(&self.twopc.last_watch);
            if last.elapsed() < age / 2 {
                return;
            }
            *last = Instant::now();
        }
        self.stats.unresolved.set(&["Prepares"], self.twopc.failed());
        let limit = now_nanos() - i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        let list = async {
            let mut place = self.tx_reads.get(&[]).await?;
            let select = format!("select dtid from _vt.dt_state where time_created < {limit}");
            place.get_mut()?.run(&select, TIMEOUT).await
        };
        let abandoned = match list.await {
            Ok(result) => result.rows.iter().map(|row| cells(row).swap_remove(0)).collect::<Vec<_>>(),
            Err(error) => {
                self.stats.internal_errors.inc(&["WatchdogFail"]);
                tracing::warn!("reading abandoned transactions: {error}");
                return;
            }
        };
        if abandoned.is_empty() || self.config.twopc_coordinator_address.is_empty() {
            return;
        }
        let address = self.config.twopc_coordinator_address.clone();
        let stats = self.stats.clone();
        tokio::spawn(async move {
            let work = resolve(&address, &abandoned);
            if let Ok(Err(error)) = tokio::time::timeout(RESOLVE_TIMEOUT, work).await {
                stats.internal_errors.inc(&["WatchdogFail"]);
                tracing::warn!("resolving abandoned transactions through {address}: {error}");
            }
        });
    }

    /// Every transaction in phase two, for a page.
    pub(crate) async fn unresolved(&self) -> Result<Vec<Unresolved>> {
        self.twopc.check()?;
        let mut place = self.tx_reads.get(&[]).await.map_err(bare)?;
        let conn = place.get_mut().map_err(bare)?;
        let mut all = Vec::new();
        let list = "select dtid, state, time_created, '' from _vt.dt_state";
        for row in &conn.run(list, TIMEOUT).await.map_err(bare)?.rows {
            let row = cells(row);
            let state = row[1].parse::<i32>().ok().and_then(|n| TransactionState::try_from(n).ok());
            all.push(Unresolved {
                dtid: row[0].clone(),
                state: state.map_or_else(|| row[1].clone(), |s| s.as_str_name().to_owned()),
                time_created: row[2].parse().unwrap_or(0),
                detail: "distributed".into(),
            });
        }
        let list = "select dtid, state, time_created from _vt.redo_state";
        for row in &conn.run(list, TIMEOUT).await.map_err(bare)?.rows {
            let row = cells(row);
            all.push(Unresolved {
                dtid: row[0].clone(),
                state: if row[1] == "1" { "PREPARED" } else { "FAILED" }.into(),
                time_created: row[2].parse().unwrap_or(0),
                detail: "prepared here".into(),
            });
        }
        Ok(all)
    }
}

/// What is stored of one prepared transaction, or of all.
async fn stored(conn: &mut DbConn, dtid: Option<&str>) -> Result<Vec<Stored>, ExecError> {
    let condition = dtid.map_or_else(String::new, |dtid| format!("where t.dtid = {} ", text(dtid)));
    let select = format!(
        "select t.dtid, t.state, s.statement from _vt.redo_state t join _vt.redo_statement s on t.dtid = s.dtid \
         {condition}order by t.dtid, s.id"
    );
    let mut found: Vec<Stored> = Vec::new();
    for row in &conn.run(&select, TIMEOUT).await?.rows {
        let mut cells = cell_bytes(row);
        let mut next = || cells.next().unwrap_or_default();
        let dtid = String::from_utf8_lossy(next()).into_owned();
        let state = String::from_utf8_lossy(next()).parse().unwrap_or(REDO_FAILED);
        let statement = Bytes::copy_from_slice(next());
        match found.last_mut() {
            Some(last) if last.dtid == dtid => last.statements.push(statement),
            _ => found.push(Stored { dtid, state, statements: vec![statement] }),
        }
    }
    Ok(found)
}

async fn run(guard: &mut TxGuard, statement: &str) -> Result<u64, ExecError> {
    Ok(guard.get()?.conn()?.run(statement, TIMEOUT).await?.rows_affected)
}

/// The record of a prepared transaction goes: its state first, then its statements.
fn forget_redo(dtid: &str) -> [String; 2] {
    let dtid = text(dtid);
    [
        format!("delete from _vt.redo_state where dtid = {dtid}"),
        format!("delete from _vt.redo_statement where dtid = {dtid}"),
    ]
}

/// Whether mysqld itself will not have these changes, so that committing them again would fail again. A lost connection,
/// a server that stops or that may not write just now, a lock that was not got, and whatever this tablet could not do
/// say nothing about the changes.
fn refuses(error: &ExecError) -> bool {
    let passes = |errno| {
        matches!(
            errno,
            // Server shutdown, lock wait, deadlock, read-only, interrupted, option prevents, killed.
            1053 | 1205 | 1213 | 1836 | 1317 | 1290 | 1927
            // Closed for too long a silence, statements that took too long, and full tables of connections and disk.
            | 4031 | 1969 | 3024 | 1040 | 1021
        )
    };
    !error.is_connection_error() && error.errno().is_some_and(|errno| !passes(errno))
}

async fn transition(guard: &mut TxGuard, dtid: &str, to: TransactionState) -> Result<()> {
    let update = format!(
        "update _vt.dt_state set state = {} where dtid = {} and state = {}",
        to as i32,
        text(dtid),
        TransactionState::Prepare as i32
    );
    match run(guard, &update).await.map_err(bare)? {
        1 => Ok(()),
        _ => Err(VtError::new(Code::NotFound, format!("failed to transition to {}: {dtid}", to.as_str_name()))),
    }
}

async fn resolve(address: &str, dtids: &[String]) -> Result<(), tonic::Status> {
    let unavailable = |error: tonic::transport::Error| tonic::Status::unavailable(error.to_string());
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).map_err(unavailable)?;
    let channel = endpoint.connect_timeout(TIMEOUT).connect().await.map_err(unavailable)?;
    let mut client = vtgateservice::vitess_client::VitessClient::new(channel);
    for dtid in dtids {
        let request = vtgate::ResolveTransactionRequest { dtid: dtid.clone(), ..Default::default() };
        client.resolve_transaction(request).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(twopc: &TwoPc, dtid: &str) -> Option<&'static str> {
        Some(match lock(&twopc.prepared).get(dtid)? {
            Prepared::Preparing => "preparing",
            Prepared::Ready(_) => "ready",
            Prepared::Committing => "committing",
            Prepared::Stored => "stored",
            Prepared::Failed => "failed",
        })
    }

    #[tokio::test]
    async fn a_step_that_is_dropped_leaves_what_the_store_knows() {
        let twopc = TwoPc::new(true, 1, Arc::default());
        let step = twopc.begin_prepare("a").expect("room");
        assert_eq!(twopc.begin_prepare("a").err().as_deref(), Some("duplicate DTID in Prepare"));
        assert_eq!(twopc.begin_prepare("b").err().as_deref(), Some("prepared transactions exceeded limit: 1"));
        assert_eq!(twopc.begin_commit("a").err(), Some("preparing"));
        let mut waiting = std::pin::pin!(twopc.wait_prepared("a"));
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        drop(step);
        assert!(futures::poll!(waiting.as_mut()).is_ready());
        assert_eq!(state(&twopc, "a"), None);

        // The one before was interrupted, and so is this one.
        lock(&twopc.prepared).insert("a".into(), Prepared::Stored);
        let (step, tx) = twopc.begin_commit("a").expect("to be made from the store");
        assert!(tx.is_none());
        assert_eq!(twopc.begin_commit("a").err(), Some("committing"));
        drop(step);
        assert_eq!(state(&twopc, "a"), Some("stored"));
        let (mut step, _) = twopc.begin_commit("a").expect("again");
        step.then = None;
        drop(step);
        assert_eq!(state(&twopc, "a"), None);
    }

    #[test]
    fn any_bytes_have_a_literal() {
        assert_eq!(hex(b"a'\x00\xff"), "x'612700ff'");
        assert_eq!(hex(b""), "x''");
    }
}
