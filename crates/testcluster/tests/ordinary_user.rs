//! The commands of v5.0.1's own scripts 101 and 401, as an ordinary user: it refuses root, and so do they.

use anyhow::{Context, Result, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};
use testcluster::{Finished, program, repository};

/// The directory of the user who runs the scripts.
struct Home {
    dir: PathBuf,
    path: String,
}

impl Home {
    fn new() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("ordinary-user-").tempdir()?.keep();
        let bin = program("vtgate").parent().context("a directory")?.to_path_buf();
        for file in ["local/create_commerce_schema.sql", "local/vschema_commerce_initial.json"]
            .into_iter()
            .chain(["common/insert_commerce_data.sql", "common/select_commerce_data.sql"])
        {
            let name = Path::new(file).file_name().context("a name")?;
            fs::copy(repository().join("examples").join(file), dir.join(name))?;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/v5/walkthrough.sh");
        fs::copy(script, dir.join("walkthrough.sh"))?;
        Ok(Self { dir, path: format!("{}:{}", bin.display(), std::env::var("PATH")?) })
    }

    fn data(&self) -> PathBuf {
        self.dir.join("vtdataroot")
    }

    fn bash(&self, command: &str) -> Result<Finished> {
        // Outputs go to a file: a pipe would stay open as long as the daemons that inherit it.
        let log = self.dir.join("output");
        let file = fs::File::create(&log)?;
        let status = Command::new("bash")
            .args(["-c", command])
            .current_dir(&self.dir)
            .env("VTDATAROOT", self.data())
            .env("PATH", &self.path)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()?;
        let output = Output { status, stdout: fs::read(&log)?, stderr: Vec::new() };
        Ok(Finished::new(command.into(), output))
    }

    fn left_over(&self) -> Result<String> {
        let output = Command::new("pgrep").args(["-fl", "--"]).arg(self.data()).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // A failed run: its processes carry its directory in their command lines.
        let _ = Command::new("pkill").args(["-KILL", "-f", "--"]).arg(self.data()).status();
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

#[test]
fn scripts_of_v5_as_an_ordinary_user() -> Result<()> {
    let home = Home::new()?;
    let mut user = String::new();
    if nix::unistd::Uid::effective().is_root() {
        let refused = home.bash("./walkthrough.sh up")?;
        ensure!(refused.code == Some(1) && refused.stdout.contains("refuses to be run as root"), "{refused:?}");
        // Who owns nothing here but the directory of this test.
        user = "setpriv --reuid=nobody --regid=nogroup --clear-groups env USER=nobody ".into();
        fs::create_dir_all(home.data())?;
        home.bash(&format!("chown -R nobody:nogroup {}", home.dir.display()))?.success()?;
        let readable = home.bash(&format!("{user} vtgate -version"))?;
        if readable.code != Some(0) {
            eprintln!("SKIPPED: user nobody cannot run {}: {}", program("vtgate").display(), readable.stdout);
            return Ok(());
        }
    }
    home.bash(&format!("{user}./walkthrough.sh up"))?.success()?;
    let mysql = "mysql --no-defaults -h 127.0.0.1 -P 15306";
    let tables = home.bash(&format!("{mysql} -N -e 'show tables'"))?.success()?;
    ensure!(tables.stdout == "corder\ncustomer\nproduct\n", "show tables:\n{}", tables.stdout);
    home.bash(&format!("{mysql} < insert_commerce_data.sql"))?.success()?;
    let select = home.bash(&format!("{mysql} < select_commerce_data.sql"))?.success()?;
    ensure!(select.stdout.contains("5\teve@domain.com"), "select_commerce_data.sql:\n{}", select.stdout);
    home.bash(&format!("{user}./walkthrough.sh down"))?.success()?;
    let left = home.left_over()?;
    ensure!(left.is_empty(), "processes are left behind:\n{left}");
    Ok(())
}
