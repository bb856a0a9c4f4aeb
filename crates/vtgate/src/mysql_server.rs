//! The commands of MySQL clients, run by the executor.
//!
//! Owns: one session per connection, the choice between whole and streamed results, and what a
//! client sees of an error. Does not own: packets and logins (crate `mysql`).
//! Invariants: a statement whose client has gone is cancelled; an open transaction never outlives its
//! connection; an idle connection holds its session and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use mysql::{
    constants::status,
    raw_rows,
    server::{ConnectionInfo, Handler, HandlerError, OkInfo, Prepared, ResultWriter},
};
use servenv::{
    Registry,
    stats::{Counter, Gauge, Histogram, MultiGauge},
};
use tabletclient::{ResultStream, RowSink};
use vterrors::{Code, MysqlError, VtError};
use vtproto::{
    query::{BindVariable, Field, QueryResult, VtGateCallerId, execute_options::Workload},
    vtrpc::CallerId,
};
use vtsql::StatementKind;

use crate::{
    caller::Caller,
    executor::{Executor, Output, no_variables},
    session::Session,
};

/// Third part of the effective caller id of every MySQL client.
const SUBCOMPONENT: &str = "VTGate MySQL Connector";

/// What the server counts of connections.
#[derive(Clone)]
struct ConnectionStats {
    open: Gauge,
    accepted: Counter,
    per_user: MultiGauge,
    by_tls: MultiGauge,
}

impl ConnectionStats {
    fn new(registry: &Registry) -> Self {
        Self {
            open: registry.gauge("MysqlServerConnCount", "Active MySQL server connections"),
            accepted: registry.counter("MysqlServerConnAccepted", "Connections accepted by MySQL server"),
            per_user: registry.multi_gauge(
                "MysqlServerConnCountPerUser",
                "Active MySQL server connections per user",
                &["count"],
            ),
            by_tls: registry.multi_gauge(
                "MysqlServerConnCountByTLSVer",
                "Active MySQL server connections by TLS version",
                &["tls"],
            ),
        }
    }

    fn connected(&self, user: &str, tls: bool, by: i64) {
        self.open.add(by);
        self.per_user.add(&[user], by);
        self.by_tls.add(&[if tls { "TLS" } else { "None" }], by);
    }
}

/// A connection's state between commands.
pub struct Connection {
    session: Session,
    caller: Caller,
    user: String,
    tls: bool,
    client_found_rows: bool,
    /// When the statement before ended.
    idle_since: Option<Instant>,
}

/// Writes the rows of a large result to the client as they arrive, while its statement runs.
struct ClientRows<'a, 'w> {
    written: tokio::sync::Mutex<Written<'a, 'w>>,
    begun: AtomicBool,
}

struct Written<'a, 'w> {
    out: &'a mut ResultWriter<'w>,
    /// How long the client took.
    took: Duration,
    /// The client, or its connection, does not take any more.
    failed: Option<io::Error>,
}

impl<'a, 'w> ClientRows<'a, 'w> {
    fn new(out: &'a mut ResultWriter<'w>) -> Self {
        let written = Written { out, took: Duration::ZERO, failed: None };
        Self { written: tokio::sync::Mutex::new(written), begun: AtomicBool::new(false) }
    }

    fn into_written(self) -> Written<'a, 'w> {
        self.written.into_inner()
    }
}

impl Written<'_, '_> {
    async fn piece(&mut self, piece: &QueryResult) -> io::Result<()> {
        if !self.out.started() {
            self.out.start(&piece.fields).await?;
        }
        self.out.raw_part(&piece.raw_rows).await?;
        self.out.rows(&piece.rows).await
    }
}

#[async_trait::async_trait]
impl RowSink for ClientRows<'_, '_> {
    async fn piece(&self, piece: QueryResult) -> vterrors::Result<()> {
        self.begun.store(true, Ordering::Relaxed);
        let mut written = self.written.lock().await;
        let started = Instant::now();
        let outcome = written.piece(&piece).await;
        written.took += started.elapsed();
        if let Err(error) = outcome {
            written.failed = Some(error);
            return Err(crate::executor::interrupted());
        }
        Ok(())
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }
}

/// Runs commands of MySQL connections.
pub struct MysqlHandler {
    executor: Executor,
    stats: ConnectionStats,
    /// `MysqlServerTimings` of statements.
    query_timings: Arc<Histogram>,
    started: Instant,
}

impl MysqlHandler {
    pub fn new(executor: Executor, registry: &Registry) -> Self {
        let timings = registry.timings("MysqlServerTimings", "MySQL server timings", "operation");
        Self {
            executor,
            stats: ConnectionStats::new(registry),
            query_timings: timings.handle(&["Query"]),
            started: Instant::now(),
        }
    }

    /// Connections that have logged in and not ended.
    pub fn open_connections(&self) -> i64 {
        self.stats.open.get()
    }

    fn flags(session: &Session) -> u16 {
        let mut flags = 0;
        if session.pb.autocommit {
            flags |= status::AUTOCOMMIT;
        }
        if session.in_transaction() {
            flags |= status::IN_TRANS;
        }
        flags
    }

    fn warnings(session: &Session) -> u16 {
        u16::try_from(session.pb.warnings.len()).unwrap_or(u16::MAX)
    }

    async fn run(
        &self,
        connection: &mut Connection,
        sql: &[u8],
        bind_variables: &BTreeMap<String, BindVariable>,
        out: &mut ResultWriter<'_>,
    ) -> Result<(), HandlerError> {
        connection.caller.cancelled = out.cancelled().clone();
        let started = Instant::now();
        if let Some(idle_since) = connection.idle_since {
            self.executor.parts().stats.client_phase.record(started.duration_since(idle_since));
        }
        let outcome = self.run_timed(connection, sql, bind_variables, out).await;
        let ended = Instant::now();
        self.query_timings.record(ended.duration_since(started));
        connection.idle_since = Some(ended);
        // The token holds on to the command's state, and an idle connection should not.
        connection.caller.cancelled = Default::default();
        outcome
    }

    async fn run_timed(
        &self,
        connection: &mut Connection,
        sql: &[u8],
        bind_variables: &BTreeMap<String, BindVariable>,
        out: &mut ResultWriter<'_>,
    ) -> Result<(), HandlerError> {
        let Connection { session, caller, .. } = connection;
        let olap = session.pb.options.as_ref().is_some_and(|options| options.workload() == Workload::Olap);
        let output = if olap {
            self.executor.stream(caller, session, "StreamExecute", sql, bind_variables, true).await?
        } else {
            let client = ClientRows::new(out);
            let outcome = self.executor.execute_raw(caller, session, "Execute", sql, bind_variables, &client).await;
            let Written { took, failed, .. } = client.into_written();
            if let Some(lost) = failed {
                return Err(HandlerError::Io(lost));
            }
            let result = outcome?;
            if out.started() {
                return self.last_rows(session, &result, took, out).await;
            }
            Output::Whole(result)
        };
        let rows = match output {
            Output::Whole(result) => return self.whole(session, &result, out).await,
            Output::Rows(rows) => rows,
        };
        let outcome = self.stream(session, rows, out).await;
        if outcome.is_ok() || session.all_shard_sessions().next().is_none() {
            return outcome;
        }
        // A tablet whose rows are not read to their end closes the connection that they come from, and the transaction
        // with it.
        self.executor.transactions().rollback(caller, session).await;
        outcome.map_err(|error| match error {
            HandlerError::Mysql(error) => {
                let message = format!("transaction rolled back: {}", error.message);
                HandlerError::Mysql(MysqlError { message, ..error })
            }
            lost => lost,
        })
    }

    /// Passes rows on as they arrive.
    async fn stream(
        &self,
        session: &mut Session,
        mut rows: ResultStream,
        out: &mut ResultWriter<'_>,
    ) -> Result<(), HandlerError> {
        let mut count: u64 = 0;
        let mut returning = Duration::ZERO;
        while let Some(part) = rows.next().await {
            let part = part?;
            if !out.started() {
                if part.fields.is_empty() {
                    // A statement without a result set: its first message is its OK.
                    return self.whole(session, &part, out).await;
                }
                out.start(&part.fields).await?;
            }
            count += raw_rows::count(&part) as u64;
            let started = Instant::now();
            out.rows(&part.rows).await?;
            out.raw_part(&part.raw_rows).await?;
            returning += started.elapsed();
        }
        self.executor.parts().stats.return_phase.record(returning);
        session.pb.found_rows = count;
        session.pb.row_count = -1;
        if !out.started() {
            if out.cancelled().is_cancelled() {
                return Err(crate::executor::interrupted().into());
            }
            return self.whole(session, &QueryResult::default(), out).await;
        }
        if out.cancelled().is_cancelled() {
            return Err(crate::executor::interrupted().into());
        }
        out.finish(Self::flags(session), Self::warnings(session)).await?;
        Ok(())
    }

    /// Ends a result of which the client has all rows but the last.
    async fn last_rows(
        &self,
        session: &Session,
        result: &QueryResult,
        before: Duration,
        out: &mut ResultWriter<'_>,
    ) -> Result<(), HandlerError> {
        let started = Instant::now();
        out.raw_part(&result.raw_rows).await?;
        // Of tablets that send rows taken apart.
        out.rows(&result.rows).await?;
        out.finish(Self::flags(session), Self::warnings(session)).await?;
        self.executor.parts().stats.return_phase.record(before + started.elapsed());
        Ok(())
    }

    async fn whole(
        &self,
        session: &Session,
        result: &QueryResult,
        out: &mut ResultWriter<'_>,
    ) -> Result<(), HandlerError> {
        let started = Instant::now();
        if result.fields.is_empty() {
            let info = OkInfo {
                affected_rows: result.rows_affected,
                last_insert_id: result.insert_id,
                status: Self::flags(session),
                warnings: Self::warnings(session),
                info: String::new(),
            };
            out.ok(&info).await?;
        } else {
            out.result(result, Self::flags(session), Self::warnings(session)).await?;
        }
        self.executor.parts().stats.return_phase.record(started.elapsed());
        Ok(())
    }
}

impl Handler for MysqlHandler {
    type Session = Connection;

    fn may_kill_any(&self, conn: &Connection) -> bool {
        self.executor.may_kill_any(&conn.caller)
    }

    async fn connected(&self, conn: &ConnectionInfo) -> Result<Connection, MysqlError> {
        self.stats.accepted.inc();
        self.stats.connected(&conn.user, conn.tls, 1);
        let client_found_rows = conn.client_found_rows();
        let caller = Caller {
            effective: Some(CallerId {
                principal: conn.user.clone(),
                component: conn.peer.clone(),
                subcomponent: SUBCOMPONENT.into(),
            }),
            immediate: Some(VtGateCallerId {
                username: conn.identity.user_data.clone(),
                groups: conn.identity.groups.clone(),
            }),
            remote: conn.peer.clone(),
            ..Caller::default()
        };
        Ok(Connection {
            session: Session::for_mysql(conn.id, &conn.db_name, client_found_rows),
            caller,
            user: conn.user.clone(),
            tls: conn.tls,
            client_found_rows,
            idle_since: None,
        })
    }

    async fn query(
        &self,
        connection: &mut Connection,
        sql: &[u8],
        out: &mut ResultWriter<'_>,
    ) -> Result<(), HandlerError> {
        self.run(connection, sql, &no_variables(), out).await
    }

    async fn prepare(&self, connection: &mut Connection, sql: &[u8]) -> Result<Prepared, MysqlError> {
        let normalized = vtsql::normalize(sql).map_err(|error| MysqlError::from(&self.executor.prefixed(error)))?;
        let refused = |errno: u16, state: &str, text: String| Err(MysqlError::new(errno, state, text));
        match normalized.kind {
            StatementKind::Empty => return refused(1065, "42000", "Query was empty".into()),
            StatementKind::Unknown => {
                let text = format!("unrecognized statement: {}", String::from_utf8_lossy(sql));
                let error = self.executor.prefixed(VtError::new(Code::InvalidArgument, text));
                return Err(MysqlError::from(&error));
            }
            _ => {}
        }
        let Ok(param_count) = u16::try_from(normalized.placeholders) else {
            return refused(1390, "HY000", "Prepared statement contains too many placeholders".into());
        };
        let fields = self
            .executor
            .describe(&connection.caller, &connection.session, normalized.kind, sql, normalized.placeholders)
            .await
            .map_err(|error| MysqlError::from(&error))?;
        Ok(Prepared { sql: Bytes::copy_from_slice(sql), param_count, fields })
    }

    async fn execute(
        &self,
        connection: &mut Connection,
        statement: &Prepared,
        bind_variables: BTreeMap<String, BindVariable>,
        out: &mut ResultWriter<'_>,
    ) -> Result<(), HandlerError> {
        self.run(connection, &statement.sql, &bind_variables, out).await
    }

    async fn init_db(&self, connection: &mut Connection, name: &str) -> Result<(), MysqlError> {
        let init = self.executor.init_db(&mut connection.session, name);
        init.map_err(|error| MysqlError::from(&error))
    }

    async fn reset(&self, connection: &mut Connection) -> Result<(), MysqlError> {
        self.executor.transactions().rollback(&connection.caller, &mut connection.session).await;
        let Connection { session, client_found_rows, .. } = connection;
        *session = Session::for_mysql(session.connection_id, &session.pb.target_string, *client_found_rows);
        Ok(())
    }

    async fn field_list(
        &self,
        connection: &mut Connection,
        table: &str,
        wildcard: &str,
    ) -> Result<Vec<Field>, MysqlError> {
        let sql = format!("select * from {} where 1 != 1", vtsql::quote_identifier(table));
        let Connection { session, caller, .. } = connection;
        let result = self
            .executor
            .execute(caller, session, "Execute", sql.as_bytes(), &no_variables())
            .await
            .map_err(|error| MysqlError::from(&error))?;
        let mut fields = result.fields;
        if !wildcard.is_empty() {
            fields.retain(|field| crate::executor::like(wildcard, &field.name));
        }
        Ok(fields)
    }

    fn split<'a>(&self, sql: &'a [u8]) -> Vec<&'a [u8]> {
        vtsql::split_statements_bytes(sql)
    }

    fn status(&self, connection: &Connection) -> u16 {
        Self::flags(&connection.session)
    }

    fn statistics(&self) -> String {
        let queries: i64 = self.executor.parts().stats.api.counts().values().sum();
        let uptime = self.started.elapsed();
        // Clients read the seconds out of it: the shape is that of mysqld.
        format!(
            "Uptime: {}  Threads: {}  Questions: {queries}  Queries per second avg: {:.3}",
            uptime.as_secs(),
            self.stats.open.get(),
            queries as f64 / uptime.as_secs_f64().max(1.0)
        )
    }

    async fn closed(&self, mut connection: Connection) {
        self.stats.connected(&connection.user, connection.tls, -1);
        if connection.session.in_transaction() {
            self.executor.transactions().rollback(&connection.caller, &mut connection.session).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// It is copied to the heap for each statement: 29 KB were a sixth of what a point select costs vtgate.
    #[test]
    fn a_statements_future_is_small() {
        type Arguments =
            (&'static MysqlHandler, &'static mut Connection, &'static [u8], &'static mut ResultWriter<'static>);
        let size = size_of_future(|(handler, connection, sql, out): Arguments| handler.query(connection, sql, out));
        assert!(size < 8_000, "{size} bytes");
    }
}
