//! `ConnId`: the name of one connection for the whole life of a server, never given twice.

use std::fmt;

/// Names one connection; a copy that outlives its connection names nothing, never another one.
///
/// ```text
///  63      56 55              32 31                              0
/// ┌──────────┬──────────────────┬─────────────────────────────────┐
/// │ reactor  │ slot             │ generation                      │
/// └──────────┴──────────────────┴─────────────────────────────────┘
/// ```
///
/// `slot` is the place in the reactor's table; `generation` is the reactor's count of connections
/// when this one was made, so that a slot that is used again gets another name. It repeats only
/// after 2³² connections of one reactor that meet the same slot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(u64);

/// How many reactors an id can tell apart.
pub(crate) const REACTORS_MAX: usize = 1 << 8;
/// How many slots of one reactor an id can tell apart.
pub(crate) const SLOTS_MAX: usize = 1 << 24;

impl ConnId {
    /// Packs the parts; those beyond their width are a programmer's error.
    pub(crate) fn new(reactor: usize, slot: usize, generation: u32) -> Self {
        debug_assert!(reactor < REACTORS_MAX && slot < SLOTS_MAX);
        ConnId(((reactor as u64) << 56) | ((slot as u64) << 32) | u64::from(generation))
    }

    /// The reactor in whose table the connection stands.
    pub(crate) fn reactor(self) -> usize {
        usize::from(self.0.to_be_bytes()[0])
    }

    /// The place in that table.
    #[expect(clippy::cast_possible_truncation, reason = "masked to 24 bits")]
    pub(crate) fn slot(self) -> usize {
        ((self.0 >> 32) & (SLOTS_MAX as u64 - 1)) as usize
    }

    /// What tells the connections of one slot apart.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub(crate) fn generation(self) -> u32 {
        self.0 as u32
    }

    /// The number itself: unique in its process, for logs and metrics.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}.{}",
            self.reactor(),
            self.slot(),
            self.generation()
        )
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_survive_packing(reactor in 0..REACTORS_MAX, slot in 0..SLOTS_MAX, generation: u32) {
            let id = ConnId::new(reactor, slot, generation);
            prop_assert_eq!((id.reactor(), id.slot(), id.generation()), (reactor, slot, generation));
        }
    }
}
