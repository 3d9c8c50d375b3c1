//! Connection management for programs that hold a great many connections.
#![deny(unsafe_code)]
#![deny(missing_docs)]

// The rooms, in reading order; each may use those before it only. Under `--cfg loom` only what
// the models drive is built: the scheduler and the mailbox.
mod words;

mod parts;

#[cfg(not(loom))]
mod core;

#[cfg(not(loom))]
mod sys;

mod engine;

#[cfg(not(loom))]
mod edge;

#[cfg(not(loom))]
mod front;

pub use words::id::ConnId;

#[cfg(all(any(test, feature = "sim"), not(loom)))]
pub use front::sim;

#[cfg(not(loom))]
pub use {
    core::{
        codec::{Codec, FrameTooLarge, LengthPrefixed, Raw},
        context::{Context, SendError},
        handle::{Handle, TrySendError},
        handler::{Handler, HandlerFn, handler_fn},
    },
    engine::counters::ReactorSnapshot,
    front::{
        builder::Builder,
        server::{Control, Report, Server, Snapshot},
    },
    parts::buf::Outbox,
    words::{
        config::{Limits, Placement, Scheduling},
        error::{BoxError, Error, Outcome},
        reason::{Blame, Cause, ClosePhase, CloseReason},
    },
};
