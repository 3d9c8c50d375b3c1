//! `Gauge`: a count that never exceeds its maximum, shared by all reactors.

use crate::words::sync::atomic::{AtomicUsize, Ordering};

/// So many of at most so many.
#[derive(Debug)]
pub(super) struct Gauge {
    /// What was added and not yet taken off. The count alone matters, it guards no other memory;
    /// SeqCst because a release and a refused try must not both miss each other: a reactor says
    /// that it waits, then tries again, while one that releases looks for those that wait after it
    /// has counted down.
    count: AtomicUsize,
    /// SeqCst, for the same reason: who raises it looks for those that wait afterwards.
    max: AtomicUsize,
}

/// The maximum of a gauge that has none.
const NONE: usize = usize::MAX;

impl Gauge {
    /// Nothing of at most `max`, or of any number.
    pub(super) fn new(max: Option<usize>) -> Self {
        Gauge { count: AtomicUsize::new(0), max: AtomicUsize::new(max.unwrap_or(NONE)) }
    }

    /// One more; false if it is full.
    pub(super) fn try_add(&self) -> bool {
        let max = self.max.load(Ordering::SeqCst);
        let room = |count: usize| (count < max).then_some(count + 1);
        self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room).is_ok()
    }

    /// One less.
    pub(super) fn sub(&self) {
        let before = self.count.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "what was added is taken off once");
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// How many there may be.
    pub(super) fn max(&self) -> usize {
        self.max.load(Ordering::SeqCst)
    }

    /// Whether there is none left, as far as a look can tell.
    pub(super) fn is_full(&self) -> bool {
        self.count() >= self.max()
    }

    /// Changes the maximum. If there are more already they stay, and no more come.
    pub(super) fn set_max(&self, max: Option<usize>) {
        self.max.store(max.unwrap_or(NONE), Ordering::SeqCst);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_maximum_and_exactly_it_again_after_churn() {
        let gauge = Gauge::new(Some(3));
        for _ in 0..1_000 {
            let added = std::iter::repeat_with(|| gauge.try_add()).take_while(|&added| added);
            assert_eq!((added.count(), gauge.count()), (3, 3));
            (0..3).for_each(|_| gauge.sub());
        }
        assert_eq!(gauge.count(), 0);
    }

    #[test]
    fn threads_that_compete_never_exceed_it() {
        let gauge = Gauge::new(Some(5));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if gauge.try_add() {
                            assert!(gauge.count() <= 5);
                            gauge.sub();
                        }
                    }
                });
            }
        });
        assert_eq!(gauge.count(), 0);
    }

    #[test]
    fn a_lower_maximum_throws_nobody_out_and_lets_nobody_in() {
        let gauge = Gauge::new(None);
        assert!((0..10).all(|_| gauge.try_add()));
        gauge.set_max(Some(4));
        (0..6).for_each(|_| {
            assert!(!gauge.try_add());
            gauge.sub();
        });
        assert!(gauge.is_full() && !gauge.try_add());
        gauge.set_max(Some(5));
        assert!(gauge.try_add() && !gauge.try_add());
    }
}
