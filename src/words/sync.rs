//! Locks, atomics and threads: std's in the real build, loom's under `--cfg loom`.

/// Std's in both builds: nothing of ours depends on the order in which references are dropped,
/// and loom's would only multiply what its models have to explore.
pub(crate) use std::sync::Arc;

#[cfg(not(loom))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(crate) use std::thread;

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Condvar, Mutex, MutexGuard, atomic},
    thread,
};

/// Locks `mutex`, whatever happened to the thread that held it before.
///
/// No lock of this crate is held while user code runs, and no code under one of our locks leaves
/// its data half changed, so a poisoned lock still guards a whole value.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Waits for `bell` with the lock let go meanwhile; poison means as little as in [`lock`].
pub(crate) fn wait<'a, T>(bell: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    bell.wait(guard)
        .unwrap_or_else(|poisoned| poisoned.into_inner())
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
