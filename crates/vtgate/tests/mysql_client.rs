//! What a MySQL client sees, and what of it reaches the tablets.

mod support;

use std::sync::atomic::Ordering;

use mysql::{ConnectParams, Connection};
use support::{fails, rows, run, table, until, world, world_with};
use vterrors::{Code, MysqlError, VtError};
use vtproto::query::{BindVariable, QueryResult, Type};

#[tokio::test]
async fn statements_reach_the_tablet_of_the_target() {
    let w = world().await;
    let mut c = w.connect().await;
    let result = run(&mut c, "select * from customer where customer_id = 4").await;
    assert_eq!(table(&result), ["select * from customer where customer_id = 4"]);
    assert_eq!(result.fields[0].database, "commerce", "clients know keyspaces");
    assert_eq!(w.master.take_lines(), ["Execute: select * from customer where customer_id = 4"]);
    c.select_db("commerce@replica").await.expect("init_db");
    run(&mut c, "select 5 from customer").await;
    assert_eq!(w.replica.take_lines(), ["Execute: select 5 from customer"]);
    run(&mut c, "use `commerce:0@replica`").await;
    run(&mut c, "select 6 from customer").await;
    assert_eq!(w.replica.take_lines(), ["Execute: select 6 from customer"]);
    assert!(w.master.take_lines().is_empty());
    // Not looked at before a statement needs it.
    c.select_db("commerce/1").await.expect("init_db");
    let error = fails(&mut c, "select 1 from customer").await;
    assert_eq!((error.errno, error.sqlstate.as_str()), (1105, "HY000"));
    assert!(error.message.starts_with("vtgate: http://"), "{error}");
    assert!(error.message.ends_with(":15001/: target: commerce.1.master: no valid tablet"), "{error}");
    let error = fails(&mut c, "use nope").await;
    assert!(error.message.ends_with("invalid keyspace provided: nope"), "{error}");
}

#[tokio::test]
async fn errors_of_mysqld_keep_number_state_and_way() {
    let w = world().await;
    let mut c = w.connect_to("commerce").await;
    let sent = MysqlError::new(1062, "23000", "Duplicate entry 'a' for key 'PRIMARY'");
    w.master.answer("insert into product", Err(sent.into()));
    let error = fails(&mut c, "insert into product values ('a')").await;
    assert_eq!((error.errno, error.sqlstate.as_str()), (1062, "23000"));
    let expected = "execInsertUnsharded: target: commerce.0.master, used tablet: zone1-100 (127.0.0.1): vttablet: \
                    rpc error: code = AlreadyExists desc = Duplicate entry 'a' for key 'PRIMARY' (errno 1062) \
                    (sqlstate 23000)";
    assert!(error.message.ends_with(expected), "{error}");
    let error = fails(&mut c, "selec 1").await;
    assert_eq!(error.errno, 1105);
    assert!(error.message.ends_with("/: unrecognized statement: selec 1"), "{error}");
    let error = fails(&mut c, "set nonsense=1").await;
    assert!(error.message.ends_with("unsupported construct: set nonsense=1"), "{error}");
    run(&mut c, "select 1").await;
}

#[tokio::test]
async fn a_plan_is_made_once_and_dropped_with_its_vschema() {
    let w = world().await;
    let mut c = w.connect_to("commerce").await;
    for id in 0..20 {
        run(&mut c, &format!("select * from customer where customer_id = {id}")).await;
    }
    let plans = &w.gate.executor.parts().plans;
    assert_eq!(plans.len(), 1);
    assert_eq!(plans.entries()[0].executions.load(Ordering::Relaxed), 20);
    assert_eq!(w.stat("QueriesProcessed")["SelectUnsharded"], 20);
    assert_eq!(w.stat("VtgateApi")["Histograms"]["Execute.commerce.master"]["Count"], 20);
    assert_eq!(w.stat("VttabletCall")["Histograms"]["Execute.commerce.0.master"]["Count"], 20);
    let mut vschema = w.topo.get_srv_vschema("zone1").await.expect("vschema");
    vschema.keyspaces.insert("other".into(), Default::default());
    w.topo.update_srv_vschema("zone1", &vschema).await.expect("update");
    until("the plans are gone", || plans.is_empty()).await;
    run(&mut c, "select * from customer where customer_id = 1").await;
    assert_eq!(plans.len(), 1);
}

/// Text and binary protocol, and PREPARE as a statement.
#[tokio::test]
async fn a_statement_has_one_plan_however_it_is_sent() {
    let w = world().await;
    let mut c = w.connect_to("commerce").await;
    let executor = &w.gate.executor;
    let plans = &executor.parts().plans;
    let caller = vtgate::caller::Caller::default();
    let mut session = vtgate::session::Session::for_mysql(1, "commerce", false);
    let four = BindVariable { r#type: Type::Int64.into(), value: "4".into(), values: Vec::new() };
    let vars = [("v1".to_owned(), four)].into();
    run(&mut c, "set @a = 4").await;
    for (text, prepared) in [
        ("select * from customer where customer_id = 4", "select * from customer where customer_id = ?"),
        ("update product set price = 4 where sku = 5", "update product set price = ? where sku = 5"),
        ("select 4, id from t where id in (5, 6)", "select ?, id from t where id in (5, 6)"),
        ("select id from t where id > 3 limit 4", "select id from t where id > 3 limit ?"),
    ] {
        plans.clear();
        run(&mut c, text).await;
        let (sent, hits) = (w.master.take_lines(), plans.hits());
        executor.execute(&caller, &mut session, "Execute", prepared.as_bytes(), &vars).await.expect(prepared);
        assert_eq!((w.master.take_lines(), plans.hits()), (sent.clone(), hits + 1), "{prepared}");
        run(&mut c, &format!("prepare s from '{prepared}'")).await;
        run(&mut c, "execute s using @a").await;
        assert_eq!(w.master.take_lines(), sent, "{prepared}");
        let own = plans
            .entries()
            .iter()
            .filter(|entry| !entry.sql.contains("prepare") && !entry.sql.contains("using"))
            .count();
        assert_eq!(
            own,
            1,
            "{prepared}: {:?}",
            plans.entries().iter().map(|entry| entry.sql.clone()).collect::<Vec<_>>()
        );
    }
}

#[tokio::test]
async fn a_write_outside_a_transaction_is_one_call() {
    let w = world().await;
    let mut c = w.connect().await;
    let result = QueryResult { rows_affected: 1, insert_id: 6, ..Default::default() };
    w.master.answer("insert into", Ok(result));
    let result = run(&mut c, "insert into customer(email) values ('x')").await;
    assert_eq!((result.rows_affected, result.insert_id), (1, 6));
    assert_eq!(table(&run(&mut c, "select last_insert_id()").await), ["select 6 as `last_insert_id()`"]);
    let lines = w.master.take_lines();
    assert_eq!(lines[0], "Autocommit: insert into customer(email) values ('x')");
    assert_eq!(lines.len(), 2);
}

#[tokio::test]
async fn a_transaction_begins_with_its_first_statement() {
    let w = world().await;
    let mut c = w.connect().await;
    run(&mut c, "begin").await;
    assert!(c.in_transaction());
    assert!(w.master.take_lines().is_empty(), "nothing to begin on yet");
    run(&mut c, "update product set price = 1").await;
    run(&mut c, "select 1 from product").await;
    run(&mut c, "commit").await;
    assert!(!c.in_transaction());
    assert_eq!(
        w.master.take_lines(),
        ["BeginExecute: update product set price = 1", "Execute: select 1 from product", "Commit: "]
    );
    run(&mut c, "set autocommit = 0").await;
    run(&mut c, "delete from product").await;
    assert!(c.in_transaction());
    run(&mut c, "rollback").await;
    assert_eq!(w.master.take_lines(), ["BeginExecute: delete from product", "Rollback: "]);
    run(&mut c, "delete from product").await;
    run(&mut c, "set autocommit = 1").await;
    assert_eq!(w.master.take_lines(), ["BeginExecute: delete from product", "Commit: "]);
    run(&mut c, "start transaction read only").await;
    let error = fails(&mut c, "delete from product").await;
    assert_eq!((error.errno, error.sqlstate.as_str()), (1792, "25006"));
    run(&mut c, "rollback").await;
}

#[tokio::test]
async fn a_transaction_stays_with_masters() {
    let w = world().await;
    let mut c = w.connect().await;
    run(&mut c, "begin").await;
    run(&mut c, "update product set price = 1").await;
    let refusal = "cannot change to a non-master type in the middle of a transaction: REPLICA";
    assert!(fails(&mut c, "use `commerce@replica`").await.message.ends_with(refusal));
    let error = c.select_db("commerce@replica").await.expect_err("COM_INIT_DB");
    assert!(error.mysql().message.ends_with(refusal), "{error}");
    c.select_db("commerce").await.expect("another master");
    run(&mut c, "update product set price = 2").await;
    run(&mut c, "commit").await;
    c.select_db("commerce@replica").await.expect("after it");
    assert_eq!(
        w.master.take_calls().iter().map(|c| c.method).collect::<Vec<_>>(),
        ["BeginExecute", "Execute", "Commit"]
    );
}

#[tokio::test]
async fn a_failed_statement_leaves_the_transaction_open() {
    let w = world().await;
    let mut c = w.connect().await;
    run(&mut c, "begin").await;
    let duplicate: VtError = MysqlError::new(1062, "23000", "Duplicate entry").into();
    w.master.answer("insert", Err(duplicate));
    assert_eq!(fails(&mut c, "insert into product values (1)").await.errno, 1062);
    run(&mut c, "update product set price = 2").await;
    run(&mut c, "commit").await;
    let lines = w.master.take_calls();
    assert_eq!(lines.iter().map(|c| c.method).collect::<Vec<_>>(), ["BeginExecute", "Execute", "Commit"]);
    assert_eq!(lines[1].transaction, 1);
}

#[tokio::test]
async fn a_lost_transaction_is_over_for_the_client_too() {
    let w = world().await;
    let mut c = w.connect().await;
    run(&mut c, "begin").await;
    run(&mut c, "update product set price = 1").await;
    w.master.lose_transactions.store(true, Ordering::SeqCst);
    let error = fails(&mut c, "update product set price = 2").await;
    assert_eq!(error.errno, 1317);
    assert!(error.message.contains("transaction 1: not found"), "{error}");
    w.master.lose_transactions.store(false, Ordering::SeqCst);
    w.master.take_calls();
    // Neither committed nor joined to the lost one.
    run(&mut c, "update product set price = 3").await;
    assert_eq!(w.master.take_lines(), ["Autocommit: update product set price = 3"]);
}

#[tokio::test]
async fn a_connection_that_ends_rolls_back() {
    let w = world().await;
    let mut c = w.connect().await;
    run(&mut c, "begin").await;
    run(&mut c, "update product set price = 1").await;
    assert_eq!(w.master.open_transactions.lock().expect("lock").len(), 1);
    drop(c);
    until("rolled back", || w.master.open_transactions.lock().expect("lock").is_empty()).await;
    let mut c = w.connect().await;
    run(&mut c, "begin").await;
    run(&mut c, "set @a = 5").await;
    run(&mut c, "update product set price = 1").await;
    c.reset().await.expect("COM_RESET_CONNECTION");
    assert!(!c.in_transaction());
    assert!(w.master.open_transactions.lock().expect("lock").is_empty());
    assert_eq!(table(&run(&mut c, "select @a").await), ["select null as `@a`"]);
}

#[tokio::test]
async fn savepoints_are_set_where_the_transaction_is() {
    let w = world().await;
    let mut c = w.connect().await;
    run(&mut c, "savepoint outside").await;
    run(&mut c, "begin").await;
    run(&mut c, "savepoint a").await;
    run(&mut c, "update product set price = 1").await;
    run(&mut c, "savepoint b").await;
    run(&mut c, "rollback to a").await;
    let error = fails(&mut c, "rollback to b").await;
    assert_eq!((error.errno, error.sqlstate.as_str()), (1305, "42000"));
    run(&mut c, "release savepoint a").await;
    run(&mut c, "commit").await;
    assert_eq!(
        w.master.take_lines(),
        [
            "BeginExecute: savepoint `a`",
            "Execute: update product set price = 1",
            "Execute: savepoint `b`",
            "Execute: rollback to `a`",
            "Execute: release savepoint `a`",
            "Commit: "
        ]
    );
}

#[tokio::test]
async fn session_values_come_from_the_session() {
    let w = world().await;
    let mut c = w.connect_to("commerce@replica").await;
    assert_eq!(table(&run(&mut c, "select database()").await), ["select 'commerce' as `database()`"]);
    w.replica.answer("from product", Ok(rows("a", &["1", "2", "3"])));
    run(&mut c, "select a from product").await;
    assert_eq!(table(&run(&mut c, "select found_rows()").await), ["select 3 as `found_rows()`"]);
    run(&mut c, "set @x = 'it''s', @Y = 5").await;
    assert_eq!(table(&run(&mut c, "select @x, @y, @z").await), ["select 'it\\'s' as `@x`, 5 as `@y`, null as `@z`"]);
    w.replica.forget_answers();
    w.replica.answer("max(id)", Ok(QueryResult { fields: rows("m", &[]).fields, ..rows("m", &["77"]) }));
    run(&mut c, "set @m = (select max(id) from product)").await;
    assert_eq!(table(&run(&mut c, "select @m").await), ["select '77' as `@m`"]);
    assert_eq!(table(&run(&mut c, "select @@autocommit").await), ["select 1 as `@@autocommit`"]);
}

#[tokio::test]
async fn settings_go_with_every_statement_once_a_tablet_has_taken_them() {
    let w = world().await;
    let mut c = w.connect().await;
    run(&mut c, "set sql_mode = 'STRICT_ALL_TABLES', time_zone = '+02:00'").await;
    w.master.take_calls();
    run(&mut c, "select 1 from product").await;
    run(&mut c, "update product set price = 1").await;
    for call in w.master.take_calls() {
        assert_eq!(call.settings, ["sql_mode = 'STRICT_ALL_TABLES'", "time_zone = '+02:00'"], "{call:?}");
    }
    let error = fails(&mut c, "set time_zone = 'bad_value'").await;
    assert_eq!(error.errno, 1231);
    w.master.take_calls();
    run(&mut c, "select 1 from product").await;
    assert_eq!(w.master.take_calls()[0].settings[1], "time_zone = '+02:00'", "the bad one is forgotten");
    run(&mut c, "set names utf8mb4; set charset utf8; set wait_timeout = 5; set workload = 'oltp'").await;
    let error = fails(&mut c, "set workload = 'nope'").await;
    assert!(error.message.ends_with("invalid workload: nope"), "{error}");
}

#[tokio::test]
async fn show_statements_of_our_own() {
    let w = world().await;
    let mut c = w.connect().await;
    let keyspaces = run(&mut c, "show keyspaces").await;
    assert_eq!((keyspaces.fields[0].name.as_str(), table(&keyspaces)), ("Databases", vec!["commerce".to_string()]));
    assert!(table(&run(&mut c, "show databases like 'x%'").await).is_empty());
    assert_eq!(table(&run(&mut c, "show vitess_shards").await), ["commerce/0"]);
    assert_eq!(
        table(&run(&mut c, "show vitess_tablets").await),
        [
            "zone1|commerce|0|MASTER|SERVING|zone1-0000000100|127.0.0.1",
            "zone1|commerce|0|REPLICA|SERVING|zone1-0000000101|127.0.0.1",
            "zone1|commerce|0|RDONLY|SERVING|zone1-0000000102|127.0.0.1",
        ]
    );
    c.select_db("commerce@rdonly").await.expect("init_db");
    assert_eq!(table(&run(&mut c, "show vitess_target").await), ["commerce@rdonly"]);
    run(&mut c, "set net_write_timeout = 700").await;
    let warnings = run(&mut c, "show warnings").await;
    assert_eq!(warnings.fields[1].r#type, i32::from(Type::Uint16));
    assert_eq!(warnings.rows.len(), 1);
    run(&mut c, "select 1 from t").await;
    assert!(run(&mut c, "show warnings").await.rows.is_empty(), "they are of the last statement");
    assert_eq!(w.stat("VtGateWarnings")["IgnoredSet"], 1);
}

#[tokio::test]
async fn several_statements_in_one_text() {
    let w = world().await;
    let mut c = w.connect().await;
    let results = c.query_multi(b"select 1 from a; select ';' from b;", 10).await.expect("two results");
    let texts: Vec<_> = results.iter().flat_map(table).collect();
    assert_eq!(texts, ["select 1 from a", "select ';' from b"]);
    let error = c.query_multi(b"select 1 from a; selec; select 2 from a", 10).await.expect_err("the second fails");
    assert_eq!(error.errno(), 1105);
    assert_eq!(w.master.take_lines().len(), 3, "what follows the error does not run");
}

#[tokio::test]
async fn olap_results_stream_and_wait_for_the_client() {
    let w = world().await;
    let mut c = w.connect_to("commerce").await;
    run(&mut c, "set workload = 'olap'").await;
    // Rows of 1 KB: 1 MB a part, 400 MB in all, far more than windows and socket buffers hold.
    w.master.answer("from big", Ok(rows("a", &["x".repeat(1000).as_str()])));
    w.master.stream_length.store(400, Ordering::SeqCst);
    let mut stream = c.query_stream(b"select a from big").await.expect("stream");
    let mut count = stream.next_batch(1).await.expect("first rows").map_or(0, |rows| rows.len());
    // Nobody reads: the tablet must come to a stop long before the end.
    let mut before = usize::MAX;
    loop {
        let sent = w.master.stream_parts.load(Ordering::SeqCst);
        if sent == before {
            break;
        }
        before = sent;
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    assert!(before < 200, "{before} of 400 parts were sent to a client that does not read");
    while let Some(rows) = stream.next_batch(1 << 20).await.expect("rows") {
        count += rows.len();
    }
    assert_eq!(count, 400_000);
}

#[tokio::test]
async fn kill_query_ends_the_statement_and_kill_the_connection() {
    let w = world().await;
    let mut victim = w.connect().await;
    let mut other = w.connect().await;
    let id = victim.thread_id();
    w.master.stuck.send_replace(true);
    let running = tokio::spawn(async move {
        let error = fails(&mut victim, "select 1 from slow").await;
        (victim, error)
    });
    until("it runs", || !w.master.take_calls().is_empty()).await;
    run(&mut other, &format!("kill query {id}")).await;
    let (mut victim, error) = running.await.expect("no panic");
    assert_eq!((error.errno, error.sqlstate.as_str()), (1317, "70100"));
    until("the tablet stopped too", || w.master.dropped.load(Ordering::SeqCst) == 1).await;
    w.master.stuck.send_replace(false);
    run(&mut victim, "select 1 from fast").await;
    run(&mut other, &format!("kill {id}")).await;
    assert!(victim.execute("select 1 from fast").await.expect_err("killed").is_connection_error());
    assert_eq!(fails(&mut other, "kill 4000000").await.errno, 1094);
}

/// Where clients log in, they end only connections of their own, but for those who are named.
#[tokio::test]
async fn kill_needs_the_same_user_or_the_right() {
    let users = r#"{"ann": [{"Password": "a"}], "bob": [{"Password": "b"}], "admin": [{"Password": "c"}]}"#;
    let w = world_with(&[
        "-mysql_auth_server_impl=static",
        &format!("-mysql_auth_server_static_string={users}"),
        "-kill_authorized_users=admin, other",
    ])
    .await;
    let login = async |user: &str, password: &str| {
        let mut params = mysql::ConnectParams::tcp("127.0.0.1", w.mysql.port(), user);
        params.password = password.into();
        mysql::Connection::connect(&params).await.expect("login")
    };
    let (mut ann, mut second) = (login("ann", "a").await, login("ann", "a").await);
    let (mut bob, mut admin) = (login("bob", "b").await, login("admin", "c").await);
    for sql in ["kill", "kill query", "kill connection"] {
        let refused = fails(&mut bob, &format!("{sql} {}", ann.thread_id())).await;
        assert_eq!((refused.errno, refused.sqlstate.as_str()), (1095, "HY000"));
        let text = format!("You are not owner of thread {}", ann.thread_id());
        assert!(refused.message.contains(&text), "{}", refused.message);
    }
    run(&mut ann, "select 1 from fast").await;
    run(&mut second, &format!("kill {}", ann.thread_id())).await;
    assert!(ann.execute("select 1 from fast").await.expect_err("killed").is_connection_error());
    run(&mut admin, &format!("kill {}", bob.thread_id())).await;
    assert!(bob.execute("select 1 from fast").await.expect_err("killed").is_connection_error());
}

#[tokio::test]
async fn a_client_that_goes_away_stops_its_statement() {
    let w = world().await;
    let mut c = w.connect().await;
    w.master.stuck.send_replace(true);
    let running = tokio::spawn(async move { c.execute("select 1 from slow").await });
    until("it runs", || !w.master.take_calls().is_empty()).await;
    running.abort();
    until("the tablet stopped", || w.master.dropped.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test]
async fn a_stop_lets_running_statements_end() {
    let w = world_with(&["-onterm_timeout=20s"]).await;
    let mut busy = w.connect().await;
    let mut idle = w.connect().await;
    run(&mut idle, "select 1").await;
    w.master.take_calls();
    w.master.stuck.send_replace(true);
    let running = tokio::spawn(async move { busy.execute("select 1 from slow").await });
    until("it runs", || !w.master.take_calls().is_empty()).await;
    let gate = w.gate.clone();
    let draining = tokio::spawn(async move { gate.drain(std::time::Duration::from_millis(50)).await });
    until("the idle one is told", || w.stat("MysqlServerConnCount") == 1).await;
    let error = idle.execute("select 1").await.expect_err("stopping");
    assert!(error.is_connection_error() || error.errno() == 1053, "{error}");
    w.master.stuck.send_replace(false);
    running.await.expect("no panic").expect("the running statement ends as it should");
    draining.await.expect("drained");
}

#[tokio::test]
async fn a_query_has_a_limit_when_asked_for() {
    let w = world_with(&["-mysql_server_query_timeout=100ms"]).await;
    let mut c = w.connect().await;
    w.master.stuck.send_replace(true);
    let error = fails(&mut c, "select 1 from slow").await;
    assert_eq!(error.errno, 1317);
    assert!(error.message.ends_with("context deadline exceeded"), "{error}");
}

#[tokio::test]
async fn the_vschema_can_be_changed_by_those_who_may() {
    let w = world().await;
    let mut c = w.connect_to("commerce").await;
    let error = fails(&mut c, "alter vschema create vindex hash using hash").await;
    assert_eq!((error.errno, error.sqlstate.as_str()), (1045, "HY000"));
    assert!(error.message.ends_with("not authorized to perform vschema operations"), "{error}");
    let w = world_with(&["-vschema_ddl_authorized_users=%"]).await;
    w.topo.create_keyspace("commerce", &Default::default()).await.expect("keyspace");
    let mut c = w.connect_to("commerce").await;
    run(&mut c, "alter vschema create vindex hash using hash").await;
    let saved = w.topo.get_vschema("commerce").await.expect("vschema");
    assert_eq!(saved.vindexes["hash"].r#type, "hash");
    assert!(w.topo.get_srv_vschema("zone1").await.expect("graph").keyspaces["commerce"].vindexes.contains_key("hash"));
    run(&mut c, "set @@vitess_metadata.key1 = 'value1'").await;
    assert_eq!(table(&run(&mut c, "show vitess_metadata variables").await), ["key1|value1"]);
}

#[tokio::test]
async fn replicas_go_on_when_the_master_is_gone() {
    let w = world().await;
    let mut c = w.connect_to("commerce@replica").await;
    w.master.set_health(|health| health.serving = false);
    until("the master is seen to be down", || w.stat("HealthcheckConnections").get("commerce.0.master").is_none())
        .await;
    run(&mut c, "select 1 from product").await;
    c.select_db("commerce").await.expect("init_db");
    let error = fails(&mut c, "select 1 from product").await;
    assert!(error.message.ends_with("target: commerce.0.master: no valid tablet"), "{error}");
    w.master.set_health(|health| health.serving = true);
    until("it is back", || w.stat("HealthcheckConnections").get("commerce.0.master").is_some()).await;
    run(&mut c, "select 1 from product").await;
}

#[tokio::test]
async fn a_failover_is_latency_and_no_error() {
    let w = world_with(&["-enable_buffer"]).await;
    let refused = VtError::new(Code::FailedPrecondition, "operation not allowed in state NOT_SERVING");
    w.master.answer("update", Err(refused));
    let mut c = w.connect().await;
    let writing = tokio::spawn(async move { c.execute("update product set price = 1").await });
    until("it waits", || w.stat("BufferRequestsBuffered")["commerce.0"] == 1).await;
    w.replica.set_health(|health| {
        health.target.as_mut().expect("target").tablet_type = 1;
        health.tablet_externally_reparented_timestamp = 2;
    });
    assert_eq!(writing.await.expect("no panic").expect("written by the new master").rows_affected, 1);
    assert_eq!(w.replica.take_lines(), ["Autocommit: update product set price = 1"]);
    assert_eq!(w.stat("BufferStops")["commerce.0.NewMasterSeen"], 1);
    assert_eq!(w.stat("HealthcheckMasterPromoted")["commerce.0"], 1);
}

/// A master that is lost before it has answered may have given values of a sequence away: others are as good.
#[tokio::test]
async fn a_sequence_is_asked_again_after_a_failover() {
    let w = world_with(&["-enable_buffer", "-vschema_ddl_authorized_users=%"]).await;
    let lost = VtError::new(Code::Unavailable, "vttablet: rpc error: code = Unavailable desc = transport is closing");
    w.master.answer("next", Err(lost));
    let mut c = w.connect_to("commerce").await;
    w.topo.create_keyspace("commerce", &Default::default()).await.expect("keyspace");
    run(&mut c, "alter vschema add sequence seq").await;
    let asking = tokio::spawn(async move { c.execute("select next 2 values from seq").await });
    until("it waits", || w.stat("BufferRequestsBuffered")["commerce.0"] == 1).await;
    w.replica.set_health(|health| {
        health.target.as_mut().expect("target").tablet_type = 1;
        health.tablet_externally_reparented_timestamp = 2;
    });
    asking.await.expect("no panic").expect("the new master gives some");
    assert_eq!(w.replica.take_lines(), ["Execute: select next 2 values from seq"]);
}

/// A tablet that is lost before it has answered may have run what commits by itself, also in a transaction.
#[tokio::test]
async fn what_commits_by_itself_is_sent_once() {
    let w = world_with(&["-enable_buffer"]).await;
    let lost = VtError::new(Code::Unavailable, "vttablet: rpc error: code = Unavailable desc = transport is closing");
    w.master.answer("call", Err(lost));
    let mut c = w.connect_to("commerce").await;
    run(&mut c, "begin").await;
    let calling = tokio::spawn(async move { fails(&mut c, "call settle()").await });
    until("the master has it", || w.master.called()).await;
    w.replica.set_health(|health| {
        health.target.as_mut().expect("target").tablet_type = 1;
        health.tablet_externally_reparented_timestamp = 2;
    });
    let error = calling.await.expect("it fails");
    assert!(error.message.contains("transport is closing"), "{error}");
    assert_eq!(w.master.take_lines(), ["BeginExecute: call settle()"]);
    assert!(w.replica.take_lines().is_empty());
}

#[tokio::test]
async fn a_prepared_statement_shows_its_columns_without_running() {
    let w = world().await;
    let session = vtgate::session::Session::for_mysql(1, "commerce", false);
    let caller = vtgate::caller::Caller::default();
    let describe = async |sql: &str| {
        let normalized = vtsql::normalize(sql.as_bytes()).expect(sql);
        let executor = &w.gate.executor;
        executor.describe(&caller, &session, normalized.kind, sql.as_bytes(), normalized.placeholders).await
    };
    let fields = describe("select a from t where b = ? limit ? for update").await.expect("columns");
    assert_eq!(fields.len(), 1);
    assert_eq!(w.master.take_lines(), ["Execute: select a from t where b = null limit 0"]);
    assert!(describe("insert into t values (?)").await.expect("no result set").is_empty());
    assert!(describe("select next value from seq").await.expect("not asked").is_empty());
    assert!(w.master.take_lines().is_empty(), "nothing was written and no sequence moved");
    assert!(describe("select get_lock(?, ?)").await.expect("needs its transaction").is_empty());
    w.master.answer("from nope", Err(MysqlError::new(1146, "42S02", "Table 'nope' doesn't exist").into()));
    let error = describe("select a from nope where b = ?").await.expect_err("as mysqld says");
    assert_eq!(MysqlError::from(&error).errno, 1146);
}

#[tokio::test]
async fn tls_and_passwords() {
    let dir = tempfile::tempdir().expect("directory");
    let key = rcgen::KeyPair::generate().expect("key");
    let params = rcgen::CertificateParams::new(vec!["localhost".into()]).expect("params");
    let certificate = params.self_signed(&key).expect("certificate");
    let (cert_file, key_file) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert_file, certificate.pem()).expect("written");
    std::fs::write(&key_file, key.serialize_pem()).expect("written");
    let w = world_with(&[
        &format!("-mysql_server_ssl_cert={}", cert_file.display()),
        &format!("-mysql_server_ssl_key={}", key_file.display()),
        "-mysql_server_require_secure_transport",
        "-mysql_auth_server_impl=static",
        r#"-mysql_auth_server_static_string={"mary":[{"Password":"secret","UserData":"mary_data"}]}"#,
    ])
    .await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("certificate");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = mysql::client::ClientTls { config: config.into(), server_name: "localhost".into() };
    let mut params = mysql::ConnectParams::tcp("127.0.0.1", w.mysql.port(), "mary");
    params.password = "secret".into();
    let refused = mysql::Connection::connect(&params).await.expect_err("not without TLS");
    assert_eq!(refused.errno(), 3159, "{refused}");
    params.tls = Some(tls);
    let mut c = mysql::Connection::connect(&params).await.expect("login");
    run(&mut c, "select 1 from t").await;
    assert_eq!(w.stat("MysqlServerConnCountPerUser")["mary"], 1);
    params.password = "wrong".into();
    let refused = mysql::Connection::connect(&params).await.expect_err("wrong password");
    assert_eq!((refused.errno(), refused.mysql().sqlstate.as_str()), (1045, "28000"));
}

#[tokio::test]
async fn inserts_of_many_rows_are_planned_once_and_sent_as_written() {
    let w = world().await;
    let mut c = w.connect().await;
    let statement = |from: usize, table: &str, tail: &str| {
        let rows: Vec<String> = (from..from + 100).map(|id| format!("({id}, 'it''s row \\'{id}\\'', null)")).collect();
        format!("insert into {table}(id, v, w) values {}{tail}", rows.join(","))
    };
    for from in [0, 100, 200] {
        run(&mut c, &statement(from, "product", "")).await;
        assert_eq!(w.master.take_lines(), [format!("Autocommit: {}", statement(from, "product", ""))]);
    }
    let plans = &w.gate.executor.parts().plans;
    assert_eq!(plans.len(), 1);
    // The keyspace is cut off, comments stay where they are, and what stands behind the rows is filled in.
    let tail = " on duplicate key update v = 'again', w = values(w) + 1";
    run(&mut c, &format!("/* app */ {} /* end */", statement(0, "commerce.product", tail))).await;
    assert_eq!(w.master.take_lines(), [format!("Autocommit: /* app */ {} /* end */", statement(0, "product", tail))]);
    // With something else among the rows the statement goes the ordinary way.
    let other = statement(0, "product", "").replacen("null", "now()", 1);
    run(&mut c, &other).await;
    assert_eq!(w.master.take_lines().len(), 1);
    let error = fails(&mut c, &statement(0, "nope.product", "")).await;
    assert!(error.message.contains("nope"), "{error}");
}

#[tokio::test]
async fn connections_and_waiting_calls_are_bounded() {
    let w = world_with(&["-mysql_server_max_connections=2", "-max_calls_per_tablet=1"]).await;
    let (mut one, mut other) = (w.connect().await, w.connect().await);
    let params = ConnectParams::tcp(w.mysql.ip().to_string(), w.mysql.port(), "someone");
    let error = Connection::connect(&params).await.expect_err("one too many");
    assert_eq!((error.errno(), error.mysql().message.as_str()), (1040, "Too many connections"));
    // The master is busy with the one call that it may have; another is refused at once, and the replica is not held up.
    w.master.stuck.send_replace(true);
    let waiting = tokio::spawn(async move { run(&mut one, "select 1 from customer").await });
    until("the tablet has the call", || w.master.take_lines() == ["Execute: select 1 from customer"]).await;
    let error = fails(&mut other, "select 2 from customer").await;
    assert_eq!(error.errno, 1203, "{error}");
    run(&mut other, "use `commerce@replica`").await;
    run(&mut other, "select 3 from customer").await;
    w.master.stuck.send_replace(false);
    waiting.await.expect("answered");
    run(&mut other, "use `commerce@master`").await;
    run(&mut other, "select 4 from customer").await;
}
