//! Locks, atomics and threads: std's in the real build, loom's under `--cfg loom`, and Shuttle's
//! under `--cfg loom --cfg shuttle`: the same parts of the crate, another checker.

/// Std's in all builds: nothing of ours depends on the order in which references are dropped,
/// and loom's would only multiply what its models have to explore.
pub(crate) use std::sync::Arc;

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};
#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(crate) use std::thread;

#[cfg(not(loom))]
use std::sync::TryLockError;

#[cfg(loom)]
pub(crate) use loom_try_lock::TryLockGuard;

#[cfg(all(loom, not(shuttle)))]
pub(crate) use loom::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

/// Locks `mutex`, whatever happened to the thread that held it before.
///
/// No lock of this crate is held while user code runs, and no code under one of our locks leaves
/// its data half changed, so a poisoned lock still guards a whole value.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits for `bell` with the lock let go meanwhile; poison means as little as in [`lock`].
pub(crate) fn wait<'a, T>(bell: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    bell.wait(guard).unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Like [`wait`], for `timeout` at the longest. May return early; loom knows no time and waits on.
pub(crate) fn wait_timeout<'a, T>(
    bell: &Condvar,
    guard: MutexGuard<'a, T>,
    timeout: std::time::Duration,
) -> MutexGuard<'a, T> {
    let waited = bell.wait_timeout(guard, timeout);
    waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
}

/// A lock that nobody ever waits for.
#[derive(Debug)]
pub(crate) struct TryLock<T> {
    /// What decides under loom, whose `try_lock` waits for a holder that is just taking it.
    #[cfg(loom)]
    taken: atomic::AtomicBool,
    inner: Mutex<T>,
}

/// The right to what a [`TryLock`] guards.
#[cfg(not(loom))]
pub(crate) type TryLockGuard<'a, T> = MutexGuard<'a, T>;

impl<T> TryLock<T> {
    /// A lock that nobody has taken.
    pub(crate) fn new(value: T) -> Self {
        TryLock {
            #[cfg(loom)]
            taken: atomic::AtomicBool::new(false),
            inner: Mutex::new(value),
        }
    }

    /// Takes the lock unless somebody has it. Poison means as little as in [`lock`].
    #[cfg(not(loom))]
    pub(crate) fn try_lock(&self) -> Option<TryLockGuard<'_, T>> {
        match self.inner.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[cfg(loom)]
mod loom_try_lock {
    use std::ops::{Deref, DerefMut};
    use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

    use super::{MutexGuard, TryLock, lock};

    /// The right to what a [`TryLock`] guards.
    #[derive(Debug)]
    pub(crate) struct TryLockGuard<'a, T> {
        owner: &'a TryLock<T>,
        inner: Option<MutexGuard<'a, T>>,
    }

    impl<T> TryLock<T> {
        /// Takes the lock unless somebody has it.
        pub(crate) fn try_lock(&self) -> Option<TryLockGuard<'_, T>> {
            self.taken.compare_exchange(false, true, Acquire, Relaxed).ok()?;
            Some(TryLockGuard { owner: self, inner: Some(lock(&self.inner)) })
        }
    }

    impl<T> Drop for TryLockGuard<'_, T> {
        fn drop(&mut self) {
            self.inner = None;
            self.owner.taken.store(false, Release);
        }
    }

    impl<T> Deref for TryLockGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.inner.as_ref().expect("present until the drop")
        }
    }

    impl<T> DerefMut for TryLockGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.inner.as_mut().expect("present until the drop")
        }
    }
}

/// Lets others run, in a loop that waits for something a few instructions away.
pub(crate) fn pause() {
    // A failed look has no effect, so that every run with one has its equal without: loom need not
    // explore beyond it. It would do so for ever, for it does not know that spinning is fair.
    #[cfg(all(loom, not(shuttle)))]
    loom::skip_branch();
    thread::yield_now();
}
