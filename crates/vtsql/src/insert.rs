//! INSERT and REPLACE taken apart on their tokens: a statement of many rows makes no tree.
//!
//! Owns: where the column list, the rows and what follows them stand, and what each value is as far as
//! routing needs it. A value that is more than a literal or a variable is an expression, whatever it is.

use crate::cursor::Cursor;
use crate::error::SyntaxError;
use crate::lexer::{Token, TokenKind};

/// An INSERT or REPLACE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InsertParts {
    /// `insert ignore into t`, without what follows the table.
    pub head: String,
    /// The column list; `None` when there is none.
    pub columns: Option<Vec<String>>,
    pub source: InsertSource,
    /// What follows the rows: `on duplicate key update …`, `returning …`.
    pub tail: String,
    /// Columns that ON DUPLICATE KEY UPDATE assigns.
    pub updated: Vec<String>,
    /// Those of them that get another value than the new row's own (`c = values(c)`).
    pub overwritten: Vec<String>,
    pub ignore: bool,
    pub replace: bool,
}

/// Where the rows come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InsertSource {
    /// VALUES, or SET with its one row.
    Rows(Vec<Vec<Item>>),
    /// The text of a query.
    Query(String),
}

/// A value of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// As it is written.
    pub text: String,
    pub kind: ItemKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemKind {
    /// `:name`, without the colon.
    Variable(String),
    /// A whole number with its sign.
    Integer,
    /// Another number.
    Number,
    /// A string's value.
    String(Vec<u8>),
    Null,
    Default,
    /// Holds a query.
    Subquery,
    Expression,
}

/// Takes `sql` apart, one INSERT or REPLACE without comments around it.
///
/// Errors: what MySQL would not take either.
pub fn insert_parts(sql: &str) -> Result<InsertParts, SyntaxError> {
    let mut cursor = Cursor::new(sql)?;
    let replace = cursor.is("replace");
    if !cursor.take("insert") && !cursor.take("replace") {
        return Err(cursor.error());
    }
    let mut ignore = false;
    while cursor.is_any(&["low_priority", "delayed", "high_priority", "ignore"]) {
        ignore |= cursor.is("ignore");
        cursor.next();
    }
    cursor.take("into");
    cursor.expect_name()?;
    if cursor.take_punct(".") {
        cursor.expect_name()?;
    }
    if cursor.is("partition") {
        cursor.next();
        cursor.skip_parens();
    }
    let head = sql[..end_of_previous(&cursor)].to_owned();
    let mut parts = InsertParts {
        head,
        columns: None,
        source: InsertSource::Rows(Vec::new()),
        tail: String::new(),
        updated: Vec::new(),
        overwritten: Vec::new(),
        ignore,
        replace,
    };
    if cursor.is_punct("(") && !opens_query(&cursor) {
        parts.columns = Some(column_list(&mut cursor)?);
    }
    if cursor.take("values") || cursor.take("value") {
        let mut rows = Vec::new();
        loop {
            rows.push(row(&mut cursor)?);
            if !cursor.take_punct(",") {
                break;
            }
        }
        parts.source = InsertSource::Rows(rows);
    } else if parts.columns.is_none() && cursor.take("set") {
        let (columns, items) = assignments(&mut cursor)?;
        parts.columns = Some(columns);
        parts.source = InsertSource::Rows(vec![items]);
    } else {
        let start = cursor.peek().ok_or_else(|| cursor.error())?.start;
        skip_query(&mut cursor);
        parts.source = InsertSource::Query(sql[start..end_of_previous(&cursor)].to_owned());
    }
    if let Some(token) = cursor.peek() {
        parts.tail = sql[token.start..].to_owned();
        // `as new on duplicate key …` names the row first.
        while !cursor.done() && !cursor.is("on") && !cursor.is("returning") {
            cursor.next();
        }
        if cursor.take_all(&["on", "duplicate", "key", "update"]) {
            let (columns, items) = assignments(&mut cursor)?;
            let overwritten = columns.iter().zip(&items).filter(|(column, item)| !is_new_value(item, column));
            parts.overwritten = overwritten.map(|(column, _)| column.clone()).collect();
            parts.updated = columns;
        }
    }
    Ok(parts)
}

/// `values(column)`
fn is_new_value(item: &Item, own: &str) -> bool {
    let Ok(mut cursor) = Cursor::new(&item.text) else { return false };
    cursor.take("values")
        && cursor.take_punct("(")
        && column(&mut cursor).is_ok_and(|name| name.eq_ignore_ascii_case(own))
        && cursor.take_punct(")")
        && cursor.done()
}

fn end_of_previous(cursor: &Cursor<'_>) -> usize {
    cursor.at.checked_sub(1).and_then(|at| cursor.tokens.get(at)).map_or(0, |token| token.end)
}

/// `(select …`, `((select …`, `(with …`.
fn opens_query(cursor: &Cursor<'_>) -> bool {
    let mut ahead = 0;
    while cursor.peek_at(ahead).is_some_and(|token| token.is_punct(cursor.bytes(), "(")) {
        ahead += 1;
    }
    cursor.is_at(ahead, "select") || cursor.is_at(ahead, "with") || cursor.is_at(ahead, "table")
}

fn column_list(cursor: &mut Cursor<'_>) -> Result<Vec<String>, SyntaxError> {
    let mut columns = Vec::new();
    cursor.next();
    if cursor.take_punct(")") {
        return Ok(columns);
    }
    loop {
        columns.push(column(cursor)?);
        if cursor.take_punct(")") {
            return Ok(columns);
        }
        if !cursor.take_punct(",") {
            return Err(cursor.error());
        }
    }
}

/// A column, of which only the last part of the name counts.
fn column(cursor: &mut Cursor<'_>) -> Result<String, SyntaxError> {
    let mut name = cursor.expect_name()?;
    while cursor.take_punct(".") {
        name = cursor.expect_name()?;
    }
    Ok(name)
}

/// `(value, …)`, with ROW in front as VALUES statements have it.
fn row(cursor: &mut Cursor<'_>) -> Result<Vec<Item>, SyntaxError> {
    cursor.take("row");
    if !cursor.take_punct("(") {
        return Err(cursor.error());
    }
    let mut items = Vec::new();
    if cursor.take_punct(")") {
        return Ok(items);
    }
    loop {
        items.push(item(cursor, &[])?);
        if cursor.take_punct(")") {
            return Ok(items);
        }
        if !cursor.take_punct(",") {
            return Err(cursor.error());
        }
    }
}

/// `a = value, b = value`.
fn assignments(cursor: &mut Cursor<'_>) -> Result<(Vec<String>, Vec<Item>), SyntaxError> {
    let (mut columns, mut items) = (Vec::new(), Vec::new());
    loop {
        columns.push(column(cursor)?);
        if !cursor.take_punct("=") && !cursor.take_punct(":=") {
            return Err(cursor.error());
        }
        items.push(item(cursor, &["on", "returning", "as"])?);
        if !cursor.take_punct(",") {
            return Ok((columns, items));
        }
    }
}

/// One value, up to a comma or bracket at its level, or one of `ends`.
fn item(cursor: &mut Cursor<'_>, ends: &[&str]) -> Result<Item, SyntaxError> {
    let sql = cursor.bytes();
    let start = cursor.at;
    let mut depth = 0usize;
    while let Some(token) = cursor.peek() {
        if depth == 0 && (token.is_punct(sql, ",") || token.is_punct(sql, ")") || cursor.is_any(ends)) {
            break;
        }
        if token.is_punct(sql, "(") {
            depth += 1;
        } else if token.is_punct(sql, ")") {
            depth -= 1;
        }
        cursor.next();
    }
    let tokens = &cursor.tokens[start..cursor.at];
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return Err(cursor.error()) };
    Ok(Item { text: cursor.sql[first.start..last.end].to_owned(), kind: kind(cursor, tokens) })
}

fn kind(cursor: &Cursor<'_>, tokens: &[Token]) -> ItemKind {
    let sql = cursor.bytes();
    match tokens {
        [one] => match one.kind {
            TokenKind::BindVar => ItemKind::Variable(cursor.text(*one)[1..].to_owned()),
            TokenKind::Integer => ItemKind::Integer,
            TokenKind::Float => ItemKind::Number,
            TokenKind::String => one.string_value(sql).map_or(ItemKind::Expression, ItemKind::String),
            TokenKind::Word if one.is_word(sql, "null") => ItemKind::Null,
            TokenKind::Word if one.is_word(sql, "default") => ItemKind::Default,
            _ => ItemKind::Expression,
        },
        [sign, number] if sign.is_punct(sql, "-") && number.kind == TokenKind::Integer && sign.end == number.start => {
            ItemKind::Integer
        }
        _ if tokens.iter().any(|token| token.is_word(sql, "select")) => ItemKind::Subquery,
        _ => ItemKind::Expression,
    }
}

/// Steps over a query, up to ON DUPLICATE or RETURNING behind it.
fn skip_query(cursor: &mut Cursor<'_>) {
    while !cursor.done() {
        if (cursor.is("on") && cursor.is_at(1, "duplicate")) || cursor.is("returning") {
            return;
        }
        if cursor.is_punct("(") {
            cursor.skip_parens();
        } else {
            cursor.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(sql: &str) -> InsertParts {
        insert_parts(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"))
    }

    #[test]
    fn rows_and_their_values() {
        let p = parts("insert ignore into `t` (a, `b`, t.c) values (:vtg1, -5, 'x'), (null, default, 1 + (2))");
        assert_eq!(p.head, "insert ignore into `t`");
        assert_eq!(p.columns.as_deref(), Some(&["a".to_owned(), "b".into(), "c".into()][..]));
        assert!(p.ignore && !p.replace && p.tail.is_empty());
        let InsertSource::Rows(rows) = p.source else { panic!("rows") };
        let kinds: Vec<ItemKind> = rows.concat().into_iter().map(|item| item.kind).collect();
        assert_eq!(
            kinds,
            [
                ItemKind::Variable("vtg1".into()),
                ItemKind::Integer,
                ItemKind::String(b"x".to_vec()),
                ItemKind::Null,
                ItemKind::Default,
                ItemKind::Expression
            ]
        );
    }

    #[test]
    fn other_forms() {
        let p = parts("insert into t set a = 1, b = f(2, 3) on duplicate key update b = values(b), c = c + 1");
        assert_eq!(p.columns.as_deref(), Some(&["a".to_owned(), "b".into()][..]));
        assert_eq!(p.tail, "on duplicate key update b = values(b), c = c + 1");
        assert_eq!(p.updated, ["b", "c"]);
        assert_eq!(p.overwritten, ["c"]);
        let p = parts("insert into t (a) values (1) on duplicate key update a = VALUES( `a` ), b = values(a)");
        assert_eq!(p.overwritten, ["b"]);
        let p = parts("replace into t select a, b from u where x in (1, 2)");
        assert!(p.replace);
        assert_eq!(p.source, InsertSource::Query("select a, b from u where x in (1, 2)".into()));
        let p = parts("insert into t (a) (select 1) on duplicate key update a = 2");
        assert_eq!((p.source, p.updated), (InsertSource::Query("(select 1)".into()), vec!["a".into()]));
        let p = parts("insert into t values ()");
        assert_eq!((p.columns, p.source), (None, InsertSource::Rows(vec![vec![]])));
        let p = parts("insert into t (a) values ((select 1)) returning a");
        assert_eq!(p.tail, "returning a");
        assert!(matches!(&p.source, InsertSource::Rows(rows) if rows[0][0].kind == ItemKind::Subquery));
        assert!(insert_parts("insert into t (a values (1)").is_err());
    }
}
