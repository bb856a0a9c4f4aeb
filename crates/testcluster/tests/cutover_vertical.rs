//! MigrateServedFrom of MASTER on a real cluster: back and forth under load, from wherever vtctld died.
//!
//! The tables are empty when they are split, so that a stream from the present position is all that a
//! VerticalSplitClone would leave.

mod kills;
mod load;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use load::{Load, ok};
use testcluster::{Cluster, Finished, Flavor, Spec, TabletSpec, Victim, wait_for};

const COMMERCE: usize = 0;
const CUSTOMER: usize = 2;

/// `customer` and `corder` split from commerce to customer; replicas have moved, MASTER has not.
fn split(flavor: Flavor) -> Result<Cluster> {
    let mut spec = Spec::walkthrough(flavor);
    let tablet = |uid, keyspace: &str| TabletSpec::new(uid, keyspace, "0", "replica");
    spec.tablets = vec![tablet(100, "commerce"), tablet(101, "commerce")];
    let tables = |sql: &str| sql.split(';').filter(|one| !one.contains("product")).collect::<Vec<_>>().join(";");
    let schema = tables(&spec.schema[0].1);
    // A vtctld that is killed leaves its locks for so long.
    let spec = spec.vtctld_flag("-topo_etcd_lease_ttl=2").vtgate_flag("-tablet_refresh_interval=1s");
    let mut cluster = Cluster::start(spec)?;
    ok(&cluster, &["CreateKeyspace", "-served_from=master:commerce,replica:commerce,rdonly:commerce", "customer"])?;
    cluster.add_tablets(vec![tablet(200, "customer"), tablet(201, "customer")])?;
    ok(&cluster, &["ApplySchema", "-sql", &schema, "customer"])?;
    ok(&cluster, &["ApplyVSchema", "-vschema", r#"{"tables": {"product": {}}}"#, "commerce"])?;
    ok(&cluster, &["ApplyVSchema", "-vschema", r#"{"tables": {"customer": {}, "corder": {}}}"#, "customer"])?;
    let position = load::master_position(&cluster, "commerce/0")?;
    let insert = format!(
        "insert into _vt.vreplication (workflow, source, pos, max_tps, max_replication_lag, time_updated, transaction_timestamp, state, db_name) \
         values ('SplitClone', 'keyspace:\"commerce\" shard:\"0\" tables:\"customer\" tables:\"corder\" ', '{position}', 9223372036854775807, 9223372036854775807, 0, 0, 'Running', 'vt_customer')"
    );
    ok(&cluster, &["VReplicationExec", &cluster.tablets[CUSTOMER].spec.alias(), &insert])?;
    ok(&cluster, &["SourceShardAdd", "--tables=customer,corder", "customer/0", "1", "commerce/0"])?;
    ok(&cluster, &["RefreshState", &cluster.tablets[CUSTOMER].spec.alias()])?;
    for served_type in ["rdonly", "replica"] {
        ok(&cluster, &["MigrateServedFrom", "customer/0", served_type])?;
    }
    // Only now does vtgate know the keyspace by its redirection.
    wait_for("vtgate to follow the redirection", Duration::from_secs(20), || {
        cluster.mysql(&["customer"], "select count(*) from customer").is_ok_and(|done| done.code == Some(0))
    })?;
    wait_for("vtgate to know the new tablets", Duration::from_secs(20), || {
        cluster.mysql(&[], "show vitess_tablets").is_ok_and(|seen| seen.stdout.contains("0000000200"))
    })?;
    for sql in load::hot_rows() {
        cluster.mysql(&["customer"], &sql)?.success()?;
    }
    Ok(cluster)
}

const THERE: &[&str] = &["MigrateServedFrom", "-reverse_replication", "customer/0", "master"];
const BACK: &[&str] = &["MigrateServedFrom", "-reverse", "customer/0", "master"];

/// Every row is where the clients' accounts say, on the master that serves.
fn check(cluster: &Cluster, serving: usize, outcome: &load::Outcome) -> Result<()> {
    let database = if serving == COMMERCE { "vt_commerce" } else { "vt_customer" };
    let customers = cluster.mysql_on_tablet(serving, &format!("select customer_id from {database}.customer"))?;
    let orders = cluster.mysql_on_tablet(serving, &format!("select order_id, price from {database}.corder"))?;
    outcome.expect_rows(&customers.stdout, &orders.stdout)
}

/// Both sides hold the same once the stream back has caught up.
fn sides_agree(cluster: &Cluster) -> Result<()> {
    let sums = |index: usize, database: &str| -> Result<String> {
        let sql = format!("checksum table {database}.customer, {database}.corder");
        let seen = cluster.mysql_on_tablet(index, &sql)?.stdout;
        Ok(seen.lines().filter_map(|line| line.split_once('\t')).map(|(_, sum)| format!("{sum} ")).collect())
    };
    wait_for(
        "both sides to hold the same",
        Duration::from_secs(30),
        || matches!((sums(COMMERCE, "vt_commerce"), sums(CUSTOMER, "vt_customer")), (Ok(a), Ok(b)) if a == b),
    )
}

fn switches_under_load(flavor: Flavor) -> Result<()> {
    // Twenty in a row with VT_TEST_SWITCHES=20.
    let asked: Option<usize> = std::env::var("VT_TEST_SWITCHES").ok().and_then(|n| n.parse().ok());
    let rounds = asked.unwrap_or(6) / 2;
    let cluster = split(flavor)?;
    let load = Load::start(cluster.vtgate_mysql_port, 8, 4)?;
    load.wait_for_more(200)?;
    let mut switches = Vec::new();
    for _ in 0..rounds {
        for command in [THERE, BACK] {
            let start = Instant::now();
            let receipt = ok(&cluster, command)?;
            switches.push((start, Instant::now()));
            ensure!(receipt.starts_with("MASTER was moved from "), "{receipt}");
            println!("{receipt}");
            load.wait_for_more(200)?;
        }
    }
    let start = Instant::now();
    println!("{}", ok(&cluster, THERE)?);
    switches.push((start, Instant::now()));
    load.wait_for_more(200)?;
    // What a measurement is to be compared with.
    let without = asked.map(|_| load.periods_without(&switches)).transpose()?;
    let outcome = load.finish()?;
    if let Some(without) = without {
        outcome.print_longest("period without a switch", &without);
    }
    outcome.print_stalls(&switches);
    outcome.expect_no_errors()?;
    check(&cluster, CUSTOMER, &outcome)?;
    sides_agree(&cluster)?;
    // Queries of the old place are told so.
    let denied = cluster.mysql(&["commerce"], "select count(*) from customer")?;
    ensure!(denied.stderr.contains("disallowed due to rule: enforce blacklisted tables"), "{denied:?}");
    Ok(())
}

#[test]
fn rows_survive_switches_under_load() -> Result<()> {
    switches_under_load(Flavor::MariaDb)
}

#[test]
fn rows_survive_switches_under_load_on_mysql9() -> Result<()> {
    match Flavor::mysql9() {
        Some(flavor) => switches_under_load(flavor),
        None => Ok(()),
    }
}

/// Runs a command with a vtctld that dies at a point, and again with one that does not.
fn die_and_repeat(cluster: &mut Cluster, point: &str, command: &[&str]) -> Result<Finished> {
    cluster.kill_vtctld();
    cluster.start_vtctld_with(&[("VT_FAILPOINTS", &format!("{point}=kill"))])?;
    let dead = cluster.vtctlclient(command)?;
    ensure!(dead.code != Some(0), "vtctld did not die at {point}: {dead:?}");
    cluster.kill_vtctld();
    cluster.start_vtctld()?;
    cluster.vtctlclient(command)?.success().with_context(|| format!("after a death at {point}"))
}

/// vtctld is killed behind every phase, in both directions; the same command finishes, nothing is lost.
#[test]
fn vtctld_killed_at_every_phase() -> Result<()> {
    let mut cluster = split(Flavor::MariaDb)?;
    let load = Load::start(cluster.vtgate_mysql_port, 3, 1)?;
    for point in wrangler::CUTOVER_POINTS {
        for command in [THERE, BACK] {
            load.wait_for_more(20)?;
            die_and_repeat(&mut cluster, point, command)?;
        }
    }
    let outcome = load.finish()?;
    check(&cluster, COMMERCE, &outcome)?;
    sides_agree(&cluster)?;
    outcome.expect_no_errors()
}

/// A transaction that is open when the switch begins commits and is not lost; one that stays open is
/// killed at the deadline, and its client is told.
#[test]
fn open_transactions_commit_or_are_killed() -> Result<()> {
    let cluster = split(Flavor::MariaDb)?;
    let port = cluster.vtgate_mysql_port;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let begun = |id: u64| {
        let params = mysql::ConnectParams::tcp("127.0.0.1", port, "test").database("customer");
        runtime.block_on(async move {
            let mut connection = mysql::Connection::connect(&params).await?;
            connection.execute("begin").await?;
            connection.execute(&format!("insert into customer(customer_id, email) values({id}, 'open')")).await?;
            anyhow::Ok(connection)
        })
    };
    let (mut quick, mut slow) = (begun(77)?, begun(78)?);
    let switch = std::thread::scope(|scope| {
        let switch = scope.spawn(|| {
            cluster.vtctlclient(&[
                "MigrateServedFrom",
                "-reverse_replication",
                "-drain_timeout=4s",
                "customer/0",
                "master",
            ])
        });
        // New work is held back by now; the transaction from before goes on.
        wait_for("the switch to drain", Duration::from_secs(30), || {
            let journal = "/keyspaces/customer/cutovers/0/Cutover";
            cluster
                .vtctlclient(&["TopoCat", "-decode_proto", journal])
                .is_ok_and(|seen| seen.stdout.contains("phase: PHASE_DRAINED"))
        })?;
        runtime.block_on(async {
            quick.execute("insert into corder(order_id, customer_id, sku, price) values(77, 77, 's', 1)").await?;
            quick.execute("commit").await
        })?;
        let switch = switch.join().expect("no panic")?;
        anyhow::Ok(switch.success()?.stdout)
    })?;
    ensure!(switch.contains("transactions killed:  1"), "{switch}");
    let told = runtime.block_on(async {
        match slow.execute("insert into corder(order_id, customer_id, sku, price) values(78, 78, 's', 1)").await {
            Ok(_) => slow.execute("commit").await.map(drop),
            Err(error) => Err(error),
        }
    });
    ensure!(told.is_err(), "a killed transaction commits");
    let rows = cluster
        .mysql_on_tablet(CUSTOMER, "select customer_id from vt_customer.customer where customer_id in (77, 78)")?;
    ensure!(rows.stdout.trim() == "77", "{}", rows.stdout);
    Ok(())
}

/// DDL at the source stops the stream; one that asks for it (`on_ddl:EXEC`) applies it and goes on.
#[test]
fn ddl_of_the_source_stops_or_is_applied() -> Result<()> {
    let cluster = split(Flavor::MariaDb)?;
    let row = || {
        let sql = "select state, message from _vt.vreplication where id = 1";
        cluster.mysql_on_tablet(CUSTOMER, sql).map(|seen| seen.stdout).unwrap_or_default()
    };
    ok(&cluster, &["ApplySchema", "-sql", "alter table customer add column note varchar(10)", "commerce"])?;
    wait_for("the stream to stop at the DDL", Duration::from_secs(30), || {
        row().starts_with("Error\t") && row().contains("DDL on a streamed table: alter table")
    })
    .with_context(row)?;
    let insert = "insert into customer(customer_id, email, note) values(50, 'fifty', 'new')";
    cluster.mysql(&["customer"], insert)?.success()?;
    let exec = "update _vt.vreplication set source='keyspace:\"commerce\" shard:\"0\" tables:\"customer\" tables:\"corder\" on_ddl:EXEC ' where id = 1";
    ok(&cluster, &["VReplicationExec", &cluster.tablets[CUSTOMER].spec.alias(), exec])?;
    wait_for("the row behind the DDL", Duration::from_secs(30), || {
        let sql = "select note from vt_customer.customer where customer_id = 50";
        cluster.mysql_on_tablet(CUSTOMER, sql).is_ok_and(|seen| seen.stdout.trim() == "new")
    })
    .with_context(row)?;
    ensure!(row().starts_with("Running\t"), "{}", row());
    Ok(())
}

/// Cancelled before the flip, everything is as before and the next switch works.
#[test]
fn cancelled_before_the_flip() -> Result<()> {
    let mut cluster = split(Flavor::MariaDb)?;
    let load = Load::start(cluster.vtgate_mysql_port, 3, 1)?;
    for point in ["cutover.gated", "cutover.fenced", "cutover.prepared"] {
        load.wait_for_more(50)?;
        cluster.kill_vtctld();
        cluster.start_vtctld_with(&[("VT_FAILPOINTS", &format!("{point}=kill"))])?;
        ensure!(cluster.vtctlclient(THERE)?.code != Some(0), "vtctld did not die at {point}");
        cluster.kill_vtctld();
        cluster.start_vtctld()?;
        let cancelled = ok(&cluster, &["MigrateServedFrom", "-cancel", "customer/0", "master"])?;
        ensure!(cancelled.contains("was cancelled: the sources serve"), "{cancelled}");
    }
    load.wait_for_more(50)?;
    ok(&cluster, THERE)?;
    load.wait_for_more(50)?;
    let outcome = load.finish()?;
    check(&cluster, CUSTOMER, &outcome)?;
    outcome.expect_no_errors()
}

/// The source's tablet dies behind its fence: clients are served there again once it is back, without another command.
#[test]
fn a_source_that_died_serves_again_by_itself() -> Result<()> {
    let mut cluster = split(Flavor::MariaDb)?;
    let load = Load::start(cluster.vtgate_mysql_port, 3, 1)?;
    load.wait_for_more(20)?;
    let there = kills::Switch { command: THERE, source: COMMERCE, destination: CUSTOMER };
    let failed = kills::strike_once(&mut cluster, Victim::Vttablet(COMMERCE), "cutover.caught_up", &there)?;
    ensure!(failed.code != Some(0), "a switch without its source's fence: {failed:?}");
    ensure!(failed.stderr.contains("is still fenced") || failed.stderr.contains("has lost its fence"), "{failed:?}");
    load.wait_for_more(20).with_context(|| format!("clients are not served again: {failed:?}"))?;
    let outcome = load.finish()?;
    check(&cluster, COMMERCE, &outcome)
}

/// Any process is killed at any phase: the command, run again, finishes, and nothing is lost.
#[test]
fn processes_killed_at_phases() -> Result<()> {
    let mut cluster = split(Flavor::MariaDb)?;
    let load = Load::start(cluster.vtgate_mysql_port, 3, 1)?;
    let there = kills::Switch { command: THERE, source: COMMERCE, destination: CUSTOMER };
    let back = kills::Switch { command: BACK, source: CUSTOMER, destination: COMMERCE };
    let mut serving = COMMERCE;
    for (victim, point, switch) in kills::table(&there, &back) {
        load.wait_for_more(20)?;
        kills::strike(&mut cluster, victim, point, switch)?;
        serving = switch.destination;
        load.wait_for_more(20)
            .with_context(|| format!("clients are not served again: {victim:?} killed at {point}"))?;
    }
    let outcome = load.finish()?;
    println!("{} client errors", outcome.errors.len());
    check(&cluster, serving, &outcome)?;
    sides_agree(&cluster)
}
