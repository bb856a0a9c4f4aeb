//! How a failure inside the tablet becomes the error a vtgate sees, word for word as Vitess words it.
//!
//! Owns: [`ExecError`], the text `message (errno N) (sqlstate S) (CallerID: u): Sql: "…", BindVars: {…}`,
//! its shortening and its terse form. Does not own: which errno means which code (`vterrors`).

use std::borrow::Cow;

use mysql::ClientError;
use vterrors::{Code, MysqlError, VtError, code_for_errno};
use vtproto::query::{BindVariable, Type, VtGateCallerId};
use vtsql::BindVars;

/// errno of a result with more rows than allowed; a number of Vitess's own.
pub const ER_ROW_LIMIT: u16 = 10_001;

/// Why a statement failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExecError {
    /// mysqld's answer, or the loss of it. Printed with statement and values.
    #[error("{error}")]
    Mysql { error: MysqlError, code: Code, connection: bool },
    /// Refused by the tablet itself.
    #[error(transparent)]
    Vt(#[from] VtError),
}

impl ExecError {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self::Vt(VtError::new(code, message))
    }

    /// An error in MySQL's terms with a code other than the errno's usual one.
    pub fn mysql(error: MysqlError, code: Code) -> Self {
        Self::Mysql { error, code, connection: false }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::Mysql { code, .. } => *code,
            Self::Vt(error) => error.code(),
        }
    }

    /// The errno, for errors of mysqld.
    pub fn errno(&self) -> Option<u16> {
        match self {
            Self::Mysql { error, .. } => Some(error.errno),
            Self::Vt(_) => None,
        }
    }

    /// The error of a statement that has taken its transaction with it, so that callers can tell: ABORTED, unless it
    /// says so anyway.
    pub fn transaction_lost(self) -> Self {
        let text = |message: &str| format!("transaction rolled back: {message}");
        match self {
            Self::Mysql { code: Code::Aborted | Code::Unavailable, .. } => self,
            Self::Mysql { ref error, .. } if error.errno == 2013 => self,
            Self::Mysql { error, connection, .. } => Self::Mysql {
                error: MysqlError { message: text(&error.message), ..error },
                code: Code::Aborted,
                connection,
            },
            Self::Vt(error) if matches!(error.code(), Code::Aborted | Code::Unavailable) => Self::Vt(error),
            Self::Vt(error) => Self::new(Code::Aborted, text(error.message())),
        }
    }

    /// Whether the connection is gone.
    pub fn is_connection_error(&self) -> bool {
        matches!(self, Self::Mysql { connection: true, .. })
    }

    /// Whether the connection was gone before the statement left: it has not run.
    pub fn is_not_sent(&self) -> bool {
        // 2006 is "gone before it was sent"; 2002 and 2003 never connected.
        matches!(self, Self::Mysql { connection: true, error, .. } if matches!(error.errno, 2002 | 2003 | 2006))
    }
}

impl From<ClientError> for ExecError {
    fn from(error: ClientError) -> Self {
        // A result so large that its rest was not read costs the connection, but the statement was answered.
        let connection = error.is_connection_error() && error.errno() != ER_ROW_LIMIT;
        let error = MysqlError::from(error);
        let code = match error.errno {
            ER_ROW_LIMIT => Code::ResourceExhausted,
            errno => code_for_errno(errno, &error.message),
        };
        Self::Mysql { error, code, connection }
    }
}

impl From<vtsql::BindError> for ExecError {
    fn from(error: vtsql::BindError) -> Self {
        Self::Vt(error.into())
    }
}

/// How error texts are cut.
#[derive(Debug, Clone, Copy, Default)]
pub struct ErrorStyle {
    /// Leave out mysqld's message and the values.
    pub terse: bool,
    /// Longest statement text, bytes; zero is unlimited.
    pub max_sql: usize,
}

/// The error as the caller is told, and nothing of it is lost in the log.
pub fn describe(
    error: ExecError,
    style: ErrorStyle,
    sql: &str,
    bind_vars: &BindVars,
    caller: Option<&VtGateCallerId>,
) -> VtError {
    let caller = caller.map(|c| format!(" (CallerID: {})", c.username)).unwrap_or_default();
    match error {
        ExecError::Vt(error) if caller.is_empty() => error,
        ExecError::Vt(error) => VtError::new(error.code(), format!("{}{caller}", error.message())),
        ExecError::Mysql { error, code, .. } => {
            // A failover in progress is said in full: its text tells a client what to do.
            let terse = style.terse && code != Code::FailedPrecondition;
            let none = BindVars::new();
            let head = if terse { "" } else { error.message.as_str() };
            let space = if terse { "" } else { " " };
            let statement = query_as_string(sql, if terse { &none } else { bind_vars }, style.max_sql);
            VtError::new(
                code,
                format!("{head}{space}(errno {}) (sqlstate {}){caller}: {statement}", error.errno, error.sqlstate),
            )
        }
    }
}

/// `Sql: "…", BindVars: {name: "type:INT64 value:\"1\" "…}`, names in order.
pub fn query_as_string(sql: &str, bind_vars: &BindVars, max_sql: usize) -> String {
    let canonical = vtsql::canonical(sql);
    let mut out = format!("Sql: {}, BindVars: {{", go_quote(truncate(&canonical, max_sql).as_bytes()));
    for (name, var) in bind_vars {
        out.push_str(name);
        out.push_str(": ");
        out.push_str(&go_quote(bind_var_text(var).as_bytes()));
    }
    out.push('}');
    out
}

/// The text form of a bind variable: `type:INT64 value:"1" `, with the blank that Go's printer leaves.
pub fn bind_var_text(var: &BindVariable) -> String {
    let mut out = String::new();
    let field = |out: &mut String, kind: i32, value: &[u8]| {
        if kind != 0 {
            let name = Type::try_from(kind).map_or_else(|_| kind.to_string(), |t| t.as_str_name().to_owned());
            out.push_str(&format!("type:{name} "));
        }
        if !value.is_empty() {
            out.push_str(&format!("value:{} ", proto_text_quote(value)));
        }
    };
    field(&mut out, var.r#type, &var.value);
    for value in &var.values {
        out.push_str("values:<");
        field(&mut out, value.r#type, &value.value);
        out.push_str("> ");
    }
    out
}

/// Bytes quoted as protobuf's text form quotes them: octal for what is not printable ASCII.
fn proto_text_quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for &b in bytes {
        match b {
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'\t' => out.push_str("\\t"),
            b'"' => out.push_str("\\\""),
            b'\\' => out.push_str("\\\\"),
            b' '..=b'~' => out.push(b as char),
            _ => out.push_str(&format!("\\{b:03o}")),
        }
    }
    out.push('"');
    out
}

/// Bytes quoted as Go's `%q` quotes them.
pub fn go_quote(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() + 2);
    out.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x07' => out.push_str("\\a"),
                '\x08' => out.push_str("\\b"),
                '\x0b' => out.push_str("\\v"),
                '\x0c' => out.push_str("\\f"),
                c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
                c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
                c => out.push(c),
            }
        }
        for b in chunk.invalid() {
            out.push_str(&format!("\\x{b:02x}"));
        }
    }
    out.push('"');
    out
}

/// `sql` cut to `max` bytes with Vitess's mark behind; zero leaves it whole.
pub fn truncate(sql: &str, max: usize) -> Cow<'_, str> {
    const MARK: &str = " [TRUNCATED]";
    if max == 0 || sql.len() <= max {
        return Cow::Borrowed(sql);
    }
    let mut cut = max.saturating_sub(MARK.len());
    while !sql.is_char_boundary(cut) {
        cut -= 1;
    }
    Cow::Owned(format!("{}{MARK}", &sql[..cut]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(value: &str) -> BindVariable {
        BindVariable { r#type: Type::Int64.into(), value: value.to_owned().into(), values: vec![] }
    }

    fn user(name: &str) -> VtGateCallerId {
        VtGateCallerId { username: name.into(), groups: vec![] }
    }

    #[test]
    fn an_error_of_mysqld_is_told_with_statement_and_values() {
        let vars: BindVars = [
            ("#maxLimit".to_owned(), int("10001")),
            (
                "vtg1".to_owned(),
                BindVariable { r#type: Type::Varbinary.into(), value: "SKU-1001".into(), values: vec![] },
            ),
        ]
        .into();
        let error = ClientError::Server(MysqlError::new(1062, "23000", "Duplicate entry 'SKU-1001' for key 'PRIMARY'"));
        let told = describe(
            error.into(),
            ErrorStyle::default(),
            "insert into product values (:vtg1)",
            &vars,
            Some(&user("userData1")),
        );
        assert_eq!(told.code(), Code::AlreadyExists);
        assert_eq!(
            told.message(),
            r##"Duplicate entry 'SKU-1001' for key 'PRIMARY' (errno 1062) (sqlstate 23000) (CallerID: userData1): Sql: "insert into product values (:vtg1)", BindVars: {#maxLimit: "type:INT64 value:\"10001\" "vtg1: "type:VARBINARY value:\"SKU-1001\" "}"##
        );
    }

    #[test]
    fn an_error_of_the_tablet_names_the_caller_only() {
        let error = ExecError::new(Code::InvalidArgument, "table t not found in schema");
        let told = describe(error.clone(), ErrorStyle::default(), "select 1", &BindVars::new(), Some(&user("u")));
        assert_eq!(told.message(), "table t not found in schema (CallerID: u)");
        let told = describe(error, ErrorStyle::default(), "select 1", &BindVars::new(), None);
        assert_eq!(told.message(), "table t not found in schema");
    }

    #[test]
    fn terse_errors_leave_out_what_is_private() {
        let vars: BindVars = [("a".to_owned(), int("1"))].into();
        let error = ExecError::from(ClientError::Server(MysqlError::new(1062, "23000", "Duplicate entry 'secret'")));
        let style = ErrorStyle { terse: true, max_sql: 0 };
        let told = describe(error, style, "insert into t values (:a)", &vars, None);
        assert_eq!(told.message(), r#"(errno 1062) (sqlstate 23000): Sql: "insert into t values (:a)", BindVars: {}"#);
    }

    #[test]
    fn long_statements_are_cut() {
        assert_eq!(truncate("select * from t", 0), "select * from t");
        assert_eq!(truncate(&"x".repeat(40), 20), "xxxxxxxx [TRUNCATED]");
    }

    #[test]
    fn values_are_quoted_twice() {
        let list = BindVariable {
            r#type: Type::Tuple.into(),
            value: Default::default(),
            values: vec![vtproto::query::Value { r#type: Type::Int64.into(), value: "1".into() }],
        };
        assert_eq!(bind_var_text(&list), "type:TUPLE values:<type:INT64 value:\"1\" > ");
        let raw = BindVariable { r#type: Type::Varbinary.into(), value: vec![0u8, 255, b'a'].into(), values: vec![] };
        assert_eq!(bind_var_text(&raw), "type:VARBINARY value:\"\\000\\377a\" ");
        assert_eq!(go_quote(b"a\"\n\xff"), "\"a\\\"\\n\\xff\"");
    }
}
