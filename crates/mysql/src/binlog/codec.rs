//! Column types in row events: how many bytes a cell takes, and what they mean.
//!
//! Sources: MySQL manual, "Table_map_log_event" (types and their metadata); both servers' sources for the order of bytes.

use super::decimal::{self, Decimal};
use super::error::BinlogError;
use super::json::Json;
use super::temporal::{Date, DateTime, Time};
use super::value::Value;
use crate::types::code;

/// Type codes that no result set has.
const TYPED_ARRAY: u8 = 244;
const MARIADB_BLOB_COMPRESSED: u8 = 140;
const MARIADB_VARCHAR_COMPRESSED: u8 = 141;

/// What a string type is, where that decides how its bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextKind {
    /// CHAR or BINARY.
    Fixed,
    /// VARCHAR or VARBINARY.
    Variable,
    /// TEXT or BLOB.
    Blob,
}

/// How cells of a column are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    /// 1, 2, 3, 4 or 8 bytes.
    Int {
        bytes: u8,
        unsigned: bool,
    },
    Float,
    Double,
    Decimal {
        precision: u8,
        scale: u8,
    },
    Year,
    /// The forms before MySQL 5.6, without fractions.
    OldTimestamp,
    OldDateTime,
    OldTime,
    Timestamp {
        fsp: u8,
    },
    DateTime {
        fsp: u8,
    },
    Time {
        fsp: u8,
    },
    Date,
    Bit {
        bits: u16,
    },
    Enum {
        bytes: u8,
    },
    Set {
        bytes: u8,
    },
    /// A length in `prefix` bytes, then the string. `len` is the most that the column holds, in bytes.
    Text {
        kind: TextKind,
        prefix: u8,
        len: u32,
    },
    /// BINARY(`len`).
    Binary {
        prefix: u8,
        len: u16,
    },
    Json {
        prefix: u8,
    },
    Geometry {
        prefix: u8,
    },
}

fn truncated() -> BinlogError {
    BinlogError::malformed("ROWS", "a row ends early")
}

/// A number, lowest byte first.
fn little(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// A number, highest byte first.
fn big(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

/// Bytes of a fraction of `fsp` digits.
fn fraction_bytes(fsp: u8) -> usize {
    usize::from(fsp.div_ceil(2))
}

/// Microseconds in a stored fraction.
fn micros(stored: u64, fsp: u8) -> u32 {
    match fraction_bytes(fsp) {
        1 => stored as u32 * 10_000,
        2 => stored as u32 * 100,
        3 => stored as u32,
        _ => 0,
    }
}

impl Codec {
    /// Bytes of metadata that a table map event has for a type.
    pub(super) fn metadata_len(type_code: u8) -> Result<usize, BinlogError> {
        Ok(match type_code {
            code::TINY
            | code::SHORT
            | code::LONG
            | code::LONGLONG
            | code::INT24
            | code::NULL
            | code::TIMESTAMP
            | code::DATE
            | code::TIME
            | code::DATETIME
            | code::YEAR
            | code::NEWDATE => 0,
            code::FLOAT
            | code::DOUBLE
            | code::TIMESTAMP2
            | code::DATETIME2
            | code::TIME2
            | code::JSON
            | code::GEOMETRY
            | code::VECTOR
            | code::TINY_BLOB
            | code::MEDIUM_BLOB
            | code::LONG_BLOB
            | code::BLOB
            | MARIADB_BLOB_COMPRESSED => 1,
            code::VARCHAR
            | code::VAR_STRING
            | code::STRING
            | code::BIT
            | code::NEWDECIMAL
            | code::ENUM
            | code::SET
            | MARIADB_VARCHAR_COMPRESSED => 2,
            other => return Err(BinlogError::Unsupported(format!("column of type {other} in the binlog"))),
        })
    }

    /// From the type and its metadata in a table map event. Signs are not known there: integers come out signed. CHAR and
    /// BINARY are the same there too: [`Codec::as_binary`].
    pub(super) fn new(type_code: u8, metadata: &[u8]) -> Result<Self, BinlogError> {
        let one = || metadata.first().copied().unwrap_or_default();
        let two = || (one(), metadata.get(1).copied().unwrap_or_default());
        let little_two = || {
            let (low, high) = two();
            u16::from_le_bytes([low, high])
        };
        let int = |bytes| Self::Int { bytes, unsigned: false };
        let bad = |what: &str| BinlogError::malformed("TABLE_MAP", what);
        Ok(match type_code {
            code::TINY => int(1),
            code::SHORT => int(2),
            code::INT24 => int(3),
            code::LONG => int(4),
            code::LONGLONG => int(8),
            code::FLOAT => Self::Float,
            code::DOUBLE => Self::Double,
            code::NEWDECIMAL => {
                let (precision, scale) = two();
                if scale > precision || precision > 65 {
                    return Err(bad("DECIMAL"));
                }
                Self::Decimal { precision, scale }
            }
            code::YEAR => Self::Year,
            code::TIMESTAMP => Self::OldTimestamp,
            code::DATETIME => Self::OldDateTime,
            code::TIME => Self::OldTime,
            code::DATE | code::NEWDATE => Self::Date,
            code::TIMESTAMP2 | code::DATETIME2 | code::TIME2 => {
                let fsp = one();
                if fsp > 6 {
                    return Err(bad("digits of a fraction"));
                }
                match type_code {
                    code::TIMESTAMP2 => Self::Timestamp { fsp },
                    code::DATETIME2 => Self::DateTime { fsp },
                    _ => Self::Time { fsp },
                }
            }
            code::BIT => {
                let (bits, bytes) = two();
                let bits = u16::from(bytes) * 8 + u16::from(bits);
                if bits > 64 {
                    return Err(bad("BIT"));
                }
                Self::Bit { bits }
            }
            code::VARCHAR | code::VAR_STRING => {
                let len = little_two();
                Self::Text { kind: TextKind::Variable, prefix: if len > 255 { 2 } else { 1 }, len: len.into() }
            }
            // CHAR, BINARY, ENUM or SET: the first byte says which, and has two bits of the length inverted.
            code::STRING | code::ENUM | code::SET => {
                let (first, second) = two();
                let (real, len) = if first & 0x30 == 0x30 {
                    (first, u16::from(second))
                } else {
                    (first | 0x30, u16::from(second) | u16::from(first & 0x30 ^ 0x30) << 4)
                };
                match real {
                    code::ENUM if matches!(len, 1 | 2) => Self::Enum { bytes: len as u8 },
                    code::SET if (1..=8).contains(&len) => Self::Set { bytes: len as u8 },
                    code::STRING | code::VAR_STRING => {
                        Self::Text { kind: TextKind::Fixed, prefix: if len > 255 { 2 } else { 1 }, len: len.into() }
                    }
                    _ => return Err(bad("string type")),
                }
            }
            code::TINY_BLOB
            | code::MEDIUM_BLOB
            | code::LONG_BLOB
            | code::BLOB
            | code::JSON
            | code::GEOMETRY
            | code::VECTOR => {
                let prefix = one();
                if !(1..=4).contains(&prefix) {
                    return Err(bad("length of a blob's length"));
                }
                match type_code {
                    code::JSON => Self::Json { prefix },
                    code::GEOMETRY => Self::Geometry { prefix },
                    _ => Self::Text { kind: TextKind::Blob, prefix, len: u32::MAX },
                }
            }
            MARIADB_BLOB_COMPRESSED | MARIADB_VARCHAR_COMPRESSED => {
                return Err(BinlogError::Unsupported("COMPRESSED columns cannot be read from the binlog".into()));
            }
            TYPED_ARRAY => return Err(BinlogError::Unsupported("column of an array type in the binlog".into())),
            other => return Err(BinlogError::Unsupported(format!("column of type {other} in the binlog"))),
        })
    }

    /// The same for an unsigned column; other types than integers do not change.
    #[must_use]
    pub fn with_sign(self, unsigned: bool) -> Self {
        match self {
            Self::Int { bytes, .. } => Self::Int { bytes, unsigned },
            other => other,
        }
    }

    /// BINARY instead of CHAR; other types do not change.
    #[must_use]
    pub fn as_binary(self) -> Self {
        match self {
            Self::Text { kind: TextKind::Fixed, prefix, len } => Self::Binary { prefix, len: len as u16 },
            other => other,
        }
    }

    /// Bytes of the cell at the beginning of `row`.
    pub fn cell_len(&self, row: &[u8]) -> Result<usize, BinlogError> {
        let len = match *self {
            Self::Int { bytes, .. } => bytes.into(),
            Self::Float => 4,
            Self::Double => 8,
            Self::Decimal { precision, scale } => decimal::len(precision, scale),
            Self::Year => 1,
            Self::OldTimestamp => 4,
            Self::OldDateTime => 8,
            Self::OldTime | Self::Date => 3,
            Self::Timestamp { fsp } => 4 + fraction_bytes(fsp),
            Self::DateTime { fsp } => 5 + fraction_bytes(fsp),
            Self::Time { fsp } => 3 + fraction_bytes(fsp),
            Self::Bit { bits } => usize::from(bits).div_ceil(8),
            Self::Enum { bytes } | Self::Set { bytes } => bytes.into(),
            Self::Text { prefix, .. }
            | Self::Binary { prefix, .. }
            | Self::Json { prefix }
            | Self::Geometry { prefix } => {
                let prefix = usize::from(prefix);
                prefix + little(row.get(..prefix).ok_or_else(truncated)?) as usize
            }
        };
        if len > row.len() { Err(truncated()) } else { Ok(len) }
    }

    /// The value of a cell, as long as [`Codec::cell_len`] says.
    pub fn value<'a>(&self, cell: &'a [u8]) -> Value<'a> {
        let string = |prefix: u8| cell.get(usize::from(prefix)..).unwrap_or_default();
        match *self {
            Self::Int { bytes, unsigned } => {
                let raw = little(cell);
                if unsigned {
                    return Value::Uint(raw);
                }
                let unused = 64 - 8 * u32::from(bytes.clamp(1, 8));
                Value::Int((raw << unused) as i64 >> unused)
            }
            Self::Float => Value::Float(f32::from_bits(little(cell) as u32)),
            Self::Double => Value::Double(f64::from_bits(little(cell))),
            Self::Decimal { precision, scale } => Value::Decimal(Decimal { bytes: cell, precision, scale }),
            Self::Year => match cell.first() {
                Some(&years) if years > 0 => Value::Year(1900 + u16::from(years)),
                _ => Value::Year(0),
            },
            Self::OldTimestamp => Value::Timestamp(DateTime::from_unix(little(cell) as u32, 0, 0)),
            Self::OldDateTime => Value::DateTime(DateTime::from_digits(little(cell))),
            Self::OldTime => Value::Time(Time::from_digits(((little(cell) as u32) << 8) as i32 >> 8)),
            Self::Date => Value::Date(Date::unpack(little(cell) as u32)),
            Self::Timestamp { fsp } => {
                let (seconds, fraction) = cell.split_at(cell.len().min(4));
                Value::Timestamp(DateTime::from_unix(big(seconds) as u32, micros(big(fraction), fsp), fsp))
            }
            Self::DateTime { fsp } => {
                let (whole, fraction) = cell.split_at(cell.len().min(5));
                // The highest bit is the sign, which is always plus.
                let packed = big(whole) & 0x7f_ffff_ffff;
                Value::DateTime(DateTime::unpack(packed, micros(big(fraction), fsp), fsp))
            }
            Self::Time { fsp } => {
                // One number with its fraction, to which half of its range was added.
                let fraction_bits = 8 * fraction_bytes(fsp) as u32;
                let number = big(cell) as i64 - (0x80_0000_i64 << fraction_bits);
                let positive = number.unsigned_abs();
                let fraction = positive & ((1 << fraction_bits) - 1);
                Value::Time(Time::unpack(number < 0, (positive >> fraction_bits) as u32, micros(fraction, fsp), fsp))
            }
            Self::Bit { .. } => Value::Bit(big(cell)),
            Self::Enum { .. } => Value::Enum(little(cell) as u16),
            Self::Set { .. } => Value::Set(little(cell)),
            Self::Text { prefix, .. } => Value::Bytes(string(prefix)),
            Self::Binary { prefix, len } => Value::Binary { bytes: string(prefix), len: len.into() },
            Self::Json { prefix } => Value::Json(Json::new(string(prefix))),
            Self::Geometry { prefix } => Value::Geometry(string(prefix)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(cell: &[u8], fsp: u8) -> String {
        let Value::Time(time) = Codec::Time { fsp }.value(cell) else { panic!("not a time") };
        let mut out = Vec::new();
        time.write(&mut out);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn times_below_zero() {
        assert_eq!(time(&[0x7f, 0xff, 0xff, 0xff], 1), "-00:00:00.0");
        assert_eq!(time(&[0x7f, 0xff, 0xff], 0), "-00:00:01");
        assert_eq!(time(&[0x80, 0, 0], 0), "00:00:00");
    }

    #[test]
    fn signs_of_short_integers() {
        let int = Codec::Int { bytes: 3, unsigned: false };
        assert_eq!(int.value(&[0xff, 0xff, 0xff]), Value::Int(-1));
        assert_eq!(int.with_sign(true).value(&[0xff, 0xff, 0xff]), Value::Uint(0xff_ffff));
    }

    #[test]
    fn lengths_of_char_beyond_a_byte() {
        // CHAR(255) CHARACTER SET utf8mb4: 1020 bytes.
        let codec = Codec::new(code::STRING, &[0xce, 0xfc]).expect("a type");
        assert_eq!(codec, Codec::Text { kind: TextKind::Fixed, prefix: 2, len: 1020 });
    }
}
