//! Fewer transactions while the replicas of the shard lag behind.
//!
//! Owns: whether one more transaction may begin on a master. Does not own: the rate, which [`throttler`] adapts, nor the
//! look at the replicas, which [`crate::replica_lag`] has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use servenv::stats::{Counter, Registry};
use throttler::{Throttler, Throttlers, UNLIMITED};
use vterrors::Code;
use vtproto::throttlerdata::Configuration;

use super::error::ExecError;

/// The name in the lists of throttlers.
const NAME: &str = "TransactionThrottler";

/// See the module.
#[derive(Debug)]
pub struct TxThrottler {
    throttler: Arc<Throttler>,
    /// Whether this is a master whose replicas are looked at.
    open: AtomicBool,
    asked: Counter,
    refused: Counter,
}

impl TxThrottler {
    /// `-enable-tx-throttler`; it lets everything through until it is opened.
    pub fn new(config: Configuration, throttlers: &Throttlers, registry: &Registry) -> Arc<Self> {
        let this = Arc::new(Self {
            throttler: throttlers.add(Throttler::new(NAME, UNLIMITED).adaptive(config)),
            open: AtomicBool::new(false),
            asked: registry.counter("TransactionThrottlerRequests", "Transactions that the throttler was asked for"),
            refused: registry.counter("TransactionThrottlerThrottled", "Transactions that the throttler refused"),
        });
        let weak = Arc::downgrade(&this);
        registry.gauge_func("TransactionThrottlerRunning", "Whether transactions are throttled here", move || {
            weak.upgrade().is_some_and(|this| this.open.load(Ordering::Relaxed)).into()
        });
        this
    }

    /// One more transaction.
    ///
    /// Errors: RESOURCE_EXHAUSTED when the replicas do not bear it.
    pub(super) fn admit(&self) -> Result<(), ExecError> {
        if !self.open.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.asked.add(1);
        if self.throttler.try_take() {
            return Ok(());
        }
        self.refused.add(1);
        Err(ExecError::new(Code::ResourceExhausted, "Transaction throttled"))
    }

    pub fn throttler(&self) -> &Throttler {
        &self.throttler
    }

    /// Begins to limit transactions, or ends it.
    pub fn set_open(&self, open: bool) {
        if self.open.swap(open, Ordering::Relaxed) != open {
            tracing::info!(open, "the transaction throttler");
        }
    }
}
