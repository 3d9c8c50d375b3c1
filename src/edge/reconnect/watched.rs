//! `Watched`: the session of an attempt, which tells of its end, whoever its handler is by then.

use std::any::TypeId;
use std::net::SocketAddr;

use bytes::BytesMut;

use crate::core::hand::Hand;
use crate::core::job::Call;
use crate::core::post::Office;
use crate::core::session::{Errand, Factory, Session};
use crate::words::reason::{Cause, CloseReason};
use crate::words::sync::{Mutex, lock};

/// Told of the end of a connection, once; without a reason if its handler could not be made.
pub(super) type Tell = Box<dyn FnOnce(Option<&CloseReason>) + Send>;

/// A factory for one session that is watched.
pub(super) struct Watched<F> {
    inner: F,
    tell: Mutex<Option<Tell>>,
}

/// A session, and what tells of its end. Around the session, not around the handler: so the handler
/// hears everything that it would hear by itself, and may be replaced.
struct WatchedSession {
    inner: Box<dyn Session>,
    // Dropped after the session. A successor has it.
    end: Option<End>,
}

/// Tells of the end of a connection when it is dropped, whatever became of its handler.
struct End {
    tell: Option<Tell>,
    reason: Option<CloseReason>,
}

impl<F> Watched<F> {
    pub(super) fn new(inner: F, tell: Tell) -> Self {
        Watched { inner, tell: Mutex::new(Some(tell)) }
    }
}

impl<F: Factory> Factory for Watched<F> {
    fn session(&self, peer: SocketAddr) -> Box<dyn Session> {
        // Before the handler is made, which may panic.
        let end = End { tell: lock(&self.tell).take(), reason: None };
        Box::new(WatchedSession { inner: self.inner.session(peer), end: Some(end) })
    }

    fn handler(&self) -> TypeId {
        self.inner.handler()
    }

    fn admits(&self, peer: SocketAddr) -> bool {
        self.inner.admits(peer)
    }
}

impl Session for WatchedSession {
    fn serve(
        &mut self,
        errand: &mut Errand,
        input: &mut BytesMut,
        hand: &mut Hand,
        office: &dyn Office,
    ) -> Result<(), Cause> {
        self.inner.serve(errand, input, hand, office)?;
        // Only one that is put into our place goes on; any other is dropped, and ends nothing.
        if hand.listens() && !cfg!(switchboard_sim_mutant = "successor_unwatched") {
            let end = &mut self.end;
            hand.successor = hand.successor.take().map(|inner| -> Box<dyn Session> {
                Box::new(WatchedSession { inner, end: end.take() })
            });
        }
        Ok(())
    }

    fn close(&mut self, reason: &CloseReason) {
        if let Some(end) = &mut self.end {
            end.reason = Some(reason.clone());
        }
        self.inner.close(reason);
    }

    #[cfg(any(test, feature = "testing"))]
    fn handler_mut(&mut self) -> Option<&mut dyn std::any::Any> {
        self.inner.handler_mut()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let (tell, reason) = (self.tell.take(), self.reason.take());
        if let Some(tell) = tell {
            // It may be dropped by a panic, and what it calls is user code.
            let _panicked = Call::new(move || tell(reason.as_ref())).run();
        }
    }
}
