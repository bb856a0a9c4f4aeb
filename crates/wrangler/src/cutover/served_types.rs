//! MigrateServedTypes … master: the rows of some shards are served by the shards that replace them.

use std::collections::BTreeSet;

use futures::future::try_join_all;
use futures::join;
use topo::{KeyspaceLock, ShardInfo, Update, is_query_service_disabled};
use vtproto::cutover as pb;
use vtproto::topodata::{TabletType, shard::SourceShard};

use super::Options;
use super::journal::JournalFile;
use super::plan::{self, Place, Plan, group_name};
use super::run::{Context, Records, Run, each};
use super::served_from::{new_id, place, with_locks};
use crate::Wrangler;
use crate::error::{Error, Result, bail};
use crate::logger::info;
use crate::resharding::sides::{Sides, overlapping, sides_of};
use crate::resharding::{MigrateServedTypes, refresh_masters};

/// Runs a MigrateServedTypes of MASTER to its end even if the client goes away.
pub(crate) async fn migrate_served_types_master(wr: &Wrangler, request: MigrateServedTypes) -> Result {
    let wr_inner = wr.clone();
    wr.to_the_end(Box::pin(async move {
        let (wr, keyspaces) = (&wr_inner, [request.keyspace.clone()]);
        with_locks!(wr, &keyspaces, "MigrateServedTypes(MASTER)", |locks| { locked(wr, locks, &request).await })
    }))
    .await
}

async fn locked(wr: &Wrangler, locks: &[KeyspaceLock], request: &MigrateServedTypes) -> Result {
    let (keyspace, shard, options) = (&request.keyspace, &request.shard, &request.master);
    let Some(group) = overlapping(wr, keyspace, shard).await? else {
        bail!("shard {shard} is not involved in any overlapping shards")
    };
    // Told by the names alone: in the middle of a cutover the records do not say who the source is.
    let mut sides = Sides { sources: group.left, destinations: group.right };
    let name = group_name(&sides);
    let before = match JournalFile::read(wr, keyspace, &name).await? {
        Some(journal) if !journal.is_done() => {
            info!(wr, "going on with cutover {}", journal.record.id);
            let is_source = |shard: &ShardInfo| journal.record.sources.iter().any(|s| s.shard == shard.shard_name);
            if !sides.sources.iter().any(is_source) {
                std::mem::swap(&mut sides.sources, &mut sides.destinations);
            }
            let (sources, destinations) = (places(wr, sides.sources).await?, places(wr, sides.destinations).await?);
            let back = options.reverse_replication;
            let plan = Plan::from_journal(&journal.record, &name, sources, destinations, back)?;
            return run(Context { wr, locks, plan: &plan }, journal, options).await;
        }
        before => before,
    };
    if options.cancel {
        bail!("no cutover of MASTER is under way for {keyspace}/{shard}");
    }
    let sides = sides_of(wr, keyspace, shard).await?;
    if sides.sources.iter().any(ShardInfo::is_master_frozen) {
        return after_the_flip(wr, locks, sides, before, options).await;
    }
    everything_else_first(wr, &sides).await?;
    let sources = places(wr, sides.sources).await?;
    let destinations = places(wr, sides.destinations).await?;
    let plan = plan::served_types(sources, destinations, options.reverse_replication)?;
    // Both sides have to answer before anything is written.
    refresh_masters(wr, plan.sources.iter().chain(&plan.destinations).map(|place| &place.master)).await?;
    let journal = JournalFile::begin(wr, before, &plan.name, plan.journal(new_id())).await?;
    run(Context { wr, locks, plan: &plan }, journal, options).await
}

async fn run(cx: Context<'_>, journal: JournalFile, options: &Options) -> Result {
    let run = Run::new(cx, &ServedTypes, options, journal);
    if options.cancel { run.cancel().await } else { run.finish().await }
}

async fn places(wr: &Wrangler, shards: Vec<ShardInfo>) -> Result<Vec<Place>> {
    let mut found = Vec::with_capacity(shards.len());
    for shard in shards {
        found.push(place(wr, shard).await?);
    }
    Ok(found)
}

/// MASTER is the last type to leave.
async fn everything_else_first(wr: &Wrangler, sides: &Sides) -> Result {
    let mut left = BTreeSet::new();
    for source in &sides.sources {
        let types = wr.topo().get_shard_serving_types(source).await?;
        left.extend(types.into_iter().filter(|served| *served != TabletType::Master));
    }
    if left.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = left.iter().map(TabletType::as_str_name).collect();
    bail!(
        "cannot migrate MASTER away from {}/{} until everything else is migrated. Make sure that the following types are migrated first: {}",
        sides.sources[0].keyspace,
        sides.sources[0].shard_name,
        names.join(", ")
    )
}

/// The sources are frozen and no journal of ours is open: the cutover is over, or a vtctld of Vitess died
/// after its point of no return. Either way what is left can be done again.
async fn after_the_flip(
    wr: &Wrangler,
    locks: &[KeyspaceLock],
    sides: Sides,
    before: Option<JournalFile>,
    options: &Options,
) -> Result {
    let over = sides.sources.iter().all(|shard| !shard.record.is_master_serving)
        && sides
            .destinations
            .iter()
            .all(|shard| shard.record.is_master_serving && shard.record.source_shards.is_empty());
    let back: Vec<pb::Stream> = sides.sources.iter().flat_map(streams_back).collect();
    let sources = places(wr, sides.sources).await?;
    let destinations = places(wr, sides.destinations).await?;
    let plan = plan::served_types_done(sources, destinations, options.reverse_replication);
    let cx = Context { wr, locks, plan: &plan };
    if over {
        info!(wr, "MASTER was migrated from {} before", plan.title());
        return ServedTypes.settle(&cx, &back).await;
    }
    let mut record = plan.journal(new_id());
    record.streams.extend(back);
    record.set_phase(pb::Phase::Flipped);
    let journal = JournalFile::begin(wr, before, &plan.name, record).await?;
    Run::new(cx, &ServedTypes, options, journal).finish().await
}

/// The streams back that a source's record names.
fn streams_back(source: &ShardInfo) -> Vec<pb::Stream> {
    let stream = |fed_by: &SourceShard| pb::Stream {
        keyspace: source.keyspace.clone(),
        shard: source.shard_name.clone(),
        uid: fed_by.uid,
        source_keyspace: fed_by.keyspace.clone(),
        source_shard: fed_by.shard.clone(),
        reverse: true,
        position: String::new(),
    };
    source.record.source_shards.iter().map(stream).collect()
}

/// Denial: the sources' query service is disabled in SrvKeyspace until they are shards that are
/// replicated into, which serve nothing.
struct ServedTypes;

impl ServedTypes {
    async fn disable(&self, cx: &Context<'_>, disable: bool) -> Result {
        let sources = current(cx, &cx.plan.sources).await?;
        let lock = cx.lock(&cx.plan.keyspace)?;
        Ok(cx.wr.topo().update_disable_query_service(lock, &sources, TabletType::Master, &[], disable).await?)
    }
}

/// Whether some shards' MASTER tablets have to refuse queries in any cell.
async fn disabled(cx: &Context<'_>, places: &[Place]) -> Result<bool> {
    let all = cx.wr.topo().get_srv_keyspace_all_cells(&cx.plan.keyspace).await?;
    Ok(all.values().any(|srv_keyspace| {
        places.iter().any(|place| {
            is_query_service_disabled(srv_keyspace, TabletType::Master, place.shard.record.key_range.as_ref())
        })
    }))
}

/// The present records of shards.
async fn current(cx: &Context<'_>, places: &[Place]) -> Result<Vec<ShardInfo>> {
    try_join_all(
        places
            .iter()
            .map(|place| async move { Ok::<_, Error>(cx.wr.topo().get_shard(place.keyspace(), place.name()).await?) }),
    )
    .await
}

#[async_trait::async_trait]
impl Records for ServedTypes {
    async fn deny(&self, cx: &Context<'_>) -> Result {
        self.disable(cx, true).await
    }

    async fn allow(&self, cx: &Context<'_>) -> Result {
        if disabled(cx, &cx.plan.sources).await? { self.disable(cx, false).await } else { Ok(()) }
    }

    async fn open(&self, cx: &Context<'_>, back: &[pb::Stream]) -> Result {
        let (topo, lock) = (cx.wr.topo(), cx.lock(&cx.plan.keyspace)?);
        let serve = each(cx.plan.destinations.iter().map(|place| {
            let serve = |shard: &mut ShardInfo| {
                lock.check_held(place.keyspace())?;
                shard.record.source_shards.clear();
                shard.record.is_master_serving = true;
                Ok(Update::Write)
            };
            async move { topo.update_shard_fields(place.keyspace(), place.name(), serve).await.map_err(Error::from) }
        }));
        let feed = each(cx.plan.sources.iter().map(|place| async move {
            let fed_by = cx.fed_back(place, back)?;
            let feed = |shard: &mut ShardInfo| {
                shard.record.source_shards.clear();
                for stream in &fed_by {
                    shard.add_source_shard(lock, stream.clone())?;
                }
                shard.set_master_frozen(lock, true)?;
                Ok(Update::Write)
            };
            topo.update_shard_fields(place.keyspace(), place.name(), feed).await?;
            Ok::<_, Error>(())
        }));
        // Left from a cutover in the other direction.
        let allow = async {
            if disabled(cx, &cx.plan.destinations).await? {
                let destinations = current(cx, &cx.plan.destinations).await?;
                topo.update_disable_query_service(lock, &destinations, TabletType::Master, &[], false).await?;
            }
            Ok(())
        };
        let (served, fed, allowed) = join!(serve, feed, allow);
        served.and(fed)?;
        allowed
    }

    async fn route(&self, cx: &Context<'_>) -> Result {
        let (topo, lock) = (cx.wr.topo(), cx.lock(&cx.plan.keyspace)?);
        // Only names and ranges count, which do not change.
        let shards = |places: &[Place]| places.iter().map(|place| place.shard.clone()).collect::<Vec<_>>();
        let (to_add, to_remove) = (shards(&cx.plan.destinations), shards(&cx.plan.sources));
        topo.migrate_served_type(lock, &to_add, &to_remove, TabletType::Master, &[]).await?;
        each(cx.plan.sources.iter().map(|place| {
            let stop = |shard: &mut ShardInfo| {
                lock.check_held(place.keyspace())?;
                shard.record.is_master_serving = false;
                Ok(Update::Write)
            };
            async move { topo.update_shard_fields(place.keyspace(), place.name(), stop).await.map_err(Error::from) }
        }))
        .await
        .map(drop)
    }

    async fn settle(&self, cx: &Context<'_>, back: &[pb::Stream]) -> Result {
        cx.start_back(back).await?;
        if !cx.plan.return_stream {
            return Ok(());
        }
        let lock = cx.lock(&cx.plan.keyspace)?;
        for place in &cx.plan.sources {
            cx.wr
                .topo()
                .update_shard_fields(place.keyspace(), place.name(), |shard| {
                    shard.set_master_frozen(lock, false)?;
                    Ok(Update::Write)
                })
                .await?;
        }
        Ok(())
    }
}
