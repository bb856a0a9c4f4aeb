//! Why vtctld does not start, or stopped.

/// An error of the program as a whole. Errors of commands go to who ran them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Settings(#[from] wrangler::Error),
    #[error(transparent)]
    Server(#[from] servenv::Error),
    #[error("-{flag}: {problem}")]
    Flag { flag: &'static str, problem: String },
}
