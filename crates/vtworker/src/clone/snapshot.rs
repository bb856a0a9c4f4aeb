//! Several transactions that all see one position of a tablet that goes on serving: `-use_consistent_snapshot` of a
//! clone, and every comparison.

use std::time::Duration;

use vterrors::{Code, Result, VtError};
use vtproto::query::{BeginRequest, ExecuteOptions, RollbackRequest, execute_options};
use vtproto::tabletmanagerdata as tmd;

use super::Endpoint;
use crate::cleaner::Cleaner;
use crate::instance::JobContext;
use crate::tablets;

/// Transactions are opened one after the other while the tables are locked.
const OPEN_LIMIT: Duration = Duration::from_secs(30);

/// The snapshot of one source shard.
pub struct Snapshot {
    pub transactions: Vec<i64>,
    /// What it shows.
    pub position: String,
}

impl Snapshot {
    /// Locks the tablet's tables, opens `count` transactions, reads the position, unlocks.
    ///
    /// # Errors
    /// The tablet refuses; its tables are unlocked then too.
    pub async fn open(context: &JobContext, source: &Endpoint, count: usize, cleaner: &mut Cleaner) -> Result<Self> {
        let env = &context.env;
        let tablet = &source.tablet;
        env.bounded(env.tmc.lock_tables(tablet, tmd::LockTablesRequest {})).await?;
        let opened = match tokio::time::timeout(OPEN_LIMIT, begin_snapshots(source, count, cleaner)).await {
            Ok(opened) => opened,
            Err(_) => Err(VtError::new(Code::DeadlineExceeded, "opening transactions for a snapshot took too long")),
        };
        let position = tablets::position(env, tablet).await;
        let unlocked = env.bounded(env.tmc.unlock_tables(tablet, tmd::UnlockTablesRequest {})).await;
        let transactions = opened?;
        unlocked?;
        Ok(Self { transactions, position: position? })
    }
}

/// Opens transactions that see what the tablet holds now and change nothing, recorded to be rolled back. Whoever needs
/// them to see one state keeps the tablet from changing meanwhile. Fewer than asked for, but one at least, if the tablet
/// has no room for more.
///
/// # Errors
/// The tablet refuses.
pub async fn begin_snapshots(source: &Endpoint, count: usize, cleaner: &mut Cleaner) -> Result<Vec<i64>> {
    let isolation = execute_options::TransactionIsolation::ConsistentSnapshotReadOnly;
    let options = ExecuteOptions {
        transaction_isolation: isolation.into(),
        workload: execute_options::Workload::Olap.into(),
        ..ExecuteOptions::default()
    };
    let mut transactions = Vec::with_capacity(count);
    let mut failure = None;
    while transactions.len() < count && failure.is_none() {
        let request = BeginRequest {
            target: Some(source.target().clone()),
            options: Some(options.clone()),
            ..BeginRequest::default()
        };
        match source.service().begin(request).await {
            Ok(id) => transactions.push(id),
            Err(error) => failure = Some(error),
        }
    }
    let (service, target, ids) = (source.service().clone(), source.target().clone(), transactions.clone());
    cleaner.record(format!("roll back {} transactions on {}", ids.len(), source.alias()), move || async move {
        for id in ids {
            let request = RollbackRequest { target: Some(target.clone()), transaction_id: id, ..Default::default() };
            if let Err(error) = service.rollback(request).await {
                tracing::info!("transaction {id} is over already: {error}");
            }
        }
        Ok(())
    });
    match failure {
        Some(error) if error.code() == Code::ResourceExhausted && !transactions.is_empty() => {
            tracing::info!("{} has room for {} transactions only: {error}", source.alias(), transactions.len());
            Ok(transactions)
        }
        Some(error) => Err(error),
        None => Ok(transactions),
    }
}
