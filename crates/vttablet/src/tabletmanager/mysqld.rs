//! The tablet's mysqld as its manager uses it: administration over short-lived connections, each call bounded.
//!
//! Owns: who logs in how, how many connections are open at once, and the time limits. The statements of the different
//! servers are `mysql::admin`'s. Connections by socket cost less than a millisecond, so none is kept: what one action set
//! in its session cannot reach another.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mysql::{
    admin::{self, AdminError},
    client::{ClientError, ConnectParams, Connection},
    replication::{Position, ReplicationSource, SlaveStatus},
};
use servenv::{Registry, stats::MultiTimings};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout, timeout_at},
};
use vterrors::{Code, MysqlError, Result, VtError};

/// Bound of one administrative command. Switching read_only on may have to wait for a running commit.
const COMMAND_LIMIT: Duration = Duration::from_secs(30);
/// mysqld has no such database, or no such table in it.
const UNKNOWN_DATABASE: u16 = 1049;
const NO_SUCH_TABLE: u16 = 1146;
/// How often a replica looks whether a row has arrived.
const JOURNAL_POLL: Duration = Duration::from_millis(100);

/// Who logs in, and with what.
#[derive(Debug, Clone)]
pub struct Logins {
    pub dba: ConnectParams,
    pub app: ConnectParams,
    pub allprivs: ConnectParams,
    /// The account that replicas use at their master.
    pub replication_user: String,
    pub replication_password: String,
    pub replication_ssl: bool,
    /// `-master_connect_retry`.
    pub connect_retry: Duration,
    /// `-dba_pool_size`, `-app_pool_size`: connections open at once.
    pub dba_limit: usize,
    pub app_limit: usize,
}

/// The mysqld beside this tablet. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Mysqld {
    logins: Arc<Logins>,
    dba: Arc<Limit>,
    app: Arc<Limit>,
    /// How long connecting took, as dba, app and allprivs.
    connects: [MultiTimings; 3],
}

/// How many connections of a kind may be open at once, and how often somebody had to wait.
#[derive(Debug)]
struct Limit {
    free: Arc<Semaphore>,
    capacity: usize,
    waits: AtomicU64,
    wait_nanos: AtomicU64,
}

/// A connection that counts against its limit until it is dropped.
pub struct Lease {
    conn: Connection,
    _permit: OwnedSemaphorePermit,
}

impl Deref for Lease {
    type Target = Connection;
    fn deref(&self) -> &Connection {
        &self.conn
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.conn
    }
}

/// How one of the connection limits is used, for metrics.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    pub capacity: usize,
    pub in_use: usize,
    /// Times that every connection was in use and somebody waited.
    pub waits: u64,
    pub waited: Duration,
}

impl Mysqld {
    pub fn new(logins: Logins, registry: &Registry) -> Self {
        let connects = ["MysqlDba", "MysqlApp", "MysqlAllPrivs"]
            .map(|name| registry.timings(name, "Connections made by the tablet manager", "operation"));
        Self {
            dba: Arc::new(Limit::new(logins.dba_limit)),
            app: Arc::new(Limit::new(logins.app_limit)),
            logins: Arc::new(logins),
            connects,
        }
    }

    pub fn dba_usage(&self) -> Usage {
        self.dba.usage()
    }

    pub fn app_usage(&self) -> Usage {
        self.app.usage()
    }

    /// A connection with all rights.
    pub async fn dba(&self) -> Result<Lease, ClientError> {
        self.dba.lease(&self.logins.dba, "dba", &self.connects[0]).await
    }

    /// A connection with an application's rights and no database.
    pub async fn app(&self) -> Result<Lease, ClientError> {
        self.app.lease(&self.logins.app, "app", &self.connects[1]).await
    }

    pub async fn allprivs(&self) -> Result<Lease, ClientError> {
        self.dba.lease(&self.logins.allprivs, "allprivs", &self.connects[2]).await
    }

    /// Runs administrative statements in one session; results are dropped.
    pub async fn run(&self, statements: &[&str]) -> Result<()> {
        bounded("statements", COMMAND_LIMIT, async {
            let mut conn = self.dba().await?;
            for statement in statements {
                conn.execute(statement).await?;
            }
            Ok(())
        })
        .await
        .map_err(VtError::from)
    }

    /// Makes the `_vt` tables on this server alone.
    pub async fn ensure_sidecar(&self) -> Result<()> {
        bounded("creating the _vt tables", COMMAND_LIMIT, async {
            Ok(mysql::sidecar::ensure(&mut *self.dba().await?).await?)
        })
        .await
        .map_err(VtError::from)
    }

    /// The value of one numeric status variable.
    pub async fn status_number(&self, name: &str) -> Result<u64> {
        let sql = format!("SHOW GLOBAL STATUS LIKE '{name}'");
        let result =
            bounded("reading a status variable", COMMAND_LIMIT, async { Ok(self.dba().await?.execute(&sql).await?) })
                .await?;
        cell(&result, 1)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| VtError::new(Code::Internal, format!("mysqld has no status variable {name}")))
    }

    /// The TCP port mysqld listens on.
    pub async fn port(&self) -> Result<i32> {
        let result = bounded("reading the port", COMMAND_LIMIT, async {
            Ok(self.dba().await?.execute("SELECT @@global.port").await?)
        })
        .await?;
        cell(&result, 0)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| VtError::new(Code::Internal, "mysqld does not say its port"))
    }

    pub async fn slave_status(&self) -> Result<SlaveStatus, AdminError> {
        bounded("reading the replication status", COMMAND_LIMIT, async {
            admin::slave_status(&mut *self.dba().await?).await
        })
        .await
    }

    pub async fn master_position(&self) -> Result<Position> {
        bounded("reading the position", COMMAND_LIMIT, async { admin::master_position(&mut *self.dba().await?).await })
            .await
            .map_err(VtError::from)
    }

    /// Waits until replication has applied `position`, at most until `deadline`.
    pub async fn wait_for_position(&self, position: &Position, deadline: Instant) -> Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        // The server watches the clock too; ours only catches a server that is silent.
        bounded("waiting for a position", left + Duration::from_secs(5), async {
            admin::wait_for_position(&mut *self.dba().await?, position, left).await
        })
        .await
        .map_err(VtError::from)
    }

    pub async fn reset_replication(&self) -> Result<()> {
        bounded("resetting replication", COMMAND_LIMIT, async {
            admin::reset_replication(&mut *self.dba().await?).await
        })
        .await
        .map_err(VtError::from)
    }

    pub async fn set_slave_position(&self, position: &Position) -> Result<()> {
        bounded("setting the replication position", COMMAND_LIMIT, async {
            admin::set_slave_position(&mut *self.dba().await?, position).await
        })
        .await
        .map_err(VtError::from)
    }

    /// Points replication at a master.
    pub async fn set_master(&self, host: &str, port: i32, stop_before: bool, start_after: bool) -> Result<()> {
        let source = ReplicationSource {
            host: host.to_owned(),
            port: u16::try_from(port)
                .map_err(|_| VtError::new(Code::InvalidArgument, format!("{port} is not a MySQL port")))?,
            user: self.logins.replication_user.clone(),
            password: self.logins.replication_password.clone(),
            connect_retry: self.logins.connect_retry,
            ssl: self.logins.replication_ssl,
        };
        bounded("changing the master", COMMAND_LIMIT, async {
            admin::set_master(&mut *self.dba().await?, &source, stop_before, start_after).await
        })
        .await
        .map_err(VtError::from)
    }

    pub async fn start_slave(&self) -> Result<()> {
        bounded("starting replication", COMMAND_LIMIT, async { admin::start_slave(&mut *self.dba().await?).await })
            .await
            .map_err(VtError::from)
    }

    pub async fn stop_slave(&self) -> Result<()> {
        bounded("stopping replication", COMMAND_LIMIT, async { admin::stop_slave(&mut *self.dba().await?).await })
            .await
            .map_err(VtError::from)
    }

    pub async fn restart_slave(&self) -> Result<()> {
        bounded("restarting replication", COMMAND_LIMIT, async { admin::restart_slave(&mut *self.dba().await?).await })
            .await
            .map_err(VtError::from)
    }

    pub async fn start_slave_until_after(&self, position: &Position, deadline: Instant) -> Result<()> {
        bounded("replicating until a position", deadline.saturating_duration_since(Instant::now()), async {
            admin::start_slave_until_after(&mut *self.dba().await?, position).await
        })
        .await
        .map_err(VtError::from)
    }

    /// Ends being a replica; the position then.
    pub async fn promote(&self) -> Result<Position> {
        bounded("promoting", COMMAND_LIMIT, async { admin::promote(&mut *self.dba().await?).await })
            .await
            .map_err(VtError::from)
    }

    pub async fn is_read_only(&self) -> Result<bool> {
        bounded("reading read_only", COMMAND_LIMIT, async { admin::is_read_only(&mut *self.dba().await?).await })
            .await
            .map_err(VtError::from)
    }

    pub async fn set_read_only(&self, on: bool) -> Result<()> {
        bounded("setting read_only", COMMAND_LIMIT, async { admin::set_read_only(&mut *self.dba().await?, on).await })
            .await
            .map_err(VtError::from)
    }

    /// Makes mysqld refuse writes within `limit`, or leaves it as it was: a server with running writes may
    /// not get the lock that it needs, and must not get it later.
    pub async fn fence(&self, limit: Duration) -> Result<()> {
        let mut conn = self.dba().await?;
        let thread = conn.thread_id();
        let fence = async {
            admin::set_read_only(&mut conn, true).await?;
            // MariaDB has none.
            match admin::set_super_read_only(&mut conn, true).await {
                Err(AdminError::Client(error)) if error.errno() == 1193 => Ok(()),
                outcome => outcome,
            }
        };
        let failure = match timeout(limit, fence).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => VtError::from(error),
            Err(_) => {
                let kill = format!("KILL {thread}");
                if let Err(error) = self.run(&[&kill]).await {
                    tracing::info!("{kill}: {error}");
                }
                let text = format!("mysqld did not become read-only within {} ms", limit.as_millis());
                VtError::new(Code::DeadlineExceeded, text)
            }
        };
        self.set_read_only(false).await?;
        Err(failure)
    }

    /// Refuses writes of everybody, where the server can; otherwise of everybody without SUPER.
    pub async fn set_super_read_only(&self) -> Result<()> {
        let done = bounded("setting super_read_only", COMMAND_LIMIT, async {
            admin::set_super_read_only(&mut *self.dba().await?, true).await
        })
        .await;
        match done {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::info!("super_read_only is not to be had ({error}), setting read_only");
                self.set_read_only(true).await
            }
        }
    }

    pub async fn set_semi_sync(&self, master: bool, replica: bool) -> Result<()> {
        bounded("setting semi-sync", COMMAND_LIMIT, async {
            admin::set_semi_sync(&mut *self.dba().await?, master, replica).await
        })
        .await
        .map_err(VtError::from)
    }

    /// Whether the running replica acknowledges what it receives.
    pub async fn acknowledges(&self) -> Result<bool> {
        bounded("reading semi-sync", COMMAND_LIMIT, async {
            admin::semi_sync_slave_status(&mut *self.dba().await?).await
        })
        .await
        .map_err(VtError::from)
    }

    /// Whether this server has been part of a shard with an elected master: the journal names each election.
    pub async fn knows_a_reparent(&self) -> Result<bool> {
        let sql = "SELECT 1 FROM _vt.reparent_journal LIMIT 1";
        let found =
            bounded("reading the reparent journal", COMMAND_LIMIT, async { Ok(self.dba().await?.execute(sql).await?) });
        match found.await {
            Ok(result) => Ok(!result.rows.is_empty()),
            Err(AdminError::Client(error)) if matches!(error.errno(), UNKNOWN_DATABASE | NO_SUCH_TABLE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the journal row of a reparent has arrived. Ends early when replication has stopped on an error: the
    /// row is not going to come.
    pub async fn wait_for_reparent_journal(&self, time_created_ns: i64, deadline: Instant) -> Result<()> {
        let sql = format!("SELECT action_name FROM _vt.reparent_journal WHERE time_created_ns = {time_created_ns}");
        loop {
            let found = timeout_at(deadline, async { self.dba().await?.execute(&sql).await }).await;
            match found {
                Ok(Ok(result)) if !result.rows.is_empty() => return Ok(()),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => tracing::info!("reparent journal: {error}"),
                Err(_) => break,
            }
            if let Ok(status) = self.slave_status().await
                && !status.last_sql_error.is_empty()
                && !status.sql_running
            {
                return Err(VtError::new(
                    Code::Unknown,
                    format!("replication stopped before the reparent journal row arrived: {}", status.last_sql_error),
                ));
            }
            if timeout_at(deadline, sleep(JOURNAL_POLL)).await.is_err() {
                break;
            }
        }
        let status = match self.slave_status().await {
            Ok(status) if !status.last_io_error.is_empty() => format!(": {}", status.last_io_error),
            Ok(status) if !status.io_running => ": replication is not running".to_owned(),
            Ok(_) => String::new(),
            Err(error) => format!(": {error}"),
        };
        Err(VtError::new(
            Code::DeadlineExceeded,
            format!("the reparent journal row did not arrive in time (context deadline exceeded){status}"),
        ))
    }
}

/// One cell of the first row as text.
pub fn cell(result: &vtproto::query::QueryResult, column: usize) -> Option<String> {
    cells(result.rows.first()?).into_iter().nth(column).flatten()
}

/// The cells of a row as text; `None` is NULL.
pub fn cells(row: &vtproto::query::Row) -> Vec<Option<String>> {
    let mut at = 0;
    row.lengths
        .iter()
        .map(|length| {
            let length = usize::try_from(*length).ok()?;
            let end = (at + length).min(row.values.len());
            let text = String::from_utf8_lossy(&row.values[at.min(end)..end]).into_owned();
            at = end;
            Some(text)
        })
        .collect()
}

/// An identifier in backquotes.
pub fn escape_id(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text as a string literal.
pub fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

impl Limit {
    fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        let (waits, wait_nanos) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { free: Arc::new(Semaphore::new(capacity)), capacity, waits, wait_nanos }
    }

    fn usage(&self) -> Usage {
        Usage {
            capacity: self.capacity,
            in_use: self.capacity.saturating_sub(self.free.available_permits()),
            waits: self.waits.load(Ordering::Relaxed),
            waited: Duration::from_nanos(self.wait_nanos.load(Ordering::Relaxed)),
        }
    }

    async fn lease(&self, params: &ConnectParams, who: &str, connects: &MultiTimings) -> Result<Lease, ClientError> {
        let permit = match self.free.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait(who).await?,
        };
        let started = Instant::now();
        let conn = Connection::connect(params).await?;
        connects.record(&["Connect"], started.elapsed());
        Ok(Lease { conn, _permit: permit })
    }

    async fn wait(&self, who: &str) -> Result<OwnedSemaphorePermit, ClientError> {
        let started = Instant::now();
        self.waits.fetch_add(1, Ordering::Relaxed);
        let outcome = timeout(COMMAND_LIMIT, self.free.clone().acquire_owned()).await;
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.wait_nanos.fetch_add(nanos, Ordering::Relaxed);
        let reason = match outcome {
            Ok(Ok(permit)) => return Ok(permit),
            Ok(Err(_)) => "closed",
            Err(_) => "waited 30 s",
        };
        let text = format!("no {who} connection is free: {reason}");
        Err(ClientError::Server(MysqlError::new(1203, "42000", text)))
    }
}

/// Gives up on a server that is silent. Dropping the future closes its connection.
async fn bounded<T>(
    what: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, AdminError>>,
) -> Result<T, AdminError> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => {
            let text = format!("{what}: mysqld gave no answer within {} s", limit.as_secs());
            Err(ClientError::Connection(MysqlError::new(2013, "HY000", text)).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_by_their_lengths() {
        let row = vtproto::query::Row { lengths: vec![1, -1, 2, 0], values: "abc".into() };
        assert_eq!(cells(&row), [Some("a".to_owned()), None, Some("bc".to_owned()), Some(String::new())]);
    }

    #[test]
    fn names_and_texts_are_quoted() {
        assert_eq!(escape_id("a`b"), "`a``b`");
        assert_eq!(quote(r"it's\n"), r"'it''s\\n'");
    }
}
