//! The tables that a statement names, found on its tokens.

/// What a statement does with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    Read,
    Write,
}

/// A table as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TableRef {
    /// Keyspace or database in front of the point.
    pub qualifier: Option<String>,
    pub name: String,
    /// The alias, if it has one.
    pub alias: Option<String>,
    pub access: Access,
    /// Byte span in the statement's text of the qualifier with its point; empty when there is none.
    pub qualifier_span: (usize, usize),
}
