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
    path::{Path, PathBuf},
    process::Command,
};

/// Written last: what the copy was made with.
const STAMP: &str = "made-with";

/// The part of a tablet directory that a copy replaces.
const DIRECTORIES: [&str; 2] = ["data", "innodb"];

/// Puts the data of a new mysqld into a tablet directory that `mysqlctl init_config` has made.
pub(crate) fn fill(flavor: &Flavor, tablet: &Path) -> Result<()> {
    copy(&kept(flavor)?, tablet)
}

/// The directory that is copied, made if there is none that this build made.
fn kept(flavor: &Flavor) -> Result<PathBuf> {
    let mysqlctl = program("mysqlctl");
    let built = fs::metadata(&mysqlctl)?.modified()?.duration_since(std::time::UNIX_EPOCH)?;
    let (name, root) = match flavor {
        Flavor::MariaDb => ("mariadb", None),
        Flavor::MySql9(root) => ("mysql9", Some(root)),
    };
    let stamp = format!("{root:?} {}", built.as_nanos());
    let parent = mysqlctl.parent().expect("a program lies in a directory").join("mysqld-data");
    fs::create_dir_all(&parent)?;
    // Other tests, and other test programs, wait until it is there.
    let file = File::create(parent.join(format!("{name}.lock")))?;
    let _only = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
    let dir = parent.join(name);
    if fs::read_to_string(dir.join(STAMP)).is_ok_and(|made_with| made_with == stamp) {
        return Ok(dir);
    }
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    // Short: the path of a socket has a limit.
    let work = std::env::temp_dir().join(format!("vt-datadir-{name}-{}", std::process::id()));
    let made = make(flavor, &work, &dir);
    // What init left behind is of no use to anybody, whatever came of it.
    let _ = fs::remove_dir_all(&work);
    made?;
    fs::write(dir.join(STAMP), stamp)?;
    Ok(dir)
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
    mysqlctl("init")?;
    mysqlctl("shutdown")?;
    fs::create_dir_all(dir)?;
    let tablet = root.join("vt_0000000001");
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
