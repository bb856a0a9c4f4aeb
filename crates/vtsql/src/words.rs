//! Small word lists, compared without allocation.

/// Longest word in any list of this file.
const LONGEST: usize = 20;

/// A word in lower case on the stack; empty when it is longer than every listed word.
#[derive(Clone, Copy)]
pub(crate) struct Lower {
    bytes: [u8; LONGEST],
    len: usize,
}

impl Lower {
    pub(crate) const NONE: Self = Self { bytes: [0; LONGEST], len: 0 };

    #[inline]
    pub(crate) fn of(word: &[u8]) -> Self {
        let mut lower = Self::NONE;
        if word.len() <= LONGEST {
            lower.len = word.len();
            for (to, from) in lower.bytes.iter_mut().zip(word) {
                *to = from.to_ascii_lowercase();
            }
        }
        lower
    }

    #[inline]
    pub(crate) fn get(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Keywords directly behind which an operand stands: a string there is a value and not an alias, a
/// minus there is a sign.
pub(crate) fn introduces_operand(word: &[u8]) -> bool {
    matches!(
        word,
        b"select"
            | b"distinct"
            | b"distinctrow"
            | b"all"
            | b"when"
            | b"then"
            | b"else"
            | b"case"
            | b"like"
            | b"rlike"
            | b"regexp"
            | b"and"
            | b"or"
            | b"xor"
            | b"not"
            | b"in"
            | b"between"
            | b"div"
            | b"mod"
            | b"is"
            | b"binary"
            | b"interval"
            | b"escape"
            | b"where"
            | b"on"
            | b"having"
            | b"limit"
            | b"offset"
            | b"set"
            | b"values"
            | b"value"
            | b"any"
            | b"some"
            | b"against"
            | b"from"
            | b"leading"
            | b"trailing"
            | b"both"
            | b"sql_calc_found_rows"
            | b"straight_join"
            | b"high_priority"
            | b"sql_no_cache"
            | b"sql_cache"
            | b"sql_small_result"
            | b"sql_big_result"
            | b"sql_buffer_result"
    )
}

/// Type names whose parenthesised numbers are part of the type.
pub(crate) fn is_sized_type(word: &[u8]) -> bool {
    matches!(
        word,
        b"decimal"
            | b"dec"
            | b"numeric"
            | b"char"
            | b"nchar"
            | b"binary"
            | b"varchar"
            | b"varbinary"
            | b"datetime"
            | b"float"
            | b"double"
    )
}

/// Functions whose value belongs to the client's session, when followed by `(`.
pub(crate) fn is_session_function(word: &[u8]) -> bool {
    matches!(word, b"last_insert_id" | b"found_rows" | b"row_count" | b"database" | b"schema")
}
