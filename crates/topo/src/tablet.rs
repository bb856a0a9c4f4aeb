//! Tablet records, which lie in the cell of the tablet, and the lists of tablets of a shard.
//!
//! "All tablets of a shard" is the shard's master together with the ShardReplication nodes of every
//! cell. A cell that cannot be reached makes the answer partial, which the caller has to decide about.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use tracing::warn;
use vtproto::topodata::{Tablet, TabletAlias};

use crate::{
    cells::in_cell_list,
    conn::Version,
    error::{Result, TopoError},
    keyspace::READ_CONCURRENCY,
    paths::{self, TABLETS_DIR},
    record::{self, UnknownFields},
    server::{TopoServer, Update, read, update_record},
    topoproto::{self, tablet_alias_string},
};

/// A Tablet record as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct TabletInfo {
    pub record: Tablet,
    pub version: Version,
    unknown: UnknownFields,
}

impl TabletInfo {
    /// A record which is not in the topology server.
    pub fn new(record: Tablet) -> Self {
        Self { record, version: Version::default(), unknown: UnknownFields::default() }
    }

    /// The alias, the default one when the record has none.
    pub fn alias(&self) -> TabletAlias {
        self.record.alias.clone().unwrap_or_default()
    }

    /// `zone1-0000000100`
    pub fn alias_string(&self) -> String {
        tablet_alias_string(self.record.alias.as_ref())
    }
}

/// Tablets by their alias in text form, which is the order they are listed in.
pub type TabletMap = BTreeMap<String, TabletInfo>;

/// What could be read, and what prevented the rest.
#[derive(Debug, Clone)]
pub struct Partial<T> {
    pub value: T,
    /// `None` when nothing is missing.
    pub error: Option<TopoError>,
}

impl<T> Partial<T> {
    /// The value only if nothing is missing.
    pub fn complete(self) -> Result<T> {
        match self.error {
            None => Ok(self.value),
            Some(error) => Err(error),
        }
    }

    /// The value, with a warning about what is missing.
    pub fn or_warn(self, what: &str) -> T {
        if let Some(error) = &self.error {
            warn!(%error, "{what}: got a partial result");
        }
        self.value
    }
}

impl TopoServer {
    /// Creates the record and enters the tablet into its shard's replication list. `NodeExists` when
    /// the record is there.
    pub async fn create_tablet(&self, tablet: &Tablet) -> Result<()> {
        let alias = alias_of(tablet)?;
        let conn = self.conn_for_cell(&alias.cell).await?;
        let contents = record::encode(tablet, &UnknownFields::default());
        conn.create(&paths::tablet_path(alias), contents).await?;
        self.update_tablet_replication_data(tablet).await
    }

    pub async fn get_tablet(&self, alias: &TabletAlias) -> Result<TabletInfo> {
        let conn = self.conn_for_cell(&alias.cell).await?;
        let (record, unknown, version) = read(&*conn, &paths::tablet_path(alias)).await?;
        Ok(TabletInfo { record, version, unknown })
    }

    /// Writes a record that was read, if nobody else has written it since.
    pub async fn update_tablet(&self, info: &mut TabletInfo) -> Result<()> {
        let alias = alias_of(&info.record)?;
        let conn = self.conn_for_cell(&alias.cell).await?;
        let contents = record::encode(&info.record, &info.unknown);
        info.version = conn.update(&paths::tablet_path(alias), contents, Some(info.version)).await?;
        Ok(())
    }

    /// Writes a record whatever is there, keeping only fields that we do not know.
    pub async fn overwrite_tablet(&self, tablet: &Tablet) -> Result<()> {
        let alias = alias_of(tablet)?;
        let conn = self.conn_for_cell(&alias.cell).await?;
        let unknown = match read::<Tablet>(&*conn, &paths::tablet_path(alias)).await {
            Ok((_, unknown, _)) => unknown,
            Err(TopoError::NoNode { .. } | TopoError::Corrupt { .. }) => UnknownFields::default(),
            Err(error) => return Err(error),
        };
        conn.update(&paths::tablet_path(alias), record::encode(tablet, &unknown), None).await.map(drop)
    }

    /// Reads, modifies and writes until no other writer came between. The updater may run several times.
    /// Returns the record if it was written, `None` if no update was needed.
    pub async fn update_tablet_fields<F>(&self, alias: &TabletAlias, update: F) -> Result<Option<Tablet>>
    where
        F: FnMut(&mut Tablet) -> Result<Update>,
    {
        let conn = self.conn_for_cell(&alias.cell).await?;
        update_record(&*conn, &paths::tablet_path(alias), false, update).await
    }

    /// Deletes the record only; see [`TopoServer::delete_tablet_replication_data`].
    pub async fn delete_tablet(&self, alias: &TabletAlias) -> Result<()> {
        let conn = self.conn_for_cell(&alias.cell).await?;
        conn.delete(&paths::tablet_path(alias), None).await
    }

    /// The aliases of a cell in order. `NoNode` when the cell has no tablets.
    pub async fn get_tablets_by_cell(&self, cell: &str) -> Result<Vec<TabletAlias>> {
        let conn = self.conn_for_cell(cell).await?;
        let mut aliases = Vec::new();
        for entry in conn.list_dir(TABLETS_DIR, false).await? {
            aliases.push(topoproto::parse_tablet_alias(&entry.name)?);
        }
        aliases.sort_by(topoproto::compare_aliases);
        Ok(aliases)
    }

    /// Reads many records at once. Tablets without a record are left out silently: they were deleted.
    pub async fn get_tablet_map(&self, aliases: &[TabletAlias]) -> Partial<TabletMap> {
        let mut reads = stream::iter(aliases)
            .map(|alias| async move { (alias, self.get_tablet(alias).await) })
            .buffer_unordered(READ_CONCURRENCY)
            // Boxed, or the compiler cannot see that the future of a caller is Send.
            .boxed();
        let mut tablets = TabletMap::new();
        let mut error = None;
        while let Some((alias, read)) = reads.next().await {
            let alias = tablet_alias_string(Some(alias));
            match read {
                Ok(info) => {
                    tablets.insert(alias, info);
                }
                Err(TopoError::NoNode { .. }) => warn!(tablet = alias, "the tablet has no record"),
                Err(failed) => {
                    warn!(tablet = alias, error = %failed, "cannot read the tablet's record");
                    error = Some(TopoError::PartialResult { what: alias });
                }
            }
        }
        Partial { value: tablets, error }
    }

    /// The aliases of all tablets of a shard, in order.
    pub async fn find_all_tablet_aliases_in_shard(
        &self,
        keyspace: &str,
        shard: &str,
    ) -> Result<Partial<Vec<TabletAlias>>> {
        self.find_all_tablet_aliases_in_shard_by_cell(keyspace, shard, &[]).await
    }

    /// The aliases of the tablets of a shard in some cells (none given: in all), in order.
    pub async fn find_all_tablet_aliases_in_shard_by_cell(
        &self,
        keyspace: &str,
        shard: &str,
        cells: &[String],
    ) -> Result<Partial<Vec<TabletAlias>>> {
        let info = self.get_shard(keyspace, shard).await?;
        let cells = if cells.is_empty() { self.get_cell_info_names().await? } else { cells.to_vec() };
        let mut aliases: Vec<TabletAlias> =
            info.master_alias().filter(|alias| in_cell_list(&alias.cell, &cells)).cloned().into_iter().collect();
        let mut reads = stream::iter(&cells)
            .map(|cell| async move { (cell, self.get_shard_replication(cell, keyspace, shard).await) })
            .buffer_unordered(READ_CONCURRENCY)
            // Boxed, or the compiler cannot see that the future of a caller is Send.
            .boxed();
        let mut error = None;
        while let Some((cell, read)) = reads.next().await {
            match read {
                Ok(replication) => aliases.extend(replication.nodes.into_iter().filter_map(|node| node.tablet_alias)),
                Err(TopoError::NoNode { .. }) => {}
                Err(failed) => {
                    warn!(cell, keyspace, shard, error = %failed, "cannot read the replication list of the shard");
                    error = Some(TopoError::PartialResult { what: shard.to_owned() });
                }
            }
        }
        drop(reads);
        aliases.sort_by(topoproto::compare_aliases);
        aliases.dedup();
        Ok(Partial { value: aliases, error })
    }

    /// The records of all tablets of a shard.
    pub async fn get_tablet_map_for_shard(&self, keyspace: &str, shard: &str) -> Result<Partial<TabletMap>> {
        self.get_tablet_map_for_shard_by_cell(keyspace, shard, &[]).await
    }

    /// The records of the tablets of a shard in some cells (none given: in all).
    pub async fn get_tablet_map_for_shard_by_cell(
        &self,
        keyspace: &str,
        shard: &str,
        cells: &[String],
    ) -> Result<Partial<TabletMap>> {
        let aliases = self.find_all_tablet_aliases_in_shard_by_cell(keyspace, shard, cells).await?;
        let mut tablets = self.get_tablet_map(&aliases.value).await;
        if aliases.error.is_some() {
            tablets.error = aliases.error;
        }
        Ok(tablets)
    }
}

pub(crate) fn alias_of(tablet: &Tablet) -> Result<&TabletAlias> {
    tablet.alias.as_ref().ok_or_else(|| TopoError::other("the tablet record has no alias"))
}
