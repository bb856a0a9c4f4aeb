//! Rows as they arrive: cells without copies, and the checksum that a server can compute too.

use md5::{Digest, Md5};
use vtproto::query::Row;

/// Between the cells that are hashed: a byte that texts hardly ever hold.
pub const SEPARATOR: u8 = 0x1e;

/// The cells of a row; `None` is NULL. A row whose lengths do not fit its values ends early.
pub fn cells(row: &Row) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest: &[u8] = &row.values;
    row.lengths.iter().map_while(move |length| {
        let Ok(length) = usize::try_from(*length) else { return Some(None) };
        let (cell, behind) = rest.split_at_checked(length)?;
        rest = behind;
        Some(Some(cell))
    })
}

/// One cell of a row; `None` for NULL and for a column that is not there.
pub fn cell(row: &Row, index: usize) -> Option<&[u8]> {
    cells(row).nth(index).flatten()
}

/// A cell as text, for small results of administration.
pub fn text(row: &Row, index: usize) -> String {
    cell(row, index).map(|cell| String::from_utf8_lossy(cell).into_owned()).unwrap_or_default()
}

/// Checksum of a set of rows, whatever their order: the first eight bytes of each row's MD5, XORed, and their number.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Checksum {
    pub rows: u64,
    pub xor: u64,
}

/// Computes [`Checksum`]s; its buffer is used again for every row.
#[derive(Default)]
pub struct Hasher {
    sum: Checksum,
    nulls: Vec<u8>,
}

impl Hasher {
    /// Adds a row, of which the first `columns` cells count.
    pub fn add(&mut self, row: &Row, columns: usize) {
        let mut hash = Md5::new();
        self.nulls.clear();
        // As CONCAT_WS: NULLs are left out, and said apart at the end.
        for cell in cells(row).take(columns) {
            match cell {
                Some(cell) => {
                    hash.update(cell);
                    hash.update([SEPARATOR]);
                    self.nulls.push(b'0');
                }
                None => self.nulls.push(b'1'),
            }
        }
        hash.update(&self.nulls);
        let digest = hash.finalize();
        // An MD5 has 16 bytes.
        let head = digest.first_chunk::<8>().copied().map_or(0, u64::from_be_bytes);
        self.sum.xor ^= head;
        self.sum.rows += 1;
    }

    pub fn sum(&self) -> Checksum {
        self.sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[Option<&str>]) -> Row {
        let lengths = cells.iter().map(|cell| cell.map_or(-1, |text| text.len() as i64)).collect();
        let values: String = cells.iter().flatten().copied().collect();
        Row { lengths, values: values.into() }
    }

    #[test]
    fn cells_are_slices_of_the_row() {
        let row = row(&[Some("ab"), None, Some(""), Some("c")]);
        let found: Vec<_> = cells(&row).collect();
        assert_eq!(found, [Some(&b"ab"[..]), None, Some(&b""[..]), Some(&b"c"[..])]);
        assert_eq!((text(&row, 3).as_str(), cell(&row, 9)), ("c", None));
        let broken = Row { lengths: vec![1, 5], values: "ab".into() };
        assert_eq!(cells(&broken).count(), 1);
    }

    #[test]
    fn a_checksum_sees_every_byte_and_every_null_but_no_order() {
        let sum = |rows: &[Row]| {
            let mut hasher = Hasher::default();
            rows.iter().for_each(|row| hasher.add(row, 2));
            hasher.sum()
        };
        let (a, b) = (row(&[Some("1"), Some("x")]), row(&[Some("2"), None]));
        assert_eq!(sum(&[a.clone(), b.clone()]), sum(&[b.clone(), a.clone()]));
        assert_ne!(sum(&[b]), sum(&[row(&[Some("2"), Some("")])]));
        assert_ne!(sum(&[a]), sum(&[row(&[Some("1"), Some("y")])]));
    }

    #[test]
    fn the_server_would_compute_the_same() {
        // select conv(left(md5(concat_ws(char(30), '7', 'abc', '001')), 16), 16, 10): 7, NULL, abc has nulls 010.
        let mut hasher = Hasher::default();
        hasher.add(&row(&[Some("7"), None, Some("abc")]), 3);
        let expected = Md5::digest(b"7\x1eabc\x1e010");
        assert_eq!(hasher.sum().xor.to_be_bytes(), expected[..8]);
    }
}
