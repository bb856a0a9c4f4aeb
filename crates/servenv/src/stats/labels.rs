//! A bounded map from label values to a cell that counts, shared by counters, gauges and timings.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

/// Most label sets one variable keeps. Labels such as user or table names come from outside, so
/// that without a bound a client could fill the memory.
pub const MAX_SERIES: usize = 10_000;
/// Where further label sets are counted.
const OVERFLOW: &str = "_other";

/// Label values and their cell, by key.
type Cells<T> = HashMap<String, (Vec<String>, Arc<T>)>;

/// Label values and the cell they lead to.
pub(super) struct Series<T> {
    pub(super) labels: Vec<String>,
    cells: RwLock<Cells<T>>,
}

/// The key of `/debug/vars`: values joined by dots, dots inside of them replaced.
pub(super) fn join<'a>(values: &[&'a str]) -> Cow<'a, str> {
    match values {
        [only] if !only.contains('.') => Cow::Borrowed(only),
        _ => {
            let mut key = String::with_capacity(values.iter().map(|value| value.len() + 1).sum());
            for (index, value) in values.iter().enumerate() {
                if index > 0 {
                    key.push('.');
                }
                key.extend(value.chars().map(|c| if c == '.' { '_' } else { c }));
            }
            Cow::Owned(key)
        }
    }
}

impl<T> Series<T> {
    pub(super) fn new(labels: &[&str]) -> Self {
        Self { labels: labels.iter().map(|&label| label.to_owned()).collect(), cells: RwLock::default() }
    }

    /// The cell of these label values, made when it is not there.
    pub(super) fn cell(&self, values: &[&str], make: impl FnOnce() -> T) -> Arc<T> {
        let key = join(values);
        // A panic elsewhere leaves the map whole: every change is one insertion.
        if let Some((_, cell)) = self.cells.read().unwrap_or_else(PoisonError::into_inner).get(key.as_ref()) {
            return cell.clone();
        }
        let mut cells = self.cells.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, cell)) = cells.get(key.as_ref()) {
            return cell.clone();
        }
        let (key, values) = if cells.len() < MAX_SERIES {
            (key.into_owned(), values.iter().map(|&value| value.to_owned()).collect())
        } else {
            (OVERFLOW.to_owned(), vec![OVERFLOW.to_owned(); self.labels.len()])
        };
        cells.entry(key).or_insert_with(|| (values, Arc::new(make()))).1.clone()
    }

    /// Forgets every cell. Handles taken before go on counting unseen.
    pub(super) fn clear(&self) {
        self.cells.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets one cell.
    pub(super) fn remove(&self, values: &[&str]) {
        self.cells.write().unwrap_or_else(PoisonError::into_inner).remove(join(values).as_ref());
    }

    /// Key, label values and cell of every series, sorted by key.
    pub(super) fn all(&self) -> Vec<(String, Vec<String>, Arc<T>)> {
        let cells = self.cells.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> =
            cells.iter().map(|(key, (values, cell))| (key.clone(), values.clone(), cell.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }
}
