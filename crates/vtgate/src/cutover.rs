//! Statements that wait while a cutover moves their tables, so that clients see latency, not errors.
//!
//! Owns: who waits, how many and how many bytes of them, and the signal that something has changed which
//! may let them go on: a serving record, the vschema, a master's health (which a tablet repeats when its
//! gate ends). Does not own: what is done then (`executor::cutover`). This works without `-enable_buffer`,
//! which is for failovers.
//! Invariants: no more than the bounds wait at once; a waiter that is dropped frees its place; a change
//! after a mark was taken is never missed.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng;
use servenv::{Registry, stats::MultiCounter};
use tabletclient::{TabletHealth, health_check::HealthListener};
use tokio::sync::watch;
use tokio::time::Instant;
use vterrors::{Code, Result, VtError};
use vtproto::topodata::TabletType;

/// Longest wait for a signal before the tablet itself is asked again: its health stream may be broken.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The `-cutover_buffer_*` flags.
#[derive(Debug, Clone)]
pub struct CutoverOptions {
    /// Longest wait of one statement (`-cutover_buffer_window`).
    pub window: Duration,
    /// Most statements that wait at once (`-cutover_buffer_size`).
    pub size: usize,
    /// Most bytes of statements that wait at once (`-cutover_buffer_bytes`).
    pub bytes: usize,
}

impl Default for CutoverOptions {
    fn default() -> Self {
        Self { window: Duration::from_secs(30), size: 10_000, bytes: 64 << 20 }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Waiting {
    statements: usize,
    bytes: usize,
}

struct Inner {
    options: CutoverOptions,
    waiting: Mutex<Waiting>,
    generation: AtomicU64,
    changed: watch::Sender<u64>,
    buffered: AtomicI64,
    /// Longest wait that ended, in milliseconds.
    longest: AtomicI64,
    failed: MultiCounter,
}

/// See the module. Cloning shares it.
#[derive(Clone)]
pub struct CutoverWaits {
    inner: Arc<Inner>,
}

/// What had changed when a statement was sent.
#[derive(Debug, Clone, Copy)]
pub struct Mark(u64);

/// A place among those that wait; dropping it gives it up.
pub struct Place {
    waits: CutoverWaits,
    bytes: usize,
    since: Instant,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut waiting = self.waits.waiting();
        waiting.statements -= 1;
        waiting.bytes -= self.bytes;
        let waited = i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.waits.inner.longest.fetch_max(waited, Ordering::Relaxed);
    }
}

impl HealthListener for CutoverWaits {
    fn tablet_changed(&self, health: &TabletHealth) {
        if health.target.tablet_type() == TabletType::Master {
            self.note_change();
        }
    }
}

impl CutoverWaits {
    /// Registers its variables.
    pub fn new(options: CutoverOptions, registry: &Registry) -> Self {
        let failed = registry
            .multi_counter("CutoverBufferFailed", "Statements that a cutover made fail, by reason", &["Reason"])
            .with_zeros(&["BufferFull", "WindowExceeded", "PartlyDone"]);
        let inner = Arc::new(Inner {
            options,
            waiting: Mutex::default(),
            generation: AtomicU64::new(0),
            changed: watch::channel(0).0,
            buffered: AtomicI64::new(0),
            longest: AtomicI64::new(0),
            failed,
        });
        let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let waits = Self { inner };
        let of = waits.clone();
        registry.counter_func("CutoverBuffered", "Statements that waited for a cutover", move || {
            of.inner.buffered.load(Ordering::Relaxed)
        });
        let of = waits.clone();
        registry.gauge_func("CutoverBufferWaiting", "Statements that wait for a cutover now", move || {
            number(of.waiting().statements)
        });
        let of = waits.clone();
        registry.gauge_func("CutoverBufferBytes", "Bytes of the statements that wait for a cutover now", move || {
            number(of.waiting().bytes)
        });
        let of = waits.clone();
        registry.gauge_func("CutoverBufferLongestMs", "Longest wait for a cutover so far", move || {
            of.inner.longest.load(Ordering::Relaxed)
        });
        waits
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.inner.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be taken before a statement is resolved and sent.
    pub fn mark(&self) -> Mark {
        Mark(self.inner.generation.load(Ordering::Acquire))
    }

    /// Something has changed that may let those who wait go on.
    pub fn note_change(&self) {
        let generation = self.inner.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.inner.changed.send_replace(generation);
    }

    /// A place for a statement of so many bytes.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED when too many wait already; names the bound.
    pub fn place(&self, bytes: usize, refusal: &VtError) -> Result<Place> {
        let (options, mut waiting) = (&self.inner.options, self.waiting());
        let bound = if waiting.statements >= options.size {
            Some(format!("-cutover_buffer_size={}", options.size))
        } else if waiting.bytes.saturating_add(bytes) > options.bytes {
            Some(format!("-cutover_buffer_bytes={}", options.bytes))
        } else {
            None
        };
        if let Some(bound) = bound {
            drop(waiting);
            self.inner.failed.inc(&["BufferFull"]);
            let text = format!("too many statements wait for a cutover ({bound}): {refusal}");
            return Err(VtError::new(Code::ResourceExhausted, text));
        }
        waiting.statements += 1;
        waiting.bytes += bytes;
        self.inner.buffered.fetch_add(1, Ordering::Relaxed);
        Ok(Place { waits: self.clone(), bytes, since: Instant::now() })
    }

    pub(crate) fn count_partly_done(&self) {
        self.inner.failed.inc(&["PartlyDone"]);
    }
}

impl Place {
    /// Waits until something has changed since the mark.
    ///
    /// # Errors
    /// The refusal, when the window is over.
    pub async fn wait(&self, mark: Mark, refusal: VtError) -> Result<()> {
        let inner = &self.waits.inner;
        let end = self.since + inner.options.window;
        if Instant::now() >= end {
            inner.failed.inc(&["WindowExceeded"]);
            return Err(refusal.wrap(format!("waited {:?} for a cutover", inner.options.window)));
        }
        let jitter = rand::rng().random_range(0.5..1.0);
        let again = end.min(Instant::now() + ASK_AGAIN.mul_f64(jitter));
        let mut changed = inner.changed.subscribe();
        // Whether it has changed or the time has come, the statement is tried.
        let _ = tokio::time::timeout_at(again, changed.wait_for(|generation| *generation > mark.0)).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(options: CutoverOptions) -> CutoverWaits {
        CutoverWaits::new(options, &Registry::new("vtgate"))
    }

    fn refusal() -> VtError {
        VtError::new(Code::FailedPrecondition, "cutover in progress (one)")
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_after_the_mark_is_not_missed() {
        let waits = waits(CutoverOptions::default());
        let place = waits.place(10, &refusal()).expect("room");
        let (mark, started) = (waits.mark(), Instant::now());
        waits.note_change();
        place.wait(mark, refusal()).await.expect("changed");
        assert_eq!(started.elapsed(), Duration::ZERO);
        let mark = waits.mark();
        let ((), ()) = tokio::join!(async { place.wait(mark, refusal()).await.expect("changed") }, async {
            tokio::time::sleep(Duration::from_millis(3)).await;
            waits.note_change();
        });
        assert_eq!(started.elapsed(), Duration::from_millis(3));
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_window() {
        let waits = waits(CutoverOptions { window: Duration::from_secs(5), ..CutoverOptions::default() });
        let place = waits.place(10, &refusal()).expect("room");
        let started = Instant::now();
        let error = loop {
            if let Err(error) = place.wait(waits.mark(), refusal()).await {
                break error;
            }
        };
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        assert_eq!(error.code(), Code::FailedPrecondition);
        assert_eq!(error.message(), "waited 5s for a cutover: cutover in progress (one)");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_wait_are_bounded_and_those_who_leave_make_room() {
        let waits = waits(CutoverOptions { size: 2, bytes: 100, ..CutoverOptions::default() });
        let told = |place: Result<Place>| place.err().expect("full").message().to_owned();
        let first = waits.place(60, &refusal()).expect("room");
        assert_eq!(
            told(waits.place(60, &refusal())),
            "too many statements wait for a cutover (-cutover_buffer_bytes=100): cutover in progress (one)"
        );
        let _second = waits.place(40, &refusal()).expect("room");
        let full = waits.place(0, &refusal()).err().expect("full");
        assert_eq!(full.code(), Code::ResourceExhausted);
        assert!(full.message().contains("-cutover_buffer_size=2"), "{full}");
        drop(first);
        assert!(waits.place(60, &refusal()).is_ok());
    }
}
