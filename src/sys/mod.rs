//! Room 4, platform: every system call beyond mio's and every `unsafe` of the crate.
//!
//! [`Kernel`] is what the engine asks of the system; [`MioKernel`] is its only real implementation.
//! Below it stands one written list of items that each platform supplies (`unix`, `windows`, and
//! `fallback` for all others). What a platform lacks answers `ErrorKind::Unsupported`. No decision
//! is taken here. The list:
//!
//! - `ACCEPT_FAULTS`: what each error code of `accept` means;
//! - `SHORT_READ_DRAINS`, `input_interest`: what the selector of mio says about input;
//! - `SEND_FLAGS`: the flags of every send;
//! - `ACCEPTED_INHERIT`: whether accepted sockets have the options of their listener;
//! - `REUSE_PORT_BALANCES`, `set_reuse_address`, `set_reuse_port`, `set_user_timeout`,
//!   `set_keepalive`, `set_no_sigpipe`: options of sockets;
//! - `tcp_queue`: how many connections wait at a listener;
//! - `descriptor_limit`, `raise_descriptor_limit`: how many descriptors the process may have;
//! - `memory_total`: how much memory the machine has;
//! - `Termination`, `Interrupter`: waiting for the request to end.

mod accept;
mod kernel;
mod listen;
mod mio;

#[cfg(any(test, not(any(unix, windows))))]
#[cfg_attr(any(unix, windows), expect(dead_code, reason = "built in tests, so as not to rot"))]
mod fallback;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(not(any(unix, windows)))]
use fallback as backend;
#[cfg(unix)]
use unix as backend;
#[cfg(windows)]
use windows as backend;

#[cfg(any(test, feature = "sim"))]
pub(crate) use accept::accept_codes;
pub(crate) use accept::{AcceptFault, classify_accept};
pub(crate) use backend::{
    REUSE_PORT_BALANCES, Termination, descriptor_limit, memory_total, raise_descriptor_limit,
};
pub(crate) use kernel::{Event, Kernel};
pub(crate) use listen::{ListenOptions, Listener, StreamOptions};
pub(crate) use mio::MioKernel;

/// Why [`Termination::wait`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awoken {
    /// The system asked the process to end (SIGINT, SIGTERM, a console's Ctrl-C or its closing).
    Signal,
    /// `Interrupter::interrupt` was called.
    Interrupt,
}
