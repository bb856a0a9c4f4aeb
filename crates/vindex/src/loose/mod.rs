//! The loose English collation: text without case, accents and width as a sort key.
//!
//! Owns: the key of a text as Go's `golang.org/x/text/collate` makes it for `language.English` and
//! `collate.Loose`, which is what `unicode_loose_md5` hashes. A key is the primary weights of the text's
//! canonically decomposed characters, one behind the other: two bytes each, or three with the top bit set
//! for ideographs and unassigned characters, whose weight follows from their number.
//!
//! `weights.bin` holds the other weights (collation data of CLDR 23, made from Unicode's collation
//! element table): the number of characters, then for each the distance from the one before, the length
//! of its key and the key; after that the contractions, each as the number of its characters, the characters,
//! the length of the key and the key. Numbers are little-endian base 128.

use std::{collections::HashMap, sync::OnceLock};

use unicode_normalization::UnicodeNormalization;

/// Ideographs of the main block, and of the others; the ranges are those of Unicode 11.
const MAIN_IDEOGRAPHS: &[(u32, u32)] = &[
    (0x4e00, 0x9fef),
    (0xfa0e, 0xfa0f),
    (0xfa11, 0xfa11),
    (0xfa13, 0xfa14),
    (0xfa1f, 0xfa1f),
    (0xfa21, 0xfa21),
    (0xfa23, 0xfa24),
    (0xfa27, 0xfa29),
];
const OTHER_IDEOGRAPHS: &[(u32, u32)] = &[
    (0x3400, 0x4db5),
    (0x17000, 0x187f1),
    (0x18800, 0x18af2),
    (0x1b170, 0x1b2fb),
    (0x20000, 0x2a6d6),
    (0x2a700, 0x2b734),
    (0x2b740, 0x2b81d),
    (0x2b820, 0x2cea1),
    (0x2ceb0, 0x2ebe0),
];

/// The characters behind the first one, and the key of all.
type Contraction = (Vec<u32>, &'static [u8]);

/// Keys by character and by sequence of characters.
struct Weights {
    /// Where the key of a character stands in the file.
    singles: HashMap<u32, &'static [u8]>,
    /// The contractions that begin with a character, longest first.
    contractions: HashMap<u32, Vec<Contraction>>,
}

static FILE: &[u8] = include_bytes!("weights.bin");

/// Reads `weights.bin` front to back.
struct Reader(&'static [u8]);

impl Reader {
    fn number(&mut self) -> u32 {
        let (mut value, mut shift) = (0, 0);
        while let [byte, rest @ ..] = self.0 {
            self.0 = rest;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
        }
        value
    }

    fn key(&mut self) -> &'static [u8] {
        let length = self.number() as usize;
        let (key, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        key
    }
}

impl Weights {
    fn read() -> Self {
        let mut reader = Reader(FILE);
        let count = reader.number();
        let mut singles = HashMap::with_capacity(count as usize);
        // The first distance is from -1.
        let mut character = u32::MAX;
        for _ in 0..count {
            character = character.wrapping_add(reader.number());
            singles.insert(character, reader.key());
        }
        let mut contractions: HashMap<u32, Vec<Contraction>> = HashMap::new();
        for _ in 0..reader.number() {
            let characters: Vec<u32> = (0..reader.number()).map(|_| reader.number()).collect();
            let key = reader.key();
            if let Some((first, rest)) = characters.split_first() {
                contractions.entry(*first).or_default().push((rest.to_vec(), key));
            }
        }
        for list in contractions.values_mut() {
            list.sort_by_key(|(rest, _)| std::cmp::Reverse(rest.len()));
        }
        Self { singles, contractions }
    }

    fn get() -> &'static Self {
        static WEIGHTS: OnceLock<Weights> = OnceLock::new();
        WEIGHTS.get_or_init(Self::read)
    }
}

/// The weight of a character that has none in the file.
fn implicit(character: u32) -> [u8; 3] {
    let within = |ranges: &[(u32, u32)]| ranges.iter().any(|(from, to)| (*from..=*to).contains(&character));
    let offset = if within(MAIN_IDEOGRAPHS) {
        0x1_0000
    } else if within(OTHER_IDEOGRAPHS) {
        0x2_0000
    } else {
        0x5_0000
    };
    let weight = character + offset;
    [0x80 | (weight >> 16) as u8, (weight >> 8) as u8, weight as u8]
}

/// The sort key of `text`.
pub(crate) fn key(text: &str) -> Vec<u8> {
    let weights = Weights::get();
    let mut out = Vec::with_capacity(2 * text.len());
    let characters: Vec<u32> =
        if text.is_ascii() { text.bytes().map(u32::from).collect() } else { text.nfd().map(u32::from).collect() };
    let mut at = 0;
    while let Some(first) = characters.get(at) {
        at += 1;
        let contraction = weights
            .contractions
            .get(first)
            .and_then(|list| list.iter().find(|(rest, _)| characters[at..].starts_with(rest)));
        if let Some((rest, key)) = contraction {
            out.extend_from_slice(key);
            at += rest.len();
            continue;
        }
        match weights.singles.get(first) {
            Some(key) => out.extend_from_slice(key),
            None => out.extend_from_slice(&implicit(*first)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_reference() {
        for (text, want) in [
            ("", ""),
            ("Test", "1816164c17f31816"),
            ("Bést", "1605164c17f31816"),
            (" Test", "01091816164c17f31816"),
            ("Test\t", "1816164c17f318160100"),
            ("T", "1816"),
            ("TéstLooong", "1816164c17f318161711177117711771174f1691"),
            // Full width and composed or not: the same.
            ("Ｔest", "1816164c17f31816"),
            ("Te\u{301}st", "1816164c17f31816"),
            // One letter in Cyrillic, decomposed or not.
            ("й", "1a1f"),
            ("и\u{306}", "1a1f"),
            ("世界", "814e1681754c"),
            ("㐀", "823400"),
            ("\u{e000}", "85e000"),
            ("각", "315631d43232"),
            ("😀", "1297"),
            ("ﬁ", "168416cd"),
            ("ß", "17f317f3"),
            ("½", "14e704ac14e8"),
            ("กำ", "248824ba"),
            ("เก", "248824c2"),
        ] {
            let got: String = key(text).iter().map(|b| format!("{b:02x}")).collect();
            assert_eq!(got, want, "{text:?}");
        }
    }
}
