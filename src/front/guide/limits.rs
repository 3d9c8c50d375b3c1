//! Every limit: its default, what happens when it is met, and where it shows.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/limits.md")]
