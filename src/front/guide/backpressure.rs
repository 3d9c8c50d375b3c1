//! What happens to those who send faster than somebody reads.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/backpressure.md")]
