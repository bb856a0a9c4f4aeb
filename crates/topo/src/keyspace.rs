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
    names::check_name,
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

    /// Lets another keyspace serve MASTER again, in all cells: for a coordinator that has moved the rows
    /// back. Operators cannot ask for it by [`Self::update_served_from_map`].
    pub fn restore_master_served_from(&mut self, source: &str) {
        self.record.served_froms.push(keyspace::ServedFrom {
            tablet_type: TabletType::Master.into(),
            cells: Vec::new(),
            keyspace: source.to_owned(),
        });
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
        if let Err(refused) = check_name("a keyspace", keyspace) {
            // One that Vitess has made exists like any other, and gets its new shards.
            let path = paths::keyspace_path(keyspace);
            let there = self.global().get(&path).await.is_ok();
            return Err(if there { TopoError::NodeExists { path: self.global().full_path(&path) } } else { refused });
        }
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

    /// Deletes the record, the VSchema and the cutover journals of a keyspace. The caller made sure that no shards are left.
    pub async fn delete_keyspace(&self, keyspace: &str) -> Result<()> {
        // First, as without the record this method would not be called again.
        self.delete_cutovers(keyspace).await?;
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
            // Boxed, or the compiler cannot see that the future of a caller is Send.
            .boxed()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|&cell| cell.to_owned()).collect()
    }

    fn shown(info: &KeyspaceInfo) -> Vec<(TabletType, Vec<String>)> {
        info.record.served_froms.iter().map(|entry| (entry.tablet_type(), entry.cells.clone())).collect()
    }

    #[test]
    fn types_leave_their_source_cell_by_cell_and_master_last() {
        use TabletType::{Master, Rdonly, Replica};
        let all = strings(&["first", "second", "third"]);
        let entry = |tablet_type: TabletType| keyspace::ServedFrom {
            tablet_type: tablet_type.into(),
            cells: vec![],
            keyspace: "source".into(),
        };
        let record =
            Keyspace { served_froms: vec![entry(Master), entry(Replica), entry(Rdonly)], ..Default::default() };
        let mut info = KeyspaceInfo::new("ks", record);
        let mut change = |tablet_type, cells: &[&str], source: &str, remove| {
            let outcome = info.update_served_from_map(tablet_type, &strings(cells), source, remove, &all);
            (outcome.map_err(|error| error.to_string()), shown(&info))
        };
        let refused = |outcome: (Result<(), String>, _)| outcome.0.expect_err("refused");

        assert_eq!(
            refused(change(Master, &[], "source", true)),
            "cannot migrate master into ks until everything else is migrated"
        );
        assert_eq!(
            refused(change(Master, &["first"], "source", true)),
            "cannot migrate only some cells for master removal in keyspace ks"
        );
        assert_eq!(refused(change(Master, &[], "source", false)), "cannot add master back to ks");
        assert_eq!(
            refused(change(Replica, &[], "other", true)),
            "inconsistent keyspace specified in migration: other != source for type MASTER"
        );
        // The last cell takes the entry with it; the empty list is every cell.
        let (_, left) = change(Rdonly, &["second"], "source", true);
        assert_eq!(left[2], (Rdonly, strings(&["first", "third"])));
        let (_, back) = change(Rdonly, &["second"], "source", false);
        assert_eq!(back[2], (Rdonly, strings(&["first", "third", "second"])));
        assert_eq!(change(Rdonly, &["first", "second", "third"], "source", true).1.len(), 2);
        assert_eq!(refused(change(Rdonly, &[], "source", true)), "supplied type cannot be migrated");
        assert_eq!(change(Replica, &[], "source", true).1, [(Master, vec![])]);
        assert_eq!(change(Replica, &["first"], "source", false).1[1], (Replica, strings(&["first"])));
        assert_eq!(change(Replica, &["first"], "source", true).1.len(), 1);
        assert_eq!(change(Master, &[], "source", true), (Ok(()), vec![]));
    }

    #[tokio::test]
    async fn a_keyspace_of_a_name_that_is_refused_today_goes_on() {
        let topo = TopoServer::memory(&["zone1"]);
        let refused = topo.create_keyspace("my ks", &Keyspace::default()).await.expect_err("a blank");
        assert_eq!(refused.to_string(), "\"my ks\" is no name of a keyspace: it has a blank");
        topo.global().create("keyspaces/my ks/Keyspace", Default::default()).await.expect("by others");
        let exists = topo.create_keyspace("my ks", &Keyspace::default()).await.expect_err("there");
        assert_eq!(exists.to_string(), "node already exists: /vitess/global/keyspaces/my ks/Keyspace");
        topo.get_or_create_shard("my ks", "-80").await.expect("a new shard");
    }

    #[test]
    fn a_cell_sees_its_own_redirections() {
        let entry = |tablet_type: TabletType, cells: &[&str]| keyspace::ServedFrom {
            tablet_type: tablet_type.into(),
            cells: strings(cells),
            keyspace: "source".into(),
        };
        let served_froms = vec![entry(TabletType::Master, &[]), entry(TabletType::Replica, &["c1"])];
        let info = KeyspaceInfo::new("ks", Keyspace { served_froms, ..Default::default() });
        let types = |cell: &str| {
            info.compute_cell_served_from(cell).iter().map(|entry| entry.tablet_type()).collect::<Vec<_>>()
        };
        assert_eq!(types("c1"), [TabletType::Master, TabletType::Replica]);
        assert_eq!(types("c2"), [TabletType::Master]);
    }
}
