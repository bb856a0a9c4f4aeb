//! Ends one process at one phase of a cutover, as `kill -9` does, and sees the cutover through.
//!
//! vtctld waits at the phase ([`Hold`]) while the victim is killed, and goes on then, so that it meets the dead process
//! in exactly that phase. The victim is started again, and the command is repeated until it succeeds.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use testcluster::{Background, Cluster, Finished, Hold, Victim};

/// What is killed, of the processes that a switch needs.
const VICTIMS: &[fn(&Switch<'_>) -> Victim] = &[
    |switch| Victim::Vttablet(switch.source),
    |switch| Victim::Vttablet(switch.destination),
    |switch| Victim::Mysqld(switch.destination),
    |_| Victim::Vtgate,
    |_| Victim::Etcd,
];
/// Phases for every day: clients are kept and the position is being read; the point of no return is passed.
const FEW: &[&str] = &["cutover.fenced", "cutover.opened"];
/// How long a command is repeated.
const PATIENCE: Duration = Duration::from_secs(120);

/// The kills of one run, each with the switch that it hits: every victim at every phase with `VT_TEST_KILLS=all`, a few
/// without. Switches go there and back in turn.
pub fn table<'a>(there: &'a Switch<'a>, back: &'a Switch<'a>) -> Vec<(Victim, &'static str, &'a Switch<'a>)> {
    let points = if Victim::all_asked_for() { wrangler::CUTOVER_POINTS } else { FEW };
    let pairs = VICTIMS.iter().flat_map(|victim| points.iter().map(move |point| (victim, *point)));
    let switches = [there, back].into_iter().cycle();
    pairs.zip(switches).map(|((victim, point), switch)| (victim(switch), point, switch)).collect()
}

/// One switch: how it is asked for, and the masters (by index) that it is from and to.
pub struct Switch<'a> {
    pub command: &'a [&'a str],
    pub source: usize,
    pub destination: usize,
}

/// Runs a command until vtctld waits at the point.
pub fn hold_at(cluster: &mut Cluster, point: &str, command: &[&str]) -> Result<(Hold, Background)> {
    let hold = Hold::new(cluster, "cutover")?;
    cluster.kill_vtctld();
    cluster.start_vtctld_with(&[("VT_FAILPOINTS", &hold.at(point))])?;
    let running = Background::start(command.join(" "), cluster.vtctlclient_command(command))?;
    hold.wait_until_reached().context(point.to_owned())?;
    Ok((hold, running))
}

/// Runs a switch once; kills the victim at the point, and starts it again.
pub fn strike_once(cluster: &mut Cluster, victim: Victim, point: &str, switch: &Switch<'_>) -> Result<Finished> {
    let (hold, running) = hold_at(cluster, point, switch.command)?;
    cluster.kill(victim)?;
    hold.release()?;
    cluster.restart(victim)?;
    running.finish()
}

/// Runs a switch, kills the victim at the point, and repeats the command until it has succeeded.
pub fn strike(cluster: &mut Cluster, victim: Victim, point: &str, switch: &Switch<'_>) -> Result<()> {
    let started = Instant::now();
    let mut outcome = strike_once(cluster, victim, point, switch)?;
    // Without the fail point: the process that continues is another.
    cluster.kill_vtctld();
    cluster.start_vtctld()?;
    let mut tries = 1;
    while outcome.code != Some(0) {
        if started.elapsed() > PATIENCE {
            bail!("{victim:?} killed at {point}: the command does not succeed any more: {outcome:?}");
        }
        std::thread::sleep(Duration::from_millis(500));
        tries += 1;
        outcome = cluster.vtctlclient(switch.command).context("vtctlclient")?;
    }
    println!("{victim:?} killed at {point}: done by try {tries} after {:?}", started.elapsed());
    Ok(())
}
