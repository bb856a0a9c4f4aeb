//! The query service's variables, under Vitess's names.
//!
//! Owns: the counters of the hot path, taken once a plan so that counting needs no look-up, and the
//! registration of everything in a [`Registry`]. Does not own the numbers themselves where somebody
//! else has them (pools, schema, plan cache): those are read when asked for.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use servenv::stats::{Counter, Histogram, MultiCounter, MultiTimings, Registry};

use super::live::lock;
use super::plan::PlanKind;
use super::pool::Pool;

/// Row counts below which results are counted.
const RESULT_BUCKETS: [i64; 10] = [0, 1, 5, 10, 50, 100, 500, 1000, 5000, 10_000];
/// Callers told apart for one table; further ones share `_other`.
const MAX_CALLERS: usize = 200;

/// What was counted for one table and plan kind.
#[derive(Debug, Default)]
pub struct TableCounts {
    pub table: String,
    pub plan: &'static str,
    pub queries: AtomicI64,
    pub nanos: AtomicI64,
    pub mysql_nanos: AtomicI64,
    pub rows: AtomicI64,
    pub errors: AtomicI64,
    users: RwLock<Vec<(String, Arc<UserCounts>)>>,
}

/// What one caller did to one table.
#[derive(Debug)]
pub struct UserCounts {
    count: Arc<AtomicI64>,
    nanos: Arc<AtomicI64>,
}

impl UserCounts {
    pub fn add(&self, elapsed: Duration) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(nanos(elapsed), Ordering::Relaxed);
    }
}

/// A duration as it is summed up.
pub fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

/// See the module.
pub struct Stats {
    /// `Mysql`: time spent in mysqld and on connecting to it.
    pub mysql: MultiTimings,
    pub mysql_exec: Arc<Histogram>,
    pub mysql_stream: Arc<Histogram>,
    /// Waiting for a connection to mysqld.
    pub pool_phase: Arc<Histogram>,
    /// From sending a statement to mysqld until its whole result is there.
    pub mysqld_phase: Arc<Histogram>,
    /// All the rest of a statement in this process.
    pub own_phase: Arc<Histogram>,
    pub queries: MultiTimings,
    pub waits: MultiTimings,
    pub kills: MultiCounter,
    pub errors: MultiCounter,
    pub internal_errors: MultiCounter,
    pub warnings: MultiCounter,
    pub unresolved: servenv::stats::MultiGauge,
    pub results: Arc<Histogram>,
    pub transactions: MultiTimings,
    user_queries: MultiCounter,
    user_nanos: MultiCounter,
    pub user_transactions: MultiCounter,
    pub user_transaction_nanos: MultiCounter,
    pub acl_allowed: MultiCounter,
    pub acl_denied: MultiCounter,
    pub acl_pseudo_denied: MultiCounter,
    pub acl_exempt: Counter,
    pub log_sent: MultiCounter,
    pub log_delivered: MultiCounter,
    pub log_dropped: MultiCounter,
    tables: Mutex<HashMap<(String, &'static str), Arc<TableCounts>>>,
    qps: Arc<servenv::stats::Rates>,
}

impl std::fmt::Debug for Stats {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stats").finish_non_exhaustive()
    }
}

impl Stats {
    pub fn new(registry: &Registry) -> Arc<Self> {
        let mysql = registry.timings("Mysql", "MySQL query time", "operation");
        let queries = registry.timings("Queries", "MySQL query timings", "plan_type");
        let acl = ["TableName", "TableGroup", "PlanID", "Username"];
        let log = ["Log"];
        let counted = queries.clone();
        // Fifteen minutes in steps of five seconds.
        let qps = registry
            .rates("QPS", 180, Duration::from_secs(5), move || counted.counts_by("plan_type").into_iter().collect());
        let phases = registry.phases("Where the time of a statement goes in vttablet: pool, mysqld, own");
        Arc::new(Self {
            pool_phase: phases.handle(&["pool"]),
            mysqld_phase: phases.handle(&["mysqld"]),
            own_phase: phases.handle(&["own"]),
            mysql_exec: mysql.handle(&["Exec"]),
            mysql_stream: mysql.handle(&["ExecStream"]),
            mysql,
            queries,
            waits: registry.timings("Waits", "Wait operations", "type"),
            kills: registry
                .multi_counter("Kills", "Number of connections being killed", &["query_type"])
                .with_zeros(&["Transactions", "Queries"]),
            errors: registry.multi_counter("Errors", "Critical errors", &["error_code"]),
            internal_errors: registry
                .multi_counter("InternalErrors", "Internal component errors", &["type"])
                .with_zeros(&["Task", "Schema", "TwopcCommit", "TwopcResurrection", "WatchdogFail"]),
            warnings: registry.multi_counter("Warnings", "Warnings", &["type"]).with_zeros(&["ResultsExceeded"]),
            unresolved: registry.multi_gauge("Unresolved", "Unresolved items", &["item_type"]),
            results: registry.histogram("Results", "Distribution of rows returned", &RESULT_BUCKETS),
            transactions: registry.timings("Transactions", "Transaction stats", "operation"),
            user_queries: registry.multi_counter(
                "UserTableQueryCount",
                "Queries received for each CallerID/table combination",
                &["TableName", "CallerID", "Type"],
            ),
            user_nanos: registry.multi_counter(
                "UserTableQueryTimesNs",
                "Total latency for each CallerID/table combination",
                &["TableName", "CallerID", "Type"],
            ),
            user_transactions: registry.multi_counter(
                "UserTransactionCount",
                "transactions received for each CallerID",
                &["CallerID", "Conclusion"],
            ),
            user_transaction_nanos: registry.multi_counter(
                "UserTransactionTimesNs",
                "Total transaction latency for each CallerID",
                &["CallerID", "Conclusion"],
            ),
            acl_allowed: registry.multi_counter("TableACLAllowed", "ACL acceptances", &acl),
            acl_denied: registry.multi_counter("TableACLDenied", "ACL denials", &acl),
            acl_pseudo_denied: registry.multi_counter("TableACLPseudoDenied", "ACL pseudodenials", &acl),
            acl_exempt: registry.counter("TableACLExemptCount", "Queries whose caller no table ACL binds"),
            log_sent: registry.multi_counter("StreamlogSend", "stream log send count", &log),
            log_delivered: registry.multi_counter("StreamlogDelivered", "Stream log delivered", &["Log", "Subscriber"]),
            log_dropped: registry.multi_counter(
                "StreamlogDeliveryDroppedMessages",
                "Dropped messages by streamlog delivery",
                &["Log", "Subscriber"],
            ),
            tables: Mutex::default(),
            qps,
        })
    }

    /// Queries a second, over the last full interval.
    pub fn qps(&self) -> f64 {
        self.qps.get().get("All").and_then(|rates| rates.last().copied()).unwrap_or(0.0)
    }

    /// The counters of a table and plan kind; a plan keeps them. The table of a join is `Join`.
    pub fn table(&self, table: &str, kind: PlanKind) -> Arc<TableCounts> {
        let table = if table.is_empty() { "Join" } else { table };
        let mut tables = lock(&self.tables);
        let key = (table.to_owned(), kind.name());
        tables
            .entry(key)
            .or_insert_with(|| {
                Arc::new(TableCounts { table: table.to_owned(), plan: kind.name(), ..TableCounts::default() })
            })
            .clone()
    }

    /// The counters of a caller on a table.
    pub fn user(&self, counts: &TableCounts, user: &str) -> Arc<UserCounts> {
        let find = |users: &[(String, Arc<UserCounts>)]| {
            users.iter().find(|(name, _)| name == user).map(|(_, counts)| counts.clone())
        };
        if let Some(found) = find(&counts.users.read().unwrap_or_else(std::sync::PoisonError::into_inner)) {
            return found;
        }
        let mut users = counts.users.write().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(found) = find(&users) {
            return found;
        }
        let shown = if users.len() < MAX_CALLERS { user } else { "_other" };
        let labels = [counts.table.as_str(), shown, "Execute"];
        let made =
            Arc::new(UserCounts { count: self.user_queries.handle(&labels), nanos: self.user_nanos.handle(&labels) });
        if users.len() < MAX_CALLERS {
            users.push((user.to_owned(), made.clone()));
        }
        made
    }

    /// Every table's counters, for the query statistics page.
    pub fn tables(&self) -> Vec<Arc<TableCounts>> {
        let mut tables: Vec<_> = lock(&self.tables).values().cloned().collect();
        tables.sort_by(|a, b| (&a.table, a.plan).cmp(&(&b.table, b.plan)));
        tables
    }

    /// Registers the per-table counters.
    pub fn register_tables(self: &Arc<Self>, registry: &Registry) {
        let column = |name: &str, help: &str, read: fn(&TableCounts) -> &AtomicI64| {
            let stats = Arc::downgrade(self);
            registry.multi_counter_func(name, help, &["Table", "Plan"], move || {
                let tables = stats.upgrade().map(|stats| stats.tables()).unwrap_or_default();
                tables
                    .iter()
                    .map(|t| (vec![t.table.clone(), t.plan.to_owned()], read(t).load(Ordering::Relaxed)))
                    .collect()
            });
        };
        column("QueryCounts", "query counts", |t| &t.queries);
        column("QueryTimesNs", "query times in ns", |t| &t.nanos);
        column("QueryRowCounts", "query row counts", |t| &t.rows);
        column("QueryErrorCounts", "query error counts", |t| &t.errors);
    }
}

/// Registers a pool's numbers under its name.
pub fn register_pool(registry: &Registry, prefix: &str, pool: &Arc<Pool>) {
    let name = format!("{prefix}{}", pool.config().name);
    let gauge = |suffix: &str, help: &str, read: fn(&Pool) -> usize| {
        let pool = Arc::downgrade(pool);
        registry.gauge_func(&format!("{name}{suffix}"), help, move || {
            pool.upgrade().map_or(0, |pool| i64::try_from(read(&pool)).unwrap_or(i64::MAX))
        });
    };
    gauge("Capacity", "Tablet server conn pool capacity", Pool::capacity);
    gauge("Available", "Tablet server conn pool available", Pool::available);
    gauge("Active", "Tablet server conn pool active", Pool::active);
    gauge("InUse", "Tablet server conn pool in use", Pool::in_use);
    gauge("MaxCap", "Tablet server conn pool max cap", Pool::capacity);
    let counter = |suffix: &str, help: &str, read: fn(&Pool) -> u64| {
        let pool = Arc::downgrade(pool);
        registry.counter_func(&format!("{name}{suffix}"), help, move || {
            pool.upgrade().map_or(0, |pool| i64::try_from(read(&pool)).unwrap_or(i64::MAX))
        });
    };
    counter("WaitCount", "Tablet server conn pool wait count", |p| p.stats.wait_count.load(Ordering::Relaxed));
    counter("IdleClosed", "Tablet server conn pool idle closed", |p| p.stats.idle_closed.load(Ordering::Relaxed));
    counter("Exhausted", "Number of times pool had zero available slots", |p| {
        p.stats.exhausted.load(Ordering::Relaxed)
    });
    let waited = Arc::downgrade(pool);
    registry.counter_duration(&format!("{name}WaitTime"), "Tablet server wait time", move || {
        waited.upgrade().map_or(Duration::ZERO, |p| Duration::from_nanos(p.stats.wait_nanos.load(Ordering::Relaxed)))
    });
    let idle = pool.config().idle_timeout;
    registry.gauge_duration(&format!("{name}IdleTimeout"), "Tablet server idle timeout", move || idle);
}
