//! `Visit`: a closure that another thread has run on a connection, between its handler's calls.

use super::context::Context;
use crate::words::error::Outcome;

/// What is called with the handler and its context.
pub(super) type Visit<H, M> = Box<dyn FnOnce(&mut H, &mut Context<'_, M>) -> Outcome + Send>;
