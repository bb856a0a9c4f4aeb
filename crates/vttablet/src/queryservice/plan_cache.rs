//! Plans by statement text, checked against schema, rules and ACL.
//!
//! Invariants: bounded by entries and by bytes of text; what was not used since the hand last came by
//! makes room. A plan is only good for the versions of schema, rules and ACL it was made with: the
//! cache is emptied when one of them changes.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use servenv::stats::Histogram;

use super::acl::Members;
use super::live::lock;
use super::plan::Shape;
use super::rules::Rules;
use super::schema::Table;
use super::stats::{TableCounts, nanos};

/// A statement, ready to be executed any number of times.
#[derive(Debug)]
pub struct Plan {
    pub shape: Shape,
    /// The table of a single-table statement, when the schema knows it.
    pub table: Option<Arc<Table>>,
    /// Named by a single-table statement, and unknown to the schema.
    pub missing_table: Option<String>,
    pub rules: Rules,
    /// Who may do what the permissions of the shape ask for, in their order.
    pub authorized: Vec<Members>,
    pub counts: Arc<TableCounts>,
    /// `Queries` of this plan kind.
    pub timing: Arc<Histogram>,
    pub own: PlanCounts,
    /// mysqld has answered it once: names resolve.
    pub resolved: AtomicBool,
    used: AtomicBool,
}

/// What was counted for one plan, for `/queryz`.
#[derive(Debug, Default)]
pub struct PlanCounts {
    pub queries: AtomicI64,
    pub nanos: AtomicI64,
    pub mysql_nanos: AtomicI64,
    pub rows: AtomicI64,
    pub errors: AtomicI64,
}

impl Plan {
    pub fn new(
        shape: Shape,
        table: Option<Arc<Table>>,
        missing_table: Option<String>,
        rules: Rules,
        authorized: Vec<Members>,
        counts: Arc<TableCounts>,
        timing: Arc<Histogram>,
    ) -> Self {
        Self {
            shape,
            table,
            missing_table,
            rules,
            authorized,
            counts,
            timing,
            own: PlanCounts::default(),
            resolved: AtomicBool::new(false),
            used: AtomicBool::new(true),
        }
    }

    /// Counts one execution.
    pub fn count(&self, elapsed: Duration, mysql: Duration, rows: Option<u64>) {
        let (elapsed, mysql) = (nanos(elapsed), nanos(mysql));
        let add = |cell: &AtomicI64, n: i64| {
            cell.fetch_add(n, Ordering::Relaxed);
        };
        for (queries, total, in_mysql, all_rows, errors) in [
            (&self.own.queries, &self.own.nanos, &self.own.mysql_nanos, &self.own.rows, &self.own.errors),
            (
                &self.counts.queries,
                &self.counts.nanos,
                &self.counts.mysql_nanos,
                &self.counts.rows,
                &self.counts.errors,
            ),
        ] {
            add(queries, 1);
            add(total, elapsed);
            add(in_mysql, mysql);
            match rows {
                Some(rows) => add(all_rows, i64::try_from(rows).unwrap_or(i64::MAX)),
                None => add(errors, 1),
            }
        }
    }
}

#[derive(Debug, Default)]
struct Order {
    /// Texts in the order the hand visits them.
    queue: VecDeque<Arc<str>>,
    bytes: usize,
}

/// See the module.
#[derive(Debug)]
pub struct PlanCache {
    plans: RwLock<HashMap<Arc<str>, Arc<Plan>>>,
    /// Locked after `plans`, never the other way round.
    order: Mutex<Order>,
    max_entries: usize,
    max_bytes: usize,
    pub evictions: AtomicU64,
    /// Look-ups that found a plan, and that found none.
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    /// Raised by [`PlanCache::clear`].
    generation: AtomicU64,
}

impl PlanCache {
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        Self {
            plans: RwLock::default(),
            order: Mutex::default(),
            max_entries: max_entries.max(1),
            max_bytes,
            evictions: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            generation: AtomicU64::new(0),
        }
    }

    pub fn get(&self, sql: &str) -> Option<Arc<Plan>> {
        let plans = self.plans.read().unwrap_or_else(PoisonError::into_inner);
        let Some(plan) = plans.get(sql) else {
            self.misses.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        self.hits.fetch_add(1, Ordering::Relaxed);
        // Only written when it changes: the line stays shared between threads.
        if !plan.used.load(Ordering::Relaxed) {
            plan.used.store(true, Ordering::Relaxed);
        }
        Some(plan.clone())
    }

    /// What a plan that is being made must hand to [`PlanCache::insert`].
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Keeps a plan, unless the cache was emptied since `generation` was read.
    pub fn insert(&self, plan: Arc<Plan>, generation: u64) {
        let size = plan.shape.size();
        if size > self.max_bytes / 4 {
            return;
        }
        let key = plan.shape.sql.clone();
        let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
        if generation != self.generation() {
            return;
        }
        let mut order = lock(&self.order);
        if plans.insert(key.clone(), plan).is_none() {
            order.queue.push_back(key);
            order.bytes += size;
        }
        while order.queue.len() > self.max_entries || order.bytes > self.max_bytes {
            let Some(key) = order.queue.pop_front() else { break };
            let Some(old) = plans.get(&key) else { continue };
            if old.used.swap(false, Ordering::Relaxed) && order.queue.len() > 1 {
                order.queue.push_back(key);
                continue;
            }
            order.bytes -= old.shape.size();
            plans.remove(&key);
            self.evictions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets every plan.
    pub fn clear(&self) {
        let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
        self.generation.fetch_add(1, Ordering::SeqCst);
        plans.clear();
        *lock(&self.order) = Order::default();
    }

    pub fn len(&self) -> usize {
        self.plans.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn bytes(&self) -> usize {
        lock(&self.order).bytes
    }

    pub fn capacity(&self) -> usize {
        self.max_entries
    }

    /// Every plan, in no order.
    pub fn plans(&self) -> Vec<Arc<Plan>> {
        self.plans.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queryservice::stats::Stats;
    use servenv::stats::Registry;

    fn plan(sql: &str) -> Arc<Plan> {
        let stats = Stats::new(&Registry::new("vttablet"));
        let shape = Shape::new(sql).expect("a plan");
        let counts = stats.table(&shape.table, shape.kind);
        let timing = stats.queries.handle(&[shape.kind.name()]);
        Arc::new(Plan::new(shape, None, None, Rules::default(), vec![], counts, timing))
    }

    #[test]
    fn what_is_used_stays() {
        let cache = PlanCache::new(3, 1 << 20);
        for n in 0..3 {
            cache.insert(plan(&format!("select {n} from t")), 0);
        }
        // All are marked used by their insertion: the first round only takes the marks away.
        cache.insert(plan("select 3 from t"), 0);
        assert_eq!(cache.len(), 3);
        assert!(cache.get("select 2 from t").is_some());
        cache.insert(plan("select 4 from t"), 0);
        assert_eq!(cache.len(), 3);
        assert!(cache.get("select 2 from t").is_some());
        assert_eq!(cache.evictions.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn bytes_are_bounded() {
        let cache = PlanCache::new(1000, 8000);
        for n in 0..100 {
            cache.insert(plan(&format!("select {n} from t")), 0);
        }
        assert!(cache.bytes() <= 8000, "{}", cache.bytes());
        assert!(cache.len() > 0);
    }

    #[test]
    fn a_plan_made_before_a_change_is_not_kept() {
        let cache = PlanCache::new(10, 1 << 20);
        let generation = cache.generation();
        cache.clear();
        cache.insert(plan("select 1 from t"), generation);
        assert_eq!(cache.len(), 0);
    }
}
