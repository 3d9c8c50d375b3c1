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
    /// Cost of messages sent through handles and not yet encoded. A counter and nothing more: it
    /// orders no other memory, hence Relaxed everywhere.
    pub(super) posted: AtomicUsize,
    /// Bytes in the connection's own send queue, as the reactor last saw it. Relaxed as above.
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

    /// The reactor took a posted message of this cost.
    pub(crate) fn taken(&self, cost: usize) {
        self.posted.fetch_sub(cost, Ordering::Relaxed);
        self.post.taken(cost);
    }

    /// The reactor tells how much the connection's send queue holds.
    pub(crate) fn publish_unsent(&self, bytes: usize) {
        self.unsent.store(bytes, Ordering::Relaxed);
    }

    /// The connection takes no more messages.
    pub(crate) fn finish(&self) {
        self.state.fetch_max(FINISHED, Ordering::Release);
    }

    /// The connection has ended.
    pub(crate) fn shut(&self) {
        self.state.store(ENDED, Ordering::Release);
    }

    pub(super) fn queued(&self) -> usize {
        self.posted.load(Ordering::Relaxed).saturating_add(self.unsent.load(Ordering::Relaxed))
    }

    /// Counts `cost` if that keeps the queue within its maximum; else says how much is queued.
    pub(super) fn admit(&self, cost: usize) -> Result<(), usize> {
        let before = self.posted.fetch_add(cost, Ordering::Relaxed);
        let queued = before.saturating_add(self.unsent.load(Ordering::Relaxed));
        if queued.saturating_add(cost) > self.max || !self.post.admit(cost) {
            self.posted.fetch_sub(cost, Ordering::Relaxed);
            return Err(queued);
        }
        Ok(())
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("id", &self.id).field("queued", &self.queued()).finish()
    }
}
