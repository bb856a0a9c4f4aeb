//! The vschema that statements are planned with, kept true to the topology.
//!
//! Owns: the built vschema and its number. Invariants: readers never wait; every change has a new
//! number, so that a plan made for another vschema is never taken for a current one.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicI64, Ordering},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use topo::srv_cache::SrvVSchemaState;
use vschema::VSchema;
use vtproto::vschema::SrvVSchema;

/// A vschema as it was at one time.
#[derive(Debug, Default)]
pub struct Current {
    pub number: u64,
    pub vschema: VSchema,
    pub source: SrvVSchema,
}

/// How often things happened; 0 is not shown.
#[derive(Debug, Default)]
pub struct VSchemaCounts {
    pub reload: AtomicI64,
    pub watch_error: AtomicI64,
    pub parsing: AtomicI64,
}

/// The current vschema.
pub struct VSchemaWatch {
    current: ArcSwap<Current>,
    pub counts: VSchemaCounts,
    /// Version in the topology of the one in use; 0: none.
    version: AtomicI64,
    /// Why the last one could not be read, for `/debug/vschema`.
    last_error: Mutex<Option<String>>,
}

impl VSchemaWatch {
    /// Starts with an empty vschema.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(Current::default()),
            counts: VSchemaCounts::default(),
            version: AtomicI64::new(0),
            last_error: Mutex::default(),
        })
    }

    /// Version in the topology of the vschema in use; 0: none.
    pub fn version(&self) -> i64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn current(&self) -> arc_swap::Guard<Arc<Current>> {
        self.current.load()
    }

    /// Takes a new vschema into use.
    pub fn set(&self, source: SrvVSchema) {
        let vschema = VSchema::build(&source);
        for keyspace in vschema.keyspaces.values() {
            if let Some(error) = &keyspace.error {
                self.counts.parsing.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(keyspace = %keyspace.name, "vschema: {error}");
            }
        }
        let number = self.current.load().number + 1;
        self.current.store(Arc::new(Current { number, vschema, source }));
        self.counts.reload.fetch_add(1, Ordering::Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Follows the topology until the sender is gone; `changed` is called after each change.
    pub async fn follow(&self, mut states: watch::Receiver<SrvVSchemaState>, changed: impl Fn() + Send) {
        loop {
            let state = states.borrow_and_update().clone();
            match state {
                Some(Ok((source, version))) => {
                    self.set((*source).clone());
                    self.version.store(version.0, Ordering::Release);
                    changed();
                }
                Some(Err(error)) => {
                    // A cell that has no vschema yet is how every cluster begins.
                    if !error.is_no_node() {
                        self.counts.watch_error.fetch_add(1, Ordering::Relaxed);
                    } else if self.current.load().source != SrvVSchema::default() {
                        self.set(SrvVSchema::default());
                        changed();
                    }
                    *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
                }
                None => {}
            }
            if states.changed().await.is_err() {
                return;
            }
        }
    }

    /// Why there is no vschema, if there is none.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
