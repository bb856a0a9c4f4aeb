//! Looks at the replicas of this tablet's shard while it is the master, for the transaction throttler.

use std::{sync::Arc, time::Duration};

use tabletclient::{WatchOptions, WatchedShard};
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
    pub watch: WatchOptions,
}

/// Of the replicas that are up, in seconds: what one that is down will have missed is not known. An RDONLY is not to become
/// master, and those who ask it do not ask for the latest.
fn lags(shard: &WatchedShard) -> Vec<u32> {
    shard.up().filter(|health| health.target.tablet_type() == Replica).map(|health| health.lag_seconds()).collect()
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
    let mut watched: Option<(Target, WatchedShard)> = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let target = queries.target();
        let open = queries.is_serving() && target.tablet_type() == Master;
        throttler.set_open(open);
        if !open {
            watched = None;
            continue;
        }
        match &watched {
            Some((of, shard)) if *of == target => throttler.throttler().observe(lags(shard)),
            _ => {
                let watch = config.watch.clone();
                let shard = WatchedShard::start(watch, &topo, &target.keyspace, &target.shard, &config.cells);
                watched = Some((target, shard));
            }
        }
    }
}
