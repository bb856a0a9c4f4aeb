//! The text forms of protobuf messages that Vitess prints and reads.
//!
//! | form | where it shows |
//! |---|---|
//! | [`pb_json`] | `GetTablet`, `GetShard`, REST: snake_case, enums as numbers, zero values shown |
//! | [`vschema_json`] | `GetVSchema`, `ApplyVSchema`: lowerCamel, zero values left out, enums as names |
//! | [`go_json`] | Go's `encoding/json` of a struct: snake_case, zero values left out, int64 as numbers |
//! | [`text`], [`text_compact`] | `TopoCat -decode_proto`, `_vt.vreplication.source` |
//! | [`from_json`], [`from_text`] | the readers of the first two and the last two |
//!
//! All of them walk a message by reflection over [`vtproto::DESCRIPTORS`].

use prost::{Message, Name};

/// Why a text is not a message; `Display` is the text for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(pub(crate) String);

/// PB-JSON: two blanks of indent, snake_case, enums as numbers, zero values shown. No final newline.
pub fn pb_json<M: Message + Name>(_message: &M) -> String {
    unimplemented!()
}

/// VSchema JSON: two blanks of indent, lowerCamel, zero values left out, enums as names. An empty
/// message is `{\n\n}`. No final newline.
pub fn vschema_json<M: Message + Name>(_message: &M) -> String {
    unimplemented!()
}

/// Go's `encoding/json` of the struct: snake_case, zero values left out, int64 and enums as numbers.
pub fn go_json<M: Message + Name>(_message: &M) -> serde_json::Value {
    unimplemented!()
}

/// Go's `json.MarshalIndent(value, "", "  ")`. No final newline.
pub fn go_indent(_value: &serde_json::Value) -> String {
    unimplemented!()
}

/// Reads JSON strictly.
///
/// # Errors
/// Syntax errors begin with `line: N, position M: `.
pub fn from_json<M: Message + Name + Default>(_text: &str) -> Result<M, JsonError> {
    unimplemented!()
}

/// The text form on several lines; messages in `<` and `>`.
pub fn text<M: Message + Name>(_message: &M) -> String {
    unimplemented!()
}

/// The text form on one line.
pub fn text_compact<M: Message + Name>(_message: &M) -> String {
    unimplemented!()
}

/// Reads the text form.
///
/// # Errors
/// `line N: …`.
pub fn from_text<M: Message + Name + Default>(_text: &str) -> Result<M, JsonError> {
    unimplemented!()
}
