//! The packets of a result that is too large to be held, read as they are wanted.

use bytes::Bytes;
use vtproto::query::QueryResult;

use super::{ClientError, Connection};
use crate::constants::MAX_FRAME;

/// What [`Connection::query_raw`] brings.
#[derive(Debug)]
pub enum RawResult<'a> {
    Whole(QueryResult),
    /// More than was to be held.
    Growing(RawRows<'a>),
}

/// The rest of a result, in the shape of [`crate::raw_rows`]. While nobody asks, nothing is read, and the server waits.
/// Dropped before its end, the connection counts as broken.
#[derive(Debug)]
pub struct RawRows<'a> {
    connection: &'a mut Connection,
    begun: QueryResult,
    at: RawPosition,
}

/// How far the packets of a result have been passed on.
#[derive(Debug)]
pub(super) struct RawPosition {
    /// Rows that have begun.
    pub rows: usize,
    pub max_rows: usize,
    /// Bytes that the present frame still lacks.
    pub frame_left: usize,
    /// Whether another frame of the same row follows.
    pub continues: bool,
    /// Bytes of the row whose frames are passed on before they are complete.
    pub in_row: usize,
    /// The packet behind the last row has been read.
    pub ended: bool,
}

impl RawPosition {
    /// A frame of so many bytes is passed on from here.
    pub fn frame(&mut self, len: usize) {
        self.frame_left = len;
        self.continues = len == MAX_FRAME;
        self.in_row = if len == 0 { 0 } else { self.in_row + len };
    }
}

impl<'a> RawRows<'a> {
    pub(super) fn new(connection: &'a mut Connection, begun: QueryResult, max_rows: usize) -> Self {
        let rows = usize::try_from(begun.rows_affected).unwrap_or(usize::MAX);
        let at = RawPosition { rows, max_rows, frame_left: 0, continues: false, in_row: 0, ended: false };
        Self { connection, begun, at }
    }

    /// The fields and the rows that have been read already, moved out.
    pub fn take_begun(&mut self) -> QueryResult {
        std::mem::take(&mut self.begun)
    }

    /// Up to `size` bytes of the next rows. Rows are whole, but for those that are larger by themselves. `None` at the end;
    /// only then, or with an error of the server's, is the connection free again.
    ///
    /// # Errors
    /// As [`Connection::query_raw`]; what has been read before is not taken back.
    pub async fn next(&mut self, size: usize) -> Result<Option<Bytes>, ClientError> {
        match self.connection.raw_piece(&mut self.at, size).await {
            Ok(Some(piece)) => Ok(Some(piece)),
            end => self.connection.done(end),
        }
    }

    /// Rows that have begun so far, those of [`RawRows::take_begun`] included.
    pub fn rows(&self) -> u64 {
        self.at.rows as u64
    }
}
