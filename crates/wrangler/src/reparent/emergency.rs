//! EmergencyReparentShard: a new master when the old one is dead and will not come back as it was.
//! Transactions that only the old master had are lost; none that any other tablet has.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use mysql::replication::Position;
use topo::{ShardInfo, ShardLock, TabletMap};
use vtproto::replicationdata::Status;
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{TabletAlias, TabletType};

use super::{NewMaster, check_lock, elect_of, now_ns, parse_position, wait_for_shard_sync};
use crate::Wrangler;
use crate::error::{Result, bail, err};
use crate::locked::with_shard_lock;
use crate::logger::{info, warning};
use crate::wrangler::within;

/// Makes `elect` the master of a shard without the present one, whose record is deleted.
pub(crate) async fn emergency_reparent_shard(
    wr: &Wrangler,
    keyspace: String,
    shard: String,
    elect: TabletAlias,
    wait_slave_timeout: Duration,
) -> Result {
    wr.to_the_end(Box::pin(run(wr.clone(), keyspace, shard, elect, wait_slave_timeout))).await
}

async fn run(
    wr: Wrangler,
    keyspace: String,
    shard: String,
    elect: TabletAlias,
    wait_slave_timeout: Duration,
) -> Result {
    let action = format!("EmergencyReparentShard({})", topo::topoproto::tablet_alias_string(Some(&elect)));
    with_shard_lock!(wr, &keyspace, &shard, &action, |lock| {
        let info = wr.topo().get_shard(&keyspace, &shard).await?;
        let tablets = wr.topo().get_tablet_map_for_shard(&keyspace, &shard).await?.complete()?;
        execute(&wr, lock, &info, tablets, &elect, wait_slave_timeout).await
    })
}

async fn execute(
    wr: &Wrangler,
    lock: &ShardLock,
    shard: &ShardInfo,
    mut tablets: TabletMap,
    elect_alias: &TabletAlias,
    wait_slave_timeout: Duration,
) -> Result {
    let limit = wr.config().remote_operation_timeout;
    let alias = topo::topoproto::tablet_alias_string(Some(elect_alias));
    elect_of(&tablets, &alias)?;
    if shard.master_alias() == Some(elect_alias) {
        bail!("master-elect tablet {alias} is already the master");
    }

    // Everybody stops first, so that the comparison of positions stays true.
    let stopped = join_all(tablets.iter().map(|(alias, tablet)| async move {
        if shard.master_alias() == Some(&tablet.alias()) {
            return None;
        }
        info!(wr, "getting replication position from {alias}");
        let stop = wr.tmc().stop_replication_and_get_status(&tablet.record, tmd::StopReplicationAndGetStatusRequest {});
        match within(limit, stop).await {
            Ok(response) => Some((alias.clone(), response.status.unwrap_or_default())),
            Err(error) => {
                warning!(wr, "failed to get replication status from {alias}, ignoring tablet: {error}");
                None
            }
        }
    }))
    .await;
    let statuses: BTreeMap<String, Status> = stopped.into_iter().flatten().collect();
    // Everything that can be known before the old master goes: a run that is refused here has changed nothing.
    let mut checked = check_most_advanced(&statuses, &alias);
    if checked.is_ok() {
        checked = check_acknowledgement(wr, &tablets, &statuses, &alias).await;
    }
    if checked.is_ok() {
        checked = check_lock(lock).await;
    }
    if let Err(refused) = checked {
        resume(wr, &tablets, &statuses).await;
        return Err(refused);
    }

    // Only now, with a proven successor, the old master goes: it must not come back as a master.
    if let Some(old) = shard.master_alias() {
        let old = topo::topoproto::tablet_alias_string(Some(old));
        if let Some(tablet) = tablets.remove(&old) {
            info!(wr, "deleting old master {old}");
            if let Err(error) = crate::tablets::delete_tablet_record(wr, &tablet.record).await {
                warning!(wr, "failed to delete old master tablet {old}: {error}");
            }
        } else {
            warning!(wr, "old master tablet {old} is not in the shard any more");
        }
    }

    let elect = elect_of(&tablets, &alias)?;
    info!(wr, "promote slave {alias}");
    let promoted = within(limit, wr.tmc().promote_slave(&elect.record, tmd::PromoteSlaveRequest {})).await;
    let position = promoted
        .map_err(|error| err!("master-elect tablet {alias} failed to be upgraded to master: {error}"))?
        .position;
    check_lock(lock).await?;

    let master =
        NewMaster { elect, action: "EmergencyReparentShard", position, time_created_ns: now_ns(), wait_slave_timeout };
    master.announce(wr, &tablets, |alias| statuses.get(alias).is_some_and(was_running)).await?;
    wait_for_shard_sync(wr, lock, elect_alias, wait_slave_timeout).await;
    Ok(())
}

fn was_running(status: &Status) -> bool {
    status.slave_io_running || status.slave_sql_running
}

/// Lets replication go on where it ran: a run that is refused leaves the shard as it was.
async fn resume(wr: &Wrangler, tablets: &TabletMap, statuses: &BTreeMap<String, Status>) {
    let limit = wr.config().remote_operation_timeout;
    let starts = tablets.iter().map(|(alias, tablet)| async move {
        if !statuses.get(alias).is_some_and(was_running) {
            return;
        }
        let start = wr.tmc().start_slave(&tablet.record, tmd::StartSlaveRequest {});
        if let Err(error) = within(limit, start).await {
            warning!(wr, "replication of {alias} stands since this run, use StartSlave: {error}");
        }
    });
    join_all(starts).await;
}

/// Refuses an elect that takes part in semi-sync when no other tablet would acknowledge: as master it would wait with every
/// write, beginning with the journal row, and the old master would be gone.
async fn check_acknowledgement(
    wr: &Wrangler,
    tablets: &TabletMap,
    statuses: &BTreeMap<String, Status>,
    elect_alias: &str,
) -> Result {
    let elect = elect_of(tablets, elect_alias)?;
    let mut candidate = None;
    for (alias, tablet) in tablets {
        if alias == elect_alias || !statuses.contains_key(alias) {
            continue;
        }
        if tablet.record.r#type() == TabletType::Replica {
            return Ok(());
        }
        candidate.get_or_insert(alias);
    }
    let request = tmd::ExecuteFetchAsDbaRequest {
        query: SEMI_SYNC_ROLES.as_bytes().to_vec(),
        max_rows: 10,
        ..Default::default()
    };
    // One that cannot say is asked to promote itself all the same: this is an emergency.
    let roles =
        match within(wr.config().remote_operation_timeout, wr.tmc().execute_fetch_as_dba(&elect.record, request)).await
        {
            Ok(response) => response.result.unwrap_or_default(),
            Err(error) => {
                warning!(wr, "{elect_alias} does not say whether it uses semi-sync: {error}");
                return Ok(());
            }
        };
    if roles.rows.is_empty() {
        return Ok(());
    }
    let way_out = match candidate {
        Some(alias) => format!("make one of the others a replica first (ChangeSlaveType {alias} replica)"),
        None => "start another tablet of type replica first".to_owned(),
    };
    bail!(
        "no tablet of type replica is left beside master-elect tablet {elect_alias}: with semi-sync every write would wait for one. \
         {way_out}, or do without semi-sync: set rpl_semi_sync_slave_enabled (rpl_semi_sync_replica_enabled since MySQL 8.4) \
         off there and restart its vttablet with -enable_semi_sync=false"
    );
}

/// Rows while the tablet acknowledges as a replica, which says that it will wait as a master.
const SEMI_SYNC_ROLES: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('rpl_semi_sync_slave_enabled', \
                               'rpl_semi_sync_replica_enabled') AND Value = 'ON'";

/// Refuses an elect that lacks a transaction which another tablet has.
fn check_most_advanced(statuses: &BTreeMap<String, Status>, elect: &str) -> Result {
    let Some(status) = statuses.get(elect) else {
        bail!("couldn't get master elect {elect} replication position");
    };
    let elect_position: Position = parse_position(&status.position, elect)?;
    for (alias, status) in statuses {
        let position = parse_position(&status.position, alias)?;
        if !elect_position.at_least(&position) {
            bail!("tablet {alias} is more advanced than master elect tablet {elect}: {position} > {elect_position}");
        }
    }
    Ok(())
}
