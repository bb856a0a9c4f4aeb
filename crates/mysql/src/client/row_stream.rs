//! Rows of one statement, read as they are wanted.

use vtproto::query::{Field, Row};

use super::{ClientError, Connection};

/// Rows of one statement. While nobody asks, nothing is read, and the server waits. Dropped before its end, the
/// connection counts as broken.
#[derive(Debug)]
pub struct RowStream<'a> {
    connection: &'a mut Connection,
    fields: Vec<Field>,
    columns: usize,
    ended: bool,
}

impl<'a> RowStream<'a> {
    pub(super) fn new(connection: &'a mut Connection, fields: Vec<Field>) -> Self {
        Self { connection, columns: fields.len(), fields, ended: false }
    }

    /// Empty for a statement that returns no rows (see [`RowStream::summary`]).
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// The fields, moved out.
    pub fn take_fields(&mut self) -> Vec<Field> {
        std::mem::take(&mut self.fields)
    }

    /// At least one row, then more until `max_bytes` of values are collected or the next row has not arrived yet.
    /// `None` at the end; only then is the connection free again.
    pub async fn next_batch(&mut self, max_bytes: usize) -> Result<Option<Vec<Row>>, ClientError> {
        if self.ended {
            return Ok(None);
        }
        let outcome = self.read_batch(max_bytes).await;
        match outcome {
            Ok(rows) if !rows.is_empty() => Ok(Some(rows)),
            Ok(_) => {
                self.ended = true;
                self.connection.done(Ok(None))
            }
            Err(error) => {
                self.ended = true;
                self.connection.done(Err(error))
            }
        }
    }

    /// Rows; none at the end of the last result.
    async fn read_batch(&mut self, max_bytes: usize) -> Result<Vec<Row>, ClientError> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        if self.columns > 0
            && let Some(row) = self.connection.row(self.columns).await?
        {
            bytes += row.values.len();
            rows.push(row);
            while bytes < max_bytes {
                match self.connection.row_at_hand(self.columns)? {
                    Some(Some(row)) => {
                        bytes += row.values.len();
                        rows.push(row);
                    }
                    Some(None) => {
                        // The end is read: the next call must not read again.
                        self.columns = 0;
                        break;
                    }
                    None => break,
                }
            }
            return Ok(rows);
        }
        // Results after the first (CALL): the caller knows the fields of one.
        self.connection.skip_results().await?;
        Ok(rows)
    }

    /// Reads and throws away what is left, so that the connection can be used again.
    pub async fn finish(mut self) -> Result<(), ClientError> {
        while self.next_batch(usize::MAX).await?.is_some() {}
        Ok(())
    }

    /// For a statement without rows: rows_affected and insert_id.
    pub fn summary(&self) -> (u64, u64) {
        (self.connection.last.affected_rows, self.connection.last.insert_id)
    }
}
