//! `Budget`: the books of one reactor about memory, and what is given up when that is short.
//!
//! ```text
//!  a record changes ─▶ settle ─▶ books ─▶ Meter ─▶ Grade ─┬─ at once: who holds much is not read,
//!  other reactors ─── Desk::used ──────▶                  │           nobody is accepted
//!                                                         └─ next turn: pool, idle timeouts,
//!                                                                       eviction
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use super::stream::{Io, May};
use super::{Entry, Reactor};
use crate::core::conn::Holding;
use crate::core::job::Call;
use crate::core::limits::{Grade, Meter, Shortage, crowding};
use crate::engine::common::OnShortage;
use crate::engine::counters::MemorySnapshot;
use crate::sys::Kernel;
use crate::words::clock::Time;
use crate::words::config::Evict;
use crate::words::id::ConnId;
use crate::words::pressure::Pressure;
use crate::words::sync::Arc;

/// What a reactor knows of memory: its own, and that of all others.
#[derive(Debug)]
pub(super) struct Budget {
    /// The reactor's number.
    index: usize,
    meter: Meter,
    /// The sums of what its connections hold.
    books: Holding,
    /// The memory of the table, as of the last change of that.
    records: usize,
    /// What the others have told.
    elsewhere: usize,
    /// What this one has told the others.
    told: usize,
    /// When it asks them again, though little has changed here.
    ask_at: Time,
    /// What each connection of the server may hold before it is one of the heavy ones.
    share: usize,
    /// How crowded the server is.
    crowding: Pressure,
    /// The grade and the pressure that the others were told of and that was acted upon.
    heeded: (Grade, Pressure),
    /// More is to be heeded, in the next turn.
    again: bool,
    /// Idle timeouts have become shorter: the slot to go on at.
    walk: Option<usize>,
    /// Those that are not read for a while, and since when.
    throttled: VecDeque<(ConnId, Time)>,
    /// When the next of them is granted a read.
    sip_at: Time,
    sweep: Sweep,
}

/// A search for the heaviest connection, some slots at a time.
#[derive(Debug, Default)]
struct Sweep {
    slot: usize,
    best: Option<(ConnId, usize)>,
    /// It may find somebody in the next turn.
    goes_on: bool,
}

/// How often heavy connections that are not read are granted a read.
const SIP: Duration = Duration::from_millis(250);
/// How often a reactor looks for itself whether memory was freed that it waits for.
const WATCH: Duration = Duration::from_millis(50);
/// How often a reactor that turns asks the others: their numbers lie in as many cache lines.
const ASK: Duration = Duration::from_millis(1);
/// Slots that one turn looks at.
const SLOTS_PER_TURN: usize = 1024;
/// The others are told of every change that is more than such a part of all memory.
const TOLD_PART: usize = 1024;

impl Budget {
    pub(super) fn new(index: usize, max: usize) -> Self {
        Budget {
            index,
            meter: Meter::new(max),
            books: Holding::default(),
            records: 0,
            elsewhere: 0,
            told: 0,
            ask_at: Time::ZERO,
            share: max,
            crowding: Pressure::Calm,
            heeded: (Grade::Calm, Pressure::Calm),
            again: false,
            walk: None,
            throttled: VecDeque::new(),
            sip_at: Time::ZERO,
            sweep: Sweep::default(),
        }
    }

    pub(super) fn grade(&self) -> Grade {
        self.meter.grade()
    }

    /// Whether nobody is accepted now.
    pub(super) fn refuses(&self) -> bool {
        self.grade() >= Grade::Refuse
    }

    /// The table has changed its size.
    pub(super) fn note_records(&mut self, bytes: usize) {
        self.records = bytes;
    }

    /// Another reactor says that memory or room for connections has become shorter.
    pub(super) fn ask_soon(&mut self) {
        self.ask_at = Time::ZERO;
    }

    /// Enters a change of one connection.
    pub(super) fn enter(&mut self, change: &crate::core::conn::Change) {
        self.books.apply(change);
    }

    /// The grade, and the pressure that follows from it and from the crowd.
    fn level(&self) -> (Grade, Pressure) {
        (self.grade(), self.grade().pressure().max(self.crowding))
    }

    /// When it wants a turn although nothing has happened.
    fn look_at(&self, now: Time, shut: bool) -> Option<Time> {
        if self.again || self.walk.is_some() || self.sweep.goes_on {
            return Some(now);
        }
        let watches = shut || !self.throttled.is_empty() || self.grade() == Grade::Evict;
        watches.then(|| {
            if self.throttled.is_empty() { now + WATCH } else { self.sip_at.min(now + WATCH) }
        })
    }
}

impl<K: Kernel> Io<K> {
    /// All memory of this reactor's connections.
    pub(super) fn used(&self) -> usize {
        let budget = &self.budget;
        let posted = self.common.desks().get(budget.index).map_or(0, |desk| desk.posted());
        posted
            + budget.records
            + self.wheel.retained_bytes()
            + self.pool.held_bytes()
            + budget.books.total()
    }

    /// Enters in the books what has become of a connection. Above the ceiling, or if it is one of
    /// the heavy ones above the maximum, it goes: then there is no time to look for a heavier one.
    #[inline]
    pub(super) fn settle(&mut self, id: ConnId, entry: &mut Entry<K>) {
        let Some(change) = entry.conn.settle() else { return };
        self.budget.enter(&change);
        if change.is_growth() {
            self.weigh(id, entry);
        } else if entry.conn.is_throttled() && entry.conn.weight() <= self.budget.share / 2 {
            entry.conn.read_on(self.now);
            self.enqueue(id, entry);
        }
    }

    fn weigh(&mut self, id: ConnId, entry: &mut Entry<K>) {
        let total = self.measure();
        let Budget { meter, share, .. } = &self.budget;
        let over = total > meter.ceiling() || (total > meter.max() && entry.conn.weight() > *share);
        if over && self.common.limits.evict == Evict::Heaviest && entry.conn.weight() > 0 {
            self.evict(id, entry);
        }
    }

    /// Resets a connection and frees what it holds at once; the record goes at the end of the turn.
    fn evict(&mut self, id: ConnId, entry: &mut Entry<K>) {
        debug_assert_eq!(self.budget.grade(), Grade::Evict, "evicted for nothing");
        entry.conn.evict();
        if let Some(change) = entry.conn.settle() {
            self.budget.enter(&change);
        }
        self.doomed.push(id);
        self.measure();
    }

    /// Takes the grade from what all reactors use, which it answers; tells the others, and asks
    /// them, if much has changed here.
    fn measure(&mut self) -> usize {
        let used = self.used();
        let part = (self.budget.meter.max() / TOLD_PART).max(1);
        if used.abs_diff(self.budget.told) >= part {
            self.exchange(used);
        }
        let total = used + self.budget.elsewhere;
        let before = self.budget.grade();
        if self.budget.meter.observe(total) {
            let (from, to) = (before.number().into(), self.budget.grade().number().into());
            self.counters.grades.iter_mut().take(to).skip(from).for_each(|count| *count += 1);
        }
        total
    }

    /// Tells the others what is used here, and takes in what they have told.
    fn exchange(&mut self, used: usize) {
        let index = self.budget.index;
        let desks = self.common.desks();
        desks[index].publish_used(used);
        let others = desks.iter().enumerate().filter(|&(other, _)| other != index);
        let others: usize = others.map(|(_, desk)| desk.used()).sum();
        self.budget.told = used;
        self.budget.ask_at = self.now + ASK;
        self.budget.elsewhere = others;
        let count = self.common.admission.count();
        self.budget.share = self.budget.meter.share(count);
        let max = self.common.limits.connections_max;
        self.budget.crowding = crowding(self.budget.crowding, count, max);
    }

    /// Whether a connection that would be read now has to wait because it holds so much.
    #[inline]
    pub(super) fn throttles(&mut self, id: ConnId, entry: &mut Entry<K>) -> bool {
        let short = self.budget.grade() >= Grade::Pause;
        let heavy = short && entry.conn.weight() > self.budget.share / 2;
        if !heavy || !entry.conn.throttle() {
            return false;
        }
        self.counters.throttled += 1;
        if entry.conn.enlist() {
            self.budget.throttled.push_back((id, self.now));
        }
        true
    }
}

impl<K: Kernel> Reactor<K> {
    /// Looks how short memory and room for connections are, and does what follows from it: once a
    /// turn, a bounded number of records each time.
    pub(super) fn heed_pressure(&mut self) {
        self.io.budget.records = self.table.retained_bytes();
        self.io.budget.again = false;
        if self.io.budget.ask_at <= self.io.now {
            let used = self.io.used();
            self.io.exchange(used);
        }
        self.io.measure();
        let limits = &self.io.common.limits;
        let budget = &mut self.io.budget;
        let (grade, pressure) = budget.level();
        let (before, eased) = std::mem::replace(&mut budget.heeded, (grade, pressure));
        if grade == Grade::Calm && before > Grade::Calm {
            self.io.pool.keep(limits.pool_retained_max);
        } else if grade > Grade::Calm {
            self.io.pool.keep(0);
        }
        if pressure > eased {
            self.io.budget.walk = Some(0);
        }
        self.io.pressure = pressure;
        if (grade, pressure) != (before, eased) {
            self.io.exchange(self.io.used());
            self.io.common.tell_pressure(self.port.index(), grade, pressure);
            // Who has risen meanwhile may have taken this one for as high as it was before: so it
            // asks once more, now that it says how low it is.
            self.io.exchange(self.io.used());
            self.io.measure();
            let (higher, shorter) = self.io.budget.level();
            self.io.budget.again = higher > grade || shorter > pressure;
        }
        if grade != before {
            self.tell_shortage(before, grade);
        }
        self.desk.set_full(grade == Grade::Evict);
        self.shorten_silence();
        self.read_on();
        self.sweep();
    }

    /// Has those told who want to know. All reactors reckon with the same sum: the first one
    /// speaks.
    fn tell_shortage(&mut self, before: Grade, grade: Grade) {
        let common = &self.io.common;
        let Some(OnShortage(tell)) = &common.on_shortage else { return };
        if self.port.index() == 0 {
            let (tell, before, grade) = (Arc::clone(tell), before.number(), grade.number());
            let used_bytes = common.desks().iter().map(|desk| desk.used()).sum();
            let max_bytes = common.limits.memory_max;
            let news = Shortage { grade, before, used_bytes, max_bytes };
            self.dials.push_call(Call::new(move || tell(&news)));
        }
    }

    /// When it wants to look again although nothing has happened.
    pub(super) fn pressure_at(&self) -> Option<Time> {
        let shut = self.doors.iter().any(super::Door::waits_for_memory);
        self.io.budget.look_at(self.io.now, shut)
    }

    /// Enters the shorter idle timeouts in the wheel.
    fn shorten_silence(&mut self) {
        let Some(first) = self.io.budget.walk else { return };
        let end = self.table.slots_end().min(first + SLOTS_PER_TURN);
        for slot in first..end {
            if let Some((id, entry)) = self.table.at_slot(slot) {
                entry.conn.hurry();
                self.io.arm(id, entry);
            }
        }
        self.io.budget.walk = (end < self.table.slots_end()).then_some(end);
    }

    /// Goes on reading those that have waited: all if memory is not short any more, else as many as
    /// there is room for, but one at least, so that in the end every frame becomes whole.
    fn read_on(&mut self) {
        let budget = &self.io.budget;
        let eased = budget.grade() < Grade::Pause;
        if budget.throttled.is_empty() || (!eased && budget.sip_at > self.io.now) {
            return;
        }
        let room = budget.meter.room(self.io.used() + budget.elsewhere);
        let chunk = self.io.common.limits.read_chunk_bytes;
        let sips = if eased { SLOTS_PER_TURN } else { (room / 2 / chunk).max(1) };
        self.io.budget.sip_at = self.io.now + SIP;
        for _ in 0..sips.min(SLOTS_PER_TURN) {
            let Some((id, since)) = self.io.budget.throttled.pop_front() else { break };
            if !self.table.contains(id) {
                continue;
            }
            let Some(entry) = self.table.get_mut(id) else { continue };
            entry.conn.delist();
            if entry.conn.is_throttled() {
                match eased {
                    true => entry.conn.read_on(self.io.now),
                    false => entry.conn.grant_read(since, self.io.now),
                }
                self.io.advance(id, entry, May::Queue);
            }
        }
        if self.io.budget.throttled.is_empty() {
            self.io.budget.throttled = VecDeque::new();
        }
    }

    /// Looks for the heaviest connection and ends it, and the next one, until memory is less short.
    fn sweep(&mut self) {
        self.io.budget.sweep.goes_on = false;
        for _ in 0..SLOTS_PER_TURN {
            if self.io.budget.grade() < Grade::Evict || !limits_evict(&self.io) {
                self.io.budget.sweep = Sweep::default();
                return;
            }
            let sweep = &mut self.io.budget.sweep;
            if let Some((id, entry)) = self.table.at_slot(sweep.slot) {
                let weight = entry.conn.weight();
                if weight > sweep.best.map_or(self.io.budget.share / 2, |(_, best)| best) {
                    sweep.best = Some((id, weight));
                }
            }
            sweep.slot += 1;
            if sweep.slot < self.table.slots_end() {
                continue;
            }
            let Some((id, _)) = std::mem::take(sweep).best else { return };
            // It may have gone since it was seen.
            if self.table.contains(id) {
                let Some(entry) = self.table.get_mut(id) else { continue };
                if entry.conn.weight() > 0 {
                    self.io.evict(id, entry);
                }
            }
        }
        self.io.budget.sweep.goes_on = true;
    }

    /// What its connections use of memory.
    pub(super) fn memory(&self) -> MemorySnapshot {
        let Holding { partial, output, timers } = self.io.budget.books;
        let mut memory = MemorySnapshot {
            records: self.table.retained_bytes(),
            buffers: self.io.pool.held_bytes(),
            partial_frames: partial,
            output,
            mailboxes: self.desk.posted(),
            timers: timers + self.io.wheel.retained_bytes(),
            ..MemorySnapshot::default()
        };
        memory.total = memory.sum();
        memory.max = self.io.budget.meter.max();
        memory.grade = usize::from(self.io.budget.grade().number());
        let grades = Grade::LABELS.iter().copied().zip(self.io.counters.grades);
        memory.reached = grades.filter(|&(_, count)| count > 0).collect();
        memory.throttled = self.io.budget.throttled.len();
        memory.pauses = self.io.counters.throttled;
        memory
    }

    /// What its connections use of memory, messages for them and read buffers aside.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn memory_used(&self) -> usize {
        self.io.used() - self.io.pool.held_bytes() - self.desk.posted()
    }

    /// Compares the books with what is there.
    ///
    /// # Errors
    /// If they differ, with both.
    pub(crate) fn audit(&self) -> Result<(), String> {
        let mut counted = Holding::default();
        for (_, entry) in self.table.iter() {
            counted.add(&entry.conn.holding());
        }
        let books = self.io.budget.books;
        if books == counted {
            return Ok(());
        }
        Err(format!("the books say {books:?} of memory, but there are {counted:?}"))
    }

    /// Compares the books with what is there, as often as it costs little.
    pub(super) fn audit_at_times(&self) {
        if cfg!(debug_assertions) && (self.table.len() < 64 || self.io.counters.turns % 64 == 0) {
            debug_assert_eq!(self.audit(), Ok(()));
        }
    }
}

/// Whether connections are ended for what they hold.
fn limits_evict<K: Kernel>(io: &Io<K>) -> bool {
    io.common.limits.evict == Evict::Heaviest
}
