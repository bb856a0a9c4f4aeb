//! MigrateServedFrom … master: the tables leave the keyspace that they were split from.

use futures::join;
use topo::{KeyspaceLock, ShardInfo, Update, topoproto::tablet_alias_string};
use vtproto::cutover as pb;
use vtproto::topodata::{TabletType, shard};

use super::Options;
use super::journal::JournalFile;
use super::plan::{self, Place, Plan, ShardId};
use super::run::{Context, Records, Run};
use super::served_back;
use crate::Wrangler;
use crate::error::{Error, Result, bail, err};
use crate::logger::info;
use crate::resharding::{MigrateServedFrom, read_split};

/// Takes locks in the order given, runs the block, gives them back. A macro for the reason of
/// [`crate::locked`].
macro_rules! with_locks {
    ($wr:expr, $keyspaces:expr, $action:expr, |$locks:ident| $body:block) => {{
        let mut guards = Vec::new();
        for keyspace in $keyspaces {
            guards.push($wr.topo().lock_keyspace(keyspace, $action).await?);
        }
        let $locks = guards.as_slice();
        let outcome: $crate::error::Result = async { $body }.await;
        for guard in guards.into_iter().rev() {
            // The journal says how far the cutover is: one that is done does not fail by a lease that has ended.
            if let Err(error) = guard.unlock().await {
                $crate::logger::warning!($wr, "the lock for {} cannot be given back: {error}", $action);
            }
        }
        outcome
    }};
}
pub(super) use with_locks;

/// Runs a MigrateServedFrom of MASTER, in either direction, to its end even if the client goes away.
pub(crate) async fn migrate_served_from_master(wr: &Wrangler, request: MigrateServedFrom) -> Result {
    let wr_inner = wr.clone();
    wr.to_the_end(Box::pin(async move { locked(&wr_inner, request).await })).await
}

async fn locked(wr: &Wrangler, request: MigrateServedFrom) -> Result {
    let (keyspace, shard) = (&request.keyspace, &request.shard);
    let source_keyspace = check(wr, &request).await?;
    let mut keyspaces = vec![source_keyspace];
    if !keyspaces.contains(keyspace) {
        keyspaces.push(keyspace.clone());
    }
    with_locks!(wr, &keyspaces, "MigrateServedFrom(MASTER)", |locks| {
        let journal = JournalFile::read(wr, keyspace, shard).await?;
        drive(wr, locks, journal, &request).await
    })
}

/// What v5.0.1 refuses before it takes a lock; the keyspace that the tables come from.
async fn check(wr: &Wrangler, request: &MigrateServedFrom) -> Result<String> {
    let (keyspace, shard) = (&request.keyspace, &request.shard);
    let info = wr.topo().get_keyspace(keyspace).await?;
    if let Some(journal) = JournalFile::read(wr, keyspace, shard).await?
        && (!journal.is_done() || (request.reverse && info.get_served_from(TabletType::Master).is_none()))
        && let Some(other) = served_back::split_source(&journal.record)
    {
        return Ok(other.0);
    }
    if request.reverse {
        bail!("cannot add master back to {keyspace}");
    }
    let split = read_split(wr, keyspace, shard).await?;
    info.check_served_from_migration(TabletType::Master, &request.cells, &split.source.keyspace, true)?;
    Ok(split.source.keyspace)
}

async fn drive(
    wr: &Wrangler,
    locks: &[KeyspaceLock],
    journal: Option<JournalFile>,
    request: &MigrateServedFrom,
) -> Result {
    let (keyspace, shard) = (&request.keyspace, &request.shard);
    match journal {
        Some(journal) if !journal.is_done() => {
            if journal.record.reverse != request.reverse {
                bail!(
                    "a cutover of MASTER in the other direction is under way for {keyspace}/{shard}: run it again{} to finish it, or with -cancel",
                    if journal.record.reverse { " with -reverse" } else { " without -reverse" }
                );
            }
            info!(wr, "going on with cutover {}", journal.record.id);
            let (sources, destinations) = Plan::places_of(&journal.record);
            let (sources, destinations) = (read(wr, sources).await?, read(wr, destinations).await?);
            let back = request.reverse || request.master.reverse_replication;
            let plan = Plan::from_journal(&journal.record, shard, sources, destinations, back)?;
            run(wr, locks, &plan, journal, &request.master).await
        }
        _ if request.master.cancel => bail!("no cutover of MASTER is under way for {keyspace}/{shard}"),
        before => {
            let plan = if request.reverse {
                served_back::plan_back(wr, before.as_ref(), keyspace, shard).await?
            } else {
                let split = read_split(wr, keyspace, shard).await?;
                let source = wr.topo().get_shard(&split.source.keyspace, &split.source.shard).await?;
                let (source, destination) = (place(wr, source).await?, place(wr, split.destination).await?);
                plan::served_from(&split.keyspace, source, destination, request.master.reverse_replication)?
            };
            let journal = JournalFile::begin(wr, before, &plan.name, plan.journal(new_id())).await?;
            run(wr, locks, &plan, journal, &request.master).await
        }
    }
}

async fn run(wr: &Wrangler, locks: &[KeyspaceLock], plan: &Plan, journal: JournalFile, options: &Options) -> Result {
    let records: &dyn Records = if plan.back { &served_back::ServedBack } else { &ServedFrom };
    let run = Run::new(Context { wr, locks, plan }, records, options, journal);
    if options.cancel { run.cancel().await } else { run.finish().await }
}

/// Shards by name, with the masters of now.
async fn read(wr: &Wrangler, places: Vec<ShardId>) -> Result<Vec<Place>> {
    let mut found = Vec::with_capacity(places.len());
    for (keyspace, shard) in places {
        found.push(place(wr, wr.topo().get_shard(&keyspace, &shard).await?).await?);
    }
    Ok(found)
}

/// A shard with its master.
pub(super) async fn place(wr: &Wrangler, shard: ShardInfo) -> Result<Place> {
    let alias = shard
        .master_alias()
        .ok_or_else(|| err!("no master in shard record {}/{}", shard.keyspace, shard.shard_name))?;
    let master = wr
        .topo()
        .get_tablet(alias)
        .await
        .map_err(|error| err!("cannot read the master {}: {error}", tablet_alias_string(Some(alias))))?
        .record;
    Ok(Place { shard, master })
}

/// A name that no other cutover has.
pub(super) fn new_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// Source: the keyspace that has the tables now. Denial: its MASTER tablets have the tables blacklisted.
pub(super) struct ServedFrom;

#[async_trait::async_trait]
impl Records for ServedFrom {
    async fn deny(&self, cx: &Context<'_>) -> Result {
        blacklist(cx, &cx.plan.sources[0], false).await
    }

    async fn allow(&self, cx: &Context<'_>) -> Result {
        blacklist(cx, &cx.plan.sources[0], true).await
    }

    async fn open(&self, cx: &Context<'_>, _back: &[pb::Stream]) -> Result {
        let destination = &cx.plan.destinations[0];
        let (keyspace, topo) = (destination.keyspace(), cx.wr.topo());
        let lock = cx.lock(keyspace)?;
        let keyspace_record = async {
            let mut info = topo.get_keyspace(keyspace).await?;
            if info.get_served_from(TabletType::Master).is_some() {
                let cells = topo.get_known_cells().await?;
                info.update_served_from_map(TabletType::Master, &[], cx.plan.sources[0].keyspace(), true, &cells)?;
                topo.update_keyspace(lock, &mut info).await?;
            }
            Ok::<_, Error>(())
        };
        let shard_record = async {
            let cleared = |shard: &mut ShardInfo| {
                lock.check_held(keyspace)?;
                shard.record.source_shards.clear();
                Ok(Update::Write)
            };
            topo.update_shard_fields(keyspace, destination.name(), cleared).await?;
            Ok(())
        };
        let (redirected, cleared) = join!(keyspace_record, shard_record);
        redirected.and(cleared)
    }

    async fn route(&self, cx: &Context<'_>) -> Result {
        Ok(cx.wr.topo().rebuild_keyspace_locked(cx.lock(&cx.plan.keyspace)?, &[]).await?)
    }

    async fn settle(&self, cx: &Context<'_>, back: &[pb::Stream]) -> Result {
        cx.start_back(back).await
    }
}

/// Puts the moving tables of a shard's MASTER on the blacklist, or takes them off it.
pub(super) async fn blacklist(cx: &Context<'_>, place: &Place, remove: bool) -> Result {
    let lock = cx.lock(place.keyspace())?;
    cx.wr
        .topo()
        .update_shard_fields(place.keyspace(), place.name(), |shard| {
            // Tables that somebody else denied stay denied.
            let ours = |control: &shard::TabletControl| control.blacklisted_tables == cx.plan.tables;
            if remove && !shard.get_tablet_control(TabletType::Master).is_some_and(ours) {
                return Ok(Update::NoUpdateNeeded);
            }
            shard.update_source_blacklisted_tables(lock, TabletType::Master, &[], remove, &cx.plan.tables)?;
            Ok(Update::Write)
        })
        .await?;
    Ok(())
}
