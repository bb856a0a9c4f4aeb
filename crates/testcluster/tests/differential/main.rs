//! Random statements on sharded tables against the same tables on a plain mysqld: the answers are equal.
//!
//! `DIFFERENTIAL_STATEMENTS` is how many (default 400), `DIFFERENTIAL_SEED` chooses others than the default ones;
//! both are printed. A failure names the statement and both answers.

mod generator;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use generator::{Generator, Order, Statement, TABLES, plain};
use mysql::{ConnectParams, Connection};
use testcluster::{Cluster, Flavor, Spec, TabletSpec};
use vtproto::query::{QueryResult, Type};

/// Statements between two fillings of the tables.
const BETWEEN_FILLINGS: usize = 60;
/// Failures after which the rest is left.
const ENOUGH: usize = 40;

const VSCHEMA: &str = r#"{"sharded": true,
    "vindexes": {"hash": {"type": "hash"}, "loose": {"type": "unicode_loose_md5"},
        "l_uq": {"type": "consistent_lookup_unique", "owner": "l", "params": {"table": "main.l_uq", "from": "uq", "to": "at"}},
        "l_nu": {"type": "consistent_lookup", "owner": "l", "params": {"table": "l_nu", "from": "nu,id", "to": "at"}},
        "p_uq": {"type": "lookup_unique", "owner": "p", "params": {"table": "p_uq", "from": "uq", "to": "at"}},
        "p_nu": {"type": "lookup", "owner": "p", "params": {"table": "main.p_nu", "from": "nu,id", "to": "at"}}},
    "tables": {
        "a": {"column_vindexes": [{"column": "id", "name": "hash"}]},
        "c": {"column_vindexes": [{"column": "a_id", "name": "hash"}]},
        "k": {"column_vindexes": [{"column": "code", "name": "loose"}]},
        "l": {"column_vindexes": [{"column": "id", "name": "hash"}, {"column": "uq", "name": "l_uq"},
            {"columns": ["nu", "id"], "name": "l_nu"}]},
        "l_nu": {"column_vindexes": [{"column": "nu", "name": "hash"}]},
        "p": {"column_vindexes": [{"column": "id", "name": "hash"}, {"column": "uq", "name": "p_uq"},
            {"columns": ["nu", "id"], "name": "p_nu"}]},
        "p_uq": {"column_vindexes": [{"column": "uq", "name": "hash"}]},
        "r": {"type": "reference"}}}"#;
/// Lookup tables beside the shards, and on them.
const MAIN_LOOKUPS: &str = "
create table l_uq(uq varchar(20) collate utf8mb4_general_ci, at varbinary(16), primary key(uq)) charset utf8mb4;
create table p_nu(nu varchar(20) collate utf8mb4_general_ci, id bigint, at varbinary(16), primary key(nu, id)) charset utf8mb4;
";
const MANY_LOOKUPS: &str = "
create table l_nu(nu int, id bigint, at varbinary(16), primary key(nu, id));
create table p_uq(uq int, at varbinary(16), primary key(uq));
";
const MAIN_VSCHEMA: &str = r#"{"tables": {"u": {}, "l_uq": {}, "p_nu": {}}}"#;

fn start(flavor: Flavor) -> Result<Cluster> {
    let tablets = vec![
        TabletSpec::new(100, "main", "0", "replica"),
        TabletSpec::new(200, "many", "-80", "replica"),
        TabletSpec::new(300, "many", "80-", "replica"),
    ];
    let mut spec = Spec::keyspaces(flavor, tablets);
    let of = |sharded: bool| {
        TABLES.iter().filter(|t| t.sharded == sharded).map(|t| format!("{};\n", t.create)).collect::<String>()
    };
    spec.schema = vec![("main".into(), of(false) + MAIN_LOOKUPS), ("many".into(), of(true) + MANY_LOOKUPS)];
    spec.vschema = vec![("main".into(), MAIN_VSCHEMA.into()), ("many".into(), VSCHEMA.into())];
    Cluster::start(spec)
}

/// A result, comparable.
#[derive(Debug, Clone, PartialEq)]
struct Answer {
    names: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
    affected: u64,
}

fn answer(result: &QueryResult, is_write: bool) -> Answer {
    let rows = result.rows.iter().map(|row| {
        let mut rest = &row.values[..];
        let cell = |(length, field): (&i64, &vtproto::query::Field)| {
            let (value, tail) = rest.split_at(usize::try_from(*length).ok()?);
            rest = tail;
            let text = String::from_utf8_lossy(value).into_owned();
            Some(match field.r#type() {
                // Both print the shortest digits, one with an exponent where the other has none.
                Type::Float32 | Type::Float64 => text.parse::<f64>().map_or(text, |number| format!("{number:.6e}")),
                _ => text,
            })
        };
        row.lengths.iter().zip(&result.fields).map(cell).collect()
    });
    Answer {
        rows: rows.collect(),
        names: result.fields.iter().map(|field| plain(&field.name)).collect(),
        affected: if is_write { result.rows_affected } else { 0 },
    }
}

/// The answer as far as the statement determines it.
fn determined(mut answer: Answer, statement: &Statement) -> Answer {
    if statement.loose {
        let loose = |text: &mut String| {
            *text = text.trim_end().to_lowercase().replace('ä', "a");
        };
        answer.rows.iter_mut().flatten().flatten().for_each(loose);
    }
    if statement.order == Order::Any || statement.loose {
        answer.rows.sort();
    }
    answer
}

struct Sides {
    sharded: Connection,
    plain: Connection,
}

impl Sides {
    async fn connect(cluster: &Cluster) -> Result<Self> {
        let socket = cluster.tablet_dir(0).join("mysql.sock");
        let mut plain = Connection::connect(&ConnectParams::unix(socket, "vt_dba")).await?;
        plain.execute("create database reference").await?;
        plain.execute("use reference").await?;
        for table in TABLES {
            plain.execute(table.create).await?;
        }
        let sharded = ConnectParams::tcp("127.0.0.1", cluster.vtgate_mysql_port, "test").database("many");
        Ok(Self { sharded: Connection::connect(&sharded).await?, plain })
    }

    /// Makes the tables equal, whatever they hold.
    async fn fill(&mut self, generator: &mut Generator) -> Result<()> {
        for side in [&mut self.sharded, &mut self.plain] {
            side.execute("rollback").await?;
        }
        for table in TABLES {
            let sql = generator.filling(table);
            for sql in [format!("delete from {}", table.path()), sql] {
                self.sharded.execute(&sql).await.with_context(|| sql.clone())?;
                self.plain.execute(&plain(&sql)).await.with_context(|| sql.clone())?;
            }
        }
        Ok(())
    }

    /// What differs; `Ok(true)`: nothing. `Ok(false)`: vtgate refuses the statement.
    async fn compare(&mut self, statement: &Statement) -> Result<bool> {
        let sharded = self.sharded.execute(&statement.sql).await;
        if let Err(error) = &sharded
            && error.to_string().contains("unsupported: ")
        {
            return Ok(false);
        }
        let reference = self.plain.execute(&plain(&statement.sql)).await;
        match (sharded, reference) {
            (Ok(sharded), Ok(plain)) => {
                let sharded = determined(answer(&sharded, statement.writes.is_some()), statement);
                let plain = determined(answer(&plain, statement.writes.is_some()), statement);
                ensure!(sharded == plain, "vtgate: {sharded:?}\nmysqld: {plain:?}");
            }
            (Err(sharded), Err(plain)) => {
                let rolled_back = sharded.to_string().contains("transaction rolled back");
                ensure!(sharded.errno() == plain.errno() || rolled_back, "vtgate: {sharded}\nmysqld: {plain}");
                if rolled_back {
                    self.plain.execute("rollback").await?;
                }
            }
            (Err(sharded), Ok(plain)) => bail!("vtgate: {sharded}\nmysqld: {:?}", answer(&plain, true)),
            (Ok(sharded), Err(plain)) => bail!("vtgate: {:?}\nmysqld: {plain}", answer(&sharded, true)),
        }
        let Some(table) = statement.writes else { return Ok(true) };
        let check = Statement::rows_of(table);
        let sharded = answer(&self.sharded.execute(&check.sql).await?, false);
        let reference = answer(&self.plain.execute(&plain(&check.sql)).await?, false);
        ensure!(sharded == reference, "{} afterwards\nvtgate: {sharded:?}\nmysqld: {reference:?}", table.name);
        for (kept, want) in table.lookup_rows() {
            let kept = answer(&self.sharded.execute(&kept).await?, false).rows;
            let want = answer(&self.plain.execute(&want).await?, false).rows;
            ensure!(kept == want, "the lookup tables of {} afterwards\nvtgate: {kept:?}\nwanted: {want:?}", table.name);
        }
        Ok(true)
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn compare_all(cluster: &Cluster, seed: u64, statements: usize) -> Result<()> {
    let mut generator = Generator::new(seed);
    let mut sides = Sides::connect(cluster).await?;
    let mut failures = Vec::new();
    let mut refused: BTreeMap<String, usize> = BTreeMap::new();
    let mut must_fill = true;
    // Writes since the tables were filled: a difference may show late.
    let mut written = Vec::new();
    for number in 0..statements {
        if must_fill || number % BETWEEN_FILLINGS == 0 {
            if let Err(error) = sides.fill(&mut generator).await {
                failures.push(format!("statement {number}: filling: {error:#}\nwritten: {}", written.join(";\n  ")));
                break;
            }
            generator.in_transaction = false;
            must_fill = false;
            written.clear();
        }
        let statement = generator.statement();
        let outcome = sides.compare(&statement).await;
        if statement.writes.is_some() || statement.shape == "transaction" {
            written.push(statement.sql.clone());
        }
        match outcome {
            Ok(true) => {}
            Ok(false) => *refused.entry(statement.shape.to_owned()).or_default() += 1,
            Err(error) => {
                let before = written.join(";\n  ");
                failures.push(format!("statement {number}: {}\n{error:#}\nwritten: {before}", statement.sql));
                must_fill = true;
                if failures.len() >= ENOUGH {
                    break;
                }
            }
        }
    }
    let of_all: usize = refused.values().sum();
    println!("seed {seed}: {statements} statements, refused {of_all}: {refused:?}, {} failures", failures.len());
    ensure!(failures.is_empty(), "seed {seed}\n{}", failures.join("\n\n"));
    ensure!(of_all * 20 <= statements, "seed {seed}: {of_all} of {statements} statements refused: {refused:?}");
    Ok(())
}

fn random_statements(flavor: Flavor) -> Result<()> {
    let cluster = start(flavor)?;
    let seed = number("DIFFERENTIAL_SEED", 5);
    let statements = usize::try_from(number("DIFFERENTIAL_STATEMENTS", 400))?;
    println!("DIFFERENTIAL_SEED={seed} DIFFERENTIAL_STATEMENTS={statements}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(compare_all(&cluster, seed, statements))
}

#[test]
fn random_statements_answer_as_on_a_plain_mariadb() -> Result<()> {
    random_statements(Flavor::MariaDb)
}

#[test]
fn random_statements_answer_as_on_a_plain_mysql9() -> Result<()> {
    Flavor::mysql9().map_or(Ok(()), random_statements)
}
