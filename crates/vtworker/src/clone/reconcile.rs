//! Brings a piece of a table at the destinations to what the source holds: inserts what is missing, replaces what
//! differs, deletes what is too much.
//!
//! The source is read in the order of the key, a batch of rows at a time, and each destination is asked for the same
//! range of keys. Rows are matched by the text of their keys, and all comparing of keys is left to the servers: no
//! order of any collation has to be known here. A key that the server takes for equal but that is written otherwise
//! (`a` and `A`) is deleted and inserted.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use vterrors::Result;
use vtproto::query::Row;

use super::copy::{Failure, Inserts, Job, Reading, Targets, select};
use super::write::Writer;
use super::{Options, Table};
use crate::env::RowCounters;
use crate::rows::{Checksum, Hasher};
use crate::sql::{Bound, Range, WRITE_SETTINGS, name};
use crate::status::TableProgress;

/// A batch ends with whichever comes first.
const BATCH_ROWS: usize = 2000;
const BATCH_BYTES: usize = 1 << 20;
/// Keys of one DELETE.
const DELETE_KEYS: usize = 200;

/// What is the same for all batches of a piece.
pub struct Reconciler<'a> {
    pub job: &'a Job,
    pub targets: &'a Targets,
    pub options: &'a Options,
    pub progress: &'a TableProgress,
    pub counters: &'a RowCounters,
    /// Rows of other sources are left alone.
    pub source: Reading<'a>,
}

impl Reconciler<'_> {
    /// Compares and repairs a piece.
    ///
    /// # Errors
    /// See [`Failure`].
    pub async fn run(&self, range: &Range) -> Result<Checksum, Failure> {
        let table = &self.job.table;
        let mut stream = self.source.stream(table, range).await.map_err(Failure::Read)?;
        let mut hasher = Hasher::default();
        let mut batch: Vec<Row> = Vec::new();
        let mut bytes = 0;
        let mut lower = range.lower.clone();
        loop {
            let next = stream.next().await;
            let ended = next.is_none();
            if let Some(result) = next {
                for row in result.map_err(Failure::Read)?.rows {
                    hasher.add(&row, table.columns.len());
                    bytes += row.values.len();
                    batch.push(row);
                }
            }
            if !ended && batch.len() < BATCH_ROWS && bytes < BATCH_BYTES {
                continue;
            }
            let upper =
                if ended { range.upper.clone() } else { batch.last().map(|row| table.key_of(row)).transpose()? };
            self.batch(&batch, Range { lower, upper: upper.clone() }).await?;
            self.progress.rows.fetch_add(batch.len() as u64, Ordering::Relaxed);
            self.progress.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            if ended {
                return Ok(hasher.sum());
            }
            lower = upper;
            batch.clear();
            bytes = 0;
        }
    }

    async fn batch(&self, rows: &[Row], range: Range) -> Result<(), Failure> {
        let fed = self.targets.ranges.fed(&self.job.route, self.source.shard);
        let mut places: Vec<Vec<&Row>> = vec![Vec::new(); self.targets.writers.len()];
        for row in rows {
            for at in self.job.places(&self.targets.ranges, row, &fed)? {
                places[*at].push(row);
            }
        }
        for at in fed {
            self.at_destination(at, &places[at], &range).await?;
        }
        Ok(())
    }

    async fn at_destination(&self, at: usize, rows: &[&Row], range: &Range) -> Result<(), Failure> {
        let table = &self.job.table;
        let writer = &self.targets.writers[at];
        let mut wanted: HashMap<Bound, (&Row, Found)> = HashMap::with_capacity(rows.len());
        for row in rows {
            wanted.insert(table.key_of(row)?, (row, Found::Missing));
        }
        let mut surplus: Vec<Bound> = Vec::new();
        let mut stream = writer.master().stream(select(table, range), 0).await?;
        while let Some(result) = stream.next().await {
            for row in result?.rows {
                let key = table.key_of(&row)?;
                match wanted.get_mut(&key) {
                    Some((source, found)) => *found = if **source == row { Found::Equal } else { Found::Differs },
                    None if self.belongs_elsewhere(at, &row)? => {}
                    None => surplus.push(key),
                }
            }
        }
        drop(stream);
        let deleted = surplus.len() as u64;
        for keys in surplus.chunks(DELETE_KEYS) {
            writer.write(&delete(writer, table, keys)).await?;
        }
        let (mut missing, mut differing, mut equal) = (0, 0, 0);
        let mut inserts = Inserts::new(writer, "REPLACE", table, self.options);
        for row in rows {
            let found = wanted.get(&table.key_of(row)?).map_or(Found::Missing, |(_, found)| *found);
            match found {
                Found::Missing => missing += 1,
                Found::Differs => differing += 1,
                Found::Equal => equal += 1,
            }
            if found != Found::Equal {
                inserts.push(table, row).await?;
            }
        }
        inserts.finish().await?;
        for (counter, here, n) in [
            (&self.counters.inserts, &self.progress.inserts, missing),
            (&self.counters.updates, &self.progress.updates, differing),
            (&self.counters.deletes, &self.progress.deletes, deleted),
            (&self.counters.equal, &self.progress.equal, equal),
        ] {
            if n > 0 {
                counter.add(&[&table.name], i64::try_from(n).unwrap_or(i64::MAX));
                here.fetch_add(n, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Whether a row that the source does not have is rightly at a destination: another source brought it.
    fn belongs_elsewhere(&self, at: usize, row: &Row) -> Result<bool> {
        // A row without a keyspace id is nobody's.
        let Ok(Some(id)) = self.job.route.keyspace_id(row) else { return Ok(false) };
        Ok(self.targets.ranges.range(at).contains(&id) && !self.source.shard.contains(&id))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Missing,
    Differs,
    Equal,
}

fn delete(writer: &Arc<Writer>, table: &Table, keys: &[Bound]) -> Vec<u8> {
    let master = writer.master();
    let verb = master.dialect.with("DELETE", WRITE_SETTINGS);
    let place = format!("{}.{}", name(&master.db_name), name(&table.name));
    let mut sql = format!("{verb} from {place} where {} = 1 and (", writer.guard()).into_bytes();
    for (at, key) in keys.iter().enumerate() {
        sql.extend_from_slice(if at > 0 { b" or (" } else { b"(" });
        for (at, (column, value)) in table.key.iter().zip(key).enumerate() {
            if at > 0 {
                sql.extend_from_slice(b" and ");
            }
            sql.extend_from_slice(column.expr.as_bytes());
            sql.push(b'=');
            column.literal.push(&mut sql, Some(value));
        }
        sql.push(b')');
    }
    sql.push(b')');
    sql
}
