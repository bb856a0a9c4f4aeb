//! SplitDiff, MultiSplitDiff and VerticalSplitDiff on real servers: a verdict that is right, nothing taken out of service,
//! and everything as before whatever ends them.

mod load;
mod resharding;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use load::Load;
use resharding::{ROWS, check_untouched, horizontal};
use testcluster::{Background, Cluster, Finished, Flavor, Hold, wait_for};

/// The masters of `0`, `-80` and `80-`; the rdonly of each is the next tablet.
const WHOLE: usize = 0;
const LEFT: usize = 2;
const RIGHT: usize = 4;
const SOURCE_RDONLY: usize = 1;
const TABLETS: usize = 6;

const CLONE: &[&str] = &["SplitClone", "-min_healthy_rdonly_tablets=1", "customer/0"];
const DIFF_LEFT: &[&str] = &[
    "SplitDiff",
    "-min_healthy_rdonly_tablets=1",
    "-dest_tablet_type=RDONLY",
    "-parallel_diffs_count=2",
    "customer/-80",
];
const DIFF_RIGHT: &[&str] = &["SplitDiff", "-min_healthy_rdonly_tablets=1", "customer/80-"];
const DIFF_BOTH: &[&str] =
    &["MultiSplitDiff", "-min_healthy_tablets=1", "-use_consistent_snapshot=true", "-tablet_type=RDONLY", "customer/0"];

/// Lease of locks: those of a process that was killed are gone soon.
const LEASE: &str = "-topo_etcd_lease_ttl=2";

fn vtworker(cluster: &Cluster, words: &[&str]) -> Result<Finished> {
    cluster.vtworker(&[&[LEASE], words].concat())
}

/// A running vtworker.
fn start(cluster: &Cluster, words: &[&str], failpoints: &str) -> Result<Background> {
    let mut command = cluster.vtworker_command(&[&[LEASE], words].concat());
    command.env("VT_FAILPOINTS", failpoints);
    Background::start(words.join(" "), command)
}

/// A comparison that found something: it fails and says all of `texts`.
fn expect_found(outcome: &Finished, texts: &[&str]) -> Result<()> {
    ensure!(outcome.code == Some(1), "{outcome:?}");
    for text in texts {
        ensure!(outcome.stderr.contains(text), "{text:?} is not in\n{}", outcome.stderr);
    }
    Ok(())
}

fn split(flavor: Flavor) -> Result<()> {
    let cluster = horizontal(flavor, &["0"], &["-80", "80-"])?;
    assert_eq!(cluster.tablets.len(), TABLETS);
    for sql in load::hot_rows() {
        // Ids of the load that the rows before have too.
        let sql = sql.replacen("insert", "replace", 1);
        cluster.mysql_on_tablet(WHOLE, &format!("use vt_customer; {sql}"))?;
    }
    let refused = vtworker(&cluster, DIFF_LEFT)?;
    expect_found(&refused, &["shard customer/-80 has no source shard"])?;

    // Under running writes: all comparisons at once, nothing out of service meanwhile.
    let load = Load::start(cluster.vtgate_mysql_port, 3, 1)?;
    vtworker(&cluster, CLONE)?.success()?;
    load.wait_for_more(200)?;
    let hold = Hold::new(&cluster, "comparing")?;
    let held = start(&cluster, DIFF_LEFT, &hold.at("diff.comparing"))?;
    hold.wait_until_reached()?;
    check_untouched(&cluster, &[LEFT, RIGHT])?;
    load.wait_for_more(200)?;
    let all: Vec<Background> = [DIFF_LEFT, DIFF_RIGHT, DIFF_BOTH, DIFF_BOTH]
        .into_iter()
        .map(|words| start(&cluster, words, ""))
        .collect::<Result<_>>()?;
    for diff in all {
        let log = diff.finish()?.success()?.stderr;
        ensure!(log.contains("customer: ") && log.contains(" 0 different, 0 missing, 0 extra"), "{log}");
    }
    hold.release()?;
    held.finish()?.success()?;
    check_untouched(&cluster, &[LEFT, RIGHT])?;

    // Killed anywhere: the next one finds everything and puts it back.
    for place in ["diff.streams_held", "diff.source_stopped", "diff.comparing"] {
        let killed = start(&cluster, DIFF_BOTH, &format!("{place}=kill"))?.finish()?;
        ensure!(killed.code.is_none(), "not killed at {place}: {killed:?}");
        vtworker(&cluster, DIFF_LEFT)?.success().with_context(|| format!("after {place}"))?;
        vtworker(&cluster, DIFF_BOTH)?.success().with_context(|| format!("after {place}"))?;
        check_untouched(&cluster, &[LEFT, RIGHT]).with_context(|| format!("after {place}"))?;
        // One that fails there puts back by itself.
        let failed = start(&cluster, DIFF_BOTH, &format!("{place}=error"))?.finish()?;
        expect_found(&failed, &[&format!("fail point {place}")])?;
        check_untouched(&cluster, &[LEFT, RIGHT]).with_context(|| format!("after an error at {place}"))?;
    }
    load.finish()?.expect_no_errors()?;

    // Whatever differs is found and named.
    resharding::same(&cluster, &[WHOLE], &[LEFT, RIGHT])?;
    let damage = |index: usize, sql: &str| cluster.mysql_on_tablet(index, &format!("use vt_customer; {sql}")).map(drop);
    let on = |shard: usize, sql: &str| -> Result<Vec<String>> { resharding::rows(&cluster, &[shard], sql) };
    let ids =
        on(LEFT, "select customer_id from vt_customer.customer where customer_id > 10 and customer_id < 1000 limit 3")?;
    let [changed, removed, _] = &ids[..] else { anyhow::bail!("{ids:?}") };
    damage(
        LEFT,
        &format!(
            "update customer set email = concat(left(email, 4), 'X', substr(email, 6)) where customer_id = {changed}"
        ),
    )?;
    damage(LEFT, &format!("delete from customer where customer_id = {removed}"))?;
    damage(LEFT, "insert into customer values (4, 'belongs to 80-')")?;
    let note =
        on(LEFT, "select concat(customer_id, ' ', hex(tag), ' ', amount) from vt_customer.note limit 1")?.remove(0);
    let [id, tag, amount] = note.split(' ').collect::<Vec<_>>()[..] else { anyhow::bail!("{note}") };
    damage(
        LEFT,
        &format!("update note set body = null where customer_id = {id} and hex(tag) = '{tag}' and amount = {amount}"),
    )?;
    let found = vtworker(&cluster, DIFF_LEFT)?;
    let customer = format!(
        "table customer has differences: 1 row missing at the destination: ({removed}); 1 row only at the destination: (4); \
         1 row with other values: ({changed}) in email; "
    );
    let note = format!(
        "table note has differences: 1 row with other values: (x'{}', {id}, {amount}) in body; ",
        tag.to_lowercase()
    );
    expect_found(&found, &[&customer, &note, "(in customer/-80)"])?;
    ensure!(!found.stderr.contains("table corder has differences"), "{}", found.stderr);
    vtworker(&cluster, DIFF_RIGHT)?.success()?;
    // An extra row of its own.
    damage(RIGHT, "insert into corder values (77, 4, 'extra', 1)")?;
    expect_found(
        &vtworker(&cluster, DIFF_BOTH)?,
        &[&customer, "table corder has differences: 1 row only at the destination: (77); ", "(in customer/80-)"],
    )?;
    through_the_daemon(&cluster, &customer)?;
    check_untouched(&cluster, &[LEFT, RIGHT])?;

    // A source whose rdonly has handed its traffic over serves nobody any more, and is read all the same.
    cluster.vtctlclient(&["MigrateServedTypes", "customer/0", "rdonly"])?.success()?;
    cluster.wait_for_tablet_state(SOURCE_RDONLY, "NOT_SERVING")?;
    expect_found(&vtworker(&cluster, DIFF_LEFT)?, &[&customer])?;
    let alias = cluster.tablets[SOURCE_RDONLY].spec.alias();
    let record = cluster.vtctlclient(&["GetTablet", &alias])?.success()?.stdout;
    let record: serde_json::Value = serde_json::from_str(&record)?;
    ensure!(record["type"] == "RDONLY" || record["type"] == 3, "{record}");
    ensure!(record["tags"].as_object().is_none_or(serde_json::Map::is_empty), "{record}");
    Ok(())
}

/// A daemon runs comparisons for vtworkerclient: its exit code tells the verdict, and one that is canceled leaves
/// everything as before.
fn through_the_daemon(cluster: &Cluster, differences: &str) -> Result<()> {
    let (http, grpc) = (testcluster::free_port(), testcluster::free_port());
    let mut hold = Hold::new(cluster, "daemon")?;
    let ports = [http, grpc].map(|port| port.to_string());
    let words = ["-port", &ports[0], "-grpc_port", &ports[1], "-service_map", "grpc-vtworker", LEASE];
    let log = cluster.dir().join("tmp/vtworker.out");
    let mut command = cluster.vtworker_command(&words);
    command.env("VT_FAILPOINTS", hold.at("diff.comparing"));
    let _daemon = testcluster::Process::start("vtworker", command, &log)?;
    wait_for("the daemon to answer", Duration::from_secs(20), || testcluster::http_get(http, "/status").is_ok())?;

    std::thread::scope(|scope| -> Result<()> {
        for cancel in [true, false] {
            let running = scope.spawn(|| cluster.vtworkerclient(grpc, DIFF_LEFT));
            hold.wait_until_reached()?;
            let (_, page) = testcluster::http_get(http, "/status")?;
            ensure!(page.contains("State: running the diff"), "{page}");
            if cancel {
                cluster.vtworkerclient(grpc, &["Cancel"])?.success()?;
            }
            hold.release()?;
            let ended = running.join().expect("no panic")?;
            let text = if cancel { "vtworker command was canceled: context canceled" } else { differences };
            expect_found(&ended, &[text])?;
            check_untouched(cluster, &[LEFT, RIGHT])?;
            let (_, page) = testcluster::http_get(http, "/status")?;
            ensure!(page.contains("State: error"), "{page}");
            if !cancel {
                ensure!(page.contains("Diff Result:") && page.contains("1 different, 1 missing, 1 extra"), "{page}");
            }
            cluster.vtworkerclient(grpc, &["Reset"])?.success()?;
            hold = Hold::new(cluster, "daemon")?;
        }
        Ok(())
    })
}

#[test]
fn a_split_is_compared() -> Result<()> {
    split(Flavor::MariaDb)
}

#[test]
fn a_split_is_compared_on_mysql9() -> Result<()> {
    match Flavor::mysql9() {
        Some(flavor) => split(flavor),
        None => Ok(()),
    }
}

/// Two shards become one while they are written to: each source is compared by itself.
fn merge(flavor: Flavor) -> Result<()> {
    let cluster = horizontal(flavor, &["-80", "80-"], &["0"])?;
    const MERGED: usize = 4;
    for sql in load::hot_rows() {
        let id = sql.split("values(").nth(1).and_then(|rest| rest.split(',').next()).context("an id")?.to_owned();
        let (table, key) = if sql.contains("customer(") { ("customer", "customer_id") } else { ("corder", "order_id") };
        cluster.mysql(&["customer"], &format!("delete from {table} where {key} = {id}"))?.success()?;
        cluster.mysql(&["customer"], &sql)?.success()?;
    }
    let load = Load::start(cluster.vtgate_mysql_port, 3, 1)?;
    vtworker(&cluster, &["SplitClone", "-min_healthy_rdonly_tablets=1", "customer/0"])?.success()?;
    load.wait_for_more(100)?;
    let diff = |more: &[&str]| {
        vtworker(&cluster, &[&["SplitDiff", "-min_healthy_rdonly_tablets=1"], more, &["customer/0"]].concat())
    };
    expect_found(&diff(&[])?, &["shard customer/0 has more than one source, please specify a source UID"])?;
    expect_found(&diff(&["-source_uid=9"])?, &["shard customer/0 has no source with UID 9"])?;
    for uid in ["-source_uid=1", "-source_uid=2"] {
        diff(&[uid])?.success()?;
    }
    load.wait_for_more(100)?;
    load.finish()?.expect_no_errors()?;
    resharding::same(&cluster, &[0, 2], &[MERGED])?;
    check_untouched(&cluster, &[MERGED])?;

    // Customer 4 is of 80-, 5 of -80: what differs is its own source's.
    cluster.mysql_on_tablet(MERGED, "delete from vt_customer.note where customer_id in (4, 5)")?;
    for (uid, has, has_not) in [("-source_uid=1", "5, ", "4, "), ("-source_uid=2", "4, ", "5, ")] {
        let found = diff(&[uid])?;
        let named = |id: &str| {
            format!(
                "table note has differences: 1 row missing at the destination: (x'74{}', {id}",
                if id == "5, " { "35" } else { "34" }
            )
        };
        expect_found(&found, &[&named(has)])?;
        ensure!(!found.stderr.contains(&named(has_not)), "{}", found.stderr);
    }
    Ok(())
}

#[test]
fn a_merge_is_compared() -> Result<()> {
    merge(Flavor::MariaDb)
}

#[test]
fn a_merge_is_compared_on_mysql9() -> Result<()> {
    match Flavor::mysql9() {
        Some(flavor) => merge(flavor),
        None => Ok(()),
    }
}

/// Shards of different widths.
#[test]
fn an_uneven_split_is_compared() -> Result<()> {
    let cluster = horizontal(Flavor::MariaDb, &["0"], &["-40", "40-c0", "c0-"])?;
    vtworker(&cluster, &["SplitClone", "-min_healthy_rdonly_tablets=1", "customer/40-c0"])?.success()?;
    vtworker(&cluster, DIFF_BOTH)?.success()?;
    resharding::same(&cluster, &[0], &[2, 4, 6])?;
    let counts: Vec<u64> = [2, 4, 6]
        .into_iter()
        .map(|index| {
            Ok(cluster.mysql_on_tablet(index, "select count(*) from vt_customer.customer")?.stdout.trim().parse()?)
        })
        .collect::<Result<_>>()?;
    ensure!(counts.iter().sum::<u64>() == ROWS && counts[1] > counts[0] && counts[1] > counts[2], "{counts:?}");
    // A row that is in two shards.
    let id = cluster.mysql_on_tablet(2, "select min(customer_id) from vt_customer.customer")?.stdout;
    cluster.mysql_on_tablet(6, &format!("insert into vt_customer.customer values ({id}, 'twice')"))?;
    let text = format!("table customer has differences: 1 row only at the destination: ({}); ", id.trim());
    expect_found(&vtworker(&cluster, DIFF_BOTH)?, &[&text, "(in customer/c0-)"])?;
    check_untouched(&cluster, &[2, 4, 6])
}
