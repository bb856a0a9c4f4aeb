//! What a cluster command fails with: a text for the operator, and where it came from as far as
//! callers branch on it.

use tabletclient::tm::TmError;
use topo::TopoError;
use vterrors::{Code, VtError};

pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// A failed command, or a failed part of one.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A tablet refused or could not be reached. As the error of a whole command it goes to the
    /// client with the tablet's own status; inside another text it prints with its `rpc error:` prefix.
    #[error(transparent)]
    Tablet(#[from] TmError),
    #[error(transparent)]
    Topo(#[from] TopoError),
    /// A rule of the command itself.
    #[error("{0}")]
    Rule(String),
}

impl Error {
    pub fn rule(message: impl Into<String>) -> Self {
        Self::Rule(message.into())
    }

    /// Whether a record that was asked for does not exist.
    pub fn is_no_node(&self) -> bool {
        matches!(self, Self::Topo(error) if error.is_no_node())
    }

    /// The error as it leaves the process: commands fail with `UNKNOWN`, unless a tablet's own
    /// status is passed on.
    pub fn to_vt_error(&self) -> VtError {
        match self {
            Self::Tablet(error) => VtError::new(error.code, error.message.clone()),
            other => VtError::new(Code::Unknown, other.to_string()),
        }
    }
}

impl From<VtError> for Error {
    fn from(error: VtError) -> Self {
        Self::Rule(error.message().to_owned())
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::Rule(error.to_string())
    }
}

/// Builds an [`Error::Rule`] from a format string.
macro_rules! err {
    ($($arg:tt)*) => { $crate::error::Error::rule(format!($($arg)*)) };
}
/// Returns early with an [`Error::Rule`].
macro_rules! bail {
    ($($arg:tt)*) => { return Err($crate::error::err!($($arg)*)) };
}
pub(crate) use {bail, err};

/// Several failures of parts that ran side by side, joined as users see them: `a;b`. `Ok` when
/// there is none.
pub(crate) fn join_errors(errors: &[String]) -> Result {
    if errors.is_empty() { Ok(()) } else { Err(Error::rule(errors.join(";"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tablets_status_is_passed_on_and_everything_else_is_unknown() {
        let tablet = Error::from(TmError::new(Code::Unavailable, "gone"));
        assert_eq!(tablet.to_vt_error(), VtError::new(Code::Unavailable, "gone"));
        assert_eq!(tablet.to_string(), "rpc error: code = Unavailable desc = gone");
        let topo = Error::from(TopoError::NoNode { path: "/a".into() });
        assert_eq!(topo.to_vt_error(), VtError::new(Code::Unknown, "node doesn't exist: /a"));
    }
}
