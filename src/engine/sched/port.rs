//! `Port`: what a reactor has of the scheduler.

use std::fmt;

use super::Mode;
use super::pool::Pool;
use super::queue::Local;
use crate::words::sync::Arc;

/// A reactor's end of the scheduler. It lies inside the reactor, so that whoever picks the reactor
/// up has its queued jobs too.
pub(crate) struct Port<J> {
    index: usize,
    ahead: Local<J>,
    pool: Arc<Pool<J>>,
}

impl<J> Port<J> {
    pub(super) fn new(index: usize, ahead: Local<J>, pool: Arc<Pool<J>>) -> Self {
        Port { index, ahead, pool }
    }

    /// Which reactor this is.
    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// Whether jobs should be read ahead into the deque, for others to steal. One load.
    pub(crate) fn heavy(&self) -> bool {
        self.pool.pulses[self.index].is_heavy()
    }

    /// Whether every job is to be offloaded: the classic division of labour, for comparison.
    pub(crate) fn hands_off(&self) -> bool {
        self.pool.bounds.mode == Mode::HandOff
    }

    /// Puts a job into this reactor's deque.
    pub(crate) fn push(&self, job: J) {
        self.ahead.push(job);
    }

    /// Takes the oldest job from this reactor's deque that nobody has stolen.
    pub(crate) fn pop(&self) -> Option<J> {
        self.ahead.pop()
    }

    /// How many jobs wait in this reactor's deque.
    pub(crate) fn queued(&self) -> usize {
        self.ahead.len()
    }

    /// Gives a job to the slow lane: threads that hold no reactor run it and post what it left.
    ///
    /// # Errors
    /// Gives the job back if there are no such threads; the reactor runs it itself.
    pub(crate) fn offload(&self, job: J) -> Result<(), J> {
        self.pool.offload(self.index, job)
    }

    /// Calls one idle thread to steal from the deque, unless one is on its way already. Worth its
    /// price of some 10 µs if more work than that is queued. A call may be missed; the reactor
    /// runs its jobs itself then.
    pub(crate) fn call_helper(&self) {
        if self.pool.idle.call_searcher() {
            self.pool.stats.helper_calls.add();
        }
    }

    /// To be called before a poll that may block.
    pub(crate) fn fall_asleep(&self) {
        self.pool.pulses[self.index].fall_asleep();
    }

    /// To be called after a poll that may have blocked.
    pub(crate) fn wake_up(&self) {
        self.pool.pulses[self.index].wake_up(&self.pool.watch);
    }
}

impl<J> fmt::Debug for Port<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Port").field("index", &self.index).finish_non_exhaustive()
    }
}

/// The way into the slow lane for those who have no reactor.
#[cfg(not(loom))]
pub(crate) struct SideDoor<J> {
    pool: Arc<Pool<J>>,
}

#[cfg(not(loom))]
impl<J> SideDoor<J> {
    pub(super) fn new(pool: Arc<Pool<J>>) -> Self {
        SideDoor { pool }
    }

    /// Gives a job to the slow lane. What it leaves is posted to the first reactor, like that of a
    /// job which belongs there.
    ///
    /// # Errors
    /// Gives the job back if no threads serve the slow lane.
    pub(crate) fn offload(&self, job: J) -> Result<(), J> {
        self.pool.offload(0, job)
    }
}

#[cfg(not(loom))]
impl<J> fmt::Debug for SideDoor<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SideDoor")
    }
}
