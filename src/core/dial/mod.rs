//! `Dial`: one request to connect, its addresses and their order in time; without sockets.
//!
//! The happy eyeballs of RFC 8305: the addresses of both families take turns, one is tried after
//! the other with a delay between, those before go on meanwhile, and the first success wins.

mod error;
#[cfg(all(test, not(loom)))]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use self::error::rejected;
pub use self::error::{Attempt, ConnectCause, ConnectError};
use crate::words::clock::Time;

/// How many addresses of one name are tried.
pub(crate) const ADDRS_MAX: usize = 32;

/// Where one request to connect stands.
#[derive(Debug)]
pub(crate) struct Dial {
    /// Those that were not tried yet.
    addrs: VecDeque<SocketAddr>,
    /// Attempts that have no answer yet.
    live_count: usize,
    /// When the next address is tried although the ones before have no answer.
    next_at: Time,
    deadline: Time,
    delay: Duration,
    failed: Vec<Attempt>,
}

/// What a request wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Try this address, and say how that began.
    Start(SocketAddr),
    /// Nothing, until this time or an answer.
    Wait(Time),
    /// There is no address left, and no attempt.
    Failed,
    /// Its time is up.
    TimedOut,
}

impl Dial {
    /// A request that begins now. `addrs` stand in the order in which the resolver prefers them.
    pub(crate) fn new(
        addrs: Vec<SocketAddr>,
        timeout: Duration,
        delay: Duration,
        now: Time,
    ) -> Self {
        Dial {
            addrs: take_turns(addrs),
            live_count: 0,
            next_at: now,
            deadline: now + timeout,
            delay,
            failed: Vec::new(),
        }
    }

    /// What to do next. Asking changes nothing.
    pub(crate) fn next(&self, now: Time) -> Next {
        let idle = self.live_count == 0;
        if self.addrs.is_empty() && idle {
            return Next::Failed;
        }
        let ignored = cfg!(switchboard_sim_mutant = "dial_never_late");
        if now >= self.deadline && !ignored {
            return Next::TimedOut;
        }
        match self.addrs.front() {
            Some(&addr) if idle || now >= self.next_at => Next::Start(addr),
            Some(_) => Next::Wait(self.deadline.min(self.next_at)),
            None => Next::Wait(self.deadline),
        }
    }

    /// The attempt that [`Next::Start`] named is under way.
    pub(crate) fn handle_started(&mut self, now: Time) {
        self.addrs.pop_front();
        self.live_count += 1;
        self.next_at = now + self.delay;
    }

    /// It could not even begin.
    pub(crate) fn handle_not_started(&mut self, error: io::Error, now: Time) {
        if let Some(addr) = self.addrs.pop_front() {
            self.failed.push(Attempt::new(addr, error));
        }
        self.next_at = now;
    }

    /// There is no room for an attempt beside the others: it waits until one of them has failed.
    pub(crate) fn handle_no_room(&mut self) {
        debug_assert!(self.live_count > 0, "a single attempt has its room");
        self.next_at = Time::NEVER;
    }

    /// An attempt has failed: the next address is tried at once.
    pub(crate) fn handle_failed(&mut self, addr: SocketAddr, error: io::Error, now: Time) {
        debug_assert!(self.live_count > 0);
        self.live_count -= 1;
        self.failed.push(Attempt::new(addr, error));
        self.next_at = now;
    }

    /// The failures so far.
    pub(crate) fn into_attempts(self) -> Vec<Attempt> {
        self.failed
    }
}

/// RFC 8305, section 4: beginning with the family of the first address, the families alternate;
/// within each the order stays.
fn take_turns(mut addrs: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let mut known = std::collections::HashSet::new();
    addrs.retain(|addr| known.insert(*addr));
    addrs.truncate(ADDRS_MAX);
    let Some(first) = addrs.first().map(SocketAddr::is_ipv6) else { return VecDeque::new() };
    let (mut ours, mut others): (VecDeque<_>, VecDeque<_>) = (VecDeque::new(), VecDeque::new());
    for addr in addrs {
        if addr.is_ipv6() == first { ours.push_back(addr) } else { others.push_back(addr) }
    }
    let mut sorted = VecDeque::with_capacity(ours.len() + others.len());
    while !ours.is_empty() || !others.is_empty() {
        sorted.extend(ours.pop_front());
        sorted.extend(others.pop_front());
    }
    sorted
}
