//! SHOW, taken apart by our own parser.

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShowKind {
    /// `databases`, `schemas`, `keyspaces`, `vitess_keyspaces`.
    Databases,
    VitessShards,
    VitessTablets,
    VitessTarget,
    VschemaTables,
    /// `vschema vindexes [on t]`.
    VschemaVindexes,
    /// `vitess_metadata variables`.
    VitessMetadata,
    /// Another `vitess_…` or `vschema …` word: recognised, not built.
    VitessOther(String),
    Status,
    Variables,
    Engines,
    Plugins,
    Charset,
    Collation,
    Warnings,
    Errors,
    Tables,
    TableStatus,
    Triggers,
    Events,
    CreateTable,
    CreateView,
    /// `create database|schema x`.
    CreateDatabase,
    /// `create procedure|function|trigger|event|user …`.
    CreateOther(String),
    Columns,
    Index,
    Processlist,
    Grants,
    /// Anything else; the first word in lower case.
    Other(String),
}

/// A SHOW statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowStatement {
    pub kind: ShowKind,
    /// `show full …`.
    pub full: bool,
    /// `global`, `session` or `local`, lower case.
    pub scope: Option<String>,
    /// The table, in `show create table ks.t`, `show columns from t`, `show index from t`, `show vschema vindexes on t`.
    pub table: Option<String>,
    /// The database, from `from ks` or the table's qualifier.
    pub database: Option<String>,
    /// Byte span in the statement's text of the clause that names the database, with the word in
    /// front (` from ks`, `ks.`), so that it can be cut out before the text goes to a tablet, where the
    /// database has another name.
    pub database_span: Option<(usize, usize)>,
    /// Pattern of LIKE.
    pub like: Option<String>,
    /// Condition of WHERE, as written.
    pub filter: Option<String>,
}
