//! One child process: started with its output in a file, ended by pid.

use anyhow::{Context, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs::OpenOptions,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A program of this workspace, built beside the running test.
pub fn program(name: &str) -> PathBuf {
    let mut dir = std::env::current_exe().expect("a test has an executable");
    dir.pop();
    if dir.ends_with("deps") || dir.ends_with("examples") {
        dir.pop();
    }
    let path = dir.join(name);
    assert!(path.exists(), "{} is not built: run cargo build --workspace first", path.display());
    path
}

/// A running child. Dropping it kills it as a crash would and waits for its end.
pub struct Process {
    name: &'static str,
    child: Child,
}

impl Process {
    /// Starts a program with both outputs appended to `log`.
    pub fn start(name: &'static str, mut command: Command, log: &Path) -> Result<Self> {
        let open = || OpenOptions::new().create(true).append(true).open(log);
        let (out, err) = (open()?, open()?);
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn().with_context(|| name.to_string())?;
        Ok(Self { name, child })
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid()), signal).with_context(|| self.name.to_string())
    }

    /// The exit code once it has ended by itself; `None` while it runs or when a signal ended it.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.child.try_wait().ok().flatten().and_then(|status| status.code())
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process that is not our child runs (one that waits to be collected does not).
pub(crate) fn is_running(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| !rest.starts_with('Z')))
}

/// Ends a process that is not our child, at last by SIGKILL.
pub(crate) fn end(pid: i32) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        // An error means that it is gone.
        let _ = kill(Pid::from_raw(pid), signal);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(10) {
            if !is_running(pid) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Resident memory of a process in KiB that is no file's. How much of its program a process has mapped says nothing about
/// what it holds: a server unmaps all of it some time after its start, and what is still used comes back bit by bit.
pub fn anonymous_kib(pid: i32) -> Result<u64> {
    status_kib(pid, "RssAnon:")
}

/// The most of it that a process had while `work` ran, in KiB: too little by what of its program was mapped meanwhile.
pub fn peak_anonymous_kib<T>(pid: i32, work: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
    let of_files = || status_kib(pid, "RssFile:");
    let before = of_files()?;
    // The kernel forgets the peak so far.
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    let done = work()?;
    // Only the whole has a peak.
    let peak = status_kib(pid, "VmHWM:")?.saturating_sub(before.max(of_files()?));
    Ok((peak.max(anonymous_kib(pid)?), done))
}

fn status_kib(pid: i32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}
