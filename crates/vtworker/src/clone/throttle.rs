//! `-max_tps` and `-max_replication_lag`: when the next write to a destination shard may begin.

use std::sync::Arc;
use std::time::Duration;

use throttler::Throttler;

use crate::tablets::{ShardName, Tablets};

/// How often the lag of replicas is looked at while it is too high.
const POLL: Duration = Duration::from_millis(200);

/// The limits of one destination shard. They may change while a clone runs.
pub struct Throttle {
    tablets: Arc<Tablets>,
    shard: ShardName,
    throttler: Arc<Throttler>,
}

impl Throttle {
    pub fn new(tablets: Arc<Tablets>, shard: ShardName, throttler: Arc<Throttler>) -> Self {
        Self { tablets, shard, throttler }
    }

    /// Waits until one more transaction may begin.
    pub async fn wait(&self) {
        while self.is_behind() {
            tokio::time::sleep(POLL).await;
        }
        self.throttler.take().await;
    }

    fn is_behind(&self) -> bool {
        let lag = || i64::from(self.tablets.replica_lag(&self.shard));
        self.throttler.max_lag().is_some_and(|limit| limit < throttler::UNLIMITED && lag() > limit)
    }
}
