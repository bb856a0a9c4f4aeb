//! The streams of one tablet: started when it is MASTER, stopped when it is not, changed by `VReplicationExec`.
//!
//! Owns: which controllers run. Does not own: whether the tablet is master, which its manager tells by [`Engine::open`]
//! and [`Engine::close`].
//! Invariants: a stream whose row is being changed does not run meanwhile, so that its row says exactly how far it is;
//! after [`Engine::close`] nothing of it changes the database.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use mysql::{
    client::{ClientError, Connection},
    sidecar,
};
use throttler::Throttlers;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;
use topo::TopoServer;
use vterrors::{Code, Result, VtError};
use vtproto::query::QueryResult;

use super::{
    EngineConfig, State, StreamStatus,
    controller::{Controller, Shared},
    row::{StreamRow, cells, first_number, id_list, read_position},
    statement::{Plan, plan, trimmed},
    stats::Stream,
};

/// Pause before rows that could not be read are read again.
const LOAD_RETRY: Duration = Duration::from_secs(1);
/// A row that others may change is looked at again this often by those who wait for it.
const WAIT_POLL: Duration = Duration::from_secs(1);
/// Rows of a statement's answer, at most.
const MAX_ROWS: usize = 10_000;
const CLOSED: &str = "vreplication engine is closed";

/// What makes the tables on a server that has none, and brings those of old versions up to date.
const CREATE: &[&str] = &[
    "create database if not exists _vt",
    "drop table if exists _vt.blp_checkpoint",
    sidecar::VREPLICATION,
    sidecar::RESHARDING_JOURNAL,
    sidecar::COPY_STATE,
];
/// Made before rows had a database.
const ALTER: &str = "alter table _vt.vreplication add column db_name varbinary(255) not null";

#[derive(Default)]
struct Open {
    stop: CancellationToken,
    /// Whether the rows have been read.
    loaded: bool,
    controllers: BTreeMap<i64, Controller>,
}

/// See the module.
pub struct Engine {
    shared: Arc<Shared>,
    /// `None` while closed. Held while rows are changed.
    open: tokio::sync::Mutex<Option<Open>>,
    /// Whether it is open, for those who wait.
    is_open: watch::Sender<bool>,
    streams: Mutex<BTreeMap<i64, Arc<Stream>>>,
}

impl Engine {
    /// An engine that is closed.
    pub fn new(config: EngineConfig, topo: TopoServer) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::new(Shared { config, topo, throttlers: Throttlers::default() }),
            open: tokio::sync::Mutex::new(None),
            is_open: watch::channel(false).0,
            streams: Mutex::default(),
        })
    }

    /// The throttlers of the streams, `BinlogPlayer/<id>`.
    pub fn throttlers(&self) -> Throttlers {
        self.shared.throttlers.clone()
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<i64, Arc<Stream>>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream(&self, id: i64) -> Option<Arc<Stream>> {
        self.streams().get(&id).cloned()
    }

    pub fn is_open(&self) -> bool {
        *self.is_open.borrow()
    }

    /// Starts the streams of this tablet's database. Returns at once; a mysqld that does not answer is asked again.
    pub async fn open(self: &Arc<Self>) {
        let stop = {
            let mut open = self.open.lock().await;
            if open.is_some() {
                return;
            }
            let new = Open::default();
            let stop = new.stop.clone();
            *open = Some(new);
            stop
        };
        self.is_open.send_replace(true);
        self.keep_loading(stop);
    }

    /// Reads the rows until that succeeds or the engine is closed.
    fn keep_loading(self: &Arc<Self>, stop: CancellationToken) {
        let engine = self.clone();
        tokio::spawn(async move {
            let mut said = false;
            while let Err(error) = engine.load(&stop).await {
                if !said {
                    tracing::warn!("the streams of this tablet cannot be read yet: {error}");
                    said = true;
                }
                if stop.run_until_cancelled(sleep(LOAD_RETRY)).await.is_none() {
                    return;
                }
            }
        });
    }

    /// Stops everything.
    pub async fn close(&self) {
        let closed = self.open.lock().await.take();
        self.is_open.send_replace(false);
        let Some(open) = closed else { return };
        open.stop.cancel();
        futures::future::join_all(open.controllers.into_values().map(Controller::stop)).await;
        self.streams().clear();
    }

    /// How many streams there are, and how far behind the last of them is, in seconds.
    pub fn summary(&self) -> (usize, i64) {
        let streams = self.streams();
        (streams.len(), streams.values().map(|stream| stream.seconds_behind()).max().unwrap_or(0))
    }

    /// All streams by id.
    pub fn status(&self) -> Vec<StreamStatus> {
        self.streams().values().map(|stream| stream.status()).collect()
    }

    /// Runs a statement on the tables of streams. Streams that it changes are stopped before and started after it.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a statement that is not allowed, FAILED_PRECONDITION while closed, mysqld's own.
    pub async fn exec(self: &Arc<Self>, sql: &str) -> Result<QueryResult> {
        let plan = plan(sql)?;
        let (engine, sql) = (self.clone(), trimmed(sql).to_owned());
        // A caller that goes away must not leave streams stopped.
        let task = tokio::spawn(async move { engine.exec_plan(plan, &sql).await });
        task.await.unwrap_or_else(|error| Err(VtError::new(Code::Internal, format!("VReplicationExec: {error}"))))
    }

    async fn exec_plan(self: Arc<Self>, plan: Plan, sql: &str) -> Result<QueryResult> {
        let mut guard = self.open.lock().await;
        let open = guard.as_mut().ok_or_else(|| VtError::new(Code::FailedPrecondition, CLOSED))?;
        let mut conn = self.connect().await?;
        if !open.loaded {
            self.load_with(&mut conn, open).await?;
        }
        let result = match plan {
            Plan::AsIs => run(&mut conn, sql).await,
            Plan::Insert => {
                let result = run(&mut conn, sql).await?;
                let ids = new_ids(&mut conn, &result).await?;
                self.start(&mut conn, open, &ids).await?;
                Ok(result)
            }
            Plan::Update { select_ids, head } => {
                let ids = ids(&mut conn, &select_ids).await?;
                if ids.is_empty() {
                    return Ok(QueryResult::default());
                }
                stop(open, &ids).await;
                let result = run(&mut conn, &format!("{head} where id in ({})", id_list(&ids))).await;
                self.start_again(&mut conn, open, &ids, result).await
            }
            Plan::Delete { select_ids } => {
                let ids = ids(&mut conn, &select_ids).await?;
                if ids.is_empty() {
                    return Ok(QueryResult::default());
                }
                stop(open, &ids).await;
                let result = delete(&mut conn, &ids).await;
                self.start_again(&mut conn, open, &ids, result).await
            }
        };
        conn.close().await;
        result
    }

    /// Starts what was stopped for a statement, whether or not that went well.
    async fn start_again(
        self: &Arc<Self>,
        conn: &mut Connection,
        open: &mut Open,
        ids: &[i64],
        result: Result<QueryResult>,
    ) -> Result<QueryResult> {
        let started = if conn.is_broken() {
            match self.connect().await {
                Ok(mut conn) => self.start(&mut conn, open, ids).await,
                Err(error) => Err(error),
            }
        } else {
            self.start(conn, open, ids).await
        };
        if let Err(error) = started {
            tracing::warn!("streams that were stopped for a statement cannot be started: {error}; reading them anew");
            // Everything stops, and starts when the rows can be read.
            let all: Vec<i64> = open.controllers.keys().copied().collect();
            stop(open, &all).await;
            open.loaded = false;
            self.keep_loading(open.stop.clone());
        }
        result
    }

    /// Starts the streams of these rows, unless they are stopped or not ours, and forgets those without a row.
    async fn start(&self, conn: &mut Connection, open: &mut Open, ids: &[i64]) -> Result<()> {
        let sql = format!("{} and id in ({})", StreamRow::select_all(&self.shared.config.db_name), id_list(ids));
        let rows = StreamRow::read_all(&run(conn, &sql).await?)?;
        for id in ids.iter().filter(|id| rows.iter().all(|row| row.id != **id)) {
            self.streams().remove(id);
        }
        self.start_rows(open, rows);
        Ok(())
    }

    fn start_rows(&self, open: &mut Open, rows: Vec<StreamRow>) {
        for row in rows {
            let stream = self.streams().entry(row.id).or_insert_with(|| Arc::new(Stream::new(&row))).clone();
            stream.read(&row);
            if !row.is_stopped() {
                let stop = open.stop.child_token();
                open.controllers.insert(row.id, Controller::start(self.shared.clone(), &row, stream, stop));
            }
        }
    }

    /// Reads the rows and starts their streams, if the engine is still the one that `stop` belongs to.
    async fn load(&self, stop: &CancellationToken) -> Result<()> {
        let mut guard = self.open.lock().await;
        let Some(open) = guard.as_mut().filter(|open| !open.loaded && !stop.is_cancelled()) else { return Ok(()) };
        let mut conn = self.connect().await?;
        self.load_with(&mut conn, open).await?;
        conn.close().await;
        Ok(())
    }

    async fn load_with(&self, conn: &mut Connection, open: &mut Open) -> Result<()> {
        let result = conn.query(StreamRow::select_all(&self.shared.config.db_name).as_bytes(), usize::MAX).await;
        let rows = match result {
            Ok(result) => StreamRow::read_all(&result)?,
            // Nobody has made a stream here yet.
            Err(error) if is_missing(&error) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        if !rows.is_empty() {
            tracing::info!("{} streams of filtered replication", rows.len());
        }
        self.start_rows(open, rows);
        open.loaded = true;
        Ok(())
    }

    async fn connect(&self) -> Result<Connection> {
        let mut conn = Connection::connect(&self.shared.config.statement_login()).await?;
        // Our own quoting is with backslashes, and callers were promised the same.
        conn.execute("set session sql_mode = 'STRICT_ALL_TABLES', autocommit = 1").await?;
        Ok(conn)
    }

    /// Waits until a stream has stored a position, its own or a later one.
    ///
    /// # Errors
    /// INVALID_ARGUMENT for a position that is none, NOT_FOUND without the stream, FAILED_PRECONDITION when it stopped
    /// before, DEADLINE_EXCEEDED.
    pub async fn wait_for_pos(&self, id: i64, position: &str, deadline: Instant) -> Result<()> {
        let wanted = read_position(position)?;
        let started = Instant::now();
        let mut last = String::new();
        match timeout_at(deadline, self.wait(id, &wanted, &mut last)).await {
            Ok(done) => done,
            Err(_) => Err(VtError::new(
                Code::DeadlineExceeded,
                format!(
                    "error waiting for pos: {position}, last pos: {last}: context deadline exceeded, wait time: {:?}",
                    started.elapsed()
                ),
            )),
        }
    }

    async fn wait(&self, id: i64, wanted: &mysql::Position, last: &mut String) -> Result<()> {
        let mut is_open = self.is_open.subscribe();
        if !*is_open.borrow_and_update() {
            return Err(VtError::new(Code::FailedPrecondition, CLOSED));
        }
        let mut conn = self.connect().await?;
        loop {
            // Before the row is read, so that no change falls between.
            let stream = self.stream(id);
            let mut progress = stream.as_ref().map(|stream| stream.progress());
            let _waiting = stream.as_ref().map(|stream| stream.wait_for(wanted.clone()));
            if let Some(progress) = &mut progress {
                progress.mark_unchanged();
            }
            let row = conn.query(StreamRow::select_one(id, &self.shared.config.db_name).as_bytes(), 1).await;
            let row = match row {
                Ok(result) => StreamRow::read_all(&result)?.into_iter().next(),
                Err(error) if is_missing(&error) => None,
                Err(error) => return Err(error.into()),
            };
            let Some(row) = row else {
                return Err(VtError::new(Code::NotFound, format!("vreplication stream {id} not found")));
            };
            last.clone_from(&row.pos);
            if row.position()?.at_least(wanted) {
                conn.close().await;
                return Ok(());
            }
            if row.is_stopped() {
                return Err(VtError::new(
                    Code::FailedPrecondition,
                    format!(
                        "replication has stopped at {} before reaching position {wanted}, message: {}",
                        row.pos, row.message
                    ),
                ));
            }
            let reached = async {
                let Some(progress) = &mut progress else { return std::future::pending().await };
                loop {
                    if progress.changed().await.is_err() {
                        return std::future::pending().await;
                    }
                    let now = progress.borrow_and_update().clone();
                    if now.position.at_least(wanted) {
                        return true;
                    }
                    if now.state == State::Stopped {
                        return false;
                    }
                }
            };
            tokio::select! {
                reached = reached => if reached {
                    conn.close().await;
                    return Ok(());
                },
                () = async { drop(is_open.wait_for(|open| !open).await) } => {
                    return Err(VtError::new(Code::Canceled, "vreplication is closing: context canceled"));
                }
                // Somebody may have written the row past this engine, or the stream was made anew.
                () = sleep(WAIT_POLL) => {}
            }
        }
    }
}

/// Stops the streams of these rows.
async fn stop(open: &mut Open, ids: &[i64]) {
    let controllers: Vec<Controller> = ids.iter().filter_map(|id| open.controllers.remove(id)).collect();
    futures::future::join_all(controllers.into_iter().map(Controller::stop)).await;
}

/// Whether the tables are missing.
fn is_missing(error: &ClientError) -> bool {
    // Unknown database, table, column.
    matches!(error, ClientError::Server(error) if matches!(error.errno, 1049 | 1146 | 1054))
}

/// Runs a statement; when the tables are not there, makes them first.
async fn run(conn: &mut Connection, sql: &str) -> Result<QueryResult> {
    let error = match conn.query(sql.as_bytes(), MAX_ROWS).await {
        Ok(result) => return Ok(result),
        Err(error) => error,
    };
    match &error {
        ClientError::Server(server) if matches!(server.errno, 1049 | 1146) => {
            tracing::info!("making the tables of filtered replication: {server}");
            for statement in CREATE {
                conn.execute(statement).await?;
            }
        }
        ClientError::Server(server) if server.errno == 1054 && server.message.contains("db_name") => {
            tracing::info!("bringing the table of filtered replication up to date: {server}");
            conn.execute(ALTER).await?;
        }
        _ => return Err(error.into()),
    }
    Ok(conn.query(sql.as_bytes(), MAX_ROWS).await?)
}

async fn ids(conn: &mut Connection, select: &str) -> Result<Vec<i64>> {
    let result = run(conn, select).await?;
    let id = |row| {
        let cell = cells(row).first().copied().flatten()?;
        std::str::from_utf8(cell).ok()?.parse().ok()
    };
    Ok(result.rows.iter().filter_map(id).collect())
}

/// The ids that an insert was given: consecutive, in steps of the server's choice.
async fn new_ids(conn: &mut Connection, result: &QueryResult) -> Result<Vec<i64>> {
    let first = i64::try_from(result.insert_id).unwrap_or(0);
    if first == 0 {
        return Err(VtError::new(Code::Internal, "insert failed to generate an id"));
    }
    let step = first_number(&conn.execute("select @@session.auto_increment_increment").await?).unwrap_or(1).max(1);
    let count = i64::try_from(result.rows_affected).unwrap_or(1);
    Ok((0..count).map(|n| first + n * step).collect())
}

async fn delete(conn: &mut Connection, ids: &[i64]) -> Result<QueryResult> {
    let ids = id_list(ids);
    // Where the table of copies is missing it is made before, for that would end the transaction.
    run(conn, "select 1 from _vt.copy_state limit 1").await?;
    conn.execute("begin").await?;
    let done = async {
        let result = conn.execute(&format!("delete from _vt.vreplication where id in ({ids})")).await?;
        conn.execute(&format!("delete from _vt.copy_state where vrepl_id in ({ids})")).await?;
        conn.execute("commit").await?;
        Ok::<_, ClientError>(result)
    };
    let result = done.await;
    if result.is_err() && !conn.is_broken() {
        conn.execute("rollback").await?;
    }
    Ok(result?)
}
