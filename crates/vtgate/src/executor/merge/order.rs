//! In which order mysqld sorts the values of a column, told from the column's type.
//!
//! Owns: [`Form`], how a type's values compare and what has to be asked for besides the value as clients see it,
//! and [`Value`], one value ready to be compared. Invariant: a type of which the order is not known here has no
//! form, so that mysqld is left to sort it.

use std::cmp::Ordering;

use bytes::Bytes;
use mysql::{constants::charset, types::flag};
use vterrors::{Code, Result, VtError};
use vtproto::query::{Field, Type};

/// The character set of columns that have none.
const BINARY: u32 = charset::BINARY as u32;

/// How values of a column compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::executor) enum Form {
    /// Digits with a sign and a point: integers and decimals.
    Number,
    Double,
    /// A FLOAT, of which clients see six digits only: compared as a double.
    Float,
    /// A TIMESTAMP, which the session's time zone may show twice: compared by its seconds.
    Timestamp,
    /// A TIME: with a sign, and hours of several lengths.
    Time,
    /// Byte by byte: binary strings, BIT, and dates as they are written.
    Bytes,
    /// Text: compared by the weights that its collation gives it.
    Text,
    /// ENUM and SET: compared by number and not by name.
    Member,
}

impl Form {
    /// The form of a column; `None`: only mysqld knows.
    pub fn of(field: &Field) -> Option<Self> {
        // First of all: the type of an ENUM in a `_bin` collation is said to be BINARY.
        if field.flags & u32::from(flag::ENUM | flag::SET) != 0 {
            // A value that was computed is sorted as text, whatever it is called.
            return (!field.org_name.is_empty()).then_some(Self::Member);
        }
        // INET6 and UUID of MariaDB: text to clients, sorted by something else. No text has this flag.
        let is_unsigned = field.flags & u32::from(flag::UNSIGNED) != 0;
        Some(match field.r#type() {
            Type::Varchar | Type::Char | Type::Varbinary | Type::Binary if is_unsigned && field.charset != BINARY => {
                return None;
            }
            Type::Int8 | Type::Int16 | Type::Int24 | Type::Int32 | Type::Int64 => Self::Number,
            Type::Uint8 | Type::Uint16 | Type::Uint24 | Type::Uint32 | Type::Uint64 => Self::Number,
            Type::Decimal | Type::Year => Self::Number,
            Type::Float64 => Self::Double,
            Type::Float32 => Self::Float,
            Type::Timestamp => Self::Timestamp,
            Type::Time => Self::Time,
            Type::Date | Type::Datetime | Type::Bit | Type::NullType => Self::Bytes,
            Type::Varchar | Type::Char | Type::Text | Type::Varbinary | Type::Binary | Type::Blob => {
                if field.charset == BINARY { Self::Bytes } else { Self::Text }
            }
            _ => return None,
        })
    }

    /// The columns that tell the order of `expr`, where it does not do so itself.
    pub fn asked(self, expr: &str) -> Vec<String> {
        match self {
            Self::Number | Self::Double | Self::Time | Self::Bytes => Vec::new(),
            Self::Float => vec![format!("({expr}) + 0e0")],
            Self::Timestamp => vec![format!("unix_timestamp({expr})")],
            Self::Member => vec![format!("cast({expr} as unsigned)")],
            Self::Text => {
                // In most collations blanks at the end do not count: the shorter one of two texts is compared as if it
                // went on with blanks. The second column is the weight of a blank there, and empty in the others.
                let with = |tail: &str| format!("concat(left({expr}, 0), '{tail}')");
                let pad = format!("if({} = {}, weight_string({}), '')", with("a"), with("a "), with(" "));
                vec![format!("weight_string({expr})"), pad]
            }
        }
    }

    /// A value, from its own column and those [`Form::asked`] for.
    ///
    /// # Errors
    /// What no column of the form holds.
    pub(super) fn value(self, own: Option<Bytes>, mut asked: impl Iterator<Item = Option<Bytes>>) -> Result<Value> {
        let Some(own) = own else { return Ok(Value::Null) };
        let mut more = || {
            let missing = || VtError::new(Code::ResourceExhausted, "the weights of a text in ORDER BY are too long");
            asked.next().flatten().ok_or_else(missing)
        };
        let bad = |bytes: &Bytes| {
            let text = format!("a value in ORDER BY is not of its type: {}", String::from_utf8_lossy(bytes));
            VtError::new(Code::Internal, text)
        };
        Ok(match self {
            Self::Number => Value::Number(own),
            Self::Timestamp | Self::Member => Value::Number(more()?),
            Self::Double => Value::Double(double(&own).ok_or_else(|| bad(&own))?),
            Self::Float => {
                let exact = more()?;
                Value::Double(double(&exact).ok_or_else(|| bad(&exact))?)
            }
            Self::Time => Value::Micros(microseconds(&own).ok_or_else(|| bad(&own))?),
            Self::Bytes => Value::Bytes(own),
            Self::Text => Value::Text { weights: more()?, pad: more()? },
        })
    }
}

/// A value to compare with others of the same column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Number(Bytes),
    Double(f64),
    Micros(i64),
    Bytes(Bytes),
    Text { weights: Bytes, pad: Bytes },
}

impl Value {
    /// In ascending order; NULL comes first.
    pub fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Null, Self::Null) => Ordering::Equal,
            (Self::Null, _) => Ordering::Less,
            (_, Self::Null) => Ordering::Greater,
            (Self::Number(a), Self::Number(b)) => compare_numbers(a, b),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b).unwrap_or(Ordering::Equal),
            (Self::Micros(a), Self::Micros(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::Text { weights: a, pad }, Self::Text { weights: b, .. }) => compare_padded(a, b, pad),
            // One column has one form.
            _ => Ordering::Equal,
        }
    }
}

/// The sign and the digits before and behind the point, without zeros that mean nothing.
fn digits(number: &[u8]) -> (bool, &[u8], &[u8]) {
    let (negative, number) = match number {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        all => (false, all),
    };
    let point = number.iter().position(|byte| *byte == b'.').unwrap_or(number.len());
    let (mut whole, mut fraction) = (&number[..point], number.get(point + 1..).unwrap_or_default());
    while let [b'0', rest @ ..] = whole {
        whole = rest;
    }
    while let [rest @ .., b'0'] = fraction {
        fraction = rest;
    }
    (negative && !(whole.is_empty() && fraction.is_empty()), whole, fraction)
}

fn compare_numbers(a: &[u8], b: &[u8]) -> Ordering {
    let ((a_negative, a_whole, a_fraction), (b_negative, b_whole, b_fraction)) = (digits(a), digits(b));
    let by_size = || {
        let whole = a_whole.len().cmp(&b_whole.len()).then_with(|| a_whole.cmp(b_whole));
        whole.then_with(|| a_fraction.cmp(b_fraction))
    };
    match (a_negative, b_negative) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => by_size(),
        (true, true) => by_size().reverse(),
    }
}

/// Weights of which the shorter ones go on with those of blanks; without any, the shorter come first.
fn compare_padded(a: &[u8], b: &[u8], pad: &[u8]) -> Ordering {
    let common = a.len().min(b.len());
    let start = a[..common].cmp(&b[..common]);
    if start != Ordering::Equal || pad.is_empty() {
        return start.then(a.len().cmp(&b.len()));
    }
    let blanks = pad.iter().cycle();
    if a.len() > b.len() {
        let rest = &a[common..];
        rest.iter().cmp(blanks.take(rest.len()))
    } else {
        let rest = &b[common..];
        blanks.take(rest.len()).cmp(rest.iter())
    }
}

fn double(text: &[u8]) -> Option<f64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// A TIME: `-838:59:59.000001`.
fn microseconds(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let (sign, text) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (clock, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut seconds = 0i64;
    for part in clock.split(':') {
        seconds = seconds.checked_mul(60)?.checked_add(part.parse().ok()?)?;
    }
    let fraction: i64 = format!("{fraction:0<6}").get(..6)?.parse().ok()?;
    Some(sign * (seconds.checked_mul(1_000_000)? + fraction))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(form: Form, ascending: &[&str]) {
        let value = |text: &&str| form.value(Some(Bytes::copy_from_slice(text.as_bytes())), std::iter::empty());
        let values: Vec<Value> = ascending.iter().map(|text| value(text).expect(text)).collect();
        for (i, a) in values.iter().enumerate() {
            for (j, b) in values.iter().enumerate() {
                assert_eq!(a.compare(b), i.cmp(&j), "{} and {}", ascending[i], ascending[j]);
            }
            assert_eq!(Value::Null.compare(a), Ordering::Less);
        }
    }

    #[test]
    fn values_compare_as_their_types_do() {
        sorted(Form::Number, &["-10", "-9.5", "-0.50", "-0.49", "0", "0.1", "0.11", "7", "10", "18446744073709551615"]);
        sorted(Form::Double, &["-1e300", "-2.5", "1e-9", "0.5", "3", "2e10"]);
        sorted(
            Form::Time,
            &["-838:59:59", "-100:00:00", "-00:00:01.5", "-00:00:01", "00:00:00", "99:00:00", "100:00:00"],
        );
        sorted(Form::Bytes, &["0000-00-00", "1969-12-31", "2019-10-01"]);
        for (a, b) in [("0", "-0.00"), ("007", "7.0"), ("+1", "1")] {
            assert_eq!(compare_numbers(a.as_bytes(), b.as_bytes()), Ordering::Equal);
        }
    }

    #[test]
    fn blanks_at_the_end_count_where_the_collation_says_so() {
        for (a, b, padded, plain) in [
            ("a", "a  ", Ordering::Equal, Ordering::Less),
            ("a", "a\t", Ordering::Greater, Ordering::Less),
            ("a b", "a", Ordering::Greater, Ordering::Greater),
            ("a \t", "a", Ordering::Less, Ordering::Greater),
            ("b", "a ", Ordering::Greater, Ordering::Greater),
        ] {
            assert_eq!(compare_padded(a.as_bytes(), b.as_bytes(), b" "), padded, "{a:?} {b:?}");
            assert_eq!(compare_padded(a.as_bytes(), b.as_bytes(), b""), plain, "{a:?} {b:?}");
        }
    }

    #[test]
    fn the_flags_of_a_column_tell_more_than_its_type() {
        let field = |of: Type, charset: u32, flags: u16| Field {
            r#type: of.into(),
            charset,
            flags: flags.into(),
            org_name: "c".into(),
            ..Field::default()
        };
        assert_eq!(Form::of(&field(Type::Binary, 45, flag::BINARY | flag::ENUM)), Some(Form::Member));
        assert_eq!(Form::of(&field(Type::Varbinary, 45, flag::BINARY)), Some(Form::Text));
        assert_eq!(Form::of(&field(Type::Varbinary, 63, flag::BINARY)), Some(Form::Bytes));
        assert_eq!(Form::of(&field(Type::Varbinary, 63, flag::BINARY | flag::UNSIGNED)), Some(Form::Bytes));
        assert_eq!(Form::of(&field(Type::Binary, 45, flag::BINARY | flag::UNSIGNED)), None);
        assert_eq!(Form::of(&field(Type::Json, 63, 0)), None);
        assert_eq!(Form::of(&Field { org_name: String::new(), ..field(Type::Enum, 45, flag::ENUM) }), None);
    }
}
