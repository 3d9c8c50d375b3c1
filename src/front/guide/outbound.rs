//! Connections that the program opens: once, for ever, or from a pool.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/outbound.md")]
