//! MySQL's lexical rules over bytes: the one place that knows where a token ends.
//!
//! Invariants: tokens never overlap, together with the blanks between them they cover the text, and
//! any byte sequence is accepted (what cannot be told is a [`TokenKind::Other`] of one byte, an
//! unterminated string or comment reaches to the end and says so). No UTF-8 is required: bytes over
//! 127 count as letters of identifiers.

/// What a token is. Contents are looked up in the text by the token's span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Keyword or bare identifier.
    Word,
    /// `` `name` ``.
    Quoted,
    /// `'…'` or `"…"`.
    String,
    /// `N'…'`, `x'…'`, `b'…'`: a string with a prefix that belongs to it.
    PrefixedString,
    /// Digits only.
    Integer,
    /// With a point or an exponent.
    Float,
    /// `0xff` or `0b01`.
    HexOrBit,
    /// `:name`.
    BindVar,
    /// `::name`.
    ListVar,
    /// `?`.
    Placeholder,
    /// `@name`, `` @`name` ``, `@'name'`.
    UserVar,
    /// `@@name`, `@@session.name` …, the whole of it.
    SystemVar,
    /// `-- …`, `# …`, `/* … */`.
    Comment,
    /// `/*! … */` and `/*M! … */`: mysqld runs what is inside.
    ExecutableComment,
    /// One operator or punctuation mark, up to three bytes (`<=>`, `->>`).
    Punct,
    /// A string, quoted name or comment that never ends.
    Unterminated,
    /// A byte that begins nothing (a control character, a lone `\`).
    Other,
}

/// A token: kind and byte span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    pub kind: TokenKind,
    pub start: usize,
    pub end: usize,
}

impl Token {
    /// The bytes of the token.
    pub fn bytes<'a>(&self, sql: &'a [u8]) -> &'a [u8] {
        &sql[self.start..self.end]
    }

    /// Whether it is the bare word `word` (ASCII, any case).
    pub fn is_word(&self, sql: &[u8], word: &str) -> bool {
        self.kind == TokenKind::Word && self.bytes(sql).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Whether it is this operator or punctuation mark.
    pub fn is_punct(&self, sql: &[u8], punct: &str) -> bool {
        self.kind == TokenKind::Punct && self.bytes(sql) == punct.as_bytes()
    }

    /// The name that an identifier token stands for (quotes removed); `None` for other kinds.
    pub fn name(&self, sql: &[u8]) -> Option<String> {
        let bytes = self.bytes(sql);
        match self.kind {
            TokenKind::Word => Some(String::from_utf8_lossy(bytes).into_owned()),
            TokenKind::Quoted => {
                let inside = String::from_utf8_lossy(&bytes[1..bytes.len() - 1]);
                Some(if inside.contains('`') { inside.replace("``", "`") } else { inside.into_owned() })
            }
            _ => None,
        }
    }

    /// The value of a string token (escapes resolved); `None` for other kinds.
    pub fn string_value(&self, sql: &[u8]) -> Option<Vec<u8>> {
        (self.kind == TokenKind::String).then(|| {
            let bytes = self.bytes(sql);
            crate::quote::unescape(&bytes[1..bytes.len() - 1], bytes[0])
        })
    }
}

/// Byte classes, so that the scan is one table look-up a byte.
const BLANK: u8 = 1;
const LETTER: u8 = 2;
const DIGIT: u8 = 4;

static CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut b = 0usize;
    while b < 256 {
        let c = b as u8;
        table[b] = if c == b' ' || (c >= 9 && c <= 13) {
            BLANK
        } else if c.is_ascii_digit() {
            DIGIT
        } else if c.is_ascii_alphabetic() || c == b'_' || c == b'$' || c >= 128 {
            LETTER
        } else {
            0
        };
        b += 1;
    }
    table
};

/// Whether a byte may stand inside a bare identifier.
pub(crate) fn is_identifier_byte(b: u8) -> bool {
    CLASS[b as usize] & (LETTER | DIGIT) != 0
}

pub(crate) fn is_blank(b: u8) -> bool {
    CLASS[b as usize] == BLANK
}

/// Walks the tokens of a text, comments included.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    sql: &'a [u8],
    at: usize,
    /// The token before was a `.`, so that digits begin a name (`t.1a`).
    after_dot: bool,
}

impl<'a> Lexer<'a> {
    pub fn new(sql: &'a [u8]) -> Self {
        Self { sql, at: 0, after_dot: false }
    }

    /// Starts at a byte offset, which must be a token's start or a blank.
    pub fn at(sql: &'a [u8], offset: usize) -> Self {
        Self { sql, at: offset, after_dot: false }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.sql.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn skip_identifier(&mut self) {
        while self.at < self.sql.len() && is_identifier_byte(self.sql[self.at]) {
            self.at += 1;
        }
    }

    /// Moves behind a quoted text that starts here. `false` when it does not end.
    fn skip_quoted(&mut self) -> bool {
        let quote = self.sql[self.at];
        let escapes = quote != b'`';
        self.at += 1;
        while self.at < self.sql.len() {
            let b = self.sql[self.at];
            self.at += 1;
            if b == quote {
                if self.peek(0) == quote && self.at < self.sql.len() {
                    self.at += 1;
                } else {
                    return true;
                }
            } else if b == b'\\' && escapes {
                self.at = (self.at + 1).min(self.sql.len());
            }
        }
        false
    }

    fn skip_line(&mut self) {
        while self.at < self.sql.len() && self.sql[self.at] != b'\n' {
            self.at += 1;
        }
    }

    fn comment(&mut self) -> TokenKind {
        let executable = self.peek(2) == b'!'
            || (self.peek(2) == b'M' && self.peek(3) == b'!')
            || (self.peek(2) == b'm' && self.peek(3) == b'!');
        self.at += 2;
        while self.at < self.sql.len() {
            if self.sql[self.at] == b'*' && self.peek(1) == b'/' {
                self.at += 2;
                return if executable { TokenKind::ExecutableComment } else { TokenKind::Comment };
            }
            self.at += 1;
        }
        TokenKind::Unterminated
    }

    /// A number, or a word that begins with digits (MySQL allows `1a` as a name).
    fn number(&mut self) -> TokenKind {
        let start = self.at;
        if self.sql[self.at] == b'0' && matches!(self.peek(1), b'x' | b'b') {
            let hex = self.peek(1) == b'x';
            let mut end = self.at + 2;
            while end < self.sql.len()
                && if hex { self.sql[end].is_ascii_hexdigit() } else { matches!(self.sql[end], b'0' | b'1') }
            {
                end += 1;
            }
            let ends = self.sql.get(end).is_none_or(|&b| !is_identifier_byte(b));
            if end > self.at + 2 && ends {
                self.at = end;
                return TokenKind::HexOrBit;
            }
        }
        let digits = |lexer: &mut Self| {
            while lexer.at < lexer.sql.len() && lexer.sql[lexer.at].is_ascii_digit() {
                lexer.at += 1;
            }
        };
        digits(self);
        let whole = self.at;
        let mut kind = TokenKind::Integer;
        if self.peek(0) == b'.' {
            self.at += 1;
            digits(self);
            kind = TokenKind::Float;
        }
        if matches!(self.peek(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                self.at += 1 + sign;
                digits(self);
                kind = TokenKind::Float;
            }
        }
        // `1a` is a name; `1.5a` is a number with an alias.
        if kind == TokenKind::Integer && self.at == whole && whole > start && is_identifier_byte(self.peek(0)) {
            self.skip_identifier();
            return TokenKind::Word;
        }
        kind
    }

    fn variable(&mut self) -> TokenKind {
        let kind = if self.peek(1) == b'@' { TokenKind::SystemVar } else { TokenKind::UserVar };
        self.at += if kind == TokenKind::SystemVar { 2 } else { 1 };
        loop {
            match self.peek(0) {
                b'`' | b'\'' | b'"' if self.at < self.sql.len() => {
                    if !self.skip_quoted() {
                        return TokenKind::Unterminated;
                    }
                }
                _ => self.skip_identifier(),
            }
            // `@@session.x` and `@a.b` go on behind a point.
            let next = self.peek(1);
            if self.peek(0) == b'.' && (is_identifier_byte(next) || next == b'`') {
                self.at += 1;
            } else {
                return kind;
            }
        }
    }

    fn punct(&mut self) -> TokenKind {
        let rest = &self.sql[self.at..];
        let length =
            [&b"<=>"[..], b"->>", b"<<=", b">>="].iter().find(|long| rest.starts_with(long)).map_or(0, |_| 3).max(
                [&b"<="[..], b">=", b"<>", b"!=", b"<<", b">>", b"||", b"&&", b":=", b"->"]
                    .iter()
                    .find(|long| rest.starts_with(long))
                    .map_or(1, |_| 2),
            );
        let length = if rest.starts_with(b"<<=") || rest.starts_with(b">>=") { 2 } else { length };
        self.at += length;
        TokenKind::Punct
    }
}

impl Iterator for Lexer<'_> {
    type Item = Token;

    fn next(&mut self) -> Option<Token> {
        while self.at < self.sql.len() && is_blank(self.sql[self.at]) {
            self.at += 1;
        }
        let start = self.at;
        let &first = self.sql.get(start)?;
        let quoted = |lexer: &mut Self, kind| if lexer.skip_quoted() { kind } else { TokenKind::Unterminated };
        let after_dot = std::mem::take(&mut self.after_dot);
        let kind = match first {
            b'\'' | b'"' => quoted(self, TokenKind::String),
            b'`' => quoted(self, TokenKind::Quoted),
            b'n' | b'N' | b'x' | b'X' | b'b' | b'B' if self.peek(1) == b'\'' => {
                self.at += 1;
                quoted(self, TokenKind::PrefixedString)
            }
            b'0'..=b'9' if after_dot => {
                self.skip_identifier();
                TokenKind::Word
            }
            b'0'..=b'9' => self.number(),
            // After an identifier it is `t.1a`; `select .5` has something else in front.
            b'.' if self.peek(1).is_ascii_digit() && !self.follows_name(start) => self.number(),
            _ if CLASS[first as usize] == LETTER => {
                self.skip_identifier();
                TokenKind::Word
            }
            b'-' if self.peek(1) == b'-' && (start + 2 >= self.sql.len() || self.peek(2) <= b' ') => {
                self.skip_line();
                TokenKind::Comment
            }
            b'#' => {
                self.skip_line();
                TokenKind::Comment
            }
            b'/' if self.peek(1) == b'*' => self.comment(),
            b'?' => {
                self.at += 1;
                TokenKind::Placeholder
            }
            b'@' => self.variable(),
            b':' if self.peek(1) == b':' && CLASS[self.peek(2) as usize] & (LETTER | DIGIT) != 0 => {
                self.at += 2;
                self.skip_identifier();
                TokenKind::ListVar
            }
            b':' if CLASS[self.peek(1) as usize] & LETTER != 0 || self.peek(1) == b'#' => {
                self.at += if self.peek(1) == b'#' { 2 } else { 1 };
                self.skip_identifier();
                TokenKind::BindVar
            }
            b'!'..=b'~' if first != b'\\' => self.punct(),
            _ => {
                self.at += 1;
                TokenKind::Other
            }
        };
        self.after_dot = kind == TokenKind::Punct && first == b'.';
        Some(Token { kind, start, end: self.at })
    }
}

impl Lexer<'_> {
    /// Whether an identifier ends right in front of `at`.
    fn follows_name(&self, at: usize) -> bool {
        at > 0 && (is_identifier_byte(self.sql[at - 1]) || self.sql[at - 1] == b'`')
    }
}

/// The tokens of a text without its ordinary comments.
pub fn tokens(sql: &[u8]) -> Vec<Token> {
    Lexer::new(sql).filter(|token| token.kind != TokenKind::Comment).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(sql: &str) -> Vec<(TokenKind, &str)> {
        Lexer::new(sql.as_bytes()).map(|t| (t.kind, &sql[t.start..t.end])).collect()
    }

    #[test]
    fn tokens_end_where_mysqls_end() {
        use TokenKind::*;
        assert_eq!(
            kinds("a1 1a 1 1.5 .5 1e3 0xfF"),
            [
                (Word, "a1"),
                (Word, "1a"),
                (Integer, "1"),
                (Float, "1.5"),
                (Float, ".5"),
                (Float, "1e3"),
                (HexOrBit, "0xfF")
            ]
        );
        assert_eq!(kinds("'a''b\\'c' \"x\" `q``r`"), [(String, "'a''b\\'c'"), (String, "\"x\""), (Quoted, "`q``r`")]);
        assert_eq!(
            kinds("N'a' x'ff' b'1' nb"),
            [(PrefixedString, "N'a'"), (PrefixedString, "x'ff'"), (PrefixedString, "b'1'"), (Word, "nb")]
        );
        assert_eq!(kinds("1--1"), [(Integer, "1"), (Punct, "-"), (Punct, "-"), (Integer, "1")]);
        assert_eq!(
            kinds("1-- 1\n2# x\n3/* y */"),
            [(Integer, "1"), (Comment, "-- 1"), (Integer, "2"), (Comment, "# x"), (Integer, "3"), (Comment, "/* y */")]
        );
        assert_eq!(
            kinds("@a @@session.b @`c d` :x ::y := ?"),
            [
                (UserVar, "@a"),
                (SystemVar, "@@session.b"),
                (UserVar, "@`c d`"),
                (BindVar, ":x"),
                (ListVar, "::y"),
                (Punct, ":="),
                (Placeholder, "?")
            ]
        );
        assert_eq!(
            kinds("t.1a<=>b->>'$'"),
            [(Word, "t"), (Punct, "."), (Word, "1a"), (Punct, "<=>"), (Word, "b"), (Punct, "->>"), (String, "'$'")]
        );
        assert_eq!(
            kinds("/*!40101 x */ /*M! y */"),
            [(ExecutableComment, "/*!40101 x */"), (ExecutableComment, "/*M! y */")]
        );
    }

    #[test]
    fn what_never_ends_is_said_and_not_a_panic() {
        for sql in ["'a", "`a", "/* a", "'a\\", "@`a", "x'1", "\""] {
            let last = Lexer::new(sql.as_bytes()).last().expect("a token");
            assert_eq!((last.kind, last.end), (TokenKind::Unterminated, sql.len()), "{sql}");
        }
        assert_eq!(Lexer::new(b"\\\0\xff").count(), 3);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_covered_once(sql in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)) {
            let mut at = 0;
            for token in Lexer::new(&sql) {
                assert!(token.start >= at && token.end > token.start && token.end <= sql.len());
                assert!(sql[at..token.start].iter().all(|&b| is_blank(b)));
                at = token.end;
            }
        }
    }
}
