//! The general RPCs: type, state, hooks, read-only, table locks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use mysqlctl::hook;
use tokio::time::{Instant, sleep};
use vterrors::{Code, Result, VtError};
use vtproto::{tabletmanagerdata as tmd, topodata::TabletType};

use super::{
    manager::{TablesLock, TabletManager},
    markers::Marker,
    mysqld::{Lease, cells, escape_id},
};

impl TabletManager {
    /// Holds the action lock for a while, so that nothing else changes the tablet.
    pub(super) async fn hold(&self, nanoseconds: i64) -> Result<()> {
        let _action = self.action.lock().await;
        sleep(Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))).await;
        Ok(())
    }

    pub(super) async fn execute_hook(&self, request: tmd::ExecuteHookRequest) -> Result<tmd::ExecuteHookResponse> {
        let _action = self.action.lock().await;
        let mut env: BTreeMap<String, String> = request.extra_env.into_iter().collect();
        env.insert("TABLET_ALIAS".to_owned(), self.alias_string());
        let result = hook::run(&request.name, &request.parameters, &env).await;
        Ok(tmd::ExecuteHookResponse {
            exit_status: result.exit_status.into(),
            stdout: result.stdout,
            stderr: result.stderr,
        })
    }

    /// mysqld refuses, or accepts, writes; a restart of mysqld or of this process does not change that.
    pub(super) async fn set_read_only(&self, on: bool) -> Result<()> {
        let _action = self.action.lock().await;
        self.mysqld.set_read_only(on).await?;
        self.markers.put(Marker::ReadOnly, on && self.tablet_type() == TabletType::Master);
        Ok(())
    }

    pub(super) async fn change_type(&self, tablet_type: TabletType) -> Result<()> {
        let _action = self.action.lock().await;
        // Two workers that both want this tablet as their source must not both believe to have it.
        if tablet_type == TabletType::Drained && self.tablet_type() == TabletType::Drained {
            return Err(VtError::new(
                Code::FailedPrecondition,
                format!("Tablet: {}, is already drained", self.alias_string()),
            ));
        }
        if tablet_type == TabletType::Master && self.tablet_type() != TabletType::Master {
            self.stats.external_reparents.inc();
        }
        self.change_type_record(tablet_type).await?;
        let fixed = self.fix_semi_sync_and_replication(tablet_type).await;
        self.apply("ChangeType").await;
        fixed.map_err(|error| error.wrap("fixSemiSyncAndReplication failed, may not ack correctly"))
    }

    pub(super) async fn refresh_state(&self) -> Result<()> {
        let _action = self.action.lock().await;
        self.refresh_locked("RefreshState").await
    }

    /// The schema as of `wait_position` or later is what queries are planned with.
    pub(super) async fn reload_schema(&self, wait_position: &str, deadline: Instant) -> Result<()> {
        if !wait_position.is_empty() {
            self.wait_for_position(wait_position, deadline).await?;
        }
        self.query.reload_schema().await
    }

    /// No table can be written until `UnlockTables` or the timeout.
    pub(super) async fn lock_tables(self: &Arc<Self>) -> Result<()> {
        let mut held = self.tables_lock.lock().await;
        if held.is_some() {
            return Err(VtError::new(Code::FailedPrecondition, "tables already locked on this tablet"));
        }
        let mut conn = self.mysqld.dba().await?;
        // A global lock is better; without the right to it, every table by itself.
        if let Err(error) = conn.execute("FLUSH TABLES WITH READ LOCK").await {
            tracing::info!("no global read lock ({error}), locking each table");
            self.lock_each_table(&mut conn).await?;
        }
        let manager = Arc::downgrade(self);
        let limit = self.config.lock_tables_timeout;
        let timer = tokio::spawn(async move {
            sleep(limit).await;
            let Some(manager) = manager.upgrade() else { return };
            if manager.tables_lock.lock().await.take().is_some() {
                tracing::warn!("tables were locked for {limit:?} and nobody unlocked them: unlocking");
            }
        });
        *held = Some(TablesLock { _conn: conn, timer });
        Ok(())
    }

    async fn lock_each_table(&self, conn: &mut Lease) -> Result<()> {
        let db = self.db_name();
        conn.execute(&format!("USE {}", escape_id(&db))).await?;
        let tables = conn.execute("SHOW FULL TABLES WHERE Table_type = 'BASE TABLE'").await?;
        let names: Vec<String> = tables
            .rows
            .iter()
            .filter_map(|row| cells(row).into_iter().next().flatten())
            .map(|name| format!("{} READ", escape_id(&name)))
            .collect();
        if names.is_empty() {
            return Err(VtError::new(Code::FailedPrecondition, format!("no tables to lock in {db}")));
        }
        conn.execute(&format!("LOCK TABLES {}", names.join(", "))).await?;
        Ok(())
    }

    pub(super) async fn unlock_tables(&self) -> Result<()> {
        let Some(held) = self.tables_lock.lock().await.take() else {
            return Err(VtError::new(Code::FailedPrecondition, "tables were not locked"));
        };
        held.timer.abort();
        // The connection holds the locks: closing it lets them go.
        drop(held);
        Ok(())
    }
}
