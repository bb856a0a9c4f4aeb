//! Which shards can replace which: the target shards have to cover exactly what the sources cover.

use crate::{KeyRange, KeyRangeError};

/// One range out of the ranges of shards, in any order. `None` is a shard without a range.
pub fn combine_key_ranges(ranges: &[Option<KeyRange>]) -> Result<KeyRange, KeyRangeError> {
    let (first, rest) = ranges.split_first().ok_or(KeyRangeError::NothingToCombine)?;
    let mut rest: Vec<KeyRange> = rest.iter().map(|range| range.clone().unwrap_or_default()).collect();
    let mut all = first.clone().unwrap_or_default();
    while !rest.is_empty() {
        let (index, joined) = rest
            .iter()
            .enumerate()
            .find_map(|(index, range)| all.join(range).map(|joined| (index, joined)))
            .ok_or(KeyRangeError::NotContiguous)?;
        all = joined;
        rest.swap_remove(index);
    }
    Ok(all)
}

/// Whether rows can be moved from the source shards to the target shards.
pub fn validate_for_reshard(sources: &[Option<KeyRange>], targets: &[Option<KeyRange>]) -> Result<(), KeyRangeError> {
    for source in sources {
        let source = source.clone().unwrap_or_default();
        if targets.iter().any(|target| target.clone().unwrap_or_default() == source) {
            return Err(KeyRangeError::SameRange(source.to_string()));
        }
    }
    let source = combine_key_ranges(sources)?;
    let target = combine_key_ranges(targets)?;
    if source != target {
        return Err(KeyRangeError::RangesDiffer { source: source.to_string(), target: target.to_string() });
    }
    Ok(())
}
