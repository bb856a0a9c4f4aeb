//! One statement for many rows: MariaDB's COM_STMT_BULK_EXECUTE, which runs a prepared statement once for each row of
//! parameters and answers once. Neither MySQL nor MariaDB before 10.2 has it.
//!
//! The packet, as MariaDB's protocol documentation has it: id of the statement, flags, a type and a sign for each parameter,
//! and the rows, each parameter behind an indicator that says whether it is NULL.

use super::{ClientError, Connection, Pending};
use crate::{
    constants::{command, mariadb_capability},
    packet::put_lenenc_bytes,
    wire,
};
use vtproto::query::QueryResult;

/// The types of the parameters are part of the packet.
const SEND_TYPES: u16 = 128;
const UNSIGNED: u8 = 0x80;
/// Indicators in front of parameters.
const VALUE: u8 = 0;
const NULL: u8 = 1;

/// A prepared statement of the connection that prepared it.
#[derive(Debug, Clone, Copy)]
pub struct Prepared {
    id: u32,
}

/// Rows of parameters as they travel. Every row has a value for each of the types, in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkRows {
    types: Vec<u8>,
    rows: Vec<u8>,
}

impl BulkRows {
    /// No rows of parameters of these types ([`crate::types::code`]), each with whether it is unsigned.
    pub fn new(types: impl Iterator<Item = (u8, bool)>) -> Self {
        let types = types.flat_map(|(code, unsigned)| [code, if unsigned { UNSIGNED } else { 0 }]).collect();
        Self { types, rows: Vec::new() }
    }

    /// Bytes of all rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn put_null(&mut self) {
        self.rows.push(NULL);
    }

    /// A value of [`crate::types::code::LONGLONG`]; one that is unsigned has the same bytes.
    pub fn put_i64(&mut self, number: i64) {
        self.rows.push(VALUE);
        self.rows.extend_from_slice(&number.to_le_bytes());
    }

    /// A value of [`crate::types::code::DOUBLE`].
    pub fn put_f64(&mut self, number: f64) {
        self.rows.push(VALUE);
        self.rows.extend_from_slice(&number.to_le_bytes());
    }

    /// A value of a type that travels as a string.
    pub fn put_bytes(&mut self, bytes: &[u8]) {
        self.rows.push(VALUE);
        put_lenenc_bytes(&mut self.rows, bytes);
    }
}

impl Connection {
    /// Whether the server runs statements for many rows at once.
    pub fn has_bulk(&self) -> bool {
        self.mariadb_capabilities & mariadb_capability::STMT_BULK_OPERATIONS != 0
    }

    /// Prepares a statement. It lives until [`Connection::close_prepared`] or the end of the connection.
    pub async fn prepare(&mut self, sql: &[u8]) -> Result<Prepared, ClientError> {
        self.start(command::STMT_PREPARE, sql).await?;
        let outcome = self.prepared().await;
        self.done(outcome)
    }

    /// The answer to COM_STMT_PREPARE. What it says of parameters and columns is read and passed over.
    async fn prepared(&mut self) -> Result<Prepared, ClientError> {
        let span = self.packet().await?;
        let packet = self.bytes(span);
        if packet.first() == Some(&wire::ERR) {
            return Err(self.packet_error(span));
        }
        let (id, columns, params) = wire::parse_prepared(packet).map_err(ClientError::malformed)?;
        for count in [params, columns].into_iter().filter(|count| *count > 0) {
            for _ in 0..count {
                self.packet().await?;
            }
            self.eof_of_definitions().await?;
        }
        Ok(Prepared { id })
    }

    /// Runs a prepared statement for all of these rows. Errors end it; what was done before one is rolled back with the
    /// transaction alone.
    pub async fn execute_bulk(&mut self, prepared: Prepared, rows: &BulkRows) -> Result<QueryResult, ClientError> {
        let [id, flags] = [&prepared.id.to_le_bytes()[..], &SEND_TYPES.to_le_bytes()[..]];
        self.start_parts(command::STMT_BULK_EXECUTE, &[id, flags, &rows.types, &rows.rows]).await?;
        Pending(self).result(usize::MAX).await
    }

    /// Forgets a statement at the server, which does not answer.
    pub async fn close_prepared(&mut self, prepared: Prepared) -> Result<(), ClientError> {
        self.start(command::STMT_CLOSE, &prepared.id.to_le_bytes()).await?;
        self.done(Ok(()))
    }
}
