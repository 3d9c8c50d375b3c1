//! Time as the crate speaks it: nanoseconds since its first clock; the one place that reads it.

use std::ops::Add;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A moment, in nanoseconds since the first clock of the process was started.
///
/// A plain number, so that a simulation can make any moment it likes. All arithmetic saturates:
/// a deadline beyond the end of time (584 years) is [`Time::NEVER`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time(u64);

impl Time {
    /// The clock's origin.
    pub(crate) const ZERO: Time = Time(0);
    /// Later than every moment a clock reports.
    pub(crate) const NEVER: Time = Time(u64::MAX);

    /// A moment `nanos` nanoseconds after the origin.
    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Time(nanos)
    }

    /// Nanoseconds since the origin.
    pub(crate) const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment `wait` later; `NEVER` if there is nothing to wait for.
    pub(crate) fn after(self, wait: Option<Duration>) -> Self {
        wait.map_or(Time::NEVER, |wait| self + wait)
    }

    /// So much earlier, or the beginning of time.
    pub(crate) fn before(self, wait: Duration) -> Self {
        Time(self.0.saturating_sub(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` to `self`; zero if `earlier` is in fact later.
    pub(crate) fn since(self, earlier: Time) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, after: Duration) -> Time {
        let nanos = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        Time(self.0.saturating_add(nanos))
    }
}

/// Reads the monotonic clock of the system.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose origin is now, or that of the first clock: what the servers of one process
    /// share, such as the buckets of a shaper, knows one time.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub(crate) fn start() -> Self {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        Clock { origin: *ORIGIN.get_or_init(Instant::now) }
    }

    /// The present moment.
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.origin.elapsed()
    }
}
