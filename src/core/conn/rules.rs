//! `Rules`: what holds for one connection, wherever it was written down.

use crate::words::config::{Limits, Timeouts};

/// The rules that hold for one connection at the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// Those of the server.
    pub(crate) limits: &'a Limits,
    /// Those of the listener; a connection may have its own instead.
    pub(crate) timeouts: &'a Timeouts,
}
