//! The frame of every program: flags, logs, variables, the HTTP and the gRPC server, shutdown.
//!
//! A program is `servenv::main(Program::Vtgate, |env| …)`; it takes its configuration from
//! [`Env::flags`], counts in [`Env::stats`], fills a [`Server`] with routes and services and runs it
//! until [`terminated`]. Nothing here knows tablets or queries.
//!
//! Invariant: no mutable statics but the log writer, so that two servers live in one test process.

mod acl;
mod env;
mod error;
pub mod failpoint;
pub mod flags;
pub mod grpc;
mod heap;
pub mod hostname;
mod http;
pub mod http_client;
pub mod lifecycle;
pub mod logging;
mod profile;
mod program_text;
pub mod register;
mod server;
pub mod stats;

pub use acl::{Acl, Role};
pub use env::{Env, main};
pub use error::{Error, Reported};
pub use flags::{FlagError, FlagSet, Parsed};
pub use http::html_escape;
pub use lifecycle::{hangups, terminated};
pub use register::Program;
pub use server::{Running, Server};
pub use stats::Registry;
