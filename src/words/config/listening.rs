//! `Listening`: what one listener does otherwise than its server.

use super::{Limits, Rate, Shaper, Timeouts, check_rate};
use crate::words::error::Error;

/// The settings of one listener. They begin as those of its server and are changed through
/// [`listen_with`](crate::Builder::listen_with).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listening {
    /// For the connections of this listener. Default: [`Limits::timeouts`].
    pub timeouts: Timeouts,
    /// What may be read from each connection of this listener, in bytes. Default:
    /// [`Limits::read_rate`].
    pub read_rate: Option<Rate>,
    /// What may be written to each connection of this listener, in bytes. Default:
    /// [`Limits::send_rate`].
    pub send_rate: Option<Rate>,
    /// What the connections of this listener, and of all others that have the same shaper, may
    /// read and write together. Default: `None`.
    pub shaper: Option<Shaper>,
}

impl Listening {
    /// A listener that does as its server does.
    pub(crate) fn of(limits: &Limits) -> Self {
        Listening {
            timeouts: limits.timeouts.clone(),
            read_rate: limits.read_rate,
            send_rate: limits.send_rate,
            shaper: None,
        }
    }

    /// Refuses what is outside of its range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.timeouts.check()?;
        check_rate("read_rate", self.read_rate)?;
        check_rate("send_rate", self.send_rate)
    }
}
