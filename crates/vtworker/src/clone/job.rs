//! The phases of a clone, from the records of the topology to running streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vschema::VSchema;
use vterrors::{Code, Result, VtError};
use vtproto::topodata::{Tablet, TabletType};
use vtproto::vschema::SrvVSchema;

use super::copy::{Job, Targets};
use super::pass::{Pass, Recorded, Source};
use super::plan::{Kind, Plan, shard_name, shard_path};
use super::progress::{Notes, Phase, Positions, Progress};
use super::route::{Destinations, Route};
use super::snapshot::Snapshot;
use super::throttle::Throttle;
use super::write::Writer;
use super::{Endpoint, Options, Table, load_tables, streams};
use crate::cleaner::Cleaner;
use crate::instance::JobContext;
use crate::sql::name;
use crate::status::State;
use crate::tablets::{self, ShardName, Tablets};

/// After the online pass, what the sources still report as their own state settles for so long.
const SETTLE: Duration = Duration::from_millis(100);

/// Runs a clone; whatever its end, what it took is given back.
///
/// # Errors
/// Why it did not come to its end.
pub async fn run(context: JobContext, kind: Kind, options: Options, shard: ShardName) -> Result<()> {
    let mut cleaner = Cleaner::default();
    let outcome = context.or_canceled(work(&context, kind, &options, &shard, &mut cleaner)).await;
    context.status.set_state(State::CleanUp);
    let cleaned = cleaner.clean().await;
    outcome.and(cleaned)
}

async fn work(
    context: &JobContext,
    kind: Kind,
    options: &Options,
    shard: &ShardName,
    cleaner: &mut Cleaner,
) -> Result<()> {
    let (env, status) = (&context.env, &context.status);
    status.set_state(State::Init);
    status.set_subject(format!("{}/{}", shard.0, shard.1));
    if env.settings.cell.is_empty() {
        return Err(VtError::new(Code::InvalidArgument, "-cell is required: it says whose tablets are used"));
    }
    let plan = Plan::resolve(&env.topo, kind, shard).await?;
    let shards: Vec<ShardName> = plan.sources.iter().chain(&plan.destinations).map(shard_name).collect();
    let tablets = Arc::new(Tablets::watch(env, &shards)?);
    for source in &plan.sources {
        tablets.reclaim(&shard_name(source)).await?;
    }

    status.set_state(State::FindTargets);
    if plan.check_no_streams().is_err() && !continues(context, &plan, &tablets, options).await? {
        plan.check_no_streams()?;
    }
    let mut writers = Vec::new();
    for destination in &plan.destinations {
        writers.push(writer(context, &tablets, &shard_name(destination), options).await?);
    }
    let progress = Arc::new(Progress::open(&writers[0], plan.job_name(&options.tables)).await?);
    let earlier = progress.phase().await?;
    if let Some((Phase::Streams, positions)) = &earlier {
        tracing::info!("an earlier run copied all rows: starting the streams that are missing");
        streams::start(&env.topo, &plan, &writers, positions, &options.tables).await?;
        return progress.set_phase(Phase::Done, positions).await;
    }
    streams::remove_stale(&plan, &writers, &options.tables).await?;

    let mut online = Vec::new();
    for source in &plan.sources {
        let healthy = tablets.wait(&shard_name(source), options.tablet_type, options.min_healthy).await?;
        let mut endpoints = Vec::new();
        for health in healthy {
            endpoints.push(Endpoint::connect(env, &health.tablet, options.tablet_type).await?);
        }
        online.push(endpoints);
    }
    let tables = load_tables(&online[0][0], &options.tables, &options.exclude_tables).await?;
    let resumed = matches!(earlier, Some((Phase::Copying, _)));
    let targets = Arc::new(Targets { writers: writers.clone(), ranges: Destinations::new(&plan.destinations) });
    let jobs = Arc::new(jobs(context, &plan, &targets, tables, resumed).await?);
    if resumed {
        tracing::info!("going on with what an earlier run copied");
    } else {
        progress.begin().await?;
    }

    let notes = Arc::new(Notes::start(progress.clone()));
    let pass = Pass {
        context: context.clone(),
        options: Arc::new(options.clone()),
        jobs: jobs.clone(),
        targets,
        progress: progress.clone(),
        notes: notes.clone(),
        ranges: plan.sources.iter().map(topo::ShardInfo::range).collect(),
        kind,
    };
    let mut recorded = pass.load(&plan, &online).await?;
    // Where each source stood before and after the online pass, if that is one place.
    let mut still: Vec<Option<String>> = vec![None; plan.sources.len()];
    if options.online {
        status.set_state(State::CloneOnline);
        let before = positions(context, &online).await?;
        let sources = online.iter().map(|endpoints| Source::running(endpoints.clone())).collect();
        recorded = pass.run(State::CloneOnline, sources, recorded, &still).await?;
        let after = positions(context, &online).await?;
        still =
            before.into_iter().zip(after).map(|(before, after)| before.filter(|b| Some(b) == after.as_ref())).collect();
    }
    let mut positions = Positions::new();
    if options.offline {
        tokio::time::sleep(SETTLE).await;
        status.set_state(State::FindTargets);
        let mut sources = Vec::new();
        let mut snapshots = Vec::new();
        for (at, source) in plan.sources.iter().enumerate() {
            if options.consistent_snapshot {
                let snapshot = Snapshot::open(context, &online[at][0], options.readers, cleaner).await?;
                positions.insert(shard_path(source), snapshot.position.clone());
                sources.push(Source {
                    endpoints: vec![online[at][0].clone()],
                    transactions: snapshot.transactions.clone(),
                });
                snapshots.push(snapshot);
                continue;
            }
            let tablet = tablets.drain(&shard_name(source), options.tablet_type, options.min_healthy, cleaner).await?;
            let position = tablets::stop_slave(env, &tablet, cleaner).await?;
            tracing::info!("{} is stopped at {position}", shard_path(source));
            positions.insert(shard_path(source), position);
            sources.push(Source::running(vec![drained(context, &tablet).await?]));
        }
        let stopped: Vec<Option<String>> = plan
            .sources
            .iter()
            .zip(still)
            .map(|(source, still)| still.filter(|still| positions.get(&shard_path(source)) == Some(still)))
            .collect();
        status.set_state(State::CloneOffline);
        pass.run(State::CloneOffline, sources, recorded, &stopped).await?;
        drop(snapshots);
    }
    drop(pass);
    if let Some(notes) = Arc::into_inner(notes) {
        notes.finish().await?;
    }
    if options.offline {
        progress.set_phase(Phase::Streams, &positions).await?;
        streams::start(&env.topo, &plan, &writers, &positions, &options.tables).await?;
    }
    progress.set_phase(Phase::Done, &positions).await
}

/// Whether streams that exist are those of an earlier run that came to starting them and no further.
async fn continues(context: &JobContext, plan: &Plan, tablets: &Arc<Tablets>, options: &Options) -> Result<bool> {
    let leader = writer(context, tablets, &shard_name(&plan.destinations[0]), options).await;
    // A destination with streams does not serve, and then has no healthy master.
    let Ok(leader) = leader else { return Ok(false) };
    let progress = Progress::open(&leader, plan.job_name(&options.tables)).await?;
    Ok(matches!(progress.phase().await?, Some((Phase::Streams, _))))
}

async fn writer(
    context: &JobContext,
    tablets: &Arc<Tablets>,
    shard: &ShardName,
    options: &Options,
) -> Result<Arc<Writer>> {
    let throttle = Throttle::new(tablets.clone(), shard.clone(), options.max_tps, options.max_replication_lag);
    Writer::open(&context.env, tablets, shard, options.writers, throttle).await
}

/// A tablet that was taken out of service answers as what it is now.
async fn drained(context: &JobContext, tablet: &Tablet) -> Result<Endpoint> {
    Endpoint::connect(&context.env, tablet, TabletType::Drained).await
}

/// Where the sources stand; `None` where several tablets stand at several places.
async fn positions(context: &JobContext, online: &[Vec<Endpoint>]) -> Result<Vec<Option<String>>> {
    let mut all = Vec::with_capacity(online.len());
    for endpoints in online {
        let mut found: Option<String> = None;
        let mut same = true;
        for endpoint in endpoints {
            let position = tablets::position(&context.env, &endpoint.tablet).await?;
            same &= found.as_ref().is_none_or(|known| *known == position);
            found = Some(position);
        }
        all.push(found.filter(|_| same));
    }
    Ok(all)
}

/// The vschema of a keyspace; `None` where the keyspace's sharding column is used instead.
///
/// # Errors
/// It cannot be read or is not valid.
pub(crate) async fn load_vschema(context: &JobContext, keyspace: &str) -> Result<Option<VSchema>> {
    if !context.env.settings.use_vschema {
        return Ok(None);
    }
    let mut record = context.env.topo.get_vschema(keyspace).await?;
    // Rows that are copied have their values: the sequences, which live in another keyspace, are not needed.
    for table in record.tables.values_mut() {
        table.auto_increment = None;
    }
    let source = SrvVSchema { keyspaces: [(keyspace.to_owned(), record)].into(), ..Default::default() };
    let vschema = VSchema::build(&source);
    match &vschema.keyspace(keyspace)?.error {
        Some(error) => Err(error.clone()),
        None => Ok(Some(vschema)),
    }
}

/// The tables with their routes, checked against the destinations.
async fn jobs(
    context: &JobContext,
    plan: &Plan,
    targets: &Targets,
    tables: Vec<Table>,
    resumed: bool,
) -> Result<Vec<Job>> {
    let keyspace = &plan.destinations[0].keyspace;
    let vschema = match plan.kind {
        Kind::Horizontal => load_vschema(context, keyspace).await?,
        Kind::Vertical => None,
    };
    let names: Vec<String> = tables.iter().map(|table| table.name.clone()).collect();
    let mut there: Vec<HashMap<String, Table>> = Vec::new();
    for writer in &targets.writers {
        let loaded = load_tables(&writer.master(), &names, &[]).await.map_err(|error| {
            error.wrap(format!("destination {} (was its schema copied? vtctl CopySchemaShard)", writer.name()))
        })?;
        there.push(loaded.into_iter().map(|table| (table.name.clone(), table)).collect());
    }
    let mut jobs = Vec::with_capacity(tables.len());
    for table in tables {
        let route = match (plan.kind, &vschema) {
            (Kind::Vertical, _) => Route::All,
            (Kind::Horizontal, Some(vschema)) => Route::by_vschema(vschema, keyspace, &table)?,
            (Kind::Horizontal, None) => Route::by_keyspace(keyspace, &plan.keyspace, &table)?,
        };
        let mut fresh = !resumed;
        for (writer, there) in targets.writers.iter().zip(&there) {
            if let Some(other) = there.get(&table.name) {
                table.check_destination(other, &writer.name())?;
            }
            let master = writer.master();
            let sql = format!("select 1 from {}.{} limit 1", name(&master.db_name), name(&table.name));
            fresh &= master.fetch(sql).await?.rows.is_empty();
        }
        jobs.push(Job { table, route, fresh });
    }
    Ok(jobs)
}

/// The recorded pieces, shared by the tasks of a pass.
pub fn lock(recorded: &Mutex<Recorded>) -> std::sync::MutexGuard<'_, Recorded> {
    recorded.lock().unwrap_or_else(PoisonError::into_inner)
}
