//! Sending from other threads, at other times, and to many.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/pushing.md")]
