//! `Seats`: the places that all groups have in one reactor, which are given up when it ends.

use std::collections::HashMap;
use std::fmt;

use super::hub::Seat;
use crate::words::sync::{Arc, Mutex, lock};

/// The seats of groups that have members in a reactor, or are about to, by their keys; `None` once
/// the reactor has ended.
///
/// Locked under the roll of a group, never the other way round.
pub(crate) struct Seats(Mutex<Option<HashMap<usize, Arc<Seat>>>>);

impl Seats {
    /// None yet.
    pub(crate) fn new() -> Self {
        Seats(Mutex::new(Some(HashMap::new())))
    }

    /// Remembers a seat; false if the reactor has ended.
    pub(crate) fn enroll(&self, seat: &Arc<Seat>) -> bool {
        let mut seats = lock(&self.0);
        let there = seats.as_mut().map(|seats| seats.insert(seat.key(), Arc::clone(seat)));
        there.is_some()
    }

    /// Forgets a seat that nobody claims any more.
    pub(crate) fn dismiss(&self, seat: &Arc<Seat>) {
        let gone = lock(&self.0).as_mut().and_then(|seats| seats.remove(&seat.key()));
        drop(gone);
    }

    /// No group has members here any more, nor ever again.
    pub(crate) fn close(&self) {
        let reopened = cfg!(switchboard_mutant = "seats_reopened").then(HashMap::new);
        let seats = std::mem::replace(&mut *lock(&self.0), reopened);
        seats.into_iter().flatten().for_each(|(_, seat)| seat.give_up());
    }
}

impl fmt::Debug for Seats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seats")
    }
}
