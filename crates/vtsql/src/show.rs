//! SHOW, taken apart by our own parser.

use crate::cursor::Cursor;
use crate::error::SyntaxError;

/// What is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShowKind {
    /// `databases`, `schemas`, `keyspaces`, `vitess_keyspaces`.
    Databases,
    VitessShards,
    VitessTablets,
    VitessTarget,
    VschemaTables,
    /// `vschema vindexes [on t]`.
    VschemaVindexes,
    /// `vitess_metadata variables`.
    VitessMetadata,
    /// Another `vitess_…` or `vschema …` word: recognised, not built.
    VitessOther(String),
    Status,
    Variables,
    Engines,
    Plugins,
    Charset,
    Collation,
    Warnings,
    Errors,
    Tables,
    TableStatus,
    Triggers,
    Events,
    CreateTable,
    CreateView,
    /// `create database|schema x`.
    CreateDatabase,
    /// `create procedure|function|trigger|event|user …`.
    CreateOther(String),
    Columns,
    Index,
    Processlist,
    Grants,
    /// Anything else; the first word in lower case.
    Other(String),
}

/// A SHOW statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShowStatement {
    pub kind: ShowKind,
    /// `show full …`.
    pub full: bool,
    /// `global`, `session` or `local`, lower case.
    pub scope: Option<String>,
    /// The table, in `show create table ks.t`, `show columns from t`, `show index from t`, `show vschema vindexes on t`.
    pub table: Option<String>,
    /// The database, from `from ks` or the table's qualifier.
    pub database: Option<String>,
    /// Byte span in the statement's text of the clause that names the database, with the word in
    /// front (` from ks`, `ks.`), so that it can be cut out before the text goes to a tablet, where the
    /// database has another name.
    pub database_span: Option<(usize, usize)>,
    /// Pattern of LIKE.
    pub like: Option<String>,
    /// Condition of WHERE, as written.
    pub filter: Option<String>,
}

/// Reads the SHOW statement at the cursor.
pub(crate) fn parse(cursor: &mut Cursor<'_>) -> Result<ShowStatement, SyntaxError> {
    cursor.next();
    let mut show = ShowStatement {
        kind: ShowKind::Databases,
        full: false,
        scope: None,
        table: None,
        database: None,
        database_span: None,
        like: None,
        filter: None,
    };
    loop {
        match cursor.word().as_str() {
            "full" => show.full = true,
            "extended" => {}
            "global" | "session" | "local" => show.scope = Some(cursor.word()),
            _ => break,
        }
        cursor.next();
    }
    let word = cursor.word();
    if word.is_empty() {
        return Err(cursor.error());
    }
    cursor.next();
    show.kind = match word.as_str() {
        "databases" | "schemas" | "keyspaces" | "vitess_keyspaces" => ShowKind::Databases,
        "vitess_shards" => ShowKind::VitessShards,
        "vitess_tablets" => ShowKind::VitessTablets,
        "vitess_target" => ShowKind::VitessTarget,
        "vitess_metadata" if cursor.take("variables") => ShowKind::VitessMetadata,
        "vschema" if cursor.take("tables") => ShowKind::VschemaTables,
        "vschema" if cursor.take("vindexes") => {
            if cursor.take("on") || cursor.take("from") {
                table(cursor, &mut show)?;
            }
            ShowKind::VschemaVindexes
        }
        "vschema" => return Err(cursor.error()),
        other if other.starts_with("vitess_") => ShowKind::VitessOther(word.clone()),
        "status" => ShowKind::Status,
        "variables" => ShowKind::Variables,
        "engines" => ShowKind::Engines,
        "storage" if cursor.take("engines") => ShowKind::Engines,
        "plugins" => ShowKind::Plugins,
        "charset" => ShowKind::Charset,
        "character" | "char" if cursor.take("set") => ShowKind::Charset,
        "collation" => ShowKind::Collation,
        "warnings" => ShowKind::Warnings,
        "errors" => ShowKind::Errors,
        "tables" => ShowKind::Tables,
        "table" if cursor.take("status") => ShowKind::TableStatus,
        "triggers" => ShowKind::Triggers,
        "events" => ShowKind::Events,
        "columns" | "fields" => {
            if !cursor.take("from") && !cursor.take("in") {
                return Err(cursor.error());
            }
            table(cursor, &mut show)?;
            ShowKind::Columns
        }
        "index" | "indexes" | "keys" => {
            if !cursor.take("from") && !cursor.take("in") {
                return Err(cursor.error());
            }
            table(cursor, &mut show)?;
            ShowKind::Index
        }
        "create" => created(cursor, &mut show)?,
        "processlist" => ShowKind::Processlist,
        "grants" => ShowKind::Grants,
        _ => ShowKind::Other(word.clone()),
    };
    rest(cursor, &mut show)?;
    Ok(show)
}

/// Behind `show create`.
fn created(cursor: &mut Cursor<'_>, show: &mut ShowStatement) -> Result<ShowKind, SyntaxError> {
    let word = cursor.word();
    cursor.next();
    Ok(match word.as_str() {
        "table" => {
            table(cursor, show)?;
            ShowKind::CreateTable
        }
        "view" => {
            table(cursor, show)?;
            ShowKind::CreateView
        }
        "database" | "schema" => {
            cursor.skip_any(&["if", "not", "exists"]);
            show.database = Some(cursor.expect_name()?);
            ShowKind::CreateDatabase
        }
        _ => {
            if cursor.peek().is_some_and(|t| t.name(cursor.bytes()).is_some()) {
                table(cursor, show)?;
            }
            ShowKind::CreateOther(word)
        }
    })
}

/// `[database.]table`.
fn table(cursor: &mut Cursor<'_>, show: &mut ShowStatement) -> Result<(), SyntaxError> {
    let first = cursor.peek();
    let mut name = cursor.expect_name()?;
    if cursor.take_punct(".") {
        let second = cursor.peek();
        show.database = Some(std::mem::replace(&mut name, cursor.expect_name()?));
        show.database_span = first.zip(second).map(|(first, second)| (first.start, second.start));
    }
    show.table = Some(name);
    Ok(())
}

/// FROM, LIKE and WHERE behind the kind. What else there is belongs to forms that go on as they are.
fn rest(cursor: &mut Cursor<'_>, show: &mut ShowStatement) -> Result<(), SyntaxError> {
    // `show grants for x`, `show engine innodb status` … have names here that are no databases.
    let may_name = matches!(
        show.kind,
        ShowKind::Tables
            | ShowKind::TableStatus
            | ShowKind::Triggers
            | ShowKind::Events
            | ShowKind::Columns
            | ShowKind::Index
            | ShowKind::VschemaTables
    );
    while let Some(token) = cursor.peek() {
        if may_name && (cursor.is("from") || cursor.is("in")) {
            // The blank in front goes with the clause.
            let start = cursor.sql[..token.start].trim_end().len();
            cursor.next();
            let name = cursor.peek();
            show.database = Some(cursor.expect_name()?);
            if show.database_span.is_none() {
                show.database_span = name.map(|name| (start, name.end));
            }
        } else if cursor.take("like") {
            show.like = Some(match cursor.string() {
                Some(pattern) => pattern,
                None => return Err(cursor.error()),
            });
        } else if cursor.take("where") {
            let from = cursor.peek().map_or(cursor.sql.len(), |t| t.start);
            show.filter = Some(cursor.sql[from..].to_owned());
            cursor.at = cursor.tokens.len();
        } else {
            cursor.next();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statement::{Detail, parse as parse_statement};

    fn show(sql: &str) -> ShowStatement {
        match parse_statement(sql).unwrap_or_else(|e| panic!("{sql}: {e}")).detail {
            Detail::Show(show) => show,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn kinds() {
        for (sql, kind) in [
            ("show keyspaces", ShowKind::Databases),
            ("SHOW DATABASES", ShowKind::Databases),
            ("show VITESS_SHARDS", ShowKind::VitessShards),
            ("show vschema tables", ShowKind::VschemaTables),
            ("show full tables", ShowKind::Tables),
            ("show character set", ShowKind::Charset),
            ("show session status like 'x'", ShowKind::Status),
            ("show create table a", ShowKind::CreateTable),
            ("show create database x", ShowKind::CreateDatabase),
            ("show table status", ShowKind::TableStatus),
            ("show keys from t", ShowKind::Index),
            ("show grants", ShowKind::Grants),
            ("show engine innodb status", ShowKind::Other("engine".into())),
            ("show master status", ShowKind::Other("master".into())),
        ] {
            assert_eq!(show(sql).kind, kind, "{sql}");
        }
    }

    #[test]
    fn the_database_can_be_cut_out() {
        for (sql, database, cut) in [
            ("show tables from ks like 'a%'", "ks", "show tables like 'a%'"),
            ("show full columns from `k s`.t", "k s", "show full columns from t"),
            ("show columns from t from ks", "ks", "show columns from t"),
            ("show create table ks.t", "ks", "show create table t"),
            ("show index in t in ks where Key_name = 'x'", "ks", "show index in t where Key_name = 'x'"),
        ] {
            let found = show(sql);
            assert_eq!(found.database.as_deref(), Some(database), "{sql}");
            let (start, end) = found.database_span.expect("a span");
            assert_eq!(format!("{}{}", &sql[..start], &sql[end..]), cut);
        }
        assert_eq!(show("show tables like 'a%'").like.as_deref(), Some("a%"));
        assert_eq!(show("show variables where Variable_name = 'x'").filter.as_deref(), Some("Variable_name = 'x'"));
        assert_eq!(show("show vschema vindexes on ks.t").table.as_deref(), Some("t"));
    }
}
