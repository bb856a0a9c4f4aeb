//! vtworker's clones on real mysqlds, and what a VerticalSplitDiff says of them.

mod resharding;

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use resharding::Writer;
use testcluster::{Background, Cluster, Flavor, Spec, TabletSpec, free_port, wait_for};

/// Indices of the tablets.
const SOURCE_MASTER: usize = 0;
const DESTINATION: usize = 2;
const DESTINATION_RDONLY: usize = 3;

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
    "create table numbers (d decimal(20,5) not null, f double not null, at datetime(3) not null, bits bit(9) not null, \
     v int, primary key (d, at, bits))",
    "create table names (name varchar(50) not null, doc json, body longtext, primary key (name)) \
     default charset=utf8mb4 collate=utf8mb4_bin",
    "create table huge (id varbinary(20) not null, body longblob, primary key (id))",
    "create table bag (n int, v varchar(20)) default charset=utf8mb4",
    "create table members (id int primary key, e enum('x','y') not null)",
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
    "insert into numbers values (-1.5, 0.1, '2020-02-29 23:59:59.999', b'101', 1), (99999999999999.99999, -1e300, \
     '1000-01-01', b'111111111', null), (0, 1e-300, '9999-12-31 23:59:59.999', b'0', 2), (-1.5, 2, '1000-01-01', b'0', 3)",
    "insert into names values ('Ünï 😀', '{\"b\": [true, null]}', repeat('😀', 1000)), ('', null, ''), ('a', '\"text\"', null), \
     ('A', '1.5', 'x'), ('it''s \\\\ \"q\"', '[]', char(0, 10, 26, 92 using utf8mb4))",
    "insert into bag values (1, 'twice'), (1, 'twice'), (null, null), (null, 'x'), (2, null), (null, null)",
    "insert into members values (1, 'y'), (2, ''), (3, 'none of them')",
    "insert into composite values ('A', x'00', 1.5, 'z', null), ('a ', x'00ff', -1.500, 'a', 'x'), ('b', '', 0, 'z', 'empty')",
];

/// Types that one flavour has, and what they hold.
fn addresses(flavor: &Flavor) -> [&'static str; 2] {
    match flavor {
        Flavor::MariaDb => [
            "create table addresses (id uuid primary key, a inet6, b inet4)",
            "insert into addresses select uuid(), concat('fe80::', hex(seq)), concat('10.0.1.', seq) from seq_1_to_200",
        ],
        Flavor::MySql9(_) => [
            "create table addresses (id varchar(36) primary key, a vector(3), b vector(2))",
            "insert into addresses values (uuid(), to_vector('[1,2.5,-3]'), null), \
             (uuid(), to_vector('[0,0,0]'), to_vector('[39,1e30]'))",
        ],
    }
}

fn vertical(flavor: Flavor) -> Result<Cluster> {
    let mut spec = Spec::walkthrough(flavor.clone());
    spec.tablets =
        vec![TabletSpec::new(100, "commerce", "0", "replica"), TabletSpec::new(102, "commerce", "0", "rdonly")];
    spec.semi_sync = false;
    spec.schema.clear();
    spec.vschema.clear();
    // There is no replica to stream from.
    let spec = spec.vttablet_flag("-vreplication_tablet_type=RDONLY").vtctld_flag("-topo_etcd_lease_ttl=2");
    let mut cluster = Cluster::start(spec)?;
    let addresses = addresses(&flavor);
    for sql in TABLES.iter().chain(&addresses[..1]) {
        cluster.mysql_on_tablet(SOURCE_MASTER, &format!("use vt_commerce; {sql}"))?;
    }
    for sql in ROWS.iter().chain(&addresses[1..]) {
        cluster.mysql_on_tablet(
            SOURCE_MASTER,
            &format!("set names utf8mb4, sql_mode = 'ALLOW_INVALID_DATES'; use vt_commerce; {sql}"),
        )?;
    }
    let served_from = "-served_from=master:commerce,replica:commerce,rdonly:commerce";
    cluster.vtctlclient(&["CreateKeyspace", served_from, "customer"])?.success()?;
    cluster.add_tablets(vec![
        TabletSpec::new(200, "customer", "0", "replica"),
        TabletSpec::new(202, "customer", "0", "rdonly"),
    ])?;
    cluster.vtctlclient(&["ReloadSchema", "zone1-102"])?.success()?;
    cluster.mysql_on_tablet(SOURCE_MASTER, "create table vt_commerce.bulk (id bigint auto_increment primary key, k int, v varchar(40), key (k)) default charset=utf8mb4")?;
    let numbers = numbers(&flavor, 100_000);
    let fill = format!(
        "use vt_commerce; insert into bulk (id, k, v) {} n, n % 1000, concat('row ', n) from {}",
        numbers.0, numbers.1
    );
    cluster.mysql_on_tablet(SOURCE_MASTER, &format!("{}{fill}", numbers.2))?;
    caught_up(&cluster)?;
    cluster.mysql_on_tablet(SOURCE_MASTER, "create view vt_commerce.looks as select n from vt_commerce.bag")?;
    let copy = [
        "CopySchemaShard",
        "-include-views",
        "-tables",
        &format!("{},looks", ALL.join(",")),
        "commerce/0",
        "customer/0",
    ];
    cluster.vtctlclient(&copy)?.success()?;
    Ok(cluster)
}

/// The numbers from 1 on: what stands before the columns, in the FROM clause, and before the statement.
fn numbers(flavor: &Flavor, count: u64) -> (String, String, &'static str) {
    match flavor {
        Flavor::MariaDb => ("select".into(), format!("(select seq as n from seq_1_to_{count}) t"), ""),
        Flavor::MySql9(_) => (
            format!("with recursive t(n) as (select 1 union all select n + 1 from t where n < {count}) select"),
            "t".into(),
            "set session cte_max_recursion_depth = 10000000; ",
        ),
    }
}

/// Waits until the rdonly has what the master has.
fn caught_up(cluster: &Cluster) -> Result<()> {
    let keyspace = &cluster.tablets[SOURCE_MASTER].spec.keyspace;
    resharding::caught_up(cluster, &format!("{keyspace}/0"))
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

const ALL: &[&str] =
    &["every_type", "composite", "nothing", "bulk", "numbers", "names", "huge", "bag", "members", "addresses"];
const CLONE: &[&str] = &[
    "VerticalSplitClone",
    "-min_healthy_tablets=1",
    "-tables=every_type,composite,nothing,bulk,numbers,names,huge,/^ba.$/,looks,members,addresses",
];

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

/// The limits of a clone that runs are shown, stop it and let it go on.
fn throttled(cluster: &Cluster, port: u16) -> Result<()> {
    let server = format!("127.0.0.1:{port}");
    let run = |command: &str, more: &[&str]| -> Result<String> {
        Ok(cluster.vtctlclient(&[&[command, "-server", &server], more].concat())?.success()?.stdout)
    };
    let rates = run("ThrottlerMaxRates", &[])?;
    let shown = format!(
        "+------------+------+\n|    Name    | Rate |\n+------------+------+\n| customer/0 |   40 |\n+------------+------+\n\
         1 active throttler(s) on server '{server}'.\n"
    );
    ensure!(rates == shown, "{rates}");
    let updated = run("ThrottlerSetMaxRate", &["0"])?;
    ensure!(updated.ends_with(&format!("1 active throttler(s) on server '{server}' were updated.\n")), "{updated}");
    // What was being written ends, then nothing comes.
    let rows = || count(cluster, "select count(*) from vt_customer.bulk");
    let mut before = rows();
    wait_for("the clone to stop", Duration::from_secs(20), || {
        std::thread::sleep(Duration::from_millis(500));
        let now = rows();
        std::mem::replace(&mut before, now) == now
    })?;
    std::thread::sleep(Duration::from_secs(1));
    ensure!(rows() == before, "rows are written at a rate of 0");

    run("UpdateThrottlerConfiguration", &["max_replication_lag_sec: 30", "customer/0"])?;
    let configuration = run("GetThrottlerConfiguration", &[])?;
    ensure!(configuration.contains("| customer/0 | max_replication_lag_sec:30 "), "{configuration}");
    run("UpdateThrottlerConfiguration", &["initial_rate: 5"])?;
    let configuration = run("GetThrottlerConfiguration", &[])?;
    ensure!(
        configuration.contains("max_replication_lag_sec:30 ") && configuration.contains("initial_rate:5 "),
        "{configuration}"
    );
    run("ResetThrottlerConfiguration", &[])?;
    let configuration = run("GetThrottlerConfiguration", &["customer/0"])?;
    ensure!(configuration.contains("max_replication_lag_sec:9223372036854775807"), "{configuration}");
    run("ThrottlerSetMaxRate", &["40"])?;

    let none = cluster.vtctlclient(&["ThrottlerMaxRates", "-server", "127.0.0.1:1"])?;
    ensure!(none.stderr.contains("failed to get the throttler rate from server '127.0.0.1:1'"), "{none:?}");
    Ok(())
}

#[test]
fn rows_of_every_type_are_copied_compared_and_repaired() -> Result<()> {
    repaired(Flavor::MariaDb)
}

#[test]
fn rows_of_every_type_are_copied_compared_and_repaired_on_mysql9() -> Result<()> {
    match Flavor::mysql9() {
        Some(flavor) => repaired(flavor),
        None => Ok(()),
    }
}

fn repaired(flavor: Flavor) -> Result<()> {
    let is_mariadb = flavor == Flavor::MariaDb;
    let cluster = vertical(flavor)?;
    let run = |more: &[&str]| cluster.vtworker(&[CLONE, more, &["-offline=false", "customer/0"]].concat())?.success();

    // Killed in the middle, it goes on where it was.
    let (port, noted) = (free_port(), "select count(*) from _vt.vtworker_chunk where copied = 1");
    let serving = [format!("-grpc_port={port}"), "-service_map=grpc-throttler".into()];
    let serving: Vec<&str> = serving.iter().map(String::as_str).collect();
    let words = [&serving, CLONE, SMALL, &["-offline=false", "customer/0"]].concat();
    let mut killed = Background::start("VerticalSplitClone", cluster.vtworker_command(&words))?;
    wait_for("some pieces to be noted", Duration::from_secs(60), || count(&cluster, noted) > 5)?;
    throttled(&cluster, port)?;
    wait_for("more pieces to be noted", Duration::from_secs(60), || count(&cluster, noted) > 10)?;
    killed.kill();
    ensure!(killed.finish()?.code.is_none(), "it had ended before it was killed");
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

    // What the destination cannot store as it is is no reason to store something else.
    for (alter, told, back) in [
        ("numbers modify v int not null", "cannot be null", "numbers modify v int"),
        (
            "names add unique (body(5))",
            "(body of length 5 collate utf8mb4_bin) is unique at the destination",
            "names drop key body",
        ),
        (
            "names modify body text",
            "column body is longtext utf8mb4 at the source and text utf8mb4",
            "names modify body longtext",
        ),
    ] {
        let alter_table =
            |change: &str| cluster.mysql_on_tablet(DESTINATION, &format!("alter table vt_customer.{change}"));
        // Rows that are in the way would be lost; the clone brings them again.
        let table = alter.split(' ').next().unwrap_or_default();
        cluster.mysql_on_tablet(DESTINATION, &format!("delete from vt_customer.{table}"))?;
        alter_table(alter)?;
        let tables = format!("-tables={table}");
        let words = ["VerticalSplitClone", "-min_healthy_tablets=1", &tables, "-offline=false", "customer/0"];
        let refused = cluster.vtworker(&words)?;
        ensure!(refused.code == Some(1) && refused.stderr.contains(told), "{alter}: {refused:?}");
        cluster.mysql_on_tablet(DESTINATION, &format!("delete from vt_customer.{table}"))?;
        alter_table(back)?;
    }

    // Rows are not all that such a table has.
    if is_mariadb {
        for (columns, told) in [
            (
                "(id int primary key) with system versioning",
                "table strange on tablet zone1-0000000102 is a SYSTEM VERSIONED table",
            ),
            ("(id int primary key, e enum('COMPRESSED'), v text compressed)", "table strange: column v is COMPRESSED"),
        ] {
            let make = format!("use vt_commerce; create or replace table strange {columns}");
            cluster.mysql_on_tablet(SOURCE_MASTER, &make)?;
            caught_up(&cluster)?;
            let words = ["VerticalSplitClone", "-min_healthy_tablets=1", "-tables=strange,bulk", "customer/0"];
            let refused = cluster.vtworker(&words)?;
            ensure!(refused.code == Some(1) && refused.stderr.contains(told), "{refused:?}");
        }
    }

    // A name that is not there is refused.
    let words = ["VerticalSplitClone", "-min_healthy_tablets=1", "-tables=bulk,absent", "customer/0"];
    let refused = cluster.vtworker(&words)?;
    ensure!(refused.code == Some(1), "{refused:?}");
    ensure!(refused.stderr.contains("table absent does not exist on tablet zone1-"), "{}", refused.stderr);
    Ok(())
}

/// Statements that go on until the writer is stopped, on rows of every table.
const WRITES: &str = "use vt_commerce; insert into composite values (concat('w', @n), x'01', @n, 'a', 'new'); \
    update every_type set i = @n % 1000, v = concat('Wört ', @n), js = json_object('n', @n), bi = @n % 4096, ts = '2020-01-01 00:00:01' \
    where id = 0; \
    insert into nothing values (@n, 'x'); delete from nothing where id = @n - 10; \
    update bulk set v = concat('changed ', @n) where id between @n % 1000 and @n % 1000 + 20; \
    begin; insert into bulk (k, v) values (1, 'one'), (2, 'two'); delete from bulk where id = @n + 5000; commit; \
    insert into bag values (@n, 'new'), (null, 'new'); update bag set v = 'old' where n = @n - 2 and v = 'new'; \
    delete from bag where n is null and v = 'new' limit 1; update numbers set v = @n where bits = b'101'; update names set doc = json_array(@n), name = 'moved' where name = 'A'; \
    update names set name = 'A' where name = 'moved'; delete from composite where a = concat('w', @n - 5)";

const DIFF: &[&str] = &["VerticalSplitDiff", "-min_healthy_rdonly_tablets=1", "-dest_tablet_type=RDONLY", "customer/0"];

/// Transactions of enough rows of every type that filtered replication sends them as parameters, to servers that have
/// that, and of rows that it cannot send so.
fn many_rows_at_once(cluster: &Cluster, flavor: &Flavor) -> Result<()> {
    const COLUMNS: &str = "t, tu, s, m, i, b, de, f, d, bi, da, dt, ts, ti, y, c, v, bn, vb, tb, bl, mb, lb, tt, tx, mt, lt, e, st, js, g";
    let prepared = || -> Result<u64> {
        let seen = cluster.mysql_on_tablet(DESTINATION, "show global status like 'Com_stmt_prepare'")?.stdout;
        Ok(seen.split_whitespace().last().context("a status")?.parse()?)
    };
    let before = prepared()?;
    let (select, from, first) = numbers(flavor, 30);
    let copies = format!(
        "insert into every_type (id, {COLUMNS}, latin) {select} if(id = 0, n, id - n), {COLUMNS}, 'cafe' from {from}, every_type"
    );
    let (composite, forty, _) = numbers(flavor, 40);
    let keys = format!(
        "insert into composite {composite} concat('Key \\'', n), char(n), n / 8, 'z', if(n % 2, null, n) from {forty}"
    );
    let changed = "update every_type set s = ifnull(s, 0) + 1, de = de / 3, d = d / 3, f = null, v = concat(v, char(0, 10, 39, 92)), \
                   ts = ts + interval 1 day, mb = vb, e = 'x'";
    let in_latin1 = "update every_type set latin = 'caf\u{e9}'";
    let removed = "delete from every_type where id not in (0, 18446744073709551615)";
    for sql in [copies.as_str(), keys.as_str(), changed, in_latin1, removed] {
        let session = "set names utf8mb4, sql_mode = 'ALLOW_INVALID_DATES'; use vt_commerce;";
        cluster.mysql_on_tablet(SOURCE_MASTER, &format!("{session} {first} {sql}"))?;
        wait_for("many rows to arrive", Duration::from_secs(60), || same(cluster, ALL).is_ok())
            .or_else(|_| same(cluster, ALL))
            .with_context(|| sql.to_owned())?;
    }
    ensure!((prepared()? > before) == (*flavor == Flavor::MariaDb), "statements prepared: {before}, {}", prepared()?);
    cluster.mysql_on_tablet(SOURCE_MASTER, "delete from vt_commerce.composite where a like 'Key%'")?;
    wait_for("keys to go", Duration::from_secs(60), || same(cluster, ALL).is_ok())
}

/// Tables of every kind are written to while they are cloned; filtered replication catches up, and VerticalSplitDiff agrees.
fn under_writes(flavor: Flavor) -> Result<()> {
    let cluster = vertical(flavor.clone())?;
    // Rows of almost as many bytes as a packet may have, and one that is all escapes as text.
    let huge = "set global max_allowed_packet = 67108864; insert into vt_commerce.huge values \
                ('letters', repeat('0123456789abcdef', 1000000)), ('zeros', repeat(x'00', 8000000)), ('small', 'x')";
    cluster.mysql_on_tablet(SOURCE_MASTER, huge)?;
    caught_up(&cluster)?;
    let writer = Writer::start(&cluster, SOURCE_MASTER, WRITES)?;
    let clone = cluster.vtworker(&[CLONE, SMALL_CHUNKS, &["customer/0"]].concat())?.success()?;
    ensure!(clone.stderr.contains("Offline Clone Result: bulk: "), "{}", clone.stderr);
    let diff = cluster.vtworker(DIFF)?.success().context("under writes")?.stderr;
    for table in ALL {
        ensure!(diff.contains(&format!("Diff Result: {table}: ")), "{diff}");
    }
    writer.stop()?;
    wait_for("filtered replication to catch up", Duration::from_secs(60), || same(&cluster, ALL).is_ok())
        .or_else(|_| same(&cluster, ALL))?;
    many_rows_at_once(&cluster, &flavor)?;
    cluster.vtworker(DIFF)?.success()?;

    // Whatever differs is found.
    let damage = "use vt_customer; update huge set body = concat(left(body, 8000000), 'X', substr(body, 8000002)) where id = 'letters'; \
                  delete from composite where a = 'b'; insert into nothing values (-5, 'extra'); \
                  update every_type set g = st_geomfromtext('POINT(1 3)') where id <> 0; \
                  update numbers set f = f + 1e-9 where d = -1.5 and f < 1; update names set doc = null where name = 'a'; \
                  delete from bag where n = 1 limit 1; insert into bag values (null, null)";
    cluster.mysql_on_tablet(DESTINATION, damage)?;
    resharding::caught_up(&cluster, "customer/0")?;
    let found = cluster.vtworker(DIFF)?;
    ensure!(found.code == Some(1), "{found:?}");
    for text in [
        "table huge has differences: 1 row with other values: (x'6c657474657273') in body; 2 rows equal (in customer/0)",
        "table composite has differences: 1 row missing at the destination: ('b', x'', 0.000, 1); ",
        "table nothing has differences: 1 row only at the destination: (-5); ",
        "table every_type has differences: 1 row with other values: (18446744073709551615) in g; 1 row equal (in customer/0)",
        "table numbers has differences: 1 row with other values: (-1.50000, '2020-02-29 23:59:59.999', 5) in f; 3 rows equal",
        "table names has differences: 1 row with other values: (x'61') in doc; ",
        "table bag has differences: 1 row missing at the destination: (1, 'twice'); 1 row only at the destination: (NULL, NULL); ",
    ] {
        ensure!(found.stderr.contains(text), "{text} is not in {}", found.stderr);
    }
    ensure!(!found.stderr.contains("table bulk has differences"), "{}", found.stderr);
    ensure!(cluster.debug_var(cluster.tablets[DESTINATION_RDONLY].http_port, "TabletStateName")? == "SERVING");
    Ok(())
}

const SMALL_CHUNKS: &[&str] = &["-chunk_count=20", "-min_rows_per_chunk=1000"];

#[test]
fn tables_of_every_kind_are_cloned_while_they_are_written_to() -> Result<()> {
    under_writes(Flavor::MariaDb)
}

#[test]
fn tables_of_every_kind_are_cloned_while_they_are_written_to_on_mysql9() -> Result<()> {
    match Flavor::mysql9() {
        Some(flavor) => under_writes(flavor),
        None => Ok(()),
    }
}

/// `customer/0` with a master and an rdonly, and empty shards beside it. Tablets have room for two transactions.
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
    let mut cluster = Cluster::start(spec.vttablet_flag("-queryserver-config-transaction-cap=2"))?;
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

/// A write waits for a lock until the server gives up; tried again, it meets the row that the other client has committed
/// meanwhile: none of its own rows are there, and none may be taken for written.
#[test]
fn rows_of_a_write_that_is_tried_again_and_meets_another_row_are_copied() -> Result<()> {
    const LEFT: usize = 2;
    let mut cluster = horizontal(Flavor::MariaDb)?;
    cluster.mysql_on_tablet(LEFT, "set global innodb_lock_wait_timeout = 1")?;
    // Its connections are older than the setting.
    cluster.kill_vttablet(LEFT);
    cluster.start_vttablet(LEFT)?;
    cluster.wait_for_tablet_state(LEFT, "SERVING")?;

    let mut client = std::process::Command::new("mysql");
    client.args(["--no-defaults", "--batch", "--skip-column-names", "--unbuffered", "-u", "vt_dba", "-S"]);
    client.arg(cluster.tablet_dir(LEFT).join("mysql.sock"));
    let mut client = client.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn()?;
    let mut statements = client.stdin.take().context("a pipe")?;
    writeln!(statements, "begin; insert into vt_customer.customer values (1, 'stray'); select 'the row is there';")?;
    let mut answer = String::new();
    BufReader::new(client.stdout.take().context("a pipe")?).read_line(&mut answer)?;
    ensure!(answer == "the row is there\n", "{answer}");

    let port = free_port();
    let words = [&format!("-port={port}"), "SplitClone", "-min_healthy_rdonly_tablets=1", "-offline=false"];
    let clone = Background::start("SplitClone", cluster.vtworker_command(&[&words[..], &["customer/0"]].concat()))?;
    wait_for("a write to be tried again", Duration::from_secs(60), || {
        cluster.debug_var(port, "WorkerRetryCount").is_ok_and(|count| count.as_u64() > Some(0))
    })?;
    writeln!(statements, "commit;")?;
    drop(statements);
    ensure!(client.wait()?.success());
    clone.finish()?.success()?;
    let read = |index: usize, sql: &str| -> Result<String> {
        Ok(cluster.mysql_on_tablet(index, &format!("use vt_customer; {sql}"))?.stdout.trim().to_owned())
    };
    let counts: Vec<u64> =
        [LEFT, 3].iter().map(|at| Ok(read(*at, "select count(*) from customer")?.parse()?)).collect::<Result<_>>()?;
    ensure!(counts.iter().sum::<u64>() == 30_000, "{counts:?}");
    ensure!(read(LEFT, "select email from customer where customer_id = 1")? == "user1@domain.com");

    // More readers than the source has room for transactions.
    let snapshot = ["SplitClone", "-min_healthy_rdonly_tablets=1", "-use_consistent_snapshot", "-online=false"];
    let log =
        cluster.vtworker(&[&snapshot[..], &["-min_rows_per_chunk=100", "customer/0"]].concat())?.success()?.stderr;
    ensure!(log.contains("has room for 2 transactions only"), "{log}");
    ensure!(log.contains("customer: 0 inserted, 0 updated, 0 deleted, 30000 equal"), "{log}");
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
    let mut block = std::process::Command::new(testcluster::program("vtworkerclient"));
    block.args(["-server", &server, "-log_dir"]).arg(cluster.dir().join("tmp")).arg("Block");
    let blocked = Background::start("Block", block)?;
    wait_for("the job to block", Duration::from_secs(20), || {
        cluster.debug_var(http, "WorkerState").is_ok_and(|state| state == "running an internal debug command")
    })?;
    let busy = send(&["Ping", "x"])?;
    ensure!(busy.stderr.contains("code = Unavailable desc = A worker job is already in progress: "), "{}", busy.stderr);
    let reset = send(&["Reset"])?;
    ensure!(reset.stderr.contains("code = FailedPrecondition desc = worker still executing"), "{}", reset.stderr);
    send(&["Cancel"])?.success()?;
    let ended = blocked.finish()?;
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
