//! Attention: whether input lies there that everybody has forgotten. A look before an idle deadline
//! would mend that minutes later, so that no end would tell of it. Called by the world before time
//! passes.

use std::time::Duration;

use super::plan::Plan;
use super::world::{Phase, World};
use crate::words::clock::Time;
use crate::words::sync::lock;

/// When nobody does anything for longer than that, then not because events are withheld or handlers
/// take their time.
const IDLE_MAX: Duration = Duration::from_millis(500);

impl<const DRAINS: bool> World<'_, DRAINS> {
    /// Nobody has anything to do until `next`. When nothing goes wrong any more, and unless rates
    /// or memory bound what is read, then no input may lie there that nobody keeps back.
    pub(super) fn check_attention(&self, next: Time) -> Result<(), String> {
        let Plan { limits, group, .. } = self.plan;
        let shaped = limits.read_rate.or(limits.server_read_rate).or(group.read).is_some();
        if self.phase == Phase::Storm || shaped || self.plan.holds_output() || self.plan.is_scarce()
        {
            return Ok(());
        }
        let (book, net) = (lock(&self.app.book), lock(self.net));
        let forgotten = net.forgotten_input().find(|&id| !book.keeps_back(id));
        match forgotten.filter(|_| next.since(net.now) > IDLE_MAX) {
            Some(id) => Err(format!("nobody reads what lies in socket {id}; {:?}", self.driver)),
            None => Ok(()),
        }
    }
}
