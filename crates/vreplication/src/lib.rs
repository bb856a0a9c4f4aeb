//! Filtered replication: the row events of a source shard, filtered by table or key range, applied at a
//! target together with the position they reach.
//!
//! Owns: what a source tablet streams ([`source`]), what a target tablet does with it ([`target`]), what the two agree on
//! beyond the wire format ([`StreamOptions`]), and how writers are paced ([`throttle`]).
//! Does not own: reading and decoding binlogs (`mysql::binlog`), the gRPC servers (vttablet wires them).

mod name_pattern;
mod options;
pub mod source;
pub mod target;

pub use name_pattern::{NamePattern, resolve_names};
pub use options::{OnDdl, StreamOptions};
use vtproto::binlogdata::binlog_transaction::Row;

/// What a change of a row takes up, bytes.
fn row_bytes(row: &Row) -> usize {
    row.before.len() + row.after.len() + row.values.as_ref().map_or(0, Vec::len)
}
