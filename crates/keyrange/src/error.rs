//! What can be wrong with the text of a range, a shard name or a sharding spec.

use std::fmt;

/// The texts are seen by operators as they are printed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyRangeError {
    /// A byte that is no hexadecimal digit.
    InvalidHex(u8),
    OddHex,
    /// A shard name with more than one dash.
    OneDash(String),
    /// A shard name with a slash, which separates path elements.
    Slash(String),
    EmptyShardName,
    OutOfOrder {
        start: String,
        end: String,
    },
    SpecNoRange(String),
    SpecMiddle(String),
    SpecOrder(String),
    ShardCount(i64),
    ShardIndex {
        index: i64,
        count: i64,
    },
    NotPowerOfTwo(i64),
    TooManyShards,
    NoExactShards(String),
    NoShardForId(String),
    SameRange(String),
    NothingToCombine,
    NotContiguous,
    RangesDiffer {
        source: String,
        target: String,
    },
}

impl KeyRangeError {
    /// Whether the text names a wrong argument by a rule of shard names (and not just bad digits).
    pub fn is_invalid_argument(&self) -> bool {
        matches!(self, Self::OneDash(_) | Self::Slash(_) | Self::EmptyShardName | Self::OutOfOrder { .. })
    }
}

impl fmt::Display for KeyRangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidHex(byte) => {
                write!(f, "encoding/hex: invalid byte: U+{byte:04X}")?;
                let character = char::from(*byte);
                if character.is_control() || *byte == 0xa0 || *byte == 0xad {
                    return Ok(());
                }
                write!(f, " '{character}'")
            }
            Self::OddHex => write!(f, "encoding/hex: odd length hex string"),
            Self::OneDash(name) => write!(f, "invalid shardId, can only contain one '-': {name}"),
            Self::Slash(name) => write!(f, "invalid shardId, may not contain '/': {name}"),
            Self::EmptyShardName => write!(f, "invalid shardId, may not be empty"),
            Self::OutOfOrder { start, end } => {
                write!(f, "out of order keys: {start} is not strictly smaller than {end}")
            }
            Self::SpecNoRange(spec) => write!(f, "malformed spec: doesn't define a range: \"{spec}\""),
            Self::SpecMiddle(spec) => {
                write!(f, "malformed spec: MinKey/MaxKey cannot be in the middle of the spec: \"{spec}\"")
            }
            Self::SpecOrder(spec) => write!(f, "malformed spec: shard limits should be in order: \"{spec}\""),
            Self::ShardCount(count) => write!(f, "the shard count must be > 0: {count}"),
            Self::ShardIndex { index, count } => {
                write!(f, "the index of the shard must be less than the total number of shards: {index} < {count}")
            }
            Self::NotPowerOfTwo(count) => write!(f, "the shard count must be a power of two: {count}"),
            Self::TooManyShards => {
                write!(f, "this function does not support more than 65536 shards in a single keyspace")
            }
            Self::NoExactShards(range) => write!(f, "keyrange {range} does not exactly match shards"),
            Self::NoShardForId(id) => write!(f, "KeyspaceId {id} didn't match any shards"),
            Self::SameRange(range) => write!(f, "same keyrange is present in source and target: {range}"),
            Self::NothingToCombine => write!(f, "there are no shards to combine"),
            Self::NotContiguous => write!(f, "shards don't form a contiguous keyrange"),
            Self::RangesDiffer { source, target } => {
                write!(f, "source and target keyranges don't match: {source} vs {target}")
            }
        }
    }
}

impl std::error::Error for KeyRangeError {}
