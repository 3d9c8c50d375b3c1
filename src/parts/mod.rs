//! Room 2, parts: data structures; no policy, no sockets, no threads.

#[cfg(not(loom))]
pub(crate) mod buf;
pub(crate) mod mailbox;
#[cfg(not(loom))]
pub(crate) mod pending;
pub(crate) mod roll;
#[cfg(not(loom))]
pub(crate) mod table;
#[cfg(not(loom))]
pub(crate) mod timer;
