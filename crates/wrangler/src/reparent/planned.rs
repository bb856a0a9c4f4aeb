//! PlannedReparentShard: moves mastership while everything is healthy, without losing a transaction.
//! Run again after a failure, it repairs what it left: a demoted master, replicas of the old one.

use std::time::Duration;

use futures::future::join_all;
use tabletclient::tm::TmError;
use tokio::time::Instant;
use topo::{ShardInfo, ShardLock, TabletInfo, TabletMap};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{TabletAlias, TabletType};

use super::{NewMaster, check_lock, current_master, elect_of, now_ns, parse_position, wait_for_shard_sync};
use crate::Wrangler;
use crate::error::{Result, bail, err, join_errors};
use crate::locked::with_shard_lock;
use crate::logger::{info, warning};
use crate::wrangler::within;

/// Makes `new_master` the master of a shard, or any suitable tablet that is not `avoid_master`, or
/// anybody but the present master when neither is given.
pub(crate) async fn planned_reparent_shard(
    wr: &Wrangler,
    keyspace: String,
    shard: String,
    new_master: Option<TabletAlias>,
    avoid_master: Option<TabletAlias>,
    wait_slave_timeout: Duration,
) -> Result {
    wr.to_the_end(Box::pin(run(wr.clone(), keyspace, shard, new_master, avoid_master, wait_slave_timeout))).await
}

async fn run(
    wr: Wrangler,
    keyspace: String,
    shard: String,
    new_master: Option<TabletAlias>,
    avoid_master: Option<TabletAlias>,
    wait_slave_timeout: Duration,
) -> Result {
    let text = |alias: &Option<TabletAlias>| topo::topoproto::tablet_alias_string(alias.as_ref());
    let action = format!("PlannedReparentShard({}, avoid_master={})", text(&new_master), text(&avoid_master));
    with_shard_lock!(wr, &keyspace, &shard, &action, |lock| {
        let info = wr.topo().get_shard(&keyspace, &shard).await?;
        let tablets = wr.topo().get_tablet_map_for_shard(&keyspace, &shard).await?.complete()?;
        let Some(elect) = choose(&wr, &info, &tablets, new_master, avoid_master).await? else {
            info!(wr, "the current master is not the one to avoid: nothing to do");
            return Ok(());
        };
        execute(&wr, lock, &tablets, &elect, wait_slave_timeout).await
    })
}

/// Who is to be master; `None` when nothing has to change.
async fn choose(
    wr: &Wrangler,
    shard: &ShardInfo,
    tablets: &TabletMap,
    new_master: Option<TabletAlias>,
    avoid_master: Option<TabletAlias>,
) -> Result<Option<TabletAlias>> {
    if let Some(alias) = &new_master
        && new_master == avoid_master
    {
        let alias = topo::topoproto::tablet_alias_string(Some(alias));
        bail!("master-elect tablet {alias} is the same as the tablet to avoid");
    }
    if new_master.is_some() {
        return Ok(new_master);
    }
    let Some(master) = shard.master_alias() else {
        bail!("the shard has no master, use EmergencyReparentShard");
    };
    let avoid = avoid_master.unwrap_or_else(|| master.clone());
    if avoid != *master {
        return Ok(None);
    }
    let mut best = None;
    for tablet in tablets.values() {
        let alias = tablet.alias();
        if alias == avoid || alias.cell != master.cell || tablet.record.r#type() != TabletType::Replica {
            continue;
        }
        let status = wr.tmc().slave_status(&tablet.record, tmd::SlaveStatusRequest {});
        let position = match within(wr.config().remote_operation_timeout, status).await {
            Ok(response) => response.status.unwrap_or_default().position,
            Err(error) => {
                warning!(
                    wr,
                    "failed to get replication status from {}, ignoring tablet: {error}",
                    tablet.alias_string()
                );
                continue;
            }
        };
        let position = parse_position(&position, &tablet.alias_string())?;
        if best.as_ref().is_none_or(|(best, _)| !position_at_least(best, &position)) {
            best = Some((position, alias));
        }
    }
    match best {
        Some((_, alias)) => {
            info!(wr, "elected new master candidate {}", topo::topoproto::tablet_alias_string(Some(&alias)));
            Ok(Some(alias))
        }
        None => bail!("cannot find a tablet to reparent to"),
    }
}

fn position_at_least(left: &mysql::replication::Position, right: &mysql::replication::Position) -> bool {
    left.at_least(right)
}

async fn execute(
    wr: &Wrangler,
    lock: &ShardLock,
    tablets: &TabletMap,
    elect_alias: &TabletAlias,
    wait_slave_timeout: Duration,
) -> Result {
    let elect = elect_of(tablets, &topo::topoproto::tablet_alias_string(Some(elect_alias)))?;
    let position = match current_master(tablets) {
        Some(master) if master.alias() == *elect_alias => repair(wr, elect).await?,
        Some(master) => hand_over(wr, lock, master, elect, wait_slave_timeout).await?,
        None => take_over(wr, tablets, elect).await?,
    };
    check_lock(lock).await?;
    let master =
        NewMaster { elect, action: "PlannedReparentShard", position, time_created_ns: now_ns(), wait_slave_timeout };
    master.announce(wr, tablets, |_| false).await?;
    wait_for_shard_sync(wr, lock, elect_alias, wait_slave_timeout).await;
    Ok(())
}

/// The elect is master already: make sure that it knows, so that replicas can be pointed to it.
async fn repair(wr: &Wrangler, elect: &TabletInfo) -> Result<String> {
    let limit = wr.config().remote_operation_timeout;
    let alias = elect.alias_string();
    info!(wr, "master-elect tablet {alias} is already the master: repairing replicas");
    within(limit, wr.tmc().refresh_state(&elect.record, tmd::RefreshStateRequest {})).await.map_err(|error| {
        err!("failed to RefreshState on current master {alias}; it must be healthy for a planned reparent: {error}")
    })?;
    let position = within(limit, wr.tmc().master_position(&elect.record, tmd::MasterPositionRequest {})).await;
    Ok(position.map_err(|error| err!("can't get replication position on current master {alias}: {error}"))?.position)
}

/// The usual case: a healthy master gives up and the elect takes over once it has everything.
async fn hand_over(
    wr: &Wrangler,
    lock: &ShardLock,
    master: &TabletInfo,
    elect: &TabletInfo,
    wait_slave_timeout: Duration,
) -> Result<String> {
    let limit = wr.config().remote_operation_timeout;
    let (old, new) = (master.alias_string(), elect.alias_string());
    // Replication has to work before anything is given up, otherwise the elect would never catch up.
    let snapshot = within(limit, wr.tmc().master_position(&master.record, tmd::MasterPositionRequest {}))
        .await
        .map_err(|error| {
            err!("can't get replication position on current master {old}; current master must be healthy to perform planned reparent: {error}")
        })?
        .position;
    let catch_up = tmd::SetMasterRequest {
        parent: Some(master.alias()),
        time_created_ns: 0,
        force_start_slave: true,
        wait_position: snapshot,
    };
    within(wait_slave_timeout, wr.tmc().set_master(&elect.record, catch_up)).await.map_err(|error| {
        err!("replication on master-elect {new} did not catch up in time; replication must be healthy to perform planned reparent: {error}")
    })?;
    catch_up_closely(wr, master, elect, wait_slave_timeout).await?;
    check_lock(lock).await?;

    info!(wr, "demote current master {old}");
    let demoted = within(limit, wr.tmc().demote_master(&master.record, tmd::DemoteMasterRequest {})).await;
    let position = match demoted {
        Ok(response) => response.position,
        Err(error) => {
            undo_demote(wr, master).await;
            bail!("current master {old} failed to be demoted, and was asked to serve again: {error}");
        }
    };
    let promoted = match check_lock(lock).await {
        Ok(()) => {
            info!(wr, "promote slave {new}");
            let request = tmd::PromoteSlaveWhenCaughtUpRequest { position };
            within(wait_slave_timeout, wr.tmc().promote_slave_when_caught_up(&elect.record, request))
                .await
                .map_err(crate::Error::from)
        }
        Err(error) => Err(error),
    };
    match promoted {
        Ok(response) => Ok(response.position),
        Err(error) => {
            undo_demote(wr, master).await;
            bail!("master-elect tablet {new} failed to catch up with replication or be upgraded to master: {error}");
        }
    }
}

/// What the elect still has to apply once the master is demoted is what clients wait for: so it gets closer first, as long
/// as it does.
async fn catch_up_closely(wr: &Wrangler, master: &TabletInfo, elect: &TabletInfo, limit: Duration) -> Result {
    let (old, new) = (master.alias_string(), elect.alias_string());
    let mut last = limit;
    loop {
        let request = tmd::MasterPositionRequest {};
        let position = within(wr.config().remote_operation_timeout, wr.tmc().master_position(&master.record, request))
            .await
            .map_err(|error| err!("can't get replication position on current master {old}: {error}"))?
            .position;
        let begun = Instant::now();
        let wait = wr.tmc().wait_for_position(&elect.record, tmd::WaitForPositionRequest { position });
        within(limit, wait).await.map_err(|error| {
            err!("replication on master-elect {new} did not catch up in time; replication must be healthy to perform planned reparent: {error}")
        })?;
        let took = begun.elapsed();
        if took < CLOSE {
            return Ok(());
        }
        if took >= last {
            warning!(
                wr,
                "{new} applies no faster than {old} writes: clients will wait for about {:.1} s",
                took.as_secs_f64()
            );
            return Ok(());
        }
        last = took;
    }
}

/// An elect that needs no longer than this for what the master has is close enough.
const CLOSE: Duration = Duration::from_millis(300);

/// Lets a demoted master serve again.
async fn undo_demote(wr: &Wrangler, master: &TabletInfo) {
    let undo = wr.tmc().undo_demote_master(&master.record, tmd::UndoDemoteMasterRequest {});
    if let Err(error) = within(wr.config().remote_operation_timeout, undo).await {
        let alias = master.alias_string();
        warning!(wr, "master {alias} could not be told to serve again, run PlannedReparentShard once more: {error}");
    }
}

/// Nobody is clearly the master, as after a failed run: everybody stops taking writes, and the elect
/// takes over if nothing would be lost.
async fn take_over(wr: &Wrangler, tablets: &TabletMap, elect: &TabletInfo) -> Result<String> {
    let limit = wr.config().remote_operation_timeout;
    info!(wr, "no clear current master: demoting every tablet and comparing positions");
    let demoted: Vec<(&String, Result<_, TmError>)> = join_all(tablets.iter().map(|(alias, tablet)| async move {
        (alias, within(limit, wr.tmc().demote_master(&tablet.record, tmd::DemoteMasterRequest {})).await)
    }))
    .await;
    let mut failures = Vec::new();
    let mut positions = Vec::new();
    for (alias, outcome) in demoted {
        match outcome {
            Ok(response) => positions.push((alias, parse_position(&response.position, alias)?)),
            Err(error) => failures.push(format!("failed to demote tablet {alias}: {error}")),
        }
    }
    join_errors(&failures)?;
    let elect_alias = elect.alias_string();
    let Some((_, elect_position)) = positions.iter().find(|(alias, _)| **alias == elect_alias) else {
        bail!("master-elect tablet {elect_alias} is not in the shard");
    };
    for (alias, position) in &positions {
        if !position_at_least(elect_position, position) {
            bail!(
                "tablet {alias} position ({position}) contains transactions not found in master-elect {elect_alias} position ({elect_position})"
            );
        }
    }
    let promoted = within(limit, wr.tmc().promote_slave(&elect.record, tmd::PromoteSlaveRequest {})).await;
    Ok(promoted.map_err(|error| err!("failed to promote {elect_alias} to master: {error}"))?.position)
}
