//! CopySchemaShard: gives the master of a shard the tables and views of another tablet.

use std::time::Duration;

use topo::topoproto::{self, tablet_alias_string};
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{Tablet, TabletAlias};

use super::{Filter, diff_schema, get_schema, reload_shard};
use crate::Wrangler;
use crate::error::{Result, bail, err};
use crate::logger::{info, warning};
use crate::output::row_values;
use crate::wrangler::within;

/// What texts hold in the place of the database's name.
const DATABASE: &str = "{{.DatabaseName}}";
/// Bound of one statement on the destination.
const STATEMENT_LIMIT: Duration = Duration::from_secs(30);

/// Copies the schema of `source` to a shard. A destination that has it already is left as it is.
pub(crate) async fn copy_schema_shard(
    wr: &Wrangler,
    source: &TabletAlias,
    filter: &Filter,
    keyspace: &str,
    shard: &str,
    wait_slave_timeout: Duration,
) -> Result {
    let info = wr.topo().get_shard(keyspace, shard).await?;
    let Some(master) = info.master_alias() else {
        bail!(
            "no master in shard record {keyspace}/{shard}. Consider running 'vtctl InitShardMaster' in case of a new shard or to reparent the shard to fix the topology data"
        );
    };
    let source = wr.topo().get_tablet(source).await?.record;
    let dest = wr.topo().get_tablet(master).await?.record;
    copy_shard_metadata(wr, &source, &dest).await?;

    let wanted = get_schema(wr, &source, filter)
        .await
        .map_err(|error| err!("CopySchemaShard failed because schemas could not be compared initially: {error}"))?;
    let found = get_schema(wr, &dest, filter)
        .await
        .map_err(|error| err!("CopySchemaShard failed because schemas could not be compared initially: {error}"))?;
    let names = (alias(&source), alias(&dest));
    if diff_schema(&names.0, &wanted, &names.1, &found).is_empty() {
        return Ok(());
    }
    let statements = statements(&wanted);
    for (i, statement) in statements.iter().enumerate() {
        let reload = i + 1 == statements.len();
        apply(wr, &dest, statement, reload).await.map_err(|error| {
            err!("creating a table failed. Most likely some tables already exist on the destination and differ from the source. Please remove all to be copied tables from the destination manually and run this command again. Full error: {error}")
        })?;
    }
    let position = within(STATEMENT_LIMIT, wr.tmc().master_position(&dest, tmd::MasterPositionRequest {}))
        .await
        .map_err(|error| err!("CopySchemaShard: can't get replication position after schema applied: {error}"))?
        .position;
    // CREATE DATABASE does nothing when the database is there with, say, another character set.
    let found = get_schema(wr, &dest, filter)
        .await
        .map_err(|error| err!("CopySchemaShard failed because schemas could not be compared finally: {error}"))?;
    let diffs = diff_schema(&names.0, &wanted, &names.1, &found);
    if !diffs.is_empty() {
        bail!(
            "CopySchemaShard was not successful because the schemas between the two tablets {} and {} differ: {diffs:?}",
            names.0,
            names.1
        );
    }
    let reload = reload_shard(wr, keyspace, shard, &position, 10, true);
    if tokio::time::timeout(wait_slave_timeout, reload).await.is_err() {
        warning!(wr, "not all tablets have reloaded their schema within {wait_slave_timeout:?}");
    }
    Ok(())
}

fn alias(tablet: &Tablet) -> String {
    tablet_alias_string(tablet.alias.as_ref())
}

/// The database, then tables, those that foreign keys refer to first, then views, which may need any of the tables.
fn statements(schema: &tmd::SchemaDefinition) -> Vec<String> {
    let (views, tables): (Vec<_>, Vec<_>) = schema.table_definitions.iter().partition(|table| table.r#type == "VIEW");
    let mut statements = vec![schema.database_schema.clone()];
    statements.extend(
        referred_first(tables)
            .iter()
            .map(|table| table.schema.replacen("CREATE TABLE `", &format!("CREATE TABLE {DATABASE}.`"), 1)),
    );
    statements.extend(views.iter().map(|view| view.schema.clone()));
    statements
}

/// Tables in an order in which each can be made; those that refer to one another in a circle come last.
fn referred_first(mut tables: Vec<&tmd::TableDefinition>) -> Vec<&tmd::TableDefinition> {
    let refers = |table: &tmd::TableDefinition, other: &tmd::TableDefinition| {
        table.name != other.name
            && table.schema.contains(&format!("REFERENCES {} ", vtsql::quote_identifier(&other.name)))
    };
    let mut ordered = Vec::with_capacity(tables.len());
    while !tables.is_empty() {
        let at = tables.iter().position(|table| !tables.iter().any(|other| refers(table, other))).unwrap_or(0);
        ordered.push(tables.remove(at));
    }
    ordered
}

/// The statement for a database of that name.
fn fill(statement: &str, database: &str) -> String {
    let quoted = vtsql::quote_identifier(database);
    statement.replace(&format!("`{DATABASE}`"), &quoted).replace(DATABASE, &quoted)
}

async fn apply(wr: &Wrangler, dest: &Tablet, statement: &str, reload_schema: bool) -> Result {
    let database = topoproto::tablet_db_name(dest);
    let request = tmd::ExecuteFetchAsDbaRequest {
        query: fill(statement, &database).into_bytes(),
        db_name: database,
        max_rows: 0,
        disable_binlogs: false,
        reload_schema,
    };
    within(STATEMENT_LIMIT, wr.tmc().execute_fetch_as_dba(dest, request)).await?;
    Ok(())
}

/// Copies the rows of `_vt.shard_metadata`, if the source has the table.
async fn copy_shard_metadata(wr: &Wrangler, source: &Tablet, dest: &Tablet) -> Result {
    let fetch = async |tablet: &Tablet, sql: String, max_rows: u64| {
        let request = tmd::ExecuteFetchAsDbaRequest { query: sql.into_bytes(), max_rows, ..Default::default() };
        within(STATEMENT_LIMIT, wr.tmc().execute_fetch_as_dba(tablet, request))
            .await
            .map(|answer| answer.result.unwrap_or_default())
    };
    let there = "SELECT 1 FROM information_schema.tables WHERE table_schema = '_vt' AND table_name = 'shard_metadata'";
    let present = fetch(source, there.to_owned(), 1)
        .await
        .map_err(|e| err!("ExecuteFetchAsDba({}, {there}) failed: {e}", alias(source)))?;
    if present.rows.is_empty() {
        info!(wr, "_vt.shard_metadata doesn't exist on the source tablet {}, skipping its copy", alias(source));
        return Ok(());
    }
    let read = "SELECT db_name, name, value FROM _vt.shard_metadata";
    let rows = fetch(source, read.to_owned(), 100)
        .await
        .map_err(|e| err!("ExecuteFetchAsDba({}, {read}) failed: {e}", alias(source)))?;
    for row in &rows.rows {
        let values: Vec<String> = row_values(row).into_iter().map(literal).collect();
        let [database, name, value] = values.as_slice() else {
            bail!("a row of _vt.shard_metadata has {} columns", values.len())
        };
        let write = format!(
            "INSERT INTO _vt.shard_metadata (db_name, name, value) VALUES ({database}, {name}, {value}) ON DUPLICATE KEY UPDATE value = {value}"
        );
        fetch(dest, write, 0).await.map_err(|e| err!("copying _vt.shard_metadata to {} failed: {e}", alias(dest)))?;
    }
    Ok(())
}

/// A value as SQL. Bytes that are no text go as a hexadecimal literal.
fn literal(value: Option<&[u8]>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(_) => {
                let mut quoted = Vec::new();
                vtsql::quote_string(bytes, &mut quoted);
                String::from_utf8_lossy(&quoted).into_owned()
            }
            Err(_) => format!("x'{}'", hex::encode(bytes)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_go_to_the_database_of_the_destination_and_views_come_last() {
        let table = |name: &str, ty: &str, schema: &str| tmd::TableDefinition {
            name: name.into(),
            r#type: ty.into(),
            schema: schema.into(),
            ..Default::default()
        };
        let schema = tmd::SchemaDefinition {
            database_schema: "CREATE DATABASE IF NOT EXISTS {{.DatabaseName}} /* x */".into(),
            table_definitions: vec![
                table("v", "VIEW", "CREATE VIEW {{.DatabaseName}}.`v` AS select 1"),
                table("t", "BASE TABLE", "CREATE TABLE `t` (\n  `id` int\n)"),
            ],
            ..Default::default()
        };
        let filled: Vec<String> = statements(&schema).iter().map(|s| fill(s, "vt_a-b")).collect();
        assert_eq!(
            filled,
            [
                "CREATE DATABASE IF NOT EXISTS `vt_a-b` /* x */",
                "CREATE TABLE `vt_a-b`.`t` (\n  `id` int\n)",
                "CREATE VIEW `vt_a-b`.`v` AS select 1",
            ]
        );
    }

    #[test]
    fn foreign_keys_find_their_tables() {
        let table = |name: &str, refers: &[&str]| tmd::TableDefinition {
            name: name.into(),
            schema: refers.iter().map(|other| format!("FOREIGN KEY (`x`) REFERENCES `{other}` (`id`),\n")).collect(),
            ..Default::default()
        };
        let order = |tables: &[tmd::TableDefinition]| {
            referred_first(tables.iter().collect()).iter().map(|table| table.name.clone()).collect::<Vec<_>>()
        };
        let line =
            [table("corder", &["customer", "corder"]), table("customer", &["region"]), table("region", &["other"])];
        assert_eq!(order(&line), ["region", "customer", "corder"]);
        let circle = [table("a", &["b"]), table("b", &["a"]), table("c", &[])];
        assert_eq!(order(&circle), ["c", "a", "b"]);
    }
}
