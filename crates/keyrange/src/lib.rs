//! Keyspace ids, the ranges over them, and the names of shards.
//!
//! Owns: parsing, printing, comparing and combining ranges, sharding specs, and finding the shards
//! for a range or an id. Pure: no I/O, no dependencies. The protobuf forms live with their users.
//! Invariants: a keyspace id is read as a binary fraction, so that trailing zero bytes do not change
//! its place: `80` and `8000` are the same bound. Every parsed range is not empty.

mod destination;
mod error;
mod hex;
mod id;
mod range;
mod reshard;
mod shard;
mod spec;

pub use destination::{Destination, Resolvable, resolve_exact_range, resolve_keyspace_id, resolve_range};
pub use error::KeyRangeError;
pub use id::{KeyspaceId, compare, normalize};
pub use range::KeyRange;
pub use reshard::{combine_key_ranges, validate_for_reshard};
pub use shard::{ShardName, is_key_range, is_shard_using_range_based_sharding, is_valid_key_range};
pub use spec::{even_shards_key_range, generate_shard_ranges, parse_sharding_spec};
