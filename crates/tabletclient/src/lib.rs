//! Clients of a vttablet: its query service, its tablet manager, its health; and the choice of a
//! tablet to send a query to. Hides the transport.

pub mod grpc;
mod query_service;
pub mod tm;

pub use query_service::{BeginOutcome, HealthStream, QueryService, ResultStream};

use vtproto::topodata::TabletAlias;

/// An alias as people write it, uid padded: `zone1-0000000100`.
pub(crate) fn alias_text(alias: Option<&TabletAlias>) -> String {
    alias.map_or_else(|| "<nil>".into(), |a| format!("{}-{:010}", a.cell, a.uid))
}
