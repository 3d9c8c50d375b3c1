//! `Wheel`: the deadlines of all connections of a reactor; every operation takes constant time.

use std::fmt;
use std::num::NonZeroU32;

use slab::Slab;

use crate::words::clock::Time;
use crate::words::id::ConnId;

/// A hierarchical timing wheel (Varghese and Lauck, "Hashed and Hierarchical Timing Wheels", 1987).
///
/// Time is counted in ticks of a millisecond. A level has 64 slots, each a list of entries; a slot
/// of level `l` spans 64ˡ ticks. An entry stands at the level of the highest group of six bits in
/// which its tick differs from the present one, in the slot that this group names:
///
/// ```text
///  present tick   … 000001 000000 111110
///  entry          … 000001 000010 000101   differs at level 1: slot 2
/// ```
///
/// So all that a level holds is later than all that a lower level holds, and the next slot to
/// look at is the first occupied one of the lowest occupied level, found in a bitmap. When its time
/// comes, the entries of level 0 are due, those of a higher level move down: at most seven times
/// in the life of an entry, and not at all if it is cancelled or moved on before. Empty slots cost
/// nothing, however far the clock has jumped.
///
/// An entry takes 32 bytes, the wheel itself 2.4 KiB.
pub(crate) struct Wheel {
    entries: Slab<Entry>,
    /// The first entry of each slot: row 0 has a single slot, for what was overdue when it came;
    /// row `l + 1` is level `l`.
    heads: [[Option<TimerId>; SLOTS]; LEVELS + 1],
    /// Which slots of each row have entries.
    occupied: [u64; LEVELS + 1],
    /// The present tick: everything up to it has fired, but for what stands in row 0.
    elapsed: u64,
}

/// The place of one entry in its wheel; worth nothing once that entry has fired or is cancelled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct TimerId(NonZeroU32);

struct Entry {
    key: ConnId,
    tick: u64,
    prev: Option<TimerId>,
    next: Option<TimerId>,
}

impl Wheel {
    /// An empty wheel that stands at `now`.
    pub(crate) fn new(now: Time) -> Self {
        Wheel {
            entries: Slab::new(),
            heads: [[None; SLOTS]; LEVELS + 1],
            occupied: [0; LEVELS + 1],
            elapsed: now.as_nanos() / TICK_NANOS,
        }
    }

    /// Enters `key`, to be due as soon as the clock has reached `at`: never earlier, and later by
    /// less than a tick.
    pub(crate) fn schedule(&mut self, key: ConnId, at: Time) -> TimerId {
        let entry = Entry { key, tick: tick_not_before(at), prev: None, next: None };
        let id = TimerId::of_index(self.entries.insert(entry));
        self.link(id);
        id
    }

    /// Moves the entry that `schedule` entered for `key` to `at`. Answers `false` if there is no
    /// such entry any more: it has fired or was cancelled.
    pub(crate) fn reschedule(&mut self, id: TimerId, key: ConnId, at: Time) -> bool {
        if !self.holds(id, key) {
            return false;
        }
        self.unlink(id);
        self.entries[id.index()].tick = tick_not_before(at);
        self.link(id);
        true
    }

    /// Moves the entry that `schedule` entered for `key` to `at` if it would be due later.
    pub(crate) fn bring_forward(&mut self, id: TimerId, key: ConnId, at: Time) {
        if self.holds(id, key) && self.entries[id.index()].tick > tick_not_before(at) {
            self.reschedule(id, key, at);
        }
    }

    /// Removes the entry that `schedule` entered for `key`. Answers `false` if there is no such
    /// entry any more: it has fired or was cancelled.
    pub(crate) fn cancel(&mut self, id: TimerId, key: ConnId) -> bool {
        if !self.holds(id, key) {
            return false;
        }
        self.unlink(id);
        self.entries.remove(id.index());
        self.release_if_empty();
        true
    }

    /// Removes all entries that are due at `now` and appends their keys to `due`: overdue ones
    /// first, then tick by tick.
    ///
    /// The wheel's time does not run backwards: an earlier `now` than before counts as that.
    pub(crate) fn expire(&mut self, now: Time, due: &mut Vec<ConnId>) {
        let target = (now.as_nanos() / TICK_NANOS).max(self.elapsed);
        while let Some(first) = self.first_slot().filter(|first| first.start <= target) {
            self.elapsed = first.start;
            self.occupied[first.row] &= !(1 << first.slot);
            let mut next = self.heads[first.row][first.slot].take();
            while let Some(id) = next {
                let entry = &self.entries[id.index()];
                next = entry.next;
                if entry.tick <= self.elapsed {
                    due.push(self.entries.remove(id.index()).key);
                } else {
                    self.link(id);
                }
            }
        }
        self.elapsed = target;
        self.release_if_empty();
    }

    /// When to call [`Wheel::expire`] next: not after the first deadline, perhaps before it. Then
    /// nothing may be due, but entries move closer, so that the next answer is a later one.
    ///
    /// `None` if there is no entry, or none that a clock can reach.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let first = self.first_slot()?;
        first.start.checked_mul(TICK_NANOS).map(Time::from_nanos)
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The memory it keeps beyond its own size.
    pub(crate) fn retained_bytes(&self) -> usize {
        // Laid out like the slab's own: an entry or the number of the next free one.
        self.entries.capacity() * size_of::<Result<Entry, usize>>()
    }

    fn holds(&self, id: TimerId, key: ConnId) -> bool {
        self.entries.get(id.index()).is_some_and(|entry| entry.key == key)
    }

    /// The occupied slot whose time comes first.
    fn first_slot(&self) -> Option<Slot> {
        let row = self.occupied.iter().position(|&bits| bits != 0)?;
        let slot = self.occupied[row].trailing_zeros() as usize;
        let start = match row.checked_sub(1) {
            None => self.elapsed,
            Some(level) => {
                let shift = LEVEL_BITS * level;
                let above = shift + LEVEL_BITS;
                (self.elapsed >> above << above) | ((slot as u64) << shift)
            }
        };
        Some(Slot { row, slot, start })
    }

    /// Where an entry for `tick` stands. The answer for an entry in its place stays the same while
    /// time goes on, until that place is emptied: time never passes an occupied slot.
    fn place(&self, tick: u64) -> (usize, usize) {
        if tick <= self.elapsed {
            return (0, 0);
        }
        let level = (tick ^ self.elapsed).ilog2() as usize / LEVEL_BITS;
        let group = (tick >> (LEVEL_BITS * level)).to_le_bytes()[0];
        (level + 1, usize::from(group) % SLOTS)
    }

    fn link(&mut self, id: TimerId) {
        let (row, slot) = self.place(self.entries[id.index()].tick);
        let next = self.heads[row][slot].replace(id);
        let entry = &mut self.entries[id.index()];
        (entry.prev, entry.next) = (None, next);
        if let Some(next) = next {
            self.entries[next.index()].prev = Some(id);
        }
        self.occupied[row] |= 1 << slot;
    }

    fn unlink(&mut self, id: TimerId) {
        let &Entry { tick, prev, next, .. } = &self.entries[id.index()];
        if let Some(next) = next {
            self.entries[next.index()].prev = prev;
        }
        if let Some(prev) = prev {
            self.entries[prev.index()].next = next;
            return;
        }
        let (row, slot) = self.place(tick);
        debug_assert_eq!(self.heads[row][slot], Some(id));
        self.heads[row][slot] = next;
        if next.is_none() {
            self.occupied[row] &= !(1 << slot);
        }
    }

    fn release_if_empty(&mut self) {
        if self.entries.is_empty() && self.entries.capacity() > ENTRIES_KEPT_MAX {
            self.entries = Slab::new();
        }
    }
}

impl fmt::Debug for Wheel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("len", &self.len())
            .field("elapsed", &self.elapsed)
            .field("next_deadline", &self.next_deadline())
            .finish_non_exhaustive()
    }
}

impl TimerId {
    fn of_index(index: usize) -> Self {
        let number = u32::try_from(index + 1).ok().and_then(NonZeroU32::new);
        TimerId(number.expect("a reactor has one timer per connection, far below 2^32"))
    }

    fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// One slot and the tick at which it is to be emptied.
struct Slot {
    row: usize,
    slot: usize,
    start: u64,
}

/// The first tick at which the clock has reached `at`.
fn tick_not_before(at: Time) -> u64 {
    at.as_nanos().div_ceil(TICK_NANOS)
}

const TICK_NANOS: u64 = 1_000_000;
const LEVEL_BITS: usize = 6;
const SLOTS: usize = 1 << LEVEL_BITS;
/// Enough for every tick that a [`Time`] can name, so that there is no "beyond the wheel".
const LEVELS: usize = 8;
const _: () = assert!(u64::MAX.div_ceil(TICK_NANOS) >> (LEVEL_BITS * LEVELS) == 0);
/// An empty wheel gives its memory back if it has room for more entries than this.
const ENTRIES_KEPT_MAX: usize = 64;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use std::collections::{BTreeMap, BTreeSet};

    const MILLI: u64 = TICK_NANOS;
    const DAY: u64 = 86_400_000 * MILLI;

    /// What the wheel has to do, written as plainly as can be.
    #[derive(Default)]
    struct Model {
        seen: u64,
        ticks: BTreeMap<ConnId, u64>,
    }

    impl Model {
        fn expire(&mut self, now: Time) -> BTreeSet<ConnId> {
            self.seen = self.seen.max(now.as_nanos() / MILLI);
            let due = self.ticks.iter().filter(|&(_, &tick)| tick <= self.seen);
            let due: BTreeSet<_> = due.map(|(&key, _)| key).collect();
            self.ticks.retain(|_, &mut tick| tick > self.seen);
            due
        }
    }

    #[derive(Clone, Debug)]
    enum Op {
        Schedule(u64),
        Reschedule(Index, u64),
        Cancel(Index),
        Expire(u64),
        ExpireAtNextDeadline,
        ExpireInThePast(u64),
    }

    fn nanos() -> impl Strategy<Value = u64> {
        prop_oneof![
            Just(0),
            Just(1),
            Just(MILLI),
            0..3 * MILLI,
            0..100 * MILLI,
            0..10_000 * MILLI,
            0..400 * DAY,
            24 * DAY..26 * DAY,
            (0..u64::BITS).prop_flat_map(|bits| 0..=u64::MAX >> bits),
            Just(u64::MAX),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => nanos().prop_map(Op::Schedule),
            3 => (any::<Index>(), nanos()).prop_map(|(pick, after)| Op::Reschedule(pick, after)),
            2 => any::<Index>().prop_map(Op::Cancel),
            3 => nanos().prop_map(Op::Expire),
            3 => Just(Op::ExpireAtNextDeadline),
            1 => nanos().prop_map(Op::ExpireInThePast),
        ]
    }

    /// Expires and compares with the model: the same keys, in the order of their ticks.
    fn expire(
        wheel: &mut Wheel,
        model: &mut Model,
        ids: &mut BTreeMap<ConnId, TimerId>,
        now: Time,
    ) -> Result<(), TestCaseError> {
        let ticks = model.ticks.clone();
        let before = model.seen;
        let mut due = Vec::new();
        wheel.expire(now, &mut due);
        let order: Vec<_> = due.iter().map(|key| ticks[key].max(before)).collect();
        prop_assert!(order.is_sorted(), "ticks out of order: {:?}", order);
        prop_assert_eq!(due.iter().copied().collect::<BTreeSet<_>>().len(), due.len());
        prop_assert_eq!(due.iter().copied().collect::<BTreeSet<_>>(), model.expire(now));
        for key in due {
            let id = ids.remove(&key).expect("it was scheduled");
            prop_assert!(!wheel.cancel(id, key), "a fired entry is gone");
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 256 }))]
        #[test]
        fn behaves_as_a_sorted_map(
            start_ms in prop_oneof![
                Just(0u64), Just((1 << 32) - 5), Just((1 << 36) - 5), Just((1 << 42) - 5),
                0..1u64 << 44,
            ],
            offset_nanos in prop_oneof![Just(0u64), Just(7)],
            ops in vec(op(), 1..120),
        ) {
            let mut now = Time::from_nanos(start_ms * MILLI + offset_nanos);
            let mut wheel = Wheel::new(now);
            let mut model = Model { seen: start_ms, ..Model::default() };
            let mut ids: BTreeMap<ConnId, TimerId> = BTreeMap::new();
            let after =
                |now: Time, nanos: u64| Time::from_nanos(now.as_nanos().saturating_add(nanos));
            for (op, generation) in ops.into_iter().zip(0..) {
                let pick = |pick: Index| ids.iter().nth(pick.index(ids.len().max(1)));
                match op {
                    Op::Schedule(nanos) => {
                        let key = ConnId::new(0, 1, generation);
                        ids.insert(key, wheel.schedule(key, after(now, nanos)));
                        model.ticks.insert(key, tick_not_before(after(now, nanos)));
                    }
                    Op::Reschedule(index, nanos) => if let Some((&key, &id)) = pick(index) {
                        prop_assert!(wheel.reschedule(id, key, after(now, nanos)));
                        model.ticks.insert(key, tick_not_before(after(now, nanos)));
                    },
                    Op::Cancel(index) => if let Some((&key, &id)) = pick(index) {
                        prop_assert!(!wheel.cancel(id, ConnId::new(0, 2, 0)), "not its key");
                        prop_assert!(wheel.cancel(id, key));
                        prop_assert!(!wheel.reschedule(id, key, now));
                        model.ticks.remove(&key);
                        ids.remove(&key);
                    },
                    Op::Expire(nanos) => {
                        now = after(now, nanos);
                        expire(&mut wheel, &mut model, &mut ids, now)?;
                    }
                    Op::ExpireAtNextDeadline => if let Some(at) = wheel.next_deadline() {
                        now = now.max(at);
                        expire(&mut wheel, &mut model, &mut ids, now)?;
                        prop_assert!(wheel.next_deadline().is_none_or(|next| next > at));
                    },
                    Op::ExpireInThePast(nanos) => {
                        let past = Time::from_nanos(now.as_nanos().saturating_sub(nanos));
                        expire(&mut wheel, &mut model, &mut ids, past)?;
                    }
                }
                prop_assert_eq!(wheel.len(), model.ticks.len());
                prop_assert_eq!(wheel.is_empty(), model.ticks.is_empty());
                let first = model.ticks.values().min().map(|tick| (*tick).max(model.seen));
                if let Some(deadline) = wheel.next_deadline() {
                    let first = first.expect("a deadline without an entry");
                    prop_assert!(deadline.as_nanos() / MILLI <= first, "it would miss one");
                } else {
                    prop_assert!(first.is_none_or(|tick| tick.checked_mul(MILLI).is_none()));
                }
            }
            // What is left fires at its time, within a bounded number of steps.
            let steps_max = wheel.len() * (LEVELS + 1);
            for _ in 0..=steps_max {
                let Some(at) = wheel.next_deadline() else { break };
                expire(&mut wheel, &mut model, &mut ids, at)?;
            }
            prop_assert_eq!(wheel.next_deadline(), None);
        }
    }

    #[test]
    fn a_timer_is_never_early_and_less_than_a_tick_late() {
        for nanos in [0, 1, MILLI - 1, MILLI, MILLI + 1, 5 * MILLI - 1] {
            let mut wheel = Wheel::new(Time::ZERO);
            let key = ConnId::new(0, 0, 0);
            wheel.schedule(key, Time::from_nanos(nanos));
            let mut due = Vec::new();
            let exact = nanos.div_ceil(MILLI) * MILLI;
            if exact > 0 {
                wheel.expire(Time::from_nanos(exact - 1), &mut due);
                assert_eq!(due, []);
            }
            wheel.expire(Time::from_nanos(exact), &mut due);
            assert_eq!(due, [key]);
        }
    }

    #[test]
    fn time_does_not_run_backwards() {
        let mut wheel = Wheel::new(Time::ZERO);
        let mut due = Vec::new();
        wheel.expire(Time::from_nanos(10 * MILLI), &mut due);
        let key = ConnId::new(0, 0, 0);
        wheel.schedule(key, Time::from_nanos(5 * MILLI));
        assert_eq!(wheel.next_deadline(), Some(Time::from_nanos(10 * MILLI)));
        wheel.expire(Time::ZERO, &mut due);
        assert_eq!(due, [key]);
    }

    #[test]
    fn a_jump_over_all_time_visits_only_what_is_there() {
        let mut wheel = Wheel::new(Time::ZERO);
        let keys: Vec<_> = (0..1000).map(|slot| ConnId::new(0, slot, 1)).collect();
        for (&key, number) in keys.iter().zip(0..) {
            wheel.schedule(key, Time::from_nanos(number * 7_777_777_777_777_777));
        }
        let mut due = Vec::new();
        wheel.expire(Time::from_nanos(u64::MAX - 1), &mut due);
        assert_eq!(due, keys);
    }

    #[test]
    fn memory_goes_back_when_it_is_empty() {
        let mut wheel = Wheel::new(Time::ZERO);
        let keys: Vec<_> = (0..1000).map(|slot| ConnId::new(0, slot, 1)).collect();
        for _ in 0..2 {
            let ids: Vec<_> = keys.iter().map(|&key| wheel.schedule(key, Time::ZERO)).collect();
            assert!(wheel.retained_bytes() >= 1000 * size_of::<Entry>());
            keys.iter().zip(ids).for_each(|(&key, id)| assert!(wheel.cancel(id, key)));
            assert_eq!(wheel.retained_bytes(), 0);
            for &key in &keys {
                wheel.schedule(key, Time::ZERO);
            }
            wheel.expire(Time::ZERO, &mut Vec::new());
            assert_eq!(wheel.retained_bytes(), 0);
        }
    }

    #[test]
    fn it_is_as_small_as_its_text_says() {
        let entry_bytes = if cfg!(target_pointer_width = "64") { 32 } else { 28 };
        assert!(size_of::<Result<Entry, usize>>() <= entry_bytes);
        assert_eq!(size_of::<Option<TimerId>>(), 4);
        assert!(size_of::<Wheel>() < 2458);
    }
}
