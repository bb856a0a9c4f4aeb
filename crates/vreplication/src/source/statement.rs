//! Row changes as statements, one a row, or as the parts of which a reader makes its own:
//! `INSERT INTO t SET c=v, …`, `UPDATE t SET c=v, … WHERE k=v AND …`, `DELETE FROM t WHERE k=v AND …`.
//!
//! The WHERE clause names the row by its key. Only a table without one is compared column by column, and then at most
//! one row changes. See `docs/decisions` on why not every column is compared, as Go does.

use mysql::binlog::{Image, JsonError};
use vtproto::binlogdata::binlog_transaction::Row;

use super::literal::Literals;
use super::table::Table;

/// Writes statements for one reader.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Statements {
    pub literals: Literals,
}

impl Statements {
    pub fn insert(self, table: &Table, after: &Image<'_>) -> Result<Vec<u8>, JsonError> {
        let mut out = start(b"INSERT INTO ", table, after.len());
        out.extend_from_slice(b" SET ");
        self.assignments(table, after, &mut out)?;
        Ok(out)
    }

    pub fn update(self, table: &Table, before: &Image<'_>, after: &Image<'_>) -> Result<Vec<u8>, JsonError> {
        let mut out = start(b"UPDATE ", table, after.len() + before.len());
        out.extend_from_slice(b" SET ");
        self.assignments(table, after, &mut out)?;
        self.condition(table, before, &mut out)?;
        Ok(out)
    }

    pub fn delete(self, table: &Table, before: &Image<'_>) -> Result<Vec<u8>, JsonError> {
        let mut out = start(b"DELETE FROM ", table, before.len());
        self.condition(table, before, &mut out)?;
        Ok(out)
    }

    fn assignments(self, table: &Table, after: &Image<'_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
        let mut first = true;
        for (column, value) in table.columns.iter().zip(after.cells(&table.codecs)) {
            if !column.written {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(&column.assign);
            self.literals.put(out, &column.text, &value, false)?;
        }
        Ok(())
    }

    fn condition(self, table: &Table, before: &Image<'_>, out: &mut Vec<u8>) -> Result<(), JsonError> {
        out.extend_from_slice(b" WHERE ");
        let mut first = true;
        for (column, value) in table.columns.iter().zip(before.cells(&table.codecs)) {
            if table.has_key && !column.key || !table.has_key && !column.written {
                continue;
            }
            if !std::mem::take(&mut first) {
                out.extend_from_slice(b" AND ");
            }
            if value.is_null() {
                out.extend_from_slice(&column.assign[..column.assign.len() - 1]);
                out.extend_from_slice(b" IS NULL");
            } else {
                out.extend_from_slice(&column.assign);
                self.literals.put(out, &column.text, &value, true)?;
            }
        }
        if !table.has_key {
            out.extend_from_slice(b" LIMIT 1");
        }
        Ok(())
    }
}

/// A row by its key, for an error text.
pub(super) fn shown(table: &Table, row: &Image<'_>) -> String {
    const MOST: usize = 200;
    let mut condition = Vec::new();
    // A value that cannot be read ends the text, not the message.
    let _ = Statements::default().condition(table, row, &mut condition);
    let condition = String::from_utf8_lossy(&condition);
    format!("table {}, row{}", table.name, condition.chars().take(MOST).collect::<String>())
}

impl Statements {
    /// A change of a row as such. The table has a key.
    pub fn row(
        self,
        table: &Table,
        number: u32,
        before: Option<&Image<'_>>,
        after: Option<&Image<'_>>,
    ) -> Result<Row, JsonError> {
        let key = |image: Option<&Image<'_>>| image.map_or(Ok(Vec::new()), |image| self.key(table, image));
        let old = key(before)?;
        let mut new = key(after)?;
        if new == old {
            // It stays the row that it is.
            new.clear();
        }
        let values = after.map(|image| self.values(table, image)).transpose()?;
        Ok(Row { table: number, before: old, after: new, values })
    }

    fn key(self, table: &Table, image: &Image<'_>) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::new();
        let composite = table.columns.iter().filter(|column| column.key).count() > 1;
        for (column, value) in table.columns.iter().zip(image.cells(&table.codecs)).filter(|(column, _)| column.key) {
            if composite {
                out.extend_from_slice(if out.is_empty() { b"" } else { b" AND " });
                out.extend_from_slice(&column.assign);
            }
            self.literals.put(&mut out, &column.text, &value, true)?;
        }
        Ok(out)
    }

    fn values(self, table: &Table, image: &Image<'_>) -> Result<Vec<u8>, JsonError> {
        let mut out = Vec::with_capacity(image.len() * 5 / 4 + table.columns.len() * 8);
        for (column, value) in table.columns.iter().zip(image.cells(&table.codecs)).filter(|(column, _)| column.written)
        {
            if !out.is_empty() {
                out.push(b',');
            }
            self.literals.put(&mut out, &column.text, &value, false)?;
        }
        Ok(out)
    }
}

fn start(words: &[u8], table: &Table, bytes: usize) -> Vec<u8> {
    let names: usize = table.columns.iter().map(|column| column.assign.len() + 8).sum();
    let mut out = Vec::with_capacity(words.len() + table.quoted.len() + names + bytes * 5 / 4 + 16);
    out.extend_from_slice(words);
    out.extend_from_slice(&table.quoted);
    out
}
