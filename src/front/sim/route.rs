//! `Route`: what lies behind an address that the simulated server connects to.

use std::time::Duration;

use super::net::{Net, ServerEnd};
use super::trace::{Note, Verb};
use crate::words::clock::Time;

/// What the server finds when it connects to an address.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) fate: Fate,
    /// How long the answer takes.
    pub(super) delay: Duration,
    /// When the answer comes, once the server asks.
    pub(super) answer_at: Option<Time>,
    /// Whether that was yes.
    pub(super) answered: Option<bool>,
    /// The server knows, and has a connection.
    pub(super) connected: bool,
    /// The server has lost interest.
    pub(super) over: bool,
}

/// How an address answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The system knows no way.
    Unreachable,
    Refuses,
    Silent,
    Accepts,
    /// ... and resets at once.
    Resets,
}

impl Route {
    pub(super) fn new(fate: Fate, delay: Duration) -> Self {
        let (answer_at, answered, connected, over) = (None, None, false, false);
        Route { fate, delay, answer_at, answered, connected, over }
    }

    /// Whether the peer has a connection, whatever the server knows.
    pub(super) fn is_taken(&self) -> bool {
        self.answered == Some(true) && self.fate == Fate::Accepts
    }
}

impl Net {
    /// Begins to connect to this address, with the socket that is the answer; `None` if there is
    /// no way.
    pub(super) fn connect_out(&mut self, addressed: usize) -> Option<usize> {
        let id = self.next_of(addressed)?;
        let fate = self.routes[id].fate;
        self.note(Note::Server(id, Verb::Connect));
        if self.routes[id].answer_at.is_some() || self.sockets[id].end != ServerEnd::Waiting {
            self.fail(format!("socket {id} is connected twice"));
        }
        let now = self.now;
        let route = &mut self.routes[id];
        if fate == Fate::Unreachable {
            // For whoever comes next there is another one.
            route.over = true;
            return None;
        }
        let at = if fate == Fate::Silent { Time::NEVER } else { now + route.delay };
        route.answer_at = Some(at);
        self.hold(id);
        Some(id)
    }

    /// The server holds one more socket.
    pub(super) fn hold(&mut self, id: usize) {
        let now = self.now;
        let socket = &mut self.sockets[id];
        socket.end = ServerEnd::Held;
        socket.facts.accepted_at = Some(now);
        socket.facts.heard_at = now;
        self.ledger.open(id, false, now);
        self.held.push(id);
        if self.held.len() > self.doorman.held_max {
            let (held, max) = (self.held.len(), self.doorman.held_max);
            self.fail(format!("{held} connections, but {max} allowed"));
        }
    }

    /// Whether this is a socket that is not connected yet, or never was.
    pub(super) fn is_unconnected(&self, id: usize) -> bool {
        self.routes.get(id).is_some_and(|route| !route.connected)
    }

    /// The peer answers, unless the server has lost interest.
    pub(super) fn answer(&mut self, id: usize) {
        let accepts = matches!(self.routes[id].fate, Fate::Accepts | Fate::Resets);
        self.routes[id].answered = Some(accepts);
        let verb = if accepts { Verb::Connect } else { Verb::Refused };
        self.note(Note::Client(id, verb, 0));
        if self.routes[id].fate == Fate::Resets {
            self.reset(id);
        }
        if let Some(watch) = &mut self.sockets[id].watch {
            watch.pending = true;
        }
    }
}
