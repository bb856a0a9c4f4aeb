//! MySQL: the protocol on both sides, the flavours of the server, replication, `my.cnf`.
//!
//! - [`client`]: the thin client that vttablet and mysqlctl reach mysqld with.
//! - [`server`]: what a MySQL client of vtgate talks to.
//! - [`flavor`], [`replication`], [`admin`]: the statements that differ between MariaDB and MySQL, GTID positions,
//!   and both together over a connection.
//! - [`binlog`]: binary logs, read as a replica reads them, and their row events.
//! - [`sidecar`]: the tables of the `_vt` database.
//! - [`mycnf`]: the directory of one mysqld and its configuration file.
//!
//! Rows stay in text form from mysqld to the client: [`client`] copies cells out of row packets, [`server`] copies
//! them back into row packets, and nothing in between reads a number.

pub mod admin;
pub mod binlog;
pub mod client;
pub mod constants;
pub mod flavor;
pub mod mycnf;
mod packet;
pub mod raw_rows;
pub mod replication;
mod scramble;
pub mod server;
pub mod sidecar;
mod stream;
pub mod types;
mod wire;

pub use client::{Behind, ClientError, ConnectParams, Connection, Pending};
pub use flavor::Flavor;
pub use replication::Position;
