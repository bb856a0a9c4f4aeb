//! SHOW, planned: from the vschema, from the gate's own knowledge, or by a shard.

use vterrors::{Code, VtError};
use vtproto::query::{Field, MySqlFlag, QueryResult, Row, Type};
use vtsql::show::{ShowKind, ShowStatement};
use vtsql::{Needs, Statement};

use crate::plan::{Context, any_keyspace, session_keyspace};
use crate::primitive::{Destination, Opcode, Plan, Primitive, ShowAction};
use crate::route::{is_system_database, plain_route, unsupported};

/// Plans `show …`.
pub(crate) fn plan_show(statement: &Statement, show: &ShowStatement, context: &Context<'_>) -> Result<Plan, VtError> {
    let like = show.like.clone();
    let primitive = match &show.kind {
        ShowKind::Databases => Primitive::Show(ShowAction::Keyspaces { like }),
        ShowKind::VitessShards => Primitive::Show(ShowAction::Shards { like }),
        ShowKind::VitessTablets => Primitive::Show(ShowAction::Tablets { like }),
        ShowKind::VitessTarget => Primitive::Show(ShowAction::Target),
        ShowKind::VitessMetadata => Primitive::Show(ShowAction::Metadata { like }),
        ShowKind::Warnings => Primitive::Show(ShowAction::Warnings),
        // Errors of statements are told at once; none wait.
        ShowKind::Errors => Primitive::Rows(rows(&["Level", "Type", "Message"], &[])),
        ShowKind::VitessOther(word) => return unsupported(format_args!("show {word}")),
        ShowKind::VschemaTables => Primitive::Rows(vschema_tables(show, context)?),
        ShowKind::VschemaVindexes => Primitive::Rows(vschema_vindexes(show, context)?),
        ShowKind::Status => Primitive::Rows(rows(&["Variable_name", "Value"], &[])),
        ShowKind::Engines => Primitive::Rows(matching(engines(), show)),
        ShowKind::Plugins => Primitive::Rows(matching(plugins(), show)),
        ShowKind::Charset => Primitive::Rows(matching(charsets(), show)),
        _ => return by_shard(statement, show, context),
    };
    Ok(Plan { kind: statement.kind, primitive, needs: Needs::default(), cacheable: false })
}

/// A table of text columns. The affected rows are its rows, as Vitess counts them.
pub(crate) fn rows(columns: &[&str], values: &[&[&str]]) -> QueryResult {
    QueryResult {
        fields: columns.iter().map(|name| text_field(name)).collect(),
        rows: values.iter().map(|row| text_row(row)).collect(),
        rows_affected: values.len() as u64,
        ..Default::default()
    }
}

/// utf8mb4_general_ci, as clients are told of text.
const TEXT_COLLATION: u32 = 33;

fn text_field(name: &str) -> Field {
    Field {
        name: name.to_owned(),
        r#type: Type::Varchar.into(),
        charset: TEXT_COLLATION,
        flags: MySqlFlag::NotNullFlag as u32,
        ..Default::default()
    }
}

fn text_row(values: &[&str]) -> Row {
    Row { lengths: values.iter().map(|value| value.len() as i64).collect(), values: values.concat().into() }
}

/// Keeps the rows whose first column is like the statement's pattern.
fn matching(mut table: QueryResult, show: &ShowStatement) -> QueryResult {
    if let Some(pattern) = &show.like {
        table.rows.retain(|row| {
            let length = row.lengths.first().copied().unwrap_or(0).max(0) as usize;
            let first = row.values.get(..length).unwrap_or_default();
            like(&String::from_utf8_lossy(first), pattern)
        });
        table.rows_affected = table.rows.len() as u64;
    }
    table
}

/// MySQL's LIKE without regard to case: `%` any text, `_` one character, `\` the next as it is.
pub fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let mut wanted = Vec::new();
    let lower = pattern.to_lowercase();
    let mut chars = lower.chars();
    while let Some(c) = chars.next() {
        wanted.push(match c {
            '%' => (true, '%'),
            '_' => (true, '_'),
            '\\' => (false, chars.next().unwrap_or('\\')),
            other => (false, other),
        });
    }
    // Greedy with one way back: enough for LIKE.
    let (mut t, mut p) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        match wanted.get(p) {
            Some((true, '%')) => {
                back = Some((p, t));
                p += 1;
            }
            Some((true, _)) => (t, p) = (t + 1, p + 1),
            Some((false, c)) if *c == text[t] => (t, p) = (t + 1, p + 1),
            _ => match back {
                Some((at, from)) => {
                    back = Some((at, from + 1));
                    (t, p) = (from + 1, at + 1);
                }
                None => return false,
            },
        }
    }
    wanted[p..].iter().all(|w| *w == (true, '%'))
}

fn engines() -> QueryResult {
    rows(
        &["Engine", "Support", "Comment", "Transactions", "XA", "Savepoints"],
        &[&["InnoDB", "DEFAULT", "Supports transactions, row-level locking, and foreign keys", "YES", "YES", "YES"]],
    )
}

fn plugins() -> QueryResult {
    rows(&["Name", "Status", "Type", "Library", "License"], &[&["InnoDB", "ACTIVE", "STORAGE ENGINE", "NULL", "GPL"]])
}

fn charsets() -> QueryResult {
    let mut table = rows(
        &["Charset", "Description", "Default collation", "Maxlen"],
        &[&["utf8", "UTF-8 Unicode", "utf8_general_ci", "3"], &["utf8mb4", "UTF-8 Unicode", "utf8mb4_general_ci", "4"]],
    );
    if let Some(length) = table.fields.last_mut() {
        length.r#type = Type::Int32.into();
        length.charset = 63;
    }
    table
}

fn vschema_tables(show: &ShowStatement, context: &Context<'_>) -> Result<QueryResult, VtError> {
    let keyspace = match &show.database {
        Some(name) => name,
        None => session_keyspace(context)?,
    };
    let keyspace = context.vschema.keyspace(keyspace)?;
    let values: Vec<[&str; 1]> = keyspace.tables.keys().map(|name| [name.as_str()]).collect();
    let values: Vec<&[&str]> = values.iter().map(|row| row.as_slice()).collect();
    Ok(matching(rows(&["Tables"], &values), show))
}

fn vschema_vindexes(show: &ShowStatement, context: &Context<'_>) -> Result<QueryResult, VtError> {
    let shown = |params: &std::collections::BTreeMap<String, String>| {
        params.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join("; ")
    };
    let mut values: Vec<Vec<String>> = Vec::new();
    let columns: &[&str];
    if let Some(name) = &show.table {
        columns = &["Columns", "Name", "Type", "Params", "Owner"];
        let keyspace = match &show.database {
            Some(name) => name,
            None => session_keyspace(context)?,
        };
        let keyspace = context.vschema.keyspace(keyspace)?;
        let table = keyspace.tables.get(name).ok_or_else(|| {
            let text = format!("table `{name}` does not exist in keyspace `{}`", keyspace.name);
            VtError::new(Code::NotFound, text)
        })?;
        for vindex in &table.column_vindexes {
            let definition = keyspace.vindexes.get(&vindex.name);
            values.push(vec![
                vindex.columns.join(", "),
                vindex.name.clone(),
                vindex.kind.clone(),
                definition.map(|d| shown(&d.params)).unwrap_or_default(),
                definition.map(|d| d.owner.clone()).unwrap_or_default(),
            ]);
        }
    } else {
        columns = &["Keyspace", "Name", "Type", "Params", "Owner"];
        for vindex in context.vschema.keyspaces.values().flat_map(|keyspace| keyspace.vindexes.values()) {
            values.push(vec![
                vindex.keyspace.clone(),
                vindex.name.clone(),
                vindex.kind.clone(),
                shown(&vindex.params),
                vindex.owner.clone(),
            ]);
        }
    }
    let values: Vec<Vec<&str>> = values.iter().map(|row| row.iter().map(String::as_str).collect()).collect();
    let values: Vec<&[&str]> = values.iter().map(Vec::as_slice).collect();
    Ok(rows(columns, &values))
}

/// What mysqld answers: the keyspace from the statement or the session, cut out of the text.
fn by_shard(statement: &Statement, show: &ShowStatement, context: &Context<'_>) -> Result<Plan, VtError> {
    let mut sql = statement.sql.clone();
    let named = show.database.as_deref().filter(|_| show.kind != ShowKind::CreateDatabase);
    let keyspace = match named {
        Some(name) if context.vschema.keyspaces.contains_key(name) => {
            if let Some((start, end)) = show.database_span {
                sql.replace_range(start..end, "");
            }
            name
        }
        Some(name) if is_system_database(name) => any_keyspace(context)?,
        Some(name) => return Err(context.vschema.keyspace(name).err().unwrap_or_else(crate::plan::no_keyspace)),
        None => match show.kind {
            // Of the server, and the same on all.
            ShowKind::Collation | ShowKind::Variables => any_keyspace(context)?,
            // A table may be known by its name alone.
            ShowKind::CreateTable | ShowKind::CreateView | ShowKind::Columns | ShowKind::Index
                if context.target.keyspace.is_empty() =>
            {
                let table = show.table.as_deref().unwrap_or_default();
                return match context.vschema.find_table("", table) {
                    Ok(found) => shard_plan(statement, &found.keyspace, sql, show, context),
                    Err(error) => session_keyspace(context)
                        .map_err(|_| error)
                        .and_then(|keyspace| shard_plan(statement, keyspace, sql, show, context)),
                };
            }
            _ => session_keyspace(context)?,
        },
    };
    shard_plan(statement, keyspace, sql, show, context)
}

fn shard_plan(
    statement: &Statement,
    keyspace: &str,
    sql: String,
    show: &ShowStatement,
    context: &Context<'_>,
) -> Result<Plan, VtError> {
    let explicit = context.target.destination.clone().filter(|_| context.target.keyspace == keyspace);
    // Schemas are the same on all shards; what is about a server needs exactly one.
    let any =
        !matches!(show.kind, ShowKind::Processlist | ShowKind::Grants | ShowKind::Other(_) | ShowKind::CreateOther(_));
    let (opcode, destination) = match explicit {
        Some(explicit) => (Opcode::ByDestination, Destination::Explicit(explicit)),
        None if any => (Opcode::Dba, Destination::AnyShard),
        None => (Opcode::Unsharded, Destination::AllShards),
    };
    let mut route = plain_route(opcode, keyspace, destination, sql);
    route.single_shard = !any;
    route.table = show.table.clone();
    Ok(Plan { kind: statement.kind, primitive: Primitive::Route(route), needs: Needs::default(), cacheable: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::tests::{context_of, vschema_of};
    use crate::{Target, plan_text};

    const VSCHEMA: &str = r#"{"keyspaces":{"commerce":{"tables":{"customer":{},"corder":{}}},
        "sharded":{"sharded":true,"vindexes":{"h":{"type":"hash"},"l":{"type":"lookup_unique","owner":"s",
            "params":{"to":"x","from":"y","table":"z"}}},
            "tables":{"s":{"columnVindexes":[{"column":"id","name":"h"},{"columns":["a","b"],"name":"l"}]}}}}}"#;

    fn primitive(sql: &str, target: &str) -> Result<Primitive, String> {
        let vschema = vschema_of(VSCHEMA);
        let target = Target::parse(target).expect(target);
        plan_text(sql, &context_of(&vschema, &target)).map(|plan| plan.primitive).map_err(|e| e.to_string())
    }

    /// Rows as text, columns first.
    fn table(sql: &str, target: &str) -> Vec<Vec<String>> {
        let Ok(Primitive::Rows(result)) = primitive(sql, target) else { panic!("{sql}") };
        let mut out = vec![result.fields.iter().map(|f| f.name.clone()).collect::<Vec<_>>()];
        for row in &result.rows {
            let mut at = 0;
            let cells = row.lengths.iter().map(|length| {
                let end = at + *length as usize;
                let cell = String::from_utf8_lossy(&row.values[at..end]).into_owned();
                at = end;
                cell
            });
            out.push(cells.collect());
        }
        assert_eq!(result.rows_affected as usize, result.rows.len());
        out
    }

    fn sent(sql: &str, target: &str) -> (String, String) {
        match primitive(sql, target) {
            Ok(Primitive::Route(route)) => (route.keyspace.clone(), route.query.sql().to_owned()),
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn from_the_vschema() {
        assert_eq!(table("show vschema tables", "commerce"), [["Tables"], ["corder"], ["customer"], ["dual"]]);
        assert!(primitive("show vschema tables", "").expect_err("none").starts_with("no keyspace"));
        assert_eq!(
            primitive("show vschema tables", "nope").expect_err("unknown"),
            "keyspace nope not found in vschema"
        );
        assert_eq!(
            table("show vschema vindexes", "")[1..],
            [["sharded", "h", "hash", "", ""], ["sharded", "l", "lookup_unique", "from=y; table=z; to=x", "s"]]
        );
        assert_eq!(
            table("show vschema vindexes on sharded.s", "")[2],
            ["a, b", "l", "lookup_unique", "from=y; table=z; to=x", "s"]
        );
    }

    #[test]
    fn fixed_answers() {
        assert_eq!(table("show engines", "")[1][0], "InnoDB");
        assert_eq!(table("show charset", "").len(), 3);
        assert_eq!(table("show charset like '%mb4'", "").len(), 2);
        assert_eq!(table("show session status like 'uptime'", ""), [["Variable_name", "Value"]]);
        assert!(matches!(primitive("show keyspaces", ""), Ok(Primitive::Show(ShowAction::Keyspaces { like: None }))));
        assert!(matches!(primitive("show vitess_tablets", ""), Ok(Primitive::Show(ShowAction::Tablets { .. }))));
    }

    #[test]
    fn by_a_shard() {
        for (sql, target, keyspace, text) in [
            ("show tables", "commerce", "commerce", "show tables"),
            ("show full tables from commerce like 'c%'", "", "commerce", "show full tables like 'c%'"),
            ("show create table commerce.customer", "", "commerce", "show create table customer"),
            ("show create table customer", "", "commerce", "show create table customer"),
            ("show columns from customer from commerce", "sharded", "commerce", "show columns from customer"),
            ("show variables like 'x'", "", "commerce", "show variables like 'x'"),
            ("show create database commerce", "commerce", "commerce", "show create database commerce"),
            ("show tables from information_schema", "", "commerce", "show tables from information_schema"),
            ("show table status", "commerce", "commerce", "show table status"),
        ] {
            assert_eq!(sent(sql, target), (keyspace.to_owned(), text.to_owned()), "{sql}");
        }
        assert_eq!(primitive("show tables from nope", "").expect_err("unknown"), "keyspace nope not found in vschema");
        assert!(primitive("show tables", "").expect_err("two keyspaces").starts_with("no keyspace"));
    }

    #[test]
    fn patterns() {
        for (text, pattern, matches) in [
            ("commerce", "comm%", true),
            ("commerce", "%MERCE", true),
            ("commerce", "c_mmerce", true),
            ("commerce", "c_merce", false),
            ("a_b", "a\\_b", true),
            ("axb", "a\\_b", false),
            ("", "%", true),
            ("abcabd", "%ab%d", true),
            ("abc", "%ab", false),
        ] {
            assert_eq!(like(text, pattern), matches, "{text} like {pattern}");
        }
    }
}
