//! From nothing to a server that serves, says who it is, and ends.
#![doc = ""]
#![doc = include_str!("../../../docs/guide/first_server.md")]
