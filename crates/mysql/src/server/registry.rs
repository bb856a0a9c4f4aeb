//! The open connections of a server.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vterrors::MysqlError;

use crate::constants::errno;

/// What others may see and do of a connection.
#[derive(Debug)]
pub(super) struct Entry {
    pub id: u32,
    user: Mutex<String>,
    /// Cancelled: the connection has to end.
    pub close: CancellationToken,
    /// Cancelled: the running command has to end. Replaced afterwards.
    command: Mutex<CancellationToken>,
    /// Waiting for a command with no transaction open: nothing is lost by closing.
    idle: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Entry {
    pub fn set_user(&self, user: &str) {
        user.clone_into(&mut lock(&self.user));
    }

    /// The token of the command that begins now.
    pub fn command_token(&self) -> CancellationToken {
        let mut token = lock(&self.command);
        if token.is_cancelled() && !self.close.is_cancelled() {
            *token = CancellationToken::new();
        }
        token.clone()
    }

    pub fn set_idle(&self, idle: bool) {
        self.idle.store(idle, Ordering::SeqCst);
    }

    fn kill(&self, query_only: bool) {
        if !query_only {
            self.close.cancel();
        }
        lock(&self.command).cancel();
    }
}

/// What came of a request to kill.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Killed {
    Done,
    NoSuchConnection,
    NotOwner,
}

impl Killed {
    /// MySQL's answer to KILL.
    pub fn into_result(self, id: u64) -> Result<(), MysqlError> {
        match self {
            Self::Done => Ok(()),
            Self::NoSuchConnection => {
                Err(MysqlError::new(errno::NO_SUCH_THREAD, "HY000", format!("Unknown thread id: {id}")))
            }
            Self::NotOwner => {
                Err(MysqlError::new(errno::KILL_DENIED, "HY000", format!("You are not owner of thread {id}")))
            }
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Registry {
    entries: Mutex<HashMap<u32, Arc<Entry>>>,
    last_id: AtomicU32,
    draining: AtomicBool,
    removed: Notify,
}

/// A registered connection; dropping it takes it off the list.
#[derive(Debug)]
pub(super) struct Registered {
    registry: Arc<Registry>,
    pub entry: Arc<Entry>,
}

impl Registry {
    /// `None` when `max` connections (0: any number) are open already.
    pub fn register(self: &Arc<Self>, max: usize) -> Option<Registered> {
        let mut entries = lock(&self.entries);
        if max != 0 && entries.len() >= max {
            return None;
        }
        // Ids wrap after four billion connections; one still in use is skipped, as is 0.
        let id = loop {
            let id = self.last_id.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            if id != 0 && !entries.contains_key(&id) {
                break id;
            }
        };
        let entry = Arc::new(Entry {
            id,
            user: Mutex::default(),
            close: CancellationToken::new(),
            command: Mutex::default(),
            idle: AtomicBool::new(false),
        });
        entries.insert(id, entry.clone());
        Some(Registered { registry: self.clone(), entry })
    }

    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// `by`: the user who asks, who may kill only their own; `None` for the program itself.
    pub fn kill(&self, id: u32, query_only: bool, by: Option<&str>) -> Killed {
        let Some(entry) = lock(&self.entries).get(&id).cloned() else { return Killed::NoSuchConnection };
        if by.is_some_and(|user| *lock(&entry.user) != user) {
            return Killed::NotOwner;
        }
        entry.kill(query_only);
        Killed::Done
    }

    /// Whether connections should end as soon as they can.
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Asks every connection to end when it is idle. A connection looks at `draining` after it has become idle, and
    /// this looks at `idle` after it has set `draining`: none is missed.
    pub fn start_draining(&self) {
        self.draining.store(true, Ordering::SeqCst);
        for entry in lock(&self.entries).values() {
            if entry.idle.load(Ordering::SeqCst) {
                entry.close.cancel();
            }
        }
    }

    pub fn kill_all(&self) {
        for entry in lock(&self.entries).values() {
            entry.kill(false);
        }
    }

    /// Returns when no connection is left.
    pub async fn empty(&self) {
        loop {
            let removed = self.removed.notified();
            tokio::pin!(removed);
            removed.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            removed.await;
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        lock(&self.registry.entries).remove(&self.entry.id);
        self.registry.removed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_the_bound_holds() {
        let registry = Arc::new(Registry::default());
        let first = registry.register(2).expect("room");
        let second = registry.register(2).expect("room");
        assert_ne!(first.entry.id, second.entry.id);
        assert!(registry.register(2).is_none());
        drop(first);
        let third = registry.register(2).expect("room again");
        assert_ne!(third.entry.id, second.entry.id);
        registry.last_id.store(third.entry.id - 1, Ordering::Relaxed);
        let fourth = registry.register(0).expect("no bound");
        assert!(fourth.entry.id != third.entry.id && fourth.entry.id != second.entry.id);
    }

    #[test]
    fn only_the_owner_kills() {
        let registry = Arc::new(Registry::default());
        let registered = registry.register(0).expect("room");
        let entry = &registered.entry;
        entry.set_user("a");
        assert_eq!(registry.kill(entry.id, true, Some("b")), Killed::NotOwner);
        assert_eq!(registry.kill(entry.id + 1, true, Some("a")), Killed::NoSuchConnection);
        let token = entry.command_token();
        assert_eq!(registry.kill(entry.id, true, Some("a")), Killed::Done);
        assert!(token.is_cancelled() && !entry.close.is_cancelled());
        assert!(!entry.command_token().is_cancelled(), "the next command runs");
        assert_eq!(registry.kill(entry.id, false, None), Killed::Done);
        assert!(entry.close.is_cancelled() && entry.command_token().is_cancelled());
    }

    #[test]
    fn draining_closes_what_is_idle() {
        let registry = Arc::new(Registry::default());
        let (idle, busy) = (registry.register(0).expect("room"), registry.register(0).expect("room"));
        idle.entry.set_idle(true);
        registry.start_draining();
        assert!(idle.entry.close.is_cancelled() && !busy.entry.close.is_cancelled());
        registry.kill_all();
        assert!(busy.entry.close.is_cancelled());
    }
}
