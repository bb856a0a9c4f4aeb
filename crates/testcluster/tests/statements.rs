//! Statements that a gate must not pass on as they are: what they say is the session's, or would stay on a shared connection.

use anyhow::{Context, Result, ensure};
use testcluster::{Cluster, Flavor, Spec};

/// Runs statements on one connection, comments and all, up to the first error: rows, and the error.
fn run(cluster: &Cluster, sql: &str) -> Result<String> {
    let words = ["commerce", "--comments", "--skip-table", "--batch", "--skip-column-names"];
    let ended = cluster.mysql(&words, sql)?;
    Ok(ended.stdout + &ended.stderr)
}

#[test]
fn statements_of_a_session() -> Result<()> {
    let cluster = Cluster::start(Spec::single(Flavor::MariaDb))?;
    comments(&cluster)?;
    variables(&cluster)?;
    connections(&cluster)?;
    results(&cluster)?;
    phases(&cluster)
}

/// Every part of a statement's way is measured, and the parts of a call are no longer than the call.
fn phases(cluster: &Cluster) -> Result<()> {
    let sum = |port, phase: &str| -> Result<f64> {
        let phases = cluster.debug_var(port, "QueryPhases")?;
        let of = &phases["Histograms"][phase];
        ensure!(of["Count"].as_u64() > Some(0), "no {phase} in {phases}");
        of["Time"].as_f64().with_context(|| format!("the time of {phase} in {phases}"))
    };
    let (gate, tablet) = (cluster.vtgate_http_port, cluster.tablets[0].http_port);
    for phase in ["client", "plan", "return"] {
        sum(gate, phase)?;
    }
    let (call, hop) = (sum(gate, "tablet")?, sum(gate, "hop")?);
    ensure!(hop > 0.0 && hop < call, "{hop} of {call}");
    for phase in ["pool", "mysqld", "own"] {
        sum(tablet, phase)?;
    }
    Ok(())
}

fn comments(cluster: &Cluster) -> Result<()> {
    run(cluster, "create table notes(id int primary key, n int)")?;
    for (sql, answer) in [
        ("-- name: Get :one\nselect 1 from dual where 1 = 1", "1\n"),
        ("# one\n/* two */ -- three\nselect n from notes /* last */", ""),
        ("-- a row\ninsert into notes values (1, 2);\n-- and it\nselect id, n from notes where id = 1", "1\t2\n"),
        ("begin;\n-- inside\nupdate notes set n = n + 1;\ncommit;\nselect n from notes", "3\n"),
        ("set workload = olap;\n-- rows\nselect n from notes", "3\n"),
        ("prepare p from '-- text\\nselect n from notes';\nexecute p", "3\n"),
        ("start transaction /*!40100 WITH CONSISTENT SNAPSHOT */; select n from notes; commit", "3\n"),
        ("insert /*!50000 ignore */ into notes values (1, 9); select n from notes", "3\n"),
        ("set @a = 1 /*!50000 , @b = 2 */; select @a, @b", "1\t2\n"),
        ("select n from notes /*!50000 limit 1 */", "3\n"),
        ("show /*!50002 full */ tables like 'notes'", "notes\tBASE TABLE\n"),
        ("/*!40101 SET NAMES utf8 */; select 1", "1\n"),
    ] {
        let got = run(cluster, sql)?;
        ensure!(got == answer, "{sql}: {got}");
    }
    Ok(())
}

fn variables(cluster: &Cluster) -> Result<()> {
    for sql in [
        "update notes set n = (@r := @r + 1)",
        "select @r := 5",
        "set @x = get_lock('l', 1)",
        "set @x = `get_lock`('l', 1)",
        "set @x = (@y := 3)",
    ] {
        let got = run(cluster, &format!("set @r = 100; {sql}"))?;
        ensure!(got.contains("ERROR 1235"), "{sql}: {got}");
    }
    let kept = run(cluster, "select n from notes")?;
    ensure!(kept == "3\n", "{kept}");
    Ok(())
}

fn connections(cluster: &Cluster) -> Result<()> {
    // The number that KILL takes, in and out of transactions.
    let got = run(cluster, "select connection_id() = connection_id() + 0; kill query connection_id()")?;
    ensure!(got.starts_with("1\n"), "{got}");
    let ids = run(cluster, "select connection_id(); begin; select connection_id(); commit; select connection_id()")?;
    let ids: Vec<&str> = ids.lines().collect();
    ensure!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let other = run(cluster, "select connection_id()")?;
    ensure!(other.trim() != ids[0], "two clients have the number {other}");
    let killed = run(cluster, &format!("kill {}", ids[0]))?;
    ensure!(killed.contains("ERROR 1094"), "nobody has that number any more: {killed}");
    // A lock ends with the transaction whose connection holds it.
    let got = run(cluster, "begin; select get_lock('held', 1); commit")?;
    ensure!(got == "1\n", "{got}");
    testcluster::wait_for("the lock to be free", std::time::Duration::from_secs(5), || {
        cluster.mysql_on_tablet(0, "select is_free_lock('held')").is_ok_and(|free| free.stdout.trim() == "1")
    })
}

fn results(cluster: &Cluster) -> Result<()> {
    for sql in ["create procedure one() select 1", "create procedure two() begin select 1; select 2; end"] {
        cluster.mysql(&["commerce", "--delimiter=//"], sql)?.success()?;
    }
    let got = run(cluster, "call one(); call two()")?;
    ensure!(got.starts_with("1\n") && got.contains("ERROR 1235") && got.contains("several results"), "{got}");
    for sql in ["commit and chain", "rollback release", "commit work and chain"] {
        let got = run(cluster, &format!("begin; {sql}"))?;
        ensure!(got.contains("ERROR 1235"), "{sql}: {got}");
    }
    let got = run(cluster, "begin; commit and no chain; begin; rollback work and no chain no release; select 4")?;
    ensure!(got == "4\n", "{got}");
    Ok(())
}
