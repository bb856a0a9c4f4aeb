//! What `-restore_from_backup` means at start: with data there is nothing to do, without backups the tablet begins empty.
//!
//! Restoring a backup is not built yet. A tablet that should have restored one and did not must not serve: it refuses to
//! start instead.

use std::{fs, path::Path, time::Duration};

use mysql::admin::AdminError;
use topo::topoproto;
use vterrors::{Code, Result, VtError};
use vtproto::topodata::{Tablet, TabletType};

use super::{
    manager::{RestoreConfig, TabletManager},
    mysqld::quote,
};

const MYSQLD_POLL: Duration = Duration::from_millis(500);

impl TabletManager {
    /// Brings the data into the state the flags ask for, before anything is served.
    pub(super) async fn prepare_data(&self) -> Result<()> {
        if let Some(restore) = &self.config.restore {
            self.wait_for_mysqld().await;
            self.restore_or_begin_empty(restore).await?;
        }
        if self.config.restore.is_some() || self.config.init_populate_metadata {
            self.populate_metadata().await?;
        }
        Ok(())
    }

    /// Without end: an operator may start mysqld later. The log says what is waited for.
    async fn wait_for_mysqld(&self) {
        let mut said = String::new();
        while let Err(error) = self.mysqld.port().await {
            let error = error.to_string();
            if error != said {
                tracing::warn!("waiting for mysqld: {error}");
                said = error;
            }
            tokio::time::sleep(MYSQLD_POLL).await;
        }
    }

    async fn restore_or_begin_empty(&self, restore: &RestoreConfig) -> Result<()> {
        let tablet = self.tablet();
        let db = self.db_name();
        if self.has_tables(&db).await? {
            tracing::info!("database {db} already contains data, nothing to restore");
            return Ok(());
        }
        let dir = restore.root.join(&tablet.keyspace).join(&tablet.shard);
        loop {
            if let Some(newest) = newest_backup(&dir)? {
                return Err(VtError::new(
                    Code::Unimplemented,
                    format!(
                        "-restore_from_backup: there is a backup to restore ({}), but restoring is not built yet; start \
                         without the flag to begin with an empty database",
                        dir.join(newest).display()
                    ),
                ));
            }
            if restore.wait_interval.is_zero() {
                break;
            }
            tracing::info!("no backup in {} yet, looking again in {:?}", dir.display(), restore.wait_interval);
            tokio::time::sleep(restore.wait_interval).await;
        }
        tracing::info!("no backup in {}, starting up empty", dir.display());
        self.forget_foreign_replication(&tablet).await
    }

    async fn has_tables(&self, db: &str) -> Result<bool> {
        let sql = format!("SELECT 1 FROM information_schema.tables WHERE table_schema = {} LIMIT 1", quote(db));
        Ok(!self.mysqld.dba().await?.execute(&sql).await?.rows.is_empty())
    }

    /// An empty mysqld may still know a position from an earlier life. One that is part of a shard, though without
    /// tables yet, is left alone.
    async fn forget_foreign_replication(&self, tablet: &Tablet) -> Result<()> {
        let in_use = tablet.r#type() == TabletType::Master
            || match self.mysqld.slave_status().await {
                Ok(_) => true,
                Err(AdminError::NotReplica) => false,
                Err(error) => return Err(error.into()),
            };
        if in_use {
            return Ok(());
        }
        self.mysqld.reset_replication().await
    }

    /// Facts about this tablet that tools look up in mysqld.
    async fn populate_metadata(&self) -> Result<()> {
        self.mysqld.ensure_sidecar().await?;
        let tablet = self.tablet();
        let promotion =
            if matches!(tablet.r#type(), TabletType::Master | TabletType::Replica) { "neutral" } else { "must_not" };
        let facts = [
            ("Alias", self.alias_string()),
            ("ClusterAlias", format!("{}.{}", tablet.keyspace, tablet.shard)),
            ("DataCenter", self.config.alias.cell.clone()),
            ("PromotionRule", promotion.to_owned()),
        ];
        let db = quote(&topoproto::tablet_db_name(&tablet));
        let mut statements = vec!["SET sql_log_bin = 0".to_owned()];
        for (name, value) in &facts {
            let value = quote(value);
            statements.push(format!(
                "INSERT INTO _vt.local_metadata (name, value, db_name) VALUES ('{name}', {value}, {db}) \
                 ON DUPLICATE KEY UPDATE value = {value}"
            ));
        }
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        self.mysqld.run(&statements).await
    }
}

/// The name of the newest backup in a shard's directory. Names begin with the time, so that the last is the newest.
fn newest_backup(dir: &Path) -> Result<Option<String>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(VtError::new(Code::Unknown, format!("cannot list backups in {}: {error}", dir.display())));
        }
    };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| !name.starts_with('.')).max())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_backup_counts_and_none_is_no_error() {
        let dir = std::env::temp_dir().join(format!("backups-{}", std::process::id()));
        assert_eq!(newest_backup(&dir).unwrap(), None);
        for name in ["2020-01-02.030405.zone1-0000000101", "2019-12-31.235959.zone1-0000000101", ".tmp"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        assert_eq!(newest_backup(&dir).unwrap().as_deref(), Some("2020-01-02.030405.zone1-0000000101"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
