//! Which shards of a keyspace hold the same rows: the two sides of a resharding.

use std::collections::BTreeMap;

use crate::{
    error::{Result, TopoError},
    shard::ShardInfo,
};

/// Two lists of shards over the same span, each sorted by range.
#[derive(Debug, Clone, PartialEq)]
pub struct OverlappingShards {
    pub left: Vec<ShardInfo>,
    pub right: Vec<ShardInfo>,
}

impl OverlappingShards {
    pub fn contains_shard(&self, shard: &str) -> bool {
        self.left.iter().chain(&self.right).any(|info| info.shard_name == shard)
    }
}

/// Groups the shards of a keyspace. Shards which overlap nothing are in no group.
pub fn find_overlapping_shards(shards: &BTreeMap<String, ShardInfo>) -> Result<Vec<OverlappingShards>> {
    let mut rest: Vec<&ShardInfo> = shards.values().collect();
    let mut groups = Vec::new();
    while !rest.is_empty() {
        let mut left = vec![rest.remove(0)];
        let mut right: Vec<&ShardInfo> = Vec::new();
        loop {
            let to_right = take_overlapping(&mut rest, &left, &right)?;
            let found = to_right.is_some();
            right.extend(to_right);
            let to_left = take_overlapping(&mut rest, &right, &left)?;
            if !found && to_left.is_none() {
                break;
            }
            left.extend(to_left);
        }
        if !right.is_empty() {
            let sorted = |mut side: Vec<&ShardInfo>| {
                side.sort_by_key(|info| info.range());
                side.into_iter().cloned().collect()
            };
            groups.push(OverlappingShards { left: sorted(left), right: sorted(right) });
        }
    }
    Ok(groups)
}

/// The group of a shard.
pub fn overlapping_shards_for_shard<'a>(groups: &'a [OverlappingShards], shard: &str) -> Option<&'a OverlappingShards> {
    groups.iter().find(|group| group.contains_shard(shard))
}

/// Takes the first shard which overlaps one of `side`; it must not overlap any of its own side.
fn take_overlapping<'a>(
    rest: &mut Vec<&'a ShardInfo>,
    side: &[&ShardInfo],
    own_side: &[&ShardInfo],
) -> Result<Option<&'a ShardInfo>> {
    let overlaps = |one: &ShardInfo, others: &[&ShardInfo]| {
        let range = one.range();
        others.iter().any(|other| other.range().intersects(&range))
    };
    let Some(index) = rest.iter().position(|info| overlaps(info, side)) else { return Ok(None) };
    let found = rest.remove(index);
    if overlaps(found, own_side) {
        return Err(TopoError::other(format!(
            "shard {} intersects with more than one shard, this is not supported",
            found.shard_name
        )));
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use vtproto::topodata::Shard;

    use super::*;
    use crate::validate_shard_name;

    fn groups(names: &[&str]) -> Result<Vec<(Vec<String>, Vec<String>)>> {
        let shards = names
            .iter()
            .map(|name| {
                let (name, key_range) = validate_shard_name(name).expect("a good name");
                let info = ShardInfo::new("ks", &name, Shard { key_range, ..Default::default() });
                (name, info)
            })
            .collect();
        let names = |side: &[ShardInfo]| side.iter().map(|info| info.shard_name.clone()).collect();
        let groups = find_overlapping_shards(&shards)?;
        Ok(groups.iter().map(|group| (names(&group.left), names(&group.right))).collect())
    }

    #[test]
    fn both_sides_of_a_resharding_are_found() {
        for alone in [&["-80", "80-"][..], &["-20", "20-40", "40-60", "60-80", "80-"]] {
            assert_eq!(groups(alone), Ok(vec![]), "{alone:?}");
        }
        let sorted = |names: &[&str]| {
            let mut found = groups(names).expect("supported");
            for (left, right) in &mut found {
                if left.len() > right.len() {
                    std::mem::swap(left, right);
                }
            }
            found
        };
        let strings = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert_eq!(sorted(&["-80", "80-", "-40", "40-80"]), [(strings(&["-80"]), strings(&["-40", "40-80"]))]);
        assert_eq!(sorted(&["0", "-80", "80-"]), [(strings(&["0"]), strings(&["-80", "80-"]))]);
        assert_eq!(
            sorted(&["-40", "40-80", "-30", "30-60", "60-80"]),
            [(strings(&["-40", "40-80"]), strings(&["-30", "30-60", "60-80"]))]
        );
    }

    #[test]
    fn three_layers_are_refused() {
        let error = groups(&["-20", "-40", "-80"]).expect_err("three layers");
        assert!(error.to_string().ends_with("intersects with more than one shard, this is not supported"), "{error}");
    }
}
