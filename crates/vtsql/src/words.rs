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
    matches!(word, b"last_insert_id" | b"found_rows" | b"row_count" | b"connection_id" | b"database" | b"schema")
}

/// Columns of information_schema that hold a database's name.
pub(crate) fn is_schema_column(word: &[u8]) -> bool {
    matches!(
        word,
        b"table_schema"
            | b"schema_name"
            | b"constraint_schema"
            | b"index_schema"
            | b"routine_schema"
            | b"trigger_schema"
            | b"event_schema"
            | b"event_object_schema"
            | b"referenced_table_schema"
            | b"unique_constraint_schema"
    )
}

/// Whether a bare word is printed in lower case by Vitess: it is a keyword of the grammar there.
pub(crate) fn is_keyword(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    KEYWORDS.binary_search(&lower.as_str()).is_ok()
}

/// Sorted.
static KEYWORDS: &[&str] = &[
    "add",
    "against",
    "all",
    "alter",
    "analyze",
    "and",
    "any",
    "as",
    "asc",
    "begin",
    "between",
    "binary",
    "both",
    "by",
    "case",
    "cast",
    "char",
    "character",
    "collate",
    "column",
    "commit",
    "convert",
    "create",
    "cross",
    "current_date",
    "current_time",
    "current_timestamp",
    "database",
    "databases",
    "default",
    "delayed",
    "delete",
    "desc",
    "describe",
    "distinct",
    "div",
    "drop",
    "duplicate",
    "else",
    "end",
    "escape",
    "except",
    "exists",
    "explain",
    "false",
    "first",
    "for",
    "force",
    "from",
    "full",
    "global",
    "group",
    "grouping",
    "groups",
    "having",
    "high_priority",
    "if",
    "ignore",
    "in",
    "index",
    "inner",
    "insert",
    "intersect",
    "interval",
    "into",
    "is",
    "join",
    "key",
    "last_insert_id",
    "left",
    "like",
    "limit",
    "localtime",
    "localtimestamp",
    "lock",
    "low_priority",
    "match",
    "mod",
    "mode",
    "natural",
    "next",
    "not",
    "null",
    "off",
    "offset",
    "on",
    "or",
    "order",
    "outer",
    "outfile",
    "over",
    "partition",
    "primary",
    "procedure",
    "query",
    "recursive",
    "regexp",
    "release",
    "rename",
    "replace",
    "right",
    "rlike",
    "rollback",
    "row",
    "rows",
    "savepoint",
    "schema",
    "select",
    "separator",
    "session",
    "set",
    "share",
    "show",
    "sql_calc_found_rows",
    "sql_no_cache",
    "start",
    "straight_join",
    "stream",
    "table",
    "tables",
    "then",
    "to",
    "trailing",
    "transaction",
    "true",
    "truncate",
    "union",
    "unique",
    "unlock",
    "update",
    "use",
    "using",
    "utc_date",
    "utc_time",
    "utc_timestamp",
    "value",
    "values",
    "vschema",
    "when",
    "where",
    "window",
    "with",
    "work",
    "write",
    "xor",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyword_list_is_sorted() {
        assert!(KEYWORDS.is_sorted());
        assert!(is_keyword("SELECT") && !is_keyword("customer"));
    }
}
