//! Results on their way to the client.
//!
//! Packets are collected and written together; when enough are collected, [`ResultWriter::rows`] writes and waits
//! for the client, so a slow client slows down whoever produces the rows. Text rows pass through byte by byte.

use std::io;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vterrors::MysqlError;
use vtproto::query::{Field, QueryResult, Row, Type};

use super::binary;
use crate::constants::{capability, errno, status};
use crate::packet::{PacketWriter, WireError, put_lenenc};
use crate::raw_rows::{Arriving, Rows, whole_rows};
use crate::stream::WriteHalf;
use crate::wire;

/// What an OK packet says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OkInfo {
    pub affected_rows: u64,
    pub last_insert_id: u64,
    /// [`crate::constants::status`] flags, without MORE_RESULTS, which the writer knows.
    pub status: u16,
    pub warnings: u16,
    /// Text for people, such as `Rows matched: 1  Changed: 1  Warnings: 0`.
    pub info: String,
}

/// Which part of an answer has been written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Nothing,
    /// Fields, and perhaps rows.
    Rows,
    /// The last result.
    Complete,
}

/// The stream to one client and what was agreed on for it.
#[derive(Debug)]
pub(super) struct Output {
    pub packets: PacketWriter<WriteHalf>,
    pub capabilities: u32,
    pub write_timeout: Option<Duration>,
    /// Flags sent last, by which an open transaction is known.
    pub status: u16,
}

impl Output {
    pub fn has(&self, bit: u32) -> bool {
        self.capabilities & bit != 0
    }

    pub async fn flush(&mut self) -> io::Result<()> {
        match self.write_timeout {
            Some(limit) => tokio::time::timeout(limit, self.packets.flush())
                .await
                .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))),
            None => self.packets.flush().await,
        }
    }

    async fn flush_if_full(&mut self) -> io::Result<()> {
        if self.packets.is_full() { self.flush().await } else { Ok(()) }
    }

    pub fn put_ok(&mut self, info: &OkInfo) {
        self.status = info.status;
        let ok = wire::Ok {
            affected_rows: info.affected_rows,
            insert_id: info.last_insert_id,
            status: info.status,
            warnings: info.warnings,
        };
        wire::put_ok(self.packets.begin(), wire::OK, &ok, &info.info);
        self.packets.end();
    }

    pub fn put_error(&mut self, error: &MysqlError) {
        wire::put_err(self.packets.begin(), error);
        self.packets.end();
    }

    /// Ends column definitions, where the client still wants that.
    pub fn put_eof_after_columns(&mut self, flags: u16) {
        if !self.has(capability::DEPRECATE_EOF) {
            wire::put_eof(self.packets.begin(), flags, 0);
            self.packets.end();
        }
    }

    /// Ends rows, or is the answer to a command that is answered by EOF.
    pub fn put_eof(&mut self, flags: u16, warnings: u16) {
        let deprecate_eof = self.has(capability::DEPRECATE_EOF);
        let packet = self.packets.begin();
        if deprecate_eof {
            let ok = wire::Ok { status: flags, warnings, ..wire::Ok::default() };
            wire::put_ok(packet, wire::EOF, &ok, "");
        } else {
            wire::put_eof(packet, flags, warnings);
        }
        self.packets.end();
    }

    pub fn put_columns(&mut self, fields: &[Field]) {
        for field in fields {
            wire::put_column(self.packets.begin(), field);
            self.packets.end();
        }
    }
}

/// Writes the answer to one command, as text or binary rows. Write exactly one result (several with
/// [`ResultWriter::set_more_results`]): [`ResultWriter::ok`], or `start`, `rows`…, `finish`, or
/// [`ResultWriter::result`], or [`ResultWriter::error`].
#[derive(Debug)]
pub struct ResultWriter<'a> {
    output: &'a mut Output,
    cancelled: &'a CancellationToken,
    binary: bool,
    /// Column types of the open result set, for binary rows.
    columns: Vec<Type>,
    column_count: usize,
    /// The beginning of a row that has to be whole before it can be written: as a binary one.
    arriving: Arriving,
    progress: Progress,
    more_results: bool,
    more_statements: bool,
}

impl<'a> ResultWriter<'a> {
    pub(super) fn new(
        output: &'a mut Output,
        cancelled: &'a CancellationToken,
        binary: bool,
        more_statements: bool,
    ) -> Self {
        Self {
            output,
            cancelled,
            binary,
            columns: Vec::new(),
            column_count: 0,
            arriving: Arriving::default(),
            progress: Progress::Nothing,
            more_results: false,
            more_statements,
        }
    }

    /// A statement without rows is done.
    pub async fn ok(&mut self, info: &OkInfo) -> io::Result<()> {
        self.expect(Progress::Nothing)?;
        let flags = self.flags(info.status);
        self.output.put_ok(&OkInfo { status: flags, ..info.clone() });
        self.complete();
        self.output.flush_if_full().await
    }

    /// Opens a result set.
    pub async fn start(&mut self, fields: &[Field]) -> io::Result<()> {
        self.expect(Progress::Nothing)?;
        put_lenenc(self.output.packets.begin(), fields.len() as u64);
        self.output.packets.end();
        self.output.put_columns(fields);
        let flags = self.output.status & !status::MORE_RESULTS;
        self.output.put_eof_after_columns(flags);
        self.column_count = fields.len();
        if self.binary {
            self.columns = fields.iter().map(Field::r#type).collect();
        }
        self.progress = Progress::Rows;
        self.output.flush_if_full().await
    }

    /// Rows of the open result set; waits while the client does not read.
    pub async fn rows(&mut self, rows: &[Row]) -> io::Result<()> {
        self.expect(Progress::Rows)?;
        for row in rows {
            let packet = self.output.packets.begin();
            let written = if row.lengths.len() != self.column_count {
                Err(WireError::BadLength)
            } else if self.binary {
                binary::put_row(packet, &self.columns, row)
            } else {
                wire::put_text_row(packet, row)
            };
            if let Err(error) = written {
                self.output.packets.abandon();
                return Err(does_not_fit(error));
            }
            self.output.packets.end();
            self.output.flush_if_full().await?;
        }
        Ok(())
    }

    /// Rows of the open result set in the shape of [`crate::raw_rows`]; waits while the client does not read.
    pub async fn raw_rows(&mut self, raw: &[u8]) -> io::Result<()> {
        self.expect(Progress::Rows)?;
        if self.binary {
            for row in Rows::new(raw) {
                self.binary_row(row.map_err(does_not_fit)?.payload())?;
                self.output.flush_if_full().await?;
            }
            return Ok(());
        }
        let mut rest = raw;
        while !rest.is_empty() {
            let taken = self.output.packets.frames(rest).map_err(does_not_fit)?;
            rest = &rest[taken..];
            self.output.flush_if_full().await?;
        }
        Ok(())
    }

    /// As [`ResultWriter::raw_rows`], for rows that come in pieces: the last row of a piece may go on in the next one. A
    /// binary row is held until it is whole.
    pub async fn raw_part(&mut self, raw: &[u8]) -> io::Result<()> {
        self.expect(Progress::Rows)?;
        if self.binary {
            return self.binary_part(raw).await;
        }
        let mut rest = raw;
        while !rest.is_empty() {
            let taken = self.output.packets.part(rest).map_err(does_not_fit)?;
            rest = &rest[taken..];
            self.output.flush_if_full().await?;
        }
        Ok(())
    }

    async fn binary_part(&mut self, mut raw: &[u8]) -> io::Result<()> {
        while !raw.is_empty() {
            if self.arriving.is_empty() {
                let (whole, rest) = raw.split_at(whole_rows(raw));
                self.raw_rows(whole).await?;
                raw = rest;
                if raw.is_empty() {
                    break;
                }
            }
            raw = self.arriving.add(raw).map_err(does_not_fit)?;
            if self.arriving.is_empty() {
                let row = self.arriving.take();
                self.binary_row(&row)?;
                drop(row);
                self.output.flush_if_full().await?;
            }
        }
        Ok(())
    }

    fn binary_row(&mut self, row: &[u8]) -> io::Result<()> {
        let packet = self.output.packets.begin();
        // Most rows are no longer than as text, and large ones never by much; they need heads, too.
        packet.reserve(row.len() + row.len() / 1024 + 16);
        if let Err(error) = binary::put_raw_row(packet, &self.columns, row) {
            self.output.packets.abandon();
            return Err(does_not_fit(error));
        }
        self.output.packets.end();
        Ok(())
    }

    /// Nothing but the rest of a row can follow its beginning: not its end, nor an error.
    fn expect_whole_rows(&self) -> io::Result<()> {
        if self.output.packets.is_inside_packet() {
            return Err(io::Error::other("a result breaks off within a row"));
        }
        Ok(())
    }

    /// Closes the result set.
    pub async fn finish(&mut self, flags: u16, warnings: u16) -> io::Result<()> {
        self.expect(Progress::Rows)?;
        self.expect_whole_rows()?;
        if !self.arriving.is_empty() {
            return Err(does_not_fit(WireError::Truncated));
        }
        let flags = self.flags(flags);
        self.output.status = flags;
        self.output.put_eof(flags, warnings);
        self.complete();
        self.output.flush_if_full().await
    }

    /// A whole result: OK when it has no fields, else a result set.
    pub async fn result(&mut self, result: &QueryResult, flags: u16, warnings: u16) -> io::Result<()> {
        if result.fields.is_empty() {
            let info = OkInfo {
                affected_rows: result.rows_affected,
                last_insert_id: result.insert_id,
                status: flags,
                warnings,
                info: String::new(),
            };
            return self.ok(&info).await;
        }
        self.start(&result.fields).await?;
        if result.raw_rows.is_empty() {
            self.rows(&result.rows).await?;
        } else {
            self.raw_rows(&result.raw_rows).await?;
        }
        self.finish(flags, warnings).await
    }

    /// An error instead of a result, or in the middle of one. It ends the answer: results and statements announced
    /// by MORE_RESULTS do not follow. Returning it as [`super::HandlerError::Mysql`] does the same. Within a row nothing can
    /// be said: the connection ends.
    pub async fn error(&mut self, error: &MysqlError) -> io::Result<()> {
        if self.progress == Progress::Complete {
            return Err(io::Error::other("an error after the last result"));
        }
        self.expect_whole_rows()?;
        self.output.put_error(error);
        self.more_results = false;
        self.more_statements = false;
        self.progress = Progress::Complete;
        self.output.flush_if_full().await
    }

    /// Writes what is collected so far, for a result whose next rows may take long.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.output.flush().await
    }

    /// Whether another result of the same command follows the next one.
    pub fn set_more_results(&mut self, more: bool) {
        self.more_results = more;
    }

    /// Whether fields have been sent and `finish` has not.
    pub fn started(&self) -> bool {
        self.progress == Progress::Rows
    }

    /// Whether this is an execute of a prepared statement: rows go out in binary form.
    pub fn is_binary(&self) -> bool {
        self.binary
    }

    /// Cancelled when the client has gone or the statement was killed. Clone it before writing.
    pub fn cancelled(&self) -> &CancellationToken {
        self.cancelled
    }

    fn flags(&self, flags: u16) -> u16 {
        if self.more_results || self.more_statements { flags | status::MORE_RESULTS } else { flags }
    }

    fn complete(&mut self) {
        self.progress = if self.more_results { Progress::Nothing } else { Progress::Complete };
    }

    fn expect(&self, progress: Progress) -> io::Result<()> {
        if self.progress == progress {
            return Ok(());
        }
        // The client would take one part for another. The handler is at fault; the connection ends.
        Err(io::Error::other(format!("result written out of order: {:?} instead of {progress:?}", self.progress)))
    }

    /// Closes the answer off after the handler has returned. Whether further statements may run.
    pub(super) async fn close(mut self, outcome: Result<(), MysqlError>) -> io::Result<bool> {
        let failed = match (&outcome, self.progress) {
            (Err(_), Progress::Complete) | (Ok(()), Progress::Complete) => None,
            (Err(error), _) => Some(error.clone()),
            (Ok(()), progress) => {
                tracing::error!(?progress, "the handler of a statement left its result incomplete");
                Some(MysqlError::new(errno::UNKNOWN, "HY000", "the statement ended without a complete result"))
            }
        };
        if let Some(error) = failed {
            self.error(&error).await?;
        }
        Ok(self.more_statements && outcome.is_ok())
    }
}

/// Nothing of the row has been written.
fn does_not_fit(error: WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("row does not fit its fields: {error}"))
}
