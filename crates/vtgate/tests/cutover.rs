//! A cutover as clients of vtgate see it: their statements wait, and run where their tables are then.

mod support;

use std::time::Duration;

use mysql::client::Connection;
use support::{World, fails, run, until, world, world_with};
use vterrors::{Code, VtError};
use vtproto::{
    topodata::{ShardReference, SrvKeyspace, TabletType, srv_keyspace},
    vschema,
};

fn refusal() -> VtError {
    VtError::new(Code::FailedPrecondition, "cutover in progress (one)")
}

/// Keyspace `customer`, which is served from `commerce` or by itself.
fn customer(moved: bool) -> SrvKeyspace {
    let shard = ShardReference { name: "0".into(), key_range: None };
    SrvKeyspace {
        partitions: vec![srv_keyspace::KeyspacePartition {
            served_type: TabletType::Master.into(),
            shard_references: vec![shard],
            ..Default::default()
        }],
        served_from: if moved {
            vec![]
        } else {
            vec![srv_keyspace::ServedFrom { tablet_type: TabletType::Master.into(), keyspace: "commerce".into() }]
        },
        ..Default::default()
    }
}

async fn split_world() -> World {
    let w = world().await;
    let mut vschema = w.topo.get_srv_vschema("zone1").await.unwrap_or_default();
    vschema.keyspaces.insert("customer".into(), vschema::Keyspace::default());
    w.topo.update_srv_vschema("zone1", &vschema).await.expect("written");
    w.topo.update_srv_keyspace("zone1", "customer", &customer(false)).await.expect("written");
    w.master.answer("corder", Err(refusal()));
    until("the vschema is read", || {
        w.gate.executor.parts().vschema.current().vschema.keyspaces.contains_key("customer")
    })
    .await;
    w
}

/// The tablet that was a replica serves `customer` from now on, then the records say so.
async fn flip(w: &World) {
    w.replica.set_health(|health| {
        let target = health.target.as_mut().expect("target");
        (target.keyspace, target.tablet_type) = ("customer".into(), TabletType::Master.into());
        health.tablet_externally_reparented_timestamp = 5;
    });
    w.topo.update_srv_keyspace("zone1", "customer", &customer(true)).await.expect("written");
}

async fn waits(w: &World, count: i64) {
    until("so many wait", || w.stat("CutoverBufferWaiting") == count).await;
}

fn spawn(mut connection: Connection, sql: &'static str) -> tokio::task::JoinHandle<Connection> {
    tokio::spawn(async move {
        run(&mut connection, sql).await;
        connection
    })
}

#[tokio::test]
async fn statements_wait_and_run_at_the_new_place() {
    let w = split_world().await;
    let (mut in_transaction, mut olap) = (w.connect_to("customer").await, w.connect_to("customer").await);
    let (mut prepared, mut by_shard) = (w.connect_to("customer").await, w.connect_to("customer/0").await);
    run(&mut in_transaction, "begin").await;
    run(&mut olap, "set workload = olap").await;
    run(&mut prepared, "prepare p from 'select a from corder where b = 4'").await;
    run(&mut by_shard, "select 1 from product").await;
    w.master.take_calls();
    let running = [
        spawn(w.connect_to("customer").await, "update corder set a = 1"),
        spawn(w.connect_to("customer").await, "select a from corder where b = 2"),
        spawn(in_transaction, "update corder set a = 2"),
        spawn(olap, "select a from corder where b = 3"),
        spawn(prepared, "execute p"),
        spawn(by_shard, "update corder set a = 5"),
    ];
    waits(&w, 6).await;
    assert!(w.replica.take_lines().is_empty());
    flip(&w).await;
    let mut connections = Vec::new();
    for statement in running {
        connections.push(statement.await.expect("no error"));
    }
    let mut lines = w.replica.take_lines();
    lines.sort();
    assert_eq!(
        lines,
        [
            "Autocommit: update corder set a = 1",
            "Autocommit: update corder set a = 5 /* vtgate:: filtered_replication_unfriendly */",
            "BeginExecute: update corder set a = 2",
            "Execute: select a from corder where b = 2",
            "Execute: select a from corder where b = 4",
            "Stream: select a from corder where b = 3",
        ]
    );
    assert_eq!(w.stat("CutoverBufferWaiting"), 0);
    assert_eq!(w.stat("CutoverBuffered"), 6);
    // The transaction goes on where its first statement ran.
    run(&mut connections[2], "commit").await;
    assert!(w.replica.take_calls().iter().any(|call| call.method == "Commit"));
}

#[tokio::test]
async fn a_gate_that_is_released_lets_statements_go_on_in_place() {
    let w = split_world().await;
    let writing = spawn(w.connect_to("customer").await, "update corder set a = 1");
    waits(&w, 1).await;
    w.master.forget_answers();
    // A tablet whose gate has ended repeats its health.
    w.master.set_health(|_| {});
    writing.await.expect("no error");
    assert!(w.replica.take_lines().is_empty());
}

#[tokio::test]
async fn who_leaves_makes_room_and_a_full_buffer_says_so() {
    let w = world_with(&["-cutover_buffer_size=1", "-cutover_buffer_window=300ms"]).await;
    w.master.answer("corder", Err(refusal()));
    let leaving = spawn(w.connect().await, "update corder set a = 1");
    waits(&w, 1).await;
    let error = fails(&mut w.connect().await, "update corder set a = 2").await;
    assert!(error.message.contains("-cutover_buffer_size=1"), "{}", error.message);
    leaving.abort();
    waits(&w, 0).await;
    let error = fails(&mut w.connect().await, "update corder set a = 3").await;
    assert!(error.message.contains("waited 300ms for a cutover"), "{}", error.message);
    assert!(error.message.contains("cutover in progress (one)"), "{}", error.message);
    assert_eq!(w.stat("CutoverBufferFailed")["BufferFull"], 1);
}

#[tokio::test]
async fn the_topology_is_told_what_is_acted_on() {
    let w = split_world().await;
    run(&mut w.connect_to("customer").await, "select 1 from product").await;
    for moved in [true, false] {
        w.topo.update_srv_keyspace("zone1", "customer", &customer(moved)).await.expect("written");
        let version = w.topo.get_srv_keyspace_version("zone1", "customer").await.expect("there").1;
        let limit = Duration::from_secs(20);
        let silent = w.topo.wait_for_gate_acks("zone1", "customer", version, limit).await.expect("read");
        assert!(silent.is_empty(), "{silent:?}");
        let known = w.gate.executor.parts().resolver.cache().known_srv_keyspace("zone1", "customer");
        assert_eq!(*known.expect("known"), customer(moved));
    }
    let acks = w.topo.get_gate_acks("zone1").await.expect("read");
    assert_eq!(acks.len(), 1);
    assert!(acks[0].gate.contains(":15001-"), "{}", acks[0].gate);
    assert!(acks[0].srv_vschema > 0);
}
