//! The end of connections: sockets closed, slots freed, permits released, last calls made.

use super::Reactor;
use crate::core::conn::Farewell;
use crate::core::job::{Job, Task};
use crate::sys::Kernel;
use crate::words::id::ConnId;
use crate::words::reason::Cause;

impl<K: Kernel> Reactor<K> {
    /// Closes what ended in this turn; one job for each session that has a last call coming. The
    /// record of a connection whose session is out stays until that comes back.
    pub(super) fn reap_closed(&mut self) -> Option<Box<Job>> {
        self.bound_lingering();
        while let Some(id) = self.io.doomed.pop() {
            if let Some(job) = self.reap(id).and_then(|job| self.dispatch(job)) {
                return Some(job);
            }
        }
        self.end_turn();
        None
    }

    /// Resets those that have waited longest for their peer to finish, if there are too many. Who
    /// closed a connection in the meantime by `finish` first is found among them, too, and counts.
    fn bound_lingering(&mut self) {
        let max = self.io.common.limits.lingering_max.div_ceil(self.io.common.desks().len());
        if self.io.lingering.len() <= max {
            return;
        }
        let table = &self.table;
        let here = |id: ConnId| table.contains(id).then(|| table.get(id)).flatten();
        let lingers = |id: &ConnId| here(*id).is_some_and(|entry| entry.conn.lingers());
        self.io.lingering.retain(lingers);
        while self.io.lingering.len() > max {
            let Some(id) = self.io.lingering.pop_front() else { break };
            if let Some(entry) = self.table.get_mut(id) {
                self.io.counters.linger_resets += 1;
                entry.conn.abort(Cause::Closed);
                self.io.doomed.push(id);
            }
        }
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
        self.fans.leave_all(id, &mut self.table);
        let mut entry = self.table.remove(id)?;
        if let Some(timer) = entry.conn.timer_mut().take() {
            self.io.wheel.cancel(timer, id);
        }
        self.desk.unplace();
        self.io.common.release(entry.permit, entry.door, entry.conn.peer_ip());
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
