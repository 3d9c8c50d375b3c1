//! `Away`: the jobs of one reactor that another thread has, or is to have, and since when.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::words::clock::Time;
use crate::words::id::ConnId;

/// Which connections' jobs are where. There is at most one of each connection.
#[derive(Debug, Default)]
pub(super) struct Away {
    /// That of the thread which holds the reactor, and has it back when the job is over.
    here: Option<(ConnId, Time)>,
    elsewhere: BTreeMap<ConnId, Time>,
    /// When somebody has to look whether one is late.
    look_at: Option<Time>,
}

/// Jobs that are away for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Late {
    pub(super) count: usize,
    /// That of them which is away longest.
    pub(super) first: ConnId,
}

impl Away {
    /// The holder runs a job.
    pub(super) fn begin(&mut self, id: ConnId, now: Time) {
        let since = if self.elsewhere.is_empty() { None } else { self.elsewhere.remove(&id) };
        self.here = Some((id, since.unwrap_or(now)));
    }

    /// The reactor is turned. If what the holder ran is not back, that is by another thread.
    pub(super) fn go_on(&mut self) {
        let overtaken = self.here.take();
        if !cfg!(switchboard_sim_mutant = "overtaken_unnoted") {
            self.elsewhere.extend(overtaken);
        }
    }

    /// A job goes where any thread may take it.
    pub(super) fn leave(&mut self, id: ConnId, now: Time) {
        self.elsewhere.insert(id, now);
    }

    /// A job is over.
    pub(super) fn end(&mut self, id: ConnId) {
        match self.here {
            Some((here, _)) if here == id => self.here = None,
            _ => drop(self.elsewhere.remove(&id)),
        }
    }

    /// When [`Away::look`] is to be called again.
    pub(super) fn look_at(&self) -> Option<Time> {
        self.look_at
    }

    /// Those that have been away for as long as `patience`, seen half of that later at the latest.
    pub(super) fn look(&mut self, now: Time, patience: Duration) -> Option<Late> {
        let next = now + patience / 2;
        if self.elsewhere.is_empty() {
            self.look_at = None;
            return None;
        }
        if *self.look_at.get_or_insert(next) > now {
            return None;
        }
        self.look_at = Some(next);
        let late = || self.elsewhere.iter().filter(|(_, since)| **since + patience <= now);
        let (&first, _) = late().min_by_key(|(_, since)| **since)?;
        Some(Late { count: late().count(), first })
    }

    /// How many there are.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn count(&self) -> usize {
        self.elsewhere.len() + usize::from(self.here.is_some())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_millis(500);

    fn at(millis: u64) -> Time {
        Time::ZERO + Duration::from_millis(millis)
    }

    fn id(slot: usize) -> ConnId {
        ConnId::new(0, slot, 7)
    }

    #[test]
    fn what_comes_back_to_its_holder_was_never_away() {
        let mut away = Away::default();
        away.begin(id(1), at(0));
        away.end(id(1));
        away.go_on();
        assert_eq!((away.count(), away.look(at(1_000), PATIENCE)), (0, None));
        assert_eq!(away.look_at(), None, "nobody wakes up for nothing");
    }

    #[test]
    fn whose_reactor_goes_on_without_it_is_late_after_the_patience() {
        let mut away = Away::default();
        away.begin(id(1), at(0));
        away.go_on();
        assert_eq!((away.look(at(10), PATIENCE), away.look_at()), (None, Some(at(260))));
        away.leave(id(2), at(20));
        assert_eq!(away.look(at(259), PATIENCE), None, "not yet");
        assert_eq!((away.look(at(499), PATIENCE), away.look_at()), (None, Some(at(749))));
        let first = id(1);
        assert_eq!(away.look(at(749), PATIENCE), Some(Late { count: 2, first }));
        away.end(id(1));
        let first = id(2);
        assert_eq!(away.look(at(999), PATIENCE), Some(Late { count: 1, first }));
        away.end(id(2));
        assert_eq!((away.look(at(1_300), PATIENCE), away.look_at()), (None, None));
    }

    #[test]
    fn what_nobody_took_the_holder_may_run_and_it_is_away_since_it_left() {
        let mut away = Away::default();
        away.leave(id(1), at(0));
        away.begin(id(1), at(400));
        assert_eq!(away.count(), 1);
        away.go_on();
        assert_eq!(away.look(at(400), PATIENCE), None);
        let first = id(1);
        assert_eq!(away.look(at(650), PATIENCE), Some(Late { count: 1, first }));
        // A job that is over belongs to nobody else.
        away.begin(id(3), at(650));
        away.end(id(1));
        assert_eq!(away.count(), 1);
        away.end(id(3));
        assert_eq!(away.count(), 0);
    }
}
