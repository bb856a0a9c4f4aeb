//! The text forms of protobuf messages that Vitess prints and reads.
//!
//! | form | where it shows |
//! |---|---|
//! | [`pb_json`] | `GetTablet`, `GetShard`, REST: snake_case, enums as numbers, zero values shown |
//! | [`vschema_json`] | `GetVSchema`, `ApplyVSchema`: lowerCamel, zero values left out, enums as names |
//! | [`go_json`] | Go's `encoding/json` of a struct: snake_case, zero values left out, int64 as numbers |
//! | [`text()`], [`text_compact`] | `TopoCat -decode_proto`, `_vt.vreplication.source` |
//! | [`from_json`], [`from_text`] | the readers of the first two and the last two |
//!
//! All of them walk a message by reflection over [`vtproto::DESCRIPTORS`], fields in the order in
//! which `proto/` declares them. Unknown fields of a message are not shown.

mod go;
mod print;
mod read;
mod reflect;
mod syntax;
mod text_print;
mod text_read;

use prost::{Message, Name};

pub use go::{quote, write_indented};

/// Why a text is not a message; `Display` is the text for the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}{}", place.as_ref().map_or_else(String::new, |(line, path)| shown(*line, path)))]
pub struct JsonError {
    problem: String,
    /// Line and path of the value that does not fit.
    place: Option<(usize, String)>,
}

impl JsonError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self { problem: problem.into(), place: None }
    }

    /// The error of an entry's value: the innermost entry tells the line, all of them the path.
    pub(crate) fn within(mut self, entry: &syntax::Entry) -> Self {
        self.place = Some(match self.place {
            Some((line, path)) => (line, format!("{}.{path}", entry.name)),
            None => (entry.line, entry.name.clone()),
        });
        self
    }
}

/// PB-JSON: two blanks of indent, snake_case, enums as numbers, zero values shown, int64 as strings,
/// unset messages and empty bytes `null`. No final newline.
pub fn pb_json<M: Message + Name>(message: &M) -> String {
    print::print(&reflect::dynamic(message), print::Style::PbJson)
}

/// VSchema JSON: two blanks of indent, lowerCamel, zero values left out, enums as names. An empty
/// message is `{\n\n}`. No final newline.
pub fn vschema_json<M: Message + Name>(message: &M) -> String {
    print::print(&reflect::dynamic(message), print::Style::VSchema)
}

/// Go's `encoding/json` of the struct: snake_case, zero values left out, int64 and enums as numbers.
pub fn go_json<M: Message + Name>(message: &M) -> serde_json::Value {
    go::value(&reflect::dynamic(message))
}

/// Go's `json.MarshalIndent(value, "", "  ")`. No final newline.
pub fn go_indent(value: &serde_json::Value) -> String {
    write_indented(value, "  ")
}

/// Reads JSON strictly: an unknown field is an error, and so is a name twice in one object. Fields are named as declared
/// or in lowerCamel; numbers may be strings, enums names or numbers; `null` is an unset field.
///
/// # Errors
/// Syntax errors begin with `line: N, position M: `; a value that does not fit is told with ` (line N: path)` behind.
pub fn from_json<M: Message + Name + Default>(text: &str) -> Result<M, JsonError> {
    let value = syntax::parse(text)?;
    reflect::transcode(read::message(&reflect::descriptor::<M>(), &value)?)
}

/// Where a value stands in a JSON text that [`from_json`] has read, in the form of its errors: ` (line N: path)`, for what
/// is wrong with its meaning. A step of `path` is a field as declared, a key of a map, or a place in a list from 0; where
/// the text has less, the place is that of what it has. Empty when it has nothing of it.
pub fn place(text: &str, path: &[impl AsRef<str>]) -> String {
    let found = syntax::parse(text).ok().and_then(|json| syntax::find(&json, path));
    found.map_or_else(String::new, |(line, path)| shown(line, &path))
}

fn shown(line: usize, path: &str) -> String {
    format!(" (line {line}: {path})")
}

/// The text form on several lines; messages in `<` and `>`. Ends with a newline unless it is empty.
pub fn text<M: Message + Name>(message: &M) -> String {
    text_print::print(&reflect::dynamic(message), false)
}

/// The text form on one line. Every entry is followed by a blank, the last one too, as in Go.
pub fn text_compact<M: Message + Name>(message: &M) -> String {
    text_print::print(&reflect::dynamic(message), true)
}

/// Reads the text form, on one line or several, messages in `<…>` or `{…}`.
///
/// # Errors
/// Begin with `line N: ` (`line 1.M: ` in the first line, M being the byte).
pub fn from_text<M: Message + Name + Default>(text: &str) -> Result<M, JsonError> {
    reflect::transcode(text_read::read(&reflect::descriptor::<M>(), text)?)
}

#[cfg(test)]
mod tests;
