//! Which tables a DDL statement changes.

use super::sql::{Token, Tokens};

/// A table as a statement names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedTable {
    /// `None`: the session's.
    pub database: Option<String>,
    pub table: String,
}

/// What a DDL statement changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Changed {
    Tables(Vec<NamedTable>),
    /// A whole database.
    Database(String),
    /// No table: views, triggers, procedures, temporary tables, options of a database.
    Nothing,
}

/// Reads names, dots and commas.
struct Names<'a, I: Iterator<Item = Token<'a>>> {
    tokens: std::iter::Peekable<I>,
}

impl<'a, I: Iterator<Item = Token<'a>>> Names<'a, I> {
    fn skip(&mut self, keywords: &[&str]) {
        while self.tokens.peek().is_some_and(|token| keywords.iter().any(|keyword| token.is(keyword))) {
            self.tokens.next();
        }
    }

    fn sign(&mut self, sign: u8) -> bool {
        self.tokens.next_if_eq(&Token::Sign(sign)).is_some()
    }

    fn table(&mut self) -> Option<NamedTable> {
        let first = self.tokens.next()?.name()?;
        if !self.sign(b'.') {
            return Some(NamedTable { database: None, table: first });
        }
        Some(NamedTable { database: Some(first), table: self.tokens.next()?.name()? })
    }

    /// The table after a keyword, wherever that comes.
    fn table_after(&mut self, keyword: &str) -> Option<NamedTable> {
        self.tokens.find(|token| token.is(keyword))?;
        self.table()
    }

    fn list(&mut self) -> Vec<NamedTable> {
        let mut all: Vec<NamedTable> = self.table().into_iter().collect();
        while self.sign(b',') {
            all.extend(self.table());
        }
        all
    }
}

/// Words between the first of a statement and what it is about.
const MODIFIERS: [&str; 9] =
    ["OR", "REPLACE", "ONLINE", "OFFLINE", "IGNORE", "UNIQUE", "FULLTEXT", "SPATIAL", "AGGREGATE"];
const IF_EXISTS: [&str; 5] = ["IF", "NOT", "EXISTS", "WAIT", "NOWAIT"];

pub(super) fn changed(sql: &[u8]) -> Changed {
    let mut names = Names { tokens: Tokens::new(sql).map(|(_, token)| token).peekable() };
    let Some(first) = names.tokens.next() else { return Changed::Nothing };
    names.skip(&MODIFIERS);
    if first.is("TRUNCATE") {
        names.skip(&["TABLE"]);
        return Changed::Tables(names.table().into_iter().collect());
    }
    let Some(about) = names.tokens.next() else { return Changed::Nothing };
    if first.is("RENAME") && (about.is("TABLE") || about.is("TABLES")) {
        let mut all = Vec::new();
        loop {
            names.skip(&IF_EXISTS);
            all.extend(names.table());
            all.extend(names.table_after("TO"));
            if !names.sign(b',') {
                return Changed::Tables(all);
            }
        }
    }
    if about.is("TABLE") || about.is("TABLES") {
        names.skip(&IF_EXISTS);
        if first.is("DROP") {
            return Changed::Tables(names.list());
        }
        let mut all: Vec<NamedTable> = names.table().into_iter().collect();
        if first.is("ALTER") {
            all.extend(renamed(&mut names));
        }
        return Changed::Tables(all);
    }
    if about.is("INDEX") {
        return Changed::Tables(names.table_after("ON").into_iter().collect());
    }
    if first.is("DROP") && (about.is("DATABASE") || about.is("SCHEMA")) {
        names.skip(&IF_EXISTS);
        return names.tokens.next().and_then(|token| token.name()).map_or(Changed::Nothing, Changed::Database);
    }
    Changed::Nothing
}

/// The new name in `ALTER TABLE … RENAME [TO|AS|=] name`. `RENAME COLUMN|INDEX|KEY` is another matter.
fn renamed<'a>(names: &mut Names<'a, impl Iterator<Item = Token<'a>>>) -> Option<NamedTable> {
    loop {
        names.tokens.find(|token| token.is("RENAME"))?;
        if names.tokens.peek().is_some_and(|token| ["COLUMN", "INDEX", "KEY"].iter().any(|word| token.is(word))) {
            continue;
        }
        names.skip(&["TO", "AS"]);
        names.sign(b'=');
        return names.table();
    }
}

/// The statement without the name of its own database in front of tables, for a reader whose database has another name.
pub(super) fn without_database(sql: &[u8], database: &str) -> Vec<u8> {
    let tokens: Vec<_> = Tokens::new(sql).collect();
    let mut out = Vec::with_capacity(sql.len());
    let mut copied = 0;
    for (index, window) in tokens.windows(3).enumerate() {
        let [(range, name), (dot, sign), (_, after)] = window else { continue };
        let qualified = index > 0 && tokens.get(index - 1).is_some_and(|(_, before)| *before == Token::Sign(b'.'));
        if !qualified
            && *sign == Token::Sign(b'.')
            && name.name().is_some_and(|name| name == database)
            && after.name().is_some()
        {
            out.extend_from_slice(&sql[copied..range.start]);
            copied = dot.end;
        }
    }
    out.extend_from_slice(&sql[copied..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_statements() {
        for (sql, expected) in [
            ("CREATE TABLE IF NOT EXISTS t (a int)", "t"),
            ("create or replace table `d`.`t` (a int)", "d.t"),
            ("CREATE TEMPORARY TABLE t (a int)", ""),
            ("DROP TEMPORARY TABLE IF EXISTS `t`", ""),
            ("DROP TABLE IF EXISTS a, `d`.b /* generated by server */", "a d.b"),
            ("ALTER TABLE t ADD COLUMN customer int", "t"),
            ("ALTER ONLINE TABLE t RENAME COLUMN a TO b, RENAME TO u", "t u"),
            ("alter table t rename d.u", "t d.u"),
            ("RENAME TABLE a TO b, c TO d.e", "a b c d.e"),
            ("TRUNCATE t", "t"),
            ("TRUNCATE TABLE `t`", "t"),
            ("CREATE UNIQUE INDEX i ON t (a)", "t"),
            ("DROP INDEX i ON d.t", "d.t"),
            ("CREATE VIEW v AS SELECT * FROM t", ""),
            ("CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW SET NEW.a = 1", ""),
            ("CREATE DATABASE d", ""),
        ] {
            let Changed::Tables(tables) = changed(sql.as_bytes()) else {
                assert_eq!(expected, "", "{sql}");
                continue;
            };
            let text = |named: &NamedTable| match &named.database {
                Some(database) => format!("{database}.{}", named.table),
                None => named.table.clone(),
            };
            assert_eq!(tables.iter().map(text).collect::<Vec<_>>().join(" "), expected, "{sql}");
        }
        assert_eq!(changed(b"DROP DATABASE IF EXISTS d"), Changed::Database("d".into()));
    }

    #[test]
    fn the_own_database_is_taken_out() {
        let sql = b"ALTER TABLE `vt_a`.`t` ADD b int DEFAULT 'vt_a.x', RENAME vt_a . u";
        let text = String::from_utf8(without_database(sql, "vt_a")).expect("text");
        assert_eq!(text, "ALTER TABLE `t` ADD b int DEFAULT 'vt_a.x', RENAME  u");
    }
}
