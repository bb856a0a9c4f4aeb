//! Where a table name leads.

use std::sync::Arc;

use vterrors::VtError;
use vtproto::topodata::TabletType;

use crate::model::{Keyspace, Table, VSchema};

impl VSchema {
    /// The keyspace of that name; error `keyspace %s not found in vschema`.
    pub fn keyspace(&self, name: &str) -> Result<&Keyspace, VtError> {
        let _ = name;
        unimplemented!()
    }

    /// The table that `[keyspace.]name` leads to, routing rules first. `keyspace` is the qualifier or,
    /// without one, the session's keyspace; empty for neither.
    pub fn find_routed_table(
        &self,
        keyspace: &str,
        name: &str,
        tablet_type: TabletType,
    ) -> Result<Vec<Arc<Table>>, VtError> {
        let _ = (keyspace, name, tablet_type);
        unimplemented!()
    }

    /// As [`VSchema::find_routed_table`] without rules.
    pub fn find_table(&self, keyspace: &str, name: &str) -> Result<Arc<Table>, VtError> {
        let _ = (keyspace, name);
        unimplemented!()
    }

    /// The only keyspace, when there is one.
    pub fn only_keyspace(&self) -> Option<&Keyspace> {
        unimplemented!()
    }
}
