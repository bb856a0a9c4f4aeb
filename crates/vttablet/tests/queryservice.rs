//! The query service over a real MariaDB: what a vtgate sees.

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt;
use support::turns::Turns;
use support::{Mysqld, Tablet, bound, caller, cell, failure, int, message, rows, text, until};
use vterrors::Code;
use vtproto::query::execute_options::{IncludedFields, TransactionIsolation, Workload};
use vtproto::query::{self, ExecuteOptions};
use vtproto::topodata::TabletType;
use vttablet::queryservice::QueryServiceConfig;
use vttablet::queryservice::acl::TableAcl;
use vttablet::queryservice::rules::{BLACKLIST_RULES, Rule, Rules};

/// Ends the test when there is no MariaDB; [`Tablet::master`] has said so.
macro_rules! tablet {
    ($db:expr, $change:expr) => {
        match Tablet::master($db, $change).await {
            Some(tablet) => tablet,
            None => return,
        }
    };
    ($db:expr) => {
        tablet!($db, |_| {})
    };
}

const PRODUCT: &str =
    "create table product(sku varbinary(128), description varbinary(128), price bigint, primary key(sku))";
const NUMBERS: &str = "create table n(id bigint primary key, v varchar(200))";
const FILL: &str = "insert into n select seq, repeat('x', 100) from seq_1_to_12000";

/// As in Vitess: vtctl reloads a whole keyspace, and a tablet that has not begun to serve is no failure.
#[tokio::test(flavor = "multi_thread")]
async fn a_reload_without_a_connection_to_mysqld_has_nothing_to_do() {
    let tablet = tablet!("qs_reload_closed");
    tablet.server.stop_service().await;
    tablet.server.reload_schema().await.expect("nothing to do");
    tablet.server.set_serving_type(TabletType::Master, true, vec![]).await.expect("serving");
    tablet.server.reload_schema().await.expect("reloaded");
}

async fn begin(tablet: &Tablet, options: ExecuteOptions) -> vterrors::Result<i64> {
    let request = query::BeginRequest {
        target: tablet.target(),
        immediate_caller_id: caller("userData1"),
        options: Some(options),
        ..Default::default()
    };
    tablet.queries.begin(request).await
}

async fn commit(tablet: &Tablet, transaction_id: i64) -> vterrors::Result<()> {
    let request = query::CommitRequest { target: tablet.target(), transaction_id, ..Default::default() };
    tablet.queries.commit(request).await
}

async fn rollback(tablet: &Tablet, transaction_id: i64) -> vterrors::Result<()> {
    let request = query::RollbackRequest { target: tablet.target(), transaction_id, ..Default::default() };
    tablet.queries.rollback(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_writes_and_their_errors() {
    let tablet = tablet!("qs_basic");
    tablet.sql(&[PRODUCT, "create database if not exists _vt"]).await;
    let vars = [("vtg1", text("SKU-1001")), ("vtg2", text("it's")), ("vtg3", int(100))];
    let insert = "insert into product values (:vtg1, :vtg2, :vtg3)";
    let options = ExecuteOptions { included_fields: IncludedFields::All.into(), ..Default::default() };
    let result = tablet.execute_with(0, insert, &vars, options.clone()).await.expect("inserted");
    assert_eq!(result.rows_affected, 1);

    let result = tablet.execute_with(0, "select * from product", &[], options.clone()).await.expect("rows");
    assert_eq!(rows(&result), [["SKU-1001", "it's", "100"]]);
    assert_eq!(result.rows_affected, 1);
    assert_eq!((result.fields[0].name.as_str(), result.fields[0].org_table.as_str()), ("sku", "product"));
    let result = tablet.execute("select price from product").await.expect("rows");
    assert_eq!(
        result.fields,
        [query::Field { name: "price".into(), r#type: query::Type::Int64.into(), ..Default::default() }]
    );

    let error = failure(tablet.execute_with(0, insert, &vars, options.clone()).await);
    assert_eq!(error.code(), Code::AlreadyExists);
    assert_eq!(
        error.message(),
        r##"Duplicate entry 'SKU-1001' for key 'PRIMARY' (errno 1062) (sqlstate 23000) (CallerID: userData1): Sql: "insert into product values (:vtg1, :vtg2, :vtg3)", BindVars: {#maxLimit: "type:INT64 value:\"10001\" "vtg1: "type:VARBINARY value:\"SKU-1001\" "vtg2: "type:VARBINARY value:\"it's\" "vtg3: "type:INT64 value:\"100\" "}"##
    );
    let error = failure(tablet.execute("select nope from product").await);
    assert_eq!(error.code(), Code::NotFound);
    assert!(
        error.message().ends_with(
            r#" (errno 1054) (sqlstate 42S22) (CallerID: userData1): Sql: "select nope from product", BindVars: {}"#
        ),
        "{error}"
    );
    assert_eq!(
        message(tablet.execute("truncate table t1").await),
        r#"Table 'qs_basic.t1' doesn't exist (errno 1146) (sqlstate 42S02) (CallerID: userData1): Sql: "truncate table t1", BindVars: {}"#
    );
    let error = failure(tablet.execute("select * from customer").await);
    assert_eq!(
        (error.code(), error.message()),
        (Code::InvalidArgument, "table customer not found in schema (CallerID: userData1)")
    );
    let error = failure(tablet.execute("select * from product for update").await);
    assert_eq!(
        (error.code(), error.message()),
        (Code::FailedPrecondition, "SELECT_LOCK disallowed outside transaction (CallerID: userData1)")
    );
    let error = failure(tablet.execute("select 1; drop table product").await);
    assert_eq!(error.code(), Code::InvalidArgument, "one text is one statement: {error}");
    assert_eq!(failure(tablet.execute("begin").await).code(), Code::InvalidArgument);
    assert_eq!(rows(&tablet.execute("show tables").await.expect("rows")), [["product"]]);

    // Tables that others make are found; so are those made through the service.
    tablet.mysqld.run(&["create table qs_basic.later(id int)"]).await;
    assert_eq!(rows(&tablet.execute("select * from later").await.expect("found")), Vec::<Vec<String>>::new());
    tablet.execute("create table mine(id int)").await.expect("made");
    tablet.execute("insert into mine values (7)").await.expect("inserted");
    assert_eq!(cell(&tablet.execute("select id from mine").await.expect("rows")), "7");
    tablet.execute("drop table mine").await.expect("dropped");
    let gone = message(tablet.execute("select id from mine").await);
    assert_eq!(gone, "table mine not found in schema (CallerID: userData1)");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_is_checked() {
    let tablet = tablet!("qs_target");
    let request = |target: Option<query::Target>| query::ExecuteRequest {
        target,
        query: Some(bound("select 1", &[])),
        ..Default::default()
    };
    let right = tablet.server.target();
    for (target, text) in [
        (None, "No target"),
        (Some(query::Target { keyspace: "k".into(), ..right.clone() }), "invalid keyspace k"),
        (Some(query::Target { shard: "-80".into(), ..right.clone() }), "invalid shard -80"),
        (
            Some(query::Target { tablet_type: TabletType::Replica.into(), ..right.clone() }),
            "invalid tablet type: REPLICA, want: MASTER or []",
        ),
    ] {
        assert_eq!(message(tablet.queries.execute(request(target)).await), text);
    }
    tablet.server.set_serving_type(TabletType::Master, true, vec![TabletType::Replica]).await.expect("still serving");
    let replica = query::Target { tablet_type: TabletType::Replica.into(), ..right.clone() };
    tablet.queries.execute(request(Some(replica))).await.expect("allowed besides");
    tablet.server.set_serving_type(TabletType::Master, false, vec![]).await.expect("stopped");
    let error = failure(tablet.queries.execute(request(Some(right))).await);
    assert_eq!(
        (error.code(), error.message()),
        (Code::FailedPrecondition, "operation not allowed in state NOT_SERVING")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn results_have_a_row_limit() {
    let tablet = tablet!("qs_limit", |config| config.max_result_size = 1000);
    tablet.sql(&[NUMBERS, FILL]).await;
    let error = failure(tablet.execute("select * from n").await);
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert!(
        error.message().starts_with("Row count exceeded 1000 (errno 10001) (sqlstate HY000) (CallerID: userData1)"),
        "{error}"
    );
    assert!(error.message().contains(r##"{#maxLimit: "type:INT64 value:\"1001\" "}"##), "{error}");
    assert_eq!(tablet.execute("select * from n limit 1000").await.expect("rows").rows.len(), 1000);
    let few = ExecuteOptions { sql_select_limit: 3, ..Default::default() };
    assert_eq!(tablet.execute_with(0, "select * from n", &[], few.clone()).await.expect("rows").rows.len(), 3);
    assert_eq!(tablet.execute_with(0, "select * from n limit 5", &[], few).await.expect("rows").rows.len(), 5);
    let dba = ExecuteOptions { workload: Workload::Dba.into(), ..Default::default() };
    assert_eq!(tablet.execute_with(0, "select id from n", &[], dba).await.expect("rows").rows.len(), 12_000);
}

/// The rest of a result that is far too large is not read. That costs the connection, and a caller is told if it costs
/// the transaction too.
#[tokio::test(flavor = "multi_thread")]
async fn a_result_not_read_to_its_end_ends_its_transaction() {
    let tablet = tablet!("qs_limit_tx", |config| config.max_result_size = 1000);
    tablet.sql(&[NUMBERS, FILL]).await;
    let huge = "select repeat('x', if(id > 1001, 1000000, 1)) from n order by id limit 1100";
    assert_eq!(failure(tablet.execute(huge).await).code(), Code::ResourceExhausted);
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    let error = failure(tablet.execute_in(id, "select * from n").await);
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert_eq!(cell(&tablet.execute_in(id, "select 1").await.expect("it goes on")), "1");
    let error = failure(tablet.execute_in(id, huge).await);
    assert_eq!(error.code(), Code::Aborted, "{error}");
    let text = "transaction rolled back: Row count exceeded 1000 (errno 10001) (sqlstate HY000)";
    assert!(error.message().starts_with(text), "{error}");
    assert_eq!(failure(tablet.execute_in(id, "select 1").await).code(), Code::Aborted);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions() {
    let tablet = tablet!("qs_tx", |config| config.transaction_timeout = Duration::from_secs(2));
    tablet.sql(&[NUMBERS]).await;
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "insert into n values (1, 'a')").await.expect("inserted");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "0");
    assert_eq!(cell(&tablet.execute_in(id, "select count(*) from n for update").await.expect("rows")), "1");
    commit(&tablet, id).await.expect("committed");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "1");

    let error = failure(tablet.execute_in(id, "select 1").await);
    assert_eq!(error.code(), Code::Aborted);
    let start = format!("transaction {id}: ended at ");
    assert!(
        error.message().starts_with(&start)
            && error.message().ends_with(" (transaction committed) (CallerID: userData1)"),
        "{error}"
    );
    assert_eq!(message(tablet.execute_in(5, "select 1").await), "transaction 5: not found (CallerID: userData1)");

    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "delete from n").await.expect("deleted");
    rollback(&tablet, id).await.expect("rolled back");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "1");

    // Begun and failed: the transaction is open and has to be ended by the caller.
    let request = query::BeginExecuteRequest {
        target: tablet.target(),
        query: Some(bound("insert into n values (1, 'again')", &[])),
        ..Default::default()
    };
    let outcome = tablet.queries.begin_execute(request).await;
    assert_eq!(outcome.result.expect_err("a duplicate").code(), Code::AlreadyExists);
    rollback(&tablet, outcome.transaction_id).await.expect("rolled back");

    let read_only = ExecuteOptions {
        transaction_isolation: TransactionIsolation::ConsistentSnapshotReadOnly.into(),
        ..Default::default()
    };
    let id = begin(&tablet, read_only.clone()).await.expect("begun");
    assert!(tablet.execute_in(id, "delete from n").await.is_err());
    rollback(&tablet, id).await.expect("rolled back");

    // One that is busy is no exception.
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "delete from n").await.expect("deleted");
    let begun = std::time::Instant::now();
    let error = failure(tablet.execute_in(id, "select sleep(20)").await);
    assert!(error.message().contains("its transaction is open longer than allowed"), "{error}");
    assert_eq!(error.code(), Code::Aborted);
    assert!(begun.elapsed() < Duration::from_secs(15), "it was waited for");
    assert!(message(tablet.execute_in(id, "select 1").await).contains("(exceeded timeout: 2s)"));
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    until("a transaction that is always in use is killed", async || {
        tablet.execute_in(id, "select sleep(0.1)").await.is_err()
    })
    .await;

    // A job that reads a snapshot keeps it for as long as it uses it.
    let snapshot = ExecuteOptions { workload: Workload::Olap.into(), ..read_only };
    let used = begin(&tablet, snapshot.clone()).await.expect("begun");
    let left = begin(&tablet, snapshot).await.expect("begun");

    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "delete from n").await.expect("deleted");
    until("the transaction is killed", async || {
        tablet.execute_in(used, "select 1").await.expect("in use");
        matches!(tablet.execute_in(id, "select 1").await, Err(e) if e.message().contains("(exceeded timeout: 2s)"))
    })
    .await;
    until("the snapshot that nobody uses is ended", async || {
        matches!(tablet.execute_in(left, "select 1").await, Err(e) if e.message().contains("(exceeded timeout: 2s)"))
    })
    .await;
    rollback(&tablet, used).await.expect("rolled back");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "1");

    // A schema change commits; the transaction goes on.
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "create temporary table tmp(id int)").await.expect("made");
    tablet.execute_in(id, "insert into tmp values (3)").await.expect("inserted");
    assert_eq!(cell(&tablet.execute_in(id, "select id from tmp").await.expect("rows")), "3");
    tablet.execute_in(id, "insert into n values (2, 'b')").await.expect("inserted");
    tablet.execute_in(id, "create table made(id int)").await.expect("made");
    tablet.execute_in(id, "insert into made values (1)").await.expect("inserted");
    rollback(&tablet, id).await.expect("rolled back");
    assert_eq!(cell(&tablet.execute("select count(*) from made").await.expect("rows")), "0");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "2");
}

/// BEGIN goes to mysqld with the first statement, and is sent whatever becomes of that.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_begins_with_its_first_statement() {
    let Some(mysqld) = support::shared() else { return };
    let proxy = Turns::before(&mysqld);
    let tablet = Tablet::over(mysqld, "qs_first", |config| config.app.socket = Some(proxy.socket.clone())).await;
    tablet.sql(&[NUMBERS]).await;
    let first = async |sql: &str, isolation: TransactionIsolation| {
        let before = proxy.turns();
        let request = query::BeginExecuteRequest {
            immediate_caller_id: caller("userData1"),
            target: tablet.target(),
            query: Some(bound(sql, &[])),
            options: Some(ExecuteOptions { transaction_isolation: isolation.into(), ..Default::default() }),
            ..Default::default()
        };
        let outcome = tablet.queries.begin_execute(request).await;
        (outcome.transaction_id, outcome.result, proxy.turns() - before)
    };
    let isolations =
        [TransactionIsolation::Default, TransactionIsolation::Serializable, TransactionIsolation::ReadCommitted];
    // Connects, learns the plans, and has the connection take statements together.
    for sql in ["insert into n values (1, 'a')", "select v from n where id = 1"] {
        let (id, result, _) = first(sql, TransactionIsolation::Default).await;
        result.expect("run");
        commit(&tablet, id).await.expect("committed");
    }
    for isolation in isolations {
        let (id, result, turns) = first("select v from n where id = 1", isolation).await;
        assert_eq!((cell(&result.expect("rows")).as_str(), turns), ("a", 1), "{isolation:?}");
        tablet.execute_in(id, "insert into n values (2, 'b')").await.expect("inserted");
        rollback(&tablet, id).await.expect("rolled back");
        let (id, result, turns) = first("insert into n values (3, 'c')", isolation).await;
        assert_eq!((result.expect("inserted").rows_affected, turns), (1, 1), "{isolation:?}");
        rollback(&tablet, id).await.expect("rolled back");
        assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "1");
    }
    let before = proxy.turns();
    let batch = query::ExecuteBatchRequest {
        target: tablet.target(),
        queries: ["insert into n values (4, 'd')", "delete from n where id = 4"].map(|sql| bound(sql, &[])).into(),
        as_transaction: true,
        ..Default::default()
    };
    tablet.queries.execute_batch(batch).await.expect("run");
    assert_eq!(proxy.turns() - before, 3);

    let snapshot = TransactionIsolation::ConsistentSnapshotReadOnly;
    let (id, result, turns) = first("select count(*) from n", snapshot).await;
    assert_eq!((cell(&result.expect("rows")).as_str(), turns), ("1", 1));
    tablet.execute("insert into n values (5, 'e')").await.expect("inserted");
    assert_eq!(cell(&tablet.execute_in(id, "select count(*) from n").await.expect("rows")), "1");
    assert!(tablet.execute_in(id, "delete from n").await.is_err(), "read only");
    rollback(&tablet, id).await.expect("rolled back");

    // Where a text might be several statements to mysqld, they are apart; one that is stays refused.
    let (id, result, turns) = first("insert into n values (6, ';')", TransactionIsolation::Default).await;
    assert_eq!((result.expect("inserted").rows_affected, turns), (1, 3));
    rollback(&tablet, id).await.expect("rolled back");

    // What fails before or in mysqld leaves an open transaction.
    for sql in ["select * from missing", "insert into n values (1, 'again')"] {
        let (id, result, turns) = first(sql, TransactionIsolation::Default).await;
        result.expect_err(sql);
        // A table that is not known is looked for.
        assert!(turns <= 3, "{turns}: {sql}");
        tablet.execute_in(id, "insert into n values (7, 'g')").await.expect("inserted");
        rollback(&tablet, id).await.expect("rolled back");
        assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "2");
    }
}

/// A connection that died idle is no concern of who begins on it.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_statement_finds_a_dead_connection() {
    let tablet = tablet!("qs_first_dead");
    tablet.sql(&[NUMBERS]).await;
    for sql in ["insert into n values (1, 'a')", "select * from n", "insert into n values (2, 'b')"] {
        let begun = begin_execute(&tablet, sql).await;
        begun.result.unwrap_or_else(|error| panic!("{sql}: {error}"));
        commit(&tablet, begun.transaction_id).await.expect("committed");
        let threads = "select concat('kill ', id) from information_schema.processlist where db = 'qs_first_dead'";
        let mut connection = mysql::Connection::connect(&tablet.mysqld.params()).await.expect("connected");
        for kill in rows(&connection.execute(threads).await.expect("threads")) {
            connection.execute(&kill[0]).await.expect("killed");
        }
    }
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches() {
    let tablet = tablet!("qs_batch");
    tablet.sql(&[NUMBERS]).await;
    let batch = |as_transaction, statements: &[&str]| query::ExecuteBatchRequest {
        target: tablet.target(),
        queries: statements.iter().map(|sql| bound(sql, &[])).collect(),
        as_transaction,
        ..Default::default()
    };
    let good = ["insert into n values (1, 'a')", "select count(*) from n"];
    let results = tablet.queries.execute_batch(batch(true, &good)).await.expect("both");
    assert_eq!(cell(&results[1]), "1");
    let bad = ["insert into n values (2, 'b')", "insert into n values (2, 'b')"];
    assert_eq!(tablet.queries.execute_batch(batch(true, &bad)).await.expect_err("twice").code(), Code::AlreadyExists);
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "1");
    tablet.queries.execute_batch(batch(false, &bad)).await.expect_err("twice");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "2");
    let empty = tablet.queries.execute_batch(batch(false, &[])).await.expect_err("nothing");
    assert_eq!(empty.message(), "Empty query list");

    // A write alone commits by itself, without a BEGIN and a COMMIT around it.
    let begins = || tablet.registry.get("Queries").map(|all| all["Histograms"]["BEGIN"]["Count"].clone());
    let before = begins().expect("counted");
    let results = tablet.queries.execute_batch(batch(true, &["insert into n values (3, 'c')"])).await.expect("written");
    assert_eq!((results.len(), results[0].rows_affected), (1, 1));
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "3");
    assert_eq!(
        tablet.queries.execute_batch(batch(true, &bad[..1])).await.expect_err("twice").code(),
        Code::AlreadyExists
    );
    assert_eq!(begins().expect("counted"), before);
    // Unless what it returns may be refused.
    let returning = ["insert into n select seq, 'r' from seq_100_to_30000 Returning id"];
    let error = tablet.queries.execute_batch(batch(true, &returning)).await.expect_err("too many rows");
    assert_eq!(error.code(), Code::ResourceExhausted, "{error}");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_are_bounded_and_fair() {
    let tablet = tablet!("qs_pool", |config| {
        config.transaction_cap = 1;
        config.tx_pool_timeout = Duration::from_millis(300);
        config.pool_size = 1;
        config.query_pool_waiter_cap = 1;
        config.enable_consolidator = false;
    });
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    let error = begin(&tablet, ExecuteOptions::default()).await.expect_err("full");
    assert_eq!(
        (error.code(), error.message()),
        (Code::ResourceExhausted, "transaction pool connection limit exceeded (CallerID: userData1)")
    );
    rollback(&tablet, id).await.expect("rolled back");
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("there is room again");
    rollback(&tablet, id).await.expect("rolled back");

    // One runs, one waits, the third is told so.
    let (first, second, third) = tokio::join!(
        tablet.execute("select sleep(0.5)"),
        async {
            until("the connection is taken", async || tablet.registry.get("ConnPoolInUse") == Some(1.into())).await;
            tablet.execute("select 2").await
        },
        async {
            until("one waits", async || tablet.registry.get("QueryPoolWaiters") == Some(1.into())).await;
            tablet.execute("select 3").await
        }
    );
    first.expect("slept");
    assert_eq!(cell(&second.expect("waited")), "2");
    assert_eq!(message(third), "query pool waiter count exceeded (CallerID: userData1)");
}

#[tokio::test(flavor = "multi_thread")]
async fn session_settings_stay_with_their_caller() {
    let tablet = tablet!("qs_settings", |config| {
        config.pool_size = 1;
        config.transaction_cap = 1;
    });
    let with = |settings: &[&str]| ExecuteOptions {
        session_settings: settings.iter().map(|s| s.to_string()).collect(),
        ..Default::default()
    };
    let read = async |options| cell(&tablet.execute_with(0, "select @@sql_mode", &[], options).await.expect("rows"));
    let usual = read(with(&[])).await;
    assert_eq!(read(with(&["sql_mode = 'ANSI_QUOTES'"])).await, "ANSI_QUOTES");
    assert_eq!(read(with(&["sql_mode = ''"])).await, "");
    assert_eq!(read(with(&[])).await, usual);
    // State that a statement leaves behind does not reach the next caller either.
    tablet.execute("set @@session.sql_mode = 'NO_ENGINE_SUBSTITUTION'").await.expect("set");
    assert_eq!(read(with(&[])).await, usual);
    let id = begin(&tablet, with(&["sql_mode = 'ANSI_QUOTES'"])).await.expect("begun");
    let inside = tablet.execute_with(id, "select @@sql_mode", &[], with(&["sql_mode = 'ANSI_QUOTES'"])).await;
    assert_eq!(cell(&inside.expect("rows")), "ANSI_QUOTES");
    rollback(&tablet, id).await.expect("rolled back");
    let id = begin(&tablet, with(&[])).await.expect("begun");
    assert_eq!(cell(&tablet.execute_in(id, "select @@sql_mode").await.expect("rows")), usual);
    let charset = cell(&tablet.execute_in(id, "select @@character_set_client").await.expect("rows"));
    assert!(charset.starts_with("utf8"), "{charset}");
    rollback(&tablet, id).await.expect("rolled back");
    let error = failure(tablet.execute_with(0, "select 1", &[], with(&["no_such_variable = 1"])).await);
    assert!(error.message().contains("errno 1193"), "{error}");
    assert_eq!(read(with(&[])).await, usual);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_with_different_settings_do_not_set_one_connection_in_turns() {
    let tablet = tablet!("qs_turns", |config| config.pool_size = 4);
    let ask = async |zone: &str| {
        let session_settings = vec![format!("time_zone = '{zone}'")];
        let options = ExecuteOptions { session_settings, ..Default::default() };
        let sql = "select concat(@@time_zone, ' ', connection_id())";
        let answer = cell(&tablet.execute_with(0, sql, &[], options).await.expect("rows"));
        let connection = answer.strip_prefix(zone).unwrap_or_else(|| panic!("{zone} is not set: {answer}"));
        connection.to_owned()
    };
    let zones = ["+01:00", "+02:00", "+03:00"];
    let mut connections = Vec::new();
    for zone in zones {
        connections.push(ask(zone).await);
    }
    for (zone, connection) in zones.iter().zip(&connections).cycle().take(9) {
        assert_eq!(ask(zone).await, *connection, "{zone}");
    }
    // More than there are connections: all are served, with what they set.
    for hour in (1..=9).chain(1..=9) {
        ask(&format!("+{hour:02}:00")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_queries_are_killed() {
    let tablet = tablet!("qs_kill", |config| config.query_timeout = Duration::from_millis(300));
    tablet.sql(&[NUMBERS, "insert into n values (1, 'a')"]).await;
    let started = Instant::now();
    let error = failure(tablet.execute("select sleep(20)").await);
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert!(error.message().contains("(errno 1317) (sqlstate 70100)"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(10));
    assert_eq!(cell(&tablet.execute("select 1").await.expect("usable")), "1");

    // A transaction survives the statement that was too slow.
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "insert into n values (2, 'b')").await.expect("inserted");
    let error = failure(tablet.execute_in(id, "select sleep(20)").await);
    assert_eq!(error.code(), Code::DeadlineExceeded, "{error}");
    assert_eq!(cell(&tablet.execute_in(id, "select count(*) from n").await.expect("open")), "2");
    commit(&tablet, id).await.expect("committed");
    // Also if it is the first, which begins the transaction.
    let begun = begin_execute(&tablet, "select sleep(20)").await;
    assert_eq!(begun.result.expect_err("too slow").code(), Code::DeadlineExceeded);
    let id = begun.transaction_id;
    tablet.execute_in(id, "insert into n values (3, 'c')").await.expect("inserted");
    rollback(&tablet, id).await.expect("rolled back");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_ends_its_query() {
    let tablet = tablet!("qs_cancel", |config| config.pool_size = 1);
    let running = "select count(*) from information_schema.processlist where info like 'select sleep(33)%'";
    let gone = tokio::time::timeout(Duration::from_millis(300), tablet.execute("select sleep(33)")).await;
    assert!(gone.is_err(), "still asleep");
    until("mysqld stopped it", async || cell(&tablet.execute(running).await.expect("rows")) == "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams() {
    let tablet = tablet!("qs_stream", |config| config.stream_pool_size = 1);
    tablet.sql(&[NUMBERS, FILL]).await;
    let request = |sql: &str| query::StreamExecuteRequest {
        target: tablet.target(),
        immediate_caller_id: caller("userData1"),
        query: Some(bound(sql, &[])),
        ..Default::default()
    };
    let mut stream = tablet.queries.stream_execute(request("select * from n")).await.expect("a stream");
    let first = stream.next().await.expect("fields").expect("fields");
    assert_eq!((first.fields.len(), first.rows.len()), (2, 0));
    let (mut count, mut messages) = (0, 0);
    while let Some(part) = stream.next().await {
        let part = part.expect("rows");
        assert!(part.fields.is_empty() && !part.rows.is_empty());
        count += part.rows.len();
        messages += 1;
    }
    assert_eq!(count, 12_000);
    assert!((20..200).contains(&messages), "{messages} messages of about 32 KB");

    // A consumer that leaves frees the only connection.
    let endless = "select a.id from n a, n b, n c";
    let mut stream = tablet.queries.stream_execute(request(endless)).await.expect("a stream");
    stream.next().await.expect("fields").expect("fields");
    drop(stream);
    let mut stream = tablet.queries.stream_execute(request("select 5")).await.expect("a stream");
    stream.next().await.expect("fields").expect("fields");
    assert_eq!(cell(&stream.next().await.expect("a row").expect("a row")), "5");
    assert!(stream.next().await.is_none());

    let error = tablet.queries.stream_execute(request("update n set v = 1")).await.err().expect("refused");
    assert_eq!(error.message(), "'update n set v = 1' not allowed for streaming (CallerID: userData1)");
    let mut stream = tablet.queries.stream_execute(request("select nope from n")).await.expect("a stream");
    let error = stream.next().await.expect("an answer").expect_err("no such column");
    assert_eq!(error.code(), Code::NotFound);

    // Serving stops although a stream is never read to its end.
    let mut stream = tablet.queries.stream_execute(request(endless)).await.expect("a stream");
    stream.next().await.expect("fields").expect("fields");
    let started = Instant::now();
    tablet.server.set_serving_type(TabletType::Master, false, vec![]).await.expect("stopped");
    assert!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn sequences() {
    let tablet = tablet!("qs_seq");
    tablet
        .sql(&[
            "create table seq(id bigint, next_id bigint, cache bigint, primary key(id)) comment 'vitess_sequence'",
            "insert into seq values (0, 1000, 100)",
            "create table bad(id bigint, next_id bigint, cache bigint, primary key(id)) comment 'vitess_sequence'",
            "insert into bad values (0, 1, 0)",
            "create table plain(id bigint primary key)",
        ])
        .await;
    let result = tablet.execute_with(0, "select next :n values from seq", &[("n", int(3))], Default::default()).await;
    let result = result.expect("ids");
    assert_eq!(cell(&result), "1000");
    assert_eq!((result.fields[0].name.as_str(), result.fields[0].r#type()), ("nextval", query::Type::Int64));
    assert_eq!(cell(&tablet.execute("select next value from seq").await.expect("an id")), "1003");
    assert_eq!(cell(&tablet.execute("select next_id from seq").await.expect("stored")), "1100");
    let mut ids = futures::future::join_all((0..200).map(|_| tablet.execute("select next value from seq")))
        .await
        .into_iter()
        .map(|result| cell(&result.expect("an id")).parse::<i64>().expect("a number"))
        .collect::<Vec<_>>();
    ids.sort_unstable();
    assert_eq!(ids, (1004..1204).collect::<Vec<_>>());

    // A tablet that stops being master forgets what it had in hand.
    tablet.server.set_serving_type(TabletType::Replica, true, vec![]).await.expect("a replica");
    tablet.server.set_serving_type(TabletType::Master, true, vec![]).await.expect("a master");
    assert_eq!(cell(&tablet.execute("select next value from seq").await.expect("an id")), "1300");

    for (sql, text) in [
        ("select next value from plain", "plain is not a sequence"),
        ("select next value from bad", "invalid cache value for sequence bad: 0"),
        ("select next value from none", "table none not found in schema"),
        ("select next 0 values from seq", "invalid increment for sequence seq: 0"),
    ] {
        assert_eq!(message(tablet.execute(sql).await), format!("{text} (CallerID: userData1)"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_read_only() {
    let tablet = tablet!("qs_replica");
    tablet.sql(&[NUMBERS]).await;
    tablet.server.set_serving_type(TabletType::Replica, true, vec![]).await.expect("a replica");
    let text = "tx engine can only accept read-only transactions in current state (CallerID: userData1)";
    for sql in ["insert into n values (1, 'a')", "truncate table n"] {
        let error = failure(tablet.execute(sql).await);
        assert_eq!((error.code(), error.message()), (Code::Unavailable, text));
    }
    assert_eq!(begin(&tablet, ExecuteOptions::default()).await.expect_err("a write").message(), text);
    let read_only = ExecuteOptions {
        transaction_isolation: TransactionIsolation::ConsistentSnapshotReadOnly.into(),
        ..Default::default()
    };
    let id = begin(&tablet, read_only).await.expect("a read");
    commit(&tablet, id).await.expect("committed");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_lets_transactions_end() {
    let tablet = tablet!("qs_drain", |config| {
        config.transaction_shutdown_grace_period = Duration::from_secs(20);
    });
    tablet.sql(&[NUMBERS]).await;
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "insert into n values (1, 'a')").await.expect("inserted");
    let stopping = tokio::spawn({
        let server = tablet.server.clone();
        async move { server.set_serving_type(TabletType::Master, false, vec![]).await }
    });
    until("it stops", async || {
        matches!(tablet.execute("select 1").await, Err(e) if e.message() == "operation not allowed in state SHUTTING_DOWN")
    })
    .await;
    tablet.execute_in(id, "insert into n values (2, 'b')").await.expect("still open");
    commit(&tablet, id).await.expect("committed");
    assert!(stopping.await.expect("no panic").expect("stopped"));
    tablet.server.set_serving_type(TabletType::Master, true, vec![]).await.expect("serving again");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_rolls_back_what_does_not_end() {
    let tablet = tablet!("qs_drain2", |config| {
        config.transaction_shutdown_grace_period = Duration::from_millis(100);
    });
    tablet.sql(&[NUMBERS]).await;
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "insert into n values (1, 'a')").await.expect("inserted");
    tablet.server.set_serving_type(TabletType::Master, false, vec![]).await.expect("stopped");
    tablet.server.set_serving_type(TabletType::Master, true, vec![]).await.expect("serving again");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "0");
    let error = failure(tablet.execute_in(id, "select 1").await);
    assert_eq!(error.code(), Code::Aborted, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_and_acl() {
    let tablet = tablet!("qs_rules", |config| config.strict_table_acl = true);
    tablet.sql(&["create table open_t(id int)", "create table secret(id int)"]).await;
    let acl = r#"{"table_groups":[
        {"name":"open","table_names_or_prefixes":["open_%"],"readers":["userData1"],"writers":["userData1"]},
        {"name":"secret","table_names_or_prefixes":["secret"],"readers":["boss"]}]}"#;
    tablet.server.set_table_acl(TableAcl::from_json(acl).expect("an ACL"));
    tablet.execute("insert into open_t values (1)").await.expect("a writer");
    let error = failure(tablet.execute("select * from open_t join secret").await);
    assert_eq!(
        (error.code(), error.message()),
        (
            Code::PermissionDenied,
            "table acl error: \"userData1\" [] cannot run PASS_SELECT on table \"secret\" (CallerID: userData1)"
        )
    );
    assert_eq!(failure(tablet.execute("drop table open_t").await).code(), Code::PermissionDenied);
    tablet.execute("select 1 from dual").await.expect("dual is for everybody");

    let denied = Rules::new(vec![Rule::denied_tables(&["open_t".into()]).expect("a rule")]);
    tablet.server.set_query_rules(BLACKLIST_RULES, denied);
    for sql in ["select * from open_t", "insert into open_t values (2)", "select * from dual, open_t"] {
        let error = failure(tablet.execute(sql).await);
        assert_eq!(
            (error.code(), error.message()),
            (Code::FailedPrecondition, "disallowed due to rule: enforce blacklisted tables (CallerID: userData1)"),
            "{sql}"
        );
    }
    tablet.server.set_query_rules(BLACKLIST_RULES, Rules::default());
    tablet.execute("select * from open_t").await.expect("allowed again");
}

#[tokio::test(flavor = "multi_thread")]
async fn identical_reads_run_once() {
    let tablet = tablet!("qs_share", |config| config.pool_size = 2);
    let started = Instant::now();
    let all = futures::future::join_all((0..20).map(|_| tablet.execute("select sleep(0.7)"))).await;
    assert!(all.iter().all(|result| cell(result.as_ref().expect("slept")) == "0"));
    assert!(started.elapsed() < Duration::from_secs(5), "twenty sleeps on two connections: {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_phase_commit() {
    let tablet = tablet!("qs_2pc", |config| config.twopc_enable = true);
    tablet.sql(&[NUMBERS]).await;
    let dtid = "commerce:0:77";
    let target = tablet.target();
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "insert into n values (1, 'a')").await.expect("inserted");
    let prepare =
        query::PrepareRequest { target: target.clone(), transaction_id: id, dtid: dtid.into(), ..Default::default() };
    tablet.queries.prepare(prepare).await.expect("prepared");
    assert_eq!(failure(tablet.execute_in(id, "select 1").await).code(), Code::Aborted);

    // The tablet stops and comes back: what was prepared is still there.
    tablet.server.set_serving_type(TabletType::Master, false, vec![]).await.expect("stopped");
    tablet.server.set_serving_type(TabletType::Master, true, vec![]).await.expect("serving");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "0");
    let commit_prepared =
        query::CommitPreparedRequest { target: target.clone(), dtid: dtid.into(), ..Default::default() };
    tablet.queries.commit_prepared(commit_prepared.clone()).await.expect("committed");
    tablet.queries.commit_prepared(commit_prepared).await.expect("twice is no error");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "1");
    assert_eq!(cell(&tablet.execute("select count(*) from _vt.redo_state").await.expect("rows")), "0");

    let participants = vec![query::Target { keyspace: "commerce".into(), shard: "1".into(), ..Default::default() }];
    let create = query::CreateTransactionRequest {
        target: target.clone(),
        dtid: "commerce:0:78".into(),
        participants,
        ..Default::default()
    };
    tablet.queries.create_transaction(create).await.expect("created");
    let read =
        query::ReadTransactionRequest { target: target.clone(), dtid: "commerce:0:78".into(), ..Default::default() };
    let metadata = tablet.queries.read_transaction(read.clone()).await.expect("known");
    assert_eq!((metadata.state(), metadata.participants.len()), (query::TransactionState::Prepare, 1));
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "insert into n values (2, 'b')").await.expect("inserted");
    let start = query::StartCommitRequest {
        target: target.clone(),
        transaction_id: id,
        dtid: "commerce:0:78".into(),
        ..Default::default()
    };
    tablet.queries.start_commit(start).await.expect("decided and committed");
    let metadata = tablet.queries.read_transaction(read.clone()).await.expect("known");
    assert_eq!(metadata.state(), query::TransactionState::Commit);
    // A cutover lets its coordinator remove the record, which a fence would refuse.
    let gate =
        || tablet.server.gate("one", vec!["n".to_owned()], Duration::from_secs(60), false).expect("free, or ours");
    assert_eq!(gate().transactions, 1);
    let conclude = query::ConcludeTransactionRequest {
        target: target.clone(),
        dtid: "commerce:0:78".into(),
        ..Default::default()
    };
    tablet.queries.conclude_transaction(conclude).await.expect("concluded");
    assert_eq!(gate().transactions, 0);
    tablet.server.release("one").expect("ours");
    assert_eq!(tablet.queries.read_transaction(read).await.expect("unknown now").dtid, "");
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "2");
}

async fn prepare(tablet: &Tablet, transaction_id: i64, dtid: &str) -> vterrors::Result<query::PrepareResponse> {
    let target = tablet.target();
    tablet
        .queries
        .prepare(query::PrepareRequest { target, transaction_id, dtid: dtid.into(), ..Default::default() })
        .await
}

async fn commit_prepared(tablet: &Tablet, dtid: &str) -> vterrors::Result<()> {
    let target = tablet.target();
    tablet
        .queries
        .commit_prepared(query::CommitPreparedRequest { target, dtid: dtid.into(), ..Default::default() })
        .await
}

/// What a coordinator began to commit is committed, though it hangs up before the answer; what it gives up while it is
/// still being prepared is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_caller_is_gone_comes_to_its_end() {
    // One of its own, for its tables are locked.
    let Some(mysqld) = Mysqld::start() else { return };
    let tablet = Tablet::over(std::sync::Arc::new(mysqld), "qs_gone", |config| config.twopc_enable = true).await;
    tablet.sql(&[NUMBERS]).await;
    let wrote = async |n: i64| {
        let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
        tablet.execute_in(id, &format!("insert into n values ({n}, 'a')")).await.expect("inserted");
        id
    };
    let target = tablet.target();
    let (plain, prepared, first, early) = (wrote(1).await, wrote(2).await, wrote(3).await, wrote(4).await);
    prepare(&tablet, prepared, "other:0:2").await.expect("prepared");
    let create =
        query::CreateTransactionRequest { target: target.clone(), dtid: "commerce:0:3".into(), ..Default::default() };
    tablet.queries.create_transaction(create).await.expect("created");

    let mut direct = mysql::Connection::connect(&tablet.mysqld.params()).await.expect("connected");
    direct.execute("flush tables with read lock").await.expect("locked");
    {
        let start = query::StartCommitRequest {
            target: target.clone(),
            transaction_id: first,
            dtid: "commerce:0:3".into(),
            ..Default::default()
        };
        let calls = async {
            tokio::join!(
                commit(&tablet, plain),
                commit_prepared(&tablet, "other:0:2"),
                tablet.queries.start_commit(start),
                prepare(&tablet, early, "other:0:4")
            )
        };
        let all_wait = until("all four wait for the lock", async || {
            let waiting = "select count(*) from information_schema.processlist where state like 'Waiting for%lock'";
            cell(&direct.execute(waiting).await.expect("listed")) == "4"
        });
        tokio::select! {
            ended = calls => panic!("not locked: {ended:?}"),
            () = all_wait => {}
        }
    }
    let give_up = query::RollbackPreparedRequest {
        target: target.clone(),
        dtid: "other:0:4".into(),
        transaction_id: early,
        ..Default::default()
    };
    let (given_up, unlocked) = tokio::join!(tablet.queries.rollback_prepared(give_up), direct.execute("unlock tables"));
    unlocked.expect("unlocked");
    given_up.expect("rolled back");

    until("the three are committed", async || {
        rows(&tablet.execute("select id from n").await.expect("rows")) == [["1"], ["2"], ["3"]]
    })
    .await;
    commit_prepared(&tablet, "other:0:2").await.expect("done already");
    for table in ["redo_state", "redo_statement"] {
        let left = tablet.execute(&format!("select count(*) from _vt.{table}")).await.expect("rows");
        assert_eq!(cell(&left), "0", "{table}");
    }
    let read = query::ReadTransactionRequest { target, dtid: "commerce:0:3".into(), ..Default::default() };
    let metadata = tablet.queries.read_transaction(read).await.expect("known");
    assert_eq!(metadata.state(), query::TransactionState::Commit);
    // Nobody holds the row of the one that was given up.
    tablet.execute("insert into n values (4, 'again')").await.expect("free");
}

/// What a tablet makes again of a prepared transaction is what its client did: with its savepoints, byte for byte.
#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_is_made_again_as_it_was() {
    // One of its own: everybody with two-phase commit makes again what is prepared in a mysqld.
    let Some(mysqld) = Mysqld::start() else { return };
    let tablet = Tablet::over(std::sync::Arc::new(mysqld), "qs_again", |config| config.twopc_enable = true).await;
    tablet.sql(&["create table b(id bigint primary key, v varbinary(20))"]).await;
    let bytes = query::BindVariable {
        r#type: query::Type::Varbinary.into(),
        value: vec![0xff, 0, 0xfe, b'\'', b'\\'].into(),
        values: vec![],
    };
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    for sql in [
        "savepoint a",
        "insert into b values (1, 'taken back')",
        "rollback to a",
        "insert into b values (2, :v)",
        "savepoint c",
        "insert into b values (3, 'kept')",
        "release savepoint c",
    ] {
        let vars = [("v", bytes.clone())];
        tablet.execute_with(id, sql, &vars, ExecuteOptions::default()).await.expect("done");
    }
    assert!(!prepare(&tablet, id, "other:0:5").await.expect("prepared").nothing_written);
    tablet.server.set_serving_type(TabletType::Master, false, vec![]).await.expect("stopped");
    tablet.server.set_serving_type(TabletType::Master, true, vec![]).await.expect("serving");
    // A cutover of its table waits for it, now as before.
    let gate = tablet.server.gate("one", vec!["b".to_owned()], Duration::from_secs(60), false).expect("free");
    assert_eq!(gate.transactions, 1);
    tablet.server.release("one").expect("ours");
    commit_prepared(&tablet, "other:0:5").await.expect("committed");
    let all = "select id, hex(v) from b order by id";
    assert_eq!(rows(&tablet.execute(all).await.expect("rows")), [["2", "FF00FE275C"], ["3", "6B657074"]]);

    // Savepoints alone are nothing to prepare.
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "savepoint a").await.expect("done");
    assert!(prepare(&tablet, id, "other:0:6").await.expect("nothing to keep").nothing_written);
    assert_eq!(cell(&tablet.execute("select count(*) from _vt.redo_state").await.expect("rows")), "0");

    // What is only in the store is not taken for committed.
    let stored = |dtid: &str, state: i32, id: i32| {
        [
            format!("insert into _vt.redo_state values ('{dtid}', {state}, 1)"),
            format!("insert into _vt.redo_statement values ('{dtid}', 1, 'insert into b values ({id}, null)')"),
        ]
    };
    for statement in stored("other:0:7", 1, 7).iter().chain(&stored("other:0:8", 0, 8)) {
        tablet.sql(&[statement]).await;
    }
    commit_prepared(&tablet, "other:0:7").await.expect("committed");
    let error = commit_prepared(&tablet, "other:0:8").await.expect_err("it failed before");
    assert_eq!(error.message(), "cannot commit dtid other:0:8, state: failed");
    assert_eq!(rows(&tablet.execute("select id from b where id > 3").await.expect("rows")), [["7"]]);
    assert_eq!(rows(&tablet.execute("select dtid from _vt.redo_state").await.expect("rows")), [["other:0:8"]]);
}

/// Settings of the client's session that its statements depend on are in force again for each of them, and for nobody
/// after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_is_made_again_with_its_settings() {
    let Some(mysqld) = Mysqld::start() else { return };
    let few_connections = |config: &mut QueryServiceConfig| {
        config.twopc_enable = true;
        config.transaction_cap = 3;
    };
    let tablet = Tablet::over(std::sync::Arc::new(mysqld), "qs_settings", few_connections).await;
    tablet.sql(&["create table s(id bigint primary key, at datetime)"]).await;
    let in_zone = |zone: &str| ExecuteOptions {
        session_settings: vec![format!("time_zone = '{zone}'")],
        ..ExecuteOptions::default()
    };
    let id = begin(&tablet, in_zone("+05:00")).await.expect("begun");
    for (number, options) in [(1, in_zone("+05:00")), (2, in_zone("+07:00")), (3, ExecuteOptions::default())] {
        let insert = format!("insert into s values ({number}, from_unixtime(0))");
        tablet.execute_with(id, &insert, &[], options).await.expect("done");
    }
    prepare(&tablet, id, "other:0:5").await.expect("prepared");
    tablet.server.set_serving_type(TabletType::Master, false, vec![]).await.expect("stopped");
    tablet.server.set_serving_type(TabletType::Master, true, vec![]).await.expect("serving");
    commit_prepared(&tablet, "other:0:5").await.expect("committed");
    // One on each connection.
    let next = [4, 5, 6].map(async |number| {
        let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
        let insert = format!("insert into s values ({number}, from_unixtime(0))");
        tablet.execute_in(id, &insert).await.expect("done");
        id
    });
    for id in futures::future::join_all(next).await {
        let request = query::CommitRequest { target: tablet.target(), transaction_id: id, ..Default::default() };
        tablet.queries.commit(request).await.expect("committed");
    }
    let zone_of_server = cell(&tablet.execute("select from_unixtime(0)").await.expect("rows"));
    let expected = [
        ["1", "1970-01-01 05:00:00"],
        ["2", "1970-01-01 07:00:00"],
        ["3", zone_of_server.as_str()],
        ["4", zone_of_server.as_str()],
        ["5", zone_of_server.as_str()],
        ["6", zone_of_server.as_str()],
    ];
    assert_eq!(rows(&tablet.execute("select id, at from s order by id").await.expect("rows")), expected);
}

/// A prepared transaction whose connection is lost is not given up: it stays prepared, and the next commit applies it,
/// once.
#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_outlives_its_connection() {
    let Some(mysqld) = Mysqld::start() else { return };
    let tablet = Tablet::over(std::sync::Arc::new(mysqld), "qs_lost", |config| config.twopc_enable = true).await;
    tablet.sql(&["create table c(id bigint primary key, n bigint)", "insert into c values (1, 10)"]).await;
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    tablet.execute_in(id, "update c set n = n + 1 where id = 1").await.expect("done");
    prepare(&tablet, id, "other:0:5").await.expect("prepared");
    let thread = tablet.execute("select trx_mysql_thread_id from information_schema.innodb_trx").await.expect("one");
    tablet.sql(&[&format!("kill {}", cell(&thread))]).await;
    commit_prepared(&tablet, "other:0:5").await.expect_err("its connection is gone");
    let state = "select state from _vt.redo_state where dtid = 'other:0:5'";
    assert_eq!(rows(&tablet.execute(state).await.expect("rows")), [["1"]], "still prepared");
    for _ in 0..2 {
        commit_prepared(&tablet, "other:0:5").await.expect("committed");
        assert_eq!(rows(&tablet.execute("select n from c").await.expect("rows")), [["11"]]);
    }
    assert_eq!(cell(&tablet.execute("select count(*) from _vt.redo_state").await.expect("rows")), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_phase_commit_has_to_be_enabled() {
    let tablet = tablet!("qs_no2pc");
    let request = query::PrepareRequest { target: tablet.target(), dtid: "a:0:1".into(), ..Default::default() };
    let error = tablet.queries.prepare(request).await.expect_err("refused");
    assert_eq!((error.code(), error.message()), (Code::InvalidArgument, "2pc is not enabled"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mysqld_that_dies_and_comes_back() {
    let Some(mysqld) = Mysqld::start() else { return };
    let mysqld = std::sync::Arc::new(mysqld);
    let tablet = Tablet::over(mysqld.clone(), "qs_fault", |_| {}).await;
    tablet.sql(&[NUMBERS]).await;
    tablet.execute("insert into n values (1, 'a')").await.expect("inserted");
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    mysqld.kill();
    let started = Instant::now();
    for sql in ["select * from n", "insert into n values (2, 'b')"] {
        let error = failure(tablet.execute(sql).await);
        assert_eq!(error.code(), Code::Unavailable, "{error}");
    }
    assert!(tablet.execute_in(id, "select 1").await.is_err());
    assert!(tablet.server.is_healthy().await.is_err());
    assert!(started.elapsed() < Duration::from_secs(5), "failed slowly: {:?}", started.elapsed());
    mysqld.restart();
    until("mysqld is back", async || tablet.server.is_healthy().await.is_ok()).await;
    assert_eq!(cell(&tablet.execute("select count(*) from n").await.expect("rows")), "1");
    tablet.execute("insert into n values (2, 'b')").await.expect("inserted");
    let id = begin(&tablet, ExecuteOptions::default()).await.expect("begun");
    rollback(&tablet, id).await.expect("rolled back");
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_and_pages() {
    let tablet = tablet!("qs_vars");
    tablet.sql(&[NUMBERS]).await;
    tablet.execute("select * from n").await.expect("rows");
    tablet.execute("select * from n").await.expect("rows");
    let var = |name: &str| tablet.registry.get(name).unwrap_or_else(|| panic!("no variable {name}"));
    assert_eq!(var("TabletStateName"), "SERVING");
    assert_eq!(var("QueryCounts")["n.PASS_SELECT"], 2);
    assert_eq!(var("UserTableQueryCount")["n.userData1.Execute"], 2);
    assert_eq!(var("Queries")["Histograms"]["PASS_SELECT"]["Count"], 2);
    for phase in ["pool", "mysqld", "own"] {
        assert_eq!(var("QueryPhases")["Histograms"][phase]["Count"], 2, "{phase}");
    }
    assert_eq!(var("ConnPoolCapacity"), 16);
    assert_eq!(var("QueryTimeout"), 30_000_000_000_i64);
    assert_eq!(var("TableRows")["n"], 0);
    assert_eq!(var("Kills")["Queries"], 0);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let routes = vttablet::queryservice::debugging_routes(tablet.server.clone())
        .merge(vttablet::queryservice::admin_routes(tablet.server.clone()));
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });
    assert_eq!(get(address, "/debug/query_rules").await, "{\n \"BlacklistQueryRules\": []\n}\n");
    assert_eq!(get(address, "/debug/consolidations").await, "Length: 0\n");
    assert!(get(address, "/queryz").await.contains("<td>select * from n</td>"));
    assert!(get(address, "/schemaz").await.contains("id: bigint(20)"));
    assert!(get(address, "/debug/tablet_plans").await.contains("limit :#maxLimit"));
    let asleep = tablet.execute("select sleep(20), '<b>'");
    let looked = async {
        until("it is listed", async || get(address, "/livequeryz").await.contains("&lt;b&gt;")).await;
        let json: serde_json::Value =
            serde_json::from_str(&get(address, "/livequeryz?format=json").await).expect("JSON");
        let id = json[0]["ConnID"].as_u64().expect("an id");
        get(address, &format!("/streamqueryz/terminate?connID={id}")).await
    };
    let (outcome, _) = tokio::join!(asleep, looked);
    assert_eq!(failure(outcome).code(), Code::Canceled);
    assert_eq!(tablet.registry.get("Kills").expect("a variable")["Queries"], 1);
    serving.abort();
}

/// One user cannot take every transaction; what he gives back he can take again.
#[tokio::test(flavor = "multi_thread")]
async fn transactions_of_one_user_are_limited() {
    let tablet = tablet!("qs_user_limit", |config| {
        config.tx_limit.enabled = true;
        config.tx_limit.per_user = 0.1;
    });
    tablet.sql(&[NUMBERS]).await;
    let first = begin(&tablet, ExecuteOptions::default()).await.expect("one of twenty");
    let _second = begin(&tablet, ExecuteOptions::default()).await.expect("two of twenty");
    let refused = begin(&tablet, ExecuteOptions::default()).await.expect_err("two are a tenth of twenty");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().starts_with("per-user transaction pool connection limit exceeded"), "{refused}");
    let other = query::BeginRequest {
        target: tablet.target(),
        immediate_caller_id: caller("somebody else"),
        ..Default::default()
    };
    tablet.queries.begin(other).await.expect("another user has his own share");
    commit(&tablet, first).await.expect("committed");
    begin(&tablet, ExecuteOptions::default()).await.expect("there is room again");
    assert_eq!(tablet.registry.get("TxLimiterRejections").expect("registered")["...userData1"], 1);
}

async fn begin_execute(tablet: &Tablet, sql: &str) -> tabletclient::BeginOutcome<query::QueryResult> {
    let request = query::BeginExecuteRequest {
        immediate_caller_id: caller("userData1"),
        target: tablet.target(),
        query: Some(bound(sql, &[("vtg1", int(1))])),
        ..Default::default()
    };
    tablet.queries.begin_execute(request).await
}

/// Transactions that begin on one row queue up before mysqld, and a full queue refuses at once.
#[tokio::test(flavor = "multi_thread")]
async fn hot_rows_do_not_fill_mysqld_with_waiters() {
    let tablet = tablet!("qs_hot", |config| {
        config.hot_rows.enabled = true;
        config.hot_rows.concurrent = 1;
        config.hot_rows.max_queue = 3;
    });
    tablet.sql(&[NUMBERS, "insert into n values (1, 'a'), (2, 'b')"]).await;
    let sql = "update n set v = 'x' where id = :vtg1 /* a comment */";
    let holder = begin_execute(&tablet, sql).await;
    holder.result.expect("the first holds the row");
    let waiting = || {
        let queries = tablet.queries.clone();
        let target = tablet.target();
        tokio::spawn(async move {
            let request = query::BeginExecuteRequest {
                target: target.clone(),
                query: Some(bound("update n set v = 'y' where id = :vtg1", &[("vtg1", int(1))])),
                ..Default::default()
            };
            let begun = queries.begin_execute(request).await;
            begun.result.expect("its turn came");
            let transaction_id = begun.transaction_id;
            let request = query::CommitRequest { target, transaction_id, ..Default::default() };
            queries.commit(request).await
        })
    };
    // One waits for the lock in mysqld, two wait here, and the fourth finds the queue full.
    let waiters = [waiting(), waiting(), waiting()];
    let waits = || tablet.registry.get("TxSerializerWaits").expect("registered")["n"].as_i64().unwrap_or(0);
    until("two wait in the queue", async || waits() == 2).await;
    let refused = begin_execute(&tablet, sql).await.result.expect_err("the queue is full");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    let text = "hot row protection: too many queued transactions (3 >= 3) for the same row \
                (table + WHERE clause: 'n where id = 1')";
    assert!(refused.message().starts_with(text), "{refused}");
    let other = begin_execute(&tablet, "update n set v = 'z' where id = 2").await;
    other.result.expect("another row is free");
    rollback(&tablet, other.transaction_id).await.expect("rolled back");
    let in_mysqld =
        "select count(*) from information_schema.processlist where db = database() and info like 'update n%'";
    assert_eq!(cell(&tablet.execute(in_mysqld).await.expect("counted")), "1");
    // Each goes on when the one before has ended.
    commit(&tablet, holder.transaction_id).await.expect("committed");
    for waiter in waiters {
        waiter.await.expect("it runs").expect("committed");
    }
}

/// The master writes heartbeats, a replica tells its lag by them.
#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_measure_lag() {
    let Some(mysqld) = support::shared() else { return };
    let beating = |config: &mut QueryServiceConfig| {
        config.heartbeat_enable = true;
        config.heartbeat_interval = Duration::from_millis(20);
        config.uid = 100;
    };
    let master = Tablet::over(mysqld.clone(), "qs_beat", beating).await;
    let number = |tablet: &Tablet, name: &str| tablet.registry.get(name).and_then(|v| v.as_i64()).unwrap_or(-1);
    until("heartbeats are written", async || number(&master, "HeartbeatWrites") > 2).await;
    assert!(master.server.heartbeat.lag().is_none(), "a master has no lag");

    let replica = Tablet::over(mysqld, "qs_beat", beating).await;
    replica.server.set_serving_type(TabletType::Replica, true, vec![]).await.expect("a replica");
    until("the replica reads them", async || matches!(replica.server.heartbeat.lag(), Some(Ok(_)))).await;
    let stored = master.execute("select keyspaceShard, tabletUid from _vt.heartbeat").await.expect("rows");
    assert_eq!(rows(&stored), [["commerce:0", "100"]]);

    // The master stops writing: the lag grows although the reading goes on.
    master.server.set_serving_type(TabletType::Master, false, vec![]).await.expect("stopped");
    until(
        "the lag grows",
        async || matches!(replica.server.heartbeat.lag(), Some(Ok(lag)) if lag > Duration::from_millis(300)),
    )
    .await;
    replica.mysqld.run(&["drop table _vt.heartbeat"]).await;
    until("an unknown lag is an error", async || matches!(replica.server.heartbeat.lag(), Some(Err(_)))).await;
    assert!(number(&replica, "HeartbeatReadErrors") > 0);
}

/// Connections can be made before the first query needs them.
#[tokio::test(flavor = "multi_thread")]
async fn pools_are_filled_beforehand() {
    let tablet = tablet!("qs_prefill", |config| {
        (config.pool_size, config.pool_prefill) = (5, 2);
        (config.transaction_cap, config.transaction_prefill) = (4, 4);
    });
    let active = |pool: &str| tablet.registry.get(&format!("{pool}Active")).and_then(|v| v.as_i64());
    assert_eq!(active("ConnPool"), Some(5));
    assert_eq!(active("TransactionPool"), Some(4));
    assert_eq!(active("StreamConnPool"), Some(0));
}

/// A driver asks for the variables of the version that a vtgate names; this mysqld calls them otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn renamed_variables_are_found() {
    let tablet = tablet!("qs_names");
    let options = ExecuteOptions { included_fields: IncludedFields::All.into(), ..Default::default() };
    let sql = "select @@tx_isolation, @@session.transaction_isolation, @@transaction_read_only as ro, @@tx_read_only";
    let result = tablet.execute_with(0, sql, &[], options).await.expect("every name is known");
    assert_eq!(rows(&result), [["REPEATABLE-READ", "REPEATABLE-READ", "0", "0"]]);
    let names: Vec<&str> = result.fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["@@tx_isolation", "@@session.transaction_isolation", "ro", "@@tx_read_only"]);
    let unknown = message(tablet.execute("select @@nosuch").await);
    assert!(unknown.starts_with("Unknown system variable 'nosuch' (errno 1193)"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_as_packets_are_the_same_rows() {
    let tablet = tablet!("qs_raw", |config| config.max_result_size = 20_000);
    tablet.sql(&["create table r(id bigint primary key, v longblob, d double, t datetime(3) null)"]).await;
    tablet.sql(&["insert into r values (1, '', 1.5, '2020-01-02 03:04:05.678'), (2, null, null, null)"]).await;
    tablet.sql(&["insert into r select seq, repeat('x', 200), seq / 3, now(3) from seq_3_to_15000"]).await;
    let raw = ExecuteOptions { raw_rows: true, ..Default::default() };
    for sql in [
        "select * from r where id < 3 order by id",
        "select * from r where id = 0",
        "select * from r order by id",
        "select @@version_comment limit 1",
        "show tables",
    ] {
        let decoded = tablet.execute(sql).await.expect(sql);
        let mut packets = tablet.execute_with(0, sql, &[], raw.clone()).await.expect(sql);
        assert!(packets.rows.is_empty(), "{sql}");
        assert_eq!(mysql::raw_rows::count(&packets), decoded.rows.len(), "{sql}");
        mysql::raw_rows::decode(&mut packets).expect("well-formed");
        assert_eq!(packets, decoded, "{sql}");
    }
    let error = failure(tablet.execute_with(0, "select * from r a, r b limit 20001", &[], raw.clone()).await);
    assert_eq!((error.code(), error.message().contains("Row count exceeded 20000")), (Code::ResourceExhausted, true));
    // Followers of an identical read get the same.
    let (one, other) = tokio::join!(
        tablet.execute_with(0, "select sleep(0.3), 'a'", &[], raw.clone()),
        tablet.execute_with(0, "select sleep(0.3), 'a'", &[], raw.clone())
    );
    assert_eq!(one.expect("rows"), other.expect("rows"));
    // Whoever of them ran it: each gets rows in the form that it understands.
    for (first, second) in [(&raw, &ExecuteOptions::default()), (&ExecuteOptions::default(), &raw)] {
        let late = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            tablet.execute_with(0, "select sleep(0.6), 'b'", &[], second.clone()).await
        };
        let (one, other) = tokio::join!(tablet.execute_with(0, "select sleep(0.6), 'b'", &[], first.clone()), late);
        for (result, options) in [(one, first), (other, second)] {
            let mut result = result.expect("rows");
            assert!(options.raw_rows || result.raw_rows.is_empty());
            mysql::raw_rows::decode(&mut result).expect("well-formed");
            assert_eq!(rows(&result), [["0", "b"]]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inserts_of_many_rows_share_a_plan() {
    let tablet = tablet!("qs_bulk", |config| config.strict_table_acl = true);
    tablet.sql(&[NUMBERS, "create table hidden(id bigint primary key, v varchar(200))"]).await;
    tablet.sql(&["insert into hidden values (1, 'secret')"]).await;
    let acl = r#"{"table_groups": [{"name": "n", "table_names_or_prefixes": ["n"], "readers": ["userData1"],
        "writers": ["userData1"]}]}"#;
    tablet.server.set_table_acl(TableAcl::from_json(acl).expect("an ACL"));
    let before = tablet.registry.get("QueryCacheLength").and_then(|n| n.as_i64()).expect("a number");
    let statement = |from: usize, tail: &str| {
        let rows: Vec<String> = (from..from + 100).map(|id| format!("({id}, 'it''s row {id}')")).collect();
        format!("insert into n(id, v) values {} {tail}", rows.join(", "))
    };
    for from in [0, 100, 200] {
        // A comment behind, as vtgate writes where the rows belong, makes no other plan.
        let sql = statement(from, &format!("/* vtgate:: keyspace_id:{from} */"));
        assert_eq!(tablet.execute(&sql).await.expect("inserted").rows_affected, 100);
    }
    let cached = tablet.registry.get("QueryCacheLength").and_then(|n| n.as_i64()).expect("a number");
    assert_eq!(cached - before, 1, "one plan for all");
    let counted = |name: &str| tablet.registry.get(name).and_then(|n| n.as_i64()).expect("a number");
    assert_eq!((counted("QueryCacheHits"), counted("QueryCacheMisses")), (2, 1));
    assert_eq!(rows(&tablet.execute("select v from n where id = 217").await.expect("rows")), [["it's row 217"]]);
    // Variables among the rows and behind them.
    let mut sql = statement(1000, "on duplicate key update v = :tail");
    sql = sql.replacen("'it''s row 1001'", ":v", 1);
    let vars = [("v", text("from a variable")), ("tail", text("twice"))];
    tablet.execute_with(0, &sql, &vars, ExecuteOptions::default()).await.expect("inserted");
    assert_eq!(rows(&tablet.execute("select v from n where id = 1001").await.expect("rows")), [["from a variable"]]);
    tablet.execute_with(0, &sql, &vars, ExecuteOptions::default()).await.expect("updated");
    assert_eq!(rows(&tablet.execute("select v from n where id = 1001").await.expect("rows")), [["twice"]]);
    // What is hidden among the rows is found.
    for hidden in ["(select v from hidden limit 1)", "concat((select v from hidden limit 1))"] {
        let sql = statement(2000, "").replacen("'it''s row 2001'", hidden, 1);
        assert_eq!(failure(tablet.execute(&sql).await).code(), Code::PermissionDenied, "{hidden}");
    }
    let tail = "on duplicate key update v = (select v from hidden limit 1)";
    assert_eq!(failure(tablet.execute(&statement(0, tail)).await).code(), Code::PermissionDenied);
    let into_hidden = statement(3000, "").replacen("into n(", "into hidden(", 1);
    assert_eq!(failure(tablet.execute(&into_hidden).await).code(), Code::PermissionDenied);
    // Errors show the statement that was sent.
    let error = failure(tablet.execute(&statement(0, "")).await);
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(error.message().contains(r"it\\'s row 42"), "{}", error.message());
    // Rules hold, whether they look at the table, the kind of statement or the text, rows included.
    for rule in [
        r#"{"Name": "t", "Description": "no n", "TableNames": ["n"], "Action": "FAIL"}"#,
        r#"{"Name": "p", "Description": "no inserts", "Plans": ["INSERT_PK"], "Action": "FAIL"}"#,
        r#"{"Name": "q", "Description": "no 42", "Query": "insert into n.*row 4042'.*", "Action": "FAIL"}"#,
    ] {
        let rules = Rules::from_json(&format!("[{rule}]")).expect("rules");
        tablet.server.set_query_rules("test", rules);
        let error = failure(tablet.execute(&statement(4000, "")).await);
        assert!(error.message().starts_with("disallowed due to rule: no "), "{rule}: {error}");
    }
    tablet.execute(&statement(5000, "")).await.expect("its text is another");
    tablet.server.set_query_rules("test", Rules::default());
    tablet.execute(&statement(4000, "")).await.expect("allowed again");
}

async fn get(address: std::net::SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(address).await.expect("connected");
    let request = format!("GET {path} HTTP/1.0\r\nHost: tablet\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("answered");
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
}
