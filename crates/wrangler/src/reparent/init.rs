//! InitShardMaster: the first master of a shard. Whatever the tablets replicated before is forgotten.

use std::time::Duration;

use futures::future::join_all;
use topo::{ShardInfo, TabletMap, Update};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{TabletAlias, TabletType};

use super::{NewMaster, check_lock, elect_of, now_ns, run_journal_and_replicas, wait_for_shard_sync};
use crate::Wrangler;
use crate::error::{Result, bail, err, join_errors};
use crate::locked::with_shard_lock;
use crate::logger::{info, warning};
use crate::wrangler::within;

/// Makes `elect` the master of a shard and every other tablet its replica.
///
/// - `force`: go on although the shard seems to have another master. All data that only that one has is lost.
/// - `wait_slave_timeout`: bound of the wait for replicas to follow.
pub(crate) async fn init_shard_master(
    wr: &Wrangler,
    keyspace: String,
    shard: String,
    elect: TabletAlias,
    force: bool,
    wait_slave_timeout: Duration,
) -> Result {
    wr.to_the_end(Box::pin(run(wr.clone(), keyspace, shard, elect, force, wait_slave_timeout))).await
}

async fn run(
    wr: Wrangler,
    keyspace: String,
    shard: String,
    elect: TabletAlias,
    force: bool,
    wait_slave_timeout: Duration,
) -> Result {
    let action = format!("InitShardMaster({})", topo::topoproto::tablet_alias_string(Some(&elect)));
    with_shard_lock!(wr, &keyspace, &shard, &action, |lock| {
        let info = wr.topo().get_shard(&keyspace, &shard).await?;
        let tablets = wr.topo().get_tablet_map_for_shard(&keyspace, &shard).await?.complete()?;
        for doubt in doubts(&info, &tablets, &elect)? {
            if !force {
                bail!("{doubt}, use -force to proceed anyway");
            }
            warning!(wr, "{doubt}, proceeding anyway as -force was used");
        }
        execute(&wr, lock, &info, &tablets, &elect, wait_slave_timeout).await
    })
}

/// What speaks against making `elect` the master without looking further.
fn doubts(shard: &ShardInfo, tablets: &TabletMap, elect: &TabletAlias) -> Result<Vec<String>> {
    let alias = topo::topoproto::tablet_alias_string(Some(elect));
    elect_of(tablets, &alias)?;
    let masters: Vec<&String> =
        tablets.iter().filter(|(_, t)| t.record.r#type() == TabletType::Master).map(|(alias, _)| alias).collect();
    let mut doubts = Vec::new();
    if shard.master_alias() != Some(elect) {
        doubts.push(format!("master-elect tablet {alias} is not the shard master"));
    }
    if !masters.contains(&&alias) {
        doubts.push(format!("master-elect tablet {alias} is not a master in the shard"));
    }
    if masters.iter().any(|master| **master != alias) {
        doubts.push(format!("master-elect tablet {alias} is not the only master in the shard"));
    }
    Ok(doubts)
}

async fn execute(
    wr: &Wrangler,
    lock: &topo::ShardLock,
    shard: &ShardInfo,
    tablets: &TabletMap,
    elect_alias: &TabletAlias,
    wait_slave_timeout: Duration,
) -> Result {
    let limit = wr.config().remote_operation_timeout;
    let elect = elect_of(tablets, &topo::topoproto::tablet_alias_string(Some(elect_alias)))?;

    // The point of no return for what the tablets replicated: all of them or none go on.
    let failures: Vec<String> = join_all(tablets.iter().map(|(alias, tablet)| async move {
        info!(wr, "resetting replication on tablet {alias}");
        let reset = wr.tmc().reset_replication(&tablet.record, tmd::ResetReplicationRequest {});
        within(limit, reset)
            .await
            .err()
            .map(|error| format!("tablet {alias} ResetReplication failed (either fix it, or Scrap it): {error}"))
    }))
    .await
    .into_iter()
    .flatten()
    .collect();
    join_errors(&failures)?;
    check_lock(lock).await?;

    info!(wr, "initializing master on {}", elect.alias_string());
    let position = within(limit, wr.tmc().init_master(&elect.record, tmd::InitMasterRequest {})).await?.position;
    check_lock(lock).await?;

    let master =
        NewMaster { elect, action: "InitShardMaster", position, time_created_ns: now_ns(), wait_slave_timeout };
    let replicas = tablets.iter().filter(|(alias, _)| **alias != elect.alias_string()).map(|(alias, tablet)| {
        let request = tmd::InitSlaveRequest {
            parent: Some(elect_alias.clone()),
            replication_position: master.position.clone(),
            time_created_ns: master.time_created_ns,
        };
        async move {
            info!(wr, "initializing slave {alias}");
            match wr.tmc().init_slave(&tablet.record, request).await {
                Ok(_) => None,
                Err(error) => Some(format!("tablet {alias} InitSlave failed: {error}")),
            }
        }
    });
    // The journal row is on a replica by now if semi-sync is on: the record may name the new master.
    let record_master = async {
        if shard.master_alias() == Some(elect_alias) {
            return Ok(());
        }
        wr.topo()
            .update_shard_fields(lock.keyspace(), lock.shard(), |info| {
                if info.master_alias() == Some(elect_alias) {
                    return Ok(Update::NoUpdateNeeded);
                }
                info.record.master_alias = Some(elect_alias.clone());
                Ok(Update::Write)
            })
            .await
            .map(drop)
            .map_err(|error| err!("failed to update shard master record: {error}"))
    };
    run_journal_and_replicas(wr, master.wait_slave_timeout, master.write_journal(wr), replicas, record_master).await?;

    // Replicas get the database by replication. Whoever starts a shard wants it served, data or not.
    let create = format!(
        "CREATE DATABASE IF NOT EXISTS `{}`",
        topo::topoproto::tablet_db_name(&elect.record).replace('`', "``")
    );
    let request = tmd::ExecuteFetchAsDbaRequest {
        query: create.into_bytes(),
        db_name: String::new(),
        max_rows: 1,
        disable_binlogs: false,
        reload_schema: true,
    };
    within(limit, wr.tmc().execute_fetch_as_dba(&elect.record, request))
        .await
        .map_err(|error| err!("failed to create database: {error}"))?;
    wait_for_shard_sync(wr, lock, elect_alias, wait_slave_timeout).await;
    Ok(())
}
