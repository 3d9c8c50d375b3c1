//! `Outbox`: the ordered chain of bytes that wait to be written to one connection.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::{fmt, mem};

use bytes::{Buf, Bytes};

/// Bytes to be sent, in order; what a codec encodes into.
///
/// Large messages are shared, not copied; small ones are copied one behind the other, so that many
/// of them leave in one slice. An outbox that is written empty and filled again allocates nothing.
#[derive(Default)]
pub struct Outbox {
    parts: VecDeque<Part>,
    /// A written-out segment that the next copy goes into; empty, often without capacity.
    spare: Vec<u8>,
    len_bytes: usize,
    /// The capacities of all copied parts and of the spare.
    copied_capacity: usize,
    /// How much of the first part is written, if that one is copied (a shared one shrinks itself).
    written: u32,
    /// How many of the first parts [`Outbox::compact`] has seen: it need not look at them again.
    settled: u32,
}

/// One run of bytes; never empty while it stands in the chain.
enum Part {
    /// Shared with whoever else holds the same memory.
    Shared(Bytes),
    /// Ours alone, at most [`SEGMENT_MAX_BYTES`] long.
    Copied(Vec<u8>),
}

impl Outbox {
    /// An outbox without bytes and without memory.
    #[must_use]
    pub fn new() -> Self {
        Outbox::default()
    }

    /// Appends `bytes`: shares them where that is cheaper than a copy.
    #[inline]
    pub fn put(&mut self, bytes: Bytes) {
        // What stands alone is written at once in the ordinary case: an echo copies nothing. If
        // the kernel does not take it, `compact` sees to it that it pins no large buffer.
        if bytes.len() > COPY_MAX_BYTES || (self.is_empty() && !bytes.is_empty()) {
            self.len_bytes += bytes.len();
            self.parts.push_back(Part::Shared(bytes));
        } else {
            self.put_slice(&bytes);
        }
    }

    /// As [`Outbox::put`] where something follows: what is small is copied even if it comes first,
    /// so that the two leave in one slice.
    pub(crate) fn put_followed(&mut self, bytes: Bytes) {
        if bytes.len() > COPY_MAX_BYTES { self.put(bytes) } else { self.put_slice(&bytes) }
    }

    /// Appends a copy of `bytes`.
    pub fn put_slice(&mut self, mut bytes: &[u8]) {
        self.len_bytes += bytes.len();
        while !bytes.is_empty() {
            let tail = self.tail(bytes.len());
            let (now, later) = bytes.split_at(bytes.len().min(tail.capacity() - tail.len()));
            tail.extend_from_slice(now);
            bytes = later;
        }
    }

    /// How many bytes wait.
    #[must_use]
    #[inline]
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Whether nothing waits.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len_bytes == 0
    }

    /// All that waits, if it is one slice.
    #[inline]
    pub(crate) fn only(&self) -> Option<&[u8]> {
        let part = self.parts.front().filter(|_| self.parts.len() == 1)?;
        Some(match part {
            Part::Shared(bytes) => bytes,
            Part::Copied(segment) => &segment[self.written as usize..],
        })
    }

    /// Fills `out` with the first slices in order and says how many it filled: all that wait, or
    /// as many as there is room for.
    pub(crate) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        self.slices_within(out, usize::MAX)
    }

    /// The same for the first `most` bytes.
    pub(crate) fn slices_within<'a>(&'a self, out: &mut [IoSlice<'a>], most: usize) -> usize {
        let (mut filled, mut left) = (0, most);
        for (place, part) in out.iter_mut().zip(&self.parts) {
            if left == 0 {
                break;
            }
            let skip = if filled == 0 { self.written as usize } else { 0 };
            let bytes: &[u8] = match part {
                Part::Shared(bytes) => bytes,
                Part::Copied(segment) => &segment[skip..],
            };
            let bytes = &bytes[..bytes.len().min(left)];
            *place = IoSlice::new(bytes);
            left -= bytes.len();
            filled += 1;
        }
        filled
    }

    /// All that waits, in one piece: copied only if there are several.
    pub(crate) fn into_bytes(mut self) -> Bytes {
        if self.parts.len() > 1 || self.written > 0 {
            let mut slices = vec![IoSlice::new(&[]); self.parts.len()];
            self.slices(&mut slices);
            return slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        }
        match self.parts.pop_front() {
            Some(Part::Shared(bytes)) => bytes,
            Some(Part::Copied(segment)) => Bytes::from(segment),
            None => Bytes::new(),
        }
    }

    /// A copy of all that waits, as it would be written.
    #[cfg(any(test, feature = "sim", feature = "testing"))]
    pub(crate) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len_bytes);
        let mut skip = self.written as usize;
        for part in &self.parts {
            match part {
                Part::Shared(shared) => bytes.extend_from_slice(shared),
                Part::Copied(segment) => bytes.extend_from_slice(&segment[skip..]),
            }
            skip = 0;
        }
        bytes
    }

    /// Forgets the first `count` bytes, which were written, and frees what held them.
    pub(crate) fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.len_bytes, "more written than there was");
        // The ordinary case: one message, taken whole.
        if count == self.len_bytes && self.parts.len() == 1 {
            self.len_bytes = 0;
            return self.drop_front();
        }
        let mut left = count.min(self.len_bytes);
        self.len_bytes -= left;
        while left > 0 {
            let here = self.front_len_bytes();
            if left < here {
                return self.advance_front(left);
            }
            left -= here;
            self.drop_front();
        }
        if self.is_empty() && self.parts.capacity() > PARTS_KEPT_MAX {
            self.parts = VecDeque::new();
        }
    }

    /// Takes the last bytes back, so that `len` are left.
    pub(crate) fn truncate(&mut self, len: usize) {
        while self.len_bytes > len {
            let excess = self.len_bytes - len;
            let skip = if self.parts.len() == 1 { self.written as usize } else { 0 };
            let here = match self.parts.back_mut() {
                Some(Part::Shared(bytes)) if bytes.len() > excess => {
                    bytes.truncate(bytes.len() - excess);
                    excess
                }
                Some(Part::Copied(segment)) if segment.len() - skip > excess => {
                    segment.truncate(segment.len() - excess);
                    excess
                }
                Some(Part::Shared(_) | Part::Copied(_)) => self.drop_back() - skip,
                None => return debug_assert!(false, "bytes were counted that are not there"),
            };
            self.len_bytes -= here;
            // A shared part that has become small may pin a large buffer now.
            let rest = u32::try_from(self.parts.len()).unwrap_or(u32::MAX).saturating_sub(1);
            self.settled = self.settled.min(rest);
        }
    }

    /// Moves all bytes of `other` behind ours; `other` is empty then and keeps some memory for
    /// its next use.
    pub(crate) fn append(&mut self, other: &mut Outbox) {
        if self.is_empty() {
            return mem::swap(self, other);
        }
        let mut skip = mem::take(&mut other.written) as usize;
        while let Some(part) = other.parts.pop_front() {
            match part {
                Part::Shared(bytes) => self.put(bytes),
                Part::Copied(mut segment) => {
                    other.copied_capacity -= segment.capacity();
                    if segment.len() - skip <= COPY_MAX_BYTES {
                        self.put_slice(&segment[skip..]);
                        other.recycle(segment);
                    } else {
                        segment.drain(..skip);
                        self.len_bytes += segment.len();
                        self.copied_capacity += segment.capacity();
                        self.parts.push_back(Part::Copied(segment));
                    }
                }
            }
            skip = 0;
        }
        other.len_bytes = 0;
        other.settled = 0;
    }

    /// Copies small shared parts out, so that what must wait pins no large buffer.
    ///
    /// To be called when the kernel did not take everything; looks at each part once, and at the
    /// first one, which may have become small, every time.
    pub(crate) fn compact(&mut self) {
        let seen = self.settled as usize;
        for index in (0..self.parts.len().min(1)).chain(seen.max(1)..self.parts.len()) {
            if let Part::Shared(bytes) = &self.parts[index] {
                if bytes.len() <= LEFTOVER_MAX_BYTES {
                    let copy = bytes.to_vec();
                    self.copied_capacity += copy.capacity();
                    self.parts[index] = Part::Copied(copy);
                }
            }
        }
        // A count that does not fit is a smaller one: then some parts are looked at again.
        self.settled = u32::try_from(self.parts.len()).unwrap_or(u32::MAX);
    }

    /// Forgets everything that waits and keeps what memory it would keep had it been written.
    #[inline]
    pub(crate) fn clear(&mut self) {
        self.advance(self.len_bytes);
    }

    /// The memory it keeps beyond its own size: its list and all copies, to their capacity; what
    /// it shares with others counts with [`Outbox::len_bytes`] only.
    pub(crate) fn retained_bytes(&self) -> usize {
        self.parts.capacity() * size_of::<Part>() + self.copied_capacity
    }

    /// Forgets everything that waits and frees all memory beyond `keep_max_bytes`: for recycling.
    #[inline]
    pub(crate) fn reset(&mut self, keep_max_bytes: usize) {
        if !self.is_empty() {
            self.clear();
        }
        if self.retained_bytes() > keep_max_bytes {
            self.copied_capacity = 0;
            self.spare = Vec::new();
        }
        if self.retained_bytes() > keep_max_bytes {
            self.parts = VecDeque::new();
        }
    }

    /// The last part if it is a copy with room, else a new copy; has room for at least one byte,
    /// and for `wanted` if that is not above the size of a segment.
    fn tail(&mut self, wanted: usize) -> &mut Vec<u8> {
        let room = match self.parts.back() {
            Some(Part::Copied(segment)) => segment.len() < SEGMENT_MAX_BYTES,
            Some(Part::Shared(_)) | None => false,
        };
        if !room {
            self.parts.push_back(Part::Copied(mem::take(&mut self.spare)));
        }
        let Some(Part::Copied(segment)) = self.parts.back_mut() else {
            unreachable!("the last part is a copy: it was looked at or put there just now");
        };
        if segment.capacity() < SEGMENT_MAX_BYTES && segment.capacity() - segment.len() < wanted {
            self.copied_capacity -= segment.capacity();
            let total = (segment.len() + wanted).clamp(SEGMENT_MIN_BYTES, SEGMENT_MAX_BYTES);
            segment.reserve_exact(total.next_power_of_two() - segment.len());
            self.copied_capacity += segment.capacity();
        }
        segment
    }

    fn front_len_bytes(&self) -> usize {
        match self.parts.front() {
            Some(Part::Shared(bytes)) => bytes.len(),
            Some(Part::Copied(segment)) => segment.len() - self.written as usize,
            None => 0,
        }
    }

    /// Passes over `count` bytes of the first part, which has more than that.
    fn advance_front(&mut self, count: usize) {
        match self.parts.front_mut() {
            Some(Part::Shared(bytes)) => bytes.advance(count),
            Some(Part::Copied(_)) => {
                self.written += u32::try_from(count).expect("a segment is far below 4 GiB");
            }
            None => debug_assert!(false, "bytes were counted that are not there"),
        }
    }

    fn drop_front(&mut self) {
        self.written = 0;
        self.settled = self.settled.saturating_sub(1);
        if let Some(Part::Copied(segment)) = self.parts.pop_front() {
            self.copied_capacity -= segment.capacity();
            self.recycle(segment);
        }
    }

    /// Drops the last part and says how long it was.
    fn drop_back(&mut self) -> usize {
        let len = match self.parts.pop_back() {
            Some(Part::Shared(bytes)) => bytes.len(),
            Some(Part::Copied(segment)) => {
                let len = segment.len();
                self.copied_capacity -= segment.capacity();
                self.recycle(segment);
                len
            }
            None => 0,
        };
        if self.parts.is_empty() {
            self.written = 0;
        }
        len
    }

    /// Keeps the larger of `segment` and the present spare for the next copy.
    fn recycle(&mut self, mut segment: Vec<u8>) {
        if segment.capacity() > self.spare.capacity() {
            segment.clear();
            self.copied_capacity =
                self.copied_capacity - self.spare.capacity() + segment.capacity();
            self.spare = segment;
        }
    }
}

/// Shows sizes only: what peers are sent has no place in a log.
impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("len_bytes", &self.len_bytes)
            .field("parts", &self.parts.len())
            .field("retained_bytes", &self.retained_bytes())
            .finish()
    }
}

/// Up to here a copy is cheaper than one more slice for the kernel and one more shared count.
const COPY_MAX_BYTES: usize = 512;
/// Up to here what the kernel did not take is copied out of the buffer it stands in.
const LEFTOVER_MAX_BYTES: usize = 4 << 10;
/// The least a segment is made for.
const SEGMENT_MIN_BYTES: usize = 64;
/// The most a segment grows to: a bound on what a partly written one holds back, and on the spare.
const SEGMENT_MAX_BYTES: usize = 16 << 10;
/// The list of parts is given back when it has run empty and is longer than this.
const PARTS_KEPT_MAX: usize = 64;

const _: () =
    assert!(SEGMENT_MAX_BYTES.is_power_of_two() && LEFTOVER_MAX_BYTES <= SEGMENT_MAX_BYTES);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn content(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 4096];
        let filled = outbox.slices(&mut slices);
        assert!(filled < slices.len(), "the test's own limit");
        slices[..filled].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    /// What `retained_bytes` claims, counted part by part.
    fn counted(outbox: &Outbox) -> usize {
        let copied = |part: &Part| match part {
            Part::Shared(_) => 0,
            Part::Copied(segment) => segment.capacity(),
        };
        outbox.parts.capacity() * size_of::<Part>()
            + outbox.spare.capacity()
            + outbox.parts.iter().map(copied).sum::<usize>()
    }

    fn is_shared(outbox: &Outbox, index: usize) -> bool {
        matches!(outbox.parts[index], Part::Shared(_))
    }

    #[derive(Clone, Debug)]
    enum Op {
        Put(usize),
        PutSlice(usize),
        Append(Vec<usize>, usize),
        Advance(usize),
        Truncate(usize),
        Compact,
        Clear,
        Reset(usize),
    }

    fn sizes() -> impl Strategy<Value = usize> {
        prop_oneof![
            5 => 0..100usize,
            3 => 400..700usize,
            2 => 4000..4200usize,
            1 => 16_000..40_000usize,
        ]
    }

    fn ops() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => sizes().prop_map(Op::Put),
            8 => sizes().prop_map(Op::PutSlice),
            4 => (vec(sizes(), 0..6), sizes()).prop_map(|(puts, gone)| Op::Append(puts, gone)),
            12 => sizes().prop_map(Op::Advance),
            4 => sizes().prop_map(Op::Truncate),
            3 => Just(Op::Compact),
            1 => Just(Op::Clear),
            1 => (0..40_000usize).prop_map(Op::Reset),
        ]
    }

    fn pins_a_buffer_for_little(outbox: &Outbox) -> bool {
        outbox.parts.iter().any(|part| match part {
            Part::Shared(bytes) => bytes.len() <= LEFTOVER_MAX_BYTES,
            Part::Copied(_) => false,
        })
    }

    /// `len` bytes that no other call of the same test gives.
    fn fresh(len: usize, next: &mut u32) -> Vec<u8> {
        *next += 1;
        (0u32..).zip(0..len).map(|(i, _)| (i.wrapping_mul(31) ^ *next).to_le_bytes()[0]).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 128 }))]
        #[test]
        fn behaves_as_a_vec_of_bytes(ops in vec(ops(), 1..60)) {
            let (mut outbox, mut model, mut next) = (Outbox::new(), Vec::new(), 0);
            for op in ops {
                match op {
                    Op::Put(len) => {
                        let bytes = fresh(len, &mut next);
                        model.extend_from_slice(&bytes);
                        outbox.put(Bytes::from(bytes));
                    }
                    Op::PutSlice(len) => {
                        let bytes = fresh(len, &mut next);
                        model.extend_from_slice(&bytes);
                        outbox.put_slice(&bytes);
                    }
                    Op::Append(puts, gone) => {
                        let (mut other, mut all) = (Outbox::new(), Vec::new());
                        for len in puts {
                            let bytes = fresh(len, &mut next);
                            all.extend_from_slice(&bytes);
                            other.put_slice(&bytes[..len / 2]);
                            other.put(Bytes::copy_from_slice(&bytes[len / 2..]));
                        }
                        let gone = gone.min(all.len());
                        other.advance(gone);
                        if gone % 2 == 1 {
                            other.compact();
                        }
                        model.extend_from_slice(&all[gone..]);
                        outbox.append(&mut other);
                        prop_assert!(other.is_empty() && content(&other).is_empty());
                        prop_assert_eq!(other.retained_bytes(), counted(&other));
                        other.put_slice(b"again");
                        other.put(Bytes::from_static(&[9; 600]));
                        other.compact();
                        prop_assert!(!pins_a_buffer_for_little(&other));
                        prop_assert_eq!(content(&other), [&b"again"[..], &[9; 600]].concat());
                    }
                    Op::Advance(len) => {
                        let len = len.min(model.len());
                        model.drain(..len);
                        outbox.advance(len);
                    }
                    Op::Truncate(gone) => {
                        let len = model.len().saturating_sub(gone);
                        model.truncate(len);
                        outbox.truncate(len);
                    }
                    Op::Compact => {
                        outbox.compact();
                        prop_assert!(!pins_a_buffer_for_little(&outbox));
                    }
                    Op::Clear => {
                        model.clear();
                        outbox.clear();
                    }
                    Op::Reset(keep_max_bytes) => {
                        model.clear();
                        outbox.reset(keep_max_bytes);
                        prop_assert!(outbox.retained_bytes() <= keep_max_bytes);
                    }
                }
                prop_assert_eq!(&content(&outbox), &model);
                prop_assert_eq!(&outbox.to_vec(), &model);
                prop_assert_eq!(outbox.len_bytes(), model.len());
                prop_assert_eq!(outbox.is_empty(), model.is_empty());
                prop_assert_eq!(outbox.retained_bytes(), counted(&outbox));
            }
            prop_assert_eq!(outbox.into_bytes(), model);
        }
    }

    #[test]
    fn the_first_bytes_can_be_had_by_themselves() {
        let mut outbox = Outbox::new();
        outbox.put_slice(b"abc");
        outbox.put(Bytes::from(vec![b'd'; 600]));
        outbox.put_slice(b"ef");
        outbox.advance(1);
        let all = content(&outbox);
        for most in [1, 2, 3, 601, 602, 603, 604, 605] {
            let mut slices = [IoSlice::new(&[]); 8];
            let filled = outbox.slices_within(&mut slices, most);
            let first: Vec<u8> = slices[..filled].iter().flat_map(|s| s.to_vec()).collect();
            assert_eq!(first, all[..most.min(all.len())]);
            assert!(slices[..filled].iter().all(|slice| !slice.is_empty()));
        }
    }

    #[test]
    fn many_small_messages_leave_in_one_slice() {
        let mut outbox = Outbox::new();
        for _ in 0..100 {
            outbox.put_slice(&[7; 16]);
            outbox.put(Bytes::from_static(&[8; 64]));
        }
        assert_eq!(outbox.parts.len(), 1);
        assert_eq!(outbox.len_bytes(), 8000);
    }

    #[test]
    fn large_messages_and_a_lonely_small_one_are_shared() {
        let small = Bytes::from(vec![1; 10]);
        let large = Bytes::from(vec![2; COPY_MAX_BYTES + 1]);
        let mut outbox = Outbox::new();
        outbox.put(small.clone());
        outbox.put(small.clone());
        outbox.put(large.clone());
        assert!(is_shared(&outbox, 0) && !is_shared(&outbox, 1) && is_shared(&outbox, 2));
        let mut slices = [IoSlice::new(&[]); 3];
        assert_eq!(outbox.slices(&mut slices), 3);
        assert_eq!(slices[0].as_ptr(), small.as_ptr());
        assert_eq!(slices[2].as_ptr(), large.as_ptr());
    }

    #[test]
    fn a_small_leftover_lets_its_buffer_go() {
        let buffer = Bytes::from(vec![3; 64 << 10]);
        let mut outbox = Outbox::new();
        outbox.put(buffer.clone());
        outbox.advance(1);
        outbox.compact();
        assert!(is_shared(&outbox, 0), "a large leftover stays where it is");
        outbox.advance((64 << 10) - 1 - LEFTOVER_MAX_BYTES);
        outbox.compact();
        assert!(buffer.is_unique());
        assert_eq!(content(&outbox), &buffer[(64 << 10) - LEFTOVER_MAX_BYTES..]);
        outbox.put(buffer.slice(..COPY_MAX_BYTES + 1));
        outbox.compact();
        assert!(buffer.is_unique(), "what came after the last look is looked at");
    }

    #[test]
    fn the_steady_state_keeps_its_memory_and_takes_no_more() {
        let large = Bytes::from(vec![5; 2000]);
        let mut outbox = Outbox::new();
        let mut after_first = None;
        for _ in 0..1000 {
            outbox.put_slice(b"head");
            outbox.put(large.clone());
            outbox.put_slice(&[6; 3000]);
            outbox.advance(4);
            outbox.advance(5000);
            let kept = (outbox.retained_bytes(), outbox.spare.as_ptr(), outbox.parts.capacity());
            assert_eq!(*after_first.get_or_insert(kept), kept);
        }
    }

    #[test]
    fn memory_of_written_bytes_is_released() {
        let mut outbox = Outbox::new();
        for _ in 0..64 {
            outbox.put_slice(&[1; SEGMENT_MAX_BYTES]);
            outbox.put(Bytes::from_static(&[2; 600]));
        }
        let full = outbox.retained_bytes();
        assert!(full >= 64 * SEGMENT_MAX_BYTES);
        outbox.advance(32 * (SEGMENT_MAX_BYTES + 600));
        // One written segment stays as the spare.
        assert_eq!(outbox.retained_bytes(), full - 31 * SEGMENT_MAX_BYTES);
        outbox.clear();
        assert_eq!(outbox.retained_bytes(), SEGMENT_MAX_BYTES);
        outbox.reset(0);
        assert_eq!(outbox.retained_bytes(), 0);
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn it_stays_small() {
        assert!(size_of::<Outbox>() <= 80);
        assert!(size_of::<Part>() <= 32);
    }
}
