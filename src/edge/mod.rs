//! Room 6, edge: what brings connections in, and what makes them.

pub(crate) mod connector;
pub(crate) mod listener;
