//! Which destination shards a row belongs to.
//!
//! Vertical: the only one. Horizontal: by the keyspace id that a vindex of the table, or the keyspace's sharding
//! column, gives the row.

use std::sync::Arc;

use keyrange::KeyRange;
use topo::ShardInfo;
use vindex::{Destination, Value, Vindex};
use vschema::{Placement, VSchema};
use vterrors::{Code, Result, VtError};
use vtproto::query::{Row, Type};
use vtproto::topodata::{Keyspace, KeyspaceIdType};

use super::Table;
use crate::rows;

/// How the rows of one table are spread.
#[derive(Debug, Clone)]
pub enum Route {
    /// All rows to every destination that their source brings them to: the only one of a vertical split, or those of
    /// [`vschema::brings_reference_rows`] for a table that is the same on all shards.
    All,
    /// All rows to the shard that holds this keyspace id.
    Pinned(Vec<u8>),
    /// By vindex over this column of the row.
    Vindex { at: usize, kind: Type, vindex: Arc<dyn Vindex> },
    /// The column is the keyspace id.
    KeyspaceId { at: usize, number: bool },
}

fn fault(text: String) -> VtError {
    VtError::new(Code::FailedPrecondition, text)
}

impl Route {
    /// By the vschema.
    ///
    /// # Errors
    /// The table is not in it, or has no vindex to spread rows by.
    pub fn by_vschema(vschema: &VSchema, keyspace: &str, table: &Table) -> Result<Self> {
        Ok(match vschema.placement(keyspace, &table.name)? {
            Placement::Everywhere => Self::All,
            Placement::At(id) => Self::Pinned(id),
            Placement::ByVindex { column, vindex } => {
                let at = find_column(table, &column)?;
                Self::Vindex { at, kind: table.columns[at].kind, vindex }
            }
        })
    }

    /// By the sharding column of the keyspace record.
    ///
    /// # Errors
    /// The keyspace names none, or the table has no such column.
    pub fn by_keyspace(name: &str, keyspace: &Keyspace, table: &Table) -> Result<Self> {
        let number = match keyspace.sharding_column_type() {
            KeyspaceIdType::Uint64 => true,
            KeyspaceIdType::Bytes => false,
            KeyspaceIdType::Unset => {
                return Err(fault(format!(
                    "ShardingColumnType needs to be set on keyspace {name} for a v2 sharding key split"
                )));
            }
        };
        Ok(Self::KeyspaceId { at: find_column(table, &keyspace.sharding_column_name)?, number })
    }

    /// The keyspace id of a row; `None` where rows are not spread by one.
    ///
    /// # Errors
    /// The column's value has none.
    pub fn keyspace_id(&self, row: &Row) -> Result<Option<Vec<u8>>> {
        match self {
            Self::All => Ok(None),
            Self::Pinned(id) => Ok(Some(id.clone())),
            Self::KeyspaceId { at, number } => {
                let value = rows::cell(row, *at).unwrap_or_default();
                if !number {
                    return Ok(Some(value.to_vec()));
                }
                let text = String::from_utf8_lossy(value);
                let id: u64 = text.parse().map_err(|_| fault(format!("{text:?} is no keyspace id")))?;
                Ok(Some(id.to_be_bytes().to_vec()))
            }
            Self::Vindex { at, kind, vindex } => {
                let value = match rows::cell(row, *at) {
                    Some(value) => Value::new(*kind, value),
                    None => Value::null(),
                };
                match vindex.map(std::slice::from_ref(&value))?.pop() {
                    Some(Destination::KeyspaceId(id)) => Ok(Some(id.into_bytes())),
                    _ => Err(fault(format!("vindex {} has no keyspace id for {value}", vindex.name()))),
                }
            }
        }
    }
}

fn find_column(table: &Table, column: &str) -> Result<usize> {
    table
        .columns
        .iter()
        .position(|known| known.name.eq_ignore_ascii_case(column))
        .ok_or_else(|| fault(format!("table {} has no column {column} to shard by", table.name)))
}

/// The ranges of the destination shards, in their order.
#[derive(Debug, Clone)]
pub struct Destinations {
    ranges: Vec<KeyRange>,
    all: Vec<usize>,
}

impl Destinations {
    pub fn new(shards: &[ShardInfo]) -> Self {
        Self { ranges: shards.iter().map(ShardInfo::range).collect(), all: (0..shards.len()).collect() }
    }

    /// The shards whose rows of a table come from this source, as far as the table as a whole tells.
    pub fn fed(&self, route: &Route, source: &KeyRange) -> Vec<usize> {
        let brings = |at: &usize| match route {
            Route::All => vschema::brings_reference_rows(source, &self.ranges[*at]),
            Route::Pinned(id) => source.contains(id),
            Route::Vindex { .. } | Route::KeyspaceId { .. } => true,
        };
        self.all.iter().copied().filter(brings).collect()
    }

    /// Where a row goes, of those that its table is brought to.
    ///
    /// # Errors
    /// Its sharding column has no keyspace id, or no destination holds it.
    pub fn of<'a>(&'a self, route: &Route, row: &Row, fed: &'a [usize]) -> Result<&'a [usize]> {
        match route.keyspace_id(row)? {
            None => Ok(fed),
            Some(id) => self.find(&id).map(|at| &self.all[at..=at]),
        }
    }

    fn find(&self, id: &[u8]) -> Result<usize> {
        self.ranges.iter().position(|range| range.contains(id)).ok_or_else(|| {
            let hex: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
            fault(format!("no destination shard holds the keyspace id {hex}"))
        })
    }

    pub fn range(&self, index: usize) -> &KeyRange {
        &self.ranges[index]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_walkthrough_go_where_it_says() {
        let vindex = vindex::create("hash", "hash", &Default::default()).expect("built in");
        let route = Route::Vindex { at: 0, kind: Type::Int64, vindex };
        let shards: Vec<ShardInfo> =
            ["-80", "80-"].map(|name| ShardInfo::new("customer", name, record(name))).into_iter().collect();
        let destinations = Destinations::new(&shards);
        let place = |id: &'static str| {
            let row = Row { lengths: vec![id.len() as i64], values: id.into() };
            let id = route.keyspace_id(&row).expect("a number").expect("an id");
            destinations.find(&id).expect("one of both")
        };
        assert_eq!(["1", "2", "3", "4", "5"].map(place), [0, 0, 0, 1, 0]);
    }

    fn record(name: &str) -> vtproto::topodata::Shard {
        let (_, key_range) = topo::validate_shard_name(name).expect("valid");
        vtproto::topodata::Shard { key_range, ..Default::default() }
    }
}
