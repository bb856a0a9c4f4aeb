//! The columns of a statement that is prepared and not yet executed.
//!
//! Owns: the text that has the same columns and no rows. Clients of the C API must know the number of
//! columns when a statement is prepared, and only mysqld knows them.

use planner::Primitive;
use vterrors::{Code, Result};
use vtproto::query::{BindVariable, Field, Type};
use vtsql::{
    BindVars, StatementKind,
    lexer::{Lexer, Token, TokenKind},
};

use super::{Executor, Output, Work, no_variables};
use crate::{caller::Caller, session::Session};

impl Executor {
    /// The columns that `sql` will have, with `placeholders` values left open; none for statements
    /// without a result set. Nothing is locked or changed.
    ///
    /// # Errors
    /// mysqld's, for a statement that it would refuse to prepare.
    pub async fn describe(
        &self,
        caller: &Caller,
        session: &Session,
        kind: StatementKind,
        sql: &[u8],
        placeholders: usize,
    ) -> Result<Vec<Field>> {
        let text = match kind {
            StatementKind::Select => {
                let Some(text) = without_rows(sql) else { return Ok(Vec::new()) };
                text
            }
            StatementKind::Show | StatementKind::Describe => sql.to_vec(),
            _ => return Ok(Vec::new()),
        };
        // Outside the transaction, which must not be begun or lost by a question.
        let mut probe = Session::from_message(Some(session.pb.clone()));
        probe.reset_transaction();
        probe.pb.autocommit = true;
        // Asked outside of the transaction that it needs, it would only be refused.
        if self.needs_connection(&mut probe, &text) {
            return Ok(Vec::new());
        }
        let null = BindVariable { r#type: Type::NullType.into(), ..BindVariable::default() };
        let zero = BindVariable { r#type: Type::Int64.into(), value: "0".into(), values: Vec::new() };
        let mut outcome = Ok(Vec::new());
        // NULL is right nearly everywhere; a number is where NULL is not allowed, such as in a LIMIT.
        for value in [null, zero] {
            let vars: BindVars = (1..=placeholders).map(|n| (format!("v{n}"), value.clone())).collect();
            let mut work = Work::new(caller, "Prepare", &vars);
            let result = self.run(&mut work, &mut probe, &text, false).await;
            outcome = match self.transactions.settle(caller, &mut probe, result).await {
                Ok(Output::Whole(result)) => return Ok(result.fields),
                Ok(Output::Rows(_)) => return Ok(Vec::new()),
                Err(error) => Err(error),
            };
            if placeholders == 0 {
                break;
            }
        }
        match outcome {
            // The tablet may be back when the statement is executed.
            Err(error) if error.code() == Code::Unavailable => Ok(Vec::new()),
            outcome => outcome.map_err(|error| self.prefixed(error)),
        }
    }

    /// Whether a statement runs on the connection of a transaction only (`select get_lock(…)`).
    fn needs_connection(&self, session: &mut Session, sql: &[u8]) -> bool {
        let plan = self.normalized(sql, &no_variables()).and_then(|normalized| self.plan(session, &normalized));
        plan.is_ok_and(|plan| matches!(&plan.value.plan.primitive, Primitive::Route(route) if route.needs_connection))
    }
}

/// A SELECT cut before its LIMIT, locks and INTO, with a limit of no rows. `None` for one whose
/// execution is more than reading.
fn without_rows(sql: &[u8]) -> Option<Vec<u8>> {
    let (_, body, _) = vtsql::split_margin_comments(sql);
    let tokens: Vec<Token> = Lexer::new(body).filter(|token| token.kind != TokenKind::Comment).collect();
    let mut depth = 0usize;
    let mut end = body.len();
    for (number, token) in tokens.iter().enumerate() {
        let next = |words: &[&str]| tokens.get(number + 1).is_some_and(|t| words.iter().any(|w| t.is_word(body, w)));
        let is = |word: &str| token.kind == TokenKind::Word && token.is_word(body, word);
        match token.bytes(body) {
            b"(" => depth += 1,
            b")" => depth = depth.saturating_sub(1),
            _ if depth > 0 => {}
            b";" => {
                end = end.min(token.start);
                break;
            }
            // `next value`, `next 5 values`: a sequence would be moved on.
            _ if is("next") && number == 1 && next(&["value"]) => return None,
            _ if number == 3 && is("values") && tokens[1].is_word(body, "next") => return None,
            _ if is("limit")
                || is("procedure")
                || is("into")
                || (is("for") && next(&["update", "share"]))
                || (is("lock") && next(&["in"])) =>
            {
                end = token.start;
                break;
            }
            _ => {}
        }
    }
    let mut text = body[..end].trim_ascii_end().to_vec();
    text.extend_from_slice(b" limit 0");
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_columns_and_no_rows() {
        for (sql, expected) in [
            ("select a from t where b = ?", "select a from t where b = ? limit 0"),
            ("select a from t order by a limit ?, ?", "select a from t order by a limit 0"),
            ("select a from t for update", "select a from t limit 0"),
            ("select a from t lock in share mode;", "select a from t limit 0"),
            ("select a from (select b from u limit ?) x", "select a from (select b from u limit ?) x limit 0"),
            ("(select 1) union (select 2 limit 1) -- end", "(select 1) union (select 2 limit 1) limit 0"),
            ("select 'limit', `for` from t", "select 'limit', `for` from t limit 0"),
        ] {
            assert_eq!(without_rows(sql.as_bytes()).as_deref(), Some(expected.as_bytes()), "{sql}");
        }
        assert_eq!(without_rows(b"select next value from seq"), None);
        assert_eq!(without_rows(b"select next ? values from seq"), None);
    }
}
