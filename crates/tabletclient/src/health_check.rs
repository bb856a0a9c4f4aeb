//! The health of tablets: one StreamHealth call per tablet, and what all of them say together.
//!
//! Owns: the streams, their retries and the table of what each tablet reported last. Does not own:
//! which tablets exist (`topology_watcher.rs`) and which one gets a query (`gateway.rs`).
//! Invariants: readers take a snapshot and never wait for a stream; at most one MASTER per shard is
//! offered, the one with the latest term, even if an older one still claims to serve; calls to a
//! tablet whose stream has failed are ended through [`TabletHealth::closed`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::StreamExt;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::{RealtimeStats, StreamHealthResponse, Target},
    topodata::{Tablet, TabletType},
};

use crate::{QueryService, alias_text, replication_lag::LagOptions};

/// Longest pause between two attempts to reach a tablet.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Longest wait of a statement for tablets that nobody has heard of, and least time between two looks for them.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How long such a statement waits where all tablets that are known have spoken or cannot be reached.
const STARTING_LIMIT: Duration = Duration::from_secs(1);

/// Makes the client of a tablet; [`crate::grpc::dial`] in servers.
pub type Dialer = dyn Fn(&Tablet) -> Result<Arc<dyn QueryService>> + Send + Sync;

/// Settings of a [`HealthCheck`].
#[derive(Debug, Clone)]
pub struct HealthCheckOptions {
    /// First pause after a failed stream; doubled at each failure in a row (`-healthcheck_retry_delay`).
    pub retry_delay: Duration,
    /// A tablet that says nothing for this long is taken as down (`-healthcheck_timeout`).
    pub timeout: Duration,
    pub lag: LagOptions,
}

impl Default for HealthCheckOptions {
    fn default() -> Self {
        Self { retry_delay: Duration::from_millis(2), timeout: Duration::from_secs(60), lag: LagOptions::default() }
    }
}

/// What is known of one tablet at one moment.
#[derive(Clone)]
pub struct TabletHealth {
    /// Its topology record.
    pub tablet: Arc<Tablet>,
    /// What it says it is; before its first message, what its record says.
    pub target: Arc<Target>,
    /// Whether its health stream is open and has spoken.
    pub up: bool,
    /// Whether its query service is open and it reports no fault.
    pub serving: bool,
    /// Unix seconds of its term as master; 0 for other types.
    pub reparented_timestamp: i64,
    pub stats: RealtimeStats,
    /// Why it is not healthy, when it is not.
    pub last_error: Option<String>,
    /// Its query service.
    pub service: Arc<dyn QueryService>,
    /// Ends when the stream fails: a call that is still running then will not be answered.
    pub closed: CancellationToken,
    /// Calls to it that are under way.
    pub in_flight: Arc<AtomicUsize>,
}

impl TabletHealth {
    /// `zone1-0000000100`
    pub fn alias(&self) -> String {
        alias_text(self.tablet.alias.as_ref())
    }

    /// The tablet as error texts name it: `zone1-100 (host tag=value)`.
    pub fn label(&self) -> String {
        let alias = self.tablet.alias.clone().unwrap_or_default();
        let mut label = format!("{}-{} ({}", alias.cell, alias.uid, self.tablet.hostname);
        for (tag, value) in &self.tablet.tags {
            label.push_str(&format!(" {tag}={value}"));
        }
        label.push(')');
        label
    }

    /// Whether queries may go to it, replication lag aside.
    pub fn is_healthy(&self) -> bool {
        self.up && self.serving && self.last_error.is_none()
    }

    pub fn lag_seconds(&self) -> u32 {
        self.stats.seconds_behind_master
    }

    pub fn cell(&self) -> &str {
        self.tablet.alias.as_ref().map_or("", |alias| alias.cell.as_str())
    }
}

/// The tablets of one keyspace, shard and type.
#[derive(Clone, Default)]
pub struct Group {
    /// Those to choose from: healthy, and not lagging too far. Of masters at most one.
    pub healthy: Vec<Arc<TabletHealth>>,
    /// All of them.
    pub all: Vec<Arc<TabletHealth>>,
}

/// Number of tablet types in `topodata.TabletType`.
const TYPES: usize = 9;
type Groups = [Option<Box<Group>>; TYPES];

/// All tablets by keyspace, shard and type.
#[derive(Default)]
pub struct Snapshot {
    keyspaces: HashMap<String, HashMap<String, Groups>>,
}

impl Snapshot {
    /// The tablets of a target; nothing when no such tablet has ever been seen.
    pub fn group(&self, keyspace: &str, shard: &str, tablet_type: TabletType) -> Option<&Group> {
        self.keyspaces.get(keyspace)?.get(shard)?.get(tablet_type as usize)?.as_deref()
    }

    /// Every group with its keyspace, shard and type, sorted.
    pub fn groups(&self) -> Vec<(&str, &str, TabletType, &Group)> {
        let mut all = Vec::new();
        for (keyspace, shards) in &self.keyspaces {
            for (shard, groups) in shards {
                for (number, group) in groups.iter().enumerate() {
                    if let Some(group) = group {
                        let number = i32::try_from(number).unwrap_or_default();
                        let tablet_type = TabletType::try_from(number).unwrap_or(TabletType::Unknown);
                        all.push((keyspace.as_str(), shard.as_str(), tablet_type, &**group));
                    }
                }
            }
        }
        all.sort_by(|a, b| (a.0, a.1, a.2 as i32).cmp(&(b.0, b.1, b.2 as i32)));
        all
    }
}

/// Told of every health message, after the snapshot that includes it is visible.
pub trait HealthListener: Send + Sync {
    fn tablet_changed(&self, health: &TabletHealth);
}

/// Counters of a [`HealthCheck`], keyed `keyspace.shard.type` (promotions: `keyspace.shard`).
#[derive(Debug, Default, Clone)]
pub struct HealthCounters {
    pub errors: BTreeMap<String, u64>,
    pub master_promoted: BTreeMap<String, u64>,
}

struct Watched {
    health: Arc<TabletHealth>,
    stop: CancellationToken,
}

struct Inner {
    options: HealthCheckOptions,
    dialer: Box<Dialer>,
    tablets: Mutex<HashMap<String, Watched>>,
    snapshot: ArcSwap<Snapshot>,
    version: watch::Sender<u64>,
    listeners: Mutex<Vec<Arc<dyn HealthListener>>>,
    counters: Mutex<HealthCounters>,
    updates: AtomicU64,
    /// How often the topology was wanted read at once.
    looks: watch::Sender<u64>,
    lookers: Mutex<Vec<Arc<AtomicU64>>>,
    last_look: Mutex<Option<Look>>,
}

/// The last time that somebody wanted the topology read.
#[derive(Clone, Copy)]
struct Look {
    number: u64,
    begun: Instant,
}

/// One who knows which tablets exist. Looks are waited for until all of them have looked.
pub(crate) struct Looker {
    inner: Arc<Inner>,
    wanted: watch::Receiver<u64>,
    /// The last look that it has answered.
    answered: Arc<AtomicU64>,
}

impl Looker {
    /// Resolves when a look is wanted that [`Looker::begin`] has not seen.
    pub async fn wanted(&mut self) {
        if self.wanted.changed().await.is_err() {
            std::future::pending().await
        }
    }

    /// The look that a reading answers which begins now.
    pub fn begin(&mut self) -> u64 {
        *self.wanted.borrow_and_update()
    }

    /// The reading is done; its tablets are being watched.
    pub fn answer(&self, look: u64) {
        self.answered.store(look, Ordering::Release);
        self.inner.changed();
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        lock(&self.inner.lookers).retain(|other| !Arc::ptr_eq(other, &self.answered));
        self.inner.changed();
    }
}

/// Watches the health of the tablets it is given. Cloning shares it; all streams end when the last
/// clone is dropped.
#[derive(Clone)]
pub struct HealthCheck {
    inner: Arc<Inner>,
    // Held by clones only, not by the tasks: its drop stops them.
    _stop_all: Arc<tokio_util::sync::DropGuard>,
    stop: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is changed in single steps, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HealthCheck {
    pub fn new(
        options: HealthCheckOptions,
        dialer: impl Fn(&Tablet) -> Result<Arc<dyn QueryService>> + Send + Sync + 'static,
    ) -> Self {
        let stop = CancellationToken::new();
        let inner = Arc::new(Inner {
            options,
            dialer: Box::new(dialer),
            tablets: Mutex::default(),
            snapshot: ArcSwap::default(),
            version: watch::channel(0).0,
            listeners: Mutex::default(),
            counters: Mutex::default(),
            updates: AtomicU64::new(0),
            looks: watch::channel(0).0,
            lookers: Mutex::default(),
            last_look: Mutex::default(),
        });
        Self { inner, _stop_all: Arc::new(stop.clone().drop_guard()), stop }
    }

    /// Starts to watch a tablet. A record that is already watched is left alone; one with another
    /// address, keyspace or shard replaces it.
    pub fn add_tablet(&self, tablet: Tablet) {
        let alias = alias_text(tablet.alias.as_ref());
        let mut tablets = lock(&self.inner.tablets);
        if let Some(known) = tablets.get(&alias) {
            if same_place(&known.health.tablet, &tablet) {
                return;
            }
            known.stop.cancel();
            known.health.closed.cancel();
        }
        let service = match (self.inner.dialer)(&tablet) {
            Ok(service) => service,
            Err(error) => {
                tracing::warn!(tablet = %alias, "cannot watch tablet: {error}");
                tablets.remove(&alias);
                return;
            }
        };
        let stop = self.stop.child_token();
        let health = Arc::new(TabletHealth {
            target: Arc::new(Target {
                keyspace: tablet.keyspace.clone(),
                shard: tablet.shard.clone(),
                tablet_type: tablet.r#type,
                cell: String::new(),
            }),
            tablet: Arc::new(tablet),
            up: false,
            serving: false,
            reparented_timestamp: 0,
            stats: RealtimeStats::default(),
            last_error: None,
            service,
            closed: CancellationToken::new(),
            in_flight: Arc::default(),
        });
        tablets.insert(alias.clone(), Watched { health, stop: stop.clone() });
        drop(tablets);
        self.inner.rebuild();
        let inner = self.inner.clone();
        tokio::spawn(async move { stop.run_until_cancelled(inner.watch(&alias, &stop)).await });
    }

    /// Stops watching a tablet, by its padded alias.
    pub fn remove_tablet(&self, alias: &str) {
        let removed = lock(&self.inner.tablets).remove(alias);
        if let Some(removed) = removed {
            removed.stop.cancel();
            removed.health.closed.cancel();
            self.inner.rebuild();
        }
    }

    /// The tablets as last heard of. Never waits.
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.inner.snapshot.load()
    }

    /// What each tablet reported last, sorted by alias.
    pub fn tablets(&self) -> Vec<Arc<TabletHealth>> {
        let mut all: Vec<_> = lock(&self.inner.tablets).iter().map(|(k, w)| (k.clone(), w.health.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all.into_iter().map(|(_, health)| health).collect()
    }

    /// For a target of which no tablet is known that will do: has the topology read now instead of at the next interval,
    /// and waits until `is_there` is true of the snapshot, at most [`LOOK_LIMIT`], once every tablet of the shard has spoken
    /// [`STARTING_LIMIT`], and not at all for a shard without tablets once all is read. Returns whether one is there. Who comes within [`LOOK_LIMIT`] shares the look, so that
    /// targets that do not exist burden nobody.
    pub async fn look_for(&self, target: &Target, is_there: impl Fn() -> bool) -> bool {
        let (look, begins) = {
            let mut last = lock(&self.inner.last_look);
            match *last {
                Some(look) if look.begun.elapsed() < LOOK_LIMIT => (look, false),
                _ => {
                    let number = last.map_or(0, |look| look.number) + 1;
                    let look = Look { number, begun: Instant::now() };
                    *last = Some(look);
                    (look, true)
                }
            }
        };
        let mut version = self.inner.version.subscribe();
        if begins {
            self.inner.looks.send_replace(look.number);
        }
        loop {
            let expected = self.inner.expected(look.number, target);
            // Behind that: what was expected may be here by now.
            if is_there() {
                return true;
            }
            let until = match expected {
                Expected::Nothing => return false,
                Expected::Starting => look.begun + STARTING_LIMIT,
                Expected::Soon => look.begun + LOOK_LIMIT,
            };
            match tokio::time::timeout_at(until, version.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return false,
            }
        }
    }

    /// One more who reads the topology and calls [`HealthCheck::add_tablet`].
    pub(crate) fn looker(&self) -> Looker {
        let answered = Arc::new(AtomicU64::new(0));
        lock(&self.inner.lookers).push(answered.clone());
        Looker { inner: self.inner.clone(), wanted: self.inner.looks.subscribe(), answered }
    }

    pub fn add_listener(&self, listener: Arc<dyn HealthListener>) {
        lock(&self.inner.listeners).push(listener);
    }

    pub fn counters(&self) -> HealthCounters {
        lock(&self.inner.counters).clone()
    }

    /// Tablets that queries can go to, by `keyspace.shard.type`.
    pub fn connections(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for health in self.tablets().iter().filter(|health| health.is_healthy()) {
            *counts.entry(target_text(&health.target)).or_default() += 1;
        }
        counts
    }

    /// Waits until each target has a tablet that queries can go to.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED, naming the targets that are still missing.
    pub async fn wait_for_tablets(&self, targets: &[Target], limit: Duration) -> Result<()> {
        let mut version = self.inner.version.subscribe();
        let missing = || -> Vec<String> {
            let snapshot = self.snapshot();
            let has = |t: &&Target| {
                snapshot.group(&t.keyspace, &t.shard, t.tablet_type()).is_some_and(|group| !group.healthy.is_empty())
            };
            targets.iter().filter(|t| !has(t)).map(target_text).collect()
        };
        let all_there = async {
            loop {
                version.mark_unchanged();
                if missing().is_empty() {
                    return;
                }
                if version.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(limit, all_there).await.is_ok() {
            return Ok(());
        }
        let missing = missing();
        if missing.is_empty() {
            return Ok(());
        }
        Err(VtError::new(
            Code::DeadlineExceeded,
            format!("no healthy tablet within {limit:?} for: {}", missing.join(", ")),
        ))
    }
}

/// What may still come of a look.
enum Expected {
    Nothing,
    /// The shard has tablets that have spoken or cannot be reached, and none that has yet to do either: what is wanted may
    /// just be starting.
    Starting,
    /// Who knows which tablets there are has not answered, or a tablet has yet to speak.
    Soon,
}

impl Inner {
    fn expected(&self, look: u64, target: &Target) -> Expected {
        let unanswered = lock(&self.lookers).iter().any(|answered| answered.load(Ordering::Acquire) < look);
        let tablets = lock(&self.tablets);
        let shard = tablets
            .values()
            .map(|watched| &watched.health)
            .filter(|health| health.target.keyspace == target.keyspace && health.target.shard == target.shard);
        // A cell that cannot be read does not hold up shards that are known.
        let mut expected = if unanswered { Expected::Soon } else { Expected::Nothing };
        for health in shard {
            if !health.up && health.last_error.is_none() {
                return Expected::Soon;
            }
            expected = Expected::Starting;
        }
        expected
    }

    /// Follows one tablet until told to stop.
    async fn watch(&self, alias: &str, stop: &CancellationToken) {
        let mut delay = self.options.retry_delay;
        loop {
            let Some(health) = self.current(alias, stop) else { return };
            let error = match self.follow(alias, stop, &health, &mut delay).await {
                Ok(()) => return,
                Err(error) => error,
            };
            self.failed(alias, stop, &error);
            tokio::time::sleep(delay).await;
            delay = (delay * 2).clamp(Duration::from_millis(1), MAX_RETRY_DELAY.min(self.options.timeout));
        }
    }

    /// Reads one health stream to its end. `Ok` when the tablet is no longer ours to watch.
    async fn follow(
        &self,
        alias: &str,
        stop: &CancellationToken,
        health: &TabletHealth,
        delay: &mut Duration,
    ) -> Result<()> {
        let silent =
            |_| VtError::new(Code::DeadlineExceeded, format!("no health message for {:?}", self.options.timeout));
        let mut stream =
            tokio::time::timeout(self.options.timeout, health.service.stream_health()).await.map_err(silent)??;
        loop {
            let message = tokio::time::timeout(self.options.timeout, stream.next()).await.map_err(silent)?;
            let Some(message) = message else {
                return Err(VtError::new(Code::Unavailable, "the tablet ended its health stream"));
            };
            let message = message?;
            if let (Some(said), Some(expected)) = (&message.tablet_alias, &health.tablet.alias)
                && said != expected
            {
                let said = alias_text(Some(said));
                return Err(VtError::new(
                    Code::FailedPrecondition,
                    format!("health stats mismatch, tablet {alias} expected, {said} answers at its address"),
                ));
            }
            *delay = self.options.retry_delay;
            if !self.heard(alias, stop, message) {
                return Ok(());
            }
        }
    }

    /// The tablet's state, unless another watch has taken it over.
    fn current(&self, alias: &str, stop: &CancellationToken) -> Option<Arc<TabletHealth>> {
        if stop.is_cancelled() {
            return None;
        }
        lock(&self.tablets).get(alias).map(|watched| watched.health.clone())
    }

    fn heard(&self, alias: &str, stop: &CancellationToken, message: StreamHealthResponse) -> bool {
        let Some(old) = self.current(alias, stop) else { return false };
        let stats = message.realtime_stats.unwrap_or_default();
        let target = match message.target {
            Some(target) if target == *old.target => old.target.clone(),
            Some(target) => Arc::new(target),
            None => old.target.clone(),
        };
        let fault = (!stats.health_error.is_empty()).then(|| format!("vttablet error: {}", stats.health_error));
        let health = Arc::new(TabletHealth {
            tablet: old.tablet.clone(),
            target,
            up: true,
            serving: message.serving && fault.is_none(),
            reparented_timestamp: message.tablet_externally_reparented_timestamp,
            stats,
            last_error: fault,
            service: old.service.clone(),
            closed: old.closed.clone(),
            in_flight: old.in_flight.clone(),
        });
        let promoted =
            health.target.tablet_type() == TabletType::Master && old.target.tablet_type() != TabletType::Master;
        if promoted {
            let key = format!("{}.{}", health.target.keyspace, health.target.shard);
            *lock(&self.counters).master_promoted.entry(key).or_default() += 1;
        }
        self.store(alias, stop, &old, health)
    }

    fn failed(&self, alias: &str, stop: &CancellationToken, error: &VtError) {
        let Some(old) = self.current(alias, stop) else { return };
        *lock(&self.counters).errors.entry(target_text(&old.target)).or_default() += 1;
        let text = error.to_string();
        if old.up {
            tracing::warn!(tablet = %alias, "health stream ended: {text}");
        } else if old.last_error.as_ref() != Some(&text) {
            // A certificate or password that is wrong, say. Told once.
            tracing::warn!(tablet = %alias, "no health stream: {text}");
        }
        old.closed.cancel();
        let health = Arc::new(TabletHealth {
            up: false,
            serving: false,
            last_error: Some(text),
            closed: CancellationToken::new(),
            ..(*old).clone()
        });
        self.store(alias, stop, &old, health);
    }

    fn store(&self, alias: &str, stop: &CancellationToken, old: &TabletHealth, health: Arc<TabletHealth>) -> bool {
        {
            let mut tablets = lock(&self.tablets);
            match tablets.get_mut(alias) {
                Some(watched) if !stop.is_cancelled() => watched.health = health.clone(),
                _ => return false,
            }
        }
        // Loads change with every message and steer nothing, so they wait for a change that does.
        let same = old.target == health.target
            && old.is_healthy() == health.is_healthy()
            && old.up == health.up
            && old.last_error.is_some() == health.last_error.is_some()
            && old.reparented_timestamp == health.reparented_timestamp
            && old.lag_seconds() == health.lag_seconds();
        if !same {
            self.rebuild();
        }
        let listeners = lock(&self.listeners).clone();
        for listener in listeners {
            listener.tablet_changed(&health);
        }
        true
    }

    fn rebuild(&self) {
        // Built under the lock: two rebuilds at once could otherwise publish the older table last.
        let tablets = lock(&self.tablets);
        let mut snapshot = Snapshot::default();
        for watched in tablets.values() {
            let health = &watched.health;
            let target = &health.target;
            let number = usize::try_from(target.tablet_type).unwrap_or_default();
            let groups =
                snapshot.keyspaces.entry(target.keyspace.clone()).or_default().entry(target.shard.clone()).or_default();
            if let Some(slot) = groups.get_mut(number) {
                slot.get_or_insert_default().all.push(health.clone());
            }
        }
        for groups in snapshot.keyspaces.values_mut().flat_map(HashMap::values_mut) {
            for (number, group) in groups.iter_mut().enumerate() {
                let Some(group) = group else { continue };
                group.healthy = if number == TabletType::Master as usize {
                    // One that is down keeps its term: the one before it must not come back.
                    let latest = group.all.iter().max_by_key(|health| (health.reparented_timestamp, health.up));
                    latest.filter(|health| health.is_healthy()).cloned().into_iter().collect()
                } else {
                    let healthy = group.all.iter().filter(|health| health.is_healthy()).cloned().collect();
                    self.options.lag.filter(healthy)
                };
            }
        }
        self.snapshot.store(Arc::new(snapshot));
        drop(tablets);
        self.changed();
    }

    /// Wakes whoever waits for something to change.
    fn changed(&self) {
        let number = self.updates.fetch_add(1, Ordering::Relaxed) + 1;
        self.version.send_replace(number);
    }
}

/// Whether two records lead to the same tablet, so that its stream can go on.
fn same_place(a: &Tablet, b: &Tablet) -> bool {
    a.hostname == b.hostname
        && a.port_map == b.port_map
        && a.keyspace == b.keyspace
        && a.shard == b.shard
        && a.tags == b.tags
}

/// A target as metrics and errors name it: `commerce.0.master`.
pub fn target_text(target: &Target) -> String {
    format!("{}.{}.{}", target.keyspace, target.shard, type_text(target.tablet_type()))
}

/// A tablet type in lower case.
pub fn type_text(tablet_type: TabletType) -> &'static str {
    match tablet_type {
        TabletType::Unknown => "unknown",
        TabletType::Master => "master",
        TabletType::Replica => "replica",
        TabletType::Rdonly => "rdonly",
        TabletType::Spare => "spare",
        TabletType::Experimental => "experimental",
        TabletType::Backup => "backup",
        TabletType::Restore => "restore",
        TabletType::Drained => "drained",
    }
}
