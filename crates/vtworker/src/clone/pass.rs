//! One pass over all pieces of all tables.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyrange::KeyRange;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use vterrors::{Code, Result, VtError};

use super::copy::{self, Failure, Job, Reading, Targets};
use super::job::lock;
use super::plan::{Plan, shard_path};
use super::progress::{Notes, Piece, Progress};
use super::reconcile::Reconciler;
use super::route::Route;
use super::{Endpoint, Options, chunk};
use crate::instance::JobContext;
use crate::rows::{Checksum, Hasher};
use crate::sql::Range;
use crate::status::{State, TableProgress};

/// Tables with huge rows are read by one reader at a time: each may hold a row of 16 MB several times.
const WIDE_READERS: usize = 1;
/// Pause before a piece is read again from another tablet.
const READ_PAUSE: Duration = Duration::from_secs(1);

/// Which tablets of a source shard are read.
pub struct Source {
    pub endpoints: Vec<Endpoint>,
    /// Transactions that read one snapshot; none: what is there now.
    pub transactions: Vec<i64>,
}

impl Source {
    pub fn running(endpoints: Vec<Endpoint>) -> Self {
        Self { endpoints, transactions: Vec::new() }
    }
}

/// The pieces of one table of one source shard.
#[derive(Debug, Clone)]
pub struct Pieces {
    pub pieces: Vec<Piece>,
    /// Of each.
    pub seen: Vec<Seen>,
}

/// What this run has seen of a piece that is noted as copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: an earlier run noted it, and the tables may have been emptied or made anew since.
    Nothing,
    /// The destination holds what is noted.
    AtDestination,
    /// It was copied: so far as the positions say that nothing changed at the source, nothing has.
    AtBoth,
}

/// All pieces, by source and table.
pub type Recorded = BTreeMap<(usize, usize), Pieces>;

/// What is the same for both passes.
pub struct Pass {
    pub context: JobContext,
    pub options: Arc<Options>,
    pub jobs: Arc<Vec<Job>>,
    pub targets: Arc<Targets>,
    pub progress: Arc<Progress>,
    pub notes: Arc<Notes>,
    /// The ranges of the source shards.
    pub ranges: Vec<KeyRange>,
}

/// One piece to handle.
struct Item {
    source: usize,
    table: usize,
    chunk: usize,
    piece: Piece,
    seen: Seen,
    /// Nothing changed at the source since this run copied it.
    unchanged: bool,
}

/// What the readers of a pass share.
struct Work {
    context: JobContext,
    options: Arc<Options>,
    jobs: Arc<Vec<Job>>,
    targets: Arc<Targets>,
    notes: Arc<Notes>,
    ranges: Vec<KeyRange>,
    names: Vec<String>,
    state: State,
    sources: Vec<Source>,
    queue: Mutex<VecDeque<Item>>,
    recorded: Mutex<Recorded>,
    progress: Vec<Arc<TableProgress>>,
    wide: Semaphore,
    turn: AtomicUsize,
}

impl Pass {
    /// Whether rows of a table are taken from this source.
    fn takes(&self, source: usize, job: &Job) -> bool {
        !self.targets.ranges.fed(&job.route, &self.ranges[source]).is_empty()
    }

    /// The pieces of all tables, as an earlier run cut them or cut now.
    ///
    /// # Errors
    /// A source or the destination cannot be asked.
    pub async fn load(&self, plan: &Plan, online: &[Vec<Endpoint>]) -> Result<Recorded> {
        let mut recorded = Recorded::new();
        for (source, info) in plan.sources.iter().enumerate() {
            for (table, job) in self.jobs.iter().enumerate().filter(|(_, job)| self.takes(source, job)) {
                let mut pieces = self.progress.pieces(&shard_path(info), &job.table.name).await?;
                if pieces.is_empty() {
                    let ranges = chunk::plan(&online[source][0], &job.table, &self.options).await?;
                    self.progress.plan(&shard_path(info), &job.table.name, &ranges).await?;
                    pieces = ranges.into_iter().map(|range| Piece { range, copied: None }).collect();
                }
                let seen = vec![Seen::Nothing; pieces.len()];
                recorded.insert((source, table), Pieces { pieces, seen });
            }
        }
        Ok(recorded)
    }

    /// Whether a pass handles a table. One without a primary key is copied by the last pass alone: there is nothing by which
    /// a second one could repair what the first one copied.
    fn handles(&self, state: State, job: &Job) -> bool {
        !job.table.is_keyless() || state == State::CloneOffline || !self.options.offline
    }

    /// Handles every piece. `still` says for each source where it has stood since this run copied from it.
    ///
    /// # Errors
    /// The first piece that could not be handled.
    pub async fn run(
        &self,
        state: State,
        sources: Vec<Source>,
        recorded: Recorded,
        still: &[Option<String>],
    ) -> Result<Recorded> {
        let mut queue = VecDeque::new();
        let mut chunks = vec![0; self.jobs.len()];
        for ((source, table), pieces) in &recorded {
            if !self.handles(state, &self.jobs[*table]) {
                tracing::info!(
                    "table {} has no primary key: it is copied by the offline pass alone, as a whole",
                    self.jobs[*table].table.name
                );
                continue;
            }
            chunks[*table] += pieces.pieces.len() as u64;
            for (chunk, piece) in pieces.pieces.iter().enumerate() {
                let seen = pieces.seen[chunk];
                let unchanged = seen == Seen::AtBoth && still[*source].is_some();
                queue.push_back(Item { source: *source, table: *table, chunk, piece: piece.clone(), seen, unchanged });
            }
        }
        // Table by table, its sources side by side.
        queue.make_contiguous().sort_by_key(|item| (item.table, item.chunk, item.source));
        let progress: Vec<Arc<TableProgress>> = self
            .jobs
            .iter()
            .zip(&chunks)
            .map(|(job, chunks)| Arc::new(TableProgress::new(&job.table.name, job.table.rows, *chunks)))
            .collect();
        for (job, progress) in self.jobs.iter().zip(&progress) {
            if job.table.is_keyless() && self.handles(state, job) {
                for writer in &self.targets.writers {
                    let deleted = copy::clear(writer, &job.table).await?;
                    progress.deletes.fetch_add(deleted, Ordering::Relaxed);
                }
            }
        }
        let aliases: Vec<String> = sources.iter().flat_map(|source| &source.endpoints).map(Endpoint::alias).collect();
        self.context.status.begin_pass(aliases.join(", "), progress.clone());
        let names = sources.iter().map(|source| {
            let tablet = &source.endpoints[0].tablet;
            format!("{}/{}", tablet.keyspace, tablet.shard)
        });
        let work = Arc::new(Work {
            context: self.context.clone(),
            options: self.options.clone(),
            jobs: self.jobs.clone(),
            targets: self.targets.clone(),
            notes: self.notes.clone(),
            ranges: self.ranges.clone(),
            names: names.collect(),
            state,
            sources,
            queue: Mutex::new(queue),
            recorded: Mutex::new(recorded),
            progress,
            wide: Semaphore::new(WIDE_READERS),
            turn: AtomicUsize::new(0),
        });
        // Dropped with this future, which ends the readers.
        let mut readers = JoinSet::new();
        // A transaction is one reader's.
        let transactions = work.sources.iter().map(|source| source.transactions.len()).filter(|count| *count > 0).min();
        for reader in 0..transactions.map_or(self.options.readers, |count| count.min(self.options.readers)) {
            readers.spawn(work.clone().read(reader));
        }
        while let Some(ended) = readers.join_next().await {
            ended.unwrap_or_else(|error| Err(VtError::new(Code::Internal, error.to_string())))?;
        }
        let title = if state == State::CloneOnline { "Online Clone Result" } else { "Offline Clone Result" };
        self.context.status.end_pass(title, TableProgress::clone_result);
        let recorded = lock(&work.recorded).clone();
        Ok(recorded)
    }
}

impl Work {
    async fn read(self: Arc<Self>, reader: usize) -> Result<()> {
        loop {
            let next = self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front();
            let Some(item) = next else { return Ok(()) };
            let _wide = match self.jobs[item.table].table.wide {
                true => self.wide.acquire().await.ok(),
                false => None,
            };
            let table = self.jobs[item.table].table.name.clone();
            let handled = self.handle(&item, reader).await;
            let sum = handled.map_err(|error| error.wrap(format!("table {table} of {}", self.names[item.source])))?;
            self.progress[item.table].chunk_done();
            let place = if self.state == State::CloneOnline { "clone.online_chunk" } else { "clone.offline_chunk" };
            self.context.pass(place).await?;
            if let Some(sum) = sum {
                self.notes.add(&self.names[item.source], &table, item.chunk, sum)?;
            }
            if let Some(pieces) = lock(&self.recorded).get_mut(&(item.source, item.table)) {
                let seen = &mut pieces.seen[item.chunk];
                match sum {
                    Some(_) => (pieces.pieces[item.chunk].copied, *seen) = (sum, Seen::AtBoth),
                    None if *seen == Seen::Nothing => *seen = Seen::AtDestination,
                    None => {}
                }
            }
        }
    }

    fn counters(&self) -> &crate::env::RowCounters {
        match self.state {
            State::CloneOnline => &self.context.env.counters.online,
            _ => &self.context.env.counters.offline,
        }
    }

    /// Rows that are known to be equal without having been compared one by one.
    fn count_equal(&self, item: &Item, rows: u64) {
        let progress = &self.progress[item.table];
        progress.rows.fetch_add(rows, Ordering::Relaxed);
        progress.equal.fetch_add(rows, Ordering::Relaxed);
        if rows > 0 {
            let table = &self.jobs[item.table].table.name;
            self.counters().equal.add(&[table], i64::try_from(rows).unwrap_or(i64::MAX));
        }
    }

    /// Handles a piece; returns its checksum if rows were read.
    async fn handle(&self, item: &Item, reader: usize) -> Result<Option<Checksum>> {
        let job = &self.jobs[item.table];
        let source = &self.sources[item.source];
        let transaction = source.transactions.get(reader).copied().unwrap_or(0);
        let keyless = job.table.is_keyless();
        let mut noted = item.piece.copied.filter(|_| !keyless);
        if let Some(copied) = noted
            && item.seen == Seen::Nothing
            && !self.is_there(item, copied).await
        {
            noted = None;
        }
        if let Some(copied) = noted {
            // Copied by an earlier run or an earlier pass. Serving sources change anyway: the offline pass looks.
            if self.state == State::CloneOnline || item.unchanged {
                self.count_equal(item, copied.rows);
                return Ok(None);
            }
            if self.sum_at_source(item, transaction).await? == Some(copied) {
                self.count_equal(item, copied.rows);
                return Ok(None);
            }
        }
        let range = &item.piece.range;
        let begin = Instant::now();
        let mut bulk =
            keyless || noted.is_none() && (job.fresh || copy::is_empty(&self.targets, &job.table, range).await?);
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let endpoint = &source.endpoints[turn % source.endpoints.len()];
            let reading = Reading { endpoint, shard: &self.ranges[item.source], transaction };
            let progress = &self.progress[item.table];
            let outcome = if bulk {
                let copied = copy::copy(job, range, &reading, &self.targets, &self.options, progress).await;
                if let Ok(sum) = &copied {
                    self.count_inserts(item, sum.rows);
                }
                copied
            } else {
                let reconciler = Reconciler {
                    job,
                    targets: &self.targets,
                    options: &self.options,
                    progress,
                    counters: self.counters(),
                    source: reading,
                };
                reconciler.run(range).await
            };
            match outcome {
                Ok(sum) => return Ok(Some(sum)),
                // A part of the piece may be there. Without a key there is nothing to compare by.
                Err(Failure::Duplicate(error)) if bulk && !keyless => {
                    tracing::info!("table {}: rows are there already, comparing: {error}", job.table.name);
                    bulk = false;
                }
                Err(Failure::Read(error))
                    if !keyless && transaction == 0 && begin.elapsed() < self.context.env.settings.retry_duration =>
                {
                    tracing::warn!(
                        "table {}: reading from {} failed, trying again: {error}",
                        job.table.name,
                        endpoint.alias()
                    );
                    tokio::time::sleep(READ_PAUSE).await;
                    bulk = false;
                }
                Err(failure) => return Err(failure.into_error()),
            }
        }
    }

    fn count_inserts(&self, item: &Item, rows: u64) {
        if rows > 0 {
            let table = &self.jobs[item.table].table.name;
            self.counters().inserts.add(&[table], i64::try_from(rows).unwrap_or(i64::MAX));
            self.progress[item.table].inserts.fetch_add(rows, Ordering::Relaxed);
        }
    }

    /// Whether the destinations hold what is noted of a piece, as their own checksums say. Rows of other sources that lie
    /// between make that unknown: the rows are compared then.
    async fn is_there(&self, item: &Item, copied: Checksum) -> bool {
        let job = &self.jobs[item.table];
        let (own, destinations) = (&self.ranges[item.source], &self.targets.ranges);
        let mut all = Checksum::default();
        for at in destinations.fed(&job.route, own) {
            let whole = matches!(job.route, Route::All);
            if !whole && !destinations.range(at).intersects(own) {
                continue;
            }
            if !whole && !own.contains_range(destinations.range(at)) {
                return false;
            }
            let master = self.targets.writers[at].master();
            match copy::checksum_at(&job.table, &item.piece.range, &master).await {
                Some(sum) if whole && sum == copied => all = copied,
                Some(sum) if !whole => all = Checksum { rows: all.rows + sum.rows, xor: all.xor ^ sum.xor },
                _ => return false,
            }
        }
        all == copied
    }

    /// The checksum of a piece at the source as it is now.
    async fn sum_at_source(&self, item: &Item, transaction: i64) -> Result<Option<Checksum>> {
        let table = &self.jobs[item.table].table;
        let endpoint = &self.sources[item.source].endpoints[0];
        let range: &Range = &item.piece.range;
        if transaction == 0 {
            return Ok(copy::checksum_at(table, range, endpoint).await);
        }
        // The snapshot is seen by its transaction alone.
        use futures::StreamExt;
        let mut hasher = Hasher::default();
        let mut stream = endpoint.stream(copy::select(table, range), transaction).await?;
        while let Some(result) = stream.next().await {
            for row in &result?.rows {
                hasher.add(row, table.columns.len());
            }
        }
        Ok(Some(hasher.sum()))
    }
}
