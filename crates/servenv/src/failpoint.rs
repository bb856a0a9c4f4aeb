//! Places, by name, where a test makes a process fail.
//!
//! A long operation calls [`Failpoints::hit`] between its steps. In programs that were built without
//! debug assertions (release builds) nothing can be set and the call does nothing. In others the variable
//! `VT_FAILPOINTS` says what happens where: `name=kill` ends the process as `kill -9` does, `name=error`
//! fails the operation there. Several are separated by commas: `cutover.fenced=kill,other=error`.

use std::{collections::BTreeMap, sync::Arc};

/// The variable that [`Failpoints::from_env`] reads.
pub const VARIABLE: &str = "VT_FAILPOINTS";

/// What happens at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The process ends at once: nothing is undone, flushed or unlocked.
    Kill,
    /// The operation fails as it would by an error of its own.
    Error,
    /// The operation stops there and leaves everything as it is, as if its process had ended.
    Crash,
}

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
                _ => {
                    tracing::error!(pair, "{VARIABLE}: expected <name>=kill or <name>=error");
                    continue;
                }
            };
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            tracing::warn!(name, ?action, "a fail point is set");
            points.insert(name.to_owned(), action);
        }
        Self(Arc::new(points))
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
                let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
                Err(Hit::Crash)
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
        assert_eq!(Failpoints::default().hit("a"), Ok(()));
        assert_eq!(Failpoints::at("x", Action::Crash).hit("x"), Err(Hit::Crash));
    }
}
