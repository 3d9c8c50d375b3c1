//! `Shelf`: the rules of a pool: who gets what, in which order, and never too much; without
//! sockets, threads or clocks.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::words::clock::Time;

/// What is idle, how much there is in all, and who waits.
///
/// Every connection of the pool, and every one that is being made for it, is counted in `total`
/// until [`Shelf::discard`] is called for it or it expires. Waiters are served in the order in
/// which they came, and nobody overtakes them.
#[derive(Debug)]
pub(super) struct Shelf<T> {
    /// The one that was used last stands last, and is taken first.
    idle: VecDeque<(T, Time)>,
    total: usize,
    bounds: Bounds,
    waiting: VecDeque<u64>,
    /// For waiters that have not noticed yet.
    granted: BTreeMap<u64, Grant<T>>,
    next_waiter: u64,
    closed: bool,
}

/// How much a pool may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) total_max: usize,
    pub(super) idle_max: usize,
    pub(super) idle_timeout: Duration,
}

/// What somebody gets who asks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Grant<T> {
    /// An idle one.
    Item(T),
    /// The right to make one.
    Room,
}

/// What asking comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asked<T> {
    Granted(Grant<T>),
    /// Wait under this number.
    Wait(u64),
    /// The pool gives nothing any more.
    Closed,
}

impl<T> Shelf<T> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Shelf {
            idle: VecDeque::new(),
            total: 0,
            bounds,
            waiting: VecDeque::new(),
            granted: BTreeMap::new(),
            next_waiter: 0,
            closed: false,
        }
    }

    /// Somebody wants one.
    pub(super) fn ask(&mut self) -> Asked<T> {
        if self.closed {
            return Asked::Closed;
        }
        if self.waiting.is_empty() {
            if let Some((item, _)) = self.idle.pop_back() {
                return Asked::Granted(Grant::Item(item));
            }
            if self.total < self.bounds.total_max {
                self.total += 1;
                return Asked::Granted(Grant::Room);
            }
        }
        let waiter = self.next_waiter;
        self.next_waiter += 1;
        self.waiting.push_back(waiter);
        Asked::Wait(waiter)
    }

    /// What a waiter has got, if anything.
    pub(super) fn take(&mut self, waiter: u64) -> Option<Grant<T>> {
        self.granted.remove(&waiter)
    }

    /// Whether a waiter has got something.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn is_granted(&self, waiter: u64) -> bool {
        self.granted.contains_key(&waiter)
    }

    /// A waiter gives up. What it has got at the last moment is its own all the same.
    pub(super) fn give_up(&mut self, waiter: u64) -> Option<Grant<T>> {
        self.waiting.retain(|&other| other != waiter);
        self.granted.remove(&waiter)
    }

    /// One that was in use comes back in good order. Given back if there is no place for it: it is
    /// counted no longer then.
    pub(super) fn put(&mut self, item: T, now: Time) -> Option<T> {
        if let Some(waiter) = self.waiting.pop_front() {
            self.granted.insert(waiter, Grant::Item(item));
            return None;
        }
        if self.closed || self.idle.len() >= self.bounds.idle_max {
            self.discard();
            return Some(item);
        }
        self.idle.push_back((item, now));
        None
    }

    /// One that was in use, or was to be made, is no more.
    pub(super) fn discard(&mut self) {
        debug_assert!(self.total > 0, "only what is counted is discarded");
        self.total -= 1;
        if let Some(waiter) = self.waiting.pop_front() {
            self.total += 1;
            self.granted.insert(waiter, Grant::Room);
        }
    }

    /// Takes out an idle one that has died.
    pub(super) fn remove(&mut self, is: impl Fn(&T) -> bool) -> Option<T> {
        let at = self.idle.iter().position(|(item, _)| is(item))?;
        let (item, _) = self.idle.remove(at)?;
        self.discard();
        Some(item)
    }

    /// Takes out those that have been idle for too long.
    pub(super) fn expire(&mut self, now: Time) -> Vec<T> {
        let mut expired = Vec::new();
        while self.next_expiry().is_some_and(|at| at <= now) {
            expired.extend(self.idle.pop_front().map(|(item, _)| item));
            self.discard();
        }
        expired
    }

    /// When the first one will have been idle for too long.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        self.idle.front().map(|&(_, since)| since + self.bounds.idle_timeout)
    }

    /// Gives nothing any more: those that are idle, and nothing for those who wait.
    pub(super) fn close(&mut self) -> Vec<T> {
        self.closed = true;
        self.waiting.clear();
        self.total -= self.idle.len();
        self.idle.drain(..).map(|(item, _)| item).collect()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Idle ones, and all that there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.idle.len(), self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    fn shelf(total_max: usize, idle_max: usize) -> Shelf<u32> {
        Shelf::new(Bounds { total_max, idle_max, idle_timeout: TIMEOUT })
    }

    fn item_of(grant: Grant<u32>) -> Option<u32> {
        match grant {
            Grant::Item(item) => Some(item),
            Grant::Room => None,
        }
    }

    #[test]
    fn who_comes_first_is_served_first_and_nobody_overtakes() {
        let (mut shelf, now) = (shelf(1, 1), Time::ZERO);
        assert_eq!(shelf.ask(), Asked::Granted(Grant::Room));
        assert_eq!((shelf.ask(), shelf.ask()), (Asked::Wait(0), Asked::Wait(1)));
        assert_eq!(shelf.put(7, now), None);
        assert_eq!(shelf.ask(), Asked::Wait(2));
        assert_eq!((shelf.take(1), shelf.take(0)), (None, Some(Grant::Item(7))));
        shelf.discard();
        assert_eq!(shelf.give_up(1), Some(Grant::Room), "at the last moment");
        shelf.discard();
        assert_eq!(shelf.take(2), Some(Grant::Room));
        assert_eq!(shelf.counts(), (0, 1));
    }

    #[test]
    fn the_warmest_is_taken_and_the_coldest_expires() {
        let (mut shelf, mut now) = (shelf(4, 2), Time::ZERO);
        (0..3).for_each(|_| assert_eq!(shelf.ask(), Asked::Granted(Grant::Room)));
        assert_eq!(shelf.put(1, now), None);
        now = now + TIMEOUT / 2;
        assert_eq!((shelf.put(2, now), shelf.put(3, now)), (None, Some(3)));
        assert_eq!((shelf.counts(), shelf.next_expiry()), ((2, 2), Some(Time::ZERO + TIMEOUT)));
        assert_eq!(shelf.expire(now), []);
        assert_eq!(shelf.expire(Time::ZERO + TIMEOUT), [1]);
        assert_eq!(shelf.ask(), Asked::Granted(Grant::Item(2)));
        assert_eq!((shelf.remove(|_| true), shelf.counts()), (None, (0, 1)));
    }

    proptest! {
        /// Never more than the maximum, none lost, first come first served: whatever happens.
        #[test]
        fn the_rules_hold_in_every_order(
            total_max in 1..5usize, idle_max in 0..5usize,
            steps in proptest::collection::vec((0..8u8, any::<u8>(), 0..6u64), 0..300),
        ) {
            let (mut shelf, mut now) = (shelf(total_max, idle_max), Time::ZERO);
            // What is in use or being made; `None` has no connection yet.
            let mut used: Vec<Option<u32>> = Vec::new();
            let (mut waiting, mut served) = (Vec::new(), Vec::new());
            let (mut next, mut closed) = (0, false);
            for (what, pick, seconds) in steps {
                now = now + Duration::from_secs(seconds);
                let pick = usize::from(pick);
                match what {
                    0..=2 => match shelf.ask() {
                        Asked::Granted(grant) => used.push(item_of(grant)),
                        Asked::Wait(waiter) => {
                            prop_assert_eq!(shelf.counts().1, total_max, "it waits in vain");
                            waiting.push(waiter);
                        }
                        Asked::Closed => prop_assert!(closed),
                    },
                    3 if !used.is_empty() => {
                        let at = pick % used.len();
                        let item = used.swap_remove(at).unwrap_or_else(|| {
                            next += 1;
                            next
                        });
                        let idle = shelf.counts().0;
                        let back = shelf.put(item, now);
                        prop_assert!(back.is_none_or(|_| closed || idle >= idle_max));
                    }
                    4 if !used.is_empty() => {
                        used.swap_remove(pick % used.len());
                        shelf.discard();
                    }
                    5 if !waiting.is_empty() => {
                        let waiter = waiting.remove(pick % waiting.len());
                        used.extend(shelf.give_up(waiter).map(item_of));
                    }
                    6 => {
                        let expired = shelf.expire(now);
                        prop_assert!(expired.len() <= idle_max);
                    }
                    7 if pick < 20 => {
                        shelf.close();
                        closed = true;
                        // Those who wait are told so; what they were granted before is theirs.
                        for waiter in waiting.drain(..) {
                            used.extend(shelf.take(waiter).map(item_of));
                        }
                    }
                    _ => _ = shelf.remove(|item| usize::try_from(*item).unwrap() % 4 == pick % 4),
                }
                // Waiters look, in any order: those that have got something came first.
                let got: Vec<_> = waiting.iter().copied()
                    .map(|waiter| (waiter, shelf.take(waiter)))
                    .collect();
                waiting.clear();
                let mut later = false;
                for (waiter, grant) in got {
                    match grant {
                        Some(grant) => {
                            prop_assert!(!later, "somebody was overtaken");
                            served.push(waiter);
                            used.push(item_of(grant));
                        }
                        None => {
                            later = true;
                            waiting.push(waiter);
                        }
                    }
                }
                let (idle, total) = shelf.counts();
                prop_assert!(total <= total_max && idle <= idle_max);
                prop_assert_eq!(total, idle + used.len(), "a permit is lost or made up");
                prop_assert!(waiting.is_empty() || (idle == 0 && total == total_max));
                prop_assert!(served.windows(2).all(|pair| pair[0] < pair[1]));
            }
        }
    }
}
