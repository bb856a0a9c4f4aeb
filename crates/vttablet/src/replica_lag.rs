//! Looks at the replicas of this tablet's shard while it is the master, for the transaction throttler.

use std::{sync::Arc, time::Duration};

use tabletclient::{
    HealthCheck, HealthCheckOptions, TabletFilter, TopologyWatcher, WatcherOptions, grpc::DialOptions,
    topology_watcher::ShardFilter,
};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use topo::TopoServer;
use vtproto::{
    query::Target,
    throttlerdata::Configuration,
    topodata::TabletType::{Master, Replica},
};

use crate::queryservice::{TabletServer, TxThrottler};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// `-enable-tx-throttler` and the flags with it.
#[derive(Debug, Clone)]
pub struct TxThrottlerConfig {
    /// `-tx-throttler-config`.
    pub rate: Configuration,
    /// `-tx-throttler-healthcheck-cells`, or the tablet's own.
    pub cells: Vec<String>,
    pub dial: DialOptions,
}

/// The replicas of a shard. Dropping it ends the health streams.
struct Replicas {
    target: Target,
    health: HealthCheck,
    _watchers: Vec<TopologyWatcher>,
}

impl Replicas {
    fn watch(target: Target, config: &TxThrottlerConfig, topo: &TopoServer) -> Self {
        let dial = config.dial.clone();
        let health =
            HealthCheck::new(HealthCheckOptions::default(), move |tablet| tabletclient::grpc::dial(tablet, &dial));
        let shard = (target.keyspace.clone(), ShardFilter::Name(target.shard.clone()));
        let options = WatcherOptions { filter: TabletFilter::Shards(vec![shard]), ..WatcherOptions::default() };
        let watch = |cell: &String| TopologyWatcher::start(topo.clone(), cell.clone(), options.clone(), health.clone());
        let watchers = config.cells.iter().map(watch).collect();
        Self { target, health, _watchers: watchers }
    }

    /// Of those that are up, in seconds: what one that is down will have missed is not known.
    fn lags(&self) -> Vec<u32> {
        let snapshot = self.health.snapshot();
        // An RDONLY is not to become master, and those who ask it do not ask for the latest.
        let group = snapshot.group(&self.target.keyspace, &self.target.shard, Replica);
        let up = group.into_iter().flat_map(|group| &group.all).filter(|tablet| tablet.up);
        up.map(|tablet| tablet.lag_seconds()).collect()
    }
}

/// Tells the throttler of the lag of the replicas, as long as the tablet serves as master.
pub async fn follow(
    queries: TabletServer,
    throttler: Arc<TxThrottler>,
    config: TxThrottlerConfig,
    topo: TopoServer,
    stop: CancellationToken,
) {
    let mut tick = interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut replicas: Option<Replicas> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let target = queries.target();
        let open = queries.is_serving() && target.tablet_type() == Master;
        throttler.set_open(open);
        if !open {
            replicas = None;
            continue;
        }
        match &replicas {
            Some(replicas) if replicas.target == target => throttler.throttler().observe(replicas.lags()),
            _ => replicas = Some(Replicas::watch(target, &config, &topo)),
        }
    }
}
