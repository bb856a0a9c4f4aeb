//! Replication and administration commands over a connection with enough rights (vt_dba).

use std::time::Duration;

use crate::client::{ClientError, Connection};
use crate::replication::{Position, PositionError, ReplicationSource, SlaveStatus};

/// Why an administration command failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// SHOW SLAVE STATUS is empty.
    #[error("no slave status")]
    NotReplica,
    #[error("timed out waiting for position {0}")]
    WaitTimeout(String),
    #[error(transparent)]
    Position(#[from] PositionError),
    #[error("{0}")]
    Unexpected(String),
}

impl From<AdminError> for vterrors::VtError {
    fn from(_error: AdminError) -> Self {
        unimplemented!()
    }
}

type Result<T, E = AdminError> = std::result::Result<T, E>;

pub async fn slave_status(_conn: &mut Connection) -> Result<SlaveStatus> {
    unimplemented!()
}
pub async fn master_position(_conn: &mut Connection) -> Result<Position> {
    unimplemented!()
}
/// Waits until the SQL thread has applied `position`.
pub async fn wait_for_position(_conn: &mut Connection, _position: &Position, _timeout: Duration) -> Result<()> {
    unimplemented!()
}
/// Stops replication, forgets its source, empties the binary logs and turns semi-sync off.
pub async fn reset_replication(_conn: &mut Connection) -> Result<()> {
    unimplemented!()
}
/// Sets the position replication will continue from; empties the binary logs.
pub async fn set_slave_position(_conn: &mut Connection, _position: &Position) -> Result<()> {
    unimplemented!()
}
/// CHANGE MASTER, stopping before and starting after as asked.
pub async fn set_master(_conn: &mut Connection, _source: &ReplicationSource, _stop: bool, _start: bool) -> Result<()> {
    unimplemented!()
}
pub async fn start_slave(_conn: &mut Connection) -> Result<()> {
    unimplemented!()
}
pub async fn stop_slave(_conn: &mut Connection) -> Result<()> {
    unimplemented!()
}
pub async fn stop_io_thread(_conn: &mut Connection) -> Result<()> {
    unimplemented!()
}
pub async fn start_slave_until_after(_conn: &mut Connection, _position: &Position) -> Result<()> {
    unimplemented!()
}
/// STOP, RESET, START SLAVE: the repair of an uninitialised relay log repository.
pub async fn restart_slave(_conn: &mut Connection) -> Result<()> {
    unimplemented!()
}
/// Ends being a replica and starts a new binary log; returns the position then.
pub async fn promote(_conn: &mut Connection) -> Result<Position> {
    unimplemented!()
}
pub async fn is_read_only(_conn: &mut Connection) -> Result<bool> {
    unimplemented!()
}
pub async fn set_read_only(_conn: &mut Connection, _on: bool) -> Result<()> {
    unimplemented!()
}
/// super_read_only; MariaDB has none and answers with an error.
pub async fn set_super_read_only(_conn: &mut Connection, _on: bool) -> Result<()> {
    unimplemented!()
}
/// (as master, as replica); both false when the plugins are absent.
pub async fn semi_sync_enabled(_conn: &mut Connection) -> Result<(bool, bool)> {
    unimplemented!()
}
/// Turns semi-sync on or off as master and as replica. No plugin: an error only if something is to be turned on.
pub async fn set_semi_sync(_conn: &mut Connection, _master: bool, _slave: bool) -> Result<()> {
    unimplemented!()
}
/// Whether the running replica acknowledges (Rpl_semi_sync_slave_status).
pub async fn semi_sync_slave_status(_conn: &mut Connection) -> Result<bool> {
    unimplemented!()
}
