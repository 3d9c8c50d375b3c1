//! Room 2, parts: data structures; no policy, no sockets, no threads.

pub(crate) mod buf;
pub(crate) mod mailbox;
pub(crate) mod pending;
pub(crate) mod roll;
pub(crate) mod table;
pub(crate) mod timer;
