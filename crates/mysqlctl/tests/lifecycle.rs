//! mysqlctl as a user runs it, on the server of this machine. Says so loudly and passes where there is none.

use std::{
    fs,
    io::Write,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use mysql::client::{ConnectParams, Connection};
use mysqlctl::{Installation, MysqlTablet, process, tablet::tablet_dir};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const UID: u32 = 7;

/// A data root with at most one tablet. A mysqld that a failed test leaves behind is killed with it.
struct Root {
    dir: tempfile::TempDir,
    port: u16,
    extra: Option<PathBuf>,
}

impl Root {
    fn new() -> Option<Self> {
        if let Err(error) = Installation::find() {
            eprintln!("SKIPPED: {error}");
            return None;
        }
        let dir = tempfile::Builder::new().prefix("mctl").tempdir().unwrap();
        let root = Self { dir, port: testcluster::free_port(), extra: None };
        Some(root.with_extra("bind-address = 127.0.0.1\n"))
    }

    /// Settings for `EXTRA_MY_CNF`.
    fn with_extra(mut self, text: &str) -> Self {
        let path = self.dir.path().join("extra.cnf");
        fs::write(&path, text).unwrap();
        self.extra = Some(path);
        self
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mysqlctl"));
        command
            .env("VTDATAROOT", self.dir.path())
            .env("EXTRA_MY_CNF", self.extra.as_deref().unwrap_or(Path::new("")))
            .arg("-log_dir")
            .arg(self.dir.path())
            .args(["-tablet_uid", &UID.to_string(), "-mysql_port", &self.port.to_string()])
            .args(args)
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn succeed(&self, args: &[&str]) {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", text(&output));
    }

    /// What a run that has to fail says.
    fn fail(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {}", text(&output));
        text(&output)
    }

    fn tablet_dir(&self) -> PathBuf {
        self.dir.path().join(format!("vt_{UID:010}"))
    }

    fn tablet(&self) -> Option<MysqlTablet> {
        MysqlTablet::open(self.dir.path(), tablet_dir(self.dir.path(), "", UID)).ok()
    }

    fn pid(&self) -> Option<i32> {
        process::find(&self.tablet()?)
    }

    async fn connect(&self) -> Connection {
        Connection::connect(&ConnectParams::unix(self.tablet_dir().join("mysql.sock"), "vt_dba")).await.unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn a_mysqld_lives_from_init_to_teardown() {
    let Some(root) = Root::new() else { return };
    root.succeed(&["init"]);
    let first = root.pid().expect("mysqld runs");

    let mut conn = root.connect().await;
    for (variable, expected) in [
        ("log_bin", "1"),
        ("binlog_format", "ROW"),
        ("binlog_row_image", "FULL"),
        ("read_only", "1"),
        ("port", &root.port.to_string()),
    ] {
        let result = conn.execute(&format!("SELECT @@global.{variable}")).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&result.rows[0].values), expected, "{variable}");
    }
    conn.execute("INSERT INTO _vt.reparent_journal VALUES (1, 'a', 'b', 'c')").await.unwrap();
    let position = mysql::admin::master_position(&mut conn).await.unwrap();
    assert!(!position.is_empty(), "replicas need a position to start from");
    conn.close().await;

    let error = root.fail(&["init"]);
    assert!(error.contains("is initialised already: use start, or teardown -force"), "{error}");
    root.succeed(&["start"]);
    assert_eq!(root.pid(), Some(first), "a second start starts nothing");

    root.succeed(&["shutdown"]);
    assert_eq!(root.pid(), None);
    root.succeed(&["shutdown"]);
    // Two at once start one, and one shutdown stops it.
    let both = [0, 1].map(|_| root.command(&["start"]).spawn().expect("mysqlctl runs"));
    for mut start in both {
        assert!(start.wait().expect("it ends").success());
    }
    root.succeed(&["shutdown"]);
    assert_eq!(root.pid(), None);
    root.succeed(&["start", "-mysqld_args", "--max-connections=77"]);
    let mut conn = root.connect().await;
    let result = conn.execute("SELECT @@global.max_connections, COUNT(*) FROM _vt.reparent_journal").await.unwrap();
    assert_eq!(String::from_utf8_lossy(&result.rows[0].values), "771");
    drop(conn);

    // Killed, it leaves a pid file and a socket; the next start is not put off by them.
    kill(Pid::from_raw(root.pid().unwrap()), Signal::SIGKILL).unwrap();
    wait_until("mysqld is gone", || root.pid().is_none());
    assert!(root.tablet_dir().join("mysql.sock").exists());
    root.succeed(&["start"]);
    root.succeed(&["teardown"]);
    assert!(!root.tablet_dir().exists());
    let error = root.fail(&["start"]);
    assert!(error.contains("run init first"), "{error}");
}

#[test]
fn a_taken_port_is_named_with_its_holder_and_nothing_is_left_behind() {
    let Some(root) = Root::new() else { return };
    let holder = TcpListener::bind(("127.0.0.1", root.port)).unwrap();
    let error = root.fail(&["init"]);
    let expected = format!("failed init mysql: port {} is already in use by pid {}", root.port, std::process::id());
    assert!(error.contains(&expected), "{error}");
    assert!(!root.tablet_dir().exists());
    drop(holder);
}

#[test]
fn a_wrong_setting_is_explained_with_the_words_of_mysqld() {
    let Some(root) = Root::new() else { return };
    let root = root.with_extra("no_such_setting = 1\n");
    let error = root.fail(&["init"]);
    assert!(error.contains("unknown variable 'no_such_setting=1'"), "{error}");
    assert!(error.contains("last lines of") && error.contains("EXTRA_MY_CNF"), "{error}");
    let my_cnf = fs::read_to_string(root.tablet_dir().join("my.cnf")).unwrap();
    assert!(my_cnf.contains("\n## "), "{my_cnf}");

    // After the setting is put right, start does what init could not finish.
    let root = root.with_extra("bind-address = 127.0.0.1\n");
    root.succeed(&["start"]);
    root.succeed(&["teardown"]);
}

#[test]
fn a_wrong_init_file_is_named_with_its_line() {
    let Some(root) = Root::new() else { return };
    let file = root.dir.path().join("init.sql");
    fs::File::create(&file).unwrap().write_all(b"# fine\nSET sql_log_bin = 0;\n\nCREATE NONSENSE;\n").unwrap();
    let error = root.fail(&["init", "-init_db_sql_file", file.to_str().unwrap()]);
    assert!(error.contains("init.sql, line 4:") && error.contains("1064"), "{error}");
    assert_eq!(root.pid(), None, "a failed init leaves no mysqld");
    let error = root.fail(&["init", "-init_db_sql_file", "/nonexistent.sql"]);
    assert!(error.contains("/nonexistent.sql"), "{error}");
}

#[test]
fn an_interrupted_init_is_done_again() {
    let Some(root) = Root::new() else { return };
    let mut child = root.command(&["init"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the data directory is being made", || {
        fs::read_dir(root.tablet_dir().join("data")).is_ok_and(|mut entries| entries.next().is_some())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    root.succeed(&["init"]);
    assert!(root.pid().is_some());
    assert!(!root.tablet_dir().join("init.incomplete").exists());
    root.succeed(&["teardown"]);
}

#[test]
fn mistakes_on_the_command_line_are_named() {
    let Some(root) = Root::new() else { return };
    assert!(root.fail(&["fly"]).contains("invalid action: fly"));
    assert!(root.fail(&[]).contains("no action was given"));
    assert!(root.fail(&["start", "-nope"]).contains("flag provided but not defined: -nope"));
    assert!(root.fail(&["position", "equal", "x"]).contains("not enough arguments"));
    let output = root.run(&["position", "append", "MariaDB/0-1-5", "MariaDB/0-1-6"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "MariaDB/0-1-6\n");
    let output = root.run(&["position", "at_least", "MariaDB/0-1-5", "MariaDB/0-1-6"]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "false\n");
}

/// A mysqld that is a script: it answers `--version` like the real one, and then does `body`.
fn fake_installation(root: &Root, body: &str) -> PathBuf {
    let version = Installation::find().unwrap().version.to_string();
    let fake = root.dir.path().join("fake");
    fs::create_dir_all(fake.join("bin")).unwrap();
    let vendor = if version.contains("MariaDB") { "10.11.6-MariaDB" } else { "8.0.36" };
    let script =
        format!("#!/bin/sh\ncase \"$*\" in *--version*) echo 'mysqld  Ver {vendor} for Linux';; *) {body};; esac\n");
    let path = fake.join("bin/mysqld");
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    fake
}

#[test]
fn a_mysqld_that_dies_is_explained_with_its_last_words() {
    let Some(root) = Root::new() else { return };
    root.succeed(&["init"]);
    root.succeed(&["shutdown"]);
    let start_with = |body: &str| {
        let fake = fake_installation(&root, body);
        let output = root.command(&["start"]).env("VT_MYSQL_ROOT", fake).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        text(&output)
    };
    let error = start_with("echo 'InnoDB: the last words'; kill -9 $$");
    assert!(error.contains("failed start mysql: mysqld ended during start (killed by SIGKILL)"), "{error}");
    let log = root.tablet_dir().join("error.log");
    assert!(error.contains(&format!("last lines of {}:\n  InnoDB: the last words", log.display())), "{error}");
    let error = start_with("exit 7");
    assert!(error.contains("mysqld ended during start (exit code 7)\nmysqld wrote nothing to"), "{error}");
    let error =
        start_with("echo \"[ERROR] mysqld: Can\\'t create file 'x' (Errcode: 13 \\\"Permission denied\\\")\"; exit 1");
    assert!(
        error.contains("hint: the user that runs mysqld may not use") || error.contains("hint: AppArmor"),
        "{error}"
    );
    // The data is untouched by all that.
    root.succeed(&["start"]);
    root.succeed(&["teardown"]);
}

#[test]
fn leftovers_do_not_keep_mysqld_from_starting() {
    let Some(root) = Root::new() else { return };
    root.succeed(&["init"]);
    root.succeed(&["shutdown"]);
    // A pid file that names a process which is not mysqld, and a socket that nobody listens on.
    let pid_file = root.tablet_dir().join("mysql.pid");
    fs::write(&pid_file, format!("{}\n", std::process::id())).unwrap();
    fs::write(root.tablet_dir().join("mysql.sock"), "").unwrap();
    root.succeed(&["shutdown"]);
    fs::write(&pid_file, format!("{}\n", std::process::id())).unwrap();
    root.succeed(&["start"]);
    let pid = root.pid().expect("mysqld runs");
    assert_eq!(fs::read_to_string(&pid_file).unwrap().trim(), pid.to_string());
    root.succeed(&["shutdown"]);

    let holder = TcpListener::bind(("127.0.0.1", root.port)).unwrap();
    let error = root.fail(&["start"]);
    let expected = format!("failed start mysql: port {} is already in use by pid {}", root.port, std::process::id());
    assert!(error.contains(&expected), "{error}");
    drop(holder);
    root.succeed(&["start"]);
    root.succeed(&["teardown"]);
}

/// A file system of its own, in memory. `None`, said loudly, where it cannot be mounted.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(root: &Root, megabytes: u32) -> Option<Self> {
        let dir = root.dir.path().join("disk");
        fs::create_dir_all(&dir).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(&dir).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: a small file system cannot be mounted here (it takes root)");
            return None;
        }
        Some(Self(dir))
    }

    fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        let block = vec![b'x'; 1 << 20];
        while file.write_all(&block).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_named() {
    let Some(root) = Root::new() else { return };
    {
        let Some(disk) = SmallDisk::mount(&root, 50) else { return };
        let output = root.command(&["init"]).env("VTDATAROOT", &disk.0).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output);
        let cause = error.split_once("failed init mysql: only ").expect("the cause").1;
        assert!(cause[2..].starts_with(" MB are free on the file system of"), "{error}");
        assert!(cause.contains("a new data directory needs 300 MB"), "{error}");
    }
    let Some(disk) = SmallDisk::mount(&root, 500) else { return };
    let run = |action: &str| root.command(&[action]).env("VTDATAROOT", &disk.0).output().unwrap();
    for action in ["init", "shutdown"] {
        let output = run(action);
        assert!(output.status.success(), "{action}: {}", text(&output));
    }
    disk.fill();
    let output = run("start");
    let error = text(&output);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("failed start mysql: ") && error.contains("the file system is full"), "{error}");
    fs::remove_file(disk.0.join("filler")).unwrap();
    for action in ["start", "teardown"] {
        let output = run(action);
        assert!(output.status.success(), "{action}: {}", text(&output));
    }
}
