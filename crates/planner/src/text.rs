//! Changes to a statement's text before it goes to tablets, by byte span.

use vtsql::lexer::{TokenKind, tokens};
use vtsql::{StatementKind, TableRef, quote_identifier};

/// Collected changes; they do not overlap.
pub(crate) struct Edits<'a> {
    sql: &'a str,
    edits: Vec<(usize, usize, String)>,
}

impl<'a> Edits<'a> {
    pub fn new(sql: &'a str) -> Self {
        Self { sql, edits: Vec::new() }
    }

    /// Puts `by` in place of a span.
    pub fn replace(&mut self, span: (usize, usize), by: &str) {
        if !self.edits.iter().any(|(start, end, _)| span.0 < *end && *start < span.1) {
            self.edits.push((span.0, span.1, by.to_owned()));
        }
    }

    /// Cuts `ks.` in front of a table.
    pub fn cut_qualifier(&mut self, span: (usize, usize)) {
        self.replace(span, "");
    }

    /// Cuts `ks.` in columns written `ks.table.column`.
    pub fn cut_column_qualifier(&mut self, qualifier: &str, table: &str) {
        let sql = self.sql.as_bytes();
        let tokens = tokens(sql);
        for window in tokens.windows(4) {
            let [first, dot, second, dot2] = window else { continue };
            let named = first.name(sql).as_deref() == Some(qualifier) && second.name(sql).as_deref() == Some(table);
            if named && dot.is_punct(sql, ".") && dot2.is_punct(sql, ".") && first.kind != TokenKind::String {
                self.replace((first.start, second.start), "");
            }
        }
    }

    /// Puts a routed table's real name in place of the written one, which stays as alias where the
    /// grammar allows one: columns may be qualified with it.
    pub fn rename(&mut self, kind: StatementKind, reference: &TableRef, name: &str) {
        let mut by = quote_identifier(name);
        let takes_alias = matches!(kind, StatementKind::Select | StatementKind::Update);
        if reference.alias.is_none() && takes_alias {
            by.push_str(" as ");
            by.push_str(&self.sql[reference.name_span.0..reference.name_span.1]);
        }
        self.replace(reference.name_span, &by);
    }

    /// The text with all changes made.
    pub fn apply(mut self) -> String {
        if self.edits.is_empty() {
            return self.sql.to_owned();
        }
        self.edits.sort_by_key(|edit| edit.0);
        let mut out = String::with_capacity(self.sql.len());
        let mut copied = 0;
        for (start, end, by) in self.edits {
            out.push_str(&self.sql[copied..start]);
            out.push_str(&by);
            copied = end;
        }
        out.push_str(&self.sql[copied..]);
        out
    }
}
