//! Cluster operations: every vtctl command, and the plans behind them.
//!
//! Owns: the command table ([`run_command`]), the operations on keyspaces, shards, tablets and
//! schemas that need several tablets or records at once. Does not own: records and locks (`topo`),
//! what a tablet does when it is told (`vttablet`), how commands arrive (`vtctld`, `vtctl`).
//! Invariants: a command is refused before it changes anything if a rule forbids it; an operation on a
//! shard's master runs to its end even if the client goes away; everything can be run again.

mod args;
mod backups;
mod command;
mod commands;
mod config;
mod cutover;
mod error;
pub mod flags;
mod health;
mod locked;
pub mod logger;
mod output;
mod positions;
pub mod records;
mod reparent;
mod resharding;
mod schema;
mod shards;
mod table;
mod tablets;
mod validator;
mod version;
mod wrangler;

pub use command::{Command, Group, groups, run_command};
pub use config::{BackupStorage, Config};
pub use cutover::POINTS as CUTOVER_POINTS;
pub use error::{Error, Result};
pub use logger::Logger;

pub use wrangler::Wrangler;
