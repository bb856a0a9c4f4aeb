//! The MySQL server side: what a client of vtgate talks to.
//!
//! - [`Server`] accepts connections and knows them all; [`Handler`] runs their commands; [`ResultWriter`] carries
//!   results back, text or binary, and waits while the client does not read.
//! - One task serves a connection. It holds no buffer while it waits for a command.
//! - Not built: compression, session tracking, LOAD DATA LOCAL, cursors, the proxy protocol. Their capabilities are
//!   not offered, so clients do not ask.

mod auth;
mod binary;
mod config;
mod connection;
mod handler;
mod handshake;
mod listener;
mod prepared;
mod registry;
mod tls;
mod writer;

pub use auth::{AuthError, AuthServer, Identity};
pub use config::ServerConfig;
pub use handler::{ConnectionInfo, Handler, HandlerError, Prepared};
pub use listener::{Server, bind_unix};
pub use tls::{TlsError, tls_config};
pub use writer::{OkInfo, ResultWriter};
