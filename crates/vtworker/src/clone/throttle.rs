//! `-max_tps` and `-max_replication_lag`: when the next write to a destination shard may begin.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::tablets::{ShardName, Tablets};

/// How often the lag of replicas is looked at while it is too high.
const POLL: Duration = Duration::from_millis(200);

/// The limits of one destination shard.
pub struct Throttle {
    tablets: Arc<Tablets>,
    shard: ShardName,
    /// Pause between two transactions.
    interval: Option<Duration>,
    max_lag: Option<Duration>,
    /// When the next transaction may begin.
    next: Mutex<Instant>,
}

impl Throttle {
    pub fn new(tablets: Arc<Tablets>, shard: ShardName, max_tps: Option<u64>, max_lag: Option<Duration>) -> Self {
        let interval = max_tps.map(|tps| Duration::from_secs(1).div_f64(tps.max(1) as f64));
        Self { tablets, shard, interval, max_lag, next: Mutex::new(Instant::now()) }
    }

    /// Waits until one more transaction may begin.
    pub async fn wait(&self) {
        if let Some(limit) = self.max_lag {
            while Duration::from_secs(self.tablets.replica_lag(&self.shard).into()) > limit {
                tokio::time::sleep(POLL).await;
            }
        }
        if let Some(interval) = self.interval {
            let begin = {
                let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
                let begin = (*next).max(Instant::now());
                *next = begin + interval;
                begin
            };
            tokio::time::sleep_until(begin).await;
        }
    }
}
