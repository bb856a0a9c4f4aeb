//! Statements on tables that are spread over shards.
//!
//! Owns: where the rows of a statement live ([`analysis`]), and what follows from that for SELECT, INSERT,
//! UPDATE and DELETE. A statement whose rows are together goes to their shards as it is written, and what they answer is put in order ([`merge`]); one whose rows
//! are not is taken apart ([`gather`]), or refused.

mod analysis;
mod dml;
mod gather;
mod insert;
mod merge;
mod place;
mod scope;
mod select;
mod walk;

pub(crate) use dml::plan_dml;
pub use dml::{ChangedVindex, OwnedVindexes, Write};
pub use gather::{ColumnName, Computed, Fetch, Gather, VindexRows};
pub(crate) use insert::plan_insert;
pub use insert::{Insert, InsertRows, InsertShape, InsertedRows, UnlistedInsert};
pub use merge::{Merge, MergeKey, ResultColumn};
pub(crate) use select::{plan_select, plan_vindex_select};

use vterrors::{Code, VtError};
use vtsql::{Statement, ast};

/// The tree of a statement. Errors: what the parser cannot read.
fn tree(statement: &Statement) -> Result<&ast::Statement, VtError> {
    match statement.tree() {
        Ok(tree) => Ok(tree.statement()),
        Err(error) => Err(VtError::new(Code::InvalidArgument, error.to_string())),
    }
}
