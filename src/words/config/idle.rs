//! `Idle`: how long a connection may be silent before it is closed.

use std::time::Duration;

use super::{check, check_time};
use crate::words::error::Error;

/// How long a connection may be silent before it is closed.
///
/// A peer that has vanished without a word holds a descriptor until somebody gives up on it. The
/// default learns from each connection how long its peer is used to be silent, so that one that
/// speaks every second is given up on after a minute, and one that speaks every five minutes is
/// not cut between two messages.
///
/// ```
/// use std::time::Duration;
/// use switchboard::config::Idle;
///
/// // The default, written out.
/// let learned = Idle::Adaptive {
///     min: Duration::from_secs(60),
///     factor: 3,
///     max: Duration::from_secs(15 * 60),
/// };
/// assert_eq!(learned, Idle::default());
///
/// // The same for everybody, whatever they are used to.
/// let fixed = Idle::After(Duration::from_secs(10 * 60));
/// assert_ne!(fixed, learned);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Idle {
    /// Silence alone closes no connection.
    Never,
    /// A connection is closed after this much silence, under whatever pressure. Range: 1 ms to
    /// 7 days.
    After(Duration),
    /// The time is learned for each connection from the gaps between its messages. Until a
    /// connection has shown its habit, the first gaps of others on the same listener speak for it,
    /// and until there are enough of those it has `max`. Under pressure the time is shortened, but
    /// not below what the peer is used to need, until the server is nearly out of room: then it
    /// is `min`.
    Adaptive {
        /// Nobody is closed after less silence than this. Default: 60 s. Range: 1 ms to `max`.
        min: Duration,
        /// How many times the predicted gap a connection may be silent. Default: 3, which forgives
        /// two messages that did not come. Range: 1 to 100.
        factor: u32,
        /// Nobody stays after more silence than this; so it has to be longer than the longest gap
        /// of any peer that is to be kept. Default: 15 min. Range: `min` to 7 days.
        max: Duration,
    },
}

/// The numbers of [`Idle::Adaptive`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Adaptive {
    pub(crate) min: Duration,
    pub(crate) factor: u32,
    pub(crate) max: Duration,
}

const MS: Duration = Duration::from_millis(1);
/// The longest silence that a setting takes.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
const FACTOR_MAX: u32 = 100;

impl Default for Adaptive {
    fn default() -> Self {
        Adaptive { min: Duration::from_secs(60), factor: 3, max: Duration::from_secs(15 * 60) }
    }
}

impl Default for Idle {
    fn default() -> Self {
        let Adaptive { min, factor, max } = Adaptive::default();
        Idle::Adaptive { min, factor, max }
    }
}

impl Idle {
    /// Brings what is outside of its range to the nearer end of it.
    pub(crate) fn clamp(&mut self) {
        match self {
            Idle::Never => {}
            Idle::After(after) => *after = (*after).clamp(MS, SILENCE_MAX),
            Idle::Adaptive { min, factor, max } => {
                *max = (*max).clamp(MS, SILENCE_MAX);
                *min = (*min).clamp(MS, *max);
                *factor = (*factor).clamp(1, FACTOR_MAX);
            }
        }
    }

    /// Refuses what is outside of its range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match *self {
            Idle::Never => Ok(()),
            Idle::After(after) => check_time("idle", after, MS..=SILENCE_MAX),
            Idle::Adaptive { min, factor, max } => {
                check_time("idle", max, MS..=SILENCE_MAX)?;
                check_time("idle", min, MS..=max)?;
                check("idle", factor, 1..=FACTOR_MAX)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adaptive(change: impl FnOnce(&mut Adaptive)) -> Result<(), String> {
        let mut adaptive = Adaptive::default();
        change(&mut adaptive);
        let Adaptive { min, factor, max } = adaptive;
        Idle::Adaptive { min, factor, max }.check().map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        assert!(Idle::default().check().is_ok());
        assert!(Idle::Never.check().is_ok());
        assert!(Idle::After(MS).check().is_ok());
        assert!(Idle::After(SILENCE_MAX).check().is_ok());
        for refused in [Duration::ZERO, SILENCE_MAX + MS, Duration::MAX] {
            let said = Idle::After(refused).check().expect_err("out of range").to_string();
            assert!(said.starts_with("`idle` is ") && said.ends_with("1ms to 604800s"), "{said}");
        }
        assert_eq!(adaptive(|a| a.min = a.max), Ok(()));
        let said = adaptive(|a| a.min = a.max + MS).expect_err("min above max");
        assert_eq!(said, "`idle` is 900.001s, but must be 1ms to 900s");
        assert!(adaptive(|a| a.min = Duration::ZERO).is_err());
        assert!(adaptive(|a| a.max = SILENCE_MAX + MS).is_err());
        assert_eq!(adaptive(|a| a.factor = FACTOR_MAX), Ok(()));
        let said = adaptive(|a| a.factor = 0).expect_err("no factor");
        assert_eq!(said, "`idle` is 0, but must be 1 to 100");
        assert!(adaptive(|a| a.factor = 101).is_err());
    }
}
