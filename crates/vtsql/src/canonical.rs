//! A statement printed the way Vitess prints it, for error texts.
//!
//! Works on tokens: keywords in lower case, one blank between words, a comma and a blank, operators in
//! blanks, functions and lists without. Meant for people: never sent to a server.

use crate::kind::preview;
use crate::lexer::{Lexer, Token, TokenKind};
use crate::quote::{quote_identifier, quote_string};
use crate::words::{Lower, is_keyword};

/// `sql` in Vitess's print. Statements other than SELECT and DML are as written there, too.
///
/// Names lose quotes they do not need, aliases get their AS, sort orders their ASC, and a SELECT without
/// tables its `from dual`; comments stay only directly behind the first word.
pub fn canonical(sql: &str) -> String {
    if !preview(sql).is_normalized() {
        return sql.trim().trim_end_matches(';').to_owned();
    }
    let bytes = sql.as_bytes();
    let all: Vec<Token> = Lexer::new(bytes).collect();
    let mut print = Print {
        sql,
        out: String::with_capacity(sql.len() + 16),
        previous: None,
        before_previous: Lower::NONE,
        joins_follow: false,
        sorting: Vec::new(),
    };
    let mut words = 0;
    for (i, token) in all.iter().enumerate() {
        if token.is_punct(bytes, ";") && i + 1 == all.len() {
            break;
        }
        if token.kind == TokenKind::Comment {
            if words == 1 && sql[token.start..].starts_with("/*") {
                print.blank();
                print.out.push_str(&sql[token.start..token.end]);
            }
            continue;
        }
        words += 1;
        print.joins_follow = all.get(i + 1).is_some_and(|next| next.is_word(bytes, "join"));
        print.token(token);
    }
    print.end_sort_item();
    let is = |word: &str| all.iter().any(|t| t.is_word(bytes, word));
    let simple_select = all.iter().find(|t| t.kind != TokenKind::Comment).is_some_and(|t| t.is_word(bytes, "select"))
        && !["from", "where", "limit", "union", "order", "into", "for", "lock"].into_iter().any(is);
    if simple_select {
        print.out.push_str(" from dual");
    }
    print.out
}

struct Print<'a> {
    sql: &'a str,
    out: String,
    previous: Option<Before>,
    /// The word two tokens back.
    before_previous: Lower,
    /// The next token is JOIN.
    joins_follow: bool,
    /// For each open bracket and the statement itself: inside ORDER BY, and whether its item has an order.
    sorting: Vec<Option<bool>>,
}

impl Print<'_> {
    fn blank(&mut self) {
        if !self.out.is_empty() {
            self.out.push(' ');
        }
    }

    /// Writes the ASC of a sort item that ends here without an order.
    fn end_sort_item(&mut self) {
        if let Some(Some(ordered)) = self.sorting.last_mut() {
            if !*ordered {
                self.out.push_str(" asc");
            }
            *ordered = false;
        }
    }

    fn token(&mut self, token: &Token) {
        let bytes = self.sql.as_bytes();
        let text = &self.sql[token.start..token.end];
        let keyword = token.kind == TokenKind::Word && is_keyword(text);
        // `inner join`, `left outer join`: Vitess prints the short forms.
        if keyword && self.joins_follow && matches!(Lower::of(text.as_bytes()).get(), b"inner" | b"outer" | b"cross") {
            return;
        }
        let lower = if token.kind == TokenKind::Word { Lower::of(text.as_bytes()) } else { Lower::NONE };
        if self.sorting.is_empty() {
            self.sorting.push(None);
        }
        match lower.get() {
            b"asc" | b"desc" => {
                if let Some(Some(ordered)) = self.sorting.last_mut() {
                    *ordered = true;
                }
            }
            b"limit" | b"for" | b"lock" | b"union" | b"separator" | b"rows" => {
                self.end_sort_item();
                if let Some(level) = self.sorting.last_mut() {
                    *level = None;
                }
            }
            _ => {}
        }
        if token.is_punct(bytes, ",") {
            self.end_sort_item();
        } else if token.is_punct(bytes, ")") && self.sorting.len() > 1 {
            self.end_sort_item();
            self.sorting.pop();
        }
        if let Some(before) = &self.previous {
            let alias = before.takes_alias() && is_alias(token, keyword, lower.get(), self.before_previous.get());
            if alias {
                self.out.push_str(" as");
            }
            if alias || before.blank_before(token, bytes) {
                self.out.push(' ');
            }
        }
        match token.kind {
            _ if text == "&&" => self.out.push_str("and"),
            _ if text == "||" => self.out.push_str("or"),
            _ if lower.get() == b"rlike" => self.out.push_str("regexp"),
            _ if keyword => self.out.push_str(&text.to_ascii_lowercase()),
            TokenKind::Quoted => self.out.push_str(&name(&token.name(bytes).unwrap_or_default())),
            TokenKind::String => {
                let value = token.string_value(bytes).unwrap_or_default();
                let alias = self.out.ends_with(" as ");
                match String::from_utf8(value.clone()) {
                    Ok(text) if alias => self.out.push_str(&name(&text)),
                    _ => {
                        let mut quoted = Vec::new();
                        quote_string(&value, &mut quoted);
                        self.out.push_str(&String::from_utf8_lossy(&quoted));
                    }
                }
            }
            _ if text == "<>" => self.out.push_str("!="),
            _ => self.out.push_str(text),
        }
        if token.is_punct(bytes, "(") {
            self.sorting.push(None);
        }
        let previous = self.previous.as_ref();
        let before_by = previous.is_some_and(|b| b.lower.get() == b"order") && lower.get() == b"by";
        if before_by && let Some(level) = self.sorting.last_mut() {
            *level = Some(false);
        }
        let next = Before::after(token, text, keyword, previous);
        self.before_previous = previous.map_or(Lower::NONE, |b| b.lower);
        self.previous = Some(next);
    }
}

/// A name as Vitess prints it: in quotes only when it would be read otherwise without.
fn name(name: &str) -> String {
    let plain = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !is_keyword(name);
    if plain { name.to_owned() } else { quote_identifier(name) }
}

/// Whether a token behind an operand is its alias.
fn is_alias(token: &Token, keyword: bool, lower: &[u8], before_previous: &[u8]) -> bool {
    match token.kind {
        TokenKind::Quoted | TokenKind::String => true,
        TokenKind::Word => {
            !keyword
                && before_previous != b"interval"
                && !before_previous.starts_with(b"_")
                && !matches!(
                    lower,
                    b"unsigned"
                        | b"signed"
                        | b"integer"
                        | b"rollup"
                        | b"language"
                        | b"boolean"
                        | b"quick"
                        | b"skip"
                        | b"nowait"
                        | b"separator"
                        | b"quarter"
                        | b"day"
                        | b"month"
                        | b"year"
                        | b"hour"
                        | b"minute"
                        | b"second"
                        | b"week"
                        | b"microsecond"
                )
        }
        _ => false,
    }
}

/// The token before, as far as spacing depends on it.
struct Before {
    kind: TokenKind,
    keyword: bool,
    lower: Lower,
    punct: [u8; 3],
    /// A minus or plus that is a sign.
    sign: bool,
}

impl Before {
    fn after(token: &Token, text: &str, keyword: bool, before: Option<&Before>) -> Self {
        let mut punct = [0; 3];
        if token.kind == TokenKind::Punct {
            for (to, from) in punct.iter_mut().zip(text.bytes()) {
                *to = from;
            }
        }
        let operand_before = before.is_some_and(|b| b.ends_operand());
        let sign = matches!(text, "-" | "+" | "~" | "!") && !operand_before;
        Self { kind: token.kind, keyword, lower: Lower::of(text.as_bytes()), punct, sign }
    }

    fn is_punct(&self, punct: &str) -> bool {
        let length = self.punct.iter().position(|&b| b == 0).unwrap_or(3);
        self.kind == TokenKind::Punct && &self.punct[..length] == punct.as_bytes()
    }

    fn ends_operand(&self) -> bool {
        match self.kind {
            TokenKind::Punct => self.is_punct(")"),
            TokenKind::Word => !self.keyword,
            _ => true,
        }
    }

    /// Whether an alias may follow: an operand that is a value or a table, and not a typed literal's type.
    fn takes_alias(&self) -> bool {
        match self.kind {
            TokenKind::Punct => self.is_punct(")"),
            TokenKind::Word => {
                !self.keyword
                    && self.lower.get().first() != Some(&b'_')
                    && !matches!(self.lower.get(), b"date" | b"time" | b"timestamp")
            }
            TokenKind::String => false,
            _ => true,
        }
    }

    fn blank_before(&self, token: &Token, sql: &[u8]) -> bool {
        if self.is_punct("(") || self.is_punct(".") || self.sign {
            return false;
        }
        if token.kind != TokenKind::Punct {
            return !(self.is_punct("->") || self.is_punct("->>"));
        }
        match token.bytes(sql) {
            b"," | b")" | b"." => false,
            // A list behind a keyword stands apart, arguments of a function and columns of a table do not.
            b"(" => match self.kind {
                TokenKind::Word if self.keyword => !takes_arguments(self.lower.get()),
                TokenKind::Word | TokenKind::Quoted => false,
                _ => true,
            },
            _ => true,
        }
    }
}

/// Keywords that are functions as well.
fn takes_arguments(word: &[u8]) -> bool {
    matches!(
        word,
        b"if"
            | b"left"
            | b"right"
            | b"replace"
            | b"mod"
            | b"database"
            | b"schema"
            | b"char"
            | b"cast"
            | b"convert"
            | b"truncate"
            | b"last_insert_id"
            | b"current_timestamp"
            | b"current_date"
            | b"current_time"
            | b"localtime"
            | b"localtimestamp"
            | b"utc_date"
            | b"utc_time"
            | b"utc_timestamp"
            | b"grouping"
            | b"match"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_vitess() {
        for (sql, want) in [
            ("insert into product values(:vtg1,:vtg2,:vtg3)", "insert into product values (:vtg1, :vtg2, :vtg3)"),
            ("insert into customer(email) values(:vtg1)", "insert into customer(email) values (:vtg1)"),
            ("SELECT  nope FROM customer", "select nope from customer"),
            (
                "select * from t where a=1 and b<>'x' order by c  desc limit 5;",
                "select * from t where a = 1 and b != 'x' order by c desc limit 5",
            ),
            (
                "select count( * ),t . a from t where id IN (1,2) and x=-1",
                "select count(*), t.a from t where id in (1, 2) and x = -1",
            ),
            (
                "update product set price=price+ :vtg1 where sku=:vtg2",
                "update product set price = price + :vtg1 where sku = :vtg2",
            ),
            ("select 1", "select 1 from dual"),
            (
                "select /* c */ `a` x, `key` \"y z\" from t u order by x, y desc",
                "select /* c */ a as x, `key` as `y z` from t as u order by x asc, y desc",
            ),
            ("show create database commerce", "show create database commerce"),
            ("TRUNCATE  table t1", "TRUNCATE  table t1"),
        ] {
            assert_eq!(canonical(sql), want, "{sql}");
        }
    }

    #[test]
    fn printing_twice_changes_nothing() {
        for sql in [
            "select a,b from t where x in ::l",
            "delete from t where a=1 or (b=2)",
            "select a->'$.b', if(a,b,c) from t",
        ] {
            let once = canonical(sql);
            assert_eq!(canonical(&once), once);
        }
    }
}
