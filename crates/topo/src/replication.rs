//! The list of a shard's tablets in one cell (ShardReplication).

use vtproto::topodata::{ShardReplication, Tablet, TabletAlias, shard_replication::Node};

use crate::{
    error::{Result, TopoError},
    paths,
    server::{TopoServer, Update, read, update_record},
    tablet::alias_of,
};

impl TopoServer {
    pub async fn get_shard_replication(&self, cell: &str, keyspace: &str, shard: &str) -> Result<ShardReplication> {
        let conn = self.conn_for_cell(cell).await?;
        Ok(read(&*conn, &paths::shard_replication_path(keyspace, shard)).await?.0)
    }

    /// Updates the list, or creates it.
    pub async fn update_shard_replication_fields<F>(
        &self,
        cell: &str,
        keyspace: &str,
        shard: &str,
        update: F,
    ) -> Result<()>
    where
        F: FnMut(&mut ShardReplication) -> Result<Update>,
    {
        let conn = self.conn_for_cell(cell).await?;
        update_record(&*conn, &paths::shard_replication_path(keyspace, shard), true, update).await.map(drop)
    }

    /// Enters a tablet into the list of its shard in its cell, once.
    pub async fn update_tablet_replication_data(&self, tablet: &Tablet) -> Result<()> {
        self.add_shard_replication_node(&tablet.keyspace, &tablet.shard, alias_of(tablet)?).await
    }

    /// Takes a tablet off the list of its shard in its cell.
    pub async fn delete_tablet_replication_data(&self, tablet: &Tablet) -> Result<()> {
        self.remove_shard_replication_node(&tablet.keyspace, &tablet.shard, alias_of(tablet)?).await
    }

    /// Enters an alias into a list, once.
    pub async fn add_shard_replication_node(&self, keyspace: &str, shard: &str, alias: &TabletAlias) -> Result<()> {
        self.update_shard_replication_fields(&alias.cell, keyspace, shard, |replication| {
            let mut found = false;
            let before = replication.nodes.len();
            replication.nodes.retain(|node| {
                let is_it = node.tablet_alias.as_ref() == Some(alias);
                let keep = !(is_it && found);
                found |= is_it;
                keep
            });
            if found && replication.nodes.len() == before {
                return Ok(Update::NoUpdateNeeded);
            }
            if !found {
                replication.nodes.push(Node { tablet_alias: Some(alias.clone()) });
            }
            Ok(Update::Write)
        })
        .await
    }

    /// Takes an alias off a list; a list that does not exist stays so.
    pub async fn remove_shard_replication_node(&self, keyspace: &str, shard: &str, alias: &TabletAlias) -> Result<()> {
        let conn = self.conn_for_cell(&alias.cell).await?;
        let removed = update_record(
            &*conn,
            &paths::shard_replication_path(keyspace, shard),
            false,
            |replication: &mut ShardReplication| {
                replication.nodes.retain(|node| node.tablet_alias.as_ref() != Some(alias));
                Ok(Update::Write)
            },
        )
        .await;
        match removed {
            Ok(_) | Err(TopoError::NoNode { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Removes the first node which has no tablet or one of another shard. Returns what was removed.
    pub async fn fix_shard_replication(&self, cell: &str, keyspace: &str, shard: &str) -> Result<Option<TabletAlias>> {
        let replication = self.get_shard_replication(cell, keyspace, shard).await?;
        for alias in replication.nodes.into_iter().filter_map(|node| node.tablet_alias) {
            let bad = match self.get_tablet(&alias).await {
                Ok(info) => info.record.keyspace != keyspace || info.record.shard != shard,
                Err(TopoError::NoNode { .. }) => true,
                Err(error) => return Err(error),
            };
            if bad {
                self.update_shard_replication_fields(cell, keyspace, shard, |list| {
                    list.nodes.retain(|node| node.tablet_alias.as_ref() != Some(&alias));
                    Ok(Update::Write)
                })
                .await?;
                return Ok(Some(alias));
            }
        }
        Ok(None)
    }

    pub async fn delete_shard_replication(&self, cell: &str, keyspace: &str, shard: &str) -> Result<()> {
        let conn = self.conn_for_cell(cell).await?;
        conn.delete(&paths::shard_replication_path(keyspace, shard), None).await
    }
}
