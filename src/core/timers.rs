//! `Timers`: the timers that a protocol has set on its connection; they travel with its session.

use crate::words::clock::Time;

/// The timers of one connection, the next one first. They go out with the session, so that a call
/// that cancels one is certain that it never fires.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// By the time at which they are due; those of the same time in the order they were set.
    pending: Vec<(Time, u64)>,
}

impl Timers {
    /// Sets the timer `key`, in place of one with that key. False if there are `max` others.
    pub(crate) fn set(&mut self, key: u64, at: Time, max: usize) -> bool {
        let again = self.cancel(key);
        if !again && self.pending.len() >= max {
            return false;
        }
        let place = self.pending.partition_point(|&(other, _)| other <= at);
        self.pending.insert(place, (at, key));
        true
    }

    /// Takes the timer `key` back. False if it is not set: it has fired, or never was.
    pub(crate) fn cancel(&mut self, key: u64) -> bool {
        let place = self.pending.iter().position(|&(_, other)| other == key);
        if cfg!(switchboard_sim_mutant = "cancelled_fires") {
            return place.is_some();
        }
        place.map(|place| self.pending.remove(place)).is_some()
    }

    /// When the next one is due; `NEVER` if there is none.
    pub(crate) fn next_due(&self) -> Time {
        self.pending.first().map_or(Time::NEVER, |&(at, _)| at)
    }

    /// How many are due at `now`.
    pub(crate) fn due_count(&self, now: Time) -> usize {
        self.pending.partition_point(|&(at, _)| at <= now)
    }

    /// Takes the next timer that is due at `now`.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<u64> {
        (self.next_due() <= now && !self.pending.is_empty()).then(|| self.pending.remove(0).1)
    }

    /// The memory that they take, room for more included.
    pub(crate) fn held_bytes(&self) -> usize {
        size_of::<Self>() + self.pending.capacity() * size_of::<(Time, u64)>()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// When each is due, and its key; the next one first.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Time, u64)> {
        self.pending.iter().copied()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Set(u64, u64),
        Cancel(u64),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..6u64, 0..50u64).prop_map(|(key, after)| Step::Set(key, after)),
            1 => (0..6u64).prop_map(Step::Cancel),
            2 => (0..40u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// Against a map that has no notion of order.
        #[test]
        fn each_fires_once_at_its_time_unless_taken_back(
            steps in prop::collection::vec(step(), 0..80),
        ) {
            const MAX: usize = 4;
            let mut timers = Timers::default();
            let mut oracle = BTreeMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Set(key, after) => {
                        let fits = oracle.contains_key(&key) || oracle.len() < MAX;
                        prop_assert_eq!(timers.set(key, Time::from_nanos(now + after), MAX), fits);
                        if fits {
                            oracle.insert(key, now + after);
                        }
                    }
                    Step::Cancel(key) => {
                        prop_assert_eq!(timers.cancel(key), oracle.remove(&key).is_some());
                    }
                    Step::Pass(time) => {
                        now += time;
                        let mut last = 0;
                        while let Some(key) = timers.pop_due(Time::from_nanos(now)) {
                            let at = oracle.remove(&key);
                            prop_assert!(at.is_some_and(|at| at <= now && at >= last));
                            last = at.unwrap_or_default();
                        }
                        prop_assert!(oracle.values().all(|&at| at > now), "none is late");
                    }
                }
                let next = oracle.values().min().map_or(Time::NEVER, |&at| Time::from_nanos(at));
                prop_assert_eq!(timers.next_due(), next);
                prop_assert_eq!(timers.is_empty(), oracle.is_empty());
            }
        }
    }
}
