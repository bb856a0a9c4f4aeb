//! What kind of statement a text is, told from its first words.

use crate::lexer::{Lexer, Token, TokenKind};

/// The kinds that routing tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StatementKind {
    /// SELECT, `(SELECT …)`, `WITH … SELECT`, `VALUES ROW(…)`, `TABLE t`.
    Select,
    /// `stream * from t` and `vstream …`.
    Stream,
    Insert,
    Replace,
    Update,
    Delete,
    /// CREATE, ALTER, DROP, RENAME, TRUNCATE (and `create user`, `grant`: see [`StatementKind::Priv`]).
    Ddl,
    /// `alter vschema …`.
    VschemaDdl,
    Begin,
    Commit,
    Rollback,
    Savepoint,
    Release,
    /// `rollback to [savepoint] x`.
    RollbackTo,
    Set,
    Show,
    Use,
    Explain,
    /// `describe t`, `desc t`.
    Describe,
    Call,
    Do,
    /// PREPARE, EXECUTE, DEALLOCATE in text form.
    Prepare,
    Execute,
    Deallocate,
    Kill,
    LockTables,
    UnlockTables,
    Flush,
    Load,
    /// ANALYZE, OPTIMIZE, REPAIR, CHECK, CHECKSUM TABLE.
    Maintenance,
    /// GRANT, REVOKE and their like.
    Priv,
    /// HANDLER, XA, PURGE, RESET, CACHE INDEX, HELP, SIGNAL, BINLOG, CHANGE MASTER, SHUTDOWN …: known to mysqld, not planned here.
    Other,
    /// `revert vitess_migration`, `vexplain` … of later Vitess: recognised, not built.
    VitessCommand,
    /// Nothing but comments and blanks.
    Comment,
    /// Nothing at all, or nothing but `;`.
    Empty,
    /// The first word begins no statement.
    Unknown,
}

impl StatementKind {
    /// Vitess's name of the kind, used in metrics and logs.
    pub fn name(self) -> &'static str {
        use StatementKind::*;
        match self {
            Select => "SELECT",
            Stream => "STREAM",
            Insert => "INSERT",
            Replace => "REPLACE",
            Update => "UPDATE",
            Delete => "DELETE",
            Ddl | VschemaDdl => "DDL",
            Begin => "BEGIN",
            Commit => "COMMIT",
            Rollback => "ROLLBACK",
            Savepoint => "SAVEPOINT",
            Release => "RELEASE",
            RollbackTo => "SAVEPOINT_ROLLBACK",
            Set => "SET",
            Show => "SHOW",
            Use => "USE",
            Explain | Describe => "EXPLAIN",
            Call => "CALL",
            Do => "DO",
            Prepare => "PREPARE",
            Execute => "EXECUTE",
            Deallocate => "DEALLOCATE",
            Kill => "KILL",
            LockTables => "LOCK_TABLES",
            UnlockTables => "UNLOCK_TABLES",
            Flush => "FLUSH",
            Load => "LOAD",
            Priv => "PRIV",
            Maintenance | Other | VitessCommand => "OTHER",
            Comment => "COMMENT",
            Empty => "EMPTY",
            Unknown => "UNKNOWN",
        }
    }

    /// INSERT, REPLACE, UPDATE, DELETE.
    pub fn is_dml(self) -> bool {
        matches!(self, Self::Insert | Self::Replace | Self::Update | Self::Delete)
    }

    /// Whether literals of such statements become bind variables.
    pub fn is_normalized(self) -> bool {
        self == Self::Select || self.is_dml()
    }
}

/// The kind of the first statement in `sql`. Leading comments are skipped; no validation behind
/// the first words.
pub fn preview(sql: impl AsRef<[u8]>) -> StatementKind {
    preview_bytes(sql.as_ref())
}

fn preview_bytes(sql: &[u8]) -> StatementKind {
    let mut lexer = Lexer::new(sql);
    let mut comments = false;
    loop {
        let Some(token) = lexer.next() else {
            return if comments { StatementKind::Comment } else { StatementKind::Empty };
        };
        match token.kind {
            // Only what stands alone counts as a comment: `/*!40101 SET … */` is answered with OK as by Vitess.
            TokenKind::Comment | TokenKind::ExecutableComment => comments = true,
            TokenKind::Punct if token.bytes(sql) == b"(" => {}
            TokenKind::Punct if token.bytes(sql) == b";" && !comments => {}
            TokenKind::Word => return of_word(sql, token, lexer),
            _ => return StatementKind::Unknown,
        }
    }
}

fn of_word(sql: &[u8], first: Token, rest: Lexer<'_>) -> StatementKind {
    use StatementKind::*;
    let word = first.bytes(sql);
    if word.len() > MAX_WORD {
        return Unknown;
    }
    let mut lower = [0u8; MAX_WORD];
    let lower = &mut lower[..word.len()];
    lower.copy_from_slice(word);
    lower.make_ascii_lowercase();
    let mut words = rest.filter(|t| t.kind != TokenKind::Comment);
    let mut next_is = |expected: &[&str]| words.next().is_some_and(|t| expected.iter().any(|w| t.is_word(sql, w)));
    match &*lower {
        b"select" | b"values" | b"table" => Select,
        b"with" => of_cte(sql, words),
        b"insert" => Insert,
        b"replace" => Replace,
        b"update" => Update,
        b"delete" => Delete,
        b"stream" | b"vstream" => Stream,
        b"alter" => match words.next() {
            Some(t) if t.is_word(sql, "vschema") => VschemaDdl,
            Some(t) if t.is_word(sql, "vitess_migration") => VitessCommand,
            Some(t) if t.is_word(sql, "user") => Priv,
            _ => Ddl,
        },
        b"create" | b"drop" => match words.next() {
            Some(t) if t.is_word(sql, "user") || t.is_word(sql, "role") => Priv,
            Some(t) if t.is_word(sql, "prepare") => Deallocate,
            _ => Ddl,
        },
        b"rename" if next_is(&["user"]) => Priv,
        b"rename" | b"truncate" => Ddl,
        b"begin" => Begin,
        b"start" if next_is(&["transaction"]) => Begin,
        b"start" | b"stop" => Other,
        b"commit" => Commit,
        b"rollback" => {
            let mut next = words.next();
            if next.is_some_and(|t| t.is_word(sql, "work")) {
                next = words.next();
            }
            if next.is_some_and(|t| t.is_word(sql, "to")) { RollbackTo } else { Rollback }
        }
        b"savepoint" => Savepoint,
        b"release" => Release,
        b"set" => match words.next() {
            Some(t) if t.is_word(sql, "password") || t.is_word(sql, "role") => Priv,
            Some(t) if t.is_word(sql, "default") && words.next().is_some_and(|t| t.is_word(sql, "role")) => Priv,
            _ => Set,
        },
        b"show" => Show,
        b"use" => Use,
        b"explain" => Explain,
        b"desc" | b"describe" => Describe,
        b"call" => Call,
        b"do" => Do,
        b"prepare" => Prepare,
        b"execute" => Execute,
        b"deallocate" => Deallocate,
        b"kill" => Kill,
        b"lock" => LockTables,
        b"unlock" => UnlockTables,
        b"flush" => Flush,
        b"load" => Load,
        b"analyze" if next_is(&["select", "insert", "update", "delete", "with", "format"]) => Explain,
        b"analyze" | b"optimize" | b"repair" | b"check" | b"checksum" => Maintenance,
        b"grant" | b"revoke" => Priv,
        b"handler" | b"xa" | b"purge" | b"reset" | b"cache" | b"help" | b"signal" | b"resignal" | b"get"
        | b"binlog" | b"change" | b"shutdown" | b"restart" | b"install" | b"uninstall" | b"import" | b"clone" => Other,
        b"revert" | b"vexplain" => VitessCommand,
        _ => Unknown,
    }
}

/// Longest first word that is known.
const MAX_WORD: usize = 12;

/// The statement behind the list of common table expressions: the first verb outside parentheses.
fn of_cte(sql: &[u8], words: impl Iterator<Item = Token>) -> StatementKind {
    let mut depth = 0usize;
    for token in words {
        match token.bytes(sql) {
            b"(" => depth += 1,
            b")" => depth = depth.saturating_sub(1),
            _ if depth > 0 || token.kind != TokenKind::Word => {}
            word if word.eq_ignore_ascii_case(b"select") => return StatementKind::Select,
            word if word.eq_ignore_ascii_case(b"update") => return StatementKind::Update,
            word if word.eq_ignore_ascii_case(b"delete") => return StatementKind::Delete,
            word if word.eq_ignore_ascii_case(b"insert") => return StatementKind::Insert,
            word if word.eq_ignore_ascii_case(b"replace") => return StatementKind::Replace,
            _ => {}
        }
    }
    StatementKind::Select
}

#[cfg(test)]
mod tests {
    use super::*;
    use StatementKind::*;

    #[test]
    fn the_first_words_tell() {
        for (sql, kind) in [
            ("select 1", Select),
            ("  SELECT 1", Select),
            ("((select 1) union (select 2))", Select),
            ("/* a */ -- b\n select 1", Select),
            ("with x as (select 1) select * from x", Select),
            ("with x as (select 1) delete from t", Delete),
            ("insert into t values (1)", Insert),
            ("replace into t values (1)", Replace),
            ("alter table t add c int", Ddl),
            ("alter vschema create vindex h using hash", VschemaDdl),
            ("rollback", Rollback),
            ("rollback work to savepoint a", RollbackTo),
            ("rollback to a", RollbackTo),
            ("release savepoint a", Release),
            ("start transaction read only", Begin),
            ("start slave", Other),
            ("set @a = 1", Set),
            ("set password = 'x'", Priv),
            ("drop prepare s", Deallocate),
            ("create user a", Priv),
            ("/*!40101 SET NAMES utf8 */", Comment),
            ("/* nothing */ -- here", Comment),
            ("", Empty),
            (" ; ", Empty),
            ("selec 1", Unknown),
            ("not sql at all", Unknown),
            ("'x'", Unknown),
            ("stream * from t", Stream),
            ("analyze table t", Maintenance),
        ] {
            assert_eq!(preview(sql), kind, "{sql}");
        }
    }
}
