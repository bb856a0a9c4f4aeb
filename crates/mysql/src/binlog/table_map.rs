//! TABLE_MAP: what a table number means, and the columns that its rows had when they were written.

use super::codec::Codec;
use super::error::{BinlogError, within};
use crate::packet::Cursor;
use crate::types::code;

/// A column as the event has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnDef {
    pub type_code: u8,
    pub codec: Codec,
    pub nullable: bool,
}

/// A TABLE_MAP event. What is optional there is there depending on `binlog_row_metadata` of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableMap {
    pub id: u64,
    pub database: String,
    pub table: String,
    pub columns: Vec<ColumnDef>,
    /// Which columns are unsigned numbers; one entry a column. `None` where the server does not say.
    pub unsigned: Option<Vec<bool>>,
    /// Column names, with `binlog_row_metadata=FULL`.
    pub names: Option<Vec<String>>,
    /// Columns of the primary key, with `binlog_row_metadata=FULL`.
    pub primary_key: Option<Vec<usize>>,
}

/// Most columns of a table.
const MAX_COLUMNS: u64 = 4096;

impl TableMap {
    /// The number by which row events name a table; the rest of the body is not looked at.
    pub fn peek_id(body: &[u8]) -> Result<u64, BinlogError> {
        id(&mut Cursor::new(body))
    }

    /// Database and table, without the columns.
    pub fn peek_names(body: &[u8]) -> Result<(&[u8], &[u8]), BinlogError> {
        let fault = within("TABLE_MAP");
        let mut cursor = Cursor::new(body);
        cursor.bytes(8).map_err(&fault)?;
        let mut name = || -> Result<&[u8], crate::packet::WireError> {
            let len = cursor.u8()?;
            let name = cursor.bytes(len.into())?;
            cursor.u8()?;
            Ok(name)
        };
        Ok((name().map_err(&fault)?, name().map_err(&fault)?))
    }

    pub fn parse(body: &[u8]) -> Result<Self, BinlogError> {
        let fault = within("TABLE_MAP");
        let bad = |what: &str| BinlogError::malformed("TABLE_MAP", what);
        let mut cursor = Cursor::new(body);
        let id = id(&mut cursor)?;
        cursor.u16().map_err(&fault)?; // flags
        let (database, table) = Self::peek_names(body)?;
        cursor.bytes(database.len() + table.len() + 4).map_err(&fault)?;
        let utf8 = |name: &[u8]| String::from_utf8(name.to_vec()).map_err(|_| bad("name"));
        let (database, table) = (utf8(database)?, utf8(table)?);
        let count = cursor.lenenc().map_err(&fault)?;
        if count > MAX_COLUMNS {
            return Err(bad("number of columns"));
        }
        let count = count as usize;
        let types = cursor.bytes(count).map_err(&fault)?;
        let mut metadata = Cursor::new(cursor.lenenc_bytes().map_err(&fault)?);
        let nullable = cursor.bytes(count.div_ceil(8)).map_err(&fault)?;
        let mut columns = Vec::with_capacity(count);
        for (index, &type_code) in types.iter().enumerate() {
            let named = |error: BinlogError| match error {
                BinlogError::Unsupported(text) => {
                    BinlogError::Unsupported(format!("table {database}.{table}, column {}: {text}", index + 1))
                }
                error => error,
            };
            let len = Codec::metadata_len(type_code).map_err(named)?;
            let codec = Codec::new(type_code, metadata.bytes(len).map_err(&fault)?).map_err(named)?;
            columns.push(ColumnDef { type_code, codec, nullable: nullable[index / 8] >> (index % 8) & 1 == 1 });
        }
        let mut map = Self { id, database, table, columns, unsigned: None, names: None, primary_key: None };
        map.optional(cursor)?;
        Ok(map)
    }

    /// The optional fields: type, length, content. Unknown ones are passed over.
    fn optional(&mut self, mut cursor: Cursor<'_>) -> Result<(), BinlogError> {
        const SIGNEDNESS: u8 = 1;
        const COLUMN_NAME: u8 = 4;
        const SIMPLE_PRIMARY_KEY: u8 = 8;
        const PRIMARY_KEY_WITH_PREFIX: u8 = 9;
        let fault = within("TABLE_MAP");
        while !cursor.is_empty() {
            let field = cursor.u8().map_err(&fault)?;
            let mut content = Cursor::new(cursor.lenenc_bytes().map_err(&fault)?);
            match field {
                SIGNEDNESS => {
                    let bits = content.rest();
                    let mut number = 0;
                    let mut signs = Vec::with_capacity(self.columns.len());
                    for column in &self.columns {
                        let numeric = is_numeric(column.type_code);
                        let unsigned =
                            numeric && bits.get(number / 8).is_some_and(|byte| byte >> (7 - number % 8) & 1 == 1);
                        number += usize::from(numeric);
                        signs.push(unsigned);
                    }
                    self.unsigned = Some(signs);
                }
                COLUMN_NAME => {
                    let mut names = Vec::with_capacity(self.columns.len());
                    while !content.is_empty() {
                        names.push(content.lenenc_str().map_err(&fault)?.to_owned());
                    }
                    if names.len() != self.columns.len() {
                        return Err(BinlogError::malformed("TABLE_MAP", "number of column names"));
                    }
                    self.names = Some(names);
                }
                SIMPLE_PRIMARY_KEY | PRIMARY_KEY_WITH_PREFIX => {
                    let mut key = Vec::new();
                    while !content.is_empty() {
                        key.push(content.lenenc().map_err(&fault)? as usize);
                        if field == PRIMARY_KEY_WITH_PREFIX {
                            content.lenenc().map_err(&fault)?;
                        }
                    }
                    self.primary_key = Some(key);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn id(cursor: &mut Cursor<'_>) -> Result<u64, BinlogError> {
    let fault = within("TABLE_MAP");
    let (low, high) = (cursor.u32().map_err(&fault)?, cursor.u16().map_err(&fault)?);
    Ok(u64::from(low) | u64::from(high) << 32)
}

/// Which types have a bit in the signedness field.
fn is_numeric(type_code: u8) -> bool {
    matches!(
        type_code,
        code::TINY
            | code::SHORT
            | code::INT24
            | code::LONG
            | code::LONGLONG
            | code::NEWDECIMAL
            | code::FLOAT
            | code::DOUBLE
    )
}
