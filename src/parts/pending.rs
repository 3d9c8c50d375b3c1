//! `Pending`: messages that wait for one slow member of a group, and what goes when they are too
//! many.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// What each message costs beside its bytes, so that short ones are bounded too.
pub(crate) const SHOT_OVERHEAD_BYTES: usize = 64;

/// One message of a group, encoded; its bytes are shared by all members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shot {
    pub(crate) bytes: Bytes,
    /// What it is about, where the group keeps the newest of each key only.
    pub(crate) key: u64,
}

impl Shot {
    /// What it counts for wherever it waits.
    pub(crate) fn cost(&self) -> usize {
        self.bytes.len() + SHOT_OVERHEAD_BYTES
    }
}

/// What becomes of messages for a member that is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// Those that find no room are dropped.
    DropNewest,
    /// The oldest make room.
    DropOldest,
    /// One goes when there is a newer one of its key; then the oldest.
    Conflate,
    /// The member goes.
    Kick,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// So many messages were dropped for it, or with it.
    Lost(usize),
    /// It found no room, and the member is to go.
    Kick,
}

/// The messages that wait for one member, oldest first; at most `max_bytes` of them.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// `None` where a newer message of the same key took its place at the end; never in front.
    shots: VecDeque<Option<Shot>>,
    /// By key: where its message stands, counted from the first that ever was. Empty unless they
    /// are conflated.
    places: HashMap<u64, u64>,
    /// The place of the first one.
    first: u64,
    count: usize,
    bytes: usize,
}

impl Pending {
    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What they cost, by [`Shot::cost`].
    pub(crate) fn cost_bytes(&self) -> usize {
        self.bytes
    }

    /// Takes one more, as the policy has it. One that alone is larger than `max_bytes` finds no
    /// room, ever.
    pub(crate) fn push(&mut self, shot: Shot, policy: Policy, max_bytes: usize) -> Pushed {
        let mut lost = 0;
        let conflates = policy == Policy::Conflate;
        // Before the room is counted: what it takes the place of makes room for it.
        if conflates && self.forget(shot.key) {
            lost += 1;
        }
        let cost = shot.cost();
        if self.bytes + cost > max_bytes {
            match policy {
                Policy::Kick => return Pushed::Kick,
                Policy::DropNewest => return Pushed::Lost(1),
                Policy::DropOldest | Policy::Conflate if cost > max_bytes => {
                    return Pushed::Lost(lost + 1);
                }
                Policy::DropOldest | Policy::Conflate => {
                    while self.bytes + cost > max_bytes && self.pop().is_some() {
                        lost += 1;
                    }
                }
            }
        }
        if conflates {
            self.places.insert(shot.key, self.first + self.shots.len() as u64);
        }
        self.bytes += cost;
        self.count += 1;
        self.shots.push_back(Some(shot));
        Pushed::Lost(lost)
    }

    /// Takes the oldest.
    pub(crate) fn pop(&mut self) -> Option<Shot> {
        let shot = self.shots.pop_front()??;
        self.first += 1;
        self.bytes -= shot.cost();
        self.count -= 1;
        if self.places.get(&shot.key) == Some(&(self.first - 1)) {
            self.places.remove(&shot.key);
        }
        self.trim();
        Some(shot)
    }

    /// Drops the message of this key. True if there was one.
    fn forget(&mut self, key: u64) -> bool {
        let Some(place) = self.places.remove(&key) else { return false };
        let at = usize::try_from(place - self.first).expect("a place in the queue");
        if let Some(shot) = self.shots[at].take() {
            self.bytes -= shot.cost();
            self.count -= 1;
        }
        self.trim();
        // Gaps are at most as many as messages, and a few: a busy key costs no memory.
        if self.shots.len() > 2 * self.count + GAPS_MAX {
            self.close_gaps();
        }
        true
    }

    /// The first one is a message.
    fn trim(&mut self) {
        while self.shots.front().is_some_and(Option::is_none) {
            self.shots.pop_front();
            self.first += 1;
        }
    }

    fn close_gaps(&mut self) {
        self.shots.retain(Option::is_some);
        let first = self.first;
        let keyed = self.shots.iter().flatten().zip(first..);
        self.places = keyed.map(|(shot, place)| (shot.key, place)).collect();
    }
}

/// Gaps that are put up with in a short queue.
const GAPS_MAX: usize = 16;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same with nothing but a list.
    #[derive(Default)]
    struct Oracle(Vec<Shot>);

    impl Oracle {
        fn bytes(&self) -> usize {
            self.0.iter().map(Shot::cost).sum()
        }

        fn push(&mut self, shot: Shot, policy: Policy, max: usize) -> Pushed {
            let before = self.0.len() + 1;
            let cost = shot.cost();
            match policy {
                Policy::Kick if self.bytes() + cost > max => return Pushed::Kick,
                Policy::DropNewest if self.bytes() + cost > max => return Pushed::Lost(1),
                Policy::Conflate => self.0.retain(|there| there.key != shot.key),
                Policy::DropOldest | Policy::Kick | Policy::DropNewest => {}
            }
            if cost <= max {
                while self.bytes() + cost > max {
                    self.0.remove(0);
                }
                self.0.push(shot);
            }
            Pushed::Lost(before - self.0.len())
        }
    }

    fn any_policy() -> impl Strategy<Value = Policy> {
        prop::sample::select(vec![
            Policy::DropNewest,
            Policy::DropOldest,
            Policy::Conflate,
            Policy::Kick,
        ])
    }

    proptest! {
        #[test]
        fn it_keeps_what_a_list_would_keep(
            policy in any_policy(),
            max in 0..1_500usize,
            steps in prop::collection::vec((0..4u8, 0..6u64, 0..200usize), 0..200),
        ) {
            let (mut pending, mut oracle) = (Pending::default(), Oracle::default());
            for (number, (what, key, len)) in (0u8..).zip(steps.into_iter().take(255)) {
                if what == 0 {
                    let expected = (!oracle.0.is_empty()).then(|| oracle.0.remove(0));
                    prop_assert_eq!(pending.pop(), expected);
                } else {
                    let shot = Shot { bytes: Bytes::from(vec![number; len]), key };
                    let expected = oracle.push(shot.clone(), policy, max);
                    prop_assert_eq!(pending.push(shot, policy, max), expected);
                }
                prop_assert_eq!(pending.len(), oracle.0.len());
                prop_assert_eq!(pending.is_empty(), oracle.0.is_empty());
                prop_assert_eq!(pending.cost_bytes(), oracle.bytes());
                prop_assert!(pending.cost_bytes() <= max);
                prop_assert!(pending.shots.len() <= 2 * pending.len() + GAPS_MAX + 1);
                prop_assert!(pending.places.len() <= pending.len());
            }
            let rest: Vec<Shot> = std::iter::from_fn(|| pending.pop()).collect();
            prop_assert_eq!(rest, oracle.0);
        }
    }

    #[test]
    fn a_busy_key_costs_no_memory() {
        let mut pending = Pending::default();
        let still = Shot { bytes: Bytes::from_static(b"still"), key: 1 };
        pending.push(still.clone(), Policy::Conflate, 1 << 20);
        for number in 0..100_000u32 {
            let bytes = Bytes::copy_from_slice(&number.to_be_bytes());
            pending.push(Shot { bytes, key: 2 }, Policy::Conflate, 1 << 20);
        }
        assert!(pending.shots.capacity() <= 64 && pending.len() == 2);
        assert_eq!(pending.pop(), Some(still));
        assert_eq!(pending.pop().expect("the newest").bytes, &99_999u32.to_be_bytes()[..]);
    }
}
