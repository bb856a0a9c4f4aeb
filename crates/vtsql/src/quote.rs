//! Writing values and names as SQL text.

/// Appends `bytes` as a quoted SQL string. Every byte that MySQL's lexer or a log could trip over
/// is escaped; right under every `sql_mode` but `NO_BACKSLASH_ESCAPES`.
pub fn quote_string(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'\'');
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&b| ESCAPES[b as usize] != 0) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(&[b'\\', ESCAPES[rest[at] as usize]]);
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'\'');
}

/// The letter behind the backslash for each byte, 0 for bytes that stand for themselves.
static ESCAPES: [u8; 256] = {
    let mut table = [0u8; 256];
    table[0] = b'0';
    table[b'\'' as usize] = b'\'';
    table[b'"' as usize] = b'"';
    table[8] = b'b';
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'\t' as usize] = b't';
    table[26] = b'Z';
    table[b'\\' as usize] = b'\\';
    table
};

/// A name in backquotes, with backquotes inside doubled.
pub fn quote_identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// The value of the inside of a string literal whose quote is `quote`: backslash escapes and doubled
/// quotes resolved. `\%` and `\_` keep their backslash, as in MySQL.
pub fn unescape(inside: &[u8], quote: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(inside.len());
    let mut i = 0;
    while i < inside.len() {
        let b = inside[i];
        if b == b'\\' && i + 1 < inside.len() {
            i += 1;
            match inside[i] {
                b'0' => out.push(0),
                b'b' => out.push(8),
                b'n' => out.push(b'\n'),
                b'r' => out.push(b'\r'),
                b't' => out.push(b'\t'),
                b'Z' => out.push(26),
                wildcard @ (b'%' | b'_') => out.extend_from_slice(&[b'\\', wildcard]),
                other => out.push(other),
            }
        } else if b == quote && inside.get(i + 1) == Some(&quote) {
            out.push(quote);
            i += 1;
        } else {
            out.push(b);
        }
        i += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quoted(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        quote_string(bytes, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn what_could_end_a_string_is_escaped() {
        assert_eq!(quoted(b"it's"), r"'it\'s'");
        assert_eq!(quoted(b"a\\"), r"'a\\'");
        assert_eq!(quoted(b"\0\n\r\x1a\""), "'\\0\\n\\r\\Z\\\"'");
        assert_eq!(quote_identifier("a`b"), "`a``b`");
    }

    #[test]
    fn unescaping_undoes_quoting() {
        let all: Vec<u8> = (0..=255).collect();
        let mut out = Vec::new();
        quote_string(&all, &mut out);
        assert_eq!(unescape(&out[1..out.len() - 1], b'\''), all);
        assert_eq!(unescape(b"a''b", b'\''), b"a'b");
        assert_eq!(unescape(b"a''b", b'"'), b"a''b");
        assert_eq!(unescape(br"50\%", b'\''), br"50\%");
    }
}
