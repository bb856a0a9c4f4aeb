//! vtgate: what clients see as one database.
//!
//! Owns: the MySQL and gRPC servers for clients, sessions, and the way of a statement through
//! planning to the tablets. Keeps no state that matters: any vtgate can be killed at any time.

mod acknowledge;
pub mod caller;
pub mod config;
pub mod cutover;
pub mod executor;
pub mod gate;
pub mod grpc;
pub mod http;
pub mod mysql_server;
pub mod plan_cache;
pub mod query_log;
pub mod resolver;
pub mod scatter;
pub mod session;
pub mod stats;
pub mod transaction;
mod turns;
pub mod vschema_watch;

pub use config::Config;
pub use gate::{Gate, run};
