//! Row changes as statements, one a row:
//! `INSERT INTO t SET c=v, …`, `UPDATE t SET c=v, … WHERE k=v AND …`, `DELETE FROM t WHERE k=v AND …`.
//!
//! The WHERE clause names the row by its key. Only a table without one is compared column by column, and then at most
//! one row changes. See `docs/decisions` on why not every column is compared, as Go does.

use mysql::binlog::{Image, JsonError};

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

fn start(words: &[u8], table: &Table, bytes: usize) -> Vec<u8> {
    let names: usize = table.columns.iter().map(|column| column.assign.len() + 8).sum();
    let mut out = Vec::with_capacity(words.len() + table.quoted.len() + names + bytes * 5 / 4 + 16);
    out.extend_from_slice(words);
    out.extend_from_slice(&table.quoted);
    out
}
