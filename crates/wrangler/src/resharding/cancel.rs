//! CancelResharding: gives up a split of which nothing has been moved yet.

use topo::topoproto::tablet_alias_string;
use topo::{KeyspaceLock, ShardInfo, Update};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::Tablet;

use super::refresh::{master_of, refresh_master, refresh_tablets};
use super::sides::{self, Sides};
use super::streams;
use crate::Wrangler;
use crate::cutover;
use crate::error::{Result, bail, err};
use crate::locked::with_keyspace_lock;
use crate::logger::info;
use crate::wrangler::within;

/// Ends the streams into the destinations of a split, and makes them ordinary shards again.
pub(crate) async fn cancel_resharding(wr: &Wrangler, keyspace: &str, shard: &str) -> Result {
    with_keyspace_lock!(wr, keyspace, "CancelResharding", |lock| {
        let info = wr.topo().get_keyspace(keyspace).await?;
        if info.record.served_froms.is_empty() {
            horizontal(wr, lock, keyspace, shard).await
        } else {
            vertical(wr, lock, keyspace, shard).await
        }
    })
}

fn migrated(keyspace: &str, shard: &str) -> Result {
    bail!("some served types have migrated for {keyspace}/{shard}, please undo them before canceling")
}

async fn horizontal(wr: &Wrangler, lock: &KeyspaceLock, keyspace: &str, shard: &str) -> Result {
    info!(wr, "cancel horizontal resharding in keyspace {keyspace}");
    let sides = match sides::sides_of(wr, keyspace, shard).await {
        Ok(sides) => sides,
        Err(error) => sides_of_failed_clone(wr, keyspace, shard).await?.ok_or(error)?,
    };
    cutover::refuse_unfinished(wr, keyspace, &cutover::group_name(&sides)).await?;
    for destination in &sides.destinations {
        if destination.record.is_master_serving || !wr.topo().get_shard_serving_types(destination).await?.is_empty() {
            return migrated(keyspace, shard);
        }
    }
    for destination in &sides.destinations {
        let master = master_of(wr, destination).await?;
        forget_clones(wr, &master).await?;
        for source in &destination.record.source_shards {
            streams::delete(wr, &master, source.uid).await?;
        }
        let cleared = clear(wr, lock, destination).await?;
        refresh_tablets(wr, &cleared, None, &[]).await?;
    }
    Ok(())
}

async fn vertical(wr: &Wrangler, lock: &KeyspaceLock, keyspace: &str, shard: &str) -> Result {
    info!(wr, "cancel vertical resharding in keyspace {keyspace}");
    cutover::refuse_unfinished(wr, keyspace, shard).await?;
    let destination = wr.topo().get_shard(keyspace, shard).await?;
    let [source] = destination.record.source_shards.as_slice() else {
        // A clone that failed before its streams is in no record.
        if destination.record.source_shards.is_empty() && destination.has_master() {
            let master = master_of(wr, &destination).await?;
            if has_notes(wr, &master).await? {
                return forget_clones(wr, &master).await;
            }
        }
        bail!("destination shard {keyspace}/{shard} is not a vertical split target")
    };
    if source.tables.is_empty() {
        bail!("destination shard {keyspace}/{shard} is not a vertical split target");
    }
    let origin = wr.topo().get_shard(&source.keyspace, &source.shard).await?;
    if !origin.record.tablet_controls.is_empty() {
        return migrated(keyspace, shard);
    }
    let master = master_of(wr, &destination).await?;
    forget_clones(wr, &master).await?;
    streams::delete(wr, &master, source.uid).await?;
    clear(wr, lock, &destination).await?;
    refresh_master(wr, &master).await
}

/// The sides of a split whose clone failed before its streams, which no record tells of: what serves nothing and has notes of a
/// clone is a destination.
async fn sides_of_failed_clone(wr: &Wrangler, keyspace: &str, shard: &str) -> Result<Option<Sides>> {
    let Some(group) = sides::overlapping(wr, keyspace, shard).await? else { return Ok(None) };
    let serves = |side: &[ShardInfo]| side.iter().any(|shard| shard.record.is_master_serving);
    let (sources, destinations) = match (serves(&group.left), serves(&group.right)) {
        (true, false) => (group.left, group.right),
        (false, true) => (group.right, group.left),
        _ => return Ok(None),
    };
    for destination in destinations.iter().filter(|destination| destination.has_master()) {
        if has_notes(wr, &master_of(wr, destination).await?).await? {
            return Ok(Some(Sides { sources, destinations }));
        }
    }
    Ok(None)
}

/// Whether a clone into this master has begun, and was not forgotten.
async fn has_notes(wr: &Wrangler, master: &Tablet) -> Result<bool> {
    let query = "select 1 from information_schema.tables where table_schema = '_vt' and table_name = 'vtworker_owner'";
    let request = tmd::ExecuteFetchAsDbaRequest { query: query.into(), max_rows: 1, ..Default::default() };
    let answer = within(wr.config().remote_operation_timeout, wr.tmc().execute_fetch_as_dba(master, request)).await?;
    Ok(answer.result.is_some_and(|result| !result.rows.is_empty()))
}

/// Removes what clones into a shard have noted at its master: the next one begins anew, and one that runs still can write
/// no more, because it looks at its notes with every statement.
async fn forget_clones(wr: &Wrangler, master: &Tablet) -> Result {
    let alias = tablet_alias_string(master.alias.as_ref());
    info!(wr, "removing the notes of clones at {alias}");
    let request = tmd::ExecuteFetchAsDbaRequest {
        query: b"drop table if exists _vt.vtworker_owner, _vt.vtworker_job, _vt.vtworker_chunk".to_vec(),
        ..Default::default()
    };
    within(wr.config().remote_operation_timeout, wr.tmc().execute_fetch_as_dba(master, request))
        .await
        .map_err(|error| err!("removing the notes of clones at {alias} failed: {error}"))?;
    Ok(())
}

/// A shard that nothing is replicated into.
async fn clear(wr: &Wrangler, lock: &KeyspaceLock, shard: &ShardInfo) -> Result<ShardInfo> {
    Ok(wr
        .topo()
        .update_shard_fields(&shard.keyspace, &shard.shard_name, |info| {
            lock.check_held(&info.keyspace)?;
            info.record.tablet_controls.clear();
            info.record.source_shards.clear();
            Ok(Update::Write)
        })
        .await?)
}
