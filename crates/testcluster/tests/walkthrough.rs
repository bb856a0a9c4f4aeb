//! The walkthrough as its reader runs it: the scripts of `examples/local` on their own ports, their
//! outputs, and the recorded answers of Vitess v5.0.1 at that stage.

use anyhow::{Context, Result, ensure};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};
use testcluster::{Finished, Flavor, program, repository};

/// The scripts have fixed ports: one walkthrough at a time.
static PORTS: Mutex<()> = Mutex::new(());

struct Walkthrough {
    root: PathBuf,
    path: String,
    mysql_root: Option<PathBuf>,
}

impl Walkthrough {
    fn new(flavor: &Flavor) -> Result<Self> {
        let bin = program("vtgate").parent().context("a directory")?.to_path_buf();
        let root = std::env::temp_dir().join(format!("walkthrough-{}", std::process::id())).join("vtdataroot");
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root)?;
        let mysql_root = match flavor {
            Flavor::MariaDb => None,
            Flavor::MySql9(root) => Some(root.clone()),
        };
        Ok(Self { root, path: format!("{}:{}", bin.display(), std::env::var("PATH")?), mysql_root })
    }

    fn bash(&self, command: &str) -> Result<Finished> {
        let mut bash = Command::new("bash");
        bash.args(["-c", command])
            .current_dir(repository().join("examples/local"))
            .env("VTDATAROOT", &self.root)
            .env("PATH", &self.path)
            .stdin(std::process::Stdio::null());
        if let Some(root) = &self.mysql_root {
            bash.env("VT_MYSQL_ROOT", root);
        }
        // Outputs go to a file: a pipe would stay open as long as the daemons that inherit it.
        let log = self.root.with_file_name("output");
        let file = std::fs::File::create(&log)?;
        let status = bash.stdout(file.try_clone()?).stderr(file).status()?;
        let output = std::process::Output { status, stdout: std::fs::read(&log)?, stderr: Vec::new() };
        Ok(Finished::new(command.into(), output))
    }

    fn left_over(&self) -> Result<String> {
        let output = Command::new("pgrep").args(["-fl", "--"]).arg(&self.root).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Walkthrough {
    fn drop(&mut self) {
        // A failed run: its processes carry its directory in their command lines.
        let _ = Command::new("pkill").args(["-KILL", "-f", "--"]).arg(&self.root).status();
        if !std::thread::panicking()
            && let Some(parent) = self.root.parent()
        {
            let _ = std::fs::remove_dir_all(parent);
        }
    }
}

const SHOW_TABLES: &str = "\
+-----------------------+
| Tables_in_vt_commerce |
+-----------------------+
| corder                |
| customer              |
| product               |
+-----------------------+
";

const SELECT: &str = "\
Using commerce/0
Customer
+-------------+--------------------+
| customer_id | email              |
+-------------+--------------------+
|           1 | alice@domain.com   |
|           2 | bob@domain.com     |
|           3 | charlie@domain.com |
|           4 | dan@domain.com     |
|           5 | eve@domain.com     |
+-------------+--------------------+
Product
+----------+-------------+-------+
| sku      | description | price |
+----------+-------------+-------+
| SKU-1001 | Monitor     |   100 |
| SKU-1002 | Keyboard    |    30 |
+----------+-------------+-------+
COrder
+----------+-------------+----------+-------+
| order_id | customer_id | sku      | price |
+----------+-------------+----------+-------+
|        1 |           1 | SKU-1001 |   100 |
|        2 |           2 | SKU-1002 |    30 |
|        3 |           3 | SKU-1002 |    30 |
|        4 |           4 | SKU-1002 |    30 |
|        5 |           5 | SKU-1002 |    30 |
+----------+-------------+----------+-------+
";

fn walk(flavor: &Flavor) -> Result<()> {
    let _ports = PORTS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let walkthrough = Walkthrough::new(flavor)?;
    walkthrough.bash("./101_initial_cluster.sh")?.success()?;
    let mysql = "mysql --no-defaults -h 127.0.0.1 -P 15306";
    let tables = walkthrough.bash(&format!("{mysql} --table -e 'show tables'"))?.success()?;
    ensure!(tables.stdout == SHOW_TABLES, "show tables:\n{}", tables.stdout);
    let insert = walkthrough.bash(&format!("{mysql} < ../common/insert_commerce_data.sql"))?.success()?;
    ensure!(insert.stdout.is_empty(), "{}", insert.stdout);
    let select =
        walkthrough.bash(&format!("{mysql} --table --unbuffered < ../common/select_commerce_data.sql"))?.success()?;
    ensure!(select.stdout == SELECT, "select_commerce_data.sql:\n{}", select.stdout);
    let running = walkthrough.left_over()?;
    for name in ["etcd", "vtctld", "vttablet", "vtgate"] {
        ensure!(running.contains(name), "{name} does not show its data directory:\n{running}");
    }
    if *flavor == Flavor::MariaDb {
        replay(&walkthrough, "101")?;
    }
    walkthrough.bash("./401_teardown.sh")?.success()?;
    let left = walkthrough.left_over()?;
    ensure!(left.is_empty(), "401 left processes behind:\n{left}");
    Ok(())
}

/// Compares with what Vitess v5.0.1 answered. Differences that are meant stand in `accept/`.
fn replay(walkthrough: &Walkthrough, stage: &str) -> Result<()> {
    let shared = repository().join("../shared");
    let transcript = shared.join(format!("cases/transcripts/{stage}.txt"));
    if !transcript.exists() {
        eprintln!("SKIPPED: {} is not there", transcript.display());
        return Ok(());
    }
    let accept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/accept").join(format!("{stage}.tsv"));
    let command = format!(
        "python3 {} --home $HOME --accept {} {}",
        shared.join("tools/replay.py").display(),
        accept.display(),
        transcript.display()
    );
    let replayed = walkthrough.bash(&command)?;
    println!("{}", replayed.stdout);
    replayed.success().map(drop)
}

#[test]
fn mariadb() -> Result<()> {
    walk(&Flavor::MariaDb)
}

#[test]
fn mysql9() -> Result<()> {
    match Flavor::mysql9() {
        Some(flavor) => walk(&flavor),
        None => Ok(()),
    }
}
