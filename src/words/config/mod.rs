//! What a server can be told: options with their defaults, units and allowed ranges.

mod admission;
mod choices;
mod idle;
mod limits;
mod listening;
mod rate;
mod shaper;
mod threads;
mod timeouts;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

pub(crate) use self::admission::Filter;
pub use self::admission::{Admission, ListenerAdmission, WhenFull};
pub use self::choices::{Evict, Overflow, Placement, Scheduling};
pub use self::idle::Idle;
pub(crate) use self::idle::{Adaptive, SILENCE_MAX};
pub use self::limits::Limits;
pub use self::listening::Listening;
pub use self::rate::Rate;
pub use self::shaper::Shaper;
pub(crate) use self::shaper::SharedBucket;
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

pub(crate) fn check_rate(field: &'static str, rate: Option<Rate>) -> Result<(), Error> {
    rate.map_or(Ok(()), |rate| rate.check(field))
}
