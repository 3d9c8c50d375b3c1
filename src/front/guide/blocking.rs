//! Handlers that take their time, and work that is done elsewhere.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/blocking.md")]
