//! MigrateServedFrom: the tables of a vertical split are served by their new keyspace, type by type.
//!
//! The redirection of a type lies in the destination's Keyspace record, whence every SrvKeyspace has it;
//! the tablets that served the tables are told by the source shard's tablet controls. MASTER, in both
//! directions, is `crate::cutover`.

use topo::{KeyspaceInfo, KeyspaceLock, ShardInfo, Update};
use vtproto::topodata::{TabletType, shard::SourceShard};

use super::refresh::refresh_tablets;
use super::wait_for_gates;
use crate::Wrangler;
use crate::cutover;
use crate::error::{Result, bail};
use crate::locked::finish;
use crate::logger::info;

/// One command.
pub(crate) struct MigrateServedFrom {
    /// The destination.
    pub keyspace: String,
    pub shard: String,
    pub served_type: TabletType,
    /// None: all.
    pub cells: Vec<String>,
    pub reverse: bool,
    /// Bounds of the steps of a MASTER migration, and what it leaves behind.
    pub master: cutover::Options,
}

/// What a vertical split is made of.
pub(crate) struct VerticalSplit {
    pub keyspace: KeyspaceInfo,
    pub destination: ShardInfo,
    pub source: SourceShard,
}

/// Runs a MigrateServedFrom.
pub(crate) async fn migrate_served_from(wr: &Wrangler, request: MigrateServedFrom) -> Result {
    if request.served_type == TabletType::Master {
        return cutover::migrate_served_from_master(wr, request).await;
    }
    request.master.refuse_cancel(request.served_type)?;
    let split = read_split(wr, &request.keyspace, &request.shard).await?;
    check(&split, &request)?;
    let action = format!("MigrateServedFrom({})", request.served_type.as_str_name());
    // In this order everywhere, so that two commands cannot hold one lock each.
    let source_lock = wr.topo().lock_keyspace(&split.source.keyspace, &action).await?;
    let outcome = async {
        let lock = wr.topo().lock_keyspace(&request.keyspace, &action).await?;
        let moved = async {
            cutover::refuse_unfinished(wr, &request.keyspace, &request.shard).await?;
            // Read again under the locks.
            let split = read_split(wr, &request.keyspace, &request.shard).await?;
            migrate_replicas(wr, &source_lock, &lock, split, &request).await
        }
        .await;
        finish(moved, lock.unlock().await)
    }
    .await;
    finish(outcome, source_lock.unlock().await)
}

/// The split that a shard is the destination of.
pub(crate) async fn read_split(wr: &Wrangler, keyspace: &str, shard: &str) -> Result<VerticalSplit> {
    let info = wr.topo().get_keyspace(keyspace).await?;
    if info.record.served_froms.is_empty() {
        bail!("destination keyspace {keyspace} is not a vertical split target");
    }
    let destination = wr.topo().get_shard(keyspace, shard).await?;
    let [source] = destination.record.source_shards.as_slice() else {
        bail!("destination shard {keyspace}/{shard} is not a vertical split target")
    };
    if source.tables.is_empty() {
        bail!("destination shard {keyspace}/{shard} is not a vertical split target");
    }
    Ok(VerticalSplit { keyspace: info, source: source.clone(), destination })
}

fn check(split: &VerticalSplit, request: &MigrateServedFrom) -> Result {
    Ok(split.keyspace.check_served_from_migration(
        request.served_type,
        &request.cells,
        &split.source.keyspace,
        !request.reverse,
    )?)
}

async fn migrate_replicas(
    wr: &Wrangler,
    source_lock: &KeyspaceLock,
    lock: &KeyspaceLock,
    mut split: VerticalSplit,
    request: &MigrateServedFrom,
) -> Result {
    let (served_type, cells) = (request.served_type, request.cells.as_slice());
    let all_cells = wr.topo().get_known_cells().await?;
    split.keyspace.update_served_from_map(served_type, cells, &split.source.keyspace, !request.reverse, &all_cells)?;
    wr.topo().update_keyspace(lock, &mut split.keyspace).await?;
    let source = wr
        .topo()
        .update_shard_fields(&split.source.keyspace, &split.source.shard, |shard| {
            shard.update_source_blacklisted_tables(
                source_lock,
                served_type,
                cells,
                request.reverse,
                &split.source.tables,
            )?;
            Ok(Update::Write)
        })
        .await?;
    // Queries go only where they are answered: the old place refuses last when they leave it, and
    // answers again first when they come back.
    if request.reverse {
        info!(wr, "refreshing the tablets that serve the tables again");
        refresh_tablets(wr, &source, Some(served_type), cells).await?;
    }
    wr.topo().rebuild_keyspace_locked(lock, cells).await?;
    wait_for_gates(wr, &request.keyspace, cells).await;
    if !request.reverse {
        info!(wr, "refreshing the tablets that served the tables");
        refresh_tablets(wr, &source, Some(served_type), cells).await?;
    }
    Ok(())
}
