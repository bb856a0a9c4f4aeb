//! Cutting a keyspace into shards: specs such as `-40-80-c0-`, and equal parts.

use crate::{KeyRange, KeyRangeError};

/// The ranges of a spec, in order. `0` is the one shard of an unsharded keyspace.
pub fn parse_sharding_spec(spec: &str) -> Result<Vec<KeyRange>, KeyRangeError> {
    if spec == "0" {
        return Ok(vec![KeyRange::full()]);
    }
    let parts: Vec<&str> = spec.split('-').collect();
    if parts.len() == 1 {
        return Err(KeyRangeError::SpecNoRange(spec.to_owned()));
    }
    let mut ranges = Vec::with_capacity(parts.len() - 1);
    let mut old = parts[0];
    for (index, part) in parts.iter().enumerate().skip(1) {
        if part.is_empty() && index != parts.len() - 1 {
            return Err(KeyRangeError::SpecMiddle(spec.to_owned()));
        }
        if !part.is_empty() && *part <= old {
            return Err(KeyRangeError::SpecOrder(spec.to_owned()));
        }
        ranges.push(KeyRange::from_hex(old, part)?);
        old = part;
    }
    Ok(ranges)
}

/// Part `index` of `count` equal parts, a power of two. Bounds have as few bytes as the count allows.
pub fn even_shards_key_range(index: i64, count: i64) -> Result<KeyRange, KeyRangeError> {
    if count <= 0 {
        return Err(KeyRangeError::ShardCount(count));
    }
    if index >= count || index < 0 {
        return Err(KeyRangeError::ShardIndex { index, count });
    }
    if count & (count - 1) != 0 {
        return Err(KeyRangeError::NotPowerOfTwo(count));
    }
    let highest = (count - 1) as u64;
    let bytes = (u64::BITS - highest.leading_zeros()).div_ceil(8) as usize;
    // For one part the width is 2^64, which wraps to 0: both bounds are then open.
    let width = (u64::MAX / count as u64).wrapping_add(1);
    let bound = |number: u64| if number == 0 { Vec::new() } else { number.to_be_bytes()[..bytes].to_vec() };
    let start = (index as u64).wrapping_mul(width);
    Ok(KeyRange::from_bounds(bound(start), bound(start.wrapping_add(width))))
}

/// The names of `count` shards of nearly equal size, for any count up to 65536.
pub fn generate_shard_ranges(count: i64) -> Result<Vec<String>, KeyRangeError> {
    let (digits, limit) = match count {
        ..=0 => return Err(KeyRangeError::ShardCount(count)),
        1..=256 => (2, 256),
        257..=65536 => (4, 65536),
        _ => return Err(KeyRangeError::TooManyShards),
    };
    let bound = |index: i64| match index {
        0 => String::new(),
        index if index == count => String::new(),
        index => format!("{:0digits$x}", index * limit / count),
    };
    Ok((0..count).map(|index| format!("{}-{}", bound(index), bound(index + 1))).collect())
}
