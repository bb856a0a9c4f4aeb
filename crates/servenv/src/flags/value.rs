//! The values of flags as Go's `flag` and `time` packages read and print them.
//!
//! Owns: [`Value`], its parsing and printing. Invariant: what [`Value::print`] writes,
//! [`Value::parse`] reads back as the same value.

use std::time::Duration;

/// What a flag holds. Durations are signed nanoseconds, as in Go: a negative one parses.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Bool(bool),
    Str(String),
    Int(i64),
    Uint(u64),
    Float(f64),
    Duration(i64),
    /// Comma separated; the last occurrence of the flag wins.
    List(Vec<String>),
    /// One entry per occurrence of the flag.
    Multi(Vec<String>),
}

/// The two ways in which Go refuses a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueError {
    Syntax,
    Range,
}

impl ValueError {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Syntax => "parse error",
            Self::Range => "value out of range",
        }
    }
}

impl Value {
    /// The word Go's usage text puts after the flag; a boolean has none.
    pub(super) fn type_word(&self) -> &'static str {
        match self {
            Self::Bool(_) => "",
            Self::Str(_) => "string",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Float(_) => "float",
            Self::Duration(_) => "duration",
            Self::List(_) | Self::Multi(_) => "value",
        }
    }

    /// A new value of the same kind. `self` is the value so far, which [`Value::Multi`] extends.
    pub(super) fn parse(&self, text: &str) -> Result<Self, ValueError> {
        Ok(match self {
            Self::Bool(_) => Self::Bool(parse_bool(text).ok_or(ValueError::Syntax)?),
            Self::Str(_) => Self::Str(text.to_owned()),
            Self::Int(_) => Self::Int(parse_int(text)?),
            Self::Uint(_) => Self::Uint(parse_uint(text)?),
            Self::Float(_) => Self::Float(text.parse().map_err(|_| ValueError::Syntax)?),
            Self::Duration(_) => Self::Duration(parse_duration(text)?),
            Self::List(_) => Self::List(split_list(text)),
            Self::Multi(before) => Self::Multi(before.iter().cloned().chain([text.to_owned()]).collect()),
        })
    }

    /// Whether this is the zero value, which a usage text does not mention as a default.
    pub(super) fn is_zero(&self) -> bool {
        match self {
            Self::Bool(b) => !b,
            Self::Str(s) => s.is_empty(),
            Self::Int(n) | Self::Duration(n) => *n == 0,
            Self::Uint(n) => *n == 0,
            Self::Float(f) => *f == 0.0,
            Self::List(l) | Self::Multi(l) => l.is_empty(),
        }
    }

    /// The value as a flag argument.
    pub(super) fn print(&self) -> String {
        match self {
            Self::Bool(b) => b.to_string(),
            Self::Str(s) => s.clone(),
            Self::Int(n) => n.to_string(),
            Self::Uint(n) => n.to_string(),
            Self::Float(f) => f.to_string(),
            Self::Duration(n) => print_duration(*n),
            Self::List(l) | Self::Multi(l) => l.join(","),
        }
    }
}

/// `a,b,c`; nothing between two commas is kept as an empty entry, an empty text is no entry.
pub(super) fn split_list(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::to_owned).collect() }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn parse_int(text: &str) -> Result<i64, ValueError> {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let magnitude = i128::from(parse_uint(digits)?);
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| ValueError::Range)
}

/// Digits with the prefixes of Go literals: `0x`, `0o`, `0b`, and a leading `0` for octal.
fn parse_uint(text: &str) -> Result<u64, ValueError> {
    let lower = text.to_ascii_lowercase();
    let (digits, radix) = match lower.as_bytes() {
        [b'0', b'x', ..] => (&lower[2..], 16),
        [b'0', b'o', ..] => (&lower[2..], 8),
        [b'0', b'b', ..] => (&lower[2..], 2),
        [b'0', _, ..] => (&lower[1..], 8),
        _ => (&lower[..], 10),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return Err(ValueError::Syntax);
    }
    u64::from_str_radix(digits, radix).map_err(|_| ValueError::Range)
}

/// Nanoseconds of a Go duration: `1h30m`, `250ms`, `-1.5s`; `0` needs no unit.
pub(super) fn parse_duration(text: &str) -> Result<i64, ValueError> {
    let (negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(ValueError::Syntax);
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(ValueError::Syntax)?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(ValueError::Syntax),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(ValueError::Syntax);
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| ValueError::Range)? };
        total += whole.checked_mul(unit).ok_or(ValueError::Range)?;
        // Digits beyond a nanosecond of an hour carry nothing.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let digits: i128 = fraction.parse().map_err(|_| ValueError::Syntax)?;
            total += digits * unit / 10i128.pow(fraction.len() as u32);
        }
        if total > i128::from(i64::MAX) + 1 {
            return Err(ValueError::Range);
        }
        rest = tail;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| ValueError::Range)
}

/// A duration as Go prints it: `1h30m0s`, `250ms`, `0s`.
pub(super) fn print_duration(nanos: i64) -> String {
    if nanos == 0 {
        return "0s".into();
    }
    let sign = if nanos < 0 { "-" } else { "" };
    let total = nanos.unsigned_abs();
    let fraction = |value: u64, unit: u64, name: &str| {
        let (whole, rest) = (value / unit, value % unit);
        if rest == 0 {
            return format!("{whole}{name}");
        }
        let digits = format!("{rest:0width$}", width = unit.ilog10() as usize);
        format!("{whole}.{}{name}", digits.trim_end_matches('0'))
    };
    let text = match total {
        0..1_000 => format!("{total}ns"),
        1_000..1_000_000 => fraction(total, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(total, 1_000_000, "ms"),
        _ => {
            let (minutes, rest) = (total / 60_000_000_000, total % 60_000_000_000);
            let seconds = fraction(rest, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, m) => format!("{m}m{seconds}"),
                (h, m) => format!("{h}h{m}m{seconds}"),
            }
        }
    };
    format!("{sign}{text}")
}

/// Reads a Go duration such as `1m30s`. A negative one is [`Duration::ZERO`]: every timeout of ours
/// treats both as "none".
///
/// # Errors
/// The text is no duration or beyond 292 years.
pub fn go_duration(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).map(from_nanos).map_err(ValueError::text)
}

/// Prints a duration as Go does: `1m30s`, `1.5s`, `0s`.
pub fn print_go_duration(duration: Duration) -> String {
    print_duration(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}

pub(super) fn from_nanos(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print_as_in_go() {
        for (text, nanos, printed) in [
            ("0", 0, "0s"),
            ("250ms", 250_000_000, "250ms"),
            ("1h30m", 5_400_000_000_000, "1h30m0s"),
            ("1m30.5s", 90_500_000_000, "1m30.5s"),
            ("1.5s", 1_500_000_000, "1.5s"),
            ("-2s", -2_000_000_000, "-2s"),
            ("100us", 100_000, "100µs"),
            ("1500ns", 1_500, "1.5µs"),
            ("2562047h47m16.854775807s", i64::MAX, "2562047h47m16.854775807s"),
        ] {
            assert_eq!(parse_duration(text), Ok(nanos), "{text}");
            assert_eq!(print_duration(nanos), printed, "{text}");
            assert_eq!(parse_duration(printed), Ok(nanos), "{printed}");
        }
        for bad in ["", "5", "s", "1x", ".s", "1.2.3s", "--1s"] {
            assert_eq!(parse_duration(bad), Err(ValueError::Syntax), "{bad}");
        }
        assert_eq!(parse_duration("2562048h"), Err(ValueError::Range));
    }

    #[test]
    fn integers_take_the_prefixes_of_go() {
        assert_eq!(parse_int("0x1F"), Ok(31));
        assert_eq!(parse_int("-0b11"), Ok(-3));
        assert_eq!(parse_int("017"), Ok(15));
        assert_eq!(parse_int("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_int("9223372036854775808"), Err(ValueError::Range));
        assert_eq!(parse_int("1e3"), Err(ValueError::Syntax));
        assert_eq!(parse_int("089"), Err(ValueError::Syntax));
        assert_eq!(parse_int(""), Err(ValueError::Syntax));
    }
}
