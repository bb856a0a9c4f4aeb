//! Filtered replication as the tablet manager runs it: open while the tablet is MASTER and may accept writes.
//!
//! Owns: when the engine runs, its RPCs and its variables. Does not own: the streams ([`vreplication::target`]).

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use servenv::Registry;
use tokio::time::Instant;
use vreplication::target::{Engine, StreamStatus};
use vterrors::Result;
use vtproto::{query::QueryResult, topodata::TabletType};

use super::{manager::TabletManager, markers::Marker};

/// Rates shown: as many, of as long.
const RATE_SAMPLES: usize = 15;
const RATE_INTERVAL: Duration = Duration::from_secs(60);

impl TabletManager {
    /// Opens or closes the engine as the tablet's type says.
    pub(super) async fn reconcile_vreplication(&self) {
        let master = {
            let state = self.state();
            state.tablet.r#type() == TabletType::Master && !state.stopping
        };
        if master && !self.markers.has(Marker::DemotedMaster) {
            self.vreplication.open().await;
        } else {
            self.vreplication.close().await;
        }
    }

    pub(super) async fn vreplication_exec(&self, query: &str) -> Result<QueryResult> {
        self.vreplication.exec(query).await
    }

    pub(super) async fn vreplication_wait_for_pos(&self, id: i64, position: &str, deadline: Instant) -> Result<()> {
        self.vreplication.wait_for_pos(id, position, deadline).await
    }

    /// The streams, for the status page.
    pub fn vreplication_html(&self) -> String {
        self.vreplication.status_html()
    }
}

/// Publishes the variables of the streams. The registry outlives the engine.
pub(super) fn publish(engine: &Arc<Engine>, registry: &Registry) {
    let weak = Arc::downgrade(engine);
    let summary = |read: fn((usize, i64)) -> i64| {
        let weak = weak.clone();
        move || weak.upgrade().map_or(0, |engine| read(engine.summary()))
    };
    registry.gauge_func(
        "VReplicationStreamCount",
        "Number of filtered replication streams",
        summary(|(count, _)| i64::try_from(count).unwrap_or(i64::MAX)),
    );
    registry.gauge_func(
        "VReplicationSecondsBehindMasterMax",
        "Lag of the stream that is furthest behind",
        summary(|(_, lag)| lag),
    );
    registry.multi_gauge_func(
        "VReplicationSecondsBehindMaster",
        "Lag of each stream",
        &["counts"],
        each(&weak, |stream| stream.seconds_behind),
    );
    registry.counter_func("VReplicationTotalSecondsBehindMaster", "Lag of all streams together", {
        let weak = weak.clone();
        move || statuses(&weak).iter().map(|stream| stream.seconds_behind).sum()
    });
    text(&weak, registry, "VReplicationSource", |stream| stream.source);
    text(&weak, registry, "VReplicationSourceTablet", |stream| stream.source_tablet);
    let counts = weak.clone();
    registry.rates("VReplicationQPS", RATE_SAMPLES, RATE_INTERVAL, move || {
        statuses(&counts).into_iter().map(|stream| (stream.id.to_string(), stream.queries)).collect()
    });
}

fn statuses(engine: &Weak<Engine>) -> Vec<StreamStatus> {
    engine.upgrade().map(|engine| engine.status()).unwrap_or_default()
}

fn each(
    engine: &Weak<Engine>,
    read: fn(&StreamStatus) -> i64,
) -> impl Fn() -> Vec<(Vec<String>, i64)> + Send + Sync + 'static {
    let engine = engine.clone();
    move || statuses(&engine).iter().map(|stream| (vec![stream.id.to_string()], read(stream))).collect()
}

/// A text for each stream, by its id.
fn text(engine: &Weak<Engine>, registry: &Registry, name: &str, read: fn(StreamStatus) -> String) {
    let engine = engine.clone();
    registry.json_func(name, move || {
        let texts: BTreeMap<String, String> =
            statuses(&engine).into_iter().map(|stream| (stream.id.to_string(), read(stream))).collect();
        serde_json::Value::from_iter(texts)
    });
}
