//! GTID sets of MariaDB: the last transaction of each replication domain, `<domain>-<server>-<sequence>`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::PositionError;

/// One transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MariaDbGtid {
    pub domain: u32,
    /// The server that committed it first.
    pub server: u32,
    pub sequence: u64,
}

impl FromStr for MariaDbGtid {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let bad = || PositionError::new("invalid MariaDB GTID", text);
        let mut parts = text.trim().split('-');
        let (Some(domain), Some(server), Some(sequence), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        Ok(Self {
            domain: domain.parse().map_err(|_| bad())?,
            server: server.parse().map_err(|_| bad())?,
            sequence: sequence.parse().map_err(|_| bad())?,
        })
    }
}

impl fmt::Display for MariaDbGtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

/// The last transaction of every domain; a domain stands for all its transactions up to there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MariaDbGtidSet {
    domains: BTreeMap<u32, MariaDbGtid>,
}

impl MariaDbGtidSet {
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Whether every domain of `other` is here and as far. Which server wrote last does not matter.
    pub fn contains(&self, other: &Self) -> bool {
        other
            .domains
            .values()
            .all(|theirs| self.domains.get(&theirs.domain).is_some_and(|ours| ours.sequence >= theirs.sequence))
    }

    /// A transaction older than the domain's last changes nothing.
    pub fn insert(&mut self, gtid: MariaDbGtid) {
        let last = self.domains.entry(gtid.domain).or_insert(gtid);
        if gtid.sequence >= last.sequence {
            *last = gtid;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &MariaDbGtid> {
        self.domains.values()
    }
}

impl FromStr for MariaDbGtidSet {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let mut set = Self::default();
        if text.trim().is_empty() {
            return Ok(set);
        }
        for gtid in text.split(',') {
            set.insert(gtid.parse()?);
        }
        Ok(set)
    }
}

impl fmt::Display for MariaDbGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, gtid) in self.domains.values().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            gtid.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(text: &str) -> MariaDbGtidSet {
        text.parse().expect("a GTID set")
    }

    #[test]
    fn domains_are_compared_one_by_one() {
        let at = set("0-1-100,1-1-7");
        assert!(at.contains(&set("0-2-100")) && at.contains(&set("0-1-99,1-9-7")) && at.contains(&set("")));
        assert!(!at.contains(&set("0-1-101")) && !at.contains(&set("2-1-1")));
        assert_eq!(set("1-1-7, 0-1-100"), at);
        assert_eq!(at.to_string(), "0-1-100,1-1-7");
    }

    #[test]
    fn what_is_no_set() {
        for text in ["1-2", "1-2-3-4", "a-1-1", "1-1-1,", "0-1--5", "99999999999-1-1"] {
            assert!(text.parse::<MariaDbGtidSet>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_round_trips(gtids in prop::collection::vec((0..5u32, any::<u32>(), any::<u64>()), 0..9)) {
            let mut all = MariaDbGtidSet::default();
            for (domain, server, sequence) in gtids {
                all.insert(MariaDbGtid { domain, server, sequence });
            }
            prop_assert_eq!(&set(&all.to_string()), &all);
            prop_assert!(all.contains(&all));
        }

        #[test]
        fn no_text_makes_parsing_panic(text: String) {
            let _ = text.parse::<MariaDbGtidSet>();
        }
    }
}
