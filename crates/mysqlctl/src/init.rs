//! The first start of a mysqld: data directory, accounts, `_vt` tables, and an empty binary log to begin from.
//!
//! While it runs, `init.incomplete` lies locked in the tablet directory. A marker that nobody holds tells of an init that
//! was cut short: its data was never anybody's, so the next `init` or `start` begins anew.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use mysql::{
    admin,
    client::{ClientError, ConnectParams, Connection},
};
use nix::fcntl::{Flock, FlockArg};
use tokio::process::Command;

use crate::{
    error::{Error, Result},
    error_log,
    install::{Installation, ServerVersion, Vendor},
    process::{self, describe, run_as, with_log},
    script,
    tablet::MysqlTablet,
};

const MARKER: &str = "init.incomplete";
/// What a new data directory takes, redo logs included.
const NEEDED_MB: u64 = 300;
/// Creating system tables takes seconds; minutes on a machine that is overloaded.
const INSTALL_TIME_LIMIT: Duration = Duration::from_secs(600);

/// How [`init`] is to go about it.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// SQL to run instead of the built-in statements.
    pub init_db_sql_file: Option<PathBuf>,
    pub wait: Duration,
}

/// Makes the tablet's mysqld and leaves it running.
///
/// # Errors
/// [`Error::State`] when there is data that a finished init made. After any failure mysqld is ended and the directory
/// kept for its error log; running again starts over.
pub async fn init(installation: &Installation, tablet: &MysqlTablet, options: &InitOptions) -> Result<()> {
    // What can be checked before anything is made.
    let script = match &options.init_db_sql_file {
        Some(path) => Some((path.clone(), fs::read_to_string(path).map_err(Error::file("read", path))?)),
        None => None,
    };
    if interrupted(tablet.dir.path()).is_none() && !tablet.has_data() {
        crate::port::check_free(tablet.cnf.port)?;
    }
    let marker = Marker::take(tablet, options).await?;
    // Once more: a mysqld of an interrupted init, which held the port, is gone now.
    crate::port::check_free(tablet.cnf.port)?;
    check_space(tablet)?;
    tablet.create_directories()?;
    tablet.write_config(&tablet.cnf.render(installation.version).await?)?;

    let result = async {
        create_data(installation, tablet).await?;
        let root = ConnectParams::unix(&tablet.cnf.socket, "root");
        process::start(installation, tablet, &[], &root, options.wait).await?;
        let log_start = error_log::size(&tablet.cnf.error_log);
        let outcome = match &script {
            Some((path, text)) => run_script(&root, path, text).await,
            None => run_built_in(&root, installation.version).await,
        };
        outcome.map_err(with_log(tablet, log_start))
    }
    .await;
    match result {
        Ok(()) => marker.finished(),
        Err(error) => {
            process::discard(tablet).await;
            Err(error)
        }
    }
}

/// What an init that was cut short was asked to do; `None` when the last one finished.
pub fn interrupted(dir: &Path) -> Option<Option<PathBuf>> {
    let text = fs::read_to_string(dir.join(MARKER)).ok()?;
    Some(text.lines().nth(1).filter(|path| !path.is_empty()).map(PathBuf::from))
}

/// The marker, held by a lock that the kernel drops with this process.
struct Marker {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Marker {
    async fn take(tablet: &MysqlTablet, options: &InitOptions) -> Result<Self> {
        let path = tablet.dir.path().join(MARKER);
        let was_interrupted = path.exists();
        if !was_interrupted && tablet.has_data() {
            return Err(Error::State(format!(
                "{} is initialised already: use start, or teardown -force to begin anew",
                tablet.dir.path().display()
            )));
        }
        fs::create_dir_all(tablet.dir.path()).map_err(Error::file("create directory", tablet.dir.path()))?;
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(Error::file("create", &path))?;
        let mut lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
            let pid = fs::read_to_string(&path).unwrap_or_default();
            Error::State(format!(
                "another init is at work in {} (pid {})",
                tablet.dir.path().display(),
                pid.lines().next().unwrap_or("?")
            ))
        })?;
        if was_interrupted {
            tracing::warn!("an earlier init of {} did not finish: starting over", tablet.dir.path().display());
            process::discard(tablet).await;
            tablet.remove_data()?;
        }
        let script = options.init_db_sql_file.as_deref().map(absolute).unwrap_or_default();
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}\n{}\n", std::process::id(), script.display()))
            .map_err(Error::file("write", &path))?;
        Ok(Self { path, _lock: lock })
    }

    fn finished(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(Error::file("remove", &self.path))
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn check_space(tablet: &MysqlTablet) -> Result<()> {
    let Ok(stat) = nix::sys::statvfs::statvfs(tablet.dir.path()) else { return Ok(()) };
    // The width of these counters differs between platforms.
    #[allow(clippy::useless_conversion)]
    let free_mb = u64::from(stat.blocks_available()) * u64::from(stat.fragment_size()) / (1 << 20);
    if free_mb < NEEDED_MB {
        return Err(Error::NoSpace { path: tablet.dir.path().to_owned(), free_mb, needed_mb: NEEDED_MB });
    }
    Ok(())
}

/// Fills the data directory with the system tables; afterwards root may log in on the socket without a password.
async fn create_data(installation: &Installation, tablet: &MysqlTablet) -> Result<()> {
    let log_start = error_log::size(&tablet.cnf.error_log);
    let my_cnf = format!("--defaults-file={}", tablet.dir.my_cnf().display());
    let basedir = installation.basedir.as_ref().map(|basedir| format!("--basedir={}", basedir.display()));
    let version = installation.version;
    let mut arguments = vec![my_cnf];
    arguments.extend(basedir);
    arguments.extend(run_as());
    let program = if version.is_mariadb() || !version.at_least(5, 7, 0) {
        if version.is_mariadb() && version.at_least(10, 4, 0) {
            // Its default lets root in by operating system user only.
            arguments.push("--auth-root-authentication-method=normal".to_owned());
        }
        installation.program(&["mariadb-install-db", "mysql_install_db"])?
    } else {
        arguments.push("--initialize-insecure".to_owned());
        installation.mysqld.clone()
    };
    tracing::info!("creating the data directory: {} {}", program.display(), arguments.join(" "));
    let run = Command::new(&program).args(&arguments).stdin(Stdio::null()).current_dir("/").kill_on_drop(true).output();
    let name = program.display().to_string();
    let failure = match tokio::time::timeout(INSTALL_TIME_LIMIT, run).await {
        Err(_) => Error::Program {
            program: name,
            status: format!("not ready after {} s", INSTALL_TIME_LIMIT.as_secs()),
            output: String::new(),
        },
        Ok(Err(error)) => Error::Installation(format!("cannot run {name}: {error}")),
        Ok(Ok(output)) if output.status.success() => return Ok(()),
        Ok(Ok(output)) => Error::Program {
            program: name,
            status: describe(output.status),
            // What mariadb-install-db says on standard output is general advice; the cause is in the error log.
            output: last_lines(&output.stderr),
        },
    };
    Err(with_log(tablet, log_start)(failure))
}

fn last_lines(output: &[u8]) -> String {
    const LINES: usize = 15;
    let text = String::from_utf8_lossy(output);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

async fn run_script(root: &ConnectParams, path: &Path, text: &str) -> Result<()> {
    let mut conn = Connection::connect(root).await.map_err(server("connect as root"))?;
    for statement in script::split(text) {
        conn.execute(&statement.text).await.map_err(|error| Error::Statement {
            file: path.display().to_string(),
            line: statement.line,
            error: error.to_string(),
            statement: shorten(&statement.text),
        })?;
    }
    conn.close().await;
    Ok(())
}

fn shorten(statement: &str) -> String {
    const LIMIT: usize = 200;
    match statement.char_indices().nth(LIMIT) {
        Some((cut, _)) => format!("{}…", &statement[..cut]),
        None => statement.to_owned(),
    }
}

fn server(action: &'static str) -> impl FnOnce(ClientError) -> Error {
    move |error| Error::Server { action, error: error.to_string() }
}

/// The built-in initialisation. Nothing of it is in the binary log: each server does it by itself.
async fn run_built_in(root: &ConnectParams, version: ServerVersion) -> Result<()> {
    let mut conn = Connection::connect(root).await.map_err(server("connect as root"))?;
    conn.execute("SET SESSION sql_log_bin = 0").await.map_err(server("switch the binary log off"))?;
    drop_open_accounts(&mut conn).await.map_err(server("drop open accounts"))?;
    for statement in accounts(version) {
        conn.execute(&statement).await.map_err(|error| Error::Statement {
            file: "the built-in accounts".to_owned(),
            line: 1,
            error: error.to_string(),
            statement,
        })?;
    }
    mysql::sidecar::ensure(&mut conn).await.map_err(server("create the _vt tables"))?;
    conn.execute("FLUSH PRIVILEGES").await.map_err(server("flush privileges"))?;
    admin::reset_replication(&mut conn)
        .await
        .map_err(|error| Error::Server { action: "reset the binary log", error: error.to_string() })?;
    conn.close().await;
    Ok(())
}

/// Accounts without a name and root from elsewhere: everybody could use them. And the database that belongs to nobody.
async fn drop_open_accounts(conn: &mut Connection) -> Result<(), ClientError> {
    let open = conn
        .execute(
            "SELECT CONCAT(QUOTE(User), '@', QUOTE(Host)) FROM mysql.user \
             WHERE User = '' OR (User = 'root' AND Host <> 'localhost')",
        )
        .await?;
    for row in &open.rows {
        conn.execute(&format!("DROP USER {}", String::from_utf8_lossy(&row.values))).await?;
    }
    conn.execute("DROP DATABASE IF EXISTS test").await?;
    Ok(())
}

/// One account: name, host, password, and what it may do where.
struct Account {
    name: &'static str,
    host: &'static str,
    password: &'static str,
    grants: &'static [(&'static str, &'static str)],
}

const APPLICATION: &str = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, FILE, REFERENCES, INDEX, ALTER, \
    SHOW DATABASES, CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, REPLICATION SLAVE, REPLICATION CLIENT, CREATE VIEW, \
    SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, CREATE USER, EVENT, TRIGGER";

/// vttablet logs in by socket, without passwords; replicas come over the network.
const ACCOUNTS: &[Account] = &[
    Account { name: "vt_app", host: "localhost", password: "", grants: &[(APPLICATION, "*.*")] },
    Account { name: "vt_allprivs", host: "localhost", password: "", grants: &[(APPLICATION, "*.*")] },
    Account { name: "vt_filtered", host: "localhost", password: "", grants: &[(APPLICATION, "*.*")] },
    Account {
        name: "vt_appdebug",
        host: "localhost",
        password: "",
        grants: &[("SELECT, SHOW DATABASES, PROCESS", "*.*")],
    },
    Account { name: "vt_repl", host: "%", password: "", grants: &[("REPLICATION SLAVE", "*.*")] },
    Account {
        name: "vt_monitoring",
        host: "localhost",
        password: "",
        grants: &[
            ("SELECT, PROCESS, SUPER, REPLICATION CLIENT, RELOAD", "*.*"),
            ("SELECT, UPDATE, DELETE, DROP", "performance_schema.*"),
        ],
    },
    // The password is a convention between Orchestrator's configuration and this file, not a secret.
    Account {
        name: "orc_client_user",
        host: "%",
        password: "orc_client_user_password",
        grants: &[("SUPER, PROCESS, REPLICATION SLAVE, RELOAD", "*.*"), ("SELECT", "_vt.*")],
    },
];

/// The statements that make all accounts.
fn accounts(version: ServerVersion) -> Vec<String> {
    let mut statements = vec![
        "CREATE DATABASE IF NOT EXISTS _vt".to_owned(),
        "CREATE USER 'vt_dba'@'localhost'".to_owned(),
        "GRANT ALL PRIVILEGES ON *.* TO 'vt_dba'@'localhost' WITH GRANT OPTION".to_owned(),
    ];
    for account in ACCOUNTS {
        let user = format!("'{}'@'{}'", account.name, account.host);
        let identified =
            if account.password.is_empty() { String::new() } else { format!(" IDENTIFIED BY '{}'", account.password) };
        statements.push(format!("CREATE USER {user}{identified}"));
        for (privileges, place) in account.grants {
            statements.push(format!("GRANT {privileges} ON {place} TO {user}"));
            // MariaDB 10.5.9 took SHOW SLAVE STATUS out of REPLICATION CLIENT.
            if version.vendor == Vendor::MariaDb
                && version.at_least(10, 5, 9)
                && privileges.contains("REPLICATION CLIENT")
            {
                statements.push(format!("GRANT REPLICA MONITOR ON *.* TO {user}"));
            }
        }
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_account_that_vttablet_uses_is_made() {
        let all = accounts(ServerVersion::new(Vendor::MariaDb, 10, 11, 4)).join("\n");
        for user in ["vt_dba", "vt_app", "vt_allprivs", "vt_filtered", "vt_appdebug", "vt_repl", "vt_monitoring"] {
            assert!(all.contains(&format!("CREATE USER '{user}'@")), "{user}");
        }
        assert!(all.contains("GRANT REPLICA MONITOR"));
        assert!(!accounts(ServerVersion::new(Vendor::MySql, 9, 7, 4)).join("\n").contains("REPLICA MONITOR"));
    }

    #[test]
    fn only_the_end_of_a_long_output_is_shown() {
        let text = (0..100).map(|n| format!("line {n}\n\n")).collect::<String>();
        let shown = last_lines(text.as_bytes());
        assert!(shown.starts_with("line 85") && shown.ends_with("line 99"));
    }
}
