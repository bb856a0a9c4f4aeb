//! Whatever dies at whatever phase of a SplitClone: the same command, run again once everything is up, ends as it would
//! have without.

mod resharding;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use resharding::{Writer, horizontal, streams};
use testcluster::{Background, Cluster, Flavor, Hold, Victim, wait_for};

/// Tablets: the source's master and rdonly, the masters of the destinations.
const SOURCE: usize = 0;
const RDONLY: usize = 1;
const LEFT: usize = 2;
const RIGHT: usize = 4;

/// Waits are short: what is dead stays so until it is started again.
const CLONE: &[&str] = &[
    "-topo_etcd_lease_ttl=2",
    "-retry_duration=20s",
    "-executefetch_retry_time=1s",
    "-remote_actions_timeout=15s",
    "-wait_for_healthy_tablets_timeout=20s",
    "SplitClone",
    "-min_healthy_rdonly_tablets=1",
    "-chunk_count=20",
    "-min_rows_per_chunk=200",
    "-source_reader_count=2",
    "customer/0",
];

/// What clients write meanwhile.
const WRITES: &str = "use vt_customer; update customer set email = concat('write ', @n) where customer_id % 50 = @n % 50; \
    replace into customer values (100000 + @n, 'new'); delete from customer where customer_id = 100000 + @n - 20; \
    update note set amount = amount + 1 where customer_id = @n % 3000; replace into corder values (@n, @n, 'x', @n)";

/// Places where a clone is when something dies.
const PHASES: &[&str] = &["clone.online_chunk", "clone.offline_chunk", "clone.streams", "clone.streams_started"];

/// What dies; `None` is vtworker.
const SOURCES: &[Option<Victim>] = &[None, Some(Victim::Vttablet(RDONLY)), Some(Victim::Mysqld(RDONLY))];
const DESTINATIONS: &[Option<Victim>] = &[Some(Victim::Vttablet(LEFT)), Some(Victim::Mysqld(LEFT))];
const COORDINATORS: &[Option<Victim>] = &[Some(Victim::Vtctld), Some(Victim::Etcd)];

/// One clone during which something dies.
fn clone_with(cluster: &mut Cluster, phase: &str, victim: Option<Victim>) -> Result<()> {
    let hold = Hold::new(cluster, "phase")?;
    let mut command = cluster.vtworker_command(CLONE);
    command.env("VT_FAILPOINTS", hold.at(phase));
    let writer = Writer::start(cluster, SOURCE, WRITES)?;
    let mut worker = Background::start("SplitClone", command)?;
    hold.wait_until_reached()?;
    match victim {
        Some(victim) => cluster.kill(victim)?,
        None => worker.kill(),
    }
    hold.release()?;
    // It notices, and then what died comes back: it may go on by itself, or has given up.
    let noticed = std::time::Instant::now();
    let _ = wait_for("vtworker to give up", Duration::from_secs(2), || !worker.is_running());
    println!("  {:?} after the death: {}", noticed.elapsed(), if worker.is_running() { "it runs" } else { "it ended" });
    if let Some(victim) = victim {
        cluster.restart(victim)?;
    }
    let ended = worker.finish()?;
    if ended.code == Some(0) {
        println!("  it went on");
        return writer.stop();
    }
    let last = ended.stderr.lines().last().unwrap_or_default();
    println!("  it failed: {last}");
    // One that was killed leaves no message; every other failure says why.
    ensure!(ended.code.is_none() || last.starts_with('E'), "no reason: {}", ended.stderr);
    cluster.vtworker(CLONE)?.success()?;
    writer.stop()
}

/// The rows, the streams and the tablets after every clone.
fn check(cluster: &Cluster) -> Result<()> {
    // Something to stream.
    cluster.mysql_on_tablet(SOURCE, "update vt_customer.customer set email = now(6) where customer_id < 100")?;
    for master in [LEFT, RIGHT] {
        wait_for("the stream to run", Duration::from_secs(60), || {
            streams(cluster, master).is_ok_and(|all| all.len() == 1 && all[0].1 == "Running||NULL")
        })
        .or_else(|_| {
            let all = streams(cluster, master)?;
            ensure!(all.len() == 1 && all[0].1 == "Running||NULL", "streams of tablet {master}: {all:?}");
            Ok(())
        })?;
    }
    for shard in ["customer/-80", "customer/80-"] {
        let record = cluster.vtctlclient(&["GetShard", shard])?.success()?.stdout;
        let parsed: serde_json::Value = serde_json::from_str(&record)?;
        ensure!(parsed["source_shards"].as_array().is_some_and(|all| all.len() == 1), "{shard}: {record}");
    }
    // What is written after the clone arrives too.
    let sql = "use vt_customer; update customer set email = concat('after ', now(6)) where customer_id < 20; \
               insert into note values ('after', 0, rand() * 1000000, 'x')";
    cluster.mysql_on_tablet(SOURCE, sql)?;
    resharding::same(cluster, &[SOURCE], &[LEFT, RIGHT])?;
    cluster.wait_for_tablet_state(RDONLY, "SERVING")?;
    let record = cluster.vtctlclient(&["GetTablet", &cluster.tablets[RDONLY].spec.alias()])?.success()?.stdout;
    let record: serde_json::Value = serde_json::from_str(&record)?;
    ensure!(record["type"] == 3 || record["type"] == "RDONLY", "{record}");
    ensure!(record["tags"].as_object().is_none_or(serde_json::Map::is_empty), "{record}");
    resharding::caught_up(cluster, "customer/0")
}

/// As before the clone, for the next one: other rows at the source than those that were copied.
fn forget(cluster: &Cluster) -> Result<()> {
    for (shard, master) in [("customer/-80", LEFT), ("customer/80-", RIGHT)] {
        let alias = cluster.tablets[master].spec.alias();
        for (id, _) in streams(cluster, master)? {
            cluster.vtctlclient(&["SourceShardDelete", shard, &id.to_string()])?.success()?;
            let delete = format!("delete from _vt.vreplication where id = {id}");
            cluster.vtctlclient(&["VReplicationExec", &alias, &delete])?.success()?;
        }
        cluster.vtctlclient(&["RefreshState", &alias])?.success()?;
        let sql = "use vt_customer; delete from customer where customer_id > 100; update customer set email = 'stale'; \
                   delete from corder; delete from note";
        cluster.mysql_on_tablet(master, sql)?;
        cluster.wait_for_tablet_state(master, "SERVING")?;
    }
    Ok(())
}

/// Every victim at every phase.
fn matrix(flavor: Flavor, victims: &[Option<Victim>]) -> Result<()> {
    let mut cluster = horizontal(flavor, &["0"], &["-80", "80-"])?;
    for phase in PHASES {
        for victim in victims {
            println!("{victim:?} at {phase}");
            let context = || format!("{victim:?} at {phase}");
            clone_with(&mut cluster, phase, *victim).with_context(context)?;
            check(&cluster).with_context(context)?;
            forget(&cluster).with_context(context)?;
        }
    }
    Ok(())
}

#[test]
fn a_death_of_what_is_copied_from() -> Result<()> {
    matrix(Flavor::MariaDb, SOURCES)
}

#[test]
fn a_death_of_what_is_copied_to() -> Result<()> {
    matrix(Flavor::MariaDb, DESTINATIONS)
}

#[test]
fn a_death_of_what_coordinates() -> Result<()> {
    matrix(Flavor::MariaDb, COORDINATORS)
}

/// A vtworker that dies at a place.
fn kill_at(cluster: &Cluster, place: &str) -> Result<()> {
    let mut command = cluster.vtworker_command(CLONE);
    command.env("VT_FAILPOINTS", format!("{place}=kill"));
    let ended = Background::start("SplitClone", command)?.finish()?;
    ensure!(ended.code.is_none(), "not killed at {place}: {ended:?}");
    Ok(())
}

/// A clone dies; the tables are emptied or made anew; the same clone is run again: whatever was noted, all rows are there.
#[test]
fn what_was_noted_is_believed_as_far_as_the_destination_has_it() -> Result<()> {
    let cluster = horizontal(Flavor::MariaDb, &["0"], &["-80", "80-"])?;
    let truncate = "use vt_customer; truncate customer; truncate corder; truncate note";
    // All is noted, and nothing of one shard is there: while it copies, and when it is about to start streams.
    kill_at(&cluster, "clone.offline_chunk")?;
    cluster.mysql_on_tablet(LEFT, truncate)?;
    kill_at(&cluster, "clone.streams")?;
    resharding::same(&cluster, &[SOURCE], &[LEFT, RIGHT])?;
    cluster.mysql_on_tablet(RIGHT, "use vt_customer; drop table customer, corder, note")?;
    cluster.vtctlclient(&["CopySchemaShard", "customer/0", "customer/80-"])?.success()?;
    cluster.vtworker(CLONE)?.success()?;
    check(&cluster)?;

    // Nothing is left of a clone that was given up.
    cluster.vtctlclient(&["CancelResharding", "customer/0"])?.success()?;
    for master in [LEFT, RIGHT] {
        ensure!(streams(&cluster, master)?.is_empty());
        let noted = cluster.mysql_on_tablet(master, "show tables from _vt like 'vtworker%'")?.stdout;
        ensure!(noted.is_empty(), "tablet {master}: {noted}");
        cluster.wait_for_tablet_state(master, "SERVING")?;
    }
    cluster.mysql_on_tablet(LEFT, truncate)?;
    cluster.vtworker(CLONE)?.success()?;
    check(&cluster)
}

/// Of two clones of one split the one that began last goes on, and the other one writes nothing any more.
#[test]
fn two_clones_of_one_split_do_not_write_both() -> Result<()> {
    let cluster = horizontal(Flavor::MariaDb, &["0"], &["-80", "80-"])?;
    let (shard, options) = CLONE.split_last().context("words")?;
    let snapshot = [options, &["-use_consistent_snapshot", shard]].concat();
    let held = |place: &str, words: &[&str]| -> Result<(Hold, Background)> {
        let hold = Hold::new(&cluster, "first")?;
        let mut command = cluster.vtworker_command(words);
        command.env("VT_FAILPOINTS", hold.at(place));
        let first = Background::start("SplitClone", command)?;
        hold.wait_until_reached()?;
        Ok((hold, first))
    };

    // One that finds no tablet to copy from takes nothing over, and says who has it.
    let (hold, first) = held("clone.offline_chunk", CLONE)?;
    let impatient = [&["-wait_for_healthy_tablets_timeout=3s"], CLONE].concat();
    let impatient: Vec<&str> =
        impatient.into_iter().filter(|word| *word != "-wait_for_healthy_tablets_timeout=20s").collect();
    let refused = cluster.vtworker(&impatient)?;
    ensure!(refused.code == Some(1), "{refused:?}");
    for text in ["not enough healthy RDONLY tablets", " is DRAINED (worker: ", "drain_reason: Used by vtworker"] {
        ensure!(refused.stderr.contains(text), "{text} is not in {}", refused.stderr);
    }
    hold.release()?;
    first.finish()?.success()?;
    check(&cluster)?;

    // The first one copies, or is about to start streams, while the second one does all.
    for (place, words) in [("clone.online_chunk", CLONE), ("clone.streams", &snapshot)] {
        forget(&cluster)?;
        let (hold, first) = held(place, words)?;
        cluster.vtworker(CLONE)?.success()?;
        check(&cluster)?;
        hold.release()?;
        let ended = first.finish()?;
        ensure!(ended.code == Some(1), "{place}: {ended:?}");
        ensure!(ended.stderr.contains("another vtworker has taken this clone over: "), "{place}: {}", ended.stderr);
        check(&cluster).with_context(|| format!("after the first one went on from {place}"))?;
    }
    Ok(())
}
