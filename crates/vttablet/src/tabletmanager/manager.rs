//! The manager of one tablet: its parts, its state, and its life from start to stop.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use regex::Regex;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use topo::{TopoServer, Update, topoproto};
use vreplication::target::Engine;
use vterrors::{Result, VtError};
use vtproto::{
    topodata::{Shard, SrvKeyspace, Tablet, TabletAlias, TabletType},
    vttime,
};

use super::{
    decision::{Permit, Replication},
    health::HealthRecord,
    markers::{Marker, Markers},
    mysqld::{Lease, Mysqld},
    orchestrator::OrchestratorConfig,
    query_control::QueryControl,
    replication_watcher,
    stats::ManagerStats,
};

/// What the manager is started with; one field a flag unless said otherwise.
#[derive(Debug, Clone)]
pub struct ManagerConfig {
    /// `-tablet-path`.
    pub alias: TabletAlias,
    /// `-init_keyspace`, `-init_shard`, `-init_tablet_type`; without them the record has to exist.
    pub init: Option<InitTarget>,
    /// `-init_db_name_override`.
    pub init_db_name_override: String,
    /// `-init_tags`.
    pub init_tags: std::collections::BTreeMap<String, String>,
    /// `-init_timeout`: how long registering is tried.
    pub init_timeout: Duration,
    /// `-init_populate_metadata`: write `_vt.local_metadata` even without `-restore_from_backup`.
    pub init_populate_metadata: bool,
    /// `-health_check_interval`.
    pub health_check_interval: Duration,
    /// `-degraded_threshold`: lag from which the tablet is shown as degraded.
    pub degraded_threshold: Duration,
    /// `-unhealthy_threshold`: lag from which it does not serve.
    pub unhealthy_threshold: Duration,
    /// `-serving_state_grace_period`: how long queries for the old type pass after a change, and how long gates are
    /// warned before serving stops.
    pub serving_state_grace_period: Duration,
    /// `-enable_semi_sync`.
    pub enable_semi_sync: bool,
    /// `-enable_replication_reporter`: lag counts for health, and replication that stopped is repaired.
    pub enable_replication_reporter: bool,
    /// `-use_super_read_only`.
    pub use_super_read_only: bool,
    /// `-demote_master_type`.
    pub demote_master_type: TabletType,
    /// `-disable_active_reparents`: leave replication to somebody else.
    pub disable_active_reparents: bool,
    /// `-lock_tables_timeout`.
    pub lock_tables_timeout: Duration,
    /// `-shard_sync_retry_delay`.
    pub shard_sync_retry_delay: Duration,
    /// `-restore_from_backup`, with the place of the backups.
    pub restore: Option<RestoreConfig>,
    /// The tablet directory, where markers are kept; `None` for unmanaged MySQL.
    pub tablet_dir: Option<PathBuf>,
    /// `-vtctld_addr`, for links on the status page.
    pub vtctld_addr: String,
    /// `-remote_operation_timeout`.
    /// `-orc_api_url` and what belongs to it; none where no Orchestrator is.
    pub orchestrator: Option<OrchestratorConfig>,
    /// `-watch_replication_stream`: with whom the binary log is read for schema changes.
    pub watch_replication: Option<mysql::ConnectParams>,
    pub remote_operation_timeout: Duration,
}

/// Where a new tablet belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitTarget {
    pub keyspace: String,
    pub shard: String,
    pub tablet_type: TabletType,
}

/// Where backups lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreConfig {
    /// `-file_backup_storage_root`.
    pub root: PathBuf,
    /// `-wait_for_backup_interval`: zero does not wait for a first backup.
    pub wait_interval: Duration,
}

/// Where the tablet can be reached, known once its servers listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    pub hostname: String,
    pub http_port: i32,
    /// 0 when gRPC is not served.
    pub grpc_port: i32,
    /// Where mysqld runs; the same host unless MySQL is unmanaged.
    pub mysql_hostname: String,
}

/// The records in topo that decide about serving, as last read. `None`: not there, or never read.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// Keyspace and shard that they are of.
    pub place: (String, String),
    pub shard: Option<Shard>,
    pub serving: Option<SrvKeyspace>,
}

/// What changes while the tablet lives.
pub(super) struct State {
    /// The record as last read or written.
    pub tablet: Tablet,
    pub addresses: Option<Addresses>,
    pub permit: Permit,
    pub known: Known,
    pub replication: Replication,
    /// Lag last seen, to go on counting from while the master is away.
    pub last_lag: Option<(Duration, SystemTime)>,
    /// Why the tablet is ill, as the last health check found.
    pub health_error: Option<String>,
    /// When the last health check ended; `None` before the first.
    pub checked: Option<SystemTime>,
    pub ignore_health_error: Option<Regex>,
    /// Newest first.
    pub history: VecDeque<HealthRecord>,
    /// Uptime of mysqld at the last check, seconds. A smaller one now means that it was restarted.
    pub mysqld_uptime: Option<u64>,
    /// The tablet is going away: it must not begin to serve again.
    pub stopping: bool,
}

/// Tables locked by `LockTables`, and what unlocks them if nobody does.
pub(super) struct TablesLock {
    pub _conn: Lease,
    pub timer: tokio::task::JoinHandle<()>,
}

pub struct TabletManager {
    pub(super) config: ManagerConfig,
    pub(super) topo: TopoServer,
    pub(super) mysqld: Mysqld,
    pub(super) query: Arc<dyn QueryControl>,
    pub(super) markers: Markers,
    pub(super) stats: ManagerStats,
    pub(super) vreplication: Arc<Engine>,
    /// Held by whatever changes the tablet.
    pub(super) action: tokio::sync::Mutex<()>,
    /// Held while serving is brought in line with the state. Taken after `action`.
    pub(super) applying: tokio::sync::Mutex<()>,
    pub(super) tables_lock: tokio::sync::Mutex<Option<TablesLock>>,
    pub(super) check_now: Notify,
    pub(super) sync_now: Notify,
    /// Whether this tablet lets other shards read its changes.
    pub(super) streaming: watch::Sender<bool>,
    state: Mutex<State>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl TabletManager {
    /// A manager that does nothing yet. `tablet` is the record that [`super::register`] made.
    pub fn new(
        config: ManagerConfig,
        tablet: Tablet,
        topo: TopoServer,
        mysqld: Mysqld,
        query: Arc<dyn QueryControl>,
        vreplication: Arc<Engine>,
        registry: &servenv::Registry,
    ) -> Arc<Self> {
        let markers = Markers::load(config.tablet_dir.clone());
        let manager = Arc::new(Self {
            config,
            topo,
            mysqld,
            query,
            markers,
            stats: ManagerStats::new(registry),
            vreplication,
            action: Default::default(),
            applying: Default::default(),
            tables_lock: Default::default(),
            check_now: Notify::new(),
            sync_now: Notify::new(),
            streaming: watch::Sender::new(false),
            state: Mutex::new(State {
                tablet,
                addresses: None,
                permit: Permit { refused: Some("the tablet is starting".to_owned()), denied_tables: Vec::new() },
                known: Known::default(),
                replication: Replication::NotWatched,
                last_lag: None,
                health_error: None,
                checked: None,
                ignore_health_error: None,
                history: VecDeque::new(),
                mysqld_uptime: None,
                stopping: false,
            }),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        manager.stats.type_changes.inc(&[&topoproto::tablet_type_lstring(manager.tablet_type())]);
        super::stats::publish(&manager, registry);
        super::vreplication::publish(&manager.vreplication, registry);
        manager
    }

    /// Writes where the tablet is into its record.
    pub async fn announce(&self, addresses: Addresses) -> Result<()> {
        self.state().addresses = Some(addresses);
        let _action = self.action.lock().await;
        self.publish_addresses().await
    }

    /// Begins to work: health checks, following the shard record, serving. The servers have to listen by now.
    pub async fn start(self: &Arc<Self>) -> Result<()> {
        self.prepare_data().await?;
        {
            let _action = self.action.lock().await;
            // mysqld may have come up only now, and with it its port.
            self.publish_addresses().await?;
            self.refresh_locked("Start").await?;
        }
        self.tasks.spawn(self.clone().health_loop(self.stop.clone()));
        self.tasks.spawn(self.clone().shard_sync_loop(self.stop.clone()));
        if let Some(orchestrator) = self.config.orchestrator.clone() {
            self.tasks.spawn(self.clone().announce_to_orchestrator(orchestrator, self.stop.clone()));
        }
        if let Some(params) = self.config.watch_replication.clone() {
            self.tasks.spawn(replication_watcher::run(self.clone(), params, self.stop.clone()));
        }
        Ok(())
    }

    /// The first half of a stop, while gRPC still serves: gates are told to go elsewhere, queries go on for `lameduck`, and
    /// open transactions get their grace.
    pub async fn drain(&self, lameduck: Duration) {
        self.state().stopping = true;
        self.query.enter_lameduck();
        tokio::time::sleep(lameduck).await;
        self.vreplication.close().await;
        self.reconcile("the tablet stops").await;
        self.query.end_health_streams();
    }

    /// The second half, when nobody calls any more: ends what runs and takes the addresses out of the record.
    pub async fn close(&self) {
        self.state().stopping = true;
        self.vreplication.close().await;
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await.is_err() {
            tracing::warn!("{} tasks of the tablet manager did not end", self.tasks.len());
        }
        if let Err(error) = self.query.set_serving_type(self.tablet_type(), false, &[]).await {
            tracing::warn!("ending the query service: {error}");
        }
        if let Err(error) = self.clear_addresses().await {
            tracing::warn!("clearing the tablet record: {error}");
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record as this tablet knows it.
    pub fn tablet(&self) -> Tablet {
        self.state().tablet.clone()
    }

    pub fn tablet_type(&self) -> TabletType {
        self.state().tablet.r#type()
    }

    pub fn alias_string(&self) -> String {
        topoproto::tablet_alias_string(Some(&self.config.alias))
    }

    /// The database of the tablet, `vt_<keyspace>` unless its record says otherwise.
    pub fn db_name(&self) -> String {
        topoproto::tablet_db_name(&self.state().tablet)
    }

    /// Whether this tablet lets other shards read its changes, now and as it changes.
    pub fn streaming(&self) -> watch::Receiver<bool> {
        self.streaming.subscribe()
    }

    /// Asks for a health check soon, because something was seen to fail.
    pub fn request_health_check(&self) {
        self.check_now.notify_one();
    }

    /// Writes the tablet's type, with the start of its master term if it is one, to topo and into the state.
    pub(super) async fn change_type_record(&self, tablet_type: TabletType) -> Result<()> {
        let term = (tablet_type == TabletType::Master).then(now);
        let written = self
            .topo
            .update_tablet_fields(&self.config.alias, |tablet| {
                tablet.set_type(tablet_type);
                tablet.master_term_start_time = term;
                Ok(Update::Write)
            })
            .await
            .map_err(VtError::from)?;
        if let Some(tablet) = written {
            self.state().tablet = tablet;
        }
        if tablet_type != TabletType::Master {
            self.markers.put(Marker::ReadOnly, false);
        }
        self.markers.put(Marker::DemotedMaster, false);
        self.stats.type_changes.inc(&[&topoproto::tablet_type_lstring(tablet_type)]);
        Ok(())
    }
}

/// The present as topo records it.
pub(super) fn now() -> vttime::Time {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    vttime::Time {
        seconds: i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: i32::try_from(since_epoch.subsec_nanos()).unwrap_or_default(),
    }
}

/// Orders two master terms; none is before every other.
pub(super) fn term(time: Option<&vttime::Time>) -> (i64, i32) {
    time.map_or((0, 0), |time| (time.seconds, time.nanoseconds))
}
