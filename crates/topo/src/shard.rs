//! Shard records: the master, whether it serves, where its rows come from, and tablet controls.
//!
//! Invariants: updates are compare-and-swap loops; changes of source shards, tablet controls and
//! `is_master_serving` need the keyspace lock. `key_range` never changes.

use keyrange::{KeyRange, KeyRangeError, ShardName};
use tracing::warn;
use vterrors::{Code, VtError};
use vtproto::topodata::{self, Keyspace, Shard, TabletAlias, TabletType, shard};

use crate::{
    cells::{add_cells, in_cell_list},
    conn::Version,
    error::{Result, TopoError},
    locks::KeyspaceLock,
    paths,
    record::{self, UnknownFields},
    server::{TopoServer, Update, read},
    topoproto,
};

/// A Shard record as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct ShardInfo {
    pub keyspace: String,
    pub shard_name: String,
    pub record: Shard,
    pub version: Version,
    unknown: UnknownFields,
}

/// The name as it is stored (lower case) and the range it means.
///
/// Errors: `InvalidArgument` for a broken rule of names; wrong digits keep their own text.
pub fn validate_shard_name(shard: &str) -> Result<(String, Option<topodata::KeyRange>)> {
    let name: ShardName = shard.parse().map_err(key_range_error)?;
    Ok((name.to_string(), name.key_range().map(topoproto::proto_key_range)))
}

pub(crate) fn key_range_error(error: KeyRangeError) -> TopoError {
    let code = if error.is_invalid_argument() { Code::InvalidArgument } else { Code::Unknown };
    TopoError::Other(VtError::new(code, error.to_string()))
}

impl ShardInfo {
    /// A record which is not in the topology server.
    pub fn new(keyspace: &str, shard: &str, record: Shard) -> Self {
        Self {
            keyspace: keyspace.to_owned(),
            shard_name: shard.to_owned(),
            record,
            version: Version::default(),
            unknown: UnknownFields::default(),
        }
    }

    pub fn has_master(&self) -> bool {
        !topoproto::tablet_alias_is_zero(self.record.master_alias.as_ref())
    }

    pub fn master_alias(&self) -> Option<&TabletAlias> {
        self.record.master_alias.as_ref().filter(|alias| !topoproto::tablet_alias_is_zero(Some(alias)))
    }

    /// The range of the shard; the full one for a shard without.
    pub fn range(&self) -> KeyRange {
        topoproto::key_range(self.record.key_range.as_ref())
    }

    /// Whether the shard serves MASTER, in the present form or in that of old records.
    pub fn serves_master(&self) -> bool {
        self.record.is_master_serving
            || self.record.served_types.iter().any(|served| served.tablet_type() == TabletType::Master)
    }

    pub fn get_tablet_control(&self, tablet_type: TabletType) -> Option<&shard::TabletControl> {
        self.record.tablet_controls.iter().find(|control| control.tablet_type() == tablet_type)
    }

    /// The tables that tablets of a type in a cell must not serve.
    pub fn blacklisted_tables(&self, tablet_type: TabletType, cell: &str) -> &[String] {
        match self.get_tablet_control(tablet_type) {
            Some(control) if in_cell_list(cell, &control.cells) => &control.blacklisted_tables,
            _ => &[],
        }
    }

    /// Adds tables to the blacklist of a type in some cells (none given: in all), or takes cells off it.
    pub fn update_source_blacklisted_tables(
        &mut self,
        lock: &KeyspaceLock,
        tablet_type: TabletType,
        cells: &[String],
        remove: bool,
        tables: &[String],
    ) -> Result<()> {
        lock.check_held(&self.keyspace)?;
        let controls = &mut self.record.tablet_controls;
        let Some(index) = controls.iter().position(|control| control.tablet_type() == tablet_type) else {
            if remove {
                warn!(
                    keyspace = self.keyspace,
                    shard = self.shard_name,
                    tablet_type = tablet_type.as_str_name(),
                    "no blacklisted tables to remove"
                );
                return Ok(());
            }
            controls.push(shard::TabletControl {
                tablet_type: tablet_type.into(),
                cells: cells.to_vec(),
                blacklisted_tables: tables.to_vec(),
                frozen: false,
            });
            return Ok(());
        };
        let control = &mut controls[index];
        if remove {
            control.cells.retain(|cell| !in_cell_list(cell, cells));
            if control.cells.is_empty() {
                controls.remove(index);
            }
            return Ok(());
        }
        if control.blacklisted_tables != tables {
            return Err(TopoError::other(format!(
                "trying to use two different sets of blacklisted tables for shard {}/{}: [{}] and [{}]",
                self.keyspace,
                self.shard_name,
                control.blacklisted_tables.join(" "),
                tables.join(" ")
            )));
        }
        control.cells = add_cells(&control.cells, cells);
        Ok(())
    }

    /// Marks the MASTER cut-over as past its point of no return, or takes the mark back. An entry that
    /// says nothing else goes with the mark.
    pub fn set_master_frozen(&mut self, lock: &KeyspaceLock, frozen: bool) -> Result<()> {
        lock.check_held(&self.keyspace)?;
        let controls = &mut self.record.tablet_controls;
        match controls.iter_mut().find(|control| control.tablet_type() == TabletType::Master) {
            Some(control) => control.frozen = frozen,
            None if frozen => controls.push(shard::TabletControl {
                tablet_type: TabletType::Master.into(),
                frozen,
                ..Default::default()
            }),
            None => {}
        }
        controls.retain(|control| {
            control.frozen
                || control.tablet_type() != TabletType::Master
                || !control.cells.is_empty()
                || !control.blacklisted_tables.is_empty()
        });
        Ok(())
    }

    /// Whether the MASTER cut-over from this shard is past its point of no return.
    pub fn is_master_frozen(&self) -> bool {
        self.get_tablet_control(TabletType::Master).is_some_and(|control| control.frozen)
    }

    /// Adds a source of filtered replication.
    pub fn add_source_shard(&mut self, lock: &KeyspaceLock, source: shard::SourceShard) -> Result<()> {
        lock.check_held(&self.keyspace)?;
        if self.record.source_shards.iter().any(|known| known.uid == source.uid) {
            return Err(TopoError::other(format!("uid {} is already in use", source.uid)));
        }
        self.record.source_shards.push(source);
        Ok(())
    }

    /// Removes a source of filtered replication.
    pub fn delete_source_shard(&mut self, lock: &KeyspaceLock, uid: u32) -> Result<()> {
        lock.check_held(&self.keyspace)?;
        let before = self.record.source_shards.len();
        self.record.source_shards.retain(|source| source.uid != uid);
        if self.record.source_shards.len() == before {
            return Err(TopoError::other(format!("no SourceShard with uid {uid}")));
        }
        Ok(())
    }
}

impl TopoServer {
    pub async fn get_shard(&self, keyspace: &str, shard: &str) -> Result<ShardInfo> {
        let (record, unknown, version) = read(&**self.global(), &paths::shard_path(keyspace, shard)).await?;
        Ok(ShardInfo { keyspace: keyspace.to_owned(), shard_name: shard.to_owned(), record, version, unknown })
    }

    /// Reads, modifies and writes until no other writer came between. The updater may run several times.
    /// Returns the record as it is after that, written or not.
    pub async fn update_shard_fields<F>(&self, keyspace: &str, shard: &str, mut update: F) -> Result<ShardInfo>
    where
        F: FnMut(&mut ShardInfo) -> Result<Update>,
    {
        loop {
            let read = self.get_shard(keyspace, shard).await?;
            let mut info = read.clone();
            match update(&mut info) {
                Ok(Update::Write) => {}
                Ok(Update::NoUpdateNeeded) | Err(TopoError::NoUpdateNeeded { .. }) => return Ok(read),
                Err(error) => return Err(error),
            }
            let contents = record::encode(&info.record, &info.unknown);
            match self.global().update(&paths::shard_path(keyspace, shard), contents, Some(info.version)).await {
                Ok(version) => return Ok(ShardInfo { version, ..info }),
                Err(TopoError::BadVersion { .. }) => tokio::task::yield_now().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Creates the record of a shard, under the keyspace lock. Its master serves if no other shard of
    /// the keyspace holds any of its ids. `NodeExists` when the record is there; an error that names the other shard when one
    /// has the same range under another name (`-80` and `00-80`), of which no split could ever come.
    pub async fn create_shard(&self, keyspace: &str, shard: &str) -> Result<()> {
        let (name, key_range) = validate_shard_name(shard)?;
        let lock = self.lock_keyspace(keyspace, "CreateShard").await?;
        let created = self.create_shard_locked(keyspace, &name, key_range).await;
        let unlocked = lock.unlock().await;
        created.and(unlocked)
    }

    async fn create_shard_locked(
        &self,
        keyspace: &str,
        shard: &str,
        key_range: Option<topodata::KeyRange>,
    ) -> Result<()> {
        let others = match self.find_all_shards_in_keyspace(keyspace).await {
            Err(TopoError::NoNode { .. }) => Default::default(),
            outcome => outcome?,
        };
        if let Some(range) = &key_range {
            let range = topoproto::key_range(Some(range));
            let same = |other: &&ShardInfo| {
                other.shard_name != shard && other.record.key_range.is_some() && other.range() == range
            };
            if let Some(same) = others.values().find(same) {
                let text = format!(
                    "{keyspace}/{shard} is another name for the key range of the shard {keyspace}/{}",
                    same.shard_name
                );
                return Err(TopoError::Other(VtError::new(Code::FailedPrecondition, text)));
            }
        }
        let taken = others
            .values()
            .any(|other| topoproto::key_ranges_intersect(other.record.key_range.as_ref(), key_range.as_ref()));
        let record = Shard { key_range, is_master_serving: !taken, ..Default::default() };
        let contents = record::encode(&record, &UnknownFields::default());
        self.global().create(&paths::shard_path(keyspace, shard), contents).await.map(drop)
    }

    /// The record of a shard, created with its keyspace and a blank VSchema if need be.
    pub async fn get_or_create_shard(&self, keyspace: &str, shard: &str) -> Result<ShardInfo> {
        let (shard, _) = validate_shard_name(shard)?;
        match self.get_shard(keyspace, &shard).await {
            Err(TopoError::NoNode { .. }) => {}
            outcome => return outcome,
        }
        match self.create_keyspace(keyspace, &Keyspace::default()).await {
            Ok(()) | Err(TopoError::NodeExists { .. }) => {}
            Err(error) => return Err(error.wrap(format_args!("CreateKeyspace({keyspace}) failed"))),
        }
        self.ensure_vschema(keyspace)
            .await
            .map_err(|error| error.wrap(format_args!("EnsureVSchema({keyspace}) failed")))?;
        match self.create_shard(keyspace, &shard).await {
            // Another process won: its record is as good as ours.
            Ok(()) | Err(TopoError::NodeExists { .. }) => {}
            Err(error) => return Err(error.wrap(format_args!("CreateShard({keyspace}/{shard}) failed"))),
        }
        self.get_shard(keyspace, &shard).await
    }

    /// Deletes the record only.
    pub async fn delete_shard(&self, keyspace: &str, shard: &str) -> Result<()> {
        self.global().delete(&paths::shard_path(keyspace, shard), None).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    #[tokio::test]
    async fn blacklists_grow_and_shrink_by_cell() {
        let topo = TopoServer::memory(&["first"]);
        for keyspace in ["ks", "other"] {
            topo.create_keyspace(keyspace, &Keyspace::default()).await.expect("new");
        }
        let lock = topo.lock_keyspace("ks", "Test").await.expect("free");
        let foreign = topo.lock_keyspace("other", "Test").await.expect("free");
        let mut info = ShardInfo::new("ks", "0", Shard::default());
        let mut update = |lock: &KeyspaceLock, cells: &[&str], remove, tables: &[&str]| {
            let (cells, tables) = (strings(cells), strings(tables));
            let outcome = info.update_source_blacklisted_tables(lock, TabletType::Rdonly, &cells, remove, &tables);
            let left = info.get_tablet_control(TabletType::Rdonly).map(|control| control.cells.clone());
            (outcome.map_err(|error| error.to_string()), left)
        };
        assert_eq!(
            update(&foreign, &["first"], false, &["t1"]).0,
            Err("keyspace ks is not locked (no lockInfo in map)".into())
        );
        assert_eq!(update(&lock, &["first"], true, &[]), (Ok(()), None));
        assert_eq!(update(&lock, &["first"], false, &["t1", "t2"]), (Ok(()), Some(strings(&["first"]))));
        assert_eq!(
            update(&lock, &["first"], false, &["t3"]).0,
            Err("trying to use two different sets of blacklisted tables for shard ks/0: [t1 t2] and [t3]".into())
        );
        let all = ["first", "second", "third"];
        assert_eq!(update(&lock, &all, false, &["t1", "t2"]).1, Some(strings(&all)));
        assert_eq!(update(&lock, &["second"], true, &[]).1, Some(strings(&["first", "third"])));
        assert_eq!(update(&lock, &[], false, &["t1", "t2"]).1, Some(vec![]), "no cells are all cells");
        assert_eq!(update(&lock, &["first"], true, &[]).1, None, "a cell less than all is the whole entry");
        assert_eq!(update(&lock, &["first"], false, &["t1"]).1, Some(strings(&["first"])));
        assert_eq!(update(&lock, &[], true, &[]).1, None);
    }

    #[tokio::test]
    async fn sources_have_distinct_numbers() {
        let topo = TopoServer::memory(&["first"]);
        topo.create_keyspace("ks", &Keyspace::default()).await.expect("new");
        let lock = topo.lock_keyspace("ks", "SourceShardAdd(1)").await.expect("free");
        let mut info = ShardInfo::new("ks", "0", Shard::default());
        let source = shard::SourceShard { uid: 1, ..Default::default() };
        info.add_source_shard(&lock, source.clone()).expect("new");
        assert_eq!(info.add_source_shard(&lock, source).expect_err("again").to_string(), "uid 1 is already in use");
        assert_eq!(info.delete_source_shard(&lock, 2).expect_err("none").to_string(), "no SourceShard with uid 2");
        info.delete_source_shard(&lock, 1).expect("there");
        assert!(!info.is_master_frozen());
        info.set_master_frozen(&lock, true).expect("locked");
        assert!(info.is_master_frozen());
        info.set_master_frozen(&lock, false).expect("locked");
        assert_eq!(info.record.tablet_controls, []);
    }

    #[test]
    fn a_broken_rule_of_names_is_an_invalid_argument() {
        assert_eq!(validate_shard_name("40-80-").expect_err("two dashes").code(), Code::InvalidArgument);
        assert_eq!(validate_shard_name("x0-").expect_err("no digits").code(), Code::Unknown);
        assert_eq!(validate_shard_name("-").expect("a range").1, Some(topodata::KeyRange::default()));
        assert_eq!(validate_shard_name("0"), Ok(("0".into(), None)));
    }
}
