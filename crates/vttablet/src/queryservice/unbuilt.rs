//! Variables of parts that this build does not have: message tables, event tokens, filtered replication's
//! target, a MySQL server of the tablet's own.
//!
//! Dashboards made for Vitess expect them. They read zero and empty because nothing of the kind ever
//! happens here; whoever builds such a part registers the real ones over these.

use std::time::Duration;

use servenv::stats::Registry;

/// Registers them.
pub fn register(registry: &Registry) {
    for (name, help) in [
        ("FilteredReplicationUnfriendlyStatementsCount", "Count of unfriendly statements"),
        ("BinlogStreamerErrors", "Errors of update streams"),
        ("MysqlServerConnAccepted", "Connections accepted by a MySQL server"),
        ("MysqlServerConnSlow", "Logins to a MySQL server that were slow"),
        ("VSchemaErrors", "Number of vschema errors"),
        ("VSchemaUpdates", "Number of vschema updates"),
    ] {
        registry.counter(name, help);
    }
    registry.gauge("EventTokenTimestamp", "Time of the last event token, unix seconds");
    registry.string("EventTokenPosition", "");
    for (name, help) in [
        ("MysqlServerConnCount", "Open connections to a MySQL server"),
        ("MysqlServerConnCountUnauthenticated", "Connections to a MySQL server that have not logged in"),
    ] {
        registry.gauge(name, help);
    }
    for name in ["MysqlServerConnCountByTLSVer", "MysqlServerConnCountPerUser"] {
        registry.multi_gauge(name, "Of a part that this build does not have", &["counts"]);
    }
    registry.timings("MysqlServerTimings", "Commands of a MySQL server", "type");
    for (name, labels) in [
        ("Messages", &["TableName", "Metric"][..]),
        ("HealthcheckErrors", &["keyspace", "shard_name", "tablet_type"][..]),
        ("HealthcheckMasterPromoted", &["keyspace", "shard_name"][..]),
        ("TopologyWatcherErrors", &["Operation"][..]),
        ("TopologyWatcherOperations", &["Operation"][..]),
    ] {
        registry.multi_counter(name, "Of a part that this build does not have", labels);
    }
    registry.timings(
        "MessageDelay",
        "MessageDelayTimings records total latency from queueing to client sends",
        "TableName",
    );
    for suffix in ["Capacity", "Available", "Active", "InUse", "MaxCap"] {
        registry.gauge_func(&format!("MessagerPool{suffix}"), "Connections of message tables", || 0);
    }
    for suffix in ["WaitCount", "IdleClosed", "Exhausted"] {
        registry.counter_func(&format!("MessagerPool{suffix}"), "Connections of message tables", || 0);
    }
    registry.counter_duration("MessagerPoolWaitTime", "Waits for connections of message tables", || Duration::ZERO);
    registry.gauge_duration("MessagerPoolIdleTimeout", "Idle timeout of message connections", || Duration::ZERO);
}
