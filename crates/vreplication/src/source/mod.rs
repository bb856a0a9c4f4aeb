//! What a source tablet streams: the changes of its own database as SQL statements, transaction by transaction.
//!
//! - [`UpdateStreamService`]: the gRPC service, its switch and its numbers.
//! - [`Streamer`]: one stream, from a binlog to [`vtproto::binlogdata::BinlogTransaction`]s.
//! - `columns`, `table`: what the source's schema says of a table, joined with what its row events say.
//! - `literal`, `statement`: values and row changes as SQL text.
//! - `filter`, `sharding`: which rows belong to a stream.
//! - `ddl`, `sql`, `annotation`: statements that stand in the binlog as text.
//!
//! Invariants: a change that cannot be told exactly ends the stream with an error that says why, it is never left out; a
//! position is sent only when everything before it was sent; while the reader does not read, neither does the source.

mod annotation;
mod columns;
mod ddl;
mod filter;
mod literal;
mod output;
mod service;
mod sharding;
mod sql;
mod statement;
mod stats;
mod streamer;
mod table;

pub use filter::Filter;
pub use output::{Gone, Input, Output, channel};
pub use service::{SourceConfig, UpdateStreamService};
pub use sharding::Sharding;
pub use stats::SourceStats;
pub use streamer::{Ended, Progress, StreamRequest, Streamer};
