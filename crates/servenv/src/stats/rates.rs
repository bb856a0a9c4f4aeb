//! Rates per second over the last while, such as `QPSByOperation`.
//!
//! Invariant: a sample is taken at most once per interval; the ring holds one sample more than the
//! number of rates shown.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Variable;

type Counts = BTreeMap<String, i64>;

/// Samples of counts and the rates between them, oldest first.
pub struct Rates {
    counts: Box<dyn Fn() -> Counts + Send + Sync>,
    interval: Duration,
    samples: usize,
    ring: Mutex<VecDeque<(Instant, Counts)>>,
}

impl std::fmt::Debug for Rates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rates").field("interval", &self.interval).finish_non_exhaustive()
    }
}

impl Rates {
    pub(super) fn new(samples: usize, interval: Duration, counts: Box<dyn Fn() -> Counts + Send + Sync>) -> Self {
        let ring = Mutex::new(VecDeque::from([(Instant::now(), counts())]));
        Self { counts, interval, samples, ring }
    }

    fn sample(&self, now: Instant) {
        let ring = || self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        // The ticker is not exact: a sample that is due within half a tick is due.
        let slack = Duration::from_millis(500).min(self.interval / 2);
        if ring().back().is_some_and(|(last, _)| now.duration_since(*last) + slack < self.interval) {
            return;
        }
        let counts = (self.counts)();
        let mut ring = ring();
        ring.push_back((now, counts));
        while ring.len() > self.samples + 1 {
            ring.pop_front();
        }
    }

    /// Rates per second by key, oldest first, rounded to a tenth.
    pub fn get(&self) -> BTreeMap<String, Vec<f64>> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let keys: BTreeSet<&String> = ring.iter().flat_map(|(_, counts)| counts.keys()).collect();
        let rate = |key: &String, at: usize| {
            let ((before, old), (after, new)) = (&ring[at - 1], &ring[at]);
            let seconds = after.duration_since(*before).as_secs_f64();
            let count = new.get(key).unwrap_or(&0) - old.get(key).unwrap_or(&0);
            if seconds > 0.0 { (count as f64 / seconds * 10.0).round() / 10.0 } else { 0.0 }
        };
        if ring.len() < 2 {
            return BTreeMap::new();
        }
        keys.into_iter().map(|key| (key.clone(), (1..ring.len()).map(|at| rate(key, at)).collect())).collect()
    }
}

impl Variable for Rates {
    fn json(&self) -> Value {
        Value::Object(self.get().into_iter().map(|(key, rates)| (key, rates.into())).collect())
    }

    fn tick(&self) {
        self.sample(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[test]
    fn rates_are_per_second_and_bounded() {
        let count = Arc::new(AtomicI64::new(0));
        let reader = count.clone();
        let read = move || BTreeMap::from([("All".to_owned(), reader.load(Ordering::Relaxed))]);
        let rates = Rates::new(2, Duration::from_secs(5), Box::new(read));
        let start = Instant::now();
        assert_eq!(rates.get(), BTreeMap::new());
        rates.sample(start + Duration::from_secs(1)); // not due yet
        assert_eq!(rates.get(), BTreeMap::new());
        for (second, total) in [(5, 50), (10, 51), (15, 151)] {
            count.store(total, Ordering::Relaxed);
            rates.sample(start + Duration::from_secs(second));
        }
        assert_eq!(rates.get(), BTreeMap::from([("All".into(), vec![0.2, 20.0])]));
    }
}
