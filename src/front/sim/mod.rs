//! `sim`: the whole server in a simulated world, where a number says everything that happens.
//!
//! [`Simulation`] puts a protocol of yours into such worlds; [`run`] is how the crate tests itself.
//!
//! The very same reactors and the very same steps of threads, on a kernel, a network and clients
//! that are made up; one thread plays them all, in an order that the seed decides (the idea of
//! FoundationDB and TigerBeetle). After a while of faults comes a calm in which everything has to
//! finish and to be given back.
//!
//! ```text
//!   World ──steps──▶ Driver ──▶ Reactor ──▶ SimKernel ──▶ Net ◀── Client, Client, Client
//!     │                            └──▶ Job ──▶ Talker ──▶ Book     │
//!     └── asks after every step ──────────────▶ judge ◀─────────────┘
//! ```

mod app;
mod attention;
mod circle;
mod client;
mod crowd;
mod dialer;
mod check;
mod guest;
mod judge;
mod keep;
mod kernel;
mod lend;
mod net;
mod notice;
mod peer;
mod plan;
mod random;
mod rates;
mod raw;
mod route;
mod series;
mod sum;
mod trace;
mod wire;
mod visit;
mod world;

#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

pub use self::guest::{Conversation, Script, Simulation};
use self::random::Random;
use crate::parts::buf::Outbox;

/// What happened in one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// Steps that were made.
    pub steps: u64,
    /// Connections that were opened, and closed again.
    pub connections: u64,
    /// Times that user code was run.
    pub jobs: u64,
    /// Bytes that the server received.
    pub received_bytes: u64,
    /// Reactors that were taken over from a thread with a slow handler.
    pub take_overs: u64,
    /// Jobs that idle threads took from a heavy reactor.
    pub steals: u64,
    /// Jobs that went through the slow lane.
    pub offloads: u64,
    /// Panics of user code.
    pub panics: u64,
    /// Connections that the server has made itself.
    pub dialed: u64,
    /// Those that it was asked for and could not make.
    pub dial_failures: u64,
    /// Times that input or output had to wait for its turn because rates are bounded.
    pub delays: u64,
    /// Times that a connection was not read because it held so much of little memory.
    pub throttles: u64,
    /// Times that accepting paused for want of memory.
    pub memory_pauses: u64,
    /// Connections that were ended for want of memory.
    pub evictions: u64,
    /// Messages that groups delivered to their members.
    pub broadcasts: u64,
    /// Those that they dropped, because a member was behind.
    pub lost: u64,
    /// Connections that were made again after the one before had ended.
    pub reconnects: u64,
    /// Times that a pool gave out a connection.
    pub checkouts: u64,
    /// How long it took by the clock of that world.
    pub elapsed: Duration,
    /// A digest of all that happened: equal for equal seeds.
    pub digest: u64,
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What to do to see it again.
    replay: String,
    what: String,
    plan: String,
    trace: String,
}

/// Simulates the crate's own test server, its clients and all that goes wrong, as `seed` will have
/// it. For a protocol of your own see [`Simulation`].
///
/// # Errors
/// [`Failure`] if the server broke one of its promises; it says how to see that again.
pub fn run(seed: u64) -> Result<Summary, Failure> {
    let replay = match cfg!(test) {
        true => format!("SIM_SEED={seed} cargo test --lib sim::tests::replay -- --nocapture"),
        false => format!("switchboard::sim::run({seed})"),
    };
    world::run(Random::new(seed), None).map_err(|failure| Failure { replay, ..failure })
}

/// The same for a fuzzer: the first eight of `bytes` are the seed, little endian, and each two of
/// the others decide one choice, the plan's first. When they are used up the seed has its will.
///
/// # Errors
/// [`Failure`] if the server broke one of its promises.
pub fn run_bytes(bytes: &[u8]) -> Result<Summary, Failure> {
    world::run(Random::from_bytes(bytes), None)
}

/// One connection without a server, for a fuzzer: `bytes` decide what its peer, its handler, other
/// threads and the clock do, one thing after the other; then it has to come to its end.
///
/// # Panics
/// If the connection broke one of its rules.
pub fn run_connection(bytes: &[u8]) {
    crate::core::conn::live(bytes);
}

/// The bytes of `outbox` as they would be written, for the test of a codec.
#[must_use]
pub fn written(outbox: Outbox) -> Vec<u8> {
    outbox.to_vec()
}

impl Failure {
    /// One that has nothing to do with a world.
    fn of(what: String) -> Failure {
        Failure { what, replay: String::new(), plan: String::new(), trace: String::new() }
    }

    /// The rule that was broken, and how.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { replay, what, plan, trace } = self;
        writeln!(f, "{what}\n{plan}\n{trace}\n{what}")?;
        write!(f, "replay: {replay}")
    }
}

impl std::error::Error for Failure {}
