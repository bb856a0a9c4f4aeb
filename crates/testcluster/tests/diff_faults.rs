//! Whatever dies while the rows of a split are compared: the command, run again once everything is up, has the right
//! verdict, and tablets and streams are as they were before.

mod resharding;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use resharding::{Writer, check_untouched, horizontal};
use testcluster::{Background, Cluster, Finished, Flavor, Hold, Victim, wait_for};

/// Tablets: the source's master and rdonly, and the same of the destinations.
const SOURCE: usize = 0;
const SOURCE_RDONLY: usize = 1;
const LEFT: usize = 2;
const LEFT_RDONLY: usize = 3;
const RIGHT: usize = 4;

/// Waits are short: what is dead stays so until it is started again.
const DIFF: &[&str] = &[
    "-topo_etcd_lease_ttl=2",
    "-retry_duration=20s",
    "-remote_actions_timeout=15s",
    "MultiSplitDiff",
    "-min_healthy_tablets=1",
    "-use_consistent_snapshot=true",
    "-tablet_type=RDONLY",
    "customer/0",
];

/// What clients write meanwhile.
const WRITES: &str = "use vt_customer; update customer set email = concat('write ', @n) where customer_id % 50 = @n % 50; \
    replace into corder values (@n, @n, 'x', @n)";

/// Places where a comparison is when something dies.
const PHASES: &[&str] = &["diff.streams_held", "diff.source_stopped", "diff.comparing"];

const VICTIMS: &[Victim] = &[
    Victim::Vttablet(SOURCE_RDONLY),
    Victim::Mysqld(SOURCE_RDONLY),
    Victim::Vttablet(LEFT),
    Victim::Mysqld(LEFT),
    Victim::Vttablet(LEFT_RDONLY),
    Victim::Mysqld(LEFT_RDONLY),
    Victim::Vtctld,
    Victim::Etcd,
];

/// One comparison during which something dies.
fn compare_with(cluster: &mut Cluster, phase: &str, victim: Victim) -> Result<()> {
    let hold = Hold::new(cluster, "phase")?;
    let mut command = cluster.vtworker_command(DIFF);
    command.env("VT_FAILPOINTS", hold.at(phase));
    let mut worker = Background::start("MultiSplitDiff", command)?;
    hold.wait_until_reached()?;
    cluster.kill(victim)?;
    hold.release()?;
    // It notices, and then what died comes back: it may go on by itself, or has given up.
    let _ = wait_for("vtworker to give up", Duration::from_secs(2), || !worker.is_running());
    cluster.restart(victim)?;
    let ended = worker.finish()?;
    if ended.code != Some(0) {
        let last = ended.stderr.lines().last().unwrap_or_default();
        println!("  it failed: {last}");
        ensure!(ended.code == Some(1) && last.starts_with('E'), "no reason: {}", ended.stderr);
        // What died is no difference between rows.
        ensure!(!ended.stderr.contains("has differences"), "{}", ended.stderr);
        // A mysqld that starts is read-only until its tablet has seen it.
        let again = || cluster.vtworker(DIFF).and_then(Finished::success);
        wait_for("the comparison to succeed", Duration::from_secs(60), || again().is_ok())
            .or_else(|_| again().map(drop))?;
    }
    let masters = [LEFT, RIGHT];
    wait_for("everything to be as before", Duration::from_secs(60), || check_untouched(cluster, &masters).is_ok())
        .or_else(|_| check_untouched(cluster, &masters))
}

/// Every victim at every phase with `VT_TEST_KILLS=all`, each at one of them without.
#[test]
fn a_death_is_no_difference() -> Result<()> {
    let mut cluster = horizontal(Flavor::MariaDb, &["0"], &["-80", "80-"])?;
    cluster.vtworker(&["SplitClone", "-min_healthy_rdonly_tablets=1", "customer/0"])?.success()?;
    let writer = Writer::start(&cluster, SOURCE, WRITES)?;
    for (number, victim) in VICTIMS.iter().enumerate() {
        let phases = if Victim::all_asked_for() { PHASES } else { &PHASES[number % PHASES.len()..][..1] };
        for phase in phases {
            println!("{victim:?} at {phase}");
            compare_with(&mut cluster, phase, *victim).with_context(|| format!("{victim:?} at {phase}"))?;
        }
    }
    writer.stop()?;

    // It still sees what differs.
    resharding::same(&cluster, &[SOURCE], &[LEFT, RIGHT])?;
    cluster.mysql_on_tablet(LEFT, "delete from vt_customer.customer where customer_id = 1")?;
    let found = cluster.vtworker(DIFF)?;
    let text = "table customer has differences: 1 row missing at the destination: (1)";
    ensure!(found.code == Some(1) && found.stderr.contains(text), "{found:?}");
    Ok(())
}
