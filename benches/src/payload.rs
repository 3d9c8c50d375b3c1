//! What the load generator sends, and the check that exactly this comes back.
//!
//! ```text
//! message   byte 0     bytes 1..9            bytes 9..13         the rest
//!           work byte  sequence, 8 x 7 bits  connection, 4 x 7   a window of the pattern
//! ```
//! No byte but the first is ever above 0x7F, so that a server that looks at the first byte of a
//! *chunk* never mistakes the middle of a message for a work byte.

use std::ops::Range;

/// The work byte of a message that asks for nothing but its echo.
pub const PLAIN: u8 = 0;
/// The longest message, in bytes.
pub const MESSAGE_MAX: usize = 1 << 20;

const HEADER_BYTES: usize = 13;
/// Consecutive messages start at different places of the pattern, this far apart (a prime).
const STRIDE: usize = 61;
const PHASES: usize = 1021;

/// The bytes all messages of one run are made of.
#[derive(Debug)]
pub struct Pattern {
    message_bytes: usize,
    bytes: Vec<u8>,
}

/// Who sends: both are written into every message.
#[derive(Debug, Clone, Copy)]
pub struct Tag {
    /// Number of the connection in this run.
    pub connection: u32,
    /// First byte of each message.
    pub work: u8,
}

impl Pattern {
    /// The pattern for messages of one length.
    ///
    /// # Panics
    /// If the length is 0 or more than [`MESSAGE_MAX`].
    #[must_use]
    pub fn new(message_bytes: usize) -> Self {
        assert!((1..=MESSAGE_MAX).contains(&message_bytes), "message length out of range");
        // A fixed linear congruential sequence: the same bytes in every run and every process.
        let mut state = 0x2545_F491_u32;
        let bytes = (0..message_bytes + STRIDE * PHASES)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0] & 0x7F
            })
            .collect();
        Self { message_bytes, bytes }
    }

    /// Length of every message.
    #[must_use]
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Appends the bytes of the stream from `range.start` to `range.end`.
    pub fn write(&self, tag: Tag, range: Range<u64>, out: &mut Vec<u8>) {
        self.pieces(range, |sequence, part| {
            let header = header(tag, sequence);
            let body_from = part.start.max(HEADER_BYTES);
            if part.start < HEADER_BYTES {
                out.extend_from_slice(&header[part.start..part.end.min(HEADER_BYTES)]);
            }
            if body_from < part.end {
                out.extend_from_slice(&self.window(sequence)[body_from..part.end]);
            }
            true
        });
    }

    /// Whether `bytes` are what stands in the stream at `position`, byte for byte.
    #[must_use]
    pub fn matches(&self, tag: Tag, position: u64, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        self.pieces(position..position + bytes.len() as u64, |sequence, part| {
            let (piece, after) = rest.split_at(part.len());
            rest = after;
            let header_count = part.len().min(HEADER_BYTES.saturating_sub(part.start));
            let (head, body) = piece.split_at(header_count);
            let body_from = part.start + header_count;
            let header = header(tag, sequence);
            (head.is_empty() || head == &header[part.start..part.start + header_count])
                && body == &self.window(sequence)[body_from..body_from + body.len()]
        })
    }

    /// Cuts a range of the stream into parts of single messages; stops at the first `false`.
    fn pieces(&self, range: Range<u64>, mut each: impl FnMut(u64, Range<usize>) -> bool) -> bool {
        let length = self.message_bytes as u64;
        let mut position = range.start;
        while position < range.end {
            let sequence = position / length;
            let from = position % length;
            let to = length.min(from + (range.end - position));
            position += to - from;
            if !each(sequence, index(from)..index(to)) {
                return false;
            }
        }
        true
    }

    fn window(&self, sequence: u64) -> &[u8] {
        &self.bytes[index(sequence % PHASES as u64) * STRIDE..]
    }
}

fn header(tag: Tag, sequence: u64) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0] = tag.work;
    for (shift, byte) in header[1..9].iter_mut().enumerate() {
        *byte = (sequence >> (7 * shift)).to_le_bytes()[0] & 0x7F;
    }
    for (shift, byte) in header[9..].iter_mut().enumerate() {
        *byte = (tag.connection >> (7 * shift)).to_le_bytes()[0] & 0x7F;
    }
    header
}

/// An offset inside a message as an index.
fn index(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Pattern, Tag};

    const TAG: Tag = Tag { connection: 300, work: 0xFF };

    fn stream(pattern: &Pattern, to: u64) -> Vec<u8> {
        let mut out = Vec::new();
        pattern.write(TAG, 0..to, &mut out);
        out
    }

    #[test]
    fn any_cut_of_the_stream_matches_and_is_written_alike() {
        for length in [1, 5, 13, 14, 40] {
            let pattern = Pattern::new(length);
            let whole = stream(&pattern, 3 * length as u64);
            for from in 0..whole.len() {
                for to in from..whole.len() {
                    let mut part = Vec::new();
                    pattern.write(TAG, from as u64..to as u64, &mut part);
                    assert_eq!(part, &whole[from..to], "{length} {from} {to}");
                    assert!(pattern.matches(TAG, from as u64, &part), "{length} {from} {to}");
                }
            }
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let pattern = Pattern::new(64);
        let whole = stream(&pattern, 640);
        for at in 0..whole.len() {
            let mut wrong = whole.clone();
            wrong[at] ^= 1;
            assert!(!pattern.matches(TAG, 0, &wrong), "byte {at}");
        }
        assert!(!pattern.matches(TAG, 64, &whole), "a message repeated");
        assert!(!pattern.matches(Tag { connection: 301, ..TAG }, 0, &whole), "a foreign message");
    }

    #[test]
    fn only_the_first_byte_of_a_message_can_be_a_work_byte() {
        let whole = stream(&Pattern::new(64), 64 * 300);
        for (at, byte) in whole.iter().enumerate() {
            assert_eq!(*byte > 0x7F, at % 64 == 0, "byte {at}");
        }
    }
}
