//! `xxhash`: xxHash64 of the value's text, little-endian. For keys of any type.

use std::sync::Arc;

use keyrange::KeyspaceId;
use vterrors::VtError;

use crate::{Destination, Params, Value, Vindex};

#[derive(Debug)]
struct XxHash {
    name: String,
}

pub(crate) fn xxhash(name: &str, _: &Params) -> Result<Arc<dyn Vindex>, VtError> {
    Ok(Arc::new(XxHash { name: name.to_owned() }))
}

impl Vindex for XxHash {
    fn name(&self) -> &str {
        &self.name
    }
    fn cost(&self) -> u32 {
        1
    }
    fn is_unique(&self) -> bool {
        true
    }
    fn map(&self, values: &[Value]) -> Result<Vec<Destination>, VtError> {
        let one = |value: &Value| Destination::KeyspaceId(KeyspaceId::new(xxh64(&value.bytes).to_le_bytes()));
        Ok(values.iter().map(one).collect())
    }
    fn verify(&self, values: &[Value], ids: &[KeyspaceId]) -> Result<Vec<bool>, VtError> {
        Ok(values.iter().zip(ids).map(|(v, id)| xxh64(&v.bytes).to_le_bytes() == id.as_bytes()).collect())
    }
}

// The primes of the xxHash specification.
const P1: u64 = 0x9E37_79B1_85EB_CA87;
const P2: u64 = 0xC2B2_AE3D_27D4_EB4F;
const P3: u64 = 0x1656_67B1_9E37_79F9;
const P4: u64 = 0x85EB_CA77_C2B2_AE63;
const P5: u64 = 0x27D4_EB2F_1656_67C5;

fn lane(acc: u64, input: u64) -> u64 {
    acc.wrapping_add(input.wrapping_mul(P2)).rotate_left(31).wrapping_mul(P1)
}

/// Eight bytes, little-endian. `bytes` has at least so many.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |n, &b| (n << 8) | u64::from(b))
}

/// xxHash64 with seed 0.
fn xxh64(data: &[u8]) -> u64 {
    let mut rest = data;
    let mut hash = if data.len() >= 32 {
        let mut lanes = [P1.wrapping_add(P2), P2, 0, 0u64.wrapping_sub(P1)];
        while rest.len() >= 32 {
            for (i, acc) in lanes.iter_mut().enumerate() {
                *acc = lane(*acc, word(&rest[8 * i..]));
            }
            rest = &rest[32..];
        }
        let mixed = lanes[0]
            .rotate_left(1)
            .wrapping_add(lanes[1].rotate_left(7))
            .wrapping_add(lanes[2].rotate_left(12))
            .wrapping_add(lanes[3].rotate_left(18));
        lanes.iter().fold(mixed, |hash, &acc| (hash ^ lane(0, acc)).wrapping_mul(P1).wrapping_add(P4))
    } else {
        P5
    };
    hash = hash.wrapping_add(data.len() as u64);
    while rest.len() >= 8 {
        hash = (hash ^ lane(0, word(rest))).rotate_left(27).wrapping_mul(P1).wrapping_add(P4);
        rest = &rest[8..];
    }
    if rest.len() >= 4 {
        hash = (hash ^ word(&rest[..4]).wrapping_mul(P1)).rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
        rest = &rest[4..];
    }
    for &byte in rest {
        hash = (hash ^ u64::from(byte).wrapping_mul(P5)).rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}
