//! Variables of a program: counted on hot paths, read by `/debug/vars` and `/metrics`.
//!
//! Owns: [`Registry`] and the kinds of variables. Names are Vitess's expvar names
//! (`MysqlServerConnCount`); `prometheus.rs` derives `vtgate_mysql_server_conn_count` from them.
//! Invariants: a name is registered once, a later registration replaces the earlier one; counting
//! takes no lock on a handle and one read lock by label; a labelled variable holds at most
//! [`MAX_SERIES`] label sets, further ones are counted under `_other`.

mod counters;
mod labels;
mod process;
mod prometheus;
mod rates;
mod timings;

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::Duration;

pub use counters::{Counter, Gauge, MultiCounter, MultiGauge};
pub use labels::MAX_SERIES;
pub(crate) use process::version_text;
pub use rates::Rates;
pub use timings::{Histogram, MultiTimings, TIMING_BUCKETS};

use prometheus::{Family, Kind};
use serde_json::Value;

/// Something that can be read at any time.
pub(crate) trait Variable: Send + Sync {
    /// The value in `/debug/vars`.
    fn json(&self) -> Value;
    /// The samples in `/metrics`; `None` for what only `/debug/vars` shows.
    fn family(&self) -> Option<Family> {
        None
    }
    /// Called once a second.
    fn tick(&self) {}
}

struct Entry {
    help: String,
    variable: Arc<dyn Variable>,
}

/// All variables of one program. A clone is the same registry.
#[derive(Clone)]
pub struct Registry {
    /// Prefix of Prometheus names.
    namespace: Arc<str>,
    entries: Arc<RwLock<BTreeMap<String, Entry>>>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

impl Registry {
    /// An empty registry; `namespace` is the program's name: `vtgate`, `vttablet`.
    pub fn new(namespace: &str) -> Self {
        Self { namespace: namespace.into(), entries: Arc::default() }
    }

    fn add<V: Variable + 'static>(&self, name: &str, help: &str, variable: Arc<V>) -> Arc<V> {
        let entry = Entry { help: help.into(), variable: variable.clone() };
        self.write().insert(name.into(), entry);
        variable
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<String, Entry>> {
        // A panic while the map was held leaves it whole: every change is one insertion.
        self.entries.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, Entry>> {
        self.entries.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A number that only grows.
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.add(name, help, Arc::new(counters::CounterVariable(counter.clone())));
        counter
    }

    /// A number that goes up and down.
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        let gauge = Gauge::default();
        let reader = gauge.clone();
        self.gauge_func(name, help, move || reader.get());
        gauge
    }

    /// A counter kept elsewhere and read on demand.
    pub fn counter_func(&self, name: &str, help: &str, read: impl Fn() -> i64 + Send + Sync + 'static) {
        self.add(name, help, Arc::new(counters::NumberFunc { kind: Kind::Counter, read, nanos: false }));
    }

    /// A gauge kept elsewhere and read on demand.
    pub fn gauge_func(&self, name: &str, help: &str, read: impl Fn() -> i64 + Send + Sync + 'static) {
        self.add(name, help, Arc::new(counters::NumberFunc { kind: Kind::Gauge, read, nanos: false }));
    }

    /// A duration as a gauge: nanoseconds in `/debug/vars`, seconds in `/metrics`.
    pub fn gauge_duration(&self, name: &str, help: &str, read: impl Fn() -> Duration + Send + Sync + 'static) {
        let read = move || nanos(read());
        self.add(name, help, Arc::new(counters::NumberFunc { kind: Kind::Gauge, read, nanos: true }));
    }

    /// A summed duration: nanoseconds in `/debug/vars`, seconds in `/metrics`.
    pub fn counter_duration(&self, name: &str, help: &str, read: impl Fn() -> Duration + Send + Sync + 'static) {
        let read = move || nanos(read());
        self.add(name, help, Arc::new(counters::NumberFunc { kind: Kind::Counter, read, nanos: true }));
    }

    /// Counters by labels. The key in `/debug/vars` is the label values joined by dots.
    pub fn multi_counter(&self, name: &str, help: &str, labels: &[&str]) -> MultiCounter {
        let counters = MultiCounter::new(labels);
        self.add(
            name,
            help,
            Arc::new(counters::MultiVariable { kind: Kind::Counter, series: counters.series.clone() }),
        );
        counters
    }

    /// Gauges by labels.
    pub fn multi_gauge(&self, name: &str, help: &str, labels: &[&str]) -> MultiGauge {
        let gauges = MultiGauge::new(labels);
        self.add(name, help, Arc::new(counters::MultiVariable { kind: Kind::Gauge, series: gauges.series.clone() }));
        gauges
    }

    /// Counters by labels which are kept elsewhere: label values and number.
    pub fn multi_counter_func(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        read: impl Fn() -> Vec<(Vec<String>, i64)> + Send + Sync + 'static,
    ) {
        self.add(name, help, Arc::new(counters::MultiFunc::new(Kind::Counter, labels, read)));
    }

    /// Gauges by labels which are kept elsewhere: label values and number.
    pub fn multi_gauge_func(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        read: impl Fn() -> Vec<(Vec<String>, i64)> + Send + Sync + 'static,
    ) {
        self.add(name, help, Arc::new(counters::MultiFunc::new(Kind::Gauge, labels, read)));
    }

    /// Durations by one label, as `{TotalCount, TotalTime, Histograms}`.
    pub fn timings(&self, name: &str, help: &str, label: &str) -> MultiTimings {
        self.multi_timings(name, help, &[label])
    }

    /// Durations by several labels.
    pub fn multi_timings(&self, name: &str, help: &str, labels: &[&str]) -> MultiTimings {
        let timings = MultiTimings::new(labels, &timings::TIMING_BUCKETS);
        self.add(name, help, Arc::new(timings.clone()));
        timings
    }

    /// How long the parts of a query take, by the name of the part; finer than [`Registry::timings`].
    pub fn phases(&self, help: &str) -> MultiTimings {
        let phases = MultiTimings::new(&["phase"], &timings::PHASE_BUCKETS);
        self.add("QueryPhases", help, Arc::new(phases.clone()));
        phases
    }

    /// How often values fell below each of `cutoffs` (ascending): `{"1": n, …, "inf": n, "Count", "Total"}`.
    pub fn histogram(&self, name: &str, help: &str, cutoffs: &[i64]) -> Arc<Histogram> {
        self.add(name, help, Arc::new(Histogram::new(cutoffs)))
    }

    /// Rates per second of counts, one value per `interval`, the `samples` latest of them.
    pub fn rates(
        &self,
        name: &str,
        samples: usize,
        interval: Duration,
        counts: impl Fn() -> BTreeMap<String, i64> + Send + Sync + 'static,
    ) -> Arc<Rates> {
        self.add(name, "", Arc::new(Rates::new(samples, interval, Box::new(counts))))
    }

    /// A text, shown in `/debug/vars` only.
    pub fn string(&self, name: &str, value: impl Into<String>) {
        let value = value.into();
        self.string_func(name, move || value.clone());
    }

    /// A text read on demand, shown in `/debug/vars` only.
    pub fn string_func(&self, name: &str, read: impl Fn() -> String + Send + Sync + 'static) {
        self.json_func(name, move || Value::String(read()));
    }

    /// Any JSON, shown in `/debug/vars` only.
    pub fn json_func(&self, name: &str, read: impl Fn() -> Value + Send + Sync + 'static) {
        self.add(name, "", Arc::new(counters::JsonFunc(read)));
    }

    /// Removes a variable, for components that stop while the process goes on.
    pub fn remove(&self, name: &str) {
        self.write().remove(name);
    }

    /// Registers the variables of calls to the topology server and gives what counts one call, for
    /// `topo::TopoOptions::observer`: operation, cell, how long it took, whether it went well.
    pub fn topology_calls(&self) -> impl Fn(&'static str, &str, Duration, bool) + Send + Sync + 'static {
        let labels = ["Operation", "Cell"];
        let operations = self.multi_timings("TopologyConnOperations", "Calls to the topology server", &labels);
        let errors = self.multi_counter("TopologyConnErrors", "Calls to the topology server that failed", &labels);
        move |operation, cell, elapsed, ok| {
            operations.record(&[operation, cell], elapsed);
            if !ok {
                errors.inc(&[operation, cell]);
            }
        }
    }

    /// Every variable a server has: `cmdline`, `memstats`, build facts, `MaxFds`.
    pub fn add_standard(&self) {
        process::register(self);
    }

    fn snapshot(&self) -> Vec<(String, String, Arc<dyn Variable>)> {
        self.read().iter().map(|(name, entry)| (name.clone(), entry.help.clone(), entry.variable.clone())).collect()
    }

    /// Lets rates take their samples; [`crate::Server`] calls it once a second.
    pub fn tick(&self) {
        for (_, _, variable) in self.snapshot() {
            variable.tick();
        }
    }

    /// The value of one variable.
    pub fn get(&self, name: &str) -> Option<Value> {
        let variable = self.read().get(name)?.variable.clone();
        Some(variable.json())
    }

    /// The text of `/debug/vars`: one JSON object, one variable per line, sorted by name.
    pub fn expvar(&self) -> String {
        let mut out = String::from("{\n");
        for (index, (name, _, variable)) in self.snapshot().into_iter().enumerate() {
            if index > 0 {
                out.push_str(",\n");
            }
            out.push_str(&Value::String(name).to_string());
            out.push_str(": ");
            out.push_str(&variable.json().to_string());
        }
        out.push_str("\n}\n");
        out
    }

    /// The text of `/metrics` in Prometheus's exposition format.
    pub fn prometheus(&self) -> String {
        let mut out = String::new();
        for (name, help, variable) in self.snapshot() {
            if let Some(family) = variable.family() {
                prometheus::write(&mut out, &prometheus::metric_name(&self.namespace, &name), &help, &family);
            }
        }
        process::write_metrics(&mut out);
        out
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_show_under_both_names() {
        let stats = Registry::new("vtgate");
        let connections = stats.gauge("MysqlServerConnCount", "Active MySQL server connections");
        connections.add(3);
        connections.add(-1);
        stats.counter("MysqlServerConnAccepted", "Connections accepted").add(7);
        stats.gauge_duration("ConnPoolIdleTimeout", "idle", || Duration::from_secs(1800));
        stats.string("TabletStateName", "SERVING");

        let vars: Value = serde_json::from_str(&stats.expvar()).expect("JSON");
        assert_eq!(vars["MysqlServerConnCount"], 2);
        assert_eq!(vars["MysqlServerConnAccepted"], 7);
        assert_eq!(vars["ConnPoolIdleTimeout"], 1_800_000_000_000_i64);
        assert_eq!(vars["TabletStateName"], "SERVING");

        let metrics = stats.prometheus();
        assert!(
            metrics.contains(
                "# HELP vtgate_mysql_server_conn_count Active MySQL server connections\n\
                 # TYPE vtgate_mysql_server_conn_count gauge\nvtgate_mysql_server_conn_count 2\n"
            ),
            "{metrics}"
        );
        assert!(metrics.contains("# TYPE vtgate_mysql_server_conn_accepted counter\n"), "{metrics}");
        assert!(metrics.contains("vtgate_conn_pool_idle_timeout 1800\n"), "{metrics}");
        assert!(metrics.contains("# TYPE process_resident_memory_bytes gauge\n"), "{metrics}");
        assert!(!metrics.contains("tablet_state_name"), "{metrics}");
    }

    #[test]
    fn labelled_counters_join_their_labels() {
        let stats = Registry::new("vtgate");
        let errors = stats.multi_counter("VtgateApiErrorCounts", "errors", &["Operation", "Keyspace"]);
        assert_eq!(stats.get("VtgateApiErrorCounts"), Some(json!({})));
        errors.add(&["Execute", "my.ks"], 2);
        errors.add(&["Execute", "my.ks"], 1);
        assert_eq!(stats.get("VtgateApiErrorCounts"), Some(json!({"Execute.my_ks": 3})));
        assert!(
            stats.prometheus().contains("vtgate_api_error_counts{operation=\"Execute\",keyspace=\"my.ks\"} 3\n"),
            "{}",
            stats.prometheus()
        );
    }

    #[test]
    fn timings_have_the_shape_of_go() {
        let stats = Registry::new("vtgate");
        let api = stats.multi_timings("VtgateApi", "api", &["Operation", "Keyspace", "DbType"]);
        api.record(&["Execute", "ks", "master"], Duration::from_micros(400));
        api.record(&["Execute", "ks", "master"], Duration::from_millis(2));
        assert_eq!(
            stats.get("VtgateApi"),
            Some(json!({
                "TotalCount": 2, "TotalTime": 2_400_000,
                "Histograms": {"Execute.ks.master": {
                    "500000": 1, "1000000": 1, "5000000": 2, "10000000": 2, "50000000": 2, "100000000": 2,
                    "500000000": 2, "1000000000": 2, "5000000000": 2, "10000000000": 2,
                    "inf": 2, "Count": 2, "Time": 2_400_000
                }}
            }))
        );
        let metrics = stats.prometheus();
        let labels = "operation=\"Execute\",keyspace=\"ks\",db_type=\"master\"";
        assert!(metrics.contains(&format!("vtgate_api_bucket{{{labels},le=\"0.0005\"}} 1\n")), "{metrics}");
        assert!(metrics.contains(&format!("vtgate_api_bucket{{{labels},le=\"+Inf\"}} 2\n")), "{metrics}");
        assert!(metrics.contains(&format!("vtgate_api_sum{{{labels}}} 0.0024\n")), "{metrics}");
        assert!(metrics.contains(&format!("vtgate_api_count{{{labels}}} 2\n")), "{metrics}");
        assert_eq!(api.counts_by("Operation"), BTreeMap::from([("All".into(), 2), ("Execute".into(), 2)]));
    }

    #[test]
    fn a_histogram_counts_cumulatively() {
        let stats = Registry::new("vttablet");
        let results = stats.histogram("Results", "rows", &[0, 1, 5]);
        for rows in [0, 1, 1, 100] {
            results.add(rows);
        }
        assert_eq!(stats.get("Results"), Some(json!({"0": 1, "1": 3, "5": 3, "inf": 4, "Count": 4, "Total": 102})));
    }

    #[test]
    fn label_sets_are_bounded() {
        let stats = Registry::new("vtgate");
        let users = stats.multi_counter("Users", "by user", &["user"]);
        for user in 0..MAX_SERIES + 10 {
            users.add(&[&user.to_string()], 1);
        }
        let shown = stats.get("Users").expect("registered");
        assert_eq!(shown.as_object().map(|map| map.len()), Some(MAX_SERIES + 1));
        assert_eq!(shown["_other"], 10);
    }
}
