//! The only place of this package that reads a clock or sleeps: nanoseconds since the first call.
#![expect(clippy::disallowed_methods, reason = "this is the measuring kit's clock")]

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// One second in the unit of [`now`].
pub const SECOND: u64 = 1_000_000_000;

static BASE: OnceLock<Instant> = OnceLock::new();

/// Monotonic nanoseconds since the first call of this process.
#[must_use]
pub fn now() -> u64 {
    nanoseconds(BASE.get_or_init(Instant::now).elapsed())
}

/// Sleeps until [`now`] has reached `deadline`.
pub fn sleep_until(deadline: u64) {
    thread::sleep(Duration::from_nanos(deadline.saturating_sub(now())));
}

/// Blocks the thread, as a handler does that waits for a slow database.
pub fn block(duration: Duration) {
    thread::sleep(duration);
}

/// A duration in nanoseconds; what does not fit (584 years) saturates.
#[must_use]
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Seconds given on a command line, in nanoseconds.
#[must_use]
pub fn from_seconds(seconds: f64) -> u64 {
    nanoseconds(Duration::from_secs_f64(seconds))
}
