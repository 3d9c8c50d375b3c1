//! The inputs of a check: where bytes are cut, and bytes that no codec would write.

/// Where to cut `len` bytes in two: everywhere, or at many places, mostly near the ends.
pub(super) fn cuts(len: usize) -> impl Iterator<Item = usize> {
    let dense = len <= CUTS_MAX;
    let near = CUTS_MAX / 4;
    let step = if dense { 1 } else { len / (CUTS_MAX / 2) };
    (0..=len).filter(move |at| dense || *at < near || len - *at < near || *at % step == 0)
}

/// Cuts `data` as `sizes` will have it, in turn: pieces of 0 to 127 bytes, or of up to 32 KiB;
/// never only empty ones.
pub(super) fn pieces<'a>(sizes: &'a [u8], data: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = data;
    let mut sizes = sizes.iter().cycle().enumerate();
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (turn, size) = sizes.next().unwrap_or((3, &127));
        let wanted = usize::from(size & 127) << if size & 128 == 0 { 0 } else { 8 };
        let (now, later) = rest.split_at(wanted.max(usize::from(turn % 4 == 3)).min(rest.len()));
        rest = later;
        Some(now)
    })
}

/// A source of chance: SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
/// generators", 2014).
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    /// The sequence that `seed` names.
    pub(super) fn new(seed: u64) -> Self {
        Chance(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }

    /// A few numbers that [`pieces`] takes.
    pub(super) fn sizes(&mut self) -> [u8; 4] {
        [(); 4].map(|()| self.byte() & 0x0F)
    }

    /// A few bytes: any, small numbers, extreme ones, and such as stand in `wire`.
    pub(super) fn garbage(&mut self, wire: &[u8]) -> Vec<u8> {
        let len = self.below(GARBAGE_MAX);
        (0..len).map(|_| self.likely_byte(wire)).collect()
    }

    fn likely_byte(&mut self, wire: &[u8]) -> u8 {
        match self.below(4) {
            0 => self.byte(),
            1 => self.byte() & 3,
            2 => [0, 0x7F, 0x80, 0xFF][self.below(4)],
            _ if wire.is_empty() => self.byte(),
            _ => wire[self.below(wire.len())],
        }
    }

    /// `wire` with a few mistakes in it.
    pub(super) fn mutated(&mut self, wire: &[u8]) -> Vec<u8> {
        let mut bytes = wire[..wire.len().min(MUTATED_MAX)].to_vec();
        for _ in 0..=self.below(4) {
            if bytes.is_empty() {
                break;
            }
            let (at, other) = (self.below(bytes.len()), self.below(bytes.len()));
            let (from, to) = (at.min(other), at.max(other));
            match self.below(5) {
                0 => bytes[at] = self.likely_byte(wire),
                1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes.insert(at, self.likely_byte(wire)),
                3 => drop(bytes.drain(from..to.min(from + 8))),
                _ => {
                    let copy = bytes[from..to.min(from + 64)].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
        }
        bytes
    }
}

/// So many places to cut an input at are tried, about.
const CUTS_MAX: usize = 512;
/// The longest input of bytes that are made up.
const GARBAGE_MAX: usize = 80;
/// So much of an encoding is taken to put mistakes into.
const MUTATED_MAX: usize = 1024;
