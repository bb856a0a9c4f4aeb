//! Syntax errors, worded as Vitess words them.

use vterrors::{Code, VtError};

/// The statement stops making sense at a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error at position {position}{}", near_clause(.near))]
pub struct SyntaxError {
    /// One more than the byte offset behind the token, which is where Vitess's scanner stands then.
    pub position: usize,
    /// The token, lower-cased when it is a keyword; empty at the end of the text.
    pub near: String,
}

fn near_clause(near: &str) -> String {
    if near.is_empty() { String::new() } else { format!(" near '{near}'") }
}

impl From<SyntaxError> for VtError {
    fn from(error: SyntaxError) -> Self {
        VtError::new(Code::InvalidArgument, error.to_string())
    }
}
