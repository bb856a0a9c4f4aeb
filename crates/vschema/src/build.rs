//! From the topology's record to the built vschema.
//!
//! Order matters: keyspaces first, then sequences and `dual`, which look tables up, rules last.

use std::collections::BTreeMap;
use std::sync::Arc;

use vterrors::{Code, VtError};
use vtproto::vschema as pb;

use crate::model::{AutoIncrement, Column, ColumnVindex, Keyspace, RoutingRule, Table, TableType, VSchema, VindexDef};

/// The table that is always there.
pub(crate) const DUAL: &str = "dual";

impl VSchema {
    /// Builds every keyspace and rule; faults stay with what has them.
    pub fn build(source: &pb::SrvVSchema) -> Self {
        let mut built = Self::default();
        for (name, record) in &source.keyspaces {
            let mut keyspace = Keyspace {
                name: name.clone(),
                sharded: record.sharded,
                tables: BTreeMap::new(),
                vindexes: BTreeMap::new(),
                error: None,
            };
            if let Err(found) = fill(&mut keyspace, record) {
                keyspace.error = Some(fault(found.text));
            }
            if !record.require_explicit_routing {
                built.share_names(&keyspace);
            }
            built.keyspaces.insert(name.clone(), keyspace);
        }
        built.resolve_sequences(source);
        built.add_dual();
        for rule in source.routing_rules.iter().flat_map(|rules| &rules.rules) {
            let rule_built = if built.routing_rules.contains_key(&rule.from_table) {
                let text = format!("duplicate rule for entry {}", rule.from_table);
                RoutingRule { tables: Vec::new(), error: Some(fault(text)) }
            } else {
                built.rule(rule)
            };
            built.routing_rules.insert(rule.from_table.clone(), rule_built);
        }
        built
    }

    /// Enters the names of a keyspace where unqualified ones are looked up; a second owner makes a name
    /// ambiguous.
    fn share_names(&mut self, keyspace: &Keyspace) {
        for (name, table) in &keyspace.tables {
            let entry = self.unique_tables.entry(name.clone());
            entry.and_modify(|shared| *shared = None).or_insert_with(|| Some(table.clone()));
        }
        for (name, vindex) in &keyspace.vindexes {
            let entry = self.unique_vindexes.entry(name.clone());
            entry.and_modify(|shared| *shared = None).or_insert_with(|| Some(vindex.clone()));
        }
    }

    /// Binds auto-increment columns to their sequences. A table whose sequence is not there is dropped:
    /// better no table than one whose rows get no ids.
    fn resolve_sequences(&mut self, source: &pb::SrvVSchema) {
        for (keyspace_name, record) in &source.keyspaces {
            for (name, table) in &record.tables {
                let Some(auto) = &table.auto_increment else { continue };
                let (keyspace, sequence) = auto.sequence.rsplit_once('.').unwrap_or(("", &auto.sequence));
                let found = self.find_table(keyspace, sequence);
                let Some(owner) = self.keyspaces.get_mut(keyspace_name) else { continue };
                let Some(built) = owner.tables.get(name) else { continue };
                match found {
                    Ok(sequence) => {
                        let auto_increment = Some(AutoIncrement {
                            column: auto.column.clone(),
                            sequence: sequence.name.clone(),
                            sequence_keyspace: sequence.keyspace.clone(),
                        });
                        let bound = Arc::new(Table { auto_increment, ..Table::clone(built) });
                        owner.tables.insert(name.clone(), bound.clone());
                        if let Some(Some(shared)) = self.unique_tables.get_mut(name)
                            && shared.keyspace == *keyspace_name
                        {
                            *shared = bound;
                        }
                    }
                    Err(error) => {
                        owner.tables.remove(name);
                        owner.error = Some(fault(format!("cannot resolve sequence {}: {error}", auto.sequence)));
                        self.unique_tables.remove(name);
                    }
                }
            }
        }
    }

    /// `dual` is in every keyspace; unqualified it is the first one's.
    fn add_dual(&mut self) {
        for keyspace in self.keyspaces.values_mut().rev() {
            let table = Arc::new(Table {
                kind: TableType::Reference,
                ..Table::unknown(&keyspace.name, DUAL, keyspace.sharded)
            });
            keyspace.tables.insert(DUAL.to_owned(), table.clone());
            self.unique_tables.insert(DUAL.to_owned(), Some(table));
        }
    }

    fn rule(&self, rule: &pb::RoutingRule) -> RoutingRule {
        let mut tables: Vec<Arc<Table>> = Vec::new();
        for (i, to) in rule.to_tables.iter().enumerate() {
            let found = if rule.to_tables[..i].contains(to) {
                Err(fault(format!("table {to} specified more than once")))
            } else {
                match to.split_once('.') {
                    Some((keyspace, table)) if !keyspace.is_empty() && !table.is_empty() => {
                        self.find_table(keyspace, table)
                    }
                    _ => Err(fault(format!("table {to} must be qualified"))),
                }
            };
            match found {
                Ok(table) => tables.push(table),
                Err(error) => return RoutingRule { tables: Vec::new(), error: Some(error) },
            }
        }
        RoutingRule { tables, error: None }
    }
}

/// A fault of the vschema, said to whoever uses the broken part.
pub(crate) fn fault(text: String) -> VtError {
    VtError::new(Code::Unknown, text)
}

/// What is wrong with a record, and the path of the value that has it, in the form of [`vtjson::place`].
pub(crate) struct Fault {
    pub text: String,
    pub path: Vec<String>,
}

impl Fault {
    /// A fault of the value that `path` leads to from where the fault is found.
    pub(crate) fn at<const N: usize>(path: [&str; N], text: impl Into<String>) -> Self {
        Self { text: text.into(), path: path.map(str::to_owned).into() }
    }

    /// The same seen from further out.
    fn within<const N: usize>(mut self, path: [&str; N]) -> Self {
        self.path.splice(0..0, path.map(str::to_owned));
        self
    }
}

/// Builds vindexes and tables of a keyspace. What was built before the first fault stays.
pub(crate) fn fill(keyspace: &mut Keyspace, record: &pb::Keyspace) -> Result<(), Fault> {
    for (name, vindex) in &record.vindexes {
        let built = vindex::create(&vindex.r#type, name, &vindex.params).map_err(|error| {
            let part = if error.code() == Code::NotFound { "type" } else { "params" };
            Fault::at(["vindexes", name, part], error.message())
        })?;
        keyspace.vindexes.insert(
            name.clone(),
            Arc::new(VindexDef {
                name: name.clone(),
                keyspace: keyspace.name.clone(),
                kind: vindex.r#type.clone(),
                params: vindex.params.clone(),
                owner: vindex.owner.clone(),
                vindex: built,
            }),
        );
    }
    for (name, table) in &record.tables {
        let built = build_table(keyspace, name, table).map_err(|fault| fault.within(["tables", name]))?;
        keyspace.tables.insert(name.clone(), Arc::new(built));
    }
    Ok(())
}

fn build_table(keyspace: &Keyspace, name: &str, record: &pb::Table) -> Result<Table, Fault> {
    let kind = match record.r#type.as_str() {
        "" => TableType::Ordinary,
        "reference" => TableType::Reference,
        "sequence" if keyspace.sharded && record.pinned.is_empty() => {
            return Err(Fault::at(
                ["type"],
                format!("sequence table has to be in an unsharded keyspace or must be pinned: {name}"),
            ));
        }
        "sequence" => TableType::Sequence,
        other => return Err(Fault::at(["type"], format!("unidentified table type {other}"))),
    };
    let pinned = match record.pinned.as_str() {
        "" => None,
        hex => Some(
            unhex(hex)
                .map_err(|what| Fault::at(["pinned"], format!("could not decode the keyspace id for pin: {what}")))?,
        ),
    };
    if keyspace.sharded && kind != TableType::Reference && pinned.is_none() && record.column_vindexes.is_empty() {
        return Err(Fault::at(["column_vindexes"], format!("missing primary col vindex for table: {name}")));
    }
    let mut columns: Vec<Column> = Vec::with_capacity(record.columns.len());
    for (i, column) in record.columns.iter().enumerate() {
        if columns.iter().any(|c| c.name.eq_ignore_ascii_case(&column.name)) {
            return Err(Fault::at(
                ["columns", &i.to_string(), "name"],
                format!("duplicate column name '{}' for table: {name}", column.name),
            ));
        }
        columns.push(Column { name: column.name.clone(), kind: column.r#type() });
    }
    let mut column_vindexes = Vec::with_capacity(record.column_vindexes.len());
    for (i, column_vindex) in record.column_vindexes.iter().enumerate() {
        let built = build_column_vindex(keyspace, name, column_vindex, i == 0)
            .map_err(|text| Fault::at(["column_vindexes", &i.to_string(), "name"], text))?;
        column_vindexes.push(built);
    }
    Ok(Table {
        kind,
        column_vindexes,
        columns,
        pinned,
        column_list_authoritative: record.column_list_authoritative,
        unknown: false,
        ..Table::unknown(&keyspace.name, name, keyspace.sharded)
    })
}

/// The error is the text of the fault.
fn build_column_vindex(
    keyspace: &Keyspace,
    table: &str,
    record: &pb::ColumnVindex,
    primary: bool,
) -> Result<ColumnVindex, String> {
    let name = &record.name;
    let Some(definition) = keyspace.vindexes.get(name) else {
        return Err(format!("vindex {name} not found for table {table}"));
    };
    let columns = match (record.column.as_str(), record.columns.as_slice()) {
        ("", []) => {
            return Err(format!("must specify at least one column for vindex ({name}) and table ({table})"));
        }
        ("", columns) => columns.to_vec(),
        (column, []) => vec![column.to_owned()],
        _ => {
            return Err(format!(
                "can't use column and columns at the same time in vindex ({name}) and table ({table})"
            ));
        }
    };
    let owned = definition.vindex.is_lookup() && definition.owner == table;
    if primary && !definition.vindex.is_unique() {
        return Err(format!("primary vindex {name} is not Unique for table {table}"));
    }
    if primary && owned {
        return Err(format!("primary vindex {name} cannot be owned for table {table}"));
    }
    Ok(ColumnVindex {
        columns,
        name: name.clone(),
        kind: definition.kind.clone(),
        owned,
        vindex: definition.vindex.clone(),
    })
}

/// Bytes of a hex text, with Go's words for what is wrong.
fn unhex(text: &str) -> Result<Vec<u8>, String> {
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(format!("encoding/hex: invalid byte: U+{:04X} '{bad}'", bad as u32));
    }
    if !text.len().is_multiple_of(2) {
        return Err("encoding/hex: odd length hex string".to_owned());
    }
    let digit = |b: u8| (b as char).to_digit(16).unwrap_or(0) as u8;
    Ok(text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect())
}

#[cfg(test)]
mod tests {
    use crate::validate::parse_keyspace;

    /// The fault of a keyspace given as JSON.
    fn fault_of(json: &str) -> String {
        crate::validate(&parse_keyspace(json).expect(json)).expect_err(json).to_string()
    }

    #[test]
    fn faults_have_vitess_texts() {
        let vindexes = r#""vindexes":{"h":{"type":"hash"},"l":{"type":"lookup","owner":"t"},"lu":{"type":"lookup_unique","owner":"t"}}"#;
        for (table, want) in [
            (r#"{"type":"nope"}"#, "unidentified table type nope"),
            (r#"{"type":"sequence"}"#, "sequence table has to be in an unsharded keyspace or must be pinned: t"),
            ("{}", "missing primary col vindex for table: t"),
            (r#"{"columnVindexes":[{"column":"id","name":"nope"}]}"#, "vindex nope not found for table t"),
            (r#"{"columnVindexes":[{"column":"id","name":"l"}]}"#, "primary vindex l is not Unique for table t"),
            (r#"{"columnVindexes":[{"column":"id","name":"lu"}]}"#, "primary vindex lu cannot be owned for table t"),
            (
                r#"{"columnVindexes":[{"column":"id","columns":["x"],"name":"h"}]}"#,
                "can't use column and columns at the same time in vindex (h) and table (t)",
            ),
            (r#"{"columnVindexes":[{"name":"h"}]}"#, "must specify at least one column for vindex (h) and table (t)"),
            (
                r#"{"columnVindexes":[{"column":"id","name":"h"}],"columns":[{"name":"a"},{"name":"A"}]}"#,
                "duplicate column name 'A' for table: t",
            ),
            (r#"{"pinned":"8"}"#, "could not decode the keyspace id for pin: encoding/hex: odd length hex string"),
        ] {
            assert_eq!(fault_of(&format!(r#"{{"sharded":true,{vindexes},"tables":{{"t":{table}}}}}"#)), want);
        }
        assert_eq!(fault_of(r#"{"vindexes":{"x":{"type":"nope"}}}"#), "vindexType \"nope\" not found");
    }
}
