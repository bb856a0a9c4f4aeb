//! SET, taken apart by our own parser: the general one loses scopes.

use crate::cursor::Cursor;
use crate::error::SyntaxError;
use crate::facts::variable_name;
use crate::lexer::TokenKind;
use crate::statement::{TransactionCharacteristic, characteristic};

/// A SET statement: its assignments in order.
#[derive(Debug, Clone, PartialEq)]
pub struct SetStatement {
    pub assignments: Vec<Assignment>,
}

/// Where an assignment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// None written: the session.
    Implicit,
    Session,
    Global,
    /// `persist`, `persist_only`.
    Persist,
    VitessMetadata,
}

/// One assignment.
#[derive(Debug, Clone, PartialEq)]
pub enum Assignment {
    /// `[scope] name = value`, `@@scope.name = value`; the name in lower case. `at_signs`: written with `@@`.
    System { scope: Scope, name: String, value: Value, at_signs: bool },
    /// `@name = value` or `:=`; the name in lower case.
    User { name: String, value: Value },
    /// `names x [collate y]`; `None` is DEFAULT.
    Names { charset: Option<String>, collate: Option<String> },
    /// `charset x`, `character set x`.
    Charset(Option<String>),
    /// `[scope] transaction …`.
    Transaction { scope: Scope, characteristics: Vec<TransactionCharacteristic> },
}

/// The right side.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A quoted string, escapes resolved.
    String(String),
    /// A number as written, sign included.
    Number(String),
    /// A bare word (`on`, `off`, `utf8`), as written.
    Word(String),
    /// DEFAULT.
    Default,
    /// NULL.
    Null,
    /// `:name`, after normalising clients.
    BindVar(String),
    /// Anything else, as written.
    Expression(String),
}

/// Reads the SET statement at the cursor.
pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Result<SetStatement, SyntaxError> {
    cursor.next();
    let mut assignments = Vec::new();
    let mut scope = Scope::Implicit;
    loop {
        scope = written_scope(cursor).unwrap_or(scope);
        assignments.push(assignment(cursor, scope)?);
        // A scope word holds for its own assignment only, but for the names behind it in MySQL's grammar too;
        // each is read on its own here, as mysqld does since 5.7.
        scope = Scope::Implicit;
        if !cursor.take_punct(",") {
            cursor.expect_end()?;
            return Ok(SetStatement { assignments });
        }
    }
}

/// A scope word in front of a name.
fn written_scope(cursor: &mut Cursor<'_>) -> Option<Scope> {
    let scope = scope_of(&cursor.word())?;
    // `set global = 1` would be a variable of that name.
    if cursor.peek_at(1).is_some_and(|t| t.is_punct(cursor.bytes(), "=") || t.is_punct(cursor.bytes(), ":=")) {
        return None;
    }
    cursor.next();
    Some(scope)
}

fn scope_of(word: &str) -> Option<Scope> {
    match word {
        "session" | "local" => Some(Scope::Session),
        "global" => Some(Scope::Global),
        "persist" | "persist_only" => Some(Scope::Persist),
        "vitess_metadata" => Some(Scope::VitessMetadata),
        _ => None,
    }
}

fn assignment(cursor: &mut Cursor<'_>, scope: Scope) -> Result<Assignment, SyntaxError> {
    let Some(token) = cursor.peek() else { return Err(cursor.error()) };
    match token.kind {
        TokenKind::UserVar => {
            cursor.next();
            let name = variable_name(&cursor.text(token)[1..]);
            return Ok(Assignment::User { name, value: assigned(cursor)? });
        }
        TokenKind::SystemVar => {
            cursor.next();
            let text = cursor.text(token)[2..].replace('`', "");
            let (scope, name) = match text.split_once('.') {
                Some((word, name)) => match scope_of(&word.to_ascii_lowercase()) {
                    // Keys of the metadata keep their case.
                    Some(Scope::VitessMetadata) => {
                        let value = assigned(cursor)?;
                        let (scope, name) = (Scope::VitessMetadata, name.to_owned());
                        return Ok(Assignment::System { scope, name, value, at_signs: true });
                    }
                    Some(scope) => (scope, name),
                    // A variable of a named component or key cache.
                    None => (Scope::Implicit, text.as_str()),
                },
                None => (scope, text.as_str()),
            };
            let name = name.to_ascii_lowercase();
            return Ok(Assignment::System { scope, name, value: assigned(cursor)?, at_signs: true });
        }
        _ => {}
    }
    if cursor.take("transaction") {
        let mut characteristics = vec![characteristic(cursor)?];
        while cursor.take_punct(",") {
            characteristics.push(characteristic(cursor)?);
        }
        return Ok(Assignment::Transaction { scope, characteristics });
    }
    let is_value = |cursor: &Cursor<'_>| {
        cursor.peek_at(1).is_some_and(|t| t.is_punct(cursor.bytes(), "=") || t.is_punct(cursor.bytes(), ":="))
    };
    if cursor.is("names") && !is_value(cursor) {
        cursor.next();
        let charset = charset(cursor)?;
        let collate = if cursor.take("collate") { charset_name(cursor)? } else { None };
        return Ok(Assignment::Names { charset, collate });
    }
    if cursor.is("charset") && !is_value(cursor) {
        cursor.next();
        return Ok(Assignment::Charset(charset(cursor)?));
    }
    if cursor.take_all(&["character", "set"]) || cursor.take_all(&["char", "set"]) {
        return Ok(Assignment::Charset(charset(cursor)?));
    }
    let mut name = cursor.expect_name()?;
    while cursor.take_punct(".") {
        name = format!("{name}.{}", cursor.expect_name()?);
    }
    Ok(Assignment::System { scope, name: name.to_ascii_lowercase(), value: assigned(cursor)?, at_signs: false })
}

/// A character set; `None` is DEFAULT.
fn charset(cursor: &mut Cursor<'_>) -> Result<Option<String>, SyntaxError> {
    if cursor.take("default") { Ok(None) } else { charset_name(cursor) }
}

fn charset_name(cursor: &mut Cursor<'_>) -> Result<Option<String>, SyntaxError> {
    match cursor.string().or_else(|| cursor.name()) {
        Some(name) => Ok(Some(name)),
        None => Err(cursor.error()),
    }
}

/// `= value` or `:= value`, up to the comma of the next assignment.
fn assigned(cursor: &mut Cursor<'_>) -> Result<Value, SyntaxError> {
    if !cursor.take_punct("=") && !cursor.take_punct(":=") {
        return Err(cursor.error());
    }
    let start = cursor.at;
    let mut depth = 0usize;
    while let Some(token) = cursor.peek() {
        match token.bytes(cursor.bytes()) {
            b"(" => depth += 1,
            b")" => depth = depth.saturating_sub(1),
            b"," if depth == 0 => break,
            _ => {}
        }
        cursor.next();
    }
    let tokens = &cursor.tokens[start..cursor.at];
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return Err(cursor.error()) };
    let text = &cursor.sql[first.start..last.end];
    let lower = text.to_ascii_lowercase();
    Ok(match tokens {
        [one] => match one.kind {
            TokenKind::String => {
                let value = one.string_value(cursor.bytes()).unwrap_or_default();
                Value::String(String::from_utf8_lossy(&value).into_owned())
            }
            TokenKind::Integer | TokenKind::Float => Value::Number(text.to_owned()),
            TokenKind::Word if lower == "default" => Value::Default,
            TokenKind::Word if lower == "null" => Value::Null,
            TokenKind::Word | TokenKind::Quoted => Value::Word(one.name(cursor.bytes()).unwrap_or_default()),
            TokenKind::BindVar => Value::BindVar(text[1..].to_owned()),
            _ => Value::Expression(text.to_owned()),
        },
        [sign, number]
            if sign.is_punct(cursor.bytes(), "-") && matches!(number.kind, TokenKind::Integer | TokenKind::Float) =>
        {
            Value::Number(format!("-{}", cursor.text(*number)))
        }
        _ => Value::Expression(text.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::{Detail, TransactionCharacteristic as T, parse};

    fn set(sql: &str) -> Vec<Assignment> {
        match parse(sql).unwrap_or_else(|e| panic!("{sql}: {e}")).detail {
            Detail::Set(set) => set.assignments,
            other => panic!("{other:?}"),
        }
    }

    fn system(scope: Scope, name: &str, value: Value, at_signs: bool) -> Assignment {
        Assignment::System { scope, name: name.into(), value, at_signs }
    }

    #[test]
    fn every_form() {
        assert_eq!(
            set("set autocommit=0, @@Session.b := 'x', @U:=3, global c = on"),
            [
                system(Scope::Implicit, "autocommit", Value::Number("0".into()), false),
                system(Scope::Session, "b", Value::String("x".into()), true),
                Assignment::User { name: "u".into(), value: Value::Number("3".into()) },
                system(Scope::Global, "c", Value::Word("on".into()), false),
            ]
        );
        assert_eq!(
            set("set names utf8mb4 collate 'utf8mb4_bin'"),
            [Assignment::Names { charset: Some("utf8mb4".into()), collate: Some("utf8mb4_bin".into()) }]
        );
        assert_eq!(set("set charset 'utf8'"), [Assignment::Charset(Some("utf8".into()))]);
        assert_eq!(set("set character set default"), [Assignment::Charset(None)]);
        assert_eq!(
            set("set session transaction isolation level read committed, read only"),
            [Assignment::Transaction { scope: Scope::Session, characteristics: vec![T::ReadCommitted, T::ReadOnly] }]
        );
        assert_eq!(
            set("set sql_mode = concat(@@sql_mode, ',ANSI'), a = default, b = null, c = -1"),
            [
                system(Scope::Implicit, "sql_mode", Value::Expression("concat(@@sql_mode, ',ANSI')".into()), false),
                system(Scope::Implicit, "a", Value::Default, false),
                system(Scope::Implicit, "b", Value::Null, false),
                system(Scope::Implicit, "c", Value::Number("-1".into()), false),
            ]
        );
        assert_eq!(
            set("set @@vitess_metadata.App_V='1'"),
            [system(Scope::VitessMetadata, "App_V", Value::String("1".into()), true)]
        );
    }

    #[test]
    fn malformed_ones_are_refused() {
        for sql in ["set", "set a", "set a =", "set names", "set transaction", "set a = 1,", "set @a"] {
            assert!(parse(sql).is_err(), "{sql}");
        }
    }
}
