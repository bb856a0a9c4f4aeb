//! Throttlers of what writes faster than replicas may follow: clones, filtered replication, the clients of a tablet.
//!
//! Owns: how fast one writer may go ([`Throttler`]), the rate that follows the lag of replicas ([`AdaptiveRate`]), the
//! throttlers of a process by name ([`Throttlers`]), and the RPCs that show and change them ([`ThrottlerService`]). Does
//! not own: measuring how far replicas are behind, which the writers do.

mod adaptive;
pub mod config;
mod registry;
mod service;
mod throttler;

pub use adaptive::AdaptiveRate;
pub use registry::Throttlers;
pub use service::ThrottlerService;
pub use throttler::{Throttler, UNLIMITED};
