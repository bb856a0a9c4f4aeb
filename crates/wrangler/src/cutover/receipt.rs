//! What a cutover cost: how long each phase took, what clients noticed.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;
use vtproto::cutover::Receipt;

/// Measures the phases one after the other.
pub(super) struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Milliseconds since the last lap, at least the one that has begun.
    pub fn lap(&mut self) -> i64 {
        let now = Instant::now();
        let spent = now - self.0;
        self.0 = now;
        millis(spent)
    }
}

pub(super) fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i64::MAX)
}

/// The receipt as operators read it.
pub(super) fn text(title: &str, id: &str, receipt: &Receipt) -> String {
    let mut text = format!("MASTER was moved from {title} (cutover {id})\n");
    for (what, ms) in [
        ("gated in", receipt.gated_ms),
        ("drained in", receipt.drained_ms),
        ("fenced in", receipt.fenced_ms),
        ("caught up in", receipt.caught_up_ms),
        ("flipped in", receipt.flipped_ms),
        ("acknowledged in", receipt.acknowledged_ms),
        ("released in", receipt.released_ms),
        ("longest stall", receipt.longest_stall_ms),
    ] {
        let _ = writeln!(text, "  {:<22}{ms} ms", format!("{what}:"));
    }
    let _ = writeln!(text, "  {:<22}{}", "transactions killed:", receipt.killed);
    let _ = writeln!(text, "  {:<22}{}", "requests held:", receipt.refused);
    if !receipt.silent_gates.is_empty() {
        let _ = writeln!(text, "  {:<22}{}", "silent vtgates:", receipt.silent_gates.join(", "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_names_every_cost() {
        let receipt = Receipt { gated_ms: 1, longest_stall_ms: 42, killed: 2, refused: 7, ..Default::default() };
        let text = text("commerce/0 to customer/0", "ab", &receipt);
        assert!(text.starts_with("MASTER was moved from commerce/0 to customer/0 (cutover ab)\n"), "{text}");
        assert!(text.contains("  longest stall:        42 ms\n"), "{text}");
        assert!(text.contains("  transactions killed:  2\n  requests held:        7\n"), "{text}");
    }

    #[test]
    fn a_started_millisecond_counts() {
        assert_eq!(millis(Duration::from_micros(1001)), 2);
        assert_eq!(millis(Duration::ZERO), 0);
    }
}
