//! Replication lag measured by heartbeats: the master writes the time into `_vt.heartbeat`, replicas
//! read what has reached them.
//!
//! Owns: writing, reading, the lag last seen and its variables. Does not own what follows from the lag
//! (`tabletmanager`). Layout of the table as in Vitess, so that tablets of both kinds can be mixed.
//! Invariants: a heartbeat has one connection, outside the pools; a statement that takes longer than an
//! interval is killed, so that none piles up behind a commit that waits for replicas.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, SystemTime};

use servenv::stats::{Counter, Gauge, Registry};
use vtproto::topodata::TabletType;

use super::conn::DbConn;
use super::error::ExecError;
use super::live::lock;
use super::schema::first_cell;
use super::server::{Core, TabletServer, TxMode};
use super::stats::nanos;

/// A heartbeat that takes longer is given up, even if the interval is shorter.
const LEAST_LIMIT: Duration = Duration::from_secs(1);
/// Bound on making the table.
const TABLE_LIMIT: Duration = Duration::from_secs(10);

const TABLE: [&str; 2] = [
    "create database if not exists _vt",
    "create table if not exists _vt.heartbeat(keyspaceShard varbinary(256) not null primary key, \
     tabletUid int unsigned not null, ts bigint unsigned not null) engine=InnoDB",
];

/// What a replica last read.
pub type Lag = Result<Duration, String>;

/// See the module.
#[derive(Debug)]
pub struct Heartbeat {
    enabled: bool,
    /// `None` before the first reading, and for a master.
    last: Mutex<Option<Lag>>,
    writes: Counter,
    write_errors: Counter,
    reads: Counter,
    read_errors: Counter,
    current_lag: Gauge,
    cumulative_lag: Counter,
}

impl Heartbeat {
    pub fn new(enabled: bool, registry: &Registry) -> Self {
        Self {
            enabled,
            last: Mutex::default(),
            writes: registry.counter("HeartbeatWrites", "Heartbeats written"),
            write_errors: registry.counter("HeartbeatWriteErrors", "Heartbeats that could not be written"),
            reads: registry.counter("HeartbeatReads", "Heartbeats read"),
            read_errors: registry.counter("HeartbeatReadErrors", "Heartbeats that could not be read"),
            current_lag: registry.gauge("HeartbeatCurrentLagNs", "Lag that the last heartbeat measured"),
            cumulative_lag: registry.counter("HeartbeatCumulativeLagNs", "Sum of the lags that heartbeats measured"),
        }
    }

    pub fn is_on(&self) -> bool {
        self.enabled
    }

    /// The lag of a replica, or why it is not known. `None` when heartbeats are off, for a master, and
    /// before the first reading.
    pub fn lag(&self) -> Option<Lag> {
        lock(&self.last).clone()
    }

    fn keep(&self, lag: Option<Lag>) {
        *lock(&self.last) = lag;
    }
}

/// Writes and reads heartbeats until the service is gone.
pub(super) async fn run(core: Weak<Core>, interval: Duration) {
    let mut tick = tokio::time::interval(interval);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut conn = None;
    // The term in which the table is known to be there.
    let mut writing = false;
    loop {
        tick.tick().await;
        let Some(core) = core.upgrade() else { return };
        let server = TabletServer::from_core(core);
        if server.target().tablet_type() == TabletType::Master {
            server.heartbeat.keep(None);
            server.heartbeat.current_lag.set(0);
            if !server.is_serving() || server.tx_mode() != TxMode::ReadWrite {
                (conn, writing) = (None, false);
                continue;
            }
            match write(&server, &mut conn, !writing, interval).await {
                Ok(()) => {
                    writing = true;
                    server.heartbeat.writes.inc();
                }
                Err(error) => {
                    tracing::warn!("heartbeat not written: {error}");
                    server.heartbeat.write_errors.inc();
                    (conn, writing) = (None, false);
                }
            }
        } else {
            writing = false;
            match read(&server, &mut conn, interval).await {
                Ok(lag) => {
                    server.heartbeat.reads.inc();
                    server.heartbeat.current_lag.set(nanos(lag));
                    server.heartbeat.cumulative_lag.add(nanos(lag));
                    server.heartbeat.keep(Some(Ok(lag)));
                }
                Err(error) => {
                    tracing::debug!("heartbeat not read: {error}");
                    server.heartbeat.read_errors.inc();
                    server.heartbeat.keep(Some(Err(error)));
                    conn = None;
                }
            }
        }
    }
}

async fn connection<'a>(server: &TabletServer, conn: &'a mut Option<DbConn>) -> Result<&'a mut DbConn, ExecError> {
    if conn.as_ref().is_none_or(DbConn::is_broken) {
        *conn = None;
        // Without a database: a replica may not have its own yet.
        let params = mysql::ConnectParams { db_name: String::new(), ..server.config.app.clone() };
        let label: Arc<str> = "Heartbeat".into();
        let fresh = tokio::time::timeout(LEAST_LIMIT, DbConn::connect(&params, &server.live, label)).await;
        *conn = Some(fresh.map_err(|_| ExecError::new(vterrors::Code::DeadlineExceeded, "mysqld does not answer"))??);
    }
    conn.as_mut().ok_or_else(|| ExecError::new(vterrors::Code::Unavailable, "not connected to mysqld"))
}

fn limit(interval: Duration) -> Duration {
    interval.max(LEAST_LIMIT)
}

async fn write(
    server: &TabletServer,
    conn: &mut Option<DbConn>,
    new_term: bool,
    interval: Duration,
) -> Result<(), ExecError> {
    let conn = connection(server, conn).await?;
    if new_term {
        for statement in TABLE {
            conn.run(statement, TABLE_LIMIT).await?;
        }
    }
    let sql = format!(
        "insert into _vt.heartbeat (ts, tabletUid, keyspaceShard) values ({}, {}, {}) \
         on duplicate key update ts = values(ts), tabletUid = values(tabletUid)",
        now_nanos(),
        server.config.uid,
        key(server)
    );
    conn.run(&sql, limit(interval)).await.map(drop)
}

async fn read(server: &TabletServer, conn: &mut Option<DbConn>, interval: Duration) -> Result<Duration, String> {
    let sql = format!("select ts from _vt.heartbeat where keyspaceShard = {}", key(server));
    let answer = async { connection(server, conn).await?.run(&sql, limit(interval)).await };
    let answer = answer.await.map_err(|error| error.to_string())?;
    let Some(cell) = first_cell(&answer) else {
        return Err(format!("no heartbeat of {} has arrived", key(server)));
    };
    let written: u64 = cell.parse().map_err(|_| format!("a heartbeat of {cell:?}"))?;
    // Clocks differ a little: what comes from the future has no lag.
    Ok(Duration::from_nanos(now_nanos().saturating_sub(written)))
}

/// The row of this shard, as a literal.
fn key(server: &TabletServer) -> String {
    let target = server.target();
    let mut quoted = Vec::new();
    vtsql::quote_string(format!("{}:{}", target.keyspace, target.shard).as_bytes(), &mut quoted);
    String::from_utf8_lossy(&quoted).into_owned()
}

fn now_nanos() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}
