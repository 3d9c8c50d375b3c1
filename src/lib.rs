//! Connection management for programs that hold a great many connections.
#![deny(unsafe_code)]
#![deny(missing_docs)]
#![allow(clippy::allow_attributes, reason = "see the next line")]
#![allow(
    dead_code,
    unused_imports,
    reason = "the rooms above are still to come"
)]

mod engine;
mod parts;
#[cfg(not(loom))]
mod sys;
mod words;

pub use words::id::ConnId;
