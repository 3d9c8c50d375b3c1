//! How a connection ends: `finish`, `close`, `abort`, errors and deadlines, and the one reason.

use super::halves::{RecvHalf, SendHalf};
use super::{Connection, Seat};
use crate::core::context::Verdict;
use crate::core::session::Session;
use crate::words::clock::Time;
use crate::words::config::Limits;
use crate::words::reason::{Cause, ClosePhase, CloseReason};

/// How a socket is to be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Farewell {
    /// The system goes on to deliver what was written.
    Close,
    /// RST.
    Reset,
}

impl Connection {
    /// Does what a job decided.
    pub(super) fn obey(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Open => {}
            Verdict::Finish => self.finish(),
            Verdict::Close(cause) => self.close(cause),
            Verdict::Abort(cause) => self.abort(cause),
        }
    }

    /// Nothing more will be sent after what is queued; the peer may go on.
    fn finish(&mut self) {
        if self.send == SendHalf::Open {
            self.send = SendHalf::Finishing;
            let by_peer = self.recv == RecvHalf::Finished;
            self.because(if by_peer { Cause::PeerFinished } else { Cause::Closed });
        }
    }

    /// Flush, finish, linger: what still comes is read and thrown away.
    pub(crate) fn close(&mut self, cause: Cause) {
        if self.flags.dead {
            return;
        }
        self.because(cause);
        self.flags.discarding = true;
        self.flags.eof = false;
        self.partial = None;
        self.inbox = None;
        self.finish();
        self.end_if_over();
    }

    /// The end, with RST.
    pub(crate) fn abort(&mut self, cause: Cause) {
        if !self.flags.dead {
            self.flags.reset = true;
            self.die(cause);
        }
    }

    /// FIN is sent.
    pub(crate) fn handle_finished(&mut self, now: Time, limits: &Limits) {
        debug_assert_eq!(self.send, SendHalf::Finishing);
        self.send = SendHalf::Closed;
        if self.flags.discarding {
            self.deadline = now + limits.linger;
            if cfg!(switchboard_sim_mutant = "linger_skipped") {
                self.die(Cause::Closed);
            }
        }
        self.end_if_over();
    }

    /// Whether FIN can be left to the closing of the socket, because that comes next anyway.
    pub(crate) fn ends_with_finish(&self) -> bool {
        self.recv == RecvHalf::Finished && !self.flags.eof && !self.is_out()
    }

    /// Input was thrown away.
    pub(crate) fn handle_discarded(&mut self, count: usize, limits: &Limits) {
        self.discarded_bytes = self.discarded_bytes.saturating_add(count);
        if self.discarded_bytes > limits.linger_bytes {
            self.die(Cause::Closed);
        }
    }

    /// The wheel says that `deadline` may have come. True if it has.
    pub(crate) fn handle_timeout(&mut self, now: Time) -> bool {
        let early = now < self.deadline && !cfg!(switchboard_sim_mutant = "timer_early");
        if early || self.flags.dead {
            return false;
        }
        self.deadline = Time::NEVER;
        if self.outbox.is_some() {
            self.abort(Cause::WriteStalled);
        } else {
            self.die(Cause::Closed);
        }
        true
    }

    /// Over when both halves are, nothing waits for the session, and it is at rest.
    pub(super) fn end_if_over(&mut self) {
        let flags = &self.flags;
        let over = self.send == SendHalf::Closed
            && self.recv == RecvHalf::Finished
            && !flags.eof
            && !self.is_out();
        if over && !flags.dead {
            self.die(Cause::Closed);
        }
    }

    /// The socket is to be closed now. The first cause stands.
    pub(crate) fn die(&mut self, cause: Cause) {
        if self.flags.dead {
            return;
        }
        self.because(cause);
        self.flags.dead = true;
        self.flags.eof = false;
        self.deadline = Time::NEVER;
        self.partial = None;
        self.inbox = None;
        self.shut_gate();
    }

    fn because(&mut self, cause: Cause) {
        self.cause.get_or_insert_with(|| Box::new(cause));
    }

    pub(super) fn shut_gate(&mut self) {
        if let Some(gate) = &self.gate {
            gate.shut();
        }
    }

    /// How the socket of a dead connection is to be closed.
    pub(crate) fn farewell(&self) -> Farewell {
        if self.flags.reset { Farewell::Reset } else { Farewell::Close }
    }

    /// Ends the record: the session, if it was ever made, and the reason.
    pub(crate) fn into_end(self) -> (Option<Box<dyn Session>>, CloseReason) {
        let phase = if self.flags.opening {
            ClosePhase::Opening
        } else if self.send == SendHalf::Open {
            ClosePhase::Open
        } else {
            ClosePhase::Closing
        };
        let unsent = self.queued_bytes();
        let cause = self.cause.map_or(Cause::Closed, |cause| *cause);
        let session = match self.session {
            Seat::Rest(session) => Some(session),
            Seat::Out | Seat::None => None,
        };
        (session, CloseReason::new(cause, phase, unsent))
    }
}
