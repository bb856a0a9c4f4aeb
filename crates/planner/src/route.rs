//! Statements that go to tablets: which keyspace, which shards, and the text to send.

use std::sync::Arc;

use vschema::{Table, TableType};
use vterrors::{Code, VtError};
use vtsql::{
    Access, DdlVerb, Detail, Directives, ExplainTarget, Needs, SessionFunction, Statement, StatementKind, TableRef,
    Template,
};

use crate::plan::{Context, any_keyspace, session_keyspace};
use crate::primitive::{Destination, Opcode, Plan, Primitive, Route};
use crate::sharded::{plan_dml, plan_insert, plan_select, plan_vindex_select};
use crate::sysvars;
use crate::text::Edits;

/// Databases that every mysqld has.
const SYSTEM_DATABASES: &[&str] = &["information_schema", "mysql", "performance_schema", "sys"];

/// Whether `name` is a database that every mysqld has.
pub(crate) fn is_system_database(name: &str) -> bool {
    SYSTEM_DATABASES.iter().any(|system| name.eq_ignore_ascii_case(system))
}

/// Refuses what is recognised and not built.
pub(crate) fn unsupported<T>(what: impl std::fmt::Display) -> Result<T, VtError> {
    Err(VtError::new(Code::Unimplemented, format!("unsupported: {what}")))
}

/// Plans a statement that is sent to tablets.
pub(crate) fn plan_route(statement: &Statement, context: &Context<'_>) -> Result<Plan, VtError> {
    use StatementKind as K;
    refuse_unsafe(statement)?;
    if context.target.destination.is_some() {
        return by_destination(statement, context);
    }
    match statement.kind {
        K::Select if statement.facts.next.is_some() => next_values(statement, context),
        K::Select => select(statement, context),
        K::Insert | K::Replace | K::Update | K::Delete => dml(statement, context),
        K::Ddl => ddl(statement, context),
        _ => other(statement, context),
    }
}

/// Refuses statements which would leave something behind on a shared connection, or which are not a
/// client's business.
fn refuse_unsafe(statement: &Statement) -> Result<(), VtError> {
    use StatementKind as K;
    let lower = || statement.sql.to_ascii_lowercase();
    match (statement.kind, &statement.detail) {
        (K::VitessCommand | K::Stream, _) => unsupported(&statement.sql),
        (K::LockTables, _) => unsupported("lock tables"),
        (K::Priv, _) => unsupported("changes of accounts and privileges"),
        (K::Other, _) => Err(VtError::new(Code::InvalidArgument, format!("unrecognized statement: {}", statement.sql))),
        (K::Flush, _) if lower().contains("read lock") || lower().contains("for export") => {
            unsupported("flush tables with a lock")
        }
        (K::Load, _) if lower().split_whitespace().take(5).any(|word| word == "local") => {
            unsupported("load data local")
        }
        (K::Ddl, Detail::Ddl(DdlVerb::CreateDatabase)) => unsupported("create database: see CreateKeyspace"),
        (K::Ddl, Detail::Ddl(DdlVerb::TemporaryTable)) => {
            unsupported("temporary tables: they would stay on a shared connection")
        }
        (K::Ddl, Detail::Ddl(DdlVerb::DropDatabase)) => unsupported("drop database: see DeleteKeyspace"),
        _ if statement.facts.into_user_var => unsupported("select into a user variable"),
        // Values live in the session; what mysqld assigns stays on a shared connection, and is not what the statement reads.
        (kind, _) if kind != K::Set && statement.facts.assigns_user_var => {
            unsupported("assignment of a user variable inside of a statement: use SET")
        }
        _ => Ok(()),
    }
}

/// What the tables of a statement lead to.
struct Places<'s> {
    /// Table references with where they lead, without `dual`.
    tables: Vec<(&'s TableRef, Arc<Table>)>,
    /// References to system databases.
    system: Vec<&'s TableRef>,
    /// A SELECT reads from a vindex.
    vindex: bool,
}

impl Places<'_> {
    /// Whether the rows may be on several shards, or in several keyspaces.
    fn are_spread(&self) -> bool {
        let Some((_, first)) = self.tables.first() else { return false };
        let mut tables = self.tables.iter().map(|(_, table)| table);
        if tables.clone().any(|table| table.keyspace != first.keyspace) {
            return true;
        }
        if tables.clone().all(|table| !table.sharded || table.kind == TableType::Reference) {
            return false;
        }
        // Pinned tables at one place, and what is everywhere.
        let fixed = |table: &&Arc<Table>| table.kind == TableType::Reference || table.pinned.is_some();
        let mut pins = tables.clone().filter_map(|table| table.pinned.as_ref());
        let one_pin = pins.next().is_some_and(|pin| pins.all(|other| other == pin));
        !(one_pin && tables.all(|table| fixed(&table)))
    }

    /// The only keyspace of all tables; `None` without tables. Errors: several.
    fn keyspace(&self) -> Result<Option<&Table>, VtError> {
        let Some((_, first)) = self.tables.first() else { return Ok(None) };
        match self.tables.iter().find(|(_, table)| table.keyspace != first.keyspace) {
            Some((_, other)) => unsupported(format_args!(
                "tables of several keyspaces in one statement: {}.{} and {}.{}",
                first.keyspace, first.name, other.keyspace, other.name
            )),
            None => Ok(Some(first)),
        }
    }
}

fn resolve<'s>(statement: &'s Statement, context: &Context<'_>) -> Result<Places<'s>, VtError> {
    let mut candidates: Vec<(&TableRef, Vec<Arc<Table>>)> = Vec::new();
    let (mut system, mut vindex) = (Vec::new(), false);
    for reference in &statement.tables {
        match &reference.qualifier {
            Some(qualifier) if is_system_database(qualifier) && !context.vschema.keyspaces.contains_key(qualifier) => {
                system.push(reference);
            }
            None if reference.name.eq_ignore_ascii_case("dual") => {
                // An unknown keyspace shows here as with any table.
                if !context.target.keyspace.is_empty() {
                    context.vschema.keyspace(&context.target.keyspace)?;
                }
            }
            qualifier => {
                let keyspace = qualifier.as_ref().unwrap_or(&context.target.keyspace);
                let found = context.vschema.find_routed_table(keyspace, &reference.name, context.target.tablet_type);
                let tables = match found {
                    Ok(tables) => tables,
                    Err(error) => match context.vschema.find_vindex(keyspace, &reference.name) {
                        Ok(Some(_)) if statement.kind == StatementKind::Select => {
                            vindex = true;
                            continue;
                        }
                        Err(vindex_error) if vindex_error.message().starts_with("ambiguous") => {
                            return Err(vindex_error);
                        }
                        _ => return Err(error),
                    },
                };
                if tables.len() > 1 && reference.access == Access::Write {
                    return unsupported(format_args!(
                        "writing to {}, which is routed to several tables",
                        reference.name
                    ));
                }
                candidates.push((reference, tables));
            }
        }
    }
    // A name with several targets takes the one that fits the other tables, an unsharded one first.
    let fixed = candidates.iter().find(|(_, tables)| tables.len() == 1).map(|(_, tables)| tables[0].keyspace.clone());
    let tables = candidates
        .into_iter()
        .filter_map(|(reference, tables)| {
            let fits = |table: &&Arc<Table>| fixed.as_ref().is_some_and(|keyspace| table.keyspace == *keyspace);
            let chosen = tables.iter().find(fits).or_else(|| tables.iter().find(|t| !t.sharded)).or(tables.first())?;
            Some((reference, chosen.clone()))
        })
        .collect();
    Ok(Places { tables, system, vindex })
}

/// A route with nothing special about it.
pub(crate) fn plain_route(opcode: Opcode, keyspace: &str, destination: Destination, query: String) -> Route {
    Route {
        opcode,
        keyspace: keyspace.to_owned(),
        destination,
        query: Template::new(query),
        error_context: None,
        is_write: false,
        is_ddl: false,
        single_shard: false,
        unfriendly: false,
        needs_connection: false,
        table: None,
        timeout_ms: 0,
        scatter_errors_as_warnings: false,
        multi_shard_autocommit: false,
        merge: None,
    }
}

/// The statement's text for tablets: qualifiers cut, routed names replaced, session values lifted.
fn text(statement: &Statement, context: &Context<'_>, places: &Places<'_>) -> (String, Needs) {
    let mut edits = Edits::new(&statement.sql);
    for (reference, table) in &places.tables {
        if let Some(qualifier) = &reference.qualifier {
            edits.cut_qualifier(reference.qualifier_span);
            edits.cut_column_qualifier(qualifier, &reference.name);
        }
        if table.name != reference.name {
            edits.rename(statement.kind, reference, &table.name);
        }
    }
    for schema in &statement.facts.schema_names {
        if !places.system.is_empty() && context.vschema.keyspaces.contains_key(&schema.name) {
            // On a tablet the keyspace's database has another name.
            edits.replace(schema.span, OWN_DATABASE);
        }
    }
    if !places.system.is_empty() && !context.target.keyspace.is_empty() {
        // What information_schema calls it there.
        statement.facts.compared_databases.iter().for_each(|span| edits.replace(*span, OWN_DATABASE));
    }
    let (sql, needs) = session_text(statement, edits.apply());
    (if places.system.is_empty() { sql } else { sql.replace(OWN_DATABASE, "database()") }, needs)
}

/// Stands for the tablet's own database until session functions have been lifted: `database()` of the
/// user's text is the session's keyspace. A control character, which no statement has outside of quotes.
const OWN_DATABASE: &str = "\u{1}";

/// Lifts session functions and variables out of a text.
fn session_text(statement: &Statement, sql: String) -> (String, Needs) {
    let facts = &statement.facts;
    let concerned = facts.functions.iter().any(|f| {
        use SessionFunction::*;
        matches!(f, LastInsertId | FoundRows | RowCount | Database | ConnectionId)
    });
    // `create table … default (schema())` and view bodies are not the session's.
    if statement.kind == StatementKind::Ddl
        || !(concerned || !facts.user_vars.is_empty() || !facts.system_vars.is_empty())
    {
        return (sql, Needs::default());
    }
    let rewritten = vtsql::rewrite_session(&sql, sysvars::source);
    (rewritten.sql, rewritten.needs)
}

pub(crate) fn finish(statement: &Statement, mut route: Route, needs: Needs) -> Plan {
    finish_route(statement, &mut route);
    finish_primitive(statement, Primitive::Route(route), needs)
}

/// What directives and functions in the statement ask of its route.
pub(crate) fn finish_route(statement: &Statement, route: &mut Route) {
    let directives = &statement.directives;
    route.timeout_ms = directives.number(Directives::QUERY_TIMEOUT_MS).unwrap_or(0);
    route.scatter_errors_as_warnings = directives.is_set(Directives::SCATTER_ERRORS_AS_WARNINGS);
    route.multi_shard_autocommit = directives.is_set(Directives::MULTI_SHARD_AUTOCOMMIT);
    route.needs_connection = statement.facts.functions.contains(&SessionFunction::NamedLock);
}

pub(crate) fn finish_primitive(statement: &Statement, primitive: Primitive, needs: Needs) -> Plan {
    Plan {
        kind: statement.kind,
        primitive,
        needs,
        cacheable: (statement.kind == StatementKind::Select || statement.kind.is_dml())
            && !statement.directives.is_set(Directives::SKIP_QUERY_PLAN_CACHE),
    }
}

/// Sends the text to the shards that the session's target names.
fn by_destination(statement: &Statement, context: &Context<'_>) -> Result<Plan, VtError> {
    let Some(destination) = &context.target.destination else { return unsupported("a target without a destination") };
    let keyspace = session_keyspace(context)?;
    let is_insert = matches!(statement.kind, StatementKind::Insert | StatementKind::Replace);
    if is_insert && matches!(destination, keyrange::Destination::ExactKeyRange(_)) {
        let text = format!("range queries not supported for inserts: {}", context.target);
        return Err(VtError::new(Code::InvalidArgument, text));
    }
    let mut edits = Edits::new(&statement.sql);
    for reference in &statement.tables {
        // The tablets know the keyspace by its database's name only.
        if let Some(qualifier) = reference.qualifier.as_deref().filter(|qualifier| *qualifier == keyspace) {
            edits.cut_qualifier(reference.qualifier_span);
            edits.cut_column_qualifier(qualifier, &reference.name);
        }
    }
    let (sql, needs) = session_text(statement, edits.apply());
    let mut route = plain_route(Opcode::ByDestination, keyspace, Destination::Explicit(destination.clone()), sql);
    route.is_write = is_write(statement);
    route.is_ddl = statement.kind == StatementKind::Ddl;
    route.unfriendly = statement.kind.is_dml();
    route.single_shard =
        !matches!(statement.kind, StatementKind::Select | StatementKind::Ddl) && !statement.kind.is_dml();
    route.table = statement.tables.first().map(|t| t.name.clone());
    Ok(finish(statement, route, needs))
}

fn is_write(statement: &Statement) -> bool {
    use StatementKind as K;
    statement.kind.is_dml() || matches!(statement.kind, K::Call | K::Load)
}

/// `select next … from seq`.
fn next_values(statement: &Statement, context: &Context<'_>) -> Result<Plan, VtError> {
    let places = resolve(statement, context)?;
    let Some((_, table)) = places.tables.first() else { return unsupported("next without a sequence") };
    if table.kind != TableType::Sequence {
        return Err(VtError::new(Code::Unknown, "NEXT used on a non-sequence table"));
    }
    let (sql, needs) = text(statement, context, &places);
    let destination = pinned(table).unwrap_or(Destination::AnyShard);
    let mut route = plain_route(Opcode::NextSequence, &table.keyspace, destination, sql);
    route.table = Some(table.name.clone());
    Ok(finish(statement, route, needs))
}

fn pinned(table: &Table) -> Option<Destination> {
    table.pinned.as_ref().map(|id| Destination::KeyspaceIds(vec![keyrange::KeyspaceId::new(id.clone())]))
}

fn select(statement: &Statement, context: &Context<'_>) -> Result<Plan, VtError> {
    let places = resolve(statement, context)?;
    let (sql, needs) = text(statement, context, &places);
    if places.vindex {
        return plan_vindex_select(&lifted(statement)?, context, needs);
    }
    if places.are_spread() {
        // Conditions on session values choose shards, too.
        let lifted = lifted(statement)?;
        return plan_select(&lifted, context, sql, needs);
    }
    let Some(first) = places.keyspace()? else {
        return without_tables(statement, context, &places, sql, needs);
    };
    let (opcode, destination) = place_of(&places);
    let mut route = plain_route(opcode, &first.keyspace, destination, sql);
    route.table = Some(first.name.clone());
    Ok(finish(statement, route, needs))
}

/// The statement with session functions and variables replaced by variables.
fn lifted(statement: &Statement) -> Result<Statement, VtError> {
    let (sql, needs) = session_text(statement, statement.sql.clone());
    if needs == Needs::default() {
        return Ok(statement.clone());
    }
    let mut lifted = vtsql::parse(&sql)?;
    lifted.directives = statement.directives.clone();
    Ok(lifted)
}

/// SELECT from nothing, from `dual` or from information_schema: any shard answers.
fn without_tables(
    statement: &Statement,
    context: &Context<'_>,
    places: &Places<'_>,
    sql: String,
    needs: Needs,
) -> Result<Plan, VtError> {
    if places.system.is_empty() {
        let keyspace = any_keyspace(context)?;
        context.vschema.keyspace(keyspace)?;
        let mut route = plain_route(Opcode::Reference, keyspace, Destination::AnyShard, sql);
        route.table = Some("dual".to_owned());
        return Ok(finish(statement, route, needs));
    }
    let named = statement.facts.schema_names.iter().find(|schema| context.vschema.keyspaces.contains_key(&schema.name));
    let keyspace = match named {
        Some(schema) => schema.name.as_str(),
        None => any_keyspace(context)?,
    };
    context.vschema.keyspace(keyspace)?;
    Ok(finish(statement, plain_route(Opcode::Dba, keyspace, Destination::AnyShard, sql), needs))
}

/// Where the tables of one keyspace are that are together without a look at their rows.
fn place_of(places: &Places<'_>) -> (Opcode, Destination) {
    let mut tables = places.tables.iter().map(|(_, table)| table);
    if tables.clone().all(|table| !table.sharded) {
        return (Opcode::Unsharded, Destination::AllShards);
    }
    match tables.find_map(|table| pinned(table)) {
        Some(destination) => (Opcode::EqualUnique, destination),
        None => (Opcode::Reference, Destination::AnyShard),
    }
}

fn dml(statement: &Statement, context: &Context<'_>) -> Result<Plan, VtError> {
    let places = resolve(statement, context)?;
    if !places.system.is_empty() && places.tables.is_empty() {
        return unsupported("writing to a system database");
    }
    let (sql, needs) = text(statement, context, &places);
    let Some((_, first)) = places.tables.first() else { return unsupported("a write without a table") };
    let is_insert = matches!(statement.kind, StatementKind::Insert | StatementKind::Replace);
    let written = places.tables.iter().find(|(reference, _)| reference.access == Access::Write);
    let table = written.map_or(first, |(_, table)| table);
    let spread = places.are_spread();
    if is_insert && (spread || table.auto_increment.is_some()) {
        return plan_insert(&lifted(statement)?, context, table.clone(), &sql, needs);
    }
    if spread {
        if !table.sharded {
            return unsupported("sharded subqueries in DML");
        }
        return plan_dml(&lifted(statement)?, context, table, sql, needs);
    }
    places.keyspace()?;
    let (opcode, mut destination) = place_of(&places);
    if opcode == Opcode::Reference {
        // Every shard has the rows, and has to keep them.
        destination = Destination::AllShards;
    }
    let mut route = plain_route(opcode, &table.keyspace, destination, sql);
    route.is_write = true;
    route.error_context = is_insert.then_some("execInsertUnsharded");
    route.table = Some(table.name.clone());
    Ok(finish(statement, route, needs))
}

/// Schema changes go to every shard of the keyspace that a qualifier or the session names.
fn ddl(statement: &Statement, context: &Context<'_>) -> Result<Plan, VtError> {
    let mut edits = Edits::new(&statement.sql);
    let mut keyspace: Option<&str> = None;
    for reference in &statement.tables {
        let Some(qualifier) = &reference.qualifier else { continue };
        if !context.vschema.keyspaces.contains_key(qualifier) {
            continue;
        }
        if keyspace.is_some_and(|named| named != qualifier) {
            return unsupported("one schema change in several keyspaces");
        }
        keyspace = Some(qualifier);
        edits.cut_qualifier(reference.qualifier_span);
        edits.cut_column_qualifier(qualifier, &reference.name);
    }
    let keyspace = match keyspace {
        Some(keyspace) => keyspace,
        None => session_keyspace(context)?,
    };
    let opcode = if context.vschema.keyspace(keyspace)?.sharded { Opcode::Scatter } else { Opcode::Unsharded };
    let mut route = plain_route(opcode, keyspace, Destination::AllShards, edits.apply());
    route.is_ddl = true;
    route.table = statement.tables.first().map(|t| t.name.clone());
    Ok(finish(statement, route, Needs::default()))
}

/// EXPLAIN, DESCRIBE, CALL, DO, ANALYZE … : one shard of the keyspace that a table or the session names.
fn other(statement: &Statement, context: &Context<'_>) -> Result<Plan, VtError> {
    let mut edits = Edits::new(&statement.sql);
    let mut keyspace: Option<&str> = None;
    let mut system = false;
    for reference in &statement.tables {
        let Some(qualifier) = &reference.qualifier else { continue };
        if context.vschema.keyspaces.contains_key(qualifier) {
            if keyspace.is_some_and(|named| named != qualifier) {
                return unsupported("tables of several keyspaces in one statement");
            }
            keyspace = Some(qualifier);
            edits.cut_qualifier(reference.qualifier_span);
            edits.cut_column_qualifier(qualifier, &reference.name);
        } else {
            system |= is_system_database(qualifier);
        }
    }
    let needs_no_table = statement.tables.is_empty() || system;
    let explains = matches!(&statement.detail, Detail::Explain(ExplainTarget::Statement(..)));
    let keyspace = match keyspace {
        Some(keyspace) => keyspace,
        // The tables say where, as they would without EXPLAIN.
        None if explains && !needs_no_table => match resolve(statement, context)?.keyspace()? {
            Some(table) => return explain(statement, table.keyspace.clone(), edits, context),
            None => any_keyspace(context)?,
        },
        None if needs_no_table => any_keyspace(context)?,
        None => session_keyspace(context)?,
    };
    explain(statement, keyspace.to_owned(), edits, context)
}

fn explain(statement: &Statement, keyspace: String, edits: Edits<'_>, context: &Context<'_>) -> Result<Plan, VtError> {
    use StatementKind as K;
    let (sql, needs) = session_text(statement, edits.apply());
    // Any shard can tell how it would run a statement, and compute what no table is needed for.
    let anywhere = matches!(statement.kind, K::Explain | K::Describe | K::Do);
    let sharded = context.vschema.keyspaces.get(&keyspace).is_some_and(|ks| ks.sharded);
    let (opcode, destination) = if anywhere && sharded {
        (Opcode::Reference, Destination::AnyShard)
    } else {
        (Opcode::Unsharded, Destination::AllShards)
    };
    let mut route = plain_route(opcode, &keyspace, destination, sql);
    route.single_shard = true;
    route.is_write = is_write(statement);
    route.table = statement.tables.first().map(|t| t.name.clone());
    Ok(finish(statement, route, needs))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{context_of, vschema_of};
    use crate::{Target, plan_text};

    const VSCHEMA: &str = r#"{"keyspaces":{
        "commerce":{"tables":{"product":{},"seq":{"type":"sequence"},"auto":{"autoIncrement":{"column":"id","sequence":"seq"}}}},
        "main":{},
        "sharded":{"sharded":true,"vindexes":{"h":{"type":"hash"}},"tables":{
            "s":{"columnVindexes":[{"column":"id","name":"h"}]},"ref":{"type":"reference"},"pin":{"pinned":"80"}}}},
        "routingRules":{"rules":[{"fromTable":"old","toTables":["main.new"]},{"fromTable":"off"}]}}"#;

    fn route(sql: &str, target: &str) -> Result<(Route, Needs), String> {
        let vschema = vschema_of(VSCHEMA);
        let target = Target::parse(target).expect(target);
        match plan_text(sql, &context_of(&vschema, &target)) {
            Ok(Plan { primitive: Primitive::Route(route), needs, .. }) => Ok((route, needs)),
            Ok(other) => panic!("{sql}: {other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Keyspace, opcode and text.
    fn sent(sql: &str, target: &str) -> (String, Opcode, String) {
        let (route, _) = route(sql, target).unwrap_or_else(|e| panic!("{sql}: {e}"));
        (route.keyspace, route.opcode, route.query.sql().to_owned())
    }

    #[test]
    fn unsharded_statements_go_as_written() {
        use Opcode::*;
        for (sql, target, keyspace, opcode, text) in [
            (
                "select * from product where a = :vtg1",
                "",
                "commerce",
                Unsharded,
                "select * from product where a = :vtg1",
            ),
            ("select * from commerce.product p", "", "commerce", Unsharded, "select * from product p"),
            (
                "select commerce.product.a from commerce.product",
                "",
                "commerce",
                Unsharded,
                "select product.a from product",
            ),
            ("select * from anything", "main", "main", Unsharded, "select * from anything"),
            ("select * from main.x", "commerce", "main", Unsharded, "select * from x"),
            ("select x from old where old.y = 1", "", "main", Unsharded, "select x from `new` as old where old.y = 1"),
            ("select 1", "", "commerce", Reference, "select 1"),
            ("select 1 from dual", "main", "main", Reference, "select 1 from dual"),
            ("select * from sharded.ref", "", "sharded", Reference, "select * from ref"),
            ("select * from pin", "", "sharded", EqualUnique, "select * from pin"),
            (
                "select table_name from information_schema.tables where table_schema = 'main'",
                "",
                "main",
                Dba,
                "select table_name from information_schema.tables where table_schema = database()",
            ),
            (
                "select table_name from information_schema.tables where table_schema = 'vt_main'",
                "",
                "commerce",
                Dba,
                "select table_name from information_schema.tables where table_schema = 'vt_main'",
            ),
            (
                "select table_name from information_schema.tables t where t.table_schema = database() and 1 in (1)",
                "main",
                "main",
                Dba,
                "select table_name from information_schema.tables t where t.table_schema = database() and 1 in (1)",
            ),
            (
                "select database(), table_name from information_schema.tables where schema() = table_schema",
                "main",
                "main",
                Dba,
                "select :__vtdbname as `database()`, table_name from information_schema.tables where database() = table_schema",
            ),
            (
                "select 1 from x where a = database()",
                "main",
                "main",
                Unsharded,
                "select 1 from x where a = :__vtdbname",
            ),
            ("insert into product values (:vtg1)", "", "commerce", Unsharded, "insert into product values (:vtg1)"),
            ("update main.x set a = 1", "", "main", Unsharded, "update x set a = 1"),
            ("select next value from seq", "", "commerce", NextSequence, "select next value from seq"),
            ("create table main.t (id int)", "commerce", "main", Unsharded, "create table t (id int)"),
            ("truncate table t1", "commerce", "commerce", Unsharded, "truncate table t1"),
            ("create table t (id int)", "sharded", "sharded", Scatter, "create table t (id int)"),
            ("explain select * from product", "", "commerce", Unsharded, "explain select * from product"),
            ("describe main.x", "", "main", Unsharded, "describe x"),
            ("call commerce.p(1)", "", "commerce", Unsharded, "call p(1)"),
            ("do sleep(0)", "", "commerce", Unsharded, "do sleep(0)"),
            ("select * from `odd` where", "main", "main", Unsharded, "select * from `odd` where"),
        ] {
            assert_eq!(sent(sql, target), (keyspace.into(), opcode, text.into()), "{sql}");
        }
    }

    #[test]
    fn explicit_shards_take_anything() {
        let (route_, _) = route("delete from sharded.s where id = 1", "sharded:-80").expect("by destination");
        assert_eq!(route_.opcode, Opcode::ByDestination);
        assert_eq!(route_.destination, Destination::Explicit(keyrange::Destination::Shard("-80".into())));
        assert_eq!(route_.query.sql(), "delete from s where id = 1");
        assert!(route_.unfriendly && route_.is_write);
        assert_eq!(
            route("insert into s values (1)", "sharded[40-80]").expect_err("a range"),
            "range queries not supported for inserts: sharded[40-80]"
        );
    }

    #[test]
    fn session_values_are_lifted() {
        let (route_, needs) = route("select last_insert_id(), @x, database()", "").expect("reference");
        assert_eq!(
            route_.query.sql(),
            "select :__lastInsertId as `last_insert_id()`, :__vtudvx as `@x`, :__vtdbname as `database()`"
        );
        assert!(needs.last_insert_id && needs.database && needs.user_vars.contains("x"));
        let (route_, needs) = route("select @@autocommit, @@version_comment", "").expect("reference");
        assert_eq!(route_.query.sql(), "select :__vtautocommit as `@@autocommit`, @@version_comment");
        assert!(needs.system_vars.contains("autocommit"));
    }

    #[test]
    fn writes_are_marked() {
        let (insert, _) = route("insert into product values (1)", "").expect("insert");
        assert_eq!((insert.error_context, insert.is_write), (Some("execInsertUnsharded"), true));
        let (update, _) = route("update product set a = 1", "").expect("update");
        assert_eq!((update.error_context, update.is_write), (None, true));
        let (ddl, _) = route("drop table product", "commerce").expect("ddl");
        assert!(ddl.is_ddl && !ddl.is_write);
        let (select, _) = route("/*vt+ QUERY_TIMEOUT_MS=7 */ select 1 from product", "").expect("select");
        assert_eq!(select.timeout_ms, 7);
    }

    /// The copies of a reference table stay equal: no shard changes its own by rows that others do not have.
    #[test]
    fn reference_tables_are_written_by_what_all_shards_have() {
        for sql in [
            "update ref set a = 1 where b in (select id from s)",
            "delete from ref where b in (select id from s)",
            "update ref join s on s.id = ref.id set ref.a = s.b",
            "update ref r join s on s.id = r.id set a = 1",
            "delete r from ref r join s on s.id = r.id where s.id = 5",
        ] {
            let error = route(sql, "sharded").map(|(route, _)| route.opcode).expect_err(sql);
            assert!(error.starts_with("unsupported: "), "{sql}: {error}");
        }
        for (sql, opcode) in [
            ("update ref set a = 1 where b in (select b from ref r)", Opcode::Reference),
            ("delete s from s join ref on ref.a = s.b where s.id = 5", Opcode::EqualUnique),
            ("update s join ref on ref.a = s.b set s.c = ref.c where s.id = 5", Opcode::EqualUnique),
        ] {
            assert_eq!(route(sql, "sharded").expect(sql).0.opcode, opcode, "{sql}");
        }
    }

    /// Columns that the vschema does not know come from a tablet, and the statement is planned again.
    #[test]
    fn an_insert_without_columns_waits_for_their_names() {
        let vschema = vschema_of(VSCHEMA);
        let target = Target::parse("").expect("no target");
        for (sql, want) in [
            ("insert into auto values (1)", "insert into auto (`id`, `b`) values (1)"),
            ("replace into s select 1, 2", "replace into s (`id`, `b`) select 1, 2"),
        ] {
            let plan = plan_text(sql, &context_of(&vschema, &target)).expect(sql);
            let Primitive::UnlistedInsert(insert) = plan.primitive else { panic!("{sql}: {:?}", plan.primitive) };
            assert_eq!(insert.with_columns(&["id".to_owned(), "b".to_owned()]), want);
        }
    }

    #[test]
    fn faults() {
        for (sql, target, want) in [
            ("select next value from product", "", "NEXT used on a non-sequence table"),
            ("select * from nope", "", "table nope not found"),
            ("select * from nope", "sharded", "table nope not found"),
            ("select * from x", "nope", "keyspace nope not found in vschema"),
            ("select 1", "nope", "keyspace nope not found in vschema"),
            ("select * from off", "", "table off has been disabled"),
            (
                "truncate table t1",
                "",
                "no keyspace in database name specified. Supported database name format (items in <> are optional): keyspace<:shard><@type> or keyspace<[range]><@type>",
            ),
            ("lock tables a read", "commerce", "unsupported: lock tables"),
            ("purge binary logs to 'x'", "", "unrecognized statement: purge binary logs to 'x'"),
            (
                "select * from h",
                "",
                "unsupported: where clause for vindex function must be of the form id = <val> (where clause missing)",
            ),
            (
                "select * from h where id > 1",
                "",
                "unsupported: where clause for vindex function must be of the form id = <val> (not equality)",
            ),
            (
                "select * from h where keyspace_id = 1",
                "",
                "unsupported: where clause for vindex function must be of the form id = <val> (lhs is not id)",
            ),
        ] {
            assert_eq!(route(sql, target).map(|_| ()), Err(want.to_owned()), "{sql}");
        }
        for sql in ["select * from s limit 1 into @b", "select @a := id from s order by 1", "select 1 into @a"] {
            assert!(route(sql, "").expect_err(sql).starts_with("unsupported: "), "{sql}");
        }
    }
}
