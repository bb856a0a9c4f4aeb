//! The target side: what a MASTER tablet does with the rows of `_vt.vreplication` that belong to its database.
//!
//! [`Engine`] owns one controller a row. A controller ([`controller`]) chooses a source tablet ([`picker`]), asks it for a
//! stream ([`client`]) and plays it ([`player`]) through a connection to mysqld ([`applier`]) until the row says stop. Full
//! transactions of independent rows run on further connections at the same time ([`overlap`]). What is sent is a [`script`]:
//! texts, and rows as parameters ([`parameters`]) where mysqld takes many with one statement.
//! Rows are read and written by [`row`], the statements of `VReplicationExec` are told apart by [`statement`].
//!
//! Invariants: rows and the position they reach are committed in one transaction of the target, in the order of the source;
//! at any time at most one process applies a stream; a stream's memory is bounded in bytes.

mod applier;
mod batch;
mod client;
mod config;
mod controller;
mod engine;
mod merge;
mod overlap;
mod parameters;
mod picker;
mod player;
mod replicas;
mod row;
mod script;
mod source;
mod statement;
mod stats;
mod status;

pub use config::EngineConfig;
pub use engine::Engine;
pub use row::State;
pub use source::{SourceKind, print_source, read_source};
pub use stats::StreamStatus;
