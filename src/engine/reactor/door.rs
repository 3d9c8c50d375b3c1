//! `Door`: a listener as one reactor sees it, why it is shut for a while, and what opens it again.

use std::io;
use std::net::SocketAddr;

use crate::core::limits::Full;
use crate::core::session::Factory;
use crate::engine::desk::Freed;
use crate::sys::Kernel;
use crate::words::clock::Time;
use crate::words::id::Token;
use crate::words::sync::Arc;

/// A listener as one reactor sees it.
pub(crate) struct Door<K: Kernel> {
    /// The number of its listener, the same in all reactors.
    pub(super) index: u16,
    /// `None` if another reactor accepts for this listener, or once it is closed.
    pub(super) socket: Option<K::Listener>,
    pub(super) factory: Arc<dyn Factory>,
    /// Clients may wait: cleared only when an accept answers `WouldBlock`, so that no pause needs
    /// a new event to end.
    pub(super) ready: bool,
    /// Why nothing is accepted now; it goes on when the last reason is gone.
    pub(super) shut: Shut,
    /// A client that was accepted and for whom room is being made: as a rule, for a turn.
    pub(super) guest: Option<(K::Stream, SocketAddr)>,
    /// Close it once nobody waits.
    pub(super) closing: bool,
}

/// The reasons for which a door is shut. Each is set where it was met, and goes by itself: it is
/// open when none is left, in whatever order they came and went.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shut {
    pub(super) by_operator: bool,
    /// The server's maximum is reached; opened by a release.
    pub(super) by_limit: bool,
    /// The listener's own maximum is reached; opened by a release of one that came through it.
    pub(super) by_place: bool,
    /// A rate is reached; opened at this time.
    pub(super) by_rate: Option<Time>,
    /// The system is out of descriptors or memory; opened by a release, or at this time.
    pub(super) by_system: Option<Time>,
    /// Connections use too much memory; looked at in every turn.
    pub(super) by_memory: bool,
    /// No reason of its own: when a maximum is to be looked at again without a release, since by
    /// then somebody may be idle who is not now.
    pub(super) evict_at: Option<Time>,
}

/// Whether clients of this door tend to have sent something by the time they are accepted. If so,
/// a connection is read at once, and watched only when it comes to rest: one event fewer, and two
/// system calls fewer for a connection that is over by then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habit {
    /// Above zero: they do.
    score: i8,
    /// Accepts since the last one that was read at once.
    skipped: u8,
}

const HABIT_MAX: i8 = 8;
/// How often a door whose clients are slow to speak tries again.
const HABIT_PROBE: u8 = 32;

impl Shut {
    fn is_open(self) -> bool {
        let Shut { by_operator, by_limit, by_place, by_rate, by_system, by_memory, evict_at: _ } =
            self;
        let timed = by_rate.is_none() && by_system.is_none();
        !by_operator && !by_limit && !by_place && !by_memory && timed
    }

    /// A maximum is reached.
    pub(super) fn by_full(&mut self, full: Full) {
        match full {
            Full::Listener => self.by_place = true,
            Full::Server => self.by_limit = true,
        }
    }

    /// Time has passed.
    pub(super) fn expire(&mut self, now: Time) {
        let lasts = |until: &Time| *until > now;
        self.by_system = self.by_system.filter(lasts);
        self.by_rate = self.by_rate.filter(lasts);
        if self.evict_at.is_some_and(|at| at <= now) {
            (self.by_limit, self.by_place, self.evict_at) = (false, false, None);
        }
    }

    fn release(&mut self, freed: Freed) {
        match freed {
            Freed::Connection => (self.by_limit, self.by_system) = (false, None),
            Freed::Permit => self.by_limit = false,
            Freed::Place(_) => self.by_place = false,
            Freed::Limits => (self.by_limit, self.by_place, self.by_rate) = (false, false, None),
            Freed::Nothing => {}
        }
        self.evict_at = self.evict_at.filter(|_| self.by_limit || self.by_place);
    }

    /// When the next reason is gone by itself.
    fn until(&self) -> Option<Time> {
        let by_rate = self.by_rate.filter(|_| !cfg!(switchboard_sim_mutant = "rate_unwatched"));
        self.by_system.into_iter().chain(by_rate).chain(self.evict_at).min()
    }
}

impl<K: Kernel> Door<K> {
    /// A door; without a socket if another reactor accepts for it.
    pub(crate) fn new(index: u16, socket: Option<K::Listener>, factory: Arc<dyn Factory>) -> Self {
        Door {
            index,
            socket,
            factory,
            ready: false,
            shut: Shut::default(),
            guest: None,
            closing: false,
        }
    }

    /// Starts to watch its socket.
    pub(super) fn watch(&mut self, kernel: &mut K) -> io::Result<()> {
        let token = Token::Listener(self.index).pack();
        self.socket.as_mut().map_or(Ok(()), |socket| kernel.watch_listener(socket, token))
    }

    /// Whether clients may wait here until there is memory for them.
    pub(super) fn waits_for_memory(&self) -> bool {
        self.shut.by_memory && self.ready && self.socket.is_some()
    }

    pub(super) fn handle_ready(&mut self) {
        self.ready = true;
    }

    /// What it may wait for became free.
    pub(super) fn handle_release(&mut self, freed: Freed) {
        if freed == Freed::Place(self.index) || !matches!(freed, Freed::Place(_)) {
            self.shut.release(freed);
        }
    }

    pub(super) fn suspend(&mut self) {
        self.shut.by_operator = true;
    }

    pub(super) fn resume(&mut self) {
        self.shut.by_operator = false;
    }

    /// Those that wait already are served, then it closes.
    pub(super) fn close_when_empty(&mut self) {
        self.closing = true;
        self.ready = true;
        self.shut.by_operator = false;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.socket.is_none()
    }

    /// Whether there is something to accept now.
    pub(super) fn wants(&self) -> bool {
        let Shut { by_limit, by_place, .. } = self.shut;
        if self.guest.is_some() {
            return !by_limit && !by_place;
        }
        self.ready && self.shut.is_open() && self.socket.is_some()
    }

    /// Whether clients wait that may not come in.
    pub(super) fn holds_back(&self) -> bool {
        self.ready && !self.shut.is_open() && self.socket.is_some()
    }

    /// How many clients wait to be accepted here, as far as is known, and how many may.
    pub(super) fn waiting(&self, kernel: &K) -> Option<(u32, u32)> {
        self.socket.as_ref().and_then(|socket| kernel.waiting(socket))
    }

    /// When it is to be looked at although nothing has happened.
    pub(super) fn retry_at(&self) -> Option<Time> {
        self.shut.until()
    }
}

impl Habit {
    /// Whether the next connection is read at once.
    pub(super) fn is_eager(&mut self) -> bool {
        if self.score > 0 || self.skipped >= HABIT_PROBE {
            self.skipped = 0;
            return true;
        }
        self.skipped += 1;
        false
    }

    /// A connection was read before it was watched: was that worth it?
    pub(super) fn learn(&mut self, spoke: bool) {
        let step = if spoke { 1 } else { -1 };
        self.score = (self.score + step).clamp(-HABIT_MAX, HABIT_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Time = Time::from_nanos(50);

    #[test]
    fn it_opens_when_the_last_reason_is_gone_in_whatever_order() {
        type Step = fn(&mut Shut);
        let reasons: [(Step, Step); 5] = [
            (|s| s.by_operator = true, |s| s.by_operator = false),
            (|s| s.by_full(Full::Server), |s| s.release(Freed::Permit)),
            (|s| s.by_full(Full::Listener), |s| s.release(Freed::Place(0))),
            (|s| s.by_rate = Some(AT), |s| s.expire(AT)),
            (|s| s.by_system = Some(AT), |s| s.release(Freed::Connection)),
        ];
        for (shut_first, open_first) in reasons {
            for (shut_last, open_last) in reasons {
                let mut shut = Shut::default();
                assert!(shut.is_open());
                shut_first(&mut shut);
                shut_last(&mut shut);
                open_first(&mut shut);
                open_first(&mut shut);
                open_last(&mut shut);
                assert!(shut.is_open(), "{shut:?}");
                shut_last(&mut shut);
                assert!(!shut.is_open(), "{shut:?}");
            }
        }
    }

    #[test]
    fn a_release_does_not_make_up_for_a_rate_nor_time_for_a_release() {
        let shut = Shut { by_limit: true, by_rate: Some(AT), ..Shut::default() };
        let mut released = shut;
        released.release(Freed::Connection);
        assert!(!released.is_open() && released.until() == Some(AT));
        released.expire(AT);
        assert!(released.is_open() && released.until().is_none());
        let mut waited = shut;
        waited.expire(AT);
        assert!(!waited.is_open() && waited.until().is_none());
        waited.release(Freed::Permit);
        assert!(waited.is_open());
        let mut busy =
            Shut { by_limit: true, by_place: true, evict_at: Some(AT), ..Shut::default() };
        assert_eq!(busy.until(), Some(AT));
        busy.release(Freed::Place(0));
        assert!(!busy.is_open() && busy.until() == Some(AT));
        busy.expire(AT);
        assert!(busy.is_open() && busy.until().is_none());
        let mut changed = Shut { by_operator: true, by_place: true, ..shut };
        changed.release(Freed::Limits);
        assert!(!changed.is_open());
        changed.by_operator = false;
        assert!(changed.is_open());
    }
}
