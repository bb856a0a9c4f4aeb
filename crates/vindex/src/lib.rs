//! Vindexes: from a column's value to the keyspace id of its row.
//!
//! Owns: the [`Vindex`] trait, the registry of types ([`create`], [`register`]) and the built-in ones.
//! A custom vindex plugs in through [`register`] (`docs/custom-vindex.md`). Functional vindexes map without
//! I/O; lookup vindexes have their SQL texts here, which run elsewhere.

mod binary;
mod des;
mod hash;
mod lookup;
mod loose;
mod null;
mod numeric;
mod region;
pub mod registry;
mod reverse_bits;
mod unicode_loose_md5;
mod value;
mod xxhash;

use std::fmt;

use keyrange::KeyspaceId;
use vterrors::VtError;

pub use lookup::Lookup;
pub use registry::{Params, create, register};
pub use value::{Value, to_u64};

/// Where one value's row lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    KeyspaceId(KeyspaceId),
    /// At several places, as a vindex that is not unique says.
    KeyspaceIds(Vec<KeyspaceId>),
    /// Anywhere: the vindex cannot tell yet.
    AllShards,
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
    /// How many columns it maps at once.
    fn columns(&self) -> usize {
        1
    }
    /// The lookup table behind it, for whoever runs SQL; without one [`Vindex::map`] answers by itself.
    fn lookup(&self) -> Option<&Lookup> {
        None
    }
    /// One destination for each value, in order.
    fn map(&self, values: &[Value]) -> Result<Vec<Destination>, VtError>;
    /// Whether each value maps to the keyspace id beside it.
    fn verify(&self, values: &[Value], ids: &[KeyspaceId]) -> Result<Vec<bool>, VtError>;
    /// One destination for each row of [`Vindex::columns`] values.
    fn map_rows(&self, rows: &[Vec<Value>]) -> Result<Vec<Destination>, VtError> {
        self.map(&first_column(rows))
    }
    /// As [`Vindex::verify`], for rows of values.
    fn verify_rows(&self, rows: &[Vec<Value>], ids: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        self.verify(&first_column(rows), ids)
    }
    /// The value behind each keyspace id; `None` for vindexes that cannot tell.
    fn reverse_map(&self, ids: &[KeyspaceId]) -> Option<Result<Vec<Value>, VtError>> {
        let _ = ids;
        None
    }
}

fn first_column(rows: &[Vec<Value>]) -> Vec<Value> {
    rows.iter().map(|row| row.first().cloned().unwrap_or_else(Value::null)).collect()
}
