//! Hot row protection: transactions that begin with a change of the same row queue up here instead of
//! filling mysqld with waiters for one lock.
//!
//! Owns: one queue for each range of rows (table and WHERE clause) that a transaction is beginning on
//! right now, and its limits. Only the beginning is held back, as in Vitess: once its first statement
//! has run, a transaction is out of the queue, whether it holds the row lock or not.
//! Invariants: whoever leaves, by finishing, failing or going away, is counted out exactly once (a
//! [`Ticket`] that is dropped); a queue exists only while somebody is in it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use servenv::stats::{Counter, MultiCounter, Registry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vterrors::Code;

use super::error::ExecError;
use super::live::lock;

/// Most ranges whose waits are remembered for the page.
const REMEMBERED: usize = 1000;

/// The flags of hot row protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HotRowLimits {
    /// `-enable_hot_row_protection`.
    pub enabled: bool,
    /// `-enable_hot_row_protection_dry_run`: only count and log.
    pub dry_run: bool,
    /// `-hot_row_protection_max_queue_size`: transactions in the queue of one range.
    pub max_queue: usize,
    /// `-hot_row_protection_max_global_queue_size`: transactions in all queues.
    pub max_global_queue: usize,
    /// `-hot_row_protection_concurrent_transactions`: transactions of one range that mysqld gets at a time.
    pub concurrent: usize,
}

impl Default for HotRowLimits {
    fn default() -> Self {
        Self { enabled: false, dry_run: false, max_queue: 20, max_global_queue: 1000, concurrent: 5 }
    }
}

#[derive(Debug)]
struct Queue {
    size: usize,
    slots: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    queues: HashMap<Arc<str>, Queue>,
    /// Transactions in all queues.
    total: usize,
    /// How often a transaction came upon others in the same range, for the page.
    seen: HashMap<Arc<str>, u64>,
}

/// See the module.
#[derive(Debug)]
pub struct HotRows {
    limits: HotRowLimits,
    state: Mutex<State>,
    waits: MultiCounter,
    waits_dry_run: MultiCounter,
    exceeded: MultiCounter,
    exceeded_dry_run: MultiCounter,
    global_exceeded: Counter,
    global_exceeded_dry_run: Counter,
}

/// A place in a queue; dropping it leaves the queue and lets the next one go on.
#[derive(Debug)]
pub struct Ticket {
    rows: Arc<HotRows>,
    range: Arc<str>,
    /// The right to go on; `None` while it waits, and in a dry run.
    slot: Option<OwnedSemaphorePermit>,
    /// How long it had to wait.
    pub waited: Option<Duration>,
}

impl HotRows {
    pub fn new(limits: HotRowLimits, registry: &Registry) -> Arc<Self> {
        let by_table = |name: &str, help: &str| registry.multi_counter(name, help, &["table_name"]);
        Arc::new(Self {
            limits,
            state: Mutex::default(),
            waits: by_table("TxSerializerWaits", "Transactions that waited behind others on the same row"),
            waits_dry_run: by_table("TxSerializerWaitsDryRun", "Dry run transactions that would have waited"),
            exceeded: by_table("TxSerializerQueueExceeded", "Transactions refused because the queue of a row was full"),
            exceeded_dry_run: by_table(
                "TxSerializerQueueExceededDryRun",
                "Dry run transactions that would have been refused",
            ),
            global_exceeded: registry.counter(
                "TxSerializerGlobalQueueExceeded",
                "Transactions rejected because all queues together were full",
            ),
            global_exceeded_dry_run: registry
                .counter("TxSerializerGlobalQueueExceededDryRun", "Dry run transactions that would have been rejected"),
        })
    }

    pub fn is_on(&self) -> bool {
        self.limits.enabled || self.limits.dry_run
    }

    /// Waits for the turn of a transaction that begins on `range`, at most `longest`.
    ///
    /// Errors: RESOURCE_EXHAUSTED when a queue is full, DEADLINE_EXCEEDED when the turn does not come.
    pub async fn enter(self: &Arc<Self>, table: &str, range: String, longest: Duration) -> Result<Ticket, ExecError> {
        let (mut ticket, slots) = self.queue_up(table, range)?;
        if self.limits.dry_run {
            return Ok(ticket);
        }
        if let Ok(slot) = slots.clone().try_acquire_owned() {
            ticket.slot = Some(slot);
            return Ok(ticket);
        }
        self.waits.inc(&[table]);
        let started = Instant::now();
        match tokio::time::timeout(longest, slots.acquire_owned()).await {
            Ok(Ok(slot)) => {
                ticket.slot = Some(slot);
                ticket.waited = Some(started.elapsed());
                Ok(ticket)
            }
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => {
                let text = format!("hot row protection: no turn within {longest:?} for '{}'", ticket.range);
                Err(ExecError::new(Code::DeadlineExceeded, text))
            }
        }
    }

    fn queue_up(self: &Arc<Self>, table: &str, range: String) -> Result<(Ticket, Arc<Semaphore>), ExecError> {
        let limits = &self.limits;
        let mut state = lock(&self.state);
        let State { queues, total, seen } = &mut *state;
        let range: Arc<str> = range.into();
        let slots = match queues.get_mut(&range) {
            // The first of a range never waits and is never refused.
            None => {
                let slots = Arc::new(Semaphore::new(limits.concurrent.max(1)));
                queues.insert(range.clone(), Queue { size: 1, slots: slots.clone() });
                slots
            }
            Some(queue) => {
                if *total >= limits.max_global_queue {
                    let text = format!(
                        "hot row protection: too many queued transactions ({total} >= {})",
                        limits.max_global_queue
                    );
                    self.refuse(&self.global_exceeded_dry_run, &self.global_exceeded, text)?;
                } else if queue.size >= limits.max_queue {
                    let text = format!(
                        "hot row protection: too many queued transactions ({} >= {}) for the same row (table + WHERE clause: '{range}')",
                        queue.size, limits.max_queue
                    );
                    let of_table = |counter: &MultiCounter| counter.inc(&[table]);
                    if limits.dry_run {
                        of_table(&self.exceeded_dry_run);
                        tracing::info!("dry run: {text}");
                    } else {
                        of_table(&self.exceeded);
                        return Err(ExecError::new(Code::ResourceExhausted, text));
                    }
                }
                if queue.size >= limits.concurrent && limits.dry_run {
                    self.waits_dry_run.inc(&[table]);
                }
                queue.size += 1;
                if let Some(count) = seen.get_mut(&range) {
                    *count += 1;
                } else if seen.len() < REMEMBERED {
                    // The one that was there first counts too.
                    seen.insert(range.clone(), 2);
                }
                queue.slots.clone()
            }
        };
        *total += 1;
        Ok((Ticket { rows: self.clone(), range, slot: None, waited: None }, slots))
    }

    fn refuse(&self, dry_run: &Counter, real: &Counter, text: String) -> Result<(), ExecError> {
        if self.limits.dry_run {
            dry_run.inc();
            tracing::info!("dry run: {text}");
            return Ok(());
        }
        real.inc();
        Err(ExecError::new(Code::ResourceExhausted, text))
    }

    /// Ranges that several transactions met in, most often first, for `/debug/hotrows`.
    pub fn hottest(&self) -> Vec<(u64, Arc<str>)> {
        let mut all: Vec<_> = lock(&self.state).seen.iter().map(|(range, count)| (*count, range.clone())).collect();
        all.sort_by(|a, b| b.cmp(a));
        all
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        {
            let mut state = lock(&self.rows.state);
            state.total -= 1;
            if let Some(queue) = state.queues.get_mut(&self.range) {
                queue.size -= 1;
                if queue.size == 0 {
                    state.queues.remove(&self.range);
                }
            }
        }
        // Whoever is woken finds himself counted already.
        self.slot.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn rows(limits: HotRowLimits) -> Arc<HotRows> {
        HotRows::new(HotRowLimits { enabled: true, ..limits }, &Registry::new("vttablet"))
    }

    fn range(id: u32) -> String {
        format!("t where id = {id}")
    }

    #[tokio::test]
    async fn one_row_lets_as_many_in_as_it_may() {
        let rows = rows(HotRowLimits { concurrent: 1, ..HotRowLimits::default() });
        let first = rows.enter("t", range(1), LONG).await.expect("the first");
        assert!(rows.enter("t", range(2), LONG).await.expect("another row").waited.is_none());
        let second = tokio::spawn({
            let rows = rows.clone();
            async move { rows.enter("t", range(1), LONG).await }
        });
        while rows.waits.get(&["t"]) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(!second.is_finished());
        drop(first);
        let second = second.await.expect("it runs").expect("its turn");
        assert!(second.waited.is_some());
        drop(second);
        let state = lock(&rows.state);
        assert!(state.queues.is_empty() && state.total == 0);
        assert_eq!(state.seen.get("t where id = 1"), Some(&2));
    }

    #[tokio::test]
    async fn full_queues_refuse() {
        let limits = HotRowLimits { concurrent: 5, max_queue: 2, max_global_queue: 3, ..HotRowLimits::default() };
        let rows = rows(limits);
        let _held = [
            rows.enter("t", range(1), LONG).await.expect("first"),
            rows.enter("t", range(1), LONG).await.expect("second"),
        ];
        let refused = rows.enter("t", range(1), LONG).await.expect_err("the queue holds two");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(
            refused.to_string(),
            "hot row protection: too many queued transactions (2 >= 2) for the same row (table + WHERE clause: 't where id = 1')"
        );
        let _other = rows.enter("t", range(2), LONG).await.expect("a new row is never refused");
        let refused = rows.enter("t", range(2), LONG).await.expect_err("three are in all");
        assert_eq!(refused.to_string(), "hot row protection: too many queued transactions (3 >= 3)");
        assert_eq!((rows.exceeded.get(&["t"]), rows.global_exceeded.get()), (1, 1));
    }

    #[tokio::test]
    async fn whoever_gives_up_is_counted_out() {
        let rows = rows(HotRowLimits { concurrent: 1, ..HotRowLimits::default() });
        let first = rows.enter("t", range(1), LONG).await.expect("the first");
        let late = rows.enter("t", range(1), Duration::from_millis(1)).await.expect_err("no turn");
        assert_eq!(late.code(), Code::DeadlineExceeded);
        assert_eq!(lock(&rows.state).total, 1);
        drop(first);
        assert!(rows.enter("t", range(1), LONG).await.expect("free again").waited.is_none());
    }

    #[tokio::test]
    async fn a_dry_run_holds_nobody_back() {
        let limits = HotRowLimits { dry_run: true, concurrent: 1, max_queue: 1, ..HotRowLimits::default() };
        let rows = HotRows::new(limits, &Registry::new("vttablet"));
        let _first = rows.enter("t", range(1), LONG).await.expect("first");
        let _second = rows.enter("t", range(1), LONG).await.expect("let pass");
        assert_eq!((rows.exceeded_dry_run.get(&["t"]), rows.waits_dry_run.get(&["t"])), (1, 1));
        assert_eq!((rows.exceeded.get(&["t"]), rows.waits.get(&["t"])), (0, 0));
    }
}
