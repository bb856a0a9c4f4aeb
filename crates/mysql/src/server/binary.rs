//! Values in the binary protocol: parameters of an execute to bind variables, text rows to binary rows.
//!
//! Source: MySQL manual, "Binary Protocol Value". Ours are text on both ends: mysqld sends text rows, and bind
//! variables are text.

use bytes::Bytes;
use vtproto::query::{BindVariable, Row, Type};

use crate::packet::{Cursor, WireError, put_lenenc_bytes};
use crate::types::{self, code, flag};
use crate::wire;

/// A parameter's type as the client declared it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ParamType {
    pub code: u8,
    pub unsigned: bool,
}

impl ParamType {
    pub fn parse(cursor: &mut Cursor<'_>) -> Result<Self, WireError> {
        Ok(Self { code: cursor.u8()?, unsigned: cursor.u8()? & 0x80 != 0 })
    }
}

pub(super) fn null() -> BindVariable {
    BindVariable { r#type: Type::NullType.into(), ..BindVariable::default() }
}

/// A parameter sent in pieces ahead, or any other string.
pub(super) fn string(value: impl Into<Bytes>) -> BindVariable {
    BindVariable { r#type: Type::Varbinary.into(), value: value.into(), ..BindVariable::default() }
}

/// A number that reads back as the same DOUBLE where its text stands in a statement. mysqld takes digits without an
/// exponent for a DECIMAL, which has 65 of them and 30 behind the point: far from one the exponent is written. Near one it
/// is not, for some clients send every number as a DOUBLE, and LIMIT wants digits.
fn double(value: f64) -> BindVariable {
    let near_one = value == 0.0 || (1e-5..1e15).contains(&value.abs());
    let text = if near_one { value.to_string() } else { format!("{value:e}") };
    BindVariable { r#type: Type::Float64.into(), value: text.into(), ..BindVariable::default() }
}

/// Reads one value. Strings of every kind, decimals among them, become VARBINARY, as in Vitess: the statement they
/// go into quotes them.
pub(super) fn parse_param(of: ParamType, cursor: &mut Cursor<'_>) -> Result<BindVariable, WireError> {
    let flags = if of.unsigned { flag::UNSIGNED } else { 0 };
    let typed = |text: String| {
        let of = types::from_mysql(of.code, flags).ok_or(WireError::Unexpected)?;
        Ok(BindVariable { r#type: of.into(), value: text.into(), ..BindVariable::default() })
    };
    match of.code {
        code::NULL => Ok(null()),
        code::TINY if of.unsigned => typed(cursor.u8()?.to_string()),
        code::TINY => typed((cursor.u8()? as i8).to_string()),
        code::SHORT if of.unsigned => typed(cursor.u16()?.to_string()),
        code::SHORT => typed((cursor.u16()? as i16).to_string()),
        // Whatever the flag says, there is no negative year.
        code::YEAR => typed(cursor.u16()?.to_string()),
        code::LONG | code::INT24 if of.unsigned => typed(cursor.u32()?.to_string()),
        code::LONG | code::INT24 => typed((cursor.u32()? as i32).to_string()),
        code::LONGLONG if of.unsigned => typed(cursor.u64()?.to_string()),
        code::LONGLONG => typed((cursor.u64()? as i64).to_string()),
        // As in Vitess and in MySQL, a FLOAT is the DOUBLE of the same value.
        code::FLOAT => Ok(double(f32::from_bits(cursor.u32()?).into())),
        code::DOUBLE => Ok(double(f64::from_bits(cursor.u64()?))),
        code::DATE | code::NEWDATE | code::DATETIME | code::TIMESTAMP => typed(parse_datetime(of.code, cursor)?),
        code::TIME => typed(parse_time(cursor)?),
        _ if types::from_mysql(of.code, 0).is_some() => Ok(string(cursor.lenenc_bytes()?.to_vec())),
        _ => Err(WireError::Unexpected),
    }
}

fn parse_datetime(type_code: u8, cursor: &mut Cursor<'_>) -> Result<String, WireError> {
    let len = cursor.u8()?;
    if !matches!(len, 0 | 4 | 7 | 11) {
        return Err(WireError::BadLength);
    }
    let (year, month, day) = if len >= 4 { (cursor.u16()?, cursor.u8()?, cursor.u8()?) } else { (0, 0, 0) };
    let (hour, minute, second) = if len >= 7 { (cursor.u8()?, cursor.u8()?, cursor.u8()?) } else { (0, 0, 0) };
    let micros = if len >= 11 { cursor.u32()? } else { 0 };
    let date = format!("{year:04}-{month:02}-{day:02}");
    Ok(match (type_code, micros) {
        (code::DATE | code::NEWDATE, _) => date,
        (_, 0) => format!("{date} {hour:02}:{minute:02}:{second:02}"),
        (_, micros) => format!("{date} {hour:02}:{minute:02}:{second:02}.{micros:06}"),
    })
}

fn parse_time(cursor: &mut Cursor<'_>) -> Result<String, WireError> {
    let len = cursor.u8()?;
    if !matches!(len, 0 | 8 | 12) {
        return Err(WireError::BadLength);
    }
    if len == 0 {
        return Ok("00:00:00".into());
    }
    let sign = if cursor.u8()? == 0 { "" } else { "-" };
    let hours = u64::from(cursor.u32()?) * 24 + u64::from(cursor.u8()?);
    let (minute, second) = (cursor.u8()?, cursor.u8()?);
    let micros = if len == 12 { cursor.u32()? } else { 0 };
    let fraction = if micros == 0 { String::new() } else { format!(".{micros:06}") };
    Ok(format!("{sign}{hours:02}:{minute:02}:{second:02}{fraction}"))
}

/// Writes a text row in binary form.
///
/// Errors: a cell whose text is no value of its column's type.
pub(super) fn put_row(out: &mut Vec<u8>, columns: &[Type], row: &Row) -> Result<(), WireError> {
    if row.lengths.len() != columns.len() {
        return Err(WireError::BadLength);
    }
    put_cells(out, columns, wire::cells(row).map(Ok))
}

/// The same of a text row that came as a packet.
pub(super) fn put_raw_row(out: &mut Vec<u8>, columns: &[Type], row: &[u8]) -> Result<(), WireError> {
    let mut cursor = Cursor::new(row);
    put_cells(out, columns, std::iter::from_fn(|| (!cursor.is_empty()).then(|| cursor.cell())))?;
    if cursor.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
}

fn put_cells<'a>(
    out: &mut Vec<u8>,
    columns: &[Type],
    cells: impl Iterator<Item = Result<Option<&'a [u8]>, WireError>>,
) -> Result<(), WireError> {
    out.push(0);
    // Two bits of the bitmap are unused, by protocol.
    let bitmap = out.len();
    out.resize(bitmap + (columns.len() + 9) / 8, 0);
    let mut count = 0;
    // In this order: a cell too many is left in the iterator.
    for (of, cell) in columns.iter().zip(cells) {
        match cell? {
            Some(cell) => put_value(out, *of, cell)?,
            None => out[bitmap + (count + 2) / 8] |= 1 << ((count + 2) % 8),
        }
        count += 1;
    }
    if count == columns.len() { Ok(()) } else { Err(WireError::BadLength) }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Result<T, WireError> {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(WireError::Unexpected)
}

fn put_value(out: &mut Vec<u8>, of: Type, text: &[u8]) -> Result<(), WireError> {
    match of {
        Type::Int8 => out.extend_from_slice(&number::<i8>(text)?.to_le_bytes()),
        Type::Uint8 => out.extend_from_slice(&number::<u8>(text)?.to_le_bytes()),
        Type::Int16 => out.extend_from_slice(&number::<i16>(text)?.to_le_bytes()),
        Type::Uint16 | Type::Year => out.extend_from_slice(&number::<u16>(text)?.to_le_bytes()),
        Type::Int24 | Type::Int32 => out.extend_from_slice(&number::<i32>(text)?.to_le_bytes()),
        Type::Uint24 | Type::Uint32 => out.extend_from_slice(&number::<u32>(text)?.to_le_bytes()),
        Type::Int64 => out.extend_from_slice(&number::<i64>(text)?.to_le_bytes()),
        Type::Uint64 => out.extend_from_slice(&number::<u64>(text)?.to_le_bytes()),
        Type::Float32 => out.extend_from_slice(&number::<f32>(text)?.to_le_bytes()),
        Type::Float64 => out.extend_from_slice(&number::<f64>(text)?.to_le_bytes()),
        Type::Date | Type::Datetime | Type::Timestamp => put_datetime(out, text)?,
        Type::Time => put_time(out, text)?,
        Type::NullType
        | Type::Decimal
        | Type::Text
        | Type::Blob
        | Type::Varchar
        | Type::Varbinary
        | Type::Char
        | Type::Binary
        | Type::Bit
        | Type::Enum
        | Type::Set
        | Type::Tuple
        | Type::Geometry
        | Type::Json
        | Type::Expression => put_lenenc_bytes(out, text),
    }
    Ok(())
}

/// `HH:MM:SS[.ffffff]`; hours may have more digits.
fn clock(text: &[u8]) -> Result<(u32, u8, u8, u32), WireError> {
    let (whole, fraction) = match text.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &[][..]),
    };
    let mut parts = whole.split(|&byte| byte == b':');
    let mut part = || parts.next().ok_or(WireError::Unexpected);
    let (hours, minutes, seconds) = (number(part()?)?, number(part()?)?, number(part()?)?);
    if fraction.len() > 6 || !fraction.iter().all(u8::is_ascii_digit) {
        return Err(WireError::Unexpected);
    }
    let digits = fraction.iter().fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    Ok((hours, minutes, seconds, digits * 10_u32.pow(6 - fraction.len() as u32)))
}

fn put_datetime(out: &mut Vec<u8>, text: &[u8]) -> Result<(), WireError> {
    let (date, time) = match text.iter().position(|&byte| byte == b' ') {
        Some(blank) => (&text[..blank], Some(&text[blank + 1..])),
        None => (text, None),
    };
    let mut parts = date.split(|&byte| byte == b'-');
    let mut part = || parts.next().ok_or(WireError::Unexpected);
    let (year, month, day): (u16, u8, u8) = (number(part()?)?, number(part()?)?, number(part()?)?);
    let (hour, minute, second, micros) = time.map_or(Ok((0, 0, 0, 0)), clock)?;
    let hour = u8::try_from(hour).map_err(|_| WireError::Unexpected)?;
    let date = [year.to_le_bytes()[0], year.to_le_bytes()[1], month, day];
    // Each part that is zero at the end is left out.
    if micros != 0 {
        out.push(11);
        out.extend_from_slice(&date);
        out.extend_from_slice(&[hour, minute, second]);
        out.extend_from_slice(&micros.to_le_bytes());
    } else if (hour, minute, second) != (0, 0, 0) {
        out.push(7);
        out.extend_from_slice(&date);
        out.extend_from_slice(&[hour, minute, second]);
    } else if date != [0; 4] {
        out.push(4);
        out.extend_from_slice(&date);
    } else {
        out.push(0);
    }
    Ok(())
}

fn put_time(out: &mut Vec<u8>, text: &[u8]) -> Result<(), WireError> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (1, rest),
        None => (0, text),
    };
    let (hours, minute, second, micros) = clock(text)?;
    if (hours, minute, second, micros) == (0, 0, 0, 0) {
        out.push(0);
        return Ok(());
    }
    out.push(if micros == 0 { 8 } else { 12 });
    out.push(negative);
    out.extend_from_slice(&(hours / 24).to_le_bytes());
    out.extend_from_slice(&[(hours % 24) as u8, minute, second]);
    if micros != 0 {
        out.extend_from_slice(&micros.to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(cells: &[Option<&str>]) -> Row {
        Row {
            lengths: cells.iter().map(|cell| cell.map_or(-1, |c| c.len() as i64)).collect(),
            values: cells.iter().flatten().flat_map(|cell| cell.bytes()).collect(),
        }
    }

    fn encoded(of: Type, text: &str) -> Result<Vec<u8>, WireError> {
        let mut out = Vec::new();
        put_value(&mut out, of, text.as_bytes()).map(|()| out)
    }

    #[test]
    fn a_row_as_the_manual_shows_it() {
        let mut out = Vec::new();
        let columns = [Type::Varchar, Type::Int8, Type::Int32];
        put_row(&mut out, &columns, &row(&[Some("foobar"), None, Some("-2")])).expect("a row");
        assert_eq!(out, b"\x00\x08\x06foobar\xfe\xff\xff\xff");
        // The seventh column is the first in the bitmap's second byte.
        let mut out = Vec::new();
        put_row(&mut out, &[Type::Int8; 7], &row(&[None; 7])).expect("a row");
        assert_eq!(out, [0, 0b1111_1100, 1]);
    }

    #[test]
    fn dates_and_times() {
        assert_eq!(
            encoded(Type::Datetime, "2010-10-17 19:27:30.000001"),
            Ok(vec![11, 0xda, 7, 10, 17, 19, 27, 30, 1, 0, 0, 0])
        );
        assert_eq!(encoded(Type::Timestamp, "2010-10-17 19:27:30"), Ok(vec![7, 0xda, 7, 10, 17, 19, 27, 30]));
        assert_eq!(encoded(Type::Date, "2010-10-17"), Ok(vec![4, 0xda, 7, 10, 17]));
        assert_eq!(encoded(Type::Datetime, "2010-10-17 00:00:00.000"), Ok(vec![4, 0xda, 7, 10, 17]));
        assert_eq!(encoded(Type::Date, "0000-00-00"), Ok(vec![0]));
        assert_eq!(encoded(Type::Time, "-838:59:59.5"), Ok(vec![12, 1, 34, 0, 0, 0, 22, 59, 59, 0x20, 0xa1, 7, 0]));
        assert_eq!(encoded(Type::Time, "19:27:30"), Ok(vec![8, 0, 0, 0, 0, 0, 19, 27, 30]));
        assert_eq!(encoded(Type::Time, "00:00:00"), Ok(vec![0]));
        for (of, text) in [(Type::Date, "2010-10"), (Type::Time, "1:2"), (Type::Datetime, "x"), (Type::Int8, "200")] {
            assert!(encoded(of, text).is_err(), "{text}");
        }
    }

    #[test]
    fn parameters() {
        let read = |code, unsigned, bytes: &[u8]| {
            let value = parse_param(ParamType { code, unsigned }, &mut Cursor::new(bytes))?;
            Ok::<_, WireError>((value.r#type(), String::from_utf8_lossy(&value.value).into_owned()))
        };
        assert_eq!(read(code::TINY, false, &[0xff]), Ok((Type::Int8, "-1".into())));
        assert_eq!(read(code::TINY, true, &[0xff]), Ok((Type::Uint8, "255".into())));
        assert_eq!(read(code::LONGLONG, true, &[0xff; 8]), Ok((Type::Uint64, u64::MAX.to_string())));
        assert_eq!(read(code::DOUBLE, false, &0.1_f64.to_le_bytes()), Ok((Type::Float64, "0.1".into())));
        let float = |value: f32| read(code::FLOAT, false, &value.to_le_bytes());
        assert_eq!(float(1.5), Ok((Type::Float64, "1.5".into())));
        assert_eq!(float(0.1), Ok((Type::Float64, "0.10000000149011612".into())), "what a FLOAT column holds of it");
        let double = |value: f64| read(code::DOUBLE, false, &value.to_le_bytes()).map(|(_, text)| text);
        for (value, text) in [
            (10.0, "10"),
            (-0.00001, "-0.00001"),
            (1e14, "100000000000000"),
            (1e15, "1e15"),
            (-1e100, "-1e100"),
            (1e-100, "1e-100"),
            (f64::MAX, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
        ] {
            assert_eq!(double(value), Ok(text.into()));
        }
        assert_eq!(read(code::VAR_STRING, false, b"\x02hi"), Ok((Type::Varbinary, "hi".into())));
        assert_eq!(read(code::NEWDECIMAL, false, b"\x031.5"), Ok((Type::Varbinary, "1.5".into())));
        assert_eq!(read(code::DATE, false, &[4, 0xda, 7, 10, 17]), Ok((Type::Date, "2010-10-17".into())));
        assert_eq!(read(code::DATETIME, false, &[0]), Ok((Type::Datetime, "0000-00-00 00:00:00".into())));
        assert_eq!(read(code::TIME, false, &[8, 1, 34, 0, 0, 0, 22, 59, 59]), Ok((Type::Time, "-838:59:59".into())));
        assert_eq!(read(code::TIME, false, &[3]), Err(WireError::BadLength));
        assert_eq!(read(200, false, b"\x00"), Err(WireError::Unexpected));
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same_text(
            number: i64, micros in 0..1_000_000u32, hours in 0..839u32, second in 0..60u8,
        ) {
            let time = format!("-{hours:02}:07:{second:02}.{micros:06}");
            for (of, text) in [(Type::Int64, number.to_string()), (Type::Time, time)] {
                let (code, _) = types::to_mysql(of);
                let bytes = encoded(of, &text).map_err(|e| TestCaseError::fail(e.to_string()))?;
                let back = parse_param(ParamType { code, unsigned: false }, &mut Cursor::new(&bytes));
                let back = back.map_err(|e| TestCaseError::fail(e.to_string()))?;
                let expected = if micros == 0 && of == Type::Time { text.replace(".000000", "") } else { text };
                prop_assert_eq!(String::from_utf8_lossy(&back.value), expected);
            }
        }

        /// Digits that fit into a DECIMAL, or a literal that mysqld takes for a DOUBLE.
        #[test]
        fn a_double_is_a_literal_of_the_same_value(
            value in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO,
        ) {
            let bytes = value.to_le_bytes();
            let read = parse_param(ParamType { code: code::DOUBLE, unsigned: false }, &mut Cursor::new(&bytes));
            let read = read.map_err(|e| TestCaseError::fail(e.to_string()))?;
            let text = String::from_utf8_lossy(&read.value).into_owned();
            prop_assert_eq!(text.parse::<f64>().ok(), Some(value), "{}", text);
            let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
            let fits = whole.trim_start_matches('-').len() <= 35 && fraction.len() <= 30;
            prop_assert!(text.contains('e') || fits, "{}", text);
            prop_assert_eq!(encoded(Type::Float64, &text), Ok(bytes.to_vec()));
        }

        #[test]
        fn random_bytes_never_panic(code: u8, unsigned: bool, bytes: Vec<u8>, number in 0..12_000i32) {
            let _ = parse_param(ParamType { code, unsigned }, &mut Cursor::new(&bytes));
            if let Ok(of) = Type::try_from(number) {
                let _ = put_value(&mut Vec::new(), of, &bytes);
            }
            let _ = put_value(&mut Vec::new(), Type::Datetime, &bytes);
            let _ = put_value(&mut Vec::new(), Type::Time, &bytes);
        }
    }
}
