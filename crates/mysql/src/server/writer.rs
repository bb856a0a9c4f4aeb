//! Results on their way to the client.

use std::io;

use tokio_util::sync::CancellationToken;
use vterrors::MysqlError;
use vtproto::query::{Field, QueryResult, Row};

/// What an OK packet says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OkInfo {
    pub affected_rows: u64,
    pub last_insert_id: u64,
    /// [`crate::constants::status`] flags.
    pub status: u16,
    pub warnings: u16,
    pub info: String,
}

/// Writes the answer to one command, as text or binary rows.
#[derive(Debug)]
pub struct ResultWriter<'a> {
    _connection: &'a mut (),
}

impl ResultWriter<'_> {
    /// A statement without rows is done.
    pub async fn ok(&mut self, _info: &OkInfo) -> io::Result<()> {
        unimplemented!()
    }
    /// Opens a result set.
    pub async fn start(&mut self, _fields: &[Field]) -> io::Result<()> {
        unimplemented!()
    }
    /// Rows of the open result set; waits while the client does not read.
    pub async fn rows(&mut self, _rows: &[Row]) -> io::Result<()> {
        unimplemented!()
    }
    /// Closes the result set.
    pub async fn finish(&mut self, _status: u16, _warnings: u16) -> io::Result<()> {
        unimplemented!()
    }
    /// A whole result: OK when it has no fields, else a result set.
    pub async fn result(&mut self, _result: &QueryResult, _status: u16, _warnings: u16) -> io::Result<()> {
        unimplemented!()
    }
    /// An error instead of a result, or in the middle of one.
    pub async fn error(&mut self, _error: &MysqlError) -> io::Result<()> {
        unimplemented!()
    }
    /// Whether another result of the same command follows the next one.
    pub fn set_more_results(&mut self, _more: bool) {
        unimplemented!()
    }
    /// Whether fields have been sent and `finish` has not.
    pub fn started(&self) -> bool {
        unimplemented!()
    }
    /// Resolves when the client has gone or the statement was killed. Clone it before writing.
    pub fn cancelled(&self) -> &CancellationToken {
        unimplemented!()
    }
}
