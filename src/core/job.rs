//! `Job` and `Done`: user code on its way out, and what it left; the only place that runs it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::BytesMut;

use super::context::{Hand, Verdict};
use super::handle::Office;
use super::session::{Errand, Factory, Session};
use crate::words::clock::Time;
use crate::words::reason::{Cause, CloseReason};
use crate::words::sync::Arc;

/// Everything that one run of user code may touch, by value. It travels in a box, which is used
/// again for the next job.
pub(crate) struct Job {
    pub(crate) task: Task,
    pub(crate) errand: Errand,
    pub(crate) input: Input,
    pub(crate) hand: Hand,
    /// It goes through the slow lane, so its time is taken.
    pub(crate) timed: bool,
}

/// What was read for a job, or what it left of that.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) bytes: BytesMut,
    /// How many they were when the job was made.
    pub(crate) given_bytes: usize,
    /// They stand in a buffer of the reactor's pool.
    pub(crate) leased: bool,
}

/// What kind of run it is, and what is left of it.
pub(crate) enum Task {
    /// Make the session, then serve the errand.
    Open(Arc<dyn Factory>),
    /// Serve the errand. The session is still there when the job is done.
    Serve(Box<dyn Session>),
    /// Say goodbye to the session and drop it.
    Close(Box<dyn Session>, CloseReason),
    /// There is no session: it is gone, or could not be made.
    Over,
}

/// A job that was run. Its input and its hand are to be given back to the connection, and the
/// session, if it is still there.
pub(crate) struct Done {
    pub(crate) job: Box<Job>,
    /// It was the last call of its session.
    pub(crate) closed: bool,
    pub(crate) panicked: bool,
    /// How long it took, if it was timed.
    pub(crate) took: Option<Duration>,
}

impl Job {
    /// A job with nothing in it.
    pub(crate) fn blank() -> Box<Job> {
        Box::new(Job {
            task: Task::Over,
            errand: Errand::default(),
            input: Input::default(),
            hand: Hand::blank(),
            timed: false,
        })
    }

    /// Runs it. A panic in user code ends up in the verdict and goes no further.
    ///
    /// What unwinds is only the user's own state, which is not used again but for `on_close` and
    /// its drop, each caught as well: hence `AssertUnwindSafe`.
    pub(crate) fn run(mut self: Box<Self>, office: &dyn Office, now: impl Fn() -> Time) -> Done {
        let started = self.timed.then(&now);
        let mut closed = false;
        let panicked = match std::mem::replace(&mut self.task, Task::Over) {
            Task::Serve(session) => self.serve(session, office),
            Task::Open(factory) => {
                let peer = self.hand.peer;
                match catch_unwind(AssertUnwindSafe(|| factory.session(peer))) {
                    Ok(session) => self.serve(session, office),
                    Err(payload) => self.fail(payload),
                }
            }
            Task::Close(session, reason) => {
                closed = true;
                close(session, &reason)
            }
            Task::Over => false,
        };
        let took = started.map(|started| now().since(started));
        Done { job: self, closed, panicked, took }
    }

    /// Runs the session. True if it panicked.
    fn serve(&mut self, mut session: Box<dyn Session>, office: &dyn Office) -> bool {
        let Job { errand, input, hand, .. } = self;
        let errand = std::mem::take(errand);
        let served = catch_unwind(AssertUnwindSafe(|| {
            session.serve(errand, &mut input.bytes, hand, office)
        }));
        self.task = Task::Serve(session);
        match served {
            Ok(Ok(())) => false,
            Ok(Err(Cause::Overflow)) => {
                self.hand.abort(Cause::Overflow);
                false
            }
            Ok(Err(cause)) => {
                self.hand.close(cause);
                false
            }
            Err(payload) => self.fail(payload),
        }
    }

    fn fail(&mut self, payload: Box<dyn Any + Send>) -> bool {
        self.hand.verdict = Verdict::Abort(Cause::HandlerPanicked);
        discard(payload);
        true
    }
}

/// The last call of a session, and its drop. True if one of them panicked.
fn close(mut session: Box<dyn Session>, reason: &CloseReason) -> bool {
    let closed = catch_unwind(AssertUnwindSafe(|| session.close(reason)));
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(session)));
    let panicked = closed.is_err() || dropped.is_err();
    closed.unwrap_or_else(discard);
    dropped.unwrap_or_else(discard);
    panicked
}

/// Drops what a panic carried; its drop is user code too, and may panic in turn.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // A payload whose drop panics with such a payload again is given up.
        std::mem::forget(again);
    }
}
