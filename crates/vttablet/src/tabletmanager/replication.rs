//! The replication half of the tablet manager's RPCs: what reparents are made of.
//!
//! Each function says in its first line what is true afterwards. Those that change the tablet hold the action lock; the
//! `_locked` ones expect their caller to hold it. All may be called again after a failure.

use std::time::Duration;

use mysql::{
    admin::AdminError,
    replication::{Position, replication_host},
};
use tokio::time::Instant;
use topo::topoproto;
use vterrors::{Code, Result, VtError};
use vtproto::{
    replicationdata,
    topodata::{TabletAlias, TabletType},
};

use super::{
    manager::TabletManager,
    markers::Marker,
    mysqld::{cells, escape_id, quote},
};

/// mysqld says so when it lost track of its relay logs; starting over cures it.
const RELAY_LOG_LOST: &str = "Slave failed to initialize relay log info structure from the repository";

fn parse(position: &str) -> Result<Position> {
    position.parse().map_err(|error| VtError::new(Code::InvalidArgument, format!("{error}")))
}

/// Which roles of semi-sync a tablet of a type has: as master, as replica that acknowledges.
fn semi_sync_roles(tablet_type: TabletType) -> (bool, bool) {
    match tablet_type {
        TabletType::Master => (true, true),
        TabletType::Replica => (false, true),
        _ => (false, false),
    }
}

impl TabletManager {
    pub(super) async fn slave_status(&self) -> Result<replicationdata::Status> {
        Ok((&self.mysqld.slave_status().await?).into())
    }

    pub(super) async fn master_position(&self) -> Result<String> {
        Ok(self.mysqld.master_position().await?.to_string())
    }

    pub(super) async fn wait_for_position(&self, position: &str, deadline: Instant) -> Result<()> {
        self.mysqld.wait_for_position(&parse(position)?, deadline).await
    }

    /// Replication is stopped and stays so until `StartSlave` or a reparent.
    pub(super) async fn stop_slave(&self) -> Result<()> {
        let _action = self.action.lock().await;
        self.stop_slave_locked().await
    }

    async fn stop_slave_locked(&self) -> Result<()> {
        // First the marker: otherwise a health check in between repairs what was asked to stop.
        self.markers.put(Marker::DoNotReplicate, true);
        self.begin_maintenance("vttablet has been told to StopSlave");
        self.mysqld.stop_slave().await
    }

    /// Replication has applied `position` and is stopped; answers where it stands.
    pub(super) async fn stop_slave_minimum(&self, position: &str, wait: Duration) -> Result<String> {
        let _action = self.action.lock().await;
        self.mysqld.wait_for_position(&parse(position)?, Instant::now() + wait).await?;
        self.stop_slave_locked().await?;
        self.master_position().await
    }

    /// Replication runs, acknowledging if the tablet's type does.
    pub(super) async fn start_slave(&self) -> Result<()> {
        let _action = self.action.lock().await;
        self.markers.put(Marker::DoNotReplicate, false);
        self.fix_semi_sync(self.tablet_type()).await?;
        self.end_maintenance();
        self.start_replication().await
    }

    pub(super) async fn start_slave_until_after(&self, position: &str, wait: Duration) -> Result<()> {
        let _action = self.action.lock().await;
        self.mysqld.start_slave_until_after(&parse(position)?, Instant::now() + wait).await
    }

    /// Addresses of the replicas that read from this mysqld, without ports.
    pub(super) async fn get_slaves(&self) -> Result<Vec<String>> {
        let processes = self.mysqld.dba().await?.execute("SHOW PROCESSLIST").await?;
        let column = |name: &str| processes.fields.iter().position(|field| field.name.eq_ignore_ascii_case(name));
        let (Some(host), Some(command)) = (column("Host"), column("Command")) else {
            return Err(VtError::new(Code::Internal, "SHOW PROCESSLIST has no Host and Command"));
        };
        let mut addresses = Vec::new();
        for row in &processes.rows {
            let values = cells(row);
            let text = |at: usize| values.get(at).cloned().flatten().unwrap_or_default();
            if text(command).starts_with("Binlog Dump") {
                let from = text(host);
                let name = from.rsplit_once(':').map_or(from.as_str(), |(name, _port)| name);
                // An address is what callers compare; mysqld shows a name where it looks names up.
                let address = match tokio::net::lookup_host((name, 0)).await {
                    Ok(mut found) => found.next().map(|address| address.ip().to_string()),
                    Err(_) => None,
                };
                addresses.push(address.unwrap_or_else(|| name.to_owned()));
            }
        }
        Ok(addresses)
    }

    /// Replication is forgotten and the binary log empty; the `_vt` tables exist.
    pub(super) async fn reset_replication(&self) -> Result<()> {
        let _action = self.action.lock().await;
        self.markers.put(Marker::DoNotReplicate, true);
        self.mysqld.reset_replication().await?;
        self.state().last_lag = None;
        // After this the binary logs of the shard begin; what they rely on has to be there on every server.
        self.mysqld.ensure_sidecar().await
    }

    /// This tablet is a writable master with a new term; answers the position replicas have to start from.
    pub(super) async fn init_master(&self) -> Result<String> {
        let _action = self.action.lock().await;
        self.markers.put(Marker::DoNotReplicate, false);
        self.mysqld.ensure_sidecar().await?;
        // Before semi-sync is on: it would wait for a replica that is not there yet. Replicas that come later find it in the
        // binary log. And something has to be in the log, or there is no position to hand out.
        let create = create_database(&self.db_name());
        self.mysqld.run(&[&create, "ALTER TABLE _vt.reparent_journal ENGINE=InnoDB"]).await?;
        let position = self.master_position().await?;
        self.become_master().await?;
        Ok(position)
    }

    /// What every way of becoming master ends with: semi-sync before writes, writes before the record says so.
    async fn become_master(&self) -> Result<()> {
        self.fix_semi_sync(TabletType::Master).await?;
        self.mysqld.set_read_only(false).await?;
        self.change_type_record(TabletType::Master).await?;
        self.apply("became master").await;
        Ok(())
    }

    /// The journal has a row for this reparent. With semi-sync this waits for a replica's acknowledgement.
    pub(super) async fn populate_reparent_journal(
        &self,
        time_created_ns: i64,
        action_name: &str,
        master: Option<&TabletAlias>,
        position: &str,
        deadline: Instant,
    ) -> Result<()> {
        self.mysqld.ensure_sidecar().await?;
        let sql = format!(
            "INSERT INTO _vt.reparent_journal (time_created_ns, action_name, master_alias, replication_position) \
             VALUES ({time_created_ns}, {}, {}, {})",
            quote(action_name),
            quote(&topoproto::tablet_alias_string(master)),
            quote(position)
        );
        let insert = async { self.mysqld.dba().await?.execute(&sql).await };
        match tokio::time::timeout_at(deadline, insert).await {
            Ok(result) => Ok(result.map(drop)?),
            Err(_) => Err(VtError::new(
                Code::DeadlineExceeded,
                "the reparent journal row was not acknowledged in time: with semi-sync at least one tablet of type \
                 replica has to replicate from this master",
            )),
        }
    }

    /// This tablet replicates from `parent`, beginning at `position`, and has received the journal row.
    pub(super) async fn init_slave(
        &self,
        parent: Option<&TabletAlias>,
        position: &str,
        time_created_ns: i64,
        deadline: Instant,
    ) -> Result<()> {
        let _action = self.action.lock().await;
        let position = parse(position)?;
        let parent = parent.ok_or_else(no_parent)?;
        self.step_back_from_master().await?;
        let (host, port) = self.mysql_address(parent).await?;
        self.markers.put(Marker::DoNotReplicate, false);
        self.mysqld.ensure_sidecar().await?;
        // The master made it before the position that this replica begins at.
        self.mysqld.run(&["SET sql_log_bin = 0", &create_database(&self.db_name())]).await?;
        self.fix_semi_sync(self.tablet_type()).await?;
        self.mysqld.set_slave_position(&position).await?;
        self.mysqld.set_master(&host, port, false, true).await?;
        let arrived = self.mysqld.wait_for_reparent_journal(time_created_ns, deadline).await;
        self.check_health_locked(false, "InitSlave").await;
        arrived
    }

    /// A master that learns of another one stops being master first, whatever else fails.
    async fn step_back_from_master(&self) -> Result<()> {
        if self.tablet_type() != TabletType::Master {
            return Ok(());
        }
        self.change_type_record(TabletType::Replica).await?;
        self.apply("another tablet became master").await;
        self.mysqld.set_read_only(true).await
    }

    /// No write can happen here any more, and the position is final.
    pub(super) async fn demote_master(&self) -> Result<String> {
        let _action = self.action.lock().await;
        self.demote_master_locked(true).await
    }

    pub(super) async fn demote_master_locked(&self, undo_on_failure: bool) -> Result<String> {
        let is_master = self.tablet_type() == TabletType::Master;
        let was_read_only = self.mysqld.is_read_only().await?;
        if is_master {
            // From here on no health check and no restart brings it back.
            self.markers.put(Marker::DemotedMaster, true);
            self.state().permit.refused = Some("master was demoted".to_owned());
            self.begin_maintenance("vttablet has been told to DemoteMaster");
            // Ends what runs, within the grace period, so that read-only does not wait for it.
            self.reconcile("DemoteMaster").await;
            self.broadcast();
        }
        let fenced = async {
            if self.config.use_super_read_only {
                self.mysqld.set_super_read_only().await?;
            } else {
                self.mysqld.set_read_only(true).await?;
            }
            self.fix_semi_sync(TabletType::Replica).await?;
            self.master_position().await
        }
        .await;
        match fenced {
            Err(error) if undo_on_failure && is_master && !was_read_only => {
                if let Err(undo) = self.undo_demote_master_locked().await {
                    tracing::error!("demoting failed, and so did taking it back: {undo}");
                }
                Err(error)
            }
            outcome => outcome,
        }
    }

    /// This tablet accepts writes and serves as before `DemoteMaster`.
    pub(super) async fn undo_demote_master(&self) -> Result<()> {
        let _action = self.action.lock().await;
        self.undo_demote_master_locked().await
    }

    async fn undo_demote_master_locked(&self) -> Result<()> {
        self.fix_semi_sync(TabletType::Master).await?;
        self.mysqld.set_read_only(false).await?;
        self.markers.put(Marker::DemotedMaster, false);
        self.end_maintenance();
        self.apply("UndoDemoteMaster").await;
        Ok(())
    }

    /// This tablet has applied `position` and is a writable master with a new term.
    pub(super) async fn promote_slave_when_caught_up(&self, position: &str, deadline: Instant) -> Result<String> {
        let _action = self.action.lock().await;
        self.mysqld.wait_for_position(&parse(position)?, deadline).await?;
        self.promote_locked().await
    }

    /// This tablet is a writable master with a new term, wherever its replication stood.
    pub(super) async fn promote_slave(&self) -> Result<String> {
        let _action = self.action.lock().await;
        self.promote_locked().await
    }

    async fn promote_locked(&self) -> Result<String> {
        let position = self.mysqld.promote().await?;
        self.markers.put(Marker::DoNotReplicate, false);
        self.become_master().await?;
        Ok(position.to_string())
    }

    /// The record says MASTER with a new term; mysqld was dealt with by somebody else.
    pub(super) async fn slave_was_promoted(&self) -> Result<()> {
        let _action = self.action.lock().await;
        self.change_type_record(TabletType::Master).await?;
        self.apply("SlaveWasPromoted").await;
        Ok(())
    }

    /// A record that said MASTER says REPLICA; mysqld was dealt with by somebody else.
    pub(super) async fn slave_was_restarted(&self) -> Result<()> {
        let _action = self.action.lock().await;
        if self.tablet_type() == TabletType::Master {
            self.change_type_record(TabletType::Replica).await?;
            self.apply("SlaveWasRestarted").await;
        }
        Ok(())
    }

    /// An external tool made this tablet master: the record follows, and the shard record after it.
    pub(super) async fn tablet_externally_reparented(&self) -> Result<()> {
        let _action = self.action.lock().await;
        if self.tablet_type() == TabletType::Master {
            return Ok(());
        }
        self.stats.external_reparents.inc();
        self.change_type_record(TabletType::Master).await?;
        self.fix_semi_sync(TabletType::Master).await?;
        self.apply("TabletExternallyReparented").await;
        Ok(())
    }

    /// This tablet is a replica of `parent`: replicating if it did before, was never set up, or `force_start`.
    pub(super) async fn set_master(
        &self,
        parent: Option<&TabletAlias>,
        time_created_ns: i64,
        wait_position: &str,
        force_start: bool,
        deadline: Instant,
    ) -> Result<()> {
        let _action = self.action.lock().await;
        let wait_position = if wait_position.is_empty() { None } else { Some(parse(wait_position)?) };
        let parent = parent.ok_or_else(no_parent)?;
        let done = self.set_master_locked(parent, time_created_ns, wait_position.as_ref(), force_start, deadline).await;
        self.check_health_locked(false, "SetMaster").await;
        done
    }

    pub(super) async fn set_master_locked(
        &self,
        parent: &TabletAlias,
        time_created_ns: i64,
        wait_position: Option<&Position>,
        force_start: bool,
        deadline: Instant,
    ) -> Result<()> {
        if *parent == self.config.alias {
            return Err(VtError::new(Code::InvalidArgument, "a tablet cannot replicate from itself"));
        }
        self.step_back_from_master().await?;
        let (was_running, configured, at) = match self.mysqld.slave_status().await {
            Ok(status) => {
                (status.io_running || status.sql_running, true, Some((status.master_host, status.master_port)))
            }
            Err(AdminError::NotReplica) => (false, false, None),
            Err(error) => return Err(error.into()),
        };
        // It was not set up because nobody did yet: then it is meant to run. A stop on purpose is respected.
        let start = force_start || was_running || (!configured && !self.markers.has(Marker::DoNotReplicate));
        if start {
            self.markers.put(Marker::DoNotReplicate, false);
        }
        if let Err(error) = self.mysqld.ensure_sidecar().await {
            // A server with super_read_only refuses; there they exist since its first start.
            tracing::info!("the _vt tables were not looked after: {error}");
        }
        self.fix_semi_sync(self.tablet_type()).await?;
        let (host, port) = self.mysql_address(parent).await?;
        let same = at.is_some_and(|(at_host, at_port)| {
            replication_host(&at_host) == replication_host(&host) && i32::from(at_port) == port
        });
        if !same {
            self.repairing(self.mysqld.set_master(&host, port, was_running, start)).await?;
        } else if start {
            // A running replica picks up a change of semi-sync only when it connects.
            if was_running {
                self.mysqld.stop_slave().await?;
            }
            self.start_replication().await?;
        }
        if !start {
            return Ok(());
        }
        if let Some(position) = wait_position {
            self.mysqld.wait_for_position(position, deadline).await?;
        }
        if time_created_ns != 0 {
            self.mysqld.wait_for_reparent_journal(time_created_ns, deadline).await?;
        }
        Ok(())
    }

    /// Replication is stopped; answers what it was before, with the position now.
    pub(super) async fn stop_replication_and_get_status(&self) -> Result<replicationdata::Status> {
        let _action = self.action.lock().await;
        let status =
            self.mysqld.slave_status().await.map_err(|error| VtError::from(error).wrap("before status failed"))?;
        let mut answer = replicationdata::Status::from(&status);
        if !status.io_running && !status.sql_running {
            return Ok(answer);
        }
        self.stop_slave_locked().await.map_err(|error| error.wrap("stop slave failed"))?;
        answer.position = self.master_position().await.map_err(|error| error.wrap("after position failed"))?;
        Ok(answer)
    }

    async fn start_replication(&self) -> Result<()> {
        self.repairing(self.mysqld.start_slave()).await
    }

    /// Runs a start of replication; if mysqld lost its relay logs, resets them and starts again.
    async fn repairing(&self, start: impl Future<Output = Result<()>>) -> Result<()> {
        match start.await {
            Err(error) if error.message().contains(RELAY_LOG_LOST) => {
                tracing::warn!("{error}: restarting replication");
                self.mysqld.restart_slave().await
            }
            outcome => outcome,
        }
    }

    /// Where the mysqld of a tablet listens.
    async fn mysql_address(&self, alias: &TabletAlias) -> Result<(String, i32)> {
        let tablet = self.topo.get_tablet(alias).await?.record;
        let (host, port) = (topoproto::mysql_hostname(&tablet).to_owned(), topoproto::mysql_port(&tablet));
        if host.is_empty() || port == 0 {
            return Err(VtError::new(
                Code::FailedPrecondition,
                format!(
                    "tablet {} is not running: its record has no MySQL address",
                    topoproto::tablet_alias_string(Some(alias))
                ),
            ));
        }
        Ok((host, port))
    }

    /// Sets both roles of semi-sync as a tablet of that type has them.
    pub(super) async fn fix_semi_sync(&self, tablet_type: TabletType) -> Result<()> {
        if !self.config.enable_semi_sync {
            return Ok(());
        }
        let (master, replica) = semi_sync_roles(tablet_type);
        self.mysqld.set_semi_sync(master, replica).await
    }

    /// As [`TabletManager::fix_semi_sync`]; replication that runs picks the change up.
    pub(super) async fn fix_semi_sync_and_replication(&self, tablet_type: TabletType) -> Result<()> {
        if !self.config.enable_semi_sync || tablet_type == TabletType::Master {
            return Ok(());
        }
        self.fix_semi_sync(tablet_type).await?;
        let running = match self.mysqld.slave_status().await {
            Ok(status) => status.running(),
            Err(AdminError::NotReplica) => false,
            Err(error) => return Err(error.into()),
        };
        if !running || self.mysqld.acknowledges().await? == semi_sync_roles(tablet_type).1 {
            return Ok(());
        }
        tracing::info!("restarting replication: a {} acknowledges otherwise", tablet_type.as_str_name());
        self.mysqld.stop_slave().await?;
        self.mysqld.start_slave().await
    }
}

fn create_database(name: &str) -> String {
    format!("CREATE DATABASE IF NOT EXISTS {}", escape_id(name))
}

fn no_parent() -> VtError {
    VtError::new(Code::InvalidArgument, "the request names no parent tablet")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_masters_and_replicas_take_part_in_semi_sync() {
        assert_eq!(semi_sync_roles(TabletType::Master), (true, true));
        assert_eq!(semi_sync_roles(TabletType::Replica), (false, true));
        assert_eq!(semi_sync_roles(TabletType::Rdonly), (false, false));
        assert_eq!(semi_sync_roles(TabletType::Drained), (false, false));
    }
}
