//! What routing and session handling need to know of a statement beyond its tables.

/// How a SELECT locks the rows it reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locking {
    /// `for update`.
    Update,
    /// `for share`, `lock in share mode`.
    Share,
}

/// How many values `select next … from seq` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NextCount {
    /// `next value` (1) or `next 5 values`.
    Number(u64),
    /// `next :name values`.
    BindVar(String),
}

/// Functions whose value belongs to the client's session and not to the connection a tablet happens
/// to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionFunction {
    LastInsertId,
    FoundRows,
    RowCount,
    /// `database()` and `schema()`.
    Database,
    ConnectionId,
    Version,
    User,
    /// `get_lock`, `release_lock`, `is_free_lock` …: bound to one connection.
    NamedLock,
}

/// Facts found on one walk over the tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    pub locking: Option<Locking>,
    /// The statement has a LIMIT at its outermost level.
    pub has_limit: bool,
    /// `select next n values from …`.
    pub next: Option<NextCount>,
    pub functions: std::collections::BTreeSet<SessionFunction>,
    /// User variables read, without `@`, lower case, in order of appearance.
    pub user_vars: Vec<String>,
    /// A user variable is assigned inside (`@a := 1`).
    pub assigns_user_var: bool,
    /// `select … into @a`.
    pub into_user_var: bool,
    /// `into outfile` or `into dumpfile`.
    pub into_file: bool,
    /// System variables read, lower case, as written behind `@@` (`session.sql_mode`, `autocommit`).
    pub system_vars: Vec<String>,
    /// `sql_calc_found_rows`.
    pub calc_found_rows: bool,
    /// UNION, EXCEPT or INTERSECT at the outermost level.
    pub set_operation: bool,
    /// A SELECT inside another statement.
    pub has_subquery: bool,
    /// `insert … select`.
    pub insert_select: bool,
    /// `on duplicate key update`.
    pub on_duplicate_key: bool,
    /// `insert ignore` and the like.
    pub ignore: bool,
    /// Schema names compared with `table_schema` and the like against information_schema.
    pub schema_names: Vec<SchemaName>,
}

/// A value that is compared with a schema column of information_schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SchemaName {
    /// `table_schema = 'ks'`.
    Literal(String),
    /// `table_schema = :vtg1`.
    BindVar(String),
}
