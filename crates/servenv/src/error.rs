//! What can go wrong before a server serves. Every text names the flag to change.

use std::path::PathBuf;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("-{flag}: cannot listen on {address}: {source}")]
    Listen { flag: &'static str, address: String, source: std::io::Error },
    #[error("-{flag}: {problem}")]
    Flag { flag: String, problem: String },
    #[error("-{flag}: cannot read {}: {source}", path.display())]
    Read { flag: String, path: PathBuf, source: std::io::Error },
    #[error("-{flag}: cannot write {}: {source}", path.display())]
    Write { flag: &'static str, path: PathBuf, source: std::io::Error },
    #[error("TLS of gRPC: {0}")]
    Tls(String),
    #[error("gRPC server ended: {0}")]
    Grpc(String),
    #[error("HTTP server ended: {0}")]
    Http(String),
}

/// Returned to [`crate::main`] by a program that has already told its user what went wrong: the exit
/// code is 1 and nothing more is printed.
#[derive(Debug, thiserror::Error)]
#[error("the error was reported")]
pub struct Reported;
