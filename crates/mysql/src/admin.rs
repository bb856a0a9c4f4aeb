//! Replication and administration commands over a connection with enough rights (vt_dba).
//!
//! Each runs the statements that [`crate::Flavor`] has for the server at the other end. They are not atomic: after an
//! error, statements before the failing one have taken effect, and every command here can be repeated.

use std::time::{Duration, Instant};

use vterrors::{Code, VtError};
use vtproto::query::QueryResult;

use crate::client::{ClientError, Connection};
use crate::flavor::Flavor;
use crate::replication::{Position, PositionError, ReplicationSource, SlaveStatus};
use crate::wire;

/// Why an administration command failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// SHOW SLAVE STATUS is empty.
    #[error("no slave status")]
    NotReplica,
    #[error("timed out waiting for position {0}")]
    WaitTimeout(Position),
    /// The SQL thread stands, so waiting is pointless.
    #[error("waiting for position {0} failed: replication is probably stopped")]
    Stopped(Position),
    #[error(transparent)]
    Position(#[from] PositionError),
    #[error("semi-sync plugins are not loaded")]
    NoSemiSync,
    #[error("unexpected answer to {0}")]
    Unexpected(String),
}

impl From<AdminError> for VtError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::Client(error) => error.into(),
            AdminError::WaitTimeout(_) => Self::new(Code::DeadlineExceeded, error.to_string()),
            AdminError::Stopped(_) | AdminError::NoSemiSync => Self::new(Code::FailedPrecondition, error.to_string()),
            AdminError::NotReplica | AdminError::Position(_) | AdminError::Unexpected(_) => {
                Self::new(Code::Unknown, error.to_string())
            }
        }
    }
}

type Result<T, E = AdminError> = std::result::Result<T, E>;

/// Text of one cell; `None` when there is no such cell or it is NULL.
fn cell(result: &QueryResult, row: usize, column: usize) -> Option<String> {
    let cell = wire::cells(result.rows.get(row)?).nth(column)??;
    Some(String::from_utf8_lossy(cell).into_owned())
}

async fn run(conn: &mut Connection, statements: &[String]) -> Result<()> {
    for statement in statements {
        conn.execute(statement).await?;
    }
    Ok(())
}

/// Runs statements that empty the binary logs and set a position. Somebody may write in between, whose transaction is then
/// in the way (MariaDB, whose RESET MASTER holds writers up for a second): they are run again.
async fn set_position(conn: &mut Connection, statements: &[String]) -> Result<()> {
    const POSITION_IN_THE_WAY: u16 = 1948;
    const TRIES: usize = 10;
    for _ in 1..TRIES {
        match run(conn, statements).await {
            Err(AdminError::Client(error)) if error.errno() == POSITION_IN_THE_WAY => {}
            outcome => return outcome,
        }
    }
    run(conn, statements).await
}

async fn run_one(conn: &mut Connection, statement: &str) -> Result<()> {
    conn.execute(statement).await?;
    Ok(())
}

/// Errors: [`AdminError::NotReplica`] when no source is configured.
pub async fn slave_status(conn: &mut Connection) -> Result<SlaveStatus> {
    let flavor = conn.flavor();
    let result = conn.execute(flavor.show_slave_status()).await?;
    SlaveStatus::from_result(flavor, &result)?.ok_or(AdminError::NotReplica)
}

/// What this server has written to its binary log.
pub async fn master_position(conn: &mut Connection) -> Result<Position> {
    let statement = conn.flavor().master_position();
    read_position(conn, statement).await
}

async fn read_position(conn: &mut Connection, statement: &str) -> Result<Position> {
    let result = conn.execute(statement).await?;
    let text = cell(&result, 0, 0).ok_or_else(|| AdminError::Unexpected(statement.into()))?;
    Ok(conn.flavor().parse_position(&text)?)
}

/// Waits until this server has `position` and readers see it: written it itself, or applied it.
pub async fn wait_for_position(conn: &mut Connection, position: &Position, timeout: Duration) -> Result<()> {
    let flavor = conn.flavor();
    if position.is_empty() || read_position(conn, flavor.committed_position()).await?.at_least(position) {
        return Ok(());
    }
    // MariaDB waits for what it replicates, and so for ever for what a master has written.
    if flavor == Flavor::MariaDb && master_position(conn).await?.at_least(position) {
        const STUCK: Duration = Duration::from_secs(1);
        let deadline = Instant::now() + timeout;
        // Commits that hang may keep even the place in the log to themselves.
        let waited = tokio::time::timeout_at((deadline + STUCK).into(), wait_for_commits(conn, deadline)).await;
        let done = waited.unwrap_or(Ok(false))?;
        return if done { Ok(()) } else { Err(AdminError::WaitTimeout(position.clone())) };
    }
    let result = conn.execute(&flavor.wait_for_position(position, timeout)).await?;
    match flavor.wait_succeeded(cell(&result, 0, 0).as_deref()) {
        Some(true) => Ok(()),
        Some(false) => Err(AdminError::WaitTimeout(position.clone())),
        None => Err(AdminError::Stopped(position.clone())),
    }
}

/// Waits until the engine of a MariaDB server has committed all that its binary log holds now: transactions are written
/// there, and `gtid_binlog_pos` moves, before anybody sees their rows. A snapshot says which part of the log it shows; too
/// much of it only in the moment in which the log goes on in another file. False: not in time.
async fn wait_for_commits(conn: &mut Connection, deadline: Instant) -> Result<bool> {
    const SNAPSHOT: &str = "START TRANSACTION WITH CONSISTENT SNAPSHOT; \
                            SHOW SESSION STATUS WHERE variable_name IN ('binlog_snapshot_file', 'binlog_snapshot_position'); \
                            ROLLBACK";
    let statement = conn.flavor().show_master_status();
    let status = conn.execute(statement).await?;
    let written = log_place(cell(&status, 0, 0), cell(&status, 0, 1), statement)?;
    let mut pause = Duration::from_millis(1);
    loop {
        let results = conn.query_multi(SNAPSHOT.as_bytes(), usize::MAX).await?;
        let shown = results.get(1).map(|status| (cell(status, 0, 1), cell(status, 1, 1))).unwrap_or_default();
        if log_place(shown.0, shown.1, SNAPSHOT)? >= written {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// A place in the binary log, by the number of the file and the offset in it.
fn log_place(file: Option<String>, offset: Option<String>, statement: &str) -> Result<(u64, u64)> {
    let number = file.as_deref().and_then(|file| file.rsplit('.').next()).and_then(|number| number.parse().ok());
    let offset = offset.and_then(|offset| offset.parse().ok());
    number.zip(offset).ok_or_else(|| AdminError::Unexpected(statement.into()))
}

/// Stops replication, forgets its source, empties the binary logs and turns semi-sync off.
pub async fn reset_replication(conn: &mut Connection) -> Result<()> {
    let statements = conn.flavor().reset_replication();
    set_position(conn, &statements).await?;
    set_semi_sync(conn, false, false).await
}

/// Sets the position replication will continue from; empties the binary logs. Replication must stand still.
pub async fn set_slave_position(conn: &mut Connection, position: &Position) -> Result<()> {
    let statements = conn.flavor().set_slave_position(position);
    set_position(conn, &statements).await
}

/// CHANGE MASTER, stopping before and starting after as asked. A host of `localhost` becomes `127.0.0.1`
/// ([`crate::replication::replication_host`]).
pub async fn set_master(conn: &mut Connection, source: &ReplicationSource, stop: bool, start: bool) -> Result<()> {
    if stop {
        stop_slave(conn).await?;
    }
    let statement = conn.flavor().change_master(source);
    run_one(conn, &statement).await?;
    if start {
        start_slave(conn).await?;
    }
    Ok(())
}

pub async fn start_slave(conn: &mut Connection) -> Result<()> {
    run_one(conn, conn.flavor().start_slave()).await
}

pub async fn stop_slave(conn: &mut Connection) -> Result<()> {
    run_one(conn, conn.flavor().stop_slave()).await
}

pub async fn stop_io_thread(conn: &mut Connection) -> Result<()> {
    run_one(conn, conn.flavor().stop_io_thread()).await
}

pub async fn start_io_thread(conn: &mut Connection) -> Result<()> {
    run_one(conn, conn.flavor().start_io_thread()).await
}

/// Replicates up to and including `position`, then stops.
pub async fn start_slave_until_after(conn: &mut Connection, position: &Position) -> Result<()> {
    let statement = conn.flavor().start_slave_until_after(position);
    run_one(conn, &statement).await
}

/// STOP, RESET, START SLAVE: the repair of an uninitialised relay log repository.
pub async fn restart_slave(conn: &mut Connection) -> Result<()> {
    let statements = conn.flavor().restart_slave();
    run(conn, &statements).await
}

/// Ends being a replica and starts a new binary log; returns the position then.
pub async fn promote(conn: &mut Connection) -> Result<Position> {
    let statements = conn.flavor().promote();
    run(conn, &statements).await?;
    master_position(conn).await
}

pub async fn is_read_only(conn: &mut Connection) -> Result<bool> {
    let statement = "SELECT @@GLOBAL.read_only";
    let result = conn.execute(statement).await?;
    let value = cell(&result, 0, 0).ok_or_else(|| AdminError::Unexpected(statement.into()))?;
    Ok(!matches!(value.as_str(), "0" | "OFF"))
}

pub async fn set_read_only(conn: &mut Connection, on: bool) -> Result<()> {
    run_one(conn, if on { "SET GLOBAL read_only = ON" } else { "SET GLOBAL read_only = OFF" }).await
}

/// super_read_only. MariaDB has none and answers with errno 1193.
pub async fn set_super_read_only(conn: &mut Connection, on: bool) -> Result<()> {
    run_one(conn, if on { "SET GLOBAL super_read_only = ON" } else { "SET GLOBAL super_read_only = OFF" }).await
}

/// The variables that turn semi-sync on, by the names this server has, with their values: as master, as replica.
/// `None` when the plugins are not loaded.
async fn semi_sync_variables(conn: &mut Connection) -> Result<Option<[(String, bool); 2]>> {
    let result = conn.execute("SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync_%_enabled'").await?;
    let mut found = [None, None];
    for row in 0..result.rows.len() {
        let (Some(name), Some(value)) = (cell(&result, row, 0), cell(&result, row, 1)) else { continue };
        let slot = match name.as_str() {
            "rpl_semi_sync_master_enabled" | "rpl_semi_sync_source_enabled" => 0,
            "rpl_semi_sync_slave_enabled" | "rpl_semi_sync_replica_enabled" => 1,
            _ => continue,
        };
        found[slot] = Some((name, matches!(value.as_str(), "ON" | "1")));
    }
    Ok(match found {
        [Some(master), Some(slave)] => Some([master, slave]),
        _ => None,
    })
}

/// (as master, as replica); both false when the plugins are absent.
pub async fn semi_sync_enabled(conn: &mut Connection) -> Result<(bool, bool)> {
    Ok(semi_sync_variables(conn).await?.map_or((false, false), |[(_, master), (_, slave)]| (master, slave)))
}

/// Turns semi-sync on or off as master and as replica. A running replica acknowledges (or ceases to) only after its
/// IO thread was restarted. No plugin: [`AdminError::NoSemiSync`] if something is to be turned on.
pub async fn set_semi_sync(conn: &mut Connection, master: bool, slave: bool) -> Result<()> {
    match semi_sync_variables(conn).await? {
        Some([(master_name, _), (slave_name, _)]) => {
            let (master, slave) = (u8::from(master), u8::from(slave));
            run_one(conn, &format!("SET GLOBAL {master_name} = {master}, GLOBAL {slave_name} = {slave}")).await
        }
        None if master || slave => Err(AdminError::NoSemiSync),
        None => Ok(()),
    }
}

/// Whether the running replica acknowledges.
pub async fn semi_sync_slave_status(conn: &mut Connection) -> Result<bool> {
    let result = conn.execute("SHOW GLOBAL STATUS LIKE 'rpl_semi_sync_%_status'").await?;
    Ok((0..result.rows.len()).any(|row| {
        let name = cell(&result, row, 0).unwrap_or_default().to_ascii_lowercase();
        matches!(name.as_str(), "rpl_semi_sync_slave_status" | "rpl_semi_sync_replica_status")
            && cell(&result, row, 1).as_deref() == Some("ON")
    }))
}
