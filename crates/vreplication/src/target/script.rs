//! What is sent to mysqld for a transaction or a part of one: texts of several statements, and statements with many rows of
//! parameters between them, in their order.

use std::sync::Arc;

use mysql::client::BulkRows;

/// One statement for many rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bulk {
    /// With a question mark for each value of a row.
    pub sql: Arc<str>,
    pub rows: BulkRows,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// Statements, each with a semicolon behind it.
    Text(Vec<u8>),
    Bulk(Bulk),
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Script {
    parts: Vec<Part>,
}

impl Script {
    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Bytes of all of it.
    pub fn len(&self) -> usize {
        let len = |part: &Part| match part {
            Part::Text(text) => text.len(),
            Part::Bulk(bulk) => bulk.rows.len(),
        };
        self.parts.iter().map(len).sum()
    }

    /// The text at its end, to append to.
    pub fn text(&mut self) -> &mut Vec<u8> {
        if !matches!(self.parts.last(), Some(Part::Text(_))) {
            self.parts.push(Part::Text(Vec::new()));
        }
        match self.parts.last_mut() {
            Some(Part::Text(text)) => text,
            _ => unreachable!("a text was appended"),
        }
    }

    pub fn push_bulk(&mut self, bulk: Bulk) {
        self.parts.push(Part::Bulk(bulk));
    }

    pub fn append(&mut self, other: Self) {
        for part in other.parts {
            match part {
                Part::Text(text) => self.text().extend_from_slice(&text),
                Part::Bulk(bulk) => self.push_bulk(bulk),
            }
        }
    }

    pub fn parts(&self) -> &[Part] {
        &self.parts
    }
}

impl From<&str> for Script {
    fn from(text: &str) -> Self {
        Self { parts: vec![Part::Text(text.as_bytes().to_vec())] }
    }
}
