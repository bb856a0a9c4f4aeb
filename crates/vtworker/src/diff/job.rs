//! The phases of a comparison.

use std::sync::{Arc, Mutex, PoisonError};

use keyrange::KeyRange;
use tokio::task::JoinSet;
use topo::{ShardInfo, topoproto};
use vterrors::{Code, Result, VtError};
use vtproto::topodata::shard::SourceShard;

use super::Options;
use super::compare::{Differences, Filter, Reader, Side, compare};
use super::sync::{self, Destination, Snapshot, Stream};
use crate::cleaner::Cleaner;
use crate::clone::{Endpoint, Kind, Route, Table, load_tables, load_vschema};
use crate::instance::JobContext;
use crate::status::{State, TableProgress};
use crate::tablets::{ShardName, Tablets};

fn fault(text: String) -> VtError {
    VtError::new(Code::FailedPrecondition, text)
}

/// A source, and the destination shards that are compared with it.
struct Comparison {
    kind: Kind,
    source: ShardName,
    destinations: Vec<(ShardInfo, SourceShard)>,
}

/// Compares a destination shard with a source.
///
/// # Errors
/// Why it could not be compared, or what differs.
pub async fn run(context: JobContext, kind: Kind, options: Options, shard: ShardName) -> Result<()> {
    begin(&context, &shard);
    let info = context.env.topo.get_shard(&shard.0, &shard.1).await?;
    let source = choose_source(&info, kind, options.source_uid)?;
    let name = (source.keyspace.clone(), source.shard.clone());
    run_one(&context, &options, Comparison { kind, source: name, destinations: vec![(info, source)] }).await
}

/// Compares a source shard with every destination of its split, at one position.
///
/// # Errors
/// As [`run`].
pub async fn run_multi(context: JobContext, options: Options, shard: ShardName) -> Result<()> {
    begin(&context, &shard);
    let mut destinations = Vec::new();
    for (_, info) in context.env.topo.find_all_shards_in_keyspace(&shard.0).await? {
        let sources = info.record.source_shards.clone().into_iter();
        for source in sources.filter(|source| source.keyspace == shard.0 && source.shard == shard.1) {
            destinations.push((info.clone(), source));
        }
    }
    if destinations.is_empty() {
        return Err(fault(format!("there are no destination shards with the source {}/{}", shard.0, shard.1)));
    }
    run_one(&context, &options, Comparison { kind: Kind::Horizontal, source: shard, destinations }).await
}

fn begin(context: &JobContext, (keyspace, shard): &ShardName) {
    context.status.set_state(State::Init);
    context.status.set_subject(format!("{keyspace}/{shard}"));
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

async fn run_one(context: &JobContext, options: &Options, comparison: Comparison) -> Result<()> {
    let mut cleaner = Cleaner::default();
    let outcome = match synchronize(context, options, &comparison, &mut cleaner).await {
        Ok(snapshots) => context.or_canceled(diff(context, options, &comparison, snapshots)).await,
        Err(error) => Err(error),
    };
    context.status.set_state(State::CleanUp);
    let cleaned = cleaner.clean().await;
    outcome.and(cleaned)
}

/// What is compared.
struct Snapshots {
    source: Snapshot,
    destinations: Vec<Snapshot>,
}

/// Opens the snapshots. Whatever its outcome, tablets and streams go on as before.
async fn synchronize(
    context: &JobContext,
    options: &Options,
    comparison: &Comparison,
    cleaner: &mut Cleaner,
) -> Result<Snapshots> {
    let status = &context.status;
    status.set_state(State::FindTargets);
    let tablets = context.or_canceled(find_tablets(context, options, comparison)).await?;
    let (source, destination) = (&comparison.source, &comparison.destinations[0].0.keyspace);
    let keyspaces = [source.0.as_str(), destination.as_str()];
    let action = format!("{}({}/{})", status.command, source.0, source.1);
    let locks = context.or_canceled(sync::lock(&context.env, &keyspaces, &action)).await?;
    let mut held = Cleaner::default();
    let opened = context.or_canceled(open(context, options, comparison, &tablets, &mut held, cleaner)).await;
    let put_back = held.clean().await;
    let unlocked = sync::unlock(locks).await;
    let snapshots = opened?;
    put_back?;
    unlocked?;
    Ok(snapshots)
}

fn shard_of(info: &ShardInfo) -> ShardName {
    (info.keyspace.clone(), info.shard_name.clone())
}

/// Waits until there is what to compare by. Nothing is taken yet, and nobody else is kept waiting.
async fn find_tablets(context: &JobContext, options: &Options, comparison: &Comparison) -> Result<Tablets> {
    let source = &comparison.source;
    let mut shards: Vec<ShardName> = comparison.destinations.iter().map(|(info, _)| shard_of(info)).collect();
    shards.push(source.clone());
    let tablets = Tablets::watch(&context.env, &shards)?;
    for shard in &shards {
        tablets.reclaim(shard).await?;
    }
    for (info, _) in &comparison.destinations {
        tablets.wait_for_choice(&shard_of(info), options.destination_type, 1).await?;
    }
    tablets.wait_for_choice(source, options.source_type, options.min_healthy).await?;
    Ok(tablets)
}

async fn open(
    context: &JobContext,
    options: &Options,
    comparison: &Comparison,
    tablets: &Tablets,
    held: &mut Cleaner,
    cleaner: &mut Cleaner,
) -> Result<Snapshots> {
    let (env, source) = (&context.env, &comparison.source);
    let mut destinations = Vec::new();
    for (info, from) in &comparison.destinations {
        let alias = info
            .master_alias()
            .ok_or_else(|| fault(format!("cannot get master of {}/{}", info.keyspace, info.shard_name)))?;
        let master = env.topo.get_tablet(alias).await?.record;
        let (replica, kind) = tablets.choose_or_drain(&shard_of(info), options.destination_type, 1, cleaner).await?;
        let replica = Endpoint::connect(env, &replica, kind).await?;
        destinations.push(Destination { stream: Stream { env: env.clone(), master, uid: from.uid }, replica });
    }
    let (tablet, kind) = tablets.choose_or_drain(source, options.source_type, options.min_healthy, cleaner).await?;
    let endpoint = Endpoint::connect(env, &tablet, kind).await?;

    context.status.set_state(State::SyncReplication);
    let (source, destinations, position) =
        sync::snapshots(context, tablets, endpoint, destinations, options.parallel, held, cleaner).await?;
    let there: Vec<String> = destinations.iter().map(|snapshot| snapshot.endpoint.alias()).collect();
    tracing::info!("comparing {} with {} at {position}", source.endpoint.alias(), there.join(", "));
    Ok(Snapshots { source, destinations })
}

/// One table with what says which of its rows are where.
struct Job {
    table: Table,
    /// For each destination.
    filters: Vec<Filter>,
    progress: Arc<TableProgress>,
}

async fn diff(context: &JobContext, options: &Options, comparison: &Comparison, snapshots: Snapshots) -> Result<()> {
    let status = &context.status;
    status.set_state(State::Diff);
    context.pass("diff.comparing").await?;
    let names = &comparison.destinations[0].1.tables;
    let from = &snapshots.source.endpoint;
    let tables = load_tables(from, names, &options.exclude_tables).await?;
    let mut found = Vec::new();
    for ((info, _), snapshot) in comparison.destinations.iter().zip(&snapshots.destinations) {
        let others = load_tables(&snapshot.endpoint, names, &options.exclude_tables).await?;
        let place = format!("{}/{}", info.keyspace, info.shard_name);
        found.extend(compare_schemas(&tables, &others, &place, &snapshot.endpoint.alias()));
    }
    if !found.is_empty() {
        // What is not there cannot be read.
        status.set_state(State::DiffWillFail);
        return Err(VtError::new(Code::Unknown, found.join("; ")));
    }
    let jobs = jobs(context, comparison, tables).await?;
    let aliases: Vec<String> = snapshots.destinations.iter().map(|snapshot| snapshot.endpoint.alias()).collect();
    status.begin_pass(
        format!("{}, {}", from.alias(), aliases.join(", ")),
        jobs.iter().map(|job| job.progress.clone()).collect(),
    );
    let slots = snapshots.destinations.iter().chain([&snapshots.source]).map(|snapshot| snapshot.transactions.len());
    let slots = slots.min().unwrap_or(0).min(jobs.len());
    let places: Vec<String> =
        comparison.destinations.iter().map(|(info, _)| format!("{}/{}", info.keyspace, info.shard_name)).collect();
    let work = Arc::new(Work {
        context: context.clone(),
        snapshots,
        places,
        jobs: Mutex::new(jobs.into_iter().rev().collect()),
        found: Mutex::default(),
    });
    // Dropped with this future, which ends the comparisons.
    let mut running = JoinSet::new();
    for slot in 0..slots {
        running.spawn(work.clone().run(slot));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap_or_else(|error| Err(VtError::new(Code::Internal, error.to_string())))?;
    }
    status.end_pass("Diff Result", TableProgress::diff_result);
    let found = lock(&work.found);
    if found.is_empty() { Ok(()) } else { Err(VtError::new(Code::Unknown, found.join("; "))) }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the comparisons of a job share. Each has one transaction of every snapshot.
struct Work {
    context: JobContext,
    snapshots: Snapshots,
    /// The names of the destination shards.
    places: Vec<String>,
    jobs: Mutex<Vec<Job>>,
    /// What differs, a text for each table and shard.
    found: Mutex<Vec<String>>,
}

impl Work {
    async fn run(self: Arc<Self>, slot: usize) -> Result<()> {
        loop {
            let next = lock(&self.jobs).pop();
            let Some(job) = next else { return Ok(()) };
            self.table(job, slot).await?;
        }
    }

    async fn table(&self, job: Job, slot: usize) -> Result<()> {
        let reader = |snapshot| Reader::new(snapshot, slot);
        let mut sides: Vec<Side> = self
            .snapshots
            .destinations
            .iter()
            .zip(job.filters)
            .map(|(snapshot, filter)| Side { reader: reader(snapshot), filter, differences: Differences::default() })
            .collect();
        let compared = compare(&job.table, reader(&self.snapshots.source), &mut sides, &job.progress).await;
        compared.map_err(|error| error.wrap(format!("table {}", job.table.name)))?;
        for (side, place) in sides.iter().zip(&self.places) {
            let text = side.differences.text();
            if side.differences.is_empty() {
                tracing::info!("table {} of {place}: {text}", job.table.name);
                continue;
            }
            self.context.status.set_state(State::DiffWillFail);
            let text = format!("table {} has differences: {text} (in {place})", job.table.name);
            tracing::error!("{text}");
            lock(&self.found).push(text);
        }
        Ok(())
    }
}

/// Tables that cannot be compared because the destination has none or not all of their columns. Other differences of the
/// schemas are warned of: they may be on the way to a change, and rows decide.
fn compare_schemas(tables: &[Table], others: &[Table], place: &str, alias: &str) -> Vec<String> {
    let mut found = Vec::new();
    for table in tables {
        let Some(other) = others.iter().find(|other| other.name == table.name) else {
            found.push(format!("table {} is missing at the destination {place}", table.name));
            continue;
        };
        found.extend(
            table
                .missing_columns(other)
                .map(|column| format!("table {}: column {column} is missing at the destination {place}", table.name)),
        );
        if let Err(error) = table.check_destination(other, alias) {
            tracing::warn!("different schemas: {error}");
        }
    }
    for other in others.iter().filter(|other| !tables.iter().any(|table| table.name == other.name)) {
        tracing::warn!("different schemas: table {} is only at the destination {place}", other.name);
    }
    found
}

/// The tables, with which of their rows each destination holds.
async fn jobs(context: &JobContext, comparison: &Comparison, tables: Vec<Table>) -> Result<Vec<Job>> {
    let horizontal = match comparison.kind {
        Kind::Vertical => None,
        Kind::Horizontal => {
            let keyspace = &comparison.source.0;
            let record = context.env.topo.get_keyspace(keyspace).await?.record;
            Some((keyspace, load_vschema(context, keyspace).await?, record))
        }
    };
    let mut jobs = Vec::with_capacity(tables.len());
    for table in tables {
        let route = match &horizontal {
            None => Route::All,
            Some((keyspace, Some(vschema), _)) => Route::by_vschema(vschema, keyspace, &table)?,
            Some((keyspace, None, record)) => Route::by_keyspace(keyspace, record, &table)?,
        };
        let filter = |(info, source): &(ShardInfo, SourceShard)| match comparison.kind {
            Kind::Vertical => Filter { route: route.clone(), source: KeyRange::full(), destination: KeyRange::full() },
            Kind::Horizontal => Filter {
                route: route.clone(),
                source: topoproto::key_range(source.key_range.as_ref()),
                destination: info.range(),
            },
        };
        let filters = comparison.destinations.iter().map(filter).collect();
        let progress = Arc::new(TableProgress::new(&table.name, table.rows, 1));
        jobs.push(Job { table, filters, progress });
    }
    Ok(jobs)
}
