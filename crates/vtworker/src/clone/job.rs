//! The phases of a clone, from the records of the topology to running streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use throttler::Throttler;
use topo::ShardInfo;
use vschema::VSchema;
use vterrors::{Code, Result, VtError};
use vtproto::topodata::{Tablet, TabletType};

use super::copy::{Job, Targets};
use super::owner::Owner;
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
    let mut plan = Plan::resolve(&env.topo, kind, shard).await?;
    let shards: Vec<ShardName> = plan.sources.iter().chain(&plan.destinations).map(shard_name).collect();
    let tablets = Arc::new(Tablets::watch(env, &shards)?);
    for source in &plan.sources {
        tablets.reclaim(&shard_name(source)).await?;
    }

    status.set_state(State::FindTargets);
    // A destination with streams does not serve, and is not healthy: its record says who its master is.
    let has_streams = plan.check_no_streams().is_err();
    let job = plan.job_name(&options.tables);
    let owner = Arc::new(Owner::new(&job));
    let mut writers = Vec::new();
    for destination in &plan.destinations {
        writers.push(writer(context, &tablets, destination, options, has_streams, &owner).await?);
    }
    let mut online = Vec::new();
    for source in &plan.sources {
        let healthy = tablets.wait(&shard_name(source), options.tablet_type, options.min_healthy).await?;
        let mut endpoints = Vec::new();
        for health in healthy {
            endpoints.push(Endpoint::connect(env, &health.tablet, options.tablet_type).await?);
        }
        online.push(endpoints);
    }
    // Not before there is something to copy from: a clone that cannot begin takes the job from none that runs. One
    // after the other in the same order: of two that begin at once, one gets them all.
    for writer in &writers {
        writer.claim().await?;
    }
    let progress = Arc::new(Progress::open(&writers[0], job).await?);
    let earlier = progress.phase().await?;
    // Whoever had the job before may have started streams until now, but starts none any more.
    let started = streams::started(&env.topo, &mut plan, &writers, &options.tables).await?;
    match &earlier {
        Some((Phase::Done, _)) if plan.check_no_streams().is_err() => {
            tracing::info!("an earlier run copied all rows and started the streams: nothing is left to do");
            return Ok(());
        }
        Some((Phase::Streams, positions)) if started => {
            tracing::info!("an earlier run copied all rows: starting the streams that are missing");
            streams::start(&env.topo, &plan, &writers, positions, options).await?;
            return progress.set_phase(Phase::Done, positions).await;
        }
        _ => plan.check_no_streams()?,
    }
    streams::remove_stale(&plan, &writers, &options.tables).await?;

    let tables = load_tables(&online[0][0], &options.tables, &options.exclude_tables).await?;
    // Where no stream has begun, positions are of no use yet: the rows may be looked at as well as those of a copy that
    // did not come to its end.
    let resumed = matches!(earlier, Some((Phase::Copying | Phase::Streams, _)));
    let targets = Arc::new(Targets { writers: writers.clone(), ranges: Destinations::new(&plan.destinations) });
    let jobs = Arc::new(jobs(context, &plan, &targets, tables, resumed).await?);
    if resumed {
        tracing::info!("going on with what an earlier run copied");
        progress.set_phase(Phase::Copying, &Positions::new()).await?;
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
        ranges: plan.sources.iter().map(ShardInfo::range).collect(),
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
        let mut stopped_tablets = Vec::new();
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
            stopped_tablets.push((shard_path(source), tablet));
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
        for (source, tablet) in stopped_tablets {
            let now = tablets::position(env, &tablet).await?;
            if positions.get(&source) != Some(&now) {
                let alias = topo::topoproto::tablet_alias_string(tablet.alias.as_ref());
                let text =
                    format!("{alias} replicated on to {now} while {source} was copied from it: run the clone again");
                return Err(VtError::new(Code::Aborted, text));
            }
        }
    }
    drop(pass);
    if let Some(notes) = Arc::into_inner(notes) {
        notes.finish().await?;
    }
    if options.offline {
        progress.set_phase(Phase::Streams, &positions).await?;
        context.pass("clone.streams").await?;
        streams::start(&env.topo, &plan, &writers, &positions, options).await?;
    }
    context.pass("clone.streams_started").await?;
    progress.set_phase(Phase::Done, &positions).await
}

async fn writer(
    context: &JobContext,
    tablets: &Arc<Tablets>,
    destination: &ShardInfo,
    options: &Options,
    by_record: bool,
    owner: &Arc<Owner>,
) -> Result<Arc<Writer>> {
    let shard = shard_name(destination);
    let master = match (by_record, destination.master_alias()) {
        (true, Some(alias)) => context.env.topo.get_tablet(alias).await?.record,
        _ => (*tablets.master(&shard).await?.tablet).clone(),
    };
    let throttler =
        Throttler::new(format!("{}/{}", shard.0, shard.1), options.max_tps).with_max_lag(options.max_replication_lag);
    let throttle = Throttle::new(tablets.clone(), shard.clone(), context.env.throttlers.add(throttler));
    Writer::open(&context.env, tablets, &shard, &master, options.writers, throttle, owner).await
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
    let record = context.env.topo.get_vschema(keyspace).await?;
    VSchema::of_rows(keyspace, record).map(Some)
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
