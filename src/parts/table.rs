//! `Table`: the records of one reactor, found by ids that a later record never answers to.

use std::cell::Cell;

use slab::Slab;

use crate::words::id::{ConnId, SLOTS_MAX, TOKEN_SLOTS_MAX, Token};

/// Records in slots that are used again, each with the generation that its id names.
///
/// The generation is the table's count of insertions, so a free slot needs no memory, and a slot
/// that was given back to the system and made again still gets names that nobody holds.
#[derive(Debug)]
pub(crate) struct Table<T> {
    slots: Slab<Slot<T>>,
    reactor: usize,
    /// Goes round after 2³² insertions.
    next_generation: u32,
    /// Lookups that met a free slot or another generation; a cell, since a lookup changes nothing.
    stale: Cell<u64>,
    /// All slots from here on are free.
    vacant_from: usize,
}

/// The table has as many records as ids can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    record: T,
}

impl<T> Table<T> {
    /// An empty table without memory, whose ids name the reactor `reactor`.
    pub(crate) fn new(reactor: usize) -> Self {
        Table {
            slots: Slab::new(),
            reactor,
            next_generation: 0,
            stale: Cell::new(0),
            vacant_from: 0,
        }
    }

    /// Makes a record under a new id, which `make` is told.
    ///
    /// # Errors
    /// [`Full`] if no slot is left; `make` is not called then.
    pub(crate) fn insert_with(&mut self, make: impl FnOnce(ConnId) -> T) -> Result<ConnId, Full> {
        let entry = self.slots.vacant_entry();
        let slot = entry.key();
        if slot >= COUNT_MAX {
            return Err(Full);
        }
        let generation = self.next_generation;
        self.next_generation = generation.wrapping_add(1);
        let id = ConnId::new(self.reactor, slot, generation);
        entry.insert(Slot { generation, record: make(id) });
        self.vacant_from = self.vacant_from.max(slot + 1);
        Ok(id)
    }

    /// The record `id` names, if it is still there.
    pub(crate) fn get(&self, id: ConnId) -> Option<&T> {
        let slot = self.slots.get(id.slot()).filter(|slot| self.is_named(slot, id));
        self.count_stale(slot.is_none());
        slot.map(|slot| &slot.record)
    }

    /// The record `id` names, if it is still there.
    pub(crate) fn get_mut(&mut self, id: ConnId) -> Option<&mut T> {
        if !self.contains(id) {
            self.count_stale(true);
            return None;
        }
        self.slots.get_mut(id.slot()).map(|slot| &mut slot.record)
    }

    /// Takes out the record `id` names, if it is still there.
    pub(crate) fn remove(&mut self, id: ConnId) -> Option<T> {
        if !self.contains(id) {
            self.count_stale(true);
            return None;
        }
        self.slots.try_remove(id.slot()).map(|slot| slot.record)
    }

    /// Whether `id` names a record; not counted, whatever the answer.
    pub(crate) fn contains(&self, id: ConnId) -> bool {
        self.slots.get(id.slot()).is_some_and(|slot| self.is_named(slot, id))
    }

    /// The word under which the poll is to watch `id`.
    pub(crate) fn token(&self, id: ConnId) -> usize {
        debug_assert_eq!(id.reactor(), self.reactor);
        Token::of(id).pack()
    }

    /// The record that is watched under `token`, with its id, if it is still there.
    pub(crate) fn get_by_token(&mut self, token: usize) -> Option<(ConnId, &mut T)> {
        let id = self.id_by_token(token);
        self.count_stale(id.is_none());
        let id = id?;
        self.slots.get_mut(id.slot()).map(|slot| (id, &mut slot.record))
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether there is no record.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// A lookup has met no record.
    pub(crate) fn note_stale(&self) {
        self.count_stale(true);
    }

    /// How many lookups met no record, or a later one than they named.
    pub(crate) fn stale_count(&self) -> u64 {
        self.stale.get()
    }

    /// The ids of all records, in the order of their slots.
    pub(crate) fn ids(&self) -> impl Iterator<Item = ConnId> {
        let named = |(slot, held): (usize, &Slot<T>)| (slot, held.generation);
        let reactor = self.reactor;
        self.slots
            .iter()
            .map(named)
            .map(move |(slot, generation)| ConnId::new(reactor, slot, generation))
    }

    /// All records with their ids, in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ConnId, &T)> {
        let reactor = self.reactor;
        self.slots
            .iter()
            .map(move |(slot, held)| (ConnId::new(reactor, slot, held.generation), &held.record))
    }

    /// The records in `count` slots from `from` on, around the end, each at most once.
    pub(crate) fn window(&self, from: usize, count: usize) -> impl Iterator<Item = (ConnId, &T)> {
        let (reactor, all) = (self.reactor, self.vacant_from);
        (0..count.min(all)).filter_map(move |step| {
            let slot = (from + step) % all;
            let held = self.slots.get(slot)?;
            Some((ConnId::new(reactor, slot, held.generation), &held.record))
        })
    }

    /// Where the window after that one begins.
    pub(crate) fn after_window(&self, from: usize, count: usize) -> usize {
        (from + count.min(self.vacant_from)) % self.vacant_from.max(1)
    }

    /// All records with their ids, in the order of their slots.
    #[cfg(test)]
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ConnId, &mut T)> {
        let reactor = self.reactor;
        self.slots.iter_mut().map(move |(slot, held)| {
            (ConnId::new(reactor, slot, held.generation), &mut held.record)
        })
    }

    /// The slots that have or had a record end before this one.
    pub(crate) fn slots_end(&self) -> usize {
        self.vacant_from
    }

    /// The record in a slot, with its id: for walks over the table that pause in between.
    pub(crate) fn at_slot(&mut self, slot: usize) -> Option<(ConnId, &mut T)> {
        let reactor = self.reactor;
        let held = self.slots.get_mut(slot)?;
        Some((ConnId::new(reactor, slot, held.generation), &mut held.record))
    }

    /// The memory of all slots, used and free.
    pub(crate) fn retained_bytes(&self) -> usize {
        // Laid out like the slab's own entry: a record or the number of the next free slot.
        self.slots.capacity() * size_of::<Result<Slot<T>, usize>>()
    }

    /// Gives memory back to the system if much of it is unused; for the end of every turn.
    ///
    /// An empty table keeps none. Otherwise the free slots at the end go, as soon as they are at
    /// least half of all. They are found by walking down from the end, a bounded number of steps
    /// per call. Each release halves the memory, so all releases together cost no more than the
    /// insertions that made it grow.
    pub(crate) fn shrink(&mut self) {
        let capacity = self.slots.capacity();
        if self.slots.is_empty() {
            if capacity > 0 {
                self.slots = Slab::new();
                self.vacant_from = 0;
            }
            return;
        }
        if capacity <= SHRINK_ABOVE || self.slots.len() >= capacity / 4 {
            return;
        }
        for _ in 0..SHRINK_STEPS_MAX {
            if self.slots.contains(self.vacant_from - 1) {
                break;
            }
            self.vacant_from -= 1;
        }
        if self.vacant_from <= capacity / 2 {
            self.slots.shrink_to_fit();
        }
    }

    fn is_named(&self, slot: &Slot<T>, id: ConnId) -> bool {
        let same = slot.generation == id.generation();
        (same || cfg!(switchboard_sim_mutant = "generation_ignored"))
            && id.reactor() == self.reactor
    }

    fn id_by_token(&self, token: usize) -> Option<ConnId> {
        let Some(Token::Connection { slot, .. }) = Token::unpack(token) else {
            return None;
        };
        let held = self.slots.get(slot)?;
        let id = ConnId::new(self.reactor, slot, held.generation);
        (self.token(id) == token).then_some(id)
    }

    fn count_stale(&self, is_stale: bool) {
        self.stale.set(self.stale.get() + u64::from(is_stale));
    }
}

/// Ids and tokens both have to name every slot.
const COUNT_MAX: usize = if TOKEN_SLOTS_MAX < SLOTS_MAX { TOKEN_SLOTS_MAX } else { SLOTS_MAX };
/// A table with no more slots than this is left alone until it is empty.
const SHRINK_ABOVE: usize = 1024;
/// How far one call walks down the free slots at the end: some 100 ns.
const SHRINK_STEPS_MAX: usize = 128;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn insert(table: &mut Table<u64>) -> ConnId {
        table.insert_with(ConnId::as_u64).expect("far below the limit")
    }

    #[test]
    fn windows_one_after_the_other_see_every_record_and_each_once_in_a_round() {
        let mut table = Table::new(3);
        assert_eq!((table.window(0, 9).count(), table.after_window(0, 9)), (0, 0));
        let ids: Vec<_> = (0..10).filter_map(|n| table.insert_with(|_| n).ok()).collect();
        table.remove(ids[0]);
        table.remove(ids[4]);
        let all: Vec<ConnId> = table.ids().collect();
        assert_eq!(all.len(), 8);
        let mut seen: Vec<ConnId> = table.window(7, 100).map(|(id, _)| id).collect();
        seen.sort_unstable();
        assert_eq!(seen, all);
        let (mut from, mut seen) = (0, Vec::new());
        while seen.len() < 8 {
            seen.extend(table.window(from, 5).map(|(id, _)| id));
            from = table.after_window(from, 5);
        }
        seen.sort_unstable();
        assert_eq!(seen, all);
    }

    proptest! {
        #[test]
        fn behaves_as_a_map_whose_keys_are_never_used_again(
            ops in vec((0..12u8, any::<prop::sample::Index>()), 1..400),
            first in prop_oneof![Just(0u32), Just(u32::MAX - 20)],
        ) {
            let mut table = Table::new(3);
            table.next_generation = first;
            let (mut model, mut ever, mut stale) = (BTreeMap::new(), Vec::new(), 0);
            for (op, pick) in ops {
                if op < 4 || ever.is_empty() {
                    let id = insert(&mut table);
                    prop_assert_eq!(model.insert(id, id.as_u64()), None, "a key came twice");
                    ever.push(id);
                    continue;
                }
                let id = *pick.get(&ever);
                let known = model.get(&id).copied();
                stale += u64::from(known.is_none() && op < 10);
                match op {
                    4..7 => prop_assert_eq!(table.remove(id), model.remove(&id)),
                    7 => prop_assert_eq!(table.get(id).copied(), known),
                    8 => prop_assert_eq!(table.get_mut(id).copied(), known),
                    9 => {
                        let token = table.token(id);
                        let found = table.get_by_token(token).map(|(id, record)| (id, *record));
                        prop_assert_eq!(found, known.map(|record| (id, record)));
                    }
                    10 => prop_assert_eq!(table.contains(id), known.is_some()),
                    _ => table.shrink(),
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.is_empty(), model.is_empty());
                prop_assert_eq!(table.stale_count(), stale);
            }
            let mut ids: Vec<_> = table.ids().collect();
            ids.sort();
            prop_assert_eq!(ids, model.keys().copied().collect::<Vec<_>>());
            for (id, record) in table.iter_mut() {
                prop_assert_eq!(model.get(&id), Some(&*record));
            }
        }
    }

    #[test]
    fn the_id_of_another_reactor_is_stale_here() {
        let mut table = Table::new(1);
        let id = insert(&mut table);
        let foreign = ConnId::new(2, id.slot(), id.generation());
        assert_eq!(table.get(foreign), None);
        assert_eq!((table.remove(foreign), table.len()), (None, 1));
        assert_eq!(table.stale_count(), 2);
        assert_eq!(table.get_by_token(usize::MAX), None);
        assert_eq!(table.get_by_token(Token::Listener(0).pack()), None);
    }

    #[test]
    fn a_slot_that_was_given_back_to_the_system_gets_new_names() {
        let mut table = Table::new(0);
        let old = insert(&mut table);
        table.remove(old);
        table.shrink();
        assert_eq!(table.retained_bytes(), 0);
        let new = insert(&mut table);
        assert_eq!(old.slot(), new.slot());
        assert_eq!((table.get(old), table.get(new)), (None, Some(&new.as_u64())));
    }

    #[test]
    fn memory_goes_back_once_the_last_high_slot_is_free() {
        let mut table = Table::new(0);
        let ids: Vec<_> = (0..5000).map(|_| insert(&mut table)).collect();
        let full = table.retained_bytes();
        for id in &ids[10..4999] {
            table.remove(*id);
        }
        (0..100).for_each(|_| table.shrink());
        assert_eq!(table.retained_bytes(), full, "a high slot is still taken");
        table.remove(ids[4999]);
        table.shrink();
        assert_eq!(table.retained_bytes(), full, "one call walks a bounded number of slots");
        (0..100).for_each(|_| table.shrink());
        assert!(table.retained_bytes() < full / 100);
        assert!(ids[..10].iter().all(|id| table.contains(*id)));
        let before = table.retained_bytes();
        insert(&mut table);
        assert!(table.retained_bytes() >= before && table.len() == 11);
    }

    #[test]
    fn a_table_in_use_is_left_alone() {
        let mut table = Table::new(0);
        let ids: Vec<_> = (0..4096).map(|_| insert(&mut table)).collect();
        let full = table.retained_bytes();
        for id in &ids[1024..] {
            table.remove(*id);
            table.shrink();
        }
        assert_eq!(table.retained_bytes(), full, "a quarter is used");
        table.remove(ids[0]);
        (0..100).for_each(|_| table.shrink());
        assert!(table.retained_bytes() < full);
    }
}
