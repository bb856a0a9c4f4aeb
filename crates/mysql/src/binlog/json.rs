//! MySQL's binary JSON, as text.
//!
//! Source: MySQL manual and `json_binary.h`: a type byte, then a scalar or a table of offsets. Objects and arrays come
//! in a small (two-byte offsets) and a large (four-byte) form.

use super::decimal::Decimal;
use super::temporal::{DateTime, Time};

/// Deepest nesting that MySQL accepts.
const MAX_DEPTH: usize = 100;

const SMALL_OBJECT: u8 = 0;
const LARGE_OBJECT: u8 = 1;
const LARGE_ARRAY: u8 = 3;
const LITERAL: u8 = 4;
const INT16: u8 = 5;
const UINT16: u8 = 6;
const INT32: u8 = 7;
const UINT32: u8 = 8;
const INT64: u8 = 9;
const UINT64: u8 = 10;
const DOUBLE: u8 = 11;
const STRING: u8 = 12;
const OPAQUE: u8 = 15;

/// Appends a string literal of UTF-8 text or, if so said, of binary data.
pub type PutString<'a> = &'a mut dyn FnMut(&mut Vec<u8>, &[u8], bool);

/// Bytes that are no document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a JSON value in the binlog cannot be read: {0}")]
pub struct JsonError(&'static str);

/// A document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Json<'a> {
    bytes: &'a [u8],
}

fn short() -> JsonError {
    JsonError("it ends early")
}

fn number(bytes: &[u8], at: usize, len: usize) -> Result<u64, JsonError> {
    let bytes = bytes.get(at..).and_then(|rest| rest.get(..len)).ok_or_else(short)?;
    Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte)))
}

/// A length of up to five bytes, seven bits each, lowest first; and how many bytes it took.
fn length(bytes: &[u8]) -> Result<(usize, usize), JsonError> {
    let mut len = 0;
    for (index, &byte) in bytes.iter().take(5).enumerate() {
        len |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((len, index + 1));
        }
    }
    Err(short())
}

impl<'a> Json<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// An empty cell, which MySQL writes for a value that IGNORE let pass; it reads as JSON null.
    fn is_blank(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Appends the document as JSON text. Values that JSON has no type for (dates, decimals, binary data) become what
    /// MySQL prints for them.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        if self.is_blank() {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        value(self.bytes[0], &self.bytes[1..], out, 0)
    }

    /// Whether text holds all of it: no dates, decimals or binary data inside.
    pub fn is_plain(&self) -> Result<bool, JsonError> {
        if self.is_blank() {
            return Ok(true);
        }
        plain(self.bytes[0], &self.bytes[1..], 0)
    }

    /// Appends an SQL expression that makes exactly this document, types included, out of JSON_OBJECT, JSON_ARRAY and
    /// CAST.
    pub fn write_expression(&self, out: &mut Vec<u8>, string: PutString<'_>) -> Result<(), JsonError> {
        if self.is_blank() {
            out.extend_from_slice(b"CAST('null' AS JSON)");
            return Ok(());
        }
        expression(self.bytes[0], &self.bytes[1..], out, string, 0)
    }
}

/// The entries of an object or array.
struct Container<'a> {
    data: &'a [u8],
    object: bool,
    width: usize,
    count: usize,
}

impl<'a> Container<'a> {
    fn open(kind: u8, data: &'a [u8]) -> Result<Self, JsonError> {
        let width = if matches!(kind, LARGE_OBJECT | LARGE_ARRAY) { 4 } else { 2 };
        let count = number(data, 0, width)? as usize;
        let size = number(data, width, width)? as usize;
        let data = data.get(..size).ok_or_else(short)?;
        let object = matches!(kind, SMALL_OBJECT | LARGE_OBJECT);
        let container = Self { data, object, width, count };
        if container.values_at(count) > size {
            return Err(short());
        }
        Ok(container)
    }

    fn values_at(&self, index: usize) -> usize {
        let keys = if self.object { self.count.saturating_mul(self.width + 2) } else { 0 };
        (2 * self.width).saturating_add(keys).saturating_add(index.saturating_mul(1 + self.width))
    }

    fn key(&self, index: usize) -> Result<&'a [u8], JsonError> {
        let entry = 2 * self.width + index * (self.width + 2);
        let at = number(self.data, entry, self.width)? as usize;
        let len = number(self.data, entry + self.width, 2)? as usize;
        self.data.get(at..).and_then(|rest| rest.get(..len)).ok_or_else(short)
    }

    /// Type and bytes of a value; small ones stand in the table itself.
    fn entry(&self, index: usize) -> Result<(u8, &'a [u8]), JsonError> {
        let at = self.values_at(index);
        let kind = *self.data.get(at).ok_or_else(short)?;
        let inlined = matches!(kind, LITERAL | INT16 | UINT16) || self.width == 4 && matches!(kind, INT32 | UINT32);
        let place = if inlined { at + 1 } else { number(self.data, at + 1, self.width)? as usize };
        Ok((kind, self.data.get(place..).ok_or_else(short)?))
    }
}

fn is_container(kind: u8) -> bool {
    kind <= LARGE_ARRAY
}

fn plain(kind: u8, data: &[u8], depth: usize) -> Result<bool, JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError("it is nested too deep"));
    }
    if !is_container(kind) {
        return Ok(kind != OPAQUE);
    }
    let container = Container::open(kind, data)?;
    for index in 0..container.count {
        let (kind, data) = container.entry(index)?;
        if !plain(kind, data, depth + 1)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            8 => out.extend_from_slice(b"\\b"),
            12 => out.extend_from_slice(b"\\f"),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// A number that reads back as the same double, and as a double.
fn put_double(out: &mut Vec<u8>, value: f64) {
    let text = format!("{value:?}");
    out.extend_from_slice(text.as_bytes());
}

fn scalar(kind: u8, data: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
    let signed = |bits: u64, len: u32| (bits << (64 - 8 * len)) as i64 >> (64 - 8 * len);
    match kind {
        LITERAL => out.extend_from_slice(match data.first() {
            Some(0) => b"null",
            Some(1) => b"true",
            Some(2) => b"false",
            _ => return Err(JsonError("unknown literal")),
        }),
        INT16 => out.extend_from_slice(signed(number(data, 0, 2)?, 2).to_string().as_bytes()),
        INT32 => out.extend_from_slice(signed(number(data, 0, 4)?, 4).to_string().as_bytes()),
        INT64 => out.extend_from_slice(signed(number(data, 0, 8)?, 8).to_string().as_bytes()),
        UINT16 => out.extend_from_slice(number(data, 0, 2)?.to_string().as_bytes()),
        UINT32 => out.extend_from_slice(number(data, 0, 4)?.to_string().as_bytes()),
        UINT64 => out.extend_from_slice(number(data, 0, 8)?.to_string().as_bytes()),
        DOUBLE => put_double(out, f64::from_bits(number(data, 0, 8)?)),
        STRING => put_text(out, string(data)?),
        OPAQUE => opaque(data, out)?,
        _ => return Err(JsonError("unknown type")),
    }
    Ok(())
}

fn string(data: &[u8]) -> Result<&[u8], JsonError> {
    let (len, prefix) = length(data)?;
    data.get(prefix..).and_then(|rest| rest.get(..len)).ok_or_else(short)
}

/// Type code of the column that a value came from, and its bytes.
fn opaque_parts(data: &[u8]) -> Result<(u8, &[u8]), JsonError> {
    let (&type_code, rest) = data.split_first().ok_or_else(short)?;
    Ok((type_code, string(rest)?))
}

enum Opaque<'a> {
    Decimal(Decimal<'a>),
    Date(DateTime),
    DateTime(DateTime),
    Time(Time),
    Binary(u8, &'a [u8]),
}

fn read_opaque(data: &[u8]) -> Result<Opaque<'_>, JsonError> {
    use crate::types::code;
    let (type_code, bytes) = opaque_parts(data)?;
    // Packed: seconds and larger above 24 bits of microseconds.
    let packed = || number(bytes, 0, 8).map(|packed| packed as i64);
    let date_time = || -> Result<DateTime, JsonError> {
        let packed = packed()?.unsigned_abs();
        Ok(DateTime::unpack(packed >> 24, (packed & 0xff_ffff) as u32, 6))
    };
    Ok(match type_code {
        code::NEWDECIMAL => {
            let [precision, scale, digits @ ..] = bytes else { return Err(short()) };
            if scale > precision || *precision > 81 || digits.len() < super::decimal::len(*precision, *scale) {
                return Err(JsonError("a decimal is too short"));
            }
            Opaque::Decimal(Decimal { bytes: digits, precision: *precision, scale: *scale })
        }
        code::DATE => Opaque::Date(date_time()?),
        code::DATETIME | code::TIMESTAMP => Opaque::DateTime(date_time()?),
        code::TIME => {
            let packed = packed()?;
            let positive = packed.unsigned_abs();
            Opaque::Time(Time::unpack(packed < 0, (positive >> 24) as u32, (positive & 0xff_ffff) as u32, 6))
        }
        other => Opaque::Binary(other, bytes),
    })
}

fn opaque(data: &[u8], out: &mut Vec<u8>) -> Result<(), JsonError> {
    match read_opaque(data)? {
        Opaque::Decimal(decimal) => decimal.write(out),
        Opaque::Date(date) => {
            out.push(b'"');
            date.date.write(out);
            out.push(b'"');
        }
        Opaque::DateTime(moment) => {
            out.push(b'"');
            moment.write(out);
            out.push(b'"');
        }
        Opaque::Time(time) => {
            out.push(b'"');
            time.write(out);
            out.push(b'"');
        }
        Opaque::Binary(type_code, bytes) => {
            out.extend_from_slice(format!("\"base64:type{type_code}:").as_bytes());
            base64(bytes, out);
            out.push(b'"');
        }
    }
    Ok(())
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for index in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * index) & 63) as usize];
            out.push(if index <= chunk.len() { digit } else { b'=' });
        }
    }
}

fn value(kind: u8, data: &[u8], out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError("it is nested too deep"));
    }
    if !is_container(kind) {
        return scalar(kind, data, out);
    }
    let container = Container::open(kind, data)?;
    out.push(if container.object { b'{' } else { b'[' });
    for index in 0..container.count {
        if index > 0 {
            out.extend_from_slice(b", ");
        }
        if container.object {
            put_text(out, container.key(index)?);
            out.extend_from_slice(b": ");
        }
        let (kind, data) = container.entry(index)?;
        value(kind, data, out, depth + 1)?;
    }
    out.push(if container.object { b'}' } else { b']' });
    Ok(())
}

fn expression(kind: u8, data: &[u8], out: &mut Vec<u8>, literal: PutString<'_>, depth: usize) -> Result<(), JsonError> {
    if depth > MAX_DEPTH {
        return Err(JsonError("it is nested too deep"));
    }
    if is_container(kind) {
        let container = Container::open(kind, data)?;
        out.extend_from_slice(if container.object { b"JSON_OBJECT(" } else { b"JSON_ARRAY(" });
        for index in 0..container.count {
            if index > 0 {
                out.push(b',');
            }
            if container.object {
                literal(out, container.key(index)?, false);
                out.push(b',');
            }
            let (kind, data) = container.entry(index)?;
            expression(kind, data, out, literal, depth + 1)?;
        }
        out.push(b')');
        return Ok(());
    }
    if kind != OPAQUE {
        let mut text = Vec::new();
        scalar(kind, data, &mut text)?;
        out.extend_from_slice(b"CAST(");
        literal(out, &text, false);
        out.extend_from_slice(b" AS JSON)");
        return Ok(());
    }
    let mut cast = |write: &dyn Fn(&mut Vec<u8>), of: &str| {
        out.extend_from_slice(b"CAST(CAST('");
        write(out);
        out.extend_from_slice(b"' AS ");
        out.extend_from_slice(of.as_bytes());
        out.extend_from_slice(b") AS JSON)");
    };
    match read_opaque(data)? {
        Opaque::Decimal(decimal) => {
            let of = format!("DECIMAL({},{})", decimal.precision, decimal.scale);
            cast(&|out| decimal.write(out), &of);
        }
        Opaque::Date(date) => cast(&|out| date.date.write(out), "DATE"),
        Opaque::DateTime(moment) => cast(&|out| moment.write(out), "DATETIME(6)"),
        Opaque::Time(time) => cast(&|out| time.write(out), "TIME(6)"),
        Opaque::Binary(_, bytes) => {
            out.extend_from_slice(b"CAST(");
            literal(out, bytes, true);
            out.extend_from_slice(b" AS JSON)");
        }
    }
    Ok(())
}
