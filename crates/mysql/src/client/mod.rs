//! The client that vttablet and mysqlctl talk to mysqld with.

mod error;
mod params;

pub use error::ClientError;
pub use params::{ClientTls, ConnectParams};

use vtproto::query::{Field, QueryResult, Row};

use crate::flavor::Flavor;

/// One connection to mysqld.
#[derive(Debug)]
pub struct Connection {}

impl Connection {
    pub async fn connect(_params: &ConnectParams) -> Result<Self, ClientError> {
        unimplemented!()
    }
    /// One statement, whole result. More than `max_rows` rows: errno 10001.
    pub async fn query(&mut self, _sql: &[u8], _max_rows: usize) -> Result<QueryResult, ClientError> {
        unimplemented!()
    }
    /// One statement without bound on rows; for administration, where results are small.
    pub async fn execute(&mut self, _sql: &str) -> Result<QueryResult, ClientError> {
        unimplemented!()
    }
    /// Several statements separated by semicolons; one result each. Stops at the first error.
    pub async fn query_multi(&mut self, _sql: &[u8], _max_rows: usize) -> Result<Vec<QueryResult>, ClientError> {
        unimplemented!()
    }
    /// One statement whose rows are read as the caller asks for them.
    pub async fn query_stream(&mut self, _sql: &[u8]) -> Result<RowStream<'_>, ClientError> {
        unimplemented!()
    }
    pub async fn ping(&mut self) -> Result<(), ClientError> {
        unimplemented!()
    }
    /// COM_RESET_CONNECTION: rolls back, drops session state, keeps the login.
    pub async fn reset(&mut self) -> Result<(), ClientError> {
        unimplemented!()
    }
    pub async fn select_db(&mut self, _name: &str) -> Result<(), ClientError> {
        unimplemented!()
    }
    /// Says goodbye and closes.
    pub async fn close(self) {
        unimplemented!()
    }
    /// What `KILL` takes.
    pub fn thread_id(&self) -> u32 {
        unimplemented!()
    }
    /// As the server says it, MariaDB's `5.5.5-` in front removed.
    pub fn server_version(&self) -> &str {
        unimplemented!()
    }
    pub fn flavor(&self) -> Flavor {
        unimplemented!()
    }
    /// Whether the connection must not be used again: it was lost, or a command's future was dropped.
    pub fn is_broken(&self) -> bool {
        unimplemented!()
    }
    /// Status flags ([`crate::constants::status`]) of the last OK or EOF.
    pub fn status(&self) -> u16 {
        unimplemented!()
    }
    pub fn in_transaction(&self) -> bool {
        unimplemented!()
    }
    /// Number of warnings of the last statement.
    pub fn warnings(&self) -> u16 {
        unimplemented!()
    }
}

/// Rows of one statement. Dropped before its end, the connection counts as broken.
#[derive(Debug)]
pub struct RowStream<'a> {
    _connection: &'a mut Connection,
}

impl RowStream<'_> {
    /// Empty for a statement that returns no rows (see [`RowStream::summary`]).
    pub fn fields(&self) -> &[Field] {
        unimplemented!()
    }
    /// The fields, moved out.
    pub fn take_fields(&mut self) -> Vec<Field> {
        unimplemented!()
    }
    /// Rows, until `max_bytes` of values are collected or no more are at hand; `None` at the end.
    pub async fn next_batch(&mut self, _max_bytes: usize) -> Result<Option<Vec<Row>>, ClientError> {
        unimplemented!()
    }
    /// For a statement without rows: rows_affected and insert_id.
    pub fn summary(&self) -> (u64, u64) {
        unimplemented!()
    }
}
