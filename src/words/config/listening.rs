//! `Listening`: what one listener does otherwise than its server.

use super::{Limits, Timeouts};
use crate::words::error::Error;

/// The settings of one listener. They begin as those of its server and are changed through
/// [`listen_with`](crate::Builder::listen_with).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Listening {
    /// For the connections of this listener. Default: [`Limits::timeouts`].
    pub timeouts: Timeouts,
}

impl Listening {
    /// A listener that does as its server does.
    pub(crate) fn of(limits: &Limits) -> Self {
        Listening { timeouts: limits.timeouts.clone() }
    }

    /// For the connections that we open: it is for us to speak first.
    pub(crate) fn outbound(limits: &Limits) -> Self {
        let mut listening = Listening::of(limits);
        listening.timeouts.first_frame = None;
        listening
    }

    /// Refuses what is outside of its range.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.timeouts.check()
    }
}
