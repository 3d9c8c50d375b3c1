//! `Job` and `Done`: user code on its way out, and what it left; the only place that runs it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::BytesMut;

use super::context::{Hand, Verdict};
use super::handle::Office;
use super::session::{Errand, Factory, Session};
use crate::words::clock::Time;
use crate::words::id::ConnId;
use crate::words::reason::{Cause, CloseReason};
use crate::words::sync::Arc;

/// Everything that one run of user code may touch, by value.
pub(crate) struct Job {
    pub(crate) task: Task,
    pub(crate) errand: Errand,
    pub(crate) input: BytesMut,
    pub(crate) hand: Hand,
    /// It goes through the slow lane, so its time is taken.
    pub(crate) timed: bool,
}

/// What kind of run it is.
pub(crate) enum Task {
    /// Make the session, then serve the errand.
    Open(Arc<dyn Factory>),
    /// Serve the errand.
    Serve(Box<dyn Session>),
    /// Say goodbye to the session and drop it.
    Close(Box<dyn Session>, CloseReason),
}

/// What a job left.
pub(crate) struct Done {
    pub(crate) id: ConnId,
    pub(crate) rest: Rest,
    /// How long it took, if it was timed.
    pub(crate) took: Option<Duration>,
}

/// What is to be given back to the connection.
pub(crate) enum Rest {
    /// The session served; `None` if it could not even be made.
    Served { session: Option<Box<dyn Session>>, input: BytesMut, hand: Hand, panicked: bool },
    /// The session is gone; whether its last call or its drop panicked.
    Closed { panicked: bool },
}

impl Job {
    /// Runs it. A panic in user code ends up in the verdict and goes no further.
    ///
    /// What unwinds is only the user's own state, which is not used again but for `on_close` and
    /// its drop, each caught as well: hence `AssertUnwindSafe`.
    pub(crate) fn run(self, office: &dyn Office, now: impl Fn() -> Time) -> Done {
        let Job { task, errand, mut input, mut hand, timed } = self;
        let id = hand.id;
        let started = timed.then(&now);
        let rest = match task {
            Task::Open(factory) => {
                let peer = hand.peer;
                let made = catch_unwind(AssertUnwindSafe(|| factory.session(peer)));
                match made {
                    Ok(session) => serve(session, errand, input, hand, office),
                    Err(payload) => {
                        discard(payload);
                        input.clear();
                        hand.verdict = Verdict::Abort(Cause::HandlerPanicked);
                        Rest::Served { session: None, input, hand, panicked: true }
                    }
                }
            }
            Task::Serve(session) => serve(session, errand, input, hand, office),
            Task::Close(mut session, reason) => {
                drop(hand);
                let closed = catch_unwind(AssertUnwindSafe(|| session.close(&reason)));
                if cfg!(switchboard_sim_mutant = "closed_twice") {
                    session.close(&reason);
                }
                let dropped = catch_unwind(AssertUnwindSafe(|| drop(session)));
                let panicked = closed.is_err() || dropped.is_err();
                closed.unwrap_or_else(discard);
                dropped.unwrap_or_else(discard);
                Rest::Closed { panicked }
            }
        };
        Done { id, rest, took: started.map(|started| now().since(started)) }
    }
}

fn serve(
    mut session: Box<dyn Session>,
    errand: Errand,
    mut input: BytesMut,
    mut hand: Hand,
    office: &dyn Office,
) -> Rest {
    let served =
        catch_unwind(AssertUnwindSafe(|| session.serve(errand, &mut input, &mut hand, office)));
    let panicked = served.is_err();
    match served {
        Ok(Ok(())) => {}
        Ok(Err(Cause::Overflow)) => hand.abort(Cause::Overflow),
        Ok(Err(cause)) => hand.close(cause),
        Err(payload) => {
            discard(payload);
            hand.verdict = Verdict::Abort(Cause::HandlerPanicked);
        }
    }
    Rest::Served { session: Some(session), input, hand, panicked }
}

/// Drops what a panic carried; its drop is user code too, and may panic in turn.
fn discard(payload: Box<dyn std::any::Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // A payload whose drop panics with such a payload again is given up.
        std::mem::forget(again);
    }
}
