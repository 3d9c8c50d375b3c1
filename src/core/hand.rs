//! `Hand`: what user code may touch of a connection, and what it decides about it; by value.

use std::any::TypeId;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::gate::Gate;
use super::refusal::SendError;
use super::session::Session;
use super::shaping::Reshape;
use super::timers::Timers;
use crate::parts::buf::Outbox;
use crate::words::clock::Time;
use crate::words::config::{Overflow, Timeouts};
use crate::words::id::ConnId;
use crate::words::reason::Cause;
use crate::words::sync::Arc;

/// What user code may touch of a connection, by value: it travels with the job.
#[derive(Debug)]
pub(crate) struct Hand {
    pub(crate) id: ConnId,
    pub(crate) peer: SocketAddr,
    pub(crate) outbox: Outbox,
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) verdict: Verdict,
    /// Output that was queued before this job.
    pub(crate) queued_bytes: usize,
    /// What the messages of other threads that this job encodes were counted for at the gate.
    pub(crate) posted_bytes: usize,
    pub(crate) send_max_bytes: usize,
    pub(crate) overflow: Overflow,
    /// Messages that found no room.
    pub(crate) dropped_count: u32,
    /// When the job was made.
    pub(crate) now: Time,
    /// Through which listener the connection came.
    pub(crate) door: u16,
    /// Those of the protocol; here while the session is out.
    pub(crate) timers: Option<Box<Timers>>,
    pub(crate) timers_max: usize,
    /// The connection's own timeouts, if it has any.
    pub(crate) timeouts: Option<Arc<Timeouts>>,
    pub(crate) timeouts_changed: bool,
    /// The protocol does not want to read.
    pub(crate) paused: bool,
    /// It stopped reading before it was shown all of its input.
    pub(crate) unserved: bool,
    /// ... or that its input has ended.
    pub(crate) eof_left: bool,
    /// What the handler has put into its own place.
    pub(crate) successor: Option<Box<dyn Session>>,
    /// Of what type the handler is.
    pub(crate) handler: TypeId,
    /// Where in this job's output a notice is due, and its key.
    pub(crate) marks: Vec<(usize, u64)>,
    /// Notices that were due and that an error kept from the handler.
    pub(crate) flushed_left: VecDeque<u64>,
    /// How much this job had to say.
    pub(crate) said_bytes: usize,
    /// What came for a codec or handler that is not there any more.
    pub(crate) misdirected_count: u32,
    /// Jobs that were off-loaded.
    pub(crate) offloads_count: i16,
    /// Frames that had waited for too long.
    pub(crate) shed_count: u32,
    /// Since when its input has waited, and how long it may.
    pub(crate) ready_since: Time,
    pub(crate) queue_wait_max: Option<Duration>,
    /// ... or that the server drains.
    pub(crate) drain_left: bool,
    /// The handler was told that the server drains.
    pub(crate) drain_told: bool,
    /// Frames that were handled.
    pub(crate) frames_count: usize,
    /// How many may be, before others get their turn.
    pub(crate) frames_max: usize,
    /// What was changed of the rates that the connection is held to.
    pub(crate) reshape: Option<Box<Reshape>>,
}

/// What a job decided about its connection; a stronger one replaces a weaker one.
#[derive(Debug, Default)]
pub(crate) enum Verdict {
    /// Go on.
    #[default]
    Open,
    /// Our side has nothing more to say; the peer may.
    Finish,
    /// Flush, finish, linger.
    Close(Cause),
    /// Reset.
    Abort(Cause),
}

impl Verdict {
    /// Whether user code broke down.
    pub(crate) fn has_failed(&self) -> bool {
        match self {
            Verdict::Open | Verdict::Finish => false,
            Verdict::Close(cause) | Verdict::Abort(cause) => {
                matches!(cause, Cause::HandlerFailed(_) | Cause::HandlerPanicked)
            }
        }
    }
}

impl Hand {
    /// A hand that nobody has put anything into.
    pub(crate) fn blank() -> Self {
        Hand {
            id: ConnId::new(0, 0, 0),
            peer: SocketAddr::from(([0, 0, 0, 0], 0)),
            outbox: Outbox::new(),
            gate: None,
            verdict: Verdict::Open,
            queued_bytes: 0,
            posted_bytes: 0,
            send_max_bytes: 0,
            overflow: Overflow::Close,
            dropped_count: 0,
            now: Time::ZERO,
            door: 0,
            timers: None,
            timers_max: 0,
            timeouts: None,
            timeouts_changed: false,
            paused: false,
            unserved: false,
            eof_left: false,
            successor: None,
            handler: TypeId::of::<()>(),
            marks: Vec::new(),
            flushed_left: VecDeque::new(),
            said_bytes: 0,
            misdirected_count: 0,
            offloads_count: 0,
            shed_count: 0,
            ready_since: Time::ZERO,
            queue_wait_max: None,
            drain_left: false,
            drain_told: false,
            frames_count: 0,
            frames_max: usize::MAX,
            reshape: None,
        }
    }

    /// Whether output may still be queued.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.verdict, Verdict::Open)
    }

    /// Whether frames are still shown to the handler.
    #[inline]
    pub(crate) fn reads(&self) -> bool {
        self.stays() && self.listens()
    }

    /// Whether the protocol has not closed.
    pub(crate) fn listens(&self) -> bool {
        matches!(self.verdict, Verdict::Open | Verdict::Finish)
    }

    /// Whether the handler goes on: it has not put another one into its place, or has closed.
    #[inline]
    pub(crate) fn stays(&self) -> bool {
        self.successor.is_none() || !self.listens()
    }

    /// The end of what was said up to now is to be told of when the system has taken it.
    pub(crate) fn note_flush(&mut self, key: u64) {
        self.marks.push((self.outbox.len_bytes(), key));
    }

    /// Whether no further frame is shown in this job.
    #[inline]
    pub(crate) fn stops(&self) -> bool {
        let paused = self.paused && !cfg!(switchboard_sim_mutant = "pause_unheeded");
        paused || self.frames_count >= self.frames_max
    }

    /// Takes the next timer that is due, if the protocol is still to hear of it.
    pub(crate) fn pop_timer(&mut self) -> Option<u64> {
        if !self.listens() {
            return None;
        }
        self.timers.as_mut()?.pop_due(self.now)
    }

    pub(crate) fn finish(&mut self) {
        if matches!(self.verdict, Verdict::Open) {
            self.verdict = Verdict::Finish;
        }
    }

    pub(crate) fn close(&mut self, cause: Cause) {
        if self.listens() {
            self.verdict = Verdict::Close(cause);
        }
    }

    pub(crate) fn abort(&mut self, cause: Cause) {
        if !matches!(self.verdict, Verdict::Abort(_)) {
            self.verdict = Verdict::Abort(cause);
        }
    }

    /// A message was encoded behind the first `before` bytes of this job's output. If that is more
    /// than a connection may have queued, the message is taken back or the connection ends.
    #[inline]
    pub(crate) fn check_overflow(&mut self, before: usize) -> Result<(), SendError> {
        let max_bytes = self.send_max_bytes;
        if self.queued_bytes + self.outbox.len_bytes() <= max_bytes {
            return Ok(());
        }
        match self.overflow {
            Overflow::Close => {
                self.abort(Cause::Overflow);
                Err(SendError::Overflow { max_bytes })
            }
            Overflow::DropNewest => {
                self.outbox.truncate(before);
                self.dropped_count += 1;
                Err(SendError::Full { max_bytes })
            }
        }
    }
}
