//! The vschema: which keyspaces are sharded, by which vindexes, and where a table name leads.
//!
//! Owns: [`VSchema`], built from the topology's `SrvVSchema`; its check with the texts users know;
//! JSON in and out; the changes of `alter vschema`; which shard a row lives on, for what moves rows
//! between shards. Invariant: building never fails as a whole. A
//! keyspace with a fault keeps the fault and the others work.

mod build;
mod ddl;
mod debug;
mod find;
mod model;
mod placement;
mod validate;

pub use ddl::{Command, VindexSpec, apply};
pub use model::{AutoIncrement, Column, ColumnVindex, Keyspace, RoutingRule, Table, TableType, VSchema, VindexDef};
pub use placement::{Placement, brings_reference_rows};
pub use validate::{parse_keyspace, parse_routing_rules, validate, validate_json};
