//! `Fans`: the groups that have members in this reactor, and how what they are told gets to each.
//!
//! ```text
//!  shots  ─ ─ 7 6 │ 5 4 3 │         those that are there when a sweep begins go together
//!                 └ sweep ┘
//!  members  a b c d │ e f g h       each of whom gets all of a sweep in one write
//!            done  cursor  to do
//! ```
//!
//! A turn serves a bounded number of members; the next one goes on where it stopped. No user code
//! runs here, and none is waited for: a member may be in a job meanwhile.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, IoSlice};
use std::sync::atomic::Ordering::Relaxed;

use slab::Slab;

use super::stream::{Io, May};
use super::{Entry, Reactor};
use crate::core::group::Seat;
use crate::parts::pending::Shot;
use crate::parts::table::Table;
use crate::sys::Kernel;
use crate::words::id::ConnId;
use crate::words::reason::Cause;
use crate::words::sync::Arc;

/// The groups of one reactor.
#[derive(Debug, Default)]
pub(super) struct Fans {
    fans: Slab<Fan>,
    /// By the key of the seat.
    numbers: HashMap<usize, u32>,
    /// Those that have something to tell, each once.
    active: VecDeque<u32>,
}

/// One group in one reactor; there is one while it has members here.
#[derive(Debug)]
struct Fan {
    seat: Arc<Seat>,
    members: Vec<Member>,
    /// What its members are to be told, oldest first.
    shots: VecDeque<Shot>,
    /// The number of the next one that comes.
    next: u64,
    sweep: Option<Sweep>,
    /// It stands among the active ones.
    is_active: bool,
}

/// One member.
#[derive(Clone, Copy, Debug)]
struct Member {
    id: ConnId,
    /// The number of the first message that came after it had joined.
    since: u64,
}

/// Messages on their way to each member.
#[derive(Debug)]
struct Sweep {
    shots: Vec<Shot>,
    /// All of them, one behind the other; empty if there is one only.
    joined: Vec<u8>,
    /// The number of the first.
    first: u64,
    /// The next member to be served.
    cursor: usize,
}

/// What one member is told.
struct Told<'a> {
    number: u32,
    sweep: &'a Sweep,
    /// The last ones of the sweep; all, but for those who joined late.
    shots: &'a [Shot],
}

/// Messages of one sweep, and what they are together: what one write takes anyway.
const SWEEP_COUNT: usize = 1_024;
const SWEEP_BYTES: usize = 64 << 10;

impl Fans {
    /// Whether a member is still to be told something.
    pub(super) fn are_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// The group of this seat, which may be a new one here.
    fn number(&mut self, seat: &Arc<Seat>) -> u32 {
        let fans = &mut self.fans;
        *self.numbers.entry(seat.key()).or_insert_with(|| {
            let seat = Arc::clone(seat);
            let (members, shots) = (Vec::new(), VecDeque::new());
            let fan = Fan { seat, members, shots, next: 0, sweep: None, is_active: false };
            u32::try_from(fans.insert(fan)).expect("fewer groups than 2^32 have members")
        })
    }

    /// Something is to be told; it is given up if nobody is here to hear it.
    pub(super) fn receive(&mut self, seat: &Arc<Seat>, shot: Shot) {
        let Some(&number) = self.numbers.get(&seat.key()) else { return seat.taken(&shot) };
        let fan = &mut self.fans[number as usize];
        fan.shots.push_back(shot);
        fan.next += 1;
        if !std::mem::replace(&mut fan.is_active, true) {
            self.active.push_back(number);
        }
    }

    /// The connection is a member from now on, if it is not yet, and has not begun to end.
    pub(super) fn join<K: Kernel>(
        &mut self,
        id: ConnId,
        seat: Arc<Seat>,
        table: &mut Table<Entry<K>>,
    ) {
        let entry = table.get_mut(id).filter(|entry| entry.conn.takes_broadcasts());
        let Some(entry) = entry else { return seat.release() };
        let number = self.number(&seat);
        if entry.conn.is_member(number) {
            return seat.release();
        }
        let fan = &mut self.fans[number as usize];
        let place = u32::try_from(fan.members.len()).expect("a slot has 24 bits");
        fan.members.push(Member { id, since: fan.next });
        seat.hub.members.fetch_add(1, Relaxed);
        entry.conn.join(number, place, seat);
    }

    /// The connection is a member no longer.
    pub(super) fn leave<K: Kernel>(
        &mut self,
        id: ConnId,
        seat: &Arc<Seat>,
        table: &mut Table<Entry<K>>,
    ) {
        if let Some(&number) = self.numbers.get(&seat.key()) {
            self.part(number, id, table);
        }
    }

    /// The connection is a member of nothing any more.
    pub(super) fn leave_all<K: Kernel>(&mut self, id: ConnId, table: &mut Table<Entry<K>>) {
        while let Some(number) = table.get(id).and_then(|entry| entry.conn.any_group()) {
            self.part(number, id, table);
        }
    }

    fn part<K: Kernel>(&mut self, number: u32, id: ConnId, table: &mut Table<Entry<K>>) {
        let Some(place) = table.get_mut(id).and_then(|entry| entry.conn.leave(number)) else {
            return;
        };
        let fan = &mut self.fans[number as usize];
        fan.remove(place as usize, |moved, to| {
            if let (Some(entry), Ok(to)) = (table.get_mut(moved), u32::try_from(to)) {
                entry.conn.move_member(number, to);
            }
        });
        fan.seat.hub.members.fetch_sub(1, Relaxed);
        fan.seat.release();
        if fan.members.is_empty() {
            self.remove(number);
        }
    }

    /// A group has no members here any more.
    fn remove(&mut self, number: u32) {
        let mut fan = self.fans.remove(number as usize);
        self.numbers.remove(&fan.seat.key());
        self.active.retain(|&active| active != number);
        let sweep = fan.sweep.take().into_iter().flat_map(|sweep| sweep.shots);
        sweep.chain(fan.shots).for_each(|shot| fan.seat.taken(&shot));
    }
}

impl Fan {
    /// Takes the member at `place` away. The hole goes to the end, by way of the cursor, so that
    /// nobody comes to stand among those who are done who is not; `moved` is told who moves where.
    fn remove(&mut self, place: usize, mut moved: impl FnMut(ConnId, usize)) {
        let mut hole = place;
        let mut fill = |members: &mut Vec<Member>, hole: usize, from: usize| {
            if hole != from {
                members[hole] = members[from];
                moved(members[hole].id, hole);
            }
        };
        let is_done = |sweep: &&mut Sweep| {
            place < sweep.cursor && !cfg!(switchboard_sim_mutant = "sweep_skips")
        };
        if let Some(sweep) = self.sweep.as_mut().filter(is_done) {
            sweep.cursor -= 1;
            fill(&mut self.members, hole, sweep.cursor);
            hole = sweep.cursor;
        }
        let last = self.members.len() - 1;
        fill(&mut self.members, hole, last);
        self.members.pop();
    }

    /// The messages that are there begin their way, if none are on it. False if there are none.
    fn begin_sweep(&mut self) -> bool {
        if self.sweep.is_some() {
            return true;
        }
        let first = self.next - self.shots.len() as u64;
        let mut bytes = 0;
        let fits = |shot: &&Shot| {
            bytes += shot.bytes.len();
            bytes <= SWEEP_BYTES
        };
        let count = self.shots.iter().take(SWEEP_COUNT).take_while(fits).count();
        let count = count.max(1).min(self.shots.len());
        if count == 0 {
            return false;
        }
        let shots: Vec<Shot> = self.shots.drain(..count).collect();
        let mut joined = Vec::new();
        if shots.len() > 1 {
            joined.reserve_exact(shots.iter().map(|shot| shot.bytes.len()).sum());
            shots.iter().for_each(|shot| joined.extend_from_slice(&shot.bytes));
        }
        self.sweep = Some(Sweep { shots, joined, first, cursor: 0 });
        true
    }

    /// All members have been told.
    fn end_sweep(&mut self) {
        let Some(sweep) = self.sweep.take() else { return };
        sweep.shots.iter().for_each(|shot| self.seat.taken(shot));
        if self.shots.is_empty() {
            // A burst that is over keeps no memory.
            self.shots = VecDeque::new();
        }
    }
}

impl Sweep {
    /// Those among its messages that a member gets: from number `since` on.
    fn for_member(&self, since: u64) -> &[Shot] {
        let late = usize::try_from(since.saturating_sub(self.first)).unwrap_or(usize::MAX);
        &self.shots[late.min(self.shots.len())..]
    }

    /// All of these in one piece, which are the last ones.
    fn piece<'a>(&'a self, shots: &'a [Shot]) -> &'a [u8] {
        if let [shot] = shots {
            return &shot.bytes;
        }
        let before = &self.shots[..self.shots.len() - shots.len()];
        &self.joined[before.iter().map(|shot| shot.bytes.len()).sum()..]
    }
}

impl<K: Kernel> Reactor<K> {
    /// Tells some members what their groups are told; each group in its turn.
    pub(super) fn fan_out(&mut self) {
        let mut budget = self.io.common.limits.broadcasts_per_turn;
        while budget > 0 {
            let Some(number) = self.fans.active.pop_front() else { return };
            budget -= self.advance_fan(number, budget);
            // It may have lost its last member, and its number with it.
            let Some(fan) = self.fans.fans.get_mut(number as usize) else { continue };
            fan.is_active = fan.sweep.is_some() || !fan.shots.is_empty();
            if fan.is_active {
                self.fans.active.push_back(number);
            }
        }
    }

    /// Goes on with the sweep of one group, or begins one. Says how many members it has served, at
    /// most `budget`.
    fn advance_fan(&mut self, number: u32, budget: usize) -> usize {
        let Some(fan) = self.fans.fans.get_mut(number as usize) else { return 0 };
        if !fan.begin_sweep() {
            return 0;
        }
        let (mut served, mut delivered) = (0, 0);
        let seat = Arc::clone(&fan.seat);
        while served < budget {
            let Some(fan) = self.fans.fans.get_mut(number as usize) else { break };
            let Some(sweep) = &mut fan.sweep else { break };
            let Some(&Member { id, since }) = fan.members.get(sweep.cursor) else {
                fan.end_sweep();
                break;
            };
            served += 1;
            sweep.cursor += 1;
            let shots = sweep.for_member(since);
            let Some(entry) = self.table.get_mut(id) else { continue };
            if entry.conn.takes_broadcasts() {
                let told = Told { number, sweep, shots };
                delivered += self.io.tell(id, entry, &seat, told);
            } else {
                self.fans.part(number, id, &mut self.table);
            }
        }
        seat.hub.delivered.fetch_add(delivered, Relaxed);
        self.io.counters.broadcasts += delivered;
        served.max(1)
    }
}

impl<K: Kernel> Io<K> {
    /// Tells one member: at once if nothing waits before it. How many messages were taken whole,
    /// or at least begun.
    fn tell(&mut self, id: ConnId, entry: &mut Entry<K>, seat: &Seat, told: Told<'_>) -> u64 {
        let Told { number, sweep, shots } = told;
        if shots.is_empty() {
            return 0;
        }
        let through = entry.conn.writes_through() || cfg!(switchboard_sim_mutant = "fan_cuts_in");
        let piece = sweep.piece(shots);
        let taken = match entry.stream.as_mut().filter(|_| through) {
            None => 0,
            Some(stream) => match self.kernel.write(stream, &[IoSlice::new(piece)]) {
                Ok(count) => {
                    self.counters.sent_bytes += count as u64;
                    entry.conn.note_sent(self.now, self.rules(entry.door));
                    count
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => {
                    seat.hub.abandoned.fetch_add(shots.len() as u64, Relaxed);
                    entry.conn.die(Cause::of_io(&error));
                    self.advance(id, entry, May::Queue);
                    return 0;
                }
            },
        };
        if taken == piece.len() {
            return shots.len() as u64;
        }
        let begun = entry.conn.handle_told(number, shots, taken);
        self.advance(id, entry, May::Queue);
        begun as u64
    }
}

#[cfg(test)]
mod tests;
