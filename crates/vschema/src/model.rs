//! What a built vschema is made of.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use vterrors::VtError;
use vtproto::query::Type;

/// All keyspaces and routing rules of a cell, built. Immutable; a change builds a new one.
#[derive(Debug, Default)]
pub struct VSchema {
    pub keyspaces: BTreeMap<String, Keyspace>,
    /// Rules by name (`t`, `ks.t`, with or without `@type`).
    pub routing_rules: BTreeMap<String, RoutingRule>,
    /// Tables by bare name; `None` where two keyspaces have the name.
    pub(crate) unique_tables: HashMap<String, Option<Arc<Table>>>,
    /// Vindexes by bare name; `None` where two keyspaces have the name.
    pub(crate) unique_vindexes: HashMap<String, Option<Arc<VindexDef>>>,
}

/// A keyspace.
#[derive(Debug)]
pub struct Keyspace {
    pub name: String,
    pub sharded: bool,
    pub tables: BTreeMap<String, Arc<Table>>,
    pub vindexes: BTreeMap<String, Arc<VindexDef>>,
    /// Why this keyspace could not be built; its tables are not to be used then.
    pub error: Option<VtError>,
}

/// What a table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableType {
    Ordinary,
    Sequence,
    /// The same rows on every shard.
    Reference,
}

/// A table of a keyspace.
#[derive(Debug, Clone)]
pub struct Table {
    pub kind: TableType,
    pub name: String,
    pub keyspace: String,
    /// Of its keyspace.
    pub sharded: bool,
    /// The first is the primary one.
    pub column_vindexes: Vec<ColumnVindex>,
    pub auto_increment: Option<AutoIncrement>,
    pub columns: Vec<Column>,
    /// The keyspace id at which a pinned table lives.
    pub pinned: Option<Vec<u8>>,
    /// `columns` is complete.
    pub column_list_authoritative: bool,
    /// In no vschema: accepted because its keyspace is unsharded.
    pub unknown: bool,
}

/// Columns of a table and the vindex over them.
#[derive(Debug, Clone)]
pub struct ColumnVindex {
    pub columns: Vec<String>,
    pub name: String,
    pub kind: String,
    /// This table maintains the vindex.
    pub owned: bool,
    pub vindex: Arc<dyn vindex::Vindex>,
}

/// A column that a sequence fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoIncrement {
    pub column: String,
    /// The sequence table and its keyspace.
    pub sequence: String,
    pub sequence_keyspace: String,
}

/// A column the vschema names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: Type,
}

/// A vindex of a keyspace.
#[derive(Debug, Clone)]
pub struct VindexDef {
    pub name: String,
    pub keyspace: String,
    /// Registered type, `hash`.
    pub kind: String,
    pub params: BTreeMap<String, String>,
    /// Table that maintains it.
    pub owner: String,
    pub vindex: Arc<dyn vindex::Vindex>,
}

/// Where a rule leads.
#[derive(Debug, Clone)]
pub struct RoutingRule {
    /// Empty: the name is disabled.
    pub tables: Vec<Arc<Table>>,
    /// Why the rule cannot be used.
    pub error: Option<VtError>,
}
