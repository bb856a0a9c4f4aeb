//! A statement taken apart as far as routing needs it.

use std::sync::OnceLock;

use crate::comments::{Directives, MarginComments, split_margin_comments, statement_span};
use crate::cursor::Cursor;
use crate::error::SyntaxError;
use crate::facts::{self, Facts, NextCount};
use crate::kind::{StatementKind, preview};
use crate::set::SetStatement;
use crate::show::ShowStatement;
use crate::tables::{self, TableRef};

/// One statement. `sql` is what to send on: the text without margin comments and closing semicolon.
#[derive(Debug, Clone)]
pub struct Statement {
    pub kind: StatementKind,
    pub sql: String,
    /// Comments in front and behind.
    pub comments: MarginComments,
    /// `/*vt+ NAME=value */`, wherever they stand.
    pub directives: Directives,
    /// Every table named, CTEs and derived tables left out, in order of appearance.
    pub tables: Vec<TableRef>,
    pub facts: Facts,
    pub detail: Detail,
    tree: OnceLock<Result<Tree, SyntaxError>>,
}

/// A syntax tree. Its type is this crate's business.
#[derive(Debug, Clone)]
pub struct Tree(pub(crate) Box<sqlparser::ast::Statement>);

/// The tree parser's own print: valid MySQL, keywords in upper case.
impl std::fmt::Display for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl Tree {
    pub fn statement(&self) -> &sqlparser::ast::Statement {
        &self.0
    }

    /// The name of the list variable that the items of an IN list are, when they are one.
    pub fn list_variable(items: &[sqlparser::ast::Expr]) -> Option<&str> {
        use sqlparser::ast::{Expr, Value};
        let [Expr::Value(value)] = items else { return None };
        let Value::Placeholder(name) = &value.value else { return None };
        name.strip_prefix(':')?.strip_prefix(crate::dialect::LIST_MARK)
    }
}

/// Prints a part of a tree as MySQL reads it, list variables as `::name`.
pub fn print_tree(part: &impl std::fmt::Display) -> String {
    let text = part.to_string();
    let mark = format!("(:{}", crate::dialect::LIST_MARK);
    if !text.contains(&mark) {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find(&mark) {
        let name = &rest[at + mark.len()..];
        let Some(end) = name.find(')') else { break };
        out.push_str(&rest[..at]);
        out.push_str("::");
        out.push_str(&name[..end]);
        rest = &name[end + 1..];
    }
    out.push_str(rest);
    out
}

/// What only some kinds have.
#[derive(Debug, Clone, PartialEq)]
pub enum Detail {
    None,
    Set(SetStatement),
    Show(ShowStatement),
    /// The target string of `use …`; empty for a bare `use`.
    Use(String),
    /// BEGIN and START TRANSACTION with their characteristics.
    Begin(Vec<TransactionCharacteristic>),
    /// SAVEPOINT, RELEASE SAVEPOINT, ROLLBACK TO: the name.
    Savepoint(String),
    /// `select next … from seq`; the sequence is the only table.
    Next(NextCount),
    Ddl(DdlVerb),
    Kill(Kill),
    Prepare(Prepare),
    Execute(Execute),
    /// The name in DEALLOCATE PREPARE.
    Deallocate(String),
    Stream(StreamStatement),
    Explain(ExplainTarget),
}

/// Characteristics of START TRANSACTION and SET TRANSACTION.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionCharacteristic {
    ReadOnly,
    ReadWrite,
    ConsistentSnapshot,
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

/// The verb of a schema change, and whether its object is a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DdlVerb {
    CreateTable,
    AlterTable,
    DropTable,
    RenameTable,
    TruncateTable,
    CreateIndex,
    DropIndex,
    CreateView,
    DropView,
    CreateDatabase,
    DropDatabase,
    AlterDatabase,
    /// CREATE or DROP of a temporary table, which belongs to a connection.
    TemporaryTable,
    /// Procedures, functions, triggers, events, servers, tablespaces …
    Other,
}

/// `kill [connection | query] id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// Only the running statement.
    pub query: bool,
    pub id: u64,
}

/// `prepare name from 'text'`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepare {
    pub name: String,
    pub from: PrepareSource,
}

/// Where the text of a prepared statement stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PrepareSource {
    Text(String),
    /// Name without `@`, lower case.
    UserVar(String),
}

/// `execute name using @a, @b`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Execute {
    pub name: String,
    /// Names without `@`, lower case.
    pub using: Vec<String>,
}

/// `stream * from t`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatement {
    /// `vstream` rather than `stream`.
    pub vstream: bool,
}

/// What is explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExplainTarget {
    /// `explain t`, `describe t`.
    Table,
    /// `explain [format=…] select …`: the kind of the statement and where it starts in `sql`.
    Statement(StatementKind, usize),
    /// `explain for connection n`.
    Connection,
}

impl Statement {
    /// The syntax tree, made on the first call.
    pub fn tree(&self) -> Result<&Tree, &SyntaxError> {
        self.tree.get_or_init(|| crate::dialect::parse_tree(&self.sql)).as_ref()
    }

    /// Tables that are written.
    pub fn written(&self) -> impl Iterator<Item = &TableRef> {
        self.tables.iter().filter(|t| t.access == crate::tables::Access::Write)
    }
}

/// Takes the statement `sql` apart.
///
/// Errors: [`SyntaxError`] for text whose first word begins no statement, that ends inside a string or
/// comment, and for malformed statements which a gate has to understand (SET, SHOW, USE, savepoints,
/// KILL, text PREPARE). Others pass: mysqld judges them.
pub fn parse(sql: &str) -> Result<Statement, SyntaxError> {
    let kind = preview(sql);
    let (start, _) = statement_span(sql.as_bytes());
    let (leading, body, trailing) = split_margin_comments(sql.as_bytes());
    // Spans end at token borders, and tokens at character borders.
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let comments = MarginComments { leading: text(leading), trailing: text(trailing) };
    let directives = Directives::read(sql.as_bytes());
    let body = text(body);
    let mut cursor = Cursor::new(&body).map_err(|mut error| {
        error.position += start;
        error
    })?;
    if kind == StatementKind::Unknown {
        let mut error = cursor.error();
        error.position += start;
        return Err(error);
    }
    let facts = facts::collect(&cursor, kind);
    let detail = detail(&mut cursor, kind, &facts).map_err(|mut error| {
        error.position += start;
        error
    })?;
    cursor.at = 0;
    let tables = tables::find(&mut cursor, kind);
    Ok(Statement { kind, comments, directives, tables, facts, detail, sql: body, tree: OnceLock::new() })
}

/// Reads what only this kind has.
fn detail(cursor: &mut Cursor<'_>, kind: StatementKind, facts: &Facts) -> Result<Detail, SyntaxError> {
    use StatementKind as K;
    Ok(match kind {
        K::Select => facts.next.clone().map_or(Detail::None, Detail::Next),
        K::Set => Detail::Set(crate::set::parse(cursor)?),
        K::Show => Detail::Show(crate::show::parse(cursor)?),
        K::Use => {
            cursor.next();
            let name = if cursor.done() { String::new() } else { target(cursor)? };
            cursor.expect_end()?;
            Detail::Use(name)
        }
        K::Begin => {
            cursor.next();
            cursor.skip_any(&["work", "transaction"]);
            let mut list = Vec::new();
            while !cursor.done() {
                list.push(characteristic(cursor)?);
                if !cursor.take_punct(",") {
                    cursor.expect_end()?;
                }
            }
            Detail::Begin(list)
        }
        K::Savepoint => {
            cursor.next();
            let name = cursor.expect_name()?;
            cursor.expect_end()?;
            Detail::Savepoint(name)
        }
        K::Release => {
            cursor.next();
            if !cursor.take("savepoint") {
                return Err(cursor.error());
            }
            let name = cursor.expect_name()?;
            cursor.expect_end()?;
            Detail::Savepoint(name)
        }
        K::RollbackTo => {
            cursor.skip_any(&["rollback", "work", "to", "savepoint"]);
            let name = cursor.expect_name()?;
            cursor.expect_end()?;
            Detail::Savepoint(name)
        }
        K::Kill => {
            cursor.next();
            let query = cursor.take("query");
            if !query {
                cursor.take("connection");
            }
            let id = cursor.peek().and_then(|t| cursor.text(t).parse().ok()).ok_or_else(|| cursor.error())?;
            cursor.next();
            cursor.expect_end()?;
            Detail::Kill(Kill { query, id })
        }
        K::Prepare => {
            cursor.next();
            let name = cursor.expect_name()?;
            if !cursor.take("from") {
                return Err(cursor.error());
            }
            let from = match cursor.string() {
                Some(text) => PrepareSource::Text(text),
                None => PrepareSource::UserVar(user_var(cursor)?),
            };
            cursor.expect_end()?;
            Detail::Prepare(Prepare { name, from })
        }
        K::Execute => {
            cursor.next();
            let name = cursor.expect_name()?;
            let mut using = Vec::new();
            if cursor.take("using") {
                using.push(user_var(cursor)?);
                while cursor.take_punct(",") {
                    using.push(user_var(cursor)?);
                }
            }
            cursor.expect_end()?;
            Detail::Execute(Execute { name, using })
        }
        K::Deallocate => {
            cursor.next();
            if !cursor.take("prepare") {
                return Err(cursor.error());
            }
            let name = cursor.expect_name()?;
            cursor.expect_end()?;
            Detail::Deallocate(name)
        }
        K::Stream => Detail::Stream(StreamStatement { vstream: cursor.is("vstream") }),
        K::Ddl => Detail::Ddl(ddl_verb(cursor)),
        K::Explain | K::Describe => Detail::Explain(explained(cursor)),
        _ => Detail::None,
    })
}

/// The target of USE: a name in backquotes, or `ks`, `ks:-80@replica`, `ks/0` bare.
fn target(cursor: &mut Cursor<'_>) -> Result<String, SyntaxError> {
    if let Some(token) = cursor.peek()
        && token.kind == crate::lexer::TokenKind::Quoted
    {
        return cursor.expect_name();
    }
    // The mysql client sends COM_INIT_DB for `use`, which takes any text; a query is as lenient.
    let Some(first) = cursor.peek() else { return Err(cursor.error()) };
    if first.name(cursor.bytes()).is_none() && !matches!(first.kind, crate::lexer::TokenKind::UserVar) {
        return Err(cursor.error());
    }
    let mut end = first.end;
    cursor.next();
    while let Some(token) = cursor.peek() {
        if token.start != end {
            break;
        }
        end = token.end;
        cursor.next();
    }
    Ok(cursor.sql[first.start..end].to_owned())
}

/// `@name`.
fn user_var(cursor: &mut Cursor<'_>) -> Result<String, SyntaxError> {
    match cursor.peek() {
        Some(token) if token.kind == crate::lexer::TokenKind::UserVar => {
            cursor.next();
            Ok(facts::variable_name(&cursor.text(token)[1..]))
        }
        _ => Err(cursor.error()),
    }
}

/// One characteristic of START TRANSACTION or SET TRANSACTION.
pub(crate) fn characteristic(cursor: &mut Cursor<'_>) -> Result<TransactionCharacteristic, SyntaxError> {
    use TransactionCharacteristic::*;
    cursor.take_all(&["isolation", "level"]);
    for (words, found) in [
        (&["read", "only"][..], ReadOnly),
        (&["read", "write"], ReadWrite),
        (&["with", "consistent", "snapshot"], ConsistentSnapshot),
        (&["read", "uncommitted"], ReadUncommitted),
        (&["read", "committed"], ReadCommitted),
        (&["repeatable", "read"], RepeatableRead),
        (&["serializable"], Serializable),
    ] {
        if cursor.take_all(words) {
            return Ok(found);
        }
    }
    Err(cursor.error())
}

/// The verb of a schema change.
fn ddl_verb(cursor: &mut Cursor<'_>) -> DdlVerb {
    let verb = cursor.word();
    cursor.next();
    if verb == "truncate" {
        return DdlVerb::TruncateTable;
    }
    // Modifiers stand in front of the object's kind: `create or replace definer=… view`.
    for _ in 0..16 {
        let object = cursor.word();
        let found = match (verb.as_str(), object.as_str()) {
            ("create", "table") => DdlVerb::CreateTable,
            ("alter", "table") => DdlVerb::AlterTable,
            ("drop", "table" | "tables") => DdlVerb::DropTable,
            ("rename", "table" | "tables") => DdlVerb::RenameTable,
            ("create", "index") => DdlVerb::CreateIndex,
            ("drop", "index") => DdlVerb::DropIndex,
            ("create" | "alter", "view") => DdlVerb::CreateView,
            ("drop", "view") => DdlVerb::DropView,
            ("create" | "drop", "temporary") => DdlVerb::TemporaryTable,
            ("create", "database" | "schema") => DdlVerb::CreateDatabase,
            ("drop", "database" | "schema") => DdlVerb::DropDatabase,
            ("alter", "database" | "schema") => DdlVerb::AlterDatabase,
            (_, "procedure" | "function" | "trigger" | "event" | "server" | "tablespace" | "logfile") => DdlVerb::Other,
            _ if cursor.done() => return DdlVerb::Other,
            _ => {
                cursor.next();
                continue;
            }
        };
        return found;
    }
    DdlVerb::Other
}

/// What stands behind EXPLAIN or DESCRIBE.
fn explained(cursor: &mut Cursor<'_>) -> ExplainTarget {
    cursor.next();
    loop {
        if cursor.is_any(&["extended", "partitions", "analyze"]) {
            cursor.next();
        } else if cursor.is("format") {
            cursor.at += 3;
        } else {
            break;
        }
    }
    let Some(token) = cursor.peek() else { return ExplainTarget::Table };
    match preview(&cursor.sql[token.start..]) {
        kind if kind == StatementKind::Select || kind.is_dml() => ExplainTarget::Statement(kind, token.start),
        _ if cursor.is_at(0, "for") && cursor.is_at(1, "connection") => ExplainTarget::Connection,
        _ => ExplainTarget::Table,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Locking, SessionFunction};

    fn detail_of(sql: &str) -> Detail {
        parse(sql).unwrap_or_else(|e| panic!("{sql}: {e}")).detail
    }

    fn fault(sql: &str) -> String {
        parse(sql).expect_err(sql).to_string()
    }

    #[test]
    fn small_statements() {
        assert_eq!(detail_of("use commerce"), Detail::Use("commerce".into()));
        assert_eq!(detail_of("use `ks:-80@replica`"), Detail::Use("ks:-80@replica".into()));
        assert_eq!(detail_of("use ks/0@rdonly"), Detail::Use("ks/0@rdonly".into()));
        assert_eq!(detail_of("use @replica"), Detail::Use("@replica".into()));
        assert_eq!(detail_of("savepoint `a b`"), Detail::Savepoint("a b".into()));
        assert_eq!(detail_of("rollback work to savepoint x"), Detail::Savepoint("x".into()));
        assert_eq!(detail_of("release savepoint x"), Detail::Savepoint("x".into()));
        assert_eq!(detail_of("kill query 5"), Detail::Kill(Kill { query: true, id: 5 }));
        assert_eq!(
            detail_of("start transaction with consistent snapshot, read only"),
            Detail::Begin(vec![TransactionCharacteristic::ConsistentSnapshot, TransactionCharacteristic::ReadOnly])
        );
        assert_eq!(
            detail_of("prepare s from 'select ?'"),
            Detail::Prepare(Prepare { name: "s".into(), from: PrepareSource::Text("select ?".into()) })
        );
        assert_eq!(
            detail_of("execute s using @A, @`b`"),
            Detail::Execute(Execute { name: "s".into(), using: vec!["a".into(), "b".into()] })
        );
        assert_eq!(detail_of("drop prepare s"), Detail::Deallocate("s".into()));
        assert_eq!(detail_of("select next :n values from seq"), Detail::Next(NextCount::BindVar("n".into())));
        assert_eq!(detail_of("select next value from seq"), Detail::Next(NextCount::Number(1)));
        assert_eq!(detail_of("create or replace algorithm=merge view v as select 1"), Detail::Ddl(DdlVerb::CreateView));
        assert_eq!(
            detail_of("explain format=json select 1"),
            Detail::Explain(ExplainTarget::Statement(StatementKind::Select, 20))
        );
    }

    #[test]
    fn errors_say_where() {
        assert_eq!(fault("not sql at all"), "syntax error at position 4 near 'not'");
        assert_eq!(fault("/* x */ selec 1"), "syntax error at position 14 near 'selec'");
        assert_eq!(fault("savepoint"), "syntax error at position 10");
        assert_eq!(fault("kill x"), "syntax error at position 7 near 'x'");
        assert!(fault("select 'abc").starts_with("syntax error at position 12 near"));
    }

    #[test]
    fn facts_are_collected() {
        let facts = |sql| parse(sql).expect(sql).facts;
        assert!(facts("select 1 from t limit 5").has_limit);
        assert!(!facts("select 1 from (select 1 from t limit 5) x").has_limit);
        assert_eq!(facts("select 1 from t for update").locking, Some(Locking::Update));
        assert_eq!(facts("select 1 from t lock in share mode").locking, Some(Locking::Share));
        let f = facts("select @A, @@session.sql_mode, last_insert_id(), t.database, database() from t");
        assert_eq!(f.user_vars, ["a"]);
        assert_eq!(f.system_vars, ["session.sql_mode"]);
        assert_eq!(
            f.functions.into_iter().collect::<Vec<_>>(),
            [SessionFunction::LastInsertId, SessionFunction::Database]
        );
        assert!(facts("select @a := 1").assigns_user_var);
        assert!(facts("select 1 into @a").into_user_var);
        assert!(facts("insert into t select 1 from u").insert_select);
        let names = facts("select 1 from information_schema.tables t where t.table_schema = 'ks'").schema_names;
        // A qualified column counts as well.
        assert_eq!(names.len(), 1);
        assert_eq!(names[0].name, "ks");
    }

    #[test]
    fn a_tree_is_made_when_wanted() {
        assert!(parse("select a from t where b = 1").expect("valid").tree().is_ok());
        assert!(parse("select from where").expect("mysqld judges").tree().is_err());
    }
}
