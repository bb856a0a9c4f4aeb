//! A reader over tokens for the statement parsers of this crate.

use crate::error::SyntaxError;
use crate::lexer::{Token, TokenKind, tokens};
use crate::words::is_keyword;

/// Tokens of one statement without comments, and where the reader stands.
pub(crate) struct Cursor<'a> {
    pub sql: &'a str,
    pub tokens: Vec<Token>,
    pub at: usize,
}

impl<'a> Cursor<'a> {
    /// Errors: a string, quoted name or comment that never ends.
    pub fn new(sql: &'a str) -> Result<Self, SyntaxError> {
        let tokens = tokens(sql.as_bytes());
        let cursor = Self { sql, tokens, at: 0 };
        match cursor.tokens.last() {
            Some(last) if last.kind == TokenKind::Unterminated => Err(cursor.error_at(cursor.tokens.len() - 1)),
            _ => Ok(cursor),
        }
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.sql.as_bytes()
    }

    pub fn peek(&self) -> Option<Token> {
        self.tokens.get(self.at).copied()
    }

    pub fn peek_at(&self, ahead: usize) -> Option<Token> {
        self.tokens.get(self.at + ahead).copied()
    }

    pub fn next(&mut self) -> Option<Token> {
        let token = self.peek()?;
        self.at += 1;
        Some(token)
    }

    pub fn done(&self) -> bool {
        self.at >= self.tokens.len()
    }

    /// The text of a token.
    pub fn text(&self, token: Token) -> &'a str {
        &self.sql[token.start..token.end]
    }

    /// Whether the next token is this bare word.
    pub fn is(&self, word: &str) -> bool {
        self.is_at(0, word)
    }

    pub fn is_at(&self, ahead: usize, word: &str) -> bool {
        self.peek_at(ahead).is_some_and(|t| t.is_word(self.bytes(), word))
    }

    pub fn is_any(&self, words: &[&str]) -> bool {
        words.iter().any(|word| self.is(word))
    }

    /// The next bare word in lower case; empty when the next token is none.
    pub fn word(&self) -> String {
        match self.peek() {
            Some(token) if token.kind == TokenKind::Word => self.text(token).to_ascii_lowercase(),
            _ => String::new(),
        }
    }

    /// Takes the word if it is next.
    pub fn take(&mut self, word: &str) -> bool {
        let found = self.is(word);
        self.at += usize::from(found);
        found
    }

    /// Takes the words if all are next.
    pub fn take_all(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(i, word)| self.is_at(i, word));
        self.at += if found { words.len() } else { 0 };
        found
    }

    /// Takes words as long as they are among `words`.
    pub fn skip_any(&mut self, words: &[&str]) {
        while self.is_any(words) {
            self.at += 1;
        }
    }

    pub fn is_punct(&self, punct: &str) -> bool {
        self.peek().is_some_and(|t| t.is_punct(self.bytes(), punct))
    }

    pub fn take_punct(&mut self, punct: &str) -> bool {
        let found = self.is_punct(punct);
        self.at += usize::from(found);
        found
    }

    /// Takes an identifier, bare or quoted.
    pub fn name(&mut self) -> Option<String> {
        let name = self.peek()?.name(self.bytes())?;
        self.at += 1;
        Some(name)
    }

    /// As [`Cursor::name`]; an error otherwise.
    pub fn expect_name(&mut self) -> Result<String, SyntaxError> {
        self.name().ok_or_else(|| self.error())
    }

    /// Takes a string literal.
    pub fn string(&mut self) -> Option<String> {
        let value = self.peek()?.string_value(self.bytes())?;
        self.at += 1;
        Some(String::from_utf8_lossy(&value).into_owned())
    }

    /// Moves behind the `)` that closes the `(` at the reader.
    pub fn skip_parens(&mut self) {
        let mut depth = 0usize;
        while let Some(token) = self.next() {
            if token.is_punct(self.bytes(), "(") {
                depth += 1;
            } else if token.is_punct(self.bytes(), ")") {
                depth = depth.saturating_sub(1);
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// An error at the end of the statement unless everything has been read.
    pub fn expect_end(&self) -> Result<(), SyntaxError> {
        if self.done() { Ok(()) } else { Err(self.error()) }
    }

    /// The error that stands at the reader.
    pub fn error(&self) -> SyntaxError {
        self.error_at(self.at)
    }

    fn error_at(&self, index: usize) -> SyntaxError {
        match self.tokens.get(index) {
            Some(&token) => {
                let text = self.text(token);
                let near = if token.kind == TokenKind::Word && is_keyword(text) {
                    text.to_ascii_lowercase()
                } else if token.kind == TokenKind::String {
                    text[1..text.len() - 1].to_owned()
                } else {
                    text.to_owned()
                };
                SyntaxError { position: token.end + 1, near }
            }
            None => SyntaxError { position: self.sql.len() + 1, near: String::new() },
        }
    }
}
