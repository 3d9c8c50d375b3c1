//! How dispensable a connection is, when one has to make room for another.

use std::net::IpAddr;
use std::time::Duration;

use super::halves::{RecvHalf, SendHalf};
use super::{Connection, Next, Rules};
use crate::core::keepalive::Overdue;
use crate::words::clock::Time;
use crate::words::config::Adaptive;

impl Connection {
    /// How dispensable it is, if it may be ended: how far it is silent beyond its habit, and then
    /// for how long. The greatest goes first. `None` if anything is under way, or if it may be
    /// silent for ever.
    pub(crate) fn idle_key(&self, now: Time, rules: Rules<'_>) -> Option<(Overdue, Duration)> {
        let flags = &self.flags;
        let silent = now.since(self.last_seen);
        if cfg!(switchboard_sim_mutant = "busy_evicted") {
            let overdue = self.keepalive.overdue(silent, &Adaptive::default(), rules.prior);
            return (!flags.dead && self.partial.is_some()).then_some((overdue, silent));
        }
        let open = self.recv == RecvHalf::Open && self.send == SendHalf::Open;
        let at_rest = open && self.next() == Next::Rest && !flags.queued;
        let overdue = self.overdue(now, rules).filter(|_| at_rest);
        overdue.map(|overdue| (overdue, silent))
    }

    /// Where the peer is.
    pub(crate) fn peer_ip(&self) -> IpAddr {
        self.peer.ip()
    }
}
