//! Data directories of new mysqlds.
//!
//! To initialise one keeps a mysqld busy for seconds. One of each kind is made by `mysqlctl init`, kept beside the
//! programs until these are built anew, and copied for every tablet. Nothing of it says whose it is: neither a server's
//! UUID nor a binary log.

use crate::{Background, Flavor, program};
use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

/// Written last: what the copy was made with.
const STAMP: &str = "made-with";

/// The part of a tablet directory that a copy replaces.
const DIRECTORIES: [&str; 2] = ["data", "innodb"];

/// Puts the data of a new mysqld into a tablet directory that `mysqlctl init_config` has made.
pub(crate) fn fill(flavor: &Flavor, tablet: &Path) -> Result<()> {
    let (name, version) = match flavor {
        Flavor::MariaDb => ("mariadb", version(Path::new("mariadbd")).or_else(|_| version(Path::new("mysqld")))?),
        Flavor::MySql9(root) => ("mysql9", version(&root.join("bin/mysqld"))?),
    };
    let mysqlctl = program("mysqlctl");
    let built = fs::metadata(&mysqlctl)?.modified()?.duration_since(std::time::UNIX_EPOCH)?;
    let stamp = format!("{version} {}", built.as_nanos());
    let parent = mysqlctl.parent().expect("a program lies in a directory").join("mysqld-data");
    fs::create_dir_all(&parent)?;
    // Other tests, and other test programs, wait until it is there, and do not replace it while it is copied.
    let file = File::create(parent.join(format!("{name}.lock")))?;
    let _only = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let dir = parent.join(name);
    if !fs::read_to_string(dir.join(STAMP)).is_ok_and(|made_with| made_with == stamp) {
        remove(&dir)?;
        // Short: the path of a socket has a limit.
        let work = std::env::temp_dir().join(format!("vt-datadir-{name}-{}", std::process::id()));
        remove(&work)?;
        let made = make(flavor, &work, &dir);
        // What init left behind is of no use to anybody, whatever came of it.
        remove(&work)?;
        made?;
        fs::write(dir.join(STAMP), stamp)?;
    }
    copy(&dir, tablet)
}

fn remove(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| dir.display().to_string())?;
    }
    Ok(())
}

/// Which server it is, as it says itself.
fn version(server: &Path) -> Result<String> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(server);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).arg("--version");
    Ok(Background::start(server.display().to_string(), command)?.finish()?.success()?.stdout)
}

fn make(flavor: &Flavor, root: &Path, dir: &Path) -> Result<()> {
    fs::create_dir_all(root)?;
    let port = crate::free_port().to_string();
    let mysqlctl = |action: &str| {
        let mut command = Command::new(program("mysqlctl"));
        flavor.choose(command.env("VTDATAROOT", root).current_dir(root));
        command.arg("-log_dir").arg(root).args(["-tablet_uid", "1", "-mysql_port", &port, action]);
        Background::start(format!("mysqlctl {action}"), command)?.finish()?.success()
    };
    let tablet = root.join("vt_0000000001");
    let done = mysqlctl("init").and_then(|_| mysqlctl("shutdown"));
    if done.is_err()
        && let Some(pid) = fs::read_to_string(tablet.join("mysql.pid")).ok().and_then(|pid| pid.trim().parse().ok())
    {
        crate::process::end(pid);
    }
    done?;
    fs::create_dir_all(dir)?;
    // MySQL makes a new UUID where this file is missing; MariaDB has none.
    let uuid = tablet.join("data/auto.cnf");
    if uuid.exists() {
        fs::remove_file(uuid)?;
    }
    copy(&tablet, dir)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("cp");
    // Redo logs are mostly zeros.
    command.args(["--recursive", "--sparse=always"]).args(DIRECTORIES.map(|name| from.join(name))).arg(to);
    Background::start("cp", command)?.finish()?.success().context("the data of a new mysqld")?;
    Ok(())
}
