//! Snapshots of a source replica and of replicas of its destinations that show one position, while all of them serve and
//! replicate on.
//!
//! The streams are held, the source replica runs up to the furthest of their positions and is stopped for as long as it
//! takes to open transactions, the streams go on exactly up to there, and each destination replica is read once it has
//! all that its master has. Then everything goes on;
//! what the transactions see does not change any more.
//! Invariants: the keyspaces are locked meanwhile, so that comparisons of other processes and cutovers wait; whatever is
//! stopped is recorded before to be put back, and marked so that a run after a killed one finds it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use topo::{KeyspaceLock, TopoError};
use vterrors::{Code, Result, VtError};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::Tablet;

use crate::cleaner::Cleaner;
use crate::clone::{Endpoint, begin_snapshots};
use crate::env::WorkerEnv;
use crate::instance::JobContext;
use crate::rows;
use crate::sql::quoted;
use crate::tablets::{Tablets, start_slave};

/// What a stream says that a comparison holds, or lets run up to a position. That of Vitess v5.0.1.
const HELD: &str = "for split diff";
const RUNNING_UP: &str = "synchronizing for split diff";
/// How long other users of a keyspace are waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(600);

/// Several transactions that see one state of a tablet.
pub struct Snapshot {
    pub endpoint: Endpoint,
    pub transactions: Vec<i64>,
}

/// A destination shard's part.
pub struct Destination {
    /// The stream from the source, at the shard's master.
    pub stream: Stream,
    /// The replica that is read.
    pub replica: Endpoint,
}

/// One stream, by the master that runs it.
#[derive(Clone)]
pub struct Stream {
    pub env: Arc<WorkerEnv>,
    pub master: Tablet,
    pub uid: u32,
}

/// What a stream was doing.
struct Before {
    state: String,
    message: String,
    stop_pos: Option<String>,
}

impl Before {
    /// What it is to do again. Stopped by an operator, it stays so. One that has a stop position got it from a comparison
    /// that was killed: nothing else sets one.
    fn restored(self) -> Self {
        if self.state == "Stopped" && self.message != HELD && self.stop_pos.is_none() {
            return self;
        }
        Self { state: "Running".to_owned(), message: String::new(), stop_pos: None }
    }
}

impl Stream {
    async fn exec(&self, query: String) -> Result<vtproto::query::QueryResult> {
        let request = tmd::VReplicationExecRequest { query };
        let answer = self.env.bounded(self.env.tmc.v_replication_exec(&self.master, request)).await?;
        Ok(answer.result.unwrap_or_default())
    }

    /// `stop_pos`: where it is to stop by itself.
    async fn set(&self, state: &str, message: &str, stop_pos: Option<&str>) -> Result<()> {
        let stop_pos = stop_pos.map_or_else(|| "NULL".to_owned(), quoted);
        let query = format!(
            "update _vt.vreplication set state = {}, message = {}, stop_pos = {stop_pos} where id = {}",
            quoted(state),
            quoted(message),
            self.uid
        );
        self.exec(query).await.map(drop)
    }

    async fn read(&self) -> Result<Before> {
        let query = format!("select state, message, stop_pos from _vt.vreplication where id = {}", self.uid);
        let result = self.exec(query).await?;
        let Some(row) = result.rows.first() else {
            let text = format!("stream {} of {}/{} is gone", self.uid, self.master.keyspace, self.master.shard);
            return Err(VtError::new(Code::NotFound, text));
        };
        let stop_pos = rows::cell(row, 2).map(|_| rows::text(row, 2)).filter(|text| !text.is_empty());
        Ok(Before { state: rows::text(row, 0), message: rows::text(row, 1), stop_pos })
    }

    /// Holds it; recorded to do again what it did.
    async fn hold(&self, cleaner: &mut Cleaner) -> Result<()> {
        let before = self.read().await?.restored();
        let again = self.clone();
        cleaner.record(format!("stream {} is {}", self.uid, before.state), move || async move {
            again.set(&before.state, &before.message, before.stop_pos.as_deref()).await
        });
        self.set("Stopped", HELD, None).await
    }

    /// Its position, as text.
    async fn position(&self) -> Result<String> {
        let query = format!("select pos from _vt.vreplication where id = {}", self.uid);
        let result = self.exec(query).await?;
        let position = result.rows.first().map(|row| rows::text(row, 0)).unwrap_or_default();
        if position.is_empty() {
            return Err(VtError::new(Code::FailedPrecondition, format!("stream {} has no position", self.uid)));
        }
        Ok(position)
    }

    /// Lets it run up to a position.
    async fn run_until(&self, position: &str) -> Result<()> {
        self.set("Running", RUNNING_UP, Some(position)).await?;
        let request = tmd::VReplicationWaitForPosRequest { id: self.uid.into(), position: position.to_owned() };
        if let Err(error) = self.env.bounded(self.env.tmc.v_replication_wait_for_pos(&self.master, request)).await {
            let now = self.read().await?;
            let text = format!("stream {} did not get to {position}; it is {}: {}", self.uid, now.state, now.message);
            return Err(error.wrap(text));
        }
        Ok(())
    }
}

/// Locks keyspaces, in the order given. What other processes do with them is waited for.
///
/// # Errors
/// The topology's, or it took too long.
pub async fn lock(env: &WorkerEnv, keyspaces: &[&str], action: &str) -> Result<Vec<KeyspaceLock>> {
    let deadline = Instant::now() + LOCK_LIMIT;
    let mut locks: Vec<KeyspaceLock> = Vec::new();
    for keyspace in keyspaces {
        if locks.iter().any(|lock| lock.keyspace() == *keyspace) {
            continue;
        }
        let lock = loop {
            match env.topo.lock_keyspace(keyspace, action).await {
                Err(TopoError::Timeout { path }) if Instant::now() < deadline => {
                    tracing::info!("keyspace {keyspace} is locked by somebody else, waiting: {path}");
                }
                locked => break locked?,
            }
        };
        locks.push(lock);
    }
    Ok(locks)
}

/// Gives locks back.
///
/// # Errors
/// The topology's.
pub async fn unlock(locks: Vec<KeyspaceLock>) -> Result<()> {
    for lock in locks.into_iter().rev() {
        lock.unlock().await?;
    }
    Ok(())
}

/// Opens snapshots of `count` transactions at one position of the source; returns that of the source, those of the
/// destinations, and the position. `held` undoes what is to be undone as soon as this is over, `cleaner` closes the
/// snapshots.
///
/// # Errors
/// A tablet refuses or does not get there in time.
pub async fn snapshots(
    context: &JobContext,
    tablets: &Tablets,
    source: Endpoint,
    destinations: Vec<Destination>,
    count: usize,
    held: &mut Cleaner,
    cleaner: &mut Cleaner,
) -> Result<(Snapshot, Vec<Snapshot>, String)> {
    let env = &context.env;
    let mut positions = Vec::new();
    for destination in &destinations {
        destination.stream.hold(held).await?;
        positions.push(destination.stream.position().await?);
    }
    context.pass("diff.streams_held").await?;

    // One that was drained is marked already, until it is given back.
    if !source.is_drained() {
        tablets.mark(&source.tablet, held).await?;
    }
    let mut furthest = String::new();
    for (at, position) in positions.iter().enumerate() {
        // It has to run to get to the next one.
        if at > 0 {
            start_slave(env, &source.tablet).await?;
        }
        furthest = stop_at(env, &source.tablet, position, held).await?;
    }
    context.pass("diff.source_stopped").await?;
    let transactions = begin_snapshots(&source, count, cleaner).await?;
    start_slave(env, &source.tablet).await?;
    let source = Snapshot { endpoint: source, transactions };

    let mut snapshots = Vec::new();
    for Destination { stream, replica } in destinations {
        stream.run_until(&furthest).await?;
        wait_for_master(env, &stream.master, &replica).await?;
        let transactions = begin_snapshots(&replica, count, cleaner).await?;
        snapshots.push(Snapshot { endpoint: replica, transactions });
    }
    Ok((source, snapshots, furthest))
}

/// Lets a replica run up to a position and stops it, recorded to be started; returns where it stopped.
async fn stop_at(env: &Arc<WorkerEnv>, tablet: &Tablet, position: &str, held: &mut Cleaner) -> Result<String> {
    let (again, stopped) = (env.clone(), tablet.clone());
    held.record("start replication of the source", move || async move { start_slave(&again, &stopped).await });
    let wait = env.settings.remote_actions_timeout.saturating_sub(Duration::from_secs(1)).max(Duration::from_secs(1));
    let request = tmd::StopSlaveMinimumRequest {
        position: position.to_owned(),
        wait_timeout: i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX),
    };
    Ok(env.bounded(env.tmc.stop_slave_minimum(tablet, request)).await?.position)
}

/// Waits until a replica has all that its master has now: what the stream has written, and whatever else there is to be found.
async fn wait_for_master(env: &WorkerEnv, master: &Tablet, replica: &Endpoint) -> Result<()> {
    let answer = env.bounded(env.tmc.master_position(master, tmd::MasterPositionRequest {})).await?;
    let request = tmd::WaitForPositionRequest { position: answer.position };
    env.bounded(env.tmc.wait_for_position(&replica.tablet, request)).await.map(drop).map_err(|error| {
        let limit = env.settings.remote_actions_timeout;
        error.wrap(format!("waiting up to {limit:?} until {} has what its master wrote", replica.alias()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_does_again_what_it_did() {
        let restored = |state: &str, message: &str, stop_pos: Option<&str>| {
            let before = Before { state: state.into(), message: message.into(), stop_pos: stop_pos.map(str::to_owned) };
            let after = before.restored();
            (after.state, after.message, after.stop_pos)
        };
        let running = || ("Running".to_owned(), String::new(), None);
        assert_eq!(restored("Running", "", None), running());
        assert_eq!(restored("Error", "no tablet", None), running());
        // Left by a comparison that was killed.
        assert_eq!(restored("Stopped", HELD, None), running());
        assert_eq!(restored("Stopped", RUNNING_UP, Some("MariaDB/0-1-5")), running());
        assert_eq!(restored("Running", RUNNING_UP, Some("MariaDB/0-1-5")), running());
        assert_eq!(restored("Stopped", "reached", Some("MariaDB/0-1-5")), running());
        // Stopped by an operator.
        assert_eq!(restored("Stopped", "by hand", None), ("Stopped".into(), "by hand".into(), None));
    }
}
