//! Rows as mysqld sent them, on their way through tablet and gate.
//!
//! Owns: the shape of `QueryResult.raw_rows`: the packets of a text result set, each with its head, one behind the other.
//! A row of 16 MB and more is several packets, as on the wire. Nobody looks at their sequence ids.
//! Invariants: no byte is believed: what is cut short or does not fit its columns is an error.

use std::io;

use bytes::BytesMut;
use vtproto::query::QueryResult;

use crate::constants::MAX_FRAME;
use crate::packet::{WireError, payload_len};
use crate::wire;

/// How many rows a result has, in whichever form.
pub fn count(result: &QueryResult) -> usize {
    if result.raw_rows.is_empty() {
        return result.rows.len();
    }
    usize::try_from(result.rows_affected).unwrap_or(usize::MAX)
}

/// Takes raw rows apart, for somebody who has to look at their cells.
///
/// # Errors
/// `InvalidData` when they do not fit the result's fields.
pub fn decode(result: &mut QueryResult) -> io::Result<()> {
    let raw = std::mem::take(&mut result.raw_rows);
    let mut values = BytesMut::with_capacity(raw.len());
    for row in Rows::new(&raw) {
        let row = row.and_then(|row| wire::parse_text_row(row.payload(), result.fields.len(), &mut values));
        result
            .rows
            .push(row.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("raw rows: {error}")))?);
    }
    Ok(())
}

/// Adds the rows of another result with the same fields, and its `rows_affected`. Where one of the two has its rows taken
/// apart, as tablets of another make do, all of them are.
///
/// # Errors
/// As [`decode`].
pub fn extend(result: &mut QueryResult, mut other: QueryResult) -> io::Result<()> {
    if !result.rows.is_empty() && !other.raw_rows.is_empty() {
        other.fields.clone_from(&result.fields);
        decode(&mut other)?;
    } else if !other.rows.is_empty() {
        decode(result)?;
    }
    result.rows_affected += other.rows_affected;
    result.rows.append(&mut other.rows);
    if result.raw_rows.is_empty() {
        result.raw_rows = other.raw_rows;
    } else if !other.raw_rows.is_empty() {
        // Copied once: from the third result on the buffer is this one's own.
        let mut all =
            std::mem::take(&mut result.raw_rows).try_into_mut().unwrap_or_else(|shared| shared.as_ref().into());
        all.extend_from_slice(&other.raw_rows);
        result.raw_rows = all.freeze();
    }
    Ok(())
}

/// The length of the first frame with its head.
pub(crate) fn frame_len(raw: &[u8]) -> Result<usize, WireError> {
    let &[a, b, c, _] = raw.first_chunk::<4>().ok_or(WireError::Truncated)?;
    let len = 4 + payload_len([a, b, c]);
    if len <= raw.len() { Ok(len) } else { Err(WireError::Truncated) }
}

/// How many bytes of `raw` are whole rows; behind them is the beginning of one more.
pub(crate) fn whole_rows(raw: &[u8]) -> usize {
    let (mut whole, mut at) = (0, 0);
    while let Ok(len) = frame_len(&raw[at..]) {
        at += len;
        if len < 4 + MAX_FRAME {
            whole = at;
        }
    }
    whole
}

/// Bytes that a row of several frames is taken to have in the last of them.
const LITTLE: usize = 64 << 10;

/// A row that arrives in parts.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    payload: Vec<u8>,
    /// Bytes that the present frame still lacks.
    frame_left: usize,
    /// Whether another frame follows it.
    continues: bool,
}

impl Arriving {
    /// Whether no row is unfinished.
    pub fn is_empty(&self) -> bool {
        self.frame_left == 0 && !self.continues
    }

    /// Adds what belongs to the row, or begins one, and returns what is behind it. [`Arriving::is_empty`] then says that it is
    /// whole.
    ///
    /// # Errors
    /// A head is cut short.
    pub fn add<'a>(&mut self, mut raw: &'a [u8]) -> Result<&'a [u8], WireError> {
        while !raw.is_empty() {
            if self.frame_left == 0 {
                let &[a, b, c, _] = raw.first_chunk::<4>().ok_or(WireError::Truncated)?;
                self.frame_left = payload_len([a, b, c]);
                self.continues = self.frame_left == MAX_FRAME;
                // Not by doubling: it is large, and its size is known. Often little of it is in the frame behind.
                let behind = if self.continues { LITTLE } else { 0 };
                self.payload.reserve_exact(self.frame_left + behind);
                raw = &raw[4..];
            }
            let (own, behind) = raw.split_at(self.frame_left.min(raw.len()));
            self.payload.extend_from_slice(own);
            self.frame_left -= own.len();
            raw = behind;
            if self.is_empty() {
                break;
            }
        }
        Ok(raw)
    }

    /// The row that is whole.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.payload)
    }
}

/// The payload of one row.
pub(crate) enum RowBytes<'a> {
    InPlace(&'a [u8]),
    /// Of several frames.
    Joined(Vec<u8>),
}

impl RowBytes<'_> {
    pub fn payload(&self) -> &[u8] {
        match self {
            Self::InPlace(bytes) => bytes,
            Self::Joined(bytes) => bytes,
        }
    }
}

/// One row after the other. Ends with the first error.
pub(crate) struct Rows<'a> {
    rest: &'a [u8],
}

impl<'a> Rows<'a> {
    pub fn new(raw: &'a [u8]) -> Self {
        Self { rest: raw }
    }

    fn frame(&mut self) -> Result<&'a [u8], WireError> {
        let (frame, rest) = self.rest.split_at(frame_len(self.rest)?);
        self.rest = rest;
        Ok(&frame[4..])
    }

    fn row(&mut self) -> Result<RowBytes<'a>, WireError> {
        let mut frame = self.frame()?;
        if frame.len() < MAX_FRAME {
            return Ok(RowBytes::InPlace(frame));
        }
        let mut joined = frame.to_vec();
        while frame.len() == MAX_FRAME {
            frame = self.frame()?;
            joined.extend_from_slice(frame);
        }
        Ok(RowBytes::Joined(joined))
    }
}

impl<'a> Iterator for Rows<'a> {
    type Item = Result<RowBytes<'a>, WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let row = self.row();
        if row.is_err() {
            self.rest = &[];
        }
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vtproto::query::Field;

    use super::*;

    fn result(columns: usize, raw: &[u8], rows: u64) -> QueryResult {
        let fields = vec![Field::default(); columns];
        QueryResult { fields, raw_rows: Bytes::copy_from_slice(raw), rows_affected: rows, ..QueryResult::default() }
    }

    #[test]
    fn packets_become_rows() {
        let mut two = result(2, b"\x03\0\0\x05\x01a\xfb\x04\0\0\x06\x01b\x01c", 2);
        assert_eq!(count(&two), 2);
        decode(&mut two).expect("two rows");
        assert_eq!(count(&two), 2);
        assert_eq!((&two.rows[0].lengths[..], &two.rows[0].values[..]), (&[1, -1][..], &b"a"[..]));
        assert_eq!((&two.rows[1].lengths[..], &two.rows[1].values[..]), (&[1, 1][..], &b"bc"[..]));
    }

    #[test]
    fn a_row_of_several_frames_is_one_row() {
        let cell = vec![b'x'; MAX_FRAME];
        // 4 bytes of length, the cell, in a full frame and a rest.
        let mut payload = b"\xfd\xff\xff\xff".to_vec();
        payload.extend_from_slice(&cell);
        let mut raw = b"\xff\xff\xff\0".to_vec();
        raw.extend_from_slice(&payload[..MAX_FRAME]);
        raw.extend_from_slice(b"\x04\0\0\x01");
        raw.extend_from_slice(&payload[MAX_FRAME..]);
        let mut one = result(1, &raw, 1);
        decode(&mut one).expect("one row");
        assert_eq!(one.rows.len(), 1);
        assert_eq!(one.rows[0].values.len(), MAX_FRAME);
    }

    #[test]
    fn results_are_put_together_in_either_form() {
        let [a, b, c] = [(&b"\x02\0\0\0\x01a"[..]), b"\x02\0\0\0\x01b", b"\x02\0\0\0\x01c"];
        let decoded = |raw: &[u8]| {
            let mut result = result(1, raw, 1);
            decode(&mut result).expect("well-formed");
            result
        };
        for parts in [
            [result(1, a, 1), result(1, b, 1), result(1, c, 1)],
            [result(1, a, 1), decoded(b), result(1, c, 1)],
            [decoded(a), result(1, b, 1), decoded(c)],
        ] {
            let mut all = result(1, b"", 0);
            for part in parts {
                extend(&mut all, part).expect("well-formed");
            }
            assert_eq!(count(&all), 3);
            decode(&mut all).expect("well-formed");
            let cells: Vec<&[u8]> = all.rows.iter().map(|row| &row.values[..]).collect();
            assert_eq!((cells, all.rows_affected), (vec![&b"a"[..], b"b", b"c"], 3));
        }
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        for (columns, raw) in
            [(1, &b"\x03\0\0\0\x01a"[..]), (2, b"\x02\0\0\0\x01a"), (1, b"\x03\0\0\0\x01ab"), (1, b"\x01")]
        {
            let error = decode(&mut result(columns, raw, 1)).expect_err("malformed");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
