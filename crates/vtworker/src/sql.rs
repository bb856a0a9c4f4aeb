//! SQL text that jobs send: names, literals, conditions on keys, and settings for one statement.

use vtproto::query::Type;

/// Appends a name in backquotes.
pub fn push_name(out: &mut String, name: &str) {
    out.push('`');
    out.push_str(&name.replace('`', "``"));
    out.push('`');
}

/// A name in backquotes.
pub fn name(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    push_name(&mut out, name);
    out
}

/// How a column's text becomes a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Literal {
    /// As it stands.
    Number,
    /// Quoted.
    Text,
    /// Quoted, and marked as bytes: they need not be valid in the connection's character set.
    Binary,
    /// As hexadecimal digits: a bit field.
    Bits,
}

impl Literal {
    /// For the values of a column type.
    pub fn of(kind: Type) -> Self {
        match kind {
            Type::Int8
            | Type::Uint8
            | Type::Int16
            | Type::Uint16
            | Type::Int24
            | Type::Uint24
            | Type::Int32
            | Type::Uint32
            | Type::Int64
            | Type::Uint64
            | Type::Float32
            | Type::Float64
            | Type::Year
            | Type::Decimal => Self::Number,
            Type::Blob | Type::Binary | Type::Varbinary | Type::Geometry => Self::Binary,
            Type::Bit => Self::Bits,
            _ => Self::Text,
        }
    }

    /// Appends a value.
    pub fn push(self, out: &mut Vec<u8>, value: Option<&[u8]>) {
        let Some(value) = value else {
            out.extend_from_slice(b"NULL");
            return;
        };
        match self {
            Self::Number => out.extend_from_slice(value),
            Self::Text => push_quoted(out, value),
            Self::Binary => {
                out.extend_from_slice(b"_binary");
                push_quoted(out, value);
            }
            Self::Bits => {
                out.extend_from_slice(b"x'");
                for byte in value {
                    for nibble in [byte >> 4, byte & 15] {
                        out.push(b"0123456789abcdef"[usize::from(nibble)]);
                    }
                }
                out.push(b'\'');
            }
        }
    }
}

/// Appends a quoted string. Runs of ordinary bytes are copied at once.
pub fn push_quoted(out: &mut Vec<u8>, value: &[u8]) {
    out.push(b'\'');
    let mut rest = value;
    while let Some(at) = rest.iter().position(|byte| matches!(byte, 0 | b'\'' | b'\\' | b'\n' | b'\r' | 0x1a | b'"')) {
        out.extend_from_slice(&rest[..at]);
        out.push(b'\\');
        out.push(match rest[at] {
            0 => b'0',
            b'\n' => b'n',
            b'\r' => b'r',
            0x1a => b'Z',
            other => other,
        });
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'\'');
}

/// A quoted string.
pub fn quoted(value: impl AsRef<[u8]>) -> String {
    let mut out = Vec::new();
    push_quoted(&mut out, value.as_ref());
    // The places where bytes are added are ASCII.
    String::from_utf8_lossy(&out).into_owned()
}

/// One column of a key, in conditions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// What is compared: the column, or its number where the order of a type is not that of its text.
    pub expr: String,
    pub literal: Literal,
}

/// Values of the first columns of a key.
pub type Bound = Vec<Vec<u8>>;

/// A range of keys: above `lower`, up to and with `upper`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Range {
    pub lower: Option<Bound>,
    pub upper: Option<Bound>,
}

impl Range {
    /// `where …` over a key, empty if everything is meant.
    pub fn condition(&self, key: &[KeyColumn]) -> Vec<u8> {
        let mut out = Vec::new();
        for (bound, operator) in [(&self.lower, ">"), (&self.upper, "<")] {
            let Some(bound) = bound.as_ref().filter(|bound| !bound.is_empty()) else { continue };
            out.extend_from_slice(if out.is_empty() { b" where " } else { b" and " });
            push_beyond(&mut out, key, bound, operator, operator == "<");
        }
        out
    }
}

/// Appends `key > bound` or `key < bound` column by column: servers use an index for this form, not for row
/// constructors. In front stands the same for the first column alone, which is what ranges are read by.
fn push_beyond(out: &mut Vec<u8>, key: &[KeyColumn], bound: &Bound, operator: &str, or_equal: bool) {
    let mut literals = Vec::with_capacity(bound.len());
    for (column, value) in key.iter().zip(bound) {
        let mut text = Vec::new();
        column.literal.push(&mut text, Some(value));
        literals.push(text);
    }
    let compare = |out: &mut Vec<u8>, at: usize, operator: &str| {
        out.extend_from_slice(key[at].expr.as_bytes());
        out.extend_from_slice(operator.as_bytes());
        out.extend_from_slice(&literals[at]);
    };
    let last = literals.len() - 1;
    let end = if or_equal { format!("{operator}=") } else { operator.to_owned() };
    if last == 0 {
        compare(out, 0, &end);
        return;
    }
    compare(out, 0, &format!("{operator}="));
    out.extend_from_slice(b" and (");
    for at in 0..=last {
        if at > 0 {
            out.extend_from_slice(b" or (");
            for equal in 0..at {
                compare(out, equal, "=");
                out.extend_from_slice(b" and ");
            }
        }
        compare(out, at, if at == last { &end } else { operator });
        if at > 0 {
            out.push(b')');
        }
    }
    out.push(b')');
}

/// Which server a statement goes to, as far as its text depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    MariaDb,
    /// MySQL 8 and later: settings in a hint.
    MySql8,
    /// Older: no settings for one statement.
    Other,
}

/// Both sides read and write times in this zone: what a TIMESTAMP says must not depend on where a server stands.
pub const TIME_ZONE: (&str, &str) = ("time_zone", "'+00:00'");
/// Zero is a value of AUTO_INCREMENT columns like any other, and so are dates that a server refuses by default. What
/// cannot be stored as it is read is an error.
pub const WRITE_SETTINGS: &[(&str, &str)] = &[
    TIME_ZONE,
    ("sql_mode", "'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,STRICT_ALL_TABLES'"),
    ("foreign_key_checks", "0"),
];
/// For rows with a value that strict servers never store: the ENUM that is none of its members.
pub const LAX_WRITE_SETTINGS: &[(&str, &str)] =
    &[TIME_ZONE, ("sql_mode", "'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'"), ("foreign_key_checks", "0")];

impl Dialect {
    /// From `select version()`.
    pub fn of_version(version: &str) -> Self {
        if version.contains("MariaDB") {
            return Self::MariaDb;
        }
        match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
            Some(major) if major >= 8 => Self::MySql8,
            _ => Self::Other,
        }
    }

    /// A statement's beginning (`INSERT`, `SELECT`) with settings that hold for this statement alone.
    pub fn with(self, verb: &str, settings: &[(&str, &str)]) -> String {
        match self {
            Self::MariaDb => {
                let all: Vec<String> = settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
                format!("SET STATEMENT {} FOR {verb}", all.join(", "))
            }
            Self::MySql8 => {
                let all: Vec<String> =
                    settings.iter().map(|(name, value)| format!("SET_VAR({name}={value})")).collect();
                format!("{verb} /*+ {} */", all.join(" "))
            }
            Self::Other => verb.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(names: &[&str]) -> Vec<KeyColumn> {
        names.iter().map(|name| KeyColumn { expr: super::name(name), literal: Literal::Number }).collect()
    }

    fn condition(key: &[&str], lower: Option<&[&str]>, upper: Option<&[&str]>) -> String {
        let bound = |words: Option<&[&str]>| words.map(|words| words.iter().map(|w| w.as_bytes().to_vec()).collect());
        let range = Range { lower: bound(lower), upper: bound(upper) };
        String::from_utf8(range.condition(&columns(key))).expect("ASCII")
    }

    #[test]
    fn ranges_over_keys_of_any_arity() {
        assert_eq!(condition(&["a"], None, None), "");
        assert_eq!(condition(&["a"], Some(&["1"]), Some(&["9"])), " where `a`>1 and `a`<=9");
        assert_eq!(
            condition(&["a", "b", "c"], Some(&["1", "2", "3"]), None),
            " where `a`>=1 and (`a`>1 or (`a`=1 and `b`>2) or (`a`=1 and `b`=2 and `c`>3))"
        );
        // A bound of the first column alone.
        assert_eq!(condition(&["a", "b"], None, Some(&["5"])), " where `a`<=5");
        assert_eq!(condition(&["a", "b"], None, Some(&["5", "6"])), " where `a`<=5 and (`a`<5 or (`a`=5 and `b`<=6))");
    }

    #[test]
    fn literals_of_every_kind() {
        let literal = |kind: Literal, value: Option<&[u8]>| {
            let mut out = Vec::new();
            kind.push(&mut out, value);
            out
        };
        assert_eq!(literal(Literal::Text, Some(b"O'Neil\\\n\0")), b"'O\\'Neil\\\\\\n\\0'");
        assert_eq!(literal(Literal::Binary, Some(&[0xff, b'\''])), b"_binary'\xff\\''");
        assert_eq!(literal(Literal::Bits, Some(&[1, 0xfe])), b"x'01fe'");
        assert_eq!(literal(Literal::Number, Some(b"-1.50")), b"-1.50");
        assert_eq!(literal(Literal::Number, None), b"NULL");
        assert_eq!(name("a`b"), "`a``b`");
    }

    #[test]
    fn settings_by_server() {
        let settings = &[("time_zone", "'+00:00'"), ("foreign_key_checks", "0")];
        let with = |version: &str| Dialect::of_version(version).with("INSERT", settings);
        assert_eq!(with("10.11.6-MariaDB-log"), "SET STATEMENT time_zone='+00:00', foreign_key_checks=0 FOR INSERT");
        assert_eq!(with("9.1.0"), "INSERT /*+ SET_VAR(time_zone='+00:00') SET_VAR(foreign_key_checks=0) */");
        assert_eq!(with("5.7.31"), "INSERT");
    }
}
