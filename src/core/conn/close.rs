//! How a connection ends: `finish`, `close`, `abort`, errors and deadlines, and the one reason.

use super::halves::{RecvHalf, SendHalf};
use super::{Connection, Rules};
use crate::core::hand::Verdict;
use crate::core::session::{Inbox, Session};
use crate::words::clock::Time;
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
    pub(super) fn obey(&mut self, verdict: Verdict, now: Time, rules: Rules<'_>) {
        match verdict {
            Verdict::Open => {}
            Verdict::Finish => self.finish(),
            Verdict::Close(cause) => self.close(cause, now, rules),
            Verdict::Abort(cause) => self.abort(cause),
        }
    }

    /// Nothing more will be sent after what is queued; the peer may go on.
    fn finish(&mut self) {
        if self.send == SendHalf::Open {
            self.send = SendHalf::Finishing;
            self.flags.peer_first = self.recv == RecvHalf::Finished;
            self.abandon_broadcasts();
            self.tell_gate();
        }
        self.forget_parcels();
    }

    /// What other threads sent in the meantime would come after the last word: it is dropped.
    fn forget_parcels(&mut self) {
        let Some(mut inbox) = self.inbox.take() else { return };
        self.count_taken(inbox.posted_bytes);
        if !inbox.flushed.is_empty() {
            *inbox = Inbox { flushed: std::mem::take(&mut inbox.flushed), ..Inbox::default() };
            self.inbox = Some(inbox);
        }
    }

    /// Another thread asked for a close: after what was sent before.
    pub(crate) fn handle_close(&mut self, now: Time, rules: Rules<'_>) {
        let inbox = self.inbox.take();
        let inbox = inbox.filter(|inbox| !inbox.parcels.is_empty() || !inbox.flushed.is_empty());
        self.close(Cause::Closed, now, rules);
        let Some(mut inbox) = inbox else { return };
        if self.flags.dead {
            return self.count_taken(inbox.posted_bytes);
        }
        (inbox.drained, inbox.lagged) = (false, 0);
        inbox.closes |= !inbox.parcels.is_empty();
        self.inbox = Some(inbox);
    }

    /// Flush, finish, linger: what still comes is read and thrown away.
    pub(crate) fn close(&mut self, cause: Cause, now: Time, rules: Rules<'_>) {
        if self.flags.dead {
            return;
        }
        self.because(cause);
        let again = std::mem::replace(&mut self.flags.discarding, true);
        self.flags.eof = false;
        self.partial = None;
        self.forget_parcels();
        self.finish();
        if self.send == SendHalf::Closed && !again {
            self.linger(now, rules);
        }
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
    pub(crate) fn handle_finished(&mut self, now: Time, rules: Rules<'_>) {
        debug_assert_eq!(self.send, SendHalf::Finishing);
        self.send = SendHalf::Closed;
        if self.flags.discarding {
            self.linger(now, rules);
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

    /// Input was thrown away. It counts once FIN is sent: before that, a peer that talks while it
    /// listens would lose our last output.
    pub(crate) fn handle_discarded(&mut self, count: usize, rules: Rules<'_>) {
        if self.send != SendHalf::Closed {
            return;
        }
        let discarded_bytes = &mut self.trouble_mut().discarded_bytes;
        *discarded_bytes = discarded_bytes.saturating_add(count);
        if *discarded_bytes > rules.limits.linger_bytes {
            self.die(Cause::Closed);
        }
    }

    /// Over when both halves are, nothing waits for the session, and it is at rest.
    pub(super) fn end_if_over(&mut self) {
        let flags = &self.flags;
        let over = self.send == SendHalf::Closed
            && self.recv == RecvHalf::Finished
            && !flags.eof
            && !self.is_out();
        if over && !flags.dead {
            let peer_first = flags.peer_first;
            self.die(if peer_first { Cause::PeerFinished } else { Cause::Closed });
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
        self.expect_output(None);
        self.partial = None;
        if let Some(outbox) = &mut self.outbox {
            // It is never written: how much it was is enough.
            outbox.hollow();
        }
        self.forget_parcels();
        self.inbox = None;
        self.abandon_broadcasts();
        self.tell_gate();
    }

    fn because(&mut self, cause: Cause) {
        let drained = self.flags.drains && matches!(cause, Cause::Closed);
        let cause = if drained { Cause::Drained } else { cause };
        self.trouble_mut().cause.get_or_insert(cause);
    }

    /// Why it ends, once that is certain.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn cause(&self) -> Option<&Cause> {
        self.rare().trouble.as_ref().and_then(|trouble| trouble.cause.as_ref())
    }

    /// Tells the handles what can no longer be asked for.
    pub(super) fn tell_gate(&self) {
        let Some(gate) = &self.gate else { return };
        if self.flags.dead {
            gate.shut();
        } else if self.send != SendHalf::Open {
            gate.finish();
        }
    }

    /// Whether it waits for nothing but the end of its peer.
    pub(crate) fn lingers(&self) -> bool {
        self.send == SendHalf::Closed && self.flags.discarding && !self.flags.dead
    }

    /// Whether it has begun to; answered once.
    #[inline]
    pub(crate) fn begins_to_linger(&mut self) -> bool {
        std::mem::take(&mut self.flags.lingers_anew)
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
        let cause = self.rare.and_then(|rare| rare.trouble).and_then(|trouble| trouble.cause);
        let cause = cause.unwrap_or(Cause::Closed);
        (self.session, CloseReason::new(cause, phase, unsent))
    }
}
