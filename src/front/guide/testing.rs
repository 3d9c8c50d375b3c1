//! How a protocol is tested without a network.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/testing.md")]
