//! How dispensable a connection is, when one has to make room for another.

use std::net::IpAddr;
use std::time::Duration;

use super::halves::{RecvHalf, SendHalf};
use super::{Connection, Next};
use crate::words::clock::Time;

impl Connection {
    /// How long the peer has been silent, if the connection may be ended for it: the longest goes
    /// first. `None` if anything is under way: a handler, a part of a frame, output, an end.
    pub(crate) fn idle_key(&self, now: Time) -> Option<Duration> {
        let busy_evicted = cfg!(switchboard_sim_mutant = "busy_evicted");
        let flags = &self.flags;
        let open = self.recv == RecvHalf::Open && self.send == SendHalf::Open;
        let at_rest = self.session.is_some() && self.next() == Next::Rest && !flags.queued;
        let nothing_waits = self.partial.is_none() && self.outbox.is_none() && !flags.paused;
        let may_go = open && !flags.discarding && at_rest && nothing_waits;
        (may_go || (busy_evicted && !flags.dead)).then(|| now.since(self.last_seen))
    }

    /// Where the peer is.
    pub(crate) fn peer_ip(&self) -> IpAddr {
        self.peer.ip()
    }
}
