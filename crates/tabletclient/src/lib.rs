//! Clients of a vttablet: its query service, its tablet manager, its health; and the choice of a
//! tablet to send a query to. Hides the transport.

pub mod buffer;
pub mod cutover;
pub mod framed;
pub mod gateway;
pub mod grpc;
pub mod health_check;
mod query_service;
mod region;
pub mod replication_lag;
pub mod tm;
pub mod topology_watcher;
mod watched_shard;

pub use gateway::{CallKind, CallObserver, Gateway, GatewayOptions};
pub use health_check::{HealthCheck, HealthCheckOptions, TabletHealth};
pub use query_service::{BeginOutcome, HealthStream, QueryService, ResultStream, RowSink};
pub use region::Region;
pub use topology_watcher::{TabletFilter, TopologyWatcher, WatcherOptions};
pub use watched_shard::{WatchOptions, WatchedShard};

use vtproto::topodata::TabletAlias;

/// An alias as people write it, uid padded: `zone1-0000000100`.
pub(crate) fn alias_text(alias: Option<&TabletAlias>) -> String {
    alias.map_or_else(|| "<nil>".into(), |a| format!("{}-{:010}", a.cell, a.uid))
}
