//! The walkthrough as its reader runs it: `scripts/demo.sh` with the programs of this build, which checks the
//! output of every stage, and beside it the recorded answers of Vitess v5.0.1 at each stage.

use anyhow::{Context, Result, bail, ensure};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};
use testcluster::{Flavor, program, repository};

/// The scripts have fixed ports: one walkthrough at a time.
static PORTS: Mutex<()> = Mutex::new(());

/// The stages whose recorded answers are compared in one run, as they were recorded: the commands of a stage may
/// change what later ones see.
#[derive(Clone, Copy)]
enum Replay {
    Nothing,
    /// 101 to 204, then teardown.
    First,
    /// 205 to 307.
    Second,
}

/// Runs the walkthrough. Data and logs of a run that fails are kept.
fn walk(flavor: &Flavor, replay: Replay) -> Result<()> {
    let _ports = PORTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let dir = tempfile::Builder::new().prefix("walkthrough-").tempdir()?.keep();
    let root = dir.join("vtdataroot");
    let demo = repository().join("scripts/demo.sh");
    let mut command = Command::new("bash");
    command.arg(&demo).arg("--bin").arg(program("vtgate").parent().context("a directory")?);
    if let Flavor::MySql9(mysql) = flavor {
        command.env("VT_MYSQL_ROOT", mysql);
    }
    match replay {
        Replay::Nothing => {}
        Replay::First => {
            command.args(["--until", "204", "--after"]).arg(replay_script(&dir, 101..=204)?);
        }
        Replay::Second => {
            command.arg("--after").arg(replay_script(&dir, 205..=307)?);
        }
    }
    // Outputs go to a file: a pipe would stay open as long as the daemons that inherit it.
    let log = dir.join("output");
    let file = fs::File::create(&log)?;
    let status =
        command.env("VTDATAROOT", &root).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).status()?;
    let output = fs::read_to_string(&log)?;
    let replayed = fs::read_to_string(dir.join("replayed")).unwrap_or_default();
    println!("{replayed}");
    let left = left_over(&root)?;
    ensure!(left.is_empty(), "processes are left:\n{left}");
    if !status.success() {
        bail!("scripts/demo.sh ended with {status}, see {}:\n[…]\n{}", dir.display(), end_of(&output));
    }
    // Every stage is replayed before it is judged, so that one run shows all differences.
    ensure!(!replayed.contains("DIFFERS"), "answers differ from those of v5.0.1:\n{replayed}");
    fs::remove_dir_all(&dir)?;
    Ok(())
}

/// The lines that say what went wrong.
fn end_of(output: &str) -> String {
    let lines: Vec<&str> = output.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A directory with the programs of this build, but for `without`.
fn programs_but(without: &str, dir: &Path) -> Result<()> {
    for entry in fs::read_dir(program("vtgate").parent().context("a directory")?)? {
        let entry = entry?;
        let name = entry.file_name();
        let executable = entry.file_type()?.is_file() && entry.metadata()?.permissions().mode() & 0o111 != 0;
        if executable && name != without {
            std::os::unix::fs::symlink(entry.path(), dir.join(name))?;
        }
    }
    Ok(())
}

#[test]
fn a_demo_that_fails_says_at_which_step() -> Result<()> {
    let _ports = PORTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let dir = tempfile::tempdir()?;
    let bin = dir.path().join("bin");
    fs::create_dir(&bin)?;
    programs_but("vtworker", &bin)?;
    let demo = Command::new("bash")
        .arg(repository().join("scripts/demo.sh"))
        .arg("--bin")
        .arg(&bin)
        .env("VTDATAROOT", dir.path().join("vtdataroot"))
        .stdin(Stdio::null())
        .output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&demo.stdout), String::from_utf8_lossy(&demo.stderr));
    ensure!(!demo.status.success(), "{said}");
    ensure!(said.contains("ERROR: vtworker is not installed in PATH."), "{said}");
    ensure!(said.contains("FAILED at step 2."), "{said}");
    Ok(())
}

#[test]
fn a_host_name_that_does_not_resolve_is_not_used() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let unresolved = dir.path().join("hostname");
    fs::write(&unresolved, "#!/bin/sh\necho 'hostname: Name or service not known' >&2\nexit 1\n")?;
    fs::set_permissions(&unresolved, fs::Permissions::from_mode(0o755))?;
    let path = std::env::var("PATH")?;
    let bin = program("vtgate").parent().context("a directory")?.display().to_string();
    let shown = Command::new("bash")
        .args(["-ec", ". ./env.sh; echo \"host $hostname\""])
        .current_dir(repository().join("examples/local"))
        .env("PATH", format!("{}:{bin}:{path}", dir.path().display()))
        .env("VTDATAROOT", dir.path().join("vtdataroot"))
        .output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&shown.stdout), String::from_utf8_lossy(&shown.stderr));
    ensure!(said.lines().any(|line| line == "host 127.0.0.1"), "{said}");
    Ok(())
}

fn left_over(root: &Path) -> Result<String> {
    let output = Command::new("pgrep").args(["-fl", "--"]).arg(root).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A script for `demo.sh --after` that compares the answers of these stages with the recorded ones. Differences that
/// are meant stand in `accept/`.
fn replay_script(dir: &Path, stages: std::ops::RangeInclusive<u32>) -> Result<PathBuf> {
    let shared = repository().join("../shared");
    let accept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accept");
    let text = format!(
        r#"#!/bin/bash
[ "$1" -ge {first} ] && [ "$1" -le {last} ] || exit 0
transcript={shared}/cases/transcripts/$1.txt
[ -e "$transcript" ] || {{ echo "SKIPPED: $transcript is not there" >>{dir}/replayed; exit 0; }}
accept={accept}/$1.tsv
python3 {shared}/tools/replay.py --home "$HOME" $([ -e "$accept" ] && echo --accept "$accept") "$transcript" \
  >>{dir}/replayed 2>&1 || echo "DIFFERS: stage $1" >>{dir}/replayed
exit 0
"#,
        first = stages.start(),
        last = stages.end(),
        shared = shared.display(),
        dir = dir.display(),
        accept = accept.display(),
    );
    let path = dir.join("replay.sh");
    fs::write(&path, text)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn mariadb_101_to_204_answers_as_recorded() -> Result<()> {
    walk(&Flavor::MariaDb, Replay::First)
}

#[test]
fn mariadb_205_to_307_answers_as_recorded() -> Result<()> {
    walk(&Flavor::MariaDb, Replay::Second)
}

#[test]
fn mysql9() -> Result<()> {
    match Flavor::mysql9() {
        Some(flavor) => walk(&flavor, Replay::Nothing),
        None => Ok(()),
    }
}
