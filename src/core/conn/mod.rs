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
mod groups;
mod halves;
mod held;
mod idleness;
mod inbox;
mod memory;
mod rare;
#[cfg(any(test, feature = "testing"))]
mod look;
#[cfg(any(test, feature = "sim"))]
mod life;
#[cfg(any(test, feature = "sim"))]
mod rig;
mod rules;
mod times;
#[cfg(all(test, loom))]
mod model;
#[cfg(all(test, not(loom)))]
mod tests;

use std::net::SocketAddr;

use bytes::BytesMut;

pub(crate) use self::close::Farewell;
use self::halves::{RecvHalf, SendHalf};
#[cfg(any(test, feature = "sim"))]
pub(crate) use self::life::live;
use self::memory::Ration;
pub(crate) use self::memory::{Change, Holding};
use self::rare::Rare;
pub(crate) use self::rules::Rules;
pub(crate) use self::times::Lapse;
use super::gate::Gate;
use super::hand::{Hand, Verdict};
use super::keepalive::{KeepAlive, Prior};
use super::lane::Lane;
use super::session::{Errand, Inbox, Session};
use crate::parts::buf::Outbox;
use crate::parts::timer::TimerId;
use crate::words::clock::Time;
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
    /// Ask the system what is wrong with the socket.
    Probe,
    /// Close the socket; the record goes when the session is at rest.
    Reap,
    /// Nothing, until something happens.
    Rest,
}

/// The record of one connection. It holds no buffer while the connection is idle.
#[derive(Debug)]
pub(crate) struct Connection {
    peer: SocketAddr,
    /// It, while it is at rest; `None` while it is out, and if it was never made.
    session: Option<Box<dyn Session>>,
    gate: Option<Arc<Gate>>,
    /// Input that is not a whole frame yet.
    partial: Option<Box<BytesMut>>,
    /// Output that the system did not take yet.
    outbox: Option<Box<Outbox>>,
    /// What waits for the session while it is out.
    inbox: Option<Box<Inbox>>,
    /// What few connections have.
    rare: Option<Box<Rare>>,
    /// When the peer was last heard of.
    last_seen: Time,
    /// Since when its input waits for its turn.
    ready_since: Time,
    /// When the frame that waits for its rest began; until the first one is whole, when the
    /// connection was opened; else `NEVER`.
    frame_since: Time,
    keepalive: KeepAlive,
    timer: Option<TimerId>,
    recv: RecvHalf,
    send: SendHalf,
    pub(crate) lane: Lane,
    /// Off-loaded jobs that have not come back; one may come back before it is counted.
    offloads: i16,
    flags: Flags,
}

/// Single facts; each is changed in one or two places only.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, not a hidden enum")]
#[derive(Debug, Default)]
struct Flags {
    /// The session is in a job.
    out: bool,
    /// The kernel may have input: cleared only by a read that proves otherwise.
    readable: bool,
    /// A short read proves nothing until the next `WouldBlock`.
    drain_reads: bool,
    /// The kernel took no more output: cleared by a writable event.
    write_blocked: bool,
    /// Half of a write stall is over, and the system was asked for room then.
    half_stalled: bool,
    /// It stands in the reactor's ready list.
    queued: bool,
    /// `on_open` has not returned, or has failed.
    opening: bool,
    /// The end of input is not shown to the session yet.
    eof: bool,
    /// The session is to be asked to come to an end.
    drain_due: bool,
    /// Queued output reached the high watermark and has not fallen to the low one.
    choked: bool,
    /// Its session knows that the server drains: an end that is asked for now is due to that.
    drains: bool,
    /// Its first frame was handled.
    greeted: bool,
    /// The protocol does not want to read for now.
    paused: bool,
    /// What it may read while memory is short.
    ration: Ration,
    /// It stopped in the middle of its input; what is left may have whole frames.
    unserved: bool,
    /// A timer of the protocol is due.
    timer_due: bool,
    /// The system says that the connection is broken, or that both sides have finished.
    hangup: bool,
    /// It may await something earlier than its entry in the wheel says.
    sooner: bool,
    /// The peer had finished when we did.
    peer_first: bool,
    /// Input is read only to be thrown away.
    discarding: bool,
    /// It has begun to wait for nothing but the end of its peer, which the engine does not know.
    lingers_anew: bool,
    /// The socket is to be closed, or is.
    dead: bool,
    /// ... with RST.
    reset: bool,
}

impl Connection {
    /// A connection that has just been accepted; its session is out to be made and opened.
    pub(crate) fn new(peer: SocketAddr, now: Time, keepalive: KeepAlive) -> Self {
        Connection {
            peer,
            session: None,
            gate: None,
            partial: None,
            outbox: None,
            inbox: None,
            rare: None,
            last_seen: now,
            ready_since: now,
            frame_since: now,
            keepalive,
            timer: None,
            recv: RecvHalf::Open,
            send: SendHalf::Open,
            lane: Lane::default(),
            offloads: 0,
            flags: Flags { out: true, opening: true, ..Flags::default() },
        }
    }

    /// Gives it a gate before its session is made, for a handle that is asked for by then.
    pub(crate) fn attach(&mut self, gate: Arc<Gate>) {
        self.gate = Some(gate);
    }

    /// Whether its session is in a job.
    #[inline]
    pub(crate) fn is_out(&self) -> bool {
        self.flags.out
    }

    /// Queued output in bytes.
    #[inline]
    pub(crate) fn queued_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.len_bytes())
    }

    /// Memory that it holds beside its record, in bytes: input and output, to the byte, and what
    /// waits of its groups, as that is counted.
    pub(crate) fn held_bytes(&self) -> usize {
        let input = self.partial.as_ref().map_or(0, |partial| partial.len());
        input + self.queued_bytes() + self.pending_bytes()
    }

    /// Puts it into the ready list; false if it stands there already.
    #[inline]
    pub(crate) fn enqueue(&mut self) -> bool {
        !std::mem::replace(&mut self.flags.queued, true)
    }

    /// Takes it off the ready list.
    #[inline]
    pub(crate) fn dequeue(&mut self) {
        self.flags.queued = false;
    }

    /// What to do next. Asking changes nothing.
    #[inline]
    pub(crate) fn next(&self) -> Next {
        let flags = &self.flags;
        if flags.dead {
            return Next::Reap;
        }
        if self.outbox.is_some() && !flags.write_blocked && !self.holds_output() {
            return Next::Write;
        }
        let at_rest = self.session.is_some();
        let may_read = flags.readable && self.recv == RecvHalf::Open && !self.holds_input();
        let held = (flags.choked || flags.paused) && !flags.discarding;
        if flags.hangup && (!may_read || held) {
            return Next::Probe;
        }
        // The last calls are made before the end of the connection.
        let forgets = cfg!(switchboard_sim_mutant = "last_notice_lost");
        let last = flags.discarding || (self.send == SendHalf::Finishing && !forgets);
        if last
            && at_rest
            && self.inbox.as_ref().is_some_and(|inbox| inbox.is_due(flags.discarding))
        {
            return Next::Serve;
        }
        if self.outbox.is_none() && self.send == SendHalf::Finishing && !self.is_out() {
            return Next::Finish;
        }
        if flags.discarding {
            return if may_read { Next::Discard } else { Next::Rest };
        }
        if !at_rest {
            return Next::Rest;
        }
        let unserved = flags.unserved && !flags.paused;
        if may_read && !(flags.choked || flags.paused || flags.ration.is_none() || unserved) {
            return Next::Read;
        }
        let ends = (flags.eof && !flags.paused) || flags.drain_due;
        if unserved || (ends && self.offloads == 0) || flags.timer_due || self.inbox.is_some() {
            return Next::Serve;
        }
        Next::Rest
    }

    /// The kernel says that there may be input. `drain`: a short read proves nothing.
    #[inline]
    pub(crate) fn handle_readable(&mut self, drain: bool, now: Time) {
        if !self.flags.readable {
            self.ready_since = now;
        }
        self.flags.readable = true;
        self.flags.drain_reads |= drain && !cfg!(switchboard_sim_mutant = "urgent_ignored");
    }

    /// The kernel says that the connection is broken, or that both sides have finished. While we
    /// read, a read tells which; but we may not, by the protocol's wish or for want of room.
    pub(crate) fn handle_hangup(&mut self) {
        self.flags.hangup = true;
    }

    /// The kernel was asked, and nothing is wrong.
    pub(crate) fn handle_sound(&mut self) {
        self.flags.hangup = false;
    }

    /// The kernel says that there may be room for output.
    pub(crate) fn handle_writable(&mut self) {
        self.flags.write_blocked = false;
    }

    /// A read answered `WouldBlock`.
    pub(crate) fn handle_read_blocked(&mut self) {
        self.flags.readable = false;
        self.flags.drain_reads = false;
        self.flags.hangup = false;
    }

    /// A read brought some bytes; `drained` if it brought less than it could have and the platform
    /// takes that as proof that there is no more.
    #[inline]
    pub(crate) fn handle_received(&mut self, drained: bool, now: Time, prior: &mut Prior) {
        self.note_input(now, prior);
        if drained && !self.flags.drain_reads {
            self.flags.readable = false;
        }
    }

    /// A read brought the end of input.
    pub(crate) fn handle_eof(&mut self, now: Time) {
        debug_assert_eq!(self.recv, RecvHalf::Open);
        self.note_seen(now);
        self.recv = RecvHalf::Finished;
        self.flags.readable = false;
        // This read has told.
        self.flags.hangup = false;
        if self.flags.discarding {
            self.end_if_over();
        } else {
            self.flags.eof = true;
        }
    }

    /// Takes the input that waited for the rest of its frame.
    #[inline]
    pub(crate) fn take_partial(&mut self) -> Option<BytesMut> {
        self.partial.take().map(|partial| *partial)
    }

    /// Keeps input that is not a whole frame.
    #[inline]
    pub(crate) fn keep_partial(&mut self, partial: BytesMut, now: Time) {
        debug_assert!(self.partial.is_none());
        if !partial.is_empty() && !self.flags.dead && !self.flags.discarding {
            self.partial = Some(Box::new(partial));
            self.note_partial(now);
        }
    }

    /// Sends the session out: it, and what it has to do; fills its hand. `None` if it is not at
    /// rest.
    #[inline]
    pub(crate) fn take_session(
        &mut self,
        id: ConnId,
        hand: &mut Hand,
        rules: Rules<'_>,
    ) -> Option<(Box<dyn Session>, Errand)> {
        let session = self.session.take();
        debug_assert!(session.is_some(), "a session that is out is not sent out again");
        let session = session?;
        self.flags.out = true;
        (self.flags.timer_due, self.flags.unserved) = (false, false);
        self.lend(id, hand, rules);
        // The end waits for the results of what was off-loaded.
        let settled = self.offloads == 0;
        let eof = settled && std::mem::take(&mut self.flags.eof);
        let drain = settled && std::mem::take(&mut self.flags.drain_due);
        let inbox = self.inbox.take();
        if let Some(inbox) = &inbox {
            hand.posted_bytes = inbox.posted_bytes;
            if inbox.closes {
                // What was sent before the close is said as if there were none yet.
                hand.verdict = Verdict::Open;
            }
        }
        Some((session, Errand { open: false, eof, drain, inbox }))
    }

    /// Puts into `hand` what user code gets of this connection.
    #[inline]
    pub(crate) fn lend(&mut self, id: ConnId, hand: &mut Hand, rules: Rules<'_>) {
        debug_assert!(hand.outbox.is_empty() && hand.gate.is_none());
        hand.id = id;
        hand.peer = self.peer;
        hand.gate.clone_from(&self.gate);
        hand.timers = self.rare.as_mut().and_then(|rare| rare.timers.take());
        hand.timeouts.clone_from(&self.rare().own_timeouts);
        hand.paused = self.flags.paused;
        hand.verdict = self.verdict();
        hand.queued_bytes = self.queued_bytes();
        hand.posted_bytes = 0;
        hand.send_max_bytes = rules.limits.send_max_bytes;
        hand.timers_max = rules.limits.timers_max;
        hand.frames_max = rules.limits.frames_per_turn;
        hand.timeouts_changed = false;
        (hand.unserved, hand.eof_left) = (false, false);
        (hand.drain_left, hand.drain_told) = (false, false);
        (hand.frames_count, hand.dropped_count, hand.shed_count) = (0, 0, 0);
        hand.misdirected_count = 0;
        hand.overflow = rules.limits.overflow;
        hand.queue_wait_max = rules.limits.queue_wait_max;
        hand.ready_since = self.ready_since;
    }

    /// What was decided before, which binds the next job too.
    fn verdict(&self) -> Verdict {
        if self.flags.discarding {
            return Verdict::Close(Cause::Closed);
        }
        if self.send == SendHalf::Open { Verdict::Open } else { Verdict::Finish }
    }

    /// The session is back, with what it decided. Its output comes next: what can be written goes
    /// straight to the system, the rest to [`Connection::handle_output`].
    #[inline]
    pub(crate) fn handle_done(
        &mut self,
        session: Option<Box<dyn Session>>,
        hand: &mut Hand,
        now: Time,
        rules: Rules<'_>,
    ) {
        debug_assert!(self.is_out());
        self.flags.out = false;
        self.ready_since = now;
        self.session = session;
        self.gate = hand.gate.take();
        hand.said_bytes = hand.outbox.len_bytes();
        self.offloads += std::mem::take(&mut hand.offloads_count);
        self.take_back_lent();
        self.take_times_back(hand, now);
        if let Some(change) = hand.reshape.take() {
            self.reshape(*change, now);
        }
        let verdict = std::mem::take(&mut hand.verdict);
        self.flags.opening &= self.flags.dead || verdict.has_failed();
        self.flags.drains |= hand.drain_told;
        self.obey(verdict, now, rules);
        if !hand.flushed_left.is_empty() {
            self.take_flushed_back(hand);
        }
        // The job may have made the gate only now.
        self.tell_gate();
        self.end_if_over();
    }

    /// Whether output may go to the system at once, because none waits before it.
    #[inline]
    pub(crate) fn writes_through(&self) -> bool {
        let flags = &self.flags;
        let open = self.send != SendHalf::Closed && !flags.dead;
        open && self.outbox.is_none() && !flags.write_blocked && !self.holds_output()
    }

    /// What a job said and the system has not taken. Of a dead connection it is kept as well: to
    /// be counted as unsent.
    #[inline]
    pub(crate) fn handle_output(&mut self, hand: &mut Hand, rules: Rules<'_>) {
        if self.send == SendHalf::Closed && !self.flags.dead {
            hand.outbox.clear();
        }
        if !hand.marks.is_empty() {
            self.take_marks(hand);
        }
        let most = self.queued_bytes() + hand.said_bytes;
        if !hand.outbox.is_empty() {
            let held = self.holds_output();
            let queue = self.outbox.get_or_insert_default();
            if cfg!(switchboard_sim_mutant = "output_overtakes") {
                hand.outbox.append(queue);
            }
            queue.append(&mut hand.outbox);
            if self.flags.dead {
                queue.hollow();
            } else if held || self.flags.write_blocked {
                // It will wait for a while: it is to keep no read buffer alive.
                queue.compact();
            }
        }
        if most >= rules.limits.send_high_bytes {
            self.choke(rules);
        }
        if let Some(gate) = &self.gate {
            // In this order, so that no message is counted nowhere.
            gate.publish_unsent(self.queued_bytes());
            gate.taken(hand.posted_bytes);
        }
    }

    /// What was queued has reached the high mark. What of it the system took at once may have
    /// brought it down to the low one already: who has held output back is told all the same.
    fn choke(&mut self, rules: Rules<'_>) {
        if self.queued_bytes() > rules.limits.send_low_bytes || self.flags.choked {
            self.flags.choked = true;
        } else if self.send == SendHalf::Open && !self.flags.dead {
            self.inbox_mut().drained = true;
        }
    }

    /// The output that waits.
    #[inline]
    pub(crate) fn outbox_mut(&mut self) -> Option<&mut Outbox> {
        self.outbox.as_deref_mut()
    }

    /// The system took some output. True if none is left.
    pub(crate) fn handle_written(&mut self, count: usize, now: Time, rules: Rules<'_>) -> bool {
        let left = self.queued_bytes();
        if let Some(marks) = self.rare.as_mut().and_then(|rare| rare.marks.as_mut()) {
            marks.advance(count);
            self.tell_flushed();
        }
        if self.awaits_output() {
            let stall = self.timeouts(rules).write_stall;
            self.expect_output((left > 0).then(|| now.after(stall)));
        }
        self.note_sent(now, rules);
        if self.flags.choked && left <= rules.limits.send_low_bytes {
            self.flags.choked = false;
            self.listen_again(now);
            if self.send == SendHalf::Open {
                self.inbox_mut().drained = true;
            }
        }
        let is_empty = left == 0 && !self.feed();
        if is_empty {
            self.outbox = None;
        }
        if let Some(gate) = &self.gate {
            gate.publish_unsent(self.queued_bytes());
        }
        is_empty
    }

    /// The system took no more output.
    pub(crate) fn handle_write_blocked(&mut self, now: Time, rules: Rules<'_>) {
        self.flags.write_blocked = true;
        if !self.awaits_output() {
            self.await_until(now.after(self.timeouts(rules).write_stall));
        }
        if let Some(outbox) = &mut self.outbox {
            outbox.compact();
        }
    }

    /// Whether a write stall or the linger is on.
    #[inline]
    pub(crate) fn awaits_output(&self) -> bool {
        self.rare().trouble.as_ref().is_some_and(|trouble| trouble.output_by.is_some())
    }

    #[inline]
    pub(crate) fn timer_mut(&mut self) -> &mut Option<TimerId> {
        &mut self.timer
    }
}
