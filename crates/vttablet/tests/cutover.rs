//! The gate of a cutover over a real MariaDB: who waits, who is waited for, and who is killed.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt;
use support::{Tablet, bound, caller, cell, failure, until};
use tabletclient::{BeginOutcome, QueryService, ResultStream, RowSink, cutover::is_refusal};
use tokio::sync::Semaphore;
use vterrors::Code;
use vtproto::query;
use vtproto::topodata::TabletType;

macro_rules! tablet {
    ($db:expr) => {
        match Tablet::master($db, |_| {}).await {
            Some(tablet) => {
                tablet
                    .sql(&["create table t(id bigint primary key, v bigint)", "insert into t values (1, 1), (2, 2)"])
                    .await;
                tablet.sql(&["create table other(id bigint primary key)"]).await;
                tablet
            }
            None => return,
        }
    };
}

const TTL: Duration = Duration::from_secs(60);
const PATIENT: Duration = Duration::from_secs(60);

fn t() -> Vec<String> {
    vec!["t".to_owned()]
}

async fn begin(tablet: &Tablet) -> i64 {
    let request = query::BeginRequest { target: tablet.target(), ..Default::default() };
    tablet.server.begin(request).await.expect("begun")
}

async fn begin_execute(tablet: &Tablet, sql: &str) -> BeginOutcome<query::QueryResult> {
    begin_execute_open_elsewhere(tablet, sql, 0).await
}

async fn begin_execute_open_elsewhere(tablet: &Tablet, sql: &str, ms: i64) -> BeginOutcome<query::QueryResult> {
    let request = query::BeginExecuteRequest {
        target: tablet.target(),
        query: Some(bound(sql, &[])),
        immediate_caller_id: caller("userData1"),
        options: Some(query::ExecuteOptions { transaction_open_ms: ms, ..Default::default() }),
        ..Default::default()
    };
    tablet.server.begin_execute(request).await
}

async fn commit(tablet: &Tablet, transaction_id: i64) -> vterrors::Result<()> {
    let request = query::CommitRequest { target: tablet.target(), transaction_id, ..Default::default() };
    tablet.server.commit(request).await
}

async fn stream(tablet: &Tablet, sql: &str) -> vterrors::Result<ResultStream> {
    let request =
        query::StreamExecuteRequest { target: tablet.target(), query: Some(bound(sql, &[])), ..Default::default() };
    tablet.server.stream_execute(request).await
}

fn spawn_execute(tablet: &Tablet, tx: i64, sql: &str) -> tokio::task::JoinHandle<vterrors::Result<query::QueryResult>> {
    let (server, target, sql) = (tablet.server.clone(), tablet.target(), sql.to_owned());
    tokio::spawn(async move {
        let query = Some(bound(&sql, &[]));
        server.execute(query::ExecuteRequest { target, query, transaction_id: tx, ..Default::default() }).await
    })
}

async fn count(tablet: &Tablet, condition: &str) -> String {
    let mut direct = mysql::Connection::connect(&tablet.mysqld.params().database(&tablet.db)).await.expect("connected");
    cell(&direct.execute(&format!("select count(*) from t where {condition}")).await.expect("counted"))
}

#[tokio::test(flavor = "multi_thread")]
async fn old_transactions_end_and_new_work_waits() {
    let tablet = tablet!("cutover_waits");
    let (old, idle) = (begin(&tablet).await, begin(&tablet).await);
    tablet.execute_in(old, "update t set v = 10 where id = 1").await.expect("before the gate");
    tablet.execute_in(idle, "insert into other values (1)").await.expect("before the gate");
    let gate = tablet.server.gate("one", t(), TTL, false).expect("free");
    assert_eq!((gate.transactions, gate.statements), (1, 0));

    let error = failure(tablet.execute("select * from t").await);
    assert_eq!(
        (error.code(), error.message()),
        (Code::FailedPrecondition, "cutover in progress (one) (CallerID: userData1)")
    );
    for sql in ["insert into t values (3, 3)", "update t join other set v = 2", "truncate table t"] {
        assert!(is_refusal(&failure(tablet.execute(sql).await)), "{sql}");
    }
    assert!(stream(&tablet, "select * from t").await.is_err_and(|error| is_refusal(&error)));
    tablet.execute("insert into other values (2)").await.expect("another table");

    // A transaction that is new waits with its first statement on the table, and none is left open for that.
    let open = tablet.server.state();
    let begun = begin_execute(&tablet, "insert into t values (4, 4)").await;
    assert_eq!(begun.transaction_id, 0);
    assert!(is_refusal(&begun.result.expect_err("gated")));
    let new = begin(&tablet).await;
    tablet.execute_in(new, "insert into other values (3)").await.expect("another table");
    assert!(is_refusal(&failure(tablet.execute_in(new, "insert into t values (5, 5)").await)));
    commit(&tablet, new).await.expect("still open");
    assert_eq!(tablet.server.state(), open);

    // One from before goes on, also with tables it had not used.
    let drain = tokio::spawn({
        let server = tablet.server.clone();
        async move { server.drain("one", PATIENT).await }
    });
    tablet.execute_in(old, "insert into t values (6, 6)").await.expect("from before");
    assert!(!drain.is_finished());
    commit(&tablet, old).await.expect("committed");
    let drained = drain.await.expect("no panic").expect("held");
    assert_eq!((drained.left, drained.killed), (0, 0));
    assert_eq!(count(&tablet, "id in (1, 6) and v in (10, 6)").await, "2");

    // One from before that never used the table was not waited for, and is a new one to it from now on.
    assert!(is_refusal(&failure(tablet.execute_in(idle, "insert into t values (7, 7)").await)));
    commit(&tablet, idle).await.expect("its own work");

    tablet.server.fence("one").expect("drained");
    // Serving stops behind the gate: who waits is still told to wait.
    tablet.server.set_serving_type(TabletType::Master, false, vec![]).await.expect("stopped");
    assert!(is_refusal(&failure(tablet.execute("select * from t").await)));
    let ended = tablet.server.release("one").expect("ours").expect("held");
    assert_eq!((ended.refused, ended.killed), (9, 0));
    let error = failure(tablet.execute("select * from t").await);
    assert_eq!(error.message(), "operation not allowed in state NOT_SERVING");
}

/// A transaction that was open on another shard before the gate is one from before here too: that shard waits for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_open_elsewhere_is_let_in_and_waited_for() {
    let tablet = tablet!("cutover_shards");
    // The other source is not gated yet: what begins there now is waited for there, and may come here.
    tablet.server.gate("one", t(), TTL, true).expect("free");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let between = begin_execute_open_elsewhere(&tablet, "insert into t values (2000, 1)", 1).await;
    between.result.expect("it may be open at a source that is gated later");
    commit(&tablet, between.transaction_id).await.expect("committed");
    // Now it is.
    tablet.server.gate("one", t(), TTL, false).expect("ours");
    // What began before is on its way for less than that.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let younger = begin_execute_open_elsewhere(&tablet, "insert into t values (3, 3)", 1).await;
    assert!(is_refusal(&younger.result.expect_err("younger than the gate")));
    let older = begin_execute_open_elsewhere(&tablet, "insert into t values (4, 4)", 60_000).await;
    older.result.expect("older than the gate");
    let gate = tablet.server.gate("one", t(), TTL, false).expect("ours");
    assert_eq!(gate.transactions, 1);
    let drain = tokio::spawn({
        let server = tablet.server.clone();
        async move { server.drain("one", PATIENT).await }
    });
    tablet.execute_in(older.transaction_id, "update t set v = 5 where id = 4").await.expect("goes on");
    assert!(!drain.is_finished());
    commit(&tablet, older.transaction_id).await.expect("committed");
    let drained = drain.await.expect("no panic").expect("held");
    assert_eq!((drained.left, drained.killed), (0, 0));
    assert_eq!(count(&tablet, "v in (3, 5)").await, "1");
    // Nobody comes in behind a drained gate.
    let late = begin_execute_open_elsewhere(&tablet, "insert into t values (6, 6)", 60_000).await;
    assert!(is_refusal(&late.result.expect_err("drained")));
}

/// Takes rows when it is told to.
struct Slow {
    may: Semaphore,
    bytes: AtomicUsize,
    asked: AtomicBool,
}

#[async_trait::async_trait]
impl RowSink for Slow {
    async fn piece(&self, piece: query::QueryResult) -> vterrors::Result<()> {
        self.asked.store(true, Ordering::Relaxed);
        drop(self.may.acquire().await.expect("never closed"));
        self.bytes.fetch_add(piece.raw_rows.len(), Ordering::Relaxed);
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Whoever reads a large result takes his time, and a cutover does not wait for him unless it is in a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_read_goes_on_behind_the_gate() {
    const BODY: usize = 4000;
    let tablet = tablet!("cutover_large");
    tablet.sql(&["create table large(id bigint primary key, body longtext)"]).await;
    tablet.sql(&[&format!("insert into large select seq, repeat('x', {BODY}) from seq_1_to_1000")]).await;
    let slow = Arc::new(Slow { may: Semaphore::new(0), bytes: AtomicUsize::new(0), asked: AtomicBool::new(false) });
    let reading = tokio::spawn({
        let (server, target, slow) = (tablet.server.clone(), tablet.target(), slow.clone());
        async move {
            let request = query::ExecuteRequest {
                target,
                query: Some(bound("select * from large", &[])),
                options: Some(query::ExecuteOptions {
                    included_fields: query::execute_options::IncludedFields::All.into(),
                    raw_rows: true,
                    ..Default::default()
                }),
                ..Default::default()
            };
            server.execute_rows(request, &*slow).await
        }
    });
    until("the first rows", async || slow.has_begun()).await;
    let gate = tablet.server.gate("one", vec!["large".to_owned()], TTL, false).expect("free");
    assert_eq!((gate.transactions, gate.statements), (0, 0));
    let drained = tablet.server.drain("one", PATIENT).await.expect("held");
    assert_eq!((drained.left, drained.killed), (0, 0));
    slow.may.add_permits(1);
    let last = reading.await.expect("no panic").expect("all rows");
    assert!(slow.bytes.load(Ordering::Relaxed) + last.raw_rows.len() > 1000 * BODY);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_is_killed_and_rolled_back() {
    let tablet = tablet!("cutover_kills");
    let (idle, busy, untouched) = (begin(&tablet).await, begin(&tablet).await, begin(&tablet).await);
    tablet.execute_in(idle, "insert into t values (11, 1)").await.expect("before");
    tablet.execute_in(busy, "insert into t values (12, 1)").await.expect("before");
    tablet.execute_in(untouched, "insert into other values (11)").await.expect("before");
    let running = [
        spawn_execute(&tablet, busy, "update t set v = 2 where id = 12 and sleep(600) = 0"),
        spawn_execute(&tablet, 0, "update t set v = 2 where id = 1 and sleep(600) = 0"),
        spawn_execute(&tablet, 0, "select sleep(600) from t"),
    ];
    let mut lone = stream(&tablet, "select id from t").await.expect("before");
    lone.next().await.expect("fields").expect("no error");
    // Asked of mysqld: a gate that comes too early refuses them.
    let mut direct = mysql::Connection::connect(&tablet.mysqld.params()).await.expect("connected");
    let sleeping = "select count(*) from information_schema.processlist where db = 'cutover_kills' and info like '%sleep(600)%' \
                    and id <> connection_id()";
    until("all of them run", async || cell(&direct.execute(sleeping).await.expect("listed")) == "3").await;
    let gate = tablet.server.gate("one", t(), TTL, false).expect("free");
    assert_eq!((gate.transactions, gate.statements), (2, 3));

    // Its rows wait here, and mysqld has nothing to do for it any more.
    until("the stream has left its connection", async || {
        tablet.registry.get("StreamConnPoolInUse").expect("registered") == 0
    })
    .await;

    let drained = tablet.server.drain("one", Duration::from_millis(50)).await.expect("held");
    assert_eq!(drained.left, 0);
    assert_eq!(drained.killed, 4, "two transactions and two statements");
    for statement in running {
        let error = statement.await.expect("no panic").expect_err("killed");
        assert_eq!(error.code(), Code::Aborted, "{error}");
        assert!(error.message().contains("a cutover did not wait for it"), "{error}");
        assert!(!is_refusal(&error), "nobody must take it for not executed");
    }
    for id in [idle, busy] {
        let error = failure(tablet.execute_in(id, "select 1 from t").await);
        // The gate answers first; the end of the transaction shows at its next statement elsewhere.
        assert!(is_refusal(&error), "{error}");
        let error = commit(&tablet, id).await.expect_err("over");
        assert_eq!(error.code(), Code::Aborted);
        assert!(error.message().ends_with("(transaction killed by a cutover)"), "{error}");
    }
    commit(&tablet, untouched).await.expect("it had nothing to do with it");
    assert_eq!(lone.next().await.expect("rows").expect("no error").rows.len(), 2, "a stream is read to its end");
    assert_eq!(count(&tablet, "id > 10 or v = 2 and id = 1").await, "0");
    tablet.server.release("one").expect("ours");
    tablet.execute("insert into t values (13, 1)").await.expect("released");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_caller_is_gone_is_over_before_the_drain_is() {
    let tablet = tablet!("cutover_orphans");
    let running =
        "select count(*) from information_schema.processlist where db = 'cutover_orphans' and info like 'update%'";
    let mut direct = mysql::Connection::connect(&tablet.mysqld.params()).await.expect("connected");
    for round in 0..5 {
        // Asked of mysqld: a gate, however short, would refuse it.
        let write = spawn_execute(&tablet, 0, "update t set v = v + 1 where sleep(1) = 0");
        until("it runs", async || cell(&direct.execute(running).await.expect("listed")) == "1").await;
        write.abort();
        tablet.server.gate("one", t(), TTL, false).expect("free");
        assert_eq!(tablet.server.drain("one", PATIENT).await.expect("held").left, 0);
        let before = count(&tablet, "true").await + &count(&tablet, "v > 2").await;
        assert_eq!(cell(&direct.execute(running).await.expect("listed")), "0", "round {round}");
        assert_eq!(count(&tablet, "true").await + &count(&tablet, "v > 2").await, before);
        tablet.server.release("one").expect("ours");
    }
}
