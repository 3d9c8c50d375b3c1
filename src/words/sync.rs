//! Locks, atomics and threads: std's in the real build, loom's under `--cfg loom`.

#[cfg(not(loom))]
pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, atomic};
#[cfg(not(loom))]
pub(crate) use std::thread;

#[cfg(loom)]
pub(crate) use loom::{
    sync::{Arc, Condvar, Mutex, MutexGuard, atomic},
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
