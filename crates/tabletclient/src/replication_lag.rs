//! Which replicas are too far behind to be read from.
//!
//! Owns: the rule of the `-discovery_*` flags. Invariant: of a set of healthy tablets never none is
//! left, because stale data beats no data.

use std::{sync::Arc, time::Duration};

use crate::health_check::TabletHealth;

/// The flags that decide about replication lag.
#[derive(Debug, Clone)]
pub struct LagOptions {
    /// Up to this lag a tablet is good (`-discovery_low_replication_lag`).
    pub low: Duration,
    /// Beyond this lag a tablet does not count towards `min_tablets`
    /// (`-discovery_high_replication_lag_minimum_serving`).
    pub high_minimum_serving: Duration,
    /// Keep at least so many, lag or not (`-min_number_serving_vttablets`).
    pub min_tablets: usize,
    /// Drop by distance from the mean instead of by `low` alone (`-legacy_replication_lag_algorithm`).
    pub legacy: bool,
}

impl Default for LagOptions {
    fn default() -> Self {
        Self {
            low: Duration::from_secs(30),
            high_minimum_serving: Duration::from_secs(2 * 3600),
            min_tablets: 2,
            legacy: true,
        }
    }
}

impl LagOptions {
    /// The tablets to read from, out of healthy ones.
    pub fn filter(&self, healthy: Vec<Arc<TabletHealth>>) -> Vec<Arc<TabletHealth>> {
        if !self.legacy {
            return self.by_lag(healthy);
        }
        let before = healthy.len();
        let kept = self.by_mean(healthy);
        // One far outlier hides the next one in the mean: look once more if there are enough left.
        if kept.len() > self.min_tablets && kept.len() + 1 == before { self.by_mean(kept) } else { kept }
    }

    fn is_low(&self, health: &TabletHealth) -> bool {
        u64::from(health.lag_seconds()) <= self.low.as_secs()
    }

    fn by_lag(&self, mut tablets: Vec<Arc<TabletHealth>>) -> Vec<Arc<TabletHealth>> {
        tablets.sort_by_key(|health| health.lag_seconds());
        let mut number = 0;
        tablets.retain(|health| {
            number += 1;
            self.is_low(health) || number <= self.min_tablets.max(1)
        });
        tablets
    }

    fn by_mean(&self, tablets: Vec<Arc<TabletHealth>>) -> Vec<Arc<TabletHealth>> {
        if tablets.len() <= 1 || tablets.iter().all(|health| self.is_low(health)) {
            return tablets;
        }
        let total: u64 = tablets.iter().map(|health| u64::from(health.lag_seconds())).sum();
        let mean = total as f64 / tablets.len() as f64;
        let others = (tablets.len() - 1) as f64;
        // A tablet without which the mean falls by more than 30 % is an outlier.
        let kept: Vec<_> = tablets
            .iter()
            .filter(|health| (total - u64::from(health.lag_seconds())) as f64 / others > mean * 0.7)
            .cloned()
            .collect();
        if kept.len() >= self.min_tablets {
            return kept;
        }
        let mut sorted = tablets;
        sorted.sort_by_key(|health| health.lag_seconds());
        let usable =
            |health: &Arc<TabletHealth>| u64::from(health.lag_seconds()) <= self.high_minimum_serving.as_secs();
        let enough = sorted.iter().filter(|health| usable(health)).take(self.min_tablets.max(1)).count();
        sorted.truncate(enough.max(1));
        sorted
    }
}
