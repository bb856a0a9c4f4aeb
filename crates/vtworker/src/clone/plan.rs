//! Which shards a clone reads and fills, and whether the topology allows it.

use topo::{ShardInfo, TopoServer, find_overlapping_shards, overlapping_shards_for_shard};
use vterrors::{Code, Result, VtError};
use vtproto::topodata::{Keyspace, TabletType};

use crate::tablets::ShardName;

/// The two commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Shards of one keyspace: split, merge, or both.
    Horizontal,
    /// Tables of one keyspace to another.
    Vertical,
}

/// What is copied where.
#[derive(Debug, Clone)]
pub struct Plan {
    pub kind: Kind,
    pub sources: Vec<ShardInfo>,
    pub destinations: Vec<ShardInfo>,
    /// The record of the destination keyspace.
    pub keyspace: Keyspace,
}

const SERVING_TYPES: [TabletType; 3] = [TabletType::Master, TabletType::Replica, TabletType::Rdonly];

fn fault(text: String) -> VtError {
    VtError::new(Code::FailedPrecondition, text)
}

/// `(keyspace, shard)` of a record.
pub fn shard_name(info: &ShardInfo) -> ShardName {
    (info.keyspace.clone(), info.shard_name.clone())
}

/// `keyspace/shard` of a record.
pub fn shard_path(info: &ShardInfo) -> String {
    format!("{}/{}", info.keyspace, info.shard_name)
}

impl Plan {
    /// Reads the records and checks them, except for streams that exist already ([`Plan::check_no_streams`]).
    ///
    /// # Errors
    /// FAILED_PRECONDITION with the rule that is broken.
    pub async fn resolve(topo: &TopoServer, kind: Kind, shard: &ShardName) -> Result<Self> {
        let plan = match kind {
            Kind::Horizontal => Self::horizontal(topo, shard).await?,
            Kind::Vertical => Self::vertical(topo, shard).await?,
        };
        for source in &plan.sources {
            let serving = topo.get_shard_serving_types(source).await?;
            for kind in SERVING_TYPES {
                if !serving.contains(&kind) {
                    let kind = kind.as_str_name();
                    return Err(fault(format!("source shard {} is not serving type {kind}", shard_path(source))));
                }
            }
        }
        for destination in &plan.destinations {
            let serving = topo.get_shard_serving_types(destination).await?;
            match plan.kind {
                Kind::Horizontal if !serving.is_empty() => {
                    return Err(fault(format!("destination shard {} is serving some types", shard_path(destination))));
                }
                Kind::Vertical => {
                    for kind in SERVING_TYPES {
                        if !serving.contains(&kind) {
                            let kind = kind.as_str_name();
                            return Err(fault(format!(
                                "destination shard {} is not serving type {kind}",
                                shard_path(destination)
                            )));
                        }
                    }
                }
                Kind::Horizontal => {}
            }
        }
        Ok(plan)
    }

    async fn horizontal(topo: &TopoServer, (keyspace, shard): &ShardName) -> Result<Self> {
        let record = topo.get_keyspace(keyspace).await?.record;
        let shards = topo.find_all_shards_in_keyspace(keyspace).await?;
        let groups = find_overlapping_shards(&shards)
            .map_err(|error| fault(format!("cannot FindOverlappingShards in {keyspace}: {error}")))?;
        let group = overlapping_shards_for_shard(&groups, shard)
            .ok_or_else(|| fault(format!("the specified shard {keyspace}/{shard} is not in any overlapping shard")))?;
        let [left, right] = [&group.left, &group.right];
        let serves = async |side: &Vec<ShardInfo>| match side.first() {
            Some(first) => Ok::<_, VtError>(!topo.get_shard_serving_types(first).await?.is_empty()),
            None => Ok(false),
        };
        let (sources, destinations) = match (serves(left).await?, serves(right).await?) {
            (true, false) => (left, right),
            (false, true) => (right, left),
            _ => {
                return Err(fault(format!(
                    "neither side of the overlapping shards of {keyspace}/{shard} serves alone: cannot tell the source"
                )));
            }
        };
        Ok(Self {
            kind: Kind::Horizontal,
            sources: sources.clone(),
            destinations: destinations.clone(),
            keyspace: record,
        })
    }

    async fn vertical(topo: &TopoServer, (keyspace, shard): &ShardName) -> Result<Self> {
        let info = topo.get_keyspace(keyspace).await?;
        if info.record.served_froms.is_empty() {
            return Err(fault(format!("destination keyspace {keyspace} has no KeyspaceServedFrom")));
        }
        let mut source: Option<&str> = None;
        for kind in SERVING_TYPES {
            let Some(from) = info.get_served_from(kind) else {
                return Err(fault(format!(
                    "destination keyspace {keyspace} is not serving type {}",
                    kind.as_str_name()
                )));
            };
            match source {
                None => source = Some(&from.keyspace),
                Some(other) if other == from.keyspace => {}
                Some(other) => {
                    return Err(fault(format!(
                        "destination keyspace {keyspace} is serving from multiple keyspaces {other} and {}",
                        from.keyspace
                    )));
                }
            }
        }
        let source = topo.get_only_shard(source.unwrap_or_default()).await?;
        let destination = topo.get_shard(keyspace, shard).await?;
        Ok(Self { kind: Kind::Vertical, sources: vec![source], destinations: vec![destination], keyspace: info.record })
    }

    /// Whether a destination has filtered replication already.
    ///
    /// # Errors
    /// It has.
    pub fn check_no_streams(&self) -> Result<()> {
        let Some(filled) = self.destinations.iter().find(|info| !info.record.source_shards.is_empty()) else {
            return Ok(());
        };
        Err(fault(format!(
            "destination shard {} has filtered replication already enabled from a previous resharding (ShardInfo is \
             set). This requires manual intervention e.g. use vtctl SourceShardDelete to remove it",
            shard_path(filled)
        )))
    }

    /// Whether a destination holds rows of a source.
    pub fn overlaps(&self, source: usize, destination: usize) -> bool {
        self.kind == Kind::Vertical || self.sources[source].range().intersects(&self.destinations[destination].range())
    }

    /// What the job is known by in the progress tables: the same for a run that goes on.
    pub fn job_name(&self, tables: &[String]) -> String {
        let list = |side: &[ShardInfo]| side.iter().map(shard_path).collect::<Vec<_>>().join(",");
        let (kind, tables) = match self.kind {
            Kind::Horizontal => ("SplitClone", String::new()),
            Kind::Vertical => ("VerticalSplitClone", format!(" {}", tables.join(","))),
        };
        let name = format!("{kind} {} {}{tables}", list(&self.sources), list(&self.destinations));
        if name.len() <= 500 {
            return name;
        }
        use md5::Digest;
        let digest = md5::Md5::digest(name.as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{kind} {hex}")
    }
}
