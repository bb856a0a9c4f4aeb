//! A typed value as vindexes see it, and Vitess's way to a number.

use vterrors::{Code, VtError};
use vtproto::query::Type;

/// A column value: MySQL type and text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    pub kind: Type,
    pub bytes: Vec<u8>,
}

impl Value {
    pub fn new(kind: Type, bytes: impl Into<Vec<u8>>) -> Self {
        Self { kind, bytes: bytes.into() }
    }

    pub fn null() -> Self {
        Self::new(Type::NullType, Vec::new())
    }

    pub(crate) fn is_signed(&self) -> bool {
        matches!(self.kind, Type::Int8 | Type::Int16 | Type::Int24 | Type::Int32 | Type::Int64)
    }

    /// The text, for error messages.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The number behind a signed type or else [`to_u64`], as the hash vindex counts: -1 is 2^64-1.
    pub(crate) fn wrapped_u64(&self) -> Result<u64, VtError> {
        if self.is_signed() {
            let text = self.text();
            return text
                .parse::<i64>()
                .map(|n| n as u64)
                .map_err(|_| VtError::new(Code::InvalidArgument, format!("could not parse value: '{text}'")));
        }
        to_u64(self)
    }
}

/// The unsigned number of a value. Errors: negative numbers, types and texts that are no number.
pub fn to_u64(value: &Value) -> Result<u64, VtError> {
    let text = value.text();
    let fault = || VtError::new(Code::InvalidArgument, format!("could not parse value: '{text}'"));
    if value.kind == Type::NullType {
        return Err(fault());
    }
    if let Ok(number) = text.parse::<u64>() {
        // Go's parser takes digits only.
        return if text.starts_with('+') { Err(fault()) } else { Ok(number) };
    }
    if value.is_signed() && text.parse::<i64>().is_ok() {
        return Err(VtError::new(
            Code::InvalidArgument,
            format!("negative number cannot be converted to unsigned: {text}"),
        ));
    }
    Err(fault())
}
