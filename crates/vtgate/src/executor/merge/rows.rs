//! Sorted rows of several shards become one sorted sequence.
//!
//! Owns: taking the least of the first rows of all shards, again and again, skipping and cutting. Invariants: of
//! each shard no more is held than what has arrived with one message; no row waits for a shard whose next row
//! cannot come before it; equal rows come in the order of their shards.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    sync::Arc,
};

use bytes::Bytes;
use futures::TryStreamExt;
use tabletclient::ResultStream;
use vterrors::{Code, Result, VtError};
use vtproto::query::{Field, QueryResult, Row};

use super::{
    Window,
    order::{Form, Value},
};

/// Bytes of rows that are handed on together, about.
const CHUNK_BYTES: usize = 64 * 1024;

/// Where the values of one key stand in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub form: Form,
    pub descending: bool,
    pub own: usize,
    /// The first of the columns that the form asked for.
    pub asked: usize,
}

/// The answer of one shard, as it arrives.
pub(super) struct Source {
    pub fields: Vec<Field>,
    rows: std::vec::IntoIter<Row>,
    rest: ResultStream,
}

impl Source {
    /// Waits for the columns.
    pub async fn open(mut rest: ResultStream) -> Result<Self> {
        let first = rest.try_next().await?.unwrap_or_default();
        Ok(Self { fields: first.fields, rows: first.rows.into_iter(), rest })
    }

    fn has_row(&self) -> bool {
        self.rows.len() > 0
    }

    async fn next(&mut self) -> Result<Option<Row>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(row));
            }
            match self.rest.try_next().await? {
                Some(more) => self.rows = more.rows.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

/// One value of a row that rows are sorted by.
enum Key {
    Ascending(Value),
    Descending(Value),
}

/// The first row of a source that was not taken yet.
struct Head {
    keys: Vec<Key>,
    row: Row,
    source: usize,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        for pair in self.keys.iter().zip(&other.keys) {
            let order = match pair {
                (Key::Descending(a), Key::Descending(b)) => b.compare(a),
                (Key::Ascending(a) | Key::Descending(a), Key::Ascending(b) | Key::Descending(b)) => a.compare(b),
            };
            if order != Ordering::Equal {
                return order;
            }
        }
        self.source.cmp(&other.source)
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// The rows of all sources in order.
pub(super) struct MergedRows {
    sources: Vec<Source>,
    slots: Arc<[Slot]>,
    /// Columns that the client has asked for.
    visible: usize,
    heads: BinaryHeap<Reverse<Head>>,
    /// Sources without a head, whose next row may be the least one.
    open: Vec<usize>,
    skip: u64,
    left: u64,
}

impl MergedRows {
    pub fn new(sources: Vec<Source>, slots: Arc<[Slot]>, visible: usize, window: Option<Window>) -> Self {
        let open = (0..sources.len()).collect();
        let (skip, left) = window.map_or((0, u64::MAX), |window| (window.offset, window.count));
        Self { sources, slots, visible, heads: BinaryHeap::new(), open, skip, left }
    }

    /// The next rows; none at the end.
    ///
    /// # Errors
    /// The sources', and rows that are not what their columns say.
    pub async fn next(&mut self) -> Result<Option<QueryResult>> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while self.left > 0 && bytes < CHUNK_BYTES {
            while let Some(&source) = self.open.last() {
                // What is in order goes on before anything is waited for.
                if !rows.is_empty() && !self.sources[source].has_row() {
                    return Ok(Some(QueryResult { rows, ..QueryResult::default() }));
                }
                if let Some(row) = self.sources[source].next().await? {
                    let keys = self.slots.iter().map(|slot| key(slot, &row)).collect::<Result<_>>()?;
                    self.heads.push(Reverse(Head { keys, row, source }));
                }
                self.open.pop();
            }
            let Some(Reverse(head)) = self.heads.pop() else { break };
            self.open.push(head.source);
            if self.skip > 0 {
                self.skip -= 1;
                continue;
            }
            self.left -= 1;
            let row = visible(head.row, self.visible)?;
            bytes += row.values.len() + row.lengths.len();
            rows.push(row);
        }
        Ok((!rows.is_empty()).then(|| QueryResult { rows, ..QueryResult::default() }))
    }
}

fn key(slot: &Slot, row: &Row) -> Result<Key> {
    let own = cell(row, slot.own)?;
    let mut failed = None;
    let asked =
        (slot.asked..row.lengths.len()).map_while(|at| cell(row, at).map_err(|error| failed = Some(error)).ok());
    let value = slot.form.value(own, asked);
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(if slot.descending { Key::Descending(value?) } else { Key::Ascending(value?) })
}

/// Where a column begins among a row's values.
fn start(row: &Row, at: usize) -> Option<usize> {
    row.lengths.get(..at)?.iter().try_fold(0usize, |sum, length| sum.checked_add(usize::try_from(*length).unwrap_or(0)))
}

/// A column's value; `None` is NULL.
fn cell(row: &Row, at: usize) -> Result<Option<Bytes>> {
    let (Some(start), Some(length)) = (start(row, at), row.lengths.get(at)) else { return Err(short_row()) };
    let Ok(length) = usize::try_from(*length) else { return Ok(None) };
    match start.checked_add(length) {
        Some(end) if end <= row.values.len() => Ok(Some(row.values.slice(start..end))),
        _ => Err(short_row()),
    }
}

/// A row without the columns behind the client's own.
fn visible(mut row: Row, count: usize) -> Result<Row> {
    if row.lengths.len() > count {
        let end = start(&row, count).filter(|end| *end <= row.values.len()).ok_or_else(short_row)?;
        row.lengths.truncate(count);
        row.values.truncate(end);
    }
    Ok(row)
}

fn short_row() -> VtError {
    VtError::new(Code::Internal, "a row that does not fit its columns")
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};

    use super::*;

    fn row(cells: &[&str]) -> Row {
        Row {
            lengths: cells.iter().map(|cell| i64::try_from(cell.len()).expect("short")).collect(),
            values: cells.concat().into(),
        }
    }

    fn source(chunks: Vec<Vec<Row>>) -> ResultStream {
        let chunks = chunks.into_iter().map(|rows| Ok(QueryResult { rows, ..QueryResult::default() }));
        stream::iter(chunks.collect::<Vec<_>>()).boxed()
    }

    async fn merged(descending: bool, window: Option<Window>, shards: &[&[&[&str]]]) -> Vec<String> {
        let mut sources = Vec::new();
        for chunks in shards {
            let rows = |chunk: &&[&str]| chunk.iter().map(|number| row(&["x", number])).collect();
            sources.push(Source::open(source(chunks.iter().map(rows).collect())).await.expect("a source"));
        }
        let slot = Slot { form: Form::Number, descending, own: 1, asked: 2 };
        let mut all = MergedRows::new(sources, [slot].into(), 2, window);
        let mut found = Vec::new();
        while let Some(chunk) = all.next().await.expect("rows") {
            found.extend(chunk.rows.iter().map(|row| String::from_utf8_lossy(&row.values[1..]).into_owned()));
        }
        found
    }

    #[tokio::test]
    async fn the_least_row_comes_first() {
        let shards: &[&[&[&str]]] = &[&[&["1", "5"], &[], &["10", "10"]], &[], &[&["2"], &["7", "11"]]];
        assert_eq!(merged(false, None, shards).await, ["1", "2", "5", "7", "10", "10", "11"]);
        let window = Window { offset: 2, count: 3 };
        assert_eq!(merged(false, Some(window), shards).await, ["5", "7", "10"]);
        assert_eq!(merged(true, None, &[&[&["9", "3"]], &[&["10"], &["-1"]]]).await, ["10", "9", "3", "-1"]);
        assert!(merged(false, Some(Window { offset: 0, count: 0 }), shards).await.is_empty());
    }

    #[tokio::test]
    async fn rows_go_on_before_a_shard_is_waited_for() {
        let waiting = source(vec![vec![row(&["2"])]]).chain(stream::pending()).boxed();
        let sources = vec![
            Source::open(source(vec![vec![row(&["1"]), row(&["3"])]])).await.expect("a source"),
            Source::open(waiting).await.expect("a source"),
        ];
        let slot = Slot { form: Form::Number, descending: false, own: 0, asked: 1 };
        let mut all = MergedRows::new(sources, [slot].into(), 1, None);
        let first = all.next().await.expect("rows").expect("some");
        assert_eq!(first.rows, [row(&["1"]), row(&["2"])]);
    }

    #[test]
    fn what_was_asked_for_in_addition_is_cut_off() {
        let null = Row { lengths: vec![1, -1, 2], values: "abc".into() };
        assert_eq!(visible(null, 2).expect("a row"), Row { lengths: vec![1, -1], values: "a".into() });
        assert!(cell(&Row { lengths: vec![5], values: "abc".into() }, 0).is_err());
    }
}
