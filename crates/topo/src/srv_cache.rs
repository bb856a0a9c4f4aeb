//! What vtgate knows of the serving graph: cached SrvKeyspace, keyspace names and SrvVSchema.
//!
//! Invariants: reading a value that was known once never waits for the topology server; while the server
//! is away the last known value is served. Only the deletion of a record removes its value. The number
//! of keyspaces remembered as missing is bounded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};
use vtproto::{topodata::SrvKeyspace, vschema::SrvVSchema};

use crate::{
    conn::Version,
    error::{Result, TopoError},
    server::TopoServer,
    watch::Watch,
};

/// How many keyspaces are remembered, of which those without a record are forgotten first.
const MAX_ENTRIES: usize = 4096;
/// Pause before the SrvVSchema of a cell that has none is looked for again.
const VSCHEMA_RETRY: Duration = Duration::from_secs(5);

/// `-srv_topo_cache_ttl` and `-srv_topo_cache_refresh`.
#[derive(Debug, Clone, Copy)]
pub struct SrvCacheOptions {
    /// How old a list of keyspace names may be before a reader waits for a new one.
    pub ttl: Duration,
    /// The least time between two attempts to read what could not be read or may have changed.
    pub refresh: Duration,
}

impl Default for SrvCacheOptions {
    fn default() -> Self {
        Self { ttl: Duration::from_secs(1), refresh: Duration::from_secs(1) }
    }
}

/// The state of a cell's SrvVSchema: nothing known yet, the last known value with its version, or why
/// there is none.
pub type SrvVSchemaState = Option<Result<(Arc<SrvVSchema>, Version)>>;

/// One keyspace in one cell, for status pages.
#[derive(Debug, Clone)]
pub struct CachedKeyspace {
    pub cell: String,
    pub keyspace: String,
    pub value: Option<Arc<SrvKeyspace>>,
    /// Of the value.
    pub version: Version,
    /// The last failure, with its age.
    pub error: Option<(TopoError, Duration)>,
}

/// Cached reads of the serving graph. Dropping it ends its watches.
pub struct SrvTopoCache {
    topo: TopoServer,
    options: SrvCacheOptions,
    keyspaces: ArcSwap<CellMap>,
    /// Serialises changes of the set of entries; the entries themselves change without it.
    growing: Mutex<()>,
    names: Mutex<HashMap<String, Arc<NamesEntry>>>,
    vschemas: Mutex<HashMap<String, watch::Receiver<SrvVSchemaState>>>,
    /// Told after the value of a keyspace has changed; the number says nothing.
    changes: watch::Sender<u64>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
}

type CellMap = HashMap<String, HashMap<String, Arc<Entry>>>;

struct Entry {
    state: ArcSwap<EntryState>,
    /// Held during an attempt to start the watch.
    attempt: tokio::sync::Mutex<()>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct EntryState {
    value: Option<Arc<SrvKeyspace>>,
    version: Version,
    /// When it took the place of a different one.
    replaced_at: Option<Instant>,
    error: Option<(TopoError, Instant)>,
}

impl Entry {
    fn set_error(&self, error: TopoError) {
        let state = self.state.load();
        let value = if error.is_no_node() { None } else { state.value.clone() };
        let (version, replaced_at) = (state.version, state.replaced_at);
        self.state.store(Arc::new(EntryState { value, version, replaced_at, error: Some((error, Instant::now())) }));
    }

    fn set_value(&self, (value, version): (SrvKeyspace, Version)) {
        let before = self.state.load();
        let differs = before.value.as_deref().is_some_and(|before| *before != value);
        let replaced_at = if differs { Some(Instant::now()) } else { before.replaced_at };
        self.state.store(Arc::new(EntryState { value: Some(Arc::new(value)), version, replaced_at, error: None }));
        self.changes.send_modify(|number| *number += 1);
    }
}

#[derive(Default)]
struct NamesEntry {
    state: Mutex<NamesState>,
    attempt: tokio::sync::Mutex<()>,
}

#[derive(Default, Clone)]
struct NamesState {
    names: Option<Arc<Vec<String>>>,
    read_at: Option<Instant>,
    error: Option<(TopoError, Instant)>,
}

impl SrvTopoCache {
    pub fn new(topo: TopoServer, options: SrvCacheOptions) -> Arc<Self> {
        let stop = CancellationToken::new();
        Arc::new(Self {
            topo,
            options,
            keyspaces: ArcSwap::default(),
            growing: Mutex::default(),
            names: Mutex::default(),
            vschemas: Mutex::default(),
            changes: watch::channel(0).0,
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
        })
    }

    /// Told after the SrvKeyspace of any keyspace was read or has changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Whether any SrvKeyspace took the place of a different one within the last `limit`.
    pub fn changed_within(&self, limit: Duration) -> bool {
        let keyspaces = self.keyspaces.load();
        let lately = |entry: &Arc<Entry>| entry.state.load().replaced_at.is_some_and(|at| at.elapsed() < limit);
        keyspaces.values().flat_map(HashMap::values).any(lately)
    }

    /// The last known value, without waiting: for the way of every query. `None`: ask
    /// [`SrvTopoCache::get_srv_keyspace`].
    pub fn known_srv_keyspace(&self, cell: &str, keyspace: &str) -> Option<Arc<SrvKeyspace>> {
        let keyspaces = self.keyspaces.load();
        let entry = keyspaces.get(cell)?.get(keyspace)?;
        entry.state.load().value.clone()
    }

    /// The value, read and watched from now on if it was not known. A failure is remembered for the
    /// refresh time.
    pub async fn get_srv_keyspace(&self, cell: &str, keyspace: &str) -> Result<Arc<SrvKeyspace>> {
        if let Some(value) = self.known_srv_keyspace(cell, keyspace) {
            return Ok(value);
        }
        let entry = self.entry(cell, keyspace);
        if let Some(answer) = self.settled(&entry) {
            return answer;
        }
        // In a task of its own, so that a caller who gives up does not spoil it for the others.
        let attempt = tokio::spawn({
            let (topo, stop, refresh) = (self.topo.clone(), self.stop.clone(), self.options.refresh);
            let (entry, cell, keyspace) = (entry.clone(), cell.to_owned(), keyspace.to_owned());
            async move {
                let _attempt = entry.attempt.lock().await;
                let recent = {
                    let state = entry.state.load();
                    state.value.is_some() || state.error.as_ref().is_some_and(|(_, at)| at.elapsed() < refresh)
                };
                if recent {
                    return;
                }
                match start(&topo, &cell, &keyspace, &entry).await {
                    Ok(watch) => {
                        let followed = entry.clone();
                        tokio::spawn(async move {
                            let follow = follow(topo, cell, keyspace, followed, watch, refresh);
                            stop.run_until_cancelled(follow).await;
                        });
                    }
                    Err(error) => {
                        warn!(cell, keyspace, %error, "cannot watch the SrvKeyspace");
                        entry.set_error(error);
                    }
                }
            }
        });
        if let Err(error) = attempt.await {
            return Err(TopoError::other(format!("watch of keyspace {keyspace} failed to start: {error}")));
        }
        let state = entry.state.load();
        match (&state.value, &state.error) {
            (Some(value), _) => Ok(value.clone()),
            (None, Some((error, _))) => Err(error.clone()),
            (None, None) => Err(TopoError::Interrupted { path: format!("{cell}/{keyspace}") }),
        }
    }

    /// The keyspaces of a cell, at most the ttl old; the last known ones while the server is away.
    pub async fn get_srv_keyspace_names(&self, cell: &str) -> Result<Arc<Vec<String>>> {
        let entry = {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.entry(cell.to_owned()).or_default().clone()
        };
        let state = entry.snapshot();
        if let (Some(names), Some(read_at)) = (&state.names, state.read_at) {
            let (names, age) = (names.clone(), read_at.elapsed());
            if age < self.options.refresh {
                return Ok(names);
            }
            let failed_lately = state.error.as_ref().is_some_and(|(_, at)| at.elapsed() < self.options.refresh);
            if failed_lately {
                return Ok(names);
            }
            if age < self.options.ttl {
                let (topo, cell, refresh) = (self.topo.clone(), cell.to_owned(), self.options.refresh);
                tokio::spawn(async move { entry.read(&topo, &cell, refresh).await });
                return Ok(names);
            }
        } else if let Some((error, at)) = &state.error
            && at.elapsed() < self.options.refresh
        {
            return Err(error.clone());
        }
        entry.read(&self.topo, cell, self.options.refresh).await;
        let state = entry.snapshot();
        match (state.names, state.error) {
            (Some(names), _) => Ok(names),
            (None, Some((error, _))) => Err(error),
            (None, None) => Err(TopoError::Interrupted { path: cell.to_owned() }),
        }
    }

    /// Follows the SrvVSchema of a cell. The receiver first holds `None`, then what is known; a value is
    /// replaced by an error only when the record was deleted.
    pub fn watch_srv_vschema(&self, cell: &str) -> watch::Receiver<SrvVSchemaState> {
        let mut vschemas = self.vschemas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(receiver) = vschemas.get(cell) {
            return receiver.clone();
        }
        let (sender, receiver) = watch::channel(None);
        vschemas.insert(cell.to_owned(), receiver.clone());
        let (topo, stop, refresh) = (self.topo.clone(), self.stop.clone(), self.options.refresh);
        let cell = cell.to_owned();
        tokio::spawn(async move { stop.run_until_cancelled(follow_vschema(topo, cell, sender, refresh)).await });
        receiver
    }

    /// Everything cached, sorted by cell and keyspace.
    pub fn snapshot(&self) -> Vec<CachedKeyspace> {
        let keyspaces = self.keyspaces.load();
        let mut all: Vec<CachedKeyspace> = keyspaces
            .iter()
            .flat_map(|(cell, entries)| entries.iter().map(move |(keyspace, entry)| (cell, keyspace, entry)))
            .map(|(cell, keyspace, entry)| {
                let state = entry.state.load();
                CachedKeyspace {
                    cell: cell.clone(),
                    keyspace: keyspace.clone(),
                    value: state.value.clone(),
                    version: state.version,
                    error: state.error.as_ref().map(|(error, at)| (error.clone(), at.elapsed())),
                }
            })
            .collect();
        all.sort_by(|left, right| (&left.cell, &left.keyspace).cmp(&(&right.cell, &right.keyspace)));
        all
    }

    /// An answer that needs no attempt: a value, or a failure younger than the refresh time.
    fn settled(&self, entry: &Entry) -> Option<Result<Arc<SrvKeyspace>>> {
        let state = entry.state.load();
        if let Some(value) = &state.value {
            return Some(Ok(value.clone()));
        }
        match &state.error {
            Some((error, at)) if at.elapsed() < self.options.refresh => Some(Err(error.clone())),
            _ => None,
        }
    }

    fn entry(&self, cell: &str, keyspace: &str) -> Arc<Entry> {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let present = self.keyspaces.load();
        if let Some(entry) = present.get(cell).and_then(|entries| entries.get(keyspace)) {
            return entry.clone();
        }
        let mut grown = CellMap::clone(&present);
        let count: usize = grown.values().map(HashMap::len).sum();
        if count >= MAX_ENTRIES {
            // An entry in an attempt right now may get a value and a watch: it has to stay reachable.
            for entries in grown.values_mut() {
                entries.retain(|_, entry| entry.state.load().value.is_some() || entry.attempt.try_lock().is_err());
            }
        }
        let (state, attempt) = (ArcSwap::default(), tokio::sync::Mutex::default());
        let entry = Arc::new(Entry { state, attempt, changes: self.changes.clone() });
        grown.entry(cell.to_owned()).or_default().insert(keyspace.to_owned(), entry.clone());
        self.keyspaces.store(Arc::new(grown));
        entry
    }
}

impl NamesEntry {
    fn snapshot(&self) -> NamesState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads once for all who wait.
    async fn read(&self, topo: &TopoServer, cell: &str, refresh: Duration) {
        let asked_at = Instant::now();
        let _attempt = self.attempt.lock().await;
        let state = self.snapshot();
        let answered = |at: Instant| at > asked_at || at.elapsed() < refresh;
        if state.read_at.is_some_and(answered) || state.error.as_ref().is_some_and(|(_, at)| answered(*at)) {
            return;
        }
        let read = topo.get_srv_keyspace_names(cell).await;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match read {
            Ok(names) => {
                *state = NamesState { names: Some(Arc::new(names)), read_at: Some(Instant::now()), error: None };
            }
            Err(error) => {
                warn!(cell, %error, "cannot list the keyspaces of the cell");
                state.error = Some((error, Instant::now()));
            }
        }
    }
}

/// Starts a watch and takes its first value.
async fn start(topo: &TopoServer, cell: &str, keyspace: &str, entry: &Entry) -> Result<Watch<SrvKeyspace>> {
    let mut watch = topo.watch_srv_keyspace(cell, keyspace).await?;
    match watch.next_versioned().await {
        Some(Ok(value)) => {
            entry.set_value(value);
            Ok(watch)
        }
        Some(Err(error)) => Err(error),
        None => Err(TopoError::Interrupted { path: format!("{cell}/{keyspace}") }),
    }
}

/// Follows a keyspace until its record is deleted.
async fn follow(
    topo: TopoServer,
    cell: String,
    keyspace: String,
    entry: Arc<Entry>,
    mut watch: Watch<SrvKeyspace>,
    refresh: Duration,
) {
    loop {
        let error = loop {
            match watch.next_versioned().await {
                Some(Ok(value)) => entry.set_value(value),
                Some(Err(error)) => break error,
                None => break TopoError::Interrupted { path: format!("{cell}/{keyspace}") },
            }
        };
        warn!(cell, keyspace, %error, "the watch of the SrvKeyspace ended");
        let deleted = error.is_no_node();
        entry.set_error(error);
        if deleted {
            return;
        }
        watch = loop {
            tokio::time::sleep(refresh.max(Duration::from_millis(10))).await;
            match start(&topo, &cell, &keyspace, &entry).await {
                Ok(watch) => break watch,
                Err(error) => {
                    let deleted = error.is_no_node();
                    entry.set_error(error);
                    if deleted {
                        return;
                    }
                }
            }
        };
    }
}

async fn follow_vschema(topo: TopoServer, cell: String, state: watch::Sender<SrvVSchemaState>, refresh: Duration) {
    loop {
        let error = match topo.watch_srv_vschema(&cell).await {
            Ok(mut watch) => loop {
                match watch.next_versioned().await {
                    Some(Ok((value, version))) => {
                        state.send_replace(Some(Ok((Arc::new(value), version))));
                    }
                    Some(Err(error)) => break error,
                    None => break TopoError::Interrupted { path: cell.clone() },
                }
            },
            Err(error) => error,
        };
        info!(cell, %error, "no watch of the SrvVSchema");
        let pause = if error.is_no_node() { VSCHEMA_RETRY } else { refresh.max(Duration::from_millis(10)) };
        state.send_if_modified(|known| {
            let keep = matches!(known, Some(Ok(_))) && !error.is_no_node();
            if !keep {
                *known = Some(Err(error));
            }
            !keep
        });
        tokio::time::sleep(pause).await;
    }
}
