//! Taking back what a job left: its session, its output, and what it says about the handler.

use std::time::Duration;

use bytes::BytesMut;

use super::Reactor;
use super::stream::May;
use crate::core::job::{Done, Input, Job, Kind};
use crate::sys::Kernel;
use crate::words::id::ConnId;

/// A job of the slow lane that takes no longer counts as quick: the time after which the sentinel
/// would begin to look at it.
const QUICK: Duration = Duration::from_micros(250);

impl<K: Kernel> Reactor<K> {
    /// A job is over.
    pub(super) fn take_back(&mut self, done: Done) {
        let Done { mut job, kind, panicked, took } = done;
        let id = job.hand.id;
        if kind.has_connection() {
            self.away.end(id);
        }
        self.io.counters.panics += u64::from(panicked);
        match kind {
            Kind::Closed => self.farewells_out -= 1,
            Kind::Called => self.dials.handle_called(),
            Kind::Free => {}
            Kind::Served => {
                self.take_session_back(id, &mut job, panicked);
                if let Some(took) = took {
                    self.learn_time(id, took);
                }
            }
        }
        self.io.keep_blank(job);
    }

    fn take_session_back(&mut self, id: ConnId, job: &mut Job, panicked: bool) {
        let Some(entry) = self.table.get_mut(id) else {
            debug_assert!(false, "a record stays while its session is out");
            return;
        };
        let io = &mut self.io;
        io.tick();
        io.counters.frames += job.hand.frames_count as u64;
        io.counters.shed += u64::from(job.hand.shed_count);
        io.counters.misdirected += u64::from(job.hand.misdirected_count);
        io.counters.dropped += u64::from(job.hand.dropped_count);
        let session = job.session.take();
        entry.conn.handle_done(session, &mut job.hand, io.now, io.rules(entry.door));
        let Input { bytes: input, given_bytes, leased } = std::mem::take(&mut job.input);
        // Whole frames that wait for the next turn stay where they are, so that many of them are
        // not copied once per turn.
        let next_turn = job.hand.unserved && !job.hand.paused;
        let used = if leased || (input.len() < given_bytes && !next_turn) {
            // What is left of it is copied out: a partial frame keeps what it needs and no more.
            if !input.is_empty() {
                entry.conn.keep_partial(BytesMut::from(&input[..]), io.kernel.now());
            }
            Some(input)
        } else {
            let now = if input.is_empty() { io.now } else { io.kernel.now() };
            entry.conn.keep_partial(input, now);
            None
        };
        // What it said is written now, before the buffer in which that may stand is given back.
        io.write_through(entry, &mut job.hand.outbox);
        entry.conn.handle_output(&mut job.hand, io.rules(entry.door));
        io.advance(id, entry, May::Queue);
        match used {
            // Who knows what a panic left in it.
            Some(_) if leased && panicked => io.pool.write_off(),
            Some(buffer) if leased => io.pool.give_back(buffer),
            Some(_) | None => {}
        }
    }

    /// A thread came back from a job and found its reactor taken over.
    pub(super) fn learn_overtaken(&mut self, id: ConnId) {
        self.io.counters.overtaken += 1;
        if let Some(entry) = self.table.get_mut(id) {
            self.io.counters.slowed += u64::from(entry.conn.lane.overtaken());
        }
    }

    fn learn_time(&mut self, id: ConnId, took: Duration) {
        if let Some(entry) = self.table.get_mut(id) {
            self.io.counters.trusted_again += u64::from(entry.conn.lane.served(took <= QUICK));
        }
    }
}
