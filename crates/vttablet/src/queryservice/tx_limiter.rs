//! How many transactions one user may have open, so that nobody takes the whole pool for himself.
//!
//! Owns: the count of open transactions by user, what tells users apart, and the refusals. Does not own
//! the transactions: each carries a [`TxSlot`], and ends the count by being dropped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use servenv::stats::{MultiCounter, Registry};
use vterrors::Code;
use vtproto::query::VtGateCallerId;
use vtproto::vtrpc::CallerId;

use super::error::ExecError;
use super::live::lock;

/// What tells one user from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserParts {
    /// `-transaction_limit_by_username`.
    pub username: bool,
    /// `-transaction_limit_by_principal`.
    pub principal: bool,
    /// `-transaction_limit_by_component`.
    pub component: bool,
    /// `-transaction_limit_by_subcomponent`.
    pub subcomponent: bool,
}

impl Default for UserParts {
    fn default() -> Self {
        Self { username: true, principal: true, component: false, subcomponent: false }
    }
}

/// The flags of the limiter.
#[derive(Debug, Clone, PartialEq)]
pub struct TxLimit {
    /// `-enable_transaction_limit`.
    pub enabled: bool,
    /// `-enable_transaction_limit_dry_run`: only count and log what would be refused.
    pub dry_run: bool,
    /// `-transaction_limit_per_user`: share of all transactions that one user may have.
    pub per_user: f64,
    pub parts: UserParts,
}

impl Default for TxLimit {
    fn default() -> Self {
        Self { enabled: false, dry_run: false, per_user: 0.4, parts: UserParts::default() }
    }
}

/// Who a user is: username, principal, component and subcomponent, those that count.
type User = [String; 4];

/// See the module.
#[derive(Debug)]
pub struct TxLimiter {
    limit: TxLimit,
    /// Most transactions of one user.
    most: usize,
    open: Mutex<HashMap<User, usize>>,
    refused: MultiCounter,
    would_refuse: MultiCounter,
}

/// One open transaction in the count of its user.
#[derive(Debug)]
pub struct TxSlot {
    limiter: Arc<TxLimiter>,
    user: User,
}

impl TxLimiter {
    /// `capacity`: transactions that may be open together.
    pub fn new(limit: TxLimit, capacity: usize, registry: &Registry) -> Arc<Self> {
        let labels = ["Component", "Principal", "Subcomponent", "Username"];
        Arc::new(Self {
            // Whole transactions, rounded down as Vitess does.
            most: (capacity as f64 * limit.per_user) as usize,
            limit,
            open: Mutex::default(),
            refused: registry.multi_counter(
                "TxLimiterRejections",
                "Transactions refused because their user had too many open",
                &labels,
            ),
            would_refuse: registry.multi_counter(
                "TxLimiterRejectionsDryRun",
                "Transactions that a limit in force would have refused",
                &labels,
            ),
        })
    }

    /// Whether transactions are counted.
    pub fn is_on(&self) -> bool {
        self.limit.enabled || self.limit.dry_run
    }

    /// Counts one more transaction of a user. `None`: it does not count.
    ///
    /// Errors: RESOURCE_EXHAUSTED when the user has as many as allowed.
    pub fn take(
        self: &Arc<Self>,
        immediate: Option<&VtGateCallerId>,
        effective: Option<&CallerId>,
    ) -> Result<Option<TxSlot>, ExecError> {
        if !self.is_on() {
            return Ok(None);
        }
        let user = self.user(immediate, effective);
        {
            let mut open = lock(&self.open);
            let count = open.get(&user).copied().unwrap_or_default();
            if count < self.most {
                open.insert(user.clone(), count + 1);
                return Ok(Some(TxSlot { limiter: self.clone(), user }));
            }
        }
        let [username, principal, component, subcomponent] = user.each_ref().map(String::as_str);
        let labels = [component, principal, subcomponent, username];
        if self.limit.dry_run {
            self.would_refuse.inc(&labels);
            tracing::info!("transaction limit (dry run): {user:?} has {} transactions open", self.most);
            return Ok(None);
        }
        self.refused.inc(&labels);
        Err(ExecError::new(Code::ResourceExhausted, "per-user transaction pool connection limit exceeded"))
    }

    fn user(&self, immediate: Option<&VtGateCallerId>, effective: Option<&CallerId>) -> User {
        let parts = self.limit.parts;
        let keep = |wanted: bool, text: Option<&String>| text.filter(|_| wanted).cloned().unwrap_or_default();
        [
            keep(parts.username, immediate.map(|caller| &caller.username)),
            keep(parts.principal, effective.map(|caller| &caller.principal)),
            keep(parts.component, effective.map(|caller| &caller.component)),
            keep(parts.subcomponent, effective.map(|caller| &caller.subcomponent)),
        ]
    }
}

impl Drop for TxSlot {
    fn drop(&mut self) {
        let mut open = lock(&self.limiter.open);
        if let Some(count) = open.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(limit: TxLimit) -> Arc<TxLimiter> {
        TxLimiter::new(limit, 10, &Registry::new("vttablet"))
    }

    fn user(name: &str) -> VtGateCallerId {
        VtGateCallerId { username: name.into(), groups: vec![] }
    }

    #[test]
    fn a_user_leaves_room_for_others() {
        let limiter = limiter(TxLimit { enabled: true, per_user: 0.25, ..TxLimit::default() });
        let (ann, bob) = (user("ann"), user("bob"));
        let mut held: Vec<_> = (0..2).map(|_| limiter.take(Some(&ann), None).expect("within the limit")).collect();
        let refused = limiter.take(Some(&ann), None).expect_err("two of ten is all a quarter allows");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.to_string(), "per-user transaction pool connection limit exceeded");
        assert_eq!(limiter.refused.get(&["", "", "", "ann"]), 1);
        let other = limiter.take(Some(&bob), None).expect("somebody else");
        held.pop();
        assert!(limiter.take(Some(&ann), None).is_ok());
        drop((held, other));
        assert!(lock(&limiter.open).is_empty());
    }

    #[test]
    fn the_parts_that_count_tell_users_apart() {
        let parts = UserParts { username: false, principal: true, component: true, subcomponent: false };
        let limiter = limiter(TxLimit { enabled: true, per_user: 0.1, parts, ..TxLimit::default() });
        let caller = |component: &str, subcomponent: &str| CallerId {
            principal: "p".into(),
            component: component.into(),
            subcomponent: subcomponent.into(),
        };
        let _first = limiter.take(Some(&user("a")), Some(&caller("web", "1"))).expect("the first");
        assert!(limiter.take(Some(&user("b")), Some(&caller("web", "2"))).is_err());
        assert!(limiter.take(Some(&user("a")), Some(&caller("batch", "1"))).is_ok());
    }

    #[test]
    fn a_dry_run_counts_and_lets_pass() {
        let limiter = limiter(TxLimit { dry_run: true, per_user: 0.1, ..TxLimit::default() });
        let ann = user("ann");
        let _first = limiter.take(Some(&ann), None).expect("the first");
        assert!(limiter.take(Some(&ann), None).expect("let pass").is_none());
        assert_eq!(limiter.would_refuse.get(&["", "", "", "ann"]), 1);
        assert_eq!(limiter.refused.get(&["", "", "", "ann"]), 0);
    }
}
