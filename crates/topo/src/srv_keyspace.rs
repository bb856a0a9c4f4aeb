//! SrvKeyspace: which shards of a keyspace vtgate sends queries of each tablet type to, per cell.
//!
//! Writes are blind; those that depend on a read are guarded by the keyspace lock (`srv_edits.rs`,
//! `rebuild.rs`). Invariant checked before such a write: the shards of each partition hold every
//! keyspace id exactly once.

use std::{collections::BTreeMap, fmt::Write as _};

use futures::future::join_all;
use vtproto::topodata::{
    KeyRange, ShardReference, ShardTabletControl, SrvKeyspace, TabletType, srv_keyspace::KeyspacePartition,
};

use crate::{
    conn::Version,
    error::{Result, TopoError},
    paths::{self, KEYSPACES_DIR},
    record::{self, UnknownFields},
    server::{TopoServer, read},
    shard::ShardInfo,
    topoproto,
};

/// The partition of a tablet type.
pub fn partition(srv_keyspace: &SrvKeyspace, tablet_type: TabletType) -> Option<&KeyspacePartition> {
    srv_keyspace.partitions.iter().find(|partition| partition.served_type() == tablet_type)
}

/// The partition of a tablet type, made if it is missing.
pub fn partition_mut(srv_keyspace: &mut SrvKeyspace, tablet_type: TabletType) -> &mut KeyspacePartition {
    let partitions = &mut srv_keyspace.partitions;
    let index = partitions.iter().position(|partition| partition.served_type() == tablet_type).unwrap_or_else(|| {
        partitions.push(KeyspacePartition { served_type: tablet_type.into(), ..Default::default() });
        partitions.len() - 1
    });
    &mut partitions[index]
}

/// Whether tablets of a type which hold a range must refuse queries. The name of the shard does not count.
pub fn is_query_service_disabled(
    srv_keyspace: &SrvKeyspace,
    tablet_type: TabletType,
    key_range: Option<&KeyRange>,
) -> bool {
    partition(srv_keyspace, tablet_type).is_some_and(|partition| {
        partition.shard_tablet_controls.iter().any(|control| {
            control.query_service_disabled && topoproto::key_range_equal(control.key_range.as_ref(), key_range)
        })
    })
}

/// Sorts the shards of each partition by range and checks them.
pub fn order_and_check_partitions(cell: &str, srv_keyspace: &mut SrvKeyspace) -> Result<()> {
    for partition in &mut srv_keyspace.partitions {
        partition.shard_references.sort_by_key(|reference| topoproto::key_range(reference.key_range.as_ref()));
    }
    check_partitions(cell, srv_keyspace)
}

/// Checks that the sorted shards of each partition hold every keyspace id exactly once.
pub fn check_partitions(cell: &str, srv_keyspace: &SrvKeyspace) -> Result<()> {
    for partition in &srv_keyspace.partitions {
        check_partition(cell, partition)?;
    }
    Ok(())
}

fn check_partition(cell: &str, partition: &KeyspacePartition) -> Result<()> {
    let tablet_type = partition.served_type().as_str_name();
    let references = &partition.shard_references;
    let (Some(first), Some(last)) = (references.first(), references.last()) else {
        return Err(TopoError::other(format!("keyspace partition for {tablet_type} in cell {cell} has no shards")));
    };
    // `00-80` starts where `-80` does.
    if topoproto::key_range(first.key_range.as_ref()).compare_start(&keyrange::KeyRange::full()).is_ne() {
        return Err(TopoError::other(format!(
            "keyspace partition for {tablet_type} in cell {cell} does not start with min key"
        )));
    }
    if last.key_range.as_ref().is_some_and(|range| !range.end.is_empty()) {
        return Err(TopoError::other(format!(
            "keyspace partition for {tablet_type} in cell {cell} does not end with max key"
        )));
    }
    for (index, pair) in references.windows(2).enumerate() {
        match (&pair[0].key_range, &pair[1].key_range) {
            // Shards without ranges are chosen by name only.
            (None, None) => {}
            (Some(left), Some(right)) => {
                let (left, right) = (topoproto::key_range(Some(left)), topoproto::key_range(Some(right)));
                if !left.is_followed_by(&right) {
                    return Err(TopoError::other(format!(
                        "non-contiguous KeyRange values for {tablet_type} in cell {cell} at shard {index} to {}: {} != {}",
                        index + 1,
                        left.end().map(ToString::to_string).unwrap_or_default(),
                        right.start(),
                    )));
                }
            }
            _ => {
                return Err(TopoError::other(format!(
                    "shards with inconsistent KeyRanges for {tablet_type} in cell {cell}. shards: {}, {}",
                    reference_text(&pair[0]),
                    reference_text(&pair[1])
                )));
            }
        }
    }
    Ok(())
}

/// A partition in the compact text form of protobuf, as messages show it.
pub(crate) fn partition_text(partition: &KeyspacePartition) -> String {
    let mut text = String::new();
    if partition.served_type != 0 {
        let _ = write!(text, "served_type:{} ", partition.served_type().as_str_name());
    }
    for reference in &partition.shard_references {
        let _ = write!(text, "shard_references:<{}> ", reference_text(reference));
    }
    for control in &partition.shard_tablet_controls {
        let _ = write!(text, "shard_tablet_controls:<{}> ", control_text(control));
    }
    text
}

fn reference_text(reference: &ShardReference) -> String {
    name_and_range_text(&reference.name, reference.key_range.as_ref())
}

fn control_text(control: &ShardTabletControl) -> String {
    let mut text = name_and_range_text(&control.name, control.key_range.as_ref());
    if control.query_service_disabled {
        text.push_str("query_service_disabled:true ");
    }
    text
}

fn name_and_range_text(name: &str, range: Option<&KeyRange>) -> String {
    let mut text = String::new();
    if !name.is_empty() {
        let _ = write!(text, "name:\"{name}\" ");
    }
    if let Some(range) = range {
        text.push_str("key_range:<");
        for (field, bytes) in [("start", &range.start), ("end", &range.end)] {
            if !bytes.is_empty() {
                let _ = write!(text, "{field}:\"{}\" ", octal_escaped(bytes));
            }
        }
        text.push_str("> ");
    }
    text
}

fn octal_escaped(bytes: &[u8]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text
}

impl TopoServer {
    /// The keyspaces a cell knows of, sorted; also those with tablets only and nothing served.
    pub async fn get_srv_keyspace_names(&self, cell: &str) -> Result<Vec<String>> {
        let conn = self.conn_for_cell(cell).await?;
        self.names(&conn, KEYSPACES_DIR).await
    }

    pub async fn get_srv_keyspace(&self, cell: &str, keyspace: &str) -> Result<SrvKeyspace> {
        Ok(self.read_srv_keyspace(cell, keyspace).await?.0)
    }

    /// With the version that a vtgate acknowledges when it acts on this value.
    pub async fn get_srv_keyspace_version(&self, cell: &str, keyspace: &str) -> Result<(SrvKeyspace, Version)> {
        let conn = self.conn_for_cell(cell).await?;
        let (srv_keyspace, _, version) = read(&*conn, &paths::srv_keyspace_path(keyspace)).await?;
        Ok((srv_keyspace, version))
    }

    pub(crate) async fn read_srv_keyspace(&self, cell: &str, keyspace: &str) -> Result<(SrvKeyspace, UnknownFields)> {
        let conn = self.conn_for_cell(cell).await?;
        let (srv_keyspace, unknown, _) = read(&*conn, &paths::srv_keyspace_path(keyspace)).await?;
        Ok((srv_keyspace, unknown))
    }

    /// Writes whatever is there, or creates.
    pub async fn update_srv_keyspace(&self, cell: &str, keyspace: &str, value: &SrvKeyspace) -> Result<()> {
        self.write_srv_keyspace(cell, keyspace, value, &UnknownFields::default()).await
    }

    pub(crate) async fn write_srv_keyspace(
        &self,
        cell: &str,
        keyspace: &str,
        value: &SrvKeyspace,
        unknown: &UnknownFields,
    ) -> Result<()> {
        let conn = self.conn_for_cell(cell).await?;
        conn.update(&paths::srv_keyspace_path(keyspace), record::encode(value, unknown), None).await.map(drop)
    }

    pub async fn delete_srv_keyspace(&self, cell: &str, keyspace: &str) -> Result<()> {
        let conn = self.conn_for_cell(cell).await?;
        conn.delete(&paths::srv_keyspace_path(keyspace), None).await
    }

    /// The records of all cells that have one, by cell.
    pub async fn get_srv_keyspace_all_cells(&self, keyspace: &str) -> Result<BTreeMap<String, SrvKeyspace>> {
        let cells = self.get_cell_info_names().await?;
        let read = join_all(cells.iter().map(|cell| self.get_srv_keyspace(cell, keyspace))).await;
        let mut found = BTreeMap::new();
        for (cell, read) in cells.into_iter().zip(read) {
            match read {
                Ok(srv_keyspace) => {
                    found.insert(cell, srv_keyspace);
                }
                Err(TopoError::NoNode { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// The cells where some partition lists the shard, by name.
    pub async fn get_shard_serving_cells(&self, shard: &ShardInfo) -> Result<Vec<String>> {
        let all = self.get_srv_keyspace_all_cells(&shard.keyspace).await?;
        Ok(all.into_iter().filter(|(_, srv)| !serving_types(srv, shard).is_empty()).map(|(cell, _)| cell).collect())
    }

    /// The tablet types whose partition lists the shard, by name, in any cell.
    pub async fn get_shard_serving_types(&self, shard: &ShardInfo) -> Result<Vec<TabletType>> {
        let all = self.get_srv_keyspace_all_cells(&shard.keyspace).await?;
        let mut types: Vec<TabletType> = all.values().flat_map(|srv| serving_types(srv, shard)).collect();
        types.sort();
        types.dedup();
        Ok(types)
    }
}

fn serving_types(srv_keyspace: &SrvKeyspace, shard: &ShardInfo) -> Vec<TabletType> {
    let lists_it = |partition: &&KeyspacePartition| {
        partition.shard_references.iter().any(|reference| reference.name == shard.shard_name)
    };
    srv_keyspace.partitions.iter().filter(lists_it).map(KeyspacePartition::served_type).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type NamedRange<'a> = (&'a str, Option<(&'a [u8], &'a [u8])>);

    fn srv(shards: &[NamedRange]) -> SrvKeyspace {
        let mut srv = SrvKeyspace::default();
        partition_mut(&mut srv, TabletType::Replica).shard_references = shards
            .iter()
            .map(|(name, range)| ShardReference {
                name: (*name).to_owned(),
                key_range: range.map(|(start, end)| KeyRange { start: start.to_vec(), end: end.to_vec() }),
            })
            .collect();
        srv
    }

    fn check(shards: &[NamedRange]) -> String {
        match order_and_check_partitions("zone1", &mut srv(shards)) {
            Ok(()) => "ok".into(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_partition_holds_every_id_exactly_once() {
        assert_eq!(check(&[("80-", Some((b"\x80", b""))), ("-80", Some((b"", b"\x80")))]), "ok");
        assert_eq!(check(&[("8000-", Some((b"\x80\0", b""))), ("00-80", Some((b"\0", b"\x80")))]), "ok");
        assert_eq!(check(&[("0", None)]), "ok");
        assert_eq!(
            check(&[("80-", Some((b"\x80", b"")))]),
            "keyspace partition for REPLICA in cell zone1 does not start with min key"
        );
        assert_eq!(
            check(&[("-80", Some((b"", b"\x80")))]),
            "keyspace partition for REPLICA in cell zone1 does not end with max key"
        );
        assert_eq!(
            check(&[("-40", Some((b"", b"\x40"))), ("80-", Some((b"\x80", b"")))]),
            "non-contiguous KeyRange values for REPLICA in cell zone1 at shard 0 to 1: 40 != 80"
        );
        assert_eq!(
            check(&[("0", None), ("80-", Some((b"\x80", b"")))]),
            "shards with inconsistent KeyRanges for REPLICA in cell zone1. shards: name:\"0\" , \
             name:\"80-\" key_range:<start:\"\\200\" > "
        );
        assert_eq!(check(&[]), "keyspace partition for REPLICA in cell zone1 has no shards");
    }

    #[test]
    fn a_control_is_matched_by_range() {
        let mut srv = srv(&[("-80", Some((b"", b"\x80"))), ("80-", Some((b"\x80", b"")))]);
        partition_mut(&mut srv, TabletType::Replica).shard_tablet_controls = vec![ShardTabletControl {
            name: "another name".into(),
            key_range: Some(KeyRange { start: vec![], end: vec![0x80] }),
            query_service_disabled: true,
        }];
        let left = KeyRange { start: vec![], end: vec![0x80] };
        let right = KeyRange { start: vec![0x80], end: vec![] };
        assert!(is_query_service_disabled(&srv, TabletType::Replica, Some(&left)));
        assert!(!is_query_service_disabled(&srv, TabletType::Replica, Some(&right)));
        assert!(!is_query_service_disabled(&srv, TabletType::Master, Some(&left)));
    }
}
