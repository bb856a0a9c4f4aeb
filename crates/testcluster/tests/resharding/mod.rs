//! Clusters whose tables are to be split or merged, and what must be true of them before and after.

#![allow(dead_code, reason = "each test program uses a part")]

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testcluster::{Cluster, Flavor, Spec, TabletSpec, wait_for};

const VSCHEMA: &str = r#"{
  "sharded": true,
  "vindexes": {"hash": {"type": "hash"}},
  "tables": {
    "customer": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]},
    "corder": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]},
    "note": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]}
  }
}"#;

/// `note` has a key of several columns, none of which is an integer at its beginning.
pub const SCHEMA: &str = "create table customer(customer_id bigint not null, email varbinary(128), primary key(customer_id)); \
    create table corder(order_id bigint not null, customer_id bigint, sku varbinary(128), price bigint, primary key(order_id)); \
    create table note(tag varbinary(16) not null, customer_id bigint not null, amount decimal(10,2) not null, \
    body varchar(200), primary key(tag, customer_id, amount)) default charset=utf8mb4";

/// Customers, and as many notes, before anything is copied.
pub const ROWS: u64 = 3000;

/// The place of a shard's master among the tablets of [`horizontal`]; its rdonly is the next one.
pub const PER_SHARD: usize = 2;

/// Shards of `customer` that serve, full of rows, and empty ones beside them, each with a master and an rdonly.
pub fn horizontal(flavor: Flavor, serving: &[&str], empty: &[&str]) -> Result<Cluster> {
    let tablets = |first: u32, shards: &[&str]| -> Vec<TabletSpec> {
        let pair = |(at, shard): (u32, &&str)| {
            let uid = first + 100 * at;
            [TabletSpec::new(uid, "customer", shard, "replica"), TabletSpec::new(uid + 2, "customer", shard, "rdonly")]
        };
        (0..).zip(shards).flat_map(pair).collect()
    };
    let mut spec = Spec::keyspaces(flavor, tablets(200, serving));
    spec.schema = vec![("customer".into(), SCHEMA.into())];
    spec.vschema = vec![("customer".into(), VSCHEMA.into())];
    // There is no replica to stream from; and what a comparison stops is what the streams read.
    let spec = spec.vttablet_flag("-vreplication_tablet_type=RDONLY").vtctld_flag("-topo_etcd_lease_ttl=2");
    let mut cluster = Cluster::start(spec)?;
    fill(&cluster, 1)?;
    let first = 200 + 100 * u32::try_from(serving.len())?;
    cluster.add_tablets(tablets(first, empty))?;
    for shard in empty {
        let (from, to) = (format!("customer/{}", serving[0]), format!("customer/{shard}"));
        caught_up(&cluster, &from)?;
        cluster.vtctlclient(&["CopySchemaShard", &from, &to])?.success()?;
    }
    for shard in serving.iter().chain(empty) {
        caught_up(&cluster, &format!("customer/{shard}"))?;
    }
    Ok(cluster)
}

/// Rows of every table through vtgate, with ids from `first` on.
pub fn fill(cluster: &Cluster, first: u64) -> Result<()> {
    for from in (first..first + ROWS).step_by(500) {
        let ids = || from..from + 500;
        let customers: Vec<String> = ids().map(|id| format!("({id}, 'user{id}@domain.com')")).collect();
        let orders: Vec<String> =
            ids().map(|id| format!("({}, {id}, 'sku{}', {})", 500_000 + id, id % 7, id % 100)).collect();
        let notes: Vec<String> =
            ids().map(|id| format!("('t{}', {id}, {}.25, 'Zeile {id} ü')", id % 11, id % 13)).collect();
        for sql in [
            format!("insert into customer(customer_id, email) values {}", customers.join(",")),
            format!("insert into corder(order_id, customer_id, sku, price) values {}", orders.join(",")),
            format!("insert into note(tag, customer_id, amount, body) values {}", notes.join(",")),
        ] {
            cluster.mysql(&["--default-character-set=utf8mb4", "customer"], &sql)?.success()?;
        }
    }
    Ok(())
}

/// Waits until every tablet of a shard stands where its master does.
pub fn caught_up(cluster: &Cluster, shard: &str) -> Result<()> {
    wait_for(&format!("{shard} to catch up"), Duration::from_secs(60), || {
        let Ok(positions) = cluster.vtctlclient(&["ShardReplicationPositions", shard]) else { return false };
        let mut all = positions.stdout.lines().filter_map(|line| line.split(' ').rev().nth(1));
        let Some(first) = all.next() else { return false };
        positions.code == Some(0) && all.all(|position| position == first)
    })
}

/// The position of a shard's master.
pub fn master_position(cluster: &Cluster, shard: &str) -> Result<String> {
    let positions = cluster.vtctlclient(&["ShardReplicationPositions", shard])?.success()?.stdout;
    let master = positions.lines().find(|line| line.contains(" master ")).context("a master")?;
    Ok(master.split(' ').rev().nth(1).context("a position")?.to_owned())
}

/// The streams at a master: id, state, message and stop position of each.
pub fn streams(cluster: &Cluster, master: usize) -> Result<Vec<(u32, String)>> {
    let sql = "select id, concat_ws('|', state, message, coalesce(stop_pos, 'NULL')) from _vt.vreplication order by id";
    let out = cluster.mysql_on_tablet(master, sql)?.stdout;
    out.lines()
        .map(|line| {
            let (id, what) = line.split_once('\t').context("two columns")?;
            Ok((id.parse()?, what.to_owned()))
        })
        .collect()
}

/// What a comparison must leave as it was: types, tags, replication and service of tablets, and the streams.
pub fn check_untouched(cluster: &Cluster, masters: &[usize]) -> Result<()> {
    for master in masters {
        for (id, what) in streams(cluster, *master)? {
            ensure!(what == "Running||NULL", "stream {id} of tablet {master} is {what}");
        }
    }
    for (index, tablet) in cluster.tablets.iter().enumerate().filter(|(_, tablet)| tablet.spec.tablet_type == "rdonly")
    {
        let record = cluster.vtctlclient(&["GetTablet", &tablet.spec.alias()])?.success()?.stdout;
        let record: serde_json::Value = serde_json::from_str(&record)?;
        ensure!(record["type"] == "RDONLY" || record["type"] == 3, "tablet {index}: {record}");
        let tags = record["tags"].as_object().map_or(0, serde_json::Map::len);
        ensure!(tags == 0, "tablet {index} has tags: {record}");
        ensure!(cluster.debug_var(tablet.http_port, "TabletStateName")? == "SERVING", "tablet {index} does not serve");
        let status = match &cluster.spec.flavor {
            Flavor::MariaDb => "show all slaves status\\G",
            Flavor::MySql9(_) => "show replica status\\G",
        };
        let status = cluster.mysql_on_tablet(index, status)?.stdout;
        // Both threads.
        ensure!(
            status.lines().filter(|line| *line == "Yes").count() >= 2,
            "tablet {index} does not replicate: {status}"
        );
    }
    Ok(())
}

/// Waits until the streams at a master have applied what their source, which rests, holds.
pub fn streams_caught_up(cluster: &Cluster, master: usize, source: &str) -> Result<()> {
    let position = master_position(cluster, source)?;
    let alias = cluster.tablets[master].spec.alias();
    let ids: Vec<u32> = streams(cluster, master)?.into_iter().map(|(id, _)| id).collect();
    ensure!(!ids.is_empty(), "no stream at {alias}");
    wait_for("the streams to catch up", Duration::from_secs(60), || {
        let sql = "select pos from _vt.vreplication";
        let at = cluster.mysql_on_tablet(master, sql).map(|out| out.stdout).unwrap_or_default();
        at.lines().any(|line| line.contains(&position))
    })
}

/// A client that writes to a master, past vtgate, until it is stopped.
pub struct Writer(Child);

impl Writer {
    /// The statements see the number of their turn, from 1 on, as `@n`.
    pub fn start(cluster: &Cluster, master: usize, statements: &str) -> Result<Self> {
        let turns: String =
            (1..20_000).map(|n| format!("set @n = {n}; {statements};\nselect sleep(0.02);\n")).collect();
        let script = cluster.dir().join("writes.sql");
        std::fs::write(&script, format!("set names utf8mb4;\n{turns}"))?;
        let mut command = Command::new("mysql");
        command.args(["--no-defaults", "--batch", "-u", "vt_dba", "-S"]);
        command.arg(cluster.tablet_dir(master).join("mysql.sock"));
        let child = command.stdin(File::open(script)?).stdout(Stdio::null()).spawn()?;
        Ok(Self(child))
    }

    /// Stops it, as a client that is killed does.
    pub fn stop(mut self) -> Result<()> {
        ensure!(matches!(self.0.try_wait(), Ok(None)), "the writer ended before it was asked to");
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rows of several masters as sorted lines.
pub fn rows(cluster: &Cluster, masters: &[usize], sql: &str) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for master in masters {
        let out = cluster.mysql_on_tablet(*master, sql)?.stdout;
        all.extend(out.lines().map(str::to_owned));
    }
    all.sort();
    Ok(all)
}

/// Reads every table whole.
pub const EVERYTHING: &[&str] = &[
    "select * from vt_customer.customer",
    "select * from vt_customer.corder",
    "select tag, customer_id, amount, hex(body) from vt_customer.note",
];

/// Waits until both sides hold the same rows, and says which table does not otherwise.
pub fn same(cluster: &Cluster, one: &[usize], other: &[usize]) -> Result<()> {
    let compare = || -> Result<()> {
        for sql in EVERYTHING {
            let (a, b) = (rows(cluster, one, sql)?, rows(cluster, other, sql)?);
            let lost: Vec<&String> = a.iter().filter(|row| b.binary_search(row).is_err()).take(5).collect();
            let extra: Vec<&String> = b.iter().filter(|row| a.binary_search(row).is_err()).take(5).collect();
            ensure!(a == b, "{sql}: {} and {} rows; lost {lost:?}, too many {extra:?}", a.len(), b.len());
        }
        Ok(())
    };
    wait_for("both sides to hold the same", Duration::from_secs(60), || compare().is_ok()).or_else(|_| compare())
}
