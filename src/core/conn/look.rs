//! What a test may see of a connection: the timers of its protocol, and its handler.

use std::any::Any;
use std::time::Duration;

use super::Connection;
use crate::words::clock::Time;

impl Connection {
    /// The timers of the protocol by their keys, the next one first, and how long each still takes.
    pub(crate) fn timers_left(&self, now: Time) -> Vec<(u64, Duration)> {
        let pending = self.rare().timers.iter().flat_map(|timers| timers.iter());
        pending.map(|(at, key)| (key, at.since(now))).collect()
    }

    /// The handler, while the session is at rest.
    pub(crate) fn handler_mut(&mut self) -> Option<&mut dyn Any> {
        self.session.as_mut()?.handler_mut()
    }
}
