//! The signals and the pid file of a process.

use std::path::{Path, PathBuf};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Resolves at the first SIGTERM or SIGINT. A second one ends the process at once, for operators
/// who do not want to wait.
pub async fn terminated() {
    let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
        tracing::error!("cannot listen to signals: the process ends without a graceful stop");
        return std::future::pending().await;
    };
    let name = next(&mut term, &mut int).await;
    tracing::info!("{name} received, shutting down");
    tokio::spawn(async move {
        let name = next(&mut term, &mut int).await;
        tracing::warn!("second {name} received, ending at once");
        crate::logging::flush();
        std::process::exit(1);
    });
}

async fn next(term: &mut Signal, int: &mut Signal) -> &'static str {
    tokio::select! {
        _ = term.recv() => "SIGTERM",
        _ = int.recv() => "SIGINT",
    }
}

/// SIGHUPs, at which files of users and passwords are read again.
///
/// # Errors
/// The signal handler could not be installed.
pub fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// `-pid_file`: holds the process id while the value lives.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    /// Writes the file, and makes its directory; nothing for an empty path. A server that cannot write it is no worse
    /// server: that is logged, and there is no file.
    pub fn write(path: &str) -> Option<Self> {
        if path.is_empty() {
            return None;
        }
        let path = PathBuf::from(path);
        let written = match path.parent() {
            Some(dir) => std::fs::create_dir_all(dir),
            None => Ok(()),
        }
        .and_then(|()| std::fs::write(&path, format!("{}\n", std::process::id())));
        match written {
            Ok(()) => Some(Self { path }),
            Err(error) => {
                tracing::error!("Unable to create pid file '{}': {error}", path.display());
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A process that took our place wrote its own id: then the file is not ours any more.
        let ours = std::fs::read_to_string(&self.path).is_ok_and(|pid| pid.trim() == std::process::id().to_string());
        if ours && let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_goes_with_its_owner_unless_another_took_it() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("not there yet/vtgate.pid");
        let file = PidFile::write(path.to_str().expect("UTF-8")).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());

        let file = PidFile::write(path.to_str().expect("UTF-8")).expect("written");
        std::fs::write(&path, "1\n").expect("taken over");
        drop(file);
        assert!(path.exists());
        assert!(PidFile::write("/dev/null/pid").is_none());
    }
}
