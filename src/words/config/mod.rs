//! What a server can be told: options with their defaults, units and allowed ranges.

mod choices;
mod idle;
mod limits;
mod listening;
mod rate;
mod threads;
mod timeouts;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

pub use self::choices::{Evict, Placement, Scheduling};
pub use self::idle::Idle;
pub(crate) use self::idle::{Adaptive, SILENCE_MAX};
pub use self::limits::Limits;
pub use self::listening::Listening;
pub use self::rate::Rate;
pub(crate) use self::threads::Threads;
pub use self::timeouts::Timeouts;
use super::error::Error;

/// Refuses a value outside of its range.
pub(crate) fn check<T: PartialOrd + fmt::Display>(
    field: &'static str,
    value: T,
    allowed: RangeInclusive<T>,
) -> Result<(), Error> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(Error::config(field, value, format!("{} to {}", allowed.start(), allowed.end())))
}

pub(crate) fn check_time(
    field: &'static str,
    value: Duration,
    allowed: RangeInclusive<Duration>,
) -> Result<(), Error> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(Error::config(
        field,
        format!("{value:?}"),
        format!("{:?} to {:?}", allowed.start(), allowed.end()),
    ))
}
