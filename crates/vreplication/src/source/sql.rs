//! Statements that stand in the binlog as text: their words, and what kind of statement they are.

/// A piece of a statement. Comments and white space are between them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token<'a> {
    /// A bare word: keyword, name or number.
    Word(&'a [u8]),
    /// A name in backquotes.
    Name(Vec<u8>),
    /// A string, whatever is in it.
    Text,
    Sign(u8),
}

impl Token<'_> {
    /// Whether this is a keyword.
    pub fn is(&self, keyword: &str) -> bool {
        matches!(self, Self::Word(word) if word.eq_ignore_ascii_case(keyword.as_bytes()))
    }

    /// The name that this is; a bare word can be one too.
    pub fn name(&self) -> Option<String> {
        match self {
            Self::Word(word) => Some(String::from_utf8_lossy(word).into_owned()),
            Self::Name(name) => Some(String::from_utf8_lossy(name).into_owned()),
            Self::Text | Self::Sign(_) => None,
        }
    }
}

/// The tokens of a statement, each with where it begins and ends.
pub(super) struct Tokens<'a> {
    sql: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    pub fn new(sql: &'a [u8]) -> Self {
        Self { sql, at: 0 }
    }

    fn rest(&self) -> &'a [u8] {
        &self.sql[self.at.min(self.sql.len())..]
    }

    /// Goes to the next token. What is inside `/*! … */` is part of the statement.
    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let step = match rest {
                [b' ' | b'\t' | b'\r' | b'\n' | 11 | 12, ..] => 1,
                [b'*', b'/', ..] => 2,
                [b'/', b'*', b'M', b'!', after @ ..] => 4 + digits(after),
                [b'/', b'*', b'!', after @ ..] => 3 + digits(after),
                [b'/', b'*', after @ ..] => {
                    2 + after.windows(2).position(|pair| pair == b"*/").map_or(after.len(), |at| at + 2)
                }
                [b'#', ..] | [b'-', b'-', b' ' | b'\t' | b'\n', ..] | [b'-', b'-'] => {
                    rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
                }
                _ => return,
            };
            self.at += step;
        }
    }
}

fn digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// Bytes of a quoted piece, quotes included; and its content with doubled quotes made single.
fn quoted(bytes: &[u8], quote: u8) -> (usize, Vec<u8>) {
    let mut content = Vec::new();
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        if byte == quote {
            if bytes.get(at + 1) != Some(&quote) {
                return (at + 1, content);
            }
            at += 1;
        } else if byte == b'\\' && quote != b'`' {
            at += 1;
        }
        content.extend(bytes.get(at));
        at += 1;
    }
    (bytes.len(), content)
}

impl<'a> Iterator for Tokens<'a> {
    type Item = (std::ops::Range<usize>, Token<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.skip_blanks();
        let rest = self.rest();
        let &first = rest.first()?;
        let (len, token) = match first {
            b'`' => {
                let (len, name) = quoted(rest, b'`');
                (len, Token::Name(name))
            }
            b'\'' | b'"' => (quoted(rest, first).0, Token::Text),
            _ => {
                let is_word =
                    |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'@') || *byte >= 0x80;
                match rest.iter().take_while(|byte| is_word(byte)).count() {
                    0 => (1, Token::Sign(first)),
                    len => (len, Token::Word(&rest[..len])),
                }
            }
        };
        let start = self.at;
        self.at += len;
        Some((start..self.at, token))
    }
}

/// What a statement does, as far as a stream of changes is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Begin,
    Commit,
    Rollback,
    /// `ROLLBACK TO`: some changes of the transaction are taken back.
    RollbackTo,
    /// Marks within a transaction.
    Mark,
    XaStart,
    /// `XA COMMIT` or `XA ROLLBACK` of a transaction that was prepared before.
    XaFinish,
    Insert,
    Update,
    Delete,
    /// Changes rows in another way: REPLACE, LOAD DATA, CALL.
    OtherChange,
    Ddl,
    /// Changes no rows and no tables.
    Other,
}

pub(super) fn kind(sql: &[u8]) -> Kind {
    let mut tokens = Tokens::new(sql).map(|(_, token)| token);
    let Some(Token::Word(first)) = tokens.next() else { return Kind::Other };
    let first = first.to_ascii_uppercase();
    match &first[..] {
        b"BEGIN" | b"START" => Kind::Begin,
        b"COMMIT" => Kind::Commit,
        b"ROLLBACK" => match tokens.find(|token| !token.is("WORK")) {
            Some(token) if token.is("TO") => Kind::RollbackTo,
            _ => Kind::Rollback,
        },
        b"SAVEPOINT" | b"RELEASE" => Kind::Mark,
        b"XA" => match tokens.next() {
            Some(token) if token.is("START") || token.is("BEGIN") => Kind::XaStart,
            Some(token) if token.is("COMMIT") || token.is("ROLLBACK") => Kind::XaFinish,
            _ => Kind::Mark,
        },
        b"INSERT" => Kind::Insert,
        b"UPDATE" => Kind::Update,
        b"DELETE" => Kind::Delete,
        b"REPLACE" | b"LOAD" | b"CALL" | b"WITH" => Kind::OtherChange,
        b"CREATE" | b"ALTER" | b"DROP" | b"RENAME" | b"TRUNCATE" => Kind::Ddl,
        _ => Kind::Other,
    }
}

/// The beginning of a statement, for an error.
pub(super) fn shown(sql: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(sql);
    match text.char_indices().nth(MOST) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (sql, expected) in [
            ("BEGIN", Kind::Begin),
            ("/* c */ insert into t values (1)", Kind::Insert),
            ("-- c\nUPDATE t SET a=1", Kind::Update),
            ("/*!40000 ALTER TABLE t DISABLE KEYS */", Kind::Ddl),
            ("ROLLBACK WORK TO SAVEPOINT a", Kind::RollbackTo),
            ("rollback", Kind::Rollback),
            ("XA START X'01',X'',1", Kind::XaStart),
            ("XA END X'01'", Kind::Mark),
            ("XA COMMIT X'01'", Kind::XaFinish),
            ("FLUSH PRIVILEGES", Kind::Other),
            ("", Kind::Other),
        ] {
            assert_eq!(kind(sql.as_bytes()), expected, "{sql}");
        }
    }

    #[test]
    fn no_text_is_read_as_names() {
        let tokens: Vec<_> = Tokens::new(br#"a "b`c" 'd''e\'' `f``g`.h"#).map(|(_, token)| token).collect();
        let expected = [
            Token::Word(b"a"),
            Token::Text,
            Token::Text,
            Token::Name(b"f`g".to_vec()),
            Token::Sign(b'.'),
            Token::Word(b"h"),
        ];
        assert_eq!(tokens, expected);
        for sql in ["`", "'", "/*", "/*!", "'\\", "--"] {
            assert!(Tokens::new(sql.as_bytes()).count() <= 1, "{sql}");
        }
    }
}
