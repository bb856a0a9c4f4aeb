//! The target side of filtered replication: an engine over a real MariaDB, fed by source tablets in this process.

mod source;
#[path = "../support/mod.rs"]
mod support;

use std::{sync::Arc, time::Duration};

use mysql::Connection;
use source::{Log, Source, position};
use support::{Mysqld, cell, rows, shared, until};
use tabletclient::grpc::DialOptions;
use tokio::time::Instant;
use topo::TopoServer;
use vreplication::{
    OnDdl,
    target::{Engine, EngineConfig, State},
};
use vtproto::{query::QueryResult, topodata::TabletType};

const TABLES: &str = "keyspace:\"commerce\" shard:\"0\" tables:\"t\" ";

/// A database that streams go into, and its engine.
struct Target {
    mysqld: Arc<Mysqld>,
    db: String,
    topo: TopoServer,
    engine: Arc<Engine>,
    log: Log,
}

fn config(mysqld: &Mysqld, db: &str) -> EngineConfig {
    EngineConfig {
        cell: "zone1".into(),
        keyspace: "commerce".into(),
        shard: "0".into(),
        db_name: db.into(),
        filtered: mysqld.params(),
        tablet_types: vec![TabletType::Replica],
        retry_delay: Duration::from_millis(200),
        topology_refresh: Duration::from_secs(1),
        health_retry_delay: Duration::from_millis(50),
        health_timeout: Duration::from_secs(60),
        health_dial: DialOptions { channels: 1, ..DialOptions::default() },
        stream_dial: DialOptions { channels: 1, ..DialOptions::default() },
    }
}

impl Target {
    /// An open engine over an empty table `t(id, v)` in a database of its own; `None` without MariaDB.
    async fn open(db: &str) -> Option<Self> {
        Some(Self::over(shared()?, db).await)
    }

    async fn over(mysqld: Arc<Mysqld>, db: &str) -> Self {
        for statement in mysql::sidecar::STATEMENTS {
            mysqld.run(&[statement]).await;
        }
        let (create, table) =
            (format!("create database {db}"), format!("create table {db}.t (id int primary key, v varchar(100))"));
        mysqld.run(&[&create, &table]).await;
        let topo = TopoServer::memory(&["zone1"]);
        let engine = Engine::new(config(&mysqld, db), topo.clone());
        engine.open().await;
        Self { mysqld, db: db.into(), topo, engine, log: Log::new() }
    }

    async fn source(&self, uid: u32, tablet_type: TabletType) -> Source {
        Source::start(&self.topo, self.mysqld.params().database(&self.db), uid, tablet_type, &self.log).await
    }

    async fn sql(&self, sql: &str) -> QueryResult {
        let mut conn = Connection::connect(&self.mysqld.params().database(&self.db)).await.expect("connected");
        conn.execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    async fn table(&self) -> Vec<Vec<String>> {
        rows(&self.sql("select id, v from t order by id").await)
    }

    /// A new stream; its id.
    async fn stream(&self, source: &str, pos: &str, more: &[(&str, &str)]) -> i64 {
        let (mut columns, mut values) = (String::new(), String::new());
        for (column, value) in more {
            columns += &format!(", {column}");
            values += &format!(", {value}");
        }
        let state =
            if more.iter().any(|(column, _)| *column == "state") { ("", "") } else { (", state", ", 'Running'") };
        let sql = format!(
            "insert into _vt.vreplication(workflow, source, pos, max_tps, max_replication_lag, time_updated, \
             transaction_timestamp, db_name{}{columns}) values ('SplitClone', '{}', '{pos}', 9223372036854775807, \
             9223372036854775807, 0, 0, '{}'{}{values})",
            state.0,
            source.replace('\\', "\\\\"),
            self.db,
            state.1,
        );
        let result = self.engine.exec(&sql).await.expect("a stream");
        i64::try_from(result.insert_id).expect("an id")
    }

    async fn wait(&self, id: i64, pos: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        self.engine.wait_for_pos(id, pos, deadline).await.unwrap_or_else(|error| panic!("{error}"));
    }

    /// A column of the stream's row.
    async fn row(&self, id: i64, column: &str) -> String {
        cell(&self.sql(&format!("select {column} from _vt.vreplication where id = {id}")).await)
    }

    async fn until_row(&self, id: i64, column: &str, holds: impl Fn(&str) -> bool) {
        until(&format!("{column} of the stream"), async || holds(&self.row(id, column).await)).await;
    }
}

#[tokio::test]
async fn rows_arrive_with_their_position() {
    let Some(target) = Target::open("arrive").await else { return };
    let source = target.source(100, TabletType::Replica).await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    let at = target.log.write(&[
        "SET TIMESTAMP=1",
        "insert into t set id=1, v=_utf8mb4'né;\\''",
        "insert into t set id=2, v=NULL",
    ]);
    target.wait(id, &at).await;
    assert_eq!(target.table().await, [["1", "né;'"], ["2", "NULL"]]);
    assert_eq!(target.row(id, "pos").await, at);
    assert_eq!((target.row(id, "state").await.as_str(), target.row(id, "message").await.as_str()), ("Running", ""));
    assert!(target.row(id, "transaction_timestamp").await.parse::<i64>().expect("a time") > 1_500_000_000);
    // Many at once become few transactions, in order.
    for n in 0..500 {
        target.log.write(&[&format!("update t set id=1, v='{n}' where id=1")]);
    }
    target.wait(id, &target.log.end()).await;
    assert_eq!(target.table().await, [["1", "499"], ["2", "NULL"]]);
    assert_eq!(source.asked(), [(vec!["t".to_owned()], position(0))]);
    let status = target.engine.status();
    assert_eq!(status.len(), 1);
    assert_eq!(
        (status[0].id, status[0].source.as_str(), status[0].source_tablet.as_str(), status[0].state),
        (id, "commerce/0", source.alias.as_str(), State::Running)
    );
    assert_eq!((status[0].queries, status[0].transactions, status[0].position.clone()), (502, 501, target.log.end()));
    assert_eq!(target.engine.summary().0, 1);
    let page = target.engine.status_html();
    assert!(page.contains("VReplication state: Open"), "{page}");
    assert!(page.contains("<td><b>All</b>: 1003<br><b>Query</b>: 502<br><b>Transaction</b>: 501<br></td>"), "{page}");
    target.engine.close().await;
    assert!(target.engine.status_html().contains("VReplication state: Closed"));
    assert_eq!(target.engine.summary(), (0, 0));
}

#[tokio::test]
async fn a_key_range_is_asked_for_as_such() {
    let Some(target) = Target::open("keyrange").await else { return };
    let source = target.source(100, TabletType::Replica).await;
    target.log.write(&["insert into t set id=1, v='a'"]);
    let text = "keyspace:\"commerce\" shard:\"0\" key_range:<end:\"\\200\" > ";
    let id = target.stream(text, &position(0), &[]).await;
    target.wait(id, &target.log.end()).await;
    assert_eq!(target.table().await, [["1", "a"]]);
    assert_eq!(source.asked(), [(vec!["[]-[80]".to_owned()], position(0))]);
    assert_eq!(target.row(id, "source").await, text);
    target.engine.close().await;
}

#[tokio::test]
async fn an_engine_that_takes_over_goes_on_where_the_rows_are() {
    let Some(target) = Target::open("takeover").await else { return };
    let _source = target.source(100, TabletType::Replica).await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    let at = target.log.write(&["insert into t set id=1, v='a'"]);
    target.wait(id, &at).await;
    // The first engine is not closed: its process may be stuck, and still be connected.
    let second = Engine::new(config(&target.mysqld, &target.db), target.topo.clone());
    second.open().await;
    let at = target.log.write(&["insert into t set id=2, v='b'"]);
    let deadline = Instant::now() + Duration::from_secs(20);
    second.wait_for_pos(id, &at, deadline).await.expect("reached");
    assert_eq!(target.table().await, [["1", "a"], ["2", "b"]]);
    target.engine.close().await;
    let at = target.log.write(&["insert into t set id=3, v='c'"]);
    second.wait_for_pos(id, &at, Instant::now() + Duration::from_secs(20)).await.expect("reached");
    second.close().await;
    // Closed, nothing moves any more.
    target.log.write(&["insert into t set id=4, v='d'"]);
    assert_eq!(target.table().await.len(), 3);
    let error = second.wait_for_pos(id, &target.log.end(), deadline).await.expect_err("closed");
    assert_eq!(error.message(), "vreplication engine is closed");
    assert_eq!(
        second.exec("select 1 from _vt.vreplication").await.expect_err("closed").message(),
        "vreplication engine is closed"
    );
}

#[tokio::test]
async fn a_source_that_breaks_in_a_transaction_is_replaced() {
    let Some(target) = Target::open("breaks").await else { return };
    let first = target.source(100, TabletType::Replica).await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    target.wait(id, &target.log.write(&["insert into t set id=1, v='a'"])).await;
    let second = target.source(101, TabletType::Replica).await;
    until("both sources are known", async || {
        target.topo.get_tablets_by_cell("zone1").await.is_ok_and(|all| all.len() == 2)
    })
    .await;
    // Half of a transaction that is too large to be kept has been sent when the source breaks.
    first.break_at(Some((2, 2)));
    let large = format!("insert into t set id=2, v=left('{}', 5)", "x".repeat(1 << 20));
    let at =
        target.log.write_pieces(&[&[&large], &["insert into t set id=3, v='c'"], &["insert into t set id=4, v='d'"]]);
    target.wait(id, &at).await;
    let table = target.table().await;
    assert_eq!(table, [["1", "a"], ["2", "xxxxx"], ["3", "c"], ["4", "d"]]);
    // The broken one was left for the other one, from where the rows were.
    assert_eq!(second.asked(), [(vec!["t".to_owned()], position(1))]);
    drop(second);
    first.break_at(None);
    let at = target.log.write(&["insert into t set id=5, v='e'"]);
    target.wait(id, &at).await;
    assert_eq!(first.asked().last().expect("asked"), &(vec!["t".to_owned()], position(2)));
    assert_eq!(target.table().await.len(), 5);
    target.engine.close().await;
}

#[tokio::test]
async fn what_is_missing_is_said_in_the_row_until_it_is_there() {
    let Some(target) = Target::open("missing").await else { return };
    let rdonly = target.source(102, TabletType::Rdonly).await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    target.until_row(id, "message", |message| message.contains("zone1-0000000102 RDONLY (healthy)")).await;
    let message = target.row(id, "message").await;
    assert!(message.starts_with("no healthy tablet of type REPLICA for commerce/0 in cell zone1"), "{message}");
    assert!(message.contains("-vreplication_tablet_type"), "{message}");
    assert_eq!(target.row(id, "state").await, "Error");
    // Named in the row, an rdonly will do.
    target
        .engine
        .exec(&format!("update _vt.vreplication set tablet_types='replica,rdonly' where id={id}"))
        .await
        .expect("done");
    target.wait(id, &target.log.write(&["insert into t set id=1, v='a'"])).await;
    assert_eq!((target.row(id, "state").await.as_str(), target.row(id, "message").await.as_str()), ("Running", ""));
    // An ill tablet is no source; a better one is found by itself.
    rdonly.sicken(102);
    rdonly.break_at(Some((2, 0)));
    let at = target.log.write(&["insert into t set id=2, v='b'"]);
    target.until_row(id, "message", |message| message.contains("zone1-0000000102 RDONLY (ill)")).await;
    let _replica = target.source(100, TabletType::Replica).await;
    target.wait(id, &at).await;
    assert_eq!(target.row(id, "message").await, "");
    target.engine.close().await;
}

#[tokio::test]
async fn a_statement_that_fails_is_tried_until_it_does_not() {
    let Some(target) = Target::open("fails").await else { return };
    let _source = target.source(100, TabletType::Replica).await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    target.sql("alter table t add column w int not null default 7").await;
    target.wait(id, &target.log.write(&["insert into t set id=1, v='a'"])).await;
    target.log.write(&["insert into t set id=2, v='b'", "insert into t set id=3, v='c', x=1"]);
    target.until_row(id, "state", |state| state == "Error").await;
    let message = target.row(id, "message").await;
    assert!(message.contains("Unknown column 'x'"), "{message}");
    assert_eq!(target.table().await.len(), 1);
    let error = target
        .engine
        .wait_for_pos(id, &target.log.end(), Instant::now() + Duration::from_millis(300))
        .await
        .expect_err("not reached");
    let text = error.message();
    let expected = format!(
        "error waiting for pos: {}, last pos: {}: context deadline exceeded, wait time: ",
        position(2),
        position(1)
    );
    assert!(text.starts_with(&expected), "{text}");
    target.sql("alter table t add column x int").await;
    target.wait(id, &target.log.end()).await;
    assert_eq!(target.table().await.len(), 3);
    assert_eq!((target.row(id, "state").await.as_str(), target.row(id, "message").await.as_str()), ("Running", ""));
    target.engine.close().await;
}

#[tokio::test]
async fn a_stream_stops_where_it_was_told_to() {
    let Some(target) = Target::open("stops").await else { return };
    let _source = target.source(100, TabletType::Replica).await;
    for n in 1..=5 {
        target.log.write(&[&format!("insert into t set id={n}, v='a'")]);
    }
    let stop = format!("'{}'", position(3));
    let id = target.stream(TABLES, &position(0), &[("stop_pos", &stop)]).await;
    target.wait(id, &position(3)).await;
    target.until_row(id, "state", |state| state == "Stopped").await;
    assert_eq!(target.row(id, "message").await, "Reached stopping position, done playing logs");
    assert_eq!((target.table().await.len(), target.row(id, "pos").await), (3, position(3)));
    let error = target
        .engine
        .wait_for_pos(id, &position(4), Instant::now() + Duration::from_secs(5))
        .await
        .expect_err("stopped");
    assert_eq!(
        error.message(),
        "replication has stopped at MariaDB/0-1-3 before reaching position MariaDB/0-1-4, message: Reached stopping position, done playing logs"
    );
    let restart = |pos: usize| {
        format!("update _vt.vreplication set state='Running', stop_pos='{}', message='' where id={id}", position(pos))
    };
    target.engine.exec(&restart(3)).await.expect("done");
    target.until_row(id, "state", |state| state == "Stopped").await;
    assert_eq!(
        target.row(id, "message").await,
        "not starting BinlogPlayer, we're already at the desired position MariaDB/0-1-3"
    );
    target.engine.exec(&restart(2)).await.expect("done");
    target.until_row(id, "state", |state| state == "Stopped").await;
    assert_eq!(
        target.row(id, "message").await,
        "starting point MariaDB/0-1-3 greater than stopping point MariaDB/0-1-2"
    );
    target
        .engine
        .exec(&format!("update _vt.vreplication set state='Running', stop_pos=NULL where id={id}"))
        .await
        .expect("done");
    target.wait(id, &position(5)).await;
    target.engine.close().await;
}

#[tokio::test]
async fn positions_without_rows_are_stored_when_somebody_waits() {
    let Some(target) = Target::open("empty").await else { return };
    let _source = target.source(100, TabletType::Replica).await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    for _ in 0..200 {
        target.log.write(&[]);
    }
    let at = target.log.end();
    target.wait(id, &at).await;
    assert_eq!(target.row(id, "pos").await, at);
    // And by itself after a while.
    let at = target.log.write(&[]);
    target.until_row(id, "pos", |pos| pos == at).await;
    // Waiting for what is yet to come ends when it comes.
    let waiting = {
        let (engine, next) = (target.engine.clone(), position(202));
        tokio::spawn(async move { engine.wait_for_pos(id, &next, Instant::now() + Duration::from_secs(20)).await })
    };
    until("somebody waits", async || !waiting.is_finished()).await;
    target.log.write(&[]);
    waiting.await.expect("no panic").expect("reached");
    target.engine.close().await;
}

#[tokio::test]
async fn statements_on_streams_do_what_they_say() {
    let Some(target) = Target::open("exec").await else { return };
    let _source = target.source(100, TabletType::Replica).await;
    let exec = async |sql: &str| target.engine.exec(sql).await;
    let stopped = target.stream(TABLES, &position(0), &[("state", "'Stopped'")]).await;
    let running = target.stream(TABLES, &position(0), &[]).await;
    assert!(running > stopped, "{running}, {stopped}");
    // Rows of another database are somebody else's.
    let other = Target {
        db: "another".into(),
        engine: target.engine.clone(),
        mysqld: target.mysqld.clone(),
        topo: target.topo.clone(),
        log: target.log.clone(),
    }
    .stream(TABLES, &position(0), &[])
    .await;
    target.wait(running, &target.log.write(&["insert into t set id=1, v='a'"])).await;
    assert_eq!((target.row(stopped, "pos").await, target.row(other, "pos").await), (position(0), position(0)));
    assert_eq!(target.engine.summary().0, 2);
    let error = target
        .engine
        .wait_for_pos(running + 100, &position(1), Instant::now() + Duration::from_secs(5))
        .await
        .expect_err("no stream");
    assert_eq!(error.message(), format!("vreplication stream {} not found", running + 100));

    let result =
        exec(&format!("update _vt.vreplication set state='Stopped', message='for split diff' where id={running}"))
            .await
            .expect("done");
    assert_eq!(result.rows_affected, 1);
    target.log.write(&["insert into t set id=2, v='b'"]);
    assert_eq!((target.row(running, "message").await.as_str(), target.table().await.len()), ("for split diff", 1));
    let result = exec("update _vt.vreplication set message='x' where id=-1").await.expect("nobody");
    assert_eq!(result.rows_affected, 0);
    let error = exec("update _vt.vreplication set nothing='x' where id > 0").await.expect_err("no column");
    assert!(error.message().contains("Unknown column 'nothing'"), "{error}");
    exec(&format!("update _vt.vreplication set state='Running' where id={running}")).await.expect("done");
    target.wait(running, &position(2)).await;
    let result = exec(&format!("select pos, stop_pos from _vt.vreplication where id={running}")).await.expect("rows");
    assert_eq!(rows(&result), [[position(2), "NULL".into()]]);

    target.sql(&format!("insert into _vt.copy_state values ({running}, 't', 'x')")).await;
    let result =
        exec(&format!("delete from _vt.vreplication where id in ({running}, {stopped}, {other})")).await.expect("done");
    assert_eq!((result.rows_affected, target.engine.summary().0), (3, 0));
    assert_eq!(cell(&exec("select count(*) from _vt.copy_state").await.expect("rows")), "0");
    let error = exec("drop table _vt.vreplication").await.expect_err("not allowed");
    assert_eq!(error.message(), "unsupported construct: drop table _vt.vreplication");
    target.engine.close().await;
}

#[tokio::test]
async fn tables_are_made_on_first_use() {
    let Some(mysqld) = Mysqld::start().map(Arc::new) else { return };
    let target = Target::over(mysqld, "first").await;
    target.sql("drop database _vt").await;
    let deadline = Instant::now() + Duration::from_secs(5);
    let error = target.engine.wait_for_pos(1, &position(1), deadline).await.expect_err("no table");
    assert_eq!(error.message(), "vreplication stream 1 not found");
    let _source = target.source(100, TabletType::Replica).await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    target.wait(id, &target.log.write(&["insert into t set id=1, v='a'"])).await;
    assert_eq!(rows(&target.engine.exec("select * from _vt.resharding_journal").await.expect("made")).len(), 0);
    target.engine.close().await;
    // A table of an old version gets the column that it lacks, and the table of even older ones goes.
    target.sql("alter table _vt.vreplication drop column db_name").await;
    target.sql("delete from _vt.vreplication").await;
    target.engine.open().await;
    let id = target.stream(TABLES, &position(1), &[]).await;
    target.wait(id, &target.log.write(&["insert into t set id=2, v='b'"])).await;
    target.engine.close().await;
    target.sql("drop table _vt.vreplication").await;
    target.sql("create table _vt.blp_checkpoint (x int)").await;
    target.engine.open().await;
    target.engine.exec("select * from _vt.vreplication").await.expect("made");
    assert_eq!(rows(&target.sql("show tables from _vt like 'blp%'").await).len(), 0);
    target.engine.close().await;
}

#[tokio::test]
async fn max_tps_paces_a_stream() {
    let Some(target) = Target::open("paced").await else { return };
    let _source = target.source(100, TabletType::Replica).await;
    for n in 1..=60 {
        target.log.write(&[&format!("insert into t set id={n}, v='a'")]);
    }
    let started = Instant::now();
    let id = target.stream(TABLES, &position(0), &[]).await;
    target.wait(id, &position(60)).await;
    let free = started.elapsed();
    let update = format!("update _vt.vreplication set max_tps=30 where id={id}");
    target.engine.exec(&update).await.expect("done");
    for n in 61..=120 {
        target.log.write(&[&format!("insert into t set id={n}, v='a'")]);
    }
    let started = Instant::now();
    target.wait(id, &position(120)).await;
    let paced = started.elapsed();
    assert!(paced > Duration::from_millis(1500), "{paced:?}, and {free:?} without a limit");
    target.engine.close().await;
}

/// The sources of these tests are replicas of the target's own shard.
#[tokio::test]
async fn a_stream_waits_for_replicas_that_are_too_far_behind() {
    let Some(target) = Target::open("lagging").await else { return };
    let source = target.source(100, TabletType::Replica).await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    let update = format!("update _vt.vreplication set max_replication_lag=5 where id={id}");
    target.engine.exec(&update).await.expect("done");
    target.wait(id, &target.log.write(&["insert into t set id=1, v='a'"])).await;
    source.lag(100, 6);
    // What was in its way already may still come; then nothing.
    let mut n = 1;
    until("the stream pauses", async || {
        n += 1;
        let at = target.log.write(&[&format!("insert into t set id={n}, v='a'")]);
        let deadline = Instant::now() + Duration::from_millis(300);
        target.engine.wait_for_pos(id, &at, deadline).await.is_err()
    })
    .await;
    assert_eq!(target.row(id, "state").await, "Running");
    assert!(target.table().await.len() < n);
    source.lag(100, 5);
    target.wait(id, &target.log.end()).await;
    assert_eq!(target.table().await.len(), n);
    target.engine.close().await;
}

#[tokio::test]
async fn ddl_is_applied_as_the_source_asks() {
    let Some(target) = Target::open("ddl").await else { return };
    let source = target.source(100, TabletType::Replica).await;
    let with = |on_ddl: &str| format!("{TABLES}on_ddl:{on_ddl} ");
    let id = target.stream(&with("EXEC"), &position(0), &[]).await;
    target.log.write(&["insert into t set id=1, v='a'"]);
    target.log.write(&["SET TIMESTAMP=5", "alter table t add column w int default 7"]);
    let at = target.log.write(&["insert into t set id=2, v='b', w=8"]);
    target.wait(id, &at).await;
    let seen = rows(&target.sql("select id, v, w from t order by id").await);
    assert_eq!(seen, [["1", "a", "7"], ["2", "b", "8"]]);
    // The source is asked again behind it: a pattern of the stream may name tables that it has made.
    assert_eq!(source.asked_on_ddl().len(), 2);
    // DDL that does not apply: the row says so, and EXEC_IGNORE passes it.
    target.log.write(&["alter table t drop column nowhere"]);
    let at = target.log.write(&["insert into t set id=3, v='c', w=9"]);
    target.until_row(id, "message", |message| message.contains("nowhere")).await;
    assert_eq!(target.row(id, "state").await, "Error");
    let source_text = with("EXEC_IGNORE").replace('\\', "\\\\");
    let update = format!("update _vt.vreplication set source='{source_text}' where id={id}");
    target.engine.exec(&update).await.expect("done");
    target.wait(id, &at).await;
    assert_eq!(target.table().await.len(), 3);
    let asked = source.asked_on_ddl();
    assert_eq!((asked.first(), asked.last()), (Some(&OnDdl::Exec), Some(&OnDdl::ExecIgnore)));
    // DDL may be where a stream is told to stop.
    let at = target.log.write(&["alter table t drop column w"]);
    let update = format!("update _vt.vreplication set stop_pos='{at}' where id={id}");
    target.engine.exec(&update).await.expect("done");
    target.until_row(id, "state", |state| state == "Stopped").await;
    assert_eq!(target.row(id, "pos").await, at);
    target.engine.close().await;
}

#[tokio::test]
async fn a_deadlock_is_run_again() {
    let Some(target) = Target::open("deadlock").await else { return };
    let _source = target.source(100, TabletType::Replica).await;
    target.sql("insert into t values (1, 'a'), (2, 'a')").await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    target.wait(id, &target.log.write(&[])).await;
    let mut conn = Connection::connect(&target.mysqld.params().database(&target.db)).await.expect("connected");
    // Weighs more than the stream's transaction, so that mysqld sacrifices that one.
    conn.execute("begin").await.expect("begin");
    conn.execute("insert into t select seq + 10, 'w' from seq_1_to_1000").await.expect("rows");
    conn.execute("update t set v='mine' where id=2").await.expect("locked");
    let at = target.log.write(&["update t set v='x' where id=1", "update t set v='y' where id=2"]);
    let waiting = "select count(*) from information_schema.processlist where db = database() and state = 'Updating' and time_ms > 20";
    until("the stream waits for the lock", async || cell(&target.sql(waiting).await) == "1").await;
    conn.execute("update t set v='mine' where id=1").await.expect("the stream lost");
    conn.execute("rollback").await.expect("rollback");
    target.wait(id, &at).await;
    assert_eq!(target.table().await, [["1", "x"], ["2", "y"]]);
    target.engine.close().await;
}

#[tokio::test]
async fn foreign_keys_cascade_and_do_not_hold_up() {
    let Some(target) = Target::open("fkeys").await else { return };
    let _source = target.source(100, TabletType::Replica).await;
    target
        .sql("create table c (id int primary key, t_id int, foreign key (t_id) references t (id) on delete cascade)")
        .await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    target.log.write(&["insert into t set id=1, v='a'", "insert into c set id=1, t_id=1"]);
    target.log.write(&["delete from t where id=1 and v='a'"]);
    // The source accepted this with checks off.
    target.wait(id, &target.log.write(&["insert into c set id=2, t_id=77"])).await;
    assert_eq!(rows(&target.sql("select id, t_id from c").await), [["2", "77"]]);
    assert_eq!(target.table().await.len(), 0);
    target.engine.close().await;
}

#[tokio::test]
async fn an_edit_interrupts_what_waits_for_a_lock() {
    let Some(target) = Target::open("interrupt").await else { return };
    let _source = target.source(100, TabletType::Replica).await;
    target.sql("insert into t values (1, 'a')").await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    target.wait(id, &target.log.write(&[])).await;
    let mut conn = Connection::connect(&target.mysqld.params().database(&target.db)).await.expect("connected");
    conn.execute("begin").await.expect("begin");
    conn.execute("update t set v='mine' where id=1").await.expect("locked");
    let at = target.log.write(&["update t set v='x' where id=1 and v='a'"]);
    let waiting = "select count(*) from information_schema.processlist where db = database() and state = 'Updating' and time_ms > 20";
    until("the stream waits for the lock", async || cell(&target.sql(waiting).await) == "1").await;
    target.engine.exec(&format!("update _vt.vreplication set state='Stopped' where id={id}")).await.expect("stopped");
    conn.execute("rollback").await.expect("rollback");
    // What was killed has left nothing, and its position says so.
    assert_eq!(
        (target.table().await, target.row(id, "pos").await),
        (vec![vec!["1".to_owned(), "a".into()]], position(1))
    );
    target.engine.exec(&format!("update _vt.vreplication set state='Running' where id={id}")).await.expect("started");
    target.wait(id, &at).await;
    assert_eq!(target.table().await, [["1", "x"]]);
    target.engine.close().await;
}

#[tokio::test]
async fn mysqld_may_die_at_any_time() {
    let Some(mysqld) = Mysqld::start().map(Arc::new) else { return };
    let target = Target::over(mysqld, "dies").await;
    let _source = target.source(100, TabletType::Replica).await;
    target.sql("create table log (id int auto_increment primary key, n int)").await;
    let id = target.stream("keyspace:\"commerce\" shard:\"0\" tables:\"log\" ", &position(0), &[]).await;
    for round in 0..3 {
        for n in 0..300 {
            target.log.write(&[&format!("insert into log set n={}", round * 300 + n)]);
        }
        until("rows arrive", async || cell(&target.sql("select count(*) from log").await) != (round * 300).to_string())
            .await;
        target.mysqld.kill();
        target.mysqld.restart();
    }
    target.wait(id, &target.log.end()).await;
    let counts = rows(&target.sql("select count(*), count(distinct n), max(n) from log").await);
    assert_eq!(counts, [["900", "900", "899"]]);
    target.engine.close().await;
}

/// Rows of one source transaction, which is a full one of the target.
const MANY: u32 = 5000;

/// Transaction `n`, from 1 on: new rows.
fn new_rows(n: u32) -> impl Iterator<Item = (bool, u32, String)> {
    ((n - 1) * MANY + 1..=n * MANY).map(|id| (false, id, format!("{id:090}")))
}

/// How many of a stream's lanes are there.
async fn lanes(target: &Target, id: i64) -> String {
    let lock = |lane: u32| format!("(is_used_lock('vreplication/{id}/{lane}') is not null)");
    cell(&target.sql(&format!("select {} + {}", lock(1), lock(2))).await)
}

#[tokio::test]
async fn full_transactions_overlap_and_commit_in_order() {
    let Some(target) = Target::open("overlap").await else { return };
    let _source = target.source(100, TabletType::Replica).await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    let mut at = String::new();
    for n in 1..=40 {
        at = target.log.write_rows(new_rows(n));
    }
    // Whoever looks sees what the source held at the stored position.
    let mut conn = Connection::connect(&target.mysqld.params().database(&target.db)).await.expect("connected");
    conn.execute("set session transaction isolation level repeatable read").await.expect("set");
    let mut seen = std::collections::BTreeSet::new();
    while seen.last() != Some(&40) {
        conn.execute("start transaction with consistent snapshot").await.expect("begin");
        let pos = cell(&conn.execute(&format!("select pos from _vt.vreplication where id = {id}")).await.expect("pos"));
        let count = cell(&conn.execute("select count(*) from t").await.expect("count"));
        conn.execute("commit").await.expect("commit");
        let n: u32 = pos.rsplit('-').next().and_then(|n| n.parse().ok()).expect("a position of ours");
        assert_eq!(count, (n * MANY).to_string(), "at {pos}");
        seen.insert(n);
    }
    target.wait(id, &at).await;
    assert_eq!(lanes(&target, id).await, "2");

    // The same rows again and again: in the order of the source.
    for n in 0..10 {
        at = target.log.write_rows((1..=MANY).map(|id| (true, id, format!("{n:090}"))));
    }
    target.wait(id, &at).await;
    let values = target.sql(&format!("select distinct v from t where id <= {MANY}")).await;
    assert_eq!(rows(&values), [[format!("{:090}", 9)]]);

    // One of them waits for a row too long, and is run again before those behind it.
    conn.execute("begin").await.expect("begin");
    conn.execute("update t set v = 'mine' where id = 7000").await.expect("locked");
    for n in 0..10 {
        let ids = (n % 5) * MANY + 1..=(n % 5 + 1) * MANY;
        at = target.log.write_rows(ids.map(|id| (true, id, format!("again{n:085}"))));
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    conn.execute("rollback").await.expect("rollback");
    target.wait(id, &at).await;
    let wrong = format!(
        "select count(*) from t where id <= {} and v <> concat('again', lpad(5 + (id - 1) div {MANY}, 85, '0'))",
        5 * MANY
    );
    assert_eq!(cell(&target.sql(&wrong).await), "0");
    target.engine.close().await;
    assert_eq!(lanes(&target, id).await, "0");
}

#[tokio::test]
async fn mysqld_may_die_while_transactions_overlap() {
    let Some(mysqld) = Mysqld::start().map(Arc::new) else { return };
    let target = Target::over(mysqld, "overlap_dies").await;
    let _source = target.source(100, TabletType::Replica).await;
    let id = target.stream(TABLES, &position(0), &[]).await;
    for round in 0..3 {
        for n in 1..=20 {
            target.log.write_rows(new_rows(round * 20 + n));
        }
        let arrived = |count: &str| count.parse::<u32>().is_ok_and(|count| count > (round * 20 + 2) * MANY);
        until("rows arrive", async || arrived(&cell(&target.sql("select count(*) from t").await))).await;
        target.mysqld.kill();
        target.mysqld.restart();
    }
    target.wait(id, &target.log.end()).await;
    let counts = rows(&target.sql("select count(*), sum(id = v), max(id) from t").await);
    assert_eq!(counts, [["300000", "300000", "300000"]]);
    target.engine.close().await;
}
