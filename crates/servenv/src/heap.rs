//! What of the heap counts as resident memory.
//!
//! The allocator keeps what threads have given back to it until one of them asks for memory again. A server that has done
//! something large and is at rest since, say with ten thousand clients that have left, would keep it.

use std::time::Duration;

/// How often. Less than the time in which somebody looks again.
const PERIOD: Duration = Duration::from_secs(10);

/// Gives back to the system what has been free for a while, again and again.
pub(crate) async fn give_back_what_is_free() {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Not on a thread that serves: hundreds of megabytes take milliseconds.
        let done = tokio::task::spawn_blocking(|| {
            // A thread that has not allocated anything collects nothing.
            drop(std::hint::black_box(Box::new(0_u64)));
            // SAFETY: it may be called at any time. Where another allocator is in use it finds nothing.
            unsafe { libmimalloc_sys::mi_collect(false) };
        });
        if done.await.is_err() {
            return;
        }
    }
}
