//! Operations on tablet records that more than one command needs.

use topo::topoproto::{self, tablet_alias_string};
use topo::{ShardInfo, Update};
use vtproto::topodata::{Tablet, TabletAlias, TabletType};

use crate::Wrangler;
use crate::error::{Result, bail};
use crate::logger::warning;

/// Removes a tablet from its shard's list and then its record.
pub(crate) async fn delete_tablet_record(wr: &Wrangler, tablet: &Tablet) -> Result {
    let alias = tablet.alias.clone().unwrap_or_default();
    if !tablet.keyspace.is_empty()
        && !tablet.shard.is_empty()
        && let Err(error) = wr.topo().delete_tablet_replication_data(tablet).await
        && !error.is_no_node()
    {
        warning!(wr, "remove replication data for {} failed: {error}", tablet_alias_string(Some(&alias)));
    }
    Ok(wr.topo().delete_tablet(&alias).await?)
}

/// Whether a MASTER record is the shard's master and not a left-over: it is the one that the shard
/// names, or its term began later than the one the shard knows.
pub(crate) fn is_master(tablet: &Tablet, shard: &ShardInfo) -> bool {
    if tablet.r#type() != TabletType::Master {
        return false;
    }
    let since = |time: Option<vtproto::vttime::Time>| time.map(|t| (t.seconds, t.nanoseconds));
    topoproto::tablet_alias_equal(shard.master_alias(), tablet.alias.as_ref())
        || since(tablet.master_term_start_time) > since(shard.record.master_term_start_time)
}

/// Deletes a tablet; a master only if the caller says so, and then the shard has no master any more.
pub(crate) async fn delete_tablet(wr: &Wrangler, alias: &TabletAlias, allow_master: bool) -> Result {
    let tablet = wr.topo().get_tablet(alias).await?.record;
    let text = tablet_alias_string(Some(alias));
    let was_master = match wr.topo().get_shard(&tablet.keyspace, &tablet.shard).await {
        Ok(shard) => is_master(&tablet, &shard),
        // A record whose shard is gone can only be cleaned up.
        Err(error) if error.is_no_node() => false,
        Err(error) => return Err(error.into()),
    };
    if was_master && !allow_master {
        bail!("cannot delete tablet {text} as it is a master, use allow_master flag");
    }
    if was_master {
        // The shard forgets its master first: a record that is gone must not be named by anything.
        let lock = wr.topo().lock_shard(&tablet.keyspace, &tablet.shard, &format!("DeleteTablet({text})")).await?;
        let cleared = wr
            .topo()
            .update_shard_fields(&tablet.keyspace, &tablet.shard, |shard| {
                if shard.master_alias() != Some(alias) {
                    return Ok(Update::NoUpdateNeeded);
                }
                shard.record.master_alias = None;
                Ok(Update::Write)
            })
            .await;
        let unlocked = lock.unlock().await;
        cleared?;
        unlocked?;
    }
    delete_tablet_record(wr, &tablet).await
}
