//! A cutover's gate on a real cluster: clients see latency, no error; nothing is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use mysql::{ConnectParams, Connection};
use tabletclient::{cutover::Cutover as _, tm::TabletManagerClient};
use testcluster::{Cluster, Flavor, Spec};
use vtproto::{cutover as pb, tabletmanagerdata as tmd, topodata::Tablet};

const WRITERS: u64 = 8;
const ROUNDS: u32 = 5;

fn master(cluster: &Cluster) -> Tablet {
    Tablet {
        hostname: "127.0.0.1".into(),
        port_map: [("grpc".to_owned(), i32::from(cluster.tablets[0].grpc_port))].into(),
        ..Tablet::default()
    }
}

fn cell(result: &vtproto::query::QueryResult) -> String {
    result.rows.first().map(|row| String::from_utf8_lossy(&row.values).into_owned()).unwrap_or_default()
}

/// What one writer was told is done.
#[derive(Default)]
struct Done {
    rows: u64,
    hot: u64,
    longest: Duration,
    transactions: Vec<Duration>,
}

/// Writes until it is stopped: single inserts, and transactions that it keeps open for a while.
async fn write(params: ConnectParams, number: u64, stop: Arc<AtomicBool>, next: Arc<AtomicU64>) -> Result<Done> {
    let mut conn = Connection::connect(&params).await?;
    let mut done = Done::default();
    let mut round = 0u64;
    while !stop.load(Ordering::Relaxed) {
        round += 1;
        let id = || next.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        let mut timed = async |sql: String| -> Result<()> {
            let started = Instant::now();
            conn.execute(&sql).await.with_context(|| format!("writer {number}: {sql}"))?;
            done.longest = done.longest.max(started.elapsed());
            Ok(())
        };
        if round.is_multiple_of(3) {
            timed("begin".into()).await?;
            timed(format!("insert into moving values ({}, {number})", id())).await?;
            // The first two writers keep theirs open for long, the others for a moment.
            let hold = if number < 2 { 200 * (round % 11) } else { round % 20 };
            tokio::time::sleep(Duration::from_millis(hold)).await;
            timed(format!("insert into moving values ({}, {number})", id())).await?;
            if number >= 2 {
                timed("update hot set n = n + 1 where id = 1".into()).await?;
            }
            timed("commit".into()).await?;
            done.rows += 2;
            done.hot += u64::from(number >= 2);
            done.transactions.push(begun.elapsed());
        } else {
            timed(format!("insert into moving values ({}, {number})", id())).await?;
            done.rows += 1;
        }
    }
    Ok(done)
}

/// Gate, drain, fence and release again and again while clients write, some in transactions of up to two
/// seconds: no client sees an error, what is acknowledged is there, and behind the fence nothing moves.
#[test]
fn writers_wait_and_lose_nothing() -> Result<()> {
    let mut spec = Spec::single(Flavor::MariaDb);
    spec.schema = vec![(
        "commerce".into(),
        "create table moving(id bigint primary key, w bigint); create table hot(id bigint primary key, n bigint)"
            .into(),
    )];
    spec.vschema = vec![("commerce".into(), r#"{"tables": {"moving": {}, "hot": {}}}"#.into())];
    let cluster = Cluster::start(spec)?;
    cluster.mysql(&["commerce"], "insert into hot values (1, 0)")?.success()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let params = ConnectParams::unix(cluster.mysql_socket(), "root").database("commerce");
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(1)));
        let writers: Vec<_> =
            (0..WRITERS).map(|n| tokio::spawn(write(params.clone(), n, stop.clone(), next.clone()))).collect();
        let (client, source) = (TabletManagerClient::new(Default::default()), master(&cluster));
        let tables = vec!["moving".to_owned(), "hot".to_owned()];
        let mut refused = 0;
        for round in 0..ROUNDS {
            // Some writes in between.
            let before = next.load(Ordering::Relaxed);
            while next.load(Ordering::Relaxed) < before + 100 {
                ensure!(!writers.iter().any(|writer| writer.is_finished()), "a writer has stopped");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            let id = format!("round-{round}");
            let started = Instant::now();
            let gate = pb::GateRequest { id: id.clone(), tables: tables.clone(), ttl_ms: 20_000, others_follow: false };
            client.gate(&source, gate).await?;
            let drained = client.drain(&source, pb::DrainRequest { id: id.clone(), timeout_ms: 10_000 }).await?;
            ensure!(drained.drained && drained.killed == 0, "{drained:?}");
            let fence = pb::FenceRequest { id: id.clone(), read_only: round % 2 == 1 };
            let fenced = client.fence(&source, fence).await?;
            ensure!(fenced.read_only_set == (round % 2 == 1));
            use tabletclient::tm::TabletManager as _;
            client.refresh_state(&source, tmd::RefreshStateRequest {}).await?;
            let last = client.master_position(&source, tmd::MasterPositionRequest {}).await?.position;
            ensure!(last == fenced.position, "written behind the fence: {} -> {last}", fenced.position);
            let release = pb::ReleaseRequest { id, read_write: fenced.read_only_set };
            let released = client.release(&source, release).await?;
            ensure!(released.released);
            refused += released.refused;
            println!("round {round}: {:?}, drained in {} ms, {released:?}", started.elapsed(), drained.waited_ms);
        }
        stop.store(true, Ordering::Relaxed);
        let (mut rows, mut hot, mut longest, mut longest_transaction) = (0, 0, Duration::ZERO, Duration::ZERO);
        for writer in writers {
            let done = writer.await??;
            rows += done.rows;
            hot += done.hot;
            longest = longest.max(done.longest);
            longest_transaction = longest_transaction.max(done.transactions.into_iter().max().unwrap_or_default());
        }
        println!(
            "{rows} rows, {hot} hot updates, longest stall {longest:?}, longest transaction {longest_transaction:?}"
        );
        let mut conn = Connection::connect(&params).await?;
        ensure!(cell(&conn.execute("select count(*) from moving").await?) == rows.to_string());
        ensure!(cell(&conn.execute("select n from hot").await?) == hot.to_string());
        ensure!(refused > 0, "the gate has held somebody back");
        let buffered = cluster.debug_var(cluster.vtgate_http_port, "CutoverBuffered")?;
        ensure!(buffered.as_i64().is_some_and(|n| n > 0), "{buffered}");
        ensure!(cluster.debug_var(cluster.vtgate_http_port, "CutoverBufferWaiting")? == 0);
        Ok(())
    })
}

/// A coordinator that dies with the gate held does not keep clients waiting: they get their answer.
#[test]
fn a_dead_coordinator_lets_go() -> Result<()> {
    let cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let (client, source) = (TabletManagerClient::new(Default::default()), master(&cluster));
        let gate = pb::GateRequest { id: "dead".into(), tables: vec![], ttl_ms: 1500, others_follow: false };
        client.gate(&source, gate).await?;
        let params = ConnectParams::unix(cluster.mysql_socket(), "root").database("commerce");
        let mut conn = Connection::connect(&params).await?;
        conn.execute("insert into product values ('a', 'b', 1)").await?;
        let status = client.status(&source, pb::StatusRequest {}).await?;
        ensure!(status.id.is_empty(), "{status:?}");
        ensure!(cell(&conn.execute("select count(*) from product").await?) == "1");
        Ok(())
    })
}
