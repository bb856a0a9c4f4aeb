//! Counters and gauges, alone, by label, or read from elsewhere.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use serde_json::Value;

use super::Variable;
use super::labels::{Series, join};
use super::prometheus::{Family, Kind, Number};

/// Cells of a [`Counter`]. More than the cores of usual machines would only cost memory.
const SHARDS: usize = 8;

/// One cell on its own cache line, so that threads do not slow each other down.
#[derive(Default)]
#[repr(align(128))]
struct Padded(AtomicI64);

/// Which cell this thread adds to.
fn shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static MINE: Cell<usize> = const { Cell::new(usize::MAX) });
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS);
        }
        mine.get()
    })
}

/// A number that only grows. A clone counts into the same number.
#[derive(Clone, Default)]
pub struct Counter(Arc<[Padded; SHARDS]>);

impl Counter {
    pub fn add(&self, n: i64) {
        self.0[shard()].0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn inc(&self) {
        self.add(1);
    }

    pub fn get(&self) -> i64 {
        self.0.iter().map(|cell| cell.0.load(Ordering::Relaxed)).sum()
    }
}

impl std::fmt::Debug for Counter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Counter({})", self.get())
    }
}

/// A number that goes up and down. A clone is the same number.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    pub fn set(&self, n: i64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters by label values. A clone counts into the same numbers.
#[derive(Clone)]
pub struct MultiCounter {
    pub(super) series: Arc<Series<AtomicI64>>,
}

impl MultiCounter {
    pub(super) fn new(labels: &[&str]) -> Self {
        Self { series: Arc::new(Series::new(labels)) }
    }

    /// `values` in the order of the labels.
    pub fn add(&self, values: &[&str], n: i64) {
        self.handle(values).fetch_add(n, Ordering::Relaxed);
    }

    pub fn inc(&self, values: &[&str]) {
        self.add(values, 1);
    }

    /// The cell of these label values, for hot paths that keep it. It shows (with 0) from now on.
    pub fn handle(&self, values: &[&str]) -> Arc<AtomicI64> {
        self.series.cell(values, AtomicI64::default)
    }

    /// Shows these values of the first label with 0 before anything is counted.
    #[must_use]
    pub fn with_zeros(self, values: &[&str]) -> Self {
        for value in values {
            self.handle(&[value]);
        }
        self
    }

    /// The count of these label values.
    pub fn get(&self, values: &[&str]) -> i64 {
        let key = join(values);
        self.counts().get(key.as_ref()).copied().unwrap_or(0)
    }

    /// Every count by its key.
    pub fn counts(&self) -> std::collections::BTreeMap<String, i64> {
        self.series.all().into_iter().map(|(key, _, cell)| (key, cell.load(Ordering::Relaxed))).collect()
    }
}

impl std::fmt::Debug for MultiCounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("MultiCounter").field(&self.counts()).finish()
    }
}

/// Gauges by label values. A clone is the same set of numbers.
#[derive(Clone)]
pub struct MultiGauge {
    pub(super) series: Arc<Series<AtomicI64>>,
}

impl MultiGauge {
    pub(super) fn new(labels: &[&str]) -> Self {
        Self { series: Arc::new(Series::new(labels)) }
    }

    pub fn set(&self, values: &[&str], n: i64) {
        self.handle(values).store(n, Ordering::Relaxed);
    }

    pub fn add(&self, values: &[&str], n: i64) {
        self.handle(values).fetch_add(n, Ordering::Relaxed);
    }

    /// The cell of these label values, for hot paths that keep it.
    pub fn handle(&self, values: &[&str]) -> Arc<AtomicI64> {
        self.series.cell(values, AtomicI64::default)
    }

    /// Stops showing these label values.
    pub fn remove(&self, values: &[&str]) {
        self.series.remove(values);
    }

    /// Stops showing every label value.
    pub fn clear(&self) {
        self.series.clear();
    }
}

impl std::fmt::Debug for MultiGauge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MultiGauge").field("labels", &self.series.labels).finish_non_exhaustive()
    }
}

pub(super) struct CounterVariable(pub(super) Counter);

impl Variable for CounterVariable {
    fn json(&self) -> Value {
        self.0.get().into()
    }

    fn family(&self) -> Option<Family> {
        Some(Family::single(Kind::Counter, Number::Int(self.0.get())))
    }
}

pub(super) struct NumberFunc<F> {
    pub(super) kind: Kind,
    pub(super) read: F,
    /// The number is nanoseconds, which `/metrics` shows as seconds.
    pub(super) nanos: bool,
}

impl<F: Fn() -> i64 + Send + Sync> Variable for NumberFunc<F> {
    fn json(&self) -> Value {
        (self.read)().into()
    }

    fn family(&self) -> Option<Family> {
        let number = (self.read)();
        Some(Family::single(
            self.kind,
            if self.nanos { Number::Float(number as f64 / 1e9) } else { Number::Int(number) },
        ))
    }
}

pub(super) struct MultiVariable {
    pub(super) kind: Kind,
    pub(super) series: Arc<Series<AtomicI64>>,
}

impl Variable for MultiVariable {
    fn json(&self) -> Value {
        let all = self.series.all().into_iter();
        Value::Object(all.map(|(key, _, cell)| (key, cell.load(Ordering::Relaxed).into())).collect())
    }

    fn family(&self) -> Option<Family> {
        let samples = self.series.all().into_iter();
        let samples = samples.map(|(_, values, cell)| (values, Number::Int(cell.load(Ordering::Relaxed)))).collect();
        Some(Family::labelled(self.kind, self.series.labels.clone(), samples))
    }
}

pub(super) struct MultiFunc<F> {
    kind: Kind,
    labels: Vec<String>,
    read: F,
}

impl<F: Fn() -> Vec<(Vec<String>, i64)> + Send + Sync> MultiFunc<F> {
    pub(super) fn new(kind: Kind, labels: &[&str], read: F) -> Self {
        Self { kind, labels: labels.iter().map(|&label| label.to_owned()).collect(), read }
    }
}

impl<F: Fn() -> Vec<(Vec<String>, i64)> + Send + Sync> Variable for MultiFunc<F> {
    fn json(&self) -> Value {
        let mut all: Vec<(String, Value)> = (self.read)()
            .into_iter()
            .map(|(values, n)| {
                let values: Vec<&str> = values.iter().map(String::as_str).collect();
                (join(&values).into_owned(), n.into())
            })
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Value::Object(all.into_iter().collect())
    }

    fn family(&self) -> Option<Family> {
        let samples = (self.read)().into_iter().map(|(values, n)| (values, Number::Int(n))).collect();
        Some(Family::labelled(self.kind, self.labels.clone(), samples))
    }
}

pub(super) struct JsonFunc<F>(pub(super) F);

impl<F: Fn() -> Value + Send + Sync> Variable for JsonFunc<F> {
    fn json(&self) -> Value {
        (self.0)()
    }
}
