//! Filtered replication: the row events of a source shard, filtered by table or key range, applied at a
//! target together with the position they reach.
//!
//! Owns: what a source tablet streams ([`source`]) and what a target tablet does with it ([`target`]).
//! Does not own: reading and decoding binlogs (`mysql::binlog`), the gRPC servers (vttablet wires them).

pub mod source;
pub mod target;
