//! One stream: from the events of a binlog to transactions of statements.
//!
//! Framing. A GTID event opens a transaction. XID, COMMIT or ROLLBACK closes it; on MariaDB a stand-alone one is closed
//! by its statement, on MySQL a statement without BEGIN before it closes it. What is chosen of a transaction is sent
//! when it closes, or earlier in parts to a reader that takes parts. Transactions of which nothing is chosen are not
//! sent one by one: the last of them is, when the binlog has nothing more at hand or when some time has passed.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use mysql::ConnectParams;
use mysql::binlog::{BinlogStream, Body, Query, Rows, StreamOptions as BinlogOptions, TableMap};
use mysql::replication::{Gtid, Position};
use vterrors::{Code, Result, VtError};
use vtproto::binlogdata::binlog_transaction::{self as message, Statement, statement::Category};
use vtproto::binlogdata::{BinlogTransaction, Charset, RowTable};
use vtproto::query::EventToken;

use super::annotation::{self, Ids};
use super::columns::{self, TableColumns};
use super::ddl::{self, Changed};
use super::filter::{Choice, Filter};
use super::literal::Literals;
use super::output::{Gone, Output};
use super::sql::{self, Kind};
use super::statement::Statements;
use super::table::{StreamedColumn, Table};
use crate::{OnDdl, StreamOptions, row_bytes};

/// Statements of a transaction are sent in parts of about this size.
const PART: usize = 256 << 10;
/// What a statement takes in a message beside its text.
const STATEMENT_OVERHEAD: usize = 16;
/// A position without rows is held back no longer than this while more transactions come.
const POSITION_DELAY: Duration = Duration::from_millis(50);
/// Tables whose numbers are remembered.
const MAX_TABLES: usize = 4096;
/// Ends a statement in a server's own event; no table has this number.
const NO_TABLE: u64 = 0xff_ffff;

/// What a reader asked for.
#[derive(Debug)]
pub struct StreamRequest {
    pub start: Position,
    pub filter: Filter,
    pub options: StreamOptions,
    /// The character sets of the reader's connection.
    pub charset: Option<Charset>,
    /// Tables whose changes the reader takes as rows.
    pub row_tables: Vec<RowTable>,
}

/// Streams from one mysqld and of one database.
#[derive(Debug, Clone)]
pub struct Streamer {
    pub params: ConnectParams,
    pub database: String,
    /// Largest message that may be sent, bytes.
    pub max_message: usize,
}

/// What was streamed so far; for counters.
pub trait Progress: Send + Sync {
    fn streamed(&self, statements: u64, transactions: u64);
}

/// Why a stream ended.
#[derive(Debug)]
pub enum Ended {
    /// The reader is gone.
    Gone,
    Failed(VtError),
}

impl From<Gone> for Ended {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl<E: Into<VtError>> From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn unsupported(text: impl Into<String>) -> VtError {
    VtError::new(Code::FailedPrecondition, text)
}

/// The transaction that is being read.
#[derive(Debug, Default)]
struct Open {
    gtid: Option<Gtid>,
    standalone: bool,
    /// A BEGIN was read.
    begun: bool,
    xa: bool,
    statements: Vec<Statement>,
    bytes: usize,
    /// Statements that change something, sent parts included.
    changes: u64,
    /// Parts were sent.
    parted: bool,
    /// Of the last SET TIMESTAMP.
    timestamp: Option<u32>,
    /// SET statements for the next statement in text form.
    pending_sets: Vec<Vec<u8>>,
    user_variable: bool,
    load: bool,
}

/// What is known of a table number.
#[derive(Debug)]
enum Known {
    /// Not in the stream.
    Foreign,
    Streamed {
        map: Vec<u8>,
        table: Box<Table>,
        choice: Choice,
        /// What its rows say of it, if its changes go as rows.
        definition: Option<message::Table>,
    },
}

/// A position without rows that was not sent yet: it waits for others, and is sent before any rows that follow.
struct Pending {
    timestamp: u32,
    since: Instant,
}

/// The state of one stream.
struct Run<'a> {
    streamer: &'a Streamer,
    request: &'a StreamRequest,
    output: &'a Output,
    progress: &'a dyn Progress,
    statements: Statements,
    position: Position,
    open: Option<Open>,
    pending: Option<Pending>,
    tables: HashMap<u64, Known>,
    /// What the reader was told of tables whose changes go as rows. There is one number for each name: changes of a row
    /// have to stay in order whatever ids the binlog gives to its table.
    told: HashMap<String, message::Table>,
    /// Numbers of tables by name.
    numbers: HashMap<String, u32>,
    /// Columns by table name, as looked up since the last DDL.
    columns: HashMap<String, TableColumns>,
    ahead: Ahead,
}

/// DDL statements on own tables that stand in the binlog where the stream has not been yet. Columns that are looked up
/// now are those after these statements.
#[derive(Debug, Default)]
struct Ahead {
    /// By table, in order.
    statements: HashMap<String, VecDeque<String>>,
    /// How far the binlog was searched.
    searched: Position,
}

impl Streamer {
    /// Streams until the reader is gone or something is wrong. A future that is dropped ends the stream.
    pub async fn run(
        &self,
        request: &StreamRequest,
        output: &Output,
        progress: &dyn Progress,
    ) -> std::result::Result<(), Ended> {
        let client = request.charset.as_ref().map_or(0, |charset| charset.client);
        let mut run = Run {
            streamer: self,
            request,
            output,
            progress,
            statements: Statements { literals: Literals::for_client(client) },
            position: request.start.clone(),
            open: None,
            pending: None,
            tables: HashMap::new(),
            told: HashMap::new(),
            numbers: HashMap::new(),
            columns: HashMap::new(),
            ahead: Ahead::default(),
        };
        let mut binlog = BinlogStream::open(&self.params, &request.start, &BinlogOptions::default()).await?;
        loop {
            let more = match binlog.try_advance()? {
                Some(more) => more,
                None => {
                    run.send_position().await?;
                    tokio::select! {
                        more = binlog.advance() => more?,
                        () = output.closed() => return Err(Ended::Gone),
                    }
                }
            };
            if !more {
                return Err(Ended::Failed(mysql::binlog::BinlogError::Ended.into()));
            }
            let Some(event) = binlog.event()? else { continue };
            let timestamp = event.header.timestamp;
            match event.parse().map_err(|error| run.at(error.into()))? {
                Body::TableMap(body) => run.table_map(body).await.map_err(|error| run.at(error))?,
                Body::Rows(rows) => run.rows(&rows, timestamp).await?,
                body => run.other(body, timestamp).await?,
            }
        }
    }
}

impl Run<'_> {
    /// An error with the position that was reached before it.
    fn at(&self, error: VtError) -> VtError {
        error.wrap(format!("stream error @ {}", self.position))
    }

    fn fail(&self, error: VtError) -> Ended {
        Ended::Failed(self.at(error))
    }

    async fn other(&mut self, body: Body<'_>, timestamp: u32) -> std::result::Result<(), Ended> {
        match body {
            Body::Gtid(event) => {
                if let Some(open) = self.open.take() {
                    if open.changes > 0 {
                        return Err(self.fail(unsupported("a transaction in the binlog has no end")));
                    }
                    self.open = Some(open);
                    self.close(timestamp).await?;
                }
                if self.tables.len() > MAX_TABLES {
                    self.tables.clear();
                }
                self.open = Some(Open {
                    gtid: Some(event.gtid),
                    standalone: event.standalone,
                    xa: event.prepared_xa,
                    ..Open::default()
                });
            }
            Body::Query(query) => self.query(&query, timestamp).await?,
            Body::Xid => self.close(timestamp).await?,
            Body::XaPrepare { one_phase } => {
                let changes = self.open.as_ref().map_or(0, |open| open.changes);
                if !one_phase && changes > 0 {
                    return Err(self.fail(unsupported(
                        "a prepared XA transaction changes streamed rows: filtered replication cannot follow it",
                    )));
                }
                self.close(timestamp).await?;
            }
            Body::IntVar { last_insert_id, value } => {
                let name = if last_insert_id { "LAST_INSERT_ID" } else { "INSERT_ID" };
                self.open().pending_sets.push(format!("SET {name}={value}").into_bytes());
            }
            Body::Rand { seed1, seed2 } => {
                self.open().pending_sets.push(format!("SET @@RAND_SEED1={seed1}, @@RAND_SEED2={seed2}").into_bytes());
            }
            Body::UserVar => self.open().user_variable = true,
            Body::Load => self.open().load = true,
            Body::TableMap(_) | Body::Rows(_) | Body::Other => {}
        }
        Ok(())
    }

    fn open(&mut self) -> &mut Open {
        self.open.get_or_insert_default()
    }

    async fn table_map(&mut self, body: &[u8]) -> Result<()> {
        let id = TableMap::peek_id(body)?;
        let (database, name) = TableMap::peek_names(body)?;
        let name = String::from_utf8_lossy(name).into_owned();
        if database != self.streamer.database.as_bytes() || !self.request.filter.has_table(&name) {
            self.tables.insert(id, Known::Foreign);
            return Ok(());
        }
        if matches!(self.tables.get(&id), Some(Known::Streamed { map, .. }) if map == body) {
            return Ok(());
        }
        let map = TableMap::parse(body)?;
        let known = self.columns.contains_key(&name);
        let table = match Table::new(&map, self.look_up(&name).await?) {
            Err(_) if known => {
                // Altered since it was looked up, in a way that no statement in the stream showed yet.
                self.columns.remove(&name);
                Table::new(&map, self.look_up(&name).await?)?
            }
            table => table?,
        };
        if map.names.is_none() && !known {
            self.refuse_altered(&name).await?;
        }
        let choice = self.request.filter.choice(&table)?;
        let as_rows =
            self.request.row_tables.iter().any(|wanted| wanted.name == name && table.is_keyed_by(&wanted.key));
        let definition = as_rows.then(|| {
            let next = u32::try_from(self.numbers.len()).unwrap_or(u32::MAX);
            definition(&table, *self.numbers.entry(name).or_insert(next))
        });
        self.tables.insert(id, Known::Streamed { map: body.to_vec(), table: Box::new(table), choice, definition });
        Ok(())
    }

    /// Columns were looked up just now, and the event does not name its own. If the table is altered further on in the
    /// binlog, its rows here had other columns, even where number and types are the same.
    async fn refuse_altered(&mut self, name: &str) -> Result<()> {
        if self.position.at_least(&self.ahead.searched) {
            self.ahead = Ahead { statements: HashMap::new(), searched: self.position.clone() };
        }
        let database = &self.streamer.database;
        let options = BinlogOptions { until_end: true, ..BinlogOptions::default() };
        let mut binlog = BinlogStream::open(&self.streamer.params, &self.ahead.searched, &options).await?;
        let mut gtid = None;
        while binlog.advance().await? {
            let Some(event) = binlog.event()? else { continue };
            // A transaction counts as searched when the next one begins.
            match event.parse() {
                Ok(Body::Gtid(event)) => {
                    if let Some(before) = gtid.replace(event.gtid) {
                        self.ahead.searched.append(before);
                    }
                }
                Ok(Body::Query(query)) => {
                    for table in altered(&query, database) {
                        self.ahead.statements.entry(table).or_default().push_back(sql::shown(query.sql));
                    }
                }
                // What cannot be read is an error when the stream gets there.
                Ok(_) | Err(_) => {}
            }
        }
        if let Some(last) = gtid {
            self.ahead.searched.append(last);
        }
        match self.ahead.statements.get(name).and_then(VecDeque::front) {
            Some(statement) => Err(unsupported(format!(
                "table {name} was altered after its rows in the binlog were written, and their columns are not known any \
                 more: {statement}; binlog_row_metadata=FULL keeps the columns with the rows"
            ))),
            None => Ok(()),
        }
    }

    async fn look_up(&mut self, name: &str) -> Result<&TableColumns> {
        if !self.columns.contains_key(name) {
            let found = columns::lookup(&self.streamer.params, &self.streamer.database, name).await?;
            let found = found.ok_or_else(|| {
                unsupported(format!("table {name} has rows in the binlog and does not exist any more"))
            })?;
            self.columns.insert(name.to_owned(), found);
        }
        Ok(&self.columns[name])
    }

    async fn rows(&mut self, rows: &Rows<'_>, timestamp: u32) -> std::result::Result<(), Ended> {
        let Some(known) = self.tables.get(&rows.table_id) else {
            if rows.table_id == NO_TABLE {
                return Ok(());
            }
            return Err(self.fail(VtError::new(Code::Internal, format!("unknown table number {}", rows.table_id))));
        };
        let Known::Streamed { table, choice, definition, .. } = known else { return Ok(()) };
        let at = |error: VtError| Ended::Failed(error.wrap(format!("stream error @ {}", self.position)));
        let table_fault = |error: mysql::binlog::JsonError| at(unsupported(format!("table {}: {error}", table.name)));
        if rows.columns != table.codecs.len() {
            return Err(at(unsupported(format!(
                "table {}: rows of {} columns, the table has {}",
                table.name,
                rows.columns,
                table.codecs.len()
            ))));
        }
        let open = self.open.get_or_insert_default();
        let filter = &self.request.filter;
        let mut untold = definition.as_ref().filter(|definition| self.told.get(&table.name) != Some(*definition));
        let mut changes = rows.changes(&table.codecs);
        while let Some(change) = changes.next_change().map_err(|error| at(error.into()))? {
            let before = match &change.0 {
                Some(row) if filter.has_row(table, choice, row).map_err(at)? => Some(row),
                _ => None,
            };
            let after = match &change.1 {
                Some(row) if filter.has_row(table, choice, row).map_err(at)? => Some(row),
                _ => None,
            };
            let category = match (before, after) {
                (None, None) => continue,
                (None, Some(_)) => Category::BlInsert,
                (Some(_), None) => Category::BlDelete,
                (Some(_), Some(_)) => Category::BlUpdate,
            };
            open.set_timestamp(timestamp);
            if let Some(definition) = definition {
                if let Some(untold) = untold.take() {
                    open.statements.push(Statement { table: Some(untold.clone()), ..Statement::default() });
                    self.told.insert(table.name.clone(), untold.clone());
                }
                let row = self.statements.row(table, definition.number, before, after).map_err(table_fault)?;
                open.push_row(category, row);
            } else {
                let sql = match (before, after) {
                    (None, after) => after.map_or_else(|| Ok(Vec::new()), |after| self.statements.insert(table, after)),
                    (Some(before), None) => self.statements.delete(table, before),
                    (Some(before), Some(after)) => self.statements.update(table, before, after),
                };
                open.push(category, None, sql.map_err(table_fault)?);
            }
            if open.bytes >= PART && self.request.options.parts {
                if let Some(pending) = self.pending.take() {
                    pending.send(&self.position, self.output, self.progress).await?;
                }
                let message = open.part();
                let bytes = std::mem::take(&mut open.bytes);
                check_size(bytes, self.streamer.max_message, &open.gtid).map_err(at)?;
                self.output.send(message, bytes).await?;
            } else {
                check_size(open.bytes, self.streamer.max_message, &open.gtid).map_err(at)?;
            }
        }
        Ok(())
    }

    async fn query(&mut self, query: &Query<'_>, timestamp: u32) -> std::result::Result<(), Ended> {
        match sql::kind(query.sql) {
            Kind::Begin => {
                self.open().begun = true;
                return Ok(());
            }
            Kind::XaStart => {
                let open = self.open();
                (open.begun, open.xa) = (true, true);
                return Ok(());
            }
            Kind::Commit => return self.close(timestamp).await,
            Kind::Rollback => {
                let open = self.open();
                if open.parted {
                    return Err(self.fail(unsupported("a large transaction in the binlog was rolled back")));
                }
                (open.changes, open.bytes) = (0, 0);
                open.statements.clear();
                // What the reader was to be told of tables went as well.
                self.told.clear();
                return self.close(timestamp).await;
            }
            Kind::RollbackTo => {
                if self.open().changes > 0 {
                    return Err(self.fail(unsupported("ROLLBACK TO SAVEPOINT in the binlog cannot be followed")));
                }
                return Ok(());
            }
            Kind::Mark => return Ok(()),
            Kind::XaFinish | Kind::Other => {}
            Kind::Ddl => self.ddl(query, timestamp).map_err(|error| self.fail(error))?,
            kind @ (Kind::Insert | Kind::Update | Kind::Delete | Kind::OtherChange) => {
                self.text_change(kind, query, timestamp).map_err(|error| self.fail(error))?;
            }
        }
        let open = self.open();
        open.pending_sets.clear();
        (open.user_variable, open.load) = (false, false);
        // MySQL's transactions begin with BEGIN; MariaDB says with the GTID that there is none.
        let ends = match open.gtid {
            Some(Gtid::MariaDb(_)) => open.standalone,
            _ => !open.begun,
        };
        if ends { self.close(timestamp).await } else { Ok(()) }
    }

    /// A DDL statement.
    fn ddl(&mut self, query: &Query<'_>, timestamp: u32) -> Result<()> {
        let database = &self.streamer.database;
        let mut streamed = matches!(ddl::changed(query.sql), Changed::Database(name) if &name == database);
        for table in altered(query, database) {
            streamed |= self.request.filter.has_table(&table);
            // Its columns are to be looked at again.
            self.columns.remove(&table);
            if let Some(statements) = self.ahead.statements.get_mut(&table) {
                statements.pop_front();
            }
        }
        if !streamed {
            return Ok(());
        }
        self.tables.clear();
        match self.request.options.on_ddl {
            OnDdl::Ignore => Ok(()),
            OnDdl::Stop => Err(unsupported(format!(
                "DDL on a streamed table: {}; apply it to the target if it belongs there, and let the stream pass it \
                 (on_ddl: IGNORE, EXEC or EXEC_IGNORE)",
                sql::shown(query.sql)
            ))),
            OnDdl::Exec | OnDdl::ExecIgnore => {
                let statement = ddl::without_database(query.sql, database);
                let charset = self.charset(query);
                let open = self.open.get_or_insert_default();
                open.set_timestamp(timestamp);
                open.push(Category::BlDdl, charset, statement);
                Ok(())
            }
        }
    }

    /// A change that stands in the binlog as a statement.
    fn text_change(&mut self, kind: Kind, query: &Query<'_>, timestamp: u32) -> Result<()> {
        let database = &self.streamer.database;
        let refuse = |why: &str| {
            Err(unsupported(format!(
                "a change in the binlog is a statement, not rows ({why}): {}; set binlog_format=ROW",
                sql::shown(query.sql)
            )))
        };
        if query.database != database.as_bytes() {
            // Nothing but a database name in front of a table could make it ours.
            let names_ours = sql::Tokens::new(query.sql)
                .any(|(_, token)| token.name().is_some_and(|name| name.eq_ignore_ascii_case(database)));
            return if names_ours { refuse("of another database's session") } else { Ok(()) };
        }
        let chosen = match &self.request.filter {
            filter @ Filter::Tables(_) => match annotation::stream_table(query.sql) {
                Some(table) => filter.has_table(&table),
                None => return refuse("and has no comment that names its table"),
            },
            Filter::KeyRange { wanted, .. } => match annotation::keyspace_ids(query.sql) {
                Ids::Known(ids) => {
                    let inside = ids.iter().filter(|id| wanted.contains(id)).count();
                    if inside > 0 && inside < ids.len() {
                        return refuse("for rows inside and outside of the key range");
                    }
                    inside > 0
                }
                Ids::Unfriendly => return refuse("marked as unfriendly to filtered replication"),
                Ids::Absent => return refuse("and has no comment with its keyspace id"),
            },
        };
        if !chosen {
            return Ok(());
        }
        let category = match kind {
            Kind::Insert => Category::BlInsert,
            Kind::Update => Category::BlUpdate,
            Kind::Delete => Category::BlDelete,
            _ => return refuse("of a kind that cannot be forwarded"),
        };
        let charset = self.charset(query);
        let open = self.open.get_or_insert_default();
        if open.user_variable || open.load {
            return refuse("which needs user variables or a file");
        }
        open.set_timestamp(timestamp);
        for set in std::mem::take(&mut open.pending_sets) {
            open.push(Category::BlSet, charset, set);
        }
        open.push(category, charset, query.sql.to_vec());
        check_size(open.bytes, self.streamer.max_message, &open.gtid)
    }

    /// The character sets of a statement, if they are not the reader's.
    fn charset(&self, query: &Query<'_>) -> Option<Charset> {
        let [client, conn, server] = query.charset?.map(i32::from);
        let own = Charset { client, conn, server };
        (self.request.charset != Some(own)).then_some(own)
    }

    /// The transaction is complete.
    async fn close(&mut self, timestamp: u32) -> std::result::Result<(), Ended> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let Some(gtid) = open.gtid.take() else {
            return Err(self.fail(unsupported("a transaction in the binlog has no GTID")));
        };
        if open.xa && open.changes > 0 && matches!(gtid, Gtid::MariaDb(_)) {
            return Err(self.fail(unsupported("an XA transaction changes streamed rows")));
        }
        if open.changes > 0 {
            // A reader that is to stop before this transaction has to see that it is there.
            self.send_position().await?;
        }
        self.position.append(gtid);
        if open.changes == 0 {
            let since = self.pending.as_ref().map_or_else(Instant::now, |pending| pending.since);
            self.pending = Some(Pending { timestamp, since });
            if since.elapsed() >= POSITION_DELAY {
                self.send_position().await?;
            }
            return Ok(());
        }
        let changes = open.changes;
        let mut message = open.part();
        message.event_token = Some(token(&self.position, timestamp));
        self.output.send(message, open.bytes).await?;
        self.progress.streamed(changes, 1);
        Ok(())
    }

    /// Sends the position that was reached without rows, if it was not sent.
    async fn send_position(&mut self) -> std::result::Result<(), Ended> {
        match self.pending.take() {
            Some(pending) => pending.send(&self.position, self.output, self.progress).await,
            None => Ok(()),
        }
    }
}

impl Pending {
    async fn send(
        self,
        position: &Position,
        output: &Output,
        progress: &dyn Progress,
    ) -> std::result::Result<(), Ended> {
        let message = BinlogTransaction { statements: Vec::new(), event_token: Some(token(position, self.timestamp)) };
        output.send(message, 0).await?;
        progress.streamed(0, 1);
        Ok(())
    }
}

fn token(position: &Position, timestamp: u32) -> EventToken {
    EventToken { timestamp: timestamp.into(), shard: String::new(), position: position.to_string() }
}

impl Open {
    fn push(&mut self, category: Category, charset: Option<Charset>, sql: Vec<u8>) {
        self.bytes += sql.len() + STATEMENT_OVERHEAD;
        self.changes += u64::from(category != Category::BlSet);
        self.statements.push(Statement { category: category.into(), charset, sql, ..Statement::default() });
    }

    fn push_row(&mut self, category: Category, row: message::Row) {
        self.bytes += row_bytes(&row) + STATEMENT_OVERHEAD;
        self.changes += 1;
        self.statements.push(Statement { category: category.into(), row: Some(row), ..Statement::default() });
    }

    /// SET TIMESTAMP for the statements that follow, where it is not in force already.
    fn set_timestamp(&mut self, timestamp: u32) {
        if self.timestamp != Some(timestamp) {
            self.timestamp = Some(timestamp);
            self.push(Category::BlSet, None, format!("SET TIMESTAMP={timestamp}").into_bytes());
        }
    }

    /// What was collected.
    fn part(&mut self) -> BinlogTransaction {
        self.parted = true;
        BinlogTransaction { statements: std::mem::take(&mut self.statements), event_token: None }
    }
}

/// What the number of a table means.
fn definition(table: &Table, number: u32) -> message::Table {
    let names = |wanted: fn(&StreamedColumn) -> bool| {
        table.columns.iter().filter(|column| wanted(column)).map(|column| column.name.clone()).collect()
    };
    let (columns, key) = (names(|column| column.written), names(|column| column.key));
    message::Table { number, name: table.name.clone(), columns, key }
}

/// The tables of a database that a statement changes as such.
fn altered(query: &Query<'_>, database: &str) -> Vec<String> {
    if sql::kind(query.sql) != Kind::Ddl {
        return Vec::new();
    }
    let Changed::Tables(tables) = ddl::changed(query.sql) else { return Vec::new() };
    let session = String::from_utf8_lossy(query.database);
    let ours = tables.into_iter().filter(|named| named.database.as_deref().unwrap_or(&session) == database);
    ours.map(|named| named.table).collect()
}

fn check_size(bytes: usize, limit: usize, gtid: &Option<Gtid>) -> Result<()> {
    if bytes <= limit {
        return Ok(());
    }
    let name = gtid.as_ref().map(Gtid::to_string).unwrap_or_default();
    Err(VtError::new(
        Code::ResourceExhausted,
        format!("transaction {name} is larger than a message may be ({limit} bytes, -grpc_max_message_size)"),
    ))
}
