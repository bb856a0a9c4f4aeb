//! What routing and session handling need to know of a statement beyond its tables.

use crate::cursor::Cursor;
use crate::kind::StatementKind;
use crate::lexer::TokenKind;
use crate::words::{Lower, is_schema_column};

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
    /// Byte spans of `database()` and `schema()` outside of select lists: where they are compared with something.
    pub compared_databases: Vec<(usize, usize)>,
}

/// A string literal that is compared with a schema column of information_schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SchemaName {
    pub name: String,
    /// Byte span of the literal in the statement's text.
    pub span: (usize, usize),
}

/// Collects the facts of the statement that the cursor stands on.
pub(crate) fn collect(cursor: &Cursor<'_>, kind: StatementKind) -> Facts {
    let sql = cursor.bytes();
    let mut facts = Facts::default();
    let mut depth = 0usize;
    let mut selects = 0usize;
    let mut in_select_list = false;
    let word_at = |i: usize, word: &str| cursor.tokens.get(i).is_some_and(|t| t.is_word(sql, word));
    let punct_at = |i: usize, punct: &str| cursor.tokens.get(i).is_some_and(|t| t.is_punct(sql, punct));
    for (i, token) in cursor.tokens.iter().enumerate() {
        match token.kind {
            TokenKind::Punct => match token.bytes(sql) {
                b"(" => depth += 1,
                b")" => depth = depth.saturating_sub(1),
                _ => {}
            },
            TokenKind::UserVar => {
                let name = variable_name(&cursor.sql[token.start + 1..token.end]);
                if punct_at(i + 1, ":=") {
                    facts.assigns_user_var = true;
                }
                if i > 0 && word_at(i - 1, "into") {
                    facts.into_user_var = true;
                }
                if !facts.user_vars.contains(&name) {
                    facts.user_vars.push(name);
                }
            }
            TokenKind::SystemVar => {
                let name = cursor.sql[token.start + 2..token.end].replace('`', "").to_ascii_lowercase();
                if !facts.system_vars.contains(&name) {
                    facts.system_vars.push(name);
                }
            }
            // mysqld takes its own functions in backquotes, too.
            TokenKind::Quoted
                if punct_at(i + 1, "(")
                    && is_named_lock(Lower::of(&token.bytes(sql)[1..token.end - token.start - 1]).get()) =>
            {
                facts.functions.insert(SessionFunction::NamedLock);
            }
            TokenKind::Word => {
                let lower = Lower::of(token.bytes(sql));
                // A column may have any of these names.
                if i > 0 && punct_at(i - 1, ".") && !is_schema_column(lower.get()) {
                    continue;
                }
                let called = punct_at(i + 1, "(");
                match lower.get() {
                    b"select" => {
                        selects += 1;
                        in_select_list = true;
                    }
                    b"from" => in_select_list = false,
                    b"limit" if depth == 0 => facts.has_limit = true,
                    b"union" | b"except" | b"intersect" if depth == 0 => facts.set_operation = true,
                    b"for" if word_at(i + 1, "update") => facts.locking = Some(Locking::Update),
                    b"for" if word_at(i + 1, "share") => {
                        facts.locking.get_or_insert(Locking::Share);
                    }
                    b"lock" if word_at(i + 1, "in") && word_at(i + 2, "share") && word_at(i + 3, "mode") => {
                        facts.locking.get_or_insert(Locking::Share);
                    }
                    b"into" if word_at(i + 1, "outfile") || word_at(i + 1, "dumpfile") => facts.into_file = true,
                    b"sql_calc_found_rows" => facts.calc_found_rows = true,
                    b"duplicate" if word_at(i + 1, "key") && word_at(i + 2, "update") => facts.on_duplicate_key = true,
                    b"ignore" if i < 4 && kind.is_dml() => facts.ignore = true,
                    b"last_insert_id" if called => {
                        facts.functions.insert(SessionFunction::LastInsertId);
                    }
                    b"found_rows" if called => {
                        facts.functions.insert(SessionFunction::FoundRows);
                    }
                    b"row_count" if called => {
                        facts.functions.insert(SessionFunction::RowCount);
                    }
                    b"database" | b"schema" if called => {
                        facts.functions.insert(SessionFunction::Database);
                        if let Some(close) = cursor.tokens.get(i + 2)
                            && !in_select_list
                            && punct_at(i + 2, ")")
                        {
                            facts.compared_databases.push((token.start, close.end));
                        }
                    }
                    b"connection_id" if called => {
                        facts.functions.insert(SessionFunction::ConnectionId);
                    }
                    b"version" if called => {
                        facts.functions.insert(SessionFunction::Version);
                    }
                    b"user" | b"current_user" | b"session_user" | b"system_user" if called => {
                        facts.functions.insert(SessionFunction::User);
                    }
                    word if called && is_named_lock(word) => {
                        facts.functions.insert(SessionFunction::NamedLock);
                    }
                    word if is_schema_column(word) && punct_at(i + 1, "=") => {
                        if let Some(literal) = cursor.tokens.get(i + 2)
                            && let Some(value) = literal.string_value(sql)
                        {
                            let name = String::from_utf8_lossy(&value).into_owned();
                            facts.schema_names.push(SchemaName { name, span: (literal.start, literal.end) });
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    facts.insert_select = selects > 0 && matches!(kind, StatementKind::Insert | StatementKind::Replace);
    facts.has_subquery =
        selects > usize::from(kind == StatementKind::Select) && !facts.set_operation || kind.is_dml() && selects > 0;
    facts.next = next_values(cursor);
    facts
}

fn is_named_lock(function: &[u8]) -> bool {
    matches!(function, b"get_lock" | b"release_lock" | b"release_all_locks" | b"is_free_lock" | b"is_used_lock")
}

/// `select next value from …`, `select next 5 values from …`.
fn next_values(cursor: &Cursor<'_>) -> Option<NextCount> {
    let sql = cursor.bytes();
    let word_at = |i: usize, word: &str| cursor.tokens.get(i).is_some_and(|t| t.is_word(sql, word));
    if !word_at(0, "select") || !word_at(1, "next") {
        return None;
    }
    if word_at(2, "value") && word_at(3, "from") {
        return Some(NextCount::Number(1));
    }
    if !word_at(3, "values") || !word_at(4, "from") {
        return None;
    }
    let count = cursor.tokens[2];
    let text = cursor.text(count);
    match count.kind {
        TokenKind::Integer => text.parse().ok().map(NextCount::Number),
        TokenKind::BindVar => Some(NextCount::BindVar(text[1..].to_owned())),
        _ => None,
    }
}

/// The name of a user variable without quotes, lower case.
pub(crate) fn variable_name(text: &str) -> String {
    let quote = text.chars().next().filter(|c| matches!(c, '`' | '\'' | '"'));
    match quote {
        Some(quote) if text.len() >= 2 => {
            text[1..text.len() - 1].replace(&format!("{quote}{quote}"), &quote.to_string())
        }
        _ => text.to_owned(),
    }
    .to_lowercase()
}
