//! The connections to mysqld through which one stream is applied: its own one, and lanes beside it.
//!
//! Invariant: no two owners apply the same stream, whatever processes they belong to. Each connection holds a named lock
//! of mysqld for as long as it lives. When a tablet is killed, mysqld goes on with the text that it has received, its commit
//! included; whoever takes over gets the locks only when that is done, and reads the position after that. A lane that
//! gets its lock makes sure that its owner still has the stream's: a successor asks for them in the other order.

use std::{collections::HashMap, sync::Arc, time::Duration};

use mysql::client::{ClientError, ConnectParams, Connection, Prepared};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use vterrors::{Code, MysqlError, VtError};
use vtproto::{binlogdata::Charset, query::QueryResult};

use super::batch::Session;
use super::merge::{self, Keys};
use super::row::{StreamRow, first_number, quoted};
use super::script::{Part, Script};

/// How long a text that runs when the stream is stopped may still take before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How long the lock of a connection that should be gone is waited for at a time, seconds.
const LOCK_WAIT_SECONDS: u32 = 2;
/// How long another process is left to go by itself before its connection is killed, in such waits.
const PATIENCE: u32 = 2;
/// Connections beside the stream's own, and so the transactions that run at once.
pub(super) const LANES: usize = 2;
/// How long a lane waits for a lock of a row, seconds: the one before it may wait for this one without mysqld knowing.
const LANE_LOCK_WAIT: u32 = 2;
/// Statements that a connection keeps prepared: all connections together have a bound in mysqld
/// (`max_prepared_stmt_count`, 16,382).
const MAX_PREPARED: usize = 100;
/// The collation `utf8mb4_general_ci`, which every server has.
const UTF8MB4: i32 = 45;

/// Row images have to arrive as they left: every date that a source may hold passes, zero in an AUTO_INCREMENT column
/// stays zero, but what would be changed on the way in is an error instead. Foreign keys are checked, because mysqld
/// leaves cascading deletes out of the binary log and only cascades where it checks.
const SESSION: &str = "set session sql_mode = 'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION', \
                       time_zone = '+00:00', autocommit = 1, foreign_key_checks = 1, unique_checks = 1, \
                       sql_auto_is_null = 0, sql_safe_updates = 0, wait_timeout = 31536000";

const READ_COMMITTED: &str = "set session transaction isolation level read committed";

/// Why something could not be applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error(transparent)]
    Mysql(#[from] ClientError),
    #[error(transparent)]
    Other(#[from] VtError),
    /// The stream was told to stop.
    #[error("stopped")]
    Cancelled,
}

/// Statements that a connection has prepared, by their text.
#[derive(Default)]
struct PreparedStatements(HashMap<Arc<str>, Prepared>);

impl PreparedStatements {
    async fn get(&mut self, conn: &mut Connection, sql: &Arc<str>) -> Result<Prepared, ClientError> {
        if let Some(prepared) = self.0.get(sql) {
            return Ok(*prepared);
        }
        if self.0.len() >= MAX_PREPARED {
            for (_, prepared) in self.0.drain() {
                conn.close_prepared(prepared).await?;
            }
        }
        let prepared = conn.prepare(sql.as_bytes()).await?;
        self.0.insert(sql.clone(), prepared);
        Ok(prepared)
    }
}

pub(super) struct Applier {
    conn: Connection,
    params: ConnectParams,
    id: i64,
    /// The lock that it holds.
    lock: String,
    stop: CancellationToken,
    charset: Charset,
    prepared: PreparedStatements,
    /// Transactions do not lock gaps between rows.
    read_committed: bool,
}

/// The lock of a stream's own connection.
fn lock_name(id: i64) -> String {
    format!("vreplication/{id}")
}

fn lane_lock_name(id: i64, number: usize) -> String {
    format!("vreplication/{id}/{number}")
}

impl Applier {
    /// Logs in, sets the session up and waits until no other connection applies this stream.
    pub async fn open(params: &ConnectParams, id: i64, stop: CancellationToken) -> Result<Self, ApplyError> {
        let opening = async {
            let mut conn = Connection::connect(params).await?;
            conn.execute(SESSION).await?;
            let format = text(&conn.execute("select @@global.binlog_format").await?);
            let read_committed = format.eq_ignore_ascii_case("ROW");
            if read_committed {
                // Without gap locks streams from several sources do not get into each other's way.
                conn.execute(READ_COMMITTED).await?;
            }
            let charset = charset(&mut conn).await?;
            let lock = lock_name(id);
            take_over(&mut conn, &lock).await?;
            for lane in (1..=LANES).map(|number| lane_lock_name(id, number)) {
                take_over(&mut conn, &lane).await?;
                conn.execute(&format!("select release_lock('{lane}')")).await?;
            }
            let prepared = PreparedStatements::default();
            Ok(Self { conn, params: params.clone(), id, lock, stop: stop.clone(), charset, prepared, read_committed })
        };
        stop.run_until_cancelled(opening).await.unwrap_or(Err(ApplyError::Cancelled))
    }

    /// A lane: a further connection, for transactions that run beside others. `number` is its own among them.
    pub async fn beside(&self, number: usize) -> Result<Self, ApplyError> {
        let opening = async {
            let mut conn = Connection::connect(&self.params).await?;
            conn.execute(SESSION).await?;
            conn.execute(READ_COMMITTED).await?;
            conn.execute(&format!("set session innodb_lock_wait_timeout = {LANE_LOCK_WAIT}")).await?;
            let lock = lane_lock_name(self.id, number);
            take_over(&mut conn, &lock).await?;
            let owner = conn.execute(&format!("select is_used_lock('{}')", self.lock)).await?;
            if first_number(&owner) != Some(i64::from(self.conn.thread_id())) {
                let text = format!("another connection of mysqld has the lock {}", self.lock);
                return Err(VtError::new(Code::Aborted, text).into());
            }
            let (params, stop) = (self.params.clone(), self.stop.clone());
            let prepared = PreparedStatements::default();
            Ok(Self { conn, params, id: self.id, lock, stop, charset: self.charset, prepared, read_committed: true })
        };
        self.stop.run_until_cancelled(opening).await.unwrap_or(Err(ApplyError::Cancelled))
    }

    /// Whether transactions may run beside each other: without locks of gaps, in which they would meet.
    pub fn may_have_lanes(&self) -> bool {
        self.read_committed
    }

    /// What the session's literals are read as; the source leaves it out of statements that agree.
    pub fn charset(&self) -> Charset {
        self.charset
    }

    /// What the session does with scripts.
    pub fn session(&self) -> Session {
        // Parameters are read in the character set of the client, literals say theirs.
        let utf8mb4 = matches!(self.charset.client, UTF8MB4 | 46 | 224..=247 | 255..=323);
        Session { charset: self.charset, bulk: utf8mb4 && self.conn.has_bulk() }
    }

    /// Tables whose changes may be put together.
    pub async fn independent_tables(&mut self, db_name: &str) -> Result<Keys, ApplyError> {
        let results = self.run(merge::select_independent_tables(db_name).as_bytes()).await?;
        Ok(merge::independent_tables(&results))
    }

    /// The tables of a database, without views.
    pub async fn table_names(&mut self, db_name: &str) -> Result<Vec<String>, ApplyError> {
        let sql = format!(
            "select table_name from information_schema.tables where table_schema = {} and table_type = 'BASE TABLE'",
            quoted(db_name.as_bytes())
        );
        let results = self.run(sql.as_bytes()).await?;
        let rows = results.iter().flat_map(|result| &result.rows);
        Ok(rows.map(|row| String::from_utf8_lossy(&row.values).into_owned()).collect())
    }

    pub async fn row(&mut self, db_name: &str) -> Result<Option<StreamRow>, ApplyError> {
        let results = self.run(StreamRow::select_one(self.id, db_name).as_bytes()).await?;
        let rows = results.first().map(StreamRow::read_all).transpose()?.unwrap_or_default();
        Ok(rows.into_iter().next())
    }

    /// Runs a text of several statements, one result each. When the stream is stopped meanwhile it may end, but not take
    /// long; then it is killed, and what it did rolled back.
    pub async fn run(&mut self, text: &[u8]) -> Result<Vec<QueryResult>, ApplyError> {
        self.in_time(async |conn, _| conn.query_multi(text, usize::MAX).await).await
    }

    /// The same of a script. It ends at the first error.
    pub async fn run_script(&mut self, script: &Script) -> Result<Vec<QueryResult>, ApplyError> {
        let run = async |conn: &mut Connection, prepared: &mut PreparedStatements| {
            let mut results = Vec::new();
            for part in script.parts() {
                match part {
                    Part::Text(text) => results.extend(conn.query_multi(text, usize::MAX).await?),
                    Part::Bulk(bulk) => {
                        let statement = prepared.get(conn, &bulk.sql).await?;
                        results.push(conn.execute_bulk(statement, &bulk.rows).await?);
                    }
                }
            }
            Ok(results)
        };
        self.in_time(run).await
    }

    /// Runs what `run` does; see [`Self::run`].
    async fn in_time(
        &mut self,
        run: impl AsyncFnOnce(&mut Connection, &mut PreparedStatements) -> Result<Vec<QueryResult>, ClientError>,
    ) -> Result<Vec<QueryResult>, ApplyError> {
        if self.conn.is_broken() {
            return Err(ApplyError::Cancelled);
        }
        let overdue = async {
            self.stop.cancelled().await;
            sleep(GRACE).await;
        };
        let outcome = tokio::select! {
            outcome = run(&mut self.conn, &mut self.prepared) => Some(outcome),
            () = overdue => None,
        };
        match outcome {
            Some(outcome) => Ok(outcome?),
            None => {
                self.kill().await;
                Err(ApplyError::Cancelled)
            }
        }
    }

    /// Whether the connection has to be opened anew.
    pub fn is_lost(&self) -> bool {
        self.conn.is_broken()
    }

    pub async fn close(self) {
        if !self.conn.is_broken() {
            // The lock is free when mysqld has read the goodbye, which the next one waits for.
            self.conn.close().await;
        }
    }

    /// Ends the connection at mysqld's side and waits until it is gone: afterwards nothing of it can still commit.
    async fn kill(&self) {
        let thread = self.conn.thread_id();
        let killing = async {
            let mut conn = Connection::connect(&self.params).await?;
            conn.execute(&format!("kill {thread}")).await?;
            conn.execute(&format!("select get_lock('{}', {})", self.lock, GRACE.as_secs())).await?;
            conn.close().await;
            Ok::<_, ClientError>(())
        };
        match tokio::time::timeout(GRACE * 2, killing).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(stream = self.id, "killing connection {thread} of mysqld: {error}"),
            Err(_) => tracing::warn!(stream = self.id, "connection {thread} of mysqld does not end"),
        }
    }
}

fn text(result: &QueryResult) -> String {
    result.rows.first().map_or_else(String::new, |row| String::from_utf8_lossy(&row.values).into_owned())
}

/// Takes a lock of the stream. A holder that does not go by itself is a process that lost its tablet: it is killed.
async fn take_over(conn: &mut Connection, name: &str) -> Result<(), ApplyError> {
    for tries in 1_u32.. {
        let result = conn.execute(&format!("select get_lock('{name}', {LOCK_WAIT_SECONDS})")).await?;
        match first_number(&result) {
            Some(1) => break,
            Some(_) => {}
            None => {
                return Err(VtError::new(Code::Internal, format!("mysqld does not give the lock {name}")).into());
            }
        }
        let holder = first_number(&conn.execute(&format!("select is_used_lock('{name}')")).await?);
        let Some(holder) = holder.filter(|_| tries >= PATIENCE) else { continue };
        tracing::warn!("another connection of mysqld ({holder}) still has the lock {name}, killing it");
        match conn.execute(&format!("kill {holder}")).await {
            // It has gone by itself.
            Err(error) if error.errno() == 1094 => {}
            done => drop(done?),
        }
    }
    Ok(())
}

/// The ids of the session's character sets, as they stand in requests and in the binary log.
async fn charset(conn: &mut Connection) -> Result<Charset, ClientError> {
    let result = conn
        .execute(
            "select c.id, n.id, s.id from \
             (select max(id) as id from information_schema.collations where collation_name = \
               (select default_collate_name from information_schema.character_sets \
                 where character_set_name = @@session.character_set_client)) c, \
             (select max(id) as id from information_schema.collations \
               where collation_name = @@session.collation_connection) n, \
             (select max(id) as id from information_schema.collations \
               where collation_name = @@session.collation_server) s",
        )
        .await?;
    let cells = result.rows.first().map(super::row::cells).unwrap_or_default();
    let id = |at: usize| {
        let text = std::str::from_utf8((*cells.get(at)?)?).ok()?;
        text.parse().ok()
    };
    // MariaDB's newest collations have a number only together with a character set.
    Ok(Charset { client: id(0).unwrap_or(UTF8MB4), conn: id(1).unwrap_or(UTF8MB4), server: id(2).unwrap_or(UTF8MB4) })
}

/// Errors of mysqld after which the same transaction may well succeed.
pub(super) fn is_transient(error: &MysqlError) -> bool {
    // Lock wait timeout, deadlock, snapshot conflict (MariaDB), rollback at commit (group replication).
    matches!(error.errno, 1205 | 1213 | 1020 | 3101)
}

/// A row that refers to one that is not here, or the other way round.
pub(super) fn is_foreign_key(error: &MysqlError) -> bool {
    matches!(error.errno, 1216 | 1217 | 1451 | 1452)
}
