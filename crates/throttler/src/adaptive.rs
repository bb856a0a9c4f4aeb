//! A rate that follows what replicas bear.
//!
//! Owns: when the rate goes up and down, from the lag of the replicas and the rate that was really used. Knows no clock
//! and no tablet: both are handed in.
//!
//! While no replica is further behind than the target, the rate rises by `max_increase` each time that the one before was
//! nearly used up; towards a rate that was seen to be too high it only goes half way. Between target and limit, the rate
//! at which the replicas apply follows from how fast the lag grows, and the new rate is below it by what works the backlog
//! off. Beyond the limit it falls by `emergency_decrease`. A rate that was too high is tried again after a time.
//! Where no replica is heard of, the rate stays.

use std::time::Duration;

use tokio::time::Instant;
use vtproto::throttlerdata::Configuration;

/// See the module.
#[derive(Debug)]
pub struct AdaptiveRate {
    config: Configuration,
    /// Transactions a second.
    rate: f64,
    /// When the rate was changed last, and what was known then.
    since: Option<Mark>,
    bad: Option<BadRate>,
}

#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    taken: u64,
    lag: u32,
}

/// The lowest rate that is known to have been too high.
#[derive(Debug, Clone, Copy)]
struct BadRate {
    rate: f64,
    since: Instant,
}

fn seconds(count: i64) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or_default())
}

impl AdaptiveRate {
    /// Starts at the initial rate. The configuration has to be valid.
    pub fn new(config: Configuration) -> Self {
        Self { rate: config.initial_rate as f64, config, since: None, bad: None }
    }

    pub fn config(&self) -> Configuration {
        self.config
    }

    /// The rate stays what it is.
    pub fn set_config(&mut self, config: Configuration) {
        self.config = config;
    }

    /// Transactions a second, at least one.
    pub fn rate(&self) -> i64 {
        self.rate as i64
    }

    /// One look at the replicas, which are `lags` seconds behind; `taken` counts all transactions that were let through so
    /// far.
    pub fn observe(&mut self, now: Instant, mut lags: Vec<u32>, taken: u64) {
        lags.sort_unstable_by(|a, b| b.cmp(a));
        let ignored = usize::try_from(self.config.ignore_n_slowest_replicas).unwrap_or_default();
        let Some(lag) = lags.get(ignored).copied() else { return };
        let mark = *self.since.get_or_insert(Mark { at: now, taken, lag });
        let elapsed = now.duration_since(mark.at);
        let used = taken.saturating_sub(mark.taken) as f64 / elapsed.as_secs_f64().max(1.0);
        self.forgive(now);
        let wanted = if i64::from(lag) > self.config.max_replication_lag_sec {
            self.emergency(elapsed)
        } else if i64::from(lag) > self.config.target_replication_lag_sec {
            self.decreased(elapsed, used, f64::from(lag) - f64::from(mark.lag))
        } else {
            self.increased(elapsed, used)
        };
        let Some(wanted) = wanted else { return };
        let wanted = wanted.max(1.0);
        if wanted < self.rate {
            let rate = if used > 0.0 { used.min(self.rate) } else { self.rate };
            self.bad = Some(BadRate { rate: self.bad.map_or(rate, |bad| bad.rate.min(rate)), since: now });
        }
        tracing::debug!(lag, used, from = self.rate, to = wanted, "the rate of transactions changes");
        self.rate = wanted;
        self.since = Some(Mark { at: now, taken, lag });
    }

    fn emergency(&self, elapsed: Duration) -> Option<f64> {
        let due = elapsed >= seconds(self.config.min_duration_between_decreases_sec);
        due.then_some(self.rate * (1.0 - self.config.emergency_decrease))
    }

    fn decreased(&self, elapsed: Duration, used: f64, growth: f64) -> Option<f64> {
        if elapsed < seconds(self.config.min_duration_between_decreases_sec) || growth <= 0.0 {
            return None;
        }
        let rate = used.min(self.rate);
        let applied = rate * (1.0 - growth / elapsed.as_secs_f64());
        let backlog = (rate - applied) * elapsed.as_secs_f64();
        let wanted = applied - backlog / self.config.spread_backlog_across_sec as f64;
        let lowest = self.rate * (1.0 - self.config.emergency_decrease);
        Some(wanted.clamp(lowest.min(self.rate), self.rate))
    }

    fn increased(&self, elapsed: Duration, used: f64) -> Option<f64> {
        let due = elapsed >= seconds(self.config.min_duration_between_increases_sec);
        if !due || used < self.rate * self.config.max_rate_approach_threshold {
            return None;
        }
        let most = self.rate * (1.0 + self.config.max_increase);
        match self.bad {
            // Nearer than a transaction a second nothing is to be had.
            Some(bad) if bad.rate - self.rate < 2.0 => None,
            Some(bad) => Some(most.min(f64::midpoint(self.rate, bad.rate))),
            None => Some(most),
        }
    }

    /// What was too high once need not be so forever.
    fn forgive(&mut self, now: Instant) {
        let after = seconds(self.config.age_bad_rate_after_sec);
        if let Some(bad) = &mut self.bad
            && now.duration_since(bad.since) >= after
        {
            *bad = BadRate { rate: bad.rate * (1.0 + self.config.bad_rate_increase), since: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::defaults;

    /// A replica that applies `capacity` transactions a second, and a writer that writes what it may, up to `demand`.
    struct Simulation {
        rate: AdaptiveRate,
        now: Instant,
        taken: f64,
        applied: f64,
        /// By second, what was written up to then.
        written: Vec<f64>,
        worst: u32,
    }

    impl Simulation {
        fn new() -> Self {
            let rate = AdaptiveRate::new(defaults());
            Self { rate, now: Instant::now(), taken: 0.0, applied: 0.0, written: vec![0.0], worst: 0 }
        }

        fn run(&mut self, seconds: usize, capacity: f64, demand: f64) {
            for _ in 0..seconds {
                self.now += Duration::from_secs(1);
                self.taken += demand.min(self.rate.rate() as f64);
                self.written.push(self.taken);
                self.applied = self.taken.min(self.applied + capacity);
                let lag = self.written.iter().rev().take_while(|written| **written > self.applied).count();
                let lag = u32::try_from(lag).expect("small");
                self.worst = self.worst.max(lag);
                self.rate.observe(self.now, vec![lag], self.taken as u64);
            }
        }
    }

    #[test]
    fn the_rate_rises_to_what_is_asked_for_and_no_further() {
        let mut run = Simulation::new();
        run.run(600, 1e6, 1000.0);
        let rate = run.rate.rate();
        assert!((1000..=2000).contains(&rate), "{rate}");
        run.run(600, 1e6, 10.0);
        assert_eq!(run.rate.rate(), rate);
        assert_eq!(run.worst, 0);
    }

    #[test]
    fn the_rate_settles_below_what_a_replica_bears() {
        let mut run = Simulation::new();
        run.run(1800, 500.0, 1e6);
        let before = run.taken;
        run.worst = 0;
        run.run(1800, 500.0, 1e6);
        let used = (run.taken - before) / 1800.0;
        assert!((300.0..=505.0).contains(&used), "{used}");
        assert!(run.worst <= 30, "{}", run.worst);
    }

    #[test]
    fn a_replica_that_is_far_behind_halves_the_rate_at_each_turn() {
        let mut rate = AdaptiveRate::new(defaults());
        let start = Instant::now();
        for second in 0..=60 {
            rate.observe(start + Duration::from_secs(second), vec![0, 300], 0);
        }
        assert_eq!(rate.rate(), 12);
        for second in 61..1000 {
            rate.observe(start + Duration::from_secs(second), vec![0, 300], 0);
        }
        assert_eq!(rate.rate(), 1);
    }

    #[test]
    fn the_slowest_may_be_left_out_and_silence_changes_nothing() {
        let config = Configuration { ignore_n_slowest_replicas: 1, ..defaults() };
        let mut rate = AdaptiveRate::new(config);
        let start = Instant::now();
        for second in 0..100 {
            let now = start + Duration::from_secs(second);
            rate.observe(now, vec![1, 900], 0);
            rate.observe(now, vec![900], 0);
            rate.observe(now, Vec::new(), 0);
        }
        assert_eq!(rate.rate(), 100);
    }
}
