//! What `/debug/vars` says of the streams of a tablet.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use servenv::Registry;
use servenv::stats::Counter;

/// Counters of all streams of one kind.
#[derive(Debug, Clone)]
pub(super) struct KindStats {
    pub statements: Counter,
    pub transactions: Counter,
}

/// The numbers of a tablet's streams.
#[derive(Debug)]
pub struct SourceStats {
    pub(super) tables: KindStats,
    pub(super) key_range: KindStats,
    pub(super) errors: Counter,
    pub(super) streams: Arc<AtomicI64>,
    pub(super) enabled: Arc<AtomicBool>,
}

impl SourceStats {
    pub fn new(registry: &Registry) -> Self {
        let kind = |name: &str, of: &str| KindStats {
            statements: registry
                .counter(&format!("UpdateStream{name}Statements"), &format!("Statements streamed by {of}")),
            transactions: registry
                .counter(&format!("UpdateStream{name}Transactions"), &format!("Transactions streamed by {of}")),
        };
        let stats = Self {
            tables: kind("Tables", "table"),
            key_range: kind("KeyRange", "key range"),
            errors: registry.counter("UpdateStreamErrors", "Streams that ended with an error"),
            streams: Arc::default(),
            enabled: Arc::default(),
        };
        let streams = stats.streams.clone();
        registry.gauge_func("UpdateStreamStreamCount", "Streams that are open now", move || {
            streams.load(Ordering::Relaxed)
        });
        let enabled = stats.enabled.clone();
        registry.string_func("UpdateStreamState", move || {
            if enabled.load(Ordering::Relaxed) { "Enabled".into() } else { "Disabled".into() }
        });
        stats
    }
}
