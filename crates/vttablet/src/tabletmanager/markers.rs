//! What an operator or a cluster command asked of this tablet and what has to outlive the process.
//!
//! Each marker is an empty file in the tablet directory; a tablet without one (unmanaged MySQL) remembers in memory only.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

/// A request that stays in force until it is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Marker {
    /// Replication was stopped on purpose: do not repair it.
    DoNotReplicate,
    /// This master was told to give up: do not serve or accept writes again.
    DemotedMaster,
    /// An operator wants mysqld to be read-only although the tablet is master.
    ReadOnly,
}

impl Marker {
    fn file_name(self) -> &'static str {
        match self {
            Self::DoNotReplicate => "do_not_replicate",
            Self::DemotedMaster => "demoted_master",
            Self::ReadOnly => "read_only",
        }
    }
}

/// The markers of one tablet.
#[derive(Debug)]
pub struct Markers {
    dir: Option<PathBuf>,
    set: Mutex<BTreeSet<Marker>>,
}

impl Markers {
    /// Reads what an earlier process left in `dir`.
    pub fn load(dir: Option<PathBuf>) -> Self {
        let all = [Marker::DoNotReplicate, Marker::DemotedMaster, Marker::ReadOnly];
        let exists = |marker: &Marker| dir.as_ref().is_some_and(|dir| dir.join(marker.file_name()).exists());
        let set = all.into_iter().filter(exists).collect();
        Self { dir, set: Mutex::new(set) }
    }

    pub fn has(&self, marker: Marker) -> bool {
        self.set.lock().unwrap_or_else(PoisonError::into_inner).contains(&marker)
    }

    /// Sets or removes a marker. It is in force at once; that it could not be written is logged.
    pub fn put(&self, marker: Marker, on: bool) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = if on { set.insert(marker) } else { set.remove(&marker) };
        let Some(dir) = self.dir.as_ref().filter(|_| changed) else { return };
        let path = dir.join(marker.file_name());
        let done = if on { fs::write(&path, "") } else { fs::remove_file(&path) };
        match done {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("{}: {error}: the request will be forgotten at the next start", path.display());
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_outlives_the_process() {
        let dir = std::env::temp_dir().join(format!("markers-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let markers = Markers::load(Some(dir.clone()));
        assert!(!markers.has(Marker::DoNotReplicate));
        markers.put(Marker::DoNotReplicate, true);
        assert!(Markers::load(Some(dir.clone())).has(Marker::DoNotReplicate));
        markers.put(Marker::DoNotReplicate, false);
        assert!(!Markers::load(Some(dir.clone())).has(Marker::DoNotReplicate));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn without_a_directory_it_is_remembered_in_memory() {
        let markers = Markers::load(None);
        markers.put(Marker::DemotedMaster, true);
        assert!(markers.has(Marker::DemotedMaster) && !markers.has(Marker::ReadOnly));
    }
}
