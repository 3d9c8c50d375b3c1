//! Room 6, edge: what brings connections in.

pub(crate) mod listener;
