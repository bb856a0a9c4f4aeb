//! `alter vschema`: changes as pure functions on the record.

use std::collections::BTreeMap;

use vterrors::VtError;
use vtproto::vschema as pb;

/// One `alter vschema` statement. Tables and vindexes are of the keyspace it is applied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `create vindex name using type [with a=b, …]`.
    CreateVindex { name: String, kind: String, params: BTreeMap<String, String>, owner: String },
    /// `drop vindex name`.
    DropVindex { name: String },
    /// `add table t`.
    AddTable { table: String },
    /// `drop table t`.
    DropTable { table: String },
    /// `on t add vindex name (cols) [using type [with …]]`.
    AddColumnVindex {
        table: String,
        name: String,
        columns: Vec<String>,
        /// The vindex is created on the way.
        create: Option<(String, BTreeMap<String, String>)>,
    },
    /// `on t drop vindex name`.
    DropColumnVindex { table: String, name: String },
    /// `add sequence s`.
    AddSequence { table: String },
    /// `on t add auto_increment col using seq`.
    AddAutoIncrement { table: String, column: String, sequence: String },
}

/// Applies `command` to a keyspace named `name`. The record is unchanged after an error.
pub fn apply(keyspace: &mut pb::Keyspace, name: &str, command: &Command) -> Result<(), VtError> {
    let _ = (keyspace, name, command);
    unimplemented!()
}
