//! Room 6, edge: what brings connections in, and what makes them.

pub(crate) mod backoff;
pub(crate) mod connector;
pub(crate) mod idle_pool;
pub(crate) mod listener;
pub(crate) mod reconnect;
