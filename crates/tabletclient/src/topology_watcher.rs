//! Which tablets exist: reads a cell's tablet records again and again and hands them to the health
//! check.
//!
//! Owns: the polling and the filters. Invariants: a failed read removes nothing; a tablet leaves
//! only when its cell was read completely and it was not there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use futures::StreamExt;
use keyrange::KeyRange;
use tokio_util::sync::CancellationToken;
use topo::TopoServer;
use vterrors::{Code, VtError};
use vtproto::topodata::{Tablet, TabletAlias};

use crate::{
    alias_text,
    health_check::{HealthCheck, Looker},
};

/// Pause before a cell whose tablets could not be read is read again.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Which tablets to watch.
#[derive(Debug, Clone, Default)]
pub enum TabletFilter {
    #[default]
    All,
    /// `-keyspaces_to_watch`
    Keyspaces(BTreeSet<String>),
    /// `-tablet_filters`: `keyspace|shard` or `keyspace|range`.
    Shards(Vec<(String, ShardFilter)>),
}

/// The right side of a tablet filter.
#[derive(Debug, Clone)]
pub enum ShardFilter {
    Name(String),
    /// Shards inside the range.
    Range(KeyRange),
}

impl TabletFilter {
    /// Reads the values of `-tablet_filters`.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for one that is not `keyspace|shard`.
    pub fn parse(filters: &[String]) -> Result<Self, VtError> {
        let mut parsed = Vec::new();
        for filter in filters {
            let Some((keyspace, shard)) = filter.split_once('|') else {
                return Err(VtError::new(Code::InvalidArgument, format!("invalid FilterByShard parameter: {filter}")));
            };
            let shard = if shard.contains('-') {
                let range = shard.parse().map_err(|error| {
                    let text = format!("error parsing shard name {shard} in filter {filter}: {error}");
                    VtError::new(Code::InvalidArgument, text)
                })?;
                ShardFilter::Range(range)
            } else {
                ShardFilter::Name(shard.to_string())
            };
            parsed.push((keyspace.to_string(), shard));
        }
        Ok(Self::Shards(parsed))
    }

    /// Whether a tablet is to be watched.
    pub fn covers(&self, tablet: &Tablet) -> bool {
        match self {
            Self::All => true,
            Self::Keyspaces(names) => names.contains(&tablet.keyspace),
            Self::Shards(filters) => filters.iter().any(|(keyspace, shard)| {
                *keyspace == tablet.keyspace
                    && match shard {
                        ShardFilter::Name(name) => *name == tablet.shard,
                        ShardFilter::Range(range) => {
                            tablet.shard.parse::<KeyRange>().is_ok_and(|held| range.contains_range(&held))
                        }
                    }
            }),
        }
    }
}

/// Settings of a [`TopologyWatcher`].
#[derive(Debug, Clone)]
pub struct WatcherOptions {
    /// Time between two readings (`-tablet_refresh_interval`).
    pub refresh_interval: Duration,
    /// Read the records of tablets that are known already (`-tablet_refresh_known_tablets`).
    pub refresh_known: bool,
    /// Records read at once (`-topo_read_concurrency`).
    pub read_concurrency: usize,
    pub filter: TabletFilter,
}

impl Default for WatcherOptions {
    fn default() -> Self {
        Self {
            refresh_interval: Duration::from_secs(60),
            refresh_known: true,
            read_concurrency: 32,
            filter: TabletFilter::All,
        }
    }
}

/// Counters of all watchers of a process, keyed by operation.
#[derive(Debug, Default, Clone)]
pub struct WatcherCounters {
    pub operations: BTreeMap<String, u64>,
    pub errors: BTreeMap<String, u64>,
    /// When each cell was last read completely.
    pub last_refresh: BTreeMap<String, SystemTime>,
    /// A sum over the watched addresses, alike in processes that see the same tablets.
    pub checksum: u32,
}

struct Inner {
    topo: TopoServer,
    cell: String,
    options: WatcherOptions,
    health: HealthCheck,
    counters: Mutex<WatcherCounters>,
    known: Mutex<HashMap<String, Tablet>>,
}

/// Keeps the health check's tablets of one cell true to the topology. Ends when dropped.
pub struct TopologyWatcher {
    inner: Arc<Inner>,
    _stop: tokio_util::sync::DropGuard,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TopologyWatcher {
    /// Starts reading at once.
    pub fn start(topo: TopoServer, cell: impl Into<String>, options: WatcherOptions, health: HealthCheck) -> Self {
        let inner = Arc::new(Inner {
            topo,
            cell: cell.into(),
            options,
            health,
            counters: Mutex::default(),
            known: Mutex::default(),
        });
        let stop = CancellationToken::new();
        let (task, token) = (inner.clone(), stop.clone());
        let looker = inner.health.looker();
        tokio::spawn(async move { token.run_until_cancelled(task.run(looker)).await });
        Self { inner, _stop: stop.drop_guard() }
    }

    pub fn cell(&self) -> &str {
        &self.inner.cell
    }

    pub fn counters(&self) -> WatcherCounters {
        let mut counters = lock(&self.inner.counters).clone();
        counters.checksum = lock(&self.inner.known).values().fold(0, |sum: u32, tablet| {
            let address = crate::grpc::grpc_address(tablet).unwrap_or_default();
            // Order must not matter, so sums of FNV-1a hashes are added up.
            sum.wrapping_add(
                address.bytes().fold(0x811c_9dc5, |h: u32, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193)),
            )
        });
        counters
    }

    /// Reads the cell now.
    pub async fn refresh(&self) {
        self.inner.refresh().await;
    }
}

impl Inner {
    async fn run(&self, mut looker: Looker) {
        loop {
            let look = looker.begin();
            let complete = self.refresh().await;
            looker.answer(look);
            let pause = self.options.refresh_interval;
            let pause = if complete { pause } else { pause.min(RETRY_DELAY) };
            // Early when a statement goes to a shard of which no tablet is known: it may be new.
            let _ = tokio::time::timeout(pause, looker.wanted()).await;
        }
    }

    fn count(&self, operation: &str, failed: bool) {
        let mut counters = lock(&self.counters);
        *counters.operations.entry(operation.into()).or_default() += 1;
        if failed {
            *counters.errors.entry(operation.into()).or_default() += 1;
        }
    }

    /// Whether everything could be read.
    async fn refresh(&self) -> bool {
        let aliases = match self.topo.get_tablets_by_cell(&self.cell).await {
            Ok(aliases) => {
                self.count("ListTablets", false);
                aliases
            }
            Err(error) => {
                self.count("ListTablets", true);
                tracing::warn!(cell = %self.cell, "cannot list tablets: {error}");
                return false;
            }
        };
        let known: BTreeSet<String> = lock(&self.known).keys().cloned().collect();
        let present: BTreeSet<String> = aliases.iter().map(|alias| alias_text(Some(alias))).collect();
        let wanted =
            aliases.into_iter().filter(|alias| self.options.refresh_known || !known.contains(&alias_text(Some(alias))));
        let mut reads = futures::stream::iter(wanted.map(|alias| self.read(alias)))
            .buffer_unordered(self.options.read_concurrency.max(1));
        let mut complete = true;
        while let Some((alias, outcome)) = reads.next().await {
            match outcome {
                Ok(Some(tablet)) => self.add(alias, tablet),
                // Deleted between listing and reading.
                Ok(None) => self.remove(&alias),
                Err(error) => {
                    complete = false;
                    tracing::warn!(cell = %self.cell, tablet = %alias, "cannot read tablet record: {error}");
                }
            }
        }
        for gone in known.difference(&present) {
            self.remove(gone);
        }
        if complete {
            lock(&self.counters).last_refresh.insert(self.cell.clone(), SystemTime::now());
        }
        complete
    }

    async fn read(&self, alias: TabletAlias) -> (String, topo::Result<Option<Tablet>>) {
        let text = alias_text(Some(&alias));
        let outcome = match self.topo.get_tablet(&alias).await {
            Ok(info) => Ok(Some(info.record)),
            Err(error) if error.is_no_node() => Ok(None),
            Err(error) => Err(error),
        };
        self.count("GetTablet", outcome.is_err());
        (text, outcome)
    }

    fn add(&self, alias: String, tablet: Tablet) {
        // A tablet that was shut down cleanly leaves a record without an address.
        if !self.options.filter.covers(&tablet) || crate::grpc::grpc_address(&tablet).is_err() {
            self.remove(&alias);
            return;
        }
        let old = lock(&self.known).insert(alias, tablet.clone());
        if old.is_none() {
            self.count("AddTablet", false);
        } else if old.as_ref().map(|old| (&old.hostname, &old.port_map)) != Some((&tablet.hostname, &tablet.port_map)) {
            self.count("ReplaceTablet", false);
        }
        self.health.add_tablet(tablet);
    }

    fn remove(&self, alias: &str) {
        let removed = lock(&self.known).remove(alias).is_some();
        if removed {
            self.count("RemoveTablet", false);
            self.health.remove_tablet(alias);
        }
    }
}
