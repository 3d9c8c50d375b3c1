//! The memory that a connection holds beside its record: how much, and what it costs to hold a lot.

use bytes::BytesMut;

use super::Connection;
use crate::core::hand::Hand;
use crate::parts::buf::Outbox;
use crate::words::clock::Time;
use crate::words::reason::Cause;

/// Memory by kind, in bytes: of one connection, or the sums of all of a reactor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holding {
    /// Input that is not a whole frame yet, to its capacity; with a job, what that took along.
    pub(crate) partial: usize,
    /// Output that waits: copies to their capacity, shared bytes to their length.
    pub(crate) output: usize,
    /// Timers of the protocol.
    pub(crate) timers: usize,
}

/// What a connection that holds something has in the books of its reactor.
#[derive(Debug, Default)]
pub(crate) struct Account {
    told: Holding,
    /// What its job took along.
    lent: Holding,
    /// What messages were counted for that were dropped while the first job was out that made a
    /// handle: the gate comes back with it.
    untaken: usize,
}

/// A change of what one connection holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    before: Holding,
    after: Holding,
}

/// What a connection may read while memory is short, in one byte.
#[derive(Debug, Default)]
pub(super) struct Ration(u8);

impl Ration {
    /// Nothing.
    const NONE: u8 = 1;
    /// Once, whatever it holds.
    const ONCE: u8 = 2;
    /// It stands in the list of those that wait.
    const ENLISTED: u8 = 4;

    /// Whether it may not read.
    #[inline]
    pub(super) fn is_none(&self) -> bool {
        self.0 & Self::NONE != 0
    }

    fn set(&mut self, ration: u8) {
        self.0 = self.0 & Self::ENLISTED | ration;
    }
}

impl Holding {
    const NOTHING: Holding = Holding { partial: 0, output: 0, timers: 0 };

    pub(crate) fn total(&self) -> usize {
        self.partial + self.output + self.timers
    }

    /// Enters a change into sums.
    pub(crate) fn apply(&mut self, change: &Change) {
        let Change { before, after } = change;
        self.partial = self.partial + after.partial - before.partial;
        if cfg!(switchboard_sim_mutant = "accounting_off_by_header") && after.partial > 0 {
            self.partial += 2;
        }
        self.output = self.output + after.output - before.output;
        self.timers = self.timers + after.timers - before.timers;
    }

    /// Adds what another one holds.
    pub(crate) fn add(&mut self, other: &Holding) {
        self.apply(&Change { before: Holding::NOTHING, after: *other });
    }
}

impl Change {
    /// Whether more is held than before.
    pub(crate) fn is_growth(&self) -> bool {
        self.after.total() > self.before.total()
    }
}

impl Connection {
    /// What it holds now.
    #[inline]
    pub(crate) fn holding(&self) -> Holding {
        let mut holds =
            self.rare().account.as_ref().map_or(Holding::NOTHING, |account| account.lent);
        if let Some(partial) = &self.partial {
            holds.partial += partial.capacity() + size_of::<BytesMut>();
        }
        if let Some(outbox) = &self.outbox {
            holds.output += outbox.held_bytes() + size_of::<Outbox>();
        }
        if let Some(timers) = &self.rare().timers {
            holds.timers += timers.held_bytes();
        }
        holds
    }

    /// What it holds and what other threads have sent to it: by this the heaviest are found. One
    /// that has ended weighs nothing: it goes anyway.
    pub(crate) fn weight(&self) -> usize {
        let posted = self.inbox.as_ref().map_or(0, |inbox| inbox.posted_bytes);
        if self.flags.dead { 0 } else { self.holding().total() + posted }
    }

    /// What is to be changed in the books; to be asked after everything that may change it.
    #[inline]
    pub(crate) fn settle(&mut self) -> Option<Change> {
        // Most hold nothing, now as before.
        if self.rare.is_none() && self.partial.is_none() && self.outbox.is_none() {
            return None;
        }
        self.settle_account()
    }

    fn settle_account(&mut self) -> Option<Change> {
        let after = self.holding();
        let Some(account) = self.rare.as_mut().and_then(|rare| rare.account.as_mut()) else {
            if after == Holding::NOTHING {
                return None;
            }
            self.rare.get_or_insert_default().account =
                Some(Box::new(Account { told: after, ..Account::default() }));
            return Some(Change { before: Holding::NOTHING, after });
        };
        let before = std::mem::replace(&mut account.told, after);
        let idle = after == Holding::NOTHING && account.untaken == 0;
        if idle {
            self.forget_rare(|rare| rare.account = None);
        }
        (before != after).then_some(Change { before, after })
    }

    /// Takes everything out of the books, at the end of the record.
    pub(crate) fn close_account(&mut self) -> Option<Change> {
        let account = self.rare.as_mut().and_then(|rare| rare.account.take())?;
        Some(Change { before: account.told, after: Holding::NOTHING })
    }

    /// A job takes along what the connection held of input, and its timers.
    #[inline]
    pub(crate) fn note_lent(&mut self, partial: Option<&BytesMut>, hand: &Hand) {
        let partial = partial.map_or(0, |bytes| match bytes.capacity() {
            0 => 0,
            capacity => capacity + size_of::<BytesMut>(),
        });
        let timers = hand.timers.as_ref().map_or(0, |timers| timers.held_bytes());
        if partial + timers > 0 {
            let account = self.rare.get_or_insert_default().account.get_or_insert_default();
            account.lent = Holding { partial, timers, output: 0 };
        }
    }

    /// The job is back with all that it took, and perhaps with the gate.
    #[inline]
    pub(super) fn take_back_lent(&mut self) {
        if let Some(account) = self.rare.as_mut().and_then(|rare| rare.account.as_mut()) {
            account.lent = Holding::NOTHING;
            let untaken = std::mem::take(&mut account.untaken);
            self.count_taken(untaken);
        }
    }

    /// Messages of other threads were taken, or dropped, that were counted for so much.
    pub(super) fn count_taken(&mut self, cost: usize) {
        match &self.gate {
            _ if cost == 0 => {}
            Some(gate) => gate.taken(cost),
            None => {
                self.rare.get_or_insert_default().account.get_or_insert_default().untaken += cost
            }
        }
    }

    /// What messages were counted for that nobody could be told of.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn untaken(&self) -> usize {
        self.rare().account.as_ref().map_or(0, |account| account.untaken)
    }

    /// Memory is short and it holds a lot: it is not read for a while. False if this is the one
    /// read that it was granted.
    pub(crate) fn throttle(&mut self) -> bool {
        let granted = self.flags.ration.0 & Ration::ONCE != 0;
        self.flags.ration.set(if granted { 0 } else { Ration::NONE });
        !granted
    }

    /// Whether it waits to be read again.
    #[inline]
    pub(crate) fn is_throttled(&self) -> bool {
        self.flags.ration.is_none()
    }

    /// Puts it into the list of those that wait; false if it stands there already.
    pub(crate) fn enlist(&mut self) -> bool {
        let before = self.flags.ration.0;
        self.flags.ration.0 |= Ration::ENLISTED;
        before & Ration::ENLISTED == 0
    }

    /// It was taken off that list.
    pub(crate) fn delist(&mut self) {
        self.flags.ration.0 &= !Ration::ENLISTED;
    }

    /// It is read again, because it holds less or memory is not short any more.
    pub(crate) fn read_on(&mut self, now: Time) {
        self.flags.ration.set(0);
        self.listen_again(now);
    }

    /// It has waited since then and may read once, whatever it holds, so that in the end every
    /// frame becomes whole. That time does not count against the peer, all else does.
    pub(crate) fn grant_read(&mut self, since: Time, now: Time) {
        self.flags.ration.set(Ration::ONCE);
        let waited = now.since(since);
        self.last_seen = (self.last_seen + waited).min(now);
        if self.frame_since != Time::NEVER {
            self.frame_since = (self.frame_since + waited).min(now);
        }
        self.flags.sooner = true;
    }

    /// Memory is so short that it has to go.
    pub(crate) fn evict(&mut self) {
        self.abort(Cause::OutOfMemory);
    }

    /// Its silence may count for more than it did when it was entered in the wheel.
    pub(crate) fn hurry(&mut self) {
        self.flags.sooner = true;
    }
}
