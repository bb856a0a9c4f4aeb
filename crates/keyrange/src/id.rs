//! One keyspace id: the place of a row in its keyspace.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
};

use crate::{KeyRangeError, hex};

/// An id without the trailing zero bytes, which do not change its place.
pub fn normalize(id: &[u8]) -> &[u8] {
    let zeroes = id.iter().rev().take_while(|byte| **byte == 0).count();
    &id[..id.len() - zeroes]
}

/// The order of two ids.
pub fn compare(left: &[u8], right: &[u8]) -> Ordering {
    normalize(left).cmp(normalize(right))
}

/// The place of a row in its keyspace, as any number of bytes. The empty id is the lowest one.
/// Printed as lower-case hexadecimal; ids that differ in trailing zero bytes only are equal.
#[derive(Debug, Clone, Default)]
pub struct KeyspaceId(Vec<u8>);

impl KeyspaceId {
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(bytes.into())
    }

    /// The id of a numeric vindex: 8 bytes, big-endian.
    pub fn from_u64(number: u64) -> Self {
        Self(number.to_be_bytes().to_vec())
    }

    /// The bytes as they were given.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// Whether no bytes were given.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl AsRef<[u8]> for KeyspaceId {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for KeyspaceId {
    fn eq(&self, other: &Self) -> bool {
        normalize(&self.0) == normalize(&other.0)
    }
}

impl Eq for KeyspaceId {}

impl PartialOrd for KeyspaceId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeyspaceId {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.0, &other.0)
    }
}

impl Hash for KeyspaceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        normalize(&self.0).hash(state);
    }
}

impl fmt::Display for KeyspaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl FromStr for KeyspaceId {
    type Err = KeyRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex::decode(text).map(Self)
    }
}
