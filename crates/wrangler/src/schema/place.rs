//! Where a statement stands in the text of many, for whoever has to mend the text. mysqld counts lines from the start of
//! what it was sent, which is not the text.

use vtsql::lexer::{TokenKind, tokens};

/// `line N: first line of the statement`. `statement` is a piece of `text`; the comments in front of it are passed over.
pub(crate) fn of_statement(text: &str, statement: &str) -> String {
    let first = without_comments(statement).lines().next().unwrap_or_default().trim_end();
    format!("line {}: {first}", line_of(text, statement))
}

/// The line, from 1, on which a piece of `text` begins, behind its comments.
pub(crate) fn line_of(text: &str, statement: &str) -> usize {
    let code = without_comments(statement);
    let offset = (code.as_ptr() as usize).saturating_sub(text.as_ptr() as usize).min(text.len());
    1 + text.as_bytes()[..offset].iter().filter(|byte| **byte == b'\n').count()
}

/// [`of_statement`] of the statement that an error quotes: of those that it holds the longest, as the others may be parts of it.
pub(crate) fn of_quoted(text: &str, error: &str) -> Option<String> {
    let mut found: Option<&str> = None;
    for statement in vtsql::split_statements(text).into_iter().map(without_comments) {
        if !statement.is_empty() && error.contains(statement) && found.is_none_or(|it| it.len() < statement.len()) {
            found = Some(statement);
        }
    }
    Some(of_statement(text, found?))
}

/// A statement from its first word on; one that is only comments is its own first word.
fn without_comments(statement: &str) -> &str {
    let code = tokens(statement.as_bytes()).into_iter().find(|token| token.kind != TokenKind::Comment);
    let start = code.map_or(0, |token| token.start);
    statement.get(start..).unwrap_or(statement).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_is_found_behind_comments_and_line_breaks() {
        let text =
            "create table good(id int);\n-- a comment\ncreate table bad(\n  id \"int\"\n);\nselect 1;\n-- the end\n";
        let told = "output: -----\ncreate table bad(\n  id \"int\"\n)\n-----\nERROR 1064";
        assert_eq!(of_quoted(text, told).as_deref(), Some("line 3: create table bad("));
        assert_eq!(of_quoted(text, "non-ddl statement: select 1").as_deref(), Some("line 6: select 1"));
        assert_eq!(of_quoted(text, "no master in shard record"), None);
        let bad = vtsql::split_statements(text)[1];
        assert!(bad.starts_with("-- a comment"), "{bad}");
        assert_eq!(of_statement(text, bad), "line 3: create table bad(");
    }

    #[test]
    fn a_statement_that_begins_like_another_is_not_the_other() {
        assert_eq!(
            of_quoted("drop table a;\ndrop table ab", "refused: drop table ab").as_deref(),
            Some("line 2: drop table ab")
        );
        assert_eq!(
            of_quoted("drop table a;\ndrop table ab", "refused: drop table a").as_deref(),
            Some("line 1: drop table a")
        );
    }
}
