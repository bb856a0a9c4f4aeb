//! The entry: which part of this crate plans a statement.

use vschema::VSchema;
use vterrors::VtError;
use vtsql::Statement;

use crate::primitive::Plan;
use crate::target::Target;

/// What a plan depends on besides the statement.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub vschema: &'a VSchema,
    /// The session's target.
    pub target: &'a Target,
    /// A transaction is open (for checks only: a cached plan does not depend on it).
    pub in_transaction: bool,
}

/// Plans `statement`.
pub fn plan(statement: &Statement, context: &Context<'_>) -> Result<Plan, VtError> {
    let _ = (statement, context);
    unimplemented!()
}
