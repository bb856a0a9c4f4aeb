//! Compares a table of two stopped tablets, a batch of rows at a time.
//!
//! As in a clone, rows are matched by the text of their keys within ranges that the servers cut: no order of any
//! collation has to be known here. Memory is bounded by a batch, whatever differs.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use keyrange::KeyRange;
use vterrors::Result;
use vtproto::query::Row;

use crate::clone::{Endpoint, Route, Table, select};
use crate::sql::{Bound, Range};
use crate::status::TableProgress;

/// A batch ends with whichever comes first.
const BATCH_ROWS: usize = 5000;
const BATCH_BYTES: usize = 2 << 20;
/// Keys of each kind that are named.
const NAMED: usize = 10;

/// What differs in a table.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Differences {
    /// At the source only.
    pub missing: Found,
    /// At the destination only.
    pub extra: Found,
    /// At both, with other values.
    pub different: Found,
    pub equal: u64,
}

/// How many, and the first of them.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    pub count: u64,
    pub keys: Vec<String>,
}

impl Found {
    fn add(&mut self, table: &Table, key: &Bound) {
        self.count += 1;
        if self.keys.len() < NAMED {
            self.keys.push(key_text(table, key));
        }
    }
}

/// A key as SQL would write it.
fn key_text(table: &Table, key: &Bound) -> String {
    let mut text = Vec::new();
    for (at, (column, value)) in table.key.iter().zip(key).enumerate() {
        if at > 0 {
            text.extend_from_slice(b", ");
        }
        column.literal.push(&mut text, Some(value));
    }
    format!("({})", String::from_utf8_lossy(&text))
}

impl Differences {
    pub fn is_empty(&self) -> bool {
        self.missing.count + self.extra.count + self.different.count == 0
    }

    /// One line for people.
    pub fn text(&self) -> String {
        let mut parts = Vec::new();
        for (found, what) in [
            (&self.missing, "missing at the destination"),
            (&self.extra, "only at the destination"),
            (&self.different, "with other values"),
        ] {
            if found.count > 0 {
                let more = if found.count > found.keys.len() as u64 { ", …" } else { "" };
                parts.push(format!("{} rows {what}: {}{more}", found.count, found.keys.join(", ")));
            }
        }
        parts.push(format!("{} rows equal", self.equal));
        parts.join("; ")
    }
}

/// Which rows are compared.
pub struct Filter {
    pub route: Route,
    pub source: KeyRange,
    pub destination: KeyRange,
}

impl Filter {
    /// Whether a row belongs to both shards.
    fn covers(&self, row: &Row) -> Result<bool> {
        Ok(match self.route.keyspace_id(row)? {
            None => true,
            Some(id) => self.source.contains(&id) && self.destination.contains(&id),
        })
    }

    /// Whether a row at the destination is another source's.
    fn is_foreign(&self, row: &Row) -> bool {
        // A row without a keyspace id belongs nowhere: it is reported.
        matches!(self.route.keyspace_id(row), Ok(Some(id)) if self.destination.contains(&id) && !self.source.contains(&id))
    }
}

/// Compares a table.
///
/// # Errors
/// A tablet could not be read.
pub async fn compare(
    table: &Table,
    filter: &Filter,
    source: &Endpoint,
    destination: &Endpoint,
    progress: &TableProgress,
) -> Result<Differences> {
    let mut differences = Differences::default();
    let mut stream = source.stream(select(table, &Range::default()), 0).await?;
    let mut batch: Vec<Row> = Vec::new();
    let mut bytes = 0;
    let mut lower = None;
    loop {
        let next = stream.next().await;
        let ended = next.is_none();
        if let Some(result) = next {
            for row in result?.rows {
                bytes += row.values.len();
                batch.push(row);
            }
        }
        if !ended && batch.len() < BATCH_ROWS && bytes < BATCH_BYTES {
            continue;
        }
        let upper = if ended { None } else { batch.last().map(|row| table.key_of(row)).transpose()? };
        let range = Range { lower, upper: upper.clone() };
        compare_batch(table, filter, &batch, &range, destination, &mut differences).await?;
        progress.rows.fetch_add(batch.len() as u64, Ordering::Relaxed);
        progress.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if ended {
            progress.equal.store(differences.equal, Ordering::Relaxed);
            progress.chunk_done();
            return Ok(differences);
        }
        lower = upper;
        batch.clear();
        bytes = 0;
    }
}

async fn compare_batch(
    table: &Table,
    filter: &Filter,
    rows: &[Row],
    range: &Range,
    destination: &Endpoint,
    differences: &mut Differences,
) -> Result<()> {
    let mut wanted: HashMap<Bound, &Row> = HashMap::with_capacity(rows.len());
    for row in rows {
        if filter.covers(row)? {
            wanted.insert(table.key_of(row)?, row);
        }
    }
    let mut stream = destination.stream(select(table, range), 0).await?;
    while let Some(result) = stream.next().await {
        for row in result?.rows {
            let key = table.key_of(&row)?;
            match wanted.remove(&key) {
                Some(source) if *source == row => differences.equal += 1,
                Some(_) => differences.different.add(table, &key),
                None if filter.is_foreign(&row) => {}
                None => differences.extra.add(table, &key),
            }
        }
    }
    // What is left, in the order of the source.
    for row in rows {
        let key = table.key_of(row)?;
        if wanted.contains_key(&key) {
            differences.missing.add(table, &key);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_their_keys() {
        let mut differences = Differences { equal: 7, ..Differences::default() };
        assert!(differences.is_empty());
        differences.missing = Found { count: 1, keys: vec!["(5)".into()] };
        differences.extra = Found { count: 12, keys: vec!["('a', 1)".into()] };
        assert_eq!(
            differences.text(),
            "1 rows missing at the destination: (5); 12 rows only at the destination: ('a', 1), …; 7 rows equal"
        );
    }
}
