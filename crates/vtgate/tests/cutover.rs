//! A cutover as clients of vtgate see it: their statements wait, and run where their tables are then.

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use mysql::client::Connection;
use support::{World, fails, run, two_shards, until, world, world_with};
use vterrors::{Code, VtError};
use vtproto::{
    query::BoundQuery,
    topodata::{ShardReference, SrvKeyspace, TabletType, srv_keyspace},
    vschema, vtgate,
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
async fn a_shard_that_the_records_do_not_list_is_not_waited_for() {
    let w = split_world().await;
    let listed = spawn(w.connect_to("customer").await, "update corder set a = 1");
    waits(&w, 1).await;
    flip(&w).await;
    listed.await.expect("no error");
    let mut unlisted = w.connect_to("customer/1").await;
    let error = fails(&mut unlisted, "select a from corder").await;
    assert!(error.message.ends_with("target: customer.1.master: no valid tablet"), "{error:?}");
    assert!(!error.message.contains("waited"), "{error:?}");
    assert_eq!(w.stat("CutoverBuffered"), 1);
}

/// The v2 calls, which are not planned: their places are looked up again as well.
#[tokio::test]
async fn calls_that_name_their_places_wait_and_run_at_the_new_place() {
    let w = split_world().await;
    let bound = |sql: &str| Some(BoundQuery { sql: sql.into(), ..Default::default() });
    let (keyspace, tablet_type) = ("customer".to_owned(), i32::from(TabletType::Master));
    let shards = vtgate::ExecuteShardsRequest {
        query: bound("update corder set a = 1"),
        keyspace: keyspace.clone(),
        shards: vec!["0".into()],
        tablet_type,
        ..Default::default()
    };
    let ids = vtgate::ExecuteKeyspaceIdsRequest {
        query: bound("delete from corder where a = 2"),
        keyspace: keyspace.clone(),
        keyspace_ids: vec![vec![0x10]],
        tablet_type,
        ..Default::default()
    };
    let entities = vtgate::ExecuteEntityIdsRequest {
        query: bound("select a from corder"),
        keyspace: keyspace.clone(),
        entity_column_name: "b".into(),
        entity_keyspace_ids: vec![vtgate::execute_entity_ids_request::EntityId {
            r#type: vtproto::query::Type::Int64.into(),
            value: b"3".to_vec(),
            keyspace_id: vec![0x10],
        }],
        tablet_type,
        ..Default::default()
    };
    let batch = vtgate::ExecuteBatchShardsRequest {
        queries: vec![vtgate::BoundShardQuery {
            query: bound("update corder set a = 4"),
            keyspace: keyspace.clone(),
            shards: vec!["0".into()],
        }],
        as_transaction: true,
        tablet_type,
        ..Default::default()
    };
    let stream = vtgate::StreamExecuteKeyRangesRequest {
        query: bound("select a from corder where b = 5"),
        keyspace,
        key_ranges: vec![Default::default()],
        tablet_type,
        ..Default::default()
    };
    let client = w.grpc().await;
    let [mut a, mut b, mut c, mut d, mut e] = std::array::from_fn(|_| client.clone());
    let answers = async {
        tokio::join!(
            async { a.execute_shards(shards).await.expect("call").into_inner().error },
            async { b.execute_keyspace_ids(ids).await.expect("call").into_inner().error },
            async { c.execute_entity_ids(entities).await.expect("call").into_inner().error },
            async { d.execute_batch_shards(batch).await.expect("call").into_inner().error },
            async {
                e.stream_execute_key_ranges(stream).await.expect("call").into_inner().message().await.expect("rows")
            },
        )
    };
    let ((first, second, third, fourth, _), ()) = tokio::join!(answers, async {
        waits(&w, 5).await;
        assert!(w.replica.take_lines().is_empty());
        flip(&w).await;
    });
    assert_eq!([first, second, third, fourth], [None, None, None, None]);
    let mut lines = w.replica.take_lines();
    lines.sort();
    let unfriendly = "/* vtgate:: filtered_replication_unfriendly */";
    assert_eq!(
        lines,
        [
            "Autocommit: delete from corder where a = 2 /* vtgate:: keyspace_id:10 */".to_owned(),
            format!("Autocommit: update corder set a = 1 {unfriendly}"),
            format!("BeginExecute: update corder set a = 4 {unfriendly}"),
            "Commit: ".to_owned(),
            "Execute: select a from corder where `b` in (3)".to_owned(),
            "Stream: select a from corder where b = 5".to_owned(),
        ]
    );
    assert_eq!((w.stat("CutoverBufferWaiting"), w.stat("CutoverBuffered")), (0.into(), 5.into()));
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

/// The lookup row is written, on another shard, when the row itself is held back: the row is waited for, and the lookup row
/// is not written again.
#[tokio::test]
async fn a_row_whose_lookup_row_is_written_waits_alone() {
    let w = two_shards(&[]).await;
    let mut vschema = w.topo.get_srv_vschema("zone1").await.expect("there");
    let customer = vschema.keyspaces.get_mut("customer").expect("there");
    let params = [("table", "lk"), ("from", "num"), ("to", "kid")].map(|(name, value)| (name.into(), value.into()));
    let lookup =
        vschema::Vindex { r#type: "lookup_hash_unique".into(), params: params.into(), owner: "customer".into() };
    customer.vindexes.insert("lk".into(), lookup);
    let by = |column: &str, name: &str| vschema::ColumnVindex {
        column: column.into(),
        name: name.into(),
        columns: Vec::new(),
    };
    customer.tables.get_mut("customer").expect("there").column_vindexes.push(by("num", "lk"));
    let lookup_table = vschema::Table { column_vindexes: vec![by("num", "hash")], ..Default::default() };
    customer.tables.insert("lk".into(), lookup_table);
    w.topo.update_srv_vschema("zone1", &vschema).await.expect("written");
    until("the vschema is read", || {
        let known = w.gate.executor.parts().vschema.current();
        known.vschema.keyspaces["customer"].tables.contains_key("lk")
    })
    .await;

    let mut client = w.connect_to("customer").await;
    run(&mut client, "begin").await;
    w.master.answer("into customer", Err(refusal()));
    let writing = spawn(client, "insert into customer(id, num) values (1, 4)");
    waits(&w, 1).await;
    w.master.forget_answers();
    w.master.take_calls();
    w.master.set_health(|_| {});
    let mut client = writing.await.expect("no error");
    run(&mut client, "commit").await;
    let lines = |tablet: &support::FakeTablet| {
        let lines = tablet.take_lines();
        lines.iter().map(|line| line.split('(').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    // This tablet keeps the transaction of a statement that it refused.
    assert_eq!(lines(&w.master), ["Execute: insert into customer", "Commit: "]);
    assert_eq!(lines(&w.replica), ["BeginExecute: insert into lk", "Commit: "]);
}

/// COMMIT at a tablet that serves no more has lost the work: run anew, it would find nothing to commit and succeed.
#[tokio::test]
async fn a_commit_that_failed_is_not_run_anew() {
    let w = split_world().await;
    w.master.forget_answers();
    let mut connection = w.connect_to("customer").await;
    run(&mut connection, "begin").await;
    run(&mut connection, "update corder set a = 1").await;
    let stopped = VtError::new(Code::FailedPrecondition, "operation not allowed in state NOT_SERVING");
    w.master.answer("", Err(stopped));
    flip(&w).await;
    let error = fails(&mut connection, "commit").await;
    assert!(error.message.contains("operation not allowed in state NOT_SERVING"), "{}", error.message);
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

/// A transaction is as old as the sending of its first statement, however long that waits for a lock: a gate that is
/// raised meanwhile is younger.
#[tokio::test]
async fn a_transaction_is_as_old_as_its_first_statement() {
    let w = two_shards(&[]).await;
    let mut teller = w.connect_to("customer").await;
    run(&mut teller, "begin").await;
    w.master.take_calls();
    w.master.stuck.send_replace(true);
    let waiting = spawn(teller, "update customer set name = 'a' where id = 1");
    until("the shard has it", || w.master.called()).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    w.master.stuck.send_replace(false);
    let mut teller = waiting.await.expect("no error");
    w.replica.take_calls();
    run(&mut teller, "update customer set name = 'b' where id = 4").await;
    let calls = w.replica.take_calls();
    assert!(calls[0].open_elsewhere_ms >= 100, "{calls:?}");
}

/// A shard on which a transaction only read may be served elsewhere as soon as that is prepared: a cutover does not wait
/// for what has nothing to commit.
#[tokio::test]
async fn a_commit_in_two_phases_does_not_come_back_to_a_shard_that_was_only_read() {
    for nothing_written in [true, false] {
        let w = two_shards(&["-transaction_mode=TWOPC"]).await;
        w.replica.prepares_nothing.store(nothing_written, Ordering::SeqCst);
        let mut teller = w.connect_to("customer").await;
        run(&mut teller, "begin").await;
        run(&mut teller, "update customer set name = 'a' where id = 1").await;
        run(&mut teller, "select name from customer where id = 4 for update").await;
        w.replica.take_calls();
        run(&mut teller, "commit").await;
        let methods: Vec<&str> = w.replica.take_calls().iter().map(|call| call.method).collect();
        let wanted: &[&str] = if nothing_written { &["Prepare"] } else { &["Prepare", "CommitPrepared"] };
        assert_eq!(methods, wanted);
    }
}
