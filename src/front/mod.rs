//! Room 7, front: what a user of the crate sees.

pub(crate) mod builder;
pub(crate) mod server;
