//! Throttlers of everything that writes on behalf of a split: clones and filtered replication.
//!
//! Owns: how fast one writer may go ([`Throttler`]), the throttlers of a process by name ([`Throttlers`]), and the RPCs that
//! show and change them ([`ThrottlerService`]). Does not own: measuring how far replicas are behind, which the writers do.

mod registry;
mod service;
mod throttler;

pub use registry::Throttlers;
pub use service::ThrottlerService;
pub use throttler::{Throttler, UNLIMITED};
