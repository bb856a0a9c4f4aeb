//! Clients that write while the master of their shard changes: with `-enable_buffer` they wait and see no error.

mod load;

use anyhow::{Result, ensure};
use load::{Load, Outcome, hot_rows, ok};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use testcluster::{Cluster, Flavor, Spec, TabletSpec, wait_for};

const SCHEMA: &str = "create table customer(customer_id bigint primary key, email varchar(64)); \
                      create table corder(order_id bigint primary key, customer_id bigint, sku varchar(32), price bigint)";

/// One shard of two replicas and an rdonly beside the master, and a vtgate that buffers.
fn shard(flavor: Flavor) -> Result<Cluster> {
    let tablet = |uid, tablet_type| TabletSpec::new(uid, "customer", "0", tablet_type);
    let tablets = vec![tablet(100, "replica"), tablet(101, "replica"), tablet(102, "replica"), tablet(103, "rdonly")];
    let mut spec = Spec::keyspaces(flavor, tablets);
    spec.semi_sync = true;
    spec.schema = vec![("customer".into(), SCHEMA.into())];
    spec.vschema = vec![("customer".into(), r#"{"tables": {"customer": {}, "corder": {}}}"#.into())];
    let spec = spec
        .vtgate_flag("-enable_buffer")
        .vtgate_flag("-buffer_size=100")
        .vtgate_flag("-buffer_min_time_between_failovers=1ms")
        .vttablet_flag("-queryserver-config-transaction-cap=50");
    let cluster = Cluster::start(spec)?;
    for row in hot_rows() {
        cluster.mysql(&["customer"], &row)?.success()?;
    }
    Ok(cluster)
}

fn rows(cluster: &Cluster, index: usize, sql: &str) -> Result<String> {
    Ok(cluster.mysql_on_tablet(index, sql)?.stdout)
}

/// Mastership goes round while clients write: nobody sees an error, nothing is lost or there twice.
fn planned(flavor: Flavor) -> Result<()> {
    let cluster = shard(flavor)?;
    let load = Load::start(cluster.vtgate_mysql_port, 8, 4)?;
    load.wait_for_more(200)?;
    let mut switches = Vec::new();
    for uid in [101, 102, 100, 101] {
        let start = Instant::now();
        ok(&cluster, &["PlannedReparentShard", "-keyspace_shard=customer/0", &format!("-new_master=zone1-{uid}")])?;
        switches.push((start, Instant::now()));
        load.wait_for_more(200)?;
    }
    let outcome = load.finish()?;
    outcome.print_stalls(&switches);
    outcome.expect_no_errors()?;
    let customers = rows(&cluster, 1, "select customer_id from vt_customer.customer")?;
    let orders = rows(&cluster, 1, "select order_id, price from vt_customer.corder")?;
    outcome.expect_rows(&customers, &orders)?;
    let stops = cluster.debug_var(cluster.vtgate_http_port, "BufferStops")?;
    ensure!(stops["customer.0.NewMasterSeen"].as_i64() >= Some(1), "{stops}");
    ensure!(stops["customer.0.MaxDurationExceeded"] == 0, "{stops}");
    Ok(())
}

/// What was acknowledged is there. What broke under a statement may have happened or not: one row for each error.
fn expect_acknowledged(outcome: &Outcome, customers: &str) -> Result<()> {
    let seen: BTreeSet<u64> = customers.lines().filter_map(|line| line.trim().parse().ok()).collect();
    let lost = outcome.customers.difference(&seen).count();
    let more = seen.difference(&outcome.customers).count();
    ensure!(lost + more <= outcome.errors.len(), "{lost} lost, {more} more with {} errors", outcome.errors.len());
    Ok(())
}

/// The master dies with its machine while clients write. A statement that was on its way has an unknown outcome, which its
/// client is told; everything else waits for the new master.
fn emergency(flavor: Flavor) -> Result<()> {
    let mut cluster = shard(flavor)?;
    let load = Load::start(cluster.vtgate_mysql_port, 8, 4)?;
    load.wait_for_more(200)?;
    let start = Instant::now();
    cluster.kill_vttablet(0);
    cluster.kill_mysqld(0)?;
    // A replica may have received what the other has not: the one with more becomes master.
    let promote = |uid: u32| {
        cluster.vtctlclient(&[
            "EmergencyReparentShard",
            "-keyspace_shard=customer/0",
            &format!("-new_master=zone1-{uid}"),
        ])
    };
    let first = promote(101)?;
    let master = if first.code == Some(0) {
        1
    } else {
        ensure!(first.stderr.contains("more advanced"), "{first:?}");
        promote(102)?.success()?;
        2
    };
    let switch = (start, Instant::now());
    load.wait_for_more(400)?;
    let outcome = load.finish()?;
    outcome.print_stalls(&[switch]);
    // The connection broke under the statement, or an open transaction was at the dead tablet.
    let told =
        |error: &str| error.contains("transport is closing") || error.contains("SubConns are in TransientFailure");
    let other: Vec<_> = outcome.errors.iter().filter(|error| !told(error)).take(5).collect();
    ensure!(other.is_empty(), "{} errors, such as {other:#?}", outcome.errors.len());
    ensure!(outcome.errors.len() <= 8, "one for each writer at most: {:#?}", outcome.errors);
    ensure!(
        !outcome.errors.iter().any(|error| error.starts_with("select")),
        "a read is asked again: {:#?}",
        outcome.errors
    );
    expect_acknowledged(&outcome, &rows(&cluster, master, "select customer_id from vt_customer.customer")?)?;
    wait_for("everybody to follow", Duration::from_secs(30), || {
        cluster.vtctlclient(&["Validate", "-ping-tablets"]).is_ok_and(|done| done.code == Some(0))
    })
}

#[test]
fn planned_mariadb() -> Result<()> {
    planned(Flavor::MariaDb)
}

#[test]
fn planned_mysql9() -> Result<()> {
    match Flavor::mysql9() {
        Some(flavor) => planned(flavor),
        None => Ok(()),
    }
}

#[test]
fn emergency_mariadb() -> Result<()> {
    emergency(Flavor::MariaDb)
}

/// Beside the new master only an rdonly would be left, which acknowledges nothing: refused before anything is given up.
#[test]
fn emergency_with_nobody_to_acknowledge() -> Result<()> {
    let mut cluster = shard(Flavor::MariaDb)?;
    cluster.kill_vttablet(0);
    cluster.kill_mysqld(0)?;
    cluster.kill_vttablet(1);
    cluster.kill_mysqld(1)?;
    let args = ["EmergencyReparentShard", "-keyspace_shard=customer/0", "-new_master=zone1-102"];
    let start = Instant::now();
    let refused = cluster.vtctlclient(&args)?;
    ensure!(refused.code == Some(1), "{refused:?}");
    ensure!(refused.stderr.contains("ChangeSlaveType zone1-0000000103 replica"), "{refused:?}");
    println!("refused after {:?}", start.elapsed());
    ensure!(cluster.vtctlclient(&["GetTablet", "zone1-100"])?.code == Some(0), "the old master's record is there");
    let replication = rows(&cluster, 2, "show slave status")?;
    ensure!(replication.contains("\tYes\t"), "replication goes on: {replication}");

    ok(&cluster, &["ChangeSlaveType", "zone1-103", "replica"])?;
    ok(&cluster, &["DeleteTablet", "zone1-101"])?;
    ok(&cluster, &args)?;
    // A write is acknowledged.
    wait_for("writes", Duration::from_secs(30), || {
        let write = "insert into customer values (77, 'new')";
        cluster.mysql(&["customer"], write).is_ok_and(|done| done.code == Some(0))
    })
}
