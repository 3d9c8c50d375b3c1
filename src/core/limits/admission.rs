//! Admission: how many connections a server holds, counted once for all of its reactors.

use crate::words::sync::atomic::{AtomicUsize, Ordering};

/// The count of connections and its maximum.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Connections admitted and not yet released. The count alone matters, it guards no other
    /// memory; SeqCst because a release and a refused try must not both miss each other: a reactor
    /// says that it waits, then tries again, while one that releases looks for those that wait
    /// after it has counted down.
    count: AtomicUsize,
    max: usize,
}

/// The right to hold one connection. It is given back by [`Admission::release`], never dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Permit(());

impl Admission {
    pub(crate) fn new(max: usize) -> Self {
        Admission { count: AtomicUsize::new(0), max }
    }

    /// A permit, if there is one left.
    pub(crate) fn try_admit(&self) -> Option<Permit> {
        let room = |count: usize| (count < self.max).then_some(count + 1);
        let admitted = self.count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, room);
        admitted.is_ok().then_some(Permit(()))
    }

    /// Takes a permit back.
    pub(crate) fn release(&self, permit: Permit) {
        let Permit(()) = permit;
        let before = self.count.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "a permit is released once");
    }

    /// How many are out.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_the_maximum_and_exactly_it_again_after_churn() {
        let admission = Admission::new(3);
        for _ in 0..1_000 {
            let permits: Vec<_> = std::iter::from_fn(|| admission.try_admit()).collect();
            assert_eq!((permits.len(), admission.count()), (3, 3));
            permits.into_iter().for_each(|permit| admission.release(permit));
        }
        assert_eq!(admission.count(), 0);
    }

    #[test]
    fn threads_that_compete_never_exceed_it() {
        let admission = Admission::new(5);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Some(permit) = admission.try_admit() {
                            assert!(admission.count() <= 5);
                            admission.release(permit);
                        }
                    }
                });
            }
        });
        assert_eq!(admission.count(), 0);
    }
}
