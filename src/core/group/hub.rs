//! `Hub`: what all that have to do with one group share, and `Seat`: its place in one reactor.

use std::fmt;

use super::super::post::{Command, Post};
use crate::parts::pending::{Policy, SHOT_OVERHEAD_BYTES, Shot};
use crate::parts::roll::Roll;
use crate::words::sync::Arc;
use crate::words::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// One group, whatever its messages are.
///
/// ```text
///  Group ──▶ Hub ──roll──▶ Seat ──post──▶ mailbox of a reactor ──▶ Fan ──▶ its members
///                          Seat ──post──▶ mailbox of another   ──▶ Fan ──▶ its members
/// ```
///
/// The counters order no other memory: Relaxed everywhere.
pub(crate) struct Hub {
    pub(crate) policy: Policy,
    /// What may wait for one member that is behind.
    pub(crate) queue_max_bytes: usize,
    /// What may wait at one seat before a broadcast is refused.
    pub(crate) backlog_max_bytes: usize,
    pub(crate) roll: Roll<Seat>,
    pub(crate) members: AtomicUsize,
    pub(crate) delivered: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) abandoned: AtomicU64,
    pub(crate) kicked: AtomicU64,
}

/// The reactors that have members, each with its mailbox; claimed by each member there and by each
/// join that is on its way.
pub(crate) struct Seat {
    pub(crate) hub: Arc<Hub>,
    post: Arc<dyn Post>,
    /// What was posted and is not fanned out yet. Relaxed: a bound, which orders nothing.
    backlog: AtomicUsize,
}

impl Hub {
    pub(crate) fn new(policy: Policy, queue_max_bytes: usize, backlog_max_bytes: usize) -> Self {
        Hub {
            policy,
            queue_max_bytes,
            backlog_max_bytes,
            roll: Roll::new(),
            members: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            kicked: AtomicU64::new(0),
        }
    }

    /// Claims the seat in the reactor of this mailbox; `None` if that takes no more members.
    pub(crate) fn claim(self: &Arc<Self>, post: &Arc<dyn Post>) -> Option<Arc<Seat>> {
        let make = || {
            let (hub, post) = (Arc::clone(self), Arc::clone(post));
            let seat = Arc::new(Seat { hub, post, backlog: AtomicUsize::new(0) });
            let late = cfg!(switchboard_mutant = "seat_enrolled_late");
            (late || seat.post.enroll(&seat)).then_some(seat)
        };
        let seat = self.roll.claim(|seat| seat.is_in(post), make);
        if cfg!(switchboard_mutant = "seat_enrolled_late") {
            let _told = seat.as_ref().map(|seat| seat.post.enroll(seat));
        }
        seat
    }

    /// The seat in the reactor of this mailbox, if there are members or joins on their way.
    pub(crate) fn find(&self, post: &Arc<dyn Post>) -> Option<Arc<Seat>> {
        self.roll.all().iter().find(|seat| seat.is_in(post)).map(Arc::clone)
    }
}

impl Seat {
    fn is_in(&self, post: &Arc<dyn Post>) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.post), Arc::as_ptr(post))
    }

    /// What tells it from all other seats while it lives.
    pub(crate) fn key(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// Whether it takes no more for now.
    pub(crate) fn is_full(&self) -> bool {
        self.backlog_bytes() >= self.hub.backlog_max_bytes
    }

    /// What was posted and is not fanned out yet, with [`SHOT_OVERHEAD_BYTES`] for each message.
    pub(crate) fn backlog_bytes(&self) -> usize {
        self.backlog.load(Ordering::Relaxed)
    }

    /// Sends a message on its way to the members.
    pub(crate) fn post(self: &Arc<Self>, shot: Shot) {
        debug_assert!(shot.cost() >= SHOT_OVERHEAD_BYTES);
        self.backlog.fetch_add(shot.cost(), Ordering::Relaxed);
        self.post.command(Command::Broadcast(Arc::clone(self), shot));
    }

    /// A message was fanned out, or is given up.
    pub(crate) fn taken(&self, shot: &Shot) {
        if cfg!(switchboard_mutant = "backlog_torn") {
            let left = self.backlog_bytes() - shot.cost();
            return self.backlog.store(left, Ordering::Relaxed);
        }
        self.backlog.fetch_sub(shot.cost(), Ordering::Relaxed);
    }

    /// One member has gone, or a join came to nothing.
    pub(crate) fn release(self: &Arc<Self>) {
        self.hub.roll.release(self, || self.post.dismiss(self));
    }

    /// Its reactor has ended.
    pub(crate) fn give_up(self: &Arc<Self>) {
        self.hub.roll.strike(self);
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("backlog", &self.backlog).finish_non_exhaustive()
    }
}
