//! Threads with nothing to do: where each one waits, and the list from which they are called.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use super::lease::Ticket;
use crate::words::sync::atomic::{AtomicBool, AtomicUsize, fence};
use crate::words::sync::{Arc, Condvar, Mutex, lock, wait, wait_timeout};

/// What an idle thread is called for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Pick up the reactor of this index, if it still lies under this ticket, and turn it.
    PickUp(usize, Ticket),
    /// Look for jobs.
    Work,
    /// End.
    Quit,
}

/// Where one thread waits for one thing at a time. A thing that comes early is kept.
pub(super) struct Seat<T> {
    place: Mutex<Option<T>>,
    bell: Condvar,
}

impl<T> Seat<T> {
    /// An empty seat.
    pub(super) fn new() -> Self {
        Seat { place: Mutex::new(None), bell: Condvar::new() }
    }

    /// Gives `thing` to the thread that waits here, now or later.
    pub(super) fn put(&self, thing: T) {
        *lock(&self.place) = Some(thing);
        // The lock is dropped first: the woken thread would only run into it.
        self.bell.notify_one();
    }

    /// Waits until there is something.
    pub(super) fn wait(&self) -> T {
        let mut place = lock(&self.place);
        loop {
            if let Some(thing) = place.take() {
                return thing;
            }
            place = wait(&self.bell, place);
        }
    }

    /// Takes what is there, without waiting.
    #[cfg(all(any(test, feature = "sim"), not(loom)))]
    pub(super) fn take(&self) -> Option<T> {
        lock(&self.place).take()
    }

    /// Whether something is there.
    #[cfg(all(any(test, feature = "sim"), not(loom)))]
    pub(super) fn is_taken(&self) -> bool {
        lock(&self.place).is_some()
    }

    /// Waits until there is something, for `timeout` at the longest; may give up early.
    pub(super) fn wait_for(&self, timeout: Duration) -> Option<T> {
        let mut place = lock(&self.place);
        if place.is_none() {
            place = wait_timeout(&self.bell, place, timeout);
        }
        place.take()
    }
}

/// The idle threads, last in, first out: the one that ran last has the warmest caches, and those
/// that are never needed can leave.
pub(super) struct Idle {
    list: Mutex<Vec<Arc<Seat<Order>>>>,
    /// The length of the list; written under the lock, read without.
    count: AtomicUsize,
    /// A thread was called to look for work and has not begun to; set under the lock.
    searching: AtomicBool,
}

impl Idle {
    /// An empty list.
    pub(super) fn new() -> Self {
        Idle {
            list: Mutex::new(Vec::new()),
            count: AtomicUsize::new(0),
            searching: AtomicBool::new(false),
        }
    }

    /// Adds a thread and says how many were there before. The caller owes a fence and another
    /// look for work before it waits.
    pub(super) fn announce(&self, seat: &Arc<Seat<Order>>) -> usize {
        let mut list = lock(&self.list);
        list.push(Arc::clone(seat));
        self.publish(&list);
        list.len() - 1
    }

    /// Takes a thread off the list. `false`: it was called meanwhile, its order is on the way.
    pub(super) fn withdraw(&self, seat: &Arc<Seat<Order>>) -> bool {
        self.withdraw_beyond(seat, 0)
    }

    /// The same, but only if more than `keep` threads are there.
    pub(super) fn withdraw_beyond(&self, seat: &Arc<Seat<Order>>, keep: usize) -> bool {
        let mut list = lock(&self.list);
        if list.len() <= keep {
            return false;
        }
        let Some(at) = list.iter().rposition(|other| Arc::ptr_eq(other, seat)) else {
            return false;
        };
        list.remove(at);
        self.publish(&list);
        true
    }

    /// Sends `order` to the thread that came last. `false`: nobody is here.
    pub(super) fn call(&self, order: Order) -> bool {
        let called = {
            let mut list = lock(&self.list);
            let called = list.pop();
            self.publish(&list);
            called
        };
        let Some(seat) = called else {
            return false;
        };
        seat.put(order);
        true
    }

    /// Calls a thread to look for work, unless one is on its way already or nobody is here. Who
    /// has put work somewhere owes a fence before this.
    pub(super) fn call_searcher(&self) -> bool {
        // Relaxed: the caller's fence pairs it with `announce`.
        if self.count.load(Relaxed) == 0 || self.is_searching() {
            return false;
        }
        let called = {
            let mut list = lock(&self.list);
            if self.is_searching() {
                return false;
            }
            let called = list.pop();
            self.publish(&list);
            // Relaxed: under the lock, and only if somebody comes: who sees it relies on him.
            let comes = called.is_some() || cfg!(switchboard_mutant = "search_leaks");
            self.searching.store(comes, Relaxed);
            called
        };
        let Some(seat) = called else {
            return false;
        };
        seat.put(Order::Work);
        true
    }

    /// What a called thread does before it looks. Cleared first: whoever puts work somewhere
    /// after the look calls again.
    pub(super) fn begin_search(&self) {
        // Relaxed: the fence pairs it with that of the caller of `call_searcher`.
        self.searching.store(false, Relaxed);
        fence(SeqCst);
    }

    /// Whether a thread was called to look for work and has not begun to.
    pub(super) fn is_searching(&self) -> bool {
        // Relaxed: ordered by the fences named above.
        self.searching.load(Relaxed)
    }

    fn publish(&self, list: &[Arc<Seat<Order>>]) {
        // Relaxed: those who read it without the lock bring their own fence.
        self.count.store(list.len(), Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn last_in_first_called() {
        let (idle, first, second) = (Idle::new(), Arc::new(Seat::new()), Arc::new(Seat::new()));
        assert!(!idle.call(Order::Work));
        assert_eq!((idle.announce(&first), idle.announce(&second)), (0, 1));
        assert!(idle.call(Order::PickUp(3, Ticket::FIRST)));
        assert_eq!(second.wait(), Order::PickUp(3, Ticket::FIRST));
        assert!(!idle.withdraw(&second), "it was called");
        assert!(!idle.withdraw_beyond(&first, 1), "one is to stay");
        assert!(idle.withdraw(&first) && !idle.call(Order::Work));
    }

    #[test]
    fn one_searcher_at_a_time() {
        let (idle, first, second) = (Idle::new(), Arc::new(Seat::new()), Arc::new(Seat::new()));
        assert!(!idle.call_searcher() && !idle.is_searching());
        idle.announce(&first);
        idle.announce(&second);
        assert!(idle.call_searcher() && !idle.call_searcher());
        assert_eq!(second.wait(), Order::Work);
        idle.begin_search();
        assert!(idle.call_searcher() && idle.is_searching());
        assert_eq!(first.wait(), Order::Work);
    }

    #[test]
    fn a_wait_ends_without_an_order() {
        let seat = Seat::<Order>::new();
        assert_eq!(seat.wait_for(Duration::from_millis(1)), None);
        seat.put(Order::Quit);
        assert_eq!(seat.wait_for(Duration::from_secs(60)), Some(Order::Quit));
    }
}
