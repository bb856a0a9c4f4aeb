//! What can go wrong with mysqld as a process. Every text names the cause and, where there is one, the way out.

use std::{fmt, io, path::PathBuf};

use crate::error_log::LogTail;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of the tablet could not be made, read or removed.
    #[error("{action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    /// No server binary, or one that does not run.
    #[error("{0}")]
    Installation(String),
    /// An environment variable or argument that makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The tablet directory is not in the state the action needs.
    #[error("{0}")]
    State(String),
    #[error("port {port} is already in use{}", held_by(holder))]
    PortTaken { port: u16, holder: Option<String> },
    #[error("only {free_mb} MB are free on the file system of {}; a new data directory needs {needed_mb} MB", path.display())]
    NoSpace { path: PathBuf, free_mb: u64, needed_mb: u64 },
    /// A program ended with a failure of its own.
    #[error("{program} failed ({status}){}", output_lines(output))]
    Program { program: String, status: String, output: String },
    #[error("mysqld ended during start ({status})")]
    Died { status: String },
    #[error("mysqld does not answer on {} after {waited_seconds} s: {last}", socket.display())]
    NoAnswer { socket: PathBuf, waited_seconds: u64, last: String },
    #[error("mysqld (pid {pid}) is still running {waited_seconds} s after it was asked to stop")]
    StillRunning { pid: i32, waited_seconds: u64 },
    /// A statement of an init file was refused.
    #[error("{file}, line {line}: {error}\nthe statement was: {statement}")]
    Statement { file: String, line: usize, statement: String, error: String },
    /// mysqld answered with an error to something of our own.
    #[error("{action}: {error}")]
    Server { action: &'static str, error: String },
    #[error("hook {name} failed with exit status {status}{}", output_lines(output))]
    Hook { name: String, status: i32, output: String },
    /// A failure together with what mysqld wrote about it.
    #[error("{cause}{log}")]
    WithLog { cause: Box<Error>, log: LogTail },
}

impl Error {
    pub fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

fn held_by(holder: &Option<String>) -> impl fmt::Display {
    match holder {
        Some(holder) => format!(" by {holder}"),
        None => String::new(),
    }
}

fn output_lines(output: &str) -> String {
    let output = output.trim_end();
    if output.is_empty() { String::new() } else { format!(":\n{output}") }
}
