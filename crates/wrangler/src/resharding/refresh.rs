//! Making tablets read the records that concern them again.

use futures::future::join_all;
use topo::ShardInfo;
use topo::topoproto::tablet_alias_string;
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{Tablet, TabletType};

use crate::Wrangler;
use crate::error::{Result, err};
use crate::logger::{info, warning};
use crate::wrangler::within;

/// The tablet that a shard's record names as its master.
pub(crate) async fn master_of(wr: &Wrangler, shard: &ShardInfo) -> Result<Tablet> {
    let alias = shard
        .master_alias()
        .ok_or_else(|| err!("no master in shard record {}/{}", shard.keyspace, shard.shard_name))?;
    Ok(wr.topo().get_tablet(alias).await?.record)
}

/// Refreshes one master; it has to answer.
pub(crate) async fn refresh_master(wr: &Wrangler, master: &Tablet) -> Result {
    let alias = tablet_alias_string(master.alias.as_ref());
    info!(wr, "RefreshState {alias}");
    let call = wr.tmc().refresh_state(master, tmd::RefreshStateRequest {});
    within(wr.config().remote_operation_timeout, call)
        .await
        .map_err(|error| err!("RefreshState failed on master {alias}: {error}"))?;
    Ok(())
}

/// Refreshes masters side by side; each has to answer, and none is left half-way because another did not.
pub(crate) async fn refresh_masters<'a>(wr: &Wrangler, masters: impl IntoIterator<Item = &'a Tablet>) -> Result {
    join_all(masters.into_iter().map(|master| refresh_master(wr, master))).await.into_iter().collect()
}

/// Refreshes the tablets of a type (`None`: of every type) of a shard in some cells (none given: in all).
/// A tablet that does not answer is a warning: it reads the records when it starts.
pub(crate) async fn refresh_tablets(
    wr: &Wrangler,
    shard: &ShardInfo,
    tablet_type: Option<TabletType>,
    cells: &[String],
) -> Result {
    let (keyspace, name) = (&shard.keyspace, &shard.shard_name);
    info!(wr, "RefreshTabletsByShard called on shard {keyspace}/{name}");
    let tablets = if cells.is_empty() {
        wr.topo().get_tablet_map_for_shard(keyspace, name).await?
    } else {
        wr.topo().get_tablet_map_for_shard_by_cell(keyspace, name, cells).await?
    };
    if let Some(error) = &tablets.error {
        warning!(
            wr,
            "RefreshTabletsByShard: got partial result for shard {keyspace}/{name}, may not refresh all tablets everywhere: {error}"
        );
    }
    // A shard's master may be in another cell than those that were asked for.
    let wanted = tablets.value.values().filter(|tablet| {
        tablet_type.is_none_or(|wanted| tablet.record.r#type() == wanted)
            && topo::in_cell_list(&tablet.alias().cell, cells)
            // A record without a host name is that of a tablet that was stopped.
            && !tablet.record.hostname.is_empty()
    });
    join_all(wanted.map(|tablet| async move {
        let alias = tablet.alias_string();
        info!(wr, "Calling RefreshState on tablet {alias}");
        let call = wr.tmc().refresh_state(&tablet.record, tmd::RefreshStateRequest {});
        if let Err(error) = within(wr.config().remote_operation_timeout, call).await {
            warning!(wr, "RefreshTabletsByShard: failed to refresh {alias}: {error}");
        }
    }))
    .await;
    Ok(())
}
