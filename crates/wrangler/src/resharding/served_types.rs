//! MigrateServedTypes: the rows of a horizontal split are served by their new shards, type by type.
//!
//! Which shards serve a type is in the partitions of SrvKeyspace, and so is which tablets have to
//! refuse. MASTER is `crate::cutover`.

use topo::{KeyspaceLock, ShardInfo, topoproto};
use vtproto::topodata::TabletType;

use super::refresh::refresh_tablets;
use super::sides::{Sides, overlapping, sides_of};
use super::streams::{self, Stream};
use super::wait_for_gates;
use crate::Wrangler;
use crate::cutover;
use crate::error::{Result, bail};
use crate::locked::with_keyspace_lock;
use crate::logger::info;

/// One command.
pub(crate) struct MigrateServedTypes {
    pub keyspace: String,
    /// Any shard of the split.
    pub shard: String,
    pub served_type: TabletType,
    /// None: all.
    pub cells: Vec<String>,
    pub reverse: bool,
    /// Leave the tablets that stop serving as they are.
    pub skip_refresh_state: bool,
    /// Bounds of the steps of a MASTER migration, and what it leaves behind.
    pub master: cutover::Options,
}

/// Runs a MigrateServedTypes.
pub(crate) async fn migrate_served_types(wr: &Wrangler, request: MigrateServedTypes) -> Result {
    let (keyspace, shard) = (&request.keyspace, &request.shard);
    if request.served_type == TabletType::Master {
        if request.reverse {
            bail!("cannot migrate master back to {keyspace}/{shard}");
        }
        if request.skip_refresh_state {
            bail!("cannot skip refresh state for master migration on {keyspace}/{shard}");
        }
        if !request.cells.is_empty() {
            bail!("cannot specify cells for master migration on {keyspace}/{shard}");
        }
        let (keyspace, shard, back) = (keyspace.clone(), shard.clone(), request.master.reverse_replication);
        cutover::migrate_served_types_master(wr, request).await?;
        return if back { wake_replicas(wr, &keyspace, &shard).await } else { Ok(()) };
    }
    request.master.refuse_cancel(request.served_type)?;
    let action = format!("MigrateServedTypes({})", request.served_type.as_str_name());
    with_keyspace_lock!(wr, keyspace, &action, |lock| {
        let sides = sides_of(wr, keyspace, shard).await?;
        cutover::refuse_unfinished(wr, keyspace, &cutover::group_name(&sides)).await?;
        if !request.reverse {
            check_fed(wr, &sides.destinations).await?;
        }
        migrate_replicas(wr, lock, sides, &request).await
    })
}

/// A shard whose streams stand still falls behind for good: reads must not move there. After MASTER has moved, the shards
/// that it has left are such, unless a stream back was started.
async fn check_fed(wr: &Wrangler, destinations: &[ShardInfo]) -> Result {
    for shard in destinations.iter().filter(|shard| !shard.record.source_shards.is_empty()) {
        let Some(master) = &shard.record.master_alias else { continue };
        let tablet = wr.topo().get_tablet(master).await?.record;
        let alias = topoproto::tablet_alias_string(Some(master));
        let is_ours = |stream: &Stream| shard.record.source_shards.iter().any(|source| source.uid == stream.uid);
        for stream in streams::read(wr, &tablet).await?.iter().filter(|stream| is_ours(stream)) {
            stream.check_runs(&alias)?;
        }
    }
    Ok(())
}

async fn migrate_replicas(wr: &Wrangler, lock: &KeyspaceLock, sides: Sides, request: &MigrateServedTypes) -> Result {
    let (served_type, cells) = (request.served_type, request.cells.as_slice());
    let (from, to) = match request.reverse {
        false => (sides.sources, sides.destinations),
        true => (sides.destinations, sides.sources),
    };
    let topo = wr.topo();
    topo.update_disable_query_service(lock, &from, served_type, cells, true).await?;
    topo.update_disable_query_service(lock, &to, served_type, cells, false).await?;
    for shard in &to {
        refresh_tablets(wr, shard, Some(served_type), cells).await?;
    }
    topo.migrate_served_type(lock, &to, &from, served_type, cells).await?;
    wait_for_gates(wr, lock.keyspace(), cells).await;
    if request.skip_refresh_state {
        return Ok(());
    }
    let pause = match served_type {
        TabletType::Rdonly => wr.config().drain_pause_rdonly,
        _ => wr.config().drain_pause_replica,
    };
    info!(
        wr,
        "WaitForDrain: Sleeping for {:.0} seconds before shutting down query service on old tablets...",
        pause.as_secs_f64()
    );
    tokio::time::sleep(pause).await;
    info!(wr, "WaitForDrain: Sleeping finished. Shutting down queryservice on old tablets now.");
    for shard in &from {
        refresh_tablets(wr, shard, Some(served_type), cells).await?;
    }
    Ok(())
}

/// Lets the replicas of shards that have given up MASTER, and are kept up to date, answer again: the controls by
/// which they refused went with MASTER. No vtgate asks them; diffs and the way back need them.
async fn wake_replicas(wr: &Wrangler, keyspace: &str, shard: &str) -> Result {
    let Some(group) = overlapping(wr, keyspace, shard).await? else { return Ok(()) };
    for shard in group.left.iter().chain(&group.right).filter(|shard| !shard.record.is_master_serving) {
        for served_type in [TabletType::Replica, TabletType::Rdonly] {
            refresh_tablets(wr, shard, Some(served_type), &[]).await?;
        }
    }
    Ok(())
}
