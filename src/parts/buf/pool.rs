//! `BufferPool`: the read buffers of one reactor, lent while a connection is readable.

use bytes::BytesMut;

/// Lends buffers of one size and takes them back; keeps at most a stated number of idle ones.
///
/// A cycle of lend, read, `split_to(n).freeze()`, drop and give back allocates nothing after its
/// first round: the first split turns the buffer into a counted one (`bytes` allocates that count
/// once per buffer), and a counted buffer whose other handles are gone takes its whole memory back.
#[derive(Debug)]
pub(crate) struct BufferPool {
    /// Idle buffers, each exactly `chunk_bytes` large and without a sharer; the last is the
    /// warmest.
    idle: Vec<BytesMut>,
    chunk_bytes: usize,
    idle_max: usize,
    stats: PoolStats,
}

/// What a pool has done and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolStats {
    /// Leases served from an idle buffer.
    pub(crate) hits: u64,
    /// Leases that allocated.
    pub(crate) misses: u64,
    /// Buffers freed on return because somebody still shared them or because they had grown.
    pub(crate) unfit: u64,
    /// Buffers freed because there were enough idle ones, and by [`BufferPool::trim`].
    pub(crate) surplus: u64,
    /// Buffers that are lent now.
    pub(crate) leased_count: usize,
    /// Buffers that are idle now.
    pub(crate) retained_count: usize,
    /// The memory of the idle ones and of the list they stand in.
    pub(crate) retained_bytes: usize,
}

impl BufferPool {
    /// A pool of buffers of `chunk_bytes` each, of which at most `idle_max` are kept idle.
    pub(crate) fn new(chunk_bytes: usize, idle_max: usize) -> Self {
        debug_assert!(chunk_bytes > 0);
        BufferPool { idle: Vec::new(), chunk_bytes, idle_max, stats: PoolStats::default() }
    }

    /// Lends an empty buffer with a capacity of at least `chunk_bytes`.
    #[inline]
    pub(crate) fn lease(&mut self) -> BytesMut {
        self.stats.leased_count += 1;
        if let Some(mut buffer) = self.idle.pop() {
            self.stats.hits += 1;
            buffer.clear();
            return buffer;
        }
        self.stats.misses += 1;
        BytesMut::with_capacity(self.chunk_bytes)
    }

    /// Takes a lent buffer back: whatever is left of it after splits, whatever it still contains.
    #[inline]
    pub(crate) fn give_back(&mut self, mut buffer: BytesMut) {
        self.write_off();
        if !self.is_whole(&mut buffer) {
            self.stats.unfit += 1;
        } else if self.idle.len() >= self.idle_max {
            self.stats.surplus += 1;
        } else {
            poison(&mut buffer);
            self.idle.push(buffer);
        }
    }

    /// Forgets a lent buffer that will not come back, such as one that died with a panic.
    #[inline]
    pub(crate) fn write_off(&mut self) {
        debug_assert!(self.stats.leased_count > 0, "more buffers came back than were lent");
        self.stats.leased_count = self.stats.leased_count.saturating_sub(1);
    }

    /// Keeps at most `idle_max` buffers idle from now on.
    pub(crate) fn keep(&mut self, idle_max: usize) {
        self.idle_max = idle_max;
        self.trim(idle_max);
    }

    /// The memory of all buffers, those that are lent included: they count as one chunk each.
    pub(crate) fn held_bytes(&self) -> usize {
        let list_bytes = self.idle.capacity() * size_of::<BytesMut>();
        (self.idle.len() + self.stats.leased_count) * self.chunk_bytes + list_bytes
    }

    /// Frees idle buffers until at most `keep` are left.
    pub(crate) fn trim(&mut self, keep: usize) {
        let surplus = self.idle.len().saturating_sub(keep);
        if surplus == 0 {
            return;
        }
        self.stats.surplus += surplus as u64;
        self.idle.truncate(keep);
        self.idle.shrink_to(keep);
    }

    /// Counts since the start, and what there is now.
    pub(crate) fn stats(&self) -> PoolStats {
        let list_bytes = self.idle.capacity() * size_of::<BytesMut>();
        PoolStats {
            retained_count: self.idle.len(),
            retained_bytes: self.idle.len() * self.chunk_bytes + list_bytes,
            ..self.stats
        }
    }

    /// Empties `buffer` and says whether it is of exactly the pool's size and nobody shares it.
    ///
    /// `capacity` shows one handle's part of the memory. One that shows a whole chunk was never
    /// split. `try_reclaim` gives the others the rest back if they are the only handle left, and
    /// allocates nothing. One that shows more has grown for a large frame: it goes back to the
    /// allocator, else a few large frames would make every buffer large. (One that has grown, was
    /// split and shows exactly a chunk by chance is kept: sound, and it ends with the next split.)
    #[inline]
    fn is_whole(&self, buffer: &mut BytesMut) -> bool {
        buffer.clear();
        let chunk = self.chunk_bytes;
        (buffer.capacity() == chunk || buffer.try_reclaim(chunk)) && buffer.capacity() == chunk
    }
}

/// Overwrites a buffer that goes idle, so that a connection which shows bytes it never received
/// shows these; left out of release builds for its cost.
fn poison(buffer: &mut BytesMut) {
    if cfg!(debug_assertions) {
        buffer.resize(buffer.capacity(), POISON);
    }
}

/// What idle buffers are full of in debug builds.
const POISON: u8 = 0xDB;

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use bytes::{Buf, Bytes};
    use proptest::collection::vec;
    use proptest::prelude::*;

    const CHUNK: usize = 4096;

    fn read(buffer: &mut BytesMut, count: usize) -> Bytes {
        buffer.extend_from_slice(&vec![b'x'; count]);
        buffer.split_to(count).freeze()
    }

    #[test]
    fn the_same_memory_comes_back_after_a_split() {
        let mut pool = BufferPool::new(CHUNK, 4);
        let mut memory = None;
        for count in [1, 100, CHUNK, 2000, 7].into_iter().cycle().take(100) {
            let mut buffer = pool.lease();
            assert!(buffer.is_empty() && buffer.capacity() == CHUNK);
            assert_eq!(*memory.get_or_insert(buffer.as_ptr()), buffer.as_ptr());
            let message = read(&mut buffer, count);
            drop(message);
            pool.give_back(buffer);
        }
        let stats = pool.stats();
        assert_eq!((stats.hits, stats.misses, stats.unfit), (99, 1, 0));
    }

    #[test]
    fn what_somebody_still_shares_is_not_lent_again() {
        let mut pool = BufferPool::new(CHUNK, 4);
        let mut buffer = pool.lease();
        let kept = read(&mut buffer, 100);
        pool.give_back(buffer);
        assert_eq!((pool.stats().unfit, pool.stats().retained_count), (1, 0));
        assert_eq!(kept, vec![b'x'; 100]);
    }

    #[test]
    fn what_has_grown_is_freed_however_little_of_it_is_left() {
        let mut pool = BufferPool::new(CHUNK, 4);
        for front in [0, 1, CHUNK, 20 * CHUNK - 1, 20 * CHUNK] {
            let mut buffer = pool.lease();
            buffer.resize(20 * CHUNK, 1);
            drop(buffer.split_to(front));
            pool.give_back(buffer);
            let mut buffer = pool.lease();
            buffer.resize(20 * CHUNK, 1);
            buffer.advance(front);
            pool.give_back(buffer);
        }
        assert_eq!((pool.stats().unfit, pool.stats().retained_count), (10, 0));
    }

    #[test]
    fn what_has_grown_and_is_shared_is_freed_though_a_chunk_of_it_is_left() {
        let mut pool = BufferPool::new(CHUNK, 4);
        for left in [CHUNK - 1, CHUNK + 1, 2 * CHUNK] {
            let mut buffer = pool.lease();
            buffer.reserve(20 * CHUNK);
            buffer.resize(buffer.capacity(), 1);
            let kept = buffer.split_to(buffer.len() - left).freeze();
            assert_eq!(buffer.capacity(), left);
            pool.give_back(buffer);
            drop(kept);
        }
        assert_eq!((pool.stats().unfit, pool.stats().retained_count), (3, 0));
    }

    #[test]
    fn the_number_of_idle_buffers_is_bounded() {
        let mut pool = BufferPool::new(CHUNK, 3);
        let leased: Vec<_> = (0..5).map(|_| pool.lease()).collect();
        assert_eq!(pool.stats().leased_count, 5);
        leased.into_iter().for_each(|buffer| pool.give_back(buffer));
        let stats = pool.stats();
        assert_eq!((stats.leased_count, stats.retained_count, stats.surplus), (0, 3, 2));
        assert!(stats.retained_bytes >= 3 * CHUNK);
        pool.trim(1);
        assert_eq!((pool.stats().retained_count, pool.stats().surplus), (1, 4));
        pool.trim(0);
        assert_eq!(pool.stats().retained_bytes, 0);
    }

    #[test]
    fn a_buffer_lost_to_a_panic_is_written_off() {
        let mut pool = BufferPool::new(CHUNK, 3);
        drop(pool.lease());
        pool.write_off();
        assert_eq!((pool.stats().leased_count, pool.stats().retained_count), (0, 0));
    }

    #[cfg(debug_assertions)]
    #[test]
    fn idle_buffers_are_poisoned() {
        let mut pool = BufferPool::new(CHUNK, 1);
        let mut buffer = pool.lease();
        buffer.extend_from_slice(b"a secret of another connection");
        drop(buffer.split_to(9));
        pool.give_back(buffer);
        assert_eq!(pool.idle[0], vec![POISON; CHUNK]);
        assert!(pool.lease().is_empty());
    }

    proptest! {
        #[test]
        fn lent_plus_idle_is_what_was_made_minus_what_was_freed(
            ops in vec((0..6u8, 0..3 * CHUNK), 1..200),
        ) {
            let mut pool = BufferPool::new(CHUNK, 3);
            let (mut leased, mut kept): (Vec<BytesMut>, Vec<Bytes>) = (Vec::new(), Vec::new());
            for (op, count) in ops {
                match (op, leased.pop()) {
                    (0 | 1, buffer) => {
                        leased.extend(buffer);
                        let new = pool.lease();
                        prop_assert!(new.is_empty() && new.capacity() >= CHUNK);
                        leased.push(new);
                    }
                    (2, Some(mut buffer)) => {
                        kept.push(read(&mut buffer, count));
                        leased.push(buffer);
                    }
                    (3, buffer) => {
                        leased.extend(buffer);
                        kept.clear();
                    }
                    (_, Some(buffer)) => pool.give_back(buffer),
                    (_, None) => pool.trim(2),
                }
                let stats = pool.stats();
                prop_assert_eq!(stats.leased_count, leased.len());
                prop_assert!(stats.retained_count <= 3);
                let there = (stats.leased_count + stats.retained_count) as u64;
                prop_assert_eq!(there, stats.misses - stats.unfit - stats.surplus);
            }
        }
    }
}
