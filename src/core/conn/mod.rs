//! `Connection`: the record of one connection and every rule of its life; bytes and time come in,
//! what to do next comes out.
//!
//! ```text
//!  the session is   at rest ──take_job──▶ out ──handle_done──▶ at rest
//!
//!  RecvHalf  Open ──FIN──▶ Finished ──error, close──▶ Closed
//!  SendHalf  Open ──finish──▶ Finishing ──flushed, FIN sent──▶ Closed
//! ```
//!
//! The engine reports what happened through `handle_*` and asks [`Connection::next`] what to do.
//! Half-close is no special case: the connection is over when both halves are and nothing waits.

mod close;
mod halves;

use std::net::SocketAddr;

use bytes::BytesMut;

pub(crate) use self::close::Farewell;
use self::halves::{RecvHalf, SendHalf};
use super::context::{Hand, Verdict};
use super::handle::{Gate, Parcel};
use super::lane::Lane;
use super::session::{Errand, Session};
use crate::parts::buf::Outbox;
use crate::parts::timer::TimerId;
use crate::words::clock::Time;
use crate::words::config::Limits;
use crate::words::id::ConnId;
use crate::words::reason::Cause;
use crate::words::sync::Arc;

/// What a connection wants of the engine next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Write from the outbox.
    Write,
    /// Send FIN.
    Finish,
    /// Read, and show it to the session with whatever else waits.
    Read,
    /// Run the session without new input.
    Serve,
    /// Read and throw away.
    Discard,
    /// Close the socket; the record goes when the session is at rest.
    Reap,
    /// Nothing, until something happens.
    Rest,
}

/// The record of one connection. It holds no buffer while the connection is idle.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: SocketAddr,
    session: Seat,
    gate: Option<Arc<Gate>>,
    /// Input that is not a whole frame yet.
    partial: Option<Box<BytesMut>>,
    /// Output that the system did not take yet.
    outbox: Option<Box<Outbox>>,
    /// What waits for the session while it is out.
    inbox: Option<Box<Inbox>>,
    /// Why it ends, once that is certain; the first cause counts.
    cause: Option<Box<Cause>>,
    /// When a write stall or the linger is over; `NEVER` if neither is on.
    deadline: Time,
    timer: Option<TimerId>,
    recv: RecvHalf,
    send: SendHalf,
    pub(crate) lane: Lane,
    /// Input thrown away while lingering.
    discarded_bytes: usize,
    flags: Flags,
}

/// Where the session is.
enum Seat {
    Rest(Box<dyn Session>),
    /// In a job.
    Out,
    /// It was never made, or is gone.
    None,
}

impl std::fmt::Debug for Seat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Seat::Rest(_) => "Rest",
            Seat::Out => "Out",
            Seat::None => "None",
        })
    }
}

#[derive(Debug, Default)]
struct Inbox {
    parcels: Vec<Parcel>,
    drained: bool,
    drain: bool,
}

/// Single facts; each is changed in one or two places only.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a hidden enum")]
#[derive(Debug, Default)]
struct Flags {
    /// The kernel may have input: cleared only by a read that proves otherwise.
    readable: bool,
    /// A short read proves nothing until the next `WouldBlock`.
    drain_reads: bool,
    /// The kernel took no more output: cleared by a writable event.
    write_blocked: bool,
    /// It stands in the reactor's ready list.
    queued: bool,
    /// `on_open` has not returned.
    opening: bool,
    /// The end of input is not shown to the session yet.
    eof: bool,
    /// Queued output reached the high watermark and has not fallen to the low one.
    choked: bool,
    /// Input is read only to be thrown away.
    discarding: bool,
    /// The socket is to be closed, or is.
    dead: bool,
    /// ... with RST.
    reset: bool,
}

impl Connection {
    /// A connection that has just been accepted; its session is out to be made and opened.
    pub(crate) fn new(peer: SocketAddr) -> Self {
        Connection {
            peer,
            session: Seat::Out,
            gate: None,
            partial: None,
            outbox: None,
            inbox: None,
            cause: None,
            deadline: Time::NEVER,
            timer: None,
            recv: RecvHalf::Open,
            send: SendHalf::Open,
            lane: Lane::default(),
            discarded_bytes: 0,
            flags: Flags { opening: true, ..Flags::default() },
        }
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether its session is in a job.
    pub(crate) fn is_out(&self) -> bool {
        matches!(self.session, Seat::Out)
    }

    /// Queued output in bytes.
    pub(crate) fn queued_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.len_bytes())
    }

    /// Memory that it holds beside its record, in bytes: input and output, to the byte.
    pub(crate) fn held_bytes(&self) -> usize {
        let input = self.partial.as_ref().map_or(0, |partial| partial.len());
        input + self.queued_bytes()
    }

    /// Puts it into the ready list; false if it stands there already.
    pub(crate) fn enqueue(&mut self) -> bool {
        !std::mem::replace(&mut self.flags.queued, true)
    }

    /// Takes it off the ready list.
    pub(crate) fn dequeue(&mut self) {
        self.flags.queued = false;
    }

    /// What to do next. Asking changes nothing.
    pub(crate) fn next(&self) -> Next {
        let flags = &self.flags;
        if flags.dead {
            return Next::Reap;
        }
        if self.outbox.is_some() && !flags.write_blocked {
            return Next::Write;
        }
        if self.outbox.is_none() && self.send == SendHalf::Finishing && !self.is_out() {
            return Next::Finish;
        }
        let may_read = flags.readable && self.recv == RecvHalf::Open;
        if flags.discarding {
            return if may_read { Next::Discard } else { Next::Rest };
        }
        if !matches!(self.session, Seat::Rest(_)) {
            return Next::Rest;
        }
        if may_read && !flags.choked {
            return Next::Read;
        }
        if flags.eof || self.inbox.is_some() {
            return Next::Serve;
        }
        Next::Rest
    }

    /// The kernel says that there may be input. `drain`: a short read proves nothing.
    pub(crate) fn handle_readable(&mut self, drain: bool) {
        self.flags.readable = true;
        self.flags.drain_reads |= drain && !cfg!(switchboard_sim_mutant = "urgent_ignored");
    }

    /// The kernel says that there may be room for output.
    pub(crate) fn handle_writable(&mut self) {
        self.flags.write_blocked = false;
    }

    /// A read answered `WouldBlock`.
    pub(crate) fn handle_read_blocked(&mut self) {
        self.flags.readable = false;
        self.flags.drain_reads = false;
    }

    /// A read brought some bytes; `drained` if it brought less than it could have and the platform
    /// takes that as proof that there is no more.
    pub(crate) fn handle_received(&mut self, drained: bool) {
        if drained && !self.flags.drain_reads {
            self.flags.readable = false;
        }
    }

    /// A read brought the end of input.
    pub(crate) fn handle_eof(&mut self) {
        debug_assert_eq!(self.recv, RecvHalf::Open);
        self.recv = RecvHalf::Finished;
        self.flags.readable = false;
        if self.flags.discarding {
            self.end_if_over();
        } else {
            self.flags.eof = true;
        }
    }

    /// Takes the input that waited for the rest of its frame.
    pub(crate) fn take_partial(&mut self) -> Option<BytesMut> {
        self.partial.take().map(|partial| *partial)
    }

    /// Keeps input that is not a whole frame.
    pub(crate) fn keep_partial(&mut self, partial: BytesMut) {
        debug_assert!(self.partial.is_none());
        if !partial.is_empty() && !self.flags.dead && !self.flags.discarding {
            self.partial = Some(Box::new(partial));
        }
    }

    /// Sends the session out: it, the hand for it, and what it has to do. `None` if it is not at
    /// rest.
    pub(crate) fn take_session(
        &mut self,
        id: ConnId,
        outbox: Box<Outbox>,
        limits: &Limits,
    ) -> Option<(Box<dyn Session>, Hand, Errand)> {
        let Seat::Rest(session) = std::mem::replace(&mut self.session, Seat::Out) else {
            debug_assert!(false, "a session that is out is not sent out again");
            return None;
        };
        let inbox = self.inbox.take().map(|inbox| *inbox).unwrap_or_default();
        let errand = Errand {
            open: false,
            parcels: inbox.parcels,
            eof: std::mem::take(&mut self.flags.eof),
            drained: inbox.drained,
            drain: inbox.drain,
        };
        Some((session, self.hand(id, outbox, limits), errand))
    }

    /// What user code gets of this connection.
    pub(crate) fn hand(&mut self, id: ConnId, outbox: Box<Outbox>, limits: &Limits) -> Hand {
        Hand {
            id,
            peer: self.peer,
            outbox,
            gate: self.gate.take(),
            verdict: Verdict::Open,
            queued_bytes: self.queued_bytes(),
            send_max_bytes: limits.send_max_bytes,
        }
    }

    /// The session is back. Answers an outbox to use again.
    pub(crate) fn handle_done(
        &mut self,
        session: Option<Box<dyn Session>>,
        hand: Hand,
    ) -> Option<Box<Outbox>> {
        debug_assert!(self.is_out());
        self.session = session.map_or(Seat::None, Seat::Rest);
        let Hand { mut outbox, gate, verdict, .. } = hand;
        self.gate = gate;
        // Of a dead connection it is kept as well: to be counted as unsent.
        let spare = if outbox.is_empty() || self.send == SendHalf::Closed {
            outbox.clear();
            Some(outbox)
        } else if let Some(queue) = &mut self.outbox {
            if cfg!(switchboard_sim_mutant = "output_overtakes") {
                outbox.append(queue);
                std::mem::swap(&mut **queue, &mut *outbox);
            } else {
                queue.append(&mut outbox);
            }
            Some(outbox)
        } else {
            self.outbox = Some(outbox);
            None
        };
        self.obey(verdict);
        self.flags.opening = false;
        if self.flags.dead {
            self.shut_gate();
        }
        self.end_if_over();
        spare
    }

    /// The output that waits.
    pub(crate) fn outbox_mut(&mut self) -> Option<&mut Outbox> {
        self.outbox.as_deref_mut()
    }

    /// The system took some output. Answers the outbox for another use once it is empty.
    pub(crate) fn handle_written(&mut self, now: Time, limits: &Limits) -> Option<Box<Outbox>> {
        let left = self.queued_bytes();
        if self.deadline != Time::NEVER {
            self.deadline = if left == 0 { Time::NEVER } else { now + limits.write_stall };
        }
        if self.flags.choked && left <= limits.send_low_bytes {
            self.flags.choked = false;
            if !self.flags.discarding {
                self.inbox_mut().drained = true;
            }
        }
        if let Some(gate) = &self.gate {
            gate.publish_unsent(left);
        }
        if left == 0 { self.outbox.take() } else { None }
    }

    /// The system took no more output.
    pub(crate) fn handle_write_blocked(&mut self, now: Time, limits: &Limits) {
        self.flags.write_blocked = true;
        let queued = self.queued_bytes();
        if queued >= limits.send_high_bytes {
            self.flags.choked = true;
        }
        if self.deadline == Time::NEVER {
            self.deadline = now + limits.write_stall;
        }
        if let Some(outbox) = &mut self.outbox {
            outbox.compact();
        }
        if let Some(gate) = &self.gate {
            gate.publish_unsent(queued);
        }
    }

    /// Another thread sent a message; false if the connection takes no more.
    pub(crate) fn handle_parcel(&mut self, parcel: Parcel, cost: usize) -> bool {
        if let Some(gate) = &self.gate {
            gate.taken(cost);
        }
        if self.flags.dead || self.send != SendHalf::Open {
            return false;
        }
        self.inbox_mut().parcels.push(parcel);
        true
    }

    /// The server drains: the session is to be asked to come to an end.
    pub(crate) fn handle_drain(&mut self) {
        if !self.flags.dead && !self.flags.discarding {
            self.inbox_mut().drain = true;
        }
    }

    fn inbox_mut(&mut self) -> &mut Inbox {
        self.inbox.get_or_insert_default()
    }

    /// When it wants to be looked at although nothing has happened.
    pub(crate) fn deadline(&self) -> Time {
        self.deadline
    }

    pub(crate) fn timer_mut(&mut self) -> &mut Option<TimerId> {
        &mut self.timer
    }
}
