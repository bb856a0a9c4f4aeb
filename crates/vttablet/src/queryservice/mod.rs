//! The query service of one tablet: statements of vtgates in, rows of mysqld out.
//!
//! A request passes [`gate`] (is it for us, do we serve), gets a [`plan`] from [`plan_cache`] (checked
//! against [`schema`], [`rules`] and [`acl`]), passes [`cutover`] (are its tables about to move), and
//! runs on a connection of a [`pool`] or of its transaction ([`tx`]). [`server`] puts the parts together and opens and closes them; [`service`] is
//! the face towards the wire, [`pages`] the one towards a browser.

pub mod acl;
pub mod config;
mod conn;
mod consolidator;
pub mod cutover;
mod error;
mod executor;
pub mod gate;
pub mod health;
mod heartbeat;
mod hot_rows;
mod live;
pub mod logs;
pub mod pages;
mod plan;
mod plan_cache;
mod pool;
pub mod rules;
mod schema;
mod sequence;
mod server;
mod service;
mod stats;
mod stream;
mod twopc;
mod tx;
mod tx_limiter;
mod tx_throttler;
mod unbuilt;
mod variables;

pub use config::{LogFormat, QueryServiceConfig};
pub use gate::State;
pub use heartbeat::Lag;
pub use hot_rows::HotRowLimits;
pub use pages::{admin_routes, debugging_routes};
pub use plan::{PlanSummary, plan_summary};
pub use server::{Core, TabletServer};
pub use tx_limiter::{TxLimit, UserParts};
pub use tx_throttler::TxThrottler;
