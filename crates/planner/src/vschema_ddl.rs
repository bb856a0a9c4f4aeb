//! `alter vschema …` read.

use vterrors::VtError;

/// Reads an `alter vschema` statement: the keyspace its tables are qualified with (empty: the
/// session's) and the change.
pub fn parse_vschema_ddl(sql: &str) -> Result<(String, vschema::Command), VtError> {
    let _ = sql;
    unimplemented!()
}
