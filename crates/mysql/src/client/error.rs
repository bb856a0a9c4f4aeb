//! Why a command of the client failed.

use vterrors::{MysqlError, VtError};

use crate::constants::errno;

/// Either mysqld answered with an error and the connection is still good, or the connection is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// mysqld's own error, or a limit of the caller (errno 10001); the connection can be used again.
    #[error(transparent)]
    Server(MysqlError),
    /// Not connected any more, or never: errno 2002, 2003, 2006, 2013, 2026, 2027 or 2059.
    #[error(transparent)]
    Connection(MysqlError),
}

impl ClientError {
    pub(crate) fn connection(number: u16, message: impl Into<String>) -> Self {
        Self::Connection(MysqlError::new(number, "HY000", message))
    }

    /// Connection lost while a command ran: whether it took effect is not known.
    pub(crate) fn lost(cause: impl std::fmt::Display) -> Self {
        Self::connection(errno::CR_SERVER_LOST, format!("Lost connection to MySQL server during query ({cause})"))
    }

    /// The connection was gone before the command was sent.
    pub(crate) fn gone() -> Self {
        Self::connection(errno::CR_SERVER_GONE, "MySQL server has gone away")
    }

    pub(crate) fn malformed(what: impl std::fmt::Display) -> Self {
        Self::connection(errno::CR_MALFORMED_PACKET, format!("Malformed packet: {what}"))
    }

    /// The error in MySQL's terms.
    pub fn mysql(&self) -> &MysqlError {
        match self {
            Self::Server(error) | Self::Connection(error) => error,
        }
    }

    pub fn errno(&self) -> u16 {
        self.mysql().errno
    }

    /// Whether the connection cannot be used again.
    pub fn is_connection_error(&self) -> bool {
        matches!(self, Self::Connection(_))
    }
}

impl From<ClientError> for MysqlError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Server(error) | ClientError::Connection(error) => error,
        }
    }
}

impl From<ClientError> for VtError {
    fn from(error: ClientError) -> Self {
        MysqlError::from(error).into()
    }
}
