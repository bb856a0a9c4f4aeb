//! Holds back queries for a master while a failover runs, so that clients see latency, not errors.
//!
//! Owns: which shards are in a failover, the queries that wait, and the `Buffer*` numbers.
//! Invariants: no more than `size` queries wait at once; none waits longer than `window`; no
//! failover is waited for longer than `max_failover_duration`. A dropped waiter leaves the queue.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};
use vterrors::{Code, Result, VtError};
use vtproto::topodata::TabletType;

use crate::{
    grpc,
    health_check::{HealthListener, TabletHealth},
};

/// The `-buffer_*` flags.
#[derive(Debug, Clone)]
pub struct BufferOptions {
    /// `-enable_buffer`; false with `dry_run` false means that nothing is buffered at all.
    pub enabled: bool,
    /// Only count what would be buffered (`-enable_buffer_dry_run`).
    pub dry_run: bool,
    /// Longest wait of one query (`-buffer_window`).
    pub window: Duration,
    /// Most queries that wait at once, over all shards (`-buffer_size`).
    pub size: usize,
    /// A failover that lasts longer is given up on (`-buffer_max_failover_duration`).
    pub max_failover_duration: Duration,
    /// No second failover of a shard is waited for within this time
    /// (`-buffer_min_time_between_failovers`).
    pub min_time_between_failovers: Duration,
    /// Queries sent at once when the failover is over (`-buffer_drain_concurrency`).
    pub drain_concurrency: usize,
    /// Keyspaces (`ks`) and shards (`ks/shard`) to buffer for; empty means all
    /// (`-buffer_keyspace_shards`).
    pub keyspace_shards: BTreeSet<String>,
}

impl Default for BufferOptions {
    fn default() -> Self {
        Self {
            enabled: false,
            dry_run: false,
            window: Duration::from_secs(10),
            size: 10,
            max_failover_duration: Duration::from_secs(20),
            min_time_between_failovers: Duration::from_secs(60),
            drain_concurrency: 1,
            keyspace_shards: BTreeSet::new(),
        }
    }
}

/// The numbers behind the `Buffer*` variables. Keys are `keyspace.shard`, where a reason is counted
/// `keyspace.shard.Reason`.
#[derive(Debug, Default, Clone)]
pub struct BufferMetrics {
    pub starts: BTreeMap<String, i64>,
    pub stops: BTreeMap<String, i64>,
    pub failover_duration_sum_ms: BTreeMap<String, i64>,
    pub last_failover_duration_ms: BTreeMap<String, i64>,
    pub last_requests_in_flight_max: BTreeMap<String, i64>,
    pub last_requests_dry_run_max: BTreeMap<String, i64>,
    pub requests_buffered: BTreeMap<String, i64>,
    pub requests_buffered_dry_run: BTreeMap<String, i64>,
    pub requests_drained: BTreeMap<String, i64>,
    pub requests_evicted: BTreeMap<String, i64>,
    pub requests_skipped: BTreeMap<String, i64>,
    /// Percent of the buffer used at most in each failover, added up.
    pub utilization_sum: BTreeMap<String, i64>,
    pub utilization_dry_run_sum: BTreeMap<String, i64>,
}

/// Held by a query that was buffered while it tries again; limits how many do so at once.
#[derive(Debug)]
pub struct Drained {
    _permit: Option<OwnedSemaphorePermit>,
}

enum Release {
    Go(OwnedSemaphorePermit),
    Evicted,
}

struct Waiter {
    id: u64,
    wake: oneshot::Sender<Release>,
}

#[derive(Default)]
enum Phase {
    #[default]
    Idle,
    Buffering {
        since: Instant,
        /// The master has said, or shown by its absence, that it does not serve.
        saw_not_serving: bool,
    },
    Draining,
}

#[derive(Default)]
struct Shard {
    phase: Phase,
    waiting: VecDeque<Waiter>,
    /// Unix seconds of the newest master's term; 0 until a master has served.
    newest_term: i64,
    /// Whether the master of that term serves, as far as it has said.
    master_serves: bool,
    last_end: Option<Instant>,
    /// Most that waited at once in this failover.
    peak: usize,
    generation: u64,
}

#[derive(Default)]
struct State {
    shards: HashMap<(String, String), Shard>,
    waiting: usize,
    next_id: u64,
    metrics: BufferMetrics,
}

struct Inner {
    options: BufferOptions,
    state: Mutex<State>,
    /// Shards that are buffering: without any, a query passes without taking the lock.
    active: AtomicUsize,
}

/// Buffers queries for masters. Cloning shares it.
#[derive(Clone)]
pub struct Buffer {
    inner: Arc<Inner>,
}

fn add(map: &mut BTreeMap<String, i64>, key: String, count: i64) {
    *map.entry(key).or_default() += count;
}

/// Why a query that is for a master did not get its answer.
#[derive(Debug, Clone, Copy)]
pub enum Failure<'a> {
    /// No tablet says that it is the master and serves.
    NoMaster,
    /// A master answered with this error.
    Refused(&'a VtError),
    /// The connection broke under a query that may be sent once more.
    ConnectionLost,
}

impl Failure<'_> {
    /// Whether another tablet is about to be master, or the same one again. `had_master` says whether the shard ever had
    /// one: without, there is nothing to wait for.
    fn caused_by_failover(self, had_master: bool) -> bool {
        match self {
            Self::NoMaster => had_master,
            Self::Refused(error) => caused_by_failover(error),
            Self::ConnectionLost => true,
        }
    }
}

/// Whether a master's answer means that another tablet is about to take its place.
fn caused_by_failover(error: &VtError) -> bool {
    let text = error.message();
    match error.code() {
        Code::FailedPrecondition => {
            text.contains("operation not allowed in state")
                || text.contains("invalid tablet type")
                || (text.contains("(errno 1290)") && text.contains("read-only"))
                || text.contains("failover in progress")
        }
        Code::PermissionDenied => text.contains("failover in progress (errno 1227)"),
        Code::Unavailable => grpc::never_sent(error),
        _ => false,
    }
}

impl Buffer {
    pub fn new(options: BufferOptions) -> Self {
        Self { inner: Arc::new(Inner { options, state: Mutex::default(), active: AtomicUsize::new(0) }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn metrics(&self) -> BufferMetrics {
        self.state().metrics.clone()
    }

    /// How many queries may wait at once.
    pub fn size(&self) -> usize {
        self.inner.options.size
    }

    fn covers(&self, keyspace: &str, shard: &str) -> bool {
        let wanted = &self.inner.options.keyspace_shards;
        wanted.is_empty() || wanted.contains(keyspace) || wanted.contains(&format!("{keyspace}/{shard}"))
    }

    /// To be called before a query goes to a master (`failure` is none) and when it has failed.
    /// Returns at once unless a failover runs or `failure` shows that one begins; otherwise when the
    /// query should be tried (again). `None` means that it was not buffered.
    ///
    /// # Errors
    /// UNAVAILABLE when the buffer is full or a newer query took the place.
    pub async fn wait_for_failover_end(
        &self,
        keyspace: &str,
        shard: &str,
        failure: Option<Failure<'_>>,
    ) -> Result<Option<Drained>> {
        let options = &self.inner.options;
        if !options.enabled && !options.dry_run {
            return Ok(None);
        }
        if failure.is_none() && self.inner.active.load(Ordering::Acquire) == 0 {
            return Ok(None);
        }
        let Some((id, wake)) = self.enter(keyspace, shard, failure)? else { return Ok(None) };
        // Leaves the queue on every way out, also when the caller is dropped.
        let place = Place { buffer: self, keyspace, shard, id };
        let outcome = tokio::time::timeout(options.window, wake).await;
        match outcome {
            Ok(Ok(Release::Go(permit))) => {
                std::mem::forget(place);
                Ok(Some(Drained { _permit: Some(permit) }))
            }
            Ok(Ok(Release::Evicted)) => {
                std::mem::forget(place);
                Err(VtError::new(Code::Unavailable, "buffer full: request evicted for newer request"))
            }
            // Tried once more: the master may be back, and if not its own error says more.
            Ok(Err(_)) | Err(_) => {
                place.leave("WindowExceeded");
                Ok(Some(Drained { _permit: None }))
            }
        }
    }

    fn enter(
        &self,
        keyspace: &str,
        shard: &str,
        failure: Option<Failure<'_>>,
    ) -> Result<Option<(u64, oneshot::Receiver<Release>)>> {
        let options = &self.inner.options;
        let mut guard = self.state();
        let state = &mut *guard;
        let known = state.shards.get_mut(&(keyspace.to_string(), shard.to_string()));
        let buffering = matches!(known.as_ref().map(|s| &s.phase), Some(Phase::Buffering { .. }));
        let had_master = known.as_ref().is_some_and(|shard| shard.newest_term > 0);
        let begins = failure.is_some_and(|failure| failure.caused_by_failover(had_master));
        if !buffering && !begins {
            return Ok(None);
        }
        let name = format!("{keyspace}.{shard}");
        if !self.covers(keyspace, shard) {
            add(&mut state.metrics.requests_skipped, format!("{name}.Disabled"), 1);
            return Ok(None);
        }
        let entry = match known {
            Some(entry) => entry,
            None => state.shards.entry((keyspace.to_string(), shard.to_string())).or_default(),
        };
        if !buffering {
            if matches!(entry.phase, Phase::Draining) {
                return Ok(None);
            }
            if entry.last_end.is_some_and(|end| end.elapsed() < options.min_time_between_failovers) {
                add(&mut state.metrics.requests_skipped, format!("{name}.LastFailoverTooRecent"), 1);
                return Ok(None);
            }
            entry.phase = Phase::Buffering { since: Instant::now(), saw_not_serving: !entry.master_serves };
            entry.peak = 0;
            entry.generation += 1;
            self.inner.active.fetch_add(1, Ordering::AcqRel);
            add(&mut state.metrics.starts, name.clone(), 1);
            tracing::info!(keyspace, shard, dry_run = options.dry_run, "a failover began: buffering");
            let (buffer, generation) = (self.clone(), entry.generation);
            let (keyspace, shard) = (keyspace.to_string(), shard.to_string());
            tokio::spawn(async move {
                tokio::time::sleep(buffer.inner.options.max_failover_duration).await;
                buffer.stop(&keyspace, &shard, Some(generation), "MaxDurationExceeded");
            });
        }
        if options.dry_run && !options.enabled {
            entry.peak += 1;
            add(&mut state.metrics.requests_buffered_dry_run, name, 1);
            return Ok(None);
        }
        if state.waiting >= options.size {
            // The oldest of the same shard has waited most and is likely to run out of time anyway.
            let Some(oldest) = entry.waiting.pop_front() else {
                add(&mut state.metrics.requests_skipped, format!("{name}.BufferFull"), 1);
                return Err(VtError::new(Code::Unavailable, "master buffer is full"));
            };
            state.waiting -= 1;
            add(&mut state.metrics.requests_evicted, format!("{name}.BufferFull"), 1);
            // A waiter that has gone away needs no answer.
            let _ = oldest.wake.send(Release::Evicted);
        }
        let (wake, receiver) = oneshot::channel();
        state.next_id += 1;
        let id = state.next_id;
        entry.waiting.push_back(Waiter { id, wake });
        entry.peak = entry.peak.max(entry.waiting.len());
        state.waiting += 1;
        add(&mut state.metrics.requests_buffered, name, 1);
        Ok(Some((id, receiver)))
    }

    /// Ends the buffering of a shard and lets those who wait go, a few at a time.
    fn stop(&self, keyspace: &str, shard: &str, generation: Option<u64>, reason: &str) {
        let options = &self.inner.options;
        {
            let mut guard = self.state();
            let state = &mut *guard;
            let Some(entry) = state.shards.get_mut(&(keyspace.to_string(), shard.to_string())) else { return };
            let Phase::Buffering { since, .. } = entry.phase else { return };
            if generation.is_some_and(|generation| generation != entry.generation) {
                return;
            }
            let name = format!("{keyspace}.{shard}");
            let took = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
            tracing::info!(keyspace, shard, reason, milliseconds = took, "buffering ended");
            let peak = i64::try_from(entry.peak).unwrap_or(i64::MAX);
            let percent = peak * 100 / i64::try_from(options.size.max(1)).unwrap_or(i64::MAX);
            let metrics = &mut state.metrics;
            add(&mut metrics.stops, format!("{name}.{reason}"), 1);
            add(&mut metrics.failover_duration_sum_ms, name.clone(), took);
            metrics.last_failover_duration_ms.insert(name.clone(), took);
            if options.enabled {
                metrics.last_requests_in_flight_max.insert(name.clone(), peak);
                add(&mut metrics.utilization_sum, name, percent);
            } else {
                metrics.last_requests_dry_run_max.insert(name.clone(), peak);
                add(&mut metrics.utilization_dry_run_sum, name, percent);
            }
            entry.phase = Phase::Draining;
            self.inner.active.fetch_sub(1, Ordering::AcqRel);
            entry.last_end = Some(Instant::now());
        }
        let buffer = self.clone();
        let (keyspace, shard) = (keyspace.to_string(), shard.to_string());
        tokio::spawn(async move { buffer.drain(keyspace, shard).await });
    }

    async fn drain(&self, keyspace: String, shard: String) {
        let turns = Arc::new(Semaphore::new(self.inner.options.drain_concurrency.max(1)));
        loop {
            // Never closed, so this only waits for a turn.
            let Ok(permit) = turns.clone().acquire_owned().await else { return };
            let mut guard = self.state();
            let state = &mut *guard;
            let Some(entry) = state.shards.get_mut(&(keyspace.clone(), shard.clone())) else { return };
            let Some(waiter) = entry.waiting.pop_front() else {
                entry.phase = Phase::Idle;
                entry.last_end = Some(Instant::now());
                return;
            };
            state.waiting -= 1;
            if waiter.wake.send(Release::Go(permit)).is_ok() {
                add(&mut state.metrics.requests_drained, format!("{keyspace}.{shard}"), 1);
            }
        }
    }
}

/// A query's place in the queue.
struct Place<'a> {
    buffer: &'a Buffer,
    keyspace: &'a str,
    shard: &'a str,
    id: u64,
}

impl Place<'_> {
    fn leave(self, reason: &str) {
        self.remove(reason);
        std::mem::forget(self);
    }

    fn remove(&self, reason: &str) {
        let mut guard = self.buffer.state();
        let state = &mut *guard;
        let Some(entry) = state.shards.get_mut(&(self.keyspace.to_string(), self.shard.to_string())) else { return };
        let before = entry.waiting.len();
        entry.waiting.retain(|waiter| waiter.id != self.id);
        if entry.waiting.len() < before {
            state.waiting -= 1;
            add(&mut state.metrics.requests_evicted, format!("{}.{}.{reason}", self.keyspace, self.shard), 1);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.remove("ContextDone");
    }
}

impl HealthListener for Buffer {
    fn tablet_changed(&self, health: &TabletHealth) {
        if health.target.tablet_type() != TabletType::Master {
            return;
        }
        let (keyspace, shard) = (&health.target.keyspace, &health.target.shard);
        let mut over = None;
        {
            let mut guard = self.state();
            let entry = guard.shards.entry((keyspace.clone(), shard.clone())).or_default();
            let term = health.reparented_timestamp;
            if term < entry.newest_term {
                return;
            }
            entry.master_serves = health.is_healthy();
            if !health.is_healthy() {
                if let Phase::Buffering { saw_not_serving, .. } = &mut entry.phase {
                    *saw_not_serving = true;
                }
                return;
            }
            match entry.phase {
                Phase::Buffering { .. } if term > entry.newest_term => over = Some("NewMasterSeen"),
                Phase::Buffering { saw_not_serving: true, .. } => over = Some("MasterServingAgain"),
                _ => {}
            }
            entry.newest_term = term;
        }
        if let Some(reason) = over {
            self.stop(keyspace, shard, None, reason);
        }
    }
}
