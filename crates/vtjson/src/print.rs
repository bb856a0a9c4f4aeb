//! The two layouts of jsonpb: PB-JSON and VSchema JSON.
//!
//! Layout: a list or map that is shown although it is empty is `[` and `]` on two lines; a message
//! without shown fields is `{`, an empty line, `}`.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use crate::go::{float, key_text, quote};
use crate::reflect::fields;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// snake_case, enums as numbers, zero values shown.
    PbJson,
    /// lowerCamel, enums as names, zero values left out.
    VSchema,
}

pub(crate) fn print(message: &DynamicMessage, style: Style) -> String {
    let mut out = String::new();
    Printer { style, out: &mut out }.message(message, 0);
    out
}

struct Printer<'a> {
    style: Style,
    out: &'a mut String,
}

impl Printer<'_> {
    fn line(&mut self, depth: usize) {
        self.out.push('\n');
        self.indent(depth);
    }

    fn indent(&mut self, depth: usize) {
        self.out.extend(std::iter::repeat_n("  ", depth));
    }

    fn message(&mut self, message: &DynamicMessage, depth: usize) {
        self.out.push_str("{\n");
        let mut first = true;
        for field in fields(&message.descriptor()) {
            let shown = self.style == Style::PbJson || message.has_field(&field);
            if !shown {
                continue;
            }
            if !first {
                self.out.push_str(",\n");
            }
            first = false;
            self.indent(depth + 1);
            let name = if self.style == Style::PbJson { field.name() } else { field.json_name() };
            self.out.push_str(&quote(name));
            self.out.push_str(": ");
            if !message.has_field(&field)
                && matches!(field.kind(), Kind::Message(_))
                && !field.is_list()
                && !field.is_map()
            {
                self.out.push_str("null");
            } else {
                self.field(&field, &message.get_field(&field), depth + 1);
            }
        }
        self.line(depth);
        self.out.push('}');
    }

    fn field(&mut self, field: &FieldDescriptor, value: &Value, depth: usize) {
        match value {
            Value::List(items) => {
                self.out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.out.push_str(if index > 0 { "," } else { "" });
                    self.line(depth + 1);
                    self.value(&field.kind(), item, depth + 1);
                }
                self.line(depth);
                self.out.push(']');
            }
            Value::Map(entries) => {
                let kind = match field.kind() {
                    Kind::Message(entry) => entry.map_entry_value_field().kind(),
                    kind => kind,
                };
                let mut entries: Vec<(&MapKey, &Value)> = entries.iter().collect();
                entries.sort_by(|a, b| key_order(a.0, b.0));
                self.out.push('{');
                for (index, (key, item)) in entries.into_iter().enumerate() {
                    self.out.push_str(if index > 0 { "," } else { "" });
                    self.line(depth + 1);
                    self.out.push_str(&quote(&key_text(key)));
                    self.out.push_str(": ");
                    self.value(&kind, item, depth + 1);
                }
                self.line(depth);
                self.out.push('}');
            }
            value => self.value(&field.kind(), value, depth),
        }
    }

    fn value(&mut self, kind: &Kind, value: &Value, depth: usize) {
        let text = match value {
            Value::Bool(v) => v.to_string(),
            Value::I32(v) => v.to_string(),
            Value::U32(v) => v.to_string(),
            Value::I64(v) => format!("\"{v}\""),
            Value::U64(v) => format!("\"{v}\""),
            Value::F32(v) => float_or_name(f64::from(*v), v.to_string()),
            Value::F64(v) => float_or_name(*v, float(*v)),
            Value::String(v) => quote(v),
            // An unset field is a nil slice in Go.
            Value::Bytes(v) if v.is_empty() => "null".into(),
            Value::Bytes(v) => format!("\"{}\"", STANDARD.encode(v)),
            Value::EnumNumber(number) => match kind {
                Kind::Enum(descriptor) if self.style == Style::VSchema => match enum_name(descriptor, *number) {
                    Some(name) => format!("\"{name}\""),
                    None => number.to_string(),
                },
                _ => number.to_string(),
            },
            Value::Message(message) => return self.message(message, depth),
            // Neither lists nor maps nest in protobuf.
            Value::List(_) | Value::Map(_) => return,
        };
        self.out.push_str(&text);
    }
}

fn float_or_name(value: f64, text: String) -> String {
    match value {
        v if v.is_nan() => "\"NaN\"".into(),
        f64::INFINITY => "\"Infinity\"".into(),
        f64::NEG_INFINITY => "\"-Infinity\"".into(),
        _ => text,
    }
}

/// The first name declared for a number: `BATCH` is an alias of `RDONLY` and never printed.
pub(crate) fn enum_name(descriptor: &EnumDescriptor, number: i32) -> Option<String> {
    let values = &descriptor.enum_descriptor_proto().value;
    values.iter().find(|value| value.number() == number).map(|value| value.name().to_owned())
}

/// Numbers by value, everything else by text.
pub(crate) fn key_order(a: &MapKey, b: &MapKey) -> std::cmp::Ordering {
    let number = |key: &MapKey| match key {
        MapKey::I32(v) => Some(i128::from(*v)),
        MapKey::I64(v) => Some(i128::from(*v)),
        MapKey::U32(v) => Some(i128::from(*v)),
        MapKey::U64(v) => Some(i128::from(*v)),
        MapKey::Bool(v) => Some(i128::from(*v)),
        MapKey::String(_) => None,
    };
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => key_text(a).cmp(&key_text(b)),
    }
}
