//! Compares a table whose rows nothing names: as bags of rows.
//!
//! Both sides are read side by side in the order of all columns, and each row is set off against an equal one of the other
//! side. What is kept is what waits for its like: hardly anything where the sides hold the same, sixteen bytes and a number
//! for each row that they do not.

use std::collections::HashMap;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use md5::{Digest, Md5};
use tabletclient::ResultStream;
use vterrors::Result;
use vtproto::query::Row;

use super::compare::{Differences, Filter, Reader, Side};
use crate::clone::Table;
use crate::rows;
use crate::status::TableProgress;

/// Rows whose text is kept while they wait.
const SHOWN: usize = 1000;
/// Characters of a row that are shown.
const TEXT: usize = 200;

/// Rows that wait for their like.
#[derive(Default)]
struct Bag {
    /// How many more the source has of a row; fewer if negative.
    surplus: HashMap<[u8; 16], (i64, String)>,
    equal: u64,
}

impl Bag {
    /// Adds a row of the source (`by` is 1) or of the destination (-1).
    fn add(&mut self, table: &Table, row: &Row, by: i64) {
        let key = digest(row);
        let text_wanted = self.surplus.len() < SHOWN;
        let (surplus, _) =
            self.surplus.entry(key).or_insert_with(|| (0, if text_wanted { text(table, row) } else { String::new() }));
        if *surplus * by < 0 {
            self.equal += 1;
        }
        *surplus += by;
        if *surplus == 0 {
            self.surplus.remove(&key);
        }
    }

    fn differences(self) -> Differences {
        let mut found = Differences { equal: self.equal, ..Differences::default() };
        let mut rest: Vec<(i64, String)> = self.surplus.into_values().collect();
        // Rows with a text first, in an order that does not change from run to run.
        rest.sort_by(|(_, a), (_, b)| (a.is_empty(), a).cmp(&(b.is_empty(), b)));
        for (surplus, text) in rest {
            let side = if surplus > 0 { &mut found.missing } else { &mut found.extra };
            for _ in 0..surplus.unsigned_abs() {
                side.add(|| text.clone());
            }
        }
        found
    }
}

fn digest(row: &Row) -> [u8; 16] {
    let mut hash = Md5::new();
    for length in &row.lengths {
        hash.update(length.to_be_bytes());
    }
    hash.update(&row.values);
    hash.finalize().into()
}

/// The beginning of a row as SQL would write it.
fn text(table: &Table, row: &Row) -> String {
    let mut text = Vec::new();
    for (at, (column, cell)) in table.columns.iter().zip(rows::cells(row)).enumerate() {
        text.extend_from_slice(if at > 0 { b", " } else { b"(" });
        // Enough for the text, not all of a huge value.
        column.literal.push(&mut text, cell.map(|cell| &cell[..cell.len().min(TEXT)]));
    }
    text.push(b')');
    let text = String::from_utf8_lossy(&text);
    match text.char_indices().nth(TEXT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into_owned(),
    }
}

/// A destination while it is read.
struct Running {
    rows: ResultStream,
    filter: Filter,
    bag: Bag,
    /// Rows of the source that it should hold, less those that were read from it.
    behind: i64,
    ended: bool,
}

impl Running {
    /// Reads until as many rows were read as the source gave, or to the end.
    async fn keep_up(&mut self, table: &Table, to_the_end: bool) -> Result<()> {
        while !self.ended && (to_the_end || self.behind > 0) {
            let Some(result) = self.rows.next().await else {
                self.ended = true;
                break;
            };
            for row in &result?.rows {
                if !self.filter.is_foreign(row) {
                    self.bag.add(table, row, -1);
                    self.behind -= 1;
                }
            }
        }
        Ok(())
    }
}

/// Compares a table; the differences are added to those of the sides.
///
/// # Errors
/// A tablet could not be read.
pub async fn compare(
    table: &Table,
    source: &Reader<'_>,
    sides: &mut [Side<'_>],
    progress: &TableProgress,
) -> Result<()> {
    let mut running = Vec::with_capacity(sides.len());
    for side in sides.iter() {
        let rows = side.reader.stream_by_all_columns(table).await?;
        running.push(Running { rows, filter: side.filter.clone(), bag: Bag::default(), behind: 0, ended: false });
    }
    let mut stream = source.stream_by_all_columns(table).await?;
    while let Some(result) = stream.next().await {
        let result = result?;
        let mut bytes = 0;
        for row in &result.rows {
            bytes += row.values.len() as u64;
            for side in &mut running {
                if side.filter.covers(row)? {
                    side.bag.add(table, row, 1);
                    side.behind += 1;
                }
            }
        }
        progress.rows.fetch_add(result.rows.len() as u64, Ordering::Relaxed);
        progress.bytes.fetch_add(bytes, Ordering::Relaxed);
        for side in &mut running {
            side.keep_up(table, false).await?;
        }
    }
    for (mut running, side) in running.into_iter().zip(sides) {
        running.keep_up(table, true).await?;
        side.differences.add(running.bag.differences(), progress);
    }
    progress.chunk_done();
    Ok(())
}
