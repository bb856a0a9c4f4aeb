//! Building SrvKeyspace anew from the Keyspace and Shard records.
//!
//! It would forget the per-type state of a migration, so it is refused while controls are set.

use futures::{future::join_all, try_join};
use vtproto::topodata::{ShardReference, TabletType};

use crate::{
    error::{Result, TopoError},
    keyspace::srv_keyspace_of,
    locks::KeyspaceLock,
    server::TopoServer,
    srv_keyspace::{order_and_check_partitions, partition_mut, partition_text},
};

/// The partitions, in the order they are made in.
const SERVED_TYPES: [TabletType; 3] = [TabletType::Master, TabletType::Replica, TabletType::Rdonly];

impl TopoServer {
    /// Rebuilds the SrvKeyspace of some cells (none given: of all), under the keyspace lock.
    pub async fn rebuild_keyspace(&self, keyspace: &str, cells: &[String]) -> Result<()> {
        let lock = self.lock_keyspace(keyspace, "RebuildKeyspace").await?;
        let rebuilt = self.rebuild_keyspace_locked(&lock, cells).await;
        let unlocked = lock.unlock().await;
        rebuilt.and(unlocked)
    }

    /// The same for a caller who holds the lock already.
    pub async fn rebuild_keyspace_locked(&self, lock: &KeyspaceLock, cells: &[String]) -> Result<()> {
        let keyspace = lock.keyspace();
        lock.check_held(keyspace)?;
        let (info, cells, shards) = try_join!(
            self.get_keyspace(keyspace),
            self.cells_or_all(cells),
            self.find_all_shards_in_keyspace(keyspace)
        )?;
        let existing = join_all(cells.iter().map(|cell| self.read_srv_keyspace(cell, keyspace))).await;

        let mut records = Vec::with_capacity(cells.len());
        for (cell, existing) in cells.iter().zip(existing) {
            let unknown = match existing {
                Ok((existing, unknown)) => {
                    if let Some(busy) = existing.partitions.iter().find(|one| !one.shard_tablet_controls.is_empty()) {
                        return Err(TopoError::other(format!(
                            "can't rebuild serving keyspace while a migration is on going. \
                             TabletControls is set for partition {}",
                            partition_text(busy)
                        )));
                    }
                    unknown
                }
                Err(TopoError::NoNode { .. }) => Default::default(),
                Err(error) => return Err(error),
            };
            let mut srv_keyspace = srv_keyspace_of(&info, cell);
            for shard in shards.values().filter(|shard| shard.serves_master()) {
                for tablet_type in SERVED_TYPES {
                    partition_mut(&mut srv_keyspace, tablet_type).shard_references.push(ShardReference {
                        name: shard.shard_name.clone(),
                        key_range: shard.record.key_range.clone(),
                    });
                }
            }
            order_and_check_partitions(cell, &mut srv_keyspace)?;
            records.push((cell, srv_keyspace, unknown));
        }

        let written = join_all(
            records
                .iter()
                .map(|(cell, srv_keyspace, unknown)| self.write_srv_keyspace(cell, keyspace, srv_keyspace, unknown)),
        )
        .await;
        let mut failures: Vec<String> = written
            .into_iter()
            .filter_map(|written| written.err().map(|error| format!("writing serving data failed: {error}")))
            .collect();
        if failures.is_empty() {
            return Ok(());
        }
        failures.sort();
        Err(TopoError::other(failures.join("\n")))
    }
}
