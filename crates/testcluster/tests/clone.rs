//! vtworker's clones and diffs on real mysqlds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use testcluster::{Cluster, Flavor, Spec, TabletSpec, wait_for};

/// Indices of the tablets.
const SOURCE_MASTER: usize = 0;
const SOURCE_RDONLY: usize = 1;
const DESTINATION: usize = 2;

/// A table of every column type, one for each kind of key, one without rows.
const TABLES: &[&str] = &[
    "create table every_type (id bigint unsigned not null, t tinyint, tu tinyint unsigned zerofill, s smallint, m mediumint, \
     i int, b bigint, de decimal(30,10), f float, d double, bi bit(12), da date, dt datetime(6), ts timestamp(3) null, \
     ti time(2), y year, c char(10), v varchar(100), bn binary(4), vb varbinary(100), tb tinyblob, bl blob, mb mediumblob, \
     lb longblob, tt tinytext, tx text, mt mediumtext, lt longtext, e enum('x','y','z'), st set('p','q','r'), js json, \
     g geometry, latin varchar(20) character set latin1, gen int as (i + 1) stored, gv int as (i + 2) virtual, \
     primary key (id)) default charset=utf8mb4",
    "create table composite (a varchar(20) not null, b varbinary(16) not null, c decimal(10,3) not null, e enum('z','a') not null, \
     note text, primary key (a, b, c, e)) default charset=utf8mb4",
    "create table nothing (id int primary key, v varchar(10))",
];

const ROWS: &[&str] = &[
    "insert into every_type (id) values (0)",
    "insert into every_type (id, t, tu, s, m, i, b, de, f, d, bi, da, dt, ts, ti, y, c, v, bn, vb, tb, bl, mb, lb, tt, tx, mt, lt, e, \
     st, js, g, latin) values (18446744073709551615, -128, 7, -32768, -8388608, -2147483648, -9223372036854775808, \
     '-12345678901234567890.0123456789', 3.4028235e38, 1.7976931348623157e308, b'101010101010', '0000-00-00', \
     '0000-00-00 00:00:00', '2021-10-31 00:30:00.123', '-838:59:59.00', 2155, 'pad ', 'Ünï😀''\"\\\\\\n', x'00ff0a27', \
     x'00010203ff', 'a', x'89504e470d0a1a0a00ff', repeat('m', 70000), repeat(x'00ff', 100000), 'tiny', 'text', \
     repeat('ü', 70000), repeat('l', 300000), 'z', 'p,r', '{\"a\": [1, 2.5, null, \"ü\"]}', \
     st_geomfromtext('POINT(1 2)'), 'caf\u{e9}')",
    "insert into composite values ('A', x'00', 1.5, 'z', null), ('a ', x'00ff', -1.500, 'a', 'x'), ('b', '', 0, 'z', 'empty')",
];

fn vertical(flavor: Flavor) -> Result<Cluster> {
    let mut spec = Spec::walkthrough(flavor);
    spec.tablets =
        vec![TabletSpec::new(100, "commerce", "0", "replica"), TabletSpec::new(102, "commerce", "0", "rdonly")];
    spec.semi_sync = false;
    spec.schema.clear();
    spec.vschema.clear();
    let mut cluster = Cluster::start(spec)?;
    for sql in TABLES {
        cluster.mysql_on_tablet(SOURCE_MASTER, &format!("use vt_commerce; {sql}"))?;
    }
    for sql in ROWS {
        cluster.mysql_on_tablet(
            SOURCE_MASTER,
            &format!("set names utf8mb4, sql_mode = 'ALLOW_INVALID_DATES'; use vt_commerce; {sql}"),
        )?;
    }
    let served_from = "-served_from=master:commerce,replica:commerce,rdonly:commerce";
    cluster.vtctlclient(&["CreateKeyspace", served_from, "customer"])?.success()?;
    cluster.add_tablets(vec![TabletSpec::new(200, "customer", "0", "replica")])?;
    cluster.vtctlclient(&["ReloadSchema", "zone1-102"])?.success()?;
    let tables = "every_type,composite,nothing,bulk";
    cluster.mysql_on_tablet(SOURCE_MASTER, "create table vt_commerce.bulk (id bigint auto_increment primary key, k int, v varchar(40), key (k)) default charset=utf8mb4")?;
    cluster.mysql_on_tablet(
        SOURCE_MASTER,
        "use vt_commerce; insert into bulk (k, v) select seq % 1000, concat('row ', seq) from seq_1_to_100000",
    )?;
    caught_up(&cluster)?;
    cluster.vtctlclient(&["CopySchemaShard", "-tables", tables, "commerce/0", "customer/0"])?.success()?;
    Ok(cluster)
}

/// Waits until the rdonly has what the master has.
fn caught_up(cluster: &Cluster) -> Result<()> {
    let position = |index| cluster.mysql_on_tablet(index, "select @@gtid_current_pos").map(|out| out.stdout);
    wait_for(
        "the rdonly to catch up",
        Duration::from_secs(60),
        || matches!((position(SOURCE_MASTER), position(SOURCE_RDONLY)), (Ok(a), Ok(b)) if a == b),
    )
}

/// Every table has the same checksum on both sides.
fn same(cluster: &Cluster, tables: &[&str]) -> Result<()> {
    for table in tables {
        let sum = |index, keyspace: &str| -> Result<String> {
            let out = cluster.mysql_on_tablet(index, &format!("checksum table vt_{keyspace}.{table}"))?.stdout;
            Ok(out.split_whitespace().last().context("a checksum")?.to_owned())
        };
        let (source, destination) = (sum(SOURCE_MASTER, "commerce")?, sum(DESTINATION, "customer")?);
        ensure!(source == destination, "{table}: {source} at the source, {destination} at the destination");
    }
    Ok(())
}

const ALL: &[&str] = &["every_type", "composite", "nothing", "bulk"];
const CLONE: &[&str] = &["VerticalSplitClone", "-min_healthy_tablets=1", "-tables=every_type,composite,nothing,bulk"];

/// Each chunk has its own statement, so that a kill finds some done and some not.
const SMALL: &[&str] = &["-chunk_count=50", "-min_rows_per_chunk=1000", "-source_reader_count=2", "-max_tps=40"];

fn count(cluster: &Cluster, sql: &str) -> u64 {
    let out = cluster.mysql_on_tablet(DESTINATION, sql);
    out.ok().and_then(|out| out.stdout.trim().parse().ok()).unwrap_or(0)
}

/// A number in the result of a clone, as its log shows it: `table: A inserted, B updated, C deleted, D equal`.
fn result_line<'a>(log: &'a str, table: &str) -> &'a str {
    log.lines()
        .rev()
        .find(|line| line.contains(&format!("{table}: ")) && line.contains(" inserted, "))
        .unwrap_or("none")
}

#[test]
fn rows_of_every_type_are_copied_compared_and_repaired() -> Result<()> {
    let cluster = vertical(Flavor::MariaDb)?;
    let run = |more: &[&str]| cluster.vtworker(&[CLONE, more, &["-offline=false", "customer/0"]].concat())?.success();

    // Killed in the middle, it goes on where it was.
    let mut child = cluster.vtworker_command(&[CLONE, SMALL, &["-offline=false", "customer/0"]].concat()).spawn()?;
    wait_for("some pieces to be noted", Duration::from_secs(60), || {
        count(&cluster, "select count(*) from _vt.vtworker_chunk where copied = 1") > 10
    })?;
    child.kill()?;
    child.wait()?;
    let noted = "select count(*), coalesce(sum(row_count), 0) from _vt.vtworker_chunk where copied = 1";
    let before = cluster.mysql_on_tablet(DESTINATION, noted)?.stdout;
    ensure!(count(&cluster, "select count(*) from vt_customer.bulk") < 100_000, "killed too late: {before}");
    let log = run(&[])?.stderr;
    same(&cluster, ALL)?;
    ensure!(log.contains("going on with what an earlier run copied"), "{log}");
    ensure!(!result_line(&log, "bulk").contains(" 0 equal"), "nothing was taken over: {}", result_line(&log, "bulk"));

    // A run over a complete copy writes nothing.
    let log = run(&[])?.stderr;
    for (table, rows) in [("bulk", 100_000), ("every_type", 2), ("composite", 3)] {
        let line = result_line(&log, table);
        ensure!(line.contains(&format!("{table}: 0 inserted, 0 updated, 0 deleted, {rows} equal")), "{line}");
    }

    // What differs is repaired, and nothing else is touched.
    let damage = "use vt_customer; update bulk set v = 'changed' where id = 5; delete from bulk where id in (7, 99999); \
                  insert into bulk values (200000, 1, 'extra'); update composite set a = 'a' where b = x'00'; \
                  insert into nothing values (1, 'x'); update every_type set mb = 'other' where id <> 0";
    cluster.mysql_on_tablet(DESTINATION, damage)?;
    let log = run(&[])?.stderr;
    same(&cluster, ALL)?;
    for line in [
        "bulk: 2 inserted, 1 updated, 1 deleted, 99997 equal",
        "composite: 1 inserted, 0 updated, 1 deleted, 2 equal",
        "nothing: 0 inserted, 0 updated, 1 deleted, 0 equal",
        "every_type: 0 inserted, 1 updated, 0 deleted, 1 equal",
    ] {
        ensure!(log.contains(line), "{line} is not in {log}");
    }

    // A table without primary key is refused by name.
    cluster.mysql_on_tablet(SOURCE_MASTER, "create table vt_commerce.keyless (a int)")?;
    caught_up(&cluster)?;
    let words = ["VerticalSplitClone", "-min_healthy_tablets=1", "-tables=keyless", "customer/0"];
    let refused = cluster.vtworker(&words)?;
    ensure!(refused.code == Some(1), "{refused:?}");
    ensure!(refused.stderr.contains("table keyless has no primary key"), "{}", refused.stderr);
    Ok(())
}

/// `customer/0` with a master and an rdonly, and empty shards beside it.
fn horizontal(flavor: Flavor) -> Result<Cluster> {
    let mut spec = Spec::walkthrough(flavor);
    spec.tablets =
        vec![TabletSpec::new(200, "customer", "0", "replica"), TabletSpec::new(202, "customer", "0", "rdonly")];
    spec.semi_sync = false;
    spec.schema = vec![(
        "customer".into(),
        "create table customer (customer_id bigint not null, email varbinary(128), primary key (customer_id))".into(),
    )];
    let vschema = r#"{"sharded": true, "vindexes": {"hash": {"type": "hash"}},
        "tables": {"customer": {"column_vindexes": [{"column": "customer_id", "name": "hash"}]}}}"#;
    spec.vschema = vec![("customer".into(), vschema.into())];
    let mut cluster = Cluster::start(spec)?;
    let rows =
        "use vt_customer; insert into customer select seq, concat('user', seq, '@domain.com') from seq_1_to_30000";
    cluster.mysql_on_tablet(SOURCE_MASTER, rows)?;
    cluster.add_tablets(vec![
        TabletSpec::new(300, "customer", "-80", "replica"),
        TabletSpec::new(400, "customer", "80-", "replica"),
    ])?;
    caught_up(&cluster)?;
    for shard in ["customer/-80", "customer/80-"] {
        cluster.vtctlclient(&["CopySchemaShard", "customer/0", shard])?.success()?;
    }
    Ok(cluster)
}

#[test]
fn rows_are_spread_by_their_keyspace_id() -> Result<()> {
    let cluster = horizontal(Flavor::MariaDb)?;
    let words = ["SplitClone", "-min_healthy_rdonly_tablets=1", "-offline=false", "customer/0"];
    cluster.vtworker(&words)?.success()?;
    let first = |index: usize| -> Result<Vec<String>> {
        let out = cluster
            .mysql_on_tablet(index, "select customer_id from vt_customer.customer where customer_id <= 5 order by 1")?;
        Ok(out.stdout.split_whitespace().map(str::to_owned).collect())
    };
    assert_eq!(first(2)?, ["1", "2", "3", "5"]);
    assert_eq!(first(3)?, ["4"]);
    let counted = |index: usize| -> Result<u64> {
        let out = cluster.mysql_on_tablet(index, "select count(*) from vt_customer.customer")?;
        Ok(out.stdout.trim().parse()?)
    };
    assert_eq!(counted(2)? + counted(3)?, 30_000);

    // A row in the wrong shard is taken away, a missing one comes back.
    cluster.mysql_on_tablet(
        3,
        "use vt_customer; delete from customer where customer_id = 4; insert into customer values (1, 'stray')",
    )?;
    cluster.vtworker(&words)?.success()?;
    assert_eq!((first(2)?, first(3)?), (vec!["1".into(), "2".into(), "3".into(), "5".into()], vec!["4".to_owned()]));
    assert_eq!(counted(2)? + counted(3)?, 30_000);

    // Served already: the split cannot be told from its source the wrong way round, nor a shard without a partner.
    let refused = cluster.vtworker(&["SplitClone", "customer/40-80"])?;
    assert_eq!(refused.code, Some(1));
    ensure!(
        refused.stderr.contains("the specified shard customer/40-80 is not in any overlapping shard"),
        "{}",
        refused.stderr
    );
    let legacy = cluster.vtworker(&["LegacySplitClone", "customer/0"])?;
    ensure!(legacy.stderr.contains("Run SplitClone"), "{}", legacy.stderr);
    Ok(())
}

#[test]
fn the_daemon_runs_one_job_at_a_time() -> Result<()> {
    let cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    let (http, grpc) = (testcluster::free_port(), testcluster::free_port());
    let flags = ["-port".to_owned(), http.to_string(), "-grpc_port".to_owned(), grpc.to_string()];
    let mut words: Vec<&str> = flags.iter().map(String::as_str).collect();
    words.extend(["-service_map", "grpc-vtworker", "-bind_address", "127.0.0.1"]);
    let log = cluster.dir().join("tmp/vtworker.out");
    let mut worker = testcluster::Process::start("vtworker", cluster.vtworker_command(&words), &log)?;
    let send = |words: &[&str]| cluster.vtworkerclient(grpc, words);

    let pong = send(&["Ping", "hello"])?.success()?;
    assert_eq!(pong.stdout, "Ping command was called with message: 'hello'.\n");
    let early = send(&["Ping", "again"])?;
    assert_eq!(early.code, Some(1));
    ensure!(early.stderr.contains("code = Unavailable desc = A worker job was recently stopped"), "{}", early.stderr);
    send(&["Reset"])?.success()?;
    let panic = send(&["Panic"])?;
    ensure!(panic.stderr.contains("code = Internal desc = uncaught vtworker panic: "), "{}", panic.stderr);
    send(&["Reset"])?.success()?;

    let server = format!("127.0.0.1:{grpc}");
    let blocked = std::process::Command::new(testcluster::program("vtworkerclient"))
        .args(["-server", &server, "-log_dir"])
        .arg(cluster.dir().join("tmp"))
        .arg("Block")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()?;
    wait_for("the job to block", Duration::from_secs(20), || {
        cluster.debug_var(http, "WorkerState").is_ok_and(|state| state == "running an internal debug command")
    })?;
    let busy = send(&["Ping", "x"])?;
    ensure!(busy.stderr.contains("code = Unavailable desc = A worker job is already in progress: "), "{}", busy.stderr);
    let reset = send(&["Reset"])?;
    ensure!(reset.stderr.contains("code = FailedPrecondition desc = worker still executing"), "{}", reset.stderr);
    send(&["Cancel"])?.success()?;
    let ended = testcluster::Finished::new("Block".into(), blocked.wait_with_output()?);
    assert_eq!(ended.code, Some(1));
    ensure!(ended.stderr.contains("code = Canceled desc = command 'Block' was canceled"), "{}", ended.stderr);
    let (_, page) = testcluster::http_get(http, "/status")?;
    ensure!(page.contains("State: error"), "{page}");
    send(&["Reset"])?.success()?;
    let (_, page) = testcluster::http_get(http, "/status")?;
    ensure!(page.contains("This worker is idle."), "{page}");

    worker.signal(nix::sys::signal::Signal::SIGTERM)?;
    wait_for("vtworker to end", Duration::from_secs(20), || !worker.is_running())?;
    assert_eq!(worker.exit_code(), Some(0));
    Ok(())
}
