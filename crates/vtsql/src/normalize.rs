//! Literals to bind variables, in one pass over the bytes.
//!
//! Invariants: putting the variables back ([`crate::bind`]) gives the same tokens with the same values;
//! text that is not a lifted literal is copied byte for byte. Where a literal may be more than a value
//! (an alias, an ordinal, a type's size, the name of a column header) it stays: less sharing of plans,
//! never another meaning. No tree is made; text inside literals need not be UTF-8.

use vterrors::{Code, VtError};
use vtproto::query::{BindVariable, Type, Value};

use crate::comments::trim;
use crate::kind::{StatementKind, preview};
use crate::lexer::{Lexer, Token, TokenKind, is_blank};
use crate::quote::{quote_string, unescape};
use crate::words::{Lower, introduces_operand, is_schema_column, is_session_function, is_sized_type};

/// A statement without its literals. Margin comments are cut off and kept aside.
#[derive(Debug, Clone, PartialEq)]
pub struct Normalized {
    pub kind: StatementKind,
    /// The text with `:vtg1` … in place of literals. With the keyspace, the target and the session
    /// flags that change planning it is the key of the plan cache.
    pub sql: String,
    /// Values by name, in order of their numbers.
    pub bind_vars: Vec<(String, BindVariable)>,
    /// Hash of `sql`. A cache must still compare the text.
    pub fingerprint: u64,
    /// Comments in front (with `/*vt+ … */` directives) and behind; mostly empty.
    pub leading: String,
    pub trailing: String,
    /// Session functions, user or system variables occur: the plan has to rewrite the text
    /// ([`crate::rewrite_session`]).
    pub session_dependent: bool,
    /// Number of `?` placeholders. They became `:v1` …, except those in `renamed`.
    pub placeholders: usize,
    /// Placeholders that stand where a literal would have been lifted: the name that goes with their number (`v1`), and the
    /// one they have in `sql` (`vtg1`), which is the literal's, so that a statement has one plan in both protocols.
    pub renamed: Vec<(String, String)>,
}

/// Longest value that is looked for among earlier ones.
const MAX_SHARED_VALUE: usize = 256;
/// How many earlier values are looked at.
const MAX_SHARED_VARS: usize = 32;
/// Placeholders that get a literal's name; the others of a long list keep their own, for nobody shares plans of those.
const MAX_RENAMED: usize = 64;
/// Parentheses followed; literals deeper inside stay.
const MAX_DEPTH: usize = 48;

/// Walks `sql`, which holds one statement, once.
///
/// Kinds other than SELECT and DML keep their literals. Errors: text outside of lifted literals that is
/// not UTF-8.
pub fn normalize(sql: &[u8]) -> Result<Normalized, VtError> {
    let kind = preview(sql);
    let mut pass = Pass::new(sql, kind, false);
    if pass.run() == Outcome::KeepSelectLists {
        pass = Pass::new(sql, kind, true);
        pass.run();
    }
    pass.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Clause {
    /// Between SELECT and what ends its list.
    SelectList,
    /// Behind ORDER BY or GROUP BY: numbers are ordinals.
    Ordinals,
    /// Sizes of types.
    Keep,
    Other,
}

#[derive(Clone, Copy)]
struct Frame {
    clause: Clause,
    /// Somewhere inside a select list, whose text makes column headers.
    in_select: bool,
}

impl Frame {
    fn is_in_select(self) -> bool {
        self.in_select || self.clause == Clause::SelectList
    }
}

/// What stands in front of the current token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// An operator, a comma, an opening parenthesis, an operand-introducing keyword, the start.
    Operand,
    /// A charset introducer such as `_utf8mb4`.
    Introducer,
    /// A minus (at this offset) that is a sign.
    Sign(usize),
    /// A string literal that has just been lifted as a variable of its own.
    LiftedString,
    /// Anything behind which a string is an alias or part of something.
    Other,
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Done,
    /// Session functions turned up: their select items get their text as alias, so it has to stay.
    KeepSelectLists,
}

struct Pass<'a> {
    sql: &'a [u8],
    kind: StatementKind,
    keep_select_lists: bool,
    out: Vec<u8>,
    /// Input is in `out` up to here.
    copied: usize,
    start: Option<usize>,
    end: usize,
    vars: Vec<(String, BindVariable)>,
    prefix: &'static str,
    placeholders: usize,
    renamed: Vec<(String, String)>,
    session_dependent: bool,
}

impl<'a> Pass<'a> {
    fn new(sql: &'a [u8], kind: StatementKind, keep_select_lists: bool) -> Self {
        // A client that uses our names itself must not see them taken.
        let prefix = if find(sql, b":vtg") { "vtgn" } else { "vtg" };
        Self {
            sql,
            kind,
            keep_select_lists,
            out: Vec::with_capacity(sql.len() + 24),
            copied: 0,
            start: None,
            end: 0,
            vars: Vec::new(),
            prefix,
            placeholders: 0,
            renamed: Vec::new(),
            session_dependent: false,
        }
    }

    fn run(&mut self) -> Outcome {
        let sql = self.sql;
        let lifts = self.kind.is_normalized();
        let mut frames = [Frame { clause: Clause::Other, in_select: false }; MAX_DEPTH];
        let mut depth = 0usize;
        let mut before = Before::Operand;
        let mut last_word = Lower::NONE;
        // Where the value of `table_schema = 'ks'` would start: the plan depends on it.
        let mut schema_value: Option<usize> = None;
        let mut count = 0usize;
        let mut lexer = Lexer::new(sql);
        while let Some(token) = lexer.next() {
            match token.kind {
                TokenKind::Comment => continue,
                TokenKind::ExecutableComment if self.start.is_none() => continue,
                TokenKind::Punct if sql[token.start] == b';' => continue,
                _ => {}
            }
            if self.start.is_none() {
                self.start = Some(token.start);
                self.copied = token.start;
            }
            self.end = token.end;
            count += 1;
            let frame = frames[depth.min(MAX_DEPTH - 1)];
            // Words matter for what follows them only.
            let word_before = std::mem::replace(&mut last_word, Lower::NONE);
            let before_this = std::mem::replace(&mut before, Before::Other);
            match token.kind {
                TokenKind::Word => {
                    let bytes = token.bytes(sql);
                    if bytes[0] == b'_' {
                        before = Before::Introducer;
                        continue;
                    }
                    last_word = Lower::of(bytes);
                    let word = last_word.get();
                    if introduces_operand(word) {
                        before = Before::Operand;
                    }
                    if word.len() > 10 && is_schema_column(word) {
                        schema_value = Some(count + 2);
                    }
                    if let Some(clause) = clause_after(word, word_before.get(), frame.clause) {
                        frames[depth.min(MAX_DEPTH - 1)].clause = clause;
                    }
                }
                TokenKind::Punct => match sql[token.start] {
                    b'(' => {
                        let word = word_before.get();
                        if is_session_function(word) {
                            self.session_dependent = true;
                            if lifts && !self.keep_select_lists {
                                return Outcome::KeepSelectLists;
                            }
                        }
                        let in_select = frame.is_in_select();
                        if word == b"in"
                            && lifts
                            && !in_select
                            && let Some((values, end, after)) = literal_list(sql, token.start)
                        {
                            let list = BindVariable { r#type: Type::Tuple.into(), value: Default::default(), values };
                            self.put_list(token.start, end, list);
                            self.end = end;
                            lexer = after;
                            continue;
                        }
                        let clause = if is_sized_type(word) {
                            Clause::Keep
                        } else if frame.clause == Clause::Ordinals && before_this == Before::Operand || word == b"by" {
                            Clause::Ordinals
                        } else {
                            Clause::Other
                        };
                        depth += 1;
                        if depth < MAX_DEPTH {
                            frames[depth] = Frame { clause, in_select };
                        }
                        before = Before::Operand;
                    }
                    b')' => depth = depth.saturating_sub(1),
                    b'.' => {}
                    b'-' if token.end == token.start + 1 && before_this == Before::Operand => {
                        before = Before::Sign(token.start);
                    }
                    _ if matches!(token.bytes(sql), b"->" | b"->>") => {}
                    _ => before = Before::Operand,
                },
                TokenKind::Integer | TokenKind::Float | TokenKind::String | TokenKind::Placeholder => {
                    let lifted = lifts && depth < MAX_DEPTH && !self.stays(frame, schema_value == Some(count));
                    if token.kind == TokenKind::Placeholder {
                        self.placeholder(token, lifted);
                    } else if lifted {
                        before = self.literal(token, before_this, frame.is_in_select());
                    }
                }
                TokenKind::UserVar | TokenKind::SystemVar => {
                    self.session_dependent = true;
                    if lifts && !self.keep_select_lists {
                        return Outcome::KeepSelectLists;
                    }
                }
                _ => {}
            }
        }
        Outcome::Done
    }

    /// Whether a literal here is or may be more than a value.
    fn stays(&self, frame: Frame, is_schema: bool) -> bool {
        match frame.clause {
            Clause::Keep | Clause::Ordinals => true,
            _ => is_schema || frame.is_in_select() && self.keep_select_lists,
        }
    }

    /// Gives a placeholder its name.
    fn placeholder(&mut self, token: Token, as_literal: bool) {
        self.placeholders += 1;
        let own = format!("v{}", self.placeholders);
        let shares = as_literal && self.placeholders <= MAX_RENAMED;
        let name = if shares { self.next_name() } else { own.clone() };
        self.replace(token.start, token.end, b":");
        self.out.extend_from_slice(name.as_bytes());
        if shares {
            self.renamed.push((own, name));
        }
    }

    /// Lifts a literal where it is surely a value; says what it is to the next token.
    fn literal(&mut self, token: Token, before: Before, in_select: bool) -> Before {
        let bytes = token.bytes(self.sql);
        if token.kind == TokenKind::String {
            return self.string(token, before, in_select);
        }
        let sign = match before {
            // Only a sign that touches its number belongs to the value.
            Before::Sign(at) if at + 1 == token.start => Some(at),
            _ => None,
        };
        let start = sign.unwrap_or(token.start);
        let text = &self.sql[start..token.end];
        let kind = match token.kind {
            TokenKind::Float => Type::Float64,
            _ if parses::<i64>(text) => Type::Int64,
            _ if sign.is_none() && parses::<u64>(bytes) => Type::Uint64,
            _ => return Before::Other,
        };
        self.put(start, token.end, kind, text.to_vec());
        Before::Other
    }

    fn string(&mut self, token: Token, before: Before, in_select: bool) -> Before {
        let bytes = token.bytes(self.sql);
        match before {
            Before::Operand | Before::Introducer | Before::Sign(_) => {}
            // Neighbours are one string.
            Before::LiftedString if !in_select => {
                if let Some((_, var)) = self.vars.last_mut() {
                    let mut joined = var.value.to_vec();
                    joined.extend(unescape(&bytes[1..bytes.len() - 1], bytes[0]));
                    var.value = joined.into();
                    self.copied = token.end;
                    return Before::LiftedString;
                }
                return Before::Other;
            }
            Before::LiftedString | Before::Other => return Before::Other,
        }
        let inside = &bytes[1..bytes.len() - 1];
        let plain = bytes[0] == b'\'' && !inside.iter().any(|&b| b == b'\\' || b == b'\'');
        let value = if plain { inside.to_vec() } else { unescape(inside, bytes[0]) };
        if in_select {
            // The text makes the column's header: only what comes back byte for byte may go.
            let mut back = Vec::with_capacity(bytes.len());
            quote_string(&value, &mut back);
            // Bytes that are no text cannot stay in the statement; their column is then called by what they are quoted as.
            if back != bytes && std::str::from_utf8(bytes).is_ok() {
                return Before::Other;
            }
        }
        let shared = self.put(token.start, token.end, Type::Varbinary, value);
        if shared { Before::Other } else { Before::LiftedString }
    }

    /// Puts a variable in place of input bytes. `true` when an earlier one with the same value served.
    fn put(&mut self, start: usize, end: usize, kind: Type, value: Vec<u8>) -> bool {
        let kind = i32::from(kind);
        // As Vitess: equal values of a SELECT are one variable, those of DML are not.
        if self.kind == StatementKind::Select && value.len() <= MAX_SHARED_VALUE {
            let earlier =
                self.vars.iter().take(MAX_SHARED_VARS).position(|(_, v)| v.r#type == kind && v.value == value);
            if let Some(at) = earlier {
                let name = format!(":{}", self.vars[at].0);
                self.replace(start, end, name.as_bytes());
                return true;
            }
        }
        let name = self.new_var(BindVariable { r#type: kind, value: value.into(), values: Vec::new() });
        self.out.extend_from_slice(&self.sql[self.copied..start]);
        self.out.push(b':');
        self.out.extend_from_slice(self.vars[name].0.as_bytes());
        self.copied = end;
        false
    }

    fn put_list(&mut self, start: usize, end: usize, list: BindVariable) {
        let name = self.new_var(list);
        self.out.extend_from_slice(&self.sql[self.copied..start]);
        if start > 0 && !is_blank(self.sql[start - 1]) {
            self.out.push(b' ');
        }
        self.out.extend_from_slice(b"::");
        self.out.extend_from_slice(self.vars[name].0.as_bytes());
        self.copied = end;
    }

    /// Adds a variable; its index.
    fn new_var(&mut self, var: BindVariable) -> usize {
        let name = self.next_name();
        self.vars.push((name, var));
        self.vars.len() - 1
    }

    fn next_name(&self) -> String {
        let mut name = String::with_capacity(8);
        name.push_str(self.prefix);
        push_number(&mut name, self.vars.len() + self.renamed.len() + 1);
        name
    }

    fn replace(&mut self, start: usize, end: usize, by: &[u8]) {
        self.out.extend_from_slice(&self.sql[self.copied..start]);
        self.out.extend_from_slice(by);
        self.copied = end;
    }

    fn finish(mut self) -> Result<Normalized, VtError> {
        let (start, end) = match self.start {
            Some(start) => (start, self.end),
            None => (self.sql.len(), self.sql.len()),
        };
        if self.copied < end {
            self.out.extend_from_slice(&self.sql[self.copied..end]);
        }
        let sql = String::from_utf8(self.out).map_err(|_| {
            VtError::new(Code::InvalidArgument, "statement is not valid UTF-8 outside of its string literals")
        })?;
        let margin = |bytes: &[u8]| match trim(bytes) {
            [] => String::new(),
            comments => String::from_utf8_lossy(comments).into_owned(),
        };
        Ok(Normalized {
            kind: self.kind,
            fingerprint: fingerprint(&sql),
            sql,
            bind_vars: self.vars,
            leading: margin(&self.sql[..start]),
            trailing: margin(&self.sql[end..]),
            session_dependent: self.session_dependent,
            placeholders: self.placeholders,
            renamed: self.renamed,
        })
    }
}

/// The clause that a word opens at its level.
fn clause_after(word: &[u8], before: &[u8], current: Clause) -> Option<Clause> {
    match word {
        b"select" => Some(Clause::SelectList),
        b"by" if matches!(before, b"order" | b"group") => Some(Clause::Ordinals),
        b"from" | b"where" | b"having" | b"limit" | b"union" | b"except" | b"intersect" | b"set" | b"values"
        | b"into" | b"for" | b"window" | b"procedure" | b"on"
            if current != Clause::Keep =>
        {
            Some(Clause::Other)
        }
        _ => None,
    }
}

/// Reads `(literal, literal …)` at `start`: values, end offset, and the lexer behind it. `None` when
/// there is anything else inside, or nothing.
fn literal_list(sql: &[u8], start: usize) -> Option<(Vec<Value>, usize, Lexer<'_>)> {
    let mut lexer = Lexer::at(sql, start + 1);
    let mut values = Vec::new();
    loop {
        let mut token = lexer.next()?;
        let mut from = token.start;
        if token.is_punct(sql, "-") {
            from = token.start;
            token = lexer.next()?;
            if token.start != from + 1 || token.kind == TokenKind::String {
                return None;
            }
        }
        let text = &sql[from..token.end];
        let (kind, value) = match token.kind {
            TokenKind::Integer if parses::<i64>(text) => (Type::Int64, text.to_vec()),
            TokenKind::Integer if parses::<u64>(text) => (Type::Uint64, text.to_vec()),
            TokenKind::Float => (Type::Float64, text.to_vec()),
            TokenKind::String => (Type::Varbinary, token.string_value(sql)?),
            _ => return None,
        };
        values.push(Value { r#type: kind.into(), value: value.into() });
        let next = lexer.next()?;
        match next.bytes(sql) {
            b"," => {}
            b")" => return Some((values, next.end, lexer)),
            _ => return None,
        }
    }
}

fn parses<T: std::str::FromStr>(digits: &[u8]) -> bool {
    std::str::from_utf8(digits).is_ok_and(|text| text.parse::<T>().is_ok())
}

fn push_number(text: &mut String, number: usize) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push((b'0' + (number % 10) as u8) as char);
}

fn find(haystack: &[u8], needle: &[u8]) -> bool {
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|&b| b == needle[0]) {
        if rest[at..].starts_with(needle) {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

/// Eight bytes at a time, multiply and rotate: for a cache whose keys are compared as well.
pub fn fingerprint(sql: &str) -> u64 {
    const K: u64 = 0x9E37_79B9_7F4A_7C15;
    let bytes = sql.as_bytes();
    let mut chunks = bytes.chunks_exact(8);
    let mut hash = bytes.len() as u64;
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or_default());
        hash = (hash.rotate_left(5) ^ word).wrapping_mul(K);
    }
    let tail = chunks.remainder().iter().fold(0u64, |n, &b| (n << 8) | u64::from(b));
    hash = (hash.rotate_left(5) ^ tail).wrapping_mul(K);
    hash ^ (hash >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bind::{BindVars, bind};
    use crate::lexer::tokens;

    fn normal(sql: &str) -> Normalized {
        normalize(sql.as_bytes()).expect("UTF-8")
    }

    fn shape(sql: &str) -> String {
        normal(sql).sql
    }

    fn back(n: &Normalized) -> String {
        let vars: BindVars = n.bind_vars.iter().cloned().collect();
        String::from_utf8(bind(&n.sql, &vars).expect("own variables")).expect("UTF-8")
    }

    /// Drivers that put binary parameters into the text quote some bytes and leave others as they are.
    #[test]
    fn bytes_that_are_no_text_become_variables_also_in_select_lists() {
        let n = normalize(b"select length(_binary'\xff\\'\xfe')").expect("no text is left but the statement's");
        assert_eq!(n.sql, "select length(_binary:vtg1)");
        assert_eq!(&n.bind_vars[0].1.value[..], b"\xff'\xfe");
    }

    #[test]
    fn literals_become_variables() {
        let n = normal("insert into product values('SKU-1001','dup',1)");
        assert_eq!(n.sql, "insert into product values(:vtg1,:vtg2,:vtg3)");
        let kinds: Vec<_> = n.bind_vars.iter().map(|(name, v)| (name.as_str(), v.r#type(), &v.value[..])).collect();
        assert_eq!(
            kinds,
            [
                ("vtg1", Type::Varbinary, &b"SKU-1001"[..]),
                ("vtg2", Type::Varbinary, b"dup"),
                ("vtg3", Type::Int64, b"1")
            ]
        );
        assert_eq!(n.kind, StatementKind::Insert);
    }

    #[test]
    fn what_is_not_only_a_value_stays() {
        for (sql, want) in [
            (
                "select a from t where b = 1 order by 1, 2 desc limit 3",
                "select a from t where b = :vtg1 order by 1, 2 desc limit :vtg2",
            ),
            (
                "select a, count(*) from t group by 1 having count(*) > 2",
                "select a, count(*) from t group by 1 having count(*) > :vtg1",
            ),
            ("select a 'x', b as 'y' from t", "select a 'x', b as 'y' from t"),
            ("select count(*) 'n' from t", "select count(*) 'n' from t"),
            ("select \"double\" from t where c = \"d\"", "select \"double\" from t where c = :vtg1"),
            (
                "select * from t where id in (1, 2,-3) and x in ('a')",
                "select * from t where id in ::vtg1 and x in ::vtg2",
            ),
            ("select * from t where id in(1)", "select * from t where id in ::vtg1"),
            ("select * from t where id in (1, a)", "select * from t where id in (:vtg1, a)"),
            ("select * from t where id in (select 1)", "select * from t where id in (select :vtg1)"),
            ("select a in (1,2) from t", "select a in (:vtg1,:vtg2) from t"),
            ("select x'ff', b'1', N'n', 0xff, t1a.2b from t", "select x'ff', b'1', N'n', 0xff, t1a.2b from t"),
            ("select _utf8 'a' from t", "select _utf8 :vtg1 from t"),
            ("select date '2020-01-01' from t", "select date '2020-01-01' from t"),
            ("select a from t where b = a -1 and c = -1", "select a from t where b = a -:vtg1 and c = :vtg2"),
            ("select d + interval 1 day from t", "select d + interval :vtg1 day from t"),
            ("select cast(a as decimal(10,2)) from t", "select cast(a as decimal(10,2)) from t"),
            ("select doc->'$.a' from t", "select doc->'$.a' from t"),
            ("select * from t where a = 18446744073709551616", "select * from t where a = 18446744073709551616"),
            ("select * from t where a = 'x' or b = 'x'", "select * from t where a = :vtg1 or b = :vtg1"),
            ("select * from t where a = 'x' 'y'", "select * from t where a = :vtg1"),
            (
                "select group_concat(a order by 1 separator ',') from t",
                "select group_concat(a order by 1 separator ',') from t",
            ),
            ("select * from t where a = ? and b = ?", "select * from t where a = :vtg1 and b = :vtg2"),
            (
                "select * from t where a = ? and b = 5 limit ?",
                "select * from t where a = :vtg1 and b = :vtg2 limit :vtg3",
            ),
            ("select * from t where a = :vtg1 and b = ?", "select * from t where a = :vtg1 and b = :vtgn1"),
            ("select * from t where id in (?, ?)", "select * from t where id in (:vtg1, :vtg2)"),
            ("select ?, @a from t where b = ? order by ?", "select :v1, @a from t where b = :vtg1 order by :v3"),
            ("set @a = ?", "set @a = :v1"),
            ("select * from t where a = :vtg1 and b = 5", "select * from t where a = :vtg1 and b = :vtgn1"),
            ("select * from t order by field(id, 3, 1)", "select * from t order by field(id, :vtg1, :vtg2)"),
            (
                "select 1 from information_schema.tables where t.table_schema = 'ks' and table_name = 'x'",
                "select :vtg1 from information_schema.tables where t.table_schema = 'ks' and table_name = :vtg2",
            ),
            ("create table t (a int default 5)", "create table t (a int default 5)"),
            ("set @a = 5", "set @a = 5"),
            ("update t set a = 5, b = 'x' where c = 5", "update t set a = :vtg1, b = :vtg2 where c = :vtg3"),
            (
                "select 1 from t where a = 'it''s' -- 'no'\n and b = \"q\"",
                "select :vtg1 from t where a = :vtg2 -- 'no'\n and b = :vtg3",
            ),
            ("select 1 from t /*! where a = 5 */", "select :vtg1 from t /*! where a = 5 */"),
            (
                "select last_insert_id()+1, 'a' from t where b = 1",
                "select last_insert_id()+1, 'a' from t where b = :vtg1",
            ),
            (
                "select 1 into outfile 'x' fields terminated by ','",
                "select :vtg1 into outfile 'x' fields terminated by ','",
            ),
        ] {
            assert_eq!(shape(sql), want, "{sql}");
        }
    }

    #[test]
    fn placeholders_know_their_numbers() {
        let n = normal("select ?, @a from t where b = ? and c = 5 and d = ?");
        let renamed = [("v2", "vtg1"), ("v3", "vtg3")].map(|(own, name)| (own.to_owned(), name.to_owned()));
        assert_eq!((n.placeholders, &n.renamed[..]), (3, &renamed[..]));
        assert_eq!(n.bind_vars[0].0, "vtg2");
        let many = normal(&format!("insert into t values (?{})", ", ?".repeat(99)));
        assert_eq!((many.placeholders, many.renamed.len()), (100, MAX_RENAMED));
        assert!(many.sql.contains(":vtg64, :v65, ") && many.sql.ends_with(" :v100)"), "{}", many.sql);
    }

    #[test]
    fn margins_are_kept_aside() {
        let n = normal("/* lead */ /*vt+ X=1 */ select 1 /* in */ from t /* trail */ ; ");
        assert_eq!((n.leading.as_str(), n.trailing.as_str()), ("/* lead */ /*vt+ X=1 */", "/* trail */"));
        assert_eq!(n.sql, "select :vtg1 /* in */ from t");
        assert_eq!(normal("/* only */").kind, StatementKind::Comment);
    }

    #[test]
    fn values_keep_their_bytes() {
        let n = normalize(b"insert into t values (_binary'\xff\\'\\\\', 1.5e3, 18446744073709551615)").expect("lifted");
        let values: Vec<_> = n.bind_vars.iter().map(|(_, v)| (v.r#type(), v.value.to_vec())).collect();
        assert_eq!(
            values,
            [
                (Type::Varbinary, b"\xff'\\".to_vec()),
                (Type::Float64, b"1.5e3".to_vec()),
                (Type::Uint64, b"18446744073709551615".to_vec())
            ]
        );
        assert!(normalize(b"select * from t\xff").is_err());
    }

    #[test]
    fn session_functions_are_noticed() {
        for sql in
            ["select last_insert_id()", "select @a", "select @@autocommit", "select 1 from t where x = DATABASE()"]
        {
            assert!(normal(sql).session_dependent, "{sql}");
        }
        assert!(!normal("select last_insert_id from t where s = '@a'").session_dependent);
    }

    #[test]
    fn one_fingerprint_for_one_shape() {
        let print = |sql| normal(sql).fingerprint;
        assert_eq!(print("select a from t where id in (1,2,3)"), print("select a from t where id in (7)"));
        assert_eq!(print("select a from t where id = 1"), print("/* x */ select a from t where id = 22"));
        assert_ne!(print("select a from t where id = 1"), print("select b from t where id = 1"));
    }

    /// Tokens with literal values resolved and neighbouring strings joined, so that two spellings of the
    /// same text compare equal.
    fn meaning(sql: &str) -> Vec<(bool, Vec<u8>)> {
        let mut out: Vec<(bool, Vec<u8>)> = Vec::new();
        for token in tokens(sql.as_bytes()) {
            match token.string_value(sql.as_bytes()) {
                Some(value) => match out.last_mut() {
                    Some((true, last)) => last.extend(value),
                    _ => out.push((true, value)),
                },
                None => {
                    // A sign and its number are one value or two tokens.
                    for piece in token.bytes(sql.as_bytes()).split_inclusive(|&b| b == b'-') {
                        out.push((false, piece.to_vec()));
                    }
                }
            }
        }
        out
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(2000))]
        #[test]
        fn variables_put_back_give_the_same_meaning(pieces in proptest::collection::vec(proptest::sample::select(vec![
            "select", "from", "where", "and", "order by", "group by", "limit", "in", "(", ")", ",", "=", "-", "+", "a", "t.b",
            "1", "-1", "2.5", "'x'", "'it''s'", "\"d\\\"q\"", "'\\\\'", "''", "x'ff'", "as", "_utf8", "?", ":v", "@u",
            "in (1, 'b', -2)", "in (1)", "/* c */", "-- l\n", "`q'`", "interval", "day", "case when", "then", "else", "end",
            "18446744073709551615", "99999999999999999999999", "cast(a as char(5))", "last_insert_id()", "union", "->",
        ]), 0..24)) {
            let sql = format!("select {}", pieces.join(" "));
            let n = normal(&sql);
            if n.placeholders == 0 && !sql.contains(":v") {
                let text = back(&n);
                let (_, body, _) = crate::comments::split_margin_comments(sql.as_bytes());
                let body = String::from_utf8(body.to_vec()).expect("UTF-8");
                assert_eq!(meaning(&text), meaning(&body), "{sql}\n{}\n{text}", n.sql);
            }
        }

        #[test]
        fn any_bytes_are_taken(sql in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            let _ = normalize(&sql);
            let mut text = b"select ".to_vec();
            text.extend(sql);
            let _ = normalize(&text);
        }
    }
}
