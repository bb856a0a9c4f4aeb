//! A range of keyspace ids and the relations between two of them.

use std::{cmp::Ordering, fmt, str::FromStr};

use crate::{KeyRangeError, KeyspaceId, compare, hex};

/// `[start, end)` over keyspace ids. An absent `end` is the end of the keyspace: `80-`.
/// A record without a range (an unsharded keyspace) means the full range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct KeyRange {
    start: KeyspaceId,
    end: Option<KeyspaceId>,
}

impl KeyRange {
    /// The whole keyspace: `-`.
    pub fn full() -> Self {
        Self::default()
    }

    /// From the bounds as records hold them: empty bytes mean no bound. The order is not checked.
    pub fn from_bounds(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        let end = KeyspaceId::new(end);
        Self { start: KeyspaceId::new(start), end: (!end.is_empty()).then_some(end) }
    }

    /// From the two sides of a `start-end` text, which are not compared.
    pub fn from_hex(start: &str, end: &str) -> Result<Self, KeyRangeError> {
        Ok(Self::from_bounds(hex::decode(start)?, hex::decode(end)?))
    }

    pub fn start(&self) -> &KeyspaceId {
        &self.start
    }

    pub fn end(&self) -> Option<&KeyspaceId> {
        self.end.as_ref()
    }

    /// The lower bound as records hold it.
    pub fn start_bytes(&self) -> &[u8] {
        self.start.as_bytes()
    }

    /// The upper bound as records hold it: empty for none.
    pub fn end_bytes(&self) -> &[u8] {
        self.end.as_ref().map_or(&[], KeyspaceId::as_bytes)
    }

    pub fn is_full(&self) -> bool {
        self.start == KeyspaceId::default() && self.end.is_none()
    }

    /// Whether the range leaves out some id.
    pub fn is_partial(&self) -> bool {
        !self.is_full()
    }

    pub fn contains(&self, id: &[u8]) -> bool {
        compare(id, self.start.as_bytes()).is_ge()
            && self.end.as_ref().is_none_or(|end| compare(id, end.as_bytes()).is_lt())
    }

    pub fn compare_start(&self, other: &Self) -> Ordering {
        self.start.cmp(&other.start)
    }

    pub fn compare_end(&self, other: &Self) -> Ordering {
        match (&self.end, &other.end) {
            (None, None) => Ordering::Equal,
            (None, Some(_)) => Ordering::Greater,
            (Some(_), None) => Ordering::Less,
            (Some(left), Some(right)) => left.cmp(right),
        }
    }

    pub fn intersects(&self, other: &Self) -> bool {
        let starts_before_end_of =
            |one: &Self, end: &Option<KeyspaceId>| end.as_ref().is_none_or(|end| one.start < *end);
        starts_before_end_of(self, &other.end) && starts_before_end_of(other, &self.end)
    }

    /// What two ranges share.
    pub fn overlap(&self, other: &Self) -> Option<Self> {
        self.intersects(other).then(|| {
            let start = if self.compare_start(other).is_ge() { &self.start } else { &other.start };
            let end = if self.compare_end(other).is_le() { &self.end } else { &other.end };
            Self { start: start.clone(), end: end.clone() }
        })
    }

    /// Whether every id of the other range is in this one.
    pub fn contains_range(&self, other: &Self) -> bool {
        self.compare_start(other).is_le() && self.compare_end(other).is_ge()
    }

    /// Whether `next` begins exactly where this range ends.
    pub fn is_followed_by(&self, next: &Self) -> bool {
        self.end.as_ref().is_some_and(|end| *end == next.start)
    }

    /// The two ranges as one, if they are adjacent in either order.
    pub fn join(&self, other: &Self) -> Option<Self> {
        if self.is_followed_by(other) {
            Some(Self { start: self.start.clone(), end: other.end.clone() })
        } else if other.is_followed_by(self) {
            Some(Self { start: other.start.clone(), end: self.end.clone() })
        } else {
            None
        }
    }
}

/// By start, then by end.
impl Ord for KeyRange {
    fn cmp(&self, other: &Self) -> Ordering {
        self.compare_start(other).then_with(|| self.compare_end(other))
    }
}

impl PartialOrd for KeyRange {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", hex::encode(self.start_bytes()), hex::encode(self.end_bytes()))
    }
}

impl FromStr for KeyRange {
    type Err = KeyRangeError;

    /// Exactly one dash, hexadecimal sides, and a start below the end.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (start, end) = text.split_once('-').ok_or_else(|| KeyRangeError::SpecNoRange(text.to_owned()))?;
        if end.contains('-') {
            return Err(KeyRangeError::OneDash(text.to_owned()));
        }
        let range = Self::from_hex(start, end)?;
        match &range.end {
            Some(end) if range.start >= *end => {
                Err(KeyRangeError::OutOfOrder { start: range.start.to_string(), end: end.to_string() })
            }
            _ => Ok(range),
        }
    }
}
