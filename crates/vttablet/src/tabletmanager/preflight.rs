//! `PreflightSchema`: trying changes out in a scratch copy of the schema, with no data and outside the binary log.

use mysqlctl::script;
use vterrors::{Code, Result, VtError};
use vtproto::tabletmanagerdata::{SchemaChangeResult, SchemaDefinition};

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
        let _action = self.action.lock().await;
        let everything = TableFilter::new(&[], &[], true)?;
        let mut conn = self.mysqld.dba().await?;
        let original = read_schema(&mut conn, &self.db_name(), &everything).await?;
        let results = async {
            copy_schema(&mut conn, &original).await?;
            let mut results = Vec::new();
            let mut before = read_schema(&mut conn, SCRATCH, &everything).await?;
            for change in changes {
                run_statements(&mut conn, change, LINES_BEFORE).await?;
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
        conn.execute(&sql)
            .await
            .map_err(|error| VtError::from(error).wrap(format!("copying {} into the scratch database", table.name)))?;
    }
    Ok(())
}

/// Runs a script in the session's database; errors read as the `mysql` program prints them.
pub(super) async fn run_statements(conn: &mut Lease, script: &str, lines_before: usize) -> Result<()> {
    for statement in script::split(script) {
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
