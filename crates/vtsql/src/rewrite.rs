//! Session functions and variables to bind variables.

use std::collections::BTreeSet;

/// Which values a rewritten text needs from the session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// `:__lastInsertId`, INT64/UINT64.
    pub last_insert_id: bool,
    /// `:__vtdbname`: the keyspace of the session, NULL without one.
    pub database: bool,
    /// `:__vtfrows`.
    pub found_rows: bool,
    /// `:__vtrcount`.
    pub row_count: bool,
    /// `:__vtudv<name>` each; a variable that was never set is NULL.
    pub user_vars: BTreeSet<String>,
    /// `:__vt<name>` each: variables that vtgate itself owns (`autocommit`, `workload` …).
    pub system_vars: BTreeSet<String>,
}

/// A text after rewriting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    pub sql: String,
    pub needs: Needs,
}

/// Replaces session functions and variables in `sql` by bind variables. A select item that had no alias
/// gets its own text as alias, so that the column's header stays.
pub fn rewrite_session(sql: &str) -> Rewritten {
    Rewritten { sql: sql.to_owned(), needs: Needs::default() }
}
