//! `Reshard`: a whole split by one command, by a vtctld that dies on the way, with a vtworker that serves.

mod load;

use std::time::Duration;

use anyhow::{Result, ensure};
use load::{Load, ok};
use testcluster::{Background, Cluster, Flavor, Process, Spec, TabletSpec, wait_for};

/// The tablets that are masters.
const WHOLE: usize = 0;
const LEFT: usize = 3;
const RIGHT: usize = 6;

const SCHEMA: &str = "
create table customer(customer_id bigint not null, email varbinary(128), primary key(customer_id));
create table corder(order_id bigint not null, customer_id bigint, sku varbinary(128), price bigint, primary key(order_id))";

const VSCHEMA: &str = r#"{"sharded": true, "vindexes": {"hash": {"type": "hash"}}, "tables": {
    "customer": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]},
    "corder": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]}}}"#;

/// customer/0 serves; the tablets of -80 and 80- are there, without a master.
fn start() -> Result<Cluster> {
    let mut spec = Spec::keyspaces(Flavor::MariaDb, tablets("0", 200));
    spec.semi_sync = true;
    spec.schema = vec![("customer".into(), SCHEMA.into())];
    spec.vschema = vec![("customer".into(), VSCHEMA.into())];
    let spec = spec
        .vtctld_flag("-topo_etcd_lease_ttl=2")
        .vtctld_flag("-wait_for_drain_sleep_rdonly=0s")
        .vtctld_flag("-wait_for_drain_sleep_replica=0s");
    let mut cluster = Cluster::start(spec)?;
    for sql in load::hot_rows() {
        cluster.mysql(&["customer"], &sql)?.success()?;
    }
    let rows = "use vt_customer; insert into customer select seq + 100000000, concat('user', seq) from seq_1_to_50000";
    cluster.mysql_on_tablet(WHOLE, rows)?;
    cluster.add_tablets_without_master([tablets("-80", 300), tablets("80-", 400)].concat())?;
    Ok(cluster)
}

fn tablets(shard: &str, base: u32) -> Vec<TabletSpec> {
    [(0, "replica"), (1, "replica"), (2, "rdonly")]
        .map(|(number, tablet_type)| TabletSpec::new(base + number, "customer", shard, tablet_type))
        .to_vec()
}

/// A vtworker that serves, and its gRPC address.
fn vtworker(cluster: &Cluster) -> Result<(Process, String)> {
    let (http, grpc) = (testcluster::free_port().to_string(), testcluster::free_port().to_string());
    let words = ["-port", &http, "-grpc_port", &grpc, "-service_map", "grpc-vtworker", "-bind_address", "127.0.0.1"];
    let log = cluster.dir().join("tmp/vtworker.out");
    Ok((Process::start("vtworker", cluster.vtworker_command(&words), &log)?, format!("127.0.0.1:{grpc}")))
}

/// Runs a command and kills vtctld as soon as something is true.
fn killed_when(cluster: &mut Cluster, words: &[&str], what: &str, holds: impl Fn(&Cluster) -> bool) -> Result<()> {
    let child = Background::start(words.join(" "), cluster.vtctlclient_command(words))?;
    let waited = wait_for(what, Duration::from_secs(120), || holds(cluster));
    cluster.kill_vtctld();
    let ended = child.finish()?;
    waited?;
    ensure!(ended.code == Some(1), "it came to its end before {what}: {ended:?}");
    cluster.start_vtctld()
}

/// A number that a tablet's mysqld answers; 0 where it has no such table.
fn count(cluster: &Cluster, tablet: usize, sql: &str) -> u64 {
    cluster.mysql_on_tablet(tablet, sql).ok().and_then(|out| out.stdout.trim().parse().ok()).unwrap_or(0)
}

/// The lines of the plan.
fn plan(text: &str) -> Result<Vec<&str>> {
    let mut lines = text.lines();
    ensure!(lines.next() == Some("Plan:"), "no plan comes first: {text}");
    Ok(lines
        .take_while(|line| line.starts_with("  "))
        .map(|line| line.split_once(". ").unwrap_or_default().1)
        .collect())
}

const WHOLE_PLAN: &[&str] = &[
    "vtctlclient InitShardMaster -force customer/-80 zone1-0000000300",
    "vtctlclient InitShardMaster -force customer/80- zone1-0000000400",
    "vtctlclient CopySchemaShard customer/0 customer/-80",
    "vtctlclient CopySchemaShard customer/0 customer/80-",
    "vtworker SplitClone -min_healthy_rdonly_tablets=1 customer/0",
    "vtctlclient WaitForFilteredReplication customer/-80",
    "vtctlclient WaitForFilteredReplication customer/80-",
    "vtworker MultiSplitDiff -min_healthy_tablets=1 customer/0",
    "vtctlclient MigrateServedTypes customer/0 rdonly",
    "vtctlclient MigrateServedTypes customer/0 replica",
    "vtctlclient MigrateServedTypes -reverse_replication customer/0 master",
];

#[test]
fn a_whole_split_and_its_merge_by_one_command_whatever_dies() -> Result<()> {
    let mut cluster = start()?;
    let (_worker, address) = vtworker(&cluster)?;
    let address = format!("-vtworker={address}");
    let load = Load::start(cluster.vtgate_mysql_port, 3, 1)?;
    let split = ["Reshard", "-reverse_replication", &address, "customer", "0", "-80,80-"];

    let workflow = cluster.vtctlclient(&["Reshard", "customer.split", "0", "-80,80-"])?;
    ensure!(workflow.code == Some(1) && workflow.stderr.contains("Reshard is not built yet"), "{workflow:?}");
    // A table of unknown place is told of before anything is touched.
    cluster.mysql_on_tablet(0, "create table vt_customer.stray (id int primary key)")?.success()?;
    let stray = cluster.vtctlclient(&split)?;
    cluster.mysql_on_tablet(0, "drop table vt_customer.stray")?.success()?;
    ensure!(
        stray.code == Some(1) && stray.stderr.contains("no vschema definition for table stray"),
        "a table without a place: {stray:?}"
    );
    let dry = ok(&cluster, &["Reshard", "-dry_run", "-reverse_replication", "customer", "0", "-80,80-"])?;
    ensure!(plan(&dry)? == WHOLE_PLAN, "{dry}");

    let copied = "select count(*) from vt_customer.customer";
    killed_when(&mut cluster, &split, "rows to be copied", |cluster| count(cluster, LEFT, copied) > 1000)?;
    let rest = ok(&cluster, &["Reshard", "-dry_run", "-reverse_replication", "customer", "0", "-80,80-"])?;
    ensure!(plan(&rest)? == WHOLE_PLAN[2..], "{rest}");
    let fed =
        |cluster: &Cluster| ok(cluster, &["GetShard", "customer/80-"]).is_ok_and(|record| record.contains("\"uid\""));
    killed_when(&mut cluster, &split, "80- to be fed", fed)?;
    let moved = |cluster: &Cluster| {
        let record = ok(cluster, &["GetSrvKeyspace", "zone1", "customer"]);
        record.is_ok_and(|record| record.contains("\"name\": \"80-\""))
    };
    killed_when(&mut cluster, &split, "rdonly to be moved", moved)?;
    for point in ["cutover.fenced", "cutover.opened"] {
        cluster.kill_vtctld();
        cluster.start_vtctld_with(&[("VT_FAILPOINTS", &format!("{point}=kill"))])?;
        let died = cluster.vtctlclient(&split)?;
        ensure!(died.code == Some(1), "vtctld did not die at {point}: {died:?}");
        cluster.kill_vtctld();
        cluster.start_vtctld()?;
    }
    let finished = ok(&cluster, &split)?;
    ensure!(plan(&finished)? == WHOLE_PLAN[10..], "{finished}");
    let again = ok(&cluster, &split)?;
    ensure!(again == "customer is served by -80,80-\n", "{again}");
    load.wait_for_more(50)?;

    // Back, along the streams; each step is a command that works by hand.
    let back = ["Reshard", &address, "-dry_run", "customer", "-80,80-", "0"];
    for step in plan(&ok(&cluster, &back)?)?.iter().take(3) {
        let words: Vec<&str> = step.split(' ').collect();
        match words[0] {
            "vtctlclient" => cluster.vtctlclient(&words[1..])?.success()?,
            _ => cluster.vtworker(&words[1..])?.success()?,
        };
    }
    ok(&cluster, &["Reshard", &address, "customer", "-80,80-", "0"])?;
    load.wait_for_more(50)?;

    let outcome = load.finish()?;
    outcome.expect_no_errors()?;
    let own = "customer_id < 100000000";
    for side in [&[WHOLE][..]] {
        let (mut customers, mut orders) = (String::new(), String::new());
        for index in side {
            let sql = format!("select customer_id from vt_customer.customer where {own}");
            customers += &cluster.mysql_on_tablet(*index, &sql)?.stdout;
            orders += &cluster.mysql_on_tablet(*index, "select order_id, price from vt_customer.corder")?.stdout;
        }
        outcome.expect_rows(&customers, &orders)?;
    }
    let others = format!("select count(*) from vt_customer.customer where not {own}");
    ensure!(count(&cluster, WHOLE, &others) == 50_000);
    ensure!(count(&cluster, LEFT, &others) + count(&cluster, RIGHT, &others) == 50_000);
    Ok(())
}
