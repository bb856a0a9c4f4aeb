//! One value of a row.

use super::decimal::Decimal;
use super::json::Json;
use super::temporal::{Date, DateTime, Time};

/// A value, borrowed from its row image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Null,
    Int(i64),
    Uint(u64),
    Float(f32),
    Double(f64),
    Decimal(Decimal<'a>),
    /// 0 is the year 0000.
    Year(u16),
    Date(Date),
    Time(Time),
    DateTime(DateTime),
    /// In UTC.
    Timestamp(DateTime),
    Bit(u64),
    /// From 1; 0 is the empty string that stands for what was no member.
    Enum(u16),
    /// One bit a member.
    Set(u64),
    /// Of any string type, in the character set of its column. CHAR is without its trailing spaces.
    Bytes(&'a [u8]),
    /// BINARY(`len`), of which trailing zero bytes may be missing.
    Binary {
        bytes: &'a [u8],
        len: usize,
    },
    /// MySQL's binary JSON.
    Json(Json<'a>),
    /// SRID and WKB.
    Geometry(&'a [u8]),
}

impl Value<'_> {
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}
