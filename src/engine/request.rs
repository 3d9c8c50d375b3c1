//! `Request`: what is asked of a reactor beside its letters, and is answered even when it ends.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use crate::core::dial::{Attempt, ConnectCause, ConnectError};
use crate::core::gate::Gate;
use crate::core::job::Call;
use crate::core::limits::Permit;
use crate::core::session::Factory;
use crate::words::clock::Time;
use crate::words::sync::{Arc, Condvar, Mutex, lock, wait};

/// What is asked of a reactor.
#[derive(Debug)]
pub(crate) enum Request {
    /// Connect.
    Dial(Asked),
    /// Make this call, where handlers run, once that time has come.
    Later(Time, Call),
}

/// A connection that is asked for.
pub(crate) struct Asked {
    /// As the resolver sorts them; at least one.
    pub(crate) addrs: Vec<SocketAddr>,
    /// From the moment at which the reactor takes the request.
    pub(crate) timeout: Duration,
    /// Between an attempt and the next one beside it.
    pub(crate) delay: Duration,
    pub(crate) factory: Arc<dyn Factory>,
    pub(crate) answer: Answer,
    /// For its first attempt.
    pub(crate) permit: Permit,
}

/// A connection is there, and that is its gate; or why not.
pub(crate) type Answered = Result<Arc<Gate>, ConnectError>;

/// The duty to answer one request, once. Forgotten, it answers that the server has ended.
#[must_use]
#[derive(Debug)]
pub(crate) struct Answer {
    target: String,
    ticket: Option<Arc<Ticket>>,
}

/// Where the answer to one request is waited for.
pub(crate) struct Ticket {
    state: Mutex<State>,
    told: Condvar,
}

enum State {
    Pending,
    /// Who asked wants to be called.
    Then(Box<dyn FnOnce(Answered) + Send>),
    Told(Answered),
    /// Somebody has it.
    Taken,
}

impl Answer {
    /// The duty, and the right to the answer.
    pub(crate) fn new(target: String) -> (Answer, Arc<Ticket>) {
        let ticket = Arc::new(Ticket { state: Mutex::new(State::Pending), told: Condvar::new() });
        (Answer { target, ticket: Some(Arc::clone(&ticket)) }, ticket)
    }

    /// There is a connection. The call that may come of it is user code, for the caller to run.
    pub(crate) fn succeed(mut self, gate: Arc<Gate>) -> Option<Call> {
        self.ticket.take().and_then(|ticket| ticket.tell(Ok(gate)))
    }

    /// There is none. The call that may come of it is user code, for the caller to run.
    pub(crate) fn fail(mut self, cause: ConnectCause, attempts: Vec<Attempt>) -> Option<Call> {
        let ticket = self.ticket.take()?;
        let target = std::mem::take(&mut self.target);
        ticket.tell(Err(ConnectError::new(target, cause, attempts)))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let target = std::mem::take(&mut self.target);
            let ended = ConnectError::new(target, ConnectCause::Stopping, Vec::new());
            // Nobody is left who could run it elsewhere.
            let _panicked = ticket.tell(Err(ended)).is_some_and(Call::run);
        }
    }
}

impl Ticket {
    fn tell(&self, answered: Answered) -> Option<Call> {
        let mut state = lock(&self.state);
        if let State::Then(then) = std::mem::replace(&mut *state, State::Taken) {
            return Some(Call::new(move || then(answered)));
        }
        *state = State::Told(answered);
        drop(state);
        self.told.notify_all();
        None
    }

    /// Whether there is an answer.
    pub(crate) fn is_told(&self) -> bool {
        matches!(&*lock(&self.state), State::Told(_) | State::Taken)
    }

    /// Waits for the answer and takes it; `None` if somebody has taken it before.
    pub(crate) fn wait(&self) -> Option<Answered> {
        let mut state = lock(&self.state);
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Told(answered) => return Some(answered),
                State::Taken => return None,
                pending @ (State::Pending | State::Then(_)) => *state = pending,
            }
            state = wait(&self.told, state);
        }
    }

    /// Waits for the answer for `patience` at the longest, and takes it.
    pub(crate) fn wait_within(&self, patience: Duration) -> Option<Answered> {
        let pending = |state: &mut State| !matches!(state, State::Told(_));
        let waited = self.told.wait_timeout_while(lock(&self.state), patience, pending);
        let (mut state, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        match std::mem::replace(&mut *state, State::Taken) {
            State::Told(answered) => Some(answered),
            other @ (State::Pending | State::Then(_) | State::Taken) => {
                *state = other;
                None
            }
        }
    }

    /// Has `then` called with the answer; gives it back with the answer if that is there already.
    pub(crate) fn then<F>(&self, then: F) -> Option<(F, Answered)>
    where
        F: FnOnce(Answered) + Send + 'static,
    {
        let mut state = lock(&self.state);
        match std::mem::replace(&mut *state, State::Taken) {
            State::Told(answered) => Some((then, answered)),
            State::Pending => {
                *state = State::Then(Box::new(then));
                None
            }
            other @ (State::Then(_) | State::Taken) => {
                debug_assert!(false, "an answer is taken once");
                *state = other;
                None
            }
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").field("is_told", &self.is_told()).finish()
    }
}

impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").field("addrs", &self.addrs).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_forgotten_request_is_answered() {
        let (answer, ticket) = Answer::new(String::from("db:1"));
        assert!(!ticket.is_told());
        drop(answer);
        let error = ticket.wait().expect("once").expect_err("it was forgotten");
        assert!(error.is_final() && error.target() == "db:1");
        assert!(ticket.wait().is_none(), "once");
    }

    #[test]
    fn a_call_instead_of_a_wait() {
        let (sender, told) = channel();
        let (answer, ticket) = Answer::new(String::new());
        let waits = ticket.then(move |answered| sender.send(answered.is_err()).unwrap());
        assert!(waits.is_none() && !ticket.is_told());
        let call = answer.fail(ConnectCause::Full, Vec::new()).expect("the call");
        assert!(ticket.is_told() && told.try_recv().is_err());
        assert!(!call.run());
        assert_eq!(told.recv(), Ok(true));
    }
}
