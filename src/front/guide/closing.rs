//! How connections end, how servers do, and what is told of it.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/closing.md")]
