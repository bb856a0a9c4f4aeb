//! `alter vschema`: changes as pure functions on the record.

use std::collections::BTreeMap;

use vterrors::{Code, VtError};
use vtproto::vschema as pb;

/// A vindex as `… using type with owner=t, a=b` defines it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VindexSpec {
    pub kind: String,
    pub params: BTreeMap<String, String>,
    pub owner: String,
}

/// One `alter vschema` statement. Tables and vindexes are of the keyspace it is applied to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `create vindex name using type [with a=b, …]`.
    CreateVindex { name: String, spec: VindexSpec },
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
        /// Created when it is not there, compared when it is.
        spec: Option<VindexSpec>,
    },
    /// `on t drop vindex name`.
    DropColumnVindex { table: String, name: String },
    /// `add sequence s`.
    AddSequence { table: String },
    /// `on t add auto_increment col using seq`.
    AddAutoIncrement { table: String, column: String, sequence: String },
}

/// Applies `command` to a keyspace named `keyspace_name`. The record is unchanged after an error, which
/// includes a result that [`crate::validate`] refuses.
pub fn apply(keyspace: &mut pb::Keyspace, keyspace_name: &str, command: &Command) -> Result<(), VtError> {
    let mut changed = keyspace.clone();
    change(&mut changed, keyspace_name, command)?;
    crate::validate(&changed)?;
    *keyspace = changed;
    Ok(())
}

fn refuse<T>(text: String) -> Result<T, VtError> {
    Err(VtError::new(Code::InvalidArgument, text))
}

fn change(keyspace: &mut pb::Keyspace, ks: &str, command: &Command) -> Result<(), VtError> {
    match command {
        Command::CreateVindex { name, spec } => {
            if keyspace.vindexes.contains_key(name) {
                return refuse(format!("vindex {name} already exists in keyspace {ks}"));
            }
            create_vindex(keyspace, name, spec);
        }
        Command::DropVindex { name } => {
            if !keyspace.vindexes.contains_key(name) {
                return refuse(format!("vindex {name} does not exists in keyspace {ks}"));
            }
            let user = keyspace.tables.iter().find(|(_, t)| t.column_vindexes.iter().any(|v| v.name == *name));
            if let Some((table, _)) = user {
                return refuse(format!("can not drop vindex cause {name} still defined on table {table}"));
            }
            keyspace.vindexes.remove(name);
        }
        Command::AddTable { table } => {
            if keyspace.tables.contains_key(table) {
                return refuse(format!("vschema already contains table {table} in keyspace {ks}"));
            }
            keyspace.tables.insert(table.clone(), pb::Table::default());
        }
        Command::DropTable { table } => {
            if keyspace.tables.remove(table).is_none() {
                return refuse(format!("vschema does not contain table {table} in keyspace {ks}"));
            }
        }
        Command::AddColumnVindex { table, name, columns, spec } => {
            match (spec, keyspace.vindexes.get(name)) {
                (Some(spec), Some(there)) => {
                    if there.r#type != spec.kind {
                        return refuse(format!("vindex {name} defined with type {} not {}", there.r#type, spec.kind));
                    }
                    if there.owner != spec.owner {
                        return refuse(format!("vindex {name} defined with owner {} not {}", there.owner, spec.owner));
                    }
                    if there.params != spec.params {
                        return refuse(format!("vindex {name} defined with different parameters"));
                    }
                }
                (Some(spec), None) => create_vindex(keyspace, name, spec),
                (None, Some(_)) => {}
                (None, None) => return refuse(format!("vindex {name} does not exist in keyspace {ks}")),
            }
            let record = keyspace.tables.entry(table.clone()).or_default();
            if record.column_vindexes.iter().any(|v| v.name == *name) {
                return refuse(format!("vindex {name} already defined on table {table}"));
            }
            record.column_vindexes.push(pb::ColumnVindex {
                name: name.clone(),
                columns: columns.clone(),
                ..Default::default()
            });
        }
        Command::DropColumnVindex { table, name } => {
            let Some(record) = keyspace.tables.get_mut(table) else {
                return refuse(format!("table {ks}.{table} not defined in vschema"));
            };
            let Some(at) = record.column_vindexes.iter().position(|v| v.name == *name) else {
                return refuse(format!("vindex {name} not defined in table {ks}.{table}"));
            };
            record.column_vindexes.remove(at);
            if record.column_vindexes.is_empty() {
                keyspace.tables.remove(table);
            }
        }
        Command::AddSequence { table } => {
            if keyspace.sharded {
                return refuse(format!("add sequence table: unsupported on sharded keyspace {ks}"));
            }
            if keyspace.tables.contains_key(table) {
                return refuse(format!("vschema already contains sequence {table} in keyspace {ks}"));
            }
            keyspace.tables.insert(table.clone(), pb::Table { r#type: "sequence".into(), ..Default::default() });
        }
        Command::AddAutoIncrement { table, column, sequence } => {
            let Some(record) = keyspace.tables.get_mut(table) else {
                return refuse(format!("vschema does not contain table {table} in keyspace {ks}"));
            };
            if let Some(there) = &record.auto_increment {
                return refuse(format!(
                    "vschema already contains auto inc {} on table {table} in keyspace {ks}",
                    there.column
                ));
            }
            record.auto_increment = Some(pb::AutoIncrement { column: column.clone(), sequence: sequence.clone() });
        }
    }
    Ok(())
}

/// The first vindex makes a keyspace sharded.
fn create_vindex(keyspace: &mut pb::Keyspace, name: &str, spec: &VindexSpec) {
    keyspace.sharded |= keyspace.vindexes.is_empty();
    let vindex = pb::Vindex { r#type: spec.kind.clone(), params: spec.params.clone(), owner: spec.owner.clone() };
    keyspace.vindexes.insert(name.to_owned(), vindex);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: &str) -> VindexSpec {
        VindexSpec { kind: kind.into(), params: BTreeMap::new(), owner: String::new() }
    }

    #[test]
    fn a_keyspace_grows_step_by_step() {
        let mut keyspace = pb::Keyspace::default();
        let mut run = |command: Command| apply(&mut keyspace, "ks", &command).map_err(|e| e.to_string());
        assert_eq!(run(Command::CreateVindex { name: "h".into(), spec: spec("hash") }), Ok(()));
        assert_eq!(
            run(Command::CreateVindex { name: "h".into(), spec: spec("hash") }),
            Err("vindex h already exists in keyspace ks".into())
        );
        assert_eq!(
            run(Command::CreateVindex { name: "x".into(), spec: spec("nope") }),
            Err("vindexType \"nope\" not found".into())
        );
        let add = |name: &str, spec| Command::AddColumnVindex {
            table: "t".into(),
            name: name.into(),
            columns: vec!["id".into()],
            spec,
        };
        assert_eq!(run(add("h", None)), Ok(()));
        assert_eq!(run(add("h", None)), Err("vindex h already defined on table t".into()));
        assert_eq!(run(add("h", Some(spec("binary")))), Err("vindex h defined with type hash not binary".into()));
        assert_eq!(run(add("nope", None)), Err("vindex nope does not exist in keyspace ks".into()));
        assert_eq!(
            run(Command::DropVindex { name: "h".into() }),
            Err("can not drop vindex cause h still defined on table t".into())
        );
        let auto = Command::AddAutoIncrement { table: "t".into(), column: "id".into(), sequence: "seq".into() };
        assert_eq!(run(auto.clone()), Ok(()));
        assert_eq!(run(auto), Err("vschema already contains auto inc id on table t in keyspace ks".into()));
        assert_eq!(run(Command::DropColumnVindex { table: "t".into(), name: "h".into() }), Ok(()));
        assert_eq!(run(Command::DropVindex { name: "h".into() }), Ok(()));
        assert!(keyspace.sharded && keyspace.vindexes.is_empty() && keyspace.tables.is_empty());
    }

    #[test]
    fn a_refused_change_leaves_nothing() {
        let mut keyspace = pb::Keyspace { sharded: true, ..Default::default() };
        let error = apply(&mut keyspace, "ks", &Command::AddTable { table: "t".into() }).expect_err("needs a vindex");
        assert_eq!(error.to_string(), "missing primary col vindex for table: t");
        assert!(keyspace.tables.is_empty());
    }
}
