//! Reads this mysqld's binary log for statements that change tables, and has the schema read anew when it sees one
//! (`-watch_replication_stream`). A table that somebody made past vtctld, or that replication brought, is known at once.
//!
//! Invariants: one connection to mysqld; a log that cannot be read is begun again at its end, after a pause, and the
//! schema is read then, because a change may have been missed.

use std::{sync::Arc, time::Duration};

use mysql::{
    ConnectParams,
    binlog::{BinlogStream, Body, StreamOptions},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vterrors::{Result, VtError};
use vtsql::StatementKind;

use super::TabletManager;

/// Pause before a log that could not be read is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Statements that come together are worth one reading. It also gives mysqld the time to commit what the log tells already.
const TOGETHER: Duration = Duration::from_millis(100);
/// When the schema is read once more, for a change that took mysqld longer.
const AGAIN: Duration = Duration::from_secs(2);

/// Watches until `stop`. `params` are of a user that may read the log.
pub(super) async fn run(manager: Arc<TabletManager>, params: ConnectParams, stop: CancellationToken) {
    let changed = Notify::new();
    let read = async {
        loop {
            if let Err(error) = read_log(&manager, &params, &changed).await {
                tracing::info!("-watch_replication_stream: {error}");
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let reload = async {
        loop {
            changed.notified().await;
            for pause in [TOGETHER, AGAIN] {
                tokio::time::sleep(pause).await;
                if let Err(error) = manager.query.reload_schema().await {
                    tracing::warn!("-watch_replication_stream: {error}");
                }
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = read => {}
        () = reload => {}
    }
}

async fn read_log(manager: &TabletManager, params: &ConnectParams, changed: &Notify) -> Result<()> {
    let broken = |error: mysql::binlog::BinlogError| VtError::new(vterrors::Code::Unavailable, error.to_string());
    let end = manager.mysqld.master_position().await?;
    let mut log = BinlogStream::open(params, &end, &StreamOptions::default()).await.map_err(broken)?;
    changed.notify_one();
    while log.advance().await.map_err(broken)? {
        let Some(event) = log.event().map_err(broken)? else { continue };
        if let Body::Query(query) = event.parse().map_err(broken)?
            && vtsql::preview(query.sql) == StatementKind::Ddl
        {
            changed.notify_one();
        }
    }
    Ok(())
}
