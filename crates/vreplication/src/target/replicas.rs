//! `max_replication_lag`: a stream waits while the replicas of its own shard are too far behind.
//!
//! What counts is the REPLICA or RDONLY tablet, in the cell of the master, that is furthest behind. One that is down does
//! not count, and without any there is nothing to wait for.

use tabletclient::WatchedShard;
use topo::TopoServer;
use vtproto::topodata::TabletType;

use super::EngineConfig;

pub(super) struct Replicas {
    shard: WatchedShard,
}

impl Replicas {
    /// Begins to watch.
    pub fn start(config: &EngineConfig, topo: &TopoServer) -> Self {
        let cells = [config.cell.clone()];
        Self { shard: WatchedShard::start(config.watch(), topo, &config.keyspace, &config.shard, &cells) }
    }

    /// Whether a replica is further behind than it may be, in seconds.
    pub fn are_behind(&self, max_lag: i64) -> bool {
        let is_replica = |tablet_type| matches!(tablet_type, TabletType::Replica | TabletType::Rdonly);
        self.shard
            .up()
            .filter(|health| is_replica(health.target.tablet_type()))
            .any(|health| i64::from(health.lag_seconds()) > max_lag)
    }

    /// Resolves when the lag of a replica was told.
    pub async fn changed(&self) {
        self.shard.changed().await;
    }
}
