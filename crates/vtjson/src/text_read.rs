//! Reads the text form: what `text_print.rs` writes, and what people write.
//!
//! Accepted: `name: value`, `name <…>`, `name {…}`, `name: [a, b]`, commas or semicolons between
//! entries, comments from `#`, strings in either quote that continue in the next string.
//! Invariant: nesting is at most [`MAX_DEPTH`] deep.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use crate::JsonError;
use crate::reflect::go_type;

const MAX_DEPTH: usize = 200;

pub(crate) fn read(descriptor: &MessageDescriptor, text: &str) -> Result<DynamicMessage, JsonError> {
    let mut reader = Reader { bytes: text.as_bytes(), at: 0, depth: 0 };
    let message = reader.message(descriptor, None)?;
    Ok(message)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn error(&self, problem: impl std::fmt::Display) -> JsonError {
        let before = &self.bytes[..self.at.min(self.bytes.len())];
        let line = before.iter().filter(|&&b| b == b'\n').count() + 1;
        JsonError::new(if line == 1 {
            format!("line 1.{}: {problem}", before.len())
        } else {
            format!("line {line}: {problem}")
        })
    }

    /// Skips blanks and comments.
    fn skip(&mut self) {
        while let Some(&byte) = self.bytes.get(self.at) {
            match byte {
                b' ' | b'\t' | b'\r' | b'\n' => self.at += 1,
                b'#' => {
                    while self.bytes.get(self.at).is_some_and(|&b| b != b'\n') {
                        self.at += 1;
                    }
                }
                _ => break,
            }
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.skip();
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    /// A name, number or other run of characters without blanks.
    fn word(&mut self) -> Result<&str, JsonError> {
        self.skip();
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(|&b| b.is_ascii_alphanumeric() || b"-+._".contains(&b)) {
            self.at += 1;
        }
        if start == self.at {
            return Err(match self.bytes.get(self.at) {
                Some(&byte) => self.error(format!("unexpected {:?}", byte as char)),
                None => self.error("unexpected EOF"),
            });
        }
        // Only ASCII was taken.
        Ok(std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default())
    }

    /// Entries up to `end`, or to the end of the text.
    fn message(&mut self, descriptor: &MessageDescriptor, end: Option<u8>) -> Result<DynamicMessage, JsonError> {
        if self.depth == MAX_DEPTH {
            return Err(self.error("messages are nested too deeply"));
        }
        self.depth += 1;
        let mut message = DynamicMessage::new(descriptor.clone());
        loop {
            match self.peek() {
                None if end.is_none() => break,
                None => return Err(self.error("unexpected EOF")),
                Some(byte) if Some(byte) == end => {
                    self.at += 1;
                    break;
                }
                Some(_) => {}
            }
            let name = self.word()?.to_owned();
            let Some(field) = descriptor.get_field_by_name(&name) else {
                return Err(self.error(format!("unknown field name {name:?} in {}", go_type(descriptor))));
            };
            let colon = self.take(b':');
            if !colon && !matches!(field.kind(), Kind::Message(_)) {
                return Err(self.error("expected ':'"));
            }
            self.field(&mut message, &field)?;
            if !self.take(b',') {
                self.take(b';');
            }
        }
        self.depth -= 1;
        Ok(message)
    }

    fn field(&mut self, message: &mut DynamicMessage, field: &FieldDescriptor) -> Result<(), JsonError> {
        if field.is_map() {
            let (key, value) = self.map_entry(&field.kind())?;
            let mut map = match message.get_field(field).into_owned() {
                Value::Map(map) => map,
                _ => HashMap::new(),
            };
            map.insert(key, value);
            message.set_field(field, Value::Map(map));
        } else if field.is_list() {
            let mut list = match message.get_field(field).into_owned() {
                Value::List(list) => list,
                _ => Vec::new(),
            };
            if self.take(b'[') {
                while !self.take(b']') {
                    list.push(self.value(&field.kind())?);
                    if self.peek() != Some(b']') && !self.take(b',') {
                        return Err(self.error("expected ',' or ']'"));
                    }
                }
            } else {
                list.push(self.value(&field.kind())?);
            }
            message.set_field(field, Value::List(list));
        } else {
            let value = self.value(&field.kind())?;
            message.set_field(field, value);
        }
        Ok(())
    }

    fn map_entry(&mut self, kind: &Kind) -> Result<(MapKey, Value), JsonError> {
        let Kind::Message(descriptor) = kind else { return Err(self.error("not a map")) };
        let Value::Message(entry) = self.value(kind)? else { return Err(self.error("expected a map entry")) };
        let (key, value) = (descriptor.map_entry_key_field(), descriptor.map_entry_value_field());
        let key = match entry.get_field(&key).into_owned() {
            Value::Bool(v) => MapKey::Bool(v),
            Value::I32(v) => MapKey::I32(v),
            Value::I64(v) => MapKey::I64(v),
            Value::U32(v) => MapKey::U32(v),
            Value::U64(v) => MapKey::U64(v),
            Value::String(v) => MapKey::String(v),
            _ => return Err(self.error("not a map key")),
        };
        Ok((key, entry.get_field(&value).into_owned()))
    }

    fn value(&mut self, kind: &Kind) -> Result<Value, JsonError> {
        match kind {
            Kind::Message(descriptor) => {
                let end = if self.take(b'<') {
                    b'>'
                } else if self.take(b'{') {
                    b'}'
                } else {
                    return Err(self.error("expected '{' or '<'"));
                };
                return self.message(descriptor, Some(end)).map(Value::Message);
            }
            Kind::String => {
                let bytes = self.string()?;
                return String::from_utf8(bytes).map(Value::String).map_err(|_| self.error("invalid UTF-8 in string"));
            }
            Kind::Bytes => return self.string().map(|bytes| Value::Bytes(bytes.into())),
            _ => {}
        }
        let word = self.word()?.to_owned();
        let value = match kind {
            Kind::Bool => match word.as_str() {
                "true" | "True" | "t" | "1" => Some(Value::Bool(true)),
                "false" | "False" | "f" | "0" => Some(Value::Bool(false)),
                _ => None,
            },
            Kind::Enum(descriptor) => {
                let values = &descriptor.enum_descriptor_proto().value;
                let named = values.iter().find(|value| value.name() == word).map(|value| value.number());
                named.or_else(|| integer(&word)).map(Value::EnumNumber)
            }
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => integer(&word).map(Value::I32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => integer(&word).map(Value::I64),
            Kind::Uint32 | Kind::Fixed32 => integer(&word).map(Value::U32),
            Kind::Uint64 | Kind::Fixed64 => integer(&word).map(Value::U64),
            Kind::Float => word.trim_end_matches('f').parse().ok().map(Value::F32),
            Kind::Double => word.parse().ok().map(Value::F64),
            Kind::Message(_) | Kind::String | Kind::Bytes => None,
        };
        value.ok_or_else(|| self.error(format!("invalid {}: {word}", kind_name(kind))))
    }

    fn string(&mut self) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::new();
        let mut any = false;
        while let Some(quote @ (b'"' | b'\'')) = self.peek() {
            any = true;
            self.at += 1;
            loop {
                match self.bytes.get(self.at).copied() {
                    None | Some(b'\n') => return Err(self.error("unmatched quote")),
                    Some(byte) if byte == quote => {
                        self.at += 1;
                        break;
                    }
                    Some(b'\\') => {
                        self.at += 1;
                        self.escape(&mut out)?;
                    }
                    Some(byte) => {
                        out.push(byte);
                        self.at += 1;
                    }
                }
            }
        }
        if any { Ok(out) } else { Err(self.error("invalid string")) }
    }

    /// Digits of a radix, at most `most` of them.
    fn code(&mut self, radix: u32, most: usize) -> Option<u32> {
        let mut code = None;
        for _ in 0..most {
            let Some(digit) = self.bytes.get(self.at).and_then(|&b| (b as char).to_digit(radix)) else { break };
            code = Some(code.unwrap_or(0) * radix + digit);
            self.at += 1;
        }
        code
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let byte = self.bytes.get(self.at).copied().ok_or_else(|| self.error("unmatched quote"))?;
        self.at += 1;
        let plain = match byte {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'?' | b'\'' | b'"' | b'\\' => byte,
            b'0'..=b'7' => {
                self.at -= 1;
                self.code(8, 3)
                    .and_then(|code| u8::try_from(code).ok())
                    .ok_or_else(|| self.error("invalid octal escape"))?
            }
            b'x' | b'X' => {
                let code = self.code(16, 2).and_then(|code| u8::try_from(code).ok());
                code.ok_or_else(|| self.error("invalid hexadecimal escape"))?
            }
            b'u' | b'U' => {
                let c = self.code(16, if byte == b'u' { 4 } else { 8 }).and_then(char::from_u32);
                let c = c.ok_or_else(|| self.error("invalid unicode escape"))?;
                out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            byte => return Err(self.error(format!("unknown escape \\{}", byte as char))),
        };
        out.push(plain);
        Ok(())
    }
}

/// A number in decimal, `0x…` or `0…` (octal).
fn integer<N: TryFrom<i128>>(word: &str) -> Option<N> {
    let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
    let lower = digits.to_ascii_lowercase();
    let value = match lower.strip_prefix("0x") {
        Some(hex) => i128::from_str_radix(hex, 16),
        None if lower.len() > 1 && lower.starts_with('0') => i128::from_str_radix(&lower[1..], 8),
        None => lower.parse(),
    };
    N::try_from(sign * value.ok()?).ok()
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Bool => "bool",
        Kind::Enum(_) => "enum",
        Kind::Float => "float32",
        Kind::Double => "float64",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "int64",
        Kind::Uint64 | Kind::Fixed64 => "uint64",
        Kind::Uint32 | Kind::Fixed32 => "uint32",
        _ => "int32",
    }
}
