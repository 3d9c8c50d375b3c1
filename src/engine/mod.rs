//! Room 5, engine: reactors, the threads that turn them, and how they reach each other.

#[cfg(not(loom))]
pub(crate) mod common;
#[cfg(not(loom))]
pub(crate) mod counters;
#[cfg(not(loom))]
pub(crate) mod desk;
#[cfg(not(loom))]
pub(crate) mod reactor;
#[cfg(not(loom))]
pub(crate) mod request;
pub(crate) mod sched;
#[cfg(not(loom))]
pub(crate) mod spawn;
