//! From a statement, the vschema and a session's target to a plan. Pure: no I/O.
//!
//! Owns: [`plan`], the [`Plan`] and its primitives, target strings, and the table of system variables
//! ([`sysvars`]). Texts go on as the user wrote them, literals lifted by `vtsql::normalize`; only session
//! functions are replaced, and qualifiers that a tablet could not know are cut out.
//!
//! What is planned: everything for unsharded keyspaces and explicit shards, statements that a gate answers
//! itself, and what `sharded` can do with tables of sharded keyspaces; the rest is refused with
//! UNIMPLEMENTED.

mod plan;
mod primitive;
mod route;
mod set;
mod sharded;
mod show;
pub mod sysvars;
mod target;
mod text;
mod value;
mod vschema_ddl;

pub use plan::{Context, plan, plan_text};
pub use primitive::{
    Destination, Opcode, Plan, Primitive, Route, RouteText, SavepointAction, SetAction, SetValue, SettingValue,
    ShowAction,
};
pub use sharded::{
    ChangedVindex, ColumnName, Computed, Fetch, Gather, Insert, InsertRows, InsertShape, InsertedRows, Merge, MergeKey,
    OwnedVindexes, ResultColumn, UnlistedInsert, VindexRows, Write,
};
pub use show::like;
pub use target::Target;
pub use value::{PlanValue, VindexDestination, VindexInput, bind_variable, resolve_list};
pub use vschema_ddl::parse_vschema_ddl;
