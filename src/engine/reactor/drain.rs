//! `Farewells`: whom a drain still has to ask to come to an end, and when.

use std::time::Duration;

use super::Reactor;
use super::stream::May;
use crate::sys::Kernel;
use crate::words::clock::Time;
use crate::words::id::ConnId;

/// Connections that are still to be asked, in no order that they could know. The time is divided
/// into as many parts as there are connections; each is asked somewhere in its part. So their peers
/// come back, somewhere else, one after the other and not all at once.
#[derive(Debug)]
pub(super) struct Farewells {
    /// The next one last.
    waiting: Vec<ConnId>,
    count: u32,
    began: Time,
    spread: Duration,
}

impl Farewells {
    pub(super) fn new(ids: impl Iterator<Item = ConnId>, now: Time, spread: Duration) -> Self {
        let mut waiting: Vec<ConnId> = ids.collect();
        waiting.sort_by_cached_key(|&id| scatter(id.as_u64()));
        let count = u32::try_from(waiting.len()).unwrap_or(u32::MAX);
        Farewells { waiting, count, began: now, spread }
    }

    /// When the next one is to be asked; `None` if all are.
    pub(super) fn next_at(&self) -> Option<Time> {
        let id = self.waiting.last()?;
        let part = self.spread / self.count.max(1);
        let left = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
        let before = self.count.saturating_sub(left);
        let jitter = u32::try_from(scatter(id.as_u64() + 1) >> 48).unwrap_or(0);
        Some(self.began + part * before + part * jitter / (1 << 16))
    }

    /// The next one whose time has come.
    pub(super) fn pop_due(&mut self, now: Time) -> Option<ConnId> {
        self.next_at().filter(|&at| at <= now).and_then(|_| self.waiting.pop())
    }
}

/// Scatters numbers that are close together (the finalizer of splitmix64; Steele, Lea and Flood,
/// "Fast Splittable Pseudorandom Number Generators", 2014).
fn scatter(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

impl<K: Kernel> Reactor<K> {
    /// Asks those to come to an end whose time has come.
    pub(super) fn say_goodbye(&mut self) {
        while let Some(id) = self.farewells.as_mut().and_then(|rest| rest.pop_due(self.io.now)) {
            if let Some(entry) = self.table.get_mut(id) {
                self.io.counters.asked += u64::from(entry.conn.handle_drain(self.io.now));
                self.io.advance(id, entry, May::Queue);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(count: usize, spread: Duration) -> Vec<(Time, ConnId)> {
        let ids = (0..count).map(|slot| ConnId::new(1, slot, 3));
        let mut rest = Farewells::new(ids, Time::from_nanos(5), spread);
        std::iter::from_fn(|| {
            let at = rest.next_at()?;
            assert_eq!(rest.pop_due(Time::from_nanos(at.as_nanos() - 1)), None);
            Some((at, rest.pop_due(at).expect("its time has come")))
        })
        .collect()
    }

    #[test]
    fn each_is_asked_once_in_a_part_of_the_time_that_is_its_own() {
        let spread = Duration::from_secs(10);
        let times = times(1_000, spread);
        let mut ids: Vec<_> = times.iter().map(|&(_, id)| id.as_u64()).collect();
        assert!(!ids.is_sorted(), "in no order that they could know");
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 1_000);
        for (number, (at, _)) in (0..).zip(times) {
            let part = Duration::from_millis(10);
            let begin = Time::from_nanos(5) + part * number;
            assert!(at >= begin && at.since(begin) < part, "{number}: {at:?}");
        }
    }

    #[test]
    fn without_a_spread_all_are_asked_at_once() {
        assert!(times(100, Duration::ZERO).iter().all(|&(at, _)| at == Time::from_nanos(5)));
        assert!(times(0, Duration::ZERO).is_empty());
    }
}
