//! The text form as Go's `proto.MarshalText` and `CompactText` write it.

use std::fmt::Write;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use crate::print::{enum_name, key_order};
use crate::reflect::fields;

pub(crate) fn print(message: &DynamicMessage, compact: bool) -> String {
    let mut out = String::new();
    Printer { compact, out: &mut out }.message(message, 0);
    out
}

struct Printer<'a> {
    compact: bool,
    out: &'a mut String,
}

impl Printer<'_> {
    fn message(&mut self, message: &DynamicMessage, depth: usize) {
        for field in fields(&message.descriptor()).into_iter().filter(|field| message.has_field(field)) {
            match &*message.get_field(&field) {
                Value::List(items) => {
                    for item in items {
                        self.entry(field.name(), &field.kind(), item, depth);
                    }
                }
                Value::Map(entries) => {
                    let mut entries: Vec<(&MapKey, &Value)> = entries.iter().collect();
                    entries.sort_by(|a, b| key_order(a.0, b.0));
                    for (key, value) in entries {
                        self.map_entry(&field, key, value, depth);
                    }
                }
                value => self.entry(field.name(), &field.kind(), value, depth),
            }
        }
    }

    fn name(&mut self, name: &str, depth: usize) {
        if !self.compact {
            self.out.extend(std::iter::repeat_n("  ", depth));
        }
        self.out.push_str(name);
        self.out.push_str(if self.compact { ":" } else { ": " });
    }

    fn end(&mut self) {
        self.out.push(if self.compact { ' ' } else { '\n' });
    }

    /// `<`, what `fill` writes, `>`.
    fn block(&mut self, depth: usize, fill: impl FnOnce(&mut Self)) {
        self.out.push('<');
        if !self.compact {
            self.out.push('\n');
        }
        fill(self);
        if !self.compact {
            self.out.extend(std::iter::repeat_n("  ", depth));
        }
        self.out.push('>');
        self.end();
    }

    fn entry(&mut self, name: &str, kind: &Kind, value: &Value, depth: usize) {
        self.name(name, depth);
        if let Value::Message(message) = value {
            return self.block(depth, |printer| printer.message(message, depth + 1));
        }
        let text = match value {
            Value::EnumNumber(number) => match kind {
                Kind::Enum(descriptor) => enum_name(descriptor, *number).unwrap_or_else(|| number.to_string()),
                _ => number.to_string(),
            },
            Value::Bool(v) => v.to_string(),
            Value::I32(v) => v.to_string(),
            Value::I64(v) => v.to_string(),
            Value::U32(v) => v.to_string(),
            Value::U64(v) => v.to_string(),
            Value::F32(v) => v.to_string(),
            Value::F64(v) => crate::go::float(*v),
            Value::String(v) => quote(v.as_bytes()),
            Value::Bytes(v) => quote(v),
            // Neither lists nor maps nest in protobuf.
            Value::Message(_) | Value::List(_) | Value::Map(_) => String::new(),
        };
        self.out.push_str(&text);
        self.end();
    }

    fn map_entry(&mut self, field: &FieldDescriptor, key: &MapKey, value: &Value, depth: usize) {
        let Kind::Message(entry) = field.kind() else { return };
        self.name(field.name(), depth);
        self.block(depth, |printer| {
            let key: Value = key.clone().into();
            printer.entry("key", &entry.map_entry_key_field().kind(), &key, depth + 1);
            printer.entry("value", &entry.map_entry_value_field().kind(), value, depth + 1);
        });
    }
}

/// Bytes in quotes; whatever is not printable ASCII in octal.
fn quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for &byte in bytes {
        match byte {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b' '..=b'~' => out.push(byte as char),
            byte => {
                // Writing into a String cannot fail.
                let _ = write!(out, "\\{byte:03o}");
            }
        }
    }
    out.push('"');
    out
}
