//! Which tablet gets a query, what happens when it fails, and what a failover looks like.

mod support;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use support::{FakeTablet, tablet, target, until};
use tabletclient::{
    CallKind, Gateway, GatewayOptions, HealthCheck, HealthCheckOptions, QueryService, Region, RowSink,
    buffer::{Buffer, BufferOptions},
    gateway::NoObserver,
};
use vterrors::{Code, VtError};
use vtproto::{
    query::{BeginExecuteRequest, ExecuteRequest, QueryResult},
    topodata::{CellsAlias, TabletType},
};

use TabletType::{Master, Rdonly, Replica};

/// Tablets by uid, with a health check and a gateway in cell `zone1` in front.
struct Cluster {
    tablets: HashMap<u32, Arc<FakeTablet>>,
    health: HealthCheck,
    gateway: Gateway,
}

fn cluster_in(region: Region, of: &[(&str, u32, TabletType)], buffer: BufferOptions) -> Cluster {
    let tablets: HashMap<u32, Arc<FakeTablet>> =
        of.iter().map(|(_, uid, _)| (*uid, FakeTablet::new(&uid.to_string()))).collect();
    let services = tablets.clone();
    let options = HealthCheckOptions { timeout: Duration::from_secs(5), ..Default::default() };
    let health = HealthCheck::new(options, move |tablet| {
        let uid = tablet.alias.as_ref().map_or(0, |alias| alias.uid);
        let service = services.get(&uid).cloned();
        let service: Arc<dyn QueryService> = service.ok_or_else(|| VtError::new(Code::Internal, "unknown uid"))?;
        Ok(service)
    });
    let options = GatewayOptions { region, retry_count: 2, allowed_types: Vec::new(), max_calls_per_tablet: 3 };
    let gateway = Gateway::start(options, health.clone(), Buffer::new(buffer), Arc::new(NoObserver));
    for (cell, uid, tablet_type) in of {
        health.add_tablet(tablet(cell, *uid, *tablet_type));
    }
    Cluster { tablets, health, gateway }
}

fn cluster_with(of: &[(&str, u32, TabletType)], buffer: BufferOptions) -> Cluster {
    cluster_in(Region::of("zone1"), of, buffer)
}

fn cluster(of: &[(&str, u32, TabletType)]) -> Cluster {
    cluster_with(of, BufferOptions::default())
}

impl Cluster {
    async fn execute(&self, tablet_type: TabletType, kind: CallKind) -> Result<String, VtError> {
        let result = self.gateway.execute(&target(tablet_type), kind, ExecuteRequest::default).await?;
        Ok(name(&result))
    }

    async fn ready(&self, tablet_type: TabletType, count: usize) {
        until(&format!("{count} healthy {tablet_type:?}"), || self.healthy(tablet_type) == count).await;
    }

    fn healthy(&self, tablet_type: TabletType) -> usize {
        self.health.snapshot().group("ks", "0", tablet_type).map_or(0, |group| group.healthy.len())
    }
}

fn name(result: &QueryResult) -> String {
    String::from_utf8_lossy(&result.rows[0].values).into_owned()
}

#[tokio::test]
async fn the_master_with_the_latest_term_is_the_only_one() {
    let c = cluster(&[("zone1", 100, Master), ("zone1", 101, Replica)]);
    c.tablets[&100].says(Master, true, 10, 0);
    c.tablets[&101].says(Master, true, 20, 0);
    c.ready(Master, 1).await;
    until("101 is master", || c.health.connections().get("ks.0.master") == Some(&2)).await;
    assert_eq!(c.execute(Master, CallKind::Write).await.as_deref(), Ok("101"));
    // The newer one does not serve any more: the old one must not come back by that.
    c.tablets[&101].says(Master, false, 20, 0);
    c.ready(Master, 0).await;
    let error = c.execute(Master, CallKind::Write).await.expect_err("no master");
    assert_eq!(error.to_string(), "target: ks.0.master: no valid tablet");
    assert_eq!(error.code(), Code::Unavailable);
}

#[tokio::test]
async fn replicas_of_the_own_cell_come_first_and_none_outside_of_its_alias() {
    let topo = topo::memory::MemoryStore::new().server(&["zone1", "zone2", "zone3"]);
    let near = CellsAlias { cells: vec!["zone1".into(), "zone2".into()] };
    topo.create_cells_alias("near", &near).await.expect("an alias");
    let region = Region::follow(topo.clone(), "zone1", Duration::from_millis(20)).await;
    let of = [("zone1", 101, Replica), ("zone1", 102, Replica), ("zone2", 201, Replica), ("zone3", 301, Replica)];
    let c = cluster_in(region.clone(), &of, BufferOptions::default());
    for tablet in c.tablets.values() {
        tablet.says(Replica, true, 0, 0);
    }
    c.ready(Replica, 4).await;
    for _ in 0..200 {
        c.execute(Replica, CallKind::Read).await.expect("answer");
    }
    assert_eq!(c.tablets[&201].calls(), 0);
    assert!(c.tablets[&101].calls() > 20 && c.tablets[&102].calls() > 20);
    c.tablets[&101].says(Replica, false, 0, 0);
    c.tablets[&102].says(Replica, false, 0, 0);
    c.ready(Replica, 2).await;
    assert_eq!(c.execute(Replica, CallKind::Read).await.as_deref(), Ok("201"), "a cell of the same alias");
    // As in Vitess: reads do not leave the cells of an alias by themselves.
    topo.delete_cells_alias("near").await.expect("deleted");
    until("the alias is gone", || !region.contains("zone2")).await;
    let error = c.execute(Replica, CallKind::Read).await.expect_err("none is near");
    assert_eq!(error.to_string(), "target: ks.0.replica: no valid tablet");
    // A master is asked wherever it is.
    c.tablets[&301].says(Master, true, 5, 0);
    c.ready(Master, 1).await;
    assert_eq!(c.execute(Master, CallKind::Read).await.as_deref(), Ok("301"));
}

#[tokio::test]
async fn a_read_is_tried_on_another_tablet_and_a_write_only_if_refused() {
    let c = cluster(&[("zone1", 101, Replica), ("zone1", 102, Replica)]);
    c.tablets[&101].says(Replica, true, 0, 0);
    c.tablets[&102].says(Replica, true, 0, 0);
    c.ready(Replica, 2).await;
    for tablet in c.tablets.values() {
        for _ in 0..10 {
            tablet.fail_next(Code::Unavailable, "vttablet: rpc error: code = Unavailable desc = transport is closing");
        }
    }
    let error = c.execute(Replica, CallKind::Write).await.expect_err("perhaps it was executed");
    assert!(error.to_string().starts_with("target: ks.0.replica, used tablet: zone1-10"), "{error}");
    assert!(error.to_string().contains(" (host10"), "{error}");
    assert_eq!(c.tablets[&101].calls() + c.tablets[&102].calls(), 1);
    // A read asks each of them once, then gives up with the tablet's own error.
    let error = c.execute(Replica, CallKind::Read).await.expect_err("both fail");
    assert!(error.to_string().ends_with("transport is closing"), "{error}");
    assert_eq!(c.tablets[&101].calls() + c.tablets[&102].calls(), 3);
    let error = c.execute(Replica, CallKind::InTransaction).await.expect_err("no retry");
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(c.tablets[&101].calls() + c.tablets[&102].calls(), 4);
    // Errors of the statement itself are the answer.
    for tablet in c.tablets.values() {
        tablet.errors.lock().expect("lock").clear();
        tablet.fail_next(Code::InvalidArgument, "syntax");
    }
    assert_eq!(c.execute(Replica, CallKind::Read).await.expect_err("bad").code(), Code::InvalidArgument);
    assert_eq!(c.tablets[&101].calls() + c.tablets[&102].calls(), 5);
}

/// Takes everything.
#[derive(Default)]
struct Pieces(AtomicUsize);

#[async_trait::async_trait]
impl RowSink for Pieces {
    async fn piece(&self, _: QueryResult) -> Result<(), VtError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }
}

#[tokio::test]
async fn a_read_is_not_tried_again_once_there_are_rows_of_it() {
    let c = cluster(&[("zone1", 101, Replica), ("zone1", 102, Replica)]);
    for tablet in c.tablets.values() {
        tablet.says(Replica, true, 0, 0);
        tablet.fail_next(Code::Unavailable, "vttablet: rpc error: code = Unavailable desc = transport is closing");
    }
    c.ready(Replica, 2).await;
    let calls = || c.tablets[&101].calls() + c.tablets[&102].calls();
    let ask = async |pieces: &Pieces| {
        c.gateway.execute_rows(&target(Replica), CallKind::Read, ExecuteRequest::default, Some(pieces)).await
    };
    for tablet in c.tablets.values() {
        tablet.pieces.store(2, Ordering::SeqCst);
    }
    let pieces = Pieces::default();
    let error = ask(&pieces).await.expect_err("it breaks off");
    assert!(error.message().ends_with("transport is closing"), "{error}");
    assert_eq!((pieces.0.load(Ordering::SeqCst), calls()), (2, 1));
    for tablet in c.tablets.values() {
        tablet.pieces.store(0, Ordering::SeqCst);
        tablet.errors.lock().expect("lock").clear();
        tablet.fail_next(Code::FailedPrecondition, "operation not allowed in state NOT_SERVING");
    }
    c.tablets[&102].errors.lock().expect("lock").clear();
    for _ in 0..20 {
        ask(&Pieces::default()).await.expect("before the first row another is asked");
    }
    assert!(calls() == 22 && c.tablets[&101].errors.lock().expect("lock").is_empty(), "{} calls", calls());
}

#[tokio::test]
async fn an_error_beside_an_open_transaction_names_the_tablet() {
    let c = cluster(&[("zone1", 100, Master)]);
    c.tablets[&100].says(Master, true, 1, 0);
    c.ready(Master, 1).await;
    c.tablets[&100].fail_next(Code::AlreadyExists, "Duplicate entry");
    let outcome = c.gateway.begin_execute(&target(Master), CallKind::Read, BeginExecuteRequest::default, None).await;
    assert_eq!(outcome.transaction_id, 1);
    let error = outcome.result.expect_err("duplicate");
    assert_eq!(error.to_string(), "target: ks.0.master, used tablet: zone1-100 (host100): Duplicate entry");
}

#[tokio::test]
async fn lagging_replicas_are_left_alone_unless_there_is_nothing_else() {
    let c = cluster(&[("zone1", 101, Rdonly), ("zone1", 102, Rdonly), ("zone1", 103, Rdonly)]);
    c.tablets[&101].says(Rdonly, true, 0, 1);
    c.tablets[&102].says(Rdonly, true, 0, 2);
    c.tablets[&103].says(Rdonly, true, 0, 3600);
    c.ready(Rdonly, 2).await;
    for _ in 0..50 {
        assert_ne!(c.execute(Rdonly, CallKind::Read).await.as_deref(), Ok("103"));
    }
    c.tablets[&101].says(Rdonly, false, 0, 1);
    c.tablets[&102].says(Rdonly, false, 0, 2);
    c.ready(Rdonly, 1).await;
    assert_eq!(c.execute(Rdonly, CallKind::Read).await.as_deref(), Ok("103"));
}

#[tokio::test]
async fn a_call_to_a_tablet_that_is_gone_ends() {
    let c = cluster(&[("zone1", 100, Master)]);
    c.tablets[&100].says(Master, true, 1, 0);
    c.ready(Master, 1).await;
    c.tablets[&100].stuck.send_replace(true);
    let (gateway, fake) = (c.gateway.clone(), c.tablets[&100].clone());
    let call = tokio::spawn(async move {
        gateway.execute(&target(Master), CallKind::InTransaction, ExecuteRequest::default).await
    });
    until("the call runs", || fake.calls() == 1).await;
    c.health.remove_tablet("zone1-0000000100");
    let error = call.await.expect("no panic").expect_err("the tablet is gone");
    assert_eq!(error.code(), Code::Unavailable);
    until("the call was dropped", || fake.dropped.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn waiting_for_tablets_names_what_is_missing() {
    let c = cluster(&[("zone1", 100, Master), ("zone1", 101, Replica)]);
    c.tablets[&100].says(Master, true, 1, 0);
    let targets = [target(Master), target(Replica)];
    let error = c.health.wait_for_tablets(&targets, Duration::from_millis(50)).await.expect_err("no replica");
    assert!(error.to_string().ends_with("for: ks.0.replica"), "{error}");
    c.tablets[&101].says(Replica, true, 0, 0);
    c.health.wait_for_tablets(&targets, Duration::from_secs(5)).await.expect("both are there");
}

fn buffering() -> BufferOptions {
    BufferOptions { enabled: true, ..Default::default() }
}

/// What a master says that is being demoted.
const DEMOTED: &str =
    "vttablet: rpc error: code = FailedPrecondition desc = operation not allowed in state NOT_SERVING";

#[tokio::test]
async fn writes_wait_for_the_new_master_and_succeed() {
    let c = cluster_with(&[("zone1", 100, Master), ("zone1", 101, Replica)], buffering());
    c.tablets[&100].says(Master, true, 10, 0);
    c.tablets[&101].says(Replica, true, 0, 0);
    c.ready(Master, 1).await;
    c.tablets[&100].fail_next(Code::FailedPrecondition, DEMOTED);
    let calls: Vec<_> = (0..5)
        .map(|_| {
            let gateway = c.gateway.clone();
            tokio::spawn(
                async move { gateway.execute(&target(Master), CallKind::Write, ExecuteRequest::default).await },
            )
        })
        .collect();
    until("a failover is seen", || c.gateway.buffer().metrics().starts.get("ks.0") == Some(&1)).await;
    c.tablets[&100].says(Master, false, 10, 0);
    let late = {
        let gateway = c.gateway.clone();
        tokio::spawn(async move { gateway.execute(&target(Master), CallKind::Read, ExecuteRequest::default).await })
    };
    until("the late one waits too", || {
        c.gateway.buffer().metrics().requests_buffered.get("ks.0").is_some_and(|n| *n >= 2)
    })
    .await;
    c.tablets[&101].says(Master, true, 20, 0);
    c.tablets[&100].says(Replica, true, 0, 0);
    assert_eq!(name(&late.await.expect("no panic").expect("served by the new master")), "101");
    for call in calls {
        call.await.expect("no panic").expect("no error reaches the client");
    }
    let metrics = c.gateway.buffer().metrics();
    assert_eq!(metrics.stops.get("ks.0.NewMasterSeen"), Some(&1));
    assert_eq!(metrics.requests_buffered, metrics.requests_drained);
    assert!(metrics.last_requests_in_flight_max["ks.0"] >= 2);
    assert_eq!(c.health.counters().master_promoted.get("ks.0"), Some(&1));
}

/// The master has gone before any query met it: there is no error that tells, only nobody to ask.
#[tokio::test]
async fn a_master_that_left_quietly_is_waited_for() {
    let c = cluster_with(&[("zone1", 100, Master), ("zone1", 101, Replica)], buffering());
    c.tablets[&100].says(Master, true, 10, 0);
    c.tablets[&101].says(Replica, true, 0, 0);
    c.ready(Master, 1).await;
    c.tablets[&100].says(Master, false, 10, 0);
    c.ready(Master, 0).await;
    let gateway = c.gateway.clone();
    let waiting =
        tokio::spawn(async move { gateway.execute(&target(Master), CallKind::Write, ExecuteRequest::default).await });
    until("it waits", || c.gateway.buffer().metrics().requests_buffered.get("ks.0") == Some(&1)).await;
    // The same one is back.
    c.tablets[&100].says(Master, true, 10, 0);
    assert_eq!(name(&waiting.await.expect("no panic").expect("served")), "100");
    assert_eq!(c.gateway.buffer().metrics().stops.get("ks.0.MasterServingAgain"), Some(&1));
}

/// Where no master ever was there is nothing to wait for.
#[tokio::test]
async fn a_shard_that_never_had_a_master_answers_at_once() {
    let c = cluster_with(&[("zone1", 101, Replica)], buffering());
    c.tablets[&101].says(Replica, true, 0, 0);
    c.ready(Replica, 1).await;
    let error = c.execute(Master, CallKind::Write).await.expect_err("no master");
    assert!(error.to_string().ends_with("no valid tablet"), "{error}");
    assert_eq!(c.gateway.buffer().metrics().starts.get("ks.0"), None);
}

/// A refusal of the old master that arrives after the new one has shown up is the end of a failover, not a beginning.
#[tokio::test]
async fn a_late_refusal_does_not_hold_up_the_new_master() {
    let c = cluster_with(&[("zone1", 100, Master), ("zone1", 101, Replica)], buffering());
    c.tablets[&100].says(Master, true, 10, 0);
    c.tablets[&101].says(Replica, true, 0, 0);
    c.ready(Master, 1).await;
    c.tablets[&100].stuck.send_replace(true);
    c.tablets[&100].fail_next(Code::FailedPrecondition, DEMOTED);
    let gateway = c.gateway.clone();
    let late =
        tokio::spawn(async move { gateway.execute(&target(Master), CallKind::Write, ExecuteRequest::default).await });
    until("the old master is asked", || c.tablets[&100].calls() == 1).await;
    c.tablets[&101].says(Master, true, 20, 0);
    until("101 is master", || c.health.counters().master_promoted.get("ks.0") == Some(&1)).await;
    c.tablets[&100].stuck.send_replace(false);
    assert_eq!(name(&late.await.expect("no panic").expect("served by the new master")), "101");
    assert_eq!(c.gateway.buffer().metrics().starts.get("ks.0"), None);
}

/// A read whose master died under it is asked again; a write may have happened, so its client is told.
#[tokio::test]
async fn a_read_outlives_its_master() {
    const LOST: &str = "vttablet: rpc error: code = Unavailable desc = transport is closing";
    let c = cluster_with(&[("zone1", 100, Master), ("zone1", 101, Replica)], buffering());
    c.tablets[&100].says(Master, true, 10, 0);
    c.tablets[&101].says(Replica, true, 0, 0);
    c.ready(Master, 1).await;
    c.tablets[&100].fail_next(Code::Unavailable, LOST);
    c.execute(Master, CallKind::Write).await.expect_err("nobody knows what became of it");
    c.tablets[&100].fail_next(Code::Unavailable, LOST);
    let gateway = c.gateway.clone();
    let reading =
        tokio::spawn(async move { gateway.execute(&target(Master), CallKind::Read, ExecuteRequest::default).await });
    until("it waits", || c.gateway.buffer().metrics().requests_buffered.get("ks.0") == Some(&1)).await;
    c.tablets[&101].says(Master, true, 20, 0);
    assert_eq!(name(&reading.await.expect("no panic").expect("served by the new master")), "101");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_the_window() {
    let options = BufferOptions { window: Duration::from_secs(3), ..buffering() };
    let c = cluster_with(&[("zone1", 100, Master)], options);
    c.tablets[&100].says(Master, true, 10, 0);
    c.ready(Master, 1).await;
    for _ in 0..3 {
        c.tablets[&100].fail_next(Code::FailedPrecondition, DEMOTED);
    }
    let begun = tokio::time::Instant::now();
    let error = c.execute(Master, CallKind::Write).await.expect_err("no new master");
    assert!(error.to_string().ends_with("operation not allowed in state NOT_SERVING"), "{error}");
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(4), "{took:?}");
    assert_eq!(c.gateway.buffer().metrics().requests_evicted.get("ks.0.WindowExceeded"), Some(&1));
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_lets_the_oldest_go() {
    let options = BufferOptions { size: 2, ..buffering() };
    let c = cluster_with(&[("zone1", 100, Master), ("zone1", 101, Replica)], options);
    c.tablets[&100].says(Master, true, 10, 0);
    c.ready(Master, 1).await;
    c.tablets[&100].fail_next(Code::FailedPrecondition, DEMOTED);
    let mut calls = Vec::new();
    for number in 1..=3i64 {
        let gateway = c.gateway.clone();
        calls.push(tokio::spawn(async move {
            gateway.execute(&target(Master), CallKind::Write, ExecuteRequest::default).await
        }));
        until("it waits", || c.gateway.buffer().metrics().requests_buffered.get("ks.0") == Some(&number)).await;
    }
    let evicted = calls.remove(0).await.expect("no panic").expect_err("its place was taken");
    assert_eq!(evicted.code(), Code::Unavailable);
    assert!(evicted.to_string().contains("buffer full: request evicted for newer request"), "{evicted}");
    c.tablets[&101].says(Master, true, 20, 0);
    for call in calls {
        call.await.expect("no panic").expect("served by the new master");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failover_right_after_another_is_not_waited_for() {
    let c = cluster_with(&[("zone1", 100, Master)], buffering());
    c.tablets[&100].says(Master, true, 10, 0);
    c.ready(Master, 1).await;
    c.tablets[&100].fail_next(Code::FailedPrecondition, DEMOTED);
    let gateway = c.gateway.clone();
    let waiting =
        tokio::spawn(async move { gateway.execute(&target(Master), CallKind::Write, ExecuteRequest::default).await });
    until("it waits", || c.gateway.buffer().metrics().requests_buffered.get("ks.0") == Some(&1)).await;
    c.tablets[&100].says(Master, true, 11, 0);
    waiting.await.expect("no panic").expect("served after the failover");
    c.tablets[&100].fail_next(Code::FailedPrecondition, DEMOTED);
    c.tablets[&100].fail_next(Code::FailedPrecondition, DEMOTED);
    c.execute(Master, CallKind::Write).await.expect_err("not buffered again");
    assert_eq!(c.gateway.buffer().metrics().requests_skipped.get("ks.0.LastFailoverTooRecent"), Some(&1));
}

#[tokio::test]
async fn other_shards_and_types_are_not_held_up() {
    let c = cluster_with(&[("zone1", 100, Master), ("zone1", 101, Replica)], buffering());
    c.tablets[&100].says(Master, true, 10, 0);
    c.tablets[&101].says(Replica, true, 0, 0);
    c.ready(Master, 1).await;
    c.ready(Replica, 1).await;
    c.tablets[&100].fail_next(Code::FailedPrecondition, DEMOTED);
    let gateway = c.gateway.clone();
    let waiting =
        tokio::spawn(async move { gateway.execute(&target(Master), CallKind::Write, ExecuteRequest::default).await });
    until("it waits", || c.gateway.buffer().metrics().requests_buffered.get("ks.0") == Some(&1)).await;
    assert_eq!(c.execute(Replica, CallKind::Read).await.as_deref(), Ok("101"));
    waiting.abort();
    until("its place is free", || c.gateway.buffer().metrics().requests_evicted.get("ks.0.ContextDone") == Some(&1))
        .await;
}

#[tokio::test]
async fn a_tablet_that_does_not_answer_takes_so_many_calls_and_no_more() {
    let c = Arc::new(cluster(&[("zone1", 100, Master), ("zone1", 101, Replica)]));
    c.tablets[&100].says(Master, true, 10, 0);
    c.tablets[&101].says(Replica, true, 0, 0);
    c.ready(Master, 1).await;
    c.ready(Replica, 1).await;
    c.tablets[&100].stuck.send_replace(true);
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let c = c.clone();
            tokio::spawn(async move { c.execute(Master, CallKind::Write).await })
        })
        .collect();
    until("three calls wait", || c.tablets[&100].calls() == 3).await;
    let refused = c.execute(Master, CallKind::Read).await.expect_err("one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("zone1-100"), "{refused}");
    // Others are not held up.
    assert_eq!(c.execute(Replica, CallKind::Read).await.as_deref(), Ok("101"));
    c.tablets[&100].stuck.send_replace(false);
    for call in waiting {
        assert_eq!(call.await.expect("no panic").as_deref(), Ok("100"));
    }
    assert_eq!(c.execute(Master, CallKind::Read).await.as_deref(), Ok("100"), "there is room again");
}
