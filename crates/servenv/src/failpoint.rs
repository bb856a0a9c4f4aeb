//! Places, by name, where a test makes a process fail.
//!
//! A long operation calls [`Failpoints::hit`] between its steps. In programs that were built without
//! debug assertions (release builds) nothing can be set and the call does nothing. In others the variable
//! `VT_FAILPOINTS` says what happens where: `name=kill` ends the process as `kill -9` does, `name=error`
//! fails the operation there, `name=hold:PATH` waits there while the file PATH exists, and makes `PATH.reached`,
//! so that a test can do harm to others until it removes PATH. Several are separated by commas: `cutover.fenced=kill,other=error`.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use nix::sys::signal::Signal;

/// The variable that [`Failpoints::from_env`] reads.
pub const VARIABLE: &str = "VT_FAILPOINTS";

/// What happens at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// The process ends at once: nothing is undone, flushed or unlocked.
    Kill,
    /// The operation fails as it would by an error of its own.
    Error,
    /// The operation stops there and leaves everything as it is, as if its process had ended.
    Crash,
    /// The operation waits there for as long as this file exists: time to break something else.
    Hold(PathBuf),
}

/// How often it is looked whether a file is gone.
const POLL: Duration = Duration::from_millis(20);

/// What an operation that was hit has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hit {
    /// Fail, with all that belongs to failing.
    Error,
    /// Return without undoing anything.
    Crash,
}

/// Which places are set. Cheap to clone; nothing is set by default.
#[derive(Debug, Clone, Default)]
pub struct Failpoints(Arc<BTreeMap<String, Action>>);

impl Failpoints {
    /// What the environment asks for; nothing in release builds.
    pub fn from_env() -> Self {
        if !cfg!(debug_assertions) {
            return Self::default();
        }
        Self::parse(&std::env::var(VARIABLE).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut points = BTreeMap::new();
        for pair in text.split(',').filter(|pair| !pair.is_empty()) {
            let action = match pair.split_once('=') {
                Some((_, "kill")) => Action::Kill,
                Some((_, "error")) => Action::Error,
                Some((_, other)) if other.starts_with("hold:") => Action::Hold(other["hold:".len()..].into()),
                _ => {
                    tracing::error!(pair, "{VARIABLE}: expected <name>=kill, =error or =hold:<path>");
                    continue;
                }
            };
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            tracing::warn!(name, ?action, "a fail point is set");
            points.insert(name.to_owned(), action);
        }
        Self(Arc::new(points))
    }

    /// Whether no place is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One place, for tests within a process.
    pub fn at(name: &str, action: Action) -> Self {
        Self(Arc::new(BTreeMap::from([(name.to_owned(), action)])))
    }

    /// Passes a place.
    ///
    /// # Errors
    /// When a test wants the operation to end here.
    pub fn hit(&self, name: &str) -> Result<(), Hit> {
        match self.0.get(name) {
            None => Ok(()),
            Some(Action::Error) => Err(Hit::Error),
            Some(Action::Crash) => Err(Hit::Crash),
            Some(Action::Kill) => {
                // As from outside: no destructor runs, no lock is given back.
                let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), Signal::SIGKILL);
                Err(Hit::Crash)
            }
            Some(Action::Hold(path)) => {
                while path.exists() {
                    let mut reached = path.clone().into_os_string();
                    reached.push(".reached");
                    if let Err(error) = std::fs::write(&reached, name) {
                        tracing::error!(%error, "{VARIABLE}: {} cannot be made", reached.display());
                    }
                    std::thread::sleep(POLL);
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_in_a_list() {
        let points = Failpoints::parse("a=error,nonsense,b=explode,c=error");
        assert_eq!(points.hit("a"), Err(Hit::Error));
        assert_eq!(points.hit("b"), Ok(()));
        assert_eq!(points.hit("c"), Err(Hit::Error));
        assert_eq!(Failpoints::parse("d=hold:/x").0["d"], Action::Hold("/x".into()));
        assert_eq!(Failpoints::default().hit("a"), Ok(()));
        assert_eq!(Failpoints::at("x", Action::Crash).hit("x"), Err(Hit::Crash));
    }
}
