//! The end of connections: sockets closed, slots freed, permits released, last calls made.

use super::Reactor;
use crate::core::conn::Farewell;
use crate::core::job::{Job, Task};
use crate::sys::Kernel;
use crate::words::id::ConnId;

impl<K: Kernel> Reactor<K> {
    /// Closes what ended in this turn; one job for each session that has a last call coming. The
    /// record of a connection whose session is out stays until that comes back.
    pub(super) fn reap_closed(&mut self) -> Option<Box<Job>> {
        while let Some(id) = self.io.doomed.pop() {
            if let Some(job) = self.reap(id).and_then(|job| self.dispatch(job)) {
                return Some(job);
            }
        }
        self.end_turn();
        None
    }

    fn reap(&mut self, id: ConnId) -> Option<Box<Job>> {
        if !self.table.contains(id) {
            return None;
        }
        let entry = self.table.get_mut(id)?;
        if let Some(stream) = entry.stream.take() {
            match entry.conn.farewell() {
                Farewell::Close => self.io.kernel.close(stream),
                Farewell::Reset => self.io.kernel.reset(stream),
            }
        }
        if entry.conn.is_out() {
            return None;
        }
        let mut entry = self.table.remove(id)?;
        if let Some(timer) = entry.conn.timer_mut().take() {
            self.io.wheel.cancel(timer, id);
        }
        if let Some(change) = entry.conn.close_account() {
            self.io.budget.enter(&change);
        }
        self.desk.unplace();
        self.io.common.release(entry.permit);
        let timed = entry.conn.lane.is_slow();
        let (session, reason) = entry.conn.into_end();
        self.io.counters.close(reason.cause());
        let session = session?;
        self.farewells_out += 1;
        let mut job = self.io.blank();
        job.task = Task::Close(reason);
        job.session = Some(session);
        job.hand.id = id;
        job.timed = timed;
        Some(job)
    }
}
