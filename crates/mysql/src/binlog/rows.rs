//! Row events: one or two images a row, each a bitmap of NULLs and the cells of the columns that are not.

use super::codec::Codec;
use super::error::{BinlogError, within};
use super::value::Value;
use crate::packet::Cursor;

/// What a row event does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsKind {
    Write,
    Update,
    Delete,
}

/// A row event. Images are complete: an event with partial ones does not parse.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    pub kind: RowsKind,
    /// As in the TABLE_MAP event before.
    pub table_id: u64,
    pub columns: usize,
    rows: &'a [u8],
}

impl<'a> Rows<'a> {
    pub(super) fn parse(kind: RowsKind, v2: bool, body: &'a [u8]) -> Result<Self, BinlogError> {
        let fault = within("ROWS");
        let mut cursor = Cursor::new(body);
        let (low, high) = (cursor.u32().map_err(&fault)?, cursor.u16().map_err(&fault)?);
        cursor.u16().map_err(&fault)?; // flags
        if v2 {
            let extra = usize::from(cursor.u16().map_err(&fault)?);
            cursor.bytes(extra.saturating_sub(2)).map_err(&fault)?;
        }
        let columns = usize::try_from(cursor.lenenc().map_err(&fault)?).unwrap_or(usize::MAX);
        for _ in 0..if kind == RowsKind::Update { 2 } else { 1 } {
            let present = cursor.bytes(columns.div_ceil(8)).map_err(&fault)?;
            // What the last byte has beyond the columns means nothing.
            if (0..columns).any(|column| present[column / 8] >> (column % 8) & 1 == 0) {
                return Err(BinlogError::Unsupported(
                    "partial row image encountered: ensure binlog_row_image is set to 'full'".into(),
                ));
            }
        }
        Ok(Self { kind, table_id: u64::from(low) | u64::from(high) << 32, columns, rows: cursor.rest() })
    }

    /// The rows, read with the codecs of the table.
    pub fn changes<'c>(&self, codecs: &'c [Codec]) -> RowChanges<'a, 'c> {
        RowChanges { kind: self.kind, rest: self.rows, codecs }
    }
}

/// The row changes of an event.
#[derive(Debug)]
pub struct RowChanges<'a, 'c> {
    kind: RowsKind,
    rest: &'a [u8],
    codecs: &'c [Codec],
}

impl<'a> RowChanges<'a, '_> {
    /// The next change, as the image before and the image after it.
    #[allow(clippy::type_complexity)]
    pub fn next_change(&mut self) -> Result<Option<(Option<Image<'a>>, Option<Image<'a>>)>, BinlogError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        Ok(Some(match self.kind {
            RowsKind::Write => (None, Some(self.image()?)),
            RowsKind::Delete => (Some(self.image()?), None),
            RowsKind::Update => (Some(self.image()?), Some(self.image()?)),
        }))
    }

    fn image(&mut self) -> Result<Image<'a>, BinlogError> {
        let truncated = || BinlogError::malformed("ROWS", "a row ends early");
        let (nulls, cells) = self.rest.split_at_checked(self.codecs.len().div_ceil(8)).ok_or_else(truncated)?;
        let mut len = 0;
        for (index, codec) in self.codecs.iter().enumerate() {
            if !is_null(nulls, index) {
                len += codec.cell_len(&cells[len..])?;
            }
        }
        let (cells, rest) = cells.split_at(len);
        self.rest = rest;
        Ok(Image { nulls, cells })
    }
}

fn is_null(nulls: &[u8], index: usize) -> bool {
    nulls[index / 8] >> (index % 8) & 1 == 1
}

/// One state of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image<'a> {
    nulls: &'a [u8],
    cells: &'a [u8],
}

impl<'a> Image<'a> {
    /// The values in the order of the columns, read with the codecs it was cut out with.
    pub fn cells<'c>(&self, codecs: &'c [Codec]) -> Cells<'a, 'c> {
        Cells { image: *self, codecs, index: 0, at: 0 }
    }

    /// Bytes of the cells.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }
}

/// The values of an image.
#[derive(Debug)]
pub struct Cells<'a, 'c> {
    image: Image<'a>,
    codecs: &'c [Codec],
    index: usize,
    at: usize,
}

impl<'a> Iterator for Cells<'a, '_> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        let codec = self.codecs.get(self.index)?;
        let index = self.index;
        self.index += 1;
        if is_null(self.image.nulls, index) {
            return Some(Value::Null);
        }
        let rest = self.image.cells.get(self.at..)?;
        // Was checked when the image was cut out.
        let len = codec.cell_len(rest).ok()?;
        self.at += len;
        Some(codec.value(&rest[..len]))
    }
}
