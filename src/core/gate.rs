//! `Gate`: what all handles of a connection share with its record: it counts and closes.

use std::any::TypeId;
use std::fmt;

use super::post::Post;
use crate::words::id::ConnId;
use crate::words::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use crate::words::sync::{Arc, Mutex};

/// What all handles of a connection share with its record: whether it is open and what it queues.
///
/// Made when the first handle is asked for; a connection without handles has none.
pub(crate) struct Gate {
    pub(super) id: ConnId,
    /// Of what type the handler is, as its session said when it was opened.
    pub(super) handler: Mutex<TypeId>,
    /// `OPEN`, `FINISHED` or `ENDED`; it only grows. Written (Release) by the reactor, and by
    /// [`Handle::close`]; load (Acquire) by handles. A message that slips through just before is
    /// dropped by the reactor.
    pub(super) state: AtomicU8,
    /// Cost of messages sent through handles and not yet encoded. What goes from here (Release)
    /// was published as unsent before: who counts one more (Acquire) sees it there. Else Relaxed.
    pub(super) posted: AtomicUsize,
    /// Bytes in the connection's own send queue, as the reactor last saw it. Relaxed: `posted`
    /// orders it.
    pub(super) unsent: AtomicUsize,
    pub(super) max: usize,
    pub(super) post: Arc<dyn Post>,
}

/// Messages are taken.
pub(super) const OPEN: u8 = 0;
/// Our side has finished: nothing more is sent.
const FINISHED: u8 = 1;
/// The connection is gone.
pub(super) const ENDED: u8 = 2;

impl Gate {
    pub(crate) fn new(id: ConnId, handler: TypeId, max: usize, post: Arc<dyn Post>) -> Self {
        Gate {
            id,
            handler: Mutex::new(handler),
            state: AtomicU8::new(OPEN),
            posted: AtomicUsize::new(0),
            unsent: AtomicUsize::new(0),
            max,
            post,
        }
    }

    /// The reactor took a posted message of this cost; what became of it is published already.
    pub(crate) fn taken(&self, cost: usize) {
        let relaxed = cfg!(switchboard_mutant = "gate_relaxed");
        // Pairs with the Acquire in `admit`.
        self.posted.fetch_sub(cost, if relaxed { Ordering::Relaxed } else { Ordering::Release });
        self.post.taken(cost);
    }

    /// The reactor tells how much the connection's send queue holds.
    pub(crate) fn publish_unsent(&self, bytes: usize) {
        self.unsent.store(bytes, Ordering::Relaxed);
    }

    /// The connection takes no more messages.
    pub(crate) fn finish(&self) {
        if cfg!(switchboard_mutant = "gate_reopens") {
            return self.state.store(FINISHED, Ordering::Release);
        }
        self.state.fetch_max(FINISHED, Ordering::Release);
    }

    /// The connection has ended.
    pub(crate) fn shut(&self) {
        // A swap, like the other write, so that the two stand in one order for a model, too.
        self.state.swap(ENDED, Ordering::Release);
    }

    pub(super) fn queued(&self) -> usize {
        self.posted.load(Ordering::Relaxed).saturating_add(self.unsent.load(Ordering::Relaxed))
    }

    /// Counts `cost` if that keeps the queue within its maximum; else says how much is queued.
    pub(super) fn admit(&self, cost: usize) -> Result<(), usize> {
        let late = cfg!(switchboard_mutant = "gate_counts_late");
        // Acquire, with the Release in `taken`: a message is seen here, or below, or in both.
        let before = self.posted.fetch_add(if late { 0 } else { cost }, Ordering::Acquire);
        let queued = before.saturating_add(self.unsent.load(Ordering::Relaxed));
        if queued.saturating_add(cost) > self.max || !self.post.admit(cost) {
            if !cfg!(switchboard_mutant = "gate_keeps") {
                self.posted.fetch_sub(cost, Ordering::Relaxed);
            }
            return Err(queued);
        }
        if late {
            self.posted.fetch_add(cost, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("id", &self.id).field("queued", &self.queued()).finish()
    }
}
