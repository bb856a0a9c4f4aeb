//! `ExecuteFetchAs*`: statements of operators and cluster commands, straight to mysqld.
//!
//! A statement that outlives its deadline is killed: dropping the connection alone would let mysqld work on.

use mysql::client::ClientError;
use tokio::time::{Instant, timeout_at};
use vterrors::{Code, Result, VtError};
use vtproto::{query::QueryResult, tabletmanagerdata as tmd};

use super::{
    manager::TabletManager,
    mysqld::{Lease, escape_id},
};

impl TabletManager {
    pub(super) async fn execute_fetch_as_dba(
        &self,
        request: tmd::ExecuteFetchAsDbaRequest,
        deadline: Instant,
    ) -> Result<QueryResult> {
        let mut conn = self.mysqld.dba().await?;
        if request.disable_binlogs {
            conn.execute("SET sql_log_bin = OFF").await?;
        }
        use_database(&mut conn, &request.db_name).await;
        let result = self.fetch(&mut conn, &request.query, request.max_rows, deadline).await?;
        self.reload_after(request.reload_schema).await?;
        Ok(result)
    }

    pub(super) async fn execute_fetch_as_all_privs(
        &self,
        request: tmd::ExecuteFetchAsAllPrivsRequest,
        deadline: Instant,
    ) -> Result<QueryResult> {
        let mut conn = self.mysqld.allprivs().await?;
        use_database(&mut conn, &request.db_name).await;
        let result = self.fetch(&mut conn, &request.query, request.max_rows, deadline).await?;
        self.reload_after(request.reload_schema).await?;
        Ok(result)
    }

    pub(super) async fn execute_fetch_as_app(
        &self,
        request: tmd::ExecuteFetchAsAppRequest,
        deadline: Instant,
    ) -> Result<QueryResult> {
        let mut conn = self.mysqld.app().await?;
        self.fetch(&mut conn, &request.query, request.max_rows, deadline).await
    }

    async fn fetch(&self, conn: &mut Lease, sql: &[u8], max_rows: u64, deadline: Instant) -> Result<QueryResult> {
        let max_rows = usize::try_from(max_rows).unwrap_or(usize::MAX);
        let thread_id = conn.thread_id();
        match timeout_at(deadline, conn.query(sql, max_rows)).await {
            Ok(result) => result.map_err(|error| with_statement(&error, sql)),
            Err(_) => {
                self.kill(thread_id).await;
                let text =
                    format!("the statement did not end in time and was killed: {}", String::from_utf8_lossy(sql));
                Err(VtError::new(Code::DeadlineExceeded, text))
            }
        }
    }

    async fn kill(&self, thread_id: u32) {
        if let Err(error) = self.mysqld.run(&[&format!("KILL {thread_id}")]).await {
            tracing::warn!("cannot kill mysqld's connection {thread_id}: {error}");
        }
    }

    async fn reload_after(&self, wanted: bool) -> Result<()> {
        if !wanted {
            return Ok(());
        }
        self.query.reload_schema().await
    }
}

/// A database that does not exist is no error: the statement may be the one that makes it.
async fn use_database(conn: &mut Lease, db_name: &str) {
    if db_name.is_empty() {
        return;
    }
    if let Err(error) = conn.execute(&format!("USE {}", escape_id(db_name))).await {
        tracing::info!("going on without a database: {error}");
    }
}

/// mysqld's error with the statement that it is about.
fn with_statement(error: &ClientError, sql: &[u8]) -> VtError {
    let text = format!("{} during query: {}", error.mysql(), String::from_utf8_lossy(sql));
    VtError::new(VtError::from(error.clone()).code(), text)
}
