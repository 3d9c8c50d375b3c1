//! `Engine`: does what a connection says is next, as a reactor does, with nothing but values.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::BytesMut;

use super::groups::Groups;
use super::wire::Wire;
use crate::core::conn::{Connection, Next, Rules};
use crate::core::gate::Gate;
use crate::core::job::{Call, Done, Input, Job, Kind, Task};
use crate::core::keepalive::Prior;
use crate::core::post::{Command, Office, Post};
use crate::core::session::{Errand, Factory};
use crate::words::clock::Time;
use crate::words::config::{Limits, Timeouts};
use crate::words::error::SpawnError;
use crate::words::id::ConnId;
use crate::words::pressure::Pressure;
use crate::words::reason::{Cause, CloseReason};
use crate::words::sync::{Arc, Mutex, lock};

/// The address that the peer of a bench has.
pub(super) const PEER: ([u8; 4], u16) = ([192, 0, 2, 1], 1);
/// A handler that wants more than that without anything from outside never comes to rest.
const STEPS_MAX: usize = 100_000;

/// What handles have posted.
#[derive(Debug, Default)]
struct Mail(Mutex<Vec<Command>>);

impl Post for Mail {
    fn command(&self, command: Command) {
        lock(&self.0).push(command);
    }
}

/// What a job may ask of its surroundings.
struct Surroundings<'a> {
    mail: &'a Arc<Mail>,
    now: Time,
    limits: &'a Limits,
}

impl Office for Surroundings<'_> {
    fn post(&self) -> Arc<dyn Post> {
        Arc::clone(self.mail) as Arc<dyn Post>
    }

    /// Done at once: there is no pool. Its result comes with the mail.
    fn spawn(&self, call: Call) -> Result<(), SpawnError> {
        call.run();
        Ok(())
    }

    fn now(&self) -> Time {
        self.now
    }

    fn timeouts(&self, _: u16) -> Timeouts {
        self.limits.timeouts.clone()
    }
}

/// One connection, its wire, and what a reactor would have for it.
#[derive(Debug)]
pub(super) struct Engine {
    /// `None` once it has ended.
    pub(super) conn: Option<Connection>,
    pub(super) wire: Wire,
    pub(super) gate: Arc<Gate>,
    pub(super) now: Time,
    pub(super) reason: Option<CloseReason>,
    /// Whether the protocol had paused when its last call returned.
    pub(super) paused: bool,
    pub(super) misdirected_count: u64,
    pub(super) dropped_count: u64,
    pub(super) panic_count: u64,
    limits: Limits,
    prior: Prior,
    groups: Groups,
    mail: Arc<Mail>,
}

/// The name of the connection.
fn id() -> ConnId {
    ConnId::new(0, 0, 0)
}

fn rules<'a>(limits: &'a Limits, prior: &'a Prior) -> Rules<'a> {
    Rules { limits, timeouts: &limits.timeouts, prior, pressure: Pressure::Calm }
}

impl Engine {
    /// A connection that has just been opened, and has come to rest.
    pub(super) fn open(limits: Limits, factory: Arc<dyn Factory>) -> Self {
        let mail = Arc::<Mail>::default();
        let post = Arc::clone(&mail) as Arc<dyn Post>;
        let gate = Arc::new(Gate::new(id(), factory.handler(), limits.send_max_bytes, post));
        let mut prior = Prior::new();
        let mut conn = Connection::new(PEER.into(), Time::ZERO, prior.open());
        conn.attach(Arc::clone(&gate));
        let mut job = Job::blank();
        conn.lend(id(), &mut job.hand, rules(&limits, &prior));
        job.task = Task::Open(factory);
        job.errand = Errand { open: true, ..Errand::default() };
        let mut engine = Engine {
            conn: Some(conn),
            wire: Wire::new(),
            gate,
            now: Time::ZERO,
            reason: None,
            paused: false,
            misdirected_count: 0,
            dropped_count: 0,
            panic_count: 0,
            limits,
            prior,
            groups: Groups::default(),
            mail,
        };
        engine.run(job);
        engine.settle();
        engine
    }

    /// Changes the record, unless it has ended, and does what follows from that.
    pub(super) fn with(&mut self, change: impl FnOnce(&mut Connection, Time)) {
        if let Some(conn) = &mut self.conn {
            change(conn, self.now);
        }
        self.settle();
    }

    /// Does what is next until nothing is.
    pub(super) fn settle(&mut self) {
        for _ in 0..STEPS_MAX {
            self.read_mail();
            let Some(conn) = &self.conn else { return };
            match conn.next() {
                Next::Write => self.write(),
                Next::Finish => self.finish(),
                Next::Probe => self.probe(),
                Next::Read => self.read(),
                Next::Serve => self.serve(),
                Next::Discard => self.discard(),
                Next::Reap => self.reap(),
                Next::Rest if lock(&self.mail.0).is_empty() => return,
                Next::Rest => {}
            }
        }
        panic!("the connection never comes to rest: its handler goes on and on by itself");
    }

    /// Lets time go by: everything that is due meanwhile comes at its time.
    pub(super) fn advance(&mut self, time: Duration) {
        self.settle();
        let until = self.now + time;
        for _ in 0..STEPS_MAX {
            let Some(conn) = &self.conn else { break };
            let due = conn.deadline(rules(&self.limits, &self.prior));
            if due > until || due == Time::NEVER {
                break;
            }
            self.now = self.now.max(due);
            self.expire();
        }
        let ends = self.conn.as_ref().map(|conn| conn.deadline(rules(&self.limits, &self.prior)));
        assert!(
            ends.is_none_or(|due| due > until || due == Time::NEVER),
            "time stands still: the handler sets timers that are due at once, over and over"
        );
        self.now = until;
    }

    /// Its deadline has come: the system is asked once more before the peer counts as late.
    fn expire(&mut self) {
        let Engine { conn: Some(conn), limits, prior, now, .. } = self else { return };
        if conn.seems_late(*now, rules(limits, prior)) {
            conn.look_again();
            self.settle();
        }
        let Engine { conn: Some(conn), limits, prior, now, .. } = self else { return };
        conn.handle_timeout(*now, rules(limits, prior));
        self.settle();
    }

    fn read_mail(&mut self) {
        let mail = std::mem::take(&mut *lock(&self.mail.0));
        let Engine { conn: Some(conn), limits, prior, groups, now, .. } = self else {
            return mail.into_iter().for_each(decline);
        };
        for command in mail {
            match command {
                Command::Send { parcel, cost, .. } => {
                    conn.handle_parcel(parcel, cost);
                }
                Command::Close(_) => conn.handle_close(*now, rules(limits, prior)),
                Command::Abort(_) => conn.abort(Cause::Aborted),
                Command::Back { result, .. } => conn.handle_back(result),
                Command::Join(_, seat) => groups.join(conn, seat),
                Command::Leave(_, seat) => groups.leave(conn, &seat),
                Command::Broadcast(seat, shot) => groups.tell(conn, &seat, shot),
                Command::Overflow(_) => conn.abort(Cause::Overflow),
            }
        }
    }

    fn write(&mut self) {
        let Engine { conn: Some(conn), wire, limits, prior, now, .. } = self else { return };
        let Some(outbox) = conn.outbox_mut() else { return };
        match wire.write(outbox) {
            Ok(count) => {
                conn.handle_written(count, *now, rules(limits, prior));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                conn.handle_write_blocked(*now, rules(limits, prior));
            }
            Err(error) => conn.die(Cause::of_io(&error)),
        }
    }

    fn finish(&mut self) {
        let Engine { conn: Some(conn), wire, limits, prior, now, .. } = self else { return };
        wire.finished = true;
        conn.handle_finished(*now, rules(limits, prior));
    }

    fn probe(&mut self) {
        let Engine { conn: Some(conn), wire, .. } = self else { return };
        match wire.error() {
            Ok(()) => conn.handle_sound(),
            Err(error) => conn.die(Cause::of_io(&error)),
        }
    }

    /// Reads once, and runs the session if that brought input.
    fn read(&mut self) {
        let Engine { conn: Some(conn), wire, limits, prior, now, .. } = self else { return };
        let mut input = conn.take_partial().unwrap_or_default();
        let room = limits.read_chunk_bytes;
        match wire.read(&mut input, room) {
            Ok(0) => conn.handle_eof(*now),
            Ok(count) => {
                conn.handle_received(count < room, *now, prior);
                return self.serve_with(input);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => conn.handle_read_blocked(),
            Err(error) => conn.die(Cause::of_io(&error)),
        }
        conn.keep_partial(input, *now);
    }

    fn discard(&mut self) {
        let Engine { conn: Some(conn), wire, limits, prior, now, .. } = self else { return };
        let room = limits.read_chunk_bytes;
        match wire.read(&mut BytesMut::new(), room) {
            Ok(0) => conn.handle_eof(*now),
            Ok(count) => {
                conn.handle_received(count < room, *now, prior);
                conn.handle_discarded(count, rules(limits, prior));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => conn.handle_read_blocked(),
            Err(error) => conn.die(Cause::of_io(&error)),
        }
    }

    fn serve(&mut self) {
        let partial = self.conn.as_mut().and_then(Connection::take_partial);
        self.serve_with(partial.unwrap_or_default());
    }

    fn serve_with(&mut self, bytes: BytesMut) {
        let Engine { conn: Some(conn), limits, prior, now, .. } = self else { return };
        let mut job = Job::blank();
        let taken = conn.take_session(id(), &mut job.hand, rules(limits, prior));
        let Some((session, errand)) = taken else { return };
        job.serve_later(session, errand);
        job.hand.now = *now;
        job.input = Input { given_bytes: bytes.len(), bytes, leased: false };
        self.run(job);
    }

    /// Runs user code, and takes back what it left.
    fn run(&mut self, job: Box<Job>) {
        let Engine { mail, limits, now, .. } = self;
        let office = Surroundings { mail, now: *now, limits };
        let Done { mut job, kind, panicked, .. } = job.run(&office, || *now);
        self.panic_count += u64::from(panicked);
        if kind != Kind::Served {
            return;
        }
        let hand = &mut job.hand;
        self.misdirected_count += u64::from(hand.misdirected_count);
        self.dropped_count += u64::from(hand.dropped_count);
        self.paused = hand.paused;
        let Engine { conn: Some(conn), wire, limits, prior, now, .. } = self else { return };
        conn.handle_done(job.session.take(), hand, *now, rules(limits, prior));
        conn.keep_partial(std::mem::take(&mut job.input.bytes), *now);
        if !hand.outbox.is_empty() && conn.writes_through() {
            match wire.write(&mut hand.outbox) {
                Ok(_) => conn.note_sent(*now, rules(limits, prior)),
                // It is queued; the next attempt finds out why.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => conn.die(Cause::of_io(&error)),
            }
        }
        conn.handle_output(hand, rules(limits, prior));
    }

    fn reap(&mut self) {
        let Some(mut conn) = self.conn.take() else { return };
        self.groups.leave_all(&mut conn);
        self.wire.close(conn.farewell());
        let (session, reason) = conn.into_end();
        self.reason = Some(reason.clone());
        let Some(session) = session else { return };
        let mut job = Job::blank();
        job.task = Task::Close(reason);
        job.session = Some(session);
        self.run(job);
    }
}

/// A bench that is dropped leaves its groups.
impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(conn) = &mut self.conn {
            self.groups.leave_all(conn);
        }
        std::mem::take(&mut *lock(&self.mail.0)).into_iter().for_each(decline);
    }
}

/// What was asked of a connection that has ended.
fn decline(command: Command) {
    match command {
        Command::Join(_, seat) => seat.release(),
        Command::Broadcast(seat, shot) => seat.taken(&shot),
        Command::Send { .. }
        | Command::Close(_)
        | Command::Abort(_)
        | Command::Overflow(_)
        | Command::Back { .. }
        | Command::Leave(..) => {}
    }
}
