//! Sequences under several vtgates and clients, while their master changes and crashes.
//!
//! What clients were told is compared with what is stored: no value was given twice, each client's values increase,
//! and `last_insert_id()` is the first value of its statement.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mysql::{ConnectParams, Connection};
use testcluster::{Cluster, Flavor, Spec, TabletSpec, wait_for};

const MAIN: &str = "
create table t_seq(id int, next_id bigint, cache bigint, primary key(id)) comment 'vitess_sequence';
insert into t_seq(id, next_id, cache) values(0, 1, 7);
create table source(n int, primary key(n));
";
const MAIN_VSCHEMA: &str = r#"{"tables": {"t_seq": {"type": "sequence"}, "source": {}}}"#;
const MANY: &str = "create table t(id bigint, token bigint, primary key(id), key(token));";
const MANY_VSCHEMA: &str = r#"{"sharded": true, "vindexes": {"hash": {"type": "hash"}}, "tables": {"t": {
    "column_vindexes": [{"column": "id", "name": "hash"}], "auto_increment": {"column": "id", "sequence": "t_seq"}}}}"#;

/// Clients of each vtgate.
const CLIENTS: u64 = 3;
/// Ids that clients give themselves start here.
const OWN_IDS: u64 = 1_000_000_000;

fn start(flavor: Flavor) -> Result<Cluster> {
    let tablets = vec![
        TabletSpec::new(100, "main", "0", "replica"),
        TabletSpec::new(101, "main", "0", "replica"),
        TabletSpec::new(200, "many", "-80", "replica"),
        TabletSpec::new(300, "many", "80-", "replica"),
    ];
    let mut spec = Spec::keyspaces(flavor, tablets);
    spec.schema = vec![("main".into(), MAIN.into()), ("many".into(), MANY.into())];
    spec.vschema = vec![("main".into(), MAIN_VSCHEMA.into()), ("many".into(), MANY_VSCHEMA.into())];
    Cluster::start(spec)
}

/// What one client was told.
#[derive(Debug, Default)]
struct Told {
    /// First generated value and number of generated values of each acknowledged INSERT.
    inserted: Vec<(u64, u64)>,
    /// The same of `select next n values`.
    selected: Vec<(u64, u64)>,
    errors: Vec<String>,
}

fn column(result: &vtproto::query::QueryResult) -> Result<Vec<u64>> {
    result.rows.iter().map(|row| Ok(String::from_utf8_lossy(&row.values).parse()?)).collect()
}

/// One statement of a client, whose rows carry `token`; its values in the order of the statement.
async fn step(connection: &mut Connection, token: u64, told: &mut Told) -> Result<()> {
    let own = OWN_IDS + token;
    let (sql, generated) = match token % 6 {
        0 => (format!("insert into t(token) values ({token})"), 1),
        1 => (format!("insert into t(token) values ({token}), ({token}), ({token})"), 3),
        2 => (format!("insert into t(id, token) values (null, {token}), ({own}, {token}), (0, {token})"), 2),
        3 => (format!("insert into t(token) select {token} from main.source"), 4),
        4 => (format!("insert into t(id, token) values (null, {token})"), 1),
        _ => {
            let first = column(&connection.execute("select next 5 values from main.t_seq").await?)?;
            told.selected.push((first[0], 5));
            return Ok(());
        }
    };
    let ok = connection.execute(&sql).await?;
    told.inserted.push((ok.insert_id, generated));
    let last = column(&connection.execute("select last_insert_id()").await?)?;
    ensure!(last == [ok.insert_id], "{sql}: last_insert_id() is {last:?}, the statement said {}", ok.insert_id);
    let stored = column(&connection.execute(&format!("select id from t where token = {token} order by id")).await?)?;
    let want: Vec<u64> = (0..generated).map(|n| ok.insert_id + n).chain((token % 6 == 2).then_some(own)).collect();
    ensure!(stored == want, "{sql}: {stored:?} is stored, {want:?} was said");
    Ok(())
}

/// Inserts until it is told to stop. Errors of MySQL's protocol are noted; wrong answers end it.
async fn client(port: u16, number: u64, stop: &AtomicBool, done: &AtomicU64) -> Result<Told> {
    let params = ConnectParams::tcp("127.0.0.1", port, "test").database("many");
    let mut told = Told::default();
    let mut connection = Connection::connect(&params).await?;
    let mut token = number * 100_000;
    while !stop.load(Ordering::Relaxed) {
        token += 1;
        match step(&mut connection, token, &mut told).await {
            Ok(()) => {
                done.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) if error.downcast_ref::<mysql::ClientError>().is_some() => {
                told.errors.push(error.to_string());
                if connection.is_broken() {
                    connection = Connection::connect(&params).await?;
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(told)
}

/// The faults, with work done between them.
fn faults(cluster: &mut Cluster, done: &AtomicU64) -> Result<()> {
    let more = |what: &str| {
        let before = done.load(Ordering::Relaxed);
        wait_for(what, Duration::from_secs(90), || done.load(Ordering::Relaxed) >= before + 60)
    };
    more("statements at first")?;
    let reparent = |cluster: &Cluster, to: &str| {
        cluster
            .vtctlclient(&["PlannedReparentShard", "-keyspace_shard", "main/0", "-new_master", to])
            .and_then(testcluster::Finished::success)
    };
    reparent(cluster, "zone1-0000000101")?;
    more("statements after a planned reparent")?;
    cluster.kill_vttablet(1);
    cluster.start_vttablet(1)?;
    more("statements after a crash of the master tablet")?;
    cluster.kill_mysqld(1)?;
    cluster.start_mysqld(1)?;
    more("statements after a crash of the master's mysqld")?;
    reparent(cluster, "zone1-0000000100")?;
    more("statements after the way back")
}

#[test]
fn values_are_unique_and_increase_through_faults() -> Result<()> {
    values_through_faults(Flavor::MariaDb)
}

#[test]
fn values_are_unique_and_increase_through_faults_on_mysql9() -> Result<()> {
    Flavor::mysql9().map_or(Ok(()), values_through_faults)
}

fn values_through_faults(flavor: Flavor) -> Result<()> {
    let mut cluster = start(flavor)?;
    cluster.mysql(&[], "insert into main.source values (1), (2), (3), (4)")?.success()?;
    let (_second, second_port) = cluster.another_vtgate()?;
    let ports = [cluster.vtgate_mysql_port, second_port];
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let (stop, done) = (&stop, &done);
    let told: Vec<Told> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS * 2)
            .map(|number| {
                let port = ports[usize::try_from(number % 2).unwrap_or(0)];
                scope.spawn(move || -> Result<Told> {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                    runtime.block_on(client(port, number + 1, stop, done))
                })
            })
            .collect();
        let outcome = faults(&mut cluster, done);
        stop.store(true, Ordering::Relaxed);
        let told: Result<Vec<Told>> =
            clients.into_iter().map(|client| client.join().expect("a client does not panic")).collect();
        // A client's complaint says more than that there was no progress.
        let told = told?;
        outcome?;
        anyhow::Ok(told)
    })?;
    let mut given = BTreeSet::new();
    for (number, client) in told.iter().enumerate() {
        for (first, count) in client.inserted.iter().chain(&client.selected) {
            for value in *first..first + count {
                ensure!(given.insert(value), "client {number}: {value} was given twice");
            }
        }
        for (kind, list) in [("insert", &client.inserted), ("select next", &client.selected)] {
            ensure!(list.is_sorted_by(|a, b| a.0 + a.1 <= b.0), "client {number}: {kind}: {list:?}");
        }
    }
    let inserted: u64 = told.iter().flat_map(|client| &client.inserted).map(|(_, count)| count).sum();
    let errors: Vec<&String> = told.iter().flat_map(|client| &client.errors).collect();
    println!("{inserted} rows, {} values, {} errors: {:?}", given.len(), errors.len(), errors.first());
    // Each value on one shard at most.
    let ids = cluster.mysql(&["--skip-table", "--batch", "--skip-column-names"], "use many; select id from t")?;
    let ids = ids.success()?.stdout;
    let ids: Vec<u64> = ids.lines().map(|line| line.parse().context("an id")).collect::<Result<_>>()?;
    let distinct: BTreeSet<u64> = ids.iter().copied().collect();
    ensure!(distinct.len() == ids.len(), "an id is stored twice");
    ensure!(
        told.iter()
            .flat_map(|client| &client.inserted)
            .all(|(first, count)| (*first..first + count).all(|id| distinct.contains(&id))),
        "an acknowledged row is missing"
    );
    Ok(())
}
