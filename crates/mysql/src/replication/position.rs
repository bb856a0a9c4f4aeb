//! A position with its flavour: `MySQL56/…`, `MariaDB/…`, `FilePos/…`.

use std::fmt;
use std::str::FromStr;

use super::{FilePos, MariaDbGtid, MariaDbGtidSet, Mysql56Gtid, Mysql56GtidSet};

/// Longest position that the tables of `_vt` store, bytes.
pub const MAX_POSITION_LEN: usize = 64_000;

/// A text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse error: {0}")]
pub struct PositionError(pub(crate) String);

impl PositionError {
    pub(crate) fn new(what: &str, text: &str) -> Self {
        Self(format!("{what}: {text:?}"))
    }
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gtid {
    Mysql56(Mysql56Gtid),
    MariaDb(MariaDbGtid),
    FilePos(FilePos),
}

/// The transactions that a server has executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GtidSet {
    /// Any MySQL from 5.6 on.
    Mysql56(Mysql56GtidSet),
    MariaDb(MariaDbGtidSet),
    /// Binary log file and offset, for servers without GTIDs.
    FilePos(FilePos),
}

/// A replication position: a GTID set, or nothing. Two positions can be incomparable (neither is `at_least` the
/// other), so there is no order on them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    set: Option<GtidSet>,
}

impl Position {
    pub fn new(set: GtidSet) -> Self {
        Self { set: Some(set) }
    }

    /// A set in `flavor`'s own text form, without a prefix; empty text is an empty set.
    pub fn in_flavor(flavor: &str, text: &str) -> Result<Self, PositionError> {
        let set = match flavor {
            "MySQL56" => GtidSet::Mysql56(text.parse()?),
            "MariaDB" => GtidSet::MariaDb(text.parse()?),
            "FilePos" => GtidSet::FilePos(text.parse()?),
            other => return Err(PositionError::new("unknown GTIDSet flavor", other)),
        };
        Ok(Self::new(set))
    }

    /// No position at all. An empty set of a flavour is a position.
    pub fn is_empty(&self) -> bool {
        self.set.is_none()
    }

    pub fn set(&self) -> Option<&GtidSet> {
        self.set.as_ref()
    }

    /// The set without its flavour, as servers take it in statements; empty for no position.
    pub fn set_text(&self) -> String {
        self.set.as_ref().map(GtidSet::to_string).unwrap_or_default()
    }

    /// Whether everything in `other` is also here. Nothing is in everything; flavours do not mix.
    pub fn at_least(&self, other: &Position) -> bool {
        match (&self.set, &other.set) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(GtidSet::Mysql56(ours)), Some(GtidSet::Mysql56(theirs))) => ours.contains(theirs),
            (Some(GtidSet::MariaDb(ours)), Some(GtidSet::MariaDb(theirs))) => ours.contains(theirs),
            (Some(GtidSet::FilePos(ours)), Some(GtidSet::FilePos(theirs))) => ours.at_least(theirs),
            (Some(_), Some(_)) => false,
        }
    }

    /// Adds one transaction. One of another flavour replaces the position: the server has changed.
    pub fn append(&mut self, gtid: Gtid) {
        match (&mut self.set, gtid) {
            (Some(GtidSet::Mysql56(set)), Gtid::Mysql56(gtid)) => set.insert(gtid),
            (Some(GtidSet::MariaDb(set)), Gtid::MariaDb(gtid)) => set.insert(gtid),
            (set, Gtid::Mysql56(gtid)) => {
                let mut only = Mysql56GtidSet::default();
                only.insert(gtid);
                *set = Some(GtidSet::Mysql56(only));
            }
            (set, Gtid::MariaDb(gtid)) => {
                let mut only = MariaDbGtidSet::default();
                only.insert(gtid);
                *set = Some(GtidSet::MariaDb(only));
            }
            (set, Gtid::FilePos(position)) => *set = Some(GtidSet::FilePos(position)),
        }
    }
}

impl GtidSet {
    /// The name in front of a printed position.
    pub fn flavor(&self) -> &'static str {
        match self {
            Self::Mysql56(_) => "MySQL56",
            Self::MariaDb(_) => "MariaDB",
            Self::FilePos(_) => "FilePos",
        }
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mysql56(set) => set.fmt(f),
            Self::MariaDb(set) => set.fmt(f),
            Self::FilePos(position) => position.fmt(f),
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.set {
            Some(set) => write!(f, "{}/{set}", set.flavor()),
            None => Ok(()),
        }
    }
}

/// `Flavor/set`; empty text is no position.
impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let (flavor, set) = text.split_once('/').ok_or_else(|| PositionError::new("unknown GTIDSet flavor", text))?;
        Self::in_flavor(flavor, set)
    }
}

/// `Flavor/gtid`.
impl FromStr for Gtid {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        match text.split_once('/') {
            Some(("MySQL56", gtid)) => gtid.parse().map(Self::Mysql56),
            Some(("MariaDB", gtid)) => gtid.parse().map(Self::MariaDb),
            Some(("FilePos", gtid)) => gtid.parse().map(Self::FilePos),
            _ => Err(PositionError::new("unknown GTID flavor", text)),
        }
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mysql56(gtid) => write!(f, "MySQL56/{gtid}"),
            Self::MariaDb(gtid) => write!(f, "MariaDB/{gtid}"),
            Self::FilePos(gtid) => write!(f, "FilePos/{gtid}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &str) -> Position {
        text.parse().expect("a position")
    }

    const A: &str = "00010203-0405-0607-0809-0a0b0c0d0e0f";

    #[test]
    fn nothing_is_in_everything() {
        let none = Position::default();
        assert!(none.is_empty() && none.at_least(&none) && none.to_string().is_empty());
        assert!(position("MariaDB/0-1-5").at_least(&none));
        assert!(!none.at_least(&position("MariaDB/0-1-5")));
        assert!(!none.at_least(&position("MySQL56/")));
    }

    #[test]
    fn flavours_do_not_mix() {
        let mysql = position(&format!("MySQL56/{A}:1-5"));
        let mariadb = position("MariaDB/0-1-5");
        assert!(!mysql.at_least(&mariadb) && !mariadb.at_least(&mysql));
        assert!("MySQL57/x".parse::<Position>().is_err());
        assert!("0-1-5".parse::<Position>().is_err());
    }

    #[test]
    fn append_follows_the_server() {
        let mut at = Position::default();
        at.append("MariaDB/0-1-5".parse().expect("a gtid"));
        at.append("MariaDB/1-1-2".parse().expect("a gtid"));
        at.append("MariaDB/0-2-6".parse().expect("a gtid"));
        assert_eq!(at.to_string(), "MariaDB/0-2-6,1-1-2");
        at.append(format!("MySQL56/{A}:7").parse().expect("a gtid"));
        assert_eq!(at.to_string(), format!("MySQL56/{A}:7"));
        at.append(format!("MySQL56/{A}:8").parse().expect("a gtid"));
        assert_eq!(at.to_string(), format!("MySQL56/{A}:7-8"));
        at.append("FilePos/bin.000002:154".parse().expect("a gtid"));
        assert_eq!(at.to_string(), "FilePos/bin.000002:154");
    }
}
