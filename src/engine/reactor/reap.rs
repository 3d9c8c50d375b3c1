//! The end of connections: sockets closed, slots freed, permits released, last calls made.

use bytes::BytesMut;

use super::Reactor;
use crate::core::conn::Farewell;
use crate::core::context::{Hand, Verdict};
use crate::core::job::{Job, Task};
use crate::core::session::Errand;
use crate::sys::Kernel;
use crate::words::id::ConnId;

impl<K: Kernel> Reactor<K> {
    /// Closes what ended in this turn; one job for each session that has a last call coming. The
    /// record of a connection whose session is out stays until that comes back.
    pub(super) fn reap_closed(&mut self) -> Option<Job> {
        while let Some(id) = self.doomed.pop() {
            if let Some(job) = self.reap(id).and_then(|job| self.dispatch(job)) {
                return Some(job);
            }
        }
        self.end_turn();
        None
    }

    fn reap(&mut self, id: ConnId) -> Option<Job> {
        if !self.table.contains(id) {
            return None;
        }
        let entry = self.table.get_mut(id)?;
        if let Some(stream) = entry.stream.take() {
            match entry.conn.farewell() {
                Farewell::Close => self.kernel.close(stream),
                Farewell::Reset => self.kernel.reset(stream),
            }
        }
        if entry.conn.is_out() {
            return None;
        }
        let mut entry = self.table.remove(id)?;
        if let Some(timer) = entry.conn.timer_mut().take() {
            self.wheel.cancel(timer, id);
        }
        self.desk.unplace();
        self.common.release(entry.permit);
        let timed = entry.conn.lane.is_slow();
        let outbox = self.outboxes.pop().unwrap_or_default();
        let peer = entry.conn.peer();
        let (session, reason) = entry.conn.into_end();
        self.counters.close(reason.cause());
        let Some(session) = session else {
            self.keep_outbox(outbox);
            return None;
        };
        self.farewells_out += 1;
        let hand = Hand {
            id,
            peer,
            outbox,
            gate: None,
            verdict: Verdict::Open,
            queued_bytes: 0,
            posted_bytes: 0,
            send_max_bytes: 0,
        };
        let errand = Errand::default();
        let task = Task::Close(session, reason);
        Some(Job { task, errand, input: BytesMut::new(), hand, timed })
    }
}
