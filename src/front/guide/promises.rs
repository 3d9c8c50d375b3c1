//! What the crate promises, and the test that holds each promise.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/promises.md")]
