//! The scheduler: leases reactors to threads, and sees to it that no user code stalls one.
//!
//! ```text
//!            lay down, run user code, pick up
//!   thread ───────────────────────────────────> Slot 0 (a reactor, or its ticket)
//!   thread ───────────────────────────────────> Slot 1
//!      ^                                           |
//!      | "pick up 1 under ticket 7"                | samples
//!   Idle list <────────────────────────────── Sentinel
//!   thread, thread    (serve the slow lane, and steal what heavy reactors have read ahead)
//! ```
//!
//! It knows nothing of connections: it is generic over what it leases ([`Leased`]). A thread that
//! is in user code for too long finds its reactor gone when it comes back; it posts what the job
//! has left and joins the pool. All threads run the same loop (`worker`).

mod idle;
mod lease;
mod pool;
mod port;
mod queue;
#[cfg(not(loom))]
mod running;
mod sentinel;
mod stats;
mod worker;

#[cfg(all(any(test, feature = "sim"), not(loom)))]
mod drive;

#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;

use std::time::Duration;

use crate::words::sync::Arc;

#[cfg(all(any(test, feature = "sim"), not(loom)))]
pub(crate) use {
    drive::{Driver, Stage, Where},
    lease::Ticket,
};
#[cfg(not(loom))]
pub(crate) use {
    port::{Port, SideDoor},
    running::{Running, Scheduler},
    stats::Stats,
};
#[cfg(all(test, not(loom)))]
pub(crate) use {running::Joined, stats::StatsSnapshot};

/// What the scheduler leases out to threads: a reactor, seen from above.
pub(crate) trait Leased: Send + 'static {
    /// User code on its way out, carrying by value all that it may touch.
    type Job: Send + 'static;
    /// What it left.
    type Done: Send + 'static;
    /// What all threads may use of this reactor at any time (its mailbox lies in there).
    type Desk: Send + Sync + 'static;

    /// Goes on with its turn until user code has to run. The only call that may block (in the
    /// poll).
    fn step(&mut self) -> Step<Self::Job>;

    /// Takes back what a job left.
    fn apply(&mut self, done: Self::Done);

    /// Runs user code; never unwinds (panics are caught inside).
    fn run(job: Self::Job, desk: &Arc<Self::Desk>) -> Self::Done;

    /// Mails what a job left to the reactor that nobody here holds. `overtaken`: its thread lost
    /// the reactor meanwhile.
    fn post(desk: &Arc<Self::Desk>, done: Self::Done, overtaken: bool);
}

/// Why a reactor pauses in its turn.
#[derive(Debug)]
pub(crate) enum Step<J> {
    /// This has to be run, outside.
    Run(J),
    /// It is about to wait in its poll, for so long at most, and its thread has more to do than
    /// to wait for it ([`Kernel::STEPPED`](crate::sys::Kernel::STEPPED)): go on when it may return.
    Pause(Option<Duration>),
    /// It has ended for good.
    Stopped,
}

/// How many threads there are, and what they do.
#[derive(Clone, Debug)]
pub(crate) struct SchedConfig {
    /// Reactors, each with a thread to begin with. At least one.
    pub(crate) reactors: usize,
    /// Threads that stand by from the beginning. With none, all user code runs on the reactors'
    /// own threads and nothing is isolated from anything.
    pub(crate) workers: usize,
    /// The most threads there may be beside the reactors' own.
    pub(crate) workers_max: usize,
    /// Who runs user code.
    pub(crate) mode: Mode,
    /// What the names of the threads begin with.
    pub(crate) name: String,
}

/// Who runs user code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// The thread that turns the reactor, which another one takes over if that takes too long.
    TakeOver,
    /// A pool of fixed size that gets every job: the classic division of labour.
    HandOff,
    /// The thread that turns the reactor, whatever it takes.
    Inline,
}

/// Makes a scheduler, and what each of its reactors needs of it. `desks` has one for each reactor.
#[cfg(not(loom))]
pub(crate) fn prepare<R: Leased>(
    config: SchedConfig,
    desks: Vec<Arc<R::Desk>>,
) -> (Scheduler<R>, Vec<Port<R::Job>>) {
    Scheduler::new(config, desks)
}
