//! What a clone has done, stored at the destination, so that a killed one goes on.
//!
//! `_vt.vtworker_job` says how far a job is as a whole, `_vt.vtworker_chunk` which pieces were copied and with which
//! checksum. A piece is noted after its rows are committed; whether they are there still, the next run asks the
//! destination. Notes are written in batches, by one task; what it has not written yet is done again by the next run,
//! which does no harm.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use vterrors::{Code, Result, VtError};

use super::write::Writer;
use crate::rows::{self, Checksum};
use crate::sql::{Bound, Range, quoted};

const TABLES: &[&str] = &[
    "create table if not exists _vt.vtworker_job (job varbinary(512) not null, phase varbinary(32) not null, \
     positions mediumblob, time_updated bigint not null, primary key (job)) engine=InnoDB",
    "create table if not exists _vt.vtworker_chunk (job varbinary(512) not null, source varbinary(128) not null, \
     table_name varbinary(128) not null, chunk int unsigned not null, lower_key mediumblob, upper_key mediumblob, \
     copied tinyint not null default 0, row_count bigint unsigned not null default 0, \
     checksum bigint unsigned not null default 0, time_updated bigint not null default 0, \
     primary key (job, source, table_name, chunk)) engine=InnoDB",
];

/// How far a job is as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Rows are being copied.
    Copying,
    /// All rows are at the positions that are noted; streams are being started there.
    Streams,
    /// It ended; the next run begins anew.
    Done,
}

impl Phase {
    fn text(self) -> &'static str {
        match self {
            Self::Copying => "copying",
            Self::Streams => "streams",
            Self::Done => "done",
        }
    }
}

/// Positions by `keyspace/shard` of the source.
pub type Positions = BTreeMap<String, String>;

/// A piece of a table, and its checksum if it was copied.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    pub range: Range,
    pub copied: Option<Checksum>,
}

/// A piece that was copied just now.
struct Note {
    source: String,
    table: String,
    chunk: usize,
    sum: Checksum,
}

/// The notes of one job.
pub struct Progress {
    writer: Arc<Writer>,
    job: String,
}

/// Values of a key as one text: `length:bytes` each.
fn encode(bound: Option<&Bound>) -> Vec<u8> {
    let Some(bound) = bound else { return b"NULL".to_vec() };
    let mut text = Vec::new();
    for value in bound {
        text.extend_from_slice(value.len().to_string().as_bytes());
        text.push(b':');
        text.extend_from_slice(value);
    }
    let mut out = Vec::new();
    crate::sql::Literal::Binary.push(&mut out, Some(&text));
    out
}

fn decode(mut text: &[u8]) -> Option<Bound> {
    let mut bound = Bound::new();
    while !text.is_empty() {
        let colon = text.iter().position(|byte| *byte == b':')?;
        let length: usize = std::str::from_utf8(&text[..colon]).ok()?.parse().ok()?;
        let (value, rest) = text[colon + 1..].split_at_checked(length)?;
        bound.push(value.to_vec());
        text = rest;
    }
    Some(bound)
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Progress {
    /// Makes the tables where there are none yet; the job is claimed.
    ///
    /// # Errors
    /// The destination's master refuses.
    pub async fn open(writer: &Arc<Writer>, job: String) -> Result<Self> {
        for sql in TABLES {
            writer.write(sql.as_bytes()).await?;
        }
        Ok(Self { writer: writer.clone(), job })
    }

    /// The job as a value of an INSERT that this run alone can make.
    fn guarded_job(&self) -> String {
        String::from_utf8_lossy(&self.writer.guarded(quoted(&self.job).as_bytes())).into_owned()
    }

    /// The phase that an earlier run reached, and its positions.
    ///
    /// # Errors
    /// The destination's master cannot be asked.
    pub async fn phase(&self) -> Result<Option<(Phase, Positions)>> {
        let sql = format!("select phase, positions from _vt.vtworker_job where job = {}", quoted(&self.job));
        let result = self.writer.master().fetch(sql).await?;
        let Some(row) = result.rows.first() else { return Ok(None) };
        let text = rows::text(row, 0);
        let phase = [Phase::Copying, Phase::Streams, Phase::Done].into_iter().find(|phase| phase.text() == text);
        let phase =
            phase.ok_or_else(|| VtError::new(Code::Internal, format!("_vt.vtworker_job has the phase {text}")))?;
        let positions = rows::text(row, 1);
        let positions = positions.lines().filter_map(|line| line.split_once('\t'));
        Ok(Some((phase, positions.map(|(shard, position)| (shard.to_owned(), position.to_owned())).collect())))
    }

    /// Notes a phase.
    ///
    /// # Errors
    /// The destination's master refuses.
    pub async fn set_phase(&self, phase: Phase, positions: &Positions) -> Result<()> {
        let lines: Vec<String> = positions.iter().map(|(shard, position)| format!("{shard}\t{position}")).collect();
        let sql = format!(
            "replace into _vt.vtworker_job (job, phase, positions, time_updated) values ({}, {}, {}, {})",
            self.guarded_job(),
            quoted(phase.text()),
            quoted(lines.join("\n")),
            now()
        );
        self.writer.write(sql.as_bytes()).await.map(drop)
    }

    /// Forgets what earlier runs noted.
    ///
    /// # Errors
    /// The destination's master refuses.
    pub async fn begin(&self) -> Result<()> {
        let guard = self.writer.guard();
        let sql = format!("delete from _vt.vtworker_chunk where {guard} = 1 and job = {}", quoted(&self.job));
        self.writer.write(sql.as_bytes()).await?;
        self.set_phase(Phase::Copying, &Positions::new()).await
    }

    /// The pieces of a table as an earlier run cut it; none if it did not come so far.
    ///
    /// # Errors
    /// The destination's master cannot be asked.
    pub async fn pieces(&self, source: &str, table: &str) -> Result<Vec<Piece>> {
        let sql = format!(
            "select lower_key, upper_key, copied, row_count, checksum from _vt.vtworker_chunk \
             where job = {} and source = {} and table_name = {} order by chunk",
            quoted(&self.job),
            quoted(source),
            quoted(table)
        );
        let result = self.writer.master().fetch(sql).await?;
        let damaged = || VtError::new(Code::Internal, format!("_vt.vtworker_chunk cannot be read for table {table}"));
        let mut pieces = Vec::with_capacity(result.rows.len());
        for row in &result.rows {
            let bound = |at: usize| rows::cell(row, at).map(|text| decode(text).ok_or_else(damaged)).transpose();
            let number = |at: usize| rows::text(row, at).parse::<u64>().map_err(|_| damaged());
            let sum = Checksum { rows: number(3)?, xor: number(4)? };
            let copied = (number(2)? == 1).then_some(sum);
            pieces.push(Piece { range: Range { lower: bound(0)?, upper: bound(1)? }, copied });
        }
        Ok(pieces)
    }

    /// Notes how a table is cut.
    ///
    /// # Errors
    /// The destination's master refuses.
    pub async fn plan(&self, source: &str, table: &str, ranges: &[Range]) -> Result<()> {
        let mut sql =
            b"replace into _vt.vtworker_chunk (job, source, table_name, chunk, lower_key, upper_key) values ".to_vec();
        for (chunk, range) in ranges.iter().enumerate() {
            if chunk > 0 {
                sql.push(b',');
            }
            let job = if chunk == 0 { self.guarded_job() } else { quoted(&self.job) };
            let head = format!("({job}, {}, {}, {chunk}, ", quoted(source), quoted(table));
            sql.extend_from_slice(head.as_bytes());
            sql.extend(encode(range.lower.as_ref()));
            sql.push(b',');
            sql.extend(encode(range.upper.as_ref()));
            sql.push(b')');
        }
        self.writer.write(&sql).await.map(drop)
    }

    async fn note(&self, notes: &[Note]) -> Result<()> {
        let mut sql = "insert into _vt.vtworker_chunk (job, source, table_name, chunk, copied, row_count, checksum, \
                       time_updated) values "
            .to_owned();
        let rows: Vec<String> = notes
            .iter()
            .enumerate()
            .map(|(at, note)| {
                format!(
                    "({}, {}, {}, {}, 1, {}, {}, {})",
                    if at == 0 { self.guarded_job() } else { quoted(&self.job) },
                    quoted(&note.source),
                    quoted(&note.table),
                    note.chunk,
                    note.sum.rows,
                    note.sum.xor,
                    now()
                )
            })
            .collect();
        sql.push_str(&rows.join(", "));
        sql.push_str(
            " on duplicate key update copied = values(copied), row_count = values(row_count), \
             checksum = values(checksum), time_updated = values(time_updated)",
        );
        self.writer.write(sql.as_bytes()).await.map(drop)
    }
}

/// Notes pieces in the background.
pub struct Notes {
    sender: mpsc::UnboundedSender<Note>,
    task: JoinHandle<Result<()>>,
    /// Why the task ended before it was asked to.
    failure: Arc<OnceLock<VtError>>,
}

/// Pause in which notes gather; what is lost with a killed process is done again.
const GATHER: Duration = Duration::from_millis(100);

impl Notes {
    pub fn start(progress: Arc<Progress>) -> Self {
        // As many as there are pieces at most.
        let (sender, mut receiver) = mpsc::unbounded_channel();
        let failure = Arc::new(OnceLock::new());
        let told = failure.clone();
        let task = tokio::spawn(async move {
            let mut notes = Vec::new();
            while receiver.recv_many(&mut notes, 1000).await > 0 {
                progress.note(&notes).await.inspect_err(|error| {
                    // The first failure is the only one.
                    let _ = told.set(error.clone());
                })?;
                notes.clear();
                tokio::time::sleep(GATHER).await;
            }
            Ok(())
        });
        Self { sender, task, failure }
    }

    /// A piece has been copied: its rows are committed.
    ///
    /// # Errors
    /// Notes could not be written.
    pub fn add(&self, source: &str, table: &str, chunk: usize, sum: Checksum) -> Result<()> {
        if let Some(error) = self.failure.get() {
            return Err(error.clone());
        }
        // A task that ended meanwhile has failed, which `finish` says.
        let _ = self.sender.send(Note { source: source.to_owned(), table: table.to_owned(), chunk, sum });
        Ok(())
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// Notes could not be written.
    pub async fn finish(self) -> Result<()> {
        drop(self.sender);
        self.task.await.unwrap_or_else(|error| Err(VtError::new(Code::Internal, error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_survive_the_way_through_the_table() {
        let bound: Bound = vec![b"12".to_vec(), b"a:3:'\xff".to_vec(), Vec::new()];
        assert_eq!(encode(None), b"NULL");
        let mut text = Vec::new();
        for value in &bound {
            text.extend_from_slice(format!("{}:", value.len()).as_bytes());
            text.extend_from_slice(value);
        }
        assert_eq!(decode(&text), Some(bound));
        assert_eq!(decode(b"9:abc"), None);
    }
}
