//! The replication reporter: how far a replica is behind, and putting replication right when it has stopped by itself.

use std::time::{Duration, SystemTime};

use futures::future::BoxFuture;
use mysql::{admin::AdminError, replication::SlaveStatus};
use tokio::time::{Instant, timeout};
use topo::topoproto;
use vterrors::{Code, Result, VtError};
use vtproto::topodata::TabletType;

use super::{decision::Replication, manager::TabletManager, markers::Marker};

/// A repair that takes longer is given up and tried at the next check.
const REPAIR_LIMIT: Duration = Duration::from_secs(5);
const NOT_RUNNING: &str = "slave is not running";

impl TabletManager {
    /// What replication of a tablet of this type is like; with `may_repair`, after trying to put it right.
    pub(super) async fn report(&self, tablet_type: TabletType, may_repair: bool) -> Replication {
        if tablet_type == TabletType::Master {
            return Replication::NotWatched;
        }
        let by_status = match self.config.enable_replication_reporter {
            true => self.report_status(may_repair).await,
            false => Replication::NotWatched,
        };
        by_status.with_heartbeat(self.query.heartbeat_lag())
    }

    async fn report_status(&self, may_repair: bool) -> Replication {
        let mut status = self.mysqld.slave_status().await;
        if may_repair && is_stopped(&status) && !self.markers.has(Marker::DoNotReplicate) {
            if self.config.disable_active_reparents {
                tracing::debug!("replication is stopped; left alone because of -disable_active_reparents");
            } else {
                match timeout(REPAIR_LIMIT, self.repair_replication()).await {
                    Ok(Ok(())) => tracing::info!("replication was stopped and is attached to the master again"),
                    Ok(Err(error)) => tracing::info!("replication is stopped and cannot be attached: {error}"),
                    Err(_) => tracing::info!("replication is stopped; attaching it takes longer than {REPAIR_LIMIT:?}"),
                }
                status = self.mysqld.slave_status().await;
            }
        }
        self.judge(status)
    }

    fn judge(&self, status: Result<SlaveStatus, AdminError>) -> Replication {
        let status = match status {
            Ok(status) => status,
            Err(AdminError::NotReplica) => return Replication::Broken(NOT_RUNNING.to_owned()),
            Err(error) => return Replication::Broken(error.to_string()),
        };
        let on_purpose = self.markers.has(Marker::DoNotReplicate);
        let mut state = self.state();
        if status.running() {
            let lag = Duration::from_secs(status.seconds_behind_master.unwrap_or(0).into());
            state.last_lag = Some((lag, SystemTime::now()));
            return Replication::Lag(lag);
        }
        match state.last_lag {
            // The master is away, or replication was asked to stop: nobody knows how far the master went on, so the lag
            // grows with the time, and the data is as good as that.
            Some((lag, seen)) if status.sql_running || on_purpose => {
                Replication::Lag(lag + seen.elapsed().unwrap_or_default())
            }
            _ => Replication::Broken(describe(&status)),
        }
    }

    /// Attaches replication to the master that the shard record names. Boxed: re-attaching checks health again, though
    /// without repairing.
    fn repair_replication(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.attach_to_master())
    }

    async fn attach_to_master(&self) -> Result<()> {
        let tablet = self.tablet();
        let shard = self.topo.get_shard(&tablet.keyspace, &tablet.shard).await?;
        let Some(master) = shard.master_alias().cloned() else {
            return Err(VtError::new(
                Code::FailedPrecondition,
                format!("no master tablet for shard {}/{}", tablet.keyspace, tablet.shard),
            ));
        };
        let master_name = topoproto::tablet_alias_string(Some(&master));
        if master == self.config.alias {
            return Err(VtError::new(
                Code::FailedPrecondition,
                format!(
                    "shard {}/{} record claims tablet {master_name} is master, but its type is {}",
                    tablet.keyspace,
                    tablet.shard,
                    topoproto::tablet_type_lstring(tablet.r#type())
                ),
            ));
        }
        // A reparent that is under way knows better.
        let action = format!("repairReplication to {master_name} as parent)");
        let lock = self.topo.lock_shard(&tablet.keyspace, &tablet.shard, &action).await?;
        let done = self.set_master_locked(&master, 0, None, true, Instant::now() + REPAIR_LIMIT).await;
        let unlocked = lock.unlock().await.map_err(VtError::from);
        done.and(unlocked)
    }
}

/// Both threads: on purpose, or because mysqld was restarted. One alone is an error that re-attaching does not cure.
fn is_stopped(status: &Result<SlaveStatus, AdminError>) -> bool {
    match status {
        Ok(status) => !status.io_running && !status.sql_running,
        Err(AdminError::NotReplica) => true,
        Err(_) => false,
    }
}

fn describe(status: &SlaveStatus) -> String {
    let cause = [&status.last_sql_error, &status.last_io_error].into_iter().find(|text| !text.is_empty());
    match cause {
        Some(cause) => format!("{NOT_RUNNING}: {cause}"),
        None => NOT_RUNNING.to_owned(),
    }
}
