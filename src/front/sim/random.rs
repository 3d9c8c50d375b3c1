//! `Random`: the one source of chance in a simulation, so that a seed says it all.

/// xoshiro256** (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021), its
/// state filled by SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014). Not for secrets.
#[derive(Clone, Debug)]
pub(super) struct Random {
    state: [u64; 4],
    /// What the lowest bits of the next numbers are to be, last one first.
    tape: Vec<u16>,
}

impl Random {
    /// The sequence that `seed` names.
    pub(super) fn new(seed: u64) -> Self {
        let mut mix = seed;
        let mut next = || {
            mix = mix.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let z = (mix ^ (mix >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^ (z >> 31)
        };
        Random { state: [next(), next(), next(), next()], tape: Vec::new() }
    }

    /// The sequence that the first eight of `bytes` name, where each two of the others decide the
    /// lowest bits of one number, as long as there are some.
    ///
    /// Nearly every choice is made by those bits alone. So a fuzzer that changes one byte changes
    /// one choice, where a change of the seed would change them all.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let (seed, tape) = bytes.split_at(bytes.len().min(8));
        let seed = seed.iter().rev().fold(0, |seed, byte| (seed << 8) | u64::from(*byte));
        let tape = tape.chunks_exact(2).rev().map(|pair| u16::from_le_bytes([pair[0], pair[1]]));
        Random { tape: tape.collect(), ..Random::new(seed) }
    }

    /// Another sequence, which does not depend on how much of this one is used later.
    pub(super) fn fork(&mut self) -> Random {
        Random::new(self.next())
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        match self.tape.pop() {
            Some(low) => (result & !0xFFFF) | u64::from(low),
            None => result,
        }
    }

    /// A number from `low` to `high`, both included.
    pub(super) fn range(&mut self, low: u64, high: u64) -> u64 {
        debug_assert!(low <= high);
        // The remainder's bias is far below what chances of one in thousands would notice.
        low + self.next() % (high - low + 1)
    }

    /// The same for sizes.
    pub(super) fn size(&mut self, low: usize, high: usize) -> usize {
        usize::try_from(self.range(low as u64, high as u64)).unwrap_or(high)
    }

    /// A size whose magnitude is evenly spread: small ones are as frequent as large ones.
    pub(super) fn magnitude(&mut self, low: usize, high: usize) -> usize {
        debug_assert!(low > 0);
        let doublings = usize::try_from((high / low).max(1).ilog2()).unwrap_or(0);
        let base = low << self.size(0, doublings);
        self.size(base, (2 * base - 1).min(high))
    }

    /// An index into something that is not empty.
    pub(super) fn below(&mut self, len: usize) -> usize {
        self.size(0, len - 1)
    }

    /// Yes, with this probability in 65,536ths.
    pub(super) fn chance(&mut self, odds: Odds) -> bool {
        odds.0 > 0 && self.next() & 0xFFFF < u64::from(odds.0)
    }

    /// Yes, once in `n` times.
    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.next() % n == 0
    }
}

/// A probability, in 65,536ths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Odds(u32);

impl Odds {
    /// Whether it never happens.
    pub(super) fn is_off(self) -> bool {
        self.0 == 0
    }

    /// Swarm testing (Groce and others, 2012): a fault is off in half of the runs, and else as
    /// likely as chance will have it, up to `most` percent.
    pub(super) fn swarm(random: &mut Random, most: u32) -> Odds {
        if random.one_in(2) {
            return Odds(0);
        }
        let most = usize::try_from(most * 655).unwrap_or(1).max(1);
        Odds(u32::try_from(random.magnitude(16.min(most), most)).unwrap_or(0))
    }
}
