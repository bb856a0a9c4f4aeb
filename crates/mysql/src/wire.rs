//! Packets that both sides know: OK, ERR, EOF, column definitions, text rows.
//!
//! Source: MySQL manual, "Generic Response Packets" and "Text Protocol".

use bytes::{BufMut, BytesMut};
use vterrors::MysqlError;
use vtproto::query::{Field, Row, Type};

use crate::constants::charset;
use crate::packet::{Cursor, WireError, put_lenenc, put_lenenc_bytes};
use crate::types;

pub(crate) const OK: u8 = 0x00;
pub(crate) const LOCAL_INFILE: u8 = 0xfb;
pub(crate) const EOF: u8 = 0xfe;
pub(crate) const ERR: u8 = 0xff;

/// What an OK packet, or the OK packet that ends rows, says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ok {
    pub affected_rows: u64,
    pub insert_id: u64,
    pub status: u16,
    pub warnings: u16,
}

/// Reads an OK packet; its first byte may also be that of EOF (DEPRECATE_EOF).
pub(crate) fn parse_ok(packet: &[u8]) -> Result<Ok, WireError> {
    let mut cursor = Cursor::new(packet);
    cursor.u8()?;
    let affected_rows = cursor.lenenc()?;
    let insert_id = cursor.lenenc()?;
    Ok(Ok { affected_rows, insert_id, status: cursor.u16()?, warnings: cursor.u16()? })
}

/// Reads the first packet of the answer to COM_STMT_PREPARE: the statement's id, its columns and its parameters.
pub(crate) fn parse_prepared(packet: &[u8]) -> Result<(u32, u16, u16), WireError> {
    let mut cursor = Cursor::new(packet);
    cursor.u8()?;
    Ok((cursor.u32()?, cursor.u16()?, cursor.u16()?))
}

/// Reads an EOF packet of the old style.
pub(crate) fn parse_eof(packet: &[u8]) -> Result<Ok, WireError> {
    let mut cursor = Cursor::new(packet);
    cursor.u8()?;
    let warnings = cursor.u16()?;
    Ok(Ok { status: cursor.u16()?, warnings, ..Ok::default() })
}

/// Reads an ERR packet. Before login, servers send none of them with a SQLSTATE.
pub(crate) fn parse_err(packet: &[u8]) -> Result<MysqlError, WireError> {
    let mut cursor = Cursor::new(packet);
    cursor.u8()?;
    let number = cursor.u16()?;
    let mut state = String::from("HY000");
    if cursor.peek() == Some(b'#') {
        cursor.u8()?;
        state = String::from_utf8_lossy(cursor.bytes(5)?).into_owned();
    }
    Ok(MysqlError::new(number, state, String::from_utf8_lossy(cursor.rest())))
}

pub(crate) fn put_err(out: &mut Vec<u8>, error: &MysqlError) {
    out.push(ERR);
    out.extend_from_slice(&error.errno.to_le_bytes());
    out.push(b'#');
    let state = error.sqlstate.as_bytes();
    out.extend_from_slice(if state.len() == 5 { state } else { b"HY000" });
    // Client libraries cut at 512 bytes themselves; a statement quoted in an error must not make a huge packet.
    let mut end = error.message.len().min(16 << 10);
    while !error.message.is_char_boundary(end) {
        end -= 1;
    }
    out.extend_from_slice(&error.message.as_bytes()[..end]);
}

/// `header` is [`OK`], or [`EOF`] after rows.
pub(crate) fn put_ok(out: &mut Vec<u8>, header: u8, ok: &Ok, info: &str) {
    out.push(header);
    put_lenenc(out, ok.affected_rows);
    put_lenenc(out, ok.insert_id);
    out.extend_from_slice(&ok.status.to_le_bytes());
    out.extend_from_slice(&ok.warnings.to_le_bytes());
    if !info.is_empty() {
        put_lenenc_bytes(out, info.as_bytes());
    }
}

pub(crate) fn put_eof(out: &mut Vec<u8>, status: u16, warnings: u16) {
    out.push(EOF);
    out.extend_from_slice(&warnings.to_le_bytes());
    out.extend_from_slice(&status.to_le_bytes());
}

/// Reads a column definition.
pub(crate) fn parse_column(packet: &[u8]) -> Result<Field, WireError> {
    let mut cursor = Cursor::new(packet);
    // Identifiers come in the connection's character set, which is UTF-8 for everything but exotic settings.
    let mut text = || cursor.lenenc_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    text()?;
    let (database, table, org_table, name, org_name) = (text()?, text()?, text()?, text()?, text()?);
    if cursor.lenenc()? < 12 {
        return Err(WireError::BadLength);
    }
    let charset = cursor.u16()?.into();
    let column_length = cursor.u32()?;
    let code = cursor.u8()?;
    let flags = cursor.u16()?;
    let decimals = cursor.u8()?.into();
    let of = types::from_mysql(code, flags).ok_or(WireError::Unexpected)?;
    Ok(Field {
        name,
        r#type: of.into(),
        table,
        org_table,
        database,
        org_name,
        column_length,
        charset,
        decimals,
        flags: types::with_num_flag(code, flags).into(),
    })
}

/// Writes a column definition.
pub(crate) fn put_column(out: &mut Vec<u8>, field: &Field) {
    let (code, implied) = types::to_mysql(field.r#type());
    // 16 bits of flags go over the wire.
    let flags = if field.flags == 0 { implied } else { field.flags as u16 };
    let charset = match field.charset {
        // A field that was made up rather than read from mysqld.
        0 if matches!(field.r#type(), Type::Varchar | Type::Text | Type::Char | Type::Enum | Type::Set) => {
            charset::UTF8_GENERAL_CI.into()
        }
        0 => charset::BINARY.into(),
        id => id as u16,
    };
    put_lenenc_bytes(out, b"def");
    for text in [&field.database, &field.table, &field.org_table, &field.name, &field.org_name] {
        put_lenenc_bytes(out, text.as_bytes());
    }
    out.push(12);
    out.extend_from_slice(&charset.to_le_bytes());
    out.extend_from_slice(&field.column_length.to_le_bytes());
    out.push(code);
    out.extend_from_slice(&flags.to_le_bytes());
    out.push(field.decimals as u8);
    out.extend_from_slice(&[0, 0]);
}

/// Takes a text row apart. Cells are appended to `values` and split off it, so that rows share an allocation.
pub(crate) fn parse_text_row(packet: &[u8], columns: usize, values: &mut BytesMut) -> Result<Row, WireError> {
    let mut lengths = Vec::with_capacity(columns);
    let mut cursor = Cursor::new(packet);
    for _ in 0..columns {
        match cursor.cell()? {
            Some(cell) => {
                lengths.push(cell.len() as i64);
                values.put_slice(cell);
            }
            None => lengths.push(-1),
        }
    }
    if !cursor.is_empty() {
        return Err(WireError::Trailing);
    }
    Ok(Row { lengths, values: values.split().freeze() })
}

/// The cells of a row, `None` for NULL. Ends early when the row's lengths and bytes disagree.
pub(crate) fn cells(row: &Row) -> impl Iterator<Item = Option<&[u8]>> {
    let mut rest = &row.values[..];
    row.lengths.iter().map_while(move |&len| match usize::try_from(len) {
        Ok(len) => {
            let (cell, tail) = rest.split_at_checked(len)?;
            rest = tail;
            Some(Some(cell))
        }
        Err(_) => Some(None),
    })
}

/// Writes a text row: the bytes as they are, with a length in front of each.
pub(crate) fn put_text_row(out: &mut Vec<u8>, row: &Row) -> Result<(), WireError> {
    let mut count = 0;
    out.reserve(row.values.len() + 3 * row.lengths.len());
    for cell in cells(row) {
        count += 1;
        match cell {
            Some(cell) => put_lenenc_bytes(out, cell),
            None => out.push(LOCAL_INFILE),
        }
    }
    if count == row.lengths.len() { Ok(()) } else { Err(WireError::BadLength) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packets_of_a_real_server() {
        // MariaDB 10.11: the OK of an UPDATE, an ERR, a column definition of `select id from t`.
        let ok = parse_ok(&[0, 1, 0, 2, 0, 0, 0, 40]).expect("an OK packet");
        assert_eq!(ok, Ok { affected_rows: 1, insert_id: 0, status: 2, warnings: 0 });
        let error = parse_err(b"\xff\x7a\x04#42S02Table 'test.x' doesn't exist").expect("an ERR packet");
        assert_eq!(error, MysqlError::new(1146, "42S02", "Table 'test.x' doesn't exist"));
        let column =
            parse_column(b"\x03def\x04test\x01t\x01t\x02id\x02id\x0c\x3f\x00\x14\x00\x00\x00\x08\x03\x42\x00\x00\x00")
                .expect("a column");
        // 0x4203 and the flag of numbers, as v5.0.1 prints this column too: 49667.
        assert_eq!((column.name.as_str(), column.r#type(), column.flags), ("id", Type::Int64, 0xc203));
        assert_eq!((column.database.as_str(), column.column_length, column.charset), ("test", 20, 63));
    }

    #[test]
    fn an_error_before_login_has_no_state() {
        let error = parse_err(b"\xff\x10\x04Too many connections").expect("an ERR packet");
        assert_eq!(error, MysqlError::new(1040, "HY000", "Too many connections"));
    }

    proptest! {
        #[test]
        fn rows_round_trip(cells in prop::collection::vec(prop::option::of(prop::collection::vec(any::<u8>(), 0..400)), 0..20)) {
            let mut wire = Vec::new();
            let row = Row {
                lengths: cells.iter().map(|cell| cell.as_ref().map_or(-1, |c| c.len() as i64)).collect(),
                values: cells.iter().flatten().flatten().copied().collect(),
            };
            put_text_row(&mut wire, &row).expect("a consistent row");
            prop_assert_eq!(parse_text_row(&wire, cells.len(), &mut BytesMut::new()), Result::Ok(row));
            prop_assert!(parse_text_row(&wire, cells.len() + 1, &mut BytesMut::new()).is_err());
        }

        #[test]
        fn columns_round_trip(name: String, table: String, column_length: u32, decimals: u8) {
            let field = Field {
                name, table, column_length, decimals: decimals.into(), r#type: Type::Varchar.into(),
                charset: 45, flags: 1, ..Field::default()
            };
            let mut wire = Vec::new();
            put_column(&mut wire, &field);
            prop_assert_eq!(parse_column(&wire), Result::Ok(field));
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>, columns in 0..10usize) {
            let _ = parse_ok(&bytes);
            let _ = parse_eof(&bytes);
            let _ = parse_err(&bytes);
            let _ = parse_column(&bytes);
            let _ = parse_text_row(&bytes, columns, &mut BytesMut::new());
        }
    }

    #[test]
    fn a_row_whose_lengths_lie_is_refused() {
        let row = Row { lengths: vec![5], values: bytes::Bytes::from_static(b"abc") };
        assert_eq!(put_text_row(&mut Vec::new(), &row), Err(WireError::BadLength));
    }
}
