//! The statements that `VReplicationExec` accepts, and what each of them does to the streams.
//!
//! On `_vt.vreplication`: insert with values (ids come from mysqld), update and delete (which are rewritten to the ids
//! that their condition finds, so that exactly the streams that were stopped are changed), select. On
//! `_vt.resharding_journal`: anything of these. On `_vt.copy_state`: select. The text is looked at token by token; what
//! runs is the caller's text.

use vterrors::{Code, Result, VtError};
use vtsql::lexer::{Token, TokenKind, tokens};

const VREPLICATION: &str = "vreplication";
const JOURNAL: &str = "resharding_journal";
const COPY_STATE: &str = "copy_state";

/// What to do with one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// New streams.
    Insert,
    /// Changes streams: first `select_ids`, then `head` with ` where id in (…)` behind it.
    Update { select_ids: String, head: String },
    /// Removes streams.
    Delete { select_ids: String },
    /// Has nothing to do with running streams.
    AsIs,
}

/// Tells what a statement does, or why it is refused.
///
/// # Errors
/// INVALID_ARGUMENT with the texts of v5.0.1.
pub(super) fn plan(sql: &str) -> Result<Plan> {
    let walk = Walk::new(sql)?;
    match walk.word(0).as_str() {
        "insert" => walk.insert(),
        "update" => walk.update(),
        "delete" => walk.delete(),
        "select" => walk.select(),
        _ => Err(walk.unsupported()),
    }
}

/// A statement without its closing semicolon.
pub(super) fn trimmed(sql: &str) -> &str {
    sql.trim().trim_end_matches(';').trim_end()
}

fn refuse(text: impl Into<String>) -> VtError {
    VtError::new(Code::InvalidArgument, text)
}

struct Walk<'a> {
    sql: &'a str,
    tokens: Vec<Token>,
}

impl<'a> Walk<'a> {
    fn new(sql: &'a str) -> Result<Self> {
        let sql = trimmed(sql);
        let walk = Self {
            sql,
            tokens: tokens(sql.as_bytes()).into_iter().filter(|token| token.kind != TokenKind::Comment).collect(),
        };
        // What mysqld would run beside the statement is not looked at, so there must be nothing of it.
        let hidden = walk.tokens.iter().any(|token| {
            matches!(token.kind, TokenKind::ExecutableComment | TokenKind::Unterminated)
                || token.is_punct(sql.as_bytes(), ";")
        });
        if walk.tokens.is_empty() || hidden {
            return Err(walk.unsupported());
        }
        Ok(walk)
    }

    fn unsupported(&self) -> VtError {
        refuse(format!("unsupported construct: {}", self.sql))
    }

    /// The word at a place in lower case; empty for other tokens.
    fn word(&self, at: usize) -> String {
        match self.tokens.get(at) {
            Some(token) if token.kind == TokenKind::Word => {
                String::from_utf8_lossy(token.bytes(self.sql.as_bytes())).to_ascii_lowercase()
            }
            _ => String::new(),
        }
    }

    fn is_punct(&self, at: usize, punct: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_punct(self.sql.as_bytes(), punct))
    }

    fn name(&self, at: usize) -> Option<String> {
        self.tokens.get(at).and_then(|token| token.name(self.sql.as_bytes()))
    }

    /// `database.table` at a place: the table and the place behind it.
    fn table(&self, at: usize) -> Result<(String, usize)> {
        let first = self.name(at).ok_or_else(|| self.unsupported())?;
        let (database, table, next) = if self.is_punct(at + 1, ".") {
            (first, self.name(at + 2).ok_or_else(|| self.unsupported())?, at + 3)
        } else {
            (String::new(), first, at + 1)
        };
        if !database.eq_ignore_ascii_case("_vt") {
            return Err(refuse(format!("invalid database name: {database}")));
        }
        match table.to_ascii_lowercase().as_str() {
            known @ (VREPLICATION | JOURNAL | COPY_STATE) => Ok((known.to_owned(), next)),
            _ => Err(refuse(format!("invalid table name: {table}"))),
        }
    }

    /// The table of a statement that writes.
    fn written_table(&self, at: usize) -> Result<(String, usize)> {
        let (table, next) = self.table(at)?;
        if table == COPY_STATE {
            return Err(refuse(format!("invalid table name: {table}")));
        }
        Ok((table, next))
    }

    /// Places from `from` on that lie in no brackets, up to the end.
    fn outside(&self, from: usize) -> Vec<usize> {
        let mut depth = 0_usize;
        let mut places = Vec::new();
        for at in from..self.tokens.len() {
            if self.is_punct(at, "(") {
                if depth == 0 {
                    places.push(at);
                }
                depth += 1;
            } else if self.is_punct(at, ")") {
                depth = depth.saturating_sub(1);
            } else if depth == 0 {
                places.push(at);
            }
        }
        places
    }

    fn first_outside(&self, from: usize, words: &[&str]) -> Option<usize> {
        self.outside(from).into_iter().find(|&at| words.contains(&self.word(at).as_str()))
    }

    fn insert(&self) -> Result<Plan> {
        let at = if self.word(1) == "into" { 2 } else { 1 };
        let (table, at) = match self.word(1).as_str() {
            "ignore" | "low_priority" | "high_priority" | "delayed" => return Err(self.unsupported()),
            _ => self.written_table(at)?,
        };
        if table == JOURNAL {
            return Ok(Plan::AsIs);
        }
        if self.first_outside(at, &["select", "partition", "duplicate", "table", "with", "returning"]).is_some() {
            return Err(self.unsupported());
        }
        if self.word(at) == "set" {
            return self.insert_set(at + 1);
        }
        let (columns, at) = if self.is_punct(at, "(") { self.list(at)? } else { (Vec::new(), at) };
        // Without a list of columns the first one is the id.
        let id = match columns.is_empty() {
            true => Some(0),
            false => columns
                .iter()
                .position(|column| self.name(column.0).is_some_and(|name| name.eq_ignore_ascii_case("id"))),
        };
        if !matches!(self.word(at).as_str(), "values" | "value") {
            return Err(self.unsupported());
        }
        let mut at = at + 1;
        loop {
            let (values, next) = self.list(at)?;
            if let Some(id) = id {
                let value = values.get(id).ok_or_else(|| refuse(format!("malformed statement: {}", self.sql)))?;
                self.no_id(*value)?;
            }
            if next == self.tokens.len() {
                return Ok(Plan::Insert);
            }
            if !self.is_punct(next, ",") {
                return Err(self.unsupported());
            }
            at = next + 1;
        }
    }

    /// `insert into t set a = 1, …`
    fn insert_set(&self, from: usize) -> Result<Plan> {
        for (start, end) in self.items(from, self.tokens.len()) {
            if self.name(start).is_some_and(|name| name.eq_ignore_ascii_case("id")) {
                self.no_id((start + 2, end))?;
            }
        }
        Ok(Plan::Insert)
    }

    fn no_id(&self, (start, end): (usize, usize)) -> Result<()> {
        if end == start + 1 && self.word(start) == "null" {
            return Ok(());
        }
        Err(refuse(format!("id should not have a value: {}", self.sql)))
    }

    /// A list in brackets that opens at a place: the places of its items, and the place behind it.
    fn list(&self, open: usize) -> Result<(Vec<(usize, usize)>, usize)> {
        if !self.is_punct(open, "(") {
            return Err(self.unsupported());
        }
        let mut depth = 0_usize;
        for at in open..self.tokens.len() {
            if self.is_punct(at, "(") {
                depth += 1;
            } else if self.is_punct(at, ")") {
                depth -= 1;
                if depth == 0 {
                    return Ok((self.items(open + 1, at), at + 1));
                }
            }
        }
        Err(self.unsupported())
    }

    /// What stands between the commas outside of brackets.
    fn items(&self, from: usize, to: usize) -> Vec<(usize, usize)> {
        let mut items = Vec::new();
        let mut start = from;
        for at in self.outside(from).into_iter().filter(|&at| at < to && self.is_punct(at, ",")) {
            items.push((start, at));
            start = at + 1;
        }
        items.push((start, to));
        items
    }

    fn update(&self) -> Result<Plan> {
        let (table, at) = match self.word(1).as_str() {
            "ignore" | "low_priority" => return Err(self.unsupported()),
            _ => self.written_table(1)?,
        };
        if table == JOURNAL {
            return Ok(Plan::AsIs);
        }
        if self.word(at) != "set" {
            return Err(self.unsupported());
        }
        let condition = self.condition(at + 1)?;
        for (start, _) in self.items(at + 1, condition.unwrap_or(self.tokens.len())) {
            // `_vt.vreplication.id` and `vreplication.id` mean the same.
            let mut last = start;
            while self.is_punct(last + 1, ".") {
                last += 2;
            }
            if self.name(last).is_some_and(|name| name.eq_ignore_ascii_case("id")) {
                return Err(refuse(format!("cannot change id: {}", self.sql)));
            }
        }
        let head = self.sql[..condition.map_or(self.sql.len(), |at| self.tokens[at].start)].trim_end().to_owned();
        Ok(Plan::Update { select_ids: self.select_ids(condition), head })
    }

    fn delete(&self) -> Result<Plan> {
        if self.word(1) != "from" {
            return Err(self.unsupported());
        }
        let (table, at) = self.written_table(2)?;
        if table == JOURNAL {
            return Ok(Plan::AsIs);
        }
        let condition = self.condition(at)?;
        if condition.unwrap_or(self.tokens.len()) != at {
            return Err(self.unsupported());
        }
        Ok(Plan::Delete { select_ids: self.select_ids(condition) })
    }

    /// The place of WHERE. Order, limit and the like are refused: with them the ids would be chosen anew.
    fn condition(&self, from: usize) -> Result<Option<usize>> {
        if self.first_outside(from, &["order", "limit", "partition", "returning", "union", "for", "lock"]).is_some() {
            return Err(self.unsupported());
        }
        Ok(self.first_outside(from, &["where"]))
    }

    fn select_ids(&self, condition: Option<usize>) -> String {
        let condition = condition.map_or("", |at| &self.sql[self.tokens[at].start..]);
        format!("select id from _vt.vreplication {condition}").trim_end().to_owned()
    }

    fn select(&self) -> Result<Plan> {
        let parsed = vtsql::parse(self.sql).map_err(|error| refuse(error.to_string()))?;
        if parsed.tables.is_empty() {
            return Err(self.unsupported());
        }
        for table in &parsed.tables {
            let database = table.qualifier.as_deref().unwrap_or_default();
            if !database.eq_ignore_ascii_case("_vt") {
                return Err(refuse(format!("invalid database name: {database}")));
            }
            if ![VREPLICATION, JOURNAL, COPY_STATE].iter().any(|known| table.name.eq_ignore_ascii_case(known)) {
                return Err(refuse(format!("invalid table name: {}", table.name)));
            }
        }
        Ok(Plan::AsIs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(sql: &str) -> String {
        plan(sql).expect_err(sql).message().to_owned()
    }

    #[test]
    fn inserts_leave_the_id_to_mysqld() {
        for sql in [
            "insert into _vt.vreplication values(null, 'x')",
            "insert into _vt.vreplication (workflow, source) values ('SplitClone', 'a,(b'), ('y', concat('a', ','))",
            "INSERT INTO `_vt`.`vreplication`(id, workflow) VALUES (NULL, ';');",
            "insert into _vt.vreplication set workflow = 'x', id = null",
        ] {
            assert_eq!(plan(sql).expect(sql), Plan::Insert);
        }
        let numbered = "insert into _vt.vreplication(workflow, id) values ('x', 1)";
        assert_eq!(error(numbered), format!("id should not have a value: {numbered}"));
        let short = "insert into _vt.vreplication(workflow, id) values ('x')";
        assert_eq!(error(short), format!("malformed statement: {short}"));
        for sql in [
            "insert into _vt.vreplication(workflow) select 'x'",
            "insert ignore into _vt.vreplication(workflow) values ('x')",
            "replace into _vt.vreplication(workflow) values ('x')",
            "insert into _vt.vreplication(workflow) values ('x') on duplicate key update workflow = 'y'",
            "insert into _vt.vreplication(workflow) values ('x'); drop table t",
            "insert into _vt.vreplication(workflow) values ('x') /*! on duplicate key update workflow = 'y' */",
        ] {
            assert_eq!(error(sql), format!("unsupported construct: {sql}"));
        }
    }

    #[test]
    fn updates_and_deletes_go_by_id() {
        assert_eq!(
            plan("update _vt.vreplication set state='Stopped', message='where' where id in (select 1) and 1;"),
            Ok(Plan::Update {
                select_ids: "select id from _vt.vreplication where id in (select 1) and 1".into(),
                head: "update _vt.vreplication set state='Stopped', message='where'".into(),
            })
        );
        assert_eq!(
            plan("delete from _vt.vreplication"),
            Ok(Plan::Delete { select_ids: "select id from _vt.vreplication".into() })
        );
        let id = "update _vt.vreplication set state='x', _vt.vreplication.`id` = 5 where id = 1";
        assert_eq!(error(id), format!("cannot change id: {id}"));
        for sql in [
            "update _vt.vreplication set state='x' limit 1",
            "delete from _vt.vreplication where id = 1 order by id",
            "delete _vt.vreplication from _vt.vreplication, t",
            "update _vt.vreplication, t set state='x'",
        ] {
            assert_eq!(error(sql), format!("unsupported construct: {sql}"));
        }
    }

    #[test]
    fn only_the_tables_of_streams_are_reached() {
        for sql in [
            "select * from _vt.vreplication where id=1",
            "select * from _vt.copy_state",
            "select 1 from _vt.resharding_journal",
            "insert into _vt.resharding_journal(id) values (1)",
            "update _vt.resharding_journal set id = 1",
            "delete from _vt.resharding_journal where id=1 limit 1",
        ] {
            assert_eq!(plan(sql), Ok(Plan::AsIs), "{sql}");
        }
        assert_eq!(error("select * from vreplication"), "invalid database name: ");
        assert_eq!(error("select * from a.vreplication"), "invalid database name: a");
        assert_eq!(error("update _vt.local_metadata set value='x'"), "invalid table name: local_metadata");
        assert_eq!(error("insert into _vt.copy_state(vrepl_id) values (1)"), "invalid table name: copy_state");
        assert_eq!(error("select * from _vt.vreplication join _vt.dt_state"), "invalid table name: dt_state");
        assert_eq!(error("show tables"), "unsupported construct: show tables");
        assert_eq!(error("drop table _vt.vreplication"), "unsupported construct: drop table _vt.vreplication");
        assert_eq!(error(""), "unsupported construct: ");
    }
}
