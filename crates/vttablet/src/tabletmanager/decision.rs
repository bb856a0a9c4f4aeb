//! Whether this tablet should serve queries, and if not, why. Pure.

use std::time::Duration;

use topo::topoproto;
use vtproto::topodata::{Shard, SrvKeyspace, Tablet, TabletType};

use crate::queryservice::Lag;

/// Why a tablet does not serve whose traffic has moved to other shards.
const CONTROLLED: &str = "TabletControl.DisableQueryService set";

/// What follows from the records in topo. Holds until the next refresh.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permit {
    /// Why the query service must not run; `None` when it may.
    pub refused: Option<String>,
    /// Tables whose queries are refused.
    pub denied_tables: Vec<String>,
}

/// Reads the rules for `tablet` out of its shard and its cell's serving graph, as far as those could be read.
pub fn permit(tablet: &Tablet, shard: Option<&Shard>, serving: Option<&SrvKeyspace>, demoted: bool) -> Permit {
    let tablet_type = tablet.r#type();
    let cell = tablet.alias.as_ref().map_or("", |alias| &alias.cell);
    let refused = if !topoproto::is_running_query_service(tablet_type) {
        Some(format!("not a serving tablet type({})", topoproto::tablet_type_lstring(tablet_type)))
    } else if demoted {
        Some("master was demoted".to_owned())
    } else if serving
        .is_some_and(|record| topo::is_query_service_disabled(record, tablet_type, tablet.key_range.as_ref()))
    {
        // Said first: a source that was left has streams too, those of the way back.
        Some(CONTROLLED.to_owned())
    } else if tablet_type == TabletType::Master && shard.is_some_and(|shard| !shard.source_shards.is_empty()) {
        Some("master tablet with filtered replication on".to_owned())
    } else {
        None
    };
    let denied_tables = shard
        .and_then(|shard| shard.tablet_controls.iter().find(|control| control.tablet_type() == tablet_type))
        .filter(|control| topo::in_cell_list(cell, &control.cells))
        .map(|control| control.blacklisted_tables.clone())
        .unwrap_or_default();
    Permit { refused, denied_tables }
}

impl Permit {
    /// Whether all that stands against serving is that the traffic has moved: then a gate that is held keeps
    /// answering until it is released.
    pub fn is_moved_away(&self) -> bool {
        self.refused.as_deref() == Some(CONTROLLED)
    }
}

/// What the last look at mysqld and its replication said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replication {
    /// Master, or nothing watches replication.
    NotWatched,
    Lag(Duration),
    Broken(String),
}

impl Replication {
    /// The same with what heartbeats say: the larger lag counts, and an unknown one is an error.
    pub fn with_heartbeat(self, heartbeat: Option<Lag>) -> Self {
        match (self, heartbeat) {
            (known, None) => known,
            (Self::Broken(reason), _) => Self::Broken(reason),
            (_, Some(Err(reason))) => Self::Broken(format!("heartbeat: {reason}")),
            (Self::NotWatched, Some(Ok(lag))) => Self::Lag(lag),
            (Self::Lag(seen), Some(Ok(lag))) => Self::Lag(seen.max(lag)),
        }
    }
}

/// Why the tablet is not healthy; `None` when it is.
pub fn health_error(replication: &Replication, unhealthy_threshold: Duration) -> Option<String> {
    match replication {
        Replication::NotWatched => None,
        Replication::Lag(lag) if *lag > unhealthy_threshold => Some(format!(
            "reported replication lag: {} higher than unhealthy threshold: {}",
            lag.as_secs(),
            unhealthy_threshold.as_secs()
        )),
        Replication::Lag(_) => None,
        Replication::Broken(reason) => Some(reason.clone()),
    }
}

/// Whether the query service should run. A drained tablet is a worker's source: it serves even when it is ill.
pub fn should_serve(tablet_type: TabletType, permit: &Permit, health_error: Option<&str>) -> bool {
    permit.refused.is_none() && (health_error.is_none() || tablet_type == TabletType::Drained)
}

/// Whether other shards may read this tablet's changes.
pub fn should_stream(tablet_type: TabletType, health_error: Option<&str>) -> bool {
    matches!(tablet_type, TabletType::Master | TabletType::Replica | TabletType::Rdonly) && health_error.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vtproto::topodata::{KeyRange, TabletAlias, shard, srv_keyspace};

    fn tablet(tablet_type: TabletType) -> Tablet {
        Tablet {
            alias: Some(TabletAlias { cell: "zone1".into(), uid: 100 }),
            keyspace: "commerce".into(),
            shard: "0".into(),
            r#type: tablet_type.into(),
            ..Default::default()
        }
    }

    #[test]
    fn only_serving_types_serve() {
        for (tablet_type, refused) in [
            (TabletType::Master, None),
            (TabletType::Replica, None),
            (TabletType::Rdonly, None),
            (TabletType::Drained, None),
            (TabletType::Spare, Some("not a serving tablet type(spare)")),
            (TabletType::Restore, Some("not a serving tablet type(restore)")),
        ] {
            assert_eq!(permit(&tablet(tablet_type), None, None, false).refused.as_deref(), refused);
        }
    }

    #[test]
    fn a_destination_master_waits_for_its_traffic() {
        let record =
            Shard { source_shards: vec![shard::SourceShard { uid: 1, ..Default::default() }], ..Default::default() };
        let master = permit(&tablet(TabletType::Master), Some(&record), None, false);
        assert_eq!(master.refused.as_deref(), Some("master tablet with filtered replication on"));
        assert_eq!(permit(&tablet(TabletType::Replica), Some(&record), None, false).refused, None);
    }

    #[test]
    fn a_control_applies_to_its_key_range_and_type() {
        let control = topodata_control(None, true);
        let graph = SrvKeyspace {
            partitions: vec![srv_keyspace::KeyspacePartition {
                served_type: TabletType::Replica.into(),
                shard_tablet_controls: vec![control],
                ..Default::default()
            }],
            ..Default::default()
        };
        let refused = |tablet_type| permit(&tablet(tablet_type), None, Some(&graph), false).refused;
        assert_eq!(refused(TabletType::Replica).as_deref(), Some("TabletControl.DisableQueryService set"));
        assert_eq!(refused(TabletType::Rdonly), None);
        let mut other = tablet(TabletType::Replica);
        other.key_range = Some(KeyRange { start: vec![0x80], end: Vec::new() });
        assert_eq!(permit(&other, None, Some(&graph), false).refused, None);
    }

    fn topodata_control(key_range: Option<KeyRange>, disabled: bool) -> vtproto::topodata::ShardTabletControl {
        vtproto::topodata::ShardTabletControl { name: "0".into(), key_range, query_service_disabled: disabled }
    }

    #[test]
    fn denied_tables_go_by_type_and_cell() {
        let record = Shard {
            tablet_controls: vec![shard::TabletControl {
                tablet_type: TabletType::Replica.into(),
                cells: vec!["zone2".into()],
                blacklisted_tables: vec!["customer".into()],
                frozen: false,
            }],
            ..Default::default()
        };
        assert!(permit(&tablet(TabletType::Replica), Some(&record), None, false).denied_tables.is_empty());
        let mut here = tablet(TabletType::Replica);
        here.alias = Some(TabletAlias { cell: "zone2".into(), uid: 1 });
        assert_eq!(permit(&here, Some(&record), None, false).denied_tables, ["customer"]);
    }

    #[test]
    fn the_larger_lag_counts() {
        let lag = |seconds| Replication::Lag(Duration::from_secs(seconds));
        let beat = |seconds| Some(Ok(Duration::from_secs(seconds)));
        assert_eq!(lag(3).with_heartbeat(beat(1)), lag(3));
        assert_eq!(lag(3).with_heartbeat(beat(7)), lag(7));
        assert_eq!(lag(3).with_heartbeat(None), lag(3));
        assert_eq!(Replication::NotWatched.with_heartbeat(beat(2)), lag(2));
        let broken = |text: &str| Replication::Broken(text.into());
        assert_eq!(broken("stopped").with_heartbeat(beat(2)), broken("stopped"));
        assert_eq!(lag(3).with_heartbeat(Some(Err("no row".into()))), broken("heartbeat: no row"));
    }

    #[test]
    fn lag_and_errors_make_a_tablet_ill_but_a_drained_one_serves_on() {
        let threshold = Duration::from_secs(10);
        assert_eq!(health_error(&Replication::Lag(Duration::from_secs(10)), threshold), None);
        let ill = health_error(&Replication::Lag(Duration::from_secs(11)), threshold);
        assert_eq!(ill.as_deref(), Some("reported replication lag: 11 higher than unhealthy threshold: 10"));
        assert!(should_stream(TabletType::Rdonly, None) && !should_stream(TabletType::Rdonly, ill.as_deref()));
        assert!(!should_stream(TabletType::Drained, None));
        let free = Permit::default();
        assert!(!should_serve(TabletType::Replica, &free, ill.as_deref()));
        assert!(should_serve(TabletType::Drained, &free, ill.as_deref()));
        let refused = Permit { refused: Some("no".into()), ..Default::default() };
        assert!(!should_serve(TabletType::Master, &refused, None));
    }
}
