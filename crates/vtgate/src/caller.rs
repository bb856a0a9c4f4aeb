//! Who runs a statement, and what ends it early.

use tokio_util::sync::CancellationToken;
use vtproto::{query::VtGateCallerId, vtrpc::CallerId};

/// The identities that go to the tablets with each call, and where the call came from.
#[derive(Debug, Clone, Default)]
pub struct Caller {
    /// Who the client says it works for.
    pub effective: Option<CallerId>,
    /// Who the client is, as table ACLs know it.
    pub immediate: Option<VtGateCallerId>,
    /// Address of the client, for logs.
    pub remote: String,
    /// Resolves when the client has gone or its statement is to be ended.
    pub cancelled: CancellationToken,
}

impl Caller {
    /// The name that table ACLs and `-vschema_ddl_authorized_users` look at.
    pub fn username(&self) -> &str {
        self.immediate.as_ref().map_or("", |caller| caller.username.as_str())
    }

    pub fn principal(&self) -> &str {
        self.effective.as_ref().map_or("", |caller| caller.principal.as_str())
    }
}
