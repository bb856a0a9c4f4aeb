//! Binary logs: reading them from a server as a replica does, and decoding their events.
//!
//! - [`BinlogStream`]: a connection that asks for everything after a GTID position and hands on one event at a time.
//!   Compressed events (MariaDB) and compressed transactions (MySQL) come out unpacked.
//! - [`Event`], [`Body`]: what an event says; bodies borrow from the packet.
//! - [`TableMap`], [`Rows`], [`Image`]: row events. [`Codec`] cuts cells out of an image, [`Value`] is one of them.
//!
//! Invariants: an event that is not understood is an error, never skipped, unless the server marks it as ignorable; no
//! more of a transaction is held than one event; bytes from the server never make this code panic.

mod codec;
mod compressed;
mod decimal;
mod dump;
mod error;
mod event;
mod gtid_event;
mod json;
mod rows;
mod stream;
mod table_map;
mod temporal;
mod value;

pub use codec::{Codec, TextKind};
pub use decimal::Decimal;
pub use error::BinlogError;
pub use event::{Body, Event, Header, Query, kind};
pub use gtid_event::GtidEvent;
pub use json::{Json, JsonError, PutString};
pub use rows::{Cells, Image, RowChanges, Rows, RowsKind};
pub use stream::{BinlogStream, StreamOptions};
pub use table_map::{ColumnDef, TableMap};
pub use temporal::{Date, DateTime, Time};
pub use value::Value;
