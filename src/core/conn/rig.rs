//! A tiny engine around one connection: obeys `next`, plays the kernel, and checks every step.

//!
//! For tests of the record, for the fuzzer, and for models of its handles.

use std::any::TypeId;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::halves::{RecvHalf, SendHalf};
use super::{Connection, Holding, Next, Rules};
use crate::core::gate::Gate;
use crate::core::hand::Hand;
use crate::core::handle::Handle;
use crate::core::keepalive::Prior;
use crate::core::post::{Command, Office, Post};
use crate::core::session::{Errand, Session};
use crate::core::shaping::Leave;
use crate::words::clock::Time;
use crate::words::config::Limits;
use crate::words::id::ConnId;
use crate::words::pressure::Pressure;
use crate::words::reason::{Cause, CloseReason};
use crate::words::sync::atomic::AtomicUsize;
use crate::words::sync::{Arc, Mutex, lock};

pub(super) const HIGH: usize = 100;
pub(super) const LOW: usize = 50;

/// A session that is never asked: the tests decide themselves what a job does.
struct Dummy;

impl Session for Dummy {
    fn serve(
        &mut self,
        _: &mut Errand,
        _: &mut BytesMut,
        _: &mut Hand,
        _: &dyn Office,
    ) -> Result<(), Cause> {
        Ok(())
    }

    fn close(&mut self, _: &CloseReason) {}
}

/// A mailbox, and what the messages on their way are counted for.
pub(super) struct Mail(Mutex<Vec<Command>>, AtomicUsize);

impl Post for Mail {
    fn command(&self, command: Command) {
        lock(&self.0).push(command);
    }

    fn admit(&self, cost: usize) -> bool {
        self.1.fetch_add(cost, SeqCst);
        true
    }

    fn taken(&self, cost: usize) {
        let before = self.1.fetch_sub(cost, SeqCst);
        assert!(before >= cost, "more was taken than was posted");
    }
}

/// What the peer and the kernel between us are like.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Bytes that the kernel takes before it says `WouldBlock`.
    pub(super) room: usize,
    /// Bytes of input that wait.
    pub(super) incoming: usize,
    /// The peer has sent FIN.
    pub(super) fin: bool,
    /// Every call answers with an error.
    pub(super) broken: bool,
    /// What it got.
    pub(super) got: Vec<u8>,
    /// It got FIN.
    pub(super) got_fin: bool,
}

/// A job that is out.
pub(super) struct Out {
    session: Box<dyn Session>,
    pub(super) hand: Hand,
    pub(super) errand: Errand,
    pub(super) input: BytesMut,
}

/// The byte at a place of a stream.
pub(super) fn byte(place: usize) -> u8 {
    (place % 251).to_le_bytes()[0]
}

/// One connection and the engine around it.
pub(super) struct Rig {
    pub(super) conn: Connection,
    pub(super) peer: Peer,
    pub(super) limits: Limits,
    pub(super) now: Time,
    pub(super) out: Option<Out>,
    pub(super) mail: Arc<Mail>,
    pub(super) handle: Option<Handle>,
    /// What the user has put, in order.
    pub(super) put: Vec<u8>,
    /// How often the queue went up to the high mark and down to the low one.
    pub(super) crossings: (usize, usize),
    pub(super) drained_seen: usize,
    pub(super) eofs_seen: usize,
    /// Input bytes that were read, and those of them that a job has used up. See [`byte`].
    pub(super) input: (usize, usize),
    cause: Option<&'static str>,
    pub(super) stall: Time,
    /// Since when output waits for its turn.
    held: Time,
    was_dead: bool,
    /// What it holds, as it has told.
    books: Holding,
}

pub(super) fn id() -> ConnId {
    ConnId::new(0, 7, 1)
}

pub(super) fn rules(limits: &Limits) -> Rules<'_> {
    static PRIOR: OnceLock<Prior> = OnceLock::new();
    let prior = PRIOR.get_or_init(Prior::new);
    Rules { limits, timeouts: &limits.timeouts, prior, pressure: Pressure::Calm }
}

impl Rig {
    /// A connection that is being opened.
    pub(super) fn opening() -> Self {
        let mut limits = Limits::for_descriptors(None);
        (limits.send_high_bytes, limits.send_low_bytes) = (HIGH, LOW);
        limits.linger_bytes = 1000;
        let mut conn = Connection::new(
            "192.0.2.1:1".parse().expect("an address"),
            Time::ZERO,
            Prior::new().open(),
        );
        let mut hand = Hand::blank();
        conn.lend(id(), &mut hand, rules(&limits));
        let errand = Errand { open: true, ..Errand::default() };
        let out = Out { session: Box::new(Dummy), hand, errand, input: BytesMut::new() };
        Rig {
            conn,
            peer: Peer { room: usize::MAX, ..Peer::default() },
            limits,
            now: Time::ZERO,
            out: Some(out),
            mail: Arc::new(Mail(Mutex::new(Vec::new()), AtomicUsize::new(0))),
            handle: None,
            put: Vec::new(),
            crossings: (0, 0),
            drained_seen: 0,
            eofs_seen: 0,
            input: (0, 0),
            cause: None,
            stall: Time::NEVER,
            held: Time::NEVER,
            was_dead: false,
            books: Holding::default(),
        }
    }

    /// The input to be read now, and an event that says so.
    pub(super) fn receive(&mut self, count: usize) {
        self.peer.incoming += count;
        self.conn.handle_readable(false, self.now);
    }

    /// FIN of the peer.
    pub(super) fn receive_fin(&mut self) {
        self.peer.fin = true;
        self.conn.handle_readable(true, self.now);
    }

    /// The peer takes `count` more bytes, and an event says so.
    pub(super) fn make_room(&mut self, count: usize) {
        self.peer.room = self.peer.room.saturating_add(count);
        self.conn.handle_writable();
    }

    /// Ends the job that is out, after `act` has done what the handler does.
    pub(super) fn finish_job(&mut self, act: impl FnOnce(&mut Out)) {
        let mut out = self.out.take().expect("a job is out");
        for parcel in std::mem::take(&mut out.errand.inbox_mut().parcels) {
            out.hand.outbox.put(parcel.unpack::<Bytes>().expect("bytes were packed"));
        }
        act(&mut out);
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let count = out.hand.outbox.slices(&mut slices);
        slices[..count].iter().for_each(|slice| self.put.extend_from_slice(slice));
        let before = self.conn.flags.choked;
        let Out { session, mut hand, input, .. } = out;
        self.conn.handle_done(Some(session), &mut hand, self.now, rules(&self.limits));
        self.conn.handle_output(&mut hand, rules(&self.limits));
        self.crossings.0 += usize::from(!before && self.conn.flags.choked);
        self.input.1 = self.input.0 - input.len();
        self.conn.keep_partial(input, self.now);
        self.check();
        self.run();
    }

    /// A handle, as the job that is out makes it.
    pub(super) fn make_handle(&mut self) -> Handle {
        let out = self.out.as_mut().expect("a job is out");
        let post = Arc::clone(&self.mail) as Arc<dyn Post>;
        let make =
            || Arc::new(Gate::new(id(), TypeId::of::<()>(), self.limits.send_max_bytes, post));
        let gate = out.hand.gate.get_or_insert_with(make);
        let handle = Handle::new(Arc::clone(gate));
        self.handle = Some(handle.clone());
        handle
    }

    /// Delivers what handles have posted.
    pub(super) fn read_mail(&mut self) {
        let mail = Arc::clone(&self.mail);
        let next = || {
            let mut mail = lock(&mail.0);
            (!mail.is_empty()).then(|| mail.remove(0))
        };
        while let Some(command) = next() {
            match command {
                Command::Send { parcel, cost, .. } => {
                    self.conn.handle_parcel(parcel, cost);
                }
                Command::Close(_) => self.conn.handle_close(self.now, rules(&self.limits)),
                Command::Back { result, .. } => self.conn.handle_back(result),
                Command::Abort(_) => self.conn.abort(Cause::Aborted),
                Command::Overflow(_) => self.conn.abort(Cause::Overflow),
                Command::Join(..) | Command::Leave(..) | Command::Broadcast(..) => {
                    unreachable!("no test here posts one")
                }
            }
            self.check();
        }
        self.run();
    }

    /// Lets time go by, with the timers that fire.
    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        if self.conn.wake_held(self.now) {
            if !self.conn.holds_output() && self.held != Time::NEVER {
                self.stall = self.stall + self.now.since(self.held);
                self.held = Time::NEVER;
            }
            self.check();
            self.run();
        }
        let due = self.conn.output_by() <= self.now && !self.conn.flags.dead;
        self.conn.handle_timeout(self.now, rules(&self.limits));
        assert!(!due || self.conn.flags.dead, "a deadline that came ends it");
        self.check();
        self.run();
    }

    /// Does what is next until that is nothing, or needs a job to return.
    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            match self.conn.next() {
                Next::Write => self.write(),
                Next::Finish => self.finish(),
                Next::Read | Next::Serve => self.serve(),
                Next::Discard => self.discard(),
                Next::Probe => self.probe(),
                Next::Rest | Next::Reap => return self.check(),
            }
            self.check();
        }
        panic!("it never comes to rest");
    }

    fn write(&mut self) {
        let outbox = self.conn.outbox_mut().expect("it asked to write");
        assert!(!outbox.is_empty(), "nothing to write");
        if self.peer.broken {
            return self.conn.die(Cause::PeerReset);
        }
        let queued = outbox.len_bytes();
        let Leave::Go(most) = self.conn.ask_to_send(queued, self.now) else {
            self.held = self.now;
            return;
        };
        let outbox = self.conn.outbox_mut().expect("it asked to write");
        let mut slices = [std::io::IoSlice::new(&[]); 4];
        let count = outbox.slices(&mut slices);
        let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        let taken = all.len().min(self.peer.room).min(most);
        outbox.advance(taken);
        self.conn.note_written(taken);
        if taken == 0 {
            if self.stall == Time::NEVER {
                self.stall = self.now.after(self.limits.timeouts.write_stall);
            }
            return self.conn.handle_write_blocked(self.now, rules(&self.limits));
        }
        assert!(!self.peer.got_fin, "output after FIN");
        self.peer.room -= taken;
        self.peer.got.extend_from_slice(&all[..taken]);
        let before = self.conn.flags.choked;
        let emptied = self.conn.handle_written(taken, self.now, rules(&self.limits));
        assert_eq!(emptied, self.conn.outbox.is_none());
        self.crossings.1 += usize::from(before && !self.conn.flags.choked);
        let blocked = self.stall != Time::NEVER && self.conn.outbox.is_some();
        self.stall =
            if blocked { self.now.after(self.limits.timeouts.write_stall) } else { Time::NEVER };
    }

    fn probe(&mut self) {
        if self.peer.broken { self.conn.die(Cause::PeerReset) } else { self.conn.handle_sound() }
    }

    fn finish(&mut self) {
        assert!(self.conn.outbox.is_none() && self.out.is_none() && !self.peer.got_fin);
        self.peer.got_fin = true;
        self.conn.handle_finished(self.now, rules(&self.limits));
    }

    fn serve(&mut self) {
        assert!(self.conn.session.is_some(), "one job at a time");
        let mut input = self.conn.take_partial().unwrap_or_default();
        if self.conn.flags.discarding {
            self.input.1 = self.input.0;
        }
        assert_eq!(input.len(), self.input.0 - self.input.1, "a partial frame is kept");
        if self.conn.next() == Next::Read {
            assert_eq!(self.conn.recv, RecvHalf::Open);
            assert!(!self.conn.flags.choked);
            if !self.read(&mut input) {
                return self.conn.keep_partial(input, self.now);
            }
        }
        let expected = (self.input.1..).map(byte);
        assert!(input.iter().copied().eq(expected.take(input.len())), "input in order, once");
        let mut hand = Hand::blank();
        let taken = self.conn.take_session(id(), &mut hand, rules(&self.limits));
        let (session, errand) = taken.expect("the session is at rest");
        hand.now = self.now;
        self.drained_seen += usize::from(errand.is_drained());
        self.eofs_seen += usize::from(errand.eof);
        assert!(!errand.eof || self.peer.incoming == 0);
        self.conn.note_lent(Some(&input), &hand);
        self.out = Some(Out { session, hand, errand, input });
    }

    /// One call; whether it brought bytes.
    fn read(&mut self, input: &mut BytesMut) -> bool {
        let Leave::Go(room) = self.conn.ask_to_read(40, self.now) else { return false };
        if self.peer.broken {
            self.conn.note_read(0);
            self.conn.die(Cause::PeerReset);
            return false;
        }
        let count = self.peer.incoming.min(room);
        self.conn.note_read(count);
        if count == 0 && self.peer.fin {
            self.conn.handle_eof(self.now);
            return false;
        }
        if count == 0 {
            self.conn.handle_read_blocked();
            return false;
        }
        self.peer.incoming -= count;
        let bytes = (self.input.0..self.input.0 + count).map(byte);
        input.extend(bytes);
        self.input.0 += count;
        self.conn.handle_received(count < room, self.now, &mut Prior::new());
        true
    }

    fn discard(&mut self) {
        assert_eq!(self.conn.recv, RecvHalf::Open);
        let mut input = BytesMut::new();
        if self.read(&mut input) {
            self.conn.handle_discarded(input.len(), rules(&self.limits));
        }
    }

    /// What holds after every step.
    pub(super) fn check(&mut self) {
        self.audit();
        let conn = &self.conn;
        assert!(self.put.starts_with(&self.peer.got), "written in order, once");
        assert_eq!(self.put.len(), self.peer.got.len() + conn.queued_bytes(), "none is lost");
        let cause = conn.cause().map(|cause| cause.label());
        assert!(self.cause.is_none() || self.cause == cause, "the first cause stands");
        self.cause = cause;
        assert!(!self.was_dead || conn.flags.dead, "nobody rises from the dead");
        self.was_dead = conn.flags.dead;
        if let Some(handle) = self.handle.as_ref().filter(|_| conn.gate.is_some()) {
            assert_eq!(handle.is_open(), !conn.flags.dead, "the gate tells the truth");
        }
        if conn.flags.dead {
            assert_eq!((conn.next(), conn.output_by()), (Next::Reap, Time::NEVER));
            return assert!(conn.partial.is_none() && conn.inbox.is_none());
        }
        let lingers = conn.flags.discarding && conn.send == SendHalf::Closed;
        let stall = if conn.holds_output() { Time::NEVER } else { self.stall };
        let deadline = if lingers { conn.output_by() } else { stall };
        assert_eq!(conn.output_by(), deadline, "a write stall is per byte of progress");
        let endless = self.limits.timeouts.linger.is_none();
        assert!(!lingers || deadline != Time::NEVER || endless);
        assert!(deadline == Time::NEVER || conn.outbox.is_some() || lingers);
        assert_eq!(conn.flags.choked, self.crossings.0 > self.crossings.1);
        assert!(
            !(conn.send == SendHalf::Closed && conn.recv == RecvHalf::Finished)
                || conn.is_out()
                || conn.flags.eof,
            "both halves are over, but not it"
        );
    }

    /// The books are exact, and every message is counted that is on its way.
    fn audit(&mut self) {
        if let Some(change) = self.conn.settle() {
            self.books.apply(&change);
        }
        let conn = &self.conn;
        assert_eq!(self.books, conn.holding());
        assert!(self.books.output >= conn.outbox.as_ref().map_or(0, |outbox| outbox.held_bytes()));
        let input = self.out.as_ref().map_or(0, |out| out.input.len());
        assert!(self.books.partial >= input || !self.conn.is_out(), "what a job took is held");
        if cfg!(loom) {
            // Other threads are in the middle of posts.
            return;
        }
        let mail = lock(&self.mail.0);
        let on_the_way = mail.iter().map(|command| match command {
            Command::Send { cost, .. } => *cost,
            Command::Close(_) | Command::Abort(_) | Command::Overflow(_) | Command::Back { .. } => {
                0
            }
            Command::Join(..) | Command::Leave(..) | Command::Broadcast(..) => 0,
        });
        let waiting = conn.inbox.as_ref().map_or(0, |inbox| inbox.posted_bytes);
        let encoding = self.out.as_ref().map_or(0, |out| out.hand.posted_bytes);
        let known = on_the_way.sum::<usize>() + waiting + encoding + conn.untaken();
        let posted = self.mail.1.load(SeqCst);
        // Between the return of a job and the taking of its output there is no check.
        assert_eq!(posted, known, "messages are counted once, until they are encoded");
    }

    /// Ends the record, which has to be dead.
    pub(super) fn end(mut self) -> CloseReason {
        self.audit();
        if let Some(change) = self.conn.close_account() {
            self.books.apply(&change);
        }
        assert_eq!(self.books, Holding::default());
        assert_eq!(self.conn.next(), Next::Reap);
        assert!(!self.conn.is_out());
        let (session, reason) = self.conn.into_end();
        assert!(session.is_some(), "the last call is still to be made");
        assert_eq!(reason.unsent_bytes(), self.put.len() - self.peer.got.len());
        assert!(self.handle.is_none_or(|handle| !handle.is_open()), "the gate is shut");
        reason
    }
}
