//! Clients of a vttablet: its query service, its tablet manager, its health; and the choice of a
//! tablet to send a query to. Hides the transport.

mod query_service;
pub mod tm;

pub use query_service::{BeginOutcome, HealthStream, QueryService, ResultStream};
