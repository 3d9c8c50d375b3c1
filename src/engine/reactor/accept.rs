//! Accepting: the doors of one reactor, why each is shut for a while, and what opens it again.

use std::io;
use std::net::SocketAddr;

use super::{Course, Entry, Phase, Reactor};
use crate::core::conn::Connection;
use crate::core::job::{Job, Task};
use crate::core::limits::Permit;
use crate::core::session::{Errand, Factory};
use crate::engine::desk::{Freed, Letter};
use crate::sys::{AcceptFault, Kernel, classify_accept};
use crate::words::clock::Time;
use crate::words::config::Placement;
use crate::words::error::Error;
use crate::words::id::Token;
use crate::words::sync::Arc;

/// A listener as one reactor sees it.
pub(crate) struct Door<K: Kernel> {
    /// The number of its listener, the same in all reactors.
    index: u16,
    /// `None` if another reactor accepts for this listener, or once it is closed.
    socket: Option<K::Listener>,
    factory: Arc<dyn Factory>,
    /// Clients may wait: cleared only when an accept answers `WouldBlock`, so that no pause needs
    /// a new event to end.
    ready: bool,
    /// Why nothing is accepted now; it goes on when the last reason is gone.
    shut: Shut,
    /// Close it once nobody waits.
    closing: bool,
}

/// The reasons for which a door is shut.
#[derive(Clone, Copy, Debug, Default)]
struct Shut {
    by_operator: bool,
    /// `connections_max` is reached; opened by a release.
    by_limit: bool,
    /// The system is out of descriptors or memory; opened by a release, or at this time.
    by_system: Option<Time>,
    /// Connections use too much memory; looked at in every turn.
    by_memory: bool,
}

/// Whether clients of this door tend to have sent something by the time they are accepted. If so,
/// a connection is read at once, and watched only when it comes to rest: one event fewer, and two
/// system calls fewer for a connection that is over by then.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habit {
    /// Above zero: they do.
    score: i8,
    /// Accepts since the last one that was read at once.
    skipped: u8,
}

const HABIT_MAX: i8 = 8;
/// How often a door whose clients are slow to speak tries again.
const HABIT_PROBE: u8 = 32;

/// Where the accept phase of a turn stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    door: usize,
    /// How many this door has accepted in this turn.
    taken: usize,
}

/// A connection that was accepted and has no record yet.
pub(crate) struct Newcomer<K: Kernel> {
    stream: K::Stream,
    peer: SocketAddr,
    /// The number of the listener that it came through.
    door: u16,
    permit: Permit,
}

/// What came of one accept.
enum Accepted<K: Kernel> {
    /// A connection, and the right to hold it.
    Connection(Newcomer<K>),
    /// One client had an error; there may be others.
    Nobody,
    /// Nobody waits, or the door is shut.
    Shut,
}

impl<K: Kernel> Door<K> {
    /// A door; without a socket if another reactor accepts for it.
    pub(crate) fn new(index: u16, socket: Option<K::Listener>, factory: Arc<dyn Factory>) -> Self {
        Door { index, socket, factory, ready: false, shut: Shut::default(), closing: false }
    }

    /// Starts to watch its socket.
    pub(super) fn watch(&mut self, kernel: &mut K) -> io::Result<()> {
        let token = Token::Listener(self.index).pack();
        self.socket.as_mut().map_or(Ok(()), |socket| kernel.watch_listener(socket, token))
    }

    pub(super) fn handle_ready(&mut self) {
        self.ready = true;
    }

    /// What it may wait for became free.
    pub(super) fn handle_release(&mut self, freed: Freed) {
        match freed {
            Freed::Connection => (self.shut.by_limit, self.shut.by_system) = (false, None),
            Freed::Permit => self.shut.by_limit = false,
            Freed::Nothing => {}
        }
    }

    pub(super) fn suspend(&mut self) {
        self.shut.by_operator = true;
    }

    pub(super) fn resume(&mut self) {
        self.shut.by_operator = false;
    }

    /// Those that wait already are served, then it closes.
    pub(super) fn close_when_empty(&mut self) {
        self.closing = true;
        self.ready = true;
        self.shut.by_operator = false;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.socket.is_none()
    }

    /// Whether there is something to accept now.
    pub(super) fn wants(&self) -> bool {
        let Shut { by_operator, by_limit, by_system, by_memory } = self.shut;
        let open = !by_operator && !by_limit && by_system.is_none() && !by_memory;
        self.ready && open && self.socket.is_some()
    }

    /// How many clients wait to be accepted here, as far as is known.
    pub(super) fn waiting(&self, kernel: &K) -> u64 {
        let waiting = self.socket.as_ref().and_then(|socket| kernel.waiting(socket));
        waiting.map_or(0, u64::from)
    }

    /// Whether clients may wait here until there is memory for them.
    pub(super) fn waits_for_memory(&self) -> bool {
        self.shut.by_memory && self.ready && self.socket.is_some()
    }

    /// When it is to be looked at although nothing has happened.
    pub(super) fn retry_at(&self) -> Option<Time> {
        self.shut.by_system
    }
}

impl Habit {
    /// Whether the next connection is read at once.
    fn is_eager(&mut self) -> bool {
        if self.score > 0 || self.skipped >= HABIT_PROBE {
            self.skipped = 0;
            return true;
        }
        self.skipped += 1;
        false
    }

    /// A connection was read before it was watched: was that worth it?
    pub(super) fn learn(&mut self, spoke: bool) {
        let step = if spoke { 1 } else { -1 };
        self.score = (self.score + step).clamp(-HABIT_MAX, HABIT_MAX);
    }
}

impl<K: Kernel> Reactor<K> {
    /// Gets ready for the accept phase.
    pub(super) fn begin_accepting(&mut self) {
        for door in &mut self.doors {
            if door.shut.by_system.is_some_and(|at| at <= self.io.now) {
                door.shut.by_system = None;
            }
            door.shut.by_memory &= self.io.budget.refuses();
        }
        self.accept = Cursor::default();
        self.phase = Phase::Accept;
    }

    /// Accepts from every door that wants to, a bounded number each; hands out one job at a time.
    pub(super) fn accept_ready(&mut self) -> Option<Box<Job>> {
        while let Some(newcomer) = self.newcomers.pop_front() {
            if self.course == Course::Stop {
                self.turn_away(newcomer.stream, newcomer.permit);
            } else if let Some(job) = self.adopt(newcomer).and_then(|job| self.dispatch(job)) {
                return Some(job);
            }
        }
        while self.accept.door < self.doors.len() {
            let index = self.accept.door;
            while self.accept.taken < self.io.common.limits.accepts_per_turn {
                self.accept.taken += 1;
                match self.accept(index) {
                    Accepted::Connection(newcomer) => {
                        let job = self.place(newcomer);
                        if let Some(job) = job.and_then(|job| self.dispatch(job)) {
                            return Some(job);
                        }
                    }
                    Accepted::Nobody => {}
                    Accepted::Shut => break,
                }
            }
            self.accept = Cursor { door: index + 1, taken: 0 };
        }
        self.batch = self.io.ready.len();
        self.phase = Phase::Run;
        None
    }

    fn accept(&mut self, index: usize) -> Accepted<K> {
        if !self.doors[index].wants() {
            return Accepted::Shut;
        }
        if self.io.budget.refuses() {
            self.doors[index].shut.by_memory = true;
            self.io.counters.memory_pauses += 1;
            return Accepted::Shut;
        }
        let Some(permit) = self.permit(index) else { return Accepted::Shut };
        let Some(socket) = self.doors[index].socket.as_mut() else { return Accepted::Shut };
        match self.io.kernel.accept(socket) {
            Ok((stream, peer)) => {
                let door = self.doors[index].index;
                Accepted::Connection(Newcomer { stream, peer, door, permit })
            }
            Err(error) => {
                if !cfg!(switchboard_sim_mutant = "permit_kept") {
                    self.io.common.give_back(permit);
                }
                self.handle_accept_error(index, error)
            }
        }
    }

    /// A permit; without one the door shuts until a connection ends. It is asked for again after
    /// saying so, since the last connection may have ended in between.
    fn permit(&mut self, index: usize) -> Option<Permit> {
        let admission = &self.io.common.admission;
        if let Some(permit) = admission.try_admit() {
            return Some(permit);
        }
        self.io.common.starve(self.port.index());
        let permit = admission.try_admit();
        if permit.is_none() {
            self.io.counters.limit_pauses += 1;
            self.doors[index].shut.by_limit = true;
        }
        permit
    }

    fn handle_accept_error(&mut self, index: usize, error: io::Error) -> Accepted<K> {
        let door = &mut self.doors[index];
        match classify_accept(&error) {
            AcceptFault::Again => {
                door.ready = false;
                if door.closing {
                    self.close_door(index);
                }
                Accepted::Shut
            }
            AcceptFault::Next => {
                self.io.counters.accept_errors += 1;
                Accepted::Nobody
            }
            AcceptFault::Exhausted => {
                self.io.counters.descriptor_pauses += 1;
                door.shut.by_system = Some(self.io.now + self.io.common.limits.accept_retry);
                if cfg!(switchboard_sim_mutant = "exhausted_forgotten") {
                    door.ready = false;
                }
                self.io.common.starve(self.port.index());
                Accepted::Shut
            }
            AcceptFault::Fatal => {
                self.close_door(index);
                self.io.common.fail(Error::io("accepting connections", error));
                Accepted::Shut
            }
        }
    }

    pub(super) fn close_doors(&mut self) {
        (0..self.doors.len()).for_each(|index| self.close_door(index));
    }

    fn close_door(&mut self, index: usize) {
        let door = &mut self.doors[index];
        door.ready = false;
        if let Some(mut socket) = door.socket.take() {
            // It is closed either way; that it could not be taken off the poll changes nothing.
            let _closed = self.io.kernel.unwatch_listener(&mut socket).is_err();
            drop(socket);
            self.io.common.door_closed();
        }
    }

    /// Gives a new connection to the reactor that is to have it.
    fn place(&mut self, newcomer: Newcomer<K>) -> Option<Box<Job>> {
        let home = self.port.index();
        let target = match self.io.common.placement {
            Placement::ReusePort => home,
            Placement::LeastLoaded => self.io.common.least_loaded(home),
        };
        let desk = &self.io.common.desks()[target];
        desk.place();
        if target == home {
            return self.adopt(newcomer);
        }
        desk.mailbox.post(Letter::Adopt(newcomer));
        None
    }

    /// Makes the record of a new connection and the job that opens it.
    fn adopt(&mut self, newcomer: Newcomer<K>) -> Option<Box<Job>> {
        let Newcomer { stream, peer, door, permit } = newcomer;
        let eager = self.io.habits[usize::from(door)].is_eager();
        let factory = Arc::clone(&self.doors[usize::from(door)].factory);
        let keepalive = self.io.priors[usize::from(door)].open();
        let mut newcomer = Some((stream, permit));
        let made = self.table.insert_with(|_| {
            let (stream, permit) = newcomer.take().expect("asked for once");
            Entry::new(stream, permit, door, Connection::new(peer, self.io.now, keepalive))
        });
        let Ok(id) = made else {
            let (stream, permit) = newcomer.take()?;
            self.turn_away(stream, permit);
            return None;
        };
        self.io.counters.opened += 1;
        self.io.budget.note_records(self.table.retained_bytes());
        let mut job = self.io.blank();
        let entry = self.table.get_mut(id)?;
        (job.hand.now, job.hand.door) = (self.io.now, door);
        entry.conn.lend(id, &mut job.hand, self.io.rules(door));
        if eager {
            // Watched when it comes to rest.
            entry.conn.handle_readable(false);
        } else {
            self.io.watch_for_input(id, entry);
        }
        if self.course == Course::Drain {
            entry.conn.handle_drain();
        }
        job.task = Task::Open(factory);
        job.errand = Errand { open: true, ..Errand::default() };
        job.timed = false;
        Some(job)
    }

    /// Closes a connection that cannot be served.
    fn turn_away(&mut self, stream: K::Stream, permit: Permit) {
        self.io.counters.refused += 1;
        self.io.kernel.close(stream);
        self.desk.unplace();
        self.io.common.release(permit);
    }
}
