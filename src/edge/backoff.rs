//! `Backoff`: how long to wait after failures: exponential, with full jitter and a cap.

use std::time::Duration;

use crate::words::config::check_time;
use crate::words::error::Error;

/// How long to wait before the next attempt, after so many failures in a row.
///
/// The wait is chosen at random between nothing and a limit that doubles with each failure, up to a
/// cap ("full jitter" of Marc Brooker's "Exponential Backoff And Jitter", AWS 2015): clients that
/// have lost the same server do not come back all at once. Once a connection has lived for a while,
/// failures are counted anew; one that ends sooner counts as a failure.
///
/// ```
/// use std::time::Duration;
/// use switchboard::client::Backoff;
///
/// let backoff = Backoff::new().base(Duration::from_millis(10)).max(Duration::from_secs(1));
/// assert!(backoff.delay(3, 12_345) <= Duration::from_millis(80));
/// assert!(backoff.delay(60, u64::MAX) <= Duration::from_secs(1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    base: Duration,
    max: Duration,
    reset_after: Duration,
}

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Backoff {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Backoff {
            base: Duration::from_millis(100),
            max: Duration::from_secs(30),
            reset_after: Duration::from_secs(30),
        }
    }

    /// The limit before the first failure; it doubles with each. Default: 100 ms. Range: 1 ms to
    /// 1 day.
    #[must_use]
    pub fn base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// The longest wait. Default: 30 s. Range: `base` to 1 day.
    #[must_use]
    pub fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }

    /// How long a connection has to live for the failures before it to be forgotten. Default: 30 s.
    /// Range: 0 to 1 day.
    #[must_use]
    pub fn reset_after(mut self, time: Duration) -> Self {
        self.reset_after = time;
        self
    }

    /// The wait after `failures` failures in a row, for a random number that the caller supplies.
    #[must_use]
    pub fn delay(&self, failures: u32, random: u64) -> Duration {
        let doubled = 1u32.checked_shl(failures).and_then(|factor| self.base.checked_mul(factor));
        let limit = doubled.map_or(self.max, |limit| limit.min(self.max));
        let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
        // The high half of the product is even over 0..=nanos, but for one part in 2^64.
        let scaled = (u128::from(random) * (u128::from(nanos) + 1)) >> 64;
        Duration::from_nanos(u64::try_from(scaled).unwrap_or(nanos))
    }

    /// Whether a connection that has lived for so long makes the failures before it forgotten.
    pub(crate) fn is_reset_by(&self, lived: Duration) -> bool {
        lived >= self.reset_after
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        check_time("base", self.base, MS..=DAY)?;
        check_time("max", self.max, self.base..=DAY)?;
        check_time("reset_after", self.reset_after, Duration::ZERO..=DAY)
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff::new()
    }
}

/// A sequence of random numbers that its seed names: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// One that nobody can foresee.
    pub(crate) fn unforeseen() -> Self {
        use std::hash::{BuildHasher, RandomState};
        Dice::new(RandomState::new().hash_one(0u8))
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_wait_keeps_its_limits(
            base in 1..10_000u64, more in 0..100_000u64, failures: u32, random: u64,
        ) {
            let max = Duration::from_millis(base + more);
            let base = Duration::from_millis(base);
            let backoff = Backoff::new().base(base).max(max);
            prop_assert!(backoff.check().is_ok());
            let limit = backoff.delay(failures, u64::MAX);
            let exact = base.as_nanos().checked_shl(failures.min(64)).unwrap_or(u128::MAX);
            prop_assert_eq!(limit.as_nanos(), exact.min(max.as_nanos()));
            prop_assert!(backoff.delay(failures, random) <= limit);
            prop_assert_eq!(backoff.delay(failures, 0), Duration::ZERO);
            prop_assert!(backoff.delay(failures, random) <= backoff.delay(failures, u64::MAX));
            prop_assert!(limit <= backoff.delay(failures.saturating_add(1), u64::MAX));
        }
    }

    #[test]
    fn the_jitter_is_full_and_even() {
        let (backoff, mut dice) = (Backoff::new(), Dice::new(7));
        let mut counts = [0; 4];
        for _ in 0..4_000 {
            let part = backoff.delay(2, dice.roll()).as_millis() / 100;
            counts[usize::try_from(part).unwrap().min(3)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1_200).contains(count)), "{counts:?}");
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let refused = |backoff: Backoff| backoff.check().unwrap_err().to_string();
        assert!(refused(Backoff::new().base(Duration::ZERO)).contains("`base`"));
        assert!(refused(Backoff::new().max(MS)).contains("`max`"));
        assert!(refused(Backoff::new().reset_after(2 * DAY)).contains("`reset_after`"));
    }
}
