//! The name of a shard, which tells its key range if it contains a dash.

use std::{fmt, str::FromStr};

use crate::{KeyRange, KeyRangeError};

/// `-80`, `40-80`, `0`. A name with a dash is a range in lower-case hexadecimal; any other name
/// stands for a shard without a range, which holds the whole keyspace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardName {
    name: String,
    key_range: Option<KeyRange>,
}

impl ShardName {
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// `None` for a name that is no range.
    pub fn key_range(&self) -> Option<&KeyRange> {
        self.key_range.as_ref()
    }
}

impl FromStr for ShardName {
    type Err = KeyRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(KeyRangeError::EmptyShardName);
        }
        if text.contains('/') {
            return Err(KeyRangeError::Slash(text.to_owned()));
        }
        if !is_shard_using_range_based_sharding(text) {
            return Ok(Self { name: text.to_owned(), key_range: None });
        }
        let key_range = text.parse()?;
        Ok(Self { name: text.to_lowercase(), key_range: Some(key_range) })
    }
}

impl fmt::Display for ShardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether the name of a shard is to be read as a range.
pub fn is_shard_using_range_based_sharding(shard: &str) -> bool {
    shard.contains('-')
}

/// Whether a text looks like a range of a target: hexadecimal digits around one dash.
pub fn is_key_range(text: &str) -> bool {
    text.split_once('-')
        .is_some_and(|(start, end)| start.bytes().chain(end.bytes()).all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a text names the shard of an unsharded keyspace (`0`) or a range with whole bytes.
pub fn is_valid_key_range(text: &str) -> bool {
    text == "0" || text.split_once('-').is_some_and(|(start, end)| KeyRange::from_hex(start, end).is_ok())
}
