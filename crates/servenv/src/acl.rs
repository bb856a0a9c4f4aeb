//! `-security_policy`: who may open which HTTP page.
//!
//! Policies: none (everything is open), `read-only` (pages that change something are refused),
//! `deny-all`. An unknown name is deny-all: a typing error must not open a server.
//! `/debug/vars`, `/metrics` and `/debug/liveness` are never guarded, as in Vitess: supervisors poll
//! them.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// What a page is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Changes something: terminates a query, flushes logs.
    Admin,
    /// Shows queries, plans, status.
    Debugging,
    /// Shows health.
    Monitoring,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Policy {
    Open,
    ReadOnly,
    DenyAll,
}

/// The policy in force.
#[derive(Debug, Clone, Copy)]
pub struct Acl(Policy);

impl Acl {
    /// Reads the value of `-security_policy`.
    pub fn new(policy: &str) -> Self {
        Self(match policy {
            "" => Policy::Open,
            "read-only" => Policy::ReadOnly,
            "deny-all" => Policy::DenyAll,
            other => {
                tracing::warn!("security_policy {other:?} not found; using fallback policy (deny-all)");
                Policy::DenyAll
            }
        })
    }

    /// `Err` is the answer to send instead of the page: 403 with the reason.
    // The error is a response that is sent at once, not carried through layers.
    #[allow(clippy::result_large_err)]
    pub fn check(self, role: Role) -> Result<(), Response> {
        let policy = match self.0 {
            Policy::Open => return Ok(()),
            Policy::ReadOnly if role != Role::Admin => return Ok(()),
            Policy::ReadOnly => "read-only",
            Policy::DenyAll => "deny-all",
        };
        let text = format!("Access denied: not allowed: {policy} security_policy enforced\n");
        Err((StatusCode::FORBIDDEN, text).into_response())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_refuse_by_role() {
        let refused = |policy: &str| {
            [Role::Admin, Role::Debugging, Role::Monitoring].map(|role| Acl::new(policy).check(role).is_err())
        };
        assert_eq!(refused(""), [false, false, false]);
        assert_eq!(refused("read-only"), [true, false, false]);
        assert_eq!(refused("deny-all"), [true, true, true]);
        assert_eq!(refused("raed-only"), [true, true, true]);
    }
}
