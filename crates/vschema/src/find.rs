//! Where a table name leads.

use std::sync::Arc;

use vterrors::{Code, VtError};
use vtproto::topodata::TabletType;

use crate::build::fault;
use crate::model::{Keyspace, Table, TableType, VSchema, VindexDef};

impl Table {
    /// A table that no vschema names.
    pub(crate) fn unknown(keyspace: &str, name: &str, sharded: bool) -> Self {
        Self {
            kind: TableType::Ordinary,
            name: name.to_owned(),
            keyspace: keyspace.to_owned(),
            sharded,
            column_vindexes: Vec::new(),
            auto_increment: None,
            columns: Vec::new(),
            pinned: None,
            column_list_authoritative: false,
            unknown: true,
        }
    }
}

impl VSchema {
    /// The keyspace of that name; error `keyspace %s not found in vschema`.
    pub fn keyspace(&self, name: &str) -> Result<&Keyspace, VtError> {
        self.keyspaces
            .get(name)
            .ok_or_else(|| VtError::new(Code::InvalidArgument, format!("keyspace {name} not found in vschema")))
    }

    /// The tables that `[keyspace.]name` leads to, routing rules first; never empty. `keyspace` is the
    /// qualifier or, without one, the session's keyspace; empty for neither.
    pub fn find_routed_table(
        &self,
        keyspace: &str,
        name: &str,
        tablet_type: TabletType,
    ) -> Result<Vec<Arc<Table>>, VtError> {
        if !self.routing_rules.is_empty() {
            let qualified = if keyspace.is_empty() { name.to_owned() } else { format!("{keyspace}.{name}") };
            let suffix = match tablet_type {
                TabletType::Master => "@master",
                TabletType::Replica => "@replica",
                TabletType::Rdonly => "@rdonly",
                _ => "",
            };
            for entry in [format!("{qualified}{suffix}"), qualified] {
                let Some(rule) = self.routing_rules.get(&entry) else { continue };
                if let Some(error) = &rule.error {
                    return Err(error.clone());
                }
                if rule.tables.is_empty() {
                    return Err(fault(format!("table {name} has been disabled")));
                }
                return Ok(rule.tables.clone());
            }
        }
        Ok(vec![self.find_table(keyspace, name)?])
    }

    /// As [`VSchema::find_routed_table`] without rules.
    pub fn find_table(&self, keyspace: &str, name: &str) -> Result<Arc<Table>, VtError> {
        let keyspace = if keyspace.is_empty() {
            match self.unique_tables.get(name) {
                Some(Some(table)) => return Ok(table.clone()),
                Some(None) => return Err(fault(format!("ambiguous table reference: {name}"))),
                None => match self.only_keyspace() {
                    Some(keyspace) => keyspace,
                    None => return Err(fault(format!("table {name} not found"))),
                },
            }
        } else {
            self.keyspace(keyspace)?
        };
        match keyspace.tables.get(name) {
            Some(table) => Ok(table.clone()),
            // A keyspace whose vschema is broken must not take tables for unknown ones.
            None if keyspace.sharded => Err(fault(format!("table {name} not found"))),
            None => Ok(Arc::new(Table::unknown(&keyspace.name, name, false))),
        }
    }

    /// The vindex `[keyspace.]name`; `None` when there is none. Errors: ambiguous, unknown keyspace.
    pub fn find_vindex(&self, keyspace: &str, name: &str) -> Result<Option<Arc<VindexDef>>, VtError> {
        if !keyspace.is_empty() {
            return Ok(self.keyspace(keyspace)?.vindexes.get(name).cloned());
        }
        match self.unique_vindexes.get(name) {
            Some(Some(vindex)) => Ok(Some(vindex.clone())),
            Some(None) => Err(fault(format!("ambiguous vindex reference: {name}"))),
            None => Ok(None),
        }
    }

    /// The only keyspace, when there is one.
    pub fn only_keyspace(&self) -> Option<&Keyspace> {
        match self.keyspaces.len() {
            1 => self.keyspaces.values().next(),
            _ => None,
        }
    }

    /// The first keyspace by name, which serves what needs any.
    pub fn first_keyspace(&self) -> Option<&Keyspace> {
        self.keyspaces.values().next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtproto::vschema as pb;

    fn built(json: &str) -> VSchema {
        VSchema::build(&vtjson::from_json::<pb::SrvVSchema>(json).expect(json))
    }

    fn found(vschema: &VSchema, keyspace: &str, name: &str) -> String {
        match vschema.find_routed_table(keyspace, name, TabletType::Master) {
            Ok(tables) => tables.iter().map(|t| format!("{}.{}", t.keyspace, t.name)).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_single_unsharded_keyspace_takes_every_name() {
        let vschema = built(r#"{"keyspaces":{"commerce":{"tables":{"product":{}}}}}"#);
        assert_eq!(found(&vschema, "", "product"), "commerce.product");
        assert_eq!(found(&vschema, "", "nope"), "commerce.nope");
        assert_eq!(found(&vschema, "commerce", "nope"), "commerce.nope");
        assert_eq!(found(&vschema, "other", "nope"), "keyspace other not found in vschema");
        assert_eq!(found(&vschema, "", "dual"), "commerce.dual");
    }

    #[test]
    fn names_in_several_keyspaces() {
        let vschema = built(
            r#"{"keyspaces":{"a":{"tables":{"t":{},"x":{}}},"b":{"tables":{"t":{}}},
                "c":{"sharded":true,"vindexes":{"h":{"type":"hash"}},"tables":{"s":{"columnVindexes":[{"column":"id","name":"h"}]}}},
                "d":{"requireExplicitRouting":true,"tables":{"x":{}}}}}"#,
        );
        assert_eq!(found(&vschema, "", "t"), "ambiguous table reference: t");
        assert_eq!(found(&vschema, "", "x"), "a.x");
        assert_eq!(found(&vschema, "", "nope"), "table nope not found");
        assert_eq!(found(&vschema, "c", "nope"), "table nope not found");
        assert_eq!(found(&vschema, "b", "nope"), "b.nope");
        assert_eq!(found(&vschema, "", "s"), "c.s");
        assert_eq!(found(&vschema, "", "dual"), "a.dual");
    }

    #[test]
    fn rules_come_first() {
        let vschema = built(
            r#"{"routingRules":{"rules":[
                {"fromTable":"t","toTables":["b.t"]},{"fromTable":"a.t","toTables":["b.t2"]},
                {"fromTable":"r@replica","toTables":["b.r"]},{"fromTable":"off","toTables":[]},
                {"fromTable":"bad","toTables":["x"]},{"fromTable":"twice","toTables":["a.t","a.t"]},
                {"fromTable":"dup","toTables":["a.t"]},{"fromTable":"dup","toTables":["a.t"]},
                {"fromTable":"gone","toTables":["none.none"]}]},
                "keyspaces":{"a":{},"b":{}}}"#,
        );
        assert_eq!(found(&vschema, "", "t"), "b.t");
        assert_eq!(found(&vschema, "a", "t"), "b.t2");
        assert_eq!(found(&vschema, "", "off"), "table off has been disabled");
        assert_eq!(found(&vschema, "", "bad"), "table x must be qualified");
        assert_eq!(found(&vschema, "", "twice"), "table a.t specified more than once");
        assert_eq!(found(&vschema, "", "dup"), "duplicate rule for entry dup");
        assert_eq!(found(&vschema, "", "gone"), "keyspace none not found in vschema");
        let replica = vschema.find_routed_table("", "r", TabletType::Replica).expect("rule");
        assert_eq!((replica[0].keyspace.as_str(), replica[0].name.as_str()), ("b", "r"));
    }

    #[test]
    fn a_sequence_that_is_not_there_drops_its_table_only() {
        let vschema = built(
            r#"{"keyspaces":{"a":{"tables":{"seq":{"type":"sequence"},"ok":{"autoIncrement":{"column":"id","sequence":"seq"}},
                "bad":{"autoIncrement":{"column":"id","sequence":"b.nope"}}}}}}"#,
        );
        let ok = vschema.find_table("a", "ok").expect("there");
        assert_eq!(ok.auto_increment.as_ref().map(|a| a.sequence_keyspace.as_str()), Some("a"));
        let error = vschema.keyspaces["a"].error.as_ref().expect("an error").to_string();
        assert_eq!(error, "cannot resolve sequence b.nope: keyspace b not found in vschema");
        assert!(!vschema.keyspaces["a"].tables.contains_key("bad"));
    }
}
