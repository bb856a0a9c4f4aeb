//! What vtgate implements to serve MySQL clients.

use std::collections::BTreeMap;
use std::future::Future;

use bytes::Bytes;
use vterrors::{MysqlError, VtError};
use vtproto::query::{BindVariable, Field};

use super::{Identity, ResultWriter};
use crate::constants::{capability, status};

/// Who is at the other end. Fixed after login, but for CHANGE_USER, which makes a new one.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// Unique in this process while it lasts; what `CONNECTION_ID()` and KILL name.
    pub id: u32,
    pub user: String,
    pub identity: Identity,
    /// `ip:port`, or `localhost` for the unix socket.
    pub peer: String,
    /// Database named at login; empty for none.
    pub db_name: String,
    /// AND of both sides' [`capability`] bits.
    pub capabilities: u32,
    /// Collation id.
    pub charset: u8,
    /// Connect attributes (`program_name`, `_client_version`, …).
    pub attributes: BTreeMap<String, String>,
    pub tls: bool,
}

impl ConnectionInfo {
    /// Whether rows_affected should count matched rows.
    pub fn client_found_rows(&self) -> bool {
        self.capabilities & capability::FOUND_ROWS != 0
    }
}

/// What a handler returns when a statement fails.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Sent to the client; the connection goes on.
    #[error(transparent)]
    Mysql(#[from] MysqlError),
    /// From [`ResultWriter`]: the client cannot be written to; the connection ends.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl From<VtError> for HandlerError {
    fn from(error: VtError) -> Self {
        Self::Mysql(MysqlError::from(&error))
    }
}

/// A statement as the handler prepared it.
#[derive(Debug, Clone, Default)]
pub struct Prepared {
    /// What `execute` gets: the handler may rewrite `?` to `:v1`, `:v2`, ….
    pub sql: Bytes,
    /// Number of `?`. Their values arrive as `v1`, `v2`, ….
    pub param_count: u16,
    /// Columns of the result; empty when it has none or they are not known yet.
    pub fields: Vec<Field>,
}

/// Runs the commands of MySQL connections.
///
/// Commands of one connection come one at a time. When its client disconnects or is killed while a command runs,
/// [`ResultWriter::cancelled`] resolves; the handler should then stop soon, for its future is dropped after
/// [`super::ServerConfig::cancel_grace`]. [`Handler::closed`] is called in every case.
pub trait Handler: Send + Sync + 'static {
    /// State of one connection.
    type Session: Send;

    /// After login. An error is sent to the client and the connection closed.
    fn connected(&self, conn: &ConnectionInfo) -> impl Future<Output = Result<Self::Session, MysqlError>> + Send;

    /// COM_QUERY: one piece of what [`Handler::split`] returned. Exactly one result is to be written to `out`, or
    /// several with [`ResultWriter::set_more_results`].
    fn query(
        &self,
        session: &mut Self::Session,
        sql: &[u8],
        out: &mut ResultWriter<'_>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// COM_STMT_PREPARE.
    fn prepare(
        &self,
        session: &mut Self::Session,
        sql: &[u8],
    ) -> impl Future<Output = Result<Prepared, MysqlError>> + Send;

    /// COM_STMT_EXECUTE; `out` writes binary rows.
    fn execute(
        &self,
        session: &mut Self::Session,
        statement: &Prepared,
        bind_variables: BTreeMap<String, BindVariable>,
        out: &mut ResultWriter<'_>,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;

    /// COM_INIT_DB.
    fn init_db(&self, session: &mut Self::Session, name: &str) -> impl Future<Output = Result<(), MysqlError>> + Send;

    /// COM_RESET_CONNECTION: rolls back and forgets session state.
    fn reset(&self, session: &mut Self::Session) -> impl Future<Output = Result<(), MysqlError>> + Send;

    /// COM_FIELD_LIST.
    fn field_list(
        &self,
        session: &mut Self::Session,
        table: &str,
        wildcard: &str,
    ) -> impl Future<Output = Result<Vec<Field>, MysqlError>> + Send {
        let _ = (session, table, wildcard);
        async { Ok(Vec::new()) }
    }

    /// Cuts a text at its semicolons, when the client may send several statements at once.
    fn split<'a>(&self, sql: &'a [u8]) -> Vec<&'a [u8]> {
        vec![sql]
    }

    /// Flags ([`status`]) for answers that are not the handler's own: PING, INIT_DB, ….
    fn status(&self, session: &Self::Session) -> u16 {
        let _ = session;
        status::AUTOCOMMIT
    }

    /// Whether COM_PROCESS_KILL may end connections of other users too.
    fn may_kill_any(&self, session: &Self::Session) -> bool {
        let _ = session;
        false
    }

    /// COM_STATISTICS: a line for people.
    fn statistics(&self) -> String {
        String::new()
    }

    /// The connection is over, whatever the reason: roll back.
    fn closed(&self, session: Self::Session) -> impl Future<Output = ()> + Send;
}
