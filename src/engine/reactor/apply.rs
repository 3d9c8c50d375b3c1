//! Taking back what a job left: its session, its output, and what it says about the handler.

use std::time::Duration;

use bytes::BytesMut;

use super::stream::May;
use super::{BLANK_KEEPS_BYTES, BLANKS_MAX, Reactor};
use crate::core::job::{Done, Input, Job, Task};
use crate::sys::Kernel;
use crate::words::id::ConnId;

/// A job of the slow lane that takes no longer counts as quick: the time after which the sentinel
/// would begin to look at it.
const QUICK: Duration = Duration::from_micros(250);

impl<K: Kernel> Reactor<K> {
    /// A job is over.
    pub(super) fn take_back(&mut self, done: Done) {
        let Done { mut job, closed, panicked, took } = done;
        let id = job.hand.id;
        self.counters.panics += u64::from(panicked);
        if closed {
            self.farewells_out -= 1;
        } else {
            self.take_session_back(id, &mut job, panicked);
            if let Some(took) = took {
                self.learn_time(id, took);
            }
        }
        self.keep_blank(job);
    }

    fn take_session_back(&mut self, id: ConnId, job: &mut Job, panicked: bool) {
        let Some(entry) = self.table.get_mut(id) else {
            debug_assert!(false, "a record stays while its session is out");
            return;
        };
        let session = match std::mem::replace(&mut job.task, Task::Over) {
            Task::Serve(session) => Some(session),
            Task::Open(_) | Task::Close(..) | Task::Over => None,
        };
        entry.conn.handle_done(session, &mut job.hand, self.now, &self.common.limits);
        let Input { bytes: input, given_bytes, leased } = std::mem::take(&mut job.input);
        let used = if leased || input.len() < given_bytes {
            // What is left of it is copied out: a partial frame keeps what it needs and no more.
            if !input.is_empty() {
                entry.conn.keep_partial(BytesMut::from(&input[..]));
            }
            Some(input)
        } else {
            entry.conn.keep_partial(input);
            None
        };
        // What it said is written now, before the buffer in which that may stand is given back.
        self.write_through(id, &mut job.hand.outbox);
        if let Some(entry) = self.table.get_mut(id) {
            entry.conn.handle_output(&mut job.hand, &self.common.limits);
        }
        self.advance(id, May::Queue);
        self.arm(id);
        match used {
            // Who knows what a panic left in it.
            Some(_) if leased && panicked => self.pool.write_off(),
            Some(buffer) if leased => self.pool.give_back(buffer),
            Some(_) | None => {}
        }
    }

    /// A box for a job.
    pub(super) fn blank(&mut self) -> Box<Job> {
        self.blanks.pop().unwrap_or_else(Job::blank)
    }

    /// Keeps the box of a job that is over.
    fn keep_blank(&mut self, mut job: Box<Job>) {
        if self.blanks.len() < BLANKS_MAX {
            job.hand.outbox.reset(BLANK_KEEPS_BYTES);
            self.blanks.push(job);
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
