//! Edits of SrvKeyspace records while rows or queries move between shards.
//!
//! All of them need the keyspace lock. No cells given means all cells. A cell without the record is
//! skipped; what fails in some cells is reported as a partial result after all cells were tried.

use futures::future::join_all;
use vtproto::topodata::{ShardReference, ShardTabletControl, SrvKeyspace, TabletType, srv_keyspace::KeyspacePartition};

use crate::{
    error::{Result, TopoError},
    locks::KeyspaceLock,
    server::TopoServer,
    shard::ShardInfo,
    srv_keyspace::{order_and_check_partitions, partition_mut},
    topoproto,
};

impl TopoServer {
    /// Moves a type from some shards to others. For MASTER the whole migration is over: all controls go.
    pub async fn migrate_served_type(
        &self,
        lock: &KeyspaceLock,
        to_add: &[ShardInfo],
        to_remove: &[ShardInfo],
        tablet_type: TabletType,
        cells: &[String],
    ) -> Result<()> {
        self.edit_srv_keyspaces(lock, cells, |cell, srv_keyspace| {
            for partition in &mut srv_keyspace.partitions {
                if tablet_type == TabletType::Master {
                    partition.shard_tablet_controls.clear();
                }
                if partition.served_type() == tablet_type {
                    partition
                        .shard_references
                        .retain(|reference| !to_remove.iter().any(|shard| same(reference, shard)));
                    add_references(partition, to_add);
                }
            }
            order_and_check_partitions(cell, srv_keyspace)
        })
        .await
    }

    /// Lists shards in the partition of a type, which is made if it is missing. Ranges are not checked.
    pub async fn add_srv_keyspace_partitions(
        &self,
        lock: &KeyspaceLock,
        shards: &[ShardInfo],
        tablet_type: TabletType,
        cells: &[String],
    ) -> Result<()> {
        self.edit_srv_keyspaces(lock, cells, |_, srv_keyspace| {
            add_references(partition_mut(srv_keyspace, tablet_type), shards);
            Ok(())
        })
        .await
    }

    /// Takes shards off the partition of a type, by name. Ranges are not checked.
    pub async fn delete_srv_keyspace_partitions(
        &self,
        lock: &KeyspaceLock,
        shards: &[ShardInfo],
        tablet_type: TabletType,
        cells: &[String],
    ) -> Result<()> {
        self.edit_srv_keyspaces(lock, cells, |_, srv_keyspace| {
            for partition in srv_keyspace.partitions.iter_mut().filter(|one| one.served_type() == tablet_type) {
                partition
                    .shard_references
                    .retain(|reference| !shards.iter().any(|shard| shard.shard_name == reference.name));
            }
            Ok(())
        })
        .await
    }

    /// Tells tablets of a type in some shards to refuse queries, or to serve again.
    pub async fn update_disable_query_service(
        &self,
        lock: &KeyspaceLock,
        shards: &[ShardInfo],
        tablet_type: TabletType,
        cells: &[String],
        disable: bool,
    ) -> Result<()> {
        for shard in shards {
            if shard.record.tablet_controls.iter().any(|control| !control.blacklisted_tables.is_empty()) {
                return Err(TopoError::other(format!(
                    "cannot safely alter DisableQueryService as BlacklistedTables is set for shard {}/{}",
                    shard.keyspace, shard.shard_name
                )));
            }
            if !disable && shard.get_tablet_control(tablet_type).is_some_and(|control| control.frozen) {
                return Err(TopoError::other(format!(
                    "migrate has gone past the point of no return, cannot re-enable serving for {}/{}",
                    shard.keyspace, shard.shard_name
                )));
            }
        }
        self.edit_srv_keyspaces(lock, cells, |_, srv_keyspace| {
            for partition in srv_keyspace.partitions.iter_mut().filter(|one| one.served_type() == tablet_type) {
                for shard in shards {
                    set_control(partition, shard, disable);
                }
            }
            Ok(())
        })
        .await
    }

    async fn edit_srv_keyspaces<F>(&self, lock: &KeyspaceLock, cells: &[String], mut edit: F) -> Result<()>
    where
        F: FnMut(&str, &mut SrvKeyspace) -> Result<()>,
    {
        let keyspace = lock.keyspace();
        lock.check_held(keyspace)?;
        let cells = self.cells_or_all(cells).await?;
        let read = join_all(cells.iter().map(|cell| self.read_srv_keyspace(cell, keyspace))).await;
        let mut failures = Vec::new();
        let mut edited = Vec::with_capacity(cells.len());
        for (cell, read) in cells.iter().zip(read) {
            match read {
                Ok((mut srv_keyspace, unknown)) => match edit(cell, &mut srv_keyspace) {
                    Ok(()) => edited.push((cell, srv_keyspace, unknown)),
                    Err(error) => failures.push(error.to_string()),
                },
                Err(TopoError::NoNode { .. }) => {}
                Err(error) => failures.push(error.to_string()),
            }
        }
        let written = join_all(
            edited
                .iter()
                .map(|(cell, srv_keyspace, unknown)| self.write_srv_keyspace(cell, keyspace, srv_keyspace, unknown)),
        )
        .await;
        failures.extend(written.into_iter().filter_map(|written| written.err().map(|error| error.to_string())));
        if failures.is_empty() {
            return Ok(());
        }
        failures.sort();
        Err(TopoError::PartialResult { what: failures.join("\n") })
    }
}

fn same(reference: &ShardReference, shard: &ShardInfo) -> bool {
    topoproto::key_range_equal(reference.key_range.as_ref(), shard.record.key_range.as_ref())
}

fn add_references(partition: &mut KeyspacePartition, shards: &[ShardInfo]) {
    for shard in shards {
        if !partition.shard_references.iter().any(|reference| same(reference, shard)) {
            partition
                .shard_references
                .push(ShardReference { name: shard.shard_name.clone(), key_range: shard.record.key_range.clone() });
        }
    }
}

fn set_control(partition: &mut KeyspacePartition, shard: &ShardInfo, disable: bool) {
    let range = shard.record.key_range.as_ref();
    let mut found = false;
    for control in &mut partition.shard_tablet_controls {
        if topoproto::key_range_equal(control.key_range.as_ref(), range) {
            control.query_service_disabled = disable;
            found = true;
        }
    }
    if !found {
        partition.shard_tablet_controls.push(ShardTabletControl {
            name: shard.shard_name.clone(),
            key_range: range.cloned(),
            query_service_disabled: disable,
        });
    }
}
