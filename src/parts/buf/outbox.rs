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
    /// The lengths of all shared parts.
    shared_bytes: usize,
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
    /// Ours alone: at most [`SEGMENT_MAX_BYTES`] long, or a leftover of a shared part.
    Copied(Vec<u8>),
}

impl Outbox {
    /// An outbox without bytes and without memory.
    #[must_use]
    pub fn new() -> Self {
        Outbox::default()
    }

    /// Appends `bytes`: shares them where that is cheaper than a copy, which is if they are more
    /// than 512 bytes or nothing stands before them.
    #[inline]
    pub fn put(&mut self, bytes: Bytes) {
        // What stands alone is written at once in the ordinary case: an echo copies nothing. If
        // the kernel does not take it, `compact` sees to it that it pins no large buffer.
        if bytes.len() > COPY_MAX_BYTES || (self.is_empty() && !bytes.is_empty()) {
            self.len_bytes += bytes.len();
            self.shared_bytes += bytes.len();
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

    /// Appends a copy of `bytes`: for headers, and for what is borrowed.
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
                    self.shared_bytes -= excess;
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
        other.shared_bytes = 0;
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
                    self.shared_bytes -= copy.len();
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

    /// The memory that it stands for: what it keeps to the capacity, what it shares with others to
    /// the length, since how much more that keeps alive cannot be asked.
    pub(crate) fn held_bytes(&self) -> usize {
        self.retained_bytes() + self.shared_bytes
    }

    /// Frees everything, and goes on to say how much was waiting: for what is never written.
    pub(crate) fn hollow(&mut self) {
        *self = Outbox { len_bytes: self.len_bytes, ..Outbox::default() };
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
            Some(Part::Shared(bytes)) => {
                bytes.advance(count);
                self.shared_bytes -= count;
            }
            Some(Part::Copied(_)) => {
                self.written += u32::try_from(count).expect("a segment is far below 4 GiB");
            }
            None => debug_assert!(false, "bytes were counted that are not there"),
        }
    }

    fn drop_front(&mut self) {
        self.written = 0;
        self.settled = self.settled.saturating_sub(1);
        match self.parts.pop_front() {
            Some(Part::Copied(segment)) => {
                self.copied_capacity -= segment.capacity();
                self.recycle(segment);
            }
            Some(Part::Shared(bytes)) => self.shared_bytes -= bytes.len(),
            None => {}
        }
    }

    /// Drops the last part and says how long it was.
    fn drop_back(&mut self) -> usize {
        let len = match self.parts.pop_back() {
            Some(Part::Shared(bytes)) => {
                self.shared_bytes -= bytes.len();
                bytes.len()
            }
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
        let capacity = segment.capacity();
        if capacity > self.spare.capacity() && capacity <= SEGMENT_MAX_BYTES {
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
/// Up to here what the kernel did not take is copied out of the buffer it stands in: a read buffer
/// of the usual size is given back whenever a peer is slow to read, so that the books of memory,
/// which know lengths, tell the truth.
const LEFTOVER_MAX_BYTES: usize = 64 << 10;
/// The least a segment is made for.
const SEGMENT_MIN_BYTES: usize = 64;
/// The most a segment grows to: a bound on what a partly written one holds back, and on the spare.
const SEGMENT_MAX_BYTES: usize = 16 << 10;
/// The list of parts is given back when it has run empty and is longer than this.
const PARTS_KEPT_MAX: usize = 64;

const _: () = assert!(SEGMENT_MAX_BYTES.is_power_of_two());

#[cfg(all(test, not(loom)))]
mod tests;
