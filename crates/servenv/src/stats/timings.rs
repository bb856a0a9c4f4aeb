//! Histograms of values and of durations by label.
//!
//! Invariant: buckets are counted each on its own and summed up when read, so that recording is
//! three atomic additions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Map, Value};

use super::Variable;
use super::labels::Series;
use super::prometheus::{Buckets, Family};

/// Upper bounds of the buckets of durations, in nanoseconds: 0.5 ms to 10 s. Vitess's.
pub const TIMING_BUCKETS: [i64; 10] = [
    500_000,
    1_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    5_000_000_000,
    10_000_000_000,
];

/// Upper bounds for the parts of a query, in nanoseconds: 10 µs to 10 s.
pub const PHASE_BUCKETS: [i64; 15] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
    500_000_000,
    1_000_000_000,
    10_000_000_000,
];

/// How often values fell below each bound.
#[derive(Debug)]
pub struct Histogram {
    cutoffs: Box<[i64]>,
    /// One more than `cutoffs`: the last has no bound.
    counts: Box<[AtomicI64]>,
    total: AtomicI64,
}

impl Histogram {
    pub(super) fn new(cutoffs: &[i64]) -> Self {
        let counts = (0..=cutoffs.len()).map(|_| AtomicI64::default()).collect();
        Self { cutoffs: cutoffs.into(), counts, total: AtomicI64::default() }
    }

    /// Counts one value.
    pub fn add(&self, value: i64) {
        let bucket = self.cutoffs.partition_point(|&cutoff| cutoff < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(value, Ordering::Relaxed);
    }

    /// Counts one duration, in nanoseconds.
    pub fn record(&self, duration: Duration) {
        self.add(super::nanos(duration));
    }

    /// How many values were counted.
    pub fn count(&self) -> i64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The sum of all values.
    pub fn total(&self) -> i64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Values up to and including each bound.
    fn cumulative(&self) -> Vec<i64> {
        let mut sum = 0;
        let add = |count: &AtomicI64| {
            sum += count.load(Ordering::Relaxed);
            sum
        };
        self.counts.iter().map(add).collect()
    }

    fn json(&self, total_name: &str) -> Value {
        let cumulative = self.cumulative();
        let mut map = Map::new();
        for (cutoff, count) in self.cutoffs.iter().zip(&cumulative) {
            map.insert(cutoff.to_string(), (*count).into());
        }
        let count = cumulative.last().copied().unwrap_or(0);
        map.insert("inf".into(), count.into());
        map.insert("Count".into(), count.into());
        map.insert(total_name.into(), self.total().into());
        Value::Object(map)
    }

    /// `scale` turns the values into the unit of `/metrics`.
    fn buckets(&self, values: Vec<String>, scale: f64) -> Buckets {
        let cumulative = self.cumulative();
        let count = cumulative.last().copied().unwrap_or(0);
        let bounds = self.cutoffs.iter().map(|&cutoff| cutoff as f64 * scale).zip(cumulative).collect();
        Buckets { values, bounds, sum: self.total() as f64 * scale, count }
    }
}

impl Variable for Histogram {
    fn json(&self) -> Value {
        Histogram::json(self, "Total")
    }

    fn family(&self) -> Option<Family> {
        Some(Family::histogram(Vec::new(), vec![self.buckets(Vec::new(), 1.0)]))
    }
}

/// Durations by label values. A clone records into the same histograms.
#[derive(Clone)]
pub struct MultiTimings {
    series: Arc<Series<Histogram>>,
    cutoffs: &'static [i64],
}

impl std::fmt::Debug for MultiTimings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MultiTimings").field(&self.counts()).finish()
    }
}

impl MultiTimings {
    pub(super) fn new(labels: &[&str], cutoffs: &'static [i64]) -> Self {
        Self { series: Arc::new(Series::new(labels)), cutoffs }
    }

    /// `values` in the order of the labels.
    pub fn record(&self, values: &[&str], duration: Duration) {
        self.handle(values).record(duration);
    }

    /// The histogram of these label values, for hot paths that keep it.
    pub fn handle(&self, values: &[&str]) -> Arc<Histogram> {
        self.series.cell(values, || Histogram::new(self.cutoffs))
    }

    /// Shows these values of a single label before anything is recorded.
    #[must_use]
    pub fn with_zeros(self, values: &[&str]) -> Self {
        for value in values {
            self.handle(&[value]);
        }
        self
    }

    /// How many durations were recorded, by key, and `All` of them.
    pub fn counts(&self) -> BTreeMap<String, i64> {
        self.count_keys(|key, _| key.to_owned())
    }

    /// The same by the values of one label alone. An unknown label gives only `All`.
    pub fn counts_by(&self, label: &str) -> BTreeMap<String, i64> {
        let Some(index) = self.series.labels.iter().position(|l| l == label) else {
            return self.count_keys(|_, _| "All".into());
        };
        self.count_keys(|_, values| values.get(index).cloned().unwrap_or_default())
    }

    fn count_keys(&self, key_of: impl Fn(&str, &[String]) -> String) -> BTreeMap<String, i64> {
        let mut counts = BTreeMap::new();
        let mut all = 0;
        for (key, values, histogram) in self.series.all() {
            let count = histogram.count();
            all += count;
            *counts.entry(key_of(&key, &values)).or_default() += count;
        }
        counts.insert("All".into(), all);
        counts
    }

    /// Summed nanoseconds of everything recorded.
    pub fn total_nanos(&self) -> i64 {
        self.series.all().iter().map(|(_, _, histogram)| histogram.total()).sum()
    }
}

impl Variable for MultiTimings {
    fn json(&self) -> Value {
        let all = self.series.all();
        let mut map = Map::new();
        map.insert("TotalCount".into(), all.iter().map(|(_, _, h)| h.count()).sum::<i64>().into());
        map.insert("TotalTime".into(), all.iter().map(|(_, _, h)| h.total()).sum::<i64>().into());
        let histograms = all.into_iter().map(|(key, _, histogram)| (key, histogram.json("Time"))).collect();
        map.insert("Histograms".into(), Value::Object(histograms));
        Value::Object(map)
    }

    fn family(&self) -> Option<Family> {
        let all = self.series.all().into_iter();
        let samples = all.map(|(_, values, histogram)| histogram.buckets(values, 1e-9)).collect();
        Some(Family::histogram(self.series.labels.clone(), samples))
    }
}
