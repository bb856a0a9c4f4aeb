//! The handle through which everybody reads and writes the topology.
//!
//! Owns: the global connection, one connection per cell (made on first use from the global CellInfo
//! and kept for the life of the process), and the generic read, write and compare-and-swap of records.
//! The methods about one kind of record are in the module of that record.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    conn::{Conn, MasterParticipation, Version},
    error::{Result, TopoError},
    etcd, memory,
    observed::{Observed, Observer},
    record::{self, TopoRecord, UnknownFields},
};

/// The name that stands for the global connection.
pub const GLOBAL_CELL: &str = "global";

/// Files of `-topo_etcd_tls_cert`, `-topo_etcd_tls_key` and `-topo_etcd_tls_ca`. All set means TLS.
#[derive(Debug, Clone)]
pub struct EtcdTls {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
}

impl EtcdTls {
    /// From the three flags, of which all or none have to be given.
    pub fn from_flags(cert: &str, key: &str, ca: &str) -> Result<Option<Self>> {
        match [cert, key, ca].iter().filter(|file| !file.is_empty()).count() {
            0 => Ok(None),
            3 => Ok(Some(Self { cert: cert.into(), key: key.into(), ca: ca.into() })),
            _ => Err(TopoError::other(
                "topo_etcd_tls_cert, topo_etcd_tls_key and topo_etcd_tls_ca must be given together",
            )),
        }
    }
}

/// How to talk to the topology server.
#[derive(Clone)]
pub struct TopoOptions {
    /// `-remote_operation_timeout`: bound of every single call and of the wait for a lock.
    pub remote_operation_timeout: Duration,
    /// `-topo_etcd_lease_ttl`, seconds: how long a lock outlives a process that died.
    pub etcd_lease_ttl_seconds: i64,
    pub etcd_tls: Option<EtcdTls>,
    /// Bound of making a connection.
    pub dial_timeout: Duration,
    /// Told about every call.
    pub observer: Option<Arc<dyn Observer>>,
}

impl std::fmt::Debug for TopoOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopoOptions")
            .field("remote_operation_timeout", &self.remote_operation_timeout)
            .field("etcd_lease_ttl_seconds", &self.etcd_lease_ttl_seconds)
            .field("etcd_tls", &self.etcd_tls)
            .field("dial_timeout", &self.dial_timeout)
            .finish_non_exhaustive()
    }
}

impl Default for TopoOptions {
    fn default() -> Self {
        Self {
            remote_operation_timeout: Duration::from_secs(30),
            etcd_lease_ttl_seconds: 30,
            etcd_tls: None,
            dial_timeout: Duration::from_secs(5),
            observer: None,
        }
    }
}

/// What an updater decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Update {
    Write,
    /// The record is already as it should be: nothing is written and that is no error.
    NoUpdateNeeded,
}

/// Makes the connection of a cell. One per backend.
#[async_trait]
pub(crate) trait Factory: Send + Sync + 'static {
    async fn create(&self, cell: &str, server_address: &str, root: &str) -> Result<Arc<dyn Conn>>;
}

/// A cheap handle; clones share connections.
#[derive(Clone)]
pub struct TopoServer {
    inner: Arc<Inner>,
}

struct Inner {
    factory: Box<dyn Factory>,
    global: Arc<dyn Conn>,
    cells: Mutex<HashMap<String, Arc<dyn Conn>>>,
    options: TopoOptions,
}

impl std::fmt::Debug for TopoServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TopoServer").field("global", &self.inner.global.full_path("")).finish_non_exhaustive()
    }
}

impl TopoServer {
    /// Connects to the global topology server and makes sure that it answers.
    ///
    /// `implementation` is `etcd2`; `address` is `host:port[,host:port]`.
    pub async fn open(implementation: &str, address: &str, root: &str, options: TopoOptions) -> Result<Self> {
        if address.is_empty() {
            return Err(TopoError::other("topo_global_server_address must be configured"));
        }
        if implementation != "etcd2" {
            return Err(TopoError::NoImplementation { name: implementation.to_owned() });
        }
        let factory = etcd::EtcdFactory::new(options.clone())?;
        let failed = |error: TopoError| {
            error.wrap(format_args!("Failed to open topo server ({implementation},{address},{root})"))
        };
        let global = factory.create(GLOBAL_CELL, address, root).await.map_err(failed)?;
        match global.list_dir("", false).await {
            Ok(_) | Err(TopoError::NoNode { .. }) => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(Self::with_factory(Box::new(factory), global, options))
    }

    /// A topology in this process's memory with a CellInfo for each cell, for tests.
    pub fn memory(cells: &[&str]) -> Self {
        memory::MemoryStore::new().server(cells)
    }

    pub(crate) fn with_factory(factory: Box<dyn Factory>, global: Arc<dyn Conn>, options: TopoOptions) -> Self {
        let global = observed(global, GLOBAL_CELL, &options);
        Self { inner: Arc::new(Inner { factory, global, cells: Mutex::default(), options }) }
    }

    pub fn options(&self) -> &TopoOptions {
        &self.inner.options
    }

    pub(crate) fn global(&self) -> &Arc<dyn Conn> {
        &self.inner.global
    }

    /// The connection of a cell, or the global one for [`GLOBAL_CELL`]. For raw reads and writes;
    /// records have methods of their own.
    pub async fn conn_for_cell(&self, cell: &str) -> Result<Arc<dyn Conn>> {
        if cell == GLOBAL_CELL {
            return Ok(self.inner.global.clone());
        }
        let cached = self.inner.cells.lock().unwrap_or_else(PoisonError::into_inner).get(cell).cloned();
        if let Some(conn) = cached {
            return Ok(conn);
        }
        let info = self.get_cell_info(cell).await?;
        let made = self.inner.factory.create(cell, &info.server_address, &info.root).await.map_err(|error| {
            error.wrap(format_args!("failed to create topo connection to {}, {}", info.server_address, info.root))
        })?;
        let made = observed(made, cell, &self.inner.options);
        let mut cells = self.inner.cells.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(cells.entry(cell.to_owned()).or_insert(made).clone())
    }

    /// Joins the global election `name` as candidate `id`.
    pub fn new_master_participation(&self, name: &str, id: &str) -> Arc<dyn MasterParticipation> {
        self.inner.global.new_master_participation(name, id)
    }

    /// The names in a directory; none when the directory is missing.
    pub(crate) async fn names(&self, conn: &Arc<dyn Conn>, dir: &str) -> Result<Vec<String>> {
        match conn.list_dir(dir, false).await {
            Ok(entries) => Ok(entries.into_iter().map(|entry| entry.name).collect()),
            Err(TopoError::NoNode { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }
}

fn observed(conn: Arc<dyn Conn>, cell: &str, options: &TopoOptions) -> Arc<dyn Conn> {
    match &options.observer {
        Some(observer) => Arc::new(Observed { conn, cell: cell.to_owned(), observer: observer.clone() }),
        None => conn,
    }
}

/// Reads one record.
pub(crate) async fn read<M: TopoRecord>(conn: &dyn Conn, path: &str) -> Result<(M, UnknownFields, Version)> {
    let (contents, version) = conn.get(path).await?;
    let (message, unknown) = record::decode(&conn.full_path(path), &contents)?;
    Ok((message, unknown, version))
}

/// Reads, modifies and conditionally writes one record until no other writer came between.
///
/// With `create`, a missing record is handed to the updater as the default one and created.
pub(crate) async fn update_record<M, F>(conn: &dyn Conn, path: &str, create: bool, mut update: F) -> Result<Option<M>>
where
    M: TopoRecord,
    F: FnMut(&mut M) -> Result<Update>,
{
    loop {
        let (mut message, unknown, version) = match read::<M>(conn, path).await {
            Ok((message, unknown, version)) => (message, unknown, Some(version)),
            Err(TopoError::NoNode { .. }) if create => (M::default(), UnknownFields::default(), None),
            Err(error) => return Err(error),
        };
        match update(&mut message) {
            Ok(Update::Write) => {}
            Ok(Update::NoUpdateNeeded) | Err(TopoError::NoUpdateNeeded { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        let contents = record::encode(&message, &unknown);
        let written = match version {
            Some(version) => conn.update(path, contents, Some(version)).await,
            None => conn.create(path, contents).await,
        };
        match written {
            Ok(_) => return Ok(Some(message)),
            // Somebody else was faster: do it again on top of theirs.
            Err(TopoError::BadVersion { .. }) => tokio::task::yield_now().await,
            Err(TopoError::NodeExists { .. }) if version.is_none() => tokio::task::yield_now().await,
            Err(error) => return Err(error),
        }
    }
}
