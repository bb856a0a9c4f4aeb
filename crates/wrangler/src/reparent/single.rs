//! Operations on one tablet's place in replication.

use topo::topoproto::tablet_alias_string;
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{TabletAlias, TabletType};

use crate::Wrangler;
use crate::error::{Result, bail, err};
use crate::logger::{info, warning};
use crate::wrangler::within;

/// Points a tablet to the master that its shard record names.
pub(crate) async fn reparent_tablet(wr: &Wrangler, alias: &TabletAlias) -> Result {
    let tablet = wr.topo().get_tablet(alias).await?.record;
    let shard = wr.topo().get_shard(&tablet.keyspace, &tablet.shard).await?;
    let Some(master_alias) = shard.master_alias() else {
        bail!("no master tablet for shard {}/{}", tablet.keyspace, tablet.shard);
    };
    let master = wr.topo().get_tablet(master_alias).await?.record;
    let master_text = tablet_alias_string(Some(master_alias));
    if master.r#type() != TabletType::Master {
        bail!("TopologyServer has inconsistent state for shard master {master_text}");
    }
    if master.keyspace != tablet.keyspace || master.shard != tablet.shard {
        bail!("master {master_text} and potential slave not in same keyspace/shard");
    }
    let request = tmd::SetMasterRequest { parent: Some(master_alias.clone()), ..Default::default() };
    within(wr.config().remote_operation_timeout, wr.tmc().set_master(&tablet, request)).await?;
    Ok(())
}

/// Makes the cluster believe what somebody else already did: that this tablet is the master. The
/// tablet itself then writes the shard record, and the old master steps down when it sees that.
pub(crate) async fn tablet_externally_reparented(wr: &Wrangler, alias: &TabletAlias) -> Result {
    let tablet = wr.topo().get_tablet(alias).await.inspect_err(|error| {
        tracing::warn!(%error, tablet = tablet_alias_string(Some(alias)), "cannot read the tablet record");
    })?;
    let text = tablet.alias_string();
    if let Err(error) = wr.topo().get_shard(&tablet.record.keyspace, &tablet.record.shard).await {
        warning!(wr, "cannot read the shard record of {text}: {error}");
        return Err(error.into());
    }
    if tablet.record.r#type() == TabletType::Master {
        info!(wr, "{text} is already the master");
        return Ok(());
    }
    let request = tmd::ChangeTypeRequest { tablet_type: TabletType::Master.into() };
    within(wr.config().remote_operation_timeout, wr.tmc().change_type(&tablet.record, request))
        .await
        .map_err(|error| err!("Error calling ChangeType on new master {text}: {error}"))?;
    Ok(())
}
