//! A topology in the memory of this process, for tests.
//!
//! Same semantics as the etcd backend, over one ordered map of full keys with one revision counter.
//! A test can make it unavailable, let leases expire as if the server had lost their owners, or have single
//! updates fail or be answered late.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use vtproto::topodata::CellInfo;

use crate::{
    conn::{Conn, DirEntry, LeasedKey, LockDescriptor, MasterParticipation, Version, WatchData, WatchStream},
    error::{Result, TopoError},
    paths::{self, LOCKS_DIR, join},
    record::{self, UnknownFields},
    server::{Factory, GLOBAL_CELL, TopoOptions, TopoServer},
};

/// Changes a watcher may be behind before its sender waits.
const WATCH_QUEUE: usize = 16;

/// The keys of all cells. Cheap to clone.
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Shared>,
}

/// What becomes of one update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateFault {
    /// It is not written and fails with `Timeout`.
    Unwritten,
    /// It is written, but the answer is lost: `Timeout`.
    Unanswered,
    /// The same, and the next read of the key fails too: nobody can tell what became of it.
    Unknown,
    /// It is written at once and answered after a time.
    Late(Duration),
}

/// Asked before each update of a key (in full) what becomes of it; `None`: nothing special.
type Faults = Arc<dyn Fn(&str, &Bytes) -> Option<UpdateFault> + Send + Sync>;

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Told after each change; the value does not matter.
    changed: watch::Sender<i64>,
}

#[derive(Default)]
struct State {
    revision: i64,
    next_lease: i64,
    nodes: BTreeMap<String, Node>,
    watchers: Vec<Watcher>,
    unavailable: bool,
    faults: Option<Faults>,
    /// A key of which the next read fails.
    unreadable: Option<String>,
}

struct Node {
    contents: Bytes,
    /// Revision of the write that made the present value.
    revision: i64,
    lease: Option<i64>,
}

struct Watcher {
    key: String,
    /// Unbounded, as a change must not wait for a reader; this backend lives in tests only.
    changes: mpsc::UnboundedSender<Result<WatchData>>,
}

impl State {
    fn put(&mut self, key: &str, contents: Bytes, lease: Option<i64>) -> Version {
        self.revision += 1;
        let version = Version(self.revision);
        let data = WatchData { contents: contents.clone(), version };
        self.nodes.insert(key.to_owned(), Node { contents, revision: self.revision, lease });
        self.watchers.retain(|watcher| watcher.key != key || watcher.changes.send(Ok(data.clone())).is_ok());
        version
    }

    fn remove(&mut self, key: &str) -> bool {
        if self.nodes.remove(key).is_none() {
            return false;
        }
        self.revision += 1;
        self.watchers.retain(|watcher| {
            if watcher.key == key {
                // A deletion ends the watch.
                let _ = watcher.changes.send(Err(TopoError::NoNode { path: key.to_owned() }));
            }
            watcher.key != key
        });
        true
    }

    fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Node)> {
        let from = (Bound::Included(prefix.to_owned()), Bound::Unbounded);
        self.nodes.range(from).take_while(move |(key, _)| key.starts_with(prefix))
    }
}

impl MemoryStore {
    pub fn new() -> Self {
        Self::default()
    }

    /// A topology with a CellInfo for each cell. Several may share one store, like several processes.
    pub fn server(&self, cells: &[&str]) -> TopoServer {
        self.server_with(cells, TopoOptions::default())
    }

    /// The same with options, of which only the timeout of locks matters here.
    pub fn server_with(&self, cells: &[&str], options: TopoOptions) -> TopoServer {
        let global_root = "/vitess/global";
        {
            let mut state = self.lock();
            for cell in cells {
                let info = CellInfo { server_address: "memory".into(), root: format!("/vitess/{cell}") };
                let contents = record::encode(&info, &UnknownFields::default());
                let key = join(global_root, &paths::cell_info_path(cell));
                if !state.nodes.contains_key(&key) {
                    state.put(&key, contents, None);
                }
            }
        }
        let global = Arc::new(MemoryConn { store: self.clone(), root: global_root.to_owned() });
        TopoServer::with_factory(Box::new(MemoryFactory { store: self.clone() }), global, options)
    }

    /// While unavailable, every call fails with `Timeout` and watches are silent.
    pub fn set_unavailable(&self, unavailable: bool) {
        self.lock().unavailable = unavailable;
    }

    /// Asks before each update what becomes of it: by the full key and what is to be written.
    pub fn set_update_faults(&self, faults: impl Fn(&str, &Bytes) -> Option<UpdateFault> + Send + Sync + 'static) {
        self.lock().faults = Some(Arc::new(faults));
    }

    /// Lets every lock and election be lost, as if their leases had expired.
    pub fn expire_leases(&self) {
        let mut state = self.lock();
        let leased: Vec<String> =
            state.nodes.iter().filter(|(_, node)| node.lease.is_some()).map(|(key, _)| key.clone()).collect();
        for key in leased {
            state.remove(&key);
        }
        drop(state);
        self.announce();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        self.shared.changed.send_modify(|revision| *revision += 1);
    }
}

struct MemoryFactory {
    store: MemoryStore,
}

#[async_trait]
impl Factory for MemoryFactory {
    async fn create(&self, cell: &str, _server_address: &str, root: &str) -> Result<Arc<dyn Conn>> {
        debug_assert_ne!(cell, GLOBAL_CELL, "the global connection is made by the store");
        Ok(Arc::new(MemoryConn { store: self.store.clone(), root: root.to_owned() }))
    }
}

struct MemoryConn {
    store: MemoryStore,
    root: String,
}

impl MemoryConn {
    fn available(&self, key: &str) -> Result<MutexGuard<'_, State>> {
        let state = self.store.lock();
        if state.unavailable {
            return Err(TopoError::Timeout { path: key.to_owned() });
        }
        Ok(state)
    }

    fn write(&self, key: &str, contents: Bytes, version: Option<Version>) -> Result<Version> {
        let mut state = self.available(key)?;
        if version.is_some_and(|version| state.nodes.get(key).is_none_or(|node| node.revision != version.0)) {
            return Err(TopoError::BadVersion { path: key.to_owned() });
        }
        let version = state.put(key, contents, None);
        drop(state);
        self.store.announce();
        Ok(version)
    }
}

#[async_trait]
impl Conn for MemoryConn {
    async fn list_dir(&self, dir: &str, full: bool) -> Result<Vec<DirEntry>> {
        let prefix = paths::dir_prefix(&self.full_path(dir));
        let state = self.available(&prefix)?;
        let keys = state.under(&prefix).map(|(key, node)| (key, node.lease.is_some()));
        let entries = paths::entries_under(&prefix, keys, full);
        if entries.is_empty() {
            return Err(TopoError::NoNode { path: prefix });
        }
        Ok(entries)
    }

    async fn create(&self, path: &str, contents: Bytes) -> Result<Version> {
        let key = self.full_path(path);
        let mut state = self.available(&key)?;
        if state.nodes.contains_key(&key) {
            return Err(TopoError::NodeExists { path: key });
        }
        let version = state.put(&key, contents, None);
        drop(state);
        self.store.announce();
        Ok(version)
    }

    async fn update(&self, path: &str, contents: Bytes, version: Option<Version>) -> Result<Version> {
        let key = self.full_path(path);
        let faults = self.store.lock().faults.clone();
        let fault = faults.and_then(|faults| faults(&key, &contents));
        if fault == Some(UpdateFault::Unwritten) {
            return Err(TopoError::Timeout { path: key });
        }
        let written = self.write(&key, contents, version)?;
        match fault {
            Some(UpdateFault::Unanswered) => return Err(TopoError::Timeout { path: key }),
            Some(UpdateFault::Unknown) => {
                self.store.lock().unreadable = Some(key.clone());
                return Err(TopoError::Timeout { path: key });
            }
            Some(UpdateFault::Late(time)) => tokio::time::sleep(time).await,
            _ => {}
        }
        Ok(written)
    }

    async fn get(&self, path: &str) -> Result<(Bytes, Version)> {
        let key = self.full_path(path);
        let mut state = self.available(&key)?;
        if state.unreadable.take_if(|unreadable| *unreadable == key).is_some() {
            return Err(TopoError::Timeout { path: key });
        }
        match state.nodes.get(&key) {
            Some(node) => Ok((node.contents.clone(), Version(node.revision))),
            None => Err(TopoError::NoNode { path: key }),
        }
    }

    async fn delete(&self, path: &str, version: Option<Version>) -> Result<()> {
        let key = self.full_path(path);
        let mut state = self.available(&key)?;
        match state.nodes.get(&key) {
            None => return Err(TopoError::NoNode { path: key }),
            Some(node) if version.is_some_and(|version| node.revision != version.0) => {
                return Err(TopoError::BadVersion { path: key });
            }
            Some(_) => state.remove(&key),
        };
        drop(state);
        self.store.announce();
        Ok(())
    }

    async fn lock(&self, dir: &str, contents: &str, timeout: Duration) -> Result<Box<dyn LockDescriptor>> {
        self.list_dir(dir, false).await?;
        let dir = self.full_path(dir);
        let queued = Queued::join(&self.store, &dir, contents);
        match tokio::time::timeout(timeout, queued.owned()).await {
            Ok(Ok(())) => Ok(Box::new(MemoryLock { queued })),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(TopoError::Timeout { path: dir }),
        }
    }

    async fn watch(&self, path: &str) -> Result<(WatchData, WatchStream)> {
        let key = self.full_path(path);
        let mut state = self.available(&key)?;
        let Some(node) = state.nodes.get(&key) else { return Err(TopoError::NoNode { path: key }) };
        let current = WatchData { contents: node.contents.clone(), version: Version(node.revision) };
        let (changes, mut changed) = mpsc::unbounded_channel();
        state.watchers.push(Watcher { key, changes });
        drop(state);
        let (forward, forwarded) = mpsc::channel(WATCH_QUEUE);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tokio::spawn(async move {
            let pump = async {
                while let Some(change) = changed.recv().await {
                    if forward.send(change).await.is_err() {
                        break;
                    }
                }
            };
            stopped.run_until_cancelled(pump).await;
        });
        Ok((current, WatchStream::new(forwarded, stop)))
    }

    fn leased_key(&self, path: &str) -> Box<dyn LeasedKey> {
        Box::new(MemoryLeasedKey { store: self.store.clone(), key: self.full_path(path) })
    }

    fn new_master_participation(&self, name: &str, id: &str) -> Arc<dyn MasterParticipation> {
        Arc::new(MemoryParticipation {
            store: self.store.clone(),
            dir: self.full_path(&paths::election_dir(name)),
            id: id.to_owned(),
            stop: CancellationToken::new(),
        })
    }

    fn full_path(&self, path: &str) -> String {
        join(&self.root, path)
    }
}

/// A place in the queue for a lock; leaving it when dropped.
struct Queued {
    store: MemoryStore,
    prefix: String,
    key: String,
    revision: i64,
}

impl Queued {
    fn join(store: &MemoryStore, dir: &str, contents: &str) -> Self {
        let mut state = store.lock();
        state.next_lease += 1;
        let lease = state.next_lease;
        let prefix = format!("{dir}/{LOCKS_DIR}/");
        let key = format!("{prefix}{lease}");
        let revision = state.put(&key, contents.as_bytes().to_vec().into(), Some(lease)).0;
        drop(state);
        store.announce();
        Self { store: store.clone(), prefix, key, revision }
    }

    fn is_held(&self) -> bool {
        self.store.lock().nodes.contains_key(&self.key)
    }

    /// Waits until no earlier place is taken.
    async fn owned(&self) -> Result<()> {
        let mut changed = self.store.shared.changed.subscribe();
        loop {
            changed.borrow_and_update();
            {
                let state = self.store.lock();
                if !state.nodes.contains_key(&self.key) {
                    return Err(TopoError::LockLost { path: self.key.clone() });
                }
                let first = state.under(&self.prefix).all(|(_, node)| node.revision >= self.revision);
                if first {
                    return Ok(());
                }
            }
            if changed.changed().await.is_err() {
                return Err(TopoError::Interrupted { path: self.key.clone() });
            }
        }
    }

    async fn lost(&self) {
        let mut changed = self.store.shared.changed.subscribe();
        while self.is_held() {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.store.lock().remove(&self.key);
        self.store.announce();
    }
}

struct MemoryLock {
    queued: Queued,
}

#[async_trait]
impl LockDescriptor for MemoryLock {
    async fn check(&self) -> Result<()> {
        if self.is_lost() {
            return Err(TopoError::LockLost { path: self.queued.key.clone() });
        }
        Ok(())
    }

    fn is_lost(&self) -> bool {
        !self.queued.is_held()
    }

    async fn unlock(self: Box<Self>) -> Result<()> {
        if self.is_lost() {
            return Err(TopoError::LockLost { path: self.queued.key.clone() });
        }
        Ok(())
    }
}

struct MemoryLeasedKey {
    store: MemoryStore,
    key: String,
}

#[async_trait]
impl LeasedKey for MemoryLeasedKey {
    async fn put(&self, contents: Bytes) -> Result<Version> {
        let mut state = self.store.lock();
        if state.unavailable {
            return Err(TopoError::Timeout { path: self.key.clone() });
        }
        state.next_lease += 1;
        let lease = state.next_lease;
        let version = state.put(&self.key, contents, Some(lease));
        drop(state);
        self.store.announce();
        Ok(version)
    }

    async fn lost(&self) {
        let mut changed = self.store.shared.changed.subscribe();
        while self.store.lock().nodes.contains_key(&self.key) {
            if changed.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Drop for MemoryLeasedKey {
    fn drop(&mut self) {
        self.store.lock().remove(&self.key);
        self.store.announce();
    }
}

struct MemoryParticipation {
    store: MemoryStore,
    dir: String,
    id: String,
    stop: CancellationToken,
}

#[async_trait]
impl MasterParticipation for MemoryParticipation {
    async fn wait_for_mastership(&self) -> Result<CancellationToken> {
        let interrupted = || TopoError::Interrupted { path: self.dir.clone() };
        if self.stop.is_cancelled() {
            return Err(interrupted());
        }
        let queued = Queued::join(&self.store, &self.dir, &self.id);
        self.stop.run_until_cancelled(queued.owned()).await.ok_or_else(interrupted)??;
        let mastership = CancellationToken::new();
        let (lost, stop) = (mastership.clone(), self.stop.clone());
        tokio::spawn(async move {
            stop.run_until_cancelled(queued.lost()).await;
            lost.cancel();
        });
        Ok(mastership)
    }

    async fn stop(&self) {
        self.stop.cancel();
    }

    async fn get_current_master_id(&self) -> Result<String> {
        let state = self.store.lock();
        let prefix = format!("{}/", self.dir);
        let first = state.under(&prefix).min_by_key(|(_, node)| node.revision);
        Ok(first.map(|(_, node)| String::from_utf8_lossy(&node.contents).into_owned()).unwrap_or_default())
    }
}
