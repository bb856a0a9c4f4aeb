//! The commands of MySQL clients, run by the executor.
//!
//! Owns: one session per connection, the choice between whole and streamed results, and what a
//! client sees of an error. Does not own: packets and logins (crate `mysql`).
//! Invariants: a statement whose client has gone is cancelled; an open transaction never outlives its
//! connection; an idle connection holds its session and nothing else.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::StreamExt;
use mysql::{
    constants::status,
    server::{ConnectionInfo, Handler, HandlerError, OkInfo, Prepared, ResultWriter},
};
use servenv::{
    Registry,
    stats::{Counter, Gauge, MultiGauge, MultiTimings},
};
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
    timings: MultiTimings,
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
            timings: registry.timings("MysqlServerTimings", "MySQL server timings", "operation"),
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
}

/// Runs commands of MySQL connections.
pub struct MysqlHandler {
    executor: Executor,
    stats: ConnectionStats,
}

impl MysqlHandler {
    pub fn new(executor: Executor, registry: &Registry) -> Self {
        Self { executor, stats: ConnectionStats::new(registry) }
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
        let started = std::time::Instant::now();
        let outcome = self.run_timed(connection, sql, bind_variables, out).await;
        self.stats.timings.record(&["Query"], started.elapsed());
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
            self.executor.stream(caller, session, "StreamExecute", sql, bind_variables).await?
        } else {
            Output::Whole(self.executor.execute(caller, session, "Execute", sql, bind_variables).await?)
        };
        let mut rows = match output {
            Output::Whole(result) => return self.whole(session, &result, out).await,
            Output::Rows(rows) => rows,
        };
        let mut count: u64 = 0;
        let mut returning = std::time::Duration::ZERO;
        while let Some(part) = rows.next().await {
            let part = part?;
            if !out.started() {
                if part.fields.is_empty() {
                    // A statement without a result set: its first message is its OK.
                    return self.whole(session, &part, out).await;
                }
                out.start(&part.fields).await?;
            }
            count += part.rows.len() as u64;
            if !part.rows.is_empty() {
                let started = std::time::Instant::now();
                out.rows(&part.rows).await?;
                returning += started.elapsed();
            }
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

    async fn whole(
        &self,
        session: &Session,
        result: &QueryResult,
        out: &mut ResultWriter<'_>,
    ) -> Result<(), HandlerError> {
        let started = std::time::Instant::now();
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
        // Not looked at here: clients name databases before they exist.
        connection.session.pb.target_string = name.to_string();
        Ok(())
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
        format!("Threads: {}  Questions: {queries}", self.stats.open.get())
    }

    async fn closed(&self, mut connection: Connection) {
        self.stats.connected(&connection.user, connection.tls, -1);
        if connection.session.in_transaction() {
            self.executor.transactions().rollback(&connection.caller, &mut connection.session).await;
        }
    }
}
