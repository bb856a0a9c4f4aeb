//! Results that are too large to be held: rows reach the client as mysqld sends them, and neither vttablet nor vtgate holds
//! more than a part of them, whatever becomes of the statement and of its client.

#[path = "raw/mod.rs"]
mod raw;

use std::{
    collections::HashSet,
    io::Read,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use raw::Raw;
use testcluster::{Cluster, Flavor, Spec, TabletSpec, anonymous_kib, peak_anonymous_kib, wait_for};

/// What a result of any size may add to the memory of a process. Most of it is buffers: a piece is in several of
/// them on its way.
const BUDGET_KIB: u64 = 16 << 10;
/// The same of vtgate for binary rows, which it makes of whole ones: a cell of 16 MB is there as text and as binary.
const BINARY_ROW_KIB: u64 = 64 << 10;

const FRAME: usize = 0xff_ffff;
const WIDE_ROWS: u64 = 4000;
const WIDE: usize = 25_000;
const HUGE_ROWS: u64 = 6;
const HUGE: usize = 16 << 20;
/// On one shard; on the other are more than a result may have.
const LATE_ROWS: u64 = 4000;

fn start(flags: &[&str]) -> Result<Cluster> {
    let mut spec = Spec::keyspaces(Flavor::MariaDb, vec![TabletSpec::new(100, "commerce", "0", "replica")]);
    let tables =
        ["wide", "huge", "many"].map(|name| format!("create table {name}(id bigint primary key, body longblob);"));
    spec.schema = vec![("commerce".into(), tables.concat())];
    spec.vschema = vec![("commerce".into(), r#"{"tables": {"wide": {}, "huge": {}, "many": {}}}"#.into())];
    spec.vttablet_flags.extend(flags.iter().map(ToString::to_string));
    let cluster = Cluster::start(spec)?;
    let fill = |table: &str, rows: u64, size: usize| {
        let sql = format!(
            "use vt_commerce; insert into {table} select seq, repeat(char(97 + seq % 26), {size}) from seq_1_to_{rows}"
        );
        cluster.mysql_on_tablet(0, &sql)
    };
    fill("wide", WIDE_ROWS, WIDE)?;
    fill("huge", HUGE_ROWS, HUGE)?;
    fill("many", 12_000, 500)?;
    Ok(cluster)
}

/// What a client is told.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    rows: u64,
    error: Option<String>,
}

fn error_text(packet: &[u8]) -> String {
    let number = u16::from_le_bytes([packet[1], packet[2]]);
    format!("{number} {}", String::from_utf8_lossy(&packet[9..]))
}

/// A length-encoded number and what is behind it.
fn lenenc(bytes: &[u8]) -> Result<(usize, &[u8])> {
    let size = match bytes.first().context("no number")? {
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        _ => return Ok((bytes[0].into(), &bytes[1..])),
    };
    let mut number = [0; 8];
    number[..size].copy_from_slice(&bytes[1..=size]);
    Ok((u64::from_le_bytes(number) as usize, &bytes[1 + size..]))
}

/// Whether a row is one of ours: its id, and a body of the right letter and size.
fn check(row: &[u8], binary: bool, size: usize) -> Result<u64> {
    let (id, rest) = if binary {
        ensure!(row[..2] == [0, 0], "no binary row: {:?}", &row[..2]);
        (u64::from_le_bytes(row[2..10].try_into()?), &row[10..])
    } else {
        let (length, rest) = lenenc(row)?;
        (std::str::from_utf8(&rest[..length])?.parse()?, &rest[length..])
    };
    let (length, body) = lenenc(rest)?;
    ensure!(length == size && body.len() == size, "row {id} has {length} of {size} bytes");
    let letter = 97 + (id % 26) as u8;
    ensure!(body.iter().all(|byte| *byte == letter), "row {id} is not what was written");
    Ok(id)
}

impl Raw {
    /// One row or what else there is, of all its frames.
    fn whole_packet(&mut self) -> Result<Vec<u8>> {
        let mut packet = self.read_packet()?;
        let mut last = packet.len();
        while last == FRAME {
            let more = self.read_packet()?;
            last = more.len();
            packet.extend(more);
        }
        Ok(packet)
    }

    fn fields(&mut self) -> Result<Option<Answer>> {
        let head = self.whole_packet()?;
        if head[0] == 0xff {
            return Ok(Some(Answer { rows: 0, error: Some(error_text(&head)) }));
        }
        for _ in 0..=head[0] {
            self.whole_packet()?;
        }
        Ok(None)
    }

    fn rows(&mut self, binary: bool, size: usize) -> Result<Answer> {
        let mut ids = HashSet::new();
        loop {
            let rows = ids.len() as u64;
            let packet = self.whole_packet()?;
            match packet[0] {
                0xfe if packet.len() < 9 => return Ok(Answer { rows, error: None }),
                0xff => return Ok(Answer { rows, error: Some(error_text(&packet)) }),
                _ => {
                    let id = check(&packet, binary, size)?;
                    ensure!(ids.insert(id), "row {id} came twice");
                }
            }
        }
    }

    /// Runs a SELECT of ids and bodies of this size.
    fn select(&mut self, sql: &str, binary: bool, size: usize) -> Result<Answer> {
        self.begin_select(sql, binary)?;
        match self.fields()? {
            Some(failed) => Ok(failed),
            None => self.rows(binary, size),
        }
    }

    fn begin_select(&mut self, sql: &str, binary: bool) -> Result<()> {
        if !binary {
            return self.send_query(sql);
        }
        self.write_packet(0, &[b"\x16", sql.as_bytes()].concat())?;
        let prepared = self.read_packet()?;
        ensure!(prepared[0] == 0, "{}", error_text(&prepared));
        let columns = u16::from_le_bytes([prepared[5], prepared[6]]);
        // None are described where the statement was not asked for them.
        for _ in 0..if columns > 0 { columns + 1 } else { 0 } {
            self.read_packet()?;
        }
        self.write_packet(0, &[b"\x17", &prepared[1..5], &[0, 1, 0, 0, 0]].concat())
    }

    /// A statement without rows.
    fn run(&mut self, sql: &str) -> Result<()> {
        self.send_query(sql)?;
        let answer = self.read_packet()?;
        ensure!(answer[0] == 0, "{sql}: {}", error_text(&answer));
        Ok(())
    }
}

fn connected(cluster: &Cluster) -> Result<Raw> {
    Raw::connected(cluster.vtgate_mysql_port, "commerce")
}

const WITHOUT_ERROR: fn(u64) -> Answer = |rows| Answer { rows, error: None };

fn no_statement_runs(cluster: &Cluster, pool: &str) -> bool {
    cluster.debug_var(cluster.tablets[0].http_port, &format!("{pool}InUse")).is_ok_and(|count| count == 0)
}

#[test]
fn memory_does_not_grow_with_the_result() -> Result<()> {
    let cluster = start(&[])?;
    let (gate, tablet) = (cluster.vtgate().pid(), cluster.tablets[0].vttablet.as_ref().context("runs")?.pid());
    let mut client = connected(&cluster)?;
    // Whatever both need once.
    for binary in [false, true] {
        client.select("select id, body from wide where id < 200", binary, WIDE)?;
    }
    for (name, table, rows, size) in
        [("100 MB of rows", "wide", WIDE_ROWS, WIDE), ("cells of 16 MB", "huge", HUGE_ROWS, HUGE)]
    {
        for binary in [false, true] {
            for (begin, end) in [
                (None, None),
                (Some("begin"), Some("commit")),
                (Some("set workload = olap"), Some("set workload = oltp")),
            ] {
                begin.map_or(Ok(()), |sql| client.run(sql))?;
                // The second one in a transaction finds it open.
                for _ in 0..if begin.is_some() { 2 } else { 1 } {
                    let before = (anonymous_kib(gate)?, anonymous_kib(tablet)?);
                    let sql = format!("select id, body from {table}");
                    let started = Instant::now();
                    let work = || peak_anonymous_kib(tablet, || client.select(&sql, binary, size));
                    let (gate_peak, (tablet_peak, answer)) = peak_anonymous_kib(gate, work)?;
                    ensure!(answer == WITHOUT_ERROR(rows), "{name}: {answer:?}");
                    let (gate_grew, tablet_grew) =
                        (gate_peak.saturating_sub(before.0), tablet_peak.saturating_sub(before.1));
                    println!(
                        "{name}, binary {binary}, {begin:?}: vtgate {} + {gate_grew} KiB, vttablet {} + {tablet_grew} KiB, {:?}",
                        before.0,
                        before.1,
                        started.elapsed()
                    );
                    let of_gate = if binary && size == HUGE { BINARY_ROW_KIB } else { BUDGET_KIB };
                    ensure!(gate_grew <= of_gate, "{name}, binary {binary}: vtgate grew by {gate_grew} KiB");
                    ensure!(tablet_grew <= BUDGET_KIB, "{name}, binary {binary}: vttablet grew by {tablet_grew} KiB");
                }
                end.map_or(Ok(()), |sql| client.run(sql))?;
            }
        }
    }
    too_many_rows(&cluster)?;
    clients_that_leave(&cluster)?;
    killed(&cluster)?;
    killed_within_a_cell(&cluster)?;
    identical_reads(&cluster)
}

/// The same of rows that are on several shards: they come shard by shard, and none of them is held.
#[test]
fn memory_does_not_grow_with_the_rows_of_several_shards() -> Result<()> {
    let shards = ["-80", "80-"].into_iter().zip([100, 200]);
    let tablets = shards.map(|(shard, uid)| TabletSpec::new(uid, "customer", shard, "replica")).collect();
    let mut spec = Spec::keyspaces(Flavor::MariaDb, tablets);
    let tables = ["wide", "huge", "few", "late"]
        .map(|name| format!("create table {name}(id bigint primary key, body longblob);"));
    spec.schema = vec![("customer".into(), tables.concat())];
    let table = r#"{"column_vindexes": [{"column": "id", "name": "hash"}]}"#;
    let vschema = format!(
        r#"{{"sharded": true, "vindexes": {{"hash": {{"type": "hash"}}}}, "tables": {{"wide": {table}, "huge": {table}, "few": {table}, "late": {table}}}}}"#
    );
    spec.vschema = vec![("customer".into(), vschema)];
    let cluster = Cluster::start(spec)?;
    // Which shard has which id is not what this is about.
    for (tablet, remainder) in [(0, 0), (1, 1)] {
        for (table, rows, size) in [("wide", WIDE_ROWS, WIDE), ("huge", HUGE_ROWS, HUGE), ("few", 40, 10_000)] {
            let sql = format!(
                "use vt_customer; insert into {table} select seq, repeat(char(97 + seq % 26), {size}) \
                 from seq_1_to_{rows} where seq % 2 = {remainder}"
            );
            cluster.mysql_on_tablet(tablet, &sql)?;
        }
    }
    for (tablet, first, rows) in [(0, 1, LATE_ROWS), (1, 100_000, 3 * LATE_ROWS)] {
        let sql = format!(
            "use vt_customer; insert into late select seq, repeat(char(97 + seq % 26), 500) from seq_{first}_to_{}",
            first + rows - 1
        );
        cluster.mysql_on_tablet(tablet, &sql)?;
    }
    let (gate, tablet) = (cluster.vtgate().pid(), cluster.tablets[1].vttablet.as_ref().context("runs")?.pid());
    let connected = || Raw::connected(cluster.vtgate_mysql_port, "customer");
    let mut client = connected()?;
    for binary in [false, true] {
        let few = client.select("select id, body from few", binary, 10_000)?;
        ensure!(few == WITHOUT_ERROR(40), "{few:?}");
    }
    for (table, rows, size) in [("wide", WIDE_ROWS, WIDE), ("huge", HUGE_ROWS, HUGE)] {
        for binary in [false, true] {
            let before = (anonymous_kib(gate)?, anonymous_kib(tablet)?);
            let sql = format!("select id, body from {table}");
            let work = || peak_anonymous_kib(tablet, || client.select(&sql, binary, size));
            let (gate_peak, (tablet_peak, answer)) = peak_anonymous_kib(gate, work)?;
            ensure!(answer == WITHOUT_ERROR(rows), "{table}: {answer:?}");
            let (gate_grew, tablet_grew) = (gate_peak.saturating_sub(before.0), tablet_peak.saturating_sub(before.1));
            println!(
                "{table}, binary {binary}: vtgate {} + {gate_grew} KiB, vttablet {} + {tablet_grew} KiB",
                before.0, before.1
            );
            let of_gate = if binary && size == HUGE { BINARY_ROW_KIB } else { BUDGET_KIB };
            ensure!(gate_grew <= of_gate, "{table}, binary {binary}: vtgate grew by {gate_grew} KiB");
            ensure!(tablet_grew <= BUDGET_KIB, "{table}, binary {binary}: vttablet grew by {tablet_grew} KiB");
        }
    }
    // Whoever leaves or is killed while a shard waits for its turn leaves nothing behind.
    let idle = || {
        wait_for("connections of all shards", Duration::from_secs(10), || {
            cluster
                .tablets
                .iter()
                .all(|tablet| cluster.debug_var(tablet.http_port, "ConnPoolInUse").is_ok_and(|count| count == 0))
        })
    };
    let mut leaving = connected()?;
    leaving.begin_select("select id, body from wide", false)?;
    leave(leaving)?;
    idle()?;
    let id = connection_id(&mut client)?;
    client.begin_select("select id, body from wide", false)?;
    ensure!(client.fields()?.is_none());
    connected()?.run(&format!("kill query {id}"))?;
    let answer = client.rows(false, WIDE)?;
    let error = answer.error.context("it was killed")?;
    ensure!(error.starts_with("1317 ") && answer.rows < WIDE_ROWS, "{error} after {}", answer.rows);
    idle()?;
    let few = client.select("select id, body from few", false, 10_000)?;
    ensure!(few == WITHOUT_ERROR(40), "{few:?}");
    // What fails late on the second shard is told behind the rows of the first.
    let answer = client.select("select id, body from late", false, 500)?;
    ensure!(answer.error.as_ref().is_some_and(|error| error.contains("Row count exceeded 10000")), "{answer:?}");
    ensure!(answer.rows >= LATE_ROWS, "{answer:?}");
    let few = client.select("select id, body from few", false, 10_000)?;
    ensure!(few == WITHOUT_ERROR(40), "{few:?}");
    Ok(())
}

/// The row limit is met in the middle of what the client reads.
fn too_many_rows(cluster: &Cluster) -> Result<()> {
    let mut client = connected(cluster)?;
    for binary in [false, true] {
        let all = client.select("select id, body from many", binary, 500)?;
        // What was to be sent with the row that is one too many is not.
        ensure!(all.rows > 0 && all.rows <= 10_000, "{all:?}");
        let error = all.error.context("more than may be")?;
        ensure!(error.contains("Row count exceeded 10000"), "{error}");
        let most = client.select("select id, body from many limit 10000", binary, 500)?;
        ensure!(most == WITHOUT_ERROR(10_000), "{most:?}");
        client.send_query("begin")?;
        client.read_packet()?;
        let inside = client.select("select id, body from many", binary, 500)?;
        ensure!(inside.error.as_ref().is_some_and(|error| error.contains("Row count exceeded 10000")), "{inside:?}");
        client.run("update many set body = body where id = 1").context("the transaction goes on")?;
        client.run("commit")?;
    }
    // Counted by both as what they are.
    let rows = cluster.debug_var(cluster.vtgate_http_port, "VtgateApiRowsReturned")?;
    let returned = rows.as_object().context("by method")?.values().filter_map(serde_json::Value::as_i64).sum::<i64>();
    ensure!(returned >= 2 * 3 * 4000 + 2 * 10_000, "{rows}");
    Ok(())
}

/// Reads a few rows and leaves.
fn leave(mut client: Raw) -> Result<()> {
    let mut some = vec![0; 3 << 20];
    client.0.read_exact(&mut some)?;
    Ok(())
}

fn clients_that_leave(cluster: &Cluster) -> Result<()> {
    for binary in [false, true] {
        for _ in 0..3 {
            let mut client = connected(cluster)?;
            client.begin_select("select id, body from wide", binary)?;
            leave(client)?;
        }
        wait_for("connections of those who have left", Duration::from_secs(10), || {
            no_statement_runs(cluster, "ConnPool")
        })?;
        // A later statement of a transaction, and its first one.
        for before in [&["begin", "delete from many where id = 1"][..], &["begin"]] {
            let mut client = connected(cluster)?;
            for statement in before {
                client.run(statement)?;
            }
            client.begin_select("select id, body from wide", binary)?;
            leave(client)?;
            wait_for("the transaction of one who has left", Duration::from_secs(10), || {
                no_statement_runs(cluster, "TransactionPool")
            })?;
        }
        let kept = connected(cluster)?.select("select id, body from many where id = 1 for update", false, 500)?;
        let found = connected(cluster)?.select("select id, body from many where id = 1", false, 500)?;
        ensure!(found == WITHOUT_ERROR(1), "the delete is rolled back: {found:?}, {kept:?}");
    }
    Ok(())
}

fn connection_id(client: &mut Raw) -> Result<String> {
    client.send_query("select connection_id()")?;
    ensure!(client.fields()?.is_none());
    let row = client.read_packet()?;
    client.read_packet()?;
    Ok(String::from_utf8_lossy(&row[1..]).into_owned())
}

/// KILL QUERY in the middle of rows that the client does not read: it gets an error behind them, and goes on.
fn killed(cluster: &Cluster) -> Result<()> {
    for binary in [false, true] {
        for begin in [None, Some("begin")] {
            let mut client = connected(cluster)?;
            let id = connection_id(&mut client)?;
            if let Some(begin) = begin {
                client.run(begin)?;
                client.run("update many set body = body where id = 1")?;
            }
            client.begin_select("select id, body from wide", binary)?;
            ensure!(client.fields()?.is_none());
            connected(cluster)?.run(&format!("kill query {id}"))?;
            let answer = client.rows(binary, WIDE)?;
            let error = answer.error.context("it was killed")?;
            ensure!(error.starts_with("1317 ") && answer.rows < WIDE_ROWS, "{error} after {}", answer.rows);
            ensure!(error.contains("transaction rolled back") == begin.is_some(), "{error}");
            let next = client.select("select id, body from many limit 5", binary, 500)?;
            ensure!(next == WITHOUT_ERROR(5), "{next:?}");
            for pool in ["ConnPool", "TransactionPool"] {
                wait_for("its connection", Duration::from_secs(10), || no_statement_runs(cluster, pool))?;
            }
        }
    }
    Ok(())
}

/// Within a cell there is no place for an error: the client sees that the connection ends, and never a wrong cell.
fn killed_within_a_cell(cluster: &Cluster) -> Result<()> {
    let mut client = connected(cluster)?;
    let id = connection_id(&mut client)?;
    client.begin_select("select id, body from huge", false)?;
    ensure!(client.fields()?.is_none());
    connected(cluster)?.run(&format!("kill query {id}"))?;
    ensure!(client.is_closed_by_server());
    wait_for("its connection", Duration::from_secs(10), || no_statement_runs(cluster, "ConnPool"))
}

/// Nobody waits for another who reads the same and does so slowly.
fn identical_reads(cluster: &Cluster) -> Result<()> {
    let mut slow = connected(cluster)?;
    slow.begin_select("select id, body from wide order by id", false)?;
    ensure!(slow.fields()?.is_none());
    let started = Instant::now();
    let answer = connected(cluster)?.select("select id, body from wide order by id", false, WIDE)?;
    ensure!(answer == WITHOUT_ERROR(WIDE_ROWS), "{answer:?}");
    println!("beside a reader that has stopped: {:?}", started.elapsed());
    let answer = slow.rows(false, WIDE)?;
    ensure!(answer == WITHOUT_ERROR(WIDE_ROWS), "{answer:?}");
    Ok(())
}

/// A client that stops reading has its statement killed like any that takes too long; meanwhile the others, on the same
/// connection between gate and tablet, do not notice.
#[test]
fn who_does_not_read_holds_nothing_for_long() -> Result<()> {
    let cluster = start(&["-queryserver-config-query-timeout", "3"])?;
    for (begin, pool) in [(None, "ConnPool"), (Some("begin"), "TransactionPool")] {
        for binary in [false, true] {
            let mut stuck = connected(&cluster)?;
            if let Some(begin) = begin {
                stuck.run(begin)?;
                stuck.run("update many set body = body where id = 1")?;
            }
            stuck.begin_select("select id, body from wide", binary)?;
            ensure!(stuck.fields()?.is_none());
            wait_for("it runs", Duration::from_secs(5), || !no_statement_runs(&cluster, pool))?;
            let started = Instant::now();
            let mut other = connected(&cluster)?;
            let (mut answers, mut longest) = (0, Duration::ZERO);
            // Longer than the timeout and the grace of a kill: whatever mysqld does about it, it is over by then.
            while started.elapsed() < Duration::from_secs(5) {
                let one = Instant::now();
                ensure!(other.select("select id, body from many where id = 7", binary, 500)? == WITHOUT_ERROR(1));
                longest = longest.max(one.elapsed());
                answers += 1;
            }
            println!("{answers} answers beside a reader that has stopped, the slowest took {longest:?}");
            ensure!(answers > 50 && longest < Duration::from_secs(1), "{answers} answers, the slowest {longest:?}");
            if begin.is_none() {
                ensure!(no_statement_runs(&cluster, pool), "it holds its connection after {:?}", started.elapsed());
            }
            let answer = stuck.rows(binary, WIDE)?;
            let Some(error) = answer.error else { bail!("not killed: {} rows", answer.rows) };
            ensure!(error.starts_with("1317 ") && answer.rows > 0 && answer.rows < WIDE_ROWS, "{error}");
            // What was read away is not missed: connection and transaction are as they were.
            let next = stuck.select("select id, body from many limit 5", binary, 500)?;
            ensure!(next == WITHOUT_ERROR(5), "{next:?}");
            if begin.is_some() {
                stuck.run("commit").context("the transaction has outlived its statement")?;
            }
        }
    }
    Ok(())
}
