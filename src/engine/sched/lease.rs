//! `Slot`: where a reactor lies while nobody turns it, and the tickets that decide who may.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::Relaxed;

use crate::words::sync::atomic::AtomicU64;
use crate::words::sync::{Mutex, lock};

/// The place of one reactor.
///
/// ```text
///   word     0      1       2      3       4   ..   2^64-2
///          empty  laid down held  laid down held     retired
///                 ticket 1        ticket 3
/// ```
///
/// Even: somebody holds the reactor. Odd: it lies here, and the word is the ticket under which it
/// may be picked up. Every lay-down makes a ticket that was never there before, so that a stale
/// one fails for ever. The word changes under the lock only; it is read without.
#[repr(align(128))] // Two cache lines: neighbours turn on other cores.
pub(super) struct Slot<R> {
    word: AtomicU64,
    place: Mutex<Option<Box<R>>>,
}

/// The right to pick up a reactor that lies in its slot, as long as nobody else has done so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// The right to turn a reactor: whoever has it is alone with it.
///
/// Dropping it lays the reactor down, so that a panic in our own code never freezes one.
pub(crate) struct Held<'s, R> {
    slot: &'s Slot<R>,
    /// `None` only between the end of the right and the end of the value.
    reactor: Option<Box<R>>,
}

/// What a look at a slot from outside shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample(u64);

/// The word of a slot whose reactor has stopped for good: even, so that nobody picks it up.
const RETIRED: u64 = u64::MAX - 1;

impl<R> Slot<R> {
    /// A slot in which `reactor` lies under [`Ticket::FIRST`].
    pub(super) fn new(reactor: Box<R>) -> Self {
        Slot { word: AtomicU64::new(Ticket::FIRST.0), place: Mutex::new(Some(reactor)) }
    }

    /// Takes the reactor if it still lies under `ticket`. The thread that comes back from user
    /// code and the one sent to its rescue both call this; exactly one of them gets it.
    pub(super) fn pick_up(&self, ticket: Ticket) -> Option<Held<'_, R>> {
        // Relaxed: only spares a stale ticket the lock. It cannot turn a good one away: who has a
        // ticket has it from the lay-down, by way of the same thread or of a lock.
        if self.word.load(Relaxed) != ticket.0 {
            return None;
        }
        let mut place = lock(&self.place);
        // Relaxed: every write is made under this lock.
        if self.word.load(Relaxed) != ticket.0 && !cfg!(switchboard_mutant = "pick_up_unchecked") {
            return None;
        }
        let reactor = place.take();
        debug_assert!(reactor.is_some(), "a ticket is in force, so the reactor lies here");
        self.word.store(ticket.0.wrapping_add(1), Relaxed);
        reactor.map(|reactor| Held { slot: self, reactor: Some(reactor) })
    }

    /// What the word says now. May be old news by the time it is read.
    pub(super) fn sample(&self) -> Sample {
        // Relaxed: whoever acts upon it goes through `pick_up`.
        Sample(self.word.load(Relaxed))
    }

    /// Takes a reactor that [`Held::retire`] has put away.
    pub(super) fn take_retired(&self) -> Option<Box<R>> {
        let mut place = lock(&self.place);
        // Relaxed: written under this lock.
        if self.word.load(Relaxed) == RETIRED { place.take() } else { None }
    }

    /// Shows the reactor, if it lies here.
    #[cfg(all(any(test, feature = "sim"), not(loom)))]
    pub(super) fn peek(&self, look: &mut impl FnMut(&R)) {
        if let Some(reactor) = &*lock(&self.place) {
            look(reactor);
        }
    }

    fn put(&self, reactor: Box<R>) -> Ticket {
        let mut place = lock(&self.place);
        debug_assert!(place.is_none(), "held, so nothing lies here");
        // Relaxed, both: under the lock.
        let ticket = Ticket(self.word.load(Relaxed).wrapping_add(1));
        *place = Some(reactor);
        self.word.store(ticket.0, Relaxed);
        ticket
    }
}

impl Ticket {
    /// The ticket of a reactor that was never held yet.
    pub(super) const FIRST: Ticket = Ticket(1);
}

impl Sample {
    /// Before the first look.
    pub(super) const NONE: Sample = Sample(0);

    /// The ticket under which the reactor lies, if it does.
    pub(super) fn ticket(self) -> Option<Ticket> {
        (self.0 % 2 == 1).then_some(Ticket(self.0))
    }

    /// Whether the reactor has stopped for good.
    pub(super) fn is_retired(self) -> bool {
        self.0 == RETIRED
    }

    /// How many times the reactor was laid down and picked up since `earlier`.
    pub(super) fn jobs_since(self, earlier: Sample) -> u64 {
        self.0.saturating_sub(earlier.0) / 2
    }
}

impl<R> Held<'_, R> {
    /// Gives the reactor out of the hand, for whoever comes first with the ticket.
    pub(super) fn lay_down(mut self) -> Ticket {
        let reactor = self.reactor.take().expect("present until the right ends");
        self.slot.put(reactor)
    }

    /// Puts the reactor away for good: no ticket will ever name it again.
    pub(super) fn retire(mut self) {
        let reactor = self.reactor.take();
        let mut place = lock(&self.slot.place);
        *place = reactor;
        // Relaxed: under the lock.
        self.slot.word.store(RETIRED, Relaxed);
    }
}

impl<R> Drop for Held<'_, R> {
    fn drop(&mut self) {
        if let Some(reactor) = self.reactor.take() {
            self.slot.put(reactor);
        }
    }
}

impl<R> Deref for Held<'_, R> {
    type Target = R;

    fn deref(&self) -> &R {
        self.reactor.as_ref().expect("present until the right ends")
    }
}

impl<R> DerefMut for Held<'_, R> {
    fn deref_mut(&mut self) -> &mut R {
        self.reactor.as_mut().expect("present until the right ends")
    }
}

impl<R> fmt::Debug for Held<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("word", &self.slot.sample().0).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::words::clock::Clock;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_stale_ticket_fails_for_ever() {
        let slot = Slot::new(Box::new(7));
        let held = slot.pick_up(Ticket::FIRST).unwrap();
        assert!(slot.pick_up(Ticket::FIRST).is_none() && slot.sample().ticket().is_none());
        let second = held.lay_down();
        assert_eq!(slot.sample().ticket(), Some(second));
        assert!(slot.pick_up(Ticket::FIRST).is_none());
        assert_eq!(*slot.pick_up(second).unwrap(), 7);
        assert!(slot.pick_up(second).is_none());
    }

    #[test]
    fn a_panic_lays_down() {
        let slot = Slot::new(Box::new(7));
        let held = slot.pick_up(Ticket::FIRST).unwrap();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let _held = held;
            panic!("planted");
        }));
        assert!(panicked.is_err());
        let ticket = slot.sample().ticket().unwrap();
        assert!(ticket != Ticket::FIRST && slot.pick_up(ticket).is_some());
    }

    #[test]
    fn the_retired_stay_away() {
        let slot = Slot::new(Box::new(7));
        assert!(slot.take_retired().is_none());
        slot.pick_up(Ticket::FIRST).unwrap().retire();
        assert!(slot.sample().is_retired() && slot.sample().ticket().is_none());
        assert_eq!(slot.take_retired(), Some(Box::new(7)));
    }

    #[test]
    fn a_pair_is_two_steps_of_the_word() {
        const PAIRS: u64 = 1_000_000;
        let slot = Slot::new(Box::new(0_u64));
        let before = slot.sample();
        let mut held = slot.pick_up(Ticket::FIRST).unwrap();
        let clock = Clock::start();
        for _ in 0..PAIRS {
            *held += 1;
            let ticket = std::hint::black_box(held.lay_down());
            held = slot.pick_up(ticket).unwrap();
        }
        let nanos = clock.now().as_nanos();
        println!("lay down + pick up: {}.{} ns", nanos / PAIRS, nanos * 10 / PAIRS % 10);
        assert_eq!(*held, PAIRS);
        assert_eq!(slot.sample().jobs_since(before), PAIRS);
    }
}
