//! Keeping the shard record and this tablet's mastership in agreement.
//!
//! A master whose term is newer than the shard's writes itself into the shard record. A master that sees a newer term of
//! another tablet there has lost: it demotes itself. Only masters watch the record.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use topo::{Update, Watch, topoproto};
use vterrors::Result;
use vtproto::topodata::{Shard, TabletAlias, TabletType};

use super::manager::{TabletManager, term};

impl TabletManager {
    pub(super) async fn shard_sync_loop(self: Arc<Self>, stop: CancellationToken) {
        let mut watch: Option<Watch<Shard>> = None;
        loop {
            let mut failed = false;
            if self.tablet_type() == TabletType::Master {
                failed = match self.sync_shard_master(&stop).await {
                    Ok(()) => false,
                    Err(error) => {
                        tracing::warn!("the shard record is not in step with this master yet: {error}");
                        true
                    }
                };
                if watch.is_none() && self.tablet_type() == TabletType::Master {
                    let tablet = self.tablet();
                    match self.topo.watch_shard(&tablet.keyspace, &tablet.shard).await {
                        Ok(new) => watch = Some(new),
                        Err(error) => {
                            tracing::warn!("cannot watch the shard record: {error}");
                            failed = true;
                        }
                    }
                }
            } else {
                watch = None;
            }
            let retry = async {
                if failed {
                    tokio::time::sleep(self.config.shard_sync_retry_delay).await;
                } else {
                    std::future::pending().await
                }
            };
            let change = async {
                match &mut watch {
                    Some(watch) => watch.next().await,
                    None => std::future::pending().await,
                }
            };
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                () = self.sync_now.notified() => false,
                () = retry => false,
                change = change => !matches!(change, Some(Ok(_))),
            };
            if ended {
                watch = None;
                // Watching again fails in the same way for a while.
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(self.config.shard_sync_retry_delay.min(std::time::Duration::from_secs(1))) => {}
                }
            }
        }
    }

    async fn sync_shard_master(&self, stop: &CancellationToken) -> Result<()> {
        let tablet = self.tablet();
        let our_term = tablet.master_term_start_time;
        let shard = self
            .topo
            .update_shard_fields(&tablet.keyspace, &tablet.shard, |shard| {
                if term(our_term.as_ref()) <= term(shard.record.master_term_start_time.as_ref()) {
                    return Ok(Update::NoUpdateNeeded);
                }
                shard.record.master_alias = tablet.alias.clone();
                shard.record.master_term_start_time = our_term;
                Ok(Update::Write)
            })
            .await?;
        let newer = term(shard.record.master_term_start_time.as_ref()) > term(our_term.as_ref());
        match shard.master_alias() {
            Some(master) if *master != self.config.alias && newer => {
                let master = master.clone();
                tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    done = self.end_master_term(&master) => done,
                }
            }
            _ => Ok(()),
        }
    }

    /// Another tablet became master: stops accepting writes at once, then follows it. There is no way back from here, so
    /// a step that fails does not undo the ones before.
    async fn end_master_term(&self, master: &TabletAlias) -> Result<()> {
        let _action = self.action.lock().await;
        if self.tablet_type() != TabletType::Master {
            return Ok(());
        }
        tracing::warn!(
            "tablet {} is master of the shard now: stepping down to {}",
            topoproto::tablet_alias_string(Some(master)),
            self.config.demote_master_type.as_str_name()
        );
        if self.config.disable_active_reparents {
            self.change_type_record(self.config.demote_master_type).await?;
            self.apply("another tablet is master").await;
            return Ok(());
        }
        if let Err(error) = self.demote_master_locked(false).await {
            tracing::error!("stepping down: {error}");
        }
        let deadline = Instant::now() + self.config.remote_operation_timeout;
        self.set_master_locked(master, 0, None, true, deadline).await
    }
}
