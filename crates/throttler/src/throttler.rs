//! How many transactions a second somebody may write: a stream, a copy, all clients of a tablet.
//!
//! A throttler paces one writer. Its rate is set when it is made and may be changed while it runs; 0 stops the writer,
//! the largest number does not limit it at all. Time not used is kept for a moment only, so that a pause is not followed
//! by a flood. Its rate may adapt to the lag of replicas besides. It also keeps how far replicas may be behind, where its
//! writer looks at that.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use vtproto::throttlerdata::Configuration;

use crate::AdaptiveRate;

/// A rate that does not limit.
pub const UNLIMITED: i64 = i64::MAX;
/// Unused time that may be made up for.
const BURST: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Throttler {
    name: String,
    max_rate: watch::Sender<i64>,
    /// From when on the next transaction may go.
    next: Mutex<Instant>,
    max_lag: Option<MaxLag>,
    adaptive: Option<Adaptive>,
    /// Places that were taken so far.
    taken: AtomicU64,
}

/// A rate that follows the lag of replicas, and the settings that it was made with.
#[derive(Debug)]
struct Adaptive {
    initial: Configuration,
    rate: Mutex<AdaptiveRate>,
}

impl Adaptive {
    fn rate(&self) -> MutexGuard<'_, AdaptiveRate> {
        self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far replicas may be behind, seconds.
#[derive(Debug)]
struct MaxLag {
    initial: i64,
    now: AtomicI64,
}

impl Throttler {
    pub fn new(name: impl Into<String>, max_rate: i64) -> Self {
        Self {
            name: name.into(),
            max_rate: watch::channel(max_rate).0,
            next: Mutex::new(Instant::now()),
            max_lag: None,
            adaptive: None,
            taken: AtomicU64::new(0),
        }
    }

    /// Its rate follows the lag of replicas, which [`Self::observe`] is told of, and is never above the one that is set.
    #[must_use]
    pub fn adaptive(self, config: Configuration) -> Self {
        Self { adaptive: Some(Adaptive { initial: config, rate: Mutex::new(AdaptiveRate::new(config)) }), ..self }
    }

    /// The settings by which its rate follows the lag of replicas; `None` where it does not.
    pub fn adaptive_config(&self) -> Option<Configuration> {
        self.adaptive.as_ref().map(|adaptive| adaptive.rate().config())
    }

    /// Says whether its rate adapts, so that the settings have an effect.
    pub(crate) fn set_adaptive_config(&self, config: Configuration) -> bool {
        self.adaptive.as_ref().map(|adaptive| adaptive.rate().set_config(config)).is_some()
    }

    /// One look at the replicas, which are `lags` seconds behind. Has no effect where the rate does not adapt.
    pub fn observe(&self, lags: Vec<u32>) {
        if let Some(adaptive) = &self.adaptive {
            adaptive.rate().observe(Instant::now(), lags, self.taken.load(Ordering::Relaxed));
        }
    }

    /// Its writer waits while a replica is further behind, in seconds, [`UNLIMITED`] for never.
    #[must_use]
    pub fn with_max_lag(self, seconds: i64) -> Self {
        Self { max_lag: Some(MaxLag { initial: seconds, now: AtomicI64::new(seconds) }), ..self }
    }

    /// How far replicas may be behind, seconds; `None` where the writer does not look at that.
    pub fn max_lag(&self) -> Option<i64> {
        self.max_lag.as_ref().map(|lag| lag.now.load(Ordering::Relaxed))
    }

    /// Has no effect where the writer does not look at lag.
    pub fn set_max_lag(&self, seconds: i64) {
        if let Some(lag) = &self.max_lag {
            lag.now.store(seconds, Ordering::Relaxed);
        }
    }

    /// Goes back to the limit of lag and the settings that it was made with.
    pub(crate) fn reset(&self) {
        if let Some(lag) = &self.max_lag {
            lag.now.store(lag.initial, Ordering::Relaxed);
        }
        if let Some(adaptive) = &self.adaptive {
            adaptive.rate().set_config(adaptive.initial);
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Transactions a second that were set.
    pub fn max_rate(&self) -> i64 {
        *self.max_rate.borrow()
    }

    /// Transactions a second: those that were set, or fewer where replicas do not bear them.
    pub fn rate(&self) -> i64 {
        let adapted = self.adaptive.as_ref().map_or(UNLIMITED, |adaptive| adaptive.rate().rate());
        self.max_rate().min(adapted)
    }

    pub fn set_max_rate(&self, rate: i64) {
        self.max_rate.send_replace(rate);
    }

    fn next(&self) -> MutexGuard<'_, Instant> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of one transaction if it may go now.
    pub fn try_take(&self) -> bool {
        let rate = self.rate();
        if rate == UNLIMITED {
            return true;
        }
        if rate <= 0 {
            return false;
        }
        let now = Instant::now();
        let mut next = self.next();
        if *next > now {
            return false;
        }
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        *next = (*next).max(earliest) + Duration::from_secs(1).div_f64(rate as f64);
        self.taken.fetch_add(1, Ordering::Relaxed);
        true
    }

    /// Waits until [`Self::try_take`] may succeed, which it need not when the rate changes.
    pub async fn ready(&self) {
        let mut rate = self.max_rate.subscribe();
        let now = *rate.borrow_and_update();
        let next = *self.next();
        let free = async {
            match now {
                // Only a change of the rate helps.
                ..=0 => std::future::pending().await,
                UNLIMITED => {}
                _ => sleep_until(next).await,
            }
        };
        tokio::select! {
            () = free => {}
            _ = rate.changed() => {}
        }
    }

    /// Waits for the place of one transaction.
    pub async fn take(&self) {
        while !self.try_take() {
            self.ready().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn transactions_are_spread_over_time() {
        let throttler = Throttler::new("BinlogPlayer/1", 100);
        let started = Instant::now();
        for _ in 0..200 {
            throttler.take().await;
        }
        let took = started.elapsed();
        assert!(took > Duration::from_millis(1850) && took < Duration::from_millis(2300), "{took:?}");
        // A pause is made up for by a moment's worth at most.
        tokio::time::sleep(Duration::from_secs(60)).await;
        let started = Instant::now();
        for _ in 0..100 {
            throttler.take().await;
        }
        assert!(started.elapsed() > Duration::from_millis(850));
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_may_change_while_somebody_waits() {
        let throttler = std::sync::Arc::new(Throttler::new("BinlogPlayer/1", 0));
        assert!(!throttler.try_take());
        let waiting = {
            let throttler = throttler.clone();
            tokio::spawn(async move { throttler.take().await })
        };
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(!waiting.is_finished());
        throttler.set_max_rate(UNLIMITED);
        waiting.await.expect("no panic");
        assert_eq!((throttler.max_rate(), throttler.name()), (UNLIMITED, "BinlogPlayer/1"));
    }
}
