//! `Job` and `Done`: user code on its way out, and what it left; the only place that runs it.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::BytesMut;

use super::hand::{Hand, Verdict};
use super::post::{Office, discard};
use super::session::{Errand, Factory, Session};
use crate::words::clock::Time;
use crate::words::reason::{Cause, CloseReason};
use crate::words::sync::Arc;

/// Everything that one run of user code may touch, by value. It travels in a box, which is used
/// again for the next job.
pub(crate) struct Job {
    pub(crate) task: Task,
    /// `None` if it is still to be made, could not be made, or is gone.
    pub(crate) session: Option<Box<dyn Session>>,
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

/// What kind of run it is.
pub(crate) enum Task {
    /// Make the session, then serve the errand.
    Open(Arc<dyn Factory>),
    /// Serve the errand.
    Serve,
    /// Say goodbye to the session and drop it.
    Close(CloseReason),
    /// Make a call that belongs to no connection, and tell the reactor when it is over.
    Call(Call),
    /// The same, and nobody needs to know when it is over.
    Free(Call),
}

/// A call of user code that belongs to no connection. Its drop may panic and harms nobody: one
/// that is not wanted any more is dropped wherever it happens to be.
pub(crate) struct Call(Option<Box<dyn FnOnce() + Send>>);

impl Call {
    pub(crate) fn new(call: impl FnOnce() + Send + 'static) -> Self {
        Call(Some(Box::new(call)))
    }

    /// Makes the call. True if it panicked; the panic goes no further.
    pub(crate) fn run(mut self) -> bool {
        let Some(call) = self.0.take() else { return false };
        // What unwinds is used by nobody afterwards.
        catch_unwind(AssertUnwindSafe(call)).map_err(discard).is_err()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(call) = self.0.take() {
            catch_unwind(AssertUnwindSafe(|| drop(call))).unwrap_or_else(discard);
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Call")
    }
}

/// A job that was run. Its input and its hand are to be given back to the connection, and the
/// session, if it is still there.
pub(crate) struct Done {
    pub(crate) job: Box<Job>,
    pub(crate) kind: Kind,
    pub(crate) panicked: bool,
    /// How long it took, if it was timed.
    pub(crate) took: Option<Duration>,
}

/// What a job that was run has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its session was served and goes on.
    Served,
    /// It was the last call of its session.
    Closed,
    /// It was a [`Task::Call`].
    Called,
    /// It was a [`Task::Free`].
    Free,
}

impl Kind {
    /// Whether the job belonged to a connection.
    pub(crate) fn has_connection(self) -> bool {
        matches!(self, Kind::Served | Kind::Closed)
    }
}

impl Job {
    /// A job with nothing in it.
    pub(crate) fn blank() -> Box<Job> {
        Box::new(Job {
            task: Task::Serve,
            session: None,
            errand: Errand::default(),
            input: Input::default(),
            hand: Hand::blank(),
            timed: false,
        })
    }

    /// A job that makes a call for which nobody waits.
    pub(crate) fn free(call: Call) -> Box<Job> {
        let mut job = Job::blank();
        job.task = Task::Free(call);
        job
    }

    /// Whether it belongs to a connection.
    pub(crate) fn has_connection(&self) -> bool {
        !matches!(self.task, Task::Call(_) | Task::Free(_))
    }

    /// Makes it serve an errand.
    #[inline]
    pub(crate) fn serve_later(&mut self, session: Box<dyn Session>, errand: Errand) {
        debug_assert!(matches!(self.task, Task::Serve) && self.session.is_none());
        self.session = Some(session);
        self.errand = errand;
    }

    /// Runs it. A panic in user code ends up in the verdict and goes no further.
    ///
    /// What unwinds is only the user's own state, which is not used again but for `on_close` and
    /// its drop, each caught as well: hence `AssertUnwindSafe`.
    #[inline]
    pub(crate) fn run(mut self: Box<Self>, office: &dyn Office, now: impl Fn() -> Time) -> Done {
        let started = self.timed.then(&now);
        let mut kind = Kind::Served;
        let panicked = match &self.task {
            Task::Serve => self.serve(office),
            Task::Open(_) | Task::Close(_) | Task::Call(_) | Task::Free(_) => {
                match std::mem::replace(&mut self.task, Task::Serve) {
                    Task::Open(factory) => self.open(&*factory, office),
                    Task::Close(reason) => {
                        kind = Kind::Closed;
                        self.session.take().is_some_and(|session| close(session, reason))
                    }
                    Task::Call(call) => {
                        kind = Kind::Called;
                        call.run()
                    }
                    Task::Free(call) => {
                        kind = Kind::Free;
                        call.run()
                    }
                    Task::Serve => false,
                }
            }
        };
        let took = started.map(|started| now().since(started));
        Done { job: self, kind, panicked, took }
    }

    /// Makes the session and runs it. True if it panicked.
    fn open(&mut self, factory: &dyn Factory, office: &dyn Office) -> bool {
        let peer = self.hand.peer;
        let make = || factory.admits(peer).then(|| factory.session(peer));
        match catch_unwind(AssertUnwindSafe(make)) {
            Ok(Some(session)) => {
                self.session = Some(session);
                self.serve(office)
            }
            Ok(None) => {
                self.hand.abort(Cause::Refused);
                false
            }
            Err(payload) => self.fail(payload),
        }
    }

    /// Runs the session. True if it panicked.
    fn serve(&mut self, office: &dyn Office) -> bool {
        let Job { session: Some(session), errand, input, hand, .. } = self else {
            debug_assert!(false, "a job without a session");
            return false;
        };
        let input = &mut input.bytes;
        let mut panicked = false;
        let served = catch_unwind(AssertUnwindSafe(|| {
            session.serve(errand, input, hand, office)?;
            while hand.listens() {
                let Some(successor) = hand.successor.take() else { break };
                let replaced = std::mem::replace(session, successor);
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(replaced))) {
                    // The successor is opened all the same: it is the one who is told of the end.
                    (panicked, hand.verdict) = (true, Verdict::Abort(Cause::HandlerPanicked));
                    discard(payload);
                }
                if cfg!(switchboard_sim_mutant = "input_not_handed_on") {
                    input.clear();
                }
                errand.open = true;
                session.serve(errand, input, hand, office)?;
            }
            Ok(())
        }));
        if let Some(unwanted) = hand.successor.take() {
            discard(Box::new(unwanted));
        }
        // What was not done is not wanted any more, and does not wait for this box's next use;
        // but of what was taken the handler hears all the same.
        if let Some(inbox) = errand.inbox.take() {
            hand.flushed_left = inbox.flushed;
        }
        match served {
            Ok(Ok(())) => panicked,
            Ok(Err(Cause::Overflow)) => {
                self.hand.abort(Cause::Overflow);
                panicked
            }
            Ok(Err(cause)) => {
                self.hand.close(cause);
                panicked
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
fn close(mut session: Box<dyn Session>, reason: CloseReason) -> bool {
    let closed = catch_unwind(AssertUnwindSafe(|| session.close(&reason)));
    if cfg!(switchboard_sim_mutant = "closed_twice") {
        session.close(&reason);
    }
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(session)));
    // The handler's own error may stand in it.
    let forgotten = catch_unwind(AssertUnwindSafe(|| drop(reason)));
    let ends = [closed, dropped, forgotten];
    let panicked = ends.iter().any(Result::is_err);
    ends.into_iter().for_each(|end| end.unwrap_or_else(discard));
    panicked
}

#[cfg(all(test, not(loom)))]
mod tests;
