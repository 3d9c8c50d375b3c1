//! `Marks`: where in a connection's output somebody wants to know that the system has taken it.

use std::collections::VecDeque;

/// The marks of one connection, in the order of its output.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    /// Bytes that were written while there were marks.
    written: u64,
    /// Up to which byte, and who is told.
    pending: VecDeque<(u64, u64)>,
}

impl Marks {
    /// Marks the end of a message: so many bytes have to be written from now on. Marks are set in
    /// the order of the output.
    pub(crate) fn set(&mut self, bytes_ahead: usize, key: u64) {
        self.pending.push_back((self.written + bytes_ahead as u64, key));
    }

    /// So many bytes were written.
    pub(crate) fn advance(&mut self, count: usize) {
        self.written += count as u64;
    }

    /// Takes the next mark that was passed.
    pub(crate) fn pop_passed(&mut self) -> Option<u64> {
        let &(at, key) = self.pending.front()?;
        (at <= self.written).then(|| {
            self.pending.pop_front();
            key
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_is_told_once_when_its_byte_is_written(
            messages in prop::collection::vec(1..50usize, 1..20),
            writes in prop::collection::vec(1..80usize, 1..60),
        ) {
            let mut marks = Marks::default();
            let mut ends = Vec::new();
            let mut ahead = 0;
            for (key, len) in (0..).zip(messages) {
                ahead += len;
                marks.set(ahead, key);
                ends.push(ahead);
            }
            let (mut written, mut told) = (0, 0);
            for count in writes {
                let count = count.min(ahead - written);
                written += count;
                marks.advance(count);
                while let Some(key) = marks.pop_passed() {
                    prop_assert_eq!(key, told as u64);
                    told += 1;
                }
                prop_assert_eq!(told, ends.iter().filter(|&&end| end <= written).count());
                prop_assert_eq!(marks.is_empty(), told == ends.len());
            }
        }
    }
}
