//! Keyspace records, and the redirections to other keyspaces while tables are moved (served_froms).
//!
//! Invariant: a Keyspace record is updated under the keyspace lock and with the version that was read.

use std::collections::BTreeMap;

use futures::{StreamExt, TryStreamExt, stream};
use tracing::warn;
use vtproto::topodata::{Keyspace, SrvKeyspace, TabletType, keyspace, srv_keyspace};

use crate::{
    cells::{add_cells, in_cell_list, remove_cells},
    conn::Version,
    error::{Result, TopoError},
    locks::KeyspaceLock,
    paths::{self, KEYSPACES_DIR},
    record::{self, UnknownFields},
    server::{TopoServer, read},
    shard::ShardInfo,
};

/// How many records are read at once.
pub(crate) const READ_CONCURRENCY: usize = 32;

/// A Keyspace record as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyspaceInfo {
    pub name: String,
    pub record: Keyspace,
    pub version: Version,
    unknown: UnknownFields,
}

impl KeyspaceInfo {
    /// A record which is not in the topology server.
    pub fn new(name: &str, record: Keyspace) -> Self {
        Self { name: name.to_owned(), record, version: Version::default(), unknown: UnknownFields::default() }
    }

    /// The redirection of a type, if there is one.
    pub fn get_served_from(&self, tablet_type: TabletType) -> Option<&keyspace::ServedFrom> {
        self.record.served_froms.iter().find(|entry| entry.tablet_type() == tablet_type)
    }

    /// Whether a change of the redirections is allowed.
    pub fn check_served_from_migration(
        &self,
        tablet_type: TabletType,
        cells: &[String],
        source: &str,
        remove: bool,
    ) -> Result<()> {
        if tablet_type == TabletType::Master {
            if !remove {
                return Err(TopoError::other(format!("cannot add master back to {}", self.name)));
            }
            if !cells.is_empty() {
                return Err(TopoError::other(format!(
                    "cannot migrate only some cells for master removal in keyspace {}",
                    self.name
                )));
            }
            if self.record.served_froms.len() > 1 {
                return Err(TopoError::other(format!(
                    "cannot migrate master into {} until everything else is migrated",
                    self.name
                )));
            }
        }
        if remove && self.get_served_from(tablet_type).is_none() {
            return Err(TopoError::other("supplied type cannot be migrated"));
        }
        for entry in &self.record.served_froms {
            if entry.keyspace != source {
                return Err(TopoError::other(format!(
                    "inconsistent keyspace specified in migration: {source} != {} for type {}",
                    entry.keyspace,
                    entry.tablet_type().as_str_name()
                )));
            }
        }
        Ok(())
    }

    /// Adds or removes a redirection in some cells (none given: in all). `all_cells` are the known ones.
    pub fn update_served_from_map(
        &mut self,
        tablet_type: TabletType,
        cells: &[String],
        source: &str,
        remove: bool,
        all_cells: &[String],
    ) -> Result<()> {
        self.check_served_from_migration(tablet_type, cells, source, remove)?;
        let name = &self.name;
        let entries = &mut self.record.served_froms;
        let Some(index) = entries.iter().position(|entry| entry.tablet_type() == tablet_type) else {
            // Removing what is missing was refused by the check.
            entries.push(keyspace::ServedFrom {
                tablet_type: tablet_type.into(),
                cells: cells.to_vec(),
                keyspace: source.to_owned(),
            });
            return Ok(());
        };
        let entry = &mut entries[index];
        if !remove {
            if entry.keyspace != source {
                return Err(TopoError::other(format!(
                    "cannot UpdateServedFromMap on existing record for keyspace {name}, different keyspace: {} != {source}",
                    entry.keyspace
                )));
            }
            entry.cells = add_cells(&entry.cells, cells);
            return Ok(());
        }
        match remove_cells(&entry.cells, cells, all_cells) {
            Some(left) => entry.cells = left,
            None => {
                entries.remove(index);
            }
        }
        Ok(())
    }

    /// The redirections that hold in one cell, as its SrvKeyspace lists them.
    pub fn compute_cell_served_from(&self, cell: &str) -> Vec<srv_keyspace::ServedFrom> {
        let here = self.record.served_froms.iter().filter(|entry| in_cell_list(cell, &entry.cells));
        here.map(|entry| srv_keyspace::ServedFrom { tablet_type: entry.tablet_type, keyspace: entry.keyspace.clone() })
            .collect()
    }
}

impl TopoServer {
    /// The names of all keyspaces, sorted.
    pub async fn get_keyspaces(&self) -> Result<Vec<String>> {
        self.names(self.global(), KEYSPACES_DIR).await
    }

    /// Creates the record only; `NodeExists` when it is there.
    pub async fn create_keyspace(&self, keyspace: &str, value: &Keyspace) -> Result<()> {
        let contents = record::encode(value, &UnknownFields::default());
        self.global().create(&paths::keyspace_path(keyspace), contents).await.map(drop)
    }

    pub async fn get_keyspace(&self, keyspace: &str) -> Result<KeyspaceInfo> {
        let (record, unknown, version) = read(&**self.global(), &paths::keyspace_path(keyspace)).await?;
        Ok(KeyspaceInfo { name: keyspace.to_owned(), record, version, unknown })
    }

    /// Writes a record that was read, if nobody else has written it since.
    pub async fn update_keyspace(&self, lock: &KeyspaceLock, info: &mut KeyspaceInfo) -> Result<()> {
        lock.check_held(&info.name)?;
        let contents = record::encode(&info.record, &info.unknown);
        info.version = self.global().update(&paths::keyspace_path(&info.name), contents, Some(info.version)).await?;
        Ok(())
    }

    /// Deletes the record and the VSchema of a keyspace. The caller made sure that no shards are left.
    pub async fn delete_keyspace(&self, keyspace: &str) -> Result<()> {
        self.global().delete(&paths::keyspace_path(keyspace), None).await?;
        match self.delete_vschema(keyspace).await {
            Err(TopoError::NoNode { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    /// The sorted names of the shards. `NoNode` when the keyspace itself is missing.
    pub async fn get_shard_names(&self, keyspace: &str) -> Result<Vec<String>> {
        let shards = self.names(self.global(), &paths::shards_dir(keyspace)).await?;
        if shards.is_empty() {
            self.get_keyspace(keyspace).await?;
        }
        Ok(shards)
    }

    /// Every shard record, by name. Shards that vanish meanwhile are left out.
    pub async fn find_all_shards_in_keyspace(&self, keyspace: &str) -> Result<BTreeMap<String, ShardInfo>> {
        let names = self.get_shard_names(keyspace).await?;
        stream::iter(names)
            .map(|shard| async move {
                match self.get_shard(keyspace, &shard).await {
                    Ok(info) => Ok(Some((shard, info))),
                    Err(TopoError::NoNode { .. }) => {
                        warn!(keyspace, shard, "the shard has no record; it is being deleted or never had one");
                        Ok(None)
                    }
                    Err(error) => Err(error.wrap(format_args!("GetShard({keyspace}, {shard}) failed"))),
                }
            })
            .buffer_unordered(READ_CONCURRENCY)
            .try_filter_map(|found| async move { Ok(found) })
            .try_collect()
            .await
    }

    /// The shards whose master serves, sorted by range.
    pub async fn get_serving_shards(&self, keyspace: &str) -> Result<Vec<ShardInfo>> {
        let mut shards: Vec<ShardInfo> = self
            .find_all_shards_in_keyspace(keyspace)
            .await?
            .into_values()
            .filter(|info| info.record.is_master_serving)
            .collect();
        if shards.is_empty() {
            return Err(TopoError::other(format!("{keyspace} has no serving shards")));
        }
        shards.sort_by_key(ShardInfo::range);
        Ok(shards)
    }

    /// The one shard of a keyspace that has exactly one.
    pub async fn get_only_shard(&self, keyspace: &str) -> Result<ShardInfo> {
        let shards = self.find_all_shards_in_keyspace(keyspace).await?;
        if shards.len() != 1 {
            let names: Vec<&str> = shards.keys().map(String::as_str).collect();
            return Err(TopoError::other(format!(
                "keyspace {keyspace} must have one and only one shard: [{}]",
                names.join(" ")
            )));
        }
        shards.into_values().next().ok_or_else(|| TopoError::other(format!("keyspace {keyspace} has no shard")))
    }
}

/// What a SrvKeyspace copies from its Keyspace.
pub(crate) fn srv_keyspace_of(info: &KeyspaceInfo, cell: &str) -> SrvKeyspace {
    SrvKeyspace {
        sharding_column_name: info.record.sharding_column_name.clone(),
        sharding_column_type: info.record.sharding_column_type,
        served_from: info.compute_cell_served_from(cell),
        ..Default::default()
    }
}
