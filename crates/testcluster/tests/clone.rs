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

#[test]
fn rows_of_every_type_are_copied_compared_and_repaired() -> Result<()> {
    let cluster = vertical(Flavor::MariaDb)?;
    let run = |more: &[&str]| cluster.vtworker(&[CLONE, more, &["customer/0"]].concat());
    let out = run(&["-offline=false"])?.success()?;
    eprintln!("{}", out.stderr);
    same(&cluster, ALL)?;
    Ok(())
}
