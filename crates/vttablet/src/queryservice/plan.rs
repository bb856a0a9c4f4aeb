//! What the tablet makes of a statement, once per text.
//!
//! Owns: the plan kinds with Vitess's names, which tables and roles a statement needs, and where the
//! row limit goes into it. Pure: schema, rules and ACL are applied by `plan_cache`.
//! What is sent to mysqld is the caller's own text with values filled in; only the row limit is added.
//! DML is passed through as written (docs/decisions/0002-dml-passthrough.md).

use std::sync::Arc;

use vterrors::{Code, MysqlError, VtError};
use vtsql::lexer::{Token, TokenKind, tokens};
use vtsql::{Access, BindError, BindVars, Detail, NextCount, SessionFunction, Statement, StatementKind, Template};

use super::acl::Role;

/// Name of the bind variable that holds the row limit.
pub const MAX_LIMIT: &str = "#maxLimit";

/// How a statement is executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PlanKind {
    PassSelect,
    /// `for update`, `lock in share mode`: inside transactions only.
    SelectLock,
    /// `select next n values from seq`.
    NextVal,
    Insert,
    Replace,
    Update,
    Delete,
    Set,
    Ddl,
    SelectStream,
    /// SHOW, EXPLAIN, DESCRIBE.
    OtherRead,
    OtherAdmin,
    /// What may write in a way that is not looked into: CALL, LOAD DATA.
    OtherWrite,
}

/// Plan names of v5.0.1 that mean a way of executing DML which this tablet does not use. Rules that
/// name them keep their meaning: the statements that v5.0.1 would have planned so.
const INSERT_NAMES: [&str; 5] = ["INSERT_PK", "INSERT_SUBQUERY", "UPSERT_PK", "INSERT_TOPIC", "INSERT_MESSAGE"];
const DML_NAMES: [&str; 2] = ["DML_PK", "DML_SUBQUERY"];
const OTHER_NAMES: [&str; 11] = [
    "PASS_SELECT",
    "SELECT_LOCK",
    "NEXTVAL",
    "PASS_DML",
    "SET",
    "DDL",
    "SELECT_STREAM",
    "OTHER_READ",
    "OTHER_ADMIN",
    "MESSAGE_STREAM",
    "SELECT_IMPOSSIBLE",
];

impl PlanKind {
    /// Vitess's name, as in metrics, logs and rules.
    pub fn name(self) -> &'static str {
        match self {
            Self::PassSelect => "PASS_SELECT",
            Self::SelectLock => "SELECT_LOCK",
            Self::NextVal => "NEXTVAL",
            Self::Insert | Self::Replace | Self::Update | Self::Delete => "PASS_DML",
            Self::Set => "SET",
            Self::Ddl => "DDL",
            Self::SelectStream => "SELECT_STREAM",
            Self::OtherRead => "OTHER_READ",
            Self::OtherAdmin | Self::OtherWrite => "OTHER_ADMIN",
        }
    }

    /// Whether a rule that names `name` means this kind.
    pub fn is_called(self, name: &str) -> bool {
        name == self.name()
            || match self {
                Self::Insert => INSERT_NAMES.contains(&name),
                Self::Update | Self::Delete => DML_NAMES.contains(&name),
                _ => false,
            }
    }

    pub fn is_known_name(name: &str) -> bool {
        OTHER_NAMES.contains(&name) || INSERT_NAMES.contains(&name) || DML_NAMES.contains(&name)
    }

    /// Whether it is a SELECT of rows, which may be one that locks them.
    pub fn is_select(self) -> bool {
        matches!(self, Self::PassSelect | Self::SelectLock)
    }

    /// Whether it changes data, and so needs a tablet that accepts writes.
    pub fn is_write(self) -> bool {
        matches!(
            self,
            Self::Insert | Self::Replace | Self::Update | Self::Delete | Self::Ddl | Self::OtherWrite | Self::NextVal
        )
    }
}

/// A role on a table that a statement needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    pub table: String,
    pub role: Role,
}

/// A statement taken apart.
#[derive(Debug)]
pub struct Shape {
    pub kind: PlanKind,
    /// The text as it was received.
    pub sql: Arc<str>,
    /// What is sent.
    query: Template,
    /// What is sent behind the row limit; `None` when the statement takes none.
    behind_limit: Option<Template>,
    /// The one table of a single-table statement; empty for joins, unions, qualified names.
    pub table: String,
    /// Every table named, without qualifiers, once.
    pub tables: Vec<String>,
    pub permissions: Vec<Permission>,
    /// It may touch tables that cannot be told from its text.
    pub opaque: bool,
    pub next: Option<NextCount>,
    /// Leaves state on the connection that runs it.
    pub dirties: bool,
    /// May share an execution with the same text running already.
    pub shareable: bool,
    /// `create temporary table`.
    pub temporary: bool,
    /// It has a part in what its transaction leaves behind: a write, or a savepoint that writes are taken back to.
    pub recorded: bool,
}

/// Why a kind of statement does not come as text.
fn refused(kind: StatementKind) -> Option<&'static str> {
    match kind {
        StatementKind::Begin | StatementKind::Commit | StatementKind::Rollback => {
            Some("transactions are controlled by the calls Begin, Commit and Rollback")
        }
        StatementKind::Use => Some("a tablet serves one database"),
        StatementKind::Kill => Some("a tablet's connections are shared"),
        StatementKind::VschemaDdl | StatementKind::VitessCommand | StatementKind::Stream => {
            Some("it is for a vtgate to answer")
        }
        // What they run would pass by rules and table ACL.
        StatementKind::Prepare | StatementKind::Execute | StatementKind::Deallocate => {
            Some("prepared statements are kept by vtgates")
        }
        _ => None,
    }
}

impl Shape {
    /// Takes a statement apart.
    ///
    /// Errors: INVALID_ARGUMENT for text that is no statement, and for statements that a tablet does
    /// not take as text.
    pub fn new(sql: &str) -> Result<Self, VtError> {
        let statement = vtsql::parse(sql)?;
        if let Some(reason) = refused(statement.kind) {
            let text = format!("{} is not allowed as a query: {reason}", statement.kind.name());
            return Err(VtError::new(Code::InvalidArgument, text));
        }
        if matches!(statement.kind, StatementKind::Comment | StatementKind::Empty) {
            // Also of comments that mysqld would run: nobody has looked into them.
            return Err(MysqlError::new(1065, "42000", "Query was empty").into());
        }
        let kind = kind_of(&statement);
        let tables = &statement.tables;
        let permissions = match kind {
            PlanKind::OtherRead | PlanKind::OtherAdmin | PlanKind::Set => Vec::new(),
            _ => {
                let role = |access| match (kind, access) {
                    (PlanKind::Ddl, _) => Role::Admin,
                    (_, Access::Write) => Role::Writer,
                    (_, Access::Read) => Role::Reader,
                };
                tables.iter().map(|t| Permission { table: t.name.clone(), role: role(t.access) }).collect()
            }
        };
        let mut names: Vec<String> = Vec::new();
        for table in tables {
            if !names.contains(&table.name) {
                names.push(table.name.clone());
            }
        }
        let words = tokens(sql.as_bytes());
        let mut permissions: Vec<Permission> = permissions;
        for name in hidden_names(sql.as_bytes(), &words) {
            if !names.contains(&name) {
                let role = if kind.is_write() { Role::Writer } else { Role::Reader };
                permissions.push(Permission { table: name.clone(), role });
                names.push(name);
            }
        }
        if kind == PlanKind::Ddl
            && let Some(table) = renamed_to(sql.as_bytes(), &words)
            && !names.contains(&table)
        {
            permissions.push(Permission { table: table.clone(), role: Role::Admin });
            names.push(table);
        }
        let facts = &statement.facts;
        let limited = kind.is_select() && !facts.has_limit && !facts.into_file && !facts.into_user_var;
        let (query, behind_limit) = if limited {
            let (query, behind) = sql.split_at(limit_position(sql.as_bytes(), &words));
            (Template::new(query), Some(Template::new(behind)))
        } else {
            (Template::new(sql), None)
        };
        let next = match &statement.detail {
            Detail::Next(count) => Some(count.clone()),
            _ => facts.next.clone(),
        };
        let has_word = |list: &[&str]| words.iter().any(|t| list.iter().any(|word| t.is_word(sql.as_bytes(), word)));
        let temporary = kind == PlanKind::Ddl && has_word(&["temporary"]);
        Ok(Self {
            kind,
            sql: sql.into(),
            query,
            behind_limit,
            table: single_table(&statement, kind, sql.as_bytes(), &words).unwrap_or_default(),
            tables: names,
            permissions,
            opaque: statement.kind == StatementKind::Call
                || (statement.kind == StatementKind::Other
                    && words.first().is_some_and(|w| w.is_word(sql.as_bytes(), "handler"))),
            next,
            dirties: dirties(&statement) || temporary,
            shareable: kind == PlanKind::PassSelect
                && facts.user_vars.is_empty()
                && !dirties(&statement)
                && !has_word(&["rand", "uuid", "uuid_short", "nextval", "setval", "connection_id", "last_insert_id"]),
            temporary,
            recorded: kind.is_write()
                || matches!(
                    statement.kind,
                    StatementKind::Savepoint | StatementKind::Release | StatementKind::RollbackTo
                ),
        })
    }

    /// The same text for streaming.
    ///
    /// Errors: INVALID_ARGUMENT for what is not read-only.
    pub fn for_streaming(sql: &str) -> Result<Self, VtError> {
        let shape = Self::new(sql)?;
        match shape.kind {
            PlanKind::SelectLock => {
                Err(VtError::new(Code::InvalidArgument, "select with lock not allowed for streaming"))
            }
            PlanKind::PassSelect | PlanKind::OtherRead => {
                Ok(Self { kind: PlanKind::SelectStream, query: Template::new(sql), behind_limit: None, ..shape })
            }
            _ => {
                let text = format!("'{}' not allowed for streaming", vtsql::canonical(sql));
                Err(VtError::new(Code::InvalidArgument, text))
            }
        }
    }

    /// Whether a row limit can be part of it.
    pub fn is_limited(&self) -> bool {
        self.behind_limit.is_some()
    }

    /// The text for mysqld: values filled in, at most `limit` rows asked for, `comment` behind it.
    pub fn render(&self, vars: &BindVars, limit: Option<u64>, comment: &str) -> Result<Vec<u8>, BindError> {
        let mut out = Vec::with_capacity(self.sql.len() + comment.len() + 64);
        self.query.render_into(vars, &mut out)?;
        if let Some(behind) = &self.behind_limit {
            if let Some(limit) = limit {
                out.extend_from_slice(b" limit ");
                out.extend_from_slice(limit.to_string().as_bytes());
            }
            behind.render_into(vars, &mut out)?;
        }
        if !comment.is_empty() {
            out.push(b' ');
            out.extend_from_slice(comment.as_bytes());
        }
        Ok(out)
    }

    /// The text with its placeholders, as pages show it.
    pub fn full_query(&self) -> String {
        match &self.behind_limit {
            Some(behind) => format!("{} limit :{MAX_LIMIT}{}", self.query.sql(), behind.sql()),
            None => self.query.sql().to_owned(),
        }
    }

    /// The same SELECT reading nothing, which tells whether its names resolve; `None` where values or
    /// set operations are in the way. Vitess runs it first, which shows in error texts.
    pub fn field_query(&self) -> Option<String> {
        if !self.kind.is_select() {
            return None;
        }
        let sql = self.sql.as_bytes();
        let words = tokens(sql);
        let mut depth = 0i32;
        let mut end = 0;
        let mut from = false;
        for token in &words {
            match token.bytes(sql) {
                b"(" => depth += 1,
                b")" => depth -= 1,
                b";" if depth == 0 => break,
                _ if depth > 0 => {}
                _ if ["union", "except", "intersect"].iter().any(|word| token.is_word(sql, word)) => return None,
                _ if token.is_word(sql, "from") => from = true,
                _ if CLAUSES.iter().any(|clause| token.is_word(sql, clause)) => break,
                _ => {}
            }
            if matches!(token.kind, TokenKind::BindVar | TokenKind::ListVar) {
                return None;
            }
            end = token.end;
        }
        let head = self.sql.get(..end)?;
        Some(format!("{head}{} where 1 != 1", if from { "" } else { " from dual" }))
    }

    /// The rows that an UPDATE or DELETE of one table is about, as `table where condition` with values; `None` for
    /// other statements, and for those without a condition.
    pub fn row_range(&self, vars: &BindVars) -> Option<String> {
        if !matches!(self.kind, PlanKind::Update | PlanKind::Delete) || self.table.is_empty() {
            return None;
        }
        let sql = self.sql.as_bytes();
        let mut depth = 0i32;
        let mut condition: Option<(usize, usize)> = None;
        for token in tokens(sql) {
            match token.bytes(sql) {
                b"(" => depth += 1,
                b")" => depth -= 1,
                _ => {}
            }
            let is_one_of = |list: &[&str]| depth == 0 && list.iter().any(|word| token.is_word(sql, word));
            match &mut condition {
                None if is_one_of(&["where"]) => condition = Some((token.start, token.end)),
                Some(_) if is_one_of(&["order", "limit", "returning"]) || token.is_punct(sql, ";") => break,
                Some((_, end)) => *end = token.end,
                None => {}
            }
        }
        let (start, end) = condition?;
        let mut range = format!("{} ", self.table).into_bytes();
        Template::new(self.sql.get(start..end)?).render_into(vars, &mut range).ok()?;
        Some(String::from_utf8_lossy(&range).into_owned())
    }

    /// Bytes that keeping it costs, roughly.
    pub fn size(&self) -> usize {
        2 * self.sql.len() + 256 + self.tables.iter().map(|t| 3 * t.len() + 64).sum::<usize>()
    }
}

/// What can be seen of a plan from outside, for tools and tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanSummary {
    /// Every plan name that means this plan in a query rule, its own first.
    pub names: Vec<&'static str>,
    /// The one table of a single-table statement.
    pub table: String,
    /// Tables with the role they need: 0 reader, 1 writer, 2 admin.
    pub permissions: Vec<(String, u64)>,
    /// What is sent, with its placeholders.
    pub full_query: String,
}

/// Plans a statement without a schema.
///
/// Errors: as for the statement itself.
pub fn plan_summary(sql: &str, streaming: bool) -> Result<PlanSummary, VtError> {
    let shape = if streaming { Shape::for_streaming(sql)? } else { Shape::new(sql)? };
    let mut names = vec![shape.kind.name()];
    names.extend(INSERT_NAMES.iter().chain(&DML_NAMES).filter(|name| shape.kind.is_called(name)));
    let permissions = shape.permissions.iter().map(|p| (p.table.clone(), p.role as u64)).collect();
    Ok(PlanSummary { names, table: shape.table.clone(), permissions, full_query: shape.full_query() })
}

fn kind_of(statement: &Statement) -> PlanKind {
    match statement.kind {
        StatementKind::Select if statement.facts.next.is_some() || matches!(statement.detail, Detail::Next(_)) => {
            PlanKind::NextVal
        }
        StatementKind::Select if statement.facts.locking.is_some() => PlanKind::SelectLock,
        StatementKind::Select => PlanKind::PassSelect,
        StatementKind::Insert => PlanKind::Insert,
        StatementKind::Replace => PlanKind::Replace,
        StatementKind::Update => PlanKind::Update,
        StatementKind::Delete => PlanKind::Delete,
        StatementKind::Set => PlanKind::Set,
        StatementKind::Ddl => PlanKind::Ddl,
        // As in Vitess: ANALYZE counts as a schema change, the other maintenance does not.
        StatementKind::Maintenance if statement.sql.get(..7).is_some_and(|w| w.eq_ignore_ascii_case("analyze")) => {
            PlanKind::Ddl
        }
        // MariaDB's ANALYZE runs the statement.
        StatementKind::Explain
            if matches!(statement.detail, Detail::Explain(vtsql::ExplainTarget::Statement(kind, _)) if kind.is_dml())
                && statement.sql.get(..7).is_some_and(|w| w.eq_ignore_ascii_case("analyze")) =>
        {
            PlanKind::OtherWrite
        }
        StatementKind::Show | StatementKind::Explain | StatementKind::Describe => PlanKind::OtherRead,
        StatementKind::Call | StatementKind::Load => PlanKind::OtherWrite,
        _ => PlanKind::OtherAdmin,
    }
}

/// Whether the connection that ran it must be cleaned before somebody else uses it.
fn dirties(statement: &Statement) -> bool {
    let facts = &statement.facts;
    let by_kind = matches!(
        statement.kind,
        StatementKind::Set
            | StatementKind::LockTables
            | StatementKind::UnlockTables
            | StatementKind::Call
            | StatementKind::Flush
            | StatementKind::Other
            | StatementKind::Unknown
    );
    by_kind || facts.assigns_user_var || facts.into_user_var || facts.functions.contains(&SessionFunction::NamedLock)
}

/// Words that end the list of tables of a SELECT.
const CLAUSES: [&str; 12] =
    ["where", "group", "having", "order", "limit", "for", "lock", "window", "into", "procedure", "set", "partition"];

/// The table of a single-table statement, when it has no qualifier and is no derived table.
fn single_table(statement: &Statement, kind: PlanKind, sql: &[u8], words: &[Token]) -> Option<String> {
    let named = |name: &str| statement.tables.iter().any(|t| t.qualifier.is_none() && t.name == name);
    match kind {
        PlanKind::PassSelect | PlanKind::SelectLock | PlanKind::NextVal => {
            if statement.facts.set_operation {
                return None;
            }
            let mut depth = 0i32;
            let mut from = None;
            for (at, token) in words.iter().enumerate() {
                match token.bytes(sql) {
                    b"(" => depth += 1,
                    b")" => depth -= 1,
                    _ if depth == 0 && token.is_word(sql, "from") => {
                        from = Some(at);
                        break;
                    }
                    _ => {}
                }
            }
            let mut rest = words[from? + 1..].iter();
            let name = rest.next()?.name(sql)?;
            for token in rest {
                match token.bytes(sql) {
                    b"(" => depth += 1,
                    b")" => depth -= 1,
                    b"," | b"." if depth == 0 => return None,
                    _ if depth > 0 => {}
                    _ if token.is_word(sql, "join") || token.is_word(sql, "straight_join") => return None,
                    _ if CLAUSES.iter().any(|clause| token.is_word(sql, clause)) => break,
                    _ => {}
                }
            }
            (named(&name) || name.eq_ignore_ascii_case("dual")).then_some(name)
        }
        PlanKind::Insert | PlanKind::Update | PlanKind::Delete => {
            let mut written = statement.written();
            let table = written.next()?;
            let alone = written.next().is_none()
                && (statement.tables.len() == 1 || statement.facts.has_subquery || statement.facts.insert_select);
            (alone && table.qualifier.is_none()).then(|| table.name.clone())
        }
        PlanKind::Ddl
            if statement.tables.len() == 1
                && matches!(statement.detail, Detail::Ddl(vtsql::DdlVerb::TruncateTable)) =>
        {
            Some(statement.tables[0].name.clone())
        }
        _ => None,
    }
}

/// Names inside comments that mysqld runs (`/*! … */`): any of them may be a table.
fn hidden_names(sql: &[u8], words: &[Token]) -> Vec<String> {
    // What such comments usually hold.
    const MODIFIERS: [&str; 8] = [
        "sql_no_cache",
        "sql_cache",
        "straight_join",
        "high_priority",
        "sql_buffer_result",
        "sql_big_result",
        "sql_small_result",
        "sql_calc_found_rows",
    ];
    let mut names = Vec::new();
    for comment in words.iter().filter(|word| word.kind == TokenKind::ExecutableComment) {
        let bytes = comment.bytes(sql);
        let inside = bytes.strip_suffix(b"*/").unwrap_or(bytes);
        let start = inside.iter().position(|&b| b == b'!').map_or(inside.len(), |at| at + 1);
        let inside = &inside[start..];
        for name in tokens(inside).iter().filter_map(|word| word.name(inside)) {
            if !MODIFIERS.iter().any(|modifier| name.eq_ignore_ascii_case(modifier)) {
                names.push(name);
            }
        }
    }
    names
}

/// The new name in `alter table a rename [to|as] b`: a table too, although it is not there yet.
fn renamed_to(sql: &[u8], words: &[Token]) -> Option<String> {
    const PARTS: [&str; 5] = ["column", "index", "key", "table", "user"];
    let at = words.iter().skip(1).position(|word| word.is_word(sql, "rename"))? + 2;
    let mut rest = words.get(at..)?.iter().peekable();
    if rest.peek().is_some_and(|word| PARTS.iter().any(|part| word.is_word(sql, part))) {
        return None;
    }
    let filler = |word: &&Token| word.is_word(sql, "to") || word.is_word(sql, "as") || word.is_punct(sql, "=");
    let name = rest.find(|word| !filler(word))?;
    match rest.peek() {
        Some(point) if point.is_punct(sql, ".") => rest.nth(1)?.name(sql),
        _ => name.name(sql),
    }
}

/// Where ` limit n` belongs: in front of a locking clause at the outermost level, else at the end.
fn limit_position(sql: &[u8], words: &[Token]) -> usize {
    let mut depth = 0i32;
    let mut end = 0;
    let mut words = words.iter().peekable();
    while let Some(token) = words.next() {
        match token.bytes(sql) {
            b"(" => depth += 1,
            b")" => depth -= 1,
            b";" if depth == 0 && words.peek().is_none() => break,
            _ if depth == 0 && end > 0 => {
                let mut next_is = |list: &[&str]| words.peek().is_some_and(|t| list.iter().any(|w| t.is_word(sql, w)));
                if (token.is_word(sql, "for") && next_is(&["update", "share"]))
                    || (token.is_word(sql, "lock") && next_is(&["in"]))
                    || (token.is_word(sql, "procedure") && token.kind == TokenKind::Word && next_is(&["analyse"]))
                {
                    break;
                }
            }
            _ => {}
        }
        end = token.end;
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(sql: &str) -> Shape {
        Shape::new(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    #[test]
    fn kinds_and_tables() {
        for (sql, kind, table) in [
            ("select * from a", "PASS_SELECT", "a"),
            ("select * from a where x in (select y from b)", "PASS_SELECT", "a"),
            ("select c.eid from a as c", "PASS_SELECT", "a"),
            ("select * from a.b", "PASS_SELECT", ""),
            ("select * from a, b", "PASS_SELECT", ""),
            ("select * from a join b on a.x = b.x", "PASS_SELECT", ""),
            ("select * from a union select * from b", "PASS_SELECT", ""),
            ("select 1 from dual", "PASS_SELECT", "dual"),
            ("select eid from a for update", "SELECT_LOCK", "a"),
            ("insert into a (id) values (1)", "PASS_DML", "a"),
            ("insert into b.a (id) values (1)", "PASS_DML", ""),
            ("insert into b select * from a", "PASS_DML", "b"),
            ("replace into b (eid) values (1)", "PASS_DML", ""),
            ("update a set x = 1 where id = 1", "PASS_DML", "a"),
            ("delete from a where id = 1", "PASS_DML", "a"),
            ("truncate table a", "DDL", "a"),
            ("drop table a", "DDL", ""),
            ("show tables", "OTHER_READ", ""),
            ("set a = 1", "SET", ""),
            ("optimize table a", "OTHER_ADMIN", ""),
            ("analyze table a", "DDL", ""),
            ("select next 5 values from seq", "NEXTVAL", "seq"),
        ] {
            let shape = shape(sql);
            assert_eq!((shape.kind.name(), shape.table.as_str()), (kind, table), "{sql}");
        }
    }

    #[test]
    fn the_limit_goes_where_mysql_wants_it() {
        for (sql, query) in [
            ("select * from a", "select * from a limit :#maxLimit"),
            ("select * from a limit 5", "select * from a limit 5"),
            ("select * from a for update", "select * from a limit :#maxLimit for update"),
            ("select * from a lock in share mode", "select * from a limit :#maxLimit lock in share mode"),
            ("(select 1) union (select 2 limit 1)", "(select 1) union (select 2 limit 1) limit :#maxLimit"),
            ("select 'limit 1' from a /* c */", "select 'limit 1' from a limit :#maxLimit /* c */"),
            ("select * from (select * from a limit 1) t", "select * from (select * from a limit 1) t limit :#maxLimit"),
            ("update a set x = 1", "update a set x = 1"),
        ] {
            assert_eq!(shape(sql).full_query(), query);
        }
        let rendered = shape("select * from a for update").render(&BindVars::new(), Some(7), "").expect("no values");
        assert_eq!(rendered, b"select * from a limit 7 for update");
    }

    #[test]
    fn names_are_resolved_without_reading() {
        let fields = |sql: &str| shape(sql).field_query();
        assert_eq!(fields("select nope from customer").as_deref(), Some("select nope from customer where 1 != 1"));
        assert_eq!(fields("select a from t where b = :v limit 5").as_deref(), Some("select a from t where 1 != 1"));
        assert_eq!(fields("select nope").as_deref(), Some("select nope from dual where 1 != 1"));
        assert_eq!(fields("select :v from t"), None);
        assert_eq!(fields("update t set a = 1"), None);
    }

    #[test]
    fn roles() {
        let roles = |sql: &str| -> Vec<(String, Role)> {
            shape(sql).permissions.into_iter().map(|p| (p.table, p.role)).collect()
        };
        assert_eq!(roles("insert into b select * from a"), [("b".into(), Role::Writer), ("a".into(), Role::Reader)]);
        assert_eq!(roles("drop table a, b"), [("a".into(), Role::Admin), ("b".into(), Role::Admin)]);
        assert_eq!(roles("select * from a union select * from b").len(), 2);
        assert_eq!(roles("alter table a rename to c.b"), [("a".into(), Role::Admin), ("b".into(), Role::Admin)]);
        assert_eq!(roles("alter table a rename column x to y"), [("a".into(), Role::Admin)]);
        assert!(roles("show tables").is_empty());
        // What hides in comments that mysqld runs is seen.
        assert!(roles("select * from a /*! , b */").contains(&("b".into(), Role::Reader)));
        assert_eq!(roles("select /*!40001 SQL_NO_CACHE */ * from a"), [("a".into(), Role::Reader)]);
        assert!(shape("call p()").opaque && shape("call p()").kind.is_write());
        assert!(shape("analyze update a set x = 1").kind.is_write());
    }

    #[test]
    fn what_is_not_taken_as_text() {
        for sql in [
            "begin",
            "commit",
            "rollback",
            "use other",
            "kill 5",
            "",
            "/*! insert into t values (1) */",
            "prepare s from 'select 1'",
            "execute s",
        ] {
            assert_eq!(Shape::new(sql).expect_err(sql).code(), Code::InvalidArgument, "{sql}");
        }
        assert_eq!(
            Shape::for_streaming("update a set b = 1").expect_err("a write").message(),
            "'update a set b = 1' not allowed for streaming"
        );
        assert_eq!(Shape::for_streaming("show tables").expect("a read").kind.name(), "SELECT_STREAM");
    }

    #[test]
    fn state_left_behind_is_seen() {
        for sql in [
            "set a = 1",
            "lock tables a read",
            "select get_lock('a', 1)",
            "select @a := 1",
            "create temporary table t (id int)",
        ] {
            assert!(shape(sql).dirties, "{sql}");
        }
        for sql in ["select 1", "update a set x = 1", "savepoint a"] {
            assert!(!shape(sql).dirties, "{sql}");
        }
    }

    #[test]
    fn the_rows_of_a_change() {
        let vars = BindVars::from([("id".to_owned(), crate::queryservice::executor::int64(7))]);
        let range = |sql: &str| Shape::new(sql).expect("a plan").row_range(&vars);
        for (sql, wanted) in [
            ("update t set v = (select 1 from u where x = 2) where id = :id", Some("t where id = 7")),
            ("delete from t where id = :id and v = 'where' limit 5 /* c */", Some("t where id = 7 and v = 'where'")),
            ("update t set v = 1 where (id = 1) order by id", Some("t where (id = 1)")),
            ("update t set v = 1", None),
            ("insert into t values (1)", None),
            ("select * from t where id = 1", None),
            ("update t, u set t.v = 1 where t.id = u.id", None),
        ] {
            assert_eq!(range(sql).as_deref(), wanted, "{sql}");
        }
    }
}
