//! From a place in a keyspace to the shards that hold it now.
//!
//! Owns: the redirection of `served_from` and the choice of shards from the SrvKeyspace of our cell.
//! Invariant: nothing here waits for the topology server for a keyspace that was known once.

use std::sync::Arc;

use keyrange::{KeyRange, KeyspaceId};
use planner::Destination;
use topo::{srv_cache::SrvTopoCache, topoproto};
use vterrors::{Code, Result, VtError};
use vtproto::{
    query::Target,
    topodata::{ShardReference, SrvKeyspace, TabletType},
};

/// Resolves destinations in one cell.
#[derive(Clone)]
pub struct Resolver {
    cache: Arc<SrvTopoCache>,
    cell: Arc<str>,
}

/// The shards that serve a type in a keyspace, which may be another one than was asked for.
struct Serving {
    keyspace: String,
    record: Arc<SrvKeyspace>,
}

impl Resolver {
    pub fn new(cache: Arc<SrvTopoCache>, cell: &str) -> Self {
        Self { cache, cell: cell.into() }
    }

    pub fn cache(&self) -> &Arc<SrvTopoCache> {
        &self.cache
    }

    pub fn cell(&self) -> &str {
        &self.cell
    }

    /// The keyspaces that our cell serves.
    ///
    /// # Errors
    /// The topology's, while nothing is known.
    pub async fn keyspaces(&self) -> Result<Arc<Vec<String>>> {
        Ok(self.cache.get_srv_keyspace_names(&self.cell).await?)
    }

    /// The SrvKeyspace as it stands, without redirection.
    ///
    /// # Errors
    /// `keyspace ks fetch error: …`
    pub async fn srv_keyspace(&self, keyspace: &str) -> Result<Arc<SrvKeyspace>> {
        if let Some(known) = self.cache.known_srv_keyspace(&self.cell, keyspace) {
            return Ok(known);
        }
        self.cache
            .get_srv_keyspace(&self.cell, keyspace)
            .await
            .map_err(|error| VtError::new(Code::Unknown, format!("keyspace {keyspace} fetch error: {error}")))
    }

    async fn serving(&self, keyspace: &str, tablet_type: TabletType) -> Result<Serving> {
        let record = self.srv_keyspace(keyspace).await?;
        let from = record.served_from.iter().find(|from| from.tablet_type() == tablet_type).map(|f| f.keyspace.clone());
        match from {
            // One step, as in Vitess: the keyspace that serves for another has its own shards.
            Some(other) => {
                let record = self.srv_keyspace(&other).await?;
                Ok(Serving { keyspace: other, record })
            }
            None => Ok(Serving { keyspace: keyspace.to_string(), record }),
        }
    }

    /// All shards of a keyspace that serve a type: the keyspace that really serves, and its shards.
    ///
    /// # Errors
    /// `No partition found for tabletType t in keyspace ks`; those of reading the record.
    pub async fn shards(&self, keyspace: &str, tablet_type: TabletType) -> Result<(String, Vec<ShardReference>)> {
        let serving = self.serving(keyspace, tablet_type).await?;
        let shards = references(&serving, tablet_type)?.to_vec();
        Ok((serving.keyspace, shards))
    }

    /// The shards of a destination.
    ///
    /// # Errors
    /// As [`Resolver::shards`]; FAILED_PRECONDITION where the shards do not make up the destination.
    pub async fn resolve(
        &self,
        keyspace: &str,
        tablet_type: TabletType,
        destination: &Destination,
    ) -> Result<Vec<Target>> {
        let serving = self.serving(keyspace, tablet_type).await?;
        let target = |shard: &str| Target {
            keyspace: serving.keyspace.clone(),
            shard: shard.to_string(),
            tablet_type: tablet_type.into(),
            cell: String::new(),
        };
        // A shard that is named need not be in the serving graph.
        if let Destination::Explicit(keyrange::Destination::Shard(name)) = destination {
            return Ok(vec![target(name)]);
        }
        let shards = references(&serving, tablet_type)?;
        let named = |found: Vec<&ShardReference>| found.into_iter().map(|shard| target(&shard.name)).collect();
        match destination {
            Destination::AllShards => Ok(named(shards.iter().collect())),
            Destination::AnyShard => match shards {
                [] => Err(no_shards(&serving.keyspace, tablet_type)),
                [only] => Ok(vec![target(&only.name)]),
                many => {
                    use rand::Rng;
                    Ok(vec![target(&many[rand::rng().random_range(0..many.len())].name)])
                }
            },
            Destination::Explicit(keyrange::Destination::Shard(name)) => Ok(vec![target(name)]),
            Destination::Explicit(keyrange::Destination::KeyspaceId(id)) => {
                Ok(vec![target(&holder(shards, id, &serving.keyspace)?.name)])
            }
            Destination::Explicit(keyrange::Destination::ExactKeyRange(range)) => {
                Ok(named(exact(shards, range, &serving.keyspace)?))
            }
            Destination::Vindex(vindex) => Err(VtError::new(
                Code::Internal,
                format!("the values of vindex {} are not mapped", vindex.vindex.name()),
            )),
            Destination::KeyspaceIds(ids) => {
                let mut found: Vec<&ShardReference> = Vec::new();
                for id in ids {
                    let shard = holder(shards, id, &serving.keyspace)?;
                    if !found.iter().any(|known| known.name == shard.name) {
                        found.push(shard);
                    }
                }
                Ok(named(found))
            }
        }
    }

    /// The shards of a keyspace, to find those of many ids in.
    ///
    /// # Errors
    /// As [`Resolver::shards`].
    pub async fn shard_map(&self, keyspace: &str, tablet_type: TabletType) -> Result<ShardMap> {
        let serving = self.serving(keyspace, tablet_type).await?;
        references(&serving, tablet_type)?;
        Ok(ShardMap { serving, tablet_type })
    }

    /// The shards that hold any part of a range.
    ///
    /// # Errors
    /// As [`Resolver::shards`].
    pub async fn resolve_range(
        &self,
        keyspace: &str,
        tablet_type: TabletType,
        range: &KeyRange,
    ) -> Result<Vec<Target>> {
        let (keyspace, shards) = self.shards(keyspace, tablet_type).await?;
        Ok(shards
            .into_iter()
            .filter(|shard| topoproto::key_range(shard.key_range.as_ref()).intersects(range))
            .map(|shard| Target {
                keyspace: keyspace.clone(),
                shard: shard.name,
                tablet_type: tablet_type.into(),
                cell: String::new(),
            })
            .collect())
    }
}

/// The shards that serve a type in a keyspace at one moment.
pub struct ShardMap {
    serving: Serving,
    tablet_type: TabletType,
}

impl ShardMap {
    fn shards(&self) -> Result<&[ShardReference]> {
        references(&self.serving, self.tablet_type)
    }

    fn target(&self, shard: &ShardReference) -> Target {
        Target {
            keyspace: self.serving.keyspace.clone(),
            shard: shard.name.clone(),
            tablet_type: self.tablet_type.into(),
            cell: String::new(),
        }
    }

    /// Every shard.
    ///
    /// # Errors
    /// UNKNOWN when there is none.
    pub fn all(&self) -> Result<Vec<Target>> {
        Ok(self.shards()?.iter().map(|shard| self.target(shard)).collect())
    }

    /// The shard that holds an id.
    ///
    /// # Errors
    /// `KeyspaceId … didn't match any shards in keyspace …`.
    pub fn holder(&self, id: &KeyspaceId) -> Result<Target> {
        Ok(self.target(holder(self.shards()?, id, &self.serving.keyspace)?))
    }
}

fn references(serving: &Serving, tablet_type: TabletType) -> Result<&[ShardReference]> {
    serving
        .record
        .partitions
        .iter()
        .find(|partition| partition.served_type() == tablet_type)
        .map(|partition| partition.shard_references.as_slice())
        .ok_or_else(|| no_shards(&serving.keyspace, tablet_type))
}

fn no_shards(keyspace: &str, tablet_type: TabletType) -> VtError {
    let name = tabletclient::health_check::type_text(tablet_type);
    VtError::new(Code::Unknown, format!("No partition found for tabletType {name} in keyspace {keyspace}"))
}

fn holder<'a>(shards: &'a [ShardReference], id: &KeyspaceId, keyspace: &str) -> Result<&'a ShardReference> {
    shards.iter().find(|shard| topoproto::key_range(shard.key_range.as_ref()).contains(id.as_bytes())).ok_or_else(
        || VtError::new(Code::Unknown, format!("KeyspaceId {id} didn't match any shards in keyspace {keyspace}")),
    )
}

/// The shards that together are exactly `range`.
fn exact<'a>(shards: &'a [ShardReference], range: &KeyRange, keyspace: &str) -> Result<Vec<&'a ShardReference>> {
    let mismatch = || {
        VtError::new(
            Code::FailedPrecondition,
            format!("keyrange {range} does not exactly match shards in keyspace {keyspace}"),
        )
    };
    let held = |shard: &ShardReference| topoproto::key_range(shard.key_range.as_ref());
    let inside: Vec<&ShardReference> = shards.iter().filter(|shard| held(shard).intersects(range)).collect();
    let (Some(first), Some(last)) = (inside.first(), inside.last()) else { return Err(mismatch()) };
    if held(first).compare_start(range).is_eq() && held(last).compare_end(range).is_eq() {
        Ok(inside)
    } else {
        Err(mismatch())
    }
}
