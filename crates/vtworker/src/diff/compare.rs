//! Compares a table of a source with the same table of destinations, a batch of rows at a time.
//!
//! Both sides are read in the order of the key within ranges that the servers cut, so that no order of any collation has
//! to be known here: rows that are equal meet as they come, and after the first that is not, the rest of its batch is
//! matched by the text of the keys. Memory is bounded by a batch for each destination, whatever differs.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use futures::future::try_join_all;
use keyrange::KeyRange;
use vterrors::Result;
use vtproto::query::Row;

use super::keyless;
use super::sync::Snapshot;
use crate::clone::{Endpoint, Route, Table, select};
use crate::rows;
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
    pub(super) fn add(&mut self, key: impl FnOnce() -> String) {
        self.count += 1;
        if self.keys.len() < NAMED {
            self.keys.push(key());
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

/// The columns whose values are not the same.
fn unequal_columns(table: &Table, one: &Row, other: &Row) -> String {
    let cells = rows::cells(one).zip(rows::cells(other));
    let names =
        table.columns.iter().zip(cells).filter(|(_, (one, other))| one != other).map(|(column, _)| &column.name);
    names.map(String::as_str).collect::<Vec<_>>().join(", ")
}

impl Differences {
    pub fn is_empty(&self) -> bool {
        self.missing.count + self.extra.count + self.different.count == 0
    }

    /// Adds those of a batch.
    pub(super) fn add(&mut self, batch: Self, progress: &TableProgress) {
        progress.equal.fetch_add(batch.equal, Ordering::Relaxed);
        self.equal += batch.equal;
        for (ours, theirs, shown) in [
            (&mut self.missing, batch.missing, &progress.inserts),
            (&mut self.different, batch.different, &progress.updates),
            (&mut self.extra, batch.extra, &progress.deletes),
        ] {
            shown.fetch_add(theirs.count, Ordering::Relaxed);
            ours.count += theirs.count;
            ours.keys.extend(theirs.keys);
            ours.keys.truncate(NAMED);
        }
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
                parts.push(format!("{} {what}: {}{more}", rows_text(found.count), found.keys.join(", ")));
            }
        }
        parts.push(format!("{} equal", rows_text(self.equal)));
        parts.join("; ")
    }
}

fn rows_text(count: u64) -> String {
    if count == 1 { "1 row".to_owned() } else { format!("{count} rows") }
}

/// Which rows of the source's table a destination should hold.
#[derive(Clone)]
pub struct Filter {
    pub route: Route,
    pub source: KeyRange,
    pub destination: KeyRange,
}

impl Filter {
    /// Whether a row of the source belongs to both shards.
    pub(super) fn covers(&self, row: &Row) -> Result<bool> {
        Ok(match self.route.keyspace_id(row)? {
            None => self.brings_all(),
            Some(id) => self.source.contains(&id) && self.destination.contains(&id),
        })
    }

    /// Whether a row at the destination is another source's.
    pub(super) fn is_foreign(&self, row: &Row) -> bool {
        match self.route.keyspace_id(row) {
            Ok(Some(id)) => self.destination.contains(&id) && !self.source.contains(&id),
            Ok(None) => !self.brings_all(),
            // A row without a keyspace id belongs nowhere: it is reported.
            Err(_) => false,
        }
    }

    /// Whether the destination has the rows that are on all shards from this source: those of another one may stand
    /// elsewhere now.
    fn brings_all(&self) -> bool {
        vschema::brings_reference_rows(&self.source, &self.destination)
    }
}

/// A tablet's snapshot as one comparison reads it.
pub struct Reader<'a> {
    endpoint: &'a Endpoint,
    transaction: i64,
}

impl<'a> Reader<'a> {
    /// By the transaction of this number, which nobody else uses.
    pub fn new(snapshot: &'a Snapshot, slot: usize) -> Self {
        Self { endpoint: &snapshot.endpoint, transaction: snapshot.transactions[slot] }
    }

    async fn stream(&self, table: &Table, range: &Range) -> Result<tabletclient::ResultStream> {
        self.endpoint.stream(select(table, range), self.transaction).await
    }

    /// All rows, in the order of all columns.
    pub(super) async fn stream_by_all_columns(&self, table: &Table) -> Result<tabletclient::ResultStream> {
        self.endpoint.stream(table.select_by_all_columns().into_bytes(), self.transaction).await
    }
}

/// One destination of a comparison.
pub struct Side<'a> {
    pub reader: Reader<'a>,
    pub filter: Filter,
    pub differences: Differences,
}

/// Compares a table; the differences are added to those of the sides.
///
/// # Errors
/// A tablet could not be read.
pub async fn compare(
    table: &Table,
    source: Reader<'_>,
    sides: &mut [Side<'_>],
    progress: &TableProgress,
) -> Result<()> {
    if table.is_keyless() {
        return keyless::compare(table, &source, sides, progress).await;
    }
    let mut stream = source.stream(table, &Range::default()).await?;
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
        try_join_all(sides.iter_mut().map(|side| side.batch(table, &batch, &range, progress))).await?;
        progress.rows.fetch_add(batch.len() as u64, Ordering::Relaxed);
        progress.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        if ended {
            progress.chunk_done();
            return Ok(());
        }
        lower = upper;
        batch.clear();
        bytes = 0;
    }
}

impl Side<'_> {
    async fn batch(&mut self, table: &Table, rows: &[Row], range: &Range, progress: &TableProgress) -> Result<()> {
        let mut wanted = Vec::with_capacity(rows.len());
        for row in rows {
            if self.filter.covers(row).map_err(|error| error.wrap(table.shown(row)))? {
                wanted.push(row);
            }
        }
        let mut matching = Matching { table, filter: &self.filter, wanted, next: 0, by_key: None };
        let mut found = Differences::default();
        let mut stream = self.reader.stream(table, range).await?;
        while let Some(result) = stream.next().await {
            for row in &result?.rows {
                matching.add(row, &mut found)?;
            }
        }
        matching.finish(&mut found)?;
        self.differences.add(found, progress);
        Ok(())
    }
}

/// The rows of a batch that a destination should hold, and which of them it was seen to hold.
struct Matching<'a> {
    table: &'a Table,
    filter: &'a Filter,
    wanted: Vec<&'a Row>,
    /// Up to here all were seen.
    next: usize,
    /// What is left of them, since the first row that did not come in its turn.
    by_key: Option<HashMap<Bound, &'a Row>>,
}

impl Matching<'_> {
    /// A row of the destination.
    fn add(&mut self, row: &Row, found: &mut Differences) -> Result<()> {
        if self.by_key.is_none() {
            if self.wanted.get(self.next).is_some_and(|wanted| *wanted == row) {
                self.next += 1;
                found.equal += 1;
                return Ok(());
            }
            if self.filter.is_foreign(row) {
                return Ok(());
            }
        }
        let (table, rest) = (self.table, &self.wanted[self.next..]);
        let by_key = match &mut self.by_key {
            Some(by_key) => by_key,
            none => none.insert(rest.iter().map(|row| Ok((table.key_of(row)?, *row))).collect::<Result<_>>()?),
        };
        let key = table.key_of(row)?;
        match by_key.remove(&key) {
            Some(wanted) if wanted == row => found.equal += 1,
            Some(wanted) => {
                found.different.add(|| format!("{} in {}", key_text(table, &key), unequal_columns(table, wanted, row)))
            }
            None if self.filter.is_foreign(row) => {}
            None => found.extra.add(|| key_text(table, &key)),
        }
        Ok(())
    }

    /// The destination has no more.
    fn finish(self, found: &mut Differences) -> Result<()> {
        // What is left, in the order of the source.
        for row in &self.wanted[self.next..] {
            let key = self.table.key_of(row)?;
            if self.by_key.as_ref().is_none_or(|by_key| by_key.contains_key(&key)) {
                found.missing.add(|| key_text(self.table, &key));
            }
        }
        Ok(())
    }
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
            "1 row missing at the destination: (5); 12 rows only at the destination: ('a', 1), …; 7 rows equal"
        );
    }
}
