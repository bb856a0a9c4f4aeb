//! MigrateServedTypes of MASTER on a real cluster: customer/0 to -80 and 80- and back, under load.
//!
//! The tables are empty when they are split, so that streams from the present position are all that a
//! SplitClone would leave.

mod kills;
mod load;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use load::{Load, ok};
use testcluster::{Cluster, Flavor, Spec, TabletSpec, wait_for};

/// The tablet of each shard that is its master.
const WHOLE: usize = 0;
const LEFT: usize = 2;
const RIGHT: usize = 4;

const VSCHEMA: &str = r#"{
  "sharded": true,
  "vindexes": {"hash": {"type": "hash"}},
  "tables": {
    "customer": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]},
    "corder": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]}
  }
}"#;

/// customer/0 serves; its rows go on to -80 and 80-.
fn split(flavor: Flavor) -> Result<Cluster> {
    let mut spec = Spec::walkthrough(flavor);
    let tablet = |uid, shard: &str| TabletSpec::new(uid, "customer", shard, "replica");
    spec.tablets = vec![
        tablet(200, "0"),
        tablet(201, "0"),
        tablet(300, "-80"),
        tablet(301, "-80"),
        tablet(400, "80-"),
        tablet(401, "80-"),
    ];
    let schema = &spec.schema[0].1;
    let tables = schema.split(';').filter(|one| !one.contains("product")).collect::<Vec<_>>().join(";");
    spec.schema = vec![("customer".into(), tables.replace("auto_increment", ""))];
    spec.vschema = vec![("customer".into(), VSCHEMA.into())];
    let spec = spec
        .vtctld_flag("-topo_etcd_lease_ttl=2")
        .vtctld_flag("-wait_for_drain_sleep_rdonly=0s")
        .vtctld_flag("-wait_for_drain_sleep_replica=0s");
    let cluster = Cluster::start(spec)?;
    let position = load::master_position(&cluster, "customer/0")?;
    for (index, shard, range) in [(LEFT, "-80", r#"end:"\\200""#), (RIGHT, "80-", r#"start:"\\200""#)] {
        let alias = cluster.tablets[index].spec.alias();
        let insert = format!(
            "insert into _vt.vreplication (workflow, source, pos, max_tps, max_replication_lag, time_updated, transaction_timestamp, state, db_name) \
             values ('SplitClone', 'keyspace:\"customer\" shard:\"0\" key_range:<{range} > ', '{position}', 9223372036854775807, 9223372036854775807, 0, 0, 'Running', 'vt_customer')"
        );
        ok(&cluster, &["VReplicationExec", &alias, &insert])?;
        ok(&cluster, &["SourceShardAdd", &format!("customer/{shard}"), "1", "customer/0"])?;
        ok(&cluster, &["RefreshState", &alias])?;
    }
    for sql in load::hot_rows() {
        cluster.mysql(&["customer"], &sql)?.success()?;
    }
    Ok(cluster)
}

const SWITCH: &[&str] = &["MigrateServedTypes", "-reverse_replication", "customer/0", "master"];

fn replicas(cluster: &Cluster) -> Result<()> {
    for served_type in ["rdonly", "replica"] {
        ok(cluster, &["MigrateServedTypes", "customer/0", served_type])?;
    }
    Ok(())
}

/// Every row is where the clients' accounts say, on the masters that serve, and once.
fn check(cluster: &Cluster, serving: &[usize], outcome: &load::Outcome) -> Result<()> {
    let (mut customers, mut orders) = (String::new(), String::new());
    for index in serving {
        customers += &cluster.mysql_on_tablet(*index, "select customer_id from vt_customer.customer")?.stdout;
        orders += &cluster.mysql_on_tablet(*index, "select order_id, price from vt_customer.corder")?.stdout;
    }
    outcome.expect_rows(&customers, &orders)
}

/// The side that does not serve holds the same once its streams have caught up.
fn sides_agree(cluster: &Cluster, outcome: &load::Outcome) -> Result<()> {
    for side in [&[WHOLE][..], &[LEFT, RIGHT]] {
        wait_for("both sides to hold the same", Duration::from_secs(30), || check(cluster, side, outcome).is_ok())
            .or_else(|_| check(cluster, side, outcome))?;
    }
    Ok(())
}

fn switches_under_load(flavor: Flavor) -> Result<()> {
    let asked: Option<usize> = std::env::var("VT_TEST_SWITCHES").ok().and_then(|n| n.parse().ok());
    let rounds = asked.unwrap_or(4) / 2;
    let cluster = split(flavor)?;
    let load = Load::start(cluster.vtgate_mysql_port, 8, 4)?;
    load.wait_for_more(200)?;
    let mut switches = Vec::new();
    for _ in 0..2 * rounds {
        replicas(&cluster)?;
        let start = Instant::now();
        println!("{}", ok(&cluster, SWITCH)?);
        switches.push((start, Instant::now()));
        load.wait_for_more(200)?;
    }
    replicas(&cluster)?;
    let start = Instant::now();
    println!("{}", ok(&cluster, SWITCH)?);
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
    check(&cluster, &[LEFT, RIGHT], &outcome)?;
    sides_agree(&cluster, &outcome)
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

#[test]
fn vtctld_killed_at_every_phase() -> Result<()> {
    killed_at_every_phase(Flavor::MariaDb)
}

/// Here what is read-only refuses the streams of the tablets, too.
#[test]
fn vtctld_killed_at_every_phase_on_mysql9() -> Result<()> {
    match Flavor::mysql9() {
        Some(flavor) => killed_at_every_phase(flavor),
        None => Ok(()),
    }
}

/// Lets vtctld die at a point of a switch; another stands in for it.
fn die(cluster: &mut Cluster, point: &str) -> Result<()> {
    cluster.kill_vtctld();
    cluster.start_vtctld_with(&[("VT_FAILPOINTS", &format!("{point}=kill"))])?;
    ensure!(cluster.vtctlclient(SWITCH)?.code != Some(0), "vtctld did not die at {point}");
    cluster.kill_vtctld();
    cluster.start_vtctld()
}

/// vtctld is killed behind every phase; the same command finishes, nothing is lost. Before the flip `-cancel` ends
/// it, too: the sources serve, and the next switch works.
fn killed_at_every_phase(flavor: Flavor) -> Result<()> {
    let mut cluster = split(flavor)?;
    let load = Load::start(cluster.vtgate_mysql_port, 3, 1)?;
    let mut flipped = false;
    for point in wrangler::CUTOVER_POINTS {
        let flips = *point == "cutover.flipped";
        load.wait_for_more(20)?;
        replicas(&cluster)?;
        if !flipped {
            die(&mut cluster, point)?;
            let cancel = [&["MigrateServedTypes", "-cancel"], &SWITCH[SWITCH.len() - 2..]].concat();
            let cancelled = match flips {
                true => cluster.vtctlclient(&cancel)?,
                false => cluster.vtctlclient(&cancel)?.success().with_context(|| format!("cancelled after {point}"))?,
            };
            let told = if flips { "cannot be cancelled" } else { "was cancelled: the sources serve" };
            ensure!(format!("{cancelled:?}").contains(told), "after a death at {point}: {cancelled:?}");
            if !flips {
                load.wait_for_more(20).with_context(|| format!("cancelled after {point}"))?;
            }
        }
        flipped |= flips;
        if !flips {
            die(&mut cluster, point)?;
        }
        cluster.vtctlclient(SWITCH)?.success().with_context(|| format!("after a death at {point}"))?;
    }
    let outcome = load.finish()?;
    // An even number of switches: the shard they began with serves.
    check(&cluster, &[WHOLE], &outcome)?;
    sides_agree(&cluster, &outcome)?;
    outcome.expect_no_errors()
}

/// One of two sources dies behind its fence: the other one serves again while it is dead, and it does once it is back,
/// without another command.
#[test]
fn a_dead_source_keeps_no_other_from_serving() -> Result<()> {
    let mut cluster = split(Flavor::MariaDb)?;
    let load = Load::start(cluster.vtgate_mysql_port, 3, 1)?;
    load.wait_for_more(20)?;
    replicas(&cluster)?;
    ok(&cluster, SWITCH)?;
    load.wait_for_more(20)?;
    replicas(&cluster)?;
    let (hold, running) = kills::hold_at(&mut cluster, "cutover.caught_up", SWITCH)?;
    cluster.kill_vttablet(LEFT);
    hold.release()?;
    // A row of 80-. vtgate keeps the statement until the gate is lifted.
    let told = cluster.mysql(&["customer"], "update customer set email = concat('x', email) where customer_id = 4")?;
    told.success().context("the healthy source does not serve")?;
    cluster.start_vttablet(LEFT)?;
    let failed = running.finish()?;
    ensure!(failed.code != Some(0), "a switch without a source's fence: {failed:?}");
    load.wait_for_more(20).with_context(|| format!("clients are not served again: {failed:?}"))?;
    for source in [LEFT, RIGHT] {
        let read_only = cluster.mysql_on_tablet(source, "select @@global.read_only")?.stdout;
        ensure!(read_only.trim() == "0", "{source}: {read_only}; {failed:?}");
    }
    let outcome = load.finish()?;
    check(&cluster, &[LEFT, RIGHT], &outcome)
}

/// Any process is killed at any phase: the command, run again, finishes, and nothing is lost.
#[test]
fn processes_killed_at_phases() -> Result<()> {
    let mut cluster = split(Flavor::MariaDb)?;
    let load = Load::start(cluster.vtgate_mysql_port, 3, 1)?;
    let there = kills::Switch { command: SWITCH, source: WHOLE, destination: RIGHT };
    let back = kills::Switch { command: SWITCH, source: LEFT, destination: WHOLE };
    let mut serving = WHOLE;
    for (victim, point, switch) in kills::table(&there, &back) {
        load.wait_for_more(20)?;
        replicas(&cluster)?;
        kills::strike(&mut cluster, victim, point, switch)?;
        serving = switch.destination;
        load.wait_for_more(20)
            .with_context(|| format!("clients are not served again: {victim:?} killed at {point}"))?;
    }
    let outcome = load.finish()?;
    println!("{} client errors", outcome.errors.len());
    check(&cluster, if serving == WHOLE { &[WHOLE] } else { &[LEFT, RIGHT] }, &outcome)?;
    sides_agree(&cluster, &outcome)
}
