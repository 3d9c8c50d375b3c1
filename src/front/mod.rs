//! Room 7, front: what a user of the crate sees.

pub(crate) mod builder;
mod client;
pub(crate) mod guide;
pub(crate) mod server;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod testing;
