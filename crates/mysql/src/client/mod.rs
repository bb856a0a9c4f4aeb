//! The client that vttablet and mysqlctl talk to mysqld with.
//!
//! One write and one read system call for a command with a small result. Rows are copied cell by cell from the row
//! packets into `query.Row`, without being decoded; rows that arrived together share one allocation.
//!
//! Cancellation: a command's future may be dropped at any time. What the server still sends then has no reader, so
//! the connection counts as broken ([`Connection::is_broken`]) and every later command fails with errno 2006. To end
//! the statement itself, `KILL QUERY` its [`Connection::thread_id`] from another connection.

mod bulk;
mod connection;
mod error;
mod handshake;
mod params;
mod raw_rows;
mod row_stream;
mod tls;

pub use bulk::{BulkRows, Prepared};
pub use connection::{Behind, Connection, Pending};
pub use error::ClientError;
pub use params::{ClientTls, ConnectParams};
pub use raw_rows::{RawResult, RawRows};
pub use row_stream::RowStream;
pub use tls::TlsError;
