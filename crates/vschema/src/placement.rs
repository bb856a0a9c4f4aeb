//! Where the rows of a table live among the shards of its keyspace, for whoever moves rows between shards: clones,
//! comparisons and filtered replication decide by this, and so agree.

use std::sync::Arc;

use keyrange::KeyRange;
use vindex::Vindex;
use vterrors::{Code, VtError};
use vtproto::vschema::SrvVSchema;

use crate::model::{Table, TableType, VSchema};

/// Where the rows of a table live.
#[derive(Debug, Clone)]
pub enum Placement {
    /// The same rows on every shard: a reference table.
    Everywhere,
    /// All at one keyspace id.
    At(Vec<u8>),
    /// Each where this vindex sends the value of a column.
    ByVindex { column: String, vindex: Arc<dyn Vindex> },
}

/// Whether the shard `source` is the one that brings the rows of reference tables to the shard `destination`. Of the
/// shards that a destination is fed by it is the one that holds the destination's first keyspace id: every other one
/// would bring the same rows once more.
pub fn brings_reference_rows(source: &KeyRange, destination: &KeyRange) -> bool {
    source.contains(destination.start_bytes())
}

fn fault(text: String) -> VtError {
    VtError::new(Code::FailedPrecondition, text)
}

impl VSchema {
    /// The vschema of one keyspace, for whoever moves rows that exist: these have their values, and the sequences, which live
    /// in other keyspaces, are not needed.
    ///
    /// # Errors
    /// The vschema is not valid.
    pub fn of_rows(name: &str, mut keyspace: vtproto::vschema::Keyspace) -> Result<Self, VtError> {
        for table in keyspace.tables.values_mut() {
            table.auto_increment = None;
        }
        let source = SrvVSchema { keyspaces: [(name.to_owned(), keyspace)].into(), ..Default::default() };
        let vschema = Self::build(&source);
        match &vschema.keyspace(name)?.error {
            Some(error) => Err(error.clone()),
            None => Ok(vschema),
        }
    }

    /// Where the rows of a table of a sharded keyspace live.
    ///
    /// # Errors
    /// FAILED_PRECONDITION: the vschema does not have the table, or no vindex of it tells keyspace ids from one column
    /// without a look-up.
    pub fn placement(&self, keyspace: &str, table: &str) -> Result<Placement, VtError> {
        let known = self.keyspaces.get(keyspace).and_then(|keyspace| keyspace.tables.get(table));
        known.ok_or_else(|| fault(format!("no vschema definition for table {table}")))?.placement()
    }
}

impl Table {
    fn placement(&self) -> Result<Placement, VtError> {
        if self.kind == TableType::Reference {
            return Ok(Placement::Everywhere);
        }
        if let Some(id) = &self.pinned {
            return Ok(Placement::At(id.clone()));
        }
        if self.column_vindexes.is_empty() {
            return Err(fault(format!("no vindex definition for table {}", self.name)));
        }
        let mut usable: Vec<(&String, &Arc<dyn Vindex>)> = Vec::new();
        for of in &self.column_vindexes {
            if let [column] = &of.columns[..]
                && of.vindex.is_unique()
                && !of.vindex.needs_lookup()
                && of.vindex.cost() <= 1
            {
                usable.push((column, &of.vindex));
            }
        }
        // Of several equally cheap ones the first, which is the primary vindex.
        let best = usable.into_iter().min_by_key(|(_, vindex)| vindex.cost());
        let (column, vindex) =
            best.ok_or_else(|| fault(format!("could not find a vindex to use for sharding table {}", self.name)))?;
        Ok(Placement::ByVindex { column: column.clone(), vindex: vindex.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cheapest_unique_vindex_over_one_column_spreads_the_rows() {
        let keyspace = crate::parse_keyspace(
            r#"{"sharded": true,
                "vindexes": {"hash": {"type": "hash"}, "numeric": {"type": "numeric"}, "md5": {"type": "binary_md5"},
                             "look": {"type": "lookup_unique", "params": {"table": "l", "from": "a", "to": "b"}}},
                "tables": {"plain": {"column_vindexes": [{"column": "id", "name": "hash"}]},
                           "cheaper": {"column_vindexes": [{"column": "a", "name": "md5"}, {"column": "b", "name": "numeric"}]},
                           "costly": {"column_vindexes": [{"column": "a", "name": "look"}]},
                           "also": {"column_vindexes": [{"column": "a", "name": "look"}, {"column": "b", "name": "hash"}]},
                           "pinned": {"pinned": "90"},
                           "ref": {"type": "reference"}}}"#,
        )
        .expect("valid");
        let vschema = VSchema::build(&vtproto::vschema::SrvVSchema {
            keyspaces: [("ks".to_owned(), keyspace)].into(),
            ..Default::default()
        });
        let chosen = |name: &str| match vschema.placement("ks", name) {
            Ok(Placement::Everywhere) => "everywhere".to_owned(),
            Ok(Placement::At(id)) => format!("at {id:?}"),
            Ok(Placement::ByVindex { column, vindex }) => format!("{column} {}", vindex.name()),
            Err(error) => error.to_string(),
        };
        assert_eq!(chosen("plain"), "id hash");
        assert_eq!(chosen("cheaper"), "b numeric");
        assert_eq!(chosen("costly"), "could not find a vindex to use for sharding table costly");
        assert_eq!(chosen("also"), "b hash");
        assert_eq!(chosen("pinned"), "at [144]");
        assert_eq!(chosen("ref"), "everywhere");
        assert_eq!(chosen("none"), "no vschema definition for table none");
    }

    #[test]
    fn one_shard_brings_the_reference_rows() {
        let range = |text: &str| -> KeyRange { text.parse().expect("a range") };
        for (sources, destination, bringing) in [
            (&["-"][..], "-80", "-"),
            (&["-"], "80-", "-"),
            (&["-80", "80-"], "-", "-80"),
            (&["-40", "40-80", "80-"], "20-90", "-40"),
            (&["-40", "40-"], "80-", "40-"),
        ] {
            let found: Vec<&&str> =
                sources.iter().filter(|source| brings_reference_rows(&range(source), &range(destination))).collect();
            assert_eq!(found, [&bringing], "to {destination}");
        }
    }
}
