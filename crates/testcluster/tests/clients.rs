//! Applications' client libraries against vtgate, on both flavours of mysqld.

use anyhow::{Result, ensure};
use std::{path::Path, process::Command};
use testcluster::{Background, Cluster, Flavor, Spec};

/// Runs one of `tests/clients/` with the client libraries that `scripts/test.sh` installed.
fn python(cluster: &Cluster, script: &str) -> Result<()> {
    let Some(path) = std::env::var_os("VT_TEST_PYTHONPATH") else {
        eprintln!("SKIPPED: VT_TEST_PYTHONPATH is not set, see scripts/test.sh");
        return Ok(());
    };
    let mut command = Command::new("python3");
    command
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(script))
        .arg(cluster.vtgate_mysql_port.to_string())
        .arg(cluster.mysql_socket())
        .env("PYTHONPATH", path);
    Background::start(script, command)?.finish()?.success().map(drop)
}

fn run(flavor: Flavor) -> Result<()> {
    let cluster = Cluster::start(Spec::walkthrough(flavor))?;
    python(&cluster, "pymysql_client.py")?;
    python(&cluster, "connector_client.py")?;
    python(&cluster, "orm_statements.py")?;
    command_line(&cluster)
}

/// What the command-line client shows of sessions, targets and settings.
fn command_line(cluster: &Cluster) -> Result<()> {
    let shows = |args: &[&str], sql: &str, wanted: &str| -> Result<()> {
        let seen =
            cluster.mysql(&[args, &["--skip-column-names", "--batch", "--skip-table"]].concat(), sql)?.success()?;
        ensure!(seen.stdout.trim() == wanted, "{sql}\nshows\n{}\ninstead of\n{wanted}", seen.stdout);
        Ok(())
    };
    shows(&["commerce"], "insert into product values('A','a',1),('B','b',2); select row_count()", "2")?;
    shows(&["commerce"], "select sku from product order by sku; select found_rows()", "A\nB\n2")?;
    shows(
        &["commerce"],
        "begin; update product set price=7 where sku='A'; rollback; select price from product where sku='A'",
        "1",
    )?;
    shows(
        &["commerce"],
        "begin; update product set price=3 where sku='A'; savepoint s; update product set price=4 where sku='A'; \
         rollback to s; commit; select price from product where sku='A'",
        "3",
    )?;
    shows(&["commerce"], "set @x = 41; select @x + 1", "42")?;
    shows(&["commerce"], "set sql_mode = ''; select @@sql_mode = ''", "1")?;
    shows(&["commerce"], "insert into customer(email) values('x'); select last_insert_id() > 0", "1")?;
    shows(&["commerce"], "select 'a;b' as c; select 2", "a;b\n2")?;
    shows(&["commerce/0"], "select count(*) from product", "2")?;
    shows(&["commerce@replica"], "select 1", "1")?;
    shows(&[], "use `commerce/0@rdonly`; select 1", "1")?;
    let missing = cluster.mysql(&["commerce"], "select * from nowhere")?;
    ensure!(missing.code == Some(1) && missing.stderr.contains("table nowhere not found in schema"), "{missing:?}");
    let replica = cluster.mysql(&["commerce@replica"], "delete from product")?;
    ensure!(replica.stderr.contains("read-only transactions"), "{replica:?}");
    // As mysqladmin, monitoring and `status` of the client read it.
    let status = cluster.mysql(&["commerce"], "status")?.success()?.stdout;
    ensure!(status.contains("\nUptime:\t"), "{status}");
    ensure!(status.contains("\nThreads: ") && status.contains("  Queries per second avg: "), "{status}");
    // What ORMs ask to see the tables of their database.
    shows(
        &["commerce"],
        "select table_name from information_schema.tables where table_schema = database() order by 1",
        "corder\ncustomer\nproduct",
    )?;
    let temporary = cluster.mysql(&["commerce"], "create temporary table product(a int)")?;
    ensure!(temporary.stderr.contains("unsupported: temporary tables"), "{temporary:?}");
    shows(&["commerce"], "select count(*) from product", "2")?;
    let killed = cluster.mysql(&["commerce"], "kill 999999")?;
    ensure!(killed.stderr.contains("1094") && killed.stderr.contains("Unknown thread id: 999999"), "{killed:?}");
    Ok(())
}

#[test]
fn mariadb() -> Result<()> {
    run(Flavor::MariaDb)
}

#[test]
fn mysql9() -> Result<()> {
    match Flavor::mysql9() {
        Some(flavor) => run(flavor),
        None => Ok(()),
    }
}
