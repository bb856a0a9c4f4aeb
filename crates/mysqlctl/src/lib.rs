//! mysqlctl lays out, initialises, starts and stops the mysqld of one tablet.
//!
//! Owns: finding the server's binaries ([`install`]), the tablet directory and `my.cnf` ([`config`]), mysqld as a
//! process ([`process`]), the first start with its accounts and tables ([`init`], [`mysql::sidecar`]), and hooks ([`hook`]).
//! Does not own: replication and serving, which are vttablet's.
//! Invariants: an action that fails names the cause and shows what mysqld itself wrote; an `init` that was cut short
//! leaves a marker, so that the next run starts over instead of using a half-made directory; only a process that was
//! started with this tablet's `my.cnf` is ever signalled.

pub mod config;
pub mod error;
pub mod error_log;
pub mod hook;
pub mod init;
pub mod install;
pub mod logins;
pub mod port;
pub mod process;
pub mod script;
pub mod tablet;

pub use error::{Error, Result};
pub use install::{Installation, ServerVersion, Vendor};
pub use tablet::MysqlTablet;
