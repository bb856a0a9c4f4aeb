//! Which tables and rows a stream has.

use std::collections::BTreeSet;

use keyrange::KeyRange;
use mysql::binlog::Image;
use vterrors::Result;

use super::sharding::{Place, Sharding};
use super::statement;
use super::table::Table;

/// What a reader asked for.
#[derive(Debug)]
pub enum Filter {
    /// Whole tables, by exact name.
    Tables(BTreeSet<String>),
    /// Rows of all tables whose keyspace id is in a range.
    KeyRange {
        wanted: KeyRange,
        /// The range of the shard that is read.
        own: KeyRange,
        sharding: Sharding,
    },
}

/// How the rows of one table are chosen.
#[derive(Debug)]
pub(super) enum Choice {
    All,
    None,
    ByKey { place: Place },
}

impl Filter {
    /// Whether anything of a table can be in the stream.
    pub fn has_table(&self, table: &str) -> bool {
        match self {
            Self::Tables(tables) => tables.contains(table),
            Self::KeyRange { .. } => true,
        }
    }

    /// How rows of this table are chosen. Errors: a key range, and nothing says how the table is sharded.
    pub(super) fn choice(&self, table: &Table) -> Result<Choice> {
        match self {
            Self::Tables(_) => Ok(Choice::All),
            Self::KeyRange { wanted, own, sharding } => Ok(match sharding.place(table)? {
                Place::Everywhere if vschema::brings_reference_rows(own, wanted) => Choice::All,
                Place::Everywhere => Choice::None,
                Place::At(id) if wanted.contains(&id) => Choice::All,
                Place::At(_) => Choice::None,
                place => Choice::ByKey { place },
            }),
        }
    }

    /// Whether a row is in the stream.
    pub(super) fn has_row(&self, table: &Table, choice: &Choice, row: &Image<'_>) -> Result<bool> {
        match (self, choice) {
            (_, Choice::All) => Ok(true),
            (_, Choice::None) => Ok(false),
            (Self::KeyRange { wanted, .. }, Choice::ByKey { place }) => {
                let id = place.of(table, row).map_err(|error| error.wrap(statement::shown(table, row)))?;
                Ok(wanted.contains(&id))
            }
            // Whole tables are chosen whole.
            (Self::Tables(_), Choice::ByKey { .. }) => Ok(true),
        }
    }
}
