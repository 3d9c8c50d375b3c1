//! Connection management for programs that hold a great many connections.
#![deny(unsafe_code)]
#![deny(missing_docs)]
#![expect(dead_code, unreachable_pub, unused_imports, reason = "no room above uses them yet")]

mod words;
mod parts;
mod sys;
