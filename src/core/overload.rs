//! `Overloaded`: a frame waited for its handler for too long.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// A frame had waited for longer than `queue_wait_max`, and its handler did not say what to do with
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Overloaded {
    /// How long it had waited.
    pub waited: Duration,
}

impl fmt::Display for Overloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "overloaded: a frame waited {:?} for its handler", self.waited)
    }
}

impl StdError for Overloaded {}
