//! The phases of a comparison.

use std::sync::Arc;

use keyrange::KeyRange;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use topo::ShardInfo;
use vterrors::{Code, Result, VtError};
use vtproto::topodata::{TabletType, shard::SourceShard};

use super::Options;
use super::compare::{Filter, compare};
use super::sync::{Stream, stop_both};
use crate::cleaner::Cleaner;
use crate::clone::{Endpoint, Kind, Route, Table, load_tables, load_vschema};
use crate::instance::JobContext;
use crate::status::{State, TableProgress};
use crate::tablets::{ShardName, Tablets};

fn fault(text: String) -> VtError {
    VtError::new(Code::FailedPrecondition, text)
}

/// Compares a destination shard with a source.
///
/// # Errors
/// Why it could not be compared, or what differs.
pub async fn run(context: JobContext, kind: Kind, options: Options, shard: ShardName) -> Result<()> {
    context.status.set_state(State::Init);
    context.status.set_subject(format!("{}/{}", shard.0, shard.1));
    let info = context.env.topo.get_shard(&shard.0, &shard.1).await?;
    let source = choose_source(&info, kind, options.source_uid)?;
    one(&context, kind, &options, &info, &source).await
}

/// Compares a source shard with every destination of its split.
///
/// # Errors
/// As [`run`], the failures of all destinations joined.
pub async fn run_multi(context: JobContext, options: Options, shard: ShardName) -> Result<()> {
    context.status.set_state(State::Init);
    context.status.set_subject(format!("{}/{}", shard.0, shard.1));
    let shards = context.env.topo.find_all_shards_in_keyspace(&shard.0).await?;
    let mut failures = Vec::new();
    let mut found = false;
    for info in shards.values() {
        let sources = info.record.source_shards.iter();
        for source in sources.filter(|source| source.keyspace == shard.0 && source.shard == shard.1) {
            found = true;
            if let Err(error) = one(&context, Kind::Horizontal, &options, info, source).await {
                context.check()?;
                failures.push(format!("{}/{}: {error}", info.keyspace, info.shard_name));
            }
        }
    }
    if !found {
        return Err(fault(format!("there are no destination shards with the source {}/{}", shard.0, shard.1)));
    }
    if failures.is_empty() { Ok(()) } else { Err(VtError::new(Code::Unknown, failures.join("; "))) }
}

/// The stream to compare by.
fn choose_source(info: &ShardInfo, kind: Kind, uid: u32) -> Result<SourceShard> {
    let (keyspace, shard) = (&info.keyspace, &info.shard_name);
    let sources = &info.record.source_shards;
    if kind == Kind::Vertical {
        return match &sources[..] {
            [source] if !source.tables.is_empty() => Ok(source.clone()),
            [_] => Err(fault(format!("shard {keyspace}/{shard} has no tables in source shard"))),
            others => Err(fault(format!("shard {keyspace}/{shard} has bad number of source shards: {}", others.len()))),
        };
    }
    match &sources[..] {
        [] => Err(fault(format!("shard {keyspace}/{shard} has no source shard"))),
        [source] if uid == 0 => Ok(source.clone()),
        _ if uid == 0 => {
            Err(fault(format!("shard {keyspace}/{shard} has more than one source, please specify a source UID")))
        }
        _ => sources
            .iter()
            .find(|source| source.uid == uid)
            .cloned()
            .ok_or_else(|| fault(format!("shard {keyspace}/{shard} has no source with UID {uid}"))),
    }
}

async fn one(
    context: &JobContext,
    kind: Kind,
    options: &Options,
    info: &ShardInfo,
    source: &SourceShard,
) -> Result<()> {
    let mut cleaner = Cleaner::default();
    let outcome = context.or_canceled(work(context, kind, options, info, source, &mut cleaner)).await;
    if context.status.state() != State::DiffWillFail || outcome.is_ok() {
        context.status.set_state(State::CleanUp);
    }
    let cleaned = cleaner.clean().await;
    outcome.and(cleaned)
}

async fn work(
    context: &JobContext,
    kind: Kind,
    options: &Options,
    info: &ShardInfo,
    source: &SourceShard,
    cleaner: &mut Cleaner,
) -> Result<()> {
    let (env, status) = (&context.env, &context.status);
    status.set_state(State::FindTargets);
    let destination_name = (info.keyspace.clone(), info.shard_name.clone());
    let source_name = (source.keyspace.clone(), source.shard.clone());
    let tablets = Tablets::watch(env, &[destination_name.clone(), source_name.clone()])?;
    for shard in [&destination_name, &source_name] {
        tablets.reclaim(shard).await?;
    }
    let alias = info
        .master_alias()
        .ok_or_else(|| fault(format!("cannot get master of {}/{}", info.keyspace, info.shard_name)))?;
    let master = env.topo.get_tablet(alias).await?.record;
    let destination = tablets.drain(&destination_name, options.destination_type, 1, cleaner).await?;
    let from = tablets.drain(&source_name, options.source_type, options.min_healthy, cleaner).await?;

    status.set_state(State::SyncReplication);
    let stream = Arc::new(Stream { env: env.clone(), master, uid: source.uid });
    let position = stop_both(stream, &from, &destination, cleaner).await?;
    tracing::info!(
        "comparing {}/{} with {}/{} at {position}",
        info.keyspace,
        info.shard_name,
        source.keyspace,
        source.shard
    );

    status.set_state(State::Diff);
    let from = Endpoint::connect(env, &from, TabletType::Drained).await?;
    let destination = Endpoint::connect(env, &destination, TabletType::Drained).await?;
    let tables = load_tables(&from, &source.tables, &options.exclude_tables).await?;
    let others = load_tables(&destination, &source.tables, &options.exclude_tables).await?;
    let filters = filters(context, kind, info, source, &tables).await?;
    let progress: Vec<Arc<TableProgress>> =
        tables.iter().map(|table| Arc::new(TableProgress::new(&table.name, table.rows, 1))).collect();
    status.begin_pass(format!("{}, {}", from.alias(), destination.alias()), progress.clone());
    let slots = Arc::new(Semaphore::new(options.parallel));
    // Dropped with this future, which ends the comparisons.
    let mut running = JoinSet::new();
    for ((table, filter), progress) in tables.into_iter().zip(filters).zip(progress) {
        let other = others.iter().find(|other| other.name == table.name);
        let Some(other) = other else {
            return Err(fault(format!("table {} is missing at the destination", table.name)));
        };
        // The schemas may differ on the way to a change: rows decide.
        if let Err(error) = table.check_destination(other, &destination.alias()) {
            tracing::warn!("different schemas: {error}");
        }
        let (from, destination, status, slots) = (from.clone(), destination.clone(), status.clone(), slots.clone());
        running.spawn(async move {
            let _slot = slots.acquire().await;
            let differences = compare(&table, &filter, &from, &destination, &progress).await?;
            if differences.is_empty() {
                tracing::info!("table {}: {}", table.name, differences.text());
                return Ok::<_, VtError>(None);
            }
            status.set_state(State::DiffWillFail);
            let text = format!("table {} has differences: {}", table.name, differences.text());
            tracing::error!("{text}");
            Ok(Some(text))
        });
    }
    let mut found: Vec<Option<String>> = Vec::new();
    while let Some(ended) = running.join_next().await {
        found.push(ended.unwrap_or_else(|error| Err(VtError::new(Code::Internal, error.to_string())))?);
    }
    status.end_pass("Diff Result");
    let found: Vec<String> = found.into_iter().flatten().collect();
    if found.is_empty() { Ok(()) } else { Err(VtError::new(Code::Unknown, found.join("; "))) }
}

/// Which rows of each table both shards hold.
async fn filters(
    context: &JobContext,
    kind: Kind,
    info: &ShardInfo,
    source: &SourceShard,
    tables: &[Table],
) -> Result<Vec<Filter>> {
    let whole = || Filter { route: Route::All, source: KeyRange::full(), destination: KeyRange::full() };
    if kind == Kind::Vertical {
        return Ok(tables.iter().map(|_| whole()).collect());
    }
    let vschema = load_vschema(context, &info.keyspace).await?;
    let keyspace = context.env.topo.get_keyspace(&info.keyspace).await?.record;
    let source = topo::topoproto::key_range(source.key_range.as_ref());
    tables
        .iter()
        .map(|table| {
            let route = match &vschema {
                Some(vschema) => Route::by_vschema(vschema, &info.keyspace, table)?,
                None => Route::by_keyspace(&info.keyspace, &keyspace, table)?,
            };
            Ok(Filter { route, source: source.clone(), destination: info.range() })
        })
        .collect()
}
