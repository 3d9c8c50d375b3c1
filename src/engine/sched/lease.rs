//! `Slot`: where a reactor lies while nobody turns it, and the tickets that decide who may.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::Ordering::Relaxed;

use crate::words::sync::atomic::AtomicU64;
use crate::words::sync::{TryLock, TryLockGuard, pause};

/// The place of one reactor.
///
/// ```text
///   word     0      1       2      3       4   ..   2^64-2
///          empty  laid down held  laid down held     retired
///                 ticket 1        ticket 3
/// ```
///
/// Even: somebody holds the reactor, and with it the lock. Odd: it lies here, and the word is the
/// ticket under which it may be picked up. Every lay-down makes a ticket that was never there
/// before, so that a stale one fails for ever. The word changes under the lock only; it is read
/// without. Laying down is an unlock and picking up a lock: no pair of atomics could do with less.
#[repr(align(128))] // Two cache lines: neighbours turn on other cores.
pub(super) struct Slot<R> {
    word: AtomicU64,
    /// `None` once the reactor has stopped and was taken out.
    place: TryLock<Option<Box<R>>>,
}

/// The right to pick up a reactor that lies in its slot, as long as nobody else has done so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

/// The right to turn a reactor: whoever has it is alone with it.
///
/// Dropping it lays the reactor down, so that a panic in our own code never freezes one.
pub(crate) struct Held<'s, R> {
    slot: &'s Slot<R>,
    /// Let go after `drop` has written the ticket.
    place: TryLockGuard<'s, Option<Box<R>>>,
}

/// What a look at a slot from outside shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample(u64);

/// The word of a slot whose reactor has stopped for good: even, so that nobody picks it up.
const RETIRED: u64 = u64::MAX - 1;

impl<R> Slot<R> {
    /// A slot in which `reactor` lies under [`Ticket::FIRST`].
    pub(super) fn new(reactor: Box<R>) -> Self {
        Slot { word: AtomicU64::new(Ticket::FIRST.0), place: TryLock::new(Some(reactor)) }
    }

    /// Takes the reactor if it still lies under `ticket`. The thread that comes back from user
    /// code and the one sent to its rescue both call this; exactly one of them gets it.
    pub(super) fn pick_up(&self, ticket: Ticket) -> Option<Held<'_, R>> {
        // Relaxed, here and below: a ticket that is in force is seen by whoever has it, for he has
        // it from the lay-down by way of the same thread or of a lock. While the word says it is
        // in force, the lock is held for a few instructions at most: by the one who lays down and
        // has not let go yet, or by a rival who has not written yet that he has won or lost.
        while self.word.load(Relaxed) == ticket.0 {
            let Some(place) = self.place.try_lock() else {
                pause();
                continue;
            };
            // Again under the lock, where every write of it is made.
            let stale = self.word.load(Relaxed) != ticket.0;
            if stale && !cfg!(switchboard_mutant = "pick_up_unchecked") {
                return None;
            }
            self.word.store(ticket.0.wrapping_add(1), Relaxed);
            return Some(Held { slot: self, place });
        }
        None
    }

    /// What the word says now. May be old news by the time it is read.
    pub(super) fn sample(&self) -> Sample {
        // Relaxed: whoever acts upon it goes through `pick_up`.
        Sample(self.word.load(Relaxed))
    }

    /// Takes a reactor that [`Held::retire`] has put away, once that call is over.
    pub(super) fn take_retired(&self) -> Option<Box<R>> {
        // Relaxed: no other word follows this one.
        if self.word.load(Relaxed) != RETIRED {
            return None;
        }
        self.place.try_lock()?.take()
    }

    /// Shows the reactor, if it lies here.
    #[cfg(all(any(test, feature = "sim"), not(loom)))]
    pub(super) fn peek(&self, look: &mut impl FnMut(&R)) {
        let place = self.place.try_lock();
        if let Some(reactor) = place.as_ref().and_then(|place| place.as_ref()) {
            look(reactor);
        }
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
    #[cfg(any(test, feature = "sim"))]
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
    pub(super) fn lay_down(self) -> Ticket {
        // Relaxed: only we may write it now.
        let ticket = Ticket(self.slot.word.load(Relaxed).wrapping_add(1));
        drop(self);
        ticket
    }

    /// Puts the reactor away for good: no ticket will ever name it again.
    pub(super) fn retire(self) {
        // Relaxed: under the lock.
        self.slot.word.store(RETIRED, Relaxed);
        drop(self);
    }
}

impl<R> Drop for Held<'_, R> {
    fn drop(&mut self) {
        // Relaxed, both: under the lock, which is let go after this and publishes the word too.
        let word = self.slot.word.load(Relaxed);
        if word != RETIRED {
            self.slot.word.store(word.wrapping_add(1), Relaxed);
        }
    }
}

impl<R> Deref for Held<'_, R> {
    type Target = R;

    fn deref(&self) -> &R {
        self.place.as_ref().expect("taken out only when no ticket names it any more")
    }
}

impl<R> DerefMut for Held<'_, R> {
    fn deref_mut(&mut self) -> &mut R {
        self.place.as_mut().expect("taken out only when no ticket names it any more")
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
