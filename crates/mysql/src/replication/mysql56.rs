//! GTID sets of MySQL: transaction numbers per source UUID, and per tag since MySQL 8.3.
//!
//! Text form: `<uuid>:<a>[-<b>][:<c>…][:<tag>:<a>…][,<uuid>…]`, UUIDs in order and lower case.
//! Invariant: the intervals of one source are in order, not empty, and neither overlap nor touch.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::PositionError;

/// The UUID of the server that a transaction was first committed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid([u8; 16]);

impl Sid {
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl FromStr for Sid {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let bad = || PositionError::new("invalid MySQL 5.6 SID", text);
        let bytes = text.as_bytes();
        if bytes.len() != 36 || [8, 13, 18, 23].iter().any(|&dash| bytes[dash] != b'-') {
            return Err(bad());
        }
        let mut digits = bytes.iter().filter(|&&byte| byte != b'-').map(|&byte| char::from(byte).to_digit(16));
        let mut sid = [0; 16];
        for byte in &mut sid {
            let (high, low) = (digits.next().flatten().ok_or_else(bad)?, digits.next().flatten().ok_or_else(bad)?);
            *byte = (high << 4 | low) as u8;
        }
        // More dashes than four would leave digits missing, fewer are refused above.
        Ok(Self(sid))
    }
}

impl fmt::Display for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// Transaction numbers `start..=end`, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub start: u64,
    pub end: u64,
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.start == self.end { write!(f, "{}", self.start) } else { write!(f, "{}-{}", self.start, self.end) }
    }
}

/// Greatest transaction number there is.
const MAX_NUMBER: u64 = i64::MAX as u64;

/// `None` for an interval that is empty (`5-3`), which MySQL prints now and then and ignores.
fn parse_interval(text: &str) -> Result<Option<Interval>, PositionError> {
    let bad = || PositionError::new("invalid interval", text);
    let number = |text: &str| text.trim().parse::<u64>().ok().filter(|&n| n <= MAX_NUMBER).ok_or_else(bad);
    let (start, end) = match text.split_once('-') {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(text)?, number(text)?),
    };
    if start == 0 {
        return Err(bad());
    }
    Ok((start <= end).then_some(Interval { start, end }))
}

/// One transaction: `<uuid>[:<tag>]:<number>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mysql56Gtid {
    pub sid: Sid,
    /// Empty for none.
    pub tag: String,
    pub number: u64,
}

impl FromStr for Mysql56Gtid {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let bad = || PositionError::new("invalid MySQL 5.6 GTID", text);
        let (sid, rest) = text.split_once(':').ok_or_else(bad)?;
        let (tag, number) = rest.rsplit_once(':').unwrap_or(("", rest));
        let number = number.parse().ok().filter(|n| (1..=MAX_NUMBER).contains(n)).ok_or_else(bad)?;
        if !tag.is_empty() && !is_tag(tag) {
            return Err(bad());
        }
        Ok(Self { sid: sid.parse()?, tag: tag.to_lowercase(), number })
    }
}

impl fmt::Display for Mysql56Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag.as_str() {
            "" => write!(f, "{}:{}", self.sid, self.number),
            tag => write!(f, "{}:{tag}:{}", self.sid, self.number),
        }
    }
}

/// A tag begins with a letter or underscore, so it is told apart from a number.
fn is_tag(text: &str) -> bool {
    text.len() <= 32
        && text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Which transactions a MySQL server has executed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mysql56GtidSet {
    /// By source, then by tag (empty: none).
    sources: BTreeMap<Sid, BTreeMap<String, Vec<Interval>>>,
}

impl Mysql56GtidSet {
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Whether every transaction of `other` is here.
    pub fn contains(&self, other: &Self) -> bool {
        other.sources.iter().all(|(sid, tags)| {
            tags.iter().all(|(tag, intervals)| {
                let ours = self.intervals(*sid, tag);
                intervals.iter().all(|i| ours.iter().any(|o| o.start <= i.start && i.end <= o.end))
            })
        })
    }

    /// The transactions of one source, in order.
    pub fn intervals(&self, sid: Sid, tag: &str) -> &[Interval] {
        self.sources.get(&sid).and_then(|tags| tags.get(tag)).map_or(&[], Vec::as_slice)
    }

    /// Every source with its tag and transactions.
    pub fn iter(&self) -> impl Iterator<Item = (Sid, &str, &[Interval])> {
        self.sources
            .iter()
            .flat_map(|(sid, tags)| tags.iter().map(|(tag, intervals)| (*sid, tag.as_str(), intervals.as_slice())))
    }

    pub fn insert(&mut self, gtid: Mysql56Gtid) {
        self.insert_interval(gtid.sid, gtid.tag, Interval { start: gtid.number, end: gtid.number });
    }

    /// Adds everything in `other`.
    pub fn union(&mut self, other: &Self) {
        for (sid, tag, intervals) in other.iter() {
            for interval in intervals {
                self.insert_interval(sid, tag.to_owned(), *interval);
            }
        }
    }

    fn insert_interval(&mut self, sid: Sid, tag: String, new: Interval) {
        let intervals = self.sources.entry(sid).or_default().entry(tag).or_default();
        // The first that does not end before `new` begins, touching ones included.
        let first = intervals.partition_point(|i| i.end < new.start.saturating_sub(1));
        let last = intervals.partition_point(|i| i.start <= new.end.saturating_add(1));
        let merged = match intervals.get(first..last) {
            Some([only]) => Interval { start: new.start.min(only.start), end: new.end.max(only.end) },
            Some([head, .., tail]) => Interval { start: new.start.min(head.start), end: new.end.max(tail.end) },
            _ => new,
        };
        intervals.splice(first..last.max(first), [merged]);
    }
}

impl FromStr for Mysql56GtidSet {
    type Err = PositionError;

    /// Servers put a line feed after each comma.
    fn from_str(text: &str) -> Result<Self, PositionError> {
        let mut set = Self::default();
        for source in text.split(',').map(str::trim).filter(|source| !source.is_empty()) {
            let mut parts = source.split(':').map(str::trim);
            let sid: Sid = parts.next().unwrap_or_default().parse()?;
            let mut tag = String::new();
            let mut any = false;
            for part in parts {
                any = true;
                if is_tag(part) {
                    tag = part.to_lowercase();
                } else if let Some(interval) = parse_interval(part)? {
                    set.insert_interval(sid, tag.clone(), interval);
                }
            }
            if !any {
                return Err(PositionError::new("invalid MySQL 5.6 GTID set", source));
            }
        }
        Ok(set)
    }
}

impl fmt::Display for Mysql56GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (sid, tags)) in self.sources.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            write!(f, "{sid}")?;
            for (tag, intervals) in tags {
                if !tag.is_empty() {
                    write!(f, ":{tag}")?;
                }
                for interval in intervals {
                    write!(f, ":{interval}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const A: &str = "00010203-0405-0607-0809-0a0b0c0d0e0f";
    const B: &str = "00010203-0405-0607-0809-0a0b0c0d0eff";

    fn set(text: &str) -> Mysql56GtidSet {
        text.parse().expect("a GTID set")
    }

    #[test]
    fn text_as_servers_print_it() {
        let text = format!("{}:1-5:7,\n{}:3:1-2", B.to_uppercase(), A);
        assert_eq!(set(&text).to_string(), format!("{A}:1-3,{B}:1-5:7"));
        assert_eq!(set("").to_string(), "");
        assert_eq!(set(&format!("{A}:10-9:3")).to_string(), format!("{A}:3"));
        let tagged = format!("{A}:1-5:backup:1-3:7,{B}:tag_1:4");
        assert_eq!(set(&tagged).to_string(), tagged);
    }

    #[test]
    fn what_is_no_set() {
        for text in
            ["x", A, "1-5", &format!("{A}:0-3"), &format!("{A}:1-"), &format!("{A}:-"), &format!("{}:1", &A[1..])]
        {
            assert!(text.parse::<Mysql56GtidSet>().is_err(), "{text}");
        }
        assert!(format!("{A}:1-2").parse::<Mysql56Gtid>().is_err());
        assert!(A.parse::<Mysql56Gtid>().is_err());
    }

    #[test]
    fn containment() {
        let whole = set(&format!("{A}:1-10:20-30,{B}:1"));
        for part in [format!("{A}:1-10"), format!("{A}:5:25-26,{B}:1"), String::new()] {
            assert!(whole.contains(&set(&part)), "{part}");
        }
        for not in [format!("{A}:10-11"), format!("{A}:8-22"), format!("{B}:1-2"), format!("{A}:tag:1")] {
            assert!(!whole.contains(&set(&not)), "{not}");
        }
    }

    fn build(numbers: &BTreeSet<u64>) -> Mysql56GtidSet {
        let mut set = Mysql56GtidSet::default();
        // Not in order, so that every way of merging is taken.
        for &number in numbers.iter().rev().step_by(2).chain(numbers) {
            set.insert(Mysql56Gtid { sid: A.parse().expect("a sid"), tag: String::new(), number });
        }
        set
    }

    proptest! {
        #[test]
        fn sets_of_intervals_are_sets_of_numbers(
            left in prop::collection::btree_set(1..40u64, 0..30),
            right in prop::collection::btree_set(1..40u64, 0..30),
        ) {
            let (a, b) = (build(&left), build(&right));
            prop_assert_eq!(a.contains(&b), left.is_superset(&right));
            let mut both = a.clone();
            both.union(&b);
            prop_assert_eq!(&both, &build(&left.union(&right).copied().collect()));
            prop_assert_eq!(&set(&both.to_string()), &both);
        }

        #[test]
        fn no_text_makes_parsing_panic(text: String) {
            let _ = text.parse::<Mysql56GtidSet>();
            let _ = format!("{A}:{text}").parse::<Mysql56GtidSet>();
            let _ = text.parse::<Sid>();
        }
    }
}
