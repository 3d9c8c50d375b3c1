//! Serving one connection: does what its record says is next, call by call.

use std::io::{ErrorKind, IoSlice};

use bytes::BytesMut;

use super::{Reactor, Watch};
use crate::core::conn::Next;
use crate::core::job::{Job, Task};
use crate::sys::Kernel;
use crate::words::clock::Time;
use crate::words::id::ConnId;
use crate::words::reason::Cause;

/// Whether a call may read and run the session, or only say that it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    /// The connection's turn has come.
    Serve,
    /// Its turn will come: it goes to the end of the ready list instead.
    Queue,
}

/// Parts of one gathered write: what a turn's output rarely exceeds; more leave in a second call.
const SLICES: usize = 16;
/// The least room for the rest of a frame, so that a dripping peer does not cost a call per byte.
const PARTIAL_MIN: usize = 512;

impl<K: Kernel> Reactor<K> {
    /// The turn of a connection from the ready list.
    pub(super) fn serve(&mut self, id: ConnId) -> Option<Job> {
        let entry = self.table.get_mut(id)?;
        entry.conn.dequeue();
        let job = self.advance(id, May::Serve);
        self.arm(id);
        job
    }

    /// Does what is next for a connection until that is to run its session, or nothing. At most
    /// one read: who has more to say waits for the next turn.
    pub(super) fn advance(&mut self, id: ConnId, mut may: May) -> Option<Job> {
        loop {
            let next = self.table.get(id)?.conn.next();
            match (next, may) {
                (Next::Write, _) => self.write(id),
                (Next::Finish, _) => self.finish(id),
                (Next::Read, May::Serve) => {
                    let job = self.read(id);
                    if job.is_some() {
                        return job;
                    }
                }
                (Next::Serve, May::Serve) => {
                    let partial = self.table.get_mut(id)?.conn.take_partial();
                    return self.job(id, partial.unwrap_or_default(), false);
                }
                (Next::Discard, May::Serve) => {
                    self.discard(id);
                    may = May::Queue;
                }
                (Next::Read | Next::Serve | Next::Discard, May::Queue) => {
                    if cfg!(switchboard_sim_mutant = "requeue_forgotten") && next == Next::Read {
                        return None;
                    }
                    if self.table.get_mut(id)?.conn.enqueue() {
                        self.ready.push_back(id);
                    }
                    return None;
                }
                (Next::Reap, _) => {
                    self.doomed.push(id);
                    return None;
                }
                (Next::Rest, _) => {
                    self.watch_for_input(id);
                    return None;
                }
            }
        }
    }

    /// A job for the session of a connection that is at rest.
    fn job(&mut self, id: ConnId, input: BytesMut, leased: bool) -> Option<Job> {
        let outbox = self.outboxes.pop().unwrap_or_default();
        let entry = self.table.get_mut(id)?;
        entry.leased = leased;
        entry.given_bytes = input.len();
        let (session, hand, errand) = entry.conn.take_session(id, outbox, &self.common.limits)?;
        let timed = entry.conn.lane.is_slow();
        Some(Job { task: Task::Serve(session), errand, input, hand, timed })
    }

    /// Reads once. A job if that brought input.
    fn read(&mut self, id: ConnId) -> Option<Job> {
        let entry = self.table.get_mut(id)?;
        let stream = entry.stream.as_mut()?;
        let mut input = match entry.conn.take_partial() {
            Some(mut partial) => {
                let chunk = self.common.limits.read_chunk_bytes;
                partial.reserve(partial.len().clamp(PARTIAL_MIN, chunk));
                partial
            }
            None => self.pool.lease(),
        };
        let leased = input.is_empty();
        let room = input.capacity() - input.len();
        let answer = self.kernel.read(stream, &mut input);
        let (door, first) = (entry.door, entry.watch == Watch::Nothing);
        match answer {
            Ok(0) => entry.conn.handle_eof(),
            Ok(count) => {
                self.counters.received_bytes += count as u64;
                let drains =
                    K::SHORT_READ_DRAINS || cfg!(switchboard_sim_mutant = "short_read_drains");
                entry.conn.handle_received(drains && count < room);
                if first {
                    self.learn_habit(door, true);
                }
                return self.job(id, input, leased);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => entry.conn.handle_read_blocked(),
            Err(error) => entry.conn.die(Cause::of_io(&error)),
        }
        if leased {
            self.pool.give_back(input);
        } else {
            entry.conn.keep_partial(input);
        }
        if first {
            self.learn_habit(door, false);
        }
        None
    }

    /// Reads once and throws it away.
    fn discard(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let Some(stream) = entry.stream.as_mut() else { return };
        let mut input = self.pool.lease();
        let room = input.capacity();
        match self.kernel.read(stream, &mut input) {
            Ok(0) => entry.conn.handle_eof(),
            Ok(count) => {
                entry.conn.handle_received(K::SHORT_READ_DRAINS && count < room);
                entry.conn.handle_discarded(count, &self.common.limits);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => entry.conn.handle_read_blocked(),
            Err(error) => entry.conn.die(Cause::of_io(&error)),
        }
        self.pool.give_back(input);
    }

    /// Writes once from the outbox. What the kernel did not take stays there until it says that
    /// there is room.
    fn write(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        let (Some(stream), Some(outbox)) = (entry.stream.as_mut(), entry.conn.outbox_mut()) else {
            return;
        };
        let mut slices = [IoSlice::new(&[]); SLICES];
        let count = outbox.slices(&mut slices);
        match self.kernel.write(stream, &slices[..count]) {
            Ok(count) => {
                self.counters.sent_bytes += count as u64;
                outbox.advance(count);
                // A deadline counts from now, not from the beginning of a turn in which handlers
                // may have taken their time. Without one, nobody asks for the time.
                let timed = entry.conn.deadline() != Time::NEVER;
                let now = if timed { self.kernel.now() } else { self.now };
                let spare = entry.conn.handle_written(now, &self.common.limits);
                if let Some(spare) = spare {
                    self.keep_outbox(spare);
                    self.watch_for_room(id, false);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let stale = cfg!(switchboard_sim_mutant = "deadline_of_turn");
                let now = if stale { self.now } else { self.kernel.now() };
                entry.conn.handle_write_blocked(now, &self.common.limits);
                if !cfg!(switchboard_sim_mutant = "room_forgotten") {
                    self.watch_for_room(id, true);
                }
            }
            Err(error) => entry.conn.die(Cause::of_io(&error)),
        }
    }

    /// Sends FIN; left to the closing of the socket if that comes next anyway.
    fn finish(&mut self, id: ConnId) {
        let Some(entry) = self.table.get_mut(id) else { return };
        if !entry.conn.ends_with_finish() {
            let Some(stream) = entry.stream.as_mut() else { return };
            if let Err(error) = self.kernel.shutdown_write(stream) {
                entry.conn.die(Cause::of_io(&error));
                return;
            }
        }
        entry.conn.handle_finished(self.kernel.now(), &self.common.limits);
    }

    /// Starts to watch a connection that was read right after it was accepted, now that it rests.
    pub(super) fn watch_for_input(&mut self, id: ConnId) {
        let token = self.table.token(id);
        let Some(entry) = self.table.get_mut(id) else { return };
        if entry.watch != Watch::Nothing {
            return;
        }
        let Some(stream) = entry.stream.as_mut() else { return };
        entry.watch = Watch::Input;
        if let Err(error) = self.kernel.watch(stream, token) {
            self.give_up(id, &error);
        }
    }

    /// Starts or ends to watch for room to write, if that changes anything.
    fn watch_for_room(&mut self, id: ConnId, room: bool) {
        let token = self.table.token(id);
        let Some(entry) = self.table.get_mut(id) else { return };
        let Some(stream) = entry.stream.as_mut() else { return };
        let (watch, change) = match (entry.watch, room) {
            (Watch::Nothing, true) => {
                let change = self.kernel.watch(stream, token);
                let change = change.and_then(|()| self.kernel.rewatch(stream, token, true));
                (Watch::InputAndRoom, change)
            }
            (Watch::Input, true) => (Watch::InputAndRoom, self.kernel.rewatch(stream, token, true)),
            (Watch::InputAndRoom, false) => {
                (Watch::Input, self.kernel.rewatch(stream, token, false))
            }
            (Watch::Nothing | Watch::Input, false) | (Watch::InputAndRoom, true) => return,
        };
        entry.watch = watch;
        if let Err(error) = change {
            self.give_up(id, &error);
        }
    }

    /// A connection that cannot be watched cannot be served.
    fn give_up(&mut self, id: ConnId, error: &std::io::Error) {
        let Some(entry) = self.table.get_mut(id) else { return };
        entry.conn.die(Cause::of_io(error));
        self.counters.refused += 1;
        self.doomed.push(id);
    }
}
