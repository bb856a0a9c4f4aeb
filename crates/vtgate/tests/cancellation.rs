//! What is left of a transaction when its statement is cut short: by KILL, by a time limit, by a client that leaves.

mod support;

use std::sync::atomic::Ordering;

use mysql::client::Connection;
use support::{FakeTablet, World, fails, rows, run, table, two_shards, until};
use vterrors::{Code, MysqlError, VtError};
use vtproto::{
    query::{BoundQuery, Type},
    vtgate,
};

const BOTH_SHARDS: &str = "update customer set name = 'a' where id in (1, 4)";

/// Runs `sql` until `tablet` has it and holds it, ends it with KILL QUERY, and returns what its client sees.
async fn killed(w: &World, victim: Connection, sql: &'static str, tablet: &FakeTablet) -> (Connection, MysqlError) {
    killed_when(w, victim, sql, tablet, || true).await
}

/// The same, once `ready` holds too.
async fn killed_when(
    w: &World,
    mut victim: Connection,
    sql: &'static str,
    tablet: &FakeTablet,
    ready: impl Fn() -> bool,
) -> (Connection, MysqlError) {
    let id = victim.thread_id();
    w.master.take_calls();
    w.replica.take_calls();
    tablet.stuck.send_replace(true);
    let running = tokio::spawn(async move {
        let error = fails(&mut victim, sql).await;
        (victim, error)
    });
    until("the tablet has the statement", || tablet.called() && ready()).await;
    run(&mut w.connect().await, &format!("kill query {id}")).await;
    let ended = running.await.expect("no panic");
    assert_eq!((ended.1.errno, ended.1.sqlstate.as_str()), (1317, "70100"));
    tablet.stuck.send_replace(false);
    ended
}

fn methods(tablet: &FakeTablet) -> Vec<&'static str> {
    tablet.take_calls().iter().map(|call| call.method).collect()
}

#[tokio::test]
async fn a_killed_write_to_two_shards_leaves_no_transaction_behind() {
    let w = two_shards(&[]).await;
    let victim = w.connect_to("customer").await;
    let (mut victim, error) = killed(&w, victim, BOTH_SHARDS, &w.replica).await;
    assert!(!error.message.contains("transaction"), "{error}");
    assert_eq!(methods(&w.master), ["BeginExecute", "Rollback"]);
    // The next statement is one by itself, and committed.
    run(&mut victim, "insert into customer(id) values (1)").await;
    assert!(!victim.in_transaction());
    assert_eq!(methods(&w.master), ["Autocommit"]);
}

#[tokio::test]
async fn a_write_over_its_time_leaves_no_transaction_behind() {
    let w = two_shards(&["-mysql_server_query_timeout=1s"]).await;
    let mut c = w.connect_to("customer").await;
    // Held up on the first shard, and then on the second.
    for (held, expected) in [(&w.master, vec!["BeginExecute"]), (&w.replica, vec!["BeginExecute", "Rollback"])] {
        held.stuck.send_replace(true);
        let error = fails(&mut c, BOTH_SHARDS).await;
        assert!(error.message.ends_with("/: context deadline exceeded"), "{error}");
        held.stuck.send_replace(false);
        assert_eq!(methods(&w.master), expected);
        run(&mut c, "insert into customer(id) values (1)").await;
        assert!(!c.in_transaction());
        assert_eq!(methods(&w.master), ["Autocommit"]);
    }
}

#[tokio::test]
async fn a_transaction_that_lost_a_shard_to_a_kill_is_rolled_back_on_all() {
    let w = two_shards(&[]).await;
    for sql in ["update customer set name = 'b' where id = 4", "select name from customer where id = 4"] {
        let mut victim = w.connect_to("customer").await;
        run(&mut victim, "begin").await;
        run(&mut victim, "update customer set name = 'a' where id in (1, 4)").await;
        let (mut victim, error) = killed(&w, victim, sql, &w.replica).await;
        assert!(error.message.contains("transaction rolled back: Query execution was interrupted"), "{error}");
        assert_eq!(methods(&w.master), ["Rollback"]);
        run(&mut victim, "commit").await;
        assert!(!victim.in_transaction());
        assert!(!methods(&w.master).contains(&"Commit"));
    }
}

/// What shards have opened for a statement that runs on several at once is known although the statement is cut short.
#[tokio::test]
async fn shards_that_have_answered_a_killed_fan_out_are_rolled_back() {
    let w = two_shards(&[]).await;
    for (held, free, shard) in [(&w.replica, &w.master, "-80"), (&w.master, &w.replica, "80-")] {
        let mut victim = w.connect_to("customer").await;
        run(&mut victim, "begin").await;
        let answered = || {
            let calls = w.stat("VttabletCall");
            calls["Histograms"][format!("BeginExecute.customer.{shard}.master")]["Count"] == 1
        };
        let (_, error) = killed_when(&w, victim, "select name from customer", held, answered).await;
        assert!(error.message.contains("transaction rolled back: "), "{error}");
        assert_eq!(methods(free), ["BeginExecute", "Rollback"]);
    }
}

/// The first statement of a transaction takes nothing with it: the transaction goes on, as in MySQL.
#[tokio::test]
async fn a_transaction_without_anything_in_it_survives_a_kill() {
    let w = two_shards(&[]).await;
    let mut victim = w.connect_to("customer").await;
    run(&mut victim, "begin").await;
    let (mut victim, error) = killed(&w, victim, "update customer set name = 'b' where id = 4", &w.replica).await;
    assert!(!error.message.contains("rolled back"), "{error}");
    run(&mut victim, "update customer set name = 'a' where id = 1").await;
    assert!(victim.in_transaction());
    run(&mut victim, "commit").await;
    assert_eq!(methods(&w.master), ["BeginExecute", "Commit"]);
}

#[tokio::test]
async fn a_stream_cut_short_in_a_transaction_rolls_it_back() {
    let w = two_shards(&[]).await;
    let mut victim = w.connect_to("customer").await;
    run(&mut victim, "begin").await;
    run(&mut victim, BOTH_SHARDS).await;
    run(&mut victim, "set workload = 'olap'").await;
    w.master.answer("from customer", Ok(rows("name", &["x".repeat(1000).as_str()])));
    w.master.stream_length.store(400, Ordering::SeqCst);
    w.master.take_calls();
    w.replica.take_calls();
    let id = victim.thread_id();
    let mut stream = victim.query_stream(b"select name from customer").await.expect("stream");
    stream.next_batch(1).await.expect("rows").expect("rows");
    run(&mut w.connect().await, &format!("kill query {id}")).await;
    let error = loop {
        match stream.next_batch(1 << 20).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream is whole"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.errno(), 1317);
    assert!(error.mysql().message.starts_with("transaction rolled back: "), "{error}");
    for tablet in [&w.master, &w.replica] {
        assert_eq!(methods(tablet), ["Stream", "Rollback"]);
    }
}

/// Merging leaves shards' rows unread once it has enough: in a transaction they are not streamed, for that would end it.
#[tokio::test]
async fn merged_rows_leave_the_transaction_alone() {
    let w = two_shards(&[]).await;
    let mut c = w.connect_to("customer").await;
    for tablet in [&w.master, &w.replica] {
        let mut ids = rows("id", &["1", "2"]);
        ids.fields[0].r#type = Type::Int64.into();
        tablet.answer("select id", Ok(ids));
    }
    run(&mut c, "set workload = 'olap'").await;
    let merged = "select id from customer order by id limit 1";
    let streamed = |tablet: &FakeTablet| methods(tablet).contains(&"Stream");
    assert_eq!(table(&run(&mut c, merged).await), ["1"]);
    assert!(streamed(&w.master) && streamed(&w.replica), "as long as there is no transaction");
    run(&mut c, "begin").await;
    run(&mut c, BOTH_SHARDS).await;
    assert_eq!(table(&run(&mut c, merged).await), ["1"]);
    assert!(!streamed(&w.master) && !streamed(&w.replica));
    run(&mut c, "commit").await;
    assert_eq!((methods(&w.master), methods(&w.replica)), (vec!["Commit"], vec!["Commit"]));
}

#[tokio::test]
async fn a_commit_is_not_cut_short() {
    let w = two_shards(&[]).await;
    let mut victim = w.connect_to("customer").await;
    let id = victim.thread_id();
    run(&mut victim, "begin").await;
    run(&mut victim, BOTH_SHARDS).await;
    w.master.take_calls();
    w.replica.take_calls();
    w.master.stuck.send_replace(true);
    let committing = tokio::spawn(async move {
        run(&mut victim, "commit").await;
        victim
    });
    until("the first shard commits", || w.master.called()).await;
    run(&mut w.connect().await, &format!("kill query {id}")).await;
    w.master.stuck.send_replace(false);
    let victim = committing.await.expect("committed");
    assert!(!victim.in_transaction());
    assert_eq!((methods(&w.master), methods(&w.replica)), (vec!["Commit"], vec!["Commit"]));
}

/// A commit that does not end in time is not waited for, and goes on.
#[tokio::test]
async fn a_commit_without_an_answer_says_so_and_goes_on() {
    let w = two_shards(&[]).await;
    let mut victim = w.connect_to("customer").await;
    let id = victim.thread_id();
    run(&mut victim, "begin").await;
    run(&mut victim, BOTH_SHARDS).await;
    w.master.take_calls();
    w.replica.take_calls();
    w.master.stuck.send_replace(true);
    let committing = tokio::spawn(async move { fails(&mut victim, "commit").await });
    until("the first shard commits", || w.master.called()).await;
    run(&mut w.connect().await, &format!("kill query {id}")).await;
    let error = committing.await.expect("no panic");
    assert_eq!(error.errno, 1317);
    let expected = "whether the transaction is committed is not known: Query execution was interrupted";
    assert!(error.message.contains(expected), "{error}");
    assert_eq!(w.master.dropped.load(Ordering::SeqCst), 0, "the call goes on");
    w.master.stuck.send_replace(false);
    until("the second shard commits", || w.replica.called()).await;
    assert_eq!((methods(&w.master), methods(&w.replica)), (vec!["Commit"], vec!["Commit"]));
}

#[tokio::test]
async fn a_partial_commit_says_what_is_committed() {
    let w = two_shards(&[]).await;
    let mut c = w.connect_to("customer").await;
    run(&mut c, "begin").await;
    run(&mut c, BOTH_SHARDS).await;
    w.replica.answer("", Err(VtError::new(Code::Aborted, "transaction 1: not found")));
    let error = fails(&mut c, "commit").await;
    let said = "partial commit: committed on customer/-80; failed on customer/80-";
    assert!(error.message.contains(said) && error.message.ends_with("transaction 1: not found"), "{error}");
    w.replica.forget_answers();
    let warnings = table(&run(&mut c, "show warnings").await);
    assert!(warnings.iter().any(|warning| warning.contains(said)), "{warnings:?}");
    // Nothing is left to say of one that is committed nowhere.
    run(&mut c, "begin").await;
    run(&mut c, BOTH_SHARDS).await;
    w.master.answer("", Err(VtError::new(Code::Aborted, "transaction 1: not found")));
    let error = fails(&mut c, "commit").await;
    assert!(!error.message.contains("partial"), "{error}");
}

#[tokio::test]
async fn an_abandoned_call_rolls_back_what_it_has_begun() {
    let w = two_shards(&[]).await;
    let mut client = w.grpc().await;
    let request = vtgate::ExecuteRequest {
        query: Some(BoundQuery { sql: BOTH_SHARDS.into(), ..Default::default() }),
        ..Default::default()
    };
    w.replica.stuck.send_replace(true);
    let call = tokio::spawn(async move { client.execute(request).await });
    until("the second shard has it", || w.replica.called()).await;
    call.abort();
    until("the first is rolled back", || w.master.open_transactions.lock().expect("lock").is_empty()).await;
    assert_eq!(methods(&w.master), ["BeginExecute", "Rollback"]);
}

#[tokio::test]
async fn a_client_that_leaves_during_its_write_leaves_nothing_behind() {
    let w = two_shards(&[]).await;
    let mut c = w.connect_to("customer").await;
    w.replica.stuck.send_replace(true);
    let running = tokio::spawn(async move { c.execute(BOTH_SHARDS).await });
    until("the second shard has it", || w.replica.called()).await;
    running.abort();
    until("the first is rolled back", || w.master.open_transactions.lock().expect("lock").is_empty()).await;
    until("the connection ends", || w.stat("MysqlServerConnCount") == 0).await;
    assert_eq!(methods(&w.master), ["BeginExecute", "Rollback"]);
}
