//! The manager's variables in `/debug/vars` and `/metrics`.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use servenv::{
    Registry,
    stats::{Counter, MultiCounter},
};
use topo::topoproto;

use super::{manager::TabletManager, mysqld::Usage};

/// What is counted where it happens.
#[derive(Debug)]
pub(super) struct ManagerStats {
    pub external_reparents: Counter,
    pub type_changes: MultiCounter,
}

impl ManagerStats {
    pub fn new(registry: &Registry) -> Self {
        Self {
            external_reparents: registry
                .counter("ExternalReparents", "Reparents done by a tool outside of the cluster"),
            type_changes: registry.multi_counter(
                "TabletTypeCount",
                "Number of times the tablet changed to each type",
                &["type"],
            ),
        }
    }
}

/// Publishes what is read on demand. The registry outlives a manager, so that it must not keep one alive.
pub(super) fn publish(manager: &Arc<TabletManager>, registry: &Registry) {
    text(manager, registry, "TabletAlias", TabletManager::alias_string);
    text(manager, registry, "TabletKeyspace", |manager| manager.state().tablet.keyspace.clone());
    text(manager, registry, "TabletShard", |manager| manager.state().tablet.shard.clone());
    text(manager, registry, "TabletType", |manager| topoproto::tablet_type_lstring(manager.tablet_type()));
    text(manager, registry, "TabletKeyRangeStart", |manager| bound(manager, |range| &range.start));
    text(manager, registry, "TabletKeyRangeEnd", |manager| bound(manager, |range| &range.end));
    registry.gauge_func("BackupIsRunning", "Whether a backup is being taken", || 0);
    pool(manager, registry, "DbaConnPool", |manager| manager.mysqld.dba_usage());
    pool(manager, registry, "AppConnPool", |manager| manager.mysqld.app_usage());
}

fn text(
    manager: &Arc<TabletManager>,
    registry: &Registry,
    name: &str,
    read: impl Fn(&TabletManager) -> String + Send + Sync + 'static,
) {
    let manager = Arc::downgrade(manager);
    registry.string_func(name, move || manager.upgrade().map(|manager| read(&manager)).unwrap_or_default());
}

fn bound(manager: &TabletManager, which: impl Fn(&vtproto::topodata::KeyRange) -> &Vec<u8>) -> String {
    let state = manager.state();
    let bytes = state.tablet.key_range.as_ref().map(|range| which(range).clone()).unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pool(manager: &Arc<TabletManager>, registry: &Registry, name: &str, read: fn(&TabletManager) -> Usage) {
    let number = |suffix: &str, help: &str, value: fn(Usage) -> usize| {
        let manager: Weak<TabletManager> = Arc::downgrade(manager);
        registry.gauge_func(&format!("{name}{suffix}"), help, move || {
            let usage = manager.upgrade().map(|manager| read(&manager));
            usage.map_or(0, |usage| i64::try_from(value(usage)).unwrap_or(i64::MAX))
        });
    };
    number("Capacity", "Connections that may be open at once", |usage| usage.capacity);
    number("MaxCap", "Connections that may be open at once", |usage| usage.capacity);
    number("InUse", "Connections in use", |usage| usage.in_use);
    number("Active", "Connections open; none is kept idle", |usage| usage.in_use);
    number("Available", "Connections that can be opened now", |usage| {
        usage.capacity - usage.in_use.min(usage.capacity)
    });
    let usage = || {
        let manager: Weak<TabletManager> = Arc::downgrade(manager);
        move || manager.upgrade().map(|manager| read(&manager))
    };
    for suffix in ["WaitCount", "Exhausted"] {
        let usage = usage();
        registry.counter_func(&format!("{name}{suffix}"), "Times that every connection was in use", move || {
            usage().map_or(0, |usage| i64::try_from(usage.waits).unwrap_or(i64::MAX))
        });
    }
    let waited = usage();
    registry.counter_duration(&format!("{name}WaitTime"), "Time spent waiting for a connection", move || {
        waited().map_or(Duration::ZERO, |usage| usage.waited)
    });
    // A connection is closed after its use.
    registry.counter_func(&format!("{name}IdleClosed"), "Connections closed because they were idle", || 0);
    registry.gauge_duration(&format!("{name}IdleTimeout"), "How long a connection is kept idle", || Duration::ZERO);
}
