//! Bind variables back into SQL text.
//!
//! Owns: [`Template`], a text cut at its variables once and filled in many times. What is put in is
//! always one literal (or a parenthesised list of literals): a value can never become SQL.

use std::collections::BTreeMap;

use vterrors::{Code, VtError};
use vtproto::query::{BindVariable, Type};

use crate::lexer::{Lexer, TokenKind};
use crate::quote::quote_string;

/// Values by name, as in `query.BoundQuery`.
pub type BindVars = BTreeMap<String, BindVariable>;

/// Why a text cannot be filled in. Texts are Vitess's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    #[error("missing bind var {0}")]
    Missing(String),
    #[error("unexpected arg type ({kind}) for non-list key {name}")]
    ListForSingle { kind: &'static str, name: String },
    #[error("unexpected list arg type ({kind}) for key {name}")]
    SingleForList { kind: &'static str, name: String },
    #[error("empty list supplied for {0}")]
    EmptyList(String),
    #[error("bind var {name}: {value:?} is not a number")]
    NotANumber { name: String, value: String },
    #[error("unknown type {kind} for bind var {name}")]
    UnknownType { kind: i32, name: String },
}

impl From<BindError> for VtError {
    fn from(error: BindError) -> Self {
        VtError::new(Code::InvalidArgument, error.to_string())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    /// Text in front of the variable: a span of the template's text.
    start: usize,
    end: usize,
    name: String,
    list: bool,
}

/// A text with its variables found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    sql: String,
    pieces: Vec<Piece>,
    /// Where the text behind the last variable starts.
    tail: usize,
}

impl Template {
    /// Finds the variables of `sql`. Those in quotes and comments are text.
    pub fn new(sql: impl Into<String>) -> Self {
        let sql = sql.into();
        let mut pieces = Vec::new();
        let mut tail = 0;
        for token in Lexer::new(sql.as_bytes()) {
            let colons = match token.kind {
                TokenKind::BindVar => 1,
                TokenKind::ListVar => 2,
                _ => continue,
            };
            let name = sql[token.start + colons..token.end].to_owned();
            pieces.push(Piece { start: tail, end: token.start, name, list: colons == 2 });
            tail = token.end;
        }
        Self { sql, pieces, tail }
    }

    /// The text as it was given.
    pub fn sql(&self) -> &str {
        &self.sql
    }

    /// Names of the variables, in order of appearance, repeated ones too.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().map(|piece| piece.name.as_str())
    }

    /// The text with the values in place.
    pub fn render(&self, vars: &BindVars) -> Result<Vec<u8>, BindError> {
        let mut out = Vec::with_capacity(self.sql.len() + 16 * self.pieces.len());
        self.render_into(vars, &mut out)?;
        Ok(out)
    }

    /// As [`Template::render`], behind what `out` holds. After an error `out` holds a part.
    pub fn render_into(&self, vars: &BindVars, out: &mut Vec<u8>) -> Result<(), BindError> {
        let text = self.sql.as_bytes();
        for piece in &self.pieces {
            out.extend_from_slice(&text[piece.start..piece.end]);
            let var = vars.get(&piece.name).ok_or_else(|| BindError::Missing(piece.name.clone()))?;
            write_var(var, piece, out)?;
        }
        out.extend_from_slice(&text[self.tail..]);
        Ok(())
    }
}

/// Fills in `sql` once. Whoever runs a text often keeps its [`Template`].
pub fn bind(sql: &str, vars: &BindVars) -> Result<Vec<u8>, BindError> {
    Template::new(sql).render(vars)
}

fn write_var(var: &BindVariable, piece: &Piece, out: &mut Vec<u8>) -> Result<(), BindError> {
    let kind = Type::try_from(var.r#type)
        .map_err(|_| BindError::UnknownType { kind: var.r#type, name: piece.name.clone() })?;
    match (piece.list, kind) {
        (false, Type::Tuple) => Err(BindError::ListForSingle { kind: kind.as_str_name(), name: piece.name.clone() }),
        (false, _) => write_value(kind, &var.value, &piece.name, out),
        (true, Type::Tuple) if var.values.is_empty() => Err(BindError::EmptyList(piece.name.clone())),
        (true, Type::Tuple) => {
            out.push(b'(');
            for (i, value) in var.values.iter().enumerate() {
                if i > 0 {
                    out.extend_from_slice(b", ");
                }
                let kind = Type::try_from(value.r#type)
                    .map_err(|_| BindError::UnknownType { kind: value.r#type, name: piece.name.clone() })?;
                write_value(kind, &value.value, &piece.name, out)?;
            }
            out.push(b')');
            Ok(())
        }
        (true, _) => Err(BindError::SingleForList { kind: kind.as_str_name(), name: piece.name.clone() }),
    }
}

fn write_value(kind: Type, value: &[u8], name: &str, out: &mut Vec<u8>) -> Result<(), BindError> {
    match kind {
        Type::NullType => out.extend_from_slice(b"null"),
        Type::Int8
        | Type::Int16
        | Type::Int24
        | Type::Int32
        | Type::Int64
        | Type::Uint8
        | Type::Uint16
        | Type::Uint24
        | Type::Uint32
        | Type::Uint64
        | Type::Year
        | Type::Float32
        | Type::Float64
        | Type::Decimal => {
            if !is_number(value) {
                let value = String::from_utf8_lossy(value).into_owned();
                return Err(BindError::NotANumber { name: name.to_owned(), value });
            }
            out.extend_from_slice(value);
        }
        Type::Bit => {
            out.extend_from_slice(b"b'");
            for byte in value {
                out.extend((0..8).rev().map(|bit| b'0' + ((byte >> bit) & 1)));
            }
            out.push(b'\'');
        }
        Type::Tuple | Type::Expression => {
            return Err(BindError::UnknownType { kind: kind.into(), name: name.to_owned() });
        }
        Type::Timestamp
        | Type::Date
        | Type::Time
        | Type::Datetime
        | Type::Text
        | Type::Blob
        | Type::Varchar
        | Type::Varbinary
        | Type::Char
        | Type::Binary
        | Type::Enum
        | Type::Set
        | Type::Geometry
        | Type::Json => quote_string(value, out),
    }
    Ok(())
}

/// One MySQL number: sign, digits, point, exponent. Bare text must be nothing else, since whoever
/// speaks gRPC chooses the bytes.
fn is_number(value: &[u8]) -> bool {
    let mut rest = match value {
        [b'+' | b'-', rest @ ..] => rest,
        rest => rest,
    };
    let mut digits = 0;
    let mut skip_digits = |rest: &mut &[u8]| {
        while let [b'0'..=b'9', tail @ ..] = *rest {
            *rest = tail;
            digits += 1;
        }
    };
    skip_digits(&mut rest);
    if let [b'.', tail @ ..] = rest {
        rest = tail;
        skip_digits(&mut rest);
    }
    if digits == 0 {
        return false;
    }
    if let [b'e' | b'E', tail @ ..] = rest {
        let tail = match tail {
            [b'+' | b'-', tail @ ..] => tail,
            tail => tail,
        };
        return !tail.is_empty() && tail.iter().all(u8::is_ascii_digit);
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtproto::query::Value;

    fn var(kind: Type, value: &str) -> BindVariable {
        BindVariable { r#type: kind.into(), value: value.to_owned().into(), values: vec![] }
    }

    fn vars(list: &[(&str, BindVariable)]) -> BindVars {
        list.iter().map(|(name, var)| (name.to_string(), var.clone())).collect()
    }

    fn filled(sql: &str, list: &[(&str, BindVariable)]) -> Result<String, String> {
        bind(sql, &vars(list)).map(|b| String::from_utf8(b).expect("utf-8")).map_err(|e| e.to_string())
    }

    #[test]
    fn values_become_literals_of_their_type() {
        assert_eq!(
            filled(
                "select :a, :b, :c, ':a' /* :a */ from t where x in ::l",
                &[
                    ("a", var(Type::Int64, "-1")),
                    ("b", var(Type::Varbinary, "it's")),
                    ("c", var(Type::NullType, "")),
                    (
                        "l",
                        BindVariable {
                            r#type: Type::Tuple.into(),
                            value: Default::default(),
                            values: vec![
                                Value { r#type: Type::Int64.into(), value: "1".into() },
                                Value { r#type: Type::Varchar.into(), value: "b".into() }
                            ],
                        }
                    ),
                ]
            ),
            Ok("select -1, 'it\\'s', null, ':a' /* :a */ from t where x in (1, 'b')".into())
        );
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(filled("select :a", &[]), Err("missing bind var a".into()));
        let list = BindVariable { r#type: Type::Tuple.into(), ..Default::default() };
        assert_eq!(
            filled("select :a", &[("a", list.clone())]),
            Err("unexpected arg type (TUPLE) for non-list key a".into())
        );
        assert_eq!(filled("select ::a", &[("a", list)]), Err("empty list supplied for a".into()));
        assert_eq!(
            filled("select ::a", &[("a", var(Type::Int64, "1"))]),
            Err("unexpected list arg type (INT64) for key a".into())
        );
    }

    #[test]
    fn a_number_cannot_carry_sql() {
        for bad in ["1 or 1=1", "", "-", "1e", ".", "0x1", "1;drop"] {
            assert!(filled("select :a", &[("a", var(Type::Int64, bad))]).is_err(), "{bad}");
        }
        for good in ["1", "-1", "+1.5", ".5", "1.", "1e10", "1E-3"] {
            assert_eq!(filled("select :a", &[("a", var(Type::Float64, good))]), Ok(format!("select {good}")));
        }
    }
}
