//! MigrateServedFrom -reverse … master: the tables go back to the keyspace that they were split from.
//!
//! Possible as long as the stream back, which `-reverse_replication` started at the switch, runs. After
//! it everything is as before the switch, so that it can be made again.

use futures::join;
use topo::{ShardInfo, Update};
use vtproto::cutover as pb;
use vtproto::topodata::TabletType;

use super::journal::JournalFile;
use super::plan::{self, Plan, ShardId};
use super::run::{Context, Records};
use super::served_from::{blacklist, place};
use crate::Wrangler;
use crate::error::{Error, Result, bail, err};
use crate::resharding::streams;
use crate::schema::{Filter, get_schema};

/// The keyspace and shard that the tables of a vertical split's journal were split from.
pub(super) fn split_source(journal: &pb::Journal) -> Option<ShardId> {
    if journal.kind() != pb::Kind::MigrateServedFrom {
        return None;
    }
    let (sources, destinations) = Plan::places_of(journal);
    if journal.reverse { destinations.into_iter().next() } else { sources.into_iter().next() }
}

/// Decides how the tables go back.
pub(super) async fn plan_back(
    wr: &Wrangler,
    before: Option<&JournalFile>,
    keyspace: &str,
    shard: &str,
) -> Result<Plan> {
    let Some((to_keyspace, to_shard)) = before.and_then(|journal| split_source(&journal.record)) else {
        bail!("cannot add master back to {keyspace}")
    };
    let from = place(wr, wr.topo().get_shard(keyspace, shard).await?).await?;
    let to = place(wr, wr.topo().get_shard(&to_keyspace, &to_shard).await?).await?;
    let rows = streams::read(wr, &to.master).await?;
    let back = rows
        .iter()
        .find(|row| row.source.keyspace == keyspace && row.source.shard == shard && !row.source.tables.is_empty());
    let Some(back) = back else {
        bail!("cannot add master back to {keyspace}: it was migrated without -reverse_replication")
    };
    // What the old place does not have would be lost to its clients.
    let names = async |place: &plan::Place, tables: &[String]| -> Result<Vec<String>> {
        let filter = Filter { include_views: true, tables: tables.to_vec(), ..Filter::default() };
        let schema = get_schema(wr, &place.master, &filter)
            .await
            .map_err(|error| err!("GetSchema({}): {error}", place.alias()))?;
        Ok(schema.table_definitions.into_iter().map(|table| table.name).collect())
    };
    let (moved, there) = (names(&from, &back.source.tables).await?, names(&to, &[]).await?);
    let known = |name: &String| moved.contains(name) || there.contains(name);
    let strange: Vec<String> = names(&from, &[]).await?.into_iter().filter(|name| !known(name)).collect();
    if !strange.is_empty() {
        bail!(
            "cannot add master back to {keyspace}: {to_keyspace} does not have {}, created since the migration",
            strange.join(", ")
        );
    }
    Ok(plan::served_back(from, to, back.uid, back.source.tables.clone()))
}

/// Source: the split's destination. Denial: its MASTER has the tables blacklisted until it is, again, a
/// shard that is replicated into, which serves nothing.
pub(super) struct ServedBack;

#[async_trait::async_trait]
impl Records for ServedBack {
    async fn deny(&self, cx: &Context<'_>) -> Result {
        blacklist(cx, &cx.plan.sources[0], false).await
    }

    async fn allow(&self, cx: &Context<'_>) -> Result {
        blacklist(cx, &cx.plan.sources[0], true).await
    }

    async fn open(&self, cx: &Context<'_>, back: &[pb::Stream]) -> Result {
        let (source, destination, topo) = (&cx.plan.sources[0], &cx.plan.destinations[0], cx.wr.topo());
        let lock = cx.lock(source.keyspace())?;
        let keyspace_record = async {
            let mut info = topo.get_keyspace(&cx.plan.keyspace).await?;
            if info.get_served_from(TabletType::Master).is_none() {
                info.restore_master_served_from(destination.keyspace());
                topo.update_keyspace(cx.lock(&cx.plan.keyspace)?, &mut info).await?;
            }
            Ok::<_, Error>(())
        };
        let source_record = async {
            let fed_by = cx.fed_back(source, back)?;
            let turned = |shard: &mut ShardInfo| {
                shard.record.source_shards.clear();
                for stream in &fed_by {
                    shard.add_source_shard(lock, stream.clone())?;
                }
                // One denial takes the place of the other in one write.
                shard.update_source_blacklisted_tables(lock, TabletType::Master, &[], true, &cx.plan.tables)?;
                Ok(Update::Write)
            };
            topo.update_shard_fields(source.keyspace(), source.name(), turned).await?;
            Ok(())
        };
        let (redirected, turned, allowed) = join!(keyspace_record, source_record, blacklist(cx, destination, true));
        redirected.and(turned).and(allowed)
    }

    async fn route(&self, cx: &Context<'_>) -> Result {
        Ok(cx.wr.topo().rebuild_keyspace_locked(cx.lock(&cx.plan.keyspace)?, &[]).await?)
    }

    async fn settle(&self, cx: &Context<'_>, back: &[pb::Stream]) -> Result {
        cx.start_back(back).await
    }
}
