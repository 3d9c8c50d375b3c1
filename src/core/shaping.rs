//! `Shape`: the rates that one connection is held to, its own and those that it shares.
//!
//! A connection that wants to read or write asks for its turn. That books a *quantum* in every
//! bucket that applies, and the turn comes when it has come in all of them; nobody is asked again
//! before. Whoever shares a bucket stands in line there with one quantum, however much it wants,
//! and so gets its share and no more. When the turn has come, what lies in the buckets beyond all
//! bookings may go as well, so that a pause is made up for in one call. What was not used is given
//! back.
//!
//! ```text
//!            ask: book           not yet             its slot has come: ask
//!   at rest ────────────▶ turn ──────────▶ held ───────────────────────────▶ go
//!      ▲                    └────────── it has come at once ─────────────────▶ │
//!      └───────────────────────────────── spend, give back ────────────────────┘
//! ```

#[cfg(all(test, not(loom)))]
mod tests;

use std::time::Duration;

use super::limits::Bucket;
use crate::words::clock::Time;
use crate::words::config::{Listening, Rate, Shaper, SharedBucket};
use crate::words::sync::lock;

/// The least that is booked: less is not worth a system call.
const QUANTUM_MIN: u64 = 512;
/// A quantum is worth this part of a second: a few milliseconds, since timers are not finer.
const QUANTA_PER_SECOND: u64 = 256;
/// The groups of a connection: the server, its listener's, and the one that it has joined.
const GROUPS: usize = 3;

/// Which of its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// All connections of the server.
    Server,
    /// That of the listener's settings.
    Listener,
    /// The one that the protocol has joined.
    Joined,
}

/// What a connection is held to in both directions.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) read: Flow,
    pub(crate) send: Flow,
    /// When a write stall that was on would have been over, while output is held back.
    pub(crate) stall_by: Option<Time>,
}

/// What a job has changed of it.
#[derive(Debug, Default)]
pub(crate) struct Reshape {
    pub(crate) read: Option<Option<Rate>>,
    pub(crate) send: Option<Option<Rate>>,
    pub(crate) joined: Option<Option<Shaper>>,
}

/// One direction of one connection.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    own: Option<Bucket>,
    shared: [Option<SharedBucket>; GROUPS],
    /// The most that is booked at once: that of the slowest bucket. 0 if there is none.
    quantum: u64,
    turn: Option<Turn>,
    /// Since when the turn is waited for.
    held_since: Option<Time>,
}

/// A turn that is booked.
#[derive(Debug)]
struct Turn {
    /// When it comes.
    at: Time,
    booked: u64,
    /// From when on that may pass in each bucket; the own one stands last.
    slots: [Time; GROUPS + 1],
    /// What was taken beside it, and when.
    extra: (u64, Time),
    /// It did not come at once.
    delayed: bool,
}

/// What is answered to whoever wants to read or write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// So many bytes, now; how many they were is to be told by [`Flow::spend`].
    Go(usize),
    /// Not before the turn has come.
    Wait,
}

impl Shape {
    /// One that bounds nothing.
    pub(crate) fn new() -> Self {
        Shape { read: Flow::default(), send: Flow::default(), stall_by: None }
    }

    /// What the settings of the server and of a listener make of a newcomer; most often nothing.
    pub(crate) fn of(
        server: Option<&Shaper>,
        listening: &Listening,
        now: Time,
    ) -> Option<Box<Shape>> {
        let Listening { read_rate, send_rate, shaper, .. } = listening;
        if server.is_none() && read_rate.is_none() && send_rate.is_none() && shaper.is_none() {
            return None;
        }
        let mut shape = Box::new(Shape::new());
        shape.share(Group::Server, server);
        shape.share(Group::Listener, shaper.as_ref());
        shape.read.set_rate(*read_rate, now);
        shape.send.set_rate(*send_rate, now);
        Some(shape)
    }

    /// Does what a job asked for. Nothing is booked meanwhile.
    pub(crate) fn change(&mut self, change: Reshape, now: Time) {
        let Reshape { read, send, joined } = change;
        read.into_iter().for_each(|rate| self.read.set_rate(rate, now));
        send.into_iter().for_each(|rate| self.send.set_rate(rate, now));
        joined.into_iter().for_each(|shaper| self.share(Group::Joined, shaper.as_ref()));
    }

    /// Whether it bounds anything.
    pub(crate) fn is_bound(&self) -> bool {
        self.read.quantum > 0 || self.send.quantum > 0
    }

    /// When the next turn comes that is waited for.
    pub(crate) fn held_until(&self) -> Time {
        self.read.held_until().min(self.send.held_until())
    }

    fn share(&mut self, group: Group, shaper: Option<&Shaper>) {
        self.read.share(group, shaper.and_then(|shaper| shaper.read.clone()));
        self.send.share(group, shaper.and_then(|shaper| shaper.send.clone()));
    }
}

impl Flow {
    /// Whether so many bytes may pass now, or some of them. Who has to wait asks again when
    /// [`Flow::wake`] says so.
    pub(crate) fn ask(&mut self, wanted: usize, now: Time) -> Leave {
        if self.quantum == 0 {
            return Leave::Go(wanted);
        }
        let wanted = wanted as u64;
        let mut turn = match self.turn.take() {
            Some(turn) => turn,
            None => self.book(wanted.clamp(1, self.quantum), now),
        };
        debug_assert_eq!(turn.extra.0, 0, "what was granted is spent before more is asked for");
        let comes = turn.at <= now;
        if comes {
            turn.extra = (self.take_extra(wanted.saturating_sub(turn.booked), now), now);
        } else {
            turn.delayed = true;
            self.held_since.get_or_insert(now);
        }
        let granted = turn.booked + turn.extra.0;
        self.turn = Some(turn);
        if comes { Leave::Go(usize::try_from(granted).unwrap_or(usize::MAX)) } else { Leave::Wait }
    }

    /// So many of the bytes that were granted have passed. Whether they had to wait.
    pub(crate) fn spend(&mut self, count: usize) -> bool {
        let Some(turn) = self.turn.take() else { return false };
        let forgiven = cfg!(switchboard_sim_mutant = "debt_forgiven");
        let count = if forgiven { 0 } else { count as u64 };
        debug_assert!(count <= turn.booked + turn.extra.0, "more passed than was granted");
        let booked = turn.booked.saturating_sub(count);
        let (extra, at) = turn.extra;
        let extra = extra.saturating_sub(count.saturating_sub(turn.booked));
        if booked + extra > 0 {
            self.each(|place, bucket| {
                bucket.refund(extra, at);
                bucket.refund(booked, turn.slots[place]);
            });
        }
        turn.delayed
    }

    /// If its turn is waited for and has come: how long it was waited for.
    pub(crate) fn wake(&mut self, now: Time) -> Option<Duration> {
        if self.held_until() > now {
            return None;
        }
        self.held_since.take().map(|since| now.since(since))
    }

    /// Gives a turn back that is booked. If it was waited for: for how long.
    pub(crate) fn cancel(&mut self, now: Time) -> Option<Duration> {
        self.spend(0);
        self.held_since.take().map(|since| now.since(since))
    }

    /// Whether a turn is waited for.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        self.held_since.is_some()
    }

    fn held_until(&self) -> Time {
        match (&self.turn, self.held_since) {
            (Some(turn), Some(_)) => turn.at,
            (None, _) | (_, None) => Time::NEVER,
        }
    }

    /// Gives it a rate of its own, or none. What is left of the former one, or owed, stays.
    fn set_rate(&mut self, rate: Option<Rate>, now: Time) {
        debug_assert!(self.turn.is_none());
        let rate = rate.map(Rate::clamp);
        match (&mut self.own, rate) {
            (Some(bucket), Some(rate)) => bucket.set_rate(rate, now),
            (own, rate) => *own = rate.map(|rate| Bucket::new(rate, now)),
        }
        self.measure();
    }

    fn share(&mut self, group: Group, bucket: Option<SharedBucket>) {
        debug_assert!(self.turn.is_none());
        self.shared[group as usize] = bucket;
        self.measure();
    }

    fn measure(&mut self) {
        let mut least = u64::MAX;
        self.each(|_, bucket| least = least.min(quantum(bucket.rate())));
        self.quantum = if least == u64::MAX { 0 } else { least };
    }

    fn book(&mut self, booked: u64, now: Time) -> Turn {
        let mut slots = [now; GROUPS + 1];
        self.each(|place, bucket| slots[place] = bucket.reserve(booked, now));
        let at = slots.into_iter().fold(now, Time::max);
        Turn { at, booked, slots, extra: (0, now), delayed: false }
    }

    /// Takes up to `most` of what lies in all buckets beyond what is booked.
    fn take_extra(&mut self, most: u64, now: Time) -> u64 {
        let mut least = most;
        let mut taken = [0; GROUPS + 1];
        self.each(|place, bucket| {
            least = bucket.take_up_to(least, now);
            taken[place] = least;
        });
        self.each(|place, bucket| bucket.refund(taken[place] - least, now));
        least
    }

    /// Calls `act` for each bucket that applies, with its place in a turn.
    fn each(&mut self, mut act: impl FnMut(usize, &mut Bucket)) {
        for (place, bucket) in self.shared.iter().enumerate() {
            bucket.iter().for_each(|bucket| act(place, &mut lock(bucket)));
        }
        self.own.iter_mut().for_each(|bucket| act(GROUPS, bucket));
    }
}

/// A connection that ends leaves its place in the line to others.
impl Drop for Flow {
    fn drop(&mut self) {
        self.spend(0);
    }
}

/// The most that is booked at once.
pub(crate) fn quantum(rate: Rate) -> u64 {
    (rate.refill() / QUANTA_PER_SECOND).max(QUANTUM_MIN)
}
