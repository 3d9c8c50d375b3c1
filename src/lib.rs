//! Connection management for programs that hold a great many connections.
#![deny(unsafe_code)]
#![deny(missing_docs)]
#![expect(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "the rooms above are still being built"
)]

mod sys;
mod words;
