//! The health of tablets, as long as somebody looks at it.
//!
//! Owns: one health stream per tablet that was asked for, and its end after `-tablet_health_keep_alive`
//! without a question. With `-enable_realtime_stats` all tablets of all cells are watched all the time.
//! Invariant: streams are at most as many as there are tablets in the topology.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use servenv::flags::Parsed;
use tabletclient::{HealthCheck, HealthCheckOptions, TabletHealth, TopologyWatcher, WatcherOptions};
use tokio_util::task::AbortOnDropHandle;
use topo::{TopoServer, topoproto};
use vtproto::topodata::Tablet;
use wrangler::Wrangler;

/// How long the first answer about a tablet is waited for: a tablet that runs speaks at once.
const FIRST_REPORT: Duration = Duration::from_millis(700);

/// Flags about health.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `-tablet_health_keep_alive`
    pub keep_alive: Duration,
    /// `-vtctl_healthcheck_retry_delay`
    pub retry_delay: Duration,
    /// `-vtctl_healthcheck_timeout`
    pub timeout: Duration,
    /// `-vtctl_healthcheck_topology_refresh`
    pub topology_refresh: Duration,
}

impl Settings {
    pub fn from_flags(flags: &Parsed) -> Self {
        Self {
            keep_alive: flags.duration("tablet_health_keep_alive"),
            retry_delay: flags.duration("vtctl_healthcheck_retry_delay"),
            timeout: flags.duration("vtctl_healthcheck_timeout"),
            topology_refresh: flags.duration("vtctl_healthcheck_topology_refresh"),
        }
    }
}

struct Inner {
    topo: TopoServer,
    check: HealthCheck,
    settings: Settings,
    /// When each tablet on demand was last asked about.
    asked: Mutex<HashMap<String, Instant>>,
    watchers: Mutex<Vec<TopologyWatcher>>,
}

/// A shared cache of health. Streams end when the last clone is dropped.
#[derive(Clone)]
pub struct HealthCache {
    inner: Arc<Inner>,
    _sweeper: Arc<AbortOnDropHandle<()>>,
}

impl HealthCache {
    pub fn new(wr: &Wrangler, settings: Settings) -> Self {
        let options = HealthCheckOptions {
            retry_delay: settings.retry_delay,
            timeout: settings.timeout,
            ..HealthCheckOptions::default()
        };
        let dial = wr.config().tablet_dial.clone();
        let check = HealthCheck::new(options, move |tablet| tabletclient::grpc::dial(tablet, &dial));
        let inner = Arc::new(Inner {
            topo: wr.topo().clone(),
            check,
            settings,
            asked: Mutex::default(),
            watchers: Mutex::default(),
        });
        let weak = Arc::downgrade(&inner);
        let period = inner.settings.keep_alive.clamp(Duration::from_secs(1), Duration::from_secs(30));
        let sweeper = tokio::spawn(async move {
            while let Some(inner) = weak.upgrade() {
                inner.sweep();
                drop(inner);
                tokio::time::sleep(period).await;
            }
        });
        Self { inner, _sweeper: Arc::new(AbortOnDropHandle::new(sweeper)) }
    }

    /// Watches all tablets of all cells from now on.
    pub async fn watch_everything(&self) -> Result<(), wrangler::Error> {
        for cell in self.inner.topo.get_known_cells().await? {
            let options =
                WatcherOptions { refresh_interval: self.inner.settings.topology_refresh, ..WatcherOptions::default() };
            let watcher = TopologyWatcher::start(self.inner.topo.clone(), cell, options, self.inner.check.clone());
            self.inner.watchers.lock().unwrap_or_else(PoisonError::into_inner).push(watcher);
        }
        Ok(())
    }

    /// What the tablets said last, by alias. Begins to watch those that are not watched; a tablet that
    /// is missing in the answer has no address.
    pub async fn get(&self, tablets: &[Tablet]) -> HashMap<String, Arc<TabletHealth>> {
        let mut fresh = false;
        {
            let mut asked = self.inner.asked.lock().unwrap_or_else(PoisonError::into_inner);
            for tablet in tablets {
                let alias = topoproto::tablet_alias_string(tablet.alias.as_ref());
                if tablet.hostname.is_empty() || !tablet.port_map.contains_key("grpc") {
                    // Stopped: whatever it said before is over.
                    if asked.remove(&alias).is_some() {
                        self.inner.check.remove_tablet(&alias);
                    }
                    continue;
                }
                fresh |= asked.insert(alias, Instant::now()).is_none();
                self.inner.check.add_tablet(tablet.clone());
            }
        }
        if fresh {
            self.first_reports(tablets).await;
        }
        self.all()
    }

    /// Waits a moment for tablets that have just begun to be watched.
    async fn first_reports(&self, tablets: &[Tablet]) {
        let wanted: Vec<String> =
            tablets.iter().map(|tablet| topoproto::tablet_alias_string(tablet.alias.as_ref())).collect();
        let reported = async {
            loop {
                let known = self.all();
                let waiting = wanted
                    .iter()
                    .filter_map(|alias| known.get(alias))
                    .any(|health| !health.up && health.last_error.is_none());
                if !waiting {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Who has not spoken by then is shown as waited for.
        let _ = tokio::time::timeout(FIRST_REPORT, reported).await;
    }

    /// Everything known, by alias.
    pub fn all(&self) -> HashMap<String, Arc<TabletHealth>> {
        self.inner.check.tablets().into_iter().map(|health| (health.alias(), health)).collect()
    }
}

impl Inner {
    /// Ends the streams that nobody has asked about for long.
    fn sweep(&self) {
        if !self.watchers.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
            return;
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.retain(|alias, last| {
            let keep = last.elapsed() < self.settings.keep_alive;
            if !keep {
                self.check.remove_tablet(alias);
            }
            keep
        });
    }
}
