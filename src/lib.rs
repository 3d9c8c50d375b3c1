//! Connection management for programs that hold a great many connections.
//!
//! A [`Server`] listens, and runs a [`Handler`] for each connection behind a [`Codec`]. Handlers
//! may block: the thread that runs one loses its reactor to another thread, and all other
//! connections go on. What connections may use is bounded by [`Limits`]; why one ended is told by
//! its [`CloseReason`]; other threads reach one through its [`Handle`].
//!
//! ```
//! use switchboard::{Raw, Server, handler_fn};
//!
//! let server = Server::builder()
//!     .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
//!     .start()?;
//! println!("listening on {}", server.local_addr());
//! let report = server.stop();
//! assert_eq!(report.opened, report.closed_count());
//! # Ok::<(), switchboard::Error>(())
//! ```
//!
//! # Features
//!
//! - `sim`: the simulation of the whole server, as module `sim`. Without dependencies.
//!
//! # Threads and order
//!
//! The calls for one connection come one at a time and in order, on changing threads; each sees
//! what the ones before it wrote. There is no order between connections. No call of a [`Context`]
//! or a [`Handle`] blocks.
//!
//! # Platforms
//!
//! Linux, Windows, macOS and FreeBSD, through mio. The same program runs on all of them. What
//! differs:
//!
//! - [`config::Placement::ReusePort`]: on Linux only, and the default there;
//! - [`control::ReactorSnapshot::waiting`]: told on Linux only;
//! - the limit of open files, which Windows does not have: see [`Limits::connections_max`] and
//!   [`Builder::raise_descriptor_limit`];
//! - what ends [`Builder::run`]: SIGINT and SIGTERM, or Ctrl-C and the closing of the console.
#![deny(unsafe_code)]
#![deny(missing_docs)]
#![allow(dead_code, unused_imports, reason = "not yet used by the engine")]
#![cfg_attr(
    loom,
    allow(dead_code, unreachable_pub, reason = "the models drive a part of the crate")
)]

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
        codec::{Codec, LengthPrefixed, Raw},
        context::Context,
        handle::Handle,
        handler::{Handler, handler_fn},
    },
    front::{builder::Builder, server::Server},
    words::{
        config::Limits,
        error::{Error, Outcome},
        reason::CloseReason,
    },
};

/// What an own [`Codec`] needs, and what the ready-made ones answer.
#[cfg(not(loom))]
pub mod codec {
    pub use crate::core::codec::FrameTooLarge;
    pub use crate::parts::buf::Outbox;
}

/// Why connections end: the parts of a [`CloseReason`].
#[cfg(not(loom))]
pub mod close {
    pub use crate::words::reason::{Blame, Cause, ClosePhase};
}

/// The choices of a [`Builder`].
#[cfg(not(loom))]
pub mod config {
    pub use crate::words::config::{Evict, Idle, Listening, Placement, Rate, Scheduling, Timeouts};
}

/// Steering a [`Server`] at work, and what it says of itself.
#[cfg(not(loom))]
pub mod control {
    pub use crate::engine::counters::{MemorySnapshot, ReactorSnapshot};
    pub use crate::front::server::{Control, Report, Snapshot};
}

/// What calls on a connection answer when they fail, and the error of callbacks.
#[cfg(not(loom))]
pub mod error {
    pub use crate::core::context::SendError;
    pub use crate::core::handle::TrySendError;
    pub use crate::words::error::BoxError;
}

/// The type behind [`handler_fn`].
#[cfg(not(loom))]
pub mod handler {
    pub use crate::core::handler::HandlerFn;
}

/// The programs of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
