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
//! The [`guide`] shows how the parts are used, and says what may be relied on.
//!
//! # Features
//!
//! - `sim`: simulated worlds for whole servers, with protocols of yours in them, as module `sim`.
//!   Without dependencies.
//! - `testing`: a bench for handlers and a kit for codecs, as module `testing`. Without
//!   dependencies.
//! - `tokio-util`: codecs written for `tokio_util` (`codec::TokioUtil`). Depends on `tokio-util`.
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
//!
//! WebAssembly has no sockets: there the crate compiles without its servers and clients, to the
//! [`codec`]s and to what a [`Handler`] is written with.
#![deny(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(
    any(loom, target_family = "wasm"),
    allow(
        dead_code,
        unreachable_pub,
        unused_imports,
        reason = "who uses it is left out: the models drive a part, and wasm has no sockets"
    )
)]

// The rooms, in reading order; each may use those before it only. Under `--cfg loom` only what
// the models drive is built: the scheduler, and the rooms below it; for WebAssembly what makes no
// system call and starts no thread.
mod words;

mod parts;

mod core;

#[cfg(not(any(loom, target_family = "wasm")))]
mod sys;

#[cfg(not(target_family = "wasm"))]
mod engine;

#[cfg(not(any(loom, target_family = "wasm")))]
mod edge;

#[cfg(not(any(loom, target_family = "wasm")))]
mod front;

pub use words::id::ConnId;

#[cfg(all(any(test, feature = "sim"), not(any(loom, target_family = "wasm"))))]
pub use front::sim;

#[cfg(not(any(loom, target_family = "wasm")))]
pub use front::{builder::Builder, server::Server};

#[cfg(not(loom))]
pub use {
    core::{
        codec::{Codec, LengthPrefixed, Raw},
        context::Context,
        handle::Handle,
        handler::{Handler, handler_fn},
    },
    words::{
        config::Limits,
        error::{Error, Outcome},
        reason::CloseReason,
    },
};

/// Connections that the program opens itself: see [`Control::connect`](control::Control::connect).
#[cfg(not(any(loom, target_family = "wasm")))]
pub mod client {
    pub use crate::core::dial::{Attempt, ConnectCause, ConnectError};
    pub use crate::edge::backoff::Backoff;
    pub use crate::edge::connector::{ConnectOptions, Connecting, Target};
    pub use crate::edge::idle_pool::{CheckoutError, IdlePool, PoolOptions, Pooled, RecvError};
    pub use crate::edge::reconnect::{Reconnect, ReconnectEvent, ReconnectOptions, ReconnectState};
}

/// The ready-made codecs, what they answer, and what an own [`Codec`] needs.
///
/// Frames of all of them are cut out of the read buffer, and each has a finite maximum: nothing is
/// ever reserved for what has not arrived.
///
/// | codec | a frame ends | at most, by default |
/// |---|---|---|
/// | [`Raw`] | where reading stopped | as much as is read at once |
/// | [`Lines`](codec::Lines) | with a line feed, or with the input | 64 KiB |
/// | [`Delimited`](codec::Delimited) | with a mark of any bytes | 64 KiB |
/// | [`Fixed`](codec::Fixed) | after so many bytes | as many as are given |
/// | [`LengthPrefixed`] | as its length of 1 to 8 bytes says | 1 MiB |
/// | [`Varint`](codec::Varint) | as its length in LEB128 says | 1 MiB |
///
/// With the feature `tokio-util` there is `TokioUtil`, too, which leaves all that to the codec
/// within.
#[cfg(not(loom))]
pub mod codec {
    #[cfg(feature = "tokio-util")]
    pub use crate::core::codec::TokioUtil;
    pub use crate::core::codec::{
        ConfigError, Counted, Delimited, Fixed, FrameError, FrameTooLarge, LengthPrefixed, Lines,
        Parts, Raw, Varint,
    };
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
    pub use crate::words::config::{
        Admission, Evict, Idle, ListenerAdmission, Listening, Overflow, Placement, Rate,
        Scheduling, Shaper, Timeouts, WhenFull,
    };
}

/// Steering a [`Server`] at work, and what it says of itself.
#[cfg(not(any(loom, target_family = "wasm")))]
pub mod control {
    pub use crate::core::handle::HandleStats;
    pub use crate::core::limits::{Alarm, AlarmKind, Shortage};
    pub use crate::engine::counters::{MemorySnapshot, ReactorSnapshot};
    pub use crate::front::server::{Control, Report, Snapshot};
    pub use crate::words::error::SpawnError;
}

/// What calls on a connection answer when they fail, and the error of callbacks.
#[cfg(not(loom))]
pub mod error {
    pub use crate::core::handle::TrySendError;
    pub use crate::core::overload::Overloaded;
    pub use crate::core::refusal::{SendError, TimersFull};
    pub use crate::words::error::BoxError;
}

/// Groups: connections that are told the same, by one call.
#[cfg(not(loom))]
pub mod group {
    pub use crate::core::group::{BroadcastError, Group, GroupBuilder, GroupStats, SlowPolicy};
}

/// The guide: how to write a server with this crate, chapter by chapter.
///
/// | chapter | for those who ask |
/// |---|---|
/// | [`first_server`](guide::first_server) | How do I begin? |
/// | [`framing`](guide::framing) | How do bytes become messages? |
/// | [`pushing`](guide::pushing) | How do I send when nobody has asked? |
/// | [`backpressure`](guide::backpressure) | What if a peer is too slow, or too fast? |
/// | [`timeouts`](guide::timeouts) | When is a peer given up? |
/// | [`limits`](guide::limits) | What happens when a limit is met, and where does it show? |
/// | [`closing`](guide::closing) | How do connections and servers end? |
/// | [`outbound`](guide::outbound) | How do I connect to others? |
/// | [`blocking`](guide::blocking) | May a handler wait, or compute? |
/// | [`testing`](guide::testing) | How do I test my protocol? |
/// | [`porting`](guide::porting) | What becomes of my async tasks? |
/// | [`promises`](guide::promises) | What may I rely on? |
/// | [`platforms`](guide::platforms) | Where was that tried? |
///
/// All programs in it are compiled, and run as tests of the crate.
#[cfg(not(any(loom, target_family = "wasm")))]
pub mod guide {
    pub use crate::front::guide::{
        backpressure, blocking, closing, first_server, framing, limits, outbound, platforms,
        porting, promises, pushing, testing, timeouts,
    };
}

/// The types behind [`handler_fn`].
#[cfg(not(loom))]
pub mod handler {
    pub use crate::core::handler::{HandlerFn, Opening};
}

/// A bench that tests handlers, and a kit that checks codecs.
///
/// # Testing a protocol
///
/// A handler needs no server to be tested: [`Bench`](testing::Bench) runs it without sockets and
/// threads, and time goes by when the test says so. See there for an example with timers.
///
/// ```
/// use switchboard::codec::Lines;
/// use switchboard::testing::Bench;
/// use switchboard::{Context, Handler, Outcome};
/// use bytes::BytesMut;
///
/// /// Adds up what it is told, until it is asked for the sum.
/// #[derive(Default)]
/// struct Adder(u64);
///
/// impl Handler for Adder {
///     fn on_frame(&mut self, cx: &mut Context, line: BytesMut) -> Outcome {
///         if &line[..] == b"sum" {
///             cx.send(self.0.to_string())?;
///             cx.close();
///         } else {
///             self.0 += std::str::from_utf8(&line)?.trim().parse::<u64>()?;
///         }
///         Ok(())
///     }
/// }
///
/// let mut bench = Bench::new(Lines::new(), |_peer| Adder::default());
/// bench.receive_in_pieces(b"20\n22\nsum\n", 4);
/// assert_eq!(bench.sent(), b"42\n");
/// assert!(bench.has_finished());
/// bench.finish();
/// assert_eq!(bench.into_end().cause().label(), "closed");
///
/// let mut bench = Bench::new(Lines::new(), |_peer| Adder::default());
/// bench.receive(b"some\n");
/// bench.finish();
/// assert_eq!(bench.into_end().cause().label(), "handler_failed");
/// ```
///
/// # Testing a codec
///
/// A codec that works on a loopback may still fail where a frame is cut in two, or trust a length
/// that nobody meant. The kit tries that out: every message in one piece, cut in two at every
/// byte, and byte by byte; merged with others; ending too early; beyond the largest size; and
/// bytes that are made up, the same ones each time. [`Rule`](testing::Rule) lists what has to hold.
///
/// ```
/// use bytes::Bytes;
/// use switchboard::LengthPrefixed;
/// use switchboard::testing::check_codec;
///
/// let messages = [Bytes::new(), Bytes::from_static(b"hello"), Bytes::from(vec![0; 5000])];
/// check_codec(LengthPrefixed::u16(), messages);
/// ```
///
/// [`Check`](testing::Check) is told more: the largest size, frames that are no bytes, frames that
/// end with the input. [`fuzz_codec`](testing::fuzz_codec) is the whole of a fuzz target. What the
/// kit does not see is how long a call takes, or that it never returns.
#[cfg(all(any(test, feature = "testing"), not(any(loom, target_family = "wasm"))))]
pub mod testing {
    pub use crate::front::testing::{
        Bench, Check, Rule, Violation, check_codec, fuzz_codec, try_check_codec, written,
    };
}

/// The programs of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
