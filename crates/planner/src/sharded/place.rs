//! Where the rows of a part of a statement live, as far as the statement's text tells.

use std::sync::Arc;

use vindex::Vindex;
use vschema::{ColumnVindex, Table};

use crate::primitive::{Destination, Opcode};
use crate::value::{PlanValue, VindexDestination, VindexInput};

/// A vindex over columns of a table.
#[derive(Debug, Clone)]
pub(crate) struct CvRef {
    pub table: Arc<Table>,
    pub index: usize,
}

impl CvRef {
    pub fn get(&self) -> &ColumnVindex {
        &self.table.column_vindexes[self.index]
    }

    pub fn vindex(&self) -> &Arc<dyn Vindex> {
        &self.get().vindex
    }

    /// The columns that are enough to map a row.
    pub fn columns(&self) -> &[String] {
        let cv = self.get();
        &cv.columns[..cv.vindex.columns().min(cv.columns.len())]
    }

    /// Whether two vindexes are the same one: equal values are at equal places.
    pub fn is_same(&self, other: &Self) -> bool {
        self.table.keyspace == other.table.keyspace && self.get().name == other.get().name
    }
}

/// A place of rows.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// Any shard of any keyspace: no tables.
    Nowhere,
    /// Any shard of a keyspace: reference tables.
    Reference(String),
    /// The shard of an unsharded keyspace.
    Unsharded(String),
    /// A fixed keyspace id.
    Pinned(String, Vec<u8>),
    /// Where a vindex says.
    Vindex(CvRef, VindexInput),
    /// All shards.
    Scatter(String),
}

impl Place {
    /// The rows are on one shard at most.
    pub fn is_single(&self) -> bool {
        match self {
            Self::Nowhere | Self::Reference(_) | Self::Unsharded(_) | Self::Pinned(..) => true,
            Self::Vindex(cv, input) => cv.vindex().is_unique() && matches!(input, VindexInput::Row(_)),
            Self::Scatter(_) => false,
        }
    }

    /// The same rows are everywhere.
    pub fn is_anywhere(&self) -> bool {
        matches!(self, Self::Nowhere | Self::Reference(_))
    }

    pub fn keyspace(&self) -> Option<&str> {
        match self {
            Self::Nowhere => None,
            Self::Reference(keyspace)
            | Self::Unsharded(keyspace)
            | Self::Pinned(keyspace, _)
            | Self::Scatter(keyspace) => Some(keyspace),
            Self::Vindex(cv, _) => Some(&cv.table.keyspace),
        }
    }

    /// How much work it is to go there; the least is taken.
    pub fn cost(&self) -> u32 {
        match self {
            Self::Nowhere | Self::Reference(_) | Self::Unsharded(_) | Self::Pinned(..) => 0,
            Self::Vindex(cv, input) => {
                let many = match input {
                    VindexInput::Row(_) => 0,
                    VindexInput::List(_) | VindexInput::ListVariable(_) => 1000,
                };
                cv.vindex().cost() + many + if cv.vindex().is_unique() { 0 } else { 500 }
            }
            Self::Scatter(_) => u32::MAX,
        }
    }

    /// Both are on one shard, and it is the same.
    pub fn is_same_single(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unsharded(a), Self::Unsharded(b)) => a == b,
            (Self::Pinned(a, id), Self::Pinned(b, other)) => a == b && id == other,
            (Self::Vindex(a, input), Self::Vindex(b, other)) => self.is_single() && a.is_same(b) && input == other,
            _ => false,
        }
    }

    pub fn opcode(&self) -> Opcode {
        match self {
            Self::Nowhere | Self::Reference(_) => Opcode::Reference,
            Self::Unsharded(_) => Opcode::Unsharded,
            Self::Pinned(..) => Opcode::EqualUnique,
            Self::Vindex(cv, VindexInput::Row(_)) if cv.vindex().is_unique() => Opcode::EqualUnique,
            Self::Vindex(_, VindexInput::Row(_)) => Opcode::Equal,
            Self::Vindex(..) => Opcode::In,
            Self::Scatter(_) => Opcode::Scatter,
        }
    }

    /// For a route. `may_scatter`: each shard may answer for its own rows.
    pub fn destination(&self, may_scatter: bool) -> Destination {
        match self {
            Self::Nowhere | Self::Reference(_) => Destination::AnyShard,
            Self::Unsharded(_) | Self::Scatter(_) => Destination::AllShards,
            Self::Pinned(_, id) => Destination::KeyspaceIds(vec![keyrange::KeyspaceId::new(id.clone())]),
            Self::Vindex(cv, input) => Destination::Vindex(VindexDestination {
                keyspace: cv.table.keyspace.clone(),
                vindex: cv.vindex().clone(),
                input: input.clone(),
                split: None,
                may_scatter,
            }),
        }
    }
}

/// What is known of a column from the conditions that every row must meet.
#[derive(Debug, Clone)]
pub(crate) enum Known {
    Is(PlanValue),
    IsOneOf(Vec<PlanValue>),
    IsIn(String),
}

/// The best place for rows of which columns are known.
pub(crate) fn best_place<'a>(keys: impl Iterator<Item = (&'a CvRef, Vec<Vec<Known>>)>) -> Option<Place> {
    let mut best: Option<Place> = None;
    for (cv, columns) in keys {
        let mut found: Vec<Place> = Vec::new();
        let single: Option<Vec<PlanValue>> = columns
            .iter()
            .map(|known| {
                known.iter().find_map(|one| match one {
                    Known::Is(value) => Some(value.clone()),
                    _ => None,
                })
            })
            .collect();
        if let Some(row) = single.filter(|row| !row.is_empty()) {
            found.push(Place::Vindex(cv.clone(), VindexInput::Row(row)));
        } else if let [known] = &columns[..] {
            found.extend(known.iter().filter_map(|one| match one {
                Known::IsOneOf(values) => Some(Place::Vindex(cv.clone(), VindexInput::List(values.clone()))),
                Known::IsIn(name) => Some(Place::Vindex(cv.clone(), VindexInput::ListVariable(name.clone()))),
                Known::Is(_) => None,
            }));
        }
        for place in found {
            if best.as_ref().is_none_or(|known| place.cost() < known.cost()) {
                best = Some(place);
            }
        }
    }
    best
}
