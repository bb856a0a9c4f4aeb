//! Plans by statement, so that a statement seen before is neither parsed nor planned.
//!
//! Owns: the table and its bound, in entries (`-gate_query_cache_size`) and in bytes. Invariants: an
//! entry is only used with the vschema it was planned for; a fingerprint that meets another text
//! finds nothing; eviction takes entries that were not used since it last looked at them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::SystemTime,
};

/// Locks that share the load of the hot path.
const SHARDS: usize = 8;
/// Most bytes of all entries together, by their own estimate.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// What decides whether a plan fits.
#[derive(Debug, Clone, Copy)]
pub struct PlanKey<'a> {
    /// The session's target as it stands in the session.
    pub target: &'a str,
    /// The statement without literals (and with its directives).
    pub sql: &'a str,
    /// Hash of `sql`.
    pub fingerprint: u64,
    /// Number of the vschema.
    pub vschema: u64,
}

impl PlanKey<'_> {
    fn hash(&self) -> u64 {
        self.target.bytes().fold(self.fingerprint ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }
}

/// A cached value with how often it served.
#[derive(Debug)]
pub struct Cached<V> {
    pub value: V,
    pub target: String,
    pub sql: String,
    vschema: u64,
    bytes: usize,
    recently_used: AtomicBool,
    pub created: SystemTime,
    pub executions: AtomicU64,
    pub nanos: AtomicU64,
    pub rows: AtomicU64,
    pub errors: AtomicU64,
    /// Statements sent to shards for it.
    pub shard_queries: AtomicU64,
}

impl<V> Cached<V> {
    fn new(key: &PlanKey<'_>, value: V) -> Self {
        Self {
            value,
            target: key.target.to_string(),
            sql: key.sql.to_string(),
            vschema: key.vschema,
            // The text is held here, in the plan and in the plan's template of it.
            bytes: 1024 + key.target.len() + 3 * key.sql.len(),
            recently_used: AtomicBool::new(false),
            created: SystemTime::now(),
            executions: AtomicU64::new(0),
            nanos: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            shard_queries: AtomicU64::new(0),
        }
    }

    fn fits(&self, key: &PlanKey<'_>) -> bool {
        self.vschema == key.vschema && self.sql == key.sql && self.target == key.target
    }
}

struct Shard<V> {
    entries: HashMap<u64, Arc<Cached<V>>>,
    order: VecDeque<u64>,
    bytes: usize,
}

impl<V> Default for Shard<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new(), bytes: 0 }
    }
}

impl<V> Shard<V> {
    fn remove(&mut self, hash: u64) {
        if let Some(entry) = self.entries.remove(&hash) {
            self.bytes -= entry.bytes;
        }
    }

    /// Makes room; returns how many entries went.
    fn evict(&mut self, max_entries: usize, max_bytes: usize) -> i64 {
        let mut evicted = 0;
        while self.entries.len() > max_entries || self.bytes > max_bytes {
            let Some(hash) = self.order.pop_front() else { break };
            let Some(entry) = self.entries.get(&hash) else { continue };
            if entry.recently_used.swap(false, Ordering::Relaxed) {
                self.order.push_back(hash);
            } else {
                self.remove(hash);
                evicted += 1;
            }
        }
        evicted
    }
}

/// A bounded cache of `V`. Its methods never wait but for a lock held for a table access.
pub struct PlanCache<V> {
    shards: [Mutex<Shard<V>>; SHARDS],
    max_entries: usize,
    evictions: AtomicI64,
    hits: AtomicI64,
    misses: AtomicI64,
}

impl<V> PlanCache<V> {
    /// `max_entries` 0 caches nothing.
    pub fn new(max_entries: usize) -> Self {
        Self {
            shards: Default::default(),
            max_entries,
            evictions: AtomicI64::new(0),
            hits: AtomicI64::new(0),
            misses: AtomicI64::new(0),
        }
    }

    fn shard(&self, hash: u64) -> MutexGuard<'_, Shard<V>> {
        let number = usize::try_from(hash >> 56).unwrap_or_default() % SHARDS;
        self.shards[number].lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn get(&self, key: &PlanKey<'_>) -> Option<Arc<Cached<V>>> {
        let hash = key.hash();
        let found = self.shard(hash).entries.get(&hash).filter(|entry| entry.fits(key)).cloned();
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        if let Some(entry) = &found {
            entry.recently_used.store(true, Ordering::Relaxed);
        }
        found
    }

    /// Keeps `value` if there is room for it at all, and returns it ready for use.
    pub fn insert(&self, key: &PlanKey<'_>, value: V) -> Arc<Cached<V>> {
        let entry = Arc::new(Cached::new(key, value));
        let (max_entries, max_bytes) = (self.max_entries.div_ceil(SHARDS), MAX_BYTES / SHARDS);
        if max_entries == 0 || entry.bytes > max_bytes / 4 {
            return entry;
        }
        let hash = key.hash();
        let mut shard = self.shard(hash);
        if shard.entries.contains_key(&hash) {
            shard.remove(hash);
        } else {
            shard.order.push_back(hash);
        }
        shard.bytes += entry.bytes;
        shard.entries.insert(hash, entry.clone());
        let evicted = shard.evict(max_entries, max_bytes);
        drop(shard);
        self.evictions.fetch_add(evicted, Ordering::Relaxed);
        entry
    }

    /// A plan that is used once and not kept.
    pub fn uncached(key: &PlanKey<'_>, value: V) -> Arc<Cached<V>> {
        Arc::new(Cached::new(key, value))
    }

    pub fn clear(&self) {
        for shard in &self.shards {
            *shard.lock().unwrap_or_else(PoisonError::into_inner) = Shard::default();
        }
    }

    /// All entries, sorted by statement.
    pub fn entries(&self) -> Vec<Arc<Cached<V>>> {
        let mut all: Vec<_> = self
            .shards
            .iter()
            .flat_map(|shard| {
                let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
                shard.entries.values().cloned().collect::<Vec<_>>()
            })
            .collect();
        all.sort_by(|a, b| (&a.sql, &a.target).cmp(&(&b.sql, &b.target)));
        all
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner).entries.len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn bytes(&self) -> usize {
        self.shards.iter().map(|s| s.lock().unwrap_or_else(PoisonError::into_inner).bytes).sum()
    }

    pub fn capacity(&self) -> usize {
        self.max_entries
    }

    /// Look-ups that found a plan.
    pub fn hits(&self) -> i64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Look-ups that found none.
    pub fn misses(&self) -> i64 {
        self.misses.load(Ordering::Relaxed)
    }

    pub fn evictions(&self) -> i64 {
        self.evictions.load(Ordering::Relaxed)
    }

    pub fn oldest(&self) -> Option<SystemTime> {
        self.entries().iter().map(|entry| entry.created).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key<'a>(sql: &'a str, vschema: u64) -> PlanKey<'a> {
        let fingerprint = sql.bytes().fold(7, |h: u64, b| h.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(b));
        PlanKey { target: "ks", sql, fingerprint, vschema }
    }

    #[test]
    fn a_plan_serves_only_its_own_vschema_target_and_text() {
        let cache = PlanCache::new(100);
        cache.insert(&key("select 1", 1), "plan");
        assert_eq!(cache.get(&key("select 1", 1)).map(|c| c.value), Some("plan"));
        assert!(cache.get(&key("select 1", 2)).is_none());
        assert!(cache.get(&PlanKey { target: "other", ..key("select 1", 1) }).is_none());
        // The same fingerprint with another text, as a collision would give it.
        let collision = PlanKey { sql: "select 2", ..key("select 1", 1) };
        assert!(cache.get(&collision).is_none());
    }

    #[test]
    fn entries_stay_within_their_number_and_used_ones_survive() {
        let cache = PlanCache::new(64);
        cache.insert(&key("hot", 1), 0);
        for number in 0..1000 {
            cache.insert(&key(&format!("select {number}"), 1), number);
            assert!(cache.get(&key("hot", 1)).is_some(), "evicted although in use, after {number}");
        }
        assert!(cache.len() <= 64 + SHARDS, "{} entries", cache.len());
        assert!(cache.evictions() > 900);
    }

    #[test]
    fn bytes_are_bounded() {
        let cache = PlanCache::new(1_000_000);
        let long = "x".repeat(100_000);
        for number in 0..1000 {
            cache.insert(&key(&format!("{long}{number}"), 1), number);
        }
        assert!(cache.bytes() <= MAX_BYTES, "{} bytes", cache.bytes());
        assert!(cache.len() > 10);
        let huge = "x".repeat(MAX_BYTES);
        let before = cache.bytes();
        cache.insert(&key(&huge, 1), 1);
        assert_eq!(cache.bytes(), before, "a statement larger than the cache is not kept");
    }

    #[test]
    fn a_cache_of_size_0_keeps_nothing() {
        let cache = PlanCache::new(0);
        assert_eq!(cache.insert(&key("select 1", 1), 1).value, 1);
        assert!(cache.is_empty());
    }
}
