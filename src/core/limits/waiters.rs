//! `Waiters`: which reactors wait for something that others release.

use crate::words::sync::atomic::{AtomicUsize, Ordering};
use crate::words::sync::{Mutex, lock};

/// The reactors that wait for one thing, by their numbers.
///
/// Who waits joins and then tries once more; who releases does so and then calls. Both steps of
/// each are SeqCst, so one of the two sees the other: nobody waits for what is there.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    /// How many are in the list, so that a release to nobody takes no lock. SeqCst, with the count
    /// of the gauge that is waited for.
    count: AtomicUsize,
    list: Mutex<Vec<usize>>,
}

impl Waiters {
    /// This one waits from now on, until it is called.
    pub(crate) fn join(&self, index: usize) {
        let mut list = lock(&self.list);
        if !list.contains(&index) {
            list.push(index);
        }
        self.count.store(list.len(), Ordering::SeqCst);
    }

    /// Calls all who wait; from then on they wait no longer.
    pub(crate) fn call(&self, mut call: impl FnMut(usize)) {
        if self.count.load(Ordering::SeqCst) == 0 {
            return;
        }
        let called = {
            let mut list = lock(&self.list);
            self.count.store(0, Ordering::SeqCst);
            std::mem::take(&mut *list)
        };
        called.into_iter().for_each(&mut call);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_is_called_once_for_all_the_times_it_joined() {
        let waiters = Waiters::default();
        let called = |waiters: &Waiters| {
            let mut called = Vec::new();
            waiters.call(|index| called.push(index));
            called
        };
        assert!(called(&waiters).is_empty());
        [3, 1, 3].into_iter().for_each(|index| waiters.join(index));
        assert_eq!(called(&waiters), [3, 1]);
        assert!(called(&waiters).is_empty());
        waiters.join(1);
        assert_eq!(called(&waiters), [1]);
    }
}
