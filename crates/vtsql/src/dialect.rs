//! The dialect.

use crate::error::SyntaxError;
use crate::statement::Tree;

pub(crate) fn parse_tree(sql: &str) -> Result<Tree, SyntaxError> {
    let _ = sql;
    unimplemented!()
}
