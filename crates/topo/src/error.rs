//! What can go wrong between a caller and the topology server.
//!
//! The texts are part of the interface: operators and scripts read them, and they name the full key
//! including the root of the cell. Callers branch on the variant or on [`TopoError::code`], never on text.

use vterrors::{Code, VtError};

pub type Result<T, E = TopoError> = std::result::Result<T, E>;

/// An error of the topology: of one key, of one call, or of the rules between records.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopoError {
    #[error("node already exists: {path}")]
    NodeExists { path: String },
    #[error("node doesn't exist: {path}")]
    NoNode { path: String },
    #[error("node not empty: {path}")]
    NodeNotEmpty { path: String },
    /// The server did not answer in time or could not be reached.
    #[error("deadline exceeded: {path}")]
    Timeout { path: String },
    /// The call was given up by this side.
    #[error("interrupted: {path}")]
    Interrupted { path: String },
    /// A conditional write found another version than the one that was read.
    #[error("bad node version: {path}")]
    BadVersion { path: String },
    /// Some cells or shards answered, others did not.
    #[error("partial result: {what}")]
    PartialResult { what: String },
    /// An updater found nothing to change; update loops end silently on it.
    #[error("no update needed: {path}")]
    NoUpdateNeeded { path: String },
    #[error("no such topology implementation {name}")]
    NoImplementation { name: String },
    /// A lock that was held is gone: its lease expired or was revoked.
    #[error("lock lost: {path}")]
    LockLost { path: String },
    /// A stored value which is not the record its name promises.
    #[error("cannot decode {path}: {reason}")]
    Corrupt { path: String, reason: String },
    /// A rule between records was broken, or the server answered with something unexpected.
    #[error(transparent)]
    Other(#[from] VtError),
}

impl TopoError {
    /// An error of a rule, without a vtrpc code of its own.
    pub fn other(message: impl Into<String>) -> Self {
        Self::Other(VtError::new(Code::Unknown, message))
    }

    pub fn is_no_node(&self) -> bool {
        matches!(self, Self::NoNode { .. })
    }

    pub fn is_node_exists(&self) -> bool {
        matches!(self, Self::NodeExists { .. })
    }

    pub fn is_bad_version(&self) -> bool {
        matches!(self, Self::BadVersion { .. })
    }

    pub fn is_partial_result(&self) -> bool {
        matches!(self, Self::PartialResult { .. })
    }

    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// The same error said from one level further out: `context: text`.
    #[must_use]
    pub fn wrap(self, context: impl std::fmt::Display) -> Self {
        let code = match &self {
            Self::Other(error) => error.code(),
            _ => Code::Unknown,
        };
        Self::Other(VtError::new(code, format!("{context}: {self}")))
    }

    /// What the caller can do about it.
    pub fn code(&self) -> Code {
        match self {
            Self::NodeExists { .. } => Code::AlreadyExists,
            Self::NoNode { .. } => Code::NotFound,
            Self::NodeNotEmpty { .. } | Self::NoUpdateNeeded { .. } => Code::FailedPrecondition,
            Self::Timeout { .. } => Code::DeadlineExceeded,
            Self::Interrupted { .. } => Code::Canceled,
            Self::BadVersion { .. } | Self::LockLost { .. } => Code::Aborted,
            Self::PartialResult { .. } => Code::Unavailable,
            Self::NoImplementation { .. } => Code::Unimplemented,
            Self::Corrupt { .. } => Code::DataLoss,
            Self::Other(error) => error.code(),
        }
    }
}

impl From<TopoError> for VtError {
    /// On the wire an error of the topology has the code UNKNOWN: that is what existing clients of
    /// vtctld and vtgate see (and errno 1105 at MySQL clients). Only the rules that chose a code keep it.
    fn from(error: TopoError) -> Self {
        match error {
            TopoError::Other(error) => error,
            error => VtError::new(Code::Unknown, error.to_string()),
        }
    }
}
