//! mysqld as a process: finding it, starting it, waiting until it answers, stopping it.
//!
//! A server belongs to a tablet when its command line names the tablet's `my.cnf`; no other process is ever signalled.
//! mysqld runs detached, in a session of its own: it outlives mysqlctl and no terminal's Ctrl-C reaches it.

use std::{
    fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use mysql::client::{ConnectParams, Connection};
use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::{Pid, Uid},
};
use tokio::time::{sleep, timeout};

use crate::{
    error::{Error, Result},
    error_log::{self, LogTail},
    hook,
    install::Installation,
    port,
    tablet::MysqlTablet,
};

const POLL: Duration = Duration::from_millis(25);
/// One attempt to connect; a server that is starting may accept and then be silent.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// MySQL's number for a wrong user or password, which only a server that runs can send.
const ACCESS_DENIED: u16 = 1045;

/// What [`start`] found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    Now {
        pid: i32,
    },
    /// It ran before, and answers.
    AlreadyRunning {
        pid: i32,
    },
}

/// What [`shutdown`] found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    Now { pid: i32 },
    NothingRan,
}

/// The arguments with which every mysqld of a tablet runs. The first has to be the first for mysqld too, and it is what
/// makes the process recognisable.
pub fn base_arguments(installation: &Installation, tablet: &MysqlTablet) -> Vec<String> {
    let mut arguments = vec![format!("--defaults-file={}", tablet.dir.my_cnf().display())];
    if let Some(basedir) = &installation.basedir {
        arguments.push(format!("--basedir={}", basedir.display()));
    }
    arguments.extend(run_as());
    arguments
}

/// mysqld refuses to run as root unless told to. Root's tablets belong to root: their directory may lie where no other
/// user can go.
pub fn run_as() -> Option<String> {
    Uid::effective().is_root().then(|| "--user=root".to_owned())
}

/// Starts the mysqld of a tablet and waits until it answers on its socket.
///
/// `login` connects through the tablet's socket; a server that refuses it answers too. When mysqld takes longer than
/// `wait` it is left running: it may be recovering, which must not be cut short.
pub async fn start(
    installation: &Installation,
    tablet: &MysqlTablet,
    arguments: &[String],
    login: &ConnectParams,
    wait: Duration,
) -> Result<Started> {
    let _only = alone(tablet, wait).await?;
    let log_start = error_log::size(&tablet.cnf.error_log);
    if let Some(pid) = find(tablet) {
        tracing::warn!("mysqld (pid {pid}) is running already");
        wait_until_answers(tablet, login, wait, || alive(pid).then_some(()).ok_or_else(|| "it ended".to_owned()))
            .await
            .map_err(with_log(tablet, log_start))?;
        return Ok(Started::AlreadyRunning { pid });
    }
    tablet.remove_leftovers();
    port::check_free(tablet.cnf.port)?;

    let all: Vec<String> = base_arguments(installation, tablet).into_iter().chain(arguments.iter().cloned()).collect();
    if let Some(result) = hook::run_optional("mysqld_start", &all, &Default::default()).await {
        if result.exit_status != 0 {
            return Err(Error::Hook {
                name: "mysqld_start".to_owned(),
                status: result.exit_status,
                output: result.stderr,
            });
        }
        wait_until_answers(tablet, login, wait, || Ok(())).await.map_err(with_log(tablet, log_start))?;
        return Ok(Started::Now { pid: find(tablet).unwrap_or_default() });
    }
    let mut child = spawn(installation, tablet, &all)?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    tracing::info!("started mysqld as pid {pid}: {} {}", installation.mysqld.display(), all.join(" "));
    wait_until_answers(tablet, login, wait, || match child.try_wait() {
        Ok(None) => Ok(()),
        Ok(Some(status)) => Err(describe(status)),
        Err(error) => Err(error.to_string()),
    })
    .await
    .map_err(with_log(tablet, log_start))?;
    Ok(Started::Now { pid })
}

/// Waits until no other process is starting this tablet's mysqld; none does until the lock is dropped.
async fn alone(tablet: &MysqlTablet, wait: Duration) -> Result<Flock<fs::File>> {
    let path = tablet.dir.path();
    let begin = Instant::now();
    let mut directory = fs::File::open(path).map_err(Error::file("open", path))?;
    loop {
        directory = match Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((directory, Errno::EWOULDBLOCK)) if begin.elapsed() < wait => directory,
            Err((_, error)) => {
                return Err(Error::State(format!("another start is at work in {}: {error}", path.display())));
            }
        };
        sleep(POLL).await;
    }
}

fn spawn(installation: &Installation, tablet: &MysqlTablet, arguments: &[String]) -> Result<Child> {
    // What mysqld prints before it has read log-error has to go somewhere.
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&tablet.cnf.error_log)
        .map_err(Error::file("open", &tablet.cnf.error_log))?;
    let output =
        |file: &fs::File| file.try_clone().map(Stdio::from).map_err(Error::file("open", &tablet.cnf.error_log));
    let mut command = Command::new(&installation.mysqld);
    command.args(arguments).stdin(Stdio::null()).stdout(output(&log)?).stderr(output(&log)?).current_dir("/");
    // SAFETY: setsid is async-signal-safe and touches no memory of this process.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
    command
        .spawn()
        .map_err(|error| Error::Installation(format!("cannot run {}: {error}", installation.mysqld.display())))
}

/// Polls the socket; `check` says whether it makes sense to go on.
async fn wait_until_answers(
    tablet: &MysqlTablet,
    login: &ConnectParams,
    wait: Duration,
    mut check: impl FnMut() -> Result<(), String>,
) -> Result<()> {
    let begin = Instant::now();
    let mut last = "it made no socket yet".to_owned();
    loop {
        check().map_err(|status| Error::Died { status })?;
        if tablet.cnf.socket.exists() {
            match timeout(CONNECT_TIMEOUT, Connection::connect(login)).await {
                Ok(Ok(conn)) => {
                    conn.close().await;
                    return Ok(());
                }
                Ok(Err(error)) if error.errno() == ACCESS_DENIED => {
                    tracing::warn!("mysqld answers, but not to {}: {error}", login.user);
                    return Ok(());
                }
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = format!("no greeting within {} s", CONNECT_TIMEOUT.as_secs()),
            }
        }
        if begin.elapsed() >= wait {
            return Err(Error::NoAnswer { socket: tablet.cnf.socket.clone(), waited_seconds: wait.as_secs(), last });
        }
        sleep(POLL).await;
    }
}

/// Stops the mysqld of a tablet and waits until it is gone. That nothing runs is a success.
pub async fn shutdown(tablet: &MysqlTablet, login: &ConnectParams, wait: Duration) -> Result<Stopped> {
    let log_start = error_log::size(&tablet.cnf.error_log);
    let Some(pid) = find(tablet) else {
        tracing::warn!("no mysqld runs for {}, nothing to shut down", tablet.dir.path().display());
        tablet.remove_leftovers();
        return Ok(Stopped::NothingRan);
    };
    match hook::run_optional("mysqld_shutdown", &[], &Default::default()).await {
        Some(result) if result.exit_status != 0 => {
            return Err(Error::Hook {
                name: "mysqld_shutdown".to_owned(),
                status: result.exit_status,
                output: result.stderr,
            });
        }
        Some(_) => {}
        None => ask_to_stop(pid, login).await?,
    }
    tracing::info!("asked mysqld (pid {pid}) to stop");
    wait_until_gone(pid, wait).await.map_err(with_log(tablet, log_start))?;
    tablet.remove_leftovers();
    Ok(Stopped::Now { pid })
}

/// By statement, which needs no rights over the process; by signal when it takes no connections.
async fn ask_to_stop(pid: i32, login: &ConnectParams) -> Result<()> {
    let by_statement = async {
        let mut conn = Connection::connect(login).await?;
        conn.execute("SHUTDOWN").await.map(drop)
    };
    let reason = match timeout(CONNECT_TIMEOUT, by_statement).await {
        Ok(Ok(())) => return Ok(()),
        // It may close the connection before it answers; a signal on top does no harm.
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer".to_owned(),
    };
    match kill(Pid::from_raw(pid), Signal::SIGTERM) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => {
            Err(Error::State(format!("mysqld (pid {pid}) takes neither SHUTDOWN ({reason}) nor SIGTERM ({error})")))
        }
    }
}

async fn wait_until_gone(pid: i32, wait: Duration) -> Result<()> {
    let begin = Instant::now();
    while alive(pid) {
        if begin.elapsed() >= wait {
            return Err(Error::StillRunning { pid, waited_seconds: wait.as_secs() });
        }
        sleep(POLL).await;
    }
    Ok(())
}

/// Ends a mysqld whose data is worth nothing: one of an initialisation that failed.
pub async fn discard(tablet: &MysqlTablet) {
    while let Some(pid) = find(tablet) {
        tracing::info!("ending mysqld (pid {pid}) of an init that did not finish");
        if kill(Pid::from_raw(pid), Signal::SIGKILL).is_err()
            || wait_until_gone(pid, Duration::from_secs(30)).await.is_err()
        {
            tracing::warn!("could not end pid {pid}");
            return;
        }
    }
    tablet.remove_leftovers();
}

/// The process id of the tablet's mysqld, if one runs.
pub fn find(tablet: &MysqlTablet) -> Option<i32> {
    let ours = format!("--defaults-file={}", tablet.dir.my_cnf().display());
    let by_command_line = fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let arguments = command_line(pid)?;
        (arguments.contains(&ours) && is_server(&arguments) && alive(pid)).then_some(pid)
    });
    // A server that somebody started with another spelling of the path.
    by_command_line.or_else(|| {
        let pid: i32 = fs::read_to_string(&tablet.cnf.pid_file).ok()?.trim().parse().ok()?;
        let arguments = command_line(pid)?;
        let same_file = |argument: &String| {
            argument
                .strip_prefix("--defaults-file=")
                .is_some_and(|path| same_file(Path::new(path), &tablet.dir.my_cnf()))
        };
        (arguments.iter().any(same_file) && is_server(&arguments) && alive(pid)).then_some(pid)
    })
}

fn command_line(pid: i32) -> Option<Vec<String>> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// Not `mysqld_safe`, nor a shell around the server.
fn is_server(arguments: &[String]) -> bool {
    let name = |word: &String| Path::new(word).file_name().map(|name| name.to_string_lossy().into_owned());
    let first_two: Vec<String> = arguments.iter().take(2).filter_map(name).collect();
    let shells = ["sh", "bash", "dash", "mysqlctl"];
    !first_two.first().is_some_and(|program| shells.contains(&program.as_str()))
        && !first_two.iter().any(|word| word.ends_with("_safe"))
}

fn same_file(a: &Path, b: &Path) -> bool {
    match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}

/// Whether a process runs: it exists and is not a zombie that its parent has not collected.
pub fn alive(pid: i32) -> bool {
    // "pid (name) state …"; the name may hold anything.
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit_once(')').map(|(_, rest)| rest.trim_start().to_owned()))
        .is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => match Signal::try_from(signal) {
            Ok(name) => format!("killed by {name}"),
            Err(_) => format!("killed by signal {signal}"),
        },
        (None, None) => status.to_string(),
    }
}

/// Adds what mysqld wrote since `log_start` to an error.
pub(crate) fn with_log(tablet: &MysqlTablet, log_start: u64) -> impl FnOnce(Error) -> Error {
    let path = tablet.cnf.error_log.clone();
    move |cause| Error::WithLog { cause: Box::new(cause), log: LogTail::read(&path, log_start) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn wrappers_are_not_the_server() {
        assert!(is_server(&words("/usr/sbin/mysqld --defaults-file=/x")));
        assert!(is_server(&words("/opt/lib/ld-linux-x86-64.so.2 --argv0 /opt/mysqld --defaults-file=/x")));
        assert!(!is_server(&words("/bin/sh /usr/bin/mysqld_safe --defaults-file=/x")));
        assert!(!is_server(&words("sh /opt/bin/mysqld --defaults-file=/x")));
    }

    #[test]
    fn this_process_is_alive_and_a_collected_one_is_not() {
        assert!(alive(i32::try_from(std::process::id()).unwrap()));
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        assert!(!alive(pid));
    }
}
