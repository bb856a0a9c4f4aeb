//! Who runs a statement, and what ends it early.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use vtproto::{query::VtGateCallerId, vtrpc::CallerId};

/// How long a commit that is under way is waited for when its statement is to be cut short.
const COMMIT_GRACE: Duration = Duration::from_secs(5);

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
    /// Held while a commit is waited for.
    pub committing: Arc<Mutex<()>>,
}

impl Caller {
    /// Runs a part of a statement until `end` cuts it short, which is `None`: drop its future then. As in MySQL a commit
    /// that is under way is not cut short, unless it takes long.
    ///
    /// The future stays where it is, for it is large, and an argument of an async function lies in that function's own
    /// future twice.
    pub async fn run_until<T>(
        &self,
        end: impl Future<Output = ()>,
        running: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let end = async {
            end.await;
            let _ = tokio::time::timeout(COMMIT_GRACE, self.committing.lock()).await;
        };
        tokio::select! {
            biased;
            outcome = running => Some(outcome),
            () = end => None,
        }
    }

    /// The name that table ACLs and `-vschema_ddl_authorized_users` look at.
    pub fn username(&self) -> &str {
        self.immediate.as_ref().map_or("", |caller| caller.username.as_str())
    }

    pub fn principal(&self) -> &str {
        self.effective.as_ref().map_or("", |caller| caller.principal.as_str())
    }
}
