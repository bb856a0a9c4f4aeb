//! Filtered replication of many changes of few rows: what arrives is what the source has, whatever is put together.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use testcluster::{Cluster, Flavor, Spec, TabletSpec, wait_for};

/// Indices of the tablets.
const SOURCE: usize = 0;
const TARGET: usize = 1;

/// Rows that depend on nothing; keys that are equal and not the same; what may not be put together: a second unique key,
/// a parent and its children.
const TABLES: &[&str] = &[
    "create table plain (id bigint primary key, k int, v varchar(40), f float, ts timestamp(3) null, g int as (k + 1) stored, key (k))",
    "create table composite (a varchar(10), b int, v blob, primary key (a, b)) default charset = utf8mb4",
    "create table twice (id int primary key, u int not null, v varchar(20), unique key (u))",
    "create table parent (id int primary key, v varchar(20))",
    "create table child (id int primary key, p int not null, v varchar(20), foreign key (p) references parent (id) on delete cascade)",
    "create table stopped (id int primary key, v varchar(20))",
];
const NAMES: &[&str] = &["plain", "composite", "twice", "parent", "child", "stopped"];

/// Columns of every type that is no key, and with a row of 15 MB.
const WIDE: &str = "create table wide (id bigint unsigned primary key, j json, b bit(9), e enum('a', 'b'), s set('x', 'y'), \
    d datetime(6), ts timestamp(6) null, z date, c char(5) charset latin1, blo longblob, f float, g double, \
    dec_ decimal(30, 10), t time(6), y year, geo point, n int as (id + 1) virtual)";

/// Types of keys, with six values of each, and one that equals the first and is another.
const KEYS: &[(&str, [&str; 6], Option<&str>)] = &[
    ("bigint unsigned", ["0", "18446744073709551615", "1", "2", "3", "9223372036854775808"], None),
    ("float", ["1 / 3", "0.1", "-2.5", "1e10", "3.4e38", "7"], None),
    ("double", ["1 / 3", "0.1", "-2.5e-300", "1e10", "1.7e308", "7"], None),
    ("decimal(30, 10)", ["0.1", "-0.1", "99999999999999999999.9999999999", "1", "2", "3"], None),
    ("bit(12)", ["0", "1", "b'101'", "4095", "7", "9"], None),
    ("year", ["0", "1901", "1970", "2024", "2155", "2069"], None),
    ("enum('a', 'b', 'c', 'd', 'e', 'f')", ["'a'", "'b'", "'c'", "'d'", "'e'", "'f'"], None),
    ("set('a', 'b', 'c')", ["''", "'a'", "'b'", "'a,b'", "'c'", "'a,c'"], None),
    ("date", ["'0000-00-00'", "'2024-02-29'", "'2024-00-00'", "'1000-01-01'", "'9999-12-31'", "'2020-01-01'"], None),
    (
        "datetime(6)",
        [
            "'0000-00-00'",
            "'2024-02-29 23:59:59.999999'",
            "'2024-02-29'",
            "'1000-01-01 00:00:00.000001'",
            "'9999-12-31'",
            "'2020-01-01'",
        ],
        None,
    ),
    (
        "timestamp(6) default '0000-00-00'",
        [
            "'0000-00-00'",
            "'2024-03-31 02:30:00.123456'",
            "'2024-03-31 02:30:00'",
            "'1970-01-02'",
            "'2037-12-31'",
            "'2020-01-01'",
        ],
        None,
    ),
    ("time(3)", ["'-838:59:59'", "'00:00:00.5'", "'-00:00:00.5'", "'838:59:59'", "'12:00'", "'00:00'"], None),
    (
        "char(10) character set utf8mb4 collate utf8mb4_general_ci",
        ["'x'", "''", "'b'", "'日本'", "'it''s'", "'é'"],
        Some("'X'"),
    ),
    (
        "varchar(20) character set latin1 collate latin1_swedish_ci",
        ["'x'", "'b '", "'é'", "'ñ'", "'\\\\'", "'z'"],
        Some("'X'"),
    ),
    (
        "varchar(20) character set utf16 collate utf16_general_ci",
        ["'x'", "''", "'b'", "'日本'", "'c'", "'é'"],
        Some("'X '"),
    ),
    ("varchar(20) character set utf8mb4 collate utf8mb4_bin", ["'x'", "'X'", "'é'", "'e'", "'😀'", "'z'"], None),
    ("varbinary(20)", ["x'00'", "''", "x'ff27'", "x'0a5c'", "'a'", "x'0000'"], None),
    ("binary(8)", ["x'01'", "''", "x'ff'", "'a'", "'b'", "x'0100ff'"], None),
];
/// Those of MariaDB alone.
const MARIA_KEYS: &[(&str, [&str; 6], Option<&str>)] = &[
    (
        "uuid",
        [
            "'123e4567-e89b-12d3-a456-426655440000'",
            "'00000000-0000-0000-0000-000000000000'",
            "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
            "'123e4567-e89b-42d3-a456-426655440000'",
            "'00000000-0000-0000-0000-000000000001'",
            "'123e4567-e89b-12d3-a456-426655440001'",
        ],
        None,
    ),
    ("inet6", ["'::'", "'::1'", "'::ffff:1.2.3.4'", "'fe80::1'", "'2001:db8::'", "'ff02::1'"], None),
];

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Statements that never fail and often meet the same rows.
fn statement(numbers: &mut Numbers) -> String {
    let (id, other, n) = (numbers.below(40), numbers.below(40), numbers.below(1000));
    let letter = ["a", "A", "b", "ä", "B"][numbers.below(5) as usize];
    match numbers.below(16) {
        0 => format!(
            "insert ignore into plain (id, k, v, f, ts) values ({id}, {n}, 'new {n}', {n} / 7, from_unixtime({n}))"
        ),
        1 => format!("update plain set k = k + 1, v = 'it''s {n}', f = {n} / 3 where id = {id}"),
        2 => format!("delete from plain where id = {id}"),
        3 => format!("update ignore plain set id = {other} where id = {id}"),
        4 => format!("replace into plain (id, k, v) values ({id}, {n}, null)"),
        5 => format!("update plain set k = k + {n} where id % 3 = {}", id % 3),
        6 => format!("insert ignore into composite values ('{letter}', {}, x'00ff27{id:02x}')", id % 4),
        7 => format!("update ignore composite set a = '{letter}', v = 'changed {n}' where b = {} limit 1", id % 4),
        8 => format!("delete from composite where a = '{letter}' and b = {}", id % 4),
        9 => format!("insert ignore into twice values ({id}, {other}, '{n}')"),
        10 => format!("delete from twice where u = {other}"),
        11 => format!("update ignore twice set u = u + 1, v = '{n}' where id = {id}"),
        12 => format!("insert ignore into parent values ({}, '{n}')", id % 5),
        13 => format!("insert ignore into child values ({id}, {}, '{n}')", other % 5),
        14 => format!("delete from parent where id = {}", id % 5),
        _ => format!("update child set v = '{n}' where p = {}", id % 5),
    }
}

/// Asks for every row of tables, each value so that no difference is lost. CHECKSUM TABLE of MariaDB is not always the
/// same for the same rows where a stored column is generated.
fn every_row(cluster: &Cluster, tables: &[String]) -> Result<String> {
    let sql = "select table_name, column_name, data_type from information_schema.columns \
        where table_schema = 'vt_commerce' order by table_name, ordinal_position";
    let columns = cluster.mysql_on_tablet(SOURCE, sql)?.stdout;
    let mut text = String::new();
    for table in tables {
        write!(text, "select '{table}'")?;
        for line in columns.lines() {
            let [name, column, data_type] = line.split('\t').collect::<Vec<_>>()[..] else { bail!("{line}") };
            match data_type {
                _ if name != table => {}
                "float" => write!(text, ", {column} + 0e0")?,
                "longblob" => write!(text, ", sha2({column}, 256)")?,
                "bit" | "blob" | "char" | "varchar" | "binary" | "varbinary" | "point" => {
                    write!(text, ", hex({column})")?
                }
                _ => write!(text, ", {column}")?,
            }
        }
        write!(text, " from {table};")?;
    }
    Ok(text)
}

/// The rows of tables, sorted.
fn rows(cluster: &Cluster, index: usize, select: &str) -> Result<Vec<String>> {
    let database = ["vt_commerce", "vt_customer"][index];
    let out = cluster.mysql_on_tablet(index, &format!("set names utf8mb4; use {database}; {select}"))?.stdout;
    let mut lines: Vec<String> = out.lines().map(str::to_owned).collect();
    lines.sort_unstable();
    Ok(lines)
}

/// Waits until the target has all rows of the source.
fn same(cluster: &Cluster, tables: &[String]) -> Result<()> {
    let select = every_row(cluster, tables)?;
    let source = rows(cluster, SOURCE, &select)?;
    let there = || rows(cluster, TARGET, &select).unwrap_or_default();
    wait_for("the rows to arrive", Duration::from_secs(60), || there() == source).with_context(|| {
        let state = cluster.mysql_on_tablet(TARGET, "select pos, state, message from _vt.vreplication");
        let mut text = state.map_or_else(|error| error.to_string(), |out| out.stdout);
        let target = there();
        for (side, rows, other) in [("source", &source, &target), ("target", &target, &source)] {
            for row in rows.iter().filter(|row| !other.contains(row)).take(5) {
                let _ = writeln!(text, "only at the {side}: {}", row.chars().take(200).collect::<String>());
            }
        }
        text
    })
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// On both sides.
fn create(cluster: &Cluster, tables: &str) -> Result<()> {
    cluster.mysql_on_tablet(SOURCE, &format!("use vt_commerce; {tables}"))?;
    cluster.mysql_on_tablet(TARGET, &format!("use vt_customer; {tables}")).map(drop)
}

/// Changes at the source as one transaction.
fn transaction(cluster: &Cluster, changes: &str) -> Result<()> {
    let session = "set names utf8mb4; set sql_mode = 'ALLOW_INVALID_DATES', time_zone = '+05:30'; use vt_commerce";
    cluster.mysql_on_tablet(SOURCE, &format!("{session}; begin; {changes} commit")).map(drop)
}

/// How many rows the target's mysqld has changed by UPDATE and the like.
fn updates(cluster: &Cluster) -> Result<u64> {
    let out = cluster.mysql_on_tablet(TARGET, "show global status like 'Handler_update'")?.stdout;
    Ok(out.split_whitespace().last().context("a number")?.parse()?)
}

fn start(flavor: &Flavor) -> Result<Cluster> {
    let tablets =
        [(100, "commerce"), (200, "customer")].map(|(uid, keyspace)| TabletSpec::new(uid, keyspace, "0", "replica"));
    let services = "-service_map=grpc-queryservice,grpc-tabletmanager,grpc-updatestream,grpc-throttler";
    Cluster::start(Spec::keyspaces(flavor.clone(), tablets.into()).vttablet_flag(services))
}

fn position(cluster: &Cluster, flavor: &Flavor) -> Result<String> {
    let (name, set) = match flavor {
        Flavor::MariaDb => ("MariaDB", "@@GLOBAL.gtid_binlog_pos"),
        Flavor::MySql9(_) => ("MySQL56", "@@GLOBAL.gtid_executed"),
    };
    let set = cluster.mysql_on_tablet(SOURCE, &format!("select {set}"))?.stdout;
    Ok(format!("{name}/{}", set.trim().replace("\\n", "")))
}

/// Streams tables from a position on.
fn stream(cluster: &Cluster, tables: &[String], position: &str) -> Result<()> {
    let tables: String = tables.iter().map(|name| format!("tables:\"{name}\" ")).collect();
    let limit = i64::MAX;
    let insert = format!(
        "insert into _vt.vreplication (workflow, source, pos, max_tps, max_replication_lag, tablet_types, time_updated, \
         transaction_timestamp, state, db_name) values ('test', 'keyspace:\"commerce\" shard:\"0\" {tables}', \
         '{position}', {limit}, {limit}, 'MASTER', 0, 0, 'Running', 'vt_customer')"
    );
    cluster.vtctlclient(&["VReplicationExec", "zone1-200", &insert])?.success().map(drop)
}

/// Transactions of statements that never fail.
fn random(numbers: &mut Numbers, transactions: usize) -> Result<String> {
    let mut text = "use vt_commerce;".to_owned();
    for _ in 0..transactions {
        text += "begin;";
        for _ in 0..=numbers.below(6) {
            write!(text, "{};", statement(numbers))?;
        }
        text += "commit;";
    }
    Ok(text)
}

fn many_changes(flavor: &Flavor) -> Result<()> {
    let mut cluster = start(flavor)?;
    create(&cluster, &TABLES.join(";"))?;
    let from = position(&cluster, flavor)?;
    // All of it is there when the stream begins, so that much of it is applied at once.
    let mut numbers = Numbers(7);
    for _ in 0..20 {
        cluster.mysql_on_tablet(SOURCE, &random(&mut numbers, 50)?)?;
    }
    let all = names(NAMES);
    stream(&cluster, &all, &from)?;
    same(&cluster, &all).context("what was there when the stream began")?;
    throttled(&cluster)?;
    hot_row(&cluster, &all)?;
    stray_row(&cluster, &all)?;
    altered_here(&cluster)?;
    killed(&mut cluster, &all, &mut numbers)
}

/// The target's tablet says how fast its stream may go, and obeys.
fn throttled(cluster: &Cluster) -> Result<()> {
    let server = format!("127.0.0.1:{}", cluster.tablets[TARGET].grpc_port);
    let run = |command: &str, more: &[&str]| -> Result<String> {
        Ok(cluster.vtctlclient(&[&[command, "-server", &server], more].concat())?.success()?.stdout)
    };
    let rates = run("ThrottlerMaxRates", &[])?;
    ensure!(rates.contains("| BinlogPlayer/1 | unlimited |"), "{rates}");
    run("ThrottlerSetMaxRate", &["0"])?;
    let position = || cluster.mysql_on_tablet(TARGET, "select pos from _vt.vreplication").map(|out| out.stdout);
    let before = position()?;
    transaction(cluster, "replace into plain (id, k) values (8, 0);")?;
    std::thread::sleep(Duration::from_secs(2));
    ensure!(position()? == before, "the stream goes on at a rate of 0");
    run("ThrottlerSetMaxRate", &["unlimited"])?;
    same(cluster, &names(NAMES))
}

/// A hot row is written once, not as often as it changed.
fn hot_row(cluster: &Cluster, all: &[String]) -> Result<()> {
    transaction(cluster, "replace into plain (id, k) values (7, 0);")?;
    same(cluster, all)?;
    let mut text = String::new();
    for n in 0..500 {
        write!(text, "update plain set k = k + 1, v = '{n}' where id = 7;")?;
    }
    let before = updates(cluster)?;
    transaction(cluster, &text)?;
    same(cluster, all)?;
    let writes = updates(cluster)? - before;
    ensure!(writes < 100, "500 changes of a row were {writes} updates");
    Ok(())
}

/// A row that should not be there is found, and nothing is overwritten.
fn stray_row(cluster: &Cluster, all: &[String]) -> Result<()> {
    cluster.mysql_on_tablet(TARGET, "insert into vt_customer.stopped values (3, 'a stray')")?;
    transaction(cluster, "insert into stopped values (1, 'x'), (2, 'y'), (3, 'z');")?;
    let state = || cluster.mysql_on_tablet(TARGET, "select state, message from _vt.vreplication").map(|out| out.stdout);
    wait_for("the stream to say what it met", Duration::from_secs(60), || {
        state().is_ok_and(|state| state.starts_with("Error") && state.contains("Duplicate entry '3' for key"))
    })?;
    let rows = cluster.mysql_on_tablet(TARGET, "select * from vt_customer.stopped")?.stdout;
    ensure!(rows.trim() == "3\ta stray", "{rows}");
    cluster.mysql_on_tablet(TARGET, "delete from vt_customer.stopped")?;
    same(cluster, all)
}

/// Whoever gives a table of the target a trigger sees every change from then on.
fn altered_here(cluster: &Cluster) -> Result<()> {
    let sql = "use vt_customer; create table log (id int auto_increment primary key, v varchar(20)); \
        create trigger logged after update on stopped for each row insert into log (v) values (new.v)";
    cluster.mysql_on_tablet(TARGET, sql)?;
    let seen = || -> Result<String> {
        Ok(cluster.mysql_on_tablet(TARGET, "select v from vt_customer.log order by id")?.stdout.replace('\n', " "))
    };
    for round in 0..60 {
        cluster.mysql_on_tablet(TARGET, "truncate vt_customer.log")?;
        let changes: String =
            ["a", "b", "c"].map(|v| format!("update stopped set v = '{v}{round}' where id = 1;")).concat();
        transaction(cluster, &changes)?;
        same(cluster, &names(&["stopped"]))?;
        if seen()? == format!("a{round} b{round} c{round} ") {
            cluster.mysql_on_tablet(TARGET, "use vt_customer; drop trigger logged")?;
            return Ok(());
        }
        // One of the changes that were under way, or put together before it was looked at the table again.
        ensure!(seen()? == format!("c{round} "), "{}", seen()?);
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!("changes are put together where a trigger wants each: {}", seen()?)
}

/// Runs a text of many statements; each is a transaction or part of one.
fn write_to(socket: &Path, text: &str) -> Result<()> {
    let args = ["--no-defaults", "-u", "vt_dba", "-e", text, "-S"];
    let out = Command::new("mysql").args(args).arg(socket).output()?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// Whatever dies while changes go on, the target goes on where it was.
fn killed(cluster: &mut Cluster, all: &[String], numbers: &mut Numbers) -> Result<()> {
    const TEXTS: usize = 12;
    let socket = cluster.tablet_dir(SOURCE).join("mysql.sock");
    for victim in ["the target's vttablet", "the source's vttablet", "the target's mysqld"] {
        let texts = (0..TEXTS).map(|_| random(numbers, 30)).collect::<Result<Vec<_>>>()?;
        let written = AtomicUsize::new(0);
        std::thread::scope(|scope| -> Result<()> {
            let writer = scope.spawn(|| {
                texts.iter().try_for_each(|text| {
                    written.fetch_add(1, Ordering::Relaxed);
                    write_to(&socket, text)
                })
            });
            wait_for("some changes", Duration::from_secs(60), || written.load(Ordering::Relaxed) > TEXTS / 3)?;
            match victim {
                "the target's vttablet" => {
                    cluster.kill_vttablet(TARGET);
                    cluster.start_vttablet(TARGET)?;
                }
                "the source's vttablet" => {
                    cluster.kill_vttablet(SOURCE);
                    cluster.start_vttablet(SOURCE)?;
                }
                _ => {
                    cluster.kill_mysqld(TARGET)?;
                    cluster.start_mysqld(TARGET)?;
                }
            }
            writer.join().map_err(|_| anyhow!("the writer panicked"))?
        })?;
        same(cluster, all).with_context(|| format!("after a kill of {victim}"))?;
    }
    Ok(())
}

/// The changes that a key may see, of five rows.
fn key_changes(table: &str, values: &[&str; 6], equal: Option<&str>) -> Result<String> {
    let mut text = String::new();
    let [first, second, _, fourth, fifth, sixth] = values;
    for v in ["x", "y"] {
        write!(text, "update {table} set v = '{v}' where n = 1;")?;
    }
    write!(text, "delete from {table} where n = 2;")?;
    write!(text, "update {table} set id = {sixth} where n = 3;")?;
    write!(text, "delete from {table} where n = 4;")?;
    write!(text, "insert into {table} (id, n, v) values ({fourth}, 4, 'again');")?;
    // The first and the fifth swap their keys by way of the second.
    write!(text, "update {table} set id = {second} where n = 1;")?;
    write!(text, "update {table} set id = {first} where n = 5;")?;
    write!(text, "update {table} set id = {fifth}, v = 'swapped' where n = 1;")?;
    if let Some(equal) = equal {
        write!(text, "update {table} set id = {equal} where n = 5;")?;
        write!(text, "update {table} set v = 'equal' where n = 5;")?;
    }
    Ok(text)
}

fn every_key(flavor: &Flavor) -> Result<()> {
    let cluster = start(flavor)?;
    let maria = if *flavor == Flavor::MariaDb { MARIA_KEYS } else { &[] };
    let (mut all, mut definitions, mut rows, mut changes) =
        (vec!["wide".to_owned()], WIDE.to_owned(), String::new(), String::new());
    for (at, (sql_type, values, equal)) in KEYS.iter().chain(maria).enumerate() {
        for (name, key) in [(format!("one_{at}"), "id"), (format!("two_{at}"), "k, id")] {
            write!(
                definitions,
                "; set sql_mode = 'ALLOW_INVALID_DATES'; create table {name} (id {sql_type} not null, \
                 k int not null default 7, n int, v varchar(20), primary key ({key}))"
            )?;
            for (n, value) in values[..5].iter().enumerate() {
                write!(rows, "insert into {name} (id, n, v) values ({value}, {}, 'first');", n + 1)?;
            }
            changes += &key_changes(&name, values, *equal)?;
            all.push(name);
        }
    }
    create(&cluster, &format!("set names utf8mb4; {definitions}"))?;
    let from = position(&cluster, flavor)?;
    stream(&cluster, &all, &from)?;
    let values = r#"'{"a": [1, 2.5, null, "é"], "b": {}}', b'101', 'b', 'x,y', '2024-02-29 23:59:59.999999', '2024-03-31 02:30:00.123456', '0000-00-00', 'é', x'00ff275c', 1 / 3, 1 / 3, 12345678901234567890.0123456789, '-01:02:03.4', 2024, point(1, 2)"#;
    let columns = "id, j, b, e, s, d, ts, z, c, blo, f, g, dec_, t, y, geo";
    for id in [0, 1, 2, 3] {
        write!(rows, "insert into wide ({columns}) values ({id}, {values});")?;
    }
    transaction(&cluster, &rows)?;
    same(&cluster, &all).context("inserted")?;
    write!(
        changes,
        "update wide set f = f + 1, j = json_set(j, '$.a', id) where id < 3; update wide set g = g / 3, b = null where id < 3; \
         delete from wide where id = 1; insert into wide (id, blo) values (1, repeat(char(39), 7000000)); \
         update wide set blo = repeat('x', 15000000) where id = 0;"
    )?;
    let before = updates(&cluster)?;
    transaction(&cluster, &changes)?;
    same(&cluster, &all).context("changed")?;
    // They went as rows: of five changes of a row that stays there was one.
    let (writes, tables) = (updates(&cluster)? - before, all.len() as u64);
    ensure!(writes < tables, "{writes} updates in {tables} tables");
    Ok(())
}

#[test]
fn many_changes_arrive_as_few_on_mariadb() -> Result<()> {
    many_changes(&Flavor::MariaDb)
}

#[test]
fn many_changes_arrive_as_few_on_mysql9() -> Result<()> {
    Flavor::mysql9().map_or(Ok(()), |flavor| many_changes(&flavor))
}

#[test]
fn every_key_names_its_row_on_mariadb() -> Result<()> {
    every_key(&Flavor::MariaDb)
}

#[test]
fn every_key_names_its_row_on_mysql9() -> Result<()> {
    Flavor::mysql9().map_or(Ok(()), |flavor| every_key(&flavor))
}
