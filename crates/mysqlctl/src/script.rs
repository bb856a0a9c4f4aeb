//! SQL scripts: splitting a file such as `init_db.sql` into statements, each with the line it begins on.
//!
//! Understands what the `mysql` client does in batch mode: quotes, the three kinds of comments, and `DELIMITER`.
//! `/*! … */` is not a comment but text for the server.

/// One statement, without its delimiter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Counted from 1.
    pub line: usize,
    pub text: String,
}

/// The statements of a script in order. A last one without a delimiter counts; empty ones do not.
pub fn split(script: &str) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut delimiter = ";".to_owned();
    let mut current = String::new();
    let mut begin = 1;
    let mut line = 1;
    let mut rest = script;
    let mut at_line_start = true;
    while !rest.is_empty() {
        if at_line_start && current.is_empty() && is_delimiter_command(rest) {
            let (command, after) = rest.split_once('\n').unwrap_or((rest, ""));
            if let Some(word) = command.split_whitespace().nth(1) {
                delimiter = word.to_owned();
            }
            line += 1;
            rest = after;
            continue;
        }
        if let Some(after) = rest.strip_prefix(delimiter.as_str()) {
            finish(&mut statements, &mut current, begin);
            rest = after;
            at_line_start = false;
            continue;
        }
        let length = token_length(rest);
        let (token, after) = rest.split_at(length);
        let is_comment = is_comment(token);
        let is_space = token.trim().is_empty();
        if !(is_comment || is_space && current.is_empty()) {
            if current.is_empty() {
                begin = line;
            }
            current.push_str(token);
        } else if is_comment && !current.is_empty() {
            // A comment separates words as a blank does.
            current.push(' ');
        }
        line += token.matches('\n').count();
        at_line_start = token.ends_with('\n') || (at_line_start && is_space);
        rest = after;
    }
    finish(&mut statements, &mut current, begin);
    statements
}

fn finish(statements: &mut Vec<Statement>, current: &mut String, line: usize) {
    let text = current.trim();
    if !text.is_empty() {
        statements.push(Statement { line, text: text.to_owned() });
    }
    current.clear();
}

fn is_delimiter_command(rest: &str) -> bool {
    const WORD: &str = "delimiter";
    rest.get(..WORD.len()).is_some_and(|word| word.eq_ignore_ascii_case(WORD))
        && rest[WORD.len()..].starts_with([' ', '\t'])
}

fn is_comment(token: &str) -> bool {
    token.starts_with('#')
        || (token.starts_with("--") && token.len() > 1)
        || (token.starts_with("/*") && !token.starts_with("/*!") && !token.starts_with("/*M!"))
}

/// The length of a quoted string, a comment, or one character.
fn token_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    match bytes[0] {
        quote @ (b'\'' | b'"' | b'`') => {
            let mut at = 1;
            while at < bytes.len() {
                match bytes[at] {
                    b'\\' if quote != b'`' => at += 1,
                    byte if byte == quote => return at + 1,
                    _ => {}
                }
                at += 1;
            }
            bytes.len()
        }
        b'#' => line_length(rest),
        // Two dashes begin a comment only before a blank.
        b'-' if rest.starts_with("--") && bytes.get(2).is_none_or(u8::is_ascii_whitespace) => line_length(rest),
        b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
        _ => rest.chars().next().map_or(1, char::len_utf8),
    }
}

fn line_length(rest: &str) -> usize {
    rest.find('\n').map_or(rest.len(), |end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(script: &str) -> Vec<(usize, String)> {
        split(script).into_iter().map(|statement| (statement.line, statement.text)).collect()
    }

    #[test]
    fn semicolons_in_quotes_and_comments_do_not_split() {
        let script = "# first; comment\nSET a = ';';\n-- second; comment\n\nCREATE TABLE `x;y` (c int /* ; */);\n";
        assert_eq!(texts(script), [(2, "SET a = ';'".to_owned()), (5, "CREATE TABLE `x;y` (c int  )".to_owned())]);
    }

    #[test]
    fn a_last_statement_needs_no_delimiter_and_versioned_comments_stay() {
        assert_eq!(
            texts("select 1;\n/*!50100 set b = 2 */"),
            [(1, "select 1".to_owned()), (2, "/*!50100 set b = 2 */".to_owned())]
        );
        assert_eq!(texts("select 5--1"), [(1, "select 5--1".to_owned())]);
    }

    #[test]
    fn delimiter_changes_where_statements_end() {
        let script = "DELIMITER //\ncreate procedure p() begin select 1; end//\nDELIMITER ;\nselect 2;";
        assert_eq!(
            texts(script),
            [(2, "create procedure p() begin select 1; end".to_owned()), (4, "select 2".to_owned())]
        );
    }

    #[test]
    fn an_escaped_quote_does_not_end_a_string() {
        assert_eq!(
            texts(r"select 'a\';b', 'c'';d'; select 2"),
            [(1, r"select 'a\';b', 'c'';d'".to_owned()), (1, "select 2".to_owned())]
        );
    }
}
