//! The JSON of `/debug/vschema`: the built vschema, not the record.

use serde_json::{Map, Value, json};

use crate::model::{Keyspace, Table, TableType, VSchema};

impl VSchema {
    /// The built vschema in the shape of `/debug/vschema`; print with one blank of indentation.
    pub fn debug_json(&self) -> Value {
        let rule = |rule: &crate::RoutingRule| match &rule.error {
            Some(error) => json!(error.to_string()),
            None => rule.tables.iter().map(|t| format!("{}.{}", t.keyspace, t.name)).collect::<Vec<_>>().into(),
        };
        let rules: Map<String, Value> = self.routing_rules.iter().map(|(name, r)| (name.clone(), rule(r))).collect();
        let keyspaces: Map<String, Value> =
            self.keyspaces.iter().map(|(name, k)| (name.clone(), keyspace_json(k))).collect();
        json!({ "routing_rules": rules, "keyspaces": keyspaces })
    }
}

fn keyspace_json(keyspace: &Keyspace) -> Value {
    let mut out = Map::new();
    if keyspace.sharded {
        out.insert("sharded".into(), true.into());
    }
    if !keyspace.tables.is_empty() {
        let tables: Map<String, Value> = keyspace.tables.iter().map(|(n, t)| (n.clone(), table_json(t))).collect();
        out.insert("tables".into(), tables.into());
    }
    if !keyspace.vindexes.is_empty() {
        let vindexes: Map<String, Value> =
            keyspace.vindexes.iter().map(|(n, v)| (n.clone(), vindex_json(&v.kind, &v.params))).collect();
        out.insert("vindexes".into(), vindexes.into());
    }
    if let Some(error) = &keyspace.error {
        out.insert("error".into(), error.to_string().into());
    }
    out.into()
}

/// Lookups show what they look at, other vindexes nothing.
fn vindex_json(kind: &str, params: &std::collections::BTreeMap<String, String>) -> Value {
    if !kind.contains("lookup") {
        return json!({});
    }
    let from: Vec<&str> = params.get("from").map_or("", String::as_str).split(',').map(str::trim).collect();
    let text = |name: &str| params.get(name).cloned().unwrap_or_default();
    let mut out = Map::new();
    out.insert("table".into(), text("table").into());
    out.insert("from_columns".into(), from.into());
    out.insert("to".into(), text("to").into());
    if params.get("autocommit").is_some_and(|v| v == "true") {
        out.insert("autocommit".into(), true.into());
        if !kind.contains("unique") {
            out.insert("upsert".into(), true.into());
        }
    }
    out.into()
}

fn table_json(table: &Table) -> Value {
    let mut out = Map::new();
    match table.kind {
        TableType::Ordinary => {}
        TableType::Sequence => {
            out.insert("type".into(), "sequence".into());
        }
        TableType::Reference => {
            out.insert("type".into(), "reference".into());
        }
    }
    out.insert("name".into(), table.name.clone().into());
    let vindex = |v: &crate::ColumnVindex| {
        let mut entry = Map::new();
        entry.insert("columns".into(), v.columns.clone().into());
        entry.insert("type".into(), v.kind.clone().into());
        entry.insert("name".into(), v.name.clone().into());
        if v.owned {
            entry.insert("owned".into(), true.into());
        }
        entry.insert("vindex".into(), json!({}));
        Value::Object(entry)
    };
    if !table.column_vindexes.is_empty() {
        out.insert("column_vindexes".into(), table.column_vindexes.iter().map(vindex).collect());
        let mut ordered: Vec<_> = table.column_vindexes.iter().collect();
        ordered.sort_by_key(|v| v.vindex.cost());
        out.insert("ordered".into(), ordered.into_iter().map(vindex).collect());
    }
    let owned: Vec<Value> = table.column_vindexes.iter().filter(|v| v.owned).map(vindex).collect();
    if !owned.is_empty() {
        out.insert("owned".into(), owned.into());
    }
    if let Some(auto) = &table.auto_increment {
        let sequence = json!({ "type": "sequence", "name": auto.sequence });
        out.insert("auto_increment".into(), json!({ "column": auto.column, "sequence": sequence }));
    }
    if !table.columns.is_empty() {
        let column = |c: &crate::Column| {
            let mut entry = Map::new();
            entry.insert("name".into(), c.name.clone().into());
            entry.insert("type".into(), c.kind.as_str_name().into());
            Value::Object(entry)
        };
        out.insert("columns".into(), table.columns.iter().map(column).collect());
    }
    if let Some(pinned) = &table.pinned {
        out.insert("pinned".into(), base64(pinned).into());
    }
    if table.column_list_authoritative {
        out.insert("column_list_authoritative".into(), true.into());
    }
    out.into()
}

/// Go writes bytes so.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |n, &b| n << 8 | u32::from(b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * i)) as usize & 63] as char;
            out.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtproto::vschema as pb;

    #[test]
    fn the_walkthroughs_vschema() {
        let source = r#"{"keyspaces":{"commerce":{"tables":{"corder":{},"customer":{},"product":{}}}}}"#;
        let vschema = VSchema::build(&vtjson::from_json::<pb::SrvVSchema>(source).expect("JSON"));
        assert_eq!(
            vschema.debug_json().to_string(),
            r#"{"routing_rules":{},"keyspaces":{"commerce":{"tables":{"corder":{"name":"corder"},"customer":{"name":"customer"},"dual":{"type":"reference","name":"dual"},"product":{"name":"product"}}}}}"#
        );
    }

    #[test]
    fn bytes_are_written_as_go_does() {
        assert_eq!(
            (base64(b""), base64(b"f"), base64(b"fo"), base64(b"foo")),
            ("".into(), "Zg==".into(), "Zm8=".into(), "Zm9v".into())
        );
    }
}
