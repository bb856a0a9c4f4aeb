//! Why a binlog cannot be read on.

use vterrors::{Code, VtError};

use crate::client::ClientError;
use crate::packet::WireError;

#[derive(Debug, thiserror::Error)]
pub enum BinlogError {
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The server closed the stream.
    #[error("unexpected server EOF")]
    Ended,
    #[error("nothing came from mysqld for {0} seconds, not even a heartbeat")]
    Silent(u64),
    #[error("binlog event {event}: {what}")]
    Malformed { event: &'static str, what: String },
    #[error("binlog event at {position}: checksum is wrong")]
    Checksum { position: u32 },
    /// Something correct that is not supported; the text says what to do about it.
    #[error("{0}")]
    Unsupported(String),
}

impl BinlogError {
    pub(super) fn malformed(event: &'static str, what: impl std::fmt::Display) -> Self {
        Self::Malformed { event, what: what.to_string() }
    }

    pub fn code(&self) -> Code {
        match self {
            Self::Client(error) => VtError::from(error.clone()).code(),
            Self::Ended | Self::Silent(_) => Code::Unavailable,
            Self::Malformed { .. } | Self::Checksum { .. } => Code::DataLoss,
            Self::Unsupported(_) => Code::FailedPrecondition,
        }
    }
}

impl From<BinlogError> for VtError {
    fn from(error: BinlogError) -> Self {
        match error {
            BinlogError::Client(error) => error.into(),
            error => Self::new(error.code(), error.to_string()),
        }
    }
}

/// Names the event in a fault of its bytes.
pub(super) fn within(event: &'static str) -> impl Fn(WireError) -> BinlogError {
    move |error| BinlogError::malformed(event, error)
}
