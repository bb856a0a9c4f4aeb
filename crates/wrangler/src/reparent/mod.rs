//! Changing or choosing the master of a shard.
//!
//! Owns: InitShardMaster, PlannedReparentShard, EmergencyReparentShard, ReparentTablet and
//! TabletExternallyReparented, one file each or together below, and the steps they share. Does not own:
//! what a tablet does to its mysqld.
//! Invariants: the shard lock is held from the first look to the last change, and is checked again
//! before every point of no return; the Shard record is written by the new master's own shard sync
//! (InitShardMaster writes the alias as well); every operation can be run again after a failure.

mod emergency;
mod init;
mod planned;
mod single;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use mysql::replication::Position;
use tabletclient::tm::TmError;
use topo::{ShardLock, TabletInfo, TabletMap};
use vterrors::Code;
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::TabletAlias;

pub(crate) use emergency::emergency_reparent_shard;
pub(crate) use init::init_shard_master;
pub(crate) use planned::planned_reparent_shard;
pub(crate) use single::{reparent_tablet, tablet_externally_reparented};

use crate::Wrangler;
use crate::error::{Result, bail, err, join_errors};
use crate::logger::{info, warning};
use crate::wrangler::within;

/// Nanoseconds since 1970: the key of a row in `_vt.reparent_journal`.
fn now_ns() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_nanos()).unwrap_or(i64::MAX)
}

/// A position as a tablet reported it.
fn parse_position(text: &str, whose: &str) -> Result<Position> {
    text.parse().map_err(|error| err!("tablet {whose} reports a replication position that cannot be read: {error}"))
}

/// Fails when another process may hold the lock by now.
async fn check_lock(lock: &ShardLock) -> Result {
    lock.check_held(lock.keyspace(), lock.shard()).await.map_err(|e| err!("lost topology lock, aborting: {e}"))
}

/// The record of the tablet that is to be master.
fn elect_of<'a>(tablets: &'a TabletMap, alias: &str) -> Result<&'a TabletInfo> {
    tablets.get(alias).ok_or_else(|| err!("master-elect tablet {alias} is not in the shard"))
}

/// What tells replicas that a new master is in place, and them where it is.
struct NewMaster<'a> {
    elect: &'a TabletInfo,
    /// What the journal row calls the operation.
    action: &'static str,
    /// The elect's position when it became master.
    position: String,
    time_created_ns: i64,
    /// Bound of everything together.
    wait_slave_timeout: Duration,
}

impl NewMaster<'_> {
    fn alias(&self) -> TabletAlias {
        self.elect.alias()
    }

    /// Writes the journal row on the new master. With semi-sync this returns only once a replica has
    /// it too.
    async fn write_journal(&self, wr: &Wrangler) -> Result<(), TmError> {
        let request = tmd::PopulateReparentJournalRequest {
            time_created_ns: self.time_created_ns,
            action_name: self.action.to_owned(),
            master_alias: Some(self.alias()),
            replication_position: self.position.clone(),
        };
        wr.tmc().populate_reparent_journal(&self.elect.record, request).await.map(drop)
    }

    /// Writes the journal row while every other tablet is pointed to the new master and waits for
    /// that row. `force_start` says whose replication is started even if it was stopped.
    async fn announce(&self, wr: &Wrangler, others: &TabletMap, force_start: impl Fn(&str) -> bool) -> Result {
        let elect_alias = self.elect.alias_string();
        let replicas = others.iter().filter(|(alias, _)| **alias != elect_alias).map(|(alias, tablet)| {
            let request = tmd::SetMasterRequest {
                parent: Some(self.alias()),
                time_created_ns: self.time_created_ns,
                force_start_slave: force_start(alias),
                wait_position: String::new(),
            };
            async move {
                info!(wr, "setting new master on slave {alias}");
                match wr.tmc().set_master(&tablet.record, request).await {
                    Ok(_) => None,
                    Err(error) => Some(format!("tablet {alias} SetMaster failed: {error}")),
                }
            }
        });
        run_journal_and_replicas(wr, self.wait_slave_timeout, self.write_journal(wr), replicas, async { Ok(()) }).await
    }
}

/// Runs the journal write and the replicas' side together within `limit`. A failed journal write ends
/// the replicas' wait, which would be for nothing. `after_journal` runs as soon as the row is written.
async fn run_journal_and_replicas(
    wr: &Wrangler,
    limit: Duration,
    journal: impl Future<Output = Result<(), TmError>>,
    replicas: impl IntoIterator<Item = impl Future<Output = Option<String>>>,
    after_journal: impl Future<Output = Result>,
) -> Result {
    let deadline = tokio::time::Instant::now() + limit;
    let mut replicas: FuturesUnordered<_> = replicas.into_iter().collect();
    let mut failures = Vec::new();
    let journal = async {
        if let Err(error) = within(limit, journal).await {
            let hint = match error.code {
                Code::DeadlineExceeded => {
                    " (with semi-sync, a tablet of type replica has to follow the new master: others do not acknowledge)"
                }
                _ => "",
            };
            warning!(wr, "master failed to PopulateReparentJournal, canceling slaves");
            bail!("failed to PopulateReparentJournal on master: {error}{hint}");
        }
        after_journal.await
    };
    tokio::pin!(journal);
    let mut journal_done = false;
    let mut timed_out = false;
    loop {
        tokio::select! {
            outcome = &mut journal, if !journal_done => {
                outcome?;
                journal_done = true;
            }
            Some(failure) = replicas.next() => failures.extend(failure),
            () = tokio::time::sleep_until(deadline), if journal_done => timed_out = true,
            else => break,
        }
        if timed_out || (journal_done && replicas.is_empty()) {
            break;
        }
    }
    if !replicas.is_empty() {
        failures.push(format!("{} tablets did not follow the new master within {limit:?}", replicas.len()));
    }
    for failure in &failures {
        warning!(wr, "{failure}");
    }
    join_errors(&failures)
}

/// Waits until the shard record names the new master with the term it began, which the new master
/// itself writes. Not being there in time is only worth a warning: the tablet goes on trying.
async fn wait_for_shard_sync(wr: &Wrangler, lock: &ShardLock, elect: &TabletAlias, limit: Duration) {
    let seen = tokio::time::timeout(limit, async {
        loop {
            if let (Ok(shard), Ok(tablet)) =
                (wr.topo().get_shard(lock.keyspace(), lock.shard()).await, wr.topo().get_tablet(elect).await)
            {
                let term = tablet.record.master_term_start_time.map(|t| (t.seconds, t.nanoseconds));
                let recorded = shard.record.master_term_start_time.map(|t| (t.seconds, t.nanoseconds));
                if shard.master_alias() == Some(elect) && recorded.is_some() && recorded >= term {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    if seen.is_err() {
        let alias = topo::topoproto::tablet_alias_string(Some(elect));
        warning!(
            wr,
            "the shard record does not show the term of {alias} yet: the tablet writes it itself and keeps trying"
        );
    }
}

/// The one tablet that is master by type and by the latest term; `None` if there is none or a tie.
fn current_master(tablets: &TabletMap) -> Option<&TabletInfo> {
    use vtproto::topodata::TabletType;
    let term = |tablet: &TabletInfo| tablet.record.master_term_start_time.map(|t| (t.seconds, t.nanoseconds));
    let mut latest: Option<&TabletInfo> = None;
    let mut tie = false;
    for tablet in tablets.values().filter(|t| t.record.r#type() == TabletType::Master) {
        match latest.map(|l| term(tablet).cmp(&term(l))) {
            None | Some(std::cmp::Ordering::Greater) => {
                latest = Some(tablet);
                tie = false;
            }
            Some(std::cmp::Ordering::Equal) => tie = true,
            Some(std::cmp::Ordering::Less) => {}
        }
    }
    latest.filter(|_| !tie)
}

/// Refuses when this cluster's masters are chosen by somebody else.
pub(crate) fn check_active_reparents(wr: &Wrangler) -> Result {
    if wr.config().disable_active_reparents {
        bail!("active reparent commands disabled (unset the -disable_active_reparents flag to enable)");
    }
    Ok(())
}
