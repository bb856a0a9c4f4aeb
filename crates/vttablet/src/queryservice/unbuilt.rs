//! Variables of parts that this build does not have: message tables, hot row protection, the
//! transaction limiter, replication heartbeats, event tokens.
//!
//! Dashboards made for Vitess expect them. They read zero and empty because nothing of the kind ever
//! happens here; whoever builds such a part registers the real ones over these.

use std::time::Duration;

use servenv::stats::Registry;

/// Registers them.
pub fn register(registry: &Registry) {
    for (name, help) in [
        ("FilteredReplicationUnfriendlyStatementsCount", "Count of unfriendly statements"),
        ("HeartbeatCumulativeLagNs", "Sum of the lags that heartbeats measured"),
        ("HeartbeatReads", "Heartbeats read"),
        ("HeartbeatReadErrors", "Heartbeats that could not be read"),
        ("HeartbeatWrites", "Heartbeats written"),
        ("HeartbeatWriteErrors", "Heartbeats that could not be written"),
        ("TxSerializerGlobalQueueExceeded", "Transactions rejected because all queues together were full"),
        ("TxSerializerGlobalQueueExceededDryRun", "Dry run transactions that would have been rejected"),
        ("VSchemaErrors", "Number of vschema errors"),
        ("VSchemaUpdates", "Number of vschema updates"),
    ] {
        registry.counter(name, help);
    }
    registry.gauge("HeartbeatCurrentLagNs", "Lag that the last heartbeat measured");
    registry.gauge("EventTokenTimestamp", "Time of the last event token, unix seconds");
    registry.string("EventTokenPosition", "");
    for (name, labels) in [
        ("Messages", &["TableName", "Metric"][..]),
        ("TxLimiterRejections", &["Component", "Principal", "Subcomponent", "Username"][..]),
        ("TxLimiterRejectionsDryRun", &["Component", "Principal", "Subcomponent", "Username"][..]),
        ("TxSerializerQueueExceeded", &["table_name"][..]),
        ("TxSerializerQueueExceededDryRun", &["table_name"][..]),
        ("TxSerializerWaits", &["table_name"][..]),
        ("TxSerializerWaitsDryRun", &["table_name"][..]),
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
