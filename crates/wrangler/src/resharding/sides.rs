//! The two sides of a horizontal split, and which of them the rows come from.

use topo::{ShardInfo, find_overlapping_shards, overlapping_shards_for_shard};

use crate::Wrangler;
use crate::error::{Result, bail, err};

/// The shards that rows leave and those that they go to, each sorted by range.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sides {
    pub sources: Vec<ShardInfo>,
    pub destinations: Vec<ShardInfo>,
}

/// The group of shards that `shard` shares rows with; `None` when it shares them with none.
pub(crate) async fn overlapping(wr: &Wrangler, keyspace: &str, shard: &str) -> Result<Option<topo::OverlappingShards>> {
    let shards = wr.topo().find_all_shards_in_keyspace(keyspace).await?;
    let groups = find_overlapping_shards(&shards).map_err(|error| err!("FindOverlappingShards failed: {error}"))?;
    Ok(overlapping_shards_for_shard(&groups, shard).cloned())
}

/// The same, for commands that need one, told apart by what the records say.
pub(crate) async fn sides_of(wr: &Wrangler, keyspace: &str, shard: &str) -> Result<Sides> {
    match overlapping(wr, keyspace, shard).await? {
        Some(group) => direction(group),
        None => bail!("shard {shard} is not involved in any overlapping shards"),
    }
}

/// Which side is which. A MASTER cut-over past its point of no return has already cleared the
/// destinations' sources and may have given some to the sources: its mark decides before all else.
pub(crate) fn direction(group: topo::OverlappingShards) -> Result<Sides> {
    let topo::OverlappingShards { left, right } = group;
    let frozen = |side: &[ShardInfo]| side.iter().any(ShardInfo::is_master_frozen);
    let fed = |side: &[ShardInfo]| side.iter().any(|shard| !shard.record.source_shards.is_empty());
    let left_is_source = match (frozen(&left), frozen(&right)) {
        (true, _) => true,
        (_, true) => false,
        _ if fed(&left) => false,
        _ if fed(&right) => true,
        _ => bail!(
            "neither Shard '{}' nor Shard '{}' have a 'SourceShards' entry. Did you successfully run vtworker SplitClone before? Or did you already migrate the MASTER type?",
            left[0].shard_name,
            right[0].shard_name
        ),
    };
    let (sources, destinations) = if left_is_source { (left, right) } else { (right, left) };
    Ok(Sides { sources, destinations })
}

#[cfg(test)]
mod tests {
    use vtproto::topodata::{Shard, TabletType, shard};

    use super::*;

    fn info(name: &str, fed: bool, frozen: bool) -> ShardInfo {
        let source = shard::SourceShard { uid: 1, ..Default::default() };
        let control =
            shard::TabletControl { tablet_type: TabletType::Master.into(), frozen: true, ..Default::default() };
        let record = Shard {
            source_shards: if fed { vec![source] } else { vec![] },
            tablet_controls: if frozen { vec![control] } else { vec![] },
            ..Default::default()
        };
        ShardInfo::new("ks", name, record)
    }

    fn sources(left: ShardInfo, right: ShardInfo) -> Result<String, String> {
        direction(topo::OverlappingShards { left: vec![left], right: vec![right] })
            .map(|sides| sides.sources[0].shard_name.clone())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn rows_come_from_the_frozen_side_or_from_the_one_that_is_not_fed() {
        assert_eq!(sources(info("0", false, false), info("-", true, false)).as_deref(), Ok("0"));
        assert_eq!(sources(info("0", true, false), info("-", false, false)).as_deref(), Ok("-"));
        // Half-way: the source has been given its way back.
        assert_eq!(sources(info("0", true, true), info("-", true, false)).as_deref(), Ok("0"));
        assert_eq!(sources(info("0", false, false), info("-", true, true)).as_deref(), Ok("-"));
        assert_eq!(
            sources(info("0", false, false), info("-", false, false)).expect_err("no direction"),
            "neither Shard '0' nor Shard '-' have a 'SourceShards' entry. Did you successfully run vtworker SplitClone before? Or did you already migrate the MASTER type?"
        );
    }
}
