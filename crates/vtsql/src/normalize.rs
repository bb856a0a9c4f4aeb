//! Literals to bind variables.

use vtproto::query::BindVariable;

use crate::kind::StatementKind;

/// A statement without its literals. Margin comments are cut off and kept aside.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalized {
    pub kind: StatementKind,
    /// The text with `:vtg1` … in place of literals. With the keyspace, the target and the session
    /// flags that change planning it is the key of the plan cache.
    pub sql: String,
    /// Values by name, in order of their numbers.
    pub bind_vars: Vec<(String, BindVariable)>,
    /// Hash of `sql`. A cache must still compare the text.
    pub fingerprint: u64,
    /// Comments in front (with `/*vt+ … */` directives) and behind; mostly empty.
    pub leading: String,
    pub trailing: String,
    /// Session functions, user or system variables occur: the plan has to rewrite the text
    /// ([`crate::rewrite_session`]).
    pub session_dependent: bool,
    /// Number of `?` placeholders; they became `:v1` ….
    pub placeholders: usize,
}

/// Walks `sql` once.
///
/// Errors: text outside of literals that is not UTF-8.
pub fn normalize(sql: &[u8]) -> Result<Normalized, vterrors::VtError> {
    let _ = sql;
    unimplemented!()
}
