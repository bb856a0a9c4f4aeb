//! Two-phase commit: prepared transactions of this shard, and the metadata of distributed ones.
//!
//! Owns: the tables `_vt.redo_state`, `redo_statement`, `dt_state`, `dt_participant`, and the prepared
//! transactions in memory. Layout and states are those of Vitess, so that either can take over.
//! Invariants: a transaction counts as prepared only after its statements are stored; it leaves the
//! store in the same transaction that commits it. A master that starts finds what was prepared and
//! makes it again before it serves.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::Utc;
use vterrors::{Code, Result, VtError};
use vtproto::query::{Target, TransactionMetadata, TransactionState};
use vtproto::topodata::TabletType;
use vtproto::{vtgate, vtgateservice};

use super::conn::DbConn;
use super::cutover::Tables;
use super::error::ExecError;
use super::live::lock;
use super::schema::cells;
use super::server::{TabletServer, bare};
use super::tx::{BeginOptions, Conclusion, Transaction, TxGuard};

/// Bound on each statement about metadata.
const TIMEOUT: Duration = Duration::from_secs(10);
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

/// A transaction on its way through phase two.
#[derive(Debug)]
enum Prepared {
    Ready(Box<Transaction>),
    /// Somebody commits it right now.
    Committing,
    /// Committing it failed: it needs a person.
    Failed,
}

/// See the module.
#[derive(Debug)]
pub struct TwoPc {
    enabled: bool,
    capacity: usize,
    prepared: Mutex<HashMap<String, Prepared>>,
    last_watch: Mutex<Instant>,
}

impl TwoPc {
    pub fn new(enabled: bool, capacity: usize) -> Self {
        Self { enabled, capacity, prepared: Mutex::default(), last_watch: Mutex::new(Instant::now()) }
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
    }

    /// Prepared transactions that have used one of `tables`, or may have. Only their coordinator may end
    /// them.
    pub(crate) fn using(&self, tables: &Tables) -> usize {
        let prepared = lock(&self.prepared);
        let uses = |entry: &&Prepared| match entry {
            Prepared::Ready(tx) => tx.used().meets(tables),
            Prepared::Committing => true,
            Prepared::Failed => false,
        };
        prepared.values().filter(uses).count()
    }

    fn check(&self) -> Result<()> {
        if self.enabled { Ok(()) } else { Err(VtError::new(Code::InvalidArgument, "2pc is not enabled")) }
    }

    fn failed(&self) -> i64 {
        lock(&self.prepared).values().filter(|entry| matches!(entry, Prepared::Failed)).count() as i64
    }
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

    /// Phase one: stores the statements of a transaction and keeps it open under `dtid`.
    pub(crate) async fn twopc_prepare(&self, transaction_id: i64, dtid: &str) -> Result<()> {
        self.twopc.check()?;
        let mut guard = self.tx.take(transaction_id, "for prepare").map_err(bare)?;
        let statements = std::mem::take(&mut guard.get().map_err(bare)?.queries);
        if statements.is_empty() {
            // Nothing was written: nothing to keep.
            guard.rollback(Conclusion::Rollback, "transaction rolled back: nothing to prepare").await;
            return Ok(());
        }
        let refusal = {
            let prepared = lock(&self.twopc.prepared);
            match prepared.get(dtid) {
                Some(_) => Some("duplicate DTID in Prepare".to_owned()),
                None if prepared.len() >= self.twopc.capacity => {
                    Some(format!("prepared transactions exceeded limit: {}", self.twopc.capacity))
                }
                None => None,
            }
        };
        if let Some(reason) = refusal {
            guard.rollback(Conclusion::Rollback, "transaction rolled back").await;
            let text = format!("prepare failed for transaction {transaction_id}: {reason}");
            return Err(VtError::new(Code::ResourceExhausted, text));
        }
        let mut redo = vec![format!(
            "insert into _vt.redo_state(dtid, state, time_created) values ({}, {REDO_PREPARED}, {})",
            text(dtid),
            now_nanos()
        )];
        redo.extend(statements.iter().enumerate().map(|(at, statement)| {
            let (dtid, statement) = (text(dtid), text(statement));
            format!("insert into _vt.redo_statement(dtid, id, statement) values ({dtid}, {}, {statement})", at + 1)
        }));
        if let Err(error) = self.metadata(&redo).await {
            guard.rollback(Conclusion::Rollback, "transaction rolled back").await;
            return Err(error.wrap(format!("prepare failed for transaction {transaction_id}")));
        }
        // Under the lock, so that it is always found among the open or among the prepared ones.
        let mut prepared = lock(&self.twopc.prepared);
        if let Some(tx) = guard.into_prepared() {
            prepared.insert(dtid.to_owned(), Prepared::Ready(tx));
        }
        Ok(())
    }

    /// Phase two. Doing it twice is no error.
    pub(crate) async fn twopc_commit(&self, dtid: &str) -> Result<()> {
        self.twopc.check()?;
        let tx = {
            let mut prepared = lock(&self.twopc.prepared);
            let refuse = |state: &str| {
                let text = format!("cannot commit dtid {dtid}, state: {state}");
                Err(VtError::new(Code::InvalidArgument, text))
            };
            match prepared.remove(dtid) {
                None => return Ok(()),
                Some(Prepared::Ready(tx)) => {
                    prepared.insert(dtid.to_owned(), Prepared::Committing);
                    tx
                }
                Some(other) => {
                    let state = if matches!(other, Prepared::Failed) { "failed" } else { "committing" };
                    prepared.insert(dtid.to_owned(), other);
                    return refuse(state);
                }
            }
        };
        let mut guard = TxGuard::from_prepared(&self.tx, tx);
        let outcome = async {
            for statement in forget_redo(dtid) {
                run(&mut guard, &statement).await?;
            }
            guard.commit().await
        }
        .await;
        self.consolidator.written();
        match outcome {
            Ok(()) => {
                lock(&self.twopc.prepared).remove(dtid);
                Ok(())
            }
            Err(error) => {
                self.stats.internal_errors.inc(&["TwopcCommit"]);
                lock(&self.twopc.prepared).insert(dtid.to_owned(), Prepared::Failed);
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
        self.metadata(&forget_redo(dtid)).await?;
        let entry = lock(&self.twopc.prepared).remove(dtid);
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
        let dtid = text(dtid);
        self.metadata(&[
            format!("delete from _vt.dt_state where dtid = {dtid}"),
            format!("delete from _vt.dt_participant where dtid = {dtid}"),
        ])
        .await
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
        let stored = conn
            .run(
                "select t.dtid, t.state, s.statement from _vt.redo_state t join _vt.redo_statement s \
                 on t.dtid = s.dtid order by t.dtid, s.id",
                TIMEOUT,
            )
            .await
            .map_err(bare)?;
        let mut found: Vec<(String, i64, Vec<String>)> = Vec::new();
        for row in &stored.rows {
            let row = cells(row);
            match found.last_mut() {
                Some((dtid, _, statements)) if *dtid == row[0] => statements.push(row[2].clone()),
                _ => found.push((row[0].clone(), row[1].parse().unwrap_or(REDO_FAILED), vec![row[2].clone()])),
            }
        }
        for (dtid, state, statements) in found {
            // dtid is keyspace:shard:id, and ids must not be given out again.
            if let Some(id) = dtid.rsplit(':').next().and_then(|id| id.parse().ok()) {
                self.tx.ids_above(id);
            }
            let entry = if state == REDO_PREPARED { self.resurrect(&dtid, statements).await } else { Prepared::Failed };
            lock(&self.twopc.prepared).insert(dtid, entry);
        }
        Ok(())
    }

    async fn resurrect(&self, dtid: &str, statements: Vec<String>) -> Prepared {
        let made = async {
            let mut guard = self.tx.begin(BeginOptions::default()).await?;
            for statement in &statements {
                run(&mut guard, statement).await?;
            }
            guard.get()?.queries = statements;
            Ok::<_, ExecError>(guard)
        };
        match made.await.map(TxGuard::into_prepared) {
            Ok(Some(tx)) => Prepared::Ready(tx),
            Ok(None) => Prepared::Failed,
            Err(error) => {
                self.stats.internal_errors.inc(&["TwopcResurrection"]);
                tracing::error!("prepared transaction {dtid} could not be made again: {error}");
                Prepared::Failed
            }
        }
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

async fn run(guard: &mut TxGuard, statement: &str) -> Result<u64, ExecError> {
    Ok(guard.get()?.conn()?.run(statement, TIMEOUT).await?.rows_affected)
}

fn forget_redo(dtid: &str) -> Vec<String> {
    let dtid = text(dtid);
    vec![
        format!("delete from _vt.redo_state where dtid = {dtid}"),
        format!("delete from _vt.redo_statement where dtid = {dtid}"),
    ]
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
