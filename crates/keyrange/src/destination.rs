//! From a place in a keyspace to the shards that hold it.

use crate::{KeyRange, KeyRangeError, KeyspaceId};

/// Where a query is to go within its keyspace, as a target text can say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// One shard by name: `ks:-80`.
    Shard(String),
    /// One row's place: `ks[deadbeef]`.
    KeyspaceId(KeyspaceId),
    /// All the shards which together are exactly this range: `ks[40-80]`.
    ExactKeyRange(KeyRange),
}

/// A shard that can be searched for by its range. `None` is a shard which holds everything.
pub trait Resolvable {
    fn key_range(&self) -> Option<KeyRange>;

    /// Whether an id belongs to this shard. To be overridden where the range is at hand without a copy.
    fn holds(&self, id: &[u8]) -> bool {
        self.key_range().is_none_or(|range| range.contains(id))
    }
}

impl Resolvable for crate::ShardName {
    fn key_range(&self) -> Option<KeyRange> {
        self.key_range().cloned()
    }

    fn holds(&self, id: &[u8]) -> bool {
        self.key_range().is_none_or(|range| range.contains(id))
    }
}

/// The first shard that holds an id.
pub fn resolve_keyspace_id<'a, S: Resolvable>(id: &[u8], shards: &'a [S]) -> Result<&'a S, KeyRangeError> {
    shards
        .iter()
        .find(|shard| shard.holds(id))
        .ok_or_else(|| KeyRangeError::NoShardForId(KeyspaceId::new(id).to_string()))
}

/// Every shard that holds some part of a range.
pub fn resolve_range<'a, S: Resolvable>(range: &KeyRange, shards: &'a [S]) -> Vec<&'a S> {
    shards.iter().filter(|shard| shard.key_range().is_none_or(|held| held.intersects(range))).collect()
}

/// The shards which together are exactly the range, no more and no less.
pub fn resolve_exact_range<'a, S: Resolvable>(range: &KeyRange, shards: &'a [S]) -> Result<Vec<&'a S>, KeyRangeError> {
    let mismatch = || KeyRangeError::NoExactShards(range.to_string());
    let ranges: Vec<KeyRange> = shards.iter().map(|shard| shard.key_range().unwrap_or_default()).collect();
    let mut position = ranges.iter().position(|held| held.compare_start(range).is_eq()).ok_or_else(mismatch)?;
    let mut found = Vec::new();
    loop {
        found.push(&shards[position]);
        if ranges[position].compare_end(range).is_eq() {
            return Ok(found);
        }
        position = ranges.iter().position(|held| ranges[position].is_followed_by(held)).ok_or_else(mismatch)?;
        if ranges[position].compare_end(range).is_gt() {
            return Err(mismatch());
        }
    }
}
