//! INSERT and REPLACE of many rows of plain values, told apart from what stands around the rows.
//!
//! A plan depends on the text around the rows and on their width, never on their values. So the plan is made for the
//! [`BulkInsert::skeleton`], the same for every such statement, and the rows travel as they are written: no
//! variable, no tree and no allocation for a value.
//! Invariant: a row is nothing but literals, NULL, DEFAULT and variables. Whatever else is written there, a function, a
//! query, a column, makes the statement no bulk insert.

use std::ops::Range;

use crate::insert::{Item, ItemKind};
use crate::lexer::{Lexer, Token, TokenKind};

/// Tokens in front of VALUES that are looked at.
const LONGEST_HEAD: usize = 10_000;

/// A statement taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BulkInsert<'a> {
    sql: &'a str,
    rows: Range<usize>,
    width: usize,
    variables: bool,
}

impl<'a> BulkInsert<'a> {
    /// Takes `sql` apart; `None` when it is something else, or has fewer than two rows.
    pub fn new(sql: &'a str) -> Option<Self> {
        let found = Self::find(sql, None)?;
        (found.1 > 1).then_some(found.0)
    }

    /// Also the number of rows. `items` are collected when wanted.
    fn find(sql: &'a str, mut items: Option<&mut Vec<Vec<Item>>>) -> Option<(Self, usize)> {
        let bytes = sql.as_bytes();
        let mut lexer = Lexer::new(bytes);
        let first = lexer.by_ref().find(|token| token.kind != TokenKind::Comment)?;
        if !first.is_word(bytes, "insert") && !first.is_word(bytes, "replace") {
            return None;
        }
        let is_any = |t: &Token, words: &[&str]| words.iter().any(|word| t.is_word(bytes, word));
        let begins = ["values", "value", "select", "with", "set"];
        let source = lexer.by_ref().take(LONGEST_HEAD).find(|token| is_any(token, &begins))?;
        if !is_any(&source, &begins[..2]) {
            return None;
        }
        let mut found = Self { sql, rows: 0..0, width: 0, variables: false };
        let mut count = 0;
        loop {
            let open = lexer.next()?;
            if !open.is_punct(bytes, "(") {
                return None;
            }
            let mut row = Vec::new();
            let (end, width) = found.row(&mut lexer, items.is_some().then_some(&mut row))?;
            if count == 0 {
                (found.rows.start, found.width) = (open.start, width);
            } else if width != found.width {
                return None;
            }
            if let Some(items) = &mut items {
                items.push(row);
            }
            count += 1;
            found.rows.end = end;
            match lexer.next() {
                Some(token) if token.is_punct(bytes, ",") => {}
                // A variable behind the rows has to be filled in too.
                Some(token) => {
                    let variable = |t: &Token| matches!(t.kind, TokenKind::BindVar | TokenKind::ListVar);
                    found.variables |= variable(&token) || lexer.any(|token| variable(&token));
                    return Some((found, count));
                }
                None => return Some((found, count)),
            }
        }
    }

    /// Reads a row behind its bracket: where it ends, and how many values it has.
    fn row(&mut self, lexer: &mut Lexer<'_>, mut items: Option<&mut Vec<Item>>) -> Option<(usize, usize)> {
        let bytes = self.sql.as_bytes();
        let mut width = 0;
        loop {
            let mut token = lexer.next()?;
            let start = token.start;
            let signed = token.is_punct(bytes, "-");
            if signed {
                token = lexer.next()?;
            }
            let kind = match token.kind {
                TokenKind::Integer => ItemKind::Integer,
                TokenKind::Float => ItemKind::Number,
                _ if signed => return None,
                // A name, where `sql_mode` has ANSI_QUOTES. The ordinary way makes a string of it that is one everywhere.
                TokenKind::String if bytes[token.start] == b'"' => return None,
                TokenKind::String if items.is_none() => ItemKind::Expression,
                TokenKind::String => token.string_value(bytes).map_or(ItemKind::Expression, ItemKind::String),
                TokenKind::PrefixedString | TokenKind::HexOrBit => ItemKind::Expression,
                TokenKind::BindVar => {
                    self.variables = true;
                    ItemKind::Variable(self.sql[start + 1..token.end].to_owned())
                }
                TokenKind::Word if token.is_word(bytes, "null") => ItemKind::Null,
                TokenKind::Word if token.is_word(bytes, "default") => ItemKind::Default,
                TokenKind::Word if token.is_word(bytes, "true") || token.is_word(bytes, "false") => {
                    ItemKind::Expression
                }
                _ => return None,
            };
            // A sign that does not touch its number, as elsewhere, belongs to an expression.
            let kind = if signed && start + 1 != token.start { ItemKind::Expression } else { kind };
            if let Some(items) = &mut items {
                items.push(Item { text: self.sql[start..token.end].to_owned(), kind });
            }
            width += 1;
            let next = lexer.next()?;
            match next.bytes(bytes) {
                b"," => {}
                b")" => return Some((next.end, width)),
                _ => return None,
            }
        }
    }

    /// The statement with one row of NULLs: what to plan.
    pub fn skeleton(&self) -> String {
        let (head, tail) = (&self.sql[..self.rows.start], &self.sql[self.rows.end..]);
        let mut sql = String::with_capacity(head.len() + 6 * self.width + 2 + tail.len());
        sql.push_str(head);
        for column in 0..self.width {
            sql.push_str(if column == 0 { "(" } else { ", " });
            sql.push_str("null");
        }
        sql.push(')');
        sql.push_str(tail);
        sql
    }

    /// What became of the skeleton, with the rows in place of its one row; `None` when that row is not there.
    pub fn fill(&self, skeleton: &str) -> Option<String> {
        let (planned, count) = BulkInsert::find(skeleton, None)?;
        if count != 1 || planned.width != self.width {
            return None;
        }
        let (head, tail) = (&skeleton[..planned.rows.start], &skeleton[planned.rows.end..]);
        let rows = &self.sql[self.rows.clone()];
        Some([head, rows, tail].concat())
    }

    /// The values.
    pub fn items(&self) -> Vec<Vec<Item>> {
        let mut items = Vec::new();
        // Found before, so found again.
        Self::find(self.sql, Some(&mut items));
        items
    }

    /// Whether there are bind variables, in the rows or behind them.
    pub fn has_variables(&self) -> bool {
        self.variables
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_from_what_stands_around_them() {
        let sql = "/* app */ insert ignore into `t`(a, `values`, c) VALUES (1, 'it''s', -2.5),(null,DEFAULT,x'ff')\n\
                   on duplicate key update c = values(c) + 1";
        let bulk = BulkInsert::new(sql).expect("a bulk insert");
        assert_eq!(
            bulk.skeleton(),
            "/* app */ insert ignore into `t`(a, `values`, c) VALUES (null, null, null)\n\
             on duplicate key update c = values(c) + 1"
        );
        assert!(!bulk.has_variables());
        let planned = "insert ignore into `t`(a, `values`, c) VALUES (null, null, null) on duplicate key update c = 1";
        assert_eq!(
            bulk.fill(planned).expect("the same shape"),
            "insert ignore into `t`(a, `values`, c) VALUES (1, 'it''s', -2.5),(null,DEFAULT,x'ff') \
             on duplicate key update c = 1"
        );
        assert_eq!(bulk.fill("insert into t values (null, null)"), None, "another width");
        let kinds: Vec<ItemKind> = bulk.items().concat().into_iter().map(|item| item.kind).collect();
        let expected = [
            ItemKind::Integer,
            ItemKind::String(b"it's".to_vec()),
            ItemKind::Number,
            ItemKind::Null,
            ItemKind::Default,
            ItemKind::Expression,
        ];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn whatever_is_more_than_a_value_is_left_to_the_parser() {
        for sql in [
            "insert into t values (1, 2)",
            "insert into t values (1, 2), (3)",
            "insert into t values (1), (now())",
            "insert into t values (1), ((select 2))",
            "insert into t values (1), (a)",
            "insert into t values (1), (1 + 1)",
            "insert into t values (1), ('a' 'b')",
            "insert into t values (1), (_latin1'a')",
            "insert into t values (1), (@a)",
            "insert into t values (1), (?)",
            "insert into t values (1), (/* c */ 2)",
            "insert into t values (1), (2",
            "insert into t values (1), ('2)",
            "insert into t values (1), (\"a\")",
            "insert into t values (1), (/*! 2 */)",
            "insert into t values (1), (2 /*! + a */)",
            "insert into t values (1), row(2)",
            "insert into value (a) values (1), (2)",
            "/*! insert */ into t values (1), (2)",
            "explain insert into t values (1), (2)",
            "insert into t values (1), ()",
            "insert into t select * from u",
            "insert into t (a) select b from u where c in (values (1), (2))x",
            "update t set a = 1",
            "select 1 from t values (1), (2)",
        ] {
            assert_eq!(BulkInsert::new(sql), None, "{sql}");
        }
    }

    #[test]
    fn variables_are_noticed_wherever_they_stand() {
        for (sql, variables) in [
            ("insert into t values (1), (:a)", true),
            ("insert into t values (1), (2) on duplicate key update a = :b", true),
            ("insert into t values (1), (':a')", false),
        ] {
            assert_eq!(BulkInsert::new(sql).expect(sql).has_variables(), variables, "{sql}");
        }
    }
}
