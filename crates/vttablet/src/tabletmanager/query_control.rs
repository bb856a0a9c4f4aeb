//! What the tablet manager asks of the query service beside it.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use vterrors::Result;
use vtproto::{
    query::{RealtimeStats, StreamHealthResponse},
    topodata::{TabletAlias, TabletType},
};

use crate::queryservice::{
    Lag, TabletServer, cutover,
    rules::{BLACKLIST_RULES, Rule, Rules},
};

/// The query service as its manager steers it. Implemented over the real one, and by fakes in tests.
#[async_trait::async_trait]
pub trait QueryControl: Send + Sync + 'static {
    /// Serves as `tablet_type`, or stops: then running queries and transactions end first, within the grace period.
    /// While serving, queries for the types of `also_allow` pass too. Whether anything changed.
    async fn set_serving_type(&self, tablet_type: TabletType, serving: bool, also_allow: &[TabletType])
    -> Result<bool>;
    /// Says goodbye to gates: health streams tell that this tablet does not serve, queries still run.
    fn enter_lameduck(&self);
    /// Ends the health streams, of which the last message was that goodbye.
    fn end_health_streams(&self);
    fn is_serving(&self) -> bool;
    /// `SERVING`, `NOT_SERVING` or `SHUTTING_DOWN`.
    fn state_name(&self) -> &'static str;
    async fn reload_schema(&self) -> Result<()>;
    /// What heartbeats say about the lag of this tablet; `None` when they are off, for a master, and before the first.
    fn heartbeat_lag(&self) -> Option<Lag>;
    /// Whether lag is measured by heartbeats.
    fn has_heartbeats(&self) -> bool;
    /// The gate of a cutover that holds back work here.
    fn gated(&self) -> Option<cutover::Snapshot> {
        None
    }
    /// Refuses queries on these tables (names, or `/regexps/`) from now on.
    fn set_denied_tables(&self, tables: &[String]) -> Result<()>;
    /// Sends this to everybody who listens to the tablet's health. `term_start` is the start of the master term in
    /// Unix seconds, 0 when not master.
    fn broadcast_health(&self, term_start: i64, stats: RealtimeStats);
}

/// The query service of this process.
pub struct ServedQueries {
    server: TabletServer,
    alias: TabletAlias,
    /// How long a health message is worth something to a new listener.
    fresh_for: Duration,
    /// Told to go away, though still serving.
    lameduck: AtomicBool,
}

impl ServedQueries {
    /// Health messages stay fresh for three times `health_check_interval`.
    pub fn new(server: TabletServer, alias: TabletAlias, health_check_interval: Duration) -> Self {
        Self { server, alias, fresh_for: health_check_interval * 3, lameduck: AtomicBool::new(false) }
    }
}

#[async_trait::async_trait]
impl QueryControl for ServedQueries {
    async fn set_serving_type(
        &self,
        tablet_type: TabletType,
        serving: bool,
        also_allow: &[TabletType],
    ) -> Result<bool> {
        let changed = self.server.set_serving_type(tablet_type, serving, also_allow.to_vec()).await?;
        self.lameduck.store(false, Ordering::Relaxed);
        Ok(changed)
    }

    fn enter_lameduck(&self) {
        self.lameduck.store(true, Ordering::Relaxed);
        if let Some(last) = self.server.health.last() {
            self.server.health.broadcast(StreamHealthResponse { serving: false, ..last }, self.fresh_for);
        }
    }

    fn end_health_streams(&self) {
        self.server.health.end();
    }

    fn is_serving(&self) -> bool {
        self.server.is_serving()
    }

    fn state_name(&self) -> &'static str {
        self.server.state().name()
    }

    async fn reload_schema(&self) -> Result<()> {
        self.server.reload_schema().await
    }

    fn heartbeat_lag(&self) -> Option<Lag> {
        self.server.heartbeat.lag()
    }

    fn has_heartbeats(&self) -> bool {
        self.server.heartbeat.is_on()
    }

    fn gated(&self) -> Option<cutover::Snapshot> {
        self.server.gated()
    }

    fn set_denied_tables(&self, tables: &[String]) -> Result<()> {
        let rules = if tables.is_empty() { Vec::new() } else { vec![Rule::denied_tables(tables)?] };
        self.server.set_query_rules(BLACKLIST_RULES, Rules::new(rules));
        Ok(())
    }

    fn broadcast_health(&self, term_start: i64, stats: RealtimeStats) {
        if self.lameduck.load(Ordering::Relaxed) {
            // Whoever was sent away must not be called back by a health check.
            return;
        }
        self.server.broadcast_health(self.alias.clone(), term_start, stats, self.fresh_for);
    }
}
