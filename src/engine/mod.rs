//! Room 5, engine: threads, loops and wake-ups; no protocol rules.

pub(crate) mod sched;
