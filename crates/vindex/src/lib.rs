//! Vindexes: from a column's value to the keyspace id of its row.
//!
//! Owns: the [`Vindex`] trait, the registry of types ([`create`], [`register`]) and the built-in ones.
//! A custom vindex plugs in through [`register`]. Functional vindexes map without I/O; lookup vindexes
//! have their metadata here, their SQL runs elsewhere.

mod binary;
mod des;
mod hash;
mod lookup;
mod null;
mod numeric;
pub mod registry;
mod reverse_bits;
mod value;
mod xxhash;

use std::fmt;

use keyrange::KeyspaceId;
use vterrors::VtError;

pub use registry::{Params, create, register};
pub use value::{Value, to_u64};

/// Where one value's row lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    KeyspaceId(KeyspaceId),
    /// No such row.
    None,
}

/// A vindex. Instances are immutable and shared by all queries.
pub trait Vindex: fmt::Debug + Send + Sync {
    /// The name it was created under.
    fn name(&self) -> &str;
    /// Planner's order of choice, lowest first.
    fn cost(&self) -> u32;
    /// At most one keyspace id a value.
    fn is_unique(&self) -> bool;
    /// Mapping runs SQL.
    fn needs_lookup(&self) -> bool {
        false
    }
    /// Keeps rows of its own that the owner table's changes maintain.
    fn is_lookup(&self) -> bool {
        false
    }
    /// One destination for each value, in order.
    fn map(&self, values: &[Value]) -> Result<Vec<Destination>, VtError>;
    /// Whether each value maps to the keyspace id beside it.
    fn verify(&self, values: &[Value], ids: &[KeyspaceId]) -> Result<Vec<bool>, VtError>;
    /// The value behind each keyspace id; `None` for vindexes that cannot tell.
    fn reverse_map(&self, ids: &[KeyspaceId]) -> Option<Result<Vec<Value>, VtError>> {
        let _ = ids;
        None
    }
}
