//! From JSON to a message, by the rules of jsonpb.
//!
//! Field names as declared or in lowerCamel; 64 bit numbers as numbers or strings; enums by name or
//! number; bytes in base64; `null` leaves a field unset; an unknown name is an error. Unlike in jsonpb, which keeps
//! the last of them, so is a name that stands twice in one object: one of the two is not what its writer sees.

use std::collections::HashMap;

use base64::Engine;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

use crate::JsonError;
use crate::reflect::{fields, go_type};
use crate::syntax::{Entry, Json};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The error of a name that was there before.
fn twice(entry: &Entry, first_line: usize) -> JsonError {
    JsonError::new(format!("duplicate key {:?}, first given in line {first_line}", entry.name)).within(entry)
}

fn mismatch(json: &Json, go: &str) -> JsonError {
    JsonError::new(format!("json: cannot unmarshal {} into Go value of type {go}", json.kind()))
}

pub(crate) fn message(descriptor: &MessageDescriptor, json: &Json) -> Result<DynamicMessage, JsonError> {
    let mut message = DynamicMessage::new(descriptor.clone());
    let mut entries: Vec<Option<&Entry>> = match json {
        Json::Object(entries) => entries.iter().map(Some).collect(),
        Json::Null => return Ok(message),
        other => return Err(mismatch(other, "map[string]json.RawMessage")),
    };
    for field in fields(descriptor) {
        // In both spellings it is given twice, too.
        let mut found: Option<&Entry> = None;
        for slot in &mut entries {
            if let Some(entry) = slot.take_if(|entry| entry.name == field.json_name() || entry.name == field.name()) {
                if let Some(first) = found {
                    return Err(twice(entry, first.line));
                }
                found = Some(entry);
            }
        }
        match found {
            None | Some(Entry { value: Json::Null, .. }) => {}
            Some(entry) => {
                let value = value_of(&field, &entry.value).map_err(|error| error.within(entry))?;
                message.set_field(&field, value);
            }
        }
    }
    if let Some(entry) = entries.into_iter().flatten().next() {
        return Err(JsonError::new(format!("unknown field {:?} in {}", entry.name, go_type(descriptor))).within(entry));
    }
    Ok(message)
}

fn value_of(field: &FieldDescriptor, json: &Json) -> Result<Value, JsonError> {
    if field.is_map() {
        let Json::Object(entries) = json else { return Err(mismatch(json, "map[string]json.RawMessage")) };
        let Kind::Message(entry) = field.kind() else { return Err(mismatch(json, "map")) };
        let (key_kind, value_kind) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut map = HashMap::new();
        let mut lines = HashMap::new();
        for entry in entries {
            let key = key(&key_kind, &entry.name).map_err(|error| error.within(entry))?;
            if let Some(first) = lines.insert(key.clone(), entry.line) {
                return Err(twice(entry, first));
            }
            map.insert(key, single(&value_kind, &entry.value).map_err(|error| error.within(entry))?);
        }
        return Ok(Value::Map(map));
    }
    if field.is_list() {
        let Json::Array(items) = json else { return Err(mismatch(json, "[]json.RawMessage")) };
        return items.iter().map(|item| single(&field.kind(), item)).collect::<Result<_, _>>().map(Value::List);
    }
    single(&field.kind(), json)
}

fn key(kind: &Kind, name: &str) -> Result<MapKey, JsonError> {
    let number = || Json::Number(name.to_owned());
    Ok(match single(kind, &if matches!(kind, Kind::String) { Json::String(name.into()) } else { number() })? {
        Value::String(v) => MapKey::String(v),
        Value::I32(v) => MapKey::I32(v),
        Value::I64(v) => MapKey::I64(v),
        Value::U32(v) => MapKey::U32(v),
        Value::U64(v) => MapKey::U64(v),
        _ => MapKey::Bool(name == "true"),
    })
}

/// A value that is neither list nor map. `null` is the zero value.
fn single(kind: &Kind, json: &Json) -> Result<Value, JsonError> {
    if *json == Json::Null {
        return Ok(Value::default_value(kind));
    }
    Ok(match kind {
        Kind::Message(descriptor) => Value::Message(message(descriptor, json)?),
        Kind::Enum(descriptor) => match json {
            Json::String(name) => {
                let values = &descriptor.enum_descriptor_proto().value;
                match values.iter().find(|value| value.name() == name) {
                    Some(value) => Value::EnumNumber(value.number()),
                    None => {
                        let full = descriptor.full_name();
                        return Err(JsonError::new(format!("unknown value {name:?} for enum {full}")));
                    }
                }
            }
            json => Value::EnumNumber(number(json, "int32")?),
        },
        Kind::Bool => match json {
            Json::Bool(v) => Value::Bool(*v),
            other => return Err(mismatch(other, "bool")),
        },
        Kind::String => match json {
            Json::String(v) => Value::String(v.clone()),
            other => return Err(mismatch(other, "string")),
        },
        Kind::Bytes => match json {
            Json::String(v) => Value::Bytes(bytes(v)?.into()),
            other => return Err(mismatch(other, "[]uint8")),
        },
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(json, "int32")?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(json, "int64")?),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number(json, "uint32")?),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number(json, "uint64")?),
        Kind::Float => Value::F32(number(json, "float32")?),
        Kind::Double => Value::F64(number(json, "float64")?),
    })
}

fn number<N: std::str::FromStr>(json: &Json, go: &str) -> Result<N, JsonError> {
    let (Json::Number(text) | Json::String(text)) = json else { return Err(mismatch(json, go)) };
    let text = match text.as_str() {
        "Infinity" => "inf",
        "-Infinity" => "-inf",
        text => text,
    };
    text.parse().map_err(|_| JsonError::new(format!("json: cannot unmarshal number {text} into Go value of type {go}")))
}

fn bytes(text: &str) -> Result<Vec<u8>, JsonError> {
    use base64::DecodeError;
    BASE64.decode(text).map_err(|error| {
        let at = match error {
            DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
            DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => text.len(),
        };
        JsonError::new(format!("illegal base64 data at input byte {at}"))
    })
}
