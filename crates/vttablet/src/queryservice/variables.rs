//! System variables that were renamed or removed between MariaDB, MySQL 5.7 and MySQL 8 and later.
//!
//! A vtgate says that it is MySQL 5.7, so that drivers ask for the variables of 5.7 when they connect:
//! `tx_isolation`, `query_cache_size`. A mysqld of another kind refuses the whole statement. Then it
//! runs once more with the name that this mysqld knows, or with the value that the missing feature
//! stands for; the columns keep the names that were asked for.

use vtproto::query::{Field, QueryResult};
use vtsql::lexer::{TokenKind, tokens};

use super::error::ExecError;
use super::plan::PlanKind;

/// errno of `Unknown system variable 'x'`.
const ER_UNKNOWN_VARIABLE: u16 = 1193;
/// Unknown variables that one statement may have.
pub const MOST: usize = 8;

/// What stands for a variable on a server without it.
enum Instead {
    Name(&'static str),
    /// An expression that nobody writes, so that its column can be told.
    Value(&'static str),
}

fn instead_of(name: &str) -> Option<Instead> {
    Some(match name {
        "tx_isolation" => Instead::Name("transaction_isolation"),
        "transaction_isolation" => Instead::Name("tx_isolation"),
        "tx_read_only" => Instead::Name("transaction_read_only"),
        "transaction_read_only" => Instead::Name("tx_read_only"),
        // MySQL 8 has no query cache: it is empty and off.
        "query_cache_size" => Instead::Value("(0 + 0)"),
        "query_cache_type" => Instead::Value("concat('OFF')"),
        "have_query_cache" => Instead::Value("concat('NO')"),
        _ => return None,
    })
}

/// A statement with a variable replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replaced {
    pub sql: Vec<u8>,
    /// Names of columns: as the replaced statement has them, and as they were asked for.
    pub names: Vec<(String, String)>,
}

/// Gives columns the names that were asked for.
pub fn rename(fields: &mut [Field], names: &[(String, String)]) {
    for field in fields {
        if let Some((_, asked)) = names.iter().find(|(now, _)| *now == field.name) {
            field.name.clone_from(asked);
        }
    }
}

/// What to send instead of a read that mysqld refused for a variable it does not know.
pub fn for_other_server(kind: PlanKind, sql: &[u8], outcome: &Result<QueryResult, ExecError>) -> Option<Replaced> {
    match outcome {
        Err(ExecError::Mysql { error, .. }) if error.errno == ER_UNKNOWN_VARIABLE && kind == PlanKind::PassSelect => {
            replace(sql, &error.message)
        }
        _ => None,
    }
}

/// The statement without the variable that `message` says is unknown; `None` when there is nothing for it.
fn replace(sql: &[u8], message: &str) -> Option<Replaced> {
    let name = message.split('\'').nth(1)?.to_ascii_lowercase();
    let instead = instead_of(&name)?;
    let mut out = Vec::with_capacity(sql.len() + 16);
    let mut names = Vec::new();
    let mut copied = 0;
    let words = tokens(sql);
    let is_column = |at: usize| match words.get(at + 1) {
        None => true,
        Some(next) => next.is_punct(sql, ",") || ["from", "limit", "where"].iter().any(|word| next.is_word(sql, word)),
    };
    let mut replaced = false;
    for (at, token) in words.iter().enumerate() {
        let text = String::from_utf8_lossy(token.bytes(sql));
        let (scope, variable) = match text.rsplit_once(['.', '@']) {
            Some((before, variable)) => (&text[..before.len() + 1], variable),
            None => continue,
        };
        if token.kind != TokenKind::SystemVar || !variable.trim_matches('`').eq_ignore_ascii_case(&name) {
            continue;
        }
        let new = match instead {
            Instead::Name(other) => format!("{scope}{other}"),
            Instead::Value(value) => value.to_owned(),
        };
        out.extend_from_slice(&sql[copied..token.start]);
        out.extend_from_slice(new.as_bytes());
        copied = token.end;
        replaced = true;
        // Inside of an expression it names no column.
        if is_column(at) {
            names.push((new, text.into_owned()));
        }
    }
    if !replaced {
        return None;
    }
    // A column that was asked for by the new name keeps it, unless it has an alias anyway.
    names.retain(|(new, _)| {
        !words.iter().enumerate().any(|(at, token)| token.bytes(sql) == new.as_bytes() && is_column(at))
    });
    out.extend_from_slice(&sql[copied..]);
    Some(Replaced { sql: out, names })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(name: &str) -> String {
        format!("Unknown system variable '{name}'")
    }

    fn replaced(sql: &str, name: &str) -> String {
        String::from_utf8(replace(sql.as_bytes(), &unknown(name)).expect("replaced").sql).expect("text")
    }

    #[test]
    fn every_scope_is_kept() {
        assert_eq!(replaced("select @@tx_isolation", "tx_isolation"), "select @@transaction_isolation");
        assert_eq!(
            replaced("select @@session.tx_read_only, @@GLOBAL.`TX_READ_ONLY` as x", "tx_read_only"),
            "select @@session.transaction_read_only, @@GLOBAL.transaction_read_only as x"
        );
        assert_eq!(
            replaced("select @@SESSION.transaction_isolation", "transaction_isolation"),
            "select @@SESSION.tx_isolation"
        );
        assert_eq!(
            replaced("select @@query_cache_size as query_cache_size, '@@query_cache_size'", "query_cache_size"),
            "select (0 + 0) as query_cache_size, '@@query_cache_size'"
        );
    }

    #[test]
    fn columns_are_called_what_was_asked_for() {
        let found = replace(b"select @@tx_isolation, @@tx_isolation as b", &unknown("tx_isolation")).expect("replaced");
        let field = |name: &str| Field { name: name.into(), ..Field::default() };
        let mut fields = [field("@@transaction_isolation"), field("b")];
        rename(&mut fields, &found.names);
        assert_eq!(fields.map(|f| f.name), ["@@tx_isolation", "b"]);
        let names = |sql: &[u8]| replace(sql, &unknown("transaction_isolation")).expect("replaced").names;
        assert_eq!(names(b"select @@transaction_isolation as a, @@tx_isolation from dual"), []);
        assert_eq!(names(b"select @@transaction_isolation, @@tx_isolation as level from dual").len(), 1);
        assert_eq!(names(b"select coalesce(null, @@transaction_isolation) as level"), []);
    }

    #[test]
    fn other_variables_stay_unknown() {
        assert_eq!(replace(b"select @@nope", &unknown("nope")), None);
        assert_eq!(replace(b"select 1", &unknown("tx_isolation")), None);
        assert_eq!(replace(b"select @@x", "Unknown"), None);
    }
}
