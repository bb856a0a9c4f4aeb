//! The topology: which cells, keyspaces, shards and tablets exist, who is master, what is served where.
//!
//! Owns: the records and their rules, the locks over them, the layout of keys, and the backends
//! ([`etcd`], [`memory`]) behind [`Conn`]. Does not own: actions on tablets (`wrangler`).
//! Invariants: a record written by somebody else keeps the fields we do not know; conditional writes
//! always carry the version of the read they are based on; no call waits longer than its deadline.

mod cells;
mod conn;
mod cutovers;
mod error;
pub mod etcd;
mod gate_acks;
mod keyspace;
mod locks;
pub mod memory;
mod metadata;
mod names;
mod observed;
mod overlapping;
mod paths;
mod rebuild;
mod record;
mod replication;
mod server;
mod shard;
pub mod srv_cache;
mod srv_edits;
mod srv_keyspace;
mod srv_vschema;
mod tablet;
pub mod topoproto;
mod watch;
mod workflows;

pub use cells::in_cell_list;
pub use conn::{Conn, DirEntry, LeasedKey, LockDescriptor, MasterParticipation, Version, WatchData, WatchStream};
pub use error::{Result, TopoError};
pub use gate_acks::GateRegistration;
pub use keyspace::KeyspaceInfo;
pub use locks::{KeyspaceLock, ShardLock};
pub use observed::Observer;
pub use overlapping::{OverlappingShards, find_overlapping_shards, overlapping_shards_for_shard};
pub use paths::*;
pub use record::UnknownFields;
pub use server::{EtcdTls, GLOBAL_CELL, TopoOptions, TopoServer, Update};
pub use shard::{ShardInfo, validate_shard_name};
pub use srv_keyspace::{
    check_partitions, is_query_service_disabled, order_and_check_partitions, partition, partition_mut,
};
pub use tablet::{Partial, TabletInfo, TabletMap};
pub use watch::Watch;
