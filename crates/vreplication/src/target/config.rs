//! What an engine is started with.

use std::time::Duration;

use mysql::client::ConnectParams;
use tabletclient::{HealthCheckOptions, WatchOptions, grpc::DialOptions};
use vtproto::topodata::TabletType;

/// Settings of an [`super::Engine`].
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The tablet's own cell: where sources are looked for unless the row names others.
    pub cell: String,
    /// The tablet's own shard, whose replicas `max_replication_lag` is about.
    pub keyspace: String,
    pub shard: String,
    /// The tablet's database. Rows of others are not ours.
    pub db_name: String,
    /// How to log in for applying rows (vt_filtered), without a database.
    pub filtered: ConnectParams,
    /// `-vreplication_tablet_type`: types of tablets to read from unless the row names others.
    pub tablet_types: Vec<TabletType>,
    /// `-vreplication_retry_delay`: pause before a stream that failed is tried again.
    pub retry_delay: Duration,
    /// `-vreplication_healthcheck_topology_refresh`: how often the list of sources is read.
    pub topology_refresh: Duration,
    /// `-vreplication_healthcheck_retry_delay`: pause before a source's health is asked for again.
    pub health_retry_delay: Duration,
    /// `-vreplication_healthcheck_timeout`: a source silent for longer is not used.
    pub health_timeout: Duration,
    /// How the health of sources is asked for (`-tablet_grpc_*`).
    pub health_dial: DialOptions,
    /// How streams are asked for (`-binlog_player_grpc_*`).
    pub stream_dial: DialOptions,
}

impl EngineConfig {
    /// How the tablets of a shard are watched.
    pub(super) fn watch(&self) -> WatchOptions {
        WatchOptions {
            health: HealthCheckOptions {
                retry_delay: self.health_retry_delay,
                timeout: self.health_timeout,
                ..HealthCheckOptions::default()
            },
            refresh_interval: self.topology_refresh,
            dial: self.health_dial.clone(),
        }
    }

    /// Login for applying: rows, states and positions.
    pub(super) fn login(&self) -> ConnectParams {
        let mut params = self.filtered.clone();
        params.db_name.clone_from(&self.db_name);
        // An update that changes nothing still has to tell whether it found its row.
        params.client_found_rows = true;
        params.multi_statements = true;
        "utf8mb4".clone_into(&mut params.charset);
        params
    }

    /// Login for statements of others: exactly one at a time.
    pub(super) fn statement_login(&self) -> ConnectParams {
        let mut params = self.login();
        params.multi_statements = false;
        params
    }
}
