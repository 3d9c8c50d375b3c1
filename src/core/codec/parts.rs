//! `Parts`: a message that was never joined, as a codec encodes it.

use std::{fmt, iter};

use bytes::{Bytes, BytesMut};

use crate::parts::buf::Outbox;

/// One message in parts: a head, which is borrowed, and any number of further parts behind it.
///
/// What [`send_slice`](crate::Context::send_slice) and [`send_parts`](crate::Context::send_parts)
/// show to [`Codec::encode_parts`](crate::Codec::encode_parts).
///
/// ```
/// use bytes::Bytes;
/// use switchboard::codec::{Outbox, Parts};
///
/// let body = [Bytes::from(vec![7; 1000])];
/// let parts = Parts::new(b"head", &body);
/// assert_eq!(parts.len_bytes(), 1004);
/// let mut outbox = Outbox::new();
/// parts.put(&mut outbox); // four bytes are copied, a thousand are shared
/// assert_eq!(outbox.len_bytes(), 1004);
/// ```
#[derive(Clone, Copy)]
pub struct Parts<'a> {
    head: &'a [u8],
    rest: &'a [Bytes],
}

impl<'a> Parts<'a> {
    /// The message that begins with `head`, which may be empty, and goes on with `rest`.
    #[must_use]
    pub fn new(head: &'a [u8], rest: &'a [Bytes]) -> Self {
        Parts { head, rest }
    }

    /// The length of the message, in bytes.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        // The same memory may stand in many parts, so the sum is no length of anything that is.
        self.rest.iter().fold(self.head.len(), |sum, part| sum.saturating_add(part.len()))
    }

    /// The parts in order; some may be empty.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        iter::once(self.head).chain(self.rest.iter().map(|part| &part[..]))
    }

    /// Appends the message to `outbox`: copies what is small or borrowed, and shares the rest.
    pub fn put(self, outbox: &mut Outbox) {
        outbox.put_slice(self.head);
        self.rest.iter().for_each(|part| outbox.put_followed(part.clone()));
    }

    /// The message in one piece: a copy, unless it stands in one part already.
    #[must_use]
    pub fn join(self) -> Bytes {
        match self.rest {
            [only] if self.head.is_empty() => only.clone(),
            _ => {
                let mut joined = BytesMut::with_capacity(self.len_bytes());
                self.iter().for_each(|part| joined.extend_from_slice(part));
                joined.freeze()
            }
        }
    }

    /// The first `count` bytes, and the parts without them; `None` if the head has not so many.
    pub(super) fn split_head(self, count: usize) -> Option<(&'a [u8], Parts<'a>)> {
        let (front, head) = self.head.split_at_checked(count)?;
        Some((front, Parts { head, ..self }))
    }
}

/// Shows sizes only: what peers are sent has no place in a log.
impl fmt::Debug for Parts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts")
            .field("len_bytes", &self.len_bytes())
            .field("parts", &self.rest.len())
            .finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn parts_are_put_and_joined_in_order_and_large_ones_are_shared() {
        let large = Bytes::from(vec![b'l'; 2000]);
        let rest = [Bytes::from_static(b"small"), large.clone(), Bytes::new()];
        let parts = Parts::new(b"head", &rest);
        let expected = [&b"headsmall"[..], &large[..]].concat();
        assert_eq!(parts.len_bytes(), expected.len());
        assert_eq!(parts.join(), expected);
        let mut outbox = Outbox::new();
        parts.put(&mut outbox);
        assert_eq!(outbox.to_vec(), expected);
        let mut slices = [std::io::IoSlice::new(&[]); 4];
        assert_eq!(outbox.slices(&mut slices), 2);
        assert_eq!(slices[1].as_ptr(), large.as_ptr(), "two thousand bytes are not copied");
    }

    #[test]
    fn what_is_one_part_already_is_not_copied_to_be_joined() {
        let only = [Bytes::from(vec![1; 10])];
        assert_eq!(Parts::new(b"", &only).join().as_ptr(), only[0].as_ptr());
        assert_eq!(Parts::new(b"", &[]).join(), Bytes::new());
    }
}
