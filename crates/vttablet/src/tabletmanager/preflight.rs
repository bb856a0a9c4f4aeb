//! `PreflightSchema`: trying changes out in a scratch copy of the schema, with no data and outside the binary log.
//!
//! Invariant: what is tried can reach nothing but the scratch database. A statement that names a database, or whose object
//! is in none, is refused or left untried.

use mysqlctl::script;
use vterrors::{Code, Result, VtError};
use vtproto::tabletmanagerdata::{SchemaChangeResult, SchemaDefinition};
use vtsql::{Access, DdlVerb, Detail, Statement, StatementKind};

use super::{
    manager::TabletManager,
    mysqld::{Lease, escape_id},
    schema::{DATABASE_MARK, TableFilter, VIEW, read_schema},
};

const SCRATCH: &str = "_vt_preflight";
/// Lines that stand before a change where v5.0.1 hands it to the `mysql` program: its errors count them, and so do ours.
const LINES_BEFORE: usize = 2;

impl TabletManager {
    /// What each change would do, one after the other. Nothing is left of them.
    pub(super) async fn preflight_schema(&self, changes: &[String]) -> Result<Vec<SchemaChangeResult>> {
        let trials = changes.iter().map(|change| trials(change)).collect::<Result<Vec<_>>>()?;
        let _action = self.action.lock().await;
        let everything = TableFilter::new(&[], &[], true)?;
        let mut conn = self.mysqld.dba().await?;
        let original = read_schema(&mut conn, &self.db_name(), &everything).await?;
        let results = async {
            copy_schema(&mut conn, &original).await?;
            let mut results = Vec::new();
            let mut before = read_schema(&mut conn, SCRATCH, &everything).await?;
            for trials in &trials {
                run_all(&mut conn, trials, LINES_BEFORE).await?;
                let after = read_schema(&mut conn, SCRATCH, &everything).await?;
                results.push(SchemaChangeResult { before_schema: Some(before), after_schema: Some(after.clone()) });
                before = after;
            }
            Ok(results)
        }
        .await;
        // On another connection when that one broke.
        if let Err(error) =
            self.mysqld.run(&["SET sql_log_bin = 0", &format!("DROP DATABASE IF EXISTS {SCRATCH}")]).await
        {
            tracing::warn!("the scratch database was not removed: {error}");
        }
        results
    }
}

/// The statements of a change that are tried.
fn trials(change: &str) -> Result<Vec<script::Statement>> {
    let mut tried = Vec::new();
    for statement in script::split(change) {
        let parsed = vtsql::parse(&statement.text)
            .map_err(|error| VtError::new(Code::InvalidArgument, format!("{error} in {}", statement.text)))?;
        if is_tried(&parsed)? {
            tried.push(statement);
        }
    }
    Ok(tried)
}

/// Whether a statement can be tried in the scratch database. What only reads, and what mysqld keeps outside of tables and views,
/// is not tried.
///
/// # Errors
/// It is none that may change a schema: it would act on something else than the database of the keyspace, or on nothing
/// but its connection.
fn is_tried(statement: &Statement) -> Result<bool> {
    use StatementKind as K;
    let refused = |why: &str| Err(VtError::new(Code::InvalidArgument, format!("{why}: {}", statement.sql)));
    if let Some(table) =
        statement.tables.iter().find(|table| table.access == Access::Write && table.qualifier.is_some())
    {
        let database = table.qualifier.as_deref().unwrap_or_default();
        return refused(&format!("a schema change is for the database of its keyspace and names none, not {database}"));
    }
    match (statement.kind, &statement.detail) {
        (_, Detail::Ddl(DdlVerb::CreateDatabase | DdlVerb::DropDatabase)) => {
            refused("a schema change is for what is in a database")
        }
        (_, Detail::Ddl(DdlVerb::TemporaryTable)) => refused("a temporary table is none of the schema"),
        (_, Detail::Ddl(DdlVerb::AlterDatabase)) => Ok(false),
        (_, Detail::Ddl(DdlVerb::Other)) => Ok(!is_of_no_table(&statement.sql)),
        (K::Ddl | K::Insert | K::Replace | K::Update | K::Delete, _) => Ok(true),
        (
            K::Empty
            | K::Comment
            | K::Select
            | K::Show
            | K::Explain
            | K::Describe
            | K::Call
            | K::Do
            | K::Maintenance
            | K::Priv,
            _,
        ) => Ok(false),
        _ => refused("not a change of a schema"),
    }
}

/// Whether CREATE, ALTER or DROP is of something whose name tells no database, or one of any. What is none of these is a mistake
/// that mysqld explains.
fn is_of_no_table(sql: &str) -> bool {
    const OBJECTS: &[&str] = &[
        "procedure",
        "function",
        "trigger",
        "event",
        "package",
        "sequence",
        "server",
        "tablespace",
        "logfile",
        "undo",
        "user",
        "role",
        "instance",
        "resource",
        "spatial",
    ];
    // `CREATE OR REPLACE DEFINER = u@h AGGREGATE FUNCTION`
    let words = sql.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty());
    words.skip(1).take(8).any(|word| OBJECTS.iter().any(|object| word.eq_ignore_ascii_case(object)))
}

async fn copy_schema(conn: &mut Lease, original: &SchemaDefinition) -> Result<()> {
    conn.execute("SET sql_log_bin = 0").await?;
    conn.execute("SET foreign_key_checks = 0").await?;
    conn.execute(&format!("DROP DATABASE IF EXISTS {SCRATCH}")).await?;
    let quoted = escape_id(SCRATCH);
    conn.execute(&original.database_schema.replacen(DATABASE_MARK, &quoted, 1)).await?;
    conn.execute(&format!("USE {quoted}")).await?;
    // Tables come first in a definition, so that views find theirs.
    for table in &original.table_definitions {
        let sql =
            if table.r#type == VIEW { table.schema.replace(DATABASE_MARK, &quoted) } else { table.schema.clone() };
        let Err(error) = conn.execute(&sql).await else { continue };
        let error = VtError::from(error).wrap(format!("copying {} into the scratch database", table.name));
        if table.r#type != VIEW {
            return Err(error);
        }
        // A view whose tables are gone is there all the same, and no reason to refuse other changes.
        tracing::warn!("{error}");
    }
    Ok(())
}

/// Runs a script in the session's database; errors read as the `mysql` program prints them.
pub(super) async fn run_statements(conn: &mut Lease, script: &str, lines_before: usize) -> Result<()> {
    run_all(conn, &script::split(script), lines_before).await
}

async fn run_all(conn: &mut Lease, statements: &[script::Statement], lines_before: usize) -> Result<()> {
    for statement in statements {
        if let Err(error) = conn.execute(&statement.text).await {
            let error = error.mysql();
            let text = format!(
                "mysql: exit status 1, output: --------------\n{}\n--------------\n\nERROR {} ({}) at line {}: {}\n",
                statement.text,
                error.errno,
                error.sqlstate,
                lines_before + statement.line,
                error.message
            );
            return Err(VtError::new(Code::Unknown, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tried(sql: &str) -> Result<usize, String> {
        trials(sql).map(|trials| trials.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_stays_in_the_scratch_database_is_tried() {
        for sql in [
            "create table t (id int)",
            "create table t like other.s",
            "create table if not exists t (id int, foreign key (id) references other.s (id)) /*!50100 partition by hash(id) */",
            "alter table t add column v int, rename to u",
            "drop table if exists t, u",
            "rename table t to u, v to w",
            "truncate t",
            "create unique index i on t (v)",
            "drop index i on t",
            "create or replace view v as select a.id from other.t as a",
            "drop view v",
            "insert into t select * from other.t",
            "update t join u using (id) set t.v = 1",
            "delete from t where id = 1",
            "create tabel t (id int)",
        ] {
            assert_eq!(tried(sql), Ok(1), "{sql}");
        }
        for sql in [
            "alter database ks charset utf8mb4",
            "create procedure p() select 1",
            "create trigger d.g before insert on t for each row set new.v = 1",
            "grant select on *.* to u",
            "create user u@h",
            "optimize table d.t",
            "select * from d.t",
            "-- nothing\n",
        ] {
            assert_eq!(tried(sql), Ok(0), "{sql}");
        }
        for sql in [
            "drop table vt_ks.t",
            "drop table t, vt_ks.u",
            "rename table t to vt_ks.u",
            "rename table vt_ks.t to u",
            "alter table t rename to vt_ks.u",
            "alter table t rename vt_ks.u",
            "alter table vt_ks.t add column v int",
            "create table vt_ks.t (id int)",
            "truncate table `vt_ks`.t",
            "create index i on vt_ks.t (v)",
            "drop index i on vt_ks.t",
            "create view vt_ks.v as select 1",
            "drop view v, vt_ks.w",
            "insert into vt_ks.t values (1)",
            "replace vt_ks.t values (1)",
            "update vt_ks.t set v = 1",
            "update t join vt_ks.u using (id) set u.v = 1",
            "delete from vt_ks.t",
            "delete vt_ks.t from vt_ks.t join u using (id)",
            "drop database vt_ks",
            "create database d",
            "create temporary table t (id int)",
            "set global max_connections = 3",
            "use mysql",
            "create table t (id int); drop table vt_ks.t",
            "flush tables",
            "alter vschema add table t",
            "lock tables t write",
            "begin",
        ] {
            tried(sql).expect_err(sql);
        }
    }
}
