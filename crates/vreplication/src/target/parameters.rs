//! Rows of SQL literals as rows of parameters, for servers that take many rows with one statement: they spare themselves
//! reading the literals.
//!
//! Understands what the source side of this crate writes and means the same by it ([`crate::source`]); rows with any other
//! expression stay text.

use mysql::{client::BulkRows, types::code};
use vtsql::unescape;

/// How the values of a column travel. What was seen of it decides; a column without values yet is [`Kind::Null`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    /// Fits 63 bits.
    Small,
    /// Negative.
    Int,
    /// 64 bits.
    Uint,
    Decimal,
    Double,
    /// ASCII, which is the same with and without a character set.
    Ascii,
    Utf8,
    Binary,
}

impl Kind {
    /// What holds values of both; `None`: nothing does.
    fn join(self, other: Self) -> Option<Self> {
        use Kind::*;
        Some(match (self, other) {
            (a, b) if a == b => a,
            (Null, kind) | (kind, Null) => kind,
            (Small, Int) | (Int, Small) => Int,
            (Small, Uint) | (Uint, Small) => Uint,
            (Small | Int | Uint | Decimal, Small | Int | Uint | Decimal) => Decimal,
            (Ascii, kind @ (Utf8 | Binary)) | (kind @ (Utf8 | Binary), Ascii) => kind,
            _ => return None,
        })
    }

    fn code(self) -> (u8, bool) {
        match self {
            Self::Small | Self::Int => (code::LONGLONG, false),
            Self::Uint => (code::LONGLONG, true),
            Self::Decimal => (code::NEWDECIMAL, false),
            Self::Double => (code::DOUBLE, false),
            Self::Binary => (code::BLOB, false),
            Self::Null | Self::Ascii | Self::Utf8 => (code::VAR_STRING, false),
        }
    }
}

/// One literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Literal<'a> {
    kind: Kind,
    /// A number, or what is between the quotes of a string, escapes included.
    text: &'a [u8],
}

/// Takes a literal off the front; `None` for another expression.
fn literal<'a>(rest: &mut &'a [u8]) -> Option<Literal<'a>> {
    const CONVERT: &[u8] = b"convert_tz('";
    /// Sessions that apply streams are in UTC.
    const FROM_UTC: &[u8] = b", '+00:00', @@session.time_zone)";
    let all = *rest;
    match all {
        [b'N', b'U', b'L', b'L', tail @ ..] => {
            *rest = tail;
            Some(Literal { kind: Kind::Null, text: b"" })
        }
        [b'\'', tail @ ..] => {
            let text = string(tail, rest)?;
            Some(Literal { kind: if text.is_ascii() { Kind::Ascii } else { Kind::Utf8 }, text })
        }
        [b'_', tail @ ..] => {
            let quote = tail.iter().position(|byte| !byte.is_ascii_alphanumeric())?;
            let kind = match &tail[..quote] {
                b"binary" => Kind::Binary,
                b"utf8" | b"utf8mb3" | b"utf8mb4" => Kind::Utf8,
                _ => return None,
            };
            let text = string(tail[quote..].strip_prefix(b"'")?, rest)?;
            Some(Literal { kind, text })
        }
        _ if all.starts_with(CONVERT) => {
            let text = string(&all[CONVERT.len()..], rest)?;
            *rest = rest.strip_prefix(FROM_UTC)?;
            Some(Literal { kind: Kind::Ascii, text })
        }
        _ => {
            let end = all.iter().position(|byte| *byte == b',').unwrap_or(all.len());
            let (text, tail) = all.split_at(end);
            *rest = tail;
            Some(Literal { kind: number(text)?, text })
        }
    }
}

/// The inside of a string whose opening quote has been taken; `rest` becomes what is behind the closing one.
fn string<'a>(inside: &'a [u8], rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut at = 0;
    loop {
        at += inside[at..].iter().position(|byte| matches!(byte, b'\'' | b'\\'))?;
        if inside[at] == b'\'' {
            *rest = &inside[at + 1..];
            return Some(&inside[..at]);
        }
        at += 2;
        if at > inside.len() {
            return None;
        }
    }
}

fn number(text: &[u8]) -> Option<Kind> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if digits.is_empty() {
        return None;
    }
    let text = std::str::from_utf8(text).ok()?;
    if digits.iter().all(u8::is_ascii_digit) {
        return Some(match text.parse::<i64>() {
            Ok(0..) if !text.starts_with('-') => Kind::Small,
            Ok(_) => Kind::Int,
            Err(_) if text.parse::<u64>().is_ok() => Kind::Uint,
            Err(_) => Kind::Decimal,
        });
    }
    let is = |allowed: &[u8]| digits.iter().all(|byte| byte.is_ascii_digit() || allowed.contains(byte));
    if is(b".") {
        Some(Kind::Decimal)
    } else {
        // With an exponent alone: a decimal would be read as one.
        (is(b".e-") && digits.contains(&b'e') && text.parse::<f64>().is_ok()).then_some(Kind::Double)
    }
}

/// Why a row was not added.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// A column holds values of another kind, too; its kind was changed.
    OtherKind,
    /// It is not made of literals that are understood.
    Unknown,
}

/// Adds a row of literals between commas. `columns` holds the kinds of the rows before it.
fn add_row(rows: &mut BulkRows, columns: &mut [Kind], values: &[u8]) -> Result<(), Refused> {
    let mut rest = values;
    let mut changed = false;
    let count = columns.len();
    for (at, column) in columns.iter_mut().enumerate() {
        let literal = literal(&mut rest).ok_or(Refused::Unknown)?;
        if at + 1 < count {
            rest = rest.strip_prefix(b",").ok_or(Refused::Unknown)?;
        }
        let kind = column.join(literal.kind).ok_or(Refused::Unknown)?;
        changed |= kind.code() != column.code();
        *column = kind;
        if changed {
            continue;
        }
        // It was parsed when its kind was found.
        let text = || std::str::from_utf8(literal.text).map_err(|_| Refused::Unknown);
        match (literal.kind, kind) {
            (Kind::Null, _) => rows.put_null(),
            (Kind::Ascii | Kind::Utf8 | Kind::Binary, _) if literal.text.contains(&b'\\') => {
                rows.put_bytes(&unescape(literal.text, b'\''));
            }
            (_, Kind::Small | Kind::Int) => rows.put_i64(text()?.parse().map_err(|_| Refused::Unknown)?),
            (_, Kind::Uint) => {
                let number: u64 = text()?.parse().map_err(|_| Refused::Unknown)?;
                rows.put_i64(number.cast_signed());
            }
            (_, Kind::Double) => rows.put_f64(text()?.parse().map_err(|_| Refused::Unknown)?),
            (_, Kind::Decimal | Kind::Ascii | Kind::Utf8 | Kind::Binary | Kind::Null) => rows.put_bytes(literal.text),
        }
    }
    match (changed, rest) {
        (true, _) => Err(Refused::OtherKind),
        (false, []) => Ok(()),
        _ => Err(Refused::Unknown),
    }
}

/// The rows, each of literals between commas, as parameters; `None` when they are not all literals that are understood.
/// `columns`: the kinds that were seen of the table before, which are kept for the next time.
pub(super) fn parameters<'a>(columns: &mut [Kind], all: impl Iterator<Item = &'a [u8]> + Clone) -> Option<BulkRows> {
    'again: loop {
        let mut rows = BulkRows::new(columns.iter().map(|kind| kind.code()));
        for values in all.clone() {
            match add_row(&mut rows, columns, values) {
                Ok(()) => {}
                // Kinds grow only, so this ends.
                Err(Refused::OtherKind) => continue 'again,
                Err(Refused::Unknown) => {
                    columns.fill(Kind::Null);
                    return None;
                }
            }
        }
        return Some(rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types and rows, or `None`.
    fn of(columns: usize, rows: &[&str]) -> Option<BulkRows> {
        parameters(&mut vec![Kind::Null; columns], rows.iter().map(|row| row.as_bytes()))
    }

    #[test]
    fn kinds_are_found_from_all_rows() {
        let (int, uint, text) = ((code::LONGLONG, false), (code::LONGLONG, true), (code::VAR_STRING, false));
        let mut wanted = BulkRows::new([int, text].into_iter());
        wanted.put_null();
        wanted.put_bytes(b"a");
        wanted.put_i64(-5);
        wanted.put_bytes("\u{e9}'\n\\".as_bytes());
        assert_eq!(
            of(
                2,
                &["NULL,'a'", r"-5,_utf8mb4'\u{e9}\'\n\\'"]
                    .map(|s| s.replace("\\u{e9}", "\u{e9}"))
                    .each_ref()
                    .map(String::as_str)
            ),
            Some(wanted)
        );
        let mut wanted = BulkRows::new([uint].into_iter());
        wanted.put_i64(7);
        wanted.put_i64(-1);
        assert_eq!(of(1, &["7", "18446744073709551615"]), Some(wanted));
        let mut wanted = BulkRows::new([(code::NEWDECIMAL, false), (code::DOUBLE, false)].into_iter());
        for (decimal, double) in [("7", 1e-1), ("-18446744073709551616", -0.0), ("1.50", 1e300)] {
            wanted.put_bytes(decimal.as_bytes());
            wanted.put_f64(double);
        }
        assert_eq!(of(2, &["7,1e-1", "-18446744073709551616,-0e0", "1.50,1e300"]), Some(wanted));
        let mut wanted = BulkRows::new([(code::BLOB, false), text].into_iter());
        for (bytes, time) in [(&b"a\0"[..], "2026-01-02 03:04:05"), (b"", "0000-00-00 00:00:00")] {
            wanted.put_bytes(bytes);
            wanted.put_bytes(time.as_bytes());
        }
        let rows = [
            r"_binary'a\0',convert_tz('2026-01-02 03:04:05', '+00:00', @@session.time_zone)",
            "'','0000-00-00 00:00:00'",
        ];
        assert_eq!(of(2, &rows), Some(wanted));
    }

    #[test]
    fn other_expressions_are_not_literals() {
        for row in [
            "_latin1 0xe9",
            "_utf8mb4 0xc3a9",
            "_ucs2'a'",
            "json_array()",
            "now()",
            "1.5e",
            "--1",
            "-",
            "",
            "1,2",
            "'a",
            r"'a\'",
            "'a' 'b'",
            "0x61",
            "1 ",
            "NULLS",
            "convert_tz('a', 'b', 'c')",
            "e1",
        ] {
            assert_eq!(of(1, &[row]), None, "{row}");
        }
        assert_eq!(of(2, &["1"]), None);
        assert_eq!(of(1, &["1", "'1'"]), None, "a number and a string");
        assert_eq!(of(1, &["_binary'a'", "_utf8mb4'a'"]), None, "with a character set and without");
    }

    #[test]
    fn what_was_seen_is_kept() {
        let mut columns = [Kind::Null];
        let mut row = |text: &str| {
            let rows = parameters(&mut columns, std::iter::once(text.as_bytes()));
            rows.map(|_| columns[0])
        };
        assert_eq!(row("1"), Some(Kind::Small));
        assert_eq!(row("NULL"), Some(Kind::Small));
        assert_eq!(row("1.5"), Some(Kind::Decimal));
        assert_eq!(row("1"), Some(Kind::Decimal));
        assert_eq!(row("'x'"), None);
        assert_eq!(row("'x'"), Some(Kind::Ascii));
    }
}
