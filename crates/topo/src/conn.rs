//! What a topology backend offers: versioned keys, directories, locks, watches and elections.
//!
//! Paths are relative to the root of the connection's cell; errors name the full key. A directory
//! exists exactly as long as some key lies under it. [`crate::etcd`] and [`crate::memory`] implement
//! this with the same semantics; one test suite runs against both.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::error::Result;

/// The version of a key, which a conditional write compares. Printed in decimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Version(pub i64);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirEntry {
    pub name: String,
    pub is_directory: bool,
    /// A key that goes away with the process that made it. Only told when full information was asked for.
    pub is_ephemeral: bool,
}

/// A value as a watch saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchData {
    pub contents: Bytes,
    /// For information only: a conditional update needs the version of a [`Conn::get`].
    pub version: Version,
}

/// The changes of one key, in order. It does not end because the server is away; it ends after an
/// error item, which is `NoNode` when the key was deleted. Dropping it ends the watch.
pub struct WatchStream {
    changes: mpsc::Receiver<Result<WatchData>>,
    _stop: DropGuard,
}

impl WatchStream {
    /// `stop` is cancelled when the stream is dropped.
    pub fn new(changes: mpsc::Receiver<Result<WatchData>>, stop: CancellationToken) -> Self {
        Self { changes, _stop: stop.drop_guard() }
    }

    /// The next change; `None` after the final error item.
    pub async fn next(&mut self) -> Option<Result<WatchData>> {
        self.changes.recv().await
    }
}

impl futures::Stream for WatchStream {
    type Item = Result<WatchData>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.changes.poll_recv(cx)
    }
}

/// A held lock. Dropping it without [`LockDescriptor::unlock`] releases it in the background.
#[async_trait]
pub trait LockDescriptor: Send + Sync {
    /// Asks the server whether the lock is still held, and extends it.
    async fn check(&self) -> Result<()>;
    /// Whether this process already knows that the lock is gone. Does not ask the server.
    fn is_lost(&self) -> bool;
    /// Releases the lock, within a time bound of its own.
    async fn unlock(self: Box<Self>) -> Result<()>;
}

/// A key that exists while its owner lives: it goes away with the owner's process, or when dropped.
#[async_trait]
pub trait LeasedKey: Send + Sync {
    /// Writes the key, also after it was lost.
    async fn put(&self, contents: Bytes) -> Result<Version>;
    /// Resolves when a key that was written is gone because the server gave the owner up for dead.
    async fn lost(&self);
}

/// One candidate in an election.
#[async_trait]
pub trait MasterParticipation: Send + Sync {
    /// Waits without limit until this candidate is elected. The token is cancelled when mastership is
    /// lost or given up. `Interrupted` after [`MasterParticipation::stop`].
    async fn wait_for_mastership(&self) -> Result<CancellationToken>;
    /// Gives up: leaves the queue, or the mastership.
    async fn stop(&self);
    /// The id of the present master; empty when there is none.
    async fn get_current_master_id(&self) -> Result<String>;
}

/// A connection to the topology server of one cell.
#[async_trait]
pub trait Conn: Send + Sync + 'static {
    /// The sorted names in a directory. `NoNode` when nothing lies under it.
    async fn list_dir(&self, dir: &str, full: bool) -> Result<Vec<DirEntry>>;
    /// `NodeExists` when the key is there.
    async fn create(&self, path: &str, contents: Bytes) -> Result<Version>;
    /// With a version: `BadVersion` unless the key has it. Without: writes, and creates if missing.
    async fn update(&self, path: &str, contents: Bytes, version: Option<Version>) -> Result<Version>;
    async fn get(&self, path: &str) -> Result<(Bytes, Version)>;
    async fn delete(&self, path: &str, version: Option<Version>) -> Result<()>;
    /// Takes the lock of a directory that exists, waiting for at most `timeout`.
    async fn lock(&self, dir: &str, contents: &str, timeout: Duration) -> Result<Box<dyn LockDescriptor>>;
    /// The present value and the changes after it. `NoNode` when the key is missing.
    async fn watch(&self, path: &str) -> Result<(WatchData, WatchStream)>;
    /// A key of this process, from its first write on.
    fn leased_key(&self, path: &str) -> Box<dyn LeasedKey>;
    /// Joins the election `name` as candidate `id`, from the first wait on.
    fn new_master_participation(&self, name: &str, id: &str) -> Arc<dyn MasterParticipation>;
    /// The full key of a relative path, as error texts show it.
    fn full_path(&self, path: &str) -> String;
}
