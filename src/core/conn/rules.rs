//! `Rules`: what holds for one connection, wherever it was written down.

use crate::core::keepalive::Prior;
use crate::words::config::{Limits, Timeouts};
use crate::words::pressure::Pressure;

/// The rules that hold for one connection at the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    /// Those of the server.
    pub(crate) limits: &'a Limits,
    /// Those of the listener; a connection may have its own instead.
    pub(crate) timeouts: &'a Timeouts,
    /// What is known of newcomers to the listener.
    pub(crate) prior: &'a Prior,
    /// How near the server is to its limits.
    pub(crate) pressure: Pressure,
}
