//! Room 5, engine: reactors, the threads that turn them, and how they reach each other.

pub(crate) mod counters;
pub(crate) mod desk;
pub(crate) mod reactor;
pub(crate) mod sched;
