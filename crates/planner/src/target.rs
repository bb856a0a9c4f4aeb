//! Target strings: `ks`, `ks:-80@replica`, `ks/0`, `ks[40-80]@rdonly`, `@replica`.

use std::fmt;

use keyrange::{Destination, KeyRange, KeyspaceId};
use vterrors::{Code, VtError};
use vtproto::topodata::TabletType;

/// Where a session's statements go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Empty: none named.
    pub keyspace: String,
    pub destination: Option<Destination>,
    pub tablet_type: TabletType,
}

impl Default for Target {
    fn default() -> Self {
        Self { keyspace: String::new(), destination: None, tablet_type: TabletType::Master }
    }
}

impl Target {
    /// Reads a target string. An unknown type is UNKNOWN and not an error, so is an unknown keyspace:
    /// both show when something is sent. Errors: hex that is none.
    pub fn parse(text: &str) -> Result<Self, VtError> {
        Self::parse_with_default(text, TabletType::Master)
    }

    /// As [`Target::parse`], with the type to take when none is named.
    pub fn parse_with_default(text: &str, default: TabletType) -> Result<Self, VtError> {
        let (rest, tablet_type) = match text.rsplit_once('@') {
            Some((rest, name)) => (rest, tablet_type(name)),
            None => (text, default),
        };
        if let Some(at) = rest.rfind(['/', ':']) {
            let destination = Some(Destination::Shard(rest[at + 1..].to_owned()));
            return Ok(Self { keyspace: rest[..at].to_owned(), destination, tablet_type });
        }
        let Some((keyspace, inside)) = rest.strip_suffix(']').and_then(|rest| rest.split_once('[')) else {
            return Ok(Self { keyspace: rest.to_owned(), destination: None, tablet_type });
        };
        let invalid = |e: keyrange::KeyRangeError| VtError::new(Code::InvalidArgument, e.to_string());
        let destination = match inside.split_once('-') {
            Some((start, end)) => Destination::ExactKeyRange(KeyRange::from_hex(start, end).map_err(invalid)?),
            None => Destination::KeyspaceId(KeyspaceId::new(unhex(inside)?)),
        };
        Ok(Self { keyspace: keyspace.to_owned(), destination: Some(destination), tablet_type })
    }
}

fn unhex(text: &str) -> Result<Vec<u8>, VtError> {
    let invalid =
        |what: String| VtError::new(Code::InvalidArgument, format!("expected valid hex in keyspace id {text}: {what}"));
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return Err(invalid("an odd number of digits or other characters".into()));
    }
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).map_err(|e| invalid(e.to_string())))
        .collect()
}

/// The tablet type of that name, any case.
fn tablet_type(name: &str) -> TabletType {
    match name.to_ascii_lowercase().as_str() {
        // The word of newer releases.
        "primary" => TabletType::Master,
        lower => TabletType::from_str_name(&lower.to_ascii_uppercase()).unwrap_or(TabletType::Unknown),
    }
}

/// The target string, type left out when it is MASTER and was not needed.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.keyspace)?;
        match &self.destination {
            None => {}
            Some(Destination::Shard(shard)) => write!(f, ":{shard}")?,
            Some(Destination::ExactKeyRange(range)) => write!(f, "[{range}]")?,
            Some(Destination::KeyspaceId(id)) => {
                f.write_str("[")?;
                id.as_bytes().iter().try_for_each(|b| write!(f, "{b:02x}"))?;
                f.write_str("]")?;
            }
        }
        if self.tablet_type == TabletType::Master {
            return Ok(());
        }
        write!(f, "@{}", self.tablet_type.as_str_name().to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, keyspace, destination, tablet_type) in [
            ("", "", None, TabletType::Master),
            ("ks", "ks", None, TabletType::Master),
            ("ks@replica", "ks", None, TabletType::Replica),
            ("@rdonly", "", None, TabletType::Rdonly),
            ("ks:-80", "ks", Some(Destination::Shard("-80".into())), TabletType::Master),
            ("ks/0@rdonly", "ks", Some(Destination::Shard("0".into())), TabletType::Rdonly),
            ("ks@nope", "ks", None, TabletType::Unknown),
            (
                "ks[10-20]@master",
                "ks",
                Some(Destination::ExactKeyRange(KeyRange::from_hex("10", "20").expect("hex"))),
                TabletType::Master,
            ),
            (
                "ks[deadbeef]",
                "ks",
                Some(Destination::KeyspaceId(KeyspaceId::new(vec![0xde, 0xad, 0xbe, 0xef]))),
                TabletType::Master,
            ),
        ] {
            let target = Target::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(target, Target { keyspace: keyspace.into(), destination, tablet_type }, "{text}");
            assert_eq!(Target::parse(&target.to_string()).expect("printed"), target, "{text}");
        }
        for bad in ["ks[xyz]", "ks[10-2]", "ks[zz-20]", "ks[é]"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
