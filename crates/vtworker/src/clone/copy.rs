//! Copies a piece of a table to destinations that hold none of its rows.
//!
//! Rows stream from the source into the text of INSERTs, one being written while the next is built, so that memory is
//! bounded by two statements per destination whatever the piece holds. The checksum is computed on the way.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt;
use keyrange::KeyRange;
use tabletclient::ResultStream;
use tokio_util::task::AbortOnDropHandle;
use vterrors::{Code, Result, VtError};
use vtproto::query::{Row, Type};

use super::route::{Destinations, Route};
use super::write::{DUPLICATE_KEY, Repeat, Writer, errno};
use super::{Endpoint, Options, Table};
use crate::rows::{self, Checksum, Hasher};
use crate::sql::{LAX_WRITE_SETTINGS, Range, WRITE_SETTINGS, name};
use crate::status::TableProgress;

/// Rows of one DELETE of [`clear`].
const CLEARED_AT_ONCE: usize = 10_000;

/// A table with all that is needed to copy it.
pub struct Job {
    pub table: Table,
    pub route: Route,
    /// No destination holds a row of it from before this run.
    pub fresh: bool,
}

impl Job {
    /// Where a row goes, of the shards that its table is brought to.
    ///
    /// # Errors
    /// The row, and why it goes nowhere.
    pub fn places<'a>(&self, ranges: &'a Destinations, row: &Row, fed: &'a [usize]) -> Result<&'a [usize]> {
        ranges.of(&self.route, row, fed).map_err(|error| error.wrap(self.table.shown(row)))
    }
}

/// The destination shards.
pub struct Targets {
    pub writers: Vec<Arc<Writer>>,
    pub ranges: Destinations,
}

/// A source shard as one reader reads it.
pub struct Reading<'a> {
    pub endpoint: &'a Endpoint,
    /// The range of the shard.
    pub shard: &'a KeyRange,
    /// The transaction whose snapshot is read; 0: what is there now.
    pub transaction: i64,
}

impl Reading<'_> {
    /// The rows of a piece in the order of its key.
    ///
    /// # Errors
    /// The tablet refuses.
    pub async fn stream(&self, table: &Table, range: &Range) -> Result<ResultStream> {
        self.endpoint.stream(select(table, range), self.transaction).await
    }
}

/// Why a piece was not copied.
#[derive(Debug)]
pub enum Failure {
    /// The source could not be read: another tablet may do.
    Read(VtError),
    /// The destination has a row with the same key.
    Duplicate(VtError),
    Other(VtError),
}

impl Failure {
    pub fn into_error(self) -> VtError {
        match self {
            Self::Read(error) | Self::Duplicate(error) | Self::Other(error) => error,
        }
    }
}

impl From<VtError> for Failure {
    fn from(error: VtError) -> Self {
        if errno(&error) == Some(DUPLICATE_KEY) { Self::Duplicate(error) } else { Self::Other(error) }
    }
}

/// Statements of many rows to one destination, one under way at a time.
pub struct Inserts {
    writer: Arc<Writer>,
    head: Vec<u8>,
    /// The same for [`LAX_WRITE_SETTINGS`].
    lax_head: Vec<u8>,
    /// One of the collected rows needs these.
    lax: bool,
    text: Vec<u8>,
    rows: usize,
    max_rows: usize,
    max_size: usize,
    repeat: Repeat,
    sending: Option<AbortOnDropHandle<Result<Vec<u8>>>>,
}

impl Inserts {
    /// `verb` is INSERT or REPLACE.
    pub fn new(writer: &Arc<Writer>, verb: &str, table: &Table, options: &Options) -> Self {
        let place = format!("{}.{}", name(&writer.master().db_name), name(&table.name));
        let dialect = writer.dialect();
        let head = |settings| {
            let verb = dialect.with(verb, settings);
            format!("{verb} into {place} {} values ", table.column_list()).into_bytes()
        };
        Self {
            writer: writer.clone(),
            head: head(WRITE_SETTINGS),
            lax_head: head(LAX_WRITE_SETTINGS),
            lax: false,
            text: Vec::new(),
            rows: 0,
            max_rows: options.max_rows,
            max_size: options.max_size,
            repeat: if table.is_keyless() { Repeat::Doubles } else { Repeat::Harmless },
            sending: None,
        }
    }

    /// Adds a row; sends what is collected when it is enough.
    ///
    /// # Errors
    /// Those of the statement before.
    pub async fn push(&mut self, table: &Table, row: &Row) -> Result<()> {
        if self.rows == 0 {
            self.text.extend_from_slice(&self.head);
        } else {
            self.text.push(b',');
        }
        // One value of the statement is guarded: a short one, which is written twice.
        let guarded = (self.rows == 0).then(|| shortest(row));
        let mut separator = b'(';
        let mut count = 0;
        for (column, cell) in table.columns.iter().zip(rows::cells(row)) {
            self.text.push(separator);
            separator = b',';
            let begin = self.text.len();
            self.lax |= column.kind == Type::Enum && cell.is_some_and(<[u8]>::is_empty);
            column.literal.push(&mut self.text, cell);
            if guarded == Some(count) {
                let value = self.writer.guarded(&self.text[begin..]);
                self.text.truncate(begin);
                self.text.extend(value);
            }
            count += 1;
        }
        if count != table.columns.len() {
            return Err(VtError::new(Code::Internal, format!("table {}: a row has {count} columns", table.name)));
        }
        self.text.push(b')');
        self.rows += 1;
        if self.rows >= self.max_rows || self.text.len() >= self.max_size {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<()> {
        let free = match self.sending.take() {
            Some(sending) => joined(sending).await?,
            None => Vec::new(),
        };
        let mut text = std::mem::replace(&mut self.text, free);
        if std::mem::take(&mut self.lax) {
            text.splice(..self.head.len(), self.lax_head.iter().copied());
        }
        self.rows = 0;
        let (writer, repeat) = (self.writer.clone(), self.repeat);
        self.sending = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            writer.write_with(&text, repeat).await?;
            let mut text = text;
            text.clear();
            // One huge row must not make every buffer huge for good.
            text.shrink_to(4 << 20);
            Ok(text)
        })));
        Ok(())
    }

    /// Sends the rest and waits until all is committed.
    ///
    /// # Errors
    /// Those of the statements.
    pub async fn finish(mut self) -> Result<()> {
        if self.rows > 0 {
            self.send().await?;
        }
        if let Some(sending) = self.sending.take() {
            joined(sending).await?;
        }
        Ok(())
    }
}

/// The place of the shortest cell of a row.
fn shortest(row: &Row) -> usize {
    let lengths = row.lengths.iter().enumerate();
    lengths.min_by_key(|(_, length)| **length).map_or(0, |(at, _)| at)
}

async fn joined(sending: AbortOnDropHandle<Result<Vec<u8>>>) -> Result<Vec<u8>> {
    sending.await.unwrap_or_else(|error| Err(VtError::new(Code::Internal, error.to_string())))
}

/// The statement that reads a piece in the order of its key.
pub fn select(table: &Table, range: &Range) -> Vec<u8> {
    let mut sql = table.select().into_bytes();
    sql.extend(range.condition(&table.key));
    sql.extend(table.order().into_bytes());
    sql
}

/// Whether no destination holds a row of a piece.
///
/// # Errors
/// A destination's.
pub async fn is_empty(targets: &Targets, table: &Table, range: &Range) -> Result<bool> {
    for writer in &targets.writers {
        let master = writer.master();
        let verb = master.dialect.with("select", &[crate::sql::TIME_ZONE]);
        let mut sql = format!("{verb} 1 from {}.{}", name(&master.db_name), name(&table.name)).into_bytes();
        sql.extend(range.condition(&table.key));
        sql.extend_from_slice(b" limit 1");
        if !master.fetch(sql).await?.rows.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Deletes all rows of a table from a destination, in pieces; how many there were.
///
/// # Errors
/// The destination's.
pub async fn clear(writer: &Writer, table: &Table) -> Result<u64> {
    let master = writer.master();
    let verb = master.dialect.with("DELETE", WRITE_SETTINGS);
    let place = format!("{}.{}", name(&master.db_name), name(&table.name));
    let sql = format!("{verb} from {place} where {} = 1 limit {CLEARED_AT_ONCE}", writer.guard());
    let mut deleted = 0;
    loop {
        let rows = writer.write(sql.as_bytes()).await?.rows_affected;
        if rows == 0 {
            return Ok(deleted);
        }
        deleted += rows;
    }
}

/// Copies a piece.
///
/// # Errors
/// See [`Failure`].
pub async fn copy(
    job: &Job,
    range: &Range,
    source: &Reading<'_>,
    targets: &Targets,
    options: &Options,
    progress: &TableProgress,
) -> Result<Checksum, Failure> {
    let table = &job.table;
    let fed = targets.ranges.fed(&job.route, source.shard);
    let mut stream = source.stream(table, range).await.map_err(Failure::Read)?;
    let mut inserts: Vec<Inserts> =
        targets.writers.iter().map(|writer| Inserts::new(writer, "INSERT", table, options)).collect();
    let mut hasher = Hasher::default();
    while let Some(result) = stream.next().await {
        let result = result.map_err(Failure::Read)?;
        let mut bytes = 0;
        for row in &result.rows {
            hasher.add(row, table.columns.len());
            bytes += row.values.len() as u64;
            for at in job.places(&targets.ranges, row, &fed)? {
                inserts[*at].push(table, row).await?;
            }
        }
        progress.rows.fetch_add(result.rows.len() as u64, Ordering::Relaxed);
        progress.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
    for inserts in inserts {
        inserts.finish().await?;
    }
    Ok(hasher.sum())
}

/// The checksum of a piece at a tablet, computed there. `None` if the server cannot.
pub async fn checksum_at(table: &Table, range: &Range, tablet: &Endpoint) -> Option<Checksum> {
    let verb = tablet.dialect.with("select", &[crate::sql::TIME_ZONE]);
    let place = format!("{}.{}", name(&tablet.db_name), name(&table.name));
    let mut sql = format!("{verb} {} from {place}", table.checksum_exprs()).into_bytes();
    sql.extend(range.condition(&table.key));
    let result = match tablet.execute(sql).await {
        Ok(result) => result,
        Err(error) => {
            tracing::warn!(
                "{} cannot compute a checksum of {}, its rows are compared: {error}",
                tablet.alias(),
                table.name
            );
            return None;
        }
    };
    let row = result.rows.first()?;
    Some(Checksum { xor: rows::text(row, 0).parse().ok()?, rows: rows::text(row, 1).parse().ok()? })
}
