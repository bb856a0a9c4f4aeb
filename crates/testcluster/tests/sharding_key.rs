//! A split while rows change their sharding key at the source: each leaves one shard and enters the other. With what
//! is not spread by a key: a reference table, a pinned sequence, `_vt.shard_metadata`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testcluster::{Cluster, Flavor, Spec, TabletSpec, wait_for};

const SOURCE: usize = 0;
const LEFT: usize = 3;
const RIGHT: usize = 5;

const ROWS: u64 = 20_000;

const SCHEMA: &str = "
create table account(id bigint not null, customer_id bigint not null, note varchar(40), primary key(id));
create table country(code char(2) not null, name varchar(40), primary key(code));
create table account_seq(id int, next_id bigint, cache bigint, primary key(id)) comment 'vitess_sequence'";

const VSCHEMA: &str = r#"{"sharded": true, "vindexes": {"hash": {"type": "hash"}}, "tables": {
    "account": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]},
    "country": {"type": "reference"},
    "account_seq": {"type": "sequence", "pinned": "90"}}}"#;

fn start() -> Result<Cluster> {
    let tablet = |uid, shard, tablet_type| TabletSpec::new(uid, "customer", shard, tablet_type);
    let whole = vec![tablet(200, "0", "replica"), tablet(201, "0", "replica"), tablet(202, "0", "rdonly")];
    let mut spec = Spec::keyspaces(Flavor::MariaDb, whole);
    spec.schema = vec![("customer".into(), SCHEMA.into())];
    spec.vschema = vec![("customer".into(), VSCHEMA.into())];
    // The shards of a split have no replica to stream back from.
    let spec = spec
        .vttablet_flag("-vreplication_tablet_type=RDONLY")
        .vtctld_flag("-wait_for_drain_sleep_rdonly=0s")
        .vtctld_flag("-wait_for_drain_sleep_replica=0s");
    let mut cluster = Cluster::start(spec)?;
    cluster.mysql_on_tablet(
        SOURCE,
        &format!(
            "use vt_customer; insert into account select seq, seq, 'x' from seq_1_to_{ROWS}; \
             insert into country values ('AT', 'Austria'), ('BE', 'Belgium'); insert into account_seq values (0, 1, 10); \
             insert into _vt.shard_metadata(name, value, db_name) values ('owner', 'bank', 'vt_customer')"
        ),
    )?;
    cluster.add_tablets(vec![
        tablet(300, "-80", "replica"),
        tablet(301, "-80", "rdonly"),
        tablet(400, "80-", "replica"),
        tablet(401, "80-", "rdonly"),
    ])?;
    for shard in ["customer/-80", "customer/80-"] {
        cluster.vtctlclient(&["CopySchemaShard", "customer/0", shard])?.success()?;
    }
    Ok(cluster)
}

/// Rows of a table on a tablet, as sorted lines.
fn rows(cluster: &Cluster, tablet: usize, sql: &str) -> Result<Vec<String>> {
    let out = cluster.mysql_on_tablet(tablet, sql)?.stdout;
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    lines.sort();
    Ok(lines)
}

/// Changes keys until it is told to stop; returns how often.
fn move_rows(cluster: &Cluster, stop: &AtomicBool) -> Result<u64> {
    let mut rounds = 0;
    while !stop.load(Ordering::Relaxed) {
        rounds += 1;
        let one = 1 + rounds * 7919 % ROWS;
        let many = 1 + rounds * 104_729 % (ROWS - 200);
        cluster.mysql_on_tablet(
            SOURCE,
            &format!(
                "use vt_customer; \
                 update account set customer_id = customer_id + 1 where id = {one}; \
                 update account set customer_id = customer_id + {rounds} where id between {many} and {many} + 100; \
                 begin; update account set customer_id = customer_id * 3, note = 'there' where id = {one}; \
                 update account set customer_id = customer_id + 5, note = 'and on' where id = {one}; commit; \
                 begin; update account set customer_id = 1 where id = {many}; rollback; \
                 replace into country values ('ZZ', '{rounds}')"
            ),
        )?;
    }
    Ok(rounds)
}

#[test]
fn a_row_whose_key_changes_is_in_one_shard() -> Result<()> {
    let cluster = start()?;
    let stop = AtomicBool::new(false);
    let moved = std::thread::scope(|scope| {
        let mover = scope.spawn(|| move_rows(&cluster, &stop));
        let small = ["-chunk_count=40", "-min_rows_per_chunk=200", "-source_reader_count=1"];
        let words = [&["SplitClone", "-min_healthy_rdonly_tablets=1"], &small[..], &["customer/0"]].concat();
        let cloned = cluster.vtworker(&words).and_then(|ended| ended.success());
        // And on behind the clone, through the streams alone.
        let more = cloned.and_then(|_| {
            wait_for("the streams to have worked", Duration::from_secs(60), || {
                rows(&cluster, LEFT, "select pos from _vt.vreplication").is_ok_and(|rows| !rows.is_empty())
            })
        });
        stop.store(true, Ordering::Relaxed);
        let moved = mover.join().expect("no panic");
        more.and(moved)
    })?;
    ensure!(moved > 5, "only {moved} rounds of changes");

    let accounts = "select id, customer_id, note from vt_customer.account";
    let source = rows(&cluster, SOURCE, accounts)?;
    let both = || -> Result<Vec<String>> {
        let mut all = [rows(&cluster, LEFT, accounts)?, rows(&cluster, RIGHT, accounts)?].concat();
        all.sort();
        Ok(all)
    };
    let caught_up =
        wait_for("the shards to hold the same rows", Duration::from_secs(60), || both().is_ok_and(|all| all == source));
    if caught_up.is_err() {
        let all = both()?;
        let lost: Vec<&String> = source.iter().filter(|row| all.binary_search(row).is_err()).take(5).collect();
        let extra: Vec<&String> = all.iter().filter(|row| source.binary_search(row).is_err()).take(5).collect();
        anyhow::bail!("{} rows at the source, {}: lost {lost:?}, too many {extra:?}", source.len(), all.len());
    }
    // Each row in the shard that its key says.
    for shard in ["customer/-80", "customer/80-"] {
        cluster.vtworker(&["SplitDiff", "-min_healthy_rdonly_tablets=1", shard])?.success()?;
    }

    let countries = "select * from vt_customer.country";
    let wanted = rows(&cluster, SOURCE, countries)?;
    ensure!(wanted.len() == 3, "{wanted:?}");
    for tablet in [LEFT, RIGHT] {
        ensure!(rows(&cluster, tablet, countries)? == wanted, "a reference table is the same on every shard");
        let metadata = rows(&cluster, tablet, "select value from _vt.shard_metadata where name = 'owner'")?;
        ensure!(metadata == ["bank"], "{metadata:?}");
    }
    let sequence = "select * from vt_customer.account_seq";
    ensure!(rows(&cluster, LEFT, sequence)?.is_empty(), "a pinned table is on one shard");
    ensure!(rows(&cluster, RIGHT, sequence)? == rows(&cluster, SOURCE, sequence)?);
    let columns = rows(&cluster, LEFT, "select count(*) from vt_customer.account")?;
    let left: u64 = columns.first().context("a count")?.parse()?;
    ensure!(left > ROWS / 4 && left < 3 * ROWS / 4, "{left} rows in -80");

    // Streams back, from two shards to one: what is written to both arrives once.
    for words in
        [&["customer/0", "rdonly"][..], &["customer/0", "replica"], &["-reverse_replication", "customer/0", "master"]]
    {
        cluster.vtctlclient(&[&["MigrateServedTypes"], words].concat())?.success()?;
    }
    write(&cluster, "insert into country(code, name) values ('CH', 'Switzerland')")?;
    write(&cluster, "delete from country where code = 'ZZ'")?;
    countries_are(&cluster, &[SOURCE, LEFT, RIGHT], "Austria,Belgium,Switzerland")
}

/// Writes through vtgate.
fn write(cluster: &Cluster, sql: &str) -> Result<()> {
    cluster.mysql(&["customer"], sql)?.success().map(drop)
}

/// Waits until masters hold these countries, in the order of their codes.
fn countries_are(cluster: &Cluster, masters: &[usize], wanted: &str) -> Result<()> {
    let names = "select group_concat(name order by code) from vt_customer.country";
    let arrived = |at: &usize| rows(cluster, *at, names).is_ok_and(|names| names == [wanted]);
    wait_for("the countries", Duration::from_secs(30), || masters.iter().all(arrived)).or_else(|_| {
        for at in masters {
            let streams = rows(cluster, *at, "select source, state, message from _vt.vreplication")?;
            let found = rows(cluster, *at, names)?;
            ensure!(found == [wanted], "tablet {at} has {found:?} instead of {wanted}; its streams: {streams:?}");
        }
        Ok(())
    })
}

/// The tablets of the merge.
const LOW: usize = 0;
const MERGED: usize = 6;

/// Two shards become one: of a table that is the same on all shards, one of the two sources brings the
/// rows, also those that are written through vtgate while streams run.
#[test]
fn reference_rows_come_from_one_source() -> Result<()> {
    let tablet = |uid, shard, tablet_type| TabletSpec::new(uid, "customer", shard, tablet_type);
    let shard =
        |uid, name| [tablet(uid, name, "replica"), tablet(uid + 1, name, "replica"), tablet(uid + 2, name, "rdonly")];
    let mut spec = Spec::keyspaces(Flavor::MariaDb, [shard(300, "-80"), shard(400, "80-")].concat());
    spec.schema = vec![("customer".into(), SCHEMA.into())];
    spec.vschema = vec![("customer".into(), VSCHEMA.into())];
    let mut cluster = Cluster::start(spec)?;
    write(&cluster, "insert into country(code, name) values ('AT', 'Austria'), ('BE', 'Belgium')")?;
    for id in 1..=20 {
        write(&cluster, &format!("insert into account(id, customer_id, note) values ({id}, {id}, 'x')"))?;
    }
    cluster.add_tablets(shard(200, "0").to_vec())?;
    cluster.vtctlclient(&["CopySchemaShard", "customer/-80", "customer/0"])?.success()?;
    let clone = ["SplitClone", "-min_healthy_rdonly_tablets=1", "customer/0"];
    cluster.vtworker(&clone)?.success()?;

    countries_are(&cluster, &[LOW, MERGED], "Austria,Belgium")?;
    write(&cluster, "insert into country(code, name) values ('CH', 'Switzerland')")?;
    write(&cluster, "update country set name = 'Belgique' where code = 'BE'")?;
    write(&cluster, "insert into account(id, customer_id, note) values (21, 21, 'x')")?;
    write(&cluster, "insert into account(id, customer_id, note) values (24, 24, 'x')")?;
    countries_are(&cluster, &[LOW, MERGED], "Austria,Belgique,Switzerland")?;
    wait_for("the accounts", Duration::from_secs(30), || {
        rows(&cluster, MERGED, "select count(*) from vt_customer.account").is_ok_and(|count| count == ["22"])
    })?;
    // A comparison of each source, the table that is not brought by one of them included.
    for uid in ["-source_uid=1", "-source_uid=2"] {
        cluster.vtworker(&["SplitDiff", "-min_healthy_rdonly_tablets=1", uid, "customer/0"])?.success()?;
    }
    Ok(())
}
