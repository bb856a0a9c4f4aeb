//! Events: their header, their kinds, and what their bodies say.
//!
//! Source: MySQL manual, "Binary Log Event"; MariaDB knowledge base, "Replication Protocol".

use super::error::{BinlogError, within};
use super::gtid_event::{self, GtidEvent};
use super::rows::{Rows, RowsKind};
use crate::packet::Cursor;

/// Event types.
pub mod kind {
    pub const QUERY: u8 = 2;
    pub const STOP: u8 = 3;
    pub const ROTATE: u8 = 4;
    pub const INTVAR: u8 = 5;
    pub const RAND: u8 = 13;
    pub const USER_VAR: u8 = 14;
    pub const FORMAT_DESCRIPTION: u8 = 15;
    pub const XID: u8 = 16;
    pub const BEGIN_LOAD_QUERY: u8 = 17;
    pub const EXECUTE_LOAD_QUERY: u8 = 18;
    pub const TABLE_MAP: u8 = 19;
    pub const WRITE_ROWS_V1: u8 = 23;
    pub const UPDATE_ROWS_V1: u8 = 24;
    pub const DELETE_ROWS_V1: u8 = 25;
    pub const INCIDENT: u8 = 26;
    pub const HEARTBEAT: u8 = 27;
    pub const IGNORABLE: u8 = 28;
    pub const ROWS_QUERY: u8 = 29;
    pub const WRITE_ROWS_V2: u8 = 30;
    pub const UPDATE_ROWS_V2: u8 = 31;
    pub const DELETE_ROWS_V2: u8 = 32;
    pub const GTID: u8 = 33;
    pub const ANONYMOUS_GTID: u8 = 34;
    pub const PREVIOUS_GTIDS: u8 = 35;
    pub const TRANSACTION_CONTEXT: u8 = 36;
    pub const VIEW_CHANGE: u8 = 37;
    pub const XA_PREPARE: u8 = 38;
    pub const PARTIAL_UPDATE_ROWS: u8 = 39;
    pub const TRANSACTION_PAYLOAD: u8 = 40;
    pub const HEARTBEAT_V2: u8 = 41;
    pub const TAGGED_GTID: u8 = 42;
    pub const MARIADB_ANNOTATE_ROWS: u8 = 160;
    pub const MARIADB_BINLOG_CHECKPOINT: u8 = 161;
    pub const MARIADB_GTID: u8 = 162;
    pub const MARIADB_GTID_LIST: u8 = 163;
    pub const MARIADB_START_ENCRYPTION: u8 = 164;
    pub const MARIADB_QUERY_COMPRESSED: u8 = 165;
    pub const MARIADB_WRITE_ROWS_COMPRESSED_V1: u8 = 166;
    pub const MARIADB_UPDATE_ROWS_COMPRESSED_V1: u8 = 167;
    pub const MARIADB_DELETE_ROWS_COMPRESSED_V1: u8 = 168;
    pub const MARIADB_WRITE_ROWS_COMPRESSED: u8 = 169;
    pub const MARIADB_UPDATE_ROWS_COMPRESSED: u8 = 170;
    pub const MARIADB_DELETE_ROWS_COMPRESSED: u8 = 171;
}

/// Bytes of a header.
pub(super) const HEADER_LEN: usize = 19;
/// Made by the dump thread, not in any file.
const FLAG_ARTIFICIAL: u16 = 0x20;
/// A reader that does not know the type may go on.
const FLAG_IGNORABLE: u16 = 0x80;

/// What every event begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// When the statement began, unix seconds.
    pub timestamp: u32,
    pub kind: u8,
    /// The server that ran the statement first.
    pub server_id: u32,
    /// Header included.
    pub len: u32,
    /// Where the next event begins in the file; 0 for events that are in none.
    pub next_position: u32,
    pub flags: u16,
}

impl Header {
    pub(super) fn parse(event: &[u8]) -> Result<Self, BinlogError> {
        let fault = within("header");
        let mut cursor = Cursor::new(event);
        Ok(Self {
            timestamp: cursor.u32().map_err(&fault)?,
            kind: cursor.u8().map_err(&fault)?,
            server_id: cursor.u32().map_err(&fault)?,
            len: cursor.u32().map_err(&fault)?,
            next_position: cursor.u32().map_err(&fault)?,
            flags: cursor.u16().map_err(&fault)?,
        })
    }

    pub fn is_artificial(&self) -> bool {
        self.flags & FLAG_ARTIFICIAL != 0
    }
}

/// One event, without its checksum.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    pub header: Header,
    pub body: &'a [u8],
}

/// What an event says.
#[derive(Debug)]
pub enum Body<'a> {
    /// A transaction begins.
    Gtid(GtidEvent),
    Query(Query<'a>),
    /// COMMIT.
    Xid,
    /// `one_phase`: a commit; else the transaction stays prepared.
    XaPrepare {
        one_phase: bool,
    },
    /// Which table the row events that follow mean by a number: `super::TableMap::parse` reads it.
    TableMap(&'a [u8]),
    Rows(Rows<'a>),
    /// `SET INSERT_ID` (or `LAST_INSERT_ID`) of the statement that follows.
    IntVar {
        last_insert_id: bool,
        value: u64,
    },
    /// The seeds of RAND() in the statement that follows.
    Rand {
        seed1: u64,
        seed2: u64,
    },
    /// A user variable of the statement that follows.
    UserVar,
    /// LOAD DATA as a statement.
    Load,
    /// Nothing that concerns data.
    Other,
}

/// A statement.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The session's database; empty for none.
    pub database: &'a [u8],
    pub sql: &'a [u8],
    /// Collation ids: character_set_client, collation_connection, collation_server.
    pub charset: Option<[u16; 3]>,
}

impl<'a> Event<'a> {
    pub fn parse(&self) -> Result<Body<'a>, BinlogError> {
        let body = self.body;
        Ok(match self.header.kind {
            kind::GTID => Body::Gtid(gtid_event::mysql(body)?),
            kind::TAGGED_GTID => Body::Gtid(gtid_event::tagged(body)?),
            kind::MARIADB_GTID => Body::Gtid(gtid_event::mariadb(body, self.header.server_id)?),
            kind::ANONYMOUS_GTID => {
                return Err(BinlogError::Unsupported(
                    "a transaction without a GTID is in the binlog: set gtid_mode=ON".into(),
                ));
            }
            kind::QUERY => Body::Query(query(body)?),
            kind::XID => Body::Xid,
            kind::XA_PREPARE => {
                Body::XaPrepare { one_phase: Cursor::new(body).u8().map_err(within("XA_PREPARE"))? != 0 }
            }
            kind::TABLE_MAP => Body::TableMap(body),
            kind::WRITE_ROWS_V1 => Body::Rows(Rows::parse(RowsKind::Write, false, body)?),
            kind::UPDATE_ROWS_V1 => Body::Rows(Rows::parse(RowsKind::Update, false, body)?),
            kind::DELETE_ROWS_V1 => Body::Rows(Rows::parse(RowsKind::Delete, false, body)?),
            kind::WRITE_ROWS_V2 => Body::Rows(Rows::parse(RowsKind::Write, true, body)?),
            kind::UPDATE_ROWS_V2 => Body::Rows(Rows::parse(RowsKind::Update, true, body)?),
            kind::DELETE_ROWS_V2 => Body::Rows(Rows::parse(RowsKind::Delete, true, body)?),
            kind::PARTIAL_UPDATE_ROWS => {
                return Err(BinlogError::Unsupported(
                    "partial JSON update in the binlog: set binlog_row_value_options=''".into(),
                ));
            }
            kind::INTVAR => {
                let fault = within("INTVAR");
                let mut cursor = Cursor::new(body);
                let of = cursor.u8().map_err(&fault)?;
                Body::IntVar { last_insert_id: of == 1, value: cursor.u64().map_err(&fault)? }
            }
            kind::RAND => {
                let fault = within("RAND");
                let mut cursor = Cursor::new(body);
                Body::Rand { seed1: cursor.u64().map_err(&fault)?, seed2: cursor.u64().map_err(&fault)? }
            }
            kind::USER_VAR => Body::UserVar,
            kind::BEGIN_LOAD_QUERY | kind::EXECUTE_LOAD_QUERY => Body::Load,
            kind::INCIDENT => {
                return Err(BinlogError::Unsupported("the binlog has a gap: the server logged an incident".into()));
            }
            kind::STOP
            | kind::ROTATE
            | kind::FORMAT_DESCRIPTION
            | kind::HEARTBEAT
            | kind::HEARTBEAT_V2
            | kind::IGNORABLE
            | kind::ROWS_QUERY
            | kind::PREVIOUS_GTIDS
            | kind::TRANSACTION_CONTEXT
            | kind::VIEW_CHANGE
            | kind::MARIADB_ANNOTATE_ROWS
            | kind::MARIADB_BINLOG_CHECKPOINT
            | kind::MARIADB_GTID_LIST => Body::Other,
            kind::MARIADB_START_ENCRYPTION => Body::Other,
            _ if self.header.flags & FLAG_IGNORABLE != 0 => Body::Other,
            other => {
                return Err(BinlogError::Unsupported(format!("binlog event of unknown type {other}")));
            }
        })
    }
}

/// Length of the values of status variables that lie before the character sets; `None` for variables from which on
/// nothing more is wanted.
fn query(body: &[u8]) -> Result<Query<'_>, BinlogError> {
    let fault = within("QUERY");
    let mut cursor = Cursor::new(body);
    cursor.bytes(8).map_err(&fault)?; // thread and time taken
    let database_len = usize::from(cursor.u8().map_err(&fault)?);
    cursor.u16().map_err(&fault)?; // error code
    let vars_len = usize::from(cursor.u16().map_err(&fault)?);
    let vars = cursor.bytes(vars_len).map_err(&fault)?;
    let database = cursor.bytes(database_len).map_err(&fault)?;
    cursor.u8().map_err(&fault)?;
    Ok(Query { database, charset: charset(vars), sql: cursor.rest() })
}

/// The character sets among the status variables, which come in order of their codes.
fn charset(vars: &[u8]) -> Option<[u16; 3]> {
    let mut cursor = Cursor::new(vars);
    loop {
        match cursor.u8().ok()? {
            0 => cursor.bytes(4).ok()?, // flags
            1 => cursor.bytes(8).ok()?, // sql_mode
            3 => cursor.bytes(4).ok()?, // auto_increment
            2 => {
                // An old form of the catalog, with a NUL behind.
                let len = cursor.u8().ok()?;
                cursor.bytes(usize::from(len) + 1).ok()?
            }
            6 => {
                let len = cursor.u8().ok()?;
                cursor.bytes(len.into()).ok()?
            }
            4 => {
                return Some([cursor.u16().ok()?, cursor.u16().ok()?, cursor.u16().ok()?]);
            }
            _ => return None,
        };
    }
}
