//! JSON as Go's `encoding/json` writes it.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use prost_reflect::{DynamicMessage, MapKey, ReflectMessage, Value};

use crate::reflect::fields;

/// A string in quotes with Go's escapes: `<`, `>`, `&` and the line separators are escaped too.
pub fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\x1f' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing into a String cannot fail.
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A float as Go writes it: plain digits between 1e-6 and 1e21, an exponent outside.
pub(crate) fn float(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{value:e}");
        // Go always signs the exponent.
        return if text.contains("e-") { text } else { text.replace('e', "e+") };
    }
    value.to_string()
}

/// Go's `json.MarshalIndent(value, "", indent)`: `[]` and `{}` when empty, no final newline.
pub fn write_indented(value: &serde_json::Value, indent: &str) -> String {
    let mut out = String::new();
    write(&mut out, value, indent, 0);
    out
}

fn write(out: &mut String, value: &serde_json::Value, indent: &str, depth: usize) {
    use serde_json::Value as Json;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&indent.repeat(depth));
    };
    match value {
        Json::Array(items) if !items.is_empty() => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                line(out, depth + 1);
                write(out, item, indent, depth + 1);
            }
            line(out, depth);
            out.push(']');
        }
        Json::Object(entries) if !entries.is_empty() => {
            out.push('{');
            for (index, (name, item)) in entries.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                line(out, depth + 1);
                out.push_str(&quote(name));
                out.push_str(": ");
                write(out, item, indent, depth + 1);
            }
            line(out, depth);
            out.push('}');
        }
        Json::String(text) => out.push_str(&quote(text)),
        Json::Number(number) if number.is_f64() => out.push_str(&float(number.as_f64().unwrap_or(0.0))),
        other => out.push_str(&other.to_string()),
    }
}

/// The message as Go's reflection shows the struct: zero values are left out.
pub(crate) fn value(message: &DynamicMessage) -> serde_json::Value {
    let mut map = serde_json::Map::new();
    for field in fields(&message.descriptor()) {
        if message.has_field(&field) {
            map.insert(field.name().into(), scalar(&message.get_field(&field)));
        }
    }
    serde_json::Value::Object(map)
}

fn scalar(any: &Value) -> serde_json::Value {
    match any {
        Value::Bool(v) => (*v).into(),
        Value::I32(v) | Value::EnumNumber(v) => (*v).into(),
        Value::I64(v) => (*v).into(),
        Value::U32(v) => (*v).into(),
        Value::U64(v) => (*v).into(),
        Value::F32(v) => f64::from(*v).into(),
        Value::F64(v) => (*v).into(),
        Value::String(v) => v.clone().into(),
        Value::Bytes(v) => STANDARD.encode(v).into(),
        Value::Message(v) => value(v),
        Value::List(items) => items.iter().map(scalar).collect(),
        Value::Map(entries) => {
            let mut entries: Vec<_> = entries.iter().map(|(key, item)| (key_text(key), scalar(item))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            serde_json::Value::Object(entries.into_iter().collect())
        }
    }
}

/// A map key as the name in a JSON object.
pub(crate) fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(v) => v.to_string(),
        MapKey::I32(v) => v.to_string(),
        MapKey::I64(v) => v.to_string(),
        MapKey::U32(v) => v.to_string(),
        MapKey::U64(v) => v.to_string(),
        MapKey::String(v) => v.clone(),
    }
}
