//! Several statements in one text.

use crate::lexer::{Lexer, TokenKind};

/// The pieces of `sql` between semicolons outside quotes, comments and the bodies of stored programs.
/// Pieces are trimmed; empty ones are left out, pieces of comments only are kept.
pub fn split_statements(sql: &str) -> Vec<&str> {
    spans(sql.as_bytes()).into_iter().map(|(start, end)| &sql[start..end]).collect()
}

/// As [`split_statements`], for text that need not be UTF-8.
pub fn split_statements_bytes(sql: &[u8]) -> Vec<&[u8]> {
    spans(sql).into_iter().map(|(start, end)| &sql[start..end]).collect()
}

fn spans(sql: &[u8]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut span: Option<(usize, usize)> = None;
    let mut program = Program::default();
    for token in Lexer::new(sql) {
        if token.kind == TokenKind::Punct && token.bytes(sql) == b";" && program.depth == 0 {
            found.extend(span.take());
            program = Program::default();
            continue;
        }
        if token.kind == TokenKind::Word {
            program.word(token.bytes(sql));
        } else if token.kind != TokenKind::Comment {
            program.previous_end = false;
        }
        span = Some((span.map_or(token.start, |(start, _)| start), token.end));
    }
    found.extend(span);
    found
}

/// Follows BEGIN … END in `create procedure` and its like: semicolons inside do not end the statement.
#[derive(Default)]
struct Program {
    words: usize,
    create: bool,
    /// `create … procedure|function|trigger|event`.
    stored: bool,
    depth: usize,
    /// The word before was END, so that IF, CASE, LOOP … close and do not open.
    previous_end: bool,
}

impl Program {
    fn word(&mut self, word: &[u8]) {
        let is = |list: &[&str]| list.iter().any(|w| word.eq_ignore_ascii_case(w.as_bytes()));
        self.words += 1;
        if self.words == 1 {
            self.create = is(&["create"]);
            return;
        }
        if !self.create {
            return;
        }
        if !self.stored {
            self.stored = self.words < 16 && is(&["procedure", "function", "trigger", "event"]);
            return;
        }
        if is(&["end"]) {
            self.depth = self.depth.saturating_sub(1);
            self.previous_end = true;
            return;
        }
        // Only blocks and CASE are counted. IF, LOOP … are closed by `end if` …, whose END must not close a
        // block: what it took is given back.
        let reopened = self.previous_end && is(&["if", "loop", "while", "repeat"]);
        let opened = is(&["begin"]) || (self.depth > 0 && is(&["case"]) && !self.previous_end);
        self.depth += usize::from(reopened || opened);
        self.previous_end = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn semicolons_in_quotes_and_comments_do_not_split() {
        assert_eq!(
            split_statements("select 1; select ';' ; /* ; */ select `;`;-- x;y\n;"),
            ["select 1", "select ';'", "/* ; */ select `;`", "-- x;y"]
        );
        assert!(split_statements(" ;; ").is_empty());
        assert_eq!(split_statements("select 'a\\';b'"), ["select 'a\\';b'"]);
        assert_eq!(split_statements_bytes(b"select '\xff;'; b"), [&b"select '\xff;'"[..], b"b"]);
    }

    #[test]
    fn a_stored_program_is_one_statement() {
        let body = "create procedure p() begin if a then select 1; end if; case x when 1 then select 2; end case; end";
        assert_eq!(split_statements(&format!("{body}; select 3")), [body, "select 3"]);
        let simple = "create trigger t before insert on a for each row set new.x = case when 1 then 2 end";
        assert_eq!(
            split_statements(&format!("{simple}; begin; select 1; commit")),
            [simple, "begin", "select 1", "commit"]
        );
    }
}
