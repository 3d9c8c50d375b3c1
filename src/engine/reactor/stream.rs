//! `Io`: what one connection needs of its reactor, and the calls that serve it: does what the
//! record says is next, one system call at a time.

use std::collections::VecDeque;
use std::io::{ErrorKind, IoSlice};

use bytes::BytesMut;

use super::door::Habit;
use super::pressure::Budget;
use super::shaped::bound_room;
use super::{Entry, Watch};
use crate::core::conn::{Next, Rules};
use crate::core::job::{Input, Job};
use crate::core::keepalive::Prior;
use crate::core::limits::Via;
use crate::engine::common::Common;
use crate::engine::counters::Counters;
use crate::parts::buf::{BufferPool, Outbox};
use crate::parts::timer::Wheel;
use crate::sys::Kernel;
use crate::words::clock::Time;
use crate::words::id::{ConnId, Token};
use crate::words::pressure::Pressure;
use crate::words::reason::Cause;
use crate::words::sync::Arc;

/// All of a reactor that is used while one record is in hand.
pub(super) struct Io<K: Kernel> {
    pub(super) kernel: K,
    pub(super) common: Arc<Common<K>>,
    /// Read once per turn, and after so many jobs in it.
    pub(super) now: Time,
    /// Jobs since then.
    ticks: u32,
    /// Connections that want something, each at most once.
    pub(super) ready: VecDeque<ConnId>,
    /// Connections to be closed at the end of the turn; may name one twice.
    pub(super) doomed: Vec<ConnId>,
    /// Connections that wait for their peer to finish, the one that waits longest first; some
    /// have ended meanwhile.
    pub(super) lingering: VecDeque<ConnId>,
    pub(super) wheel: Wheel,
    pub(super) pool: BufferPool,
    /// Boxes for the next jobs.
    #[expect(clippy::vec_box, reason = "it keeps the boxes, not the jobs")]
    blanks: Vec<Box<Job>>,
    /// One for each listener.
    pub(super) habits: Vec<Habit>,
    /// One for each listener: how long its newcomers are silent.
    pub(super) priors: Vec<Prior>,
    /// How near the server is to its limits.
    pub(super) pressure: Pressure,
    pub(super) budget: Budget,
    pub(super) counters: Counters,
}

/// Whether a call may read and run the session, or only say that it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum May {
    /// The connection's turn has come.
    Serve,
    /// Its turn will come: it goes to the end of the ready list instead.
    Queue,
}

/// Jobs after which the time is read again.
const TICKS: u32 = 8;
/// Parts of one gathered write: what a turn's output rarely exceeds; more leave in a second call.
const SLICES: usize = 16;
/// The least room for the rest of a frame, so that a dripping peer does not cost a call per byte.
const PARTIAL_MIN: usize = 512;
/// Boxes kept for further use; one is in use per job that is out, and a heavy reactor has
/// `READ_AHEAD` of those.
const BLANKS_MAX: usize = super::READ_AHEAD;
/// What the outbox of a blank may keep for its next use.
const BLANK_KEEPS_BYTES: usize = 4096;

impl<K: Kernel> Io<K> {
    pub(super) fn new(kernel: K, common: Arc<Common<K>>, listeners: usize, index: usize) -> Self {
        let now = kernel.now();
        let limits = &common.limits;
        Io {
            now,
            ticks: 0,
            ready: VecDeque::new(),
            doomed: Vec::new(),
            lingering: VecDeque::new(),
            wheel: Wheel::new(now),
            pool: BufferPool::new(limits.read_chunk_bytes, limits.pool_retained_max),
            blanks: Vec::new(),
            habits: vec![Habit::default(); listeners],
            // One more for connections that we open.
            priors: vec![Prior::new(); listeners + 1],
            pressure: Pressure::Calm,
            budget: Budget::new(index, limits.memory_max),
            counters: Counters::default(),
            kernel,
            common,
        }
    }

    /// Does what is next for a connection until that is to run its session, or nothing. At most
    /// one read: who has more to say waits for the next turn.
    pub(super) fn advance(
        &mut self,
        id: ConnId,
        entry: &mut Entry<K>,
        mut may: May,
    ) -> Option<Box<Job>> {
        let job = loop {
            match (entry.conn.next(), may) {
                (Next::Write, _) => self.write(id, entry),
                (Next::Finish, _) => self.finish(entry),
                (Next::Probe, _) => self.probe(entry),
                (Next::Read, May::Serve) if self.throttles(id, entry) => {}
                (Next::Read, May::Serve) => {
                    let job = self.read(id, entry);
                    if job.is_some() {
                        break job;
                    }
                }
                (Next::Serve, May::Serve) => {
                    let partial = entry.conn.take_partial().unwrap_or_default();
                    break self.job(id, entry, partial, false);
                }
                (Next::Discard, May::Serve) => {
                    self.discard(entry);
                    may = May::Queue;
                }
                (Next::Read | Next::Serve | Next::Discard, May::Queue) => {
                    let forgets = cfg!(switchboard_sim_mutant = "requeue_forgotten");
                    if !forgets || entry.conn.next() != Next::Read {
                        self.enqueue(id, entry);
                    }
                    break None;
                }
                (Next::Reap, _) => {
                    self.doomed.push(id);
                    break None;
                }
                (Next::Rest, _) => {
                    if entry.watch != Watch::Nothing || self.watch_for_input(id, entry) {
                        break None;
                    }
                }
            }
        };
        if entry.conn.begins_to_linger() {
            self.lingering.push_back(id);
        }
        self.settle(id, entry);
        self.arm(id, entry);
        job
    }

    /// What holds for the connections that came in so.
    #[inline]
    pub(super) fn rules(&self, via: Via) -> Rules<'_> {
        let at = via.index();
        let timeouts = &self.common.listening[at].timeouts;
        Rules {
            limits: &self.common.limits,
            timeouts,
            prior: &self.priors[at],
            pressure: self.pressure,
        }
    }

    /// A connection was closed for its silence.
    pub(super) fn learn_silence(&mut self, entry: &Entry<K>) {
        let at = usize::from(entry.door);
        let timeouts = &self.common.listening[at].timeouts;
        entry.conn.teach(self.now, timeouts, &mut self.priors[at]);
    }

    /// A job has come back. The time is read once per turn, and once in a while in a turn of many
    /// jobs, so that nobody's silence seems longer than it is.
    #[inline]
    pub(super) fn tick(&mut self) {
        self.ticks += 1;
        if self.ticks >= TICKS {
            self.look_at_clock();
        }
    }

    /// Reads the time in the middle of a turn.
    pub(super) fn look_at_clock(&mut self) {
        self.ticks = 0;
        self.now = self.kernel.now();
    }

    /// Puts a connection at the end of the ready list, unless it stands there.
    pub(super) fn enqueue(&mut self, id: ConnId, entry: &mut Entry<K>) {
        if entry.conn.enqueue() {
            self.ready.push_back(id);
        }
    }

    /// Sees to it that the wheel fires no later than the connection's deadline.
    #[inline]
    pub(super) fn arm(&mut self, id: ConnId, entry: &mut Entry<K>) {
        if !entry.conn.wants_arming() {
            return;
        }
        entry.conn.handle_armed();
        let deadline = entry.conn.deadline(self.rules(entry.door));
        if deadline == Time::NEVER {
            return;
        }
        match *entry.conn.timer_mut() {
            None => *entry.conn.timer_mut() = Some(self.wheel.schedule(id, deadline)),
            // One that fires early is moved on then: activity does not touch the wheel.
            Some(timer) => self.wheel.bring_forward(timer, id, deadline),
        }
    }

    /// A box for a job.
    pub(super) fn blank(&mut self) -> Box<Job> {
        self.blanks.pop().unwrap_or_else(Job::blank)
    }

    /// Keeps the box of a job that is over.
    pub(super) fn keep_blank(&mut self, mut job: Box<Job>) {
        if self.blanks.len() < BLANKS_MAX {
            job.hand.outbox.reset(BLANK_KEEPS_BYTES);
            self.blanks.push(job);
        }
    }

    /// A job for the session of a connection that is at rest.
    fn job(
        &mut self,
        id: ConnId,
        entry: &mut Entry<K>,
        bytes: BytesMut,
        leased: bool,
    ) -> Option<Box<Job>> {
        let mut job = self.blank();
        let taken = entry.conn.take_session(id, &mut job.hand, self.rules(entry.door));
        let (session, errand) = taken?;
        entry.conn.note_lent((!leased).then_some(&bytes), &job.hand);
        job.serve_later(session, errand);
        (job.hand.now, job.hand.door) = (self.now, entry.door.listener());
        job.input = Input { given_bytes: bytes.len(), bytes, leased };
        job.timed = entry.conn.lane.is_slow();
        Some(job)
    }

    /// Reads once. A job if that brought input.
    fn read(&mut self, id: ConnId, entry: &mut Entry<K>) -> Option<Box<Job>> {
        let most = self.ask_to_read(entry)?;
        let stream = entry.stream.as_mut()?;
        let (mut input, leased) = match entry.conn.take_partial() {
            Some(mut partial) => {
                let chunk = self.common.limits.read_chunk_bytes;
                partial.reserve(partial.len().clamp(PARTIAL_MIN, chunk));
                (partial, false)
            }
            None => (self.pool.lease(), true),
        };
        bound_room(&mut input, most);
        let room = input.capacity() - input.len();
        let answer = self.kernel.read(stream, &mut input);
        self.counters.note_read(&mut entry.conn, &answer);
        if entry.watch == Watch::Nothing {
            let spoke = answer.as_ref().is_ok_and(|&count| count > 0);
            self.habits[usize::from(entry.door)].learn(spoke);
        }
        let prior = &mut self.priors[usize::from(entry.door)];
        match answer {
            Ok(0) => entry.conn.handle_eof(self.now),
            Ok(count) => {
                self.counters.received_bytes += count as u64;
                let drains =
                    K::SHORT_READ_DRAINS || cfg!(switchboard_sim_mutant = "short_read_drains");
                entry.conn.handle_received(drains && count < room, self.now, prior);
                return self.job(id, entry, input, leased);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => entry.conn.handle_read_blocked(),
            Err(error) => entry.conn.die(Cause::of_io(&error)),
        }
        if leased {
            self.pool.give_back(input);
        } else {
            entry.conn.keep_partial(input, self.now);
        }
        None
    }

    /// Reads once and throws it away.
    fn discard(&mut self, entry: &mut Entry<K>) {
        let Some(most) = self.ask_to_read(entry) else { return };
        let Some(stream) = entry.stream.as_mut() else { return };
        let mut input = self.pool.lease();
        bound_room(&mut input, most);
        let room = input.capacity();
        let prior = &mut self.priors[usize::from(entry.door)];
        let answer = self.kernel.read(stream, &mut input);
        self.counters.note_read(&mut entry.conn, &answer);
        match answer {
            Ok(0) => entry.conn.handle_eof(self.now),
            Ok(count) => {
                entry.conn.handle_received(K::SHORT_READ_DRAINS && count < room, self.now, prior);
                entry.conn.handle_discarded(count, self.rules(entry.door));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => entry.conn.handle_read_blocked(),
            Err(error) => entry.conn.die(Cause::of_io(&error)),
        }
        self.pool.give_back(input);
    }

    /// Writes once from the outbox. What the kernel did not take stays there until it says that
    /// there is room.
    fn write(&mut self, id: ConnId, entry: &mut Entry<K>) {
        let queued = entry.conn.queued_bytes();
        let Some(most) = self.ask_to_send(entry, queued) else { return };
        let (Some(stream), Some(outbox)) = (entry.stream.as_mut(), entry.conn.outbox_mut()) else {
            return;
        };
        let answer = write_once(&mut self.kernel, stream, outbox, most);
        self.counters.note_written(&mut entry.conn, &answer);
        match answer {
            Ok(count) => {
                self.counters.sent_bytes += count as u64;
                // A deadline counts from now, not from the beginning of a turn in which handlers
                // may have taken their time. Without one, nobody asks for the time.
                let timed = entry.conn.awaits_output();
                let now = if timed { self.kernel.now() } else { self.now };
                if entry.conn.handle_written(count, now, self.rules(entry.door)) {
                    self.watch_for_room(id, entry, false);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let stale = cfg!(switchboard_sim_mutant = "deadline_of_turn");
                let now = if stale { self.now } else { self.kernel.now() };
                entry.conn.handle_write_blocked(now, self.rules(entry.door));
                if !cfg!(switchboard_sim_mutant = "room_forgotten") {
                    self.watch_for_room(id, entry, true);
                }
            }
            Err(error) => entry.conn.die(Cause::of_io(&error)),
        }
    }

    /// Writes what a job has just said, past the queue if nothing waits there.
    pub(super) fn write_through(&mut self, entry: &mut Entry<K>, outbox: &mut Outbox) {
        if outbox.is_empty() || !entry.conn.writes_through() {
            return;
        }
        let Some(most) = self.ask_to_send(entry, outbox.len_bytes()) else { return };
        let Some(stream) = entry.stream.as_mut() else { return };
        let answer = write_once(&mut self.kernel, stream, outbox, most);
        self.counters.note_written(&mut entry.conn, &answer);
        match answer {
            Ok(count) => {
                self.counters.sent_bytes += count as u64;
                entry.conn.note_sent(self.now, self.rules(entry.door));
            }
            // It is queued; the next attempt finds out why.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => entry.conn.die(Cause::of_io(&error)),
        }
    }

    /// Asks what is wrong with a socket that is not read at the moment.
    fn probe(&mut self, entry: &mut Entry<K>) {
        let Some(stream) = entry.stream.as_mut() else { return };
        match self.kernel.take_error(stream) {
            Ok(()) => entry.conn.handle_sound(),
            Err(error) => entry.conn.die(Cause::of_io(&error)),
        }
    }

    /// Sends FIN; left to the closing of the socket if that comes next anyway.
    fn finish(&mut self, entry: &mut Entry<K>) {
        if !entry.conn.ends_with_finish() {
            let Some(stream) = entry.stream.as_mut() else { return };
            if let Err(error) = self.kernel.shutdown_write(stream) {
                entry.conn.die(Cause::of_io(&error));
                return;
            }
        }
        entry.conn.handle_finished(self.kernel.now(), self.rules(entry.door));
    }

    /// Starts to watch a connection that is not watched yet: most often one that was read right
    /// after it was accepted, now that it rests. False if that failed and ended it.
    pub(super) fn watch_for_input(&mut self, id: ConnId, entry: &mut Entry<K>) -> bool {
        let Some(stream) = entry.stream.as_mut() else { return true };
        entry.watch = Watch::Input;
        let watched = self.kernel.watch(stream, Token::of(id).pack());
        if let Err(error) = &watched {
            self.give_up(entry, error);
        }
        watched.is_ok()
    }

    /// Starts or ends to watch for room to write, if that changes anything.
    fn watch_for_room(&mut self, id: ConnId, entry: &mut Entry<K>, room: bool) {
        let Some(stream) = entry.stream.as_mut() else { return };
        let token = Token::of(id).pack();
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
            self.give_up(entry, &error);
        }
    }

    /// A connection that cannot be watched cannot be served.
    fn give_up(&mut self, entry: &mut Entry<K>, error: &std::io::Error) {
        entry.conn.die(Cause::of_io(error));
        self.counters.refused += 1;
    }
}

/// One gathered write of no more than `most` bytes; what was taken is gone from the outbox.
fn write_once<K: Kernel>(
    kernel: &mut K,
    stream: &mut K::Stream,
    outbox: &mut Outbox,
    most: usize,
) -> std::io::Result<usize> {
    let count = match outbox.only().filter(|slice| slice.len() <= most) {
        Some(slice) => kernel.write(stream, &[IoSlice::new(slice)])?,
        None => {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = outbox.slices_within(&mut slices, most);
            kernel.write(stream, &slices[..filled])?
        }
    };
    outbox.advance(count);
    Ok(count)
}
