//! ORDER BY and LIMIT over shards: rows come as from the same table in an unsharded keyspace, whatever the types of
//! their columns; whole, streamed, and by the binary protocol.

use std::{fmt::Write as _, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use mysql::{ConnectParams, Connection};
use testcluster::{Background, Cluster, Flavor, Spec, TabletSpec, anonymous_kib};
use vtproto::query::{Field, QueryResult, Row};

/// Rows of the table of all types.
const ROWS: usize = 60;
/// Rows of the table that is streamed, on each shard, and their bytes.
const STREAMED: usize = 20_000;
const STREAMED_BYTES: usize = 2_000;

/// A column: name, type, values as SQL.
type Column = (&'static str, &'static str, &'static [&'static str]);

const COLUMNS: &[Column] = &[
    ("tiny", "tinyint", &["-128", "0", "127", "-1", "9", "10"]),
    ("zero", "int(6) unsigned zerofill", &["0", "7", "100", "99", "1000000"]),
    ("wide", "bigint unsigned", &["0", "18446744073709551615", "9223372036854775808", "10", "9"]),
    ("amount", "decimal(20,5)", &["-10.5", "-9.5", "0.00001", "-0.00001", "123456789012345.6", "99.9"]),
    // Clients see 1.23457 of both.
    ("single", "float", &["1.234567", "1.234568", "-1.234568", "-1.234567", "1e20", "3.5e-20"]),
    ("ratio", "double", &["-1e300", "1e-300", "0", "2", "10", "-3.25"]),
    ("y", "year", &["1901", "1970", "2024", "2155"]),
    ("day", "date", &["'1969-12-31'", "'2024-02-29'", "'9999-12-31'", "'1000-01-01'"]),
    ("span", "time(2)", &["'-838:59:59'", "'-00:00:01.5'", "'-00:00:01'", "'00:00:00'", "'99:00:00'", "'100:00:00'"]),
    ("moment", "datetime(3)", &["'1969-12-31 23:59:59.999'", "'2024-02-29'", "'2024-02-29 00:00:00.001'"]),
    (
        "stamp",
        "timestamp null",
        &["'2024-10-27 00:30:00'", "'2024-10-27 01:20:00'", "'2024-10-26 23:59:59'", "'1971-01-01'"],
    ),
    ("bits", "bit(12)", &["0", "1", "255", "256", "4095"]),
    ("choice", "enum('pear','apple','Fig','banana')", &["'pear'", "'apple'", "'Fig'", "'banana'"]),
    ("choice_bin", "enum('z','Y','x') collate utf8mb4_bin", &["'z'", "'Y'", "'x'"]),
    ("some", "set('z','y','x','a')", &["''", "'z'", "'y'", "'z,y'", "'x'", "'a'", "'a,z'"]),
    ("bytes_", "varbinary(20)", &["''", "'a'", "'A'", "'a '", "'a\\0'", "x'ff'", "x'80'", "'B'"]),
    ("fixed", "binary(4)", &["'a'", "'A'", "'ab'", "x'ff'"]),
    ("blob_", "blob", &["''", "'b'", "'B'", "'b\\0'"]),
    (
        "ci",
        "varchar(20) collate utf8mb4_general_ci",
        &["'b'", "'A'", "'a'", "'a '", "'a\\t'", "'ä'", "'B'", "''", "'z'", "'é'", "'ß'", "'ss'"],
    ),
    (
        "uni",
        "varchar(20) collate utf8mb4_unicode_ci",
        &["'b'", "'A'", "'a  '", "'a\\tb'", "'ä'", "'ß'", "'ss'", "'st'", "''", "'日本'"],
    ),
    ("bin", "varchar(20) collate utf8mb4_bin", &["'b'", "'A'", "'a'", "'a '", "'a\\t'", "'ä'", "'Z'", "'😀'", "'￿'"]),
    ("latin", "varchar(20) character set latin1", &["'b'", "'A'", "'a'", "'Ä'", "'ö'", "'a\\t'", "'z'", "'ÿ'"]),
    ("short_", "char(10) collate utf8mb4_general_ci", &["'b'", "'A'", "'a'", "'a\\t'", "'c'"]),
    (
        "long_",
        "text collate utf8mb4_general_ci",
        &["'x'", "'X'", "repeat('x', 200)", "concat(repeat('x', 200), 'y')", "'w'"],
    ),
    ("wide_", "varchar(20) character set utf16", &["'b'", "'A'", "'a '", "'ä'", "'Z'"]),
    ("doc", "json", &["'1'", "'\"a\"'", "'{\"b\": 1}'", "'[10, 9]'", "'2.5'"]),
];
/// Collations whose blanks count.
const NOPAD_MARIADB: Column =
    ("nopad", "varchar(20) collate utf8mb4_general_nopad_ci", &["'a'", "'a '", "'a\\t'", "'A'", "'b'", "''"]);
const NOPAD_MYSQL: Column =
    ("nopad", "varchar(20) collate utf8mb4_0900_ai_ci", &["'a'", "'a '", "'a\\t'", "'A'", "'b'", "'ä'", "''"]);
const ZERO_DATES: Column = ("never", "date", &["'0000-00-00'", "'2024-00-00'", "'2024-01-01'", "'0000-01-01'"]);

fn columns(flavor: &Flavor) -> Vec<Column> {
    let mut columns = COLUMNS.to_vec();
    match flavor {
        Flavor::MariaDb => columns.extend([NOPAD_MARIADB, ZERO_DATES]),
        Flavor::MySql9(_) => columns.push(NOPAD_MYSQL),
    }
    columns
}

fn start(flavor: Flavor) -> Result<Cluster> {
    let tablets = vec![
        TabletSpec::new(100, "commerce", "0", "replica"),
        TabletSpec::new(200, "customer", "-80", "replica"),
        TabletSpec::new(300, "customer", "80-", "replica"),
    ];
    let mut types = "create table v(id bigint not null primary key, place point".to_owned();
    for (name, kind, _) in columns(&flavor) {
        write!(types, ", {name} {kind}")?;
    }
    types.push_str(") charset utf8mb4;\n");
    if flavor == Flavor::MariaDb {
        types.push_str("create table strange(id bigint not null primary key, address inet6, uid uuid);\n");
    }
    types.push_str(
        "create table w(id bigint not null primary key, v_id bigint, k int, name varchar(20)) charset utf8mb4;\n",
    );
    types.push_str(
        "create table big(id bigint not null primary key, k int, filling varchar(4000) character set latin1);\n",
    );
    let mut spec = Spec::keyspaces(flavor, tablets);
    spec.schema = vec![("commerce".into(), types.clone()), ("customer".into(), types)];
    spec.vschema = vec![
        ("commerce".into(), r#"{"tables": {"v": {}, "w": {}, "big": {}, "strange": {}}}"#.into()),
        (
            "customer".into(),
            r#"{"sharded": true, "vindexes": {"hash": {"type": "hash"}}, "tables": {
            "v": {"column_vindexes": [{"column": "id", "name": "hash"}]},
            "w": {"column_vindexes": [{"column": "v_id", "name": "hash"}]},
            "strange": {"column_vindexes": [{"column": "id", "name": "hash"}]},
            "big": {"column_vindexes": [{"column": "id", "name": "hash"}]}}}"#
                .into(),
        ),
    ];
    Cluster::start(spec.vtgate_flag("-max_memory_rows").vtgate_flag("8000"))
}

/// The same rows in the sharded and in the unsharded keyspace.
struct Sides {
    sharded: Connection,
    unsharded: Connection,
}

impl Sides {
    async fn connect(cluster: &Cluster) -> Result<Self> {
        let gate =
            |keyspace: &str| ConnectParams::tcp("127.0.0.1", cluster.vtgate_mysql_port, "test").database(keyspace);
        let sharded = Connection::connect(&gate("customer")).await?;
        Ok(Self { sharded, unsharded: Connection::connect(&gate("commerce")).await? })
    }

    async fn both(&mut self, sql: &str) -> Result<(QueryResult, QueryResult)> {
        let sharded = self.sharded.execute(sql).await.with_context(|| format!("sharded: {sql}"))?;
        Ok((sharded, self.unsharded.execute(sql).await.with_context(|| format!("unsharded: {sql}"))?))
    }

    async fn fill(&mut self, columns: &[Column]) -> Result<()> {
        let names: Vec<&str> = columns.iter().map(|column| column.0).collect();
        let (mut v, mut w) = (Vec::new(), Vec::new());
        for id in 1..=ROWS {
            let mut row = format!("({id}, point({id}, 1)");
            for (number, (_, _, values)) in columns.iter().enumerate() {
                let at = (id * 7 + id / 5 + number) % (values.len() + 1);
                write!(row, ", {}", values.get(at).unwrap_or(&"null"))?;
            }
            v.push(row + ")");
            for part in 0..id % 4 {
                w.push(format!("({}, {id}, {}, 'n{}')", id * 10 + part, id * part % 7, id % 3));
            }
        }
        self.both(&format!("insert into v(id, place, {}) values {}", names.join(", "), v.join(", "))).await?;
        self.both(&format!("insert into w(id, v_id, k, name) values {}", w.join(", "))).await?;
        Ok(())
    }

    async fn same(&mut self, sql: &str) -> Result<()> {
        let (sharded, unsharded) = self.both(sql).await?;
        ensure!(sharded.rows == unsharded.rows, "{sql}\n{}", difference(&sharded.rows, &unsharded.rows));
        let names = |result: &QueryResult| -> Vec<(String, i32)> {
            result.fields.iter().map(|Field { name, r#type, .. }| (name.clone(), *r#type)).collect()
        };
        ensure!(names(&sharded) == names(&unsharded), "{sql}: {:?}", names(&sharded));
        Ok(())
    }
}

fn difference(got: &[Row], want: &[Row]) -> String {
    let shown = |rows: &[Row]| -> Vec<String> {
        rows.iter().map(|row| format!("{:?} {:?}", row.lengths, String::from_utf8_lossy(&row.values))).collect()
    };
    format!("sharded: {:#?}\nunsharded: {:#?}", shown(got), shown(want))
}

/// Statements whose answers leave nothing open.
const SHAPES: &[&str] = &[
    "select id, place from v order by id limit 7",
    "select * from v order by id desc limit 3, 20",
    "select *, tiny as t from v order by t, ci desc, v.id",
    "select id from v order by choice desc, some, id desc limit 30 offset 10",
    "select ci as x, id, place from v where tiny > -2 order by x, 2",
    "select id, concat(ci, '-', bin) from v order by 2, id",
    "select id, concat(ci, '-', bin)  as both_ from v order by both_ desc, id",
    "select id from v order by ci collate utf8mb4_bin, id",
    "select id from v order by length(long_), abs(amount), -id",
    "select id from v order by ifnull(stamp, now()), id",
    "select id, date_format( moment , '%m' ), 1+1 from v order by 2, id limit 9",
    "select id from v order by null, id limit 4",
    "select id, place from v where id in (3, 1, 2, 9, 10, 11, 12, 4) order by ci desc, id limit 5",
    "select id from v where id = 3 order by ci limit 5",
    "select id from v where id in (null) order by ci limit 5",
    "select id from v limit 0",
    "select id from v where ci = 'none' order by ci limit 5",
    "select distinct id from v order by id limit 10",
    "select distinct id, ci from v order by ci, id limit 10",
    "select v.id, w.k, v.choice from v join w on w.v_id = v.id order by w.k, v.ci desc, w.id",
    "select v.*, w.name from v left join w on w.v_id = v.id order by w.name, v.id, w.id limit 25",
    "select v_id, count(*), max(name) from w group by v_id order by count(*) desc, max(name), v_id limit 12",
    "select v_id, count(*) as c from w group by v_id having c > 1 order by v_id",
    "select name, count(*) from w group by name order by name",
    "with few as (select id, ci, place from v where id < 30) select id, place from few order by ci, id limit 10",
    "select id, (select count(*) from w where w.v_id = v.id) as n, bits from v order by n desc, id limit 10",
    "select id from v order by doc, id",
    "select v_id, upper(name) as u, count(*) from w group by v_id, upper(name) order by u, v_id",
    "select id, max(ci) as m from v group by id order by m, id",
    "select c, id from (select choice as c, id from v) d order by c, id",
    "select c, id from (select choice as c, id from v union all select choice, id + 100 from v) d order by c, id limit 70",
    "select place from v where id < 9 union all select place from v where id > 3 limit 0",
    "select id from v order by ci like 'a%', greatest(moment, '2000-01-01'), if(id > 9, span, null), id",
    "select id from v order by date(moment) desc, time(moment), year(day), id",
];

async fn compare(cluster: &Cluster, flavor: &Flavor) -> Result<()> {
    let mut sides = Sides::connect(cluster).await?;
    let columns = columns(flavor);
    sides.fill(&columns).await?;
    let mut failures = Vec::new();
    let mut statements: Vec<String> = SHAPES.iter().map(|sql| (*sql).to_owned()).collect();
    for (name, _, _) in &columns {
        statements.push(format!("select id, {name} from v order by {name}, id"));
        statements.push(format!("select id from v order by {name} desc, id desc limit 5, 30"));
    }
    for workload in ["oltp", "olap"] {
        sides.both(&format!("set workload = {workload}")).await?;
        for sql in &statements {
            if let Err(error) = sides.same(sql).await {
                failures.push(format!("{workload}: {error:#}"));
            }
        }
    }
    sides.both("set workload = oltp").await?;
    if flavor == &Flavor::MariaDb {
        sides.both("set character_set_results = latin1").await?;
        sides.same("select id from v order by ci, bin, uni, id").await?;
        sides.both("set names utf8mb4").await?;
    }
    sides.both("set sql_select_limit = 6").await?;
    for sql in ["select id, place from v order by ci, id", "select id from v order by choice, id limit 9"] {
        sides.same(sql).await?;
    }
    sides.both("set sql_select_limit = default").await?;
    sides.both("begin").await?;
    sides.both("update v set ci = 'zz', choice = 'Fig' where id in (1, 2, 3, 4, 5)").await?;
    for sql in
        ["select id, place from v order by ci desc, id limit 7 for update", "select id from v order by choice, id"]
    {
        sides.same(sql).await?;
    }
    sides.both("rollback").await?;
    sides.same("select id, place from v order by ci desc, id limit 7").await?;
    // Rows that no order tells apart: so many of them.
    for (sql, count) in [("limit 10", 10), ("limit 55, 10", 5), ("order by place_of limit 3, 1000", 57)] {
        let sql = format!("select choice, some, bits, place, 1 as place_of from v {sql}");
        let rows = sides.sharded.execute(&sql).await?.rows.len();
        ensure!(rows == count, "{sql}: {rows} rows");
    }
    if flavor == &Flavor::MariaDb {
        let rows = "(1, '::1', '00000000-0000-1000-8000-0000000000ff'), (2, 'a::', 'ff000000-0000-1000-8000-000000000001'), \
            (4, '2001:db8::1', null)";
        sides.both(&format!("insert into strange values {rows}")).await?;
        sides.same("select address, uid from strange order by id").await?;
        for column in ["address", "uid"] {
            let error = sides.sharded.execute(&format!("select id from strange order by {column}")).await;
            let error = error.expect_err("its order is not its text's").to_string();
            ensure!(error.contains("unsupported: column "), "{error}");
        }
    }
    // A column that has got another type since its order was learned.
    for kind in ["varchar(20)", "int"] {
        for side in [&mut sides.sharded, &mut sides.unsharded] {
            side.execute(&format!("alter table w modify k {kind}")).await?;
        }
        sides.same("select id, k from w order by k, id").await?;
    }
    ensure!(failures.is_empty(), "{} differ\n{}", failures.len(), failures.join("\n\n"));
    Ok(())
}

/// By the binary protocol, with limits in the place of `?`.
fn prepared(cluster: &Cluster) -> Result<()> {
    let Some(path) = std::env::var_os("VT_TEST_PYTHONPATH") else {
        eprintln!("SKIPPED: VT_TEST_PYTHONPATH is not set, see scripts/test.sh");
        return Ok(());
    };
    let mut command = Command::new("python3");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/merged_rows.py"))
        .arg(cluster.vtgate_mysql_port.to_string())
        .env("PYTHONPATH", path);
    Background::start("merged_rows.py", command)?.finish()?.success().map(drop)
}

/// Many rows in order, more than vtgate may hold.
async fn streamed(cluster: &Cluster) -> Result<()> {
    for (tablet, rest) in [(1, 0), (2, 1)] {
        let sql = format!(
            "use vt_customer; insert into big select seq * 2 + {rest}, crc32(seq * 2 + {rest}) % 1000, repeat('x', {STREAMED_BYTES}) \
             from seq_1_to_{STREAMED}"
        );
        cluster.mysql_on_tablet(tablet, &sql)?.success()?;
    }
    let gate = ConnectParams::tcp("127.0.0.1", cluster.vtgate_mysql_port, "test").database("customer");
    let mut client = Connection::connect(&gate).await?;
    let sql = "select id, k, filling from big order by k desc, id limit 6000";
    let error = client.execute(sql).await.expect_err("too many rows").to_string();
    ensure!(error.contains("in-memory row count exceeded allowed limit of 8000"), "{error}");
    client.execute("set workload = olap").await?;
    let pid = cluster.vtgate().pid();
    let before = anonymous_kib(pid)?;
    let (mut most, mut rows, mut last) = (before, 0, (i64::MIN, i64::MIN));
    let mut stream = client.query_stream(b"select id, k, filling from big order by k desc, id").await?;
    while let Some(batch) = stream.next_batch(1 << 20).await? {
        for row in &batch {
            let text = String::from_utf8_lossy(&row.values);
            let (id, rest) = text.split_at(usize::try_from(row.lengths[0])?);
            let key = (-rest[..usize::try_from(row.lengths[1])?].parse::<i64>()?, id.parse::<i64>()?);
            ensure!(last < key, "{key:?} behind {last:?}");
            last = key;
        }
        rows += batch.len();
        most = most.max(anonymous_kib(pid)?);
    }
    stream.finish().await?;
    ensure!(rows == 2 * STREAMED, "{rows} rows");
    let (grown, all) = (most - before, (2 * STREAMED * STREAMED_BYTES / 1024) as u64);
    println!("vtgate grew by {grown} KiB while {all} KiB went through it");
    ensure!(grown * 2 < all, "vtgate grew by {grown} KiB for {all} KiB");
    Ok(())
}

fn merged_rows(flavor: Flavor) -> Result<()> {
    let cluster = start(flavor.clone())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(compare(&cluster, &flavor))?;
    prepared(&cluster)?;
    if flavor == Flavor::MariaDb {
        runtime.block_on(streamed(&cluster))?;
    }
    Ok(())
}

#[test]
fn rows_of_shards_come_in_the_order_of_mariadb() -> Result<()> {
    merged_rows(Flavor::MariaDb)
}

#[test]
fn rows_of_shards_come_in_the_order_of_mysql9() -> Result<()> {
    Flavor::mysql9().map_or(Ok(()), merged_rows)
}
