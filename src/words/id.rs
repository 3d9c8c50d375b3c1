//! `ConnId`: the name of one connection for the whole life of a server, never given twice; and
//! `Token`: what a reactor's poll knows a source by.

use std::fmt;

/// Names one connection of a server; a copy that outlives its connection names nothing, never
/// another one. Two servers of one process give the same names.
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
    pub(crate) fn slot(self) -> usize {
        ((self.0 >> 32) & (SLOTS_MAX as u64 - 1)) as usize
    }

    /// What tells the connections of one slot apart.
    #[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
    pub(crate) fn generation(self) -> u32 {
        self.0 as u32
    }

    /// The number itself, for logs and metrics: as unique as the name is, within its server.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.reactor(), self.slot(), self.generation())
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnId({self})")
    }
}

/// What an event is for, as packed into the word that the poll gives back.
///
/// ```text
///  word of 64 bits               word of 32 bits
///  63    57 56 55  32 31   0     31 30   11 10    0
/// ┌────────┬──┬──────┬──────┐   ┌──┬───────┬───────┐
/// │ 0      │0 │ slot │ gen. │   │0 │ slot  │ gen.  │   a connection
/// ├────────┼──┼──────┴──────┤   ├──┼──┬────┴───────┤
/// │ 0      │1 │ 0, number   │   │1 │0 │ number     │   a listener
/// │ 0      │1 │ 1, number   │   │1 │1 │ number     │   an attempt to connect
/// └────────┴──┴─────────────┘   └──┴──┴────────────┘
/// ```
///
/// No token comes near `usize::MAX`, which belongs to the waker. A short word has room for 11 bits
/// of the generation: there, one stale event in 2048 is taken for a spurious one, which is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    /// A connection: its slot, and as much of its generation as there is room for.
    Connection {
        /// The place in the reactor's table.
        slot: usize,
        /// The low bits of the generation.
        generation: u32,
    },
    /// A listener: its number in its reactor.
    Listener(u16),
    /// A socket of ours that is being connected: its number in its reactor, of 24 bits.
    Attempt(u32),
}

/// How many attempts to connect a token can tell apart.
pub(crate) const ATTEMPTS_MAX: u32 = 1 << 24;

impl Token {
    /// The token of the connection `id`, within its reactor.
    pub(crate) fn of(id: ConnId) -> Self {
        Token::Connection { slot: id.slot(), generation: id.generation() & Layout::HERE.mask() }
    }

    /// The word to watch under.
    pub(crate) fn pack(self) -> usize {
        usize::try_from(Layout::HERE.pack(self)).expect("the layout fits the machine's word")
    }

    /// What was packed into `word`; `None` for a word that no token packs into.
    pub(crate) fn unpack(word: usize) -> Option<Self> {
        Layout::HERE.unpack(word as u64)
    }
}

/// How many slots of one table a token can tell apart; at most [`SLOTS_MAX`].
pub(crate) const TOKEN_SLOTS_MAX: usize = 1 << Layout::HERE.slot_bits;

/// The widths of a token's fields.
#[derive(Clone, Copy, Debug)]
struct Layout {
    slot_bits: u32,
    generation_bits: u32,
}

impl Layout {
    const WIDE: Layout = Layout { slot_bits: 24, generation_bits: 32 };
    const NARROW: Layout = Layout { slot_bits: 20, generation_bits: 11 };
    const HERE: Layout = if usize::BITS >= 64 { Layout::WIDE } else { Layout::NARROW };

    /// The bits of a generation that have room.
    const fn mask(self) -> u32 {
        u32::MAX >> (32 - self.generation_bits)
    }

    /// The bit that only listeners and attempts have.
    const fn listener(self) -> u64 {
        1 << (self.slot_bits + self.generation_bits)
    }

    /// The bit that attempts have beside it.
    const fn attempt(self) -> u64 {
        self.listener() >> 1
    }

    fn pack(self, token: Token) -> u64 {
        match token {
            Token::Connection { slot, generation } => {
                debug_assert!(slot < 1 << self.slot_bits && generation <= self.mask());
                ((slot as u64) << self.generation_bits) | u64::from(generation)
            }
            Token::Listener(number) => self.listener() | u64::from(number),
            Token::Attempt(number) => {
                debug_assert!(number < ATTEMPTS_MAX);
                self.listener() | self.attempt() | u64::from(number)
            }
        }
    }

    fn unpack(self, word: u64) -> Option<Token> {
        if word & self.listener() != 0 {
            let number = word ^ self.listener();
            if number & self.attempt() == 0 {
                return u16::try_from(number).ok().map(Token::Listener);
            }
            let number = u32::try_from(number ^ self.attempt()).ok();
            return number.filter(|&number| number < ATTEMPTS_MAX).map(Token::Attempt);
        }
        let slot = usize::try_from(word >> self.generation_bits).ok()?;
        let low = u32::try_from(word & u64::from(u32::MAX)).ok()?;
        let token = Token::Connection { slot, generation: low & self.mask() };
        (slot < 1 << self.slot_bits).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parts_survive_packing(
            reactor in 0..REACTORS_MAX, slot in 0..SLOTS_MAX, generation: u32,
        ) {
            let id = ConnId::new(reactor, slot, generation);
            prop_assert_eq!((id.reactor(), id.slot()), (reactor, slot));
            prop_assert_eq!(id.generation(), generation);
        }

        #[test]
        fn tokens_survive_packing(
            slot in 0..SLOTS_MAX, generation: u32, number: u16, attempt in 0..ATTEMPTS_MAX,
        ) {
            for layout in [Layout::WIDE, Layout::NARROW] {
                let slot = slot % (1 << layout.slot_bits);
                let generation = generation & layout.mask();
                let connection = Token::Connection { slot, generation };
                let attempt = Token::Attempt(attempt);
                for token in [connection, Token::Listener(number), attempt] {
                    prop_assert_eq!(layout.unpack(layout.pack(token)), Some(token));
                }
                prop_assert_ne!(layout.pack(attempt), layout.pack(Token::Listener(number)));
                prop_assert_ne!(layout.pack(connection), layout.pack(Token::Listener(number)));
            }
        }

        #[test]
        fn every_word_is_one_token_or_none(word: u64, shift in 0..40u32) {
            for layout in [Layout::WIDE, Layout::NARROW] {
                if let Some(token) = layout.unpack(word >> shift) {
                    prop_assert_eq!(layout.pack(token), word >> shift);
                }
            }
        }
    }

    #[test]
    fn no_token_comes_near_the_word_of_the_waker() {
        assert_eq!(Token::unpack(usize::MAX), None);
        for last in [Token::Listener(u16::MAX), Token::Attempt(ATTEMPTS_MAX - 1)] {
            assert!(Layout::WIDE.pack(last) < 1 << 57);
            assert!(Layout::NARROW.pack(last) < u64::from(u32::MAX) - (1 << 29));
        }
        let last = Token::Connection { slot: (1 << 20) - 1, generation: Layout::NARROW.mask() };
        assert_eq!(Layout::NARROW.pack(last), (1 << 31) - 1);
    }
}
