//! How far each tablet of a shard has replicated.

use std::cmp::Ordering;

use futures::future::join_all;
use mysql::replication::Position;
use topo::topoproto;
use vtproto::replicationdata::Status;
use vtproto::tabletmanagerdata as tmd;
use vtproto::topodata::{Tablet, TabletType};

use crate::Wrangler;
use crate::error::Result;
use crate::wrangler::within;

/// A tablet and its status, if it told it.
pub(crate) struct TabletPosition {
    pub tablet: Tablet,
    pub status: Option<Status>,
}

/// The tablets of a shard in the order to show them: first those that did not answer, then masters,
/// then by type; the one that is furthest behind first.
pub(crate) async fn shard_positions(wr: &Wrangler, keyspace: &str, shard: &str) -> Result<Vec<TabletPosition>> {
    let tablets = wr.topo().get_tablet_map_for_shard(keyspace, shard).await?.complete()?;
    let limit = wr.config().remote_operation_timeout;
    let mut positions = join_all(tablets.into_values().map(|info| async move {
        let tablet = info.record;
        let status = match tablet.r#type() {
            TabletType::Master => within(limit, wr.tmc().master_position(&tablet, tmd::MasterPositionRequest {}))
                .await
                .map(|answer| Some(Status { position: answer.position, ..Default::default() })),
            other if topoproto::is_slave_type(other) => {
                within(limit, wr.tmc().slave_status(&tablet, tmd::SlaveStatusRequest {}))
                    .await
                    .map(|answer| answer.status)
            }
            // A tablet that is being backed up or restored says nothing about replication.
            _ => Ok(None),
        };
        let status = status.unwrap_or_else(|error| {
            let alias = topoproto::tablet_alias_string(tablet.alias.as_ref());
            tracing::warn!(%error, tablet = alias, "cannot get the replication position");
            None
        });
        TabletPosition { tablet, status }
    }))
    .await;
    positions.sort_by(compare);
    Ok(positions)
}

fn compare(left: &TabletPosition, right: &TabletPosition) -> Ordering {
    let by_alias = || {
        let alias = |one: &TabletPosition| topoproto::tablet_alias_string(one.tablet.alias.as_ref());
        alias(left).cmp(&alias(right))
    };
    match (&left.status, &right.status) {
        (None, None) => by_alias(),
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(l), Some(r)) => {
            left.tablet.r#type.cmp(&right.tablet.r#type).then_with(|| behind(l, r)).then_with(by_alias)
        }
    }
}

/// Which of two positions comes first; equal when they cannot be compared.
fn behind(left: &Status, right: &Status) -> Ordering {
    match (left.position.parse::<Position>(), right.position.parse::<Position>()) {
        (Ok(l), Ok(r)) => match (l.at_least(&r), r.at_least(&l)) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => Ordering::Equal,
        },
        _ => Ordering::Equal,
    }
}
