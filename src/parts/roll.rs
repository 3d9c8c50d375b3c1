//! `Roll`: who is to be told, each claimed by so many, as all threads see it.

use crate::words::sync::{Arc, Mutex, lock};

/// Seats that are claimed at least once.
///
/// Who makes something known takes [`Roll::all`], one counted reference, and tells each seat
/// without a lock. A seat that nobody claims any more is off the roll before its last claimant
/// goes on, so a claim is never answered with a seat that is about to be given up.
pub(crate) struct Roll<S> {
    inner: Mutex<Inner<S>>,
}

struct Inner<S> {
    /// How often each of `seats` is claimed, in the same order; never zero.
    claims: Vec<usize>,
    /// Made anew when one comes or goes; whoever tells them has the old one meanwhile.
    seats: Arc<[Arc<S>]>,
}

impl<S> Roll<S> {
    /// An empty roll.
    pub(crate) fn new() -> Self {
        Roll { inner: Mutex::new(Inner { claims: Vec::new(), seats: Arc::from(Vec::new()) }) }
    }

    /// All seats at this moment.
    pub(crate) fn all(&self) -> Arc<[Arc<S>]> {
        Arc::clone(&lock(&self.inner).seats)
    }

    /// Claims the seat that `is_it` knows, or the one that `make` makes, under the lock, if there
    /// is none; `None` if that makes none.
    pub(crate) fn claim(
        &self,
        is_it: impl Fn(&S) -> bool,
        make: impl FnOnce() -> Option<Arc<S>>,
    ) -> Option<Arc<S>> {
        let mut inner = lock(&self.inner);
        if let Some(at) = inner.seats.iter().position(|seat| is_it(seat)) {
            inner.claims[at] += 1;
            return Some(Arc::clone(&inner.seats[at]));
        }
        let seat = make()?;
        let all = inner.seats.iter().cloned().chain([Arc::clone(&seat)]);
        inner.seats = all.collect();
        inner.claims.push(1);
        Some(seat)
    }

    /// Gives one claim back. If that was the last one, the seat goes, and `gone` is called under
    /// the lock. A seat that was struck off is not there, and nothing happens.
    pub(crate) fn release(&self, seat: &Arc<S>, gone: impl FnOnce()) {
        let mut inner = lock(&self.inner);
        let Some(at) = inner.find(seat) else { return };
        inner.claims[at] -= 1;
        let is_last = inner.claims[at] == 0 || cfg!(switchboard_mutant = "roll_ends_early");
        if is_last {
            inner.remove(at);
            gone();
        }
    }

    /// Takes a seat off, whoever claims it.
    pub(crate) fn strike(&self, seat: &Arc<S>) {
        let mut inner = lock(&self.inner);
        if let Some(at) = inner.find(seat) {
            inner.remove(at);
        }
    }
}

impl<S> Inner<S> {
    fn find(&self, seat: &Arc<S>) -> Option<usize> {
        self.seats.iter().position(|there| Arc::ptr_eq(there, seat))
    }

    fn remove(&mut self, at: usize) {
        self.claims.remove(at);
        let others = self.seats.iter().enumerate().filter(|&(index, _)| index != at);
        self.seats = others.map(|(_, seat)| Arc::clone(seat)).collect();
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn it_is_a_map_of_counts_without_zeros(
            steps in prop::collection::vec((0..5u8, 0..4u8), 0..80),
        ) {
            let roll = Roll::new();
            let mut oracle: BTreeMap<u8, usize> = BTreeMap::new();
            let mut made = BTreeMap::new();
            for (what, name) in steps {
                let known = oracle.get(&name).copied().unwrap_or(0);
                match what {
                    0..=2 => {
                        let mut fresh = false;
                        let seat = roll.claim(|&there| there == name, || {
                            fresh = true;
                            Some(Arc::new(name))
                        });
                        prop_assert_eq!(fresh, known == 0);
                        made.insert(name, seat.expect("one was made, or is there"));
                        *oracle.entry(name).or_default() += 1;
                    }
                    3 => if let Some(seat) = made.get(&name) {
                        let mut gone = false;
                        roll.release(seat, || gone = true);
                        prop_assert_eq!(gone, known == 1);
                        oracle.insert(name, known.saturating_sub(1));
                    },
                    _ => if let Some(seat) = made.get(&name) {
                        roll.strike(seat);
                        oracle.insert(name, 0);
                    },
                }
                oracle.retain(|_, count| *count > 0);
                let mut there: Vec<u8> = roll.all().iter().map(|seat| **seat).collect();
                there.sort_unstable();
                prop_assert_eq!(there, oracle.keys().copied().collect::<Vec<_>>());
            }
        }
    }

    #[test]
    fn who_cannot_be_seated_claims_nothing() {
        let roll: Roll<u8> = Roll::new();
        assert!(roll.claim(|_| true, || None).is_none());
        assert!(roll.all().is_empty());
    }
}

#[cfg(loom)]
mod model {
    use super::*;
    use loom::sync::Mutex as LoomMutex;
    use loom::{model, thread};

    /// What stands in the mailbox of a seat.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    enum Letter {
        Join,
        Shot,
    }

    type Seat = LoomMutex<Vec<Letter>>;

    /// Joins, then says something, which has to reach its own seat behind the join, while another
    /// member of the same reactor leaves.
    #[test]
    fn what_is_said_after_a_claim_reaches_the_seat() {
        model(|| {
            let roll: Arc<Roll<Seat>> = Arc::new(Roll::new());
            let make = || Some(Arc::new(Seat::new(Vec::new())));
            let first = roll.claim(|_| true, make).expect("it is made");
            let leaver = {
                let roll = Arc::clone(&roll);
                thread::spawn(move || roll.release(&first, || {}))
            };
            let seat = roll.claim(|_| true, make).expect("it is there, or is made");
            seat.lock().expect("nobody panics").push(Letter::Join);
            for seat in roll.all().iter() {
                seat.lock().expect("nobody panics").push(Letter::Shot);
            }
            leaver.join().expect("it does not panic");
            let letters = seat.lock().expect("nobody panics").clone();
            assert_eq!(letters, [Letter::Join, Letter::Shot]);
            assert!(roll.all().iter().any(|there| Arc::ptr_eq(there, &seat)));
            roll.release(&seat, || {});
            assert!(roll.all().is_empty());
        });
    }
}
