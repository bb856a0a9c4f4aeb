//! What every job works with: topology, tablets, settings, counters.

use std::sync::Arc;
use std::time::Duration;

use servenv::Env;
use servenv::failpoint::Failpoints;
use servenv::stats::{Counter, MultiCounter};
use tabletclient::grpc::DialOptions;
use tabletclient::tm::{TabletManager, TabletManagerClient};
use throttler::Throttlers;
use topo::TopoServer;
use vterrors::{Code, VtError};

/// The settings of the process, from its flags.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `-cell`: whose tablets are used.
    pub cell: String,
    /// `-executefetch_retry_time`: pause before a failed write is tried again.
    pub retry_pause: Duration,
    /// `-retry_duration`: how long one write is tried again.
    pub retry_duration: Duration,
    /// `-remote_actions_timeout`: bound of one call to a tablet.
    pub remote_actions_timeout: Duration,
    /// `-wait_for_healthy_tablets_timeout`
    pub wait_for_healthy_tablets_timeout: Duration,
    /// `-worker_healthcheck_*`
    pub health_retry_delay: Duration,
    pub health_timeout: Duration,
    pub topology_refresh: Duration,
    /// `-use_v3_resharding_mode`: the vschema says where rows belong, else the keyspace's sharding column.
    pub use_vschema: bool,
    /// `-username`: named as the caller of queries.
    pub username: String,
}

/// Counters of one of the two passes of a clone, by table.
pub struct RowCounters {
    pub inserts: MultiCounter,
    pub updates: MultiCounter,
    pub deletes: MultiCounter,
    pub equal: MultiCounter,
}

impl RowCounters {
    fn new(stats: &servenv::Registry, pass: &str) -> Self {
        let counter =
            |what: &str, help: &str| stats.multi_counter(&format!("Worker{pass}{what}Counters"), help, &["Table"]);
        Self {
            inserts: counter("Inserts", "Rows that were missing at the destination"),
            updates: counter("Updates", "Rows that differed at the destination"),
            deletes: counter("Deletes", "Rows that were only at the destination"),
            equal: counter("EqualRows", "Rows that were equal"),
        }
    }
}

/// What jobs count.
pub struct Counters {
    /// Writes that were tried again.
    pub retries: Counter,
    /// The same, by reason.
    pub retries_by_reason: MultiCounter,
    pub online: RowCounters,
    pub offline: RowCounters,
}

/// Shared by all jobs of a process.
pub struct WorkerEnv {
    pub topo: TopoServer,
    pub tmc: Arc<dyn TabletManager>,
    pub dial: DialOptions,
    pub settings: Settings,
    pub counters: Counters,
    /// Where tests make jobs fail.
    pub failpoints: Failpoints,
    /// Those of the destination shards, `<keyspace>/<shard>`.
    pub throttlers: Throttlers,
    /// Put into the `worker` tag of tablets that a job takes out of service: where this process shows its state.
    pub url: String,
}

impl WorkerEnv {
    /// Connects to the topology.
    ///
    /// # Errors
    /// A flag that cannot be, or no topology.
    pub async fn from_flags(env: &Env) -> anyhow::Result<Self> {
        let flags = env.flags();
        for (flag, known) in [("tablet_protocol", "grpc"), ("tablet_manager_protocol", "grpc")] {
            let value = flags.str(flag);
            anyhow::ensure!(value == known, "-{flag}={value} is not known: only {known} is");
        }
        let topo = wrangler::flags::open_topo(flags).await?;
        let tmc = TabletManagerClient::new(wrangler::flags::dial_options(flags, "tablet_manager_grpc")?);
        let mut dial = wrangler::flags::dial_options(flags, "tablet_grpc")?;
        // Streams are read in parallel; one connection is driven by one task.
        dial.channels = 2;
        let stats = env.stats();
        Ok(Self {
            topo,
            tmc: Arc::new(tmc),
            dial,
            settings: Settings {
                cell: flags.str("cell").to_owned(),
                retry_pause: flags.duration("executefetch_retry_time"),
                retry_duration: flags.duration("retry_duration"),
                remote_actions_timeout: flags.duration("remote_actions_timeout"),
                wait_for_healthy_tablets_timeout: flags.duration("wait_for_healthy_tablets_timeout"),
                health_retry_delay: flags.duration("worker_healthcheck_retry_delay"),
                health_timeout: flags.duration("worker_healthcheck_timeout"),
                topology_refresh: flags.duration("worker_healthcheck_topology_refresh"),
                use_vschema: flags.bool("use_v3_resharding_mode"),
                username: flags.str("username").to_owned(),
            },
            counters: Counters {
                retries: stats.counter("WorkerRetryCount", "Writes that were tried again"),
                retries_by_reason: stats.multi_counter(
                    "WorkerRetryCounters",
                    "Writes that were tried again",
                    &["category"],
                ),
                online: RowCounters::new(stats, "Online"),
                offline: RowCounters::new(stats, "Offline"),
            },
            failpoints: Failpoints::from_env(),
            throttlers: Throttlers::default(),
            url: url(flags.int("port")),
        })
    }

    /// Bounds one call to a tablet by `-remote_actions_timeout`.
    ///
    /// # Errors
    /// The call's own, or DEADLINE_EXCEEDED.
    pub async fn bounded<T, E: Into<VtError>>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, VtError> {
        match tokio::time::timeout(self.settings.remote_actions_timeout, call).await {
            Ok(outcome) => outcome.map_err(Into::into),
            Err(_) => Err(VtError::new(Code::DeadlineExceeded, "context deadline exceeded")),
        }
    }
}

/// The address of this process's page; without one, the host and the process.
fn url(port: i64) -> String {
    let host = host();
    if port > 0 { format!("http://{host}:{port}/") } else { format!("{host} pid {}", std::process::id()) }
}

/// The name of this machine.
pub fn host() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "localhost".into())
}
