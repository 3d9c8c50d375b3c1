//! What each timeout is for, and how long a connection may be silent.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/timeouts.md")]
#![doc = ""]
#![doc = include_str!("../../../docs/keepalive.md")]
