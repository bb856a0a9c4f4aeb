//! One DES block under the all-zero key: the permutation behind the `hash` vindex.
//!
//! Tables are those of FIPS 46-3. The zero key makes every round key zero, so there is no key schedule.

/// Selection functions S1 to S8, four rows of sixteen each.
const S: [[u8; 64]; 8] = [
    [
        14, 4, 13, 1, 2, 15, 11, 8, 3, 10, 6, 12, 5, 9, 0, 7, 0, 15, 7, 4, 14, 2, 13, 1, 10, 6, 12, 11, 9, 5, 3, 8, 4,
        1, 14, 8, 13, 6, 2, 11, 15, 12, 9, 7, 3, 10, 5, 0, 15, 12, 8, 2, 4, 9, 1, 7, 5, 11, 3, 14, 10, 0, 6, 13,
    ],
    [
        15, 1, 8, 14, 6, 11, 3, 4, 9, 7, 2, 13, 12, 0, 5, 10, 3, 13, 4, 7, 15, 2, 8, 14, 12, 0, 1, 10, 6, 9, 11, 5, 0,
        14, 7, 11, 10, 4, 13, 1, 5, 8, 12, 6, 9, 3, 2, 15, 13, 8, 10, 1, 3, 15, 4, 2, 11, 6, 7, 12, 0, 5, 14, 9,
    ],
    [
        10, 0, 9, 14, 6, 3, 15, 5, 1, 13, 12, 7, 11, 4, 2, 8, 13, 7, 0, 9, 3, 4, 6, 10, 2, 8, 5, 14, 12, 11, 15, 1, 13,
        6, 4, 9, 8, 15, 3, 0, 11, 1, 2, 12, 5, 10, 14, 7, 1, 10, 13, 0, 6, 9, 8, 7, 4, 15, 14, 3, 11, 5, 2, 12,
    ],
    [
        7, 13, 14, 3, 0, 6, 9, 10, 1, 2, 8, 5, 11, 12, 4, 15, 13, 8, 11, 5, 6, 15, 0, 3, 4, 7, 2, 12, 1, 10, 14, 9, 10,
        6, 9, 0, 12, 11, 7, 13, 15, 1, 3, 14, 5, 2, 8, 4, 3, 15, 0, 6, 10, 1, 13, 8, 9, 4, 5, 11, 12, 7, 2, 14,
    ],
    [
        2, 12, 4, 1, 7, 10, 11, 6, 8, 5, 3, 15, 13, 0, 14, 9, 14, 11, 2, 12, 4, 7, 13, 1, 5, 0, 15, 10, 3, 9, 8, 6, 4,
        2, 1, 11, 10, 13, 7, 8, 15, 9, 12, 5, 6, 3, 0, 14, 11, 8, 12, 7, 1, 14, 2, 13, 6, 15, 0, 9, 10, 4, 5, 3,
    ],
    [
        12, 1, 10, 15, 9, 2, 6, 8, 0, 13, 3, 4, 14, 7, 5, 11, 10, 15, 4, 2, 7, 12, 9, 5, 6, 1, 13, 14, 0, 11, 3, 8, 9,
        14, 15, 5, 2, 8, 12, 3, 7, 0, 4, 10, 1, 13, 11, 6, 4, 3, 2, 12, 9, 5, 15, 10, 11, 14, 1, 7, 6, 0, 8, 13,
    ],
    [
        4, 11, 2, 14, 15, 0, 8, 13, 3, 12, 9, 7, 5, 10, 6, 1, 13, 0, 11, 7, 4, 9, 1, 10, 14, 3, 5, 12, 2, 15, 8, 6, 1,
        4, 11, 13, 12, 3, 7, 14, 10, 15, 6, 8, 0, 5, 9, 2, 6, 11, 13, 8, 1, 4, 10, 7, 9, 5, 0, 15, 14, 2, 3, 12,
    ],
    [
        13, 2, 8, 4, 6, 15, 11, 1, 10, 9, 3, 14, 5, 0, 12, 7, 1, 15, 13, 8, 10, 3, 7, 4, 12, 5, 6, 11, 0, 14, 9, 2, 7,
        11, 4, 1, 9, 12, 14, 2, 0, 6, 10, 13, 15, 3, 5, 8, 2, 1, 14, 7, 4, 10, 8, 13, 15, 12, 9, 0, 3, 5, 6, 11,
    ],
];

/// The permutation behind the selection functions.
const P: [u8; 32] = [
    16, 7, 20, 21, 29, 12, 28, 17, 1, 15, 23, 26, 5, 18, 31, 10, 2, 8, 24, 14, 32, 27, 3, 9, 19, 13, 30, 6, 22, 11, 4,
    25,
];

/// Selection and permutation of each group of six bits at once, made at compile time.
static SP: [[u32; 64]; 8] = {
    let mut table = [[0u32; 64]; 8];
    let mut sbox = 0;
    while sbox < 8 {
        let mut six = 0;
        while six < 64 {
            let row = ((six >> 4) & 2) | (six & 1);
            let column = (six >> 1) & 15;
            let selected = (S[sbox][row * 16 + column] as u32) << (28 - 4 * sbox);
            let mut out = 0u32;
            let mut bit = 0;
            while bit < 32 {
                out |= ((selected >> (32 - P[bit] as u32)) & 1) << (31 - bit);
                bit += 1;
            }
            table[sbox][six] = out;
            six += 1;
        }
        sbox += 1;
    }
    table
};

/// Bit `58 - 8 * (i % 8) + …` of the input comes first: the initial permutation.
fn initial(block: u64) -> u64 {
    let mut out = 0;
    for i in 0..64u32 {
        let row = i / 8;
        // Rows take the even input bits first, then the odd ones, columns from the last byte up.
        let from = if row < 4 { 58 + 2 * row - 8 * (i % 8) } else { 57 + 2 * (row - 4) - 8 * (i % 8) };
        out |= ((block >> (64 - from)) & 1) << (63 - i);
    }
    out
}

/// The inverse of [`initial`].
fn last(block: u64) -> u64 {
    let mut out = 0;
    for i in 0..64u32 {
        let row = i / 8;
        let from = if row < 4 { 58 + 2 * row - 8 * (i % 8) } else { 57 + 2 * (row - 4) - 8 * (i % 8) };
        out |= ((block >> (63 - i)) & 1) << (64 - from);
    }
    out
}

/// Expansion, selection and permutation of one half; the round key is zero.
fn round(half: u32) -> u32 {
    // Group i holds the bits 4i-1 … 4i+4, the ends wrapping around.
    let turned = half.rotate_right(1);
    (0..8).fold(0, |out, i| out ^ SP[i][(turned.rotate_left(4 * i as u32) >> 26) as usize & 63])
}

/// Encrypts one block. With one round key for all rounds this is its own inverse.
pub(crate) fn encrypt(block: u64) -> u64 {
    let block = initial(block);
    let (mut left, mut right) = ((block >> 32) as u32, block as u32);
    for _ in 0..16 {
        (left, right) = (right, left ^ round(right));
    }
    last((u64::from(right) << 32) | u64::from(left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors() {
        assert_eq!(encrypt(0), 0x8ca6_4de9_c1b1_23a7);
        assert_eq!(encrypt(1), 0x166b_40b4_4aba_4bd6);
        assert_eq!(encrypt(u64::MAX), 0x3555_50b2_150e_2451);
        assert_eq!(encrypt(encrypt(12345)), 12345);
    }
}
