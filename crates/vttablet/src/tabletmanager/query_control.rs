//! What the tablet manager asks of the query service beside it.

use vterrors::Result;
use vtproto::{query::RealtimeStats, topodata::TabletType};

/// The query service as its manager steers it. Implemented over the real one, and by fakes in tests.
#[async_trait::async_trait]
pub trait QueryControl: Send + Sync + 'static {
    /// Serves as `tablet_type`, or stops: then running queries and transactions end first, within the grace period.
    /// While serving, queries for the types of `also_allow` pass too. Whether anything changed.
    async fn set_serving_type(
        &self,
        tablet_type: TabletType,
        serving: bool,
        also_allow: &[TabletType],
    ) -> Result<bool>;
    /// Says goodbye to gates: health streams tell that this tablet does not serve, queries still run.
    fn enter_lameduck(&self);
    fn is_serving(&self) -> bool;
    /// `SERVING`, `NOT_SERVING` or `SHUTTING_DOWN`.
    fn state_name(&self) -> &'static str;
    async fn reload_schema(&self) -> Result<()>;
    /// Refuses queries on these tables (names, or `/regexps/`) from now on.
    fn set_denied_tables(&self, tables: &[String]) -> Result<()>;
    /// Sends this to everybody who listens to the tablet's health. `term_start` is the start of the master term in
    /// Unix seconds, 0 when not master.
    fn broadcast_health(&self, term_start: i64, stats: RealtimeStats);
    /// Queries per second, for the health message.
    fn queries_per_second(&self) -> f64;
}
