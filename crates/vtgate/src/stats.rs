//! The numbers of vtgate, under the names that dashboards and tests of Vitess read.
//!
//! Owns: registration and the handles that hot paths count on. The health check, the buffer and the
//! plan cache keep their own numbers, which are read when somebody asks.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use servenv::{
    Registry,
    stats::{Counter, Histogram, MultiCounter, MultiTimings},
};
use tabletclient::{
    CallObserver, Gateway, HealthCheck, TabletHealth, TopologyWatcher, buffer::BufferMetrics, health_check::type_text,
};
use vterrors::Code;
use vtproto::query::Target;

use crate::{plan_cache::PlanCache, vschema_watch::VSchemaWatch};

/// What is counted as statements run. Clones share the numbers.
#[derive(Clone)]
pub struct Stats {
    pub api: MultiTimings,
    pub api_errors: MultiCounter,
    pub rows_returned: MultiCounter,
    pub processed: MultiCounter,
    pub routed: MultiCounter,
    pub processed_by_table: MultiCounter,
    pub routed_by_table: MultiCounter,
    pub warnings: MultiCounter,
    pub unfriendly: Counter,
    pub partial_scatter: Counter,
    /// From the end of a statement until the next one of its connection: the way to the client and back, and its work.
    pub client_phase: Arc<Histogram>,
    /// From the arrival of a statement until its plan is there.
    pub plan_phase: Arc<Histogram>,
    /// One call of a tablet: the way there and back, and what the tablet does.
    tablet_phase: Arc<Histogram>,
    /// The part of it that is the way there and back, of calls over the framed transport that were answered.
    pub hop_phase: Arc<Histogram>,
    /// Handing the result to the client's socket, and waiting for it when it is full.
    pub return_phase: Arc<Histogram>,
    tablet_calls: MultiTimings,
    tablet_call_errors: MultiCounter,
}

impl Stats {
    pub fn new(registry: &Registry) -> Self {
        let api_labels = ["Operation", "Keyspace", "DbType"];
        let api = registry.multi_timings("VtgateApi", "VtgateApi timings", &api_labels);
        let api_errors = registry.multi_counter(
            "VtgateApiErrorCounts",
            "Vtgate API error counts per error type",
            &["Operation", "Keyspace", "DbType", "Code"],
        );
        let phases = registry.phases("Where the time of a statement goes in vtgate: client, plan, tablet, hop, return");
        let stats = Self {
            client_phase: phases.handle(&["client"]),
            plan_phase: phases.handle(&["plan"]),
            tablet_phase: phases.handle(&["tablet"]),
            hop_phase: phases.handle(&["hop"]),
            return_phase: phases.handle(&["return"]),
            rows_returned: registry.multi_counter(
                "VtgateApiRowsReturned",
                "Rows returned through the VTgate API",
                &api_labels,
            ),
            processed: registry.multi_counter(
                "QueriesProcessed",
                "Queries processed at vtgate by plan type",
                &["Plan"],
            ),
            routed: registry.multi_counter(
                "QueriesRouted",
                "Queries routed from vtgate to vttablet by plan type",
                &["Plan"],
            ),
            processed_by_table: registry.multi_counter(
                "QueriesProcessedByTable",
                "Queries processed at vtgate by plan type and table",
                &["Plan", "Keyspace", "Table"],
            ),
            routed_by_table: registry.multi_counter(
                "QueriesRoutedByTable",
                "Queries routed from vtgate to vttablet by plan type and table",
                &["Plan", "Keyspace", "Table"],
            ),
            warnings: registry
                .multi_counter("VtGateWarnings", "Vtgate warnings", &["type"])
                .with_zeros(&["IgnoredSet", "ResultsExceeded"]),
            unfriendly: registry.counter(
                "FilteredReplicationUnfriendlyStatementsCount",
                "Count of filtered replication unfriendly statements",
            ),
            partial_scatter: registry
                .counter("PartialSuccessScatterQueries", "Count of partially successful scatter queries"),
            tablet_calls: registry.multi_timings(
                "VttabletCall",
                "Scatter connection timings",
                &["Operation", "Keyspace", "ShardName", "DbType"],
            ),
            tablet_call_errors: registry.multi_counter(
                "VttabletCallErrorCount",
                "Error count from tablet calls in scatter conns",
                &["Operation", "Keyspace", "ShardName", "DbType"],
            ),
            api: api.clone(),
            api_errors: api_errors.clone(),
        };
        // 15 minutes in samples of 5 seconds, as in Vitess.
        let rate = |name: &str, counts: Box<dyn Fn() -> BTreeMap<String, i64> + Send + Sync>| {
            registry.rates(name, 180, Duration::from_secs(5), counts);
        };
        for (name, label) in [("QPSByOperation", "Operation"), ("QPSByKeyspace", "Keyspace"), ("QPSByDbType", "DbType")]
        {
            let api = api.clone();
            rate(name, Box::new(move || api.counts_by(label)));
        }
        for (name, position) in
            [("ErrorsByOperation", 0), ("ErrorsByKeyspace", 1), ("ErrorsByDbType", 2), ("ErrorsByCode", 3)]
        {
            let errors = api_errors.clone();
            rate(name, Box::new(move || sum_by(&errors.counts(), position)));
        }
        stats
    }
}

/// Counts of labels joined by dots, added up by one of the labels.
fn sum_by(counts: &BTreeMap<String, i64>, position: usize) -> BTreeMap<String, i64> {
    let mut sums = BTreeMap::new();
    for (key, count) in counts {
        if let Some(label) = key.split('.').nth(position) {
            *sums.entry(label.to_string()).or_default() += count;
        }
    }
    sums
}

impl CallObserver for Stats {
    fn call_ended(&self, operation: &'static str, target: &Target, elapsed: Duration, error: Option<Code>) {
        let labels = [operation, &target.keyspace, &target.shard, type_text(target.tablet_type())];
        self.tablet_calls.record(&labels, elapsed);
        self.tablet_phase.record(elapsed);
        // What the client did wrong is no error of a tablet.
        if error.is_some_and(|code| !matches!(code, Code::AlreadyExists | Code::InvalidArgument)) {
            self.tablet_call_errors.inc(&labels);
        }
    }
}

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Splits keys such as `ks.0.master` into label values; a keyspace or shard name has no dot.
fn split_keys<N: Copy>(map: &BTreeMap<String, N>, to: impl Fn(N) -> i64) -> Vec<(Vec<String>, i64)> {
    map.iter().map(|(key, number)| (key.split('.').map(str::to_string).collect(), to(*number))).collect()
}

/// Adds rows of 0 for label values that are known and not counted yet, so that a rate has a start.
fn with_zeros(
    mut rows: Vec<(Vec<String>, i64)>,
    known: impl IntoIterator<Item = Vec<String>>,
) -> Vec<(Vec<String>, i64)> {
    for labels in known {
        if !rows.iter().any(|(counted, _)| *counted == labels) {
            rows.push((labels, 0));
        }
    }
    rows
}

/// The targets of all watched tablets.
fn known_targets(health: &HealthCheck) -> Vec<Vec<String>> {
    let target = |tablet: &Arc<TabletHealth>| {
        let target = &tablet.target;
        vec![target.keyspace.clone(), target.shard.clone(), type_text(target.tablet_type()).to_string()]
    };
    let mut targets: Vec<_> = health.tablets().iter().map(target).collect();
    targets.sort();
    targets.dedup();
    targets
}

/// The shards that have, or had, a master.
fn known_shards(health: &HealthCheck) -> Vec<Vec<String>> {
    let masters = known_targets(health).into_iter().filter(|target| target[2] == "master");
    masters.map(|target| target[..2].to_vec()).collect()
}

/// Registers what the gateway and its parts count themselves.
pub fn register_gateway(registry: &Registry, gateway: &Gateway) {
    let health = gateway.health().clone();
    let labels = ["Keyspace", "ShardName", "TabletType"];
    let source = health.clone();
    let help = "the number of healthy tablet connections";
    registry
        .multi_gauge_func("HealthcheckConnections", help, &labels, move || split_keys(&source.connections(), count));
    let source = health.clone();
    registry.multi_counter_func("HealthcheckErrors", "Healthcheck errors", &labels, move || {
        with_zeros(split_keys(&source.counters().errors, count), known_targets(&source))
    });
    let source = health.clone();
    registry.multi_counter_func(
        "HealthcheckMasterPromoted",
        "Master promoted in keyspace/shard name because of health check errors",
        &["Keyspace", "ShardName"],
        move || with_zeros(split_keys(&source.counters().master_promoted, count), known_shards(&source)),
    );
    let source = health;
    registry.gauge_func("HealthcheckChecksum", "crc32 checksum of the current healthcheck state", move || {
        let sum = source.tablets().iter().fold(0u32, |sum, health| {
            let line = format!("{}{}{}", health.alias(), health.tablet.hostname, health.target.tablet_type);
            sum.wrapping_add(line.bytes().fold(0x811c_9dc5, |h: u32, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193)))
        });
        i64::from(sum)
    });
    // Nothing is ever dropped here: the gateway counts in place. Shown because dashboards ask for it.
    registry.counter("GatewayStatsChanFullCount", "Count of tablet stats updates that were dropped");
    register_buffer(registry, gateway);
}

type Pick = fn(&BufferMetrics) -> &BTreeMap<String, i64>;

/// A `Buffer*` variable: its name and help, the reasons it is counted by, where it stands.
struct BufferVariable {
    name: &'static str,
    help: &'static str,
    reasons: &'static [&'static str],
    pick: Pick,
}

const BUFFER_COUNTERS: [BufferVariable; 9] = [
    BufferVariable {
        name: "BufferStarts",
        help: "How many times buffering started",
        reasons: &[],
        pick: |m| &m.starts,
    },
    BufferVariable {
        name: "BufferStops",
        help: "How many times buffering stopped",
        reasons: &["NewMasterSeen", "MaxDurationExceeded", "MasterServingAgain"],
        pick: |m| &m.stops,
    },
    BufferVariable {
        name: "BufferFailoverDurationSumMs",
        help: "Sum of all failover durations, in milliseconds",
        reasons: &[],
        pick: |m| &m.failover_duration_sum_ms,
    },
    BufferVariable {
        name: "BufferRequestsBuffered",
        help: "How many requests were buffered",
        reasons: &[],
        pick: |m| &m.requests_buffered,
    },
    BufferVariable {
        name: "BufferRequestsBufferedDryRun",
        help: "How many requests would have been buffered",
        reasons: &[],
        pick: |m| &m.requests_buffered_dry_run,
    },
    BufferVariable {
        name: "BufferRequestsDrained",
        help: "How many requests were sent after a failover",
        reasons: &[],
        pick: |m| &m.requests_drained,
    },
    BufferVariable {
        name: "BufferRequestsEvicted",
        help: "How many requests left the buffer early",
        reasons: &["BufferFull", "ContextDone", "WindowExceeded"],
        pick: |m| &m.requests_evicted,
    },
    BufferVariable {
        name: "BufferRequestsSkipped",
        help: "How many requests were not buffered",
        reasons: &["BufferFull", "Disabled", "LastFailoverTooRecent"],
        pick: |m| &m.requests_skipped,
    },
    BufferVariable {
        name: "BufferUtilizationDryRunSum",
        help: "Sum of the buffer's utilization, in percent",
        reasons: &[],
        pick: |m| &m.utilization_dry_run_sum,
    },
];

fn register_buffer(registry: &Registry, gateway: &Gateway) {
    let buffer = gateway.buffer().clone();
    for variable in BUFFER_COUNTERS {
        let BufferVariable { name, help, reasons, pick } = variable;
        let labels: &[&str] =
            if reasons.is_empty() { &["Keyspace", "ShardName"] } else { &["Keyspace", "ShardName", "Reason"] };
        let (buffer, health) = (buffer.clone(), gateway.health().clone());
        registry.multi_counter_func(name, help, labels, move || {
            let known = known_shards(&health).into_iter().flat_map(|shard| {
                let with = |reason: &&str| [shard.clone(), vec![(*reason).to_string()]].concat();
                if reasons.is_empty() { vec![shard.clone()] } else { reasons.iter().map(with).collect() }
            });
            with_zeros(split_keys(pick(&buffer.metrics()), |n| n), known)
        });
    }
    let shard = &["Keyspace", "ShardName"];
    let (source, health) = (buffer.clone(), gateway.health().clone());
    let help = "Sum of the buffer's utilization, in percent";
    registry.multi_gauge_func("BufferUtilizationSum", help, shard, move || {
        with_zeros(split_keys(&source.metrics().utilization_sum, |n| n), known_shards(&health))
    });
    let gauges: [(&str, &str, Pick); 3] = [
        ("BufferLastFailoverDurationMs", "Duration of the last failover, in milliseconds", |m| {
            &m.last_failover_duration_ms
        }),
        ("BufferLastRequestsInFlightMax", "Most requests buffered at once in the last failover", |m| {
            &m.last_requests_in_flight_max
        }),
        ("BufferLastRequestsDryRunMax", "Most requests that would have been buffered", |m| {
            &m.last_requests_dry_run_max
        }),
    ];
    for (name, help, pick) in gauges {
        let buffer = buffer.clone();
        registry.multi_gauge_func(name, help, shard, move || split_keys(pick(&buffer.metrics()), |n| n));
    }
    let size = i64::try_from(buffer.size()).unwrap_or(i64::MAX);
    registry.gauge_func("BufferSize", "The maximum number of buffered requests", move || size);
}

/// Registers what the topology watchers count.
pub fn register_watchers(registry: &Registry, watchers: &Arc<Vec<TopologyWatcher>>) {
    let sum = |watchers: &[TopologyWatcher],
               pick: fn(&tabletclient::topology_watcher::WatcherCounters) -> &BTreeMap<String, u64>| {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for watcher in watchers {
            for (operation, number) in pick(&watcher.counters()) {
                *sums.entry(operation.clone()).or_default() += number;
            }
        }
        sums.into_iter().map(|(operation, number)| (vec![operation], count(number))).collect::<Vec<_>>()
    };
    let all = watchers.clone();
    registry.multi_counter_func(
        "TopologyWatcherOperations",
        "Topology watcher operations",
        &["Operation"],
        move || sum(&all, |counters| &counters.operations),
    );
    let all = watchers.clone();
    registry.multi_counter_func("TopologyWatcherErrors", "Topology watcher errors", &["Operation"], move || {
        let known = ["ListTablets", "GetTablet"].map(|operation| vec![operation.to_string()]);
        with_zeros(sum(&all, |counters| &counters.errors), known)
    });
    let all = watchers.clone();
    registry.gauge_func("TopologyWatcherChecksum", "crc32 checksum of the topology watcher state", move || {
        all.iter().map(|watcher| i64::from(watcher.counters().checksum)).sum()
    });
    let all = watchers.clone();
    registry.multi_gauge_func(
        "TopologyWatcherMaxRefreshLag",
        "Seconds since the tablets of a cell were last read completely",
        &["cell"],
        move || {
            let lag = |watcher: &TopologyWatcher| {
                let last = watcher.counters().last_refresh.into_iter().next()?;
                let seconds = last.1.elapsed().unwrap_or_default().as_secs();
                Some((vec![last.0], count(seconds)))
            };
            all.iter().filter_map(lag).collect()
        },
    );
}

/// Registers what the plan cache and the vschema watch count.
pub fn register_plans<V: Send + Sync + 'static>(
    registry: &Registry,
    plans: &Arc<PlanCache<V>>,
    vschema: &Arc<VSchemaWatch>,
) {
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let source = plans.clone();
    registry.gauge_func("QueryPlanCacheLength", "Query plan cache length", move || number(source.len()));
    let source = plans.clone();
    registry.gauge_func("QueryPlanCacheSize", "Query plan cache size", move || number(source.bytes()));
    let source = plans.clone();
    registry.gauge_func("QueryPlanCacheCapacity", "Query plan cache capacity", move || number(source.capacity()));
    let source = plans.clone();
    registry.counter_func("QueryPlanCacheEvictions", "Query plan cache evictions", move || source.evictions());
    let source = plans.clone();
    registry.counter_func("QueryPlanCacheHits", "Statements whose plan was cached", move || source.hits());
    let source = plans.clone();
    registry.counter_func("QueryPlanCacheMisses", "Statements that had to be planned", move || source.misses());
    let source = plans.clone();
    registry.string_func("QueryPlanCacheOldest", move || {
        let oldest = source.oldest().map(chrono::DateTime::<chrono::Utc>::from);
        oldest.map_or_else(
            || "0001-01-01 00:00:00 +0000 UTC".into(),
            |t| t.format("%Y-%m-%d %H:%M:%S%.f +0000 UTC").to_string(),
        )
    });
    let source = vschema.clone();
    registry.multi_counter_func("VtgateVSchemaCounts", "Vtgate vschema counts", &["changes"], move || {
        use std::sync::atomic::Ordering::Relaxed;
        let counts = &source.counts;
        // Reload is always there; the others only once they have happened.
        [("Reload", &counts.reload), ("WatchError", &counts.watch_error), ("Parsing", &counts.parsing)]
            .into_iter()
            .map(|(name, counter)| (vec![name.to_string()], counter.load(Relaxed)))
            .filter(|(name, number)| *number > 0 || name[0] == "Reload")
            .collect()
    });
}
