//! A connection that tells an observer about every call, for variables such as `TopologyConnOperations`.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;

use crate::{
    conn::{Conn, DirEntry, LeasedKey, LockDescriptor, MasterParticipation, Version, WatchData, WatchStream},
    error::Result,
};

/// Counts calls to the topology server.
pub trait Observer: Send + Sync + 'static {
    /// One call ended. `operation` is `Get`, `Create`, `Update`, `Delete`, `ListDir`, `Lock` or `Watch`.
    fn call_ended(&self, operation: &'static str, cell: &str, elapsed: Duration, ok: bool);
}

impl<F: Fn(&'static str, &str, Duration, bool) + Send + Sync + 'static> Observer for F {
    fn call_ended(&self, operation: &'static str, cell: &str, elapsed: Duration, ok: bool) {
        self(operation, cell, elapsed, ok);
    }
}

pub(crate) struct Observed {
    pub(crate) conn: Arc<dyn Conn>,
    pub(crate) cell: String,
    pub(crate) observer: Arc<dyn Observer>,
}

impl Observed {
    async fn observe<T>(&self, operation: &'static str, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let started = Instant::now();
        let outcome = call.await;
        self.observer.call_ended(operation, &self.cell, started.elapsed(), outcome.is_ok());
        outcome
    }
}

#[async_trait]
impl Conn for Observed {
    async fn list_dir(&self, dir: &str, full: bool) -> Result<Vec<DirEntry>> {
        self.observe("ListDir", self.conn.list_dir(dir, full)).await
    }

    async fn create(&self, path: &str, contents: Bytes) -> Result<Version> {
        self.observe("Create", self.conn.create(path, contents)).await
    }

    async fn update(&self, path: &str, contents: Bytes, version: Option<Version>) -> Result<Version> {
        self.observe("Update", self.conn.update(path, contents, version)).await
    }

    async fn get(&self, path: &str) -> Result<(Bytes, Version)> {
        self.observe("Get", self.conn.get(path)).await
    }

    async fn delete(&self, path: &str, version: Option<Version>) -> Result<()> {
        self.observe("Delete", self.conn.delete(path, version)).await
    }

    async fn lock(&self, dir: &str, contents: &str, timeout: Duration) -> Result<Box<dyn LockDescriptor>> {
        self.observe("Lock", self.conn.lock(dir, contents, timeout)).await
    }

    async fn watch(&self, path: &str) -> Result<(WatchData, WatchStream)> {
        self.observe("Watch", self.conn.watch(path)).await
    }

    fn leased_key(&self, path: &str) -> Box<dyn LeasedKey> {
        self.conn.leased_key(path)
    }

    fn new_master_participation(&self, name: &str, id: &str) -> Arc<dyn MasterParticipation> {
        self.conn.new_master_participation(name, id)
    }

    fn full_path(&self, path: &str) -> String {
        self.conn.full_path(path)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::{TopoOptions, memory::MemoryStore};

    #[derive(Default)]
    struct Log(Mutex<Vec<(&'static str, String, bool)>>);

    impl Observer for Log {
        fn call_ended(&self, operation: &'static str, cell: &str, _elapsed: Duration, ok: bool) {
            self.0.lock().expect("no panic").push((operation, cell.to_owned(), ok));
        }
    }

    #[tokio::test]
    async fn each_call_is_told_with_its_cell() {
        let log = Arc::new(Log::default());
        let options = TopoOptions { observer: Some(log.clone()), ..TopoOptions::default() };
        let topo = MemoryStore::new().server_with(&["zone1"], options);
        assert!(topo.get_srv_keyspace("zone1", "ks").await.is_err());
        let seen = log.0.lock().expect("no panic").clone();
        assert_eq!(seen, [("Get", "global".to_owned(), true), ("Get", "zone1".to_owned(), false)]);
    }
}
