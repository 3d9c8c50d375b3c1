//! Room 2, parts: data structures; no policy, no sockets, no threads.

pub(crate) mod mailbox;
