//! Session functions and variables to bind variables.
//!
//! `last_insert_id()`, `found_rows()`, `row_count()`, `connection_id()`, `database()`, `@x` and the system variables that a
//! gate itself owns have their values in the client's session; a tablet's connection would answer with
//! somebody else's. A select item that is changed and has no alias gets its own text as alias, so that the
//! column's header stays what the user wrote.

use std::collections::BTreeSet;

use crate::cursor::Cursor;
use crate::facts::variable_name;
use crate::lexer::{Token, TokenKind};
use crate::quote::quote_identifier;
use crate::words::Lower;

/// Which values a rewritten text needs from the session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    /// `:__lastInsertId`, UINT64.
    pub last_insert_id: bool,
    /// `:__vtdbname`: the keyspace of the session, NULL without one.
    pub database: bool,
    /// `:__vtfrows`.
    pub found_rows: bool,
    /// `:__vtrcount`.
    pub row_count: bool,
    /// `:__vtconnid`, UINT64: the number that the client's KILL takes.
    pub connection_id: bool,
    /// `:__vtudv<name>` each; a variable that was never set is NULL.
    pub user_vars: BTreeSet<String>,
    /// `:__vt<name>` each: variables that vtgate itself owns (`autocommit`, `workload` …).
    pub system_vars: BTreeSet<String>,
}

impl Needs {
    /// Nothing of the session is needed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The bind variable of a user variable.
    pub fn user_var_bind_name(name: &str) -> String {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if plain {
            return format!("__vtudv{name}");
        }
        // Names in quotes may hold anything; a bind variable may not.
        let hex: String = name.bytes().map(|b| format!("{b:02x}")).collect();
        format!("__vtudvx_{hex}")
    }

    /// The bind variable of a system variable.
    pub fn system_var_bind_name(name: &str) -> String {
        format!("__vt{name}")
    }
}

/// A text after rewriting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rewritten {
    pub sql: String,
    pub needs: Needs,
}

/// Who knows the value of a system variable of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VariableSource {
    Mysqld,
    Session,
    /// The session from the first SET on, mysqld before: the bind variable is NULL until then.
    SessionOnceSet,
}

/// Replaces session functions, user variables and the system variables that `source` says the session has
/// (name without scope, lower case) in `sql`, one statement without margin comments.
///
/// A statement that assigns a user variable keeps all of them: their order of evaluation is mysqld's.
pub fn rewrite_session(sql: &str, source: impl Fn(&str) -> VariableSource) -> Rewritten {
    let unchanged = || Rewritten { sql: sql.to_owned(), needs: Needs::default() };
    let Ok(cursor) = Cursor::new(sql) else { return unchanged() };
    let mut walk =
        Walk { edits: Vec::new(), needs: Needs::default(), cursor: &cursor, keep_user_vars: false, source: &source };
    walk.keep_user_vars = cursor.tokens.iter().any(|t| t.is_punct(sql.as_bytes(), ":="));
    walk.block(0, cursor.tokens.len());
    let Walk { mut edits, needs, .. } = walk;
    if edits.is_empty() {
        return unchanged();
    }
    edits.sort_by_key(|edit| edit.start);
    let mut out = String::with_capacity(sql.len() + 32);
    let mut copied = 0;
    for edit in edits {
        out.push_str(&sql[copied..edit.start]);
        out.push_str(&edit.text);
        copied = edit.end;
    }
    out.push_str(&sql[copied..]);
    Rewritten { sql: out, needs }
}

/// The texts of the items of the first select list in `sql`; an alias is part of its item.
pub fn select_item_texts(sql: &str) -> Vec<String> {
    let Ok(cursor) = Cursor::new(sql) else { return Vec::new() };
    let walk = Walk {
        edits: Vec::new(),
        needs: Needs::default(),
        cursor: &cursor,
        keep_user_vars: true,
        source: &|_| VariableSource::Mysqld,
    };
    let total = cursor.tokens.len();
    // Queries of WITH stand in brackets.
    let mut depth = 0usize;
    let with = walk.lower(0).get() == b"with";
    let mut start = None;
    for i in 0..total {
        if walk.punct(i, "(") {
            depth += 1;
        } else if walk.punct(i, ")") {
            depth = depth.saturating_sub(1);
        } else if walk.lower(i).get() == b"select" && (!with || depth == 0) {
            start = Some(i + 1);
            break;
        }
    }
    let Some(mut i) = start else { return Vec::new() };
    while i < total && is_modifier(walk.lower(i).get()) {
        i += 1;
    }
    let (mut items, mut first, mut depth) = (Vec::new(), i, 0usize);
    let text = |from: usize, to: usize| match (walk.token(from), to.checked_sub(1).and_then(|last| walk.token(last))) {
        (Some(first), Some(last)) if from < to => sql[first.start..last.end].to_owned(),
        _ => String::new(),
    };
    while i < total {
        if depth == 0 && (walk.punct(i, ")") || ends_list(walk.lower(i).get())) {
            break;
        }
        if walk.punct(i, "(") {
            depth += 1;
        } else if walk.punct(i, ")") {
            depth -= 1;
        } else if depth == 0 && walk.punct(i, ",") {
            items.push(text(first, i));
            first = i + 1;
        }
        i += 1;
    }
    items.push(text(first, i));
    items
}

struct Edit {
    start: usize,
    end: usize,
    text: String,
}

struct Walk<'c, 'a> {
    cursor: &'c Cursor<'a>,
    edits: Vec<Edit>,
    needs: Needs,
    keep_user_vars: bool,
    source: &'c dyn Fn(&str) -> VariableSource,
}

impl Walk<'_, '_> {
    fn token(&self, i: usize) -> Option<Token> {
        self.cursor.tokens.get(i).copied()
    }

    fn punct(&self, i: usize, punct: &str) -> bool {
        self.token(i).is_some_and(|t| t.is_punct(self.cursor.bytes(), punct))
    }

    fn lower(&self, i: usize) -> Lower {
        match self.token(i) {
            Some(token) if token.kind == TokenKind::Word => Lower::of(token.bytes(self.cursor.bytes())),
            _ => Lower::NONE,
        }
    }

    /// Tokens `from..to` at any depth: edits inside, aliases for the items of every select list.
    fn block(&mut self, from: usize, to: usize) {
        let mut i = from;
        while i < to {
            if self.lower(i).get() == b"select" {
                i = self.select_list(i + 1, to);
            } else {
                i = self.one(i);
            }
        }
    }

    /// The items behind SELECT; where they end.
    fn select_list(&mut self, from: usize, to: usize) -> usize {
        let mut i = from;
        while self.token(i).is_some_and(|_| is_modifier(self.lower(i).get())) {
            i += 1;
        }
        loop {
            let start = i;
            let edits_before = self.edits.len();
            let mut depth = 0usize;
            while i < to {
                if depth == 0 && (self.punct(i, ",") || self.punct(i, ")") || ends_list(self.lower(i).get())) {
                    break;
                }
                if self.punct(i, "(") {
                    depth += 1;
                } else if self.punct(i, ")") {
                    depth -= 1;
                }
                // A query in brackets has a list of its own.
                i = if depth > 0 && self.lower(i).get() == b"select" {
                    self.select_list(i + 1, to)
                } else {
                    self.one(i)
                };
            }
            let i_end = i.min(to);
            if self.edits.len() > edits_before
                && i_end > start
                && !self.has_alias(start, i_end)
                && let (Some(first), Some(last)) = (self.token(start), self.token(i_end - 1))
            {
                let text = &self.cursor.sql[first.start..last.end];
                self.edits.push(Edit {
                    start: last.end,
                    end: last.end,
                    text: format!(" as {}", quote_identifier(text)),
                });
            }
            if i_end < to && self.punct(i_end, ",") {
                i = i_end + 1;
            } else {
                return i_end;
            }
        }
    }

    /// Whether the item of these tokens ends with an alias.
    fn has_alias(&self, start: usize, end: usize) -> bool {
        if end < start + 2 {
            return false;
        }
        if self.lower(end - 2).get() == b"as" {
            return true;
        }
        let (Some(last), Some(before)) = (self.token(end - 1), self.token(end - 2)) else { return false };
        let names = matches!(last.kind, TokenKind::Word | TokenKind::Quoted | TokenKind::String);
        if !names || self.lower(end - 1).get() == b"end" || self.lower(end - 1).get() == b"null" {
            return false;
        }
        match before.kind {
            TokenKind::Punct => before.is_punct(self.cursor.bytes(), ")"),
            TokenKind::Word => !crate::words::introduces_operand(self.lower(end - 2).get()),
            _ => true,
        }
    }

    /// One token, or a function call; where to go on.
    fn one(&mut self, i: usize) -> usize {
        let Some(token) = self.token(i) else { return i + 1 };
        match token.kind {
            TokenKind::UserVar if !self.keep_user_vars && (i == 0 || self.lower(i - 1).get() != b"into") => {
                let name = variable_name(&self.cursor.text(token)[1..]);
                let text = format!(":{}", Needs::user_var_bind_name(&name));
                self.edits.push(Edit { start: token.start, end: token.end, text });
                self.needs.user_vars.insert(name);
            }
            TokenKind::SystemVar => {
                let text = self.cursor.text(token)[2..].replace('`', "").to_ascii_lowercase();
                let name = match text.split_once('.') {
                    Some(("session" | "local", name)) => name,
                    // A global value is mysqld's own.
                    Some(_) => return i + 1,
                    None => &text,
                };
                if matches!(name, "last_insert_id" | "identity") {
                    let text = ":__lastInsertId".to_owned();
                    self.edits.push(Edit { start: token.start, end: token.end, text });
                    self.needs.last_insert_id = true;
                } else {
                    let bind = format!(":{}", Needs::system_var_bind_name(name));
                    let text = match (self.source)(name) {
                        VariableSource::Mysqld => return i + 1,
                        VariableSource::Session => bind,
                        VariableSource::SessionOnceSet => format!("coalesce({bind}, {})", self.cursor.text(token)),
                    };
                    self.edits.push(Edit { start: token.start, end: token.end, text });
                    self.needs.system_vars.insert(name.to_owned());
                }
            }
            TokenKind::Word
                if self.punct(i + 1, "(") && self.punct(i + 2, ")") && !(i > 0 && self.punct(i - 1, ".")) =>
            {
                let needs = &mut self.needs;
                let (flag, bind) = match Lower::of(token.bytes(self.cursor.bytes())).get() {
                    b"last_insert_id" => (&mut needs.last_insert_id, ":__lastInsertId"),
                    b"found_rows" => (&mut needs.found_rows, ":__vtfrows"),
                    b"row_count" => (&mut needs.row_count, ":__vtrcount"),
                    b"connection_id" => (&mut needs.connection_id, ":__vtconnid"),
                    b"database" | b"schema" => (&mut needs.database, ":__vtdbname"),
                    _ => return i + 1,
                };
                *flag = true;
                let end = self.cursor.tokens[i + 2].end;
                self.edits.push(Edit { start: token.start, end, text: bind.to_owned() });
                return i + 3;
            }
            _ => {}
        }
        i + 1
    }
}

/// Words between SELECT and its first item.
fn is_modifier(word: &[u8]) -> bool {
    matches!(
        word,
        b"distinct"
            | b"distinctrow"
            | b"all"
            | b"high_priority"
            | b"straight_join"
            | b"sql_small_result"
            | b"sql_big_result"
            | b"sql_buffer_result"
            | b"sql_cache"
            | b"sql_no_cache"
            | b"sql_calc_found_rows"
    )
}

/// Words that end a select list at its level.
fn ends_list(word: &[u8]) -> bool {
    matches!(
        word,
        b"from"
            | b"where"
            | b"group"
            | b"order"
            | b"having"
            | b"limit"
            | b"union"
            | b"except"
            | b"intersect"
            | b"into"
            | b"for"
            | b"lock"
            | b"window"
            | b"procedure"
            | b"on"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> String {
        let source = |name: &str| match name {
            "autocommit" => VariableSource::Session,
            "tx_isolation" => VariableSource::SessionOnceSet,
            _ => VariableSource::Mysqld,
        };
        rewrite_session(sql, source).sql
    }

    #[test]
    fn headers_stay() {
        for (sql, want) in [
            ("select last_insert_id()", "select :__lastInsertId as `last_insert_id()`"),
            ("select LAST_INSERT_ID() as id, @X", "select :__lastInsertId as id, :__vtudvx as `@X`"),
            ("select last_insert_id() id", "select :__lastInsertId id"),
            (
                "select @@identity, @@session.last_insert_id id",
                "select :__lastInsertId as `@@identity`, :__lastInsertId id",
            ),
            ("select database(), schema()", "select :__vtdbname as `database()`, :__vtdbname as `schema()`"),
            ("select 1 + found_rows() from t", "select 1 + :__vtfrows as `1 + found_rows()` from t"),
            ("select distinct row_count()", "select distinct :__vtrcount as `row_count()`"),
            (
                "select @@autocommit, @@session.autocommit, @@global.autocommit, @@sql_mode",
                "select :__vtautocommit as `@@autocommit`, :__vtautocommit as `@@session.autocommit`, @@global.autocommit, @@sql_mode",
            ),
            (
                "select @@tx_isolation, @@global.tx_isolation",
                "select coalesce(:__vttx_isolation, @@tx_isolation) as `@@tx_isolation`, @@global.tx_isolation",
            ),
            (
                "select a from t where id = last_insert_id() and b = @b",
                "select a from t where id = :__lastInsertId and b = :__vtudvb",
            ),
            ("insert into t values (last_insert_id(), 2)", "insert into t values (:__lastInsertId, 2)"),
            ("select (select @a) from t", "select (select :__vtudva as `@a`) as `(select @a)` from t"),
            (
                "select case when @a then 1 end from t",
                "select case when :__vtudva then 1 end as `case when @a then 1 end` from t",
            ),
            ("select last_insert_id(5), t.database() from t", "select last_insert_id(5), t.database() from t"),
            ("select @a := @a + 1", "select @a := @a + 1"),
            ("select 'last_insert_id()' from t", "select 'last_insert_id()' from t"),
            (
                "select count(*), @a from (select @b x from t) y group by 1",
                "select count(*), :__vtudva as `@a` from (select :__vtudvb x from t) y group by 1",
            ),
            ("select database() union select @a", "select :__vtdbname as `database()` union select :__vtudva as `@a`"),
        ] {
            assert_eq!(rewritten(sql), want, "{sql}");
        }
    }

    #[test]
    fn items_keep_their_text() {
        let texts = |sql| select_item_texts(sql).join("|");
        assert_eq!(texts("select distinct a,  count( * ), f(b, 'x') as c from t"), "a|count( * )|f(b, 'x') as c");
        assert_eq!(texts("(select 1+1 union select 2)"), "1+1");
        assert_eq!(
            texts("with x as (select a, b from t) select (select max(a) from x), b from x"),
            "(select max(a) from x)|b"
        );
    }

    #[test]
    fn needs_are_told() {
        let needs = rewrite_session("select @a, database(), @@autocommit", |_| VariableSource::Session).needs;
        assert!(needs.database && !needs.last_insert_id);
        assert_eq!(needs.user_vars.into_iter().collect::<Vec<_>>(), ["a"]);
        assert_eq!(needs.system_vars.into_iter().collect::<Vec<_>>(), ["autocommit"]);
        assert!(rewrite_session("select 1", |_| VariableSource::Session).needs.is_empty());
        assert_eq!(Needs::user_var_bind_name("a b"), "__vtudvx_612062");
    }
}
