//! Replication positions and status.

use std::time::Duration;

/// A replication position: a set of GTIDs in one flavour, or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {}

/// A text that is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("parse error: {0}")]
pub struct PositionError(pub String);

impl Position {
    pub fn is_empty(&self) -> bool {
        unimplemented!()
    }
    /// Whether everything in `other` is also here.
    pub fn at_least(&self, _other: &Position) -> bool {
        unimplemented!()
    }
}

/// `Flavor/set`; empty text is no position.
impl std::str::FromStr for Position {
    type Err = PositionError;
    fn from_str(_text: &str) -> Result<Self, PositionError> {
        unimplemented!()
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, _f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        unimplemented!()
    }
}

/// Where a replica reads from.
#[derive(Debug, Clone)]
pub struct ReplicationSource {
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    /// Seconds between attempts.
    pub connect_retry: Duration,
    pub ssl: bool,
}

/// What SHOW SLAVE STATUS says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlaveStatus {
    pub position: Position,
    pub io_running: bool,
    pub sql_running: bool,
    pub seconds_behind_master: Option<u32>,
    pub master_host: String,
    pub master_port: u16,
    pub connect_retry: u32,
    pub last_io_error: String,
    pub last_sql_error: String,
}

impl SlaveStatus {
    /// Both threads run.
    pub fn running(&self) -> bool {
        self.io_running && self.sql_running
    }
}

impl From<&SlaveStatus> for vtproto::replicationdata::Status {
    fn from(_status: &SlaveStatus) -> Self {
        unimplemented!()
    }
}
