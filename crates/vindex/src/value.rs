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

    /// Whether mysqld says that it is a whole number, signed or not.
    pub fn is_integral(&self) -> bool {
        use vtproto::query::Flag;
        self.kind as i32 & Flag::Isintegral as i32 != 0
    }

    pub(crate) fn is_signed(&self) -> bool {
        matches!(self.kind, Type::Int8 | Type::Int16 | Type::Int24 | Type::Int32 | Type::Int64)
    }

    /// The text, for messages about what it does not say.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    /// The number behind a signed type or else [`to_u64`], as the hash vindex counts: -1 is 2^64-1.
    pub(crate) fn wrapped_u64(&self) -> Result<u64, VtError> {
        if self.is_signed() {
            return number::<i64>(&self.bytes).map(|n| n as u64).ok_or_else(|| self.fault());
        }
        to_u64(self)
    }

    fn fault(&self) -> VtError {
        VtError::new(Code::InvalidArgument, format!("could not parse value: '{}'", self.text()))
    }
}

/// As error texts of Vitess show values: `INT64(1)`, `VARCHAR("a")`, `NULL`.
impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy(&self.bytes);
        match self.kind {
            Type::NullType => f.write_str("NULL"),
            Type::Varchar | Type::Varbinary | Type::Text | Type::Blob | Type::Char | Type::Binary => {
                write!(f, "{}({text:?})", self.kind.as_str_name())
            }
            kind => write!(f, "{}({text})", kind.as_str_name()),
        }
    }
}

/// A number in decimal, without a copy of the text.
fn number<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// The unsigned number of a value. Errors: negative numbers, types and texts that are no number.
pub fn to_u64(value: &Value) -> Result<u64, VtError> {
    if value.kind == Type::NullType {
        return Err(value.fault());
    }
    if let Some(number) = number::<u64>(&value.bytes) {
        // Go's parser takes digits only.
        return if value.bytes.starts_with(b"+") { Err(value.fault()) } else { Ok(number) };
    }
    if value.is_signed() && number::<i64>(&value.bytes).is_some() {
        return Err(VtError::new(
            Code::InvalidArgument,
            format!("negative number cannot be converted to unsigned: {}", value.text()),
        ));
    }
    Err(value.fault())
}
