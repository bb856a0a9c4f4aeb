//! Looking at mysqld and its replication again and again, and what follows from it.
//!
//! One check: does mysqld answer, was it restarted (then what it forgot is set again), how far behind is replication.
//! Serving is brought in line, and everybody who listens is told. Nothing here waits for topo on the way of a healthy
//! tablet.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use regex::Regex;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use topo::TopoError;
use vterrors::{Code, Result, VtError};
use vtproto::{query::RealtimeStats, topodata::TabletType};

use super::{
    decision::{Replication, health_error},
    manager::TabletManager,
    markers::Marker,
};

/// A mysqld that answers later than this counts as down.
const MYSQLD_LIMIT: Duration = Duration::from_secs(10);
/// A mysqld that is down is looked at this often, to serve again soon after it is back. A tablet that is not healthy for
/// another reason is, too, and then less and less often.
const DOWN_INTERVAL: Duration = Duration::from_secs(1);
/// How long a check waits for a running action before it goes on without repairing anything.
const ACTION_WAIT: Duration = Duration::from_secs(2);
const HISTORY: usize = 16;

/// The outcome of one health check, for the status page.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthRecord {
    pub time: SystemTime,
    pub error: Option<String>,
    /// An error that `IgnoreHealthError` covers.
    pub ignored: Option<String>,
    pub lag: Duration,
}

impl TabletManager {
    /// One health check, asked for from outside.
    pub(super) async fn run_health_check(&self) {
        let action = timeout(ACTION_WAIT, self.action.lock()).await.ok();
        self.check_health_locked(action.is_some(), "health check").await;
    }

    pub(super) async fn health_loop(self: Arc<Self>, stop: CancellationToken) {
        let interval = self.config.health_check_interval;
        // The check of the start repaired nothing.
        let mut pause = Duration::ZERO;
        let mut ill_pause = DOWN_INTERVAL;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.check_now.notified() => {}
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.run_health_check() => {}
            }
            let (down, ill) = {
                let state = self.state();
                (state.mysqld_uptime.is_none(), state.health_error.is_some())
            };
            if !ill {
                ill_pause = DOWN_INTERVAL;
            }
            pause = interval;
            if down {
                pause = interval.min(DOWN_INTERVAL);
            } else if ill {
                // What was repaired just now is well in a moment.
                pause = interval.min(ill_pause);
                ill_pause = pause * 2;
            }
        }
    }

    /// Checks health and brings serving in line. `may_repair`: the caller holds the action lock, and nothing else is
    /// going on with replication.
    pub(super) async fn check_health_locked(&self, may_repair: bool, reason: &str) {
        let tablet_type = self.tablet_type();
        let replication = match timeout(MYSQLD_LIMIT, self.mysqld.status_number("Uptime")).await {
            Ok(Ok(uptime)) => {
                self.notice_restart(tablet_type, uptime).await;
                self.report(tablet_type, may_repair).await
            }
            Ok(Err(error)) => self.mysqld_is_down(&error.to_string()),
            Err(_) => self.mysqld_is_down("no answer"),
        };
        let was_ill = {
            let mut state = self.state();
            let was_ill = state.health_error.clone();
            let lag = match replication {
                Replication::Lag(lag) => lag,
                Replication::NotWatched | Replication::Broken(_) => Duration::ZERO,
            };
            let found = health_error(&replication, self.config.unhealthy_threshold);
            let ignore =
                state.ignore_health_error.as_ref().zip(found.as_ref()).is_some_and(|(expr, text)| expr.is_match(text));
            let (error, ignored) = if ignore { (None, found) } else { (found, None) };
            let record = HealthRecord { time: SystemTime::now(), error: error.clone(), ignored, lag };
            state.replication = replication;
            state.health_error = error;
            state.checked = Some(record.time);
            state.remember(record);
            was_ill
        };
        self.reconcile(reason).await;
        let ill = self.state().health_error.clone();
        match (&was_ill, &ill) {
            (_, Some(error)) if was_ill != ill => tracing::warn!("not healthy: {error}"),
            (Some(_), None) => tracing::info!("healthy again"),
            _ => {}
        }
        self.broadcast();
    }

    fn mysqld_is_down(&self, error: &str) -> Replication {
        self.state().mysqld_uptime = None;
        Replication::Broken(format!("mysqld does not answer: {error}"))
    }

    /// A mysqld that was restarted has forgotten semi-sync, and accepts no writes.
    async fn notice_restart(&self, tablet_type: TabletType, uptime: u64) {
        let before = self.state().mysqld_uptime;
        if before.is_some_and(|before| uptime >= before) {
            self.state().mysqld_uptime = Some(uptime);
            return;
        }
        match self.set_up_again(tablet_type).await {
            Ok(()) => self.state().mysqld_uptime = Some(uptime),
            // Tried again at the next check.
            Err(error) => {
                tracing::warn!("mysqld was started, but is not set up for {} yet: {error}", tablet_type.as_str_name())
            }
        }
        if let Err(error) = self.check_mysql_port().await {
            tracing::warn!("the port in the tablet record may not be current: {error}");
        }
    }

    async fn set_up_again(&self, tablet_type: TabletType) -> Result<()> {
        // A master that only its record calls so has no replica that could acknowledge: who elects it turns semi-sync on.
        if tablet_type != TabletType::Master || self.mysqld.knows_a_reparent().await? {
            self.fix_semi_sync(tablet_type).await?;
        }
        let refused = [Marker::DemotedMaster, Marker::ReadOnly].into_iter().any(|marker| self.markers.has(marker));
        if tablet_type != TabletType::Master || refused || !self.mysqld.is_read_only().await? {
            return Ok(());
        }
        // Only the master that the shard knows may accept writes.
        let tablet = self.tablet();
        match self.topo.get_shard(&tablet.keyspace, &tablet.shard).await {
            Ok(shard) if shard.master_alias() == Some(&self.config.alias) => {
                tracing::info!("mysqld of the master is read-only after its start, accepting writes");
                self.mysqld.set_read_only(false).await
            }
            Ok(_) | Err(TopoError::NoNode { .. }) => {
                Err(VtError::new(Code::FailedPrecondition, "the shard record does not name this tablet as its master"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sends what the tablet is and how it fares to everybody who listens.
    pub(super) fn broadcast(&self) {
        let (term_start, stats) = {
            let state = self.state();
            let lag = match &state.replication {
                Replication::Lag(lag) => *lag,
                Replication::NotWatched | Replication::Broken(_) => Duration::ZERO,
            };
            let is_master = state.tablet.r#type() == TabletType::Master;
            let term = state.tablet.master_term_start_time.as_ref().filter(|_| is_master);
            let (streams, behind) = self.vreplication.summary();
            let stats = RealtimeStats {
                health_error: state.health_error.clone().unwrap_or_default(),
                seconds_behind_master: u32::try_from(lag.as_secs()).unwrap_or(u32::MAX),
                binlog_players_count: i32::try_from(streams).unwrap_or(i32::MAX),
                seconds_behind_master_filtered_replication: behind,
                ..Default::default()
            };
            (term.map_or(0, |term| term.seconds), stats)
        };
        self.query.broadcast_health(term_start, stats);
    }

    /// Whether the tablet is healthy, for `/debug/health` and `/healthz`.
    ///
    /// # Errors
    /// The reason, as a text for people.
    pub fn healthy(&self) -> Result<(), String> {
        let state = self.state();
        if let Some(error) = &state.health_error {
            return Err(error.clone());
        }
        let Some(checked) = state.checked else { return Err("no health check has ended yet".to_owned()) };
        let age = checked.elapsed().unwrap_or_default();
        let limit = self.config.health_check_interval * 3;
        if age > limit {
            return Err(format!("last health check is too old: {}s > {}s", age.as_secs(), limit.as_secs()));
        }
        Ok(())
    }

    /// From now on an error that the whole of `pattern` matches does not count; the empty pattern ends that.
    pub(super) async fn ignore_health_error(&self, pattern: &str) -> Result<()> {
        let expression = if pattern.is_empty() {
            None
        } else {
            let anchored = format!("^{pattern}$");
            let compiled = Regex::new(&anchored)
                .map_err(|error| VtError::new(Code::InvalidArgument, format!("bad pattern {pattern:?}: {error}")))?;
            Some(compiled)
        };
        self.state().ignore_health_error = expression;
        Ok(())
    }
}

impl super::manager::State {
    /// Keeps the record unless it says the same as the newest one.
    fn remember(&mut self, record: HealthRecord) {
        if let Some(newest) = self.history.front_mut()
            && newest.error == record.error
            && newest.ignored == record.ignored
        {
            *newest = record;
            return;
        }
        self.history.push_front(record);
        self.history.truncate(HISTORY);
    }
}
