//! Which statement of a file an error is about, for whoever has to mend the file. mysqld counts lines from the start of what
//! it was sent, which is not the file.

use vtsql::lexer::{TokenKind, tokens};

/// `, line N: first line of the statement` of the statement that the failure of an ApplySchema tells of.
pub(crate) fn of_failure(file: &str, error: &str) -> Option<String> {
    // In front of it every statement of the file is listed.
    let told = error.split_once("\"ExecutorErr\"").map_or(error, |(_, told)| told);
    let mut at = 0;
    for statement in vtsql::split_statements(file) {
        let start = at + file[at..].find(statement)?;
        at = start + statement.len();
        let code = tokens(statement.as_bytes()).into_iter().find(|token| token.kind != TokenKind::Comment)?;
        let body = statement.get(code.start..)?.trim_end();
        let quoted = serde_json::to_string(body).ok()?;
        if told.contains(body) || told.contains(quoted.trim_matches('"')) {
            let line = 1 + file[..start + code.start].matches('\n').count();
            return Some(format!(", line {line}: {}", body.lines().next().unwrap_or_default()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statement_is_found_behind_comments_and_line_breaks() {
        let file = "create table good(id int);\n-- a comment\ncreate table bad(\n  id \"int\"\n);\nselect 1;\n";
        let listed = r#"{"Sqls": ["create table good(id int)", "select 1"], "ExecutorErr": "output: -----\ncreate table bad(\n  id \"int\"\n)\n-----\nERROR 1064"}"#;
        assert_eq!(of_failure(file, listed).as_deref(), Some(", line 3: create table bad("));
        assert_eq!(of_failure(file, "non-ddl statement: select 1").as_deref(), Some(", line 6: select 1"));
        assert_eq!(of_failure(file, "no master in shard record"), None);
    }
}
