//! The health of one shard's tablets in some cells, as they tell it themselves.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use topo::TopoServer;

use crate::{
    HealthCheck, HealthCheckOptions, TabletFilter, TabletHealth, TopologyWatcher, WatcherOptions,
    grpc::{self, DialOptions},
    health_check::HealthListener,
    topology_watcher::ShardFilter,
};

/// How a shard is watched.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    pub health: HealthCheckOptions,
    /// How often the list of tablets is read.
    pub refresh_interval: Duration,
    pub dial: DialOptions,
}

/// Dropping it ends the health streams.
pub struct WatchedShard {
    health: HealthCheck,
    watchers: Vec<TopologyWatcher>,
    changed: Arc<Changed>,
    keyspace: String,
    shard: String,
}

#[derive(Default)]
struct Changed(Notify);

impl HealthListener for Changed {
    fn tablet_changed(&self, _: &TabletHealth) {
        self.0.notify_one();
    }
}

impl WatchedShard {
    /// Begins to watch.
    pub fn start(options: WatchOptions, topo: &TopoServer, keyspace: &str, shard: &str, cells: &[String]) -> Self {
        let dial = options.dial;
        let health = HealthCheck::new(options.health, move |tablet| grpc::dial(tablet, &dial));
        let changed = Arc::new(Changed::default());
        health.add_listener(changed.clone());
        let watcher = WatcherOptions {
            refresh_interval: options.refresh_interval,
            filter: TabletFilter::Shards(vec![(keyspace.to_owned(), ShardFilter::Name(shard.to_owned()))]),
            ..WatcherOptions::default()
        };
        let watchers = cells
            .iter()
            .map(|cell| TopologyWatcher::start(topo.clone(), cell.clone(), watcher.clone(), health.clone()))
            .collect();
        Self { health, watchers, changed, keyspace: keyspace.to_owned(), shard: shard.to_owned() }
    }

    /// `keyspace/shard`
    pub fn name(&self) -> String {
        format!("{}/{}", self.keyspace, self.shard)
    }

    /// All tablets that are known, of this shard or not known yet of which.
    pub fn all(&self) -> Vec<Arc<TabletHealth>> {
        self.health.tablets()
    }

    /// The tablets that are up and say that they are of this shard.
    pub fn up(&self) -> impl Iterator<Item = Arc<TabletHealth>> {
        let ours = |health: &Arc<TabletHealth>| {
            health.up && health.target.keyspace == self.keyspace && health.target.shard == self.shard
        };
        self.all().into_iter().filter(ours)
    }

    /// Resolves after a tablet has told something new. For one caller at a time.
    pub async fn changed(&self) {
        self.changed.0.notified().await;
    }

    /// Reads the list of tablets now.
    pub async fn refresh(&self) {
        for watcher in &self.watchers {
            watcher.refresh().await;
        }
    }
}
