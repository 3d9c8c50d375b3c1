//! Taking back what a job left: its session, its output, and what it says about the handler.

use std::time::Duration;

use bytes::BytesMut;

use super::stream::May;
use super::{OUTBOXES_MAX, Reactor};
use crate::core::context::Hand;
use crate::core::job::{Done, Rest};
use crate::core::session::Session;
use crate::parts::buf::Outbox;
use crate::sys::Kernel;
use crate::words::id::ConnId;

/// A job of the slow lane that takes no longer counts as quick: the time after which the sentinel
/// would begin to look at it.
const QUICK: Duration = Duration::from_micros(250);
/// What an outbox may keep for its next use.
const OUTBOX_KEEPS: usize = 4096;

impl<K: Kernel> Reactor<K> {
    /// A job is over.
    pub(super) fn take_back(&mut self, done: Done) {
        let Done { id, rest, took } = done;
        match rest {
            Rest::Served { session, input, hand, panicked } => {
                self.counters.panics += u64::from(panicked);
                self.take_session_back(id, session, hand, input);
            }
            Rest::Closed { panicked } => {
                self.counters.panics += u64::from(panicked);
                self.farewells_out -= 1;
            }
        }
        if let Some(took) = took {
            self.learn_time(id, took);
        }
    }

    fn take_session_back(
        &mut self,
        id: ConnId,
        session: Option<Box<dyn Session>>,
        hand: Hand,
        input: BytesMut,
    ) {
        let Some(entry) = self.table.get_mut(id) else {
            debug_assert!(false, "a record stays while its session is out");
            return;
        };
        let leased = std::mem::take(&mut entry.leased);
        let spare = entry.conn.handle_done(session, hand, &self.common.limits);
        let used = if leased || input.len() < entry.given_bytes {
            // What is left of it is copied out: a partial frame keeps what it needs and no more.
            if !input.is_empty() {
                entry.conn.keep_partial(BytesMut::from(&input[..]));
            }
            Some(input)
        } else {
            entry.conn.keep_partial(input);
            None
        };
        if let Some(spare) = spare {
            self.keep_outbox(spare);
        }
        // What it said is written now, before the buffer in which that may stand is given back.
        self.advance(id, May::Queue);
        self.arm(id);
        match used {
            Some(buffer) if leased => self.pool.give_back(buffer),
            Some(_) | None => {}
        }
    }

    /// Keeps an empty outbox for the next job.
    pub(super) fn keep_outbox(&mut self, mut outbox: Box<Outbox>) {
        if self.outboxes.len() < OUTBOXES_MAX {
            outbox.reset(OUTBOX_KEEPS);
            self.outboxes.push(outbox);
        }
    }

    /// A thread came back from a job and found its reactor taken over.
    pub(super) fn learn_overtaken(&mut self, id: ConnId) {
        self.counters.overtaken += 1;
        if let Some(entry) = self.table.get_mut(id) {
            self.counters.slowed += u64::from(entry.conn.lane.overtaken());
        }
    }

    fn learn_time(&mut self, id: ConnId, took: Duration) {
        if let Some(entry) = self.table.get_mut(id) {
            self.counters.trusted_again += u64::from(entry.conn.lane.served(took <= QUICK));
        }
    }
}
