//! What a run has seen: latencies, counts and errors, and the JSON they become.

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// The part of a run that counts: after the warm-up, before the end (times of `clock::now`).
#[derive(Debug, Clone, Copy)]
pub struct Window {
    /// First counted nanosecond.
    pub from: u64,
    /// First nanosecond that no longer counts.
    pub until: u64,
}

impl Window {
    /// Whether `at` counts.
    #[must_use]
    pub fn contains(&self, at: u64) -> bool {
        (self.from..self.until).contains(&at)
    }

    /// Its length in seconds.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        (self.until - self.from) as f64 / 1e9
    }
}

/// Which messages count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// The next message follows the last one's echo: those that came *back* within the window.
    Closed,
    /// Messages follow a schedule: those that were *due* within the window, however late they
    /// left and came back. Anything else would forgive a server for what it holds up.
    Scheduled,
}

/// Which of the two histograms a latency belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Messages that ask for an echo.
    Ordinary,
    /// Messages that ask for slow work, while others do not.
    Slow,
}

/// Counts of one thread of the load generator; several are merged.
#[derive(Debug)]
pub struct Tally {
    /// Latencies of ordinary messages.
    pub latency: Histogram<u64>,
    /// Latencies of messages that asked for slow work, when ordinary ones exist too.
    pub slow_latency: Histogram<u64>,
    /// Messages (in churn: whole connections) completed within the window.
    pub completed: u64,
    /// The same from the first to the last moment, warm-up included.
    pub completed_ever: u64,
    /// Connections that failed to open, broke, or ended before they should.
    pub errors: u64,
    /// Chunks that did not hold the bytes that were sent.
    pub mismatches: u64,
    /// Messages due within the window that nobody had answered when the run was given up.
    pub unanswered: u64,
}

impl Tally {
    /// All zero. Latencies are kept from 1 ns to 60 s with three digits.
    #[must_use]
    pub fn new() -> Self {
        Self {
            latency: histogram(),
            slow_latency: histogram(),
            completed: 0,
            completed_ever: 0,
            errors: 0,
            mismatches: 0,
            unanswered: 0,
        }
    }

    /// A message, meant to leave at `at`, is back at `now`.
    pub fn complete(&mut self, lane: Lane, pace: Pace, window: Window, at: u64, now: u64) {
        let back_in_time = window.contains(now);
        self.completed_ever += 1;
        self.completed += u64::from(back_in_time);
        let counts = match pace {
            Pace::Closed => back_in_time,
            Pace::Scheduled => window.contains(at),
        };
        if counts {
            self.record(lane, now.saturating_sub(at));
        }
    }

    /// Notes one latency.
    pub fn record(&mut self, lane: Lane, latency: u64) {
        let histogram = match lane {
            Lane::Ordinary => &mut self.latency,
            Lane::Slow => &mut self.slow_latency,
        };
        histogram.saturating_record(latency);
    }

    /// Adds the counts of another thread.
    ///
    /// # Panics
    /// Never: both histograms have the same bounds.
    pub fn merge(&mut self, other: &Self) {
        self.latency.add(&other.latency).expect("equal bounds by construction");
        self.slow_latency.add(&other.slow_latency).expect("equal bounds by construction");
        self.completed += other.completed;
        self.completed_ever += other.completed_ever;
        self.errors += other.errors;
        self.mismatches += other.mismatches;
        self.unanswered += other.unanswered;
    }

    /// The counts as JSON fields; rates are per second of the window.
    #[must_use]
    pub fn to_json(&self, window: Window) -> Value {
        json!({
            "messages": self.completed,
            "messages_ever": self.completed_ever,
            "messages_per_s": self.completed as f64 / window.seconds(),
            "latency_us": summary(&self.latency),
            "slow_latency_us": summary(&self.slow_latency),
            "errors": self.errors,
            "mismatches": self.mismatches,
            "unanswered": self.unanswered,
        })
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

/// Percentiles in microseconds, or null when nothing was recorded.
pub(crate) fn summary(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let quantile = |q: f64| histogram.value_at_quantile(q) as f64 / 1e3;
    json!({
        "count": histogram.len(),
        "mean": histogram.mean() / 1e3,
        "p50": quantile(0.5),
        "p90": quantile(0.9),
        "p99": quantile(0.99),
        "p99_9": quantile(0.999),
        "max": histogram.max() as f64 / 1e3,
    })
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("constant bounds that are in order")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{Tally, Window};

    const WINDOW: Window = Window { from: 100, until: 2_000_000_100 };

    #[test]
    fn a_window_holds_its_first_and_not_its_last_moment() {
        assert!(!WINDOW.contains(99) && WINDOW.contains(100));
        assert!(WINDOW.contains(2_000_000_099) && !WINDOW.contains(2_000_000_100));
        assert_eq!(WINDOW.seconds(), 2.0);
    }

    #[test]
    fn percentiles_are_in_microseconds_and_merge() {
        let (mut left, mut right) = (Tally::new(), Tally::new());
        for _ in 0..98 {
            left.latency.saturating_record(1_000);
        }
        right.latency.saturating_record(5_000_000);
        right.latency.saturating_record(u64::MAX);
        right.completed = 100;
        left.merge(&right);
        let json = left.to_json(WINDOW);
        let near = |pointer: &str, wanted: f64| {
            let value = json.pointer(pointer).and_then(Value::as_f64).expect("a number");
            assert!((value / wanted - 1.0).abs() < 0.01, "{pointer}: {value}");
        };
        near("/latency_us/p50", 1.0);
        near("/latency_us/p99", 5_000.0);
        near("/latency_us/max", 60_000_000.0);
        near("/messages_per_s", 50.0);
        assert_eq!(json["slow_latency_us"], Value::Null);
    }
}
