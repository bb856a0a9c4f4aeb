//! The tablets that a job uses: found by health, taken out of service, given back.
//!
//! Invariant: a tablet is taken out of service, or its replication stopped, only after what puts it back is recorded and
//! its record says by whom. One that a vtworker of this machine left behind when it was killed, or a job of this process
//! whose clean-up failed, is put back first.

use std::sync::Arc;
use std::time::Duration;

use rand::seq::IndexedRandom;
use tabletclient::{HealthCheck, HealthCheckOptions, TabletFilter, TabletHealth, TopologyWatcher, WatcherOptions};
use topo::{Update, topoproto};
use vterrors::{Code, VtError};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{Tablet, TabletAlias, TabletType};

use crate::cleaner::Cleaner;
use crate::env::{WorkerEnv, host};

/// How often healthy tablets are counted while too few are there.
const POLL: Duration = Duration::from_millis(100);
/// A tablet that serves has been heard of after so long.
const SETTLED: Duration = Duration::from_secs(3);
const TAG_WORKER: &str = topoproto::WORKER_TAGS[0];
const TAG_REASON: &str = topoproto::WORKER_TAGS[1];
const TAG_PROCESS: &str = topoproto::WORKER_TAGS[2];
const TAG_TYPE: &str = topoproto::WORKER_TAGS[3];
/// The value of `drain_reason`, as in v5.0.1.
const REASON: &str = "Used by vtworker";

/// The health of all tablets of the cell.
pub struct Tablets {
    env: Arc<WorkerEnv>,
    health: HealthCheck,
    _watcher: TopologyWatcher,
    /// When what serves has to have been heard of.
    settled: tokio::time::Instant,
}

/// `keyspace/shard`
pub type ShardName = (String, String);

impl Tablets {
    /// Begins to watch these shards in the process's cell.
    ///
    /// # Errors
    /// The names of shards are no filter.
    pub fn watch(env: &Arc<WorkerEnv>, shards: &[ShardName]) -> Result<Self, VtError> {
        let options = HealthCheckOptions {
            retry_delay: env.settings.health_retry_delay.min(Duration::from_secs(1)),
            timeout: env.settings.health_timeout,
            ..HealthCheckOptions::default()
        };
        let dial = env.dial.clone();
        let health = HealthCheck::new(options, move |tablet| tabletclient::grpc::dial(tablet, &dial));
        let filters: Vec<String> = shards.iter().map(|(keyspace, shard)| format!("{keyspace}|{shard}")).collect();
        let options = WatcherOptions {
            // A tablet that just changed its type must not be waited for half a minute.
            refresh_interval: env.settings.topology_refresh.min(Duration::from_secs(5)),
            filter: TabletFilter::parse(&filters)?,
            ..WatcherOptions::default()
        };
        let watcher = TopologyWatcher::start(env.topo.clone(), env.settings.cell.clone(), options, health.clone());
        Ok(Self { env: env.clone(), health, _watcher: watcher, settled: tokio::time::Instant::now() + SETTLED })
    }

    /// The healthy tablets of a type, now.
    pub fn healthy(&self, (keyspace, shard): &ShardName, kind: TabletType) -> Vec<Arc<TabletHealth>> {
        let snapshot = self.health.snapshot();
        snapshot.group(keyspace, shard, kind).map(|group| group.healthy.clone()).unwrap_or_default()
    }

    /// Waits until a shard has at least so many healthy tablets of a type.
    ///
    /// # Errors
    /// There were too few for `-wait_for_healthy_tablets_timeout`.
    pub async fn wait(
        &self,
        shard: &ShardName,
        kind: TabletType,
        least: usize,
    ) -> Result<Vec<Arc<TabletHealth>>, VtError> {
        let deadline = tokio::time::Instant::now() + self.env.settings.wait_for_healthy_tablets_timeout;
        loop {
            let healthy = self.healthy(shard, kind);
            if healthy.len() >= least.max(1) {
                return Ok(healthy);
            }
            if tokio::time::Instant::now() >= deadline {
                let (keyspace, name) = shard;
                let last = format!("{}{}", self.last_error(shard, kind), self.drained(shard).await);
                let text = format!(
                    "not enough healthy {} tablets to choose from in ({},{keyspace}/{name}), have {} healthy ones, need \
                     at least {least}{last}",
                    kind.as_str_name(),
                    self.env.settings.cell,
                    healthy.len(),
                );
                return Err(VtError::new(Code::FailedPrecondition, text));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Why tablets of a type are not healthy, for an error text.
    fn last_error(&self, (keyspace, shard): &ShardName, kind: TabletType) -> String {
        let snapshot = self.health.snapshot();
        let all = snapshot.group(keyspace, shard, kind).map(|group| group.all.clone()).unwrap_or_default();
        let reasons: Vec<String> = all
            .iter()
            .filter(|tablet| !tablet.is_healthy())
            .map(|tablet| {
                let reason = tablet.last_error.clone().unwrap_or_else(|| "not serving".to_owned());
                format!("{}: {reason}", tablet.alias())
            })
            .collect();
        if reasons.is_empty() { String::new() } else { format!("; {}", reasons.join("; ")) }
    }

    /// The tablets of a shard that are out of service, and by whom, for an error text.
    async fn drained(&self, (keyspace, shard): &ShardName) -> String {
        let cells = [self.env.settings.cell.clone()];
        let Ok(found) = self.env.topo.get_tablet_map_for_shard_by_cell(keyspace, shard, &cells).await else {
            return String::new();
        };
        let drained = found.value.values().filter(|info| info.record.r#type() == TabletType::Drained);
        drained
            .map(|info| {
                let tags: Vec<String> = topoproto::WORKER_TAGS
                    .iter()
                    .filter_map(|tag| info.record.tags.get(*tag).map(|value| format!("{tag}: {value}")))
                    .collect();
                let by = if tags.is_empty() { "it has no tags of a vtworker".to_owned() } else { tags.join(", ") };
                format!("; {} is DRAINED ({by})", info.alias_string())
            })
            .collect()
    }

    /// The healthy master of a shard.
    ///
    /// # Errors
    /// There is none for `-wait_for_healthy_tablets_timeout`.
    pub async fn master(&self, shard: &ShardName) -> Result<Arc<TabletHealth>, VtError> {
        let mut found = self.wait(shard, TabletType::Master, 1).await?;
        Ok(found.swap_remove(0))
    }

    /// Replication lag in seconds of the slowest replica of a shard that is up.
    pub fn replica_lag(&self, (keyspace, shard): &ShardName) -> u32 {
        let snapshot = self.health.snapshot();
        [TabletType::Replica, TabletType::Rdonly]
            .into_iter()
            .filter_map(|kind| snapshot.group(keyspace, shard, kind))
            .flat_map(|group| &group.all)
            .filter(|tablet| tablet.up)
            .map(|tablet| tablet.lag_seconds())
            .max()
            .unwrap_or(0)
    }

    /// Puts back what a vtworker of this machine left drained or stopped when it was killed, and what an earlier job of
    /// this process did: to be called before a job takes tablets.
    ///
    /// # Errors
    /// The topology cannot be read, or a tablet cannot be given back.
    pub async fn reclaim(&self, (keyspace, shard): &ShardName) -> Result<(), VtError> {
        let cells = [self.env.settings.cell.clone()];
        let found = self.env.topo.get_tablet_map_for_shard_by_cell(keyspace, shard, &cells).await?;
        for info in found.or_warn("tablets of a shard").into_values() {
            let tags = &info.record.tags;
            let ours = tags.get(TAG_REASON).is_some_and(|reason| reason == REASON);
            if !ours || !tags.get(TAG_PROCESS).is_some_and(|holder| *holder == process() || is_dead(holder)) {
                continue;
            }
            let kind =
                tags.get(TAG_TYPE).and_then(|kind| TabletType::from_str_name(kind)).unwrap_or(TabletType::Rdonly);
            if info.record.r#type() == TabletType::Drained {
                tracing::warn!("{} was left drained by a vtworker that is gone: giving it back", info.alias_string());
                give_back(&self.env, &info.record, kind).await?;
            } else {
                tracing::warn!("{} was left stopped by a vtworker that is gone: it replicates on", info.alias_string());
                start_slave(&self.env, &info.record).await?;
                untag(&self.env, &info.record).await?;
            }
        }
        Ok(())
    }

    /// A healthy tablet of a type, any of them.
    ///
    /// # Errors
    /// There are fewer than `least`.
    pub async fn choose(&self, shard: &ShardName, kind: TabletType, least: usize) -> Result<Tablet, VtError> {
        let healthy = self.wait(shard, kind, least).await?;
        let chosen =
            healthy.choose(&mut rand::rng()).ok_or_else(|| VtError::new(Code::Internal, "no tablet to choose from"))?;
        Ok((*chosen.tablet).clone())
    }

    /// A tablet to read from, and as what it answers. A shard whose traffic of a type has moved has healthy tablets of it that
    /// do not serve: one of them is taken out of service and serves this process alone; recorded to be given back.
    ///
    /// # Errors
    /// There are fewer than `least`, or it refuses.
    pub async fn choose_or_drain(
        &self,
        shard: &ShardName,
        kind: TabletType,
        least: usize,
        cleaner: &mut Cleaner,
    ) -> Result<(Tablet, TabletType), VtError> {
        match self.wait_for_choice(shard, kind, least).await? {
            Some(idle) => {
                let tablet = (*idle.tablet).clone();
                self.drain_tablet(&tablet, kind, cleaner).await?;
                Ok((tablet, TabletType::Drained))
            }
            None => Ok((self.choose(shard, kind, least).await?, kind)),
        }
    }

    /// Waits until [`Self::choose_or_drain`] has a choice. Returns the tablet that it would take out of service, if it would.
    ///
    /// # Errors
    /// There are fewer than `least`.
    pub async fn wait_for_choice(
        &self,
        shard: &ShardName,
        kind: TabletType,
        least: usize,
    ) -> Result<Option<Arc<TabletHealth>>, VtError> {
        while self.healthy(shard, kind).len() < least.max(1) && tokio::time::Instant::now() < self.settled {
            tokio::time::sleep(POLL).await;
        }
        let mut idle = self.idle(shard, kind);
        if !idle.is_empty() && self.healthy(shard, kind).is_empty() && idle.len() >= least {
            return Ok(Some(idle.swap_remove(0)));
        }
        self.wait(shard, kind, least).await.map(|_| None)
    }

    /// The tablets of a type that are well and do not serve.
    fn idle(&self, (keyspace, shard): &ShardName, kind: TabletType) -> Vec<Arc<TabletHealth>> {
        let snapshot = self.health.snapshot();
        let all = snapshot.group(keyspace, shard, kind).map(|group| group.all.clone()).unwrap_or_default();
        all.into_iter().filter(|tablet| tablet.up && !tablet.serving && tablet.last_error.is_none()).collect()
    }

    /// Says in a tablet's record that this process stops its replication; recorded to be taken back.
    ///
    /// # Errors
    /// The topology refuses.
    pub async fn mark(&self, tablet: &Tablet, cleaner: &mut Cleaner) -> Result<(), VtError> {
        let (env, marked) = (self.env.clone(), tablet.clone());
        let alias = topoproto::tablet_alias_string(tablet.alias.as_ref());
        cleaner.record(format!("tags of {alias}"), move || async move {
            start_slave(&env, &marked).await?;
            untag(&env, &marked).await
        });
        self.tag(&tablet.alias.clone().unwrap_or_default(), tablet.r#type()).await
    }

    /// Takes a healthy tablet of a type out of service; recorded to be given back.
    ///
    /// # Errors
    /// There is none, or it refuses.
    pub async fn drain(
        &self,
        shard: &ShardName,
        kind: TabletType,
        least: usize,
        cleaner: &mut Cleaner,
    ) -> Result<Tablet, VtError> {
        let tablet = self.choose(shard, kind, least).await?;
        self.drain_tablet(&tablet, kind, cleaner).await?;
        Ok(tablet)
    }

    async fn drain_tablet(&self, tablet: &Tablet, kind: TabletType, cleaner: &mut Cleaner) -> Result<(), VtError> {
        let alias = topoproto::tablet_alias_string(tablet.alias.as_ref());
        let (env, given_back) = (self.env.clone(), tablet.clone());
        cleaner
            .record(format!("type of {alias} back to {}", topoproto::tablet_type_lstring(kind)), move || async move {
                give_back(&env, &given_back, kind).await
            });
        tracing::info!("taking {alias} out of service");
        // Before the type: whoever finds it drained must find out by whom.
        self.tag(&tablet.alias.clone().unwrap_or_default(), kind).await?;
        let request = tmd::ChangeTypeRequest { tablet_type: TabletType::Drained.into() };
        self.env.bounded(self.env.tmc.change_type(tablet, request)).await?;
        self.env.bounded(self.env.tmc.refresh_state(tablet, tmd::RefreshStateRequest {})).await?;
        Ok(())
    }

    async fn tag(&self, alias: &TabletAlias, kind: TabletType) -> Result<(), VtError> {
        let process = process();
        self.env
            .topo
            .update_tablet_fields(alias, |tablet| {
                for (tag, value) in [
                    (TAG_WORKER, self.env.url.as_str()),
                    (TAG_REASON, REASON),
                    (TAG_PROCESS, process.as_str()),
                    (TAG_TYPE, kind.as_str_name()),
                ] {
                    tablet.tags.insert(tag.to_owned(), value.to_owned());
                }
                Ok(Update::Write)
            })
            .await?;
        Ok(())
    }
}

/// Puts a tablet back into service as what it was. Its tags go last: as long as they are there, a later run tries again.
async fn give_back(env: &WorkerEnv, tablet: &Tablet, kind: TabletType) -> Result<(), VtError> {
    start_slave(env, tablet).await?;
    let request = tmd::ChangeTypeRequest { tablet_type: kind.into() };
    env.bounded(env.tmc.change_type(tablet, request)).await?;
    untag(env, tablet).await?;
    env.bounded(env.tmc.refresh_state(tablet, tmd::RefreshStateRequest {})).await?;
    Ok(())
}

/// Takes our tags off a tablet.
async fn untag(env: &WorkerEnv, tablet: &Tablet) -> Result<(), VtError> {
    let alias = tablet.alias.clone().unwrap_or_default();
    env.topo
        .update_tablet_fields(&alias, |tablet| {
            for tag in topoproto::WORKER_TAGS {
                tablet.tags.remove(tag);
            }
            Ok(Update::Write)
        })
        .await?;
    Ok(())
}

/// Starts a tablet's replication.
///
/// # Errors
/// The tablet refuses.
pub async fn start_slave(env: &WorkerEnv, tablet: &Tablet) -> Result<(), VtError> {
    env.bounded(env.tmc.start_slave(tablet, tmd::StartSlaveRequest {})).await.map(drop)
}

/// Stops a tablet's replication, recorded to be started again, and returns where it stands then.
///
/// # Errors
/// The tablet refuses, or does not say where it is.
pub async fn stop_slave(env: &Arc<WorkerEnv>, tablet: &Tablet, cleaner: &mut Cleaner) -> Result<String, VtError> {
    let (again, stopped) = (env.clone(), tablet.clone());
    let alias = topoproto::tablet_alias_string(tablet.alias.as_ref());
    cleaner.record(format!("start replication on {alias}"), move || async move { start_slave(&again, &stopped).await });
    env.bounded(env.tmc.stop_slave(tablet, tmd::StopSlaveRequest {})).await?;
    position(env, tablet).await
}

/// Where a replica stands.
///
/// # Errors
/// It does not replicate, or cannot be reached.
pub async fn position(env: &WorkerEnv, tablet: &Tablet) -> Result<String, VtError> {
    let answer = env.bounded(env.tmc.slave_status(tablet, tmd::SlaveStatusRequest {})).await?;
    let position = answer.status.unwrap_or_default().position;
    if position.is_empty() {
        let alias = topoproto::tablet_alias_string(tablet.alias.as_ref());
        return Err(VtError::new(Code::FailedPrecondition, format!("tablet {alias} has no replication position")));
    }
    Ok(position)
}

/// This process, as no other one is named: `host/pid/start`. In a container every process may be `host/1`.
pub fn process() -> String {
    let pid = std::process::id();
    format!("{}/{pid}/{}", host(), start_of(&pid.to_string()).unwrap_or_default())
}

/// When a process of this machine started, in clock ticks since the machine did; `None` if there is none of this number.
/// Source: proc(5), field 22 of `/proc/pid/stat`.
fn start_of(pid: &str) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, a name in brackets, may hold blanks and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(22 - 3).map(str::to_owned)
}

/// Whether [`process`] named a process of this machine that does not run any more.
fn is_dead(process: &str) -> bool {
    let mut parts = process.rsplitn(3, '/');
    let (Some(start), Some(pid), Some(name)) = (parts.next(), parts.next(), parts.next()) else { return false };
    name == host() && start_of(pid).as_deref() != Some(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processes_of_this_machine_are_known_to_be_dead() {
        assert!(is_dead(&format!("{}/4194305/1", host())));
        assert!(!is_dead("elsewhere/4194305/1"));
        assert!(!is_dead("garbage"));
        // The number is this process's, and was another one's before it started.
        assert!(!is_dead(&process()));
        assert!(is_dead(&format!("{}/{}/1", host(), std::process::id())));
    }
}
