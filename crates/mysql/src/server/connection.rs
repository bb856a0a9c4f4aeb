//! The commands of one connection.
//!
//! One task, one command at a time. While a command runs, the socket is watched: bytes that arrive are kept for the
//! next command, and an end of the stream cancels the running one. The future of a command lives on the heap for as
//! long as it runs, so that an idle connection costs little.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vterrors::MysqlError;
use vtproto::query::{Field, Type};

use super::handshake::{self, LoggedIn, LoginError};
use super::prepared::Statements;
use super::registry::{Registered, Registry};
use super::writer::Output;
use super::{ConnectionInfo, Handler, HandlerError, OkInfo, ResultWriter, ServerConfig};
use crate::constants::{capability, command, errno, status};
use crate::packet::{Cursor, PacketError, PacketReader};
use crate::scramble::SALT_LEN;
use crate::stream::ReadHalf;
use crate::wire;

/// Bytes of further commands that are read while one runs; beyond that the socket is not watched any more.
const MAX_READ_AHEAD: usize = 16 << 10;
/// How long, and how much of, a command that is too large is thrown away, so that the client reads the error
/// instead of a reset connection.
const DISCARD_TIME: Duration = Duration::from_secs(2);
const DISCARD_BYTES: usize = 256 << 20;

/// Everything but the session.
struct Client<H> {
    handler: Arc<H>,
    config: Arc<ServerConfig>,
    registry: Arc<Registry>,
    registered: Registered,
    reader: PacketReader<ReadHalf>,
    output: Output,
    info: ConnectionInfo,
    salt: [u8; SALT_LEN],
    statements: Statements,
}

/// Whether the connection goes on.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Continue,
    Close,
}

fn mysql_error(number: u16, state: &str, message: impl Into<String>) -> MysqlError {
    MysqlError::new(number, state, message)
}

/// Serves a connection from login to its end.
pub(super) async fn serve<H: Handler>(
    handler: Arc<H>,
    config: Arc<ServerConfig>,
    registry: Arc<Registry>,
    registered: Registered,
    logged_in: LoggedIn,
) {
    let LoggedIn { reader, output, info, salt } = logged_in;
    let statements = Statements::new(config.max_prepared_statements, config.max_allowed_packet);
    let mut client = Client { handler, config, registry, registered, reader, output, info, salt, statements };
    let id = client.info.id;
    client.registered.entry.set_user(&client.info.user);
    // The OK of the login is sent once the handler has taken the connection.
    let session = Box::pin(client.handler.connected(&client.info)).await;
    let mut session = match session {
        Ok(session) => Some(session),
        Err(error) => {
            client.output.put_error(&error);
            let _ = client.output.flush().await;
            return;
        }
    };
    let outcome = client.run(&mut session).await;
    if let Err(error) = &outcome {
        tracing::debug!(connection = id, %error, "connection lost");
    }
    if let Some(session) = session {
        Box::pin(client.handler.closed(session)).await;
    }
    // Dropped halves close the socket; saying so first lets TLS clients tell an end from a cut.
    let _ = tokio::time::timeout(DISCARD_TIME, client.output.packets.shutdown()).await;
}

impl<H: Handler> Client<H> {
    async fn run(&mut self, session: &mut Option<H::Session>) -> io::Result<()> {
        if let Some(session) = session {
            self.output.put_ok(&OkInfo { status: self.handler.status(session), ..OkInfo::default() });
            self.output.flush().await?;
        }
        loop {
            let packet = match self.next_command().await? {
                Some(packet) => packet,
                None => return Ok(()),
            };
            // On the heap: a handler's future is large, and most connections are idle most of the time.
            let next = Box::pin(self.command(session, &packet)).await?;
            drop(packet);
            self.output.flush().await?;
            if next == Next::Close {
                return Ok(());
            }
        }
    }

    /// Waits for a command; `None` when the connection is to end.
    async fn next_command(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.reader.release();
        self.output.packets.release();
        self.reader.set_seq(0);
        let entry = self.registered.entry.clone();
        entry.set_idle(self.output.status & status::IN_TRANS == 0);
        let drained = self.registry.draining() && self.output.status & status::IN_TRANS == 0;
        if drained || entry.close.is_cancelled() {
            return Ok(None);
        }
        let outcome = {
            let next = async {
                match self.config.read_timeout {
                    Some(limit) => tokio::time::timeout(limit, self.reader.next())
                        .await
                        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into())),
                    None => self.reader.next().await,
                }
            };
            tokio::select! {
                biased;
                outcome = next => outcome,
                () = entry.close.cancelled() => return Ok(None),
            }
        };
        entry.set_idle(false);
        self.output.packets.set_seq(self.reader.seq());
        match outcome {
            Ok(span) => {
                let packet = self.reader.take(span);
                // Not twice in memory while it runs.
                self.reader.release();
                Ok(Some(packet))
            }
            Err(PacketError::Closed) => Ok(None),
            Err(PacketError::Io(error)) => Err(error),
            Err(error @ PacketError::TooLarge) => {
                // The sequence id of the frame that was refused comes before ours.
                self.output.packets.set_seq(self.reader.seq().wrapping_add(1));
                self.output.put_error(&mysql_error(errno::PACKET_TOO_LARGE, "08S01", error.to_string()));
                self.output.flush().await?;
                self.output.packets.shutdown().await?;
                let _ = tokio::time::timeout(DISCARD_TIME, self.reader.discard(DISCARD_BYTES)).await;
                Ok(None)
            }
            Err(error @ PacketError::OutOfOrder) => {
                self.output.put_error(&mysql_error(errno::PACKETS_OUT_OF_ORDER, "08S01", error.to_string()));
                self.output.flush().await?;
                Ok(None)
            }
        }
    }

    async fn command(&mut self, session: &mut Option<H::Session>, packet: &[u8]) -> io::Result<Next> {
        let Some((&code, argument)) = packet.split_first() else {
            self.output.put_error(&mysql_error(errno::MALFORMED_PACKET, "HY000", "Malformed communication packet"));
            return Ok(Next::Close);
        };
        // Only CHANGE_USER takes the session out, and it ends the connection when it has none to put back.
        let Some(live) = session else { return Ok(Next::Close) };
        match code {
            command::QUERY => return self.query(live, argument).await,
            command::STMT_EXECUTE => return self.execute(live, argument).await,
            // Rarer ones on the heap, so that a query's future is no larger for them.
            command::STMT_PREPARE => return Box::pin(self.prepare(live, argument)).await,
            command::QUIT => return Ok(Next::Close),
            command::PING => self.put_ok(live),
            command::INIT_DB => return Box::pin(self.init_db(live, argument)).await,
            command::FIELD_LIST => return Box::pin(self.field_list(live, argument)).await,
            command::RESET_CONNECTION => return Box::pin(self.reset(live)).await,
            command::CHANGE_USER => return Box::pin(self.change_user(session, argument)).await,
            command::STATISTICS => {
                let text = self.handler.statistics();
                self.output.packets.packet(text.as_bytes());
            }
            command::SET_OPTION => self.set_option(live, argument),
            command::PROCESS_KILL => self.process_kill(live, argument),
            command::STMT_SEND_LONG_DATA => self.statements.send_long_data(argument),
            command::STMT_CLOSE => {
                if let Ok(id) = Cursor::new(argument).u32() {
                    self.statements.close(id);
                }
            }
            command::STMT_RESET => match Cursor::new(argument).u32() {
                Ok(id) => match self.statements.reset(id) {
                    Ok(()) => self.put_ok(live),
                    Err(error) => self.output.put_error(&error),
                },
                Err(_) => self.put_malformed(),
            },
            command::STMT_FETCH => {
                let text = "This version of MySQL doesn't yet support 'cursors of prepared statements'";
                self.output.put_error(&mysql_error(errno::NOT_SUPPORTED_YET, "42000", text));
            }
            other => {
                let text = format!("command handling not implemented yet: {}", command_name(other));
                self.output.put_error(&mysql_error(errno::UNKNOWN_COM, "08S01", text));
            }
        }
        Ok(Next::Continue)
    }

    fn put_ok(&mut self, session: &H::Session) {
        self.output.put_ok(&OkInfo { status: self.handler.status(session), ..OkInfo::default() });
    }

    fn put_malformed(&mut self) {
        self.output.put_error(&mysql_error(errno::MALFORMED_PACKET, "HY000", "Malformed communication packet"));
    }

    /// Runs a part of the handler, watching the client meanwhile. Its future is large: it stays where it is.
    async fn watched<T>(
        reader: &mut PacketReader<ReadHalf>,
        cancelled: &CancellationToken,
        grace: Duration,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let mut watching = true;
        loop {
            tokio::select! {
                biased;
                output = &mut work => return Some(output),
                read = reader.fill(), if watching => match read {
                    Ok(count) if count > 0 => watching = reader.buffered() < MAX_READ_AHEAD,
                    Ok(_) | Err(_) => {
                        cancelled.cancel();
                        break;
                    }
                },
                () = cancelled.cancelled() => break,
            }
        }
        tokio::time::timeout(grace, work).await.ok()
    }

    /// What follows from a handler's outcome. `None`: it did not end in time and was dropped, so that nobody knows
    /// what state its session is in.
    async fn conclude(writer: ResultWriter<'_>, outcome: Option<Result<(), HandlerError>>) -> io::Result<(Next, bool)> {
        match outcome {
            Some(Ok(())) => Ok((Next::Continue, writer.close(Ok(())).await?)),
            Some(Err(HandlerError::Mysql(error))) => Ok((Next::Continue, writer.close(Err(error)).await?)),
            // Rows that do not fit their fields: nothing of the bad one was written, so the client can be told.
            Some(Err(HandlerError::Io(error))) if error.kind() == io::ErrorKind::InvalidData => {
                let error = mysql_error(errno::UNKNOWN, "HY000", error.to_string());
                Ok((Next::Continue, writer.close(Err(error)).await?))
            }
            Some(Err(HandlerError::Io(error))) => Err(error),
            None => {
                let error = mysql_error(errno::QUERY_INTERRUPTED, "70100", "Query execution was interrupted");
                writer.close(Err(error)).await?;
                Ok((Next::Close, false))
            }
        }
    }

    async fn query(&mut self, session: &mut H::Session, sql: &[u8]) -> io::Result<Next> {
        let handler = self.handler.clone();
        let several = self.output.has(capability::MULTI_STATEMENTS) && sql.contains(&b';');
        let pieces = if several { handler.split(sql) } else { vec![sql] };
        // A text of nothing but blanks still gets an answer: the handler's.
        let pieces = if pieces.is_empty() { vec![sql] } else { pieces };
        let last = pieces.len() - 1;
        let grace = self.config.cancel_grace;
        let cancelled = self.registered.entry.command_token();
        for (index, piece) in pieces.into_iter().enumerate() {
            let mut writer = ResultWriter::new(&mut self.output, &cancelled, false, index < last);
            let outcome = {
                let work = pin!(handler.query(session, piece, &mut writer));
                Self::watched(&mut self.reader, &cancelled, grace, work).await
            };
            let (next, more) = Self::conclude(writer, outcome).await?;
            if next == Next::Close || !more {
                return Ok(next);
            }
        }
        Ok(Next::Continue)
    }

    async fn execute(&mut self, session: &mut H::Session, packet: &[u8]) -> io::Result<Next> {
        let (prepared, variables) = match self.statements.execute(packet) {
            Ok(found) => found,
            Err(error) => {
                self.output.put_error(&error);
                return Ok(Next::Continue);
            }
        };
        let cancelled = self.registered.entry.command_token();
        let mut writer = ResultWriter::new(&mut self.output, &cancelled, true, false);
        let outcome = {
            let work = pin!(self.handler.execute(session, prepared, variables, &mut writer));
            Self::watched(&mut self.reader, &cancelled, self.config.cancel_grace, work).await
        };
        Ok(Self::conclude(writer, outcome).await?.0)
    }

    /// Runs a part of the handler whose result this file writes. `None` when the connection is to end.
    async fn simple<T>(&mut self, work: impl Future<Output = Result<T, MysqlError>>) -> Option<Result<T, MysqlError>> {
        let cancelled = self.registered.entry.command_token();
        let work = pin!(work);
        Self::watched(&mut self.reader, &cancelled, self.config.cancel_grace, work).await
    }

    async fn prepare(&mut self, session: &mut H::Session, sql: &[u8]) -> io::Result<Next> {
        if let Err(error) = self.statements.check_room(sql) {
            self.output.put_error(&error);
            return Ok(Next::Continue);
        }
        let handler = self.handler.clone();
        let prepared = match self.simple(handler.prepare(session, sql)).await {
            Some(Ok(prepared)) => prepared,
            Some(Err(error)) => {
                self.output.put_error(&error);
                return Ok(Next::Continue);
            }
            None => return Ok(Next::Close),
        };
        let (params, columns) = (prepared.param_count, prepared.fields.len());
        let Ok(column_count) = u16::try_from(columns) else {
            self.output.put_error(&mysql_error(1117, "HY000", "Too many columns"));
            return Ok(Next::Continue);
        };
        let flags = self.handler.status(session);
        let fields = prepared.fields.clone();
        let id = self.statements.add(prepared);
        let packet = self.output.packets.begin();
        packet.push(wire::OK);
        packet.extend_from_slice(&id.to_le_bytes());
        packet.extend_from_slice(&column_count.to_le_bytes());
        packet.extend_from_slice(&params.to_le_bytes());
        // Filler, then the number of warnings.
        packet.extend_from_slice(&[0; 3]);
        self.output.packets.end();
        if params > 0 {
            let param = Field { name: "?".into(), r#type: Type::Varbinary.into(), ..Field::default() };
            for _ in 0..params {
                self.output.put_columns(std::slice::from_ref(&param));
            }
            self.output.put_eof_after_columns(flags);
        }
        if columns > 0 {
            self.output.put_columns(&fields);
            self.output.put_eof_after_columns(flags);
        }
        Ok(Next::Continue)
    }

    async fn init_db(&mut self, session: &mut H::Session, name: &[u8]) -> io::Result<Next> {
        let Ok(name) = std::str::from_utf8(name) else {
            self.output.put_error(&mysql_error(1049, "42000", "Unknown database"));
            return Ok(Next::Continue);
        };
        let handler = self.handler.clone();
        match self.simple(handler.init_db(session, name)).await {
            Some(Ok(())) => self.put_ok(session),
            Some(Err(error)) => self.output.put_error(&error),
            None => return Ok(Next::Close),
        }
        Ok(Next::Continue)
    }

    async fn reset(&mut self, session: &mut H::Session) -> io::Result<Next> {
        self.statements.clear();
        let handler = self.handler.clone();
        match self.simple(handler.reset(session)).await {
            Some(Ok(())) => self.put_ok(session),
            Some(Err(error)) => self.output.put_error(&error),
            None => return Ok(Next::Close),
        }
        Ok(Next::Continue)
    }

    /// COM_FIELD_LIST: a table name and a wildcard; answered by column definitions with a default value each.
    async fn field_list(&mut self, session: &mut H::Session, argument: &[u8]) -> io::Result<Next> {
        let mut cursor = Cursor::new(argument);
        let names = cursor.nul_bytes().ok().map(|table| (table, cursor.rest()));
        let names = names.and_then(|(table, wildcard)| {
            Some((std::str::from_utf8(table).ok()?, std::str::from_utf8(wildcard).ok()?.trim_end_matches('\0')))
        });
        let Some((table, wildcard)) = names else {
            self.put_malformed();
            return Ok(Next::Continue);
        };
        let handler = self.handler.clone();
        match self.simple(handler.field_list(session, table, wildcard)).await {
            Some(Ok(fields)) => {
                for field in &fields {
                    let packet = self.output.packets.begin();
                    wire::put_column(packet, field);
                    // No default value.
                    packet.push(wire::LOCAL_INFILE);
                    self.output.packets.end();
                }
                let flags = self.handler.status(session);
                self.output.put_eof(flags, 0);
            }
            Some(Err(error)) => self.output.put_error(&error),
            None => return Ok(Next::Close),
        }
        Ok(Next::Continue)
    }

    fn set_option(&mut self, session: &H::Session, argument: &[u8]) {
        match Cursor::new(argument).u16() {
            Ok(0) => self.output.capabilities |= capability::MULTI_STATEMENTS,
            Ok(1) => self.output.capabilities &= !capability::MULTI_STATEMENTS,
            Ok(_) | Err(_) => {
                self.output.put_error(&mysql_error(errno::UNKNOWN_COM, "08S01", "Unknown option of COM_SET_OPTION"));
                return;
            }
        }
        let flags = self.handler.status(session);
        self.output.put_eof(flags, 0);
    }

    fn process_kill(&mut self, session: &H::Session, argument: &[u8]) {
        let Ok(id) = Cursor::new(argument).u32() else { return self.put_malformed() };
        let by = if self.handler.may_kill_any(session) { None } else { Some(self.info.user.as_str()) };
        match self.registry.kill(id, false, by).into_result(id.into()) {
            Ok(()) => self.put_ok(session),
            Err(error) => self.output.put_error(&error),
        }
    }

    /// COM_CHANGE_USER: a login on an open connection. A refused one ends the connection, as in MySQL.
    async fn change_user(&mut self, session: &mut Option<H::Session>, argument: &[u8]) -> io::Result<Next> {
        let Ok(response) = handshake::parse_change_user(argument, self.output.capabilities) else {
            self.put_malformed();
            return Ok(Next::Close);
        };
        let (tls, unix_socket) = (self.info.tls, matches!(self.reader.io(), ReadHalf::Unix(_)));
        let config = self.config.clone();
        let login = handshake::authenticate(
            &mut self.reader,
            &mut self.output,
            &config,
            &response,
            &self.salt,
            tls,
            unix_socket,
        );
        let identity = match tokio::time::timeout(config.connect_timeout, login).await {
            Ok(Ok(identity)) => identity,
            Ok(Err(LoginError::Refused(error))) => {
                self.output.put_error(&error);
                return Ok(Next::Close);
            }
            Ok(Err(_)) | Err(_) => return Ok(Next::Close),
        };
        if let Some(old) = session.take() {
            self.handler.closed(old).await;
        }
        self.statements.clear();
        self.info = handshake::info_of(response, identity, self.info.id, std::mem::take(&mut self.info.peer), tls);
        self.registered.entry.set_user(&self.info.user);
        match self.handler.connected(&self.info).await {
            Ok(fresh) => {
                self.put_ok(&fresh);
                *session = Some(fresh);
                Ok(Next::Continue)
            }
            Err(error) => {
                self.output.put_error(&error);
                Ok(Next::Close)
            }
        }
    }
}

/// Names for error texts.
fn command_name(code: u8) -> String {
    let name = match code {
        command::PROCESS_INFO => "COM_PROCESS_INFO",
        command::DEBUG => "COM_DEBUG",
        command::BINLOG_DUMP => "COM_BINLOG_DUMP",
        command::REGISTER_SLAVE => "COM_REGISTER_SLAVE",
        command::BINLOG_DUMP_GTID => "COM_BINLOG_DUMP_GTID",
        other => return other.to_string(),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use vtproto::query::BindVariable;

    use super::*;
    use crate::server::Prepared;

    const LARGE: usize = 20_000;

    /// A handler whose futures for queries are large.
    struct Large;

    impl Handler for Large {
        type Session = ();

        async fn connected(&self, _: &ConnectionInfo) -> Result<(), MysqlError> {
            Ok(())
        }

        async fn query(&self, _: &mut (), _: &[u8], _: &mut ResultWriter<'_>) -> Result<(), HandlerError> {
            let held = [0u8; LARGE];
            tokio::task::yield_now().await;
            std::hint::black_box(&held);
            Ok(())
        }

        async fn prepare(&self, _: &mut (), _: &[u8]) -> Result<Prepared, MysqlError> {
            Ok(Prepared::default())
        }

        async fn execute(
            &self,
            session: &mut (),
            _: &Prepared,
            _: BTreeMap<String, BindVariable>,
            out: &mut ResultWriter<'_>,
        ) -> Result<(), HandlerError> {
            self.query(session, b"", out).await
        }

        async fn init_db(&self, _: &mut (), _: &str) -> Result<(), MysqlError> {
            Ok(())
        }

        async fn reset(&self, _: &mut ()) -> Result<(), MysqlError> {
            Ok(())
        }

        async fn closed(&self, _: ()) {}
    }

    fn size_of_future<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    /// Each command's future is copied to the heap, so it is to hold the handler's once.
    #[test]
    fn a_commands_future_holds_the_handlers_once() {
        type Arguments = (&'static mut Client<Large>, &'static mut Option<()>, &'static [u8]);
        let size = size_of_future(|(client, session, packet): Arguments| client.command(session, packet));
        assert!((LARGE..LARGE + 2_000).contains(&size), "{size} bytes");
    }
}
