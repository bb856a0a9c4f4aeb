//! Values as SQL literals that mean the same on every connection.
//!
//! Text is written so that neither the character set of the reader's connection nor its time zone matters: what is not
//! ASCII carries an introducer, TIMESTAMPs are converted from UTC. Needs a reader without NO_BACKSLASH_ESCAPES and
//! without ANSI_QUOTES, as Vitess does everywhere.

use mysql::binlog::{JsonError, Value};
use vtsql::quote_string;

/// How strings of a column are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    /// Bytes without a character set.
    Binary,
    /// UTF-8 of at most three or four bytes a character, by its name.
    Utf8(Vec<u8>),
    /// A character set in which ASCII bytes mean themselves.
    Ascii(Vec<u8>),
    /// Any other.
    Wide(Vec<u8>),
    /// MariaDB's UUID, in the order in which it stores it.
    Uuid,
    /// Types that take their bytes from binary strings alone: MariaDB's INET4 and INET6, of 4 and 16 bytes, and MySQL's
    /// VECTOR.
    Raw(usize),
}

impl Text {
    /// By the type and the name of the character set; no character set is binary.
    pub fn of_column(data_type: &str, charset: Option<&str>) -> Self {
        match data_type {
            "uuid" => Self::Uuid,
            "inet4" => Self::Raw(4),
            "inet6" => Self::Raw(16),
            "vector" => Self::Raw(0),
            _ => Self::new(charset),
        }
    }

    fn new(charset: Option<&str>) -> Self {
        let Some(charset) = charset else { return Self::Binary };
        let introducer = format!("_{charset}").into_bytes();
        match charset {
            "binary" => Self::Binary,
            "utf8" | "utf8mb3" | "utf8mb4" => Self::Utf8(introducer),
            // ASCII is not a part of them, or a byte of ASCII may be half of a character.
            "ucs2" | "utf16" | "utf16le" | "utf32" | "swe7" | "sjis" | "cp932" | "big5" | "gbk" | "gb18030" => {
                Self::Wide(introducer)
            }
            _ => Self::Ascii(introducer),
        }
    }
}

/// How literals are written for one reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Literals {
    /// The reader's connection takes statements in a character set in which a quote may be half of a character: nothing
    /// but ASCII may be sent.
    pub only_ascii: bool,
}

/// Appends a hexadecimal string, which is not empty.
fn put_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2 + 3);
    out.extend_from_slice(b"0x");
    for byte in bytes {
        out.extend_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
}

impl Literals {
    /// For a reader whose character_set_client has this collation id.
    pub fn for_client(collation: i32) -> Self {
        // latin1, latin2, ascii, utf8mb3, utf8mb4, binary: no byte of ASCII is ever part of another character.
        let safe = matches!(collation,
            0 | 5 | 8 | 9 | 11 | 15 | 31 | 33 | 45..=49 | 63 | 65 | 76 | 83 | 94 | 192..=215 | 223..=247 | 255..=323);
        Self { only_ascii: !safe }
    }

    pub fn put_string(self, out: &mut Vec<u8>, text: &Text, bytes: &[u8]) {
        match text {
            Text::Uuid => return put_uuid(out, bytes),
            Text::Raw(len) => {
                out.extend_from_slice(b"_binary");
                return put_hex(out.also(b' '), &zero_padded(bytes, *len));
            }
            _ => {}
        }
        if bytes.is_empty() {
            out.extend_from_slice(b"''");
            return;
        }
        match text {
            Text::Binary | Text::Utf8(_) | Text::Ascii(_) if bytes.is_ascii() => quote_string(bytes, out),
            Text::Binary => {
                out.extend_from_slice(b"_binary");
                if self.only_ascii { put_hex(out.also(b' '), bytes) } else { quote_string(bytes, out) }
            }
            Text::Utf8(introducer) => {
                out.extend_from_slice(introducer);
                if self.only_ascii { put_hex(out.also(b' '), bytes) } else { quote_string(bytes, out) }
            }
            Text::Uuid | Text::Raw(_) => {}
            Text::Ascii(introducer) | Text::Wide(introducer) => {
                out.extend_from_slice(introducer);
                put_hex(out.also(b' '), bytes);
            }
        }
    }

    /// Appends a value of a column. `compared`: for a WHERE clause, where some types need another form.
    pub fn put(self, out: &mut Vec<u8>, text: &Text, value: &Value<'_>, compared: bool) -> Result<(), JsonError> {
        match value {
            Value::Null => out.extend_from_slice(b"NULL"),
            Value::Int(number) => put_int(out, *number),
            Value::Uint(number) | Value::Bit(number) | Value::Set(number) => put_uint(out, *number),
            Value::Enum(index) => put_uint(out, u64::from(*index)),
            Value::Year(year) => put_uint(out, u64::from(*year)),
            // As the double that it is: a shorter text would not compare equal.
            Value::Float(number) => put_double(out, f64::from(*number)),
            Value::Double(number) => put_double(out, *number),
            Value::Decimal(decimal) => decimal.write(out),
            Value::Date(date) => put_in_quotes(out, |out| date.write(out)),
            Value::Time(time) => put_in_quotes(out, |out| time.write(out)),
            Value::DateTime(moment) => put_in_quotes(out, |out| moment.write(out)),
            Value::Timestamp(moment) if moment.is_zero() => put_in_quotes(out, |out| moment.write(out)),
            Value::Timestamp(moment) => {
                out.extend_from_slice(b"convert_tz('");
                moment.write(out);
                out.extend_from_slice(b"', '+00:00', @@session.time_zone)");
            }
            Value::Bytes(bytes) => self.put_string(out, text, bytes),
            Value::Binary { bytes, len } if compared && bytes.len() < *len => {
                self.put_string(out, &Text::Binary, &zero_padded(bytes, *len));
            }
            Value::Binary { bytes, .. } | Value::Geometry(bytes) => self.put_string(out, &Text::Binary, bytes),
            Value::Json(json) => {
                let utf8 = Text::Utf8(b"_utf8mb4".to_vec());
                if json.is_plain()? {
                    let mut document = Vec::new();
                    json.write(&mut document)?;
                    if compared {
                        out.extend_from_slice(b"CAST(");
                    }
                    // ASCII too: a connection in binary has no JSON strings.
                    out.extend_from_slice(b"_utf8mb4");
                    if self.only_ascii && !document.is_ascii() {
                        put_hex(out.also(b' '), &document);
                    } else {
                        quote_string(&document, out);
                    }
                    if compared {
                        out.extend_from_slice(b" AS JSON)");
                    }
                } else {
                    json.write_expression(out, &mut |out, bytes, binary| {
                        if binary {
                            out.extend_from_slice(b"_binary");
                            if bytes.is_empty() { out.extend_from_slice(b"''") } else { put_hex(out.also(b' '), bytes) }
                        } else {
                            self.put_string(out, &utf8, bytes);
                        }
                    })?;
                }
            }
        }
        Ok(())
    }
}

/// Trailing zero bytes are not stored.
fn zero_padded(bytes: &[u8], len: usize) -> Vec<u8> {
    let mut padded = bytes.to_vec();
    padded.resize(len.max(bytes.len()), 0);
    padded
}

/// Appends a UUID as text. Those with a time in them (versions 1 to 5) are stored last part first, so that they sort by time.
fn put_uuid(out: &mut Vec<u8>, bytes: &[u8]) {
    let stored = zero_padded(bytes, 16);
    let turned = stored[6] & 0x80 != 0 && (1..0x60).contains(&stored[8]);
    let parts: [std::ops::Range<usize>; 5] =
        if turned { [12..16, 10..12, 8..10, 6..8, 0..6] } else { [0..4, 4..6, 6..8, 8..10, 10..16] };
    out.push(b'\'');
    for (index, part) in parts.into_iter().enumerate() {
        if index > 0 {
            out.push(b'-');
        }
        let hex: String = stored[part].iter().map(|byte| format!("{byte:02x}")).collect();
        out.extend_from_slice(hex.as_bytes());
    }
    out.push(b'\'');
}

/// Appends a byte in the middle of an expression.
trait Also {
    fn also(&mut self, byte: u8) -> &mut Self;
}

impl Also for Vec<u8> {
    fn also(&mut self, byte: u8) -> &mut Self {
        self.push(byte);
        self
    }
}

/// Appends what `write` appends, which needs no escapes, in quotes.
fn put_in_quotes(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(b'\'');
    write(out);
    out.push(b'\'');
}

fn put_uint(out: &mut Vec<u8>, mut number: u64) {
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
}

fn put_int(out: &mut Vec<u8>, number: i64) {
    if number < 0 {
        out.push(b'-');
    }
    put_uint(out, number.unsigned_abs());
}

/// With an exponent, so that it is a double for the server too: it would read -0 as an integer.
fn put_double(out: &mut Vec<u8>, number: f64) {
    out.extend_from_slice(format!("{number:e}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(text: &Text, bytes: &[u8], only_ascii: bool) -> String {
        let mut out = Vec::new();
        Literals { only_ascii }.put_string(&mut out, text, bytes);
        String::from_utf8(out).expect("UTF-8 in these cases")
    }

    #[test]
    fn strings_mean_the_same_on_every_connection() {
        let of = |name| Text::new(Some(name));
        assert_eq!(put(&of("latin1"), b"it's", false), r"'it\'s'");
        assert_eq!(put(&of("latin1"), b"\xe9", false), "_latin1 0xe9");
        assert_eq!(put(&of("utf8mb4"), "é".as_bytes(), false), "_utf8mb4'é'");
        assert_eq!(put(&of("utf8mb4"), "é".as_bytes(), true), "_utf8mb4 0xc3a9");
        assert_eq!(put(&of("ucs2"), b"\0a", false), "_ucs2 0x0061");
        assert_eq!(put(&Text::new(None), b"a\0\x1a", false), r"'a\0\Z'");
        assert_eq!(put(&of("ucs2"), b"", false), "''");
    }

    #[test]
    fn doubles_stay_doubles() {
        for (number, text) in [(-0.0, "-0e0"), (1.0, "1e0"), (0.1, "1e-1"), (f64::MAX, "1.7976931348623157e308")] {
            let mut out = Vec::new();
            put_double(&mut out, number);
            assert_eq!(String::from_utf8(out).expect("digits"), text);
        }
    }
}
