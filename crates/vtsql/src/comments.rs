//! Comments around a statement, and the directives in them.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::lexer::{Lexer, TokenKind, is_blank};

/// Comments in front of and behind a statement, with the blanks between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MarginComments {
    pub leading: String,
    pub trailing: String,
}

/// Splits `sql` into leading comments, statement and trailing comments; blanks around are dropped, and
/// so is a closing `;`. A text of comments only has all of them in front and an empty statement.
pub fn split_margin_comments(sql: &[u8]) -> (&[u8], &[u8], &[u8]) {
    let (start, end) = statement_span(sql);
    let trailing_from = sql[end..].iter().position(|&b| !is_blank(b) && b != b';').map_or(sql.len(), |at| end + at);
    (trim(&sql[..start]), &sql[start..end], trim(&sql[trailing_from..]))
}

/// Where the statement proper starts and ends.
pub(crate) fn statement_span(sql: &[u8]) -> (usize, usize) {
    let is_comment = |kind| matches!(kind, TokenKind::Comment | TokenKind::ExecutableComment);
    let mut start = None;
    let mut end = 0;
    for token in Lexer::new(sql) {
        // An executable comment behind the first word belongs to the statement.
        if is_comment(token.kind) && (start.is_none() || token.kind == TokenKind::Comment) {
            continue;
        }
        if token.kind == TokenKind::Punct && token.bytes(sql) == b";" {
            continue;
        }
        start.get_or_insert(token.start);
        end = token.end;
    }
    match start {
        Some(start) => (start, end),
        None => (sql.len(), sql.len()),
    }
}

/// `sql` with the text of its version comments (`/*!40100 … */`) instead of them, where every server runs that text: a gate has
/// to understand it. What stands in front of the first word is left as the comment that it is for Vitess.
///
/// Versions from 5.7 on stay comments: MariaDB skips those.
pub fn expand_version_comments(sql: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memmem::find(sql, b"/*!").is_none() {
        return Cow::Borrowed(sql);
    }
    let (mut out, mut copied, mut begun) = (Vec::new(), 0, false);
    for token in Lexer::new(sql) {
        match token.kind {
            TokenKind::Comment => {}
            TokenKind::ExecutableComment => {
                if let Some(inside) = run_by_all(token.bytes(sql)).filter(|_| begun) {
                    out.extend_from_slice(&sql[copied..token.start]);
                    out.push(b' ');
                    out.extend_from_slice(inside);
                    out.push(b' ');
                    copied = token.end;
                }
            }
            _ => begun = true,
        }
    }
    if copied == 0 {
        return Cow::Borrowed(sql);
    }
    out.extend_from_slice(&sql[copied..]);
    Cow::Owned(out)
}

/// What is inside of an executable comment that no supported server skips.
fn run_by_all(comment: &[u8]) -> Option<&[u8]> {
    const FIRST_SKIPPED: u32 = 50_700;
    let inside = comment.strip_prefix(b"/*!")?.strip_suffix(b"*/")?;
    let digits = inside.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match digits {
        0 => Some(inside),
        5 | 6 => {
            let version: u32 = std::str::from_utf8(&inside[..digits]).ok()?.parse().ok()?;
            (version < FIRST_SKIPPED).then(|| &inside[digits..])
        }
        _ => None,
    }
}

pub(crate) fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = bytes
        && (is_blank(*first) || *first == b';')
    {
        bytes = rest;
    }
    while let [rest @ .., last] = bytes
        && (is_blank(*last) || *last == b';')
    {
        bytes = rest;
    }
    bytes
}

/// What the `/*vt+ NAME=value OTHER */` comments of a statement say, by name as written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Directives(pub BTreeMap<String, String>);

impl Directives {
    /// `QUERY_TIMEOUT_MS=1000`: milliseconds after which the statement is ended.
    pub const QUERY_TIMEOUT_MS: &'static str = "QUERY_TIMEOUT_MS";
    /// Commit each shard of a DML on its own.
    pub const MULTI_SHARD_AUTOCOMMIT: &'static str = "MULTI_SHARD_AUTOCOMMIT";
    pub const SKIP_QUERY_PLAN_CACHE: &'static str = "SKIP_QUERY_PLAN_CACHE";
    pub const SCATTER_ERRORS_AS_WARNINGS: &'static str = "SCATTER_ERRORS_AS_WARNINGS";

    /// Reads the directives of every comment in `sql`. Free when there is no `/*vt+`.
    pub fn read(sql: &[u8]) -> Self {
        const OPENING: &[u8] = b"/*vt+";
        let mut found = Self::default();
        if !sql.windows(OPENING.len()).any(|w| w == OPENING) {
            return found;
        }
        for token in Lexer::new(sql).filter(|t| t.kind == TokenKind::Comment) {
            let text = String::from_utf8_lossy(token.bytes(sql));
            let Some(inside) = text.strip_prefix("/*vt+").and_then(|t| t.strip_suffix("*/")) else { continue };
            for word in inside.split_whitespace() {
                // A bare name is switched on.
                let (name, value) = word.split_once('=').unwrap_or((word, "1"));
                found.0.insert(name.to_owned(), value.to_owned());
            }
        }
        found
    }

    /// Whether a switch is on: named, and not `0` or `false`.
    pub fn is_set(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
    }

    /// The number given for a name.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_comments_that_every_server_runs_are_text() {
        for (sql, expanded) in [
            (
                "START TRANSACTION /*!40100 WITH CONSISTENT SNAPSHOT */",
                "START TRANSACTION   WITH CONSISTENT SNAPSHOT  ",
            ),
            ("insert /*!50000 ignore */ into t values ('/*!1*/')", "insert   ignore   into t values ('/*!1*/')"),
            ("select 1 /*! from t */ /* c */", "select 1   from t   /* c */"),
            ("SET A=1/*!40102 ,B=2*/", "SET A=1  ,B=2 "),
        ] {
            assert_eq!(String::from_utf8_lossy(&expand_version_comments(sql.as_bytes())), expanded);
        }
        for sql in [
            "/*!40101 SET NAMES utf8 */",
            "/*!50001 a */ select 1 /* b */",
            "select 1 /*M!100100 , 2 */",
            "select 1 /*!80000 , 2 */, '/*! x */'",
            "select 1 /*!507 , 2 */",
            "select 1",
        ] {
            assert!(matches!(expand_version_comments(sql.as_bytes()), Cow::Borrowed(_)), "{sql}");
        }
    }

    fn split(sql: &str) -> (String, String, String) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (leading, statement, trailing) = split_margin_comments(sql.as_bytes());
        (text(leading), text(statement), text(trailing))
    }

    #[test]
    fn comments_inside_stay_and_those_around_are_cut() {
        let (leading, statement, trailing) = split("/* a */ -- b\n select /* c */ 1 /*d*/ ; -- e");
        assert_eq!((leading.as_str(), statement.as_str()), ("/* a */ -- b", "select /* c */ 1"));
        assert_eq!(trailing, "/*d*/ ; -- e");
        assert_eq!(split("  select 1; "), ("".into(), "select 1".into(), "".into()));
        assert_eq!(split("/* only */").1, "");
        assert_eq!(split("select 1 /*!40000 from t */").1, "select 1 /*!40000 from t */");
    }

    #[test]
    fn directives_are_read_from_any_comment() {
        let d = Directives::read(b"/*vt+ QUERY_TIMEOUT_MS=20 SKIP_QUERY_PLAN_CACHE */ select '/*vt+ X=1 */'");
        assert_eq!(d.number(Directives::QUERY_TIMEOUT_MS), Some(20));
        assert!(d.is_set(Directives::SKIP_QUERY_PLAN_CACHE));
        assert_eq!(d.0.len(), 2);
    }
}
