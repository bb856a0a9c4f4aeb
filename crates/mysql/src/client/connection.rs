//! Commands and their results.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use tokio::net::{TcpStream, UnixStream};
use vterrors::MysqlError;
use vtproto::query::{Field, QueryResult, Row};

use super::raw_rows::RawPosition;
use super::{ClientError, ConnectParams, RawResult, RawRows, RowStream, handshake};
use crate::constants::{MAX_FRAME, capability, command, errno, status};
use crate::flavor::Flavor;
use crate::packet::{Cursor, PacketError, PacketReader, PacketWriter, Run, RunEnd, Span, WireError};
use crate::stream::{ReadHalf, Socket, WriteHalf};
use crate::wire;

/// Bytes of rows beyond a row limit that are read and thrown away to keep the connection; beyond that it is dropped.
const MAX_DRAIN: usize = 64 << 20;
/// Most columns a table or result has in MySQL.
const MAX_COLUMNS: u64 = 65_535;
/// Arguments of COM_SET_OPTION, two bytes each.
const MULTI_STATEMENTS_ON: [u8; 2] = [0, 0];
const MULTI_STATEMENTS_OFF: [u8; 2] = [1, 0];
/// Rows share allocations of at most this size.
const ROW_CHUNK: usize = 64 << 10;

/// One connection to mysqld. Commands run one at a time.
#[derive(Debug)]
pub struct Connection {
    reader: PacketReader<ReadHalf>,
    writer: PacketWriter<WriteHalf>,
    thread_id: u32,
    server_version: String,
    capabilities: u32,
    pub(super) mariadb_capabilities: u32,
    max_packet: usize,
    pub(super) last: wire::Ok,
    /// A command is under way, or its future was dropped.
    pub(super) busy: bool,
    broken: bool,
    several: Several,
    /// Where cells of rows are collected.
    values: BytesMut,
}

/// Says goodbye to the server, which otherwise counts an aborted client and writes a warning to its log. Nothing waits
/// for it: a socket that does not take it at once is closed without.
impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_broken() {
            self.put(command::QUIT, &[]);
            // Also where many are dropped at once, whose task would be made to yield.
            let flush = tokio::task::unconstrained(self.writer.flush());
            let _ = pin!(flush).poll(&mut Context::from_waker(Waker::noop()));
        }
    }
}

/// Whether the server takes several statements in one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Several {
    /// Since the login: whoever connected wants it for any text.
    ByLogin,
    Off,
    /// For [`Connection::query_behind`]; any other text that could hold several has it turned off first.
    On,
    /// On, or off since the session was reset.
    Unclear,
    /// It was asked for and refused.
    Refused,
}

/// A statement that was sent and whose answer has not been read. Dropped, the connection counts as broken.
#[derive(Debug)]
pub struct Pending<'a>(pub(super) &'a mut Connection);

impl<'a> Pending<'a> {
    /// See [`Connection::query`].
    pub async fn result(self, max_rows: usize) -> Result<QueryResult, ClientError> {
        let outcome = self.0.results(max_rows, 1).await;
        // There is at least one on success.
        self.0.done(outcome).map(|mut results| results.swap_remove(0))
    }

    /// See [`Connection::query_raw`].
    pub async fn raw_result(self, max_rows: usize, most: usize) -> Result<RawResult<'a>, ClientError> {
        match self.0.raw_result(max_rows, most).await {
            Ok((result, true)) => Ok(RawResult::Growing(RawRows::new(self.0, result, max_rows))),
            whole => self.0.done(whole.map(|(result, _)| RawResult::Whole(result))),
        }
    }
}

/// What came of [`Connection::query_behind`].
#[derive(Debug)]
pub enum Behind<'a> {
    /// The statements in front have succeeded, and this brings what the last one answers.
    Sent(Pending<'a>),
    /// One in front failed, so that the last one was not run. If the connection was lost, it may have been.
    Failed(ClientError),
    /// They cannot go together; nothing was run.
    Apart,
}

/// How a result begins.
pub(super) enum Head {
    Ok,
    Columns(usize),
}

/// The answer to a caller who has the fields of one result when there are several.
pub(super) fn several_results() -> MysqlError {
    MysqlError::new(1235, "42000", "unsupported: several results of one statement, which has run")
}

/// A read error during a command or login.
pub(super) fn io_lost(error: impl Into<PacketError>) -> ClientError {
    match error.into() {
        PacketError::TooLarge => {
            ClientError::connection(errno::PACKET_TOO_LARGE, "Got a packet bigger than 'max_allowed_packet' bytes")
        }
        error => ClientError::lost(error),
    }
}

impl Connection {
    /// Connects and logs in within `connect_timeout`.
    ///
    /// Errors: errno 2002 (unix socket) or 2003 (TCP) when nobody answers; the server's own error when it refuses
    /// (1040, 1045, 1049, …), as [`ClientError::Server`].
    pub async fn connect(params: &ConnectParams) -> Result<Self, ClientError> {
        let attempt = async {
            let logged_in = handshake::login(open(params).await?, params).await?;
            Ok(Self {
                reader: logged_in.reader,
                writer: logged_in.writer,
                thread_id: logged_in.thread_id,
                server_version: logged_in.server_version,
                capabilities: logged_in.capabilities,
                mariadb_capabilities: logged_in.mariadb_capabilities,
                max_packet: params.max_allowed_packet,
                last: wire::Ok { status: logged_in.status, ..wire::Ok::default() },
                busy: false,
                broken: false,
                several: if params.multi_statements { Several::ByLogin } else { Several::Off },
                values: BytesMut::new(),
            })
        };
        match tokio::time::timeout(params.connect_timeout, attempt).await {
            Ok(result) => result,
            Err(_) => Err(cannot_connect(params, &io::Error::from(io::ErrorKind::TimedOut))),
        }
    }

    /// One statement, whole result. For a result with rows, `rows_affected` is their number. More than `max_rows`
    /// rows are errno 10001; the connection stays usable unless very much was left to read. Of several results (CALL)
    /// the first is returned, and a later error is an error.
    pub async fn query(&mut self, sql: &[u8], max_rows: usize) -> Result<QueryResult, ClientError> {
        self.send_query(sql).await?.result(max_rows).await
    }

    /// As [`Connection::query`], but with rows as the packets that came: see [`crate::raw_rows`]. A result of more than
    /// about `most` bytes, which is to be less than those of a frame, is returned with its rows still to be read.
    pub async fn query_raw(&mut self, sql: &[u8], max_rows: usize, most: usize) -> Result<RawResult<'_>, ClientError> {
        self.send_query(sql).await?.raw_result(max_rows, most).await
    }

    /// Sends one statement, whose answer is to be read.
    pub async fn send_query(&mut self, sql: &[u8]) -> Result<Pending<'_>, ClientError> {
        self.start(command::QUERY, sql).await?;
        Ok(Pending(self))
    }

    /// One statement behind others that answer no rows, all of them in one round trip. The server goes on to the next
    /// only if the one before succeeded. None of `before` holds a semicolon; a `sql` that does goes [`Behind::Apart`], so
    /// that the server never looks for several statements in it.
    pub async fn query_behind(&mut self, before: &[&str], sql: &[u8]) -> Behind<'_> {
        let length = sql.len() + before.iter().map(|text| text.len() + 1).sum::<usize>();
        if self.several == Several::Refused || length >= self.max_packet || sql.contains(&b';') {
            return Behind::Apart;
        }
        if self.is_broken() {
            return Behind::Failed(ClientError::gone());
        }
        let turn_on = matches!(self.several, Several::Off | Several::Unclear);
        if turn_on {
            self.put(command::SET_OPTION, &[&MULTI_STATEMENTS_ON]);
        }
        let mut parts = Vec::with_capacity(2 * before.len() + 1);
        for text in before {
            parts.extend([text.as_bytes(), b";"]);
        }
        parts.push(sql);
        self.put(command::QUERY, &parts);
        // The answer goes on behind the last frame of a long text.
        let answer = self.writer.seq();
        if let Err(error) = self.send().await {
            return Behind::Failed(error);
        }
        if turn_on {
            self.reader.set_seq(1);
            self.several = match self.option_answer().await {
                Ok(()) => Several::On,
                Err(error) if error.is_connection_error() => return Behind::Failed(self.failed(error)),
                Err(_) => Several::Refused,
            };
        }
        self.reader.set_seq(answer);
        for (at, _) in before.iter().enumerate() {
            match self.head().await {
                Ok(Head::Ok) if self.last.status & status::MORE_RESULTS != 0 => {}
                // The server has seen nothing behind it, a comment say: let it say so of that alone.
                Ok(Head::Ok) if at + 1 == before.len() => {
                    let sent = match self.done(Ok(())) {
                        Ok(()) => self.start(command::QUERY, sql).await,
                        Err(error) => Err(error),
                    };
                    return match sent {
                        Ok(()) => Behind::Sent(Pending(self)),
                        Err(error) => Behind::Failed(error),
                    };
                }
                Ok(_) => return Behind::Failed(self.failed(ClientError::malformed("rows where none belong"))),
                Err(error) => {
                    let error = self.failed(error);
                    // To a server that takes one statement at a time, several are a syntax error before anything runs.
                    let apart = self.several == Several::Refused && !error.is_connection_error();
                    return if apart { Behind::Apart } else { Behind::Failed(error) };
                }
            }
        }
        Behind::Sent(Pending(self))
    }

    /// Whether the server has closed the connection, as far as can be told without waiting. Only between commands.
    pub fn is_closed_by_server(&mut self) -> bool {
        let closed = self.is_broken() || self.reader.is_disturbed();
        self.broken |= closed;
        closed
    }

    /// One statement without a bound on rows; for administration, where results are small.
    pub async fn execute(&mut self, sql: &str) -> Result<QueryResult, ClientError> {
        self.query(sql.as_bytes(), usize::MAX).await
    }

    /// Several statements separated by semicolons, one result each; needs [`ConnectParams::multi_statements`]. Ends
    /// at the first error; the statements before it have taken effect. `max_rows` bounds each result.
    pub async fn query_multi(&mut self, sql: &[u8], max_rows: usize) -> Result<Vec<QueryResult>, ClientError> {
        self.start(command::QUERY, sql).await?;
        let outcome = self.results(max_rows, usize::MAX).await;
        self.done(outcome)
    }

    /// One statement whose rows are read as the caller asks for them.
    pub async fn query_stream(&mut self, sql: &[u8]) -> Result<RowStream<'_>, ClientError> {
        self.start(command::QUERY, sql).await?;
        let outcome = self.head_and_fields().await;
        match outcome {
            Ok(fields) => Ok(RowStream::new(self, fields)),
            Err(error) => self.done(Err(error)),
        }
    }

    pub async fn ping(&mut self) -> Result<(), ClientError> {
        self.simple(command::PING, b"").await
    }

    /// COM_RESET_CONNECTION: rolls back and drops session state (variables, temporary tables, locks), keeps the
    /// login. Servers older than MySQL 5.7 and MariaDB 10.2 answer errno 1047.
    pub async fn reset(&mut self) -> Result<(), ClientError> {
        if self.several == Several::On {
            self.several = Several::Unclear;
        }
        self.simple(command::RESET_CONNECTION, b"").await
    }

    pub async fn select_db(&mut self, name: &str) -> Result<(), ClientError> {
        self.simple(command::INIT_DB, name.as_bytes()).await
    }

    /// Says goodbye, waits until it is sent, and closes.
    pub async fn close(mut self) {
        if self.start(command::QUIT, b"").await.is_ok() {
            // Whatever happens now, the connection is over.
            let _ = self.writer.shutdown().await;
        }
    }

    /// What `KILL` takes.
    pub fn thread_id(&self) -> u32 {
        self.thread_id
    }

    /// As the server says it, MariaDB's `5.5.5-` in front removed.
    pub fn server_version(&self) -> &str {
        &self.server_version
    }

    pub fn flavor(&self) -> Flavor {
        Flavor::from_version(&self.server_version)
    }

    /// Whether the connection must not be used again: it was lost, or a command's future was dropped.
    pub fn is_broken(&self) -> bool {
        self.broken || self.busy
    }

    /// Status flags ([`crate::constants::status`]) of the last OK or EOF.
    pub fn status(&self) -> u16 {
        self.last.status
    }

    /// Whether a transaction is open, as the server said last.
    pub fn in_transaction(&self) -> bool {
        self.last.status & status::IN_TRANS != 0
    }

    /// Number of warnings of the last statement.
    pub fn warnings(&self) -> u16 {
        self.last.warnings
    }

    /// Sends a command that is answered by packets without end. The connection is of no other use afterwards.
    pub(crate) async fn start_dump(&mut self, command: u8, argument: &[u8]) -> Result<(), ClientError> {
        self.start(command, argument).await
    }

    /// The next packet of a dump, if all of it is here.
    pub(crate) fn packet_at_hand(&mut self) -> Result<Option<Span>, ClientError> {
        self.reader.try_next().map_err(io_lost)
    }

    /// Waits for more of a dump. The packet returned last is gone.
    pub(crate) async fn fill(&mut self) -> Result<(), ClientError> {
        match self.reader.fill().await {
            Ok(0) => Err(io_lost(PacketError::Closed)),
            Ok(_) => Ok(()),
            Err(error) => Err(io_lost(error)),
        }
    }

    pub(crate) fn bytes(&self, span: Span) -> &[u8] {
        self.reader.get(span)
    }

    pub(crate) fn take(&mut self, span: Span) -> Vec<u8> {
        self.reader.take(span)
    }

    /// The error in an error packet.
    pub(crate) fn packet_error(&self, span: Span) -> ClientError {
        server_error(self.reader.get(span))
    }

    /// Sends a command.
    pub(super) async fn start(&mut self, command: u8, argument: &[u8]) -> Result<(), ClientError> {
        self.start_parts(command, &[argument]).await
    }

    /// Sends a command whose argument is in parts.
    pub(super) async fn start_parts(&mut self, command: u8, argument: &[&[u8]]) -> Result<(), ClientError> {
        if self.is_broken() {
            return Err(ClientError::gone());
        }
        if argument.iter().map(|part| part.len()).sum::<usize>() >= self.max_packet {
            // The server would answer the same and close the connection.
            return Err(ClientError::Server(MysqlError::new(
                errno::PACKET_TOO_LARGE,
                "08S01",
                "Got a packet bigger than 'max_allowed_packet' bytes",
            )));
        }
        if matches!(self.several, Several::On | Several::Unclear) && argument.iter().any(|part| part.contains(&b';')) {
            self.forbid_several().await?;
        }
        self.put(command, argument);
        self.send().await?;
        self.reader.set_seq(self.writer.seq());
        Ok(())
    }

    /// Turns several statements in one text off. A round trip of its own: what comes next must not be there yet if the
    /// server refuses.
    async fn forbid_several(&mut self) -> Result<(), ClientError> {
        self.put(command::SET_OPTION, &[&MULTI_STATEMENTS_OFF]);
        self.send().await?;
        self.reader.set_seq(1);
        match self.option_answer().await {
            Ok(()) => {
                self.several = Several::Off;
                self.done(Ok(()))
            }
            Err(error) => {
                self.broken = true;
                Err(error)
            }
        }
    }

    /// The answer to COM_SET_OPTION, which is an EOF packet at most servers.
    async fn option_answer(&mut self) -> Result<(), ClientError> {
        let span = self.packet().await?;
        let packet = self.reader.get(span);
        match packet.first() {
            Some(&(wire::OK | wire::EOF)) => Ok(()),
            Some(&wire::ERR) => Err(server_error(packet)),
            _ => Err(ClientError::malformed("the answer to an option")),
        }
    }

    /// Collects a command.
    fn put(&mut self, command: u8, argument: &[&[u8]]) {
        self.writer.set_seq(0);
        let packet = self.writer.begin();
        packet.push(command);
        for part in argument {
            packet.extend_from_slice(part);
        }
        self.writer.end();
    }

    /// Sends the commands collected.
    async fn send(&mut self) -> Result<(), ClientError> {
        self.busy = true;
        if let Err(error) = self.writer.flush().await {
            self.broken = true;
            // Nothing of the command was executed if the socket was closed before; a server reads whole packets only.
            return Err(match error.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => ClientError::gone(),
                _ => ClientError::lost(error),
            });
        }
        Ok(())
    }

    /// Ends a command with this error.
    fn failed(&mut self, error: ClientError) -> ClientError {
        match self.done::<()>(Err(error)) {
            Err(error) => error,
            Ok(()) => ClientError::gone(),
        }
    }

    /// Ends a command, whose outcome decides whether the connection is still good.
    pub(super) fn done<T>(&mut self, outcome: Result<T, ClientError>) -> Result<T, ClientError> {
        match &outcome {
            Err(error) if error.is_connection_error() => self.broken = true,
            Err(_) | Ok(_) => {
                self.busy = false;
                self.reader.release();
                self.writer.release();
                self.values = BytesMut::new();
            }
        }
        outcome
    }

    /// A command that is answered by OK or ERR.
    async fn simple(&mut self, command: u8, argument: &[u8]) -> Result<(), ClientError> {
        self.start(command, argument).await?;
        let outcome = match self.head().await {
            Ok(Head::Ok) => Ok(()),
            Ok(Head::Columns(_)) => Err(ClientError::malformed("rows where none belong")),
            Err(error) => Err(error),
        };
        self.done(outcome)
    }

    /// All results of a command; the first `keep` are returned.
    /// Errors: rows in one that is not kept. What ran has run.
    async fn results(&mut self, max_rows: usize, keep: usize) -> Result<Vec<QueryResult>, ClientError> {
        let mut results = Vec::with_capacity(1);
        let mut lost = false;
        loop {
            let mut result = self.result_without_rows().await?;
            if !result.fields.is_empty() {
                let columns = result.fields.len();
                while let Some(row) = self.row(columns).await? {
                    if result.rows.len() == max_rows {
                        return self.too_many_rows(max_rows).await;
                    }
                    result.rows.push(row);
                }
                result.rows_affected = result.rows.len() as u64;
            }
            if results.len() < keep {
                results.push(result);
            } else {
                lost |= !result.fields.is_empty();
            }
            if self.last.status & status::MORE_RESULTS == 0 {
                return if lost { Err(ClientError::Server(several_results())) } else { Ok(results) };
            }
        }
    }

    /// The next result: its fields, and its rows are to be read; or, without fields, all of it.
    async fn result_without_rows(&mut self) -> Result<QueryResult, ClientError> {
        let fields = self.head_and_fields().await?;
        let (rows_affected, insert_id) =
            if fields.is_empty() { (self.last.affected_rows, self.last.insert_id) } else { (0, 0) };
        Ok(QueryResult { fields, rows_affected, insert_id, ..QueryResult::default() })
    }

    /// The first result with the packets of its rows, and whether there are more of them than `most` bytes: the rest is to
    /// be read then.
    async fn raw_result(&mut self, max_rows: usize, most: usize) -> Result<(QueryResult, bool), ClientError> {
        let mut result = self.result_without_rows().await?;
        if !result.fields.is_empty() {
            let mut rows = BytesMut::new();
            let mut count = 0;
            loop {
                let Some(span) = self.packet_at_hand()? else {
                    if rows.len() + self.reader.buffered() > most {
                        (result.raw_rows, result.rows_affected) = (rows.freeze(), count as u64);
                        return Ok((result, true));
                    }
                    self.fill().await?;
                    continue;
                };
                if self.end_of_rows(span)?.is_some() {
                    break;
                }
                if count == max_rows {
                    return self.too_many_rows(max_rows).await;
                }
                if rows.is_empty() {
                    rows.reserve(4 + self.reader.get(span).len() + self.reader.buffered());
                }
                self.reader.put_frames(span, &mut rows);
                count += 1;
            }
            (result.raw_rows, result.rows_affected) = (rows.freeze(), count as u64);
        }
        self.skip_results().await?;
        Ok((result, false))
    }

    /// Rows behind those of `raw_result`, as packets: up to `size` bytes of whole rows, or a part of a row that is larger by
    /// itself. `None` at the end of the last result.
    pub(super) async fn raw_piece(&mut self, at: &mut RawPosition, size: usize) -> Result<Option<Bytes>, ClientError> {
        if !at.ended && at.frame_left == 0 && !at.continues {
            let run = self.run_of_rows(size, at.max_rows - at.rows).await?;
            if run.packets > 0 {
                at.rows += run.packets;
                return Ok(Some(self.reader.take_run(run).freeze()));
            }
        }
        // The end, an error, or a row that is too large for a piece.
        let mut rows = BytesMut::new();
        while !at.ended && rows.len() < size {
            if at.frame_left > 0 {
                let passed = self.reader.pass(at.frame_left.min(size - rows.len()), &mut rows);
                at.frame_left -= passed;
                if at.frame_left == 0 && !at.continues {
                    at.in_row = 0;
                } else if passed == 0 {
                    self.fill().await?;
                }
                continue;
            }
            if at.continues {
                match self.reader.pass_head(at.in_row, &mut rows).map_err(io_lost)? {
                    Some(len) => at.frame(len),
                    None => self.fill().await?,
                }
                continue;
            }
            let next = self.reader.next_frame();
            if next.is_some_and(|(len, _)| rows.len() + 4 + len > size) && !rows.is_empty() {
                break;
            }
            if let Some(span) = self.packet_at_hand()? {
                if self.end_of_rows(span)?.is_some() {
                    at.ended = true;
                    break;
                }
                if at.rows == at.max_rows {
                    return self.too_many_rows(at.max_rows).await;
                }
                at.rows += 1;
                self.reader.put_frames(span, &mut rows);
                continue;
            }
            match next {
                // What ends the rows is short, or is read whole.
                Some((len, Some(first)))
                    if len > size && (len == MAX_FRAME || !matches!(first, wire::EOF | wire::ERR)) =>
                {
                    if at.rows == at.max_rows {
                        return self.too_many_rows(at.max_rows).await;
                    }
                    at.rows += 1;
                    if let Some(len) = self.reader.pass_head(0, &mut rows).map_err(io_lost)? {
                        at.frame(len);
                    }
                }
                _ => self.fill().await?,
            }
        }
        if rows.is_empty() {
            self.skip_results().await?;
            return Ok(None);
        }
        Ok(Some(rows.freeze()))
    }

    /// Waits for `size` bytes of rows, or all that come before the end, or before a row that does not fit.
    async fn run_of_rows(&mut self, size: usize, max_rows: usize) -> Result<Run, ClientError> {
        let mut run = Run::default();
        let most = Run { bytes: size, packets: max_rows };
        let is_row = |first| !matches!(first, wire::EOF | wire::ERR);
        while self.reader.count(&mut run, most, is_row).map_err(io_lost)? == RunEnd::Part {
            self.fill().await?;
        }
        Ok(run)
    }

    /// Reads away what comes behind the result that the caller has.
    /// Errors: rows are among it. What ran has run.
    pub(super) async fn skip_results(&mut self) -> Result<(), ClientError> {
        let mut lost = false;
        while self.last.status & status::MORE_RESULTS != 0 {
            if self.head_and_fields().await?.is_empty() {
                continue;
            }
            lost = true;
            loop {
                let span = self.packet().await?;
                if self.end_of_rows(span)?.is_some() {
                    break;
                }
            }
        }
        if lost { Err(ClientError::Server(several_results())) } else { Ok(()) }
    }

    /// Reads the rest, so that the connection (and its transaction) stays usable.
    async fn too_many_rows<T>(&mut self, max_rows: usize) -> Result<T, ClientError> {
        let error = MysqlError::new(errno::VT_MAX_ROWS_EXCEEDED, "HY000", format!("Row count exceeded {max_rows}"));
        let mut drained = 0;
        let mut in_rows = true;
        loop {
            if in_rows {
                let span = self.packet().await?;
                let packet = self.reader.get(span);
                drained += packet.len();
                if drained > MAX_DRAIN {
                    // A connection error, because it is one: the connection cannot be used again.
                    return Err(ClientError::Connection(error));
                }
                in_rows = self.end_of_rows(span)?.is_none();
            } else if self.last.status & status::MORE_RESULTS == 0 {
                return Err(ClientError::Server(error));
            } else {
                in_rows = !self.head_and_fields().await?.is_empty();
            }
        }
    }

    /// The next packet of the answer.
    pub(super) async fn packet(&mut self) -> Result<Span, ClientError> {
        self.reader.next().await.map_err(io_lost)
    }

    async fn head(&mut self) -> Result<Head, ClientError> {
        let span = self.packet().await?;
        let packet = self.reader.get(span);
        match packet.first() {
            Some(&wire::OK) => {
                self.last = wire::parse_ok(packet).map_err(ClientError::malformed)?;
                Ok(Head::Ok)
            }
            Some(&wire::ERR) => Err(server_error(packet)),
            Some(&wire::LOCAL_INFILE) => Err(ClientError::malformed("the server asks for a local file")),
            _ => {
                let count = Cursor::new(packet).lenenc().map_err(ClientError::malformed)?;
                if count == 0 || count > MAX_COLUMNS {
                    return Err(ClientError::malformed("column count"));
                }
                Ok(Head::Columns(count as usize))
            }
        }
    }

    /// The fields of the next result; empty when it has no rows, and then `last` is its summary.
    pub(super) async fn head_and_fields(&mut self) -> Result<Vec<Field>, ClientError> {
        let Head::Columns(count) = self.head().await? else { return Ok(Vec::new()) };
        let mut fields = Vec::with_capacity(count);
        for _ in 0..count {
            let span = self.packet().await?;
            fields.push(wire::parse_column(self.reader.get(span)).map_err(ClientError::malformed)?);
        }
        self.eof_of_definitions().await?;
        Ok(fields)
    }

    /// What older servers send behind the definitions of columns.
    pub(super) async fn eof_of_definitions(&mut self) -> Result<(), ClientError> {
        if self.capabilities & capability::DEPRECATE_EOF == 0 {
            let span = self.packet().await?;
            if self.reader.get(span).first() != Some(&wire::EOF) {
                return Err(ClientError::malformed("no EOF after columns"));
            }
        }
        Ok(())
    }

    /// Whether this packet ends the rows, which puts its content into `last`; an error packet is an error.
    fn end_of_rows(&mut self, span: Span) -> Result<Option<()>, ClientError> {
        let packet = self.reader.get(span);
        let deprecate_eof = self.capabilities & capability::DEPRECATE_EOF != 0;
        match packet.first() {
            Some(&wire::ERR) => Err(server_error(packet)),
            // A row may begin with the same byte, but then with a cell of 16 MB and more.
            Some(&wire::EOF) if deprecate_eof && packet.len() < MAX_FRAME => {
                self.last = wire::parse_ok(packet).map_err(ClientError::malformed)?;
                Ok(Some(()))
            }
            Some(&wire::EOF) if !deprecate_eof && packet.len() < 9 => {
                self.last = wire::parse_eof(packet).map_err(ClientError::malformed)?;
                Ok(Some(()))
            }
            _ => Ok(None),
        }
    }

    /// The next row, `None` at the end.
    pub(super) async fn row(&mut self, columns: usize) -> Result<Option<Row>, ClientError> {
        let span = self.packet().await?;
        self.row_at(span, columns)
    }

    /// The next row if it is here already.
    pub(super) fn row_at_hand(&mut self, columns: usize) -> Result<Option<Option<Row>>, ClientError> {
        match self.reader.try_next().map_err(io_lost)? {
            Some(span) => self.row_at(span, columns).map(Some),
            None => Ok(None),
        }
    }

    fn row_at(&mut self, span: Span, columns: usize) -> Result<Option<Row>, ClientError> {
        if self.end_of_rows(span)?.is_some() {
            return Ok(None);
        }
        let packet = self.reader.get(span);
        if self.values.capacity() < packet.len() {
            let behind = self.reader.buffered().min(ROW_CHUNK);
            self.values = BytesMut::with_capacity(packet.len() + behind);
        }
        match wire::parse_text_row(packet, columns, &mut self.values) {
            Ok(row) => Ok(Some(row)),
            Err(error) => Err(row_error(error)),
        }
    }
}

fn row_error(error: WireError) -> ClientError {
    ClientError::malformed(format_args!("row: {error}"))
}

fn server_error(packet: &[u8]) -> ClientError {
    match wire::parse_err(packet) {
        Ok(error) => ClientError::Server(error),
        Err(error) => ClientError::malformed(error),
    }
}

fn cannot_connect(params: &ConnectParams, error: &io::Error) -> ClientError {
    match &params.socket {
        Some(path) => ClientError::connection(
            errno::CR_CONNECTION,
            format!("Can't connect to local MySQL server through socket '{}' ({error})", path.display()),
        ),
        None => ClientError::connection(
            errno::CR_CONN_HOST,
            format!("Can't connect to MySQL server on '{}:{}' ({error})", params.host, params.port),
        ),
    }
}

async fn open(params: &ConnectParams) -> Result<Socket, ClientError> {
    let opened = match &params.socket {
        Some(path) => UnixStream::connect(path).await.map(Socket::Unix),
        None => match TcpStream::connect((params.host.as_str(), params.port)).await {
            Ok(stream) => stream.set_nodelay(true).map(|()| Socket::Tcp(stream)),
            Err(error) => Err(error),
        },
    };
    opened.map_err(|error| cannot_connect(params, &error))
}
