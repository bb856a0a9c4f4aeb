//! The tablet manager: the tablet's record, its role in the shard, its replication and its health.
//!
//! Owns: what this tablet is (type, master term) and whether it serves; the RPCs of `TabletManager`. Does not own:
//! queries ([`crate::queryservice`]), which it only switches on and off, nor mysqld as a process.
//!
//! How the parts work together: an RPC ([`rpc`]) runs one action ([`actions`], [`schema`], [`replication`], [`query`]).
//! What changes the tablet holds the action lock, so that two reparents never mix. [`apply`] turns the record and what
//! topo says about it into serving or not; [`health`] looks at mysqld again and again and does the same; [`shard_sync`]
//! keeps the shard record and this tablet's mastership in agreement.
//!
//! Invariants: a tablet whose record is not MASTER never serves as MASTER; a master that was demoted does not accept
//! writes again until it is told to, restarts included; health checks and queries do not wait for topo.

mod actions;
mod apply;
pub mod custom_rules;
mod cutover;
pub mod decision;
mod health;
mod init;
mod manager;
mod markers;
pub mod mysqld;
mod orchestrator;
mod permissions;
mod preflight;
mod query;
pub mod query_control;
mod replication;
mod replication_watcher;
mod reporter;
mod restore;
pub mod rpc;
mod schema;
mod shard_sync;
mod stats;
mod status;
pub mod update_stream;
mod vreplication;

pub use cutover::CutoverService;
pub use health::HealthRecord;
pub use init::{refuse_second, register};
pub use manager::{Addresses, InitTarget, ManagerConfig, RestoreConfig, TabletManager};
pub use mysqld::{Logins, Mysqld};
pub use orchestrator::OrchestratorConfig;
pub use query_control::{QueryControl, ServedQueries};
pub use rpc::TabletManagerService;
