//! Accepting: how clients come in through the doors of one reactor, a bounded number in a turn.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::admit::Way;
use super::{Course, Door, Entry, Phase, Reactor};
use crate::core::conn::Connection;
use crate::core::job::{Job, Task};
use crate::core::limits::{Alarm, AlarmKind, Permit, Via};
use crate::core::session::Errand;
use crate::engine::desk::Letter;
use crate::sys::{AcceptFault, Kernel, classify_accept};
use crate::words::config::Placement;
use crate::words::error::Error;
use crate::words::sync::Arc;

/// Where the accept phase of a turn stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    door: usize,
    /// How many this door has accepted in this turn.
    taken: usize,
}

/// A connection that was accepted and has no record yet.
pub(crate) struct Newcomer<K: Kernel> {
    pub(super) stream: K::Stream,
    pub(super) peer: SocketAddr,
    /// How it came in.
    pub(super) via: Via,
    pub(super) permit: Permit,
}

/// What came of one accept.
pub(super) enum Accepted<K: Kernel> {
    /// A connection, and the right to hold it.
    Connection(Newcomer<K>),
    /// One client had an error, or was turned away; there may be others.
    Nobody,
    /// Nobody waits, or the door is shut, or room is being made.
    Shut,
}

#[cfg(any(test, feature = "sim"))]
impl<K: Kernel> Newcomer<K> {
    /// How it came in, and from where.
    pub(crate) fn permit(&self) -> (Via, IpAddr) {
        (self.via, self.peer.ip())
    }
}

impl<K: Kernel> Reactor<K> {
    /// Gets ready for the accept phase.
    pub(super) fn begin_accepting(&mut self) {
        let now = self.io.now;
        let refuses = self.io.budget.refuses();
        for door in &mut self.doors {
            door.shut.expire(now);
            door.shut.by_memory &= refuses;
        }
        self.review_alarms();
        self.accept = Cursor::default();
        self.phase = Phase::Accept;
    }

    /// Accepts from every door that wants to, a bounded number each; hands out one job at a time.
    pub(super) fn accept_ready(&mut self) -> Option<Box<Job>> {
        while let Some(newcomer) = self.newcomers.pop_front() {
            if self.course == Course::Stop {
                self.turn_away(newcomer);
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
        if let Some(seated) = self.seat(index) {
            return seated;
        }
        if self.io.budget.refuses() {
            self.doors[index].shut.by_memory = true;
            self.io.counters.memory_pauses += 1;
            return Accepted::Shut;
        }
        let Some((way, tokens)) = self.find_way(index) else { return Accepted::Shut };
        let Door { index: listener, socket, .. } = &mut self.doors[index];
        let (listener, Some(socket)) = (*listener, socket.as_mut()) else { return Accepted::Shut };
        match self.io.kernel.accept(socket) {
            Ok(client) => self.receive(index, way, client),
            Err(error) => {
                let common = &self.io.common;
                tokens.into_iter().for_each(|tokens| common.admission.refund(listener, tokens));
                match way {
                    Way::In(permit) if !cfg!(switchboard_sim_mutant = "permit_kept") => {
                        // Nobody was counted, whatever the address.
                        let nobody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                        common.give_back(permit, Via::door(listener), nobody);
                    }
                    Way::In(_) | Way::Look(_) | Way::Away(_) => {}
                }
                self.handle_accept_error(index, error)
            }
        }
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
                self.meet(Alarm::of(AlarmKind::Descriptors));
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
        if let Some((stream, _)) = door.guest.take() {
            self.io.counters.refused += 1;
            self.io.kernel.reset(stream);
        }
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
        let Newcomer { stream, peer, via, permit } = newcomer;
        // What it is given time for begins now, though handlers have run since the turn began.
        self.io.look_at_clock();
        let eager = self.io.habits[via.index()].is_eager();
        let factory = Arc::clone(&self.doors[via.index()].factory);
        let keepalive = self.io.priors[via.index()].open();
        let mut newcomer = Some((stream, permit));
        let made = self.table.insert_with(|_| {
            let (stream, permit) = newcomer.take().expect("asked for once");
            Entry::new(stream, permit, via, Connection::new(peer, self.io.now, keepalive))
        });
        let Ok(id) = made else {
            let (stream, permit) = newcomer.take()?;
            self.turn_away(Newcomer { stream, peer, via, permit });
            return None;
        };
        self.io.counters.opened += 1;
        self.io.budget.note_records(self.table.retained_bytes());
        let mut job = self.io.blank();
        let entry = self.table.get_mut(id)?;
        (job.hand.now, job.hand.door) = (self.io.now, via.listener());
        entry.conn.set_shape(self.io.shape(via));
        entry.conn.lend(id, &mut job.hand, self.io.rules(via));
        if eager {
            // Watched when it comes to rest.
            entry.conn.handle_readable(false, self.io.now);
        } else {
            self.io.watch_for_input(id, entry);
        }
        if self.course == Course::Drain {
            entry.conn.handle_drain(self.io.now);
            self.io.counters.asked += 1;
        }
        job.task = Task::Open(factory);
        job.errand = Errand { open: true, ..Errand::default() };
        job.timed = false;
        Some(job)
    }

    /// Closes a connection that cannot be served.
    fn turn_away(&mut self, newcomer: Newcomer<K>) {
        let Newcomer { stream, peer, via, permit } = newcomer;
        self.io.counters.refused += 1;
        self.io.kernel.close(stream);
        self.desk.unplace();
        self.io.common.release(permit, via, peer.ip());
    }
}
