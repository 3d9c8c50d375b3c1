//! Room 1, words: plain types that every other room speaks in; no logic, no I/O.

pub(crate) mod bucket;
pub(crate) mod clock;
pub(crate) mod config;
pub(crate) mod error;
pub(crate) mod id;
pub(crate) mod pressure;
pub(crate) mod reason;
pub(crate) mod sync;
