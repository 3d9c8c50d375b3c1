//! `App`: the protocol that the simulated server speaks, and the book it keeps of every call.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::circle::{Circle, Span};
use super::kernel::id_of;
use super::net::Net;
use super::notice::Notices;
use super::plan::Plan;
use super::random::{Odds, Random};
use super::trace::Note;
use crate::core::codec::LengthPrefixed;
use crate::core::context::Context;
use crate::core::handle::Handle;
use crate::core::handler::Handler;
use crate::core::refusal::SendError;
use crate::words::clock::Time;
use crate::words::error::Outcome;
use crate::words::id::ConnId;
use crate::words::reason::{Cause, CloseReason};
use crate::words::sync::lock;

/// What all handlers of one server share. The lock of the book comes before that of the net.
#[derive(Debug)]
pub(super) struct App {
    pub(super) book: Mutex<Book>,
    pub(super) net: Arc<Mutex<Net>>,
    /// Closures that were posted and are not dropped.
    pub(super) visits: Arc<AtomicUsize>,
    /// Handlers get bytes as they come.
    pub(super) raw: bool,
}

/// What the handlers did.
#[derive(Debug)]
pub(super) struct Book {
    /// By the number of the client's socket.
    pub(super) lives: Vec<Life>,
    /// Handles that other threads use.
    pub(super) handles: Vec<(usize, Handle)>,
    /// How long the job that has just run shall have taken.
    pub(super) stall: Option<Duration>,
    pub(super) circles: Vec<Circle>,
    pub(super) random: Random,
}

/// The life of one connection as its handler saw it.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    pub(super) made: u32,
    pub(super) opened: u32,
    pub(super) closed: u32,
    pub(super) dropped: u32,
    /// Times that a handler put another one into its place.
    pub(super) switched: u32,
    pub(super) name: Option<ConnId>,
    /// Frames that were handled, and those that were answered.
    pub(super) frames: u32,
    pub(super) replies: u32,
    /// Messages that other threads sent to this connection.
    pub(super) pushes: u32,
    pub(super) eof: bool,
    pub(super) panicked: bool,
    pub(super) failed: bool,
    /// The handler, or a handle, asked for that.
    pub(super) close_asked: bool,
    /// ... by another thread.
    pub(super) close_posted: bool,
    pub(super) abort_asked: bool,
    pub(super) finish_asked: bool,
    pub(super) overflowed: bool,
    /// It may be reset for being behind.
    pub(super) lagged_out: bool,
    /// When it was a member of which circle, and how many losses it was told of.
    pub(super) spans: BTreeMap<usize, Vec<Span>>,
    pub(super) lagged: u64,
    pub(super) drain_told: bool,
    /// When the last frame was handled.
    pub(super) handled_at: Time,
    /// Timers that are set, by their key.
    pub(super) timers: BTreeMap<u64, Time>,
    pub(super) paused: bool,
    pub(super) notices: Notices,
    pub(super) reason: Option<CloseReason>,
}

/// What a frame asks for; its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Send it back.
    Echo,
    /// ... and close.
    Close,
    /// ... and finish.
    Finish,
    /// Abort.
    Abort,
    /// Send it back, and twenty times as much behind it.
    Flood,
    /// Send it back from another thread as well, from now on.
    Share,
    /// Send it back; another handler with another codec goes on.
    Switch,
    /// What another thread sends.
    Push,
    /// What belongs to a flood.
    Drop,
    /// What a group was told.
    Cast,
}

/// The payload of a planned panic; one that tells the panic hook nothing.
struct Planned;

const OPS: [Op; 10] = [
    Op::Echo,
    Op::Close,
    Op::Finish,
    Op::Abort,
    Op::Flood,
    Op::Share,
    Op::Switch,
    Op::Push,
    Op::Drop,
    Op::Cast,
];

/// Messages of a flood, and the size of each.
const FLOOD: (u32, usize) = (20, 300);

impl Life {
    /// Whether it has a handler.
    pub(super) fn is_live(&self) -> bool {
        self.made > 0 && self.dropped <= self.switched && !(self.panicked && self.opened == 0)
    }
}

impl Op {
    pub(super) fn code(self) -> u8 {
        self as u8
    }

    pub(super) fn of(code: u8) -> Option<Op> {
        OPS.get(usize::from(code)).copied()
    }
}

/// The payload of a frame: what it asks for, whose it is, its number, and bytes that follow from
/// these, so that each end can tell what the other must have sent.
pub(super) fn frame(op: Op, id: usize, number: u32, len: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEAD + len);
    bytes.extend_from_slice(&[op.code()]);
    bytes.extend_from_slice(&u32::try_from(id).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend_from_slice(&number.to_be_bytes());
    let first = bytes[4] ^ bytes[8].rotate_left(3);
    bytes.extend((0..len).map(|at| first.wrapping_add(at.to_le_bytes()[0].wrapping_mul(7))));
    bytes.freeze()
}

/// What comes before the filling.
pub(super) const HEAD: usize = 9;

/// What a frame asks for and its number; an error if it is not what the client `id` must send or
/// get.
pub(super) fn parse(bytes: &[u8], id: usize) -> Result<(Op, u32), String> {
    let op = bytes.first().copied().and_then(Op::of).ok_or("no frame of ours")?;
    let number = bytes.get(5..HEAD).ok_or("a short frame")?;
    let number = number.iter().fold(0u32, |sum, &byte| sum << 8 | u32::from(byte));
    if bytes != &frame(op, id, number, bytes.len() - HEAD)[..] {
        return Err(format!("frame {number} ({op:?}) of {} bytes is not as sent", bytes.len()));
    }
    Ok((op, number))
}

impl App {
    pub(super) fn new(net: Arc<Mutex<Net>>, plan: &Plan, mut random: Random) -> Self {
        let circles = if plan.circles { Circle::draw(&mut random) } else { Vec::new() };
        let (lives, handles, stall) = (Vec::new(), Vec::new(), None);
        let book = Book { lives, handles, stall, circles, random };
        App { book: Mutex::new(book), net, visits: Arc::default(), raw: plan.raw }
    }

    /// Makes the handler of a new connection.
    pub(super) fn handler(self: &Arc<Self>, id: usize) -> Talker {
        self.enter(id, "made", |life| life.made += 1);
        Talker { app: Arc::clone(self), id, number: 0, rest: BytesMut::new() }
    }

    /// Notes a call, and lets it panic, fail or stall as the faults will have it.
    fn enter(&self, id: usize, call: &'static str, note: impl FnOnce(&mut Life)) -> bool {
        let mut book = lock(&self.book);
        let (panic, fail, stall, delay) = {
            let mut net = lock(&self.net);
            net.note(Note::Callback(id, call));
            let faults = &net.faults;
            (faults.panic, faults.fail, faults.stall, faults.stall_max)
        };
        let life = book.life(id);
        let late = life.dropped > life.switched || (life.closed > 0 && call != "drop");
        if late {
            lock(&self.net).fail(format!("`{call}` of socket {id} after its end"));
        }
        note(book.life(id));
        if book.random.chance(stall) {
            let most = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
            book.stall = Some(Duration::from_nanos(book.random.range(0, most)));
        }
        if book.panics(panic) {
            book.life(id).panicked = true;
            drop(book);
            std::panic::resume_unwind(Box::new(Planned));
        }
        let fails = call != "made" && book.random.chance(fail);
        book.life(id).failed |= fails && !matches!(call, "on_close" | "drop");
        fails
    }

    /// Another thread has looked whether a connection is open, and is going to abort it.
    pub(super) fn begin_abort(&self) -> Option<ConnId> {
        let mut book = lock(&self.book);
        let open = |(_, handle): &&(usize, Handle)| handle.is_open();
        let (id, handle) = book.handles.iter().rev().find(open)?.clone();
        book.life(id).abort_asked = true;
        Some(handle.id())
    }

    /// Whether another connection has taken the place of this one.
    pub(super) fn is_succeeded(&self, name: ConnId) -> bool {
        let place = |name: ConnId| (name.reactor(), name.slot());
        let book = lock(&self.book);
        let mut names =
            book.lives.iter().filter(|life| life.closed == 0).flat_map(|life| life.name);
        names.any(|other| other != name && place(other) == place(name))
    }

    /// Another thread uses one of the handles, if there is one.
    pub(super) fn use_handle(&self) {
        let mut book = lock(&self.book);
        if book.handles.is_empty() {
            return;
        }
        let count = book.handles.len();
        let at = book.random.below(count);
        let (id, handle) = book.handles[at].clone();
        match book.random.below(24) {
            0 => {
                let life = book.life(id);
                (life.close_asked, life.close_posted) = (true, true);
                drop(book);
                handle.close();
            }
            1 => {
                book.life(id).abort_asked = true;
                drop(book);
                handle.abort();
            }
            _ => {
                let number = book.life(id).pushes;
                let len = book.random.magnitude(1, 2_000);
                let visits = book.random.one_in(3);
                drop(book);
                if visits {
                    self.visit(id, &handle, number, len);
                } else if handle.try_send(self.pack(frame(Op::Push, id, number, len))).is_ok() {
                    lock(&self.book).life(id).pushes += 1;
                }
            }
        }
    }
}

impl Book {
    /// The life of the connection with this socket.
    pub(super) fn life(&mut self, id: usize) -> &mut Life {
        if self.lives.len() <= id {
            self.lives.resize_with(id + 1, Life::default);
        }
        &mut self.lives[id]
    }

    /// A handle of a connection of these sockets goes to other threads, once.
    pub(super) fn share(&mut self, ids: &Range<usize>, handle: Handle) {
        let known = |(_, other): &(usize, Handle)| other.id() == handle.id();
        let named = |id: &usize| self.lives.get(*id).and_then(|life| life.name);
        if let Some(id) = ids.clone().find(|id| named(id) == Some(handle.id())) {
            if !self.handles.iter().any(known) {
                self.handles.push((id, handle));
            }
        }
    }

    /// Whether the handler of this connection wants to read nothing, or is no more.
    pub(super) fn keeps_back(&self, id: usize) -> bool {
        self.lives.get(id).is_none_or(|life| life.paused || life.eof || life.closed > 0)
    }

    fn panics(&mut self, odds: Odds) -> bool {
        self.random.chance(odds)
    }
}

/// The handler of one connection.
#[derive(Debug)]
pub(super) struct Talker {
    pub(super) app: Arc<App>,
    pub(super) id: usize,
    /// How many were in its place before.
    number: u32,
    /// Bytes that have come and are no frame yet, where it cuts frames out itself.
    pub(super) rest: BytesMut,
}

impl Talker {
    /// Notes a call of ours; an error if it is to fail.
    pub(super) fn enter(&self, call: &'static str, note: impl FnOnce(&mut Life)) -> Outcome {
        if lock(&self.app.book).life(self.id).switched != self.number {
            self.broken(&format!("`{call}` of a handler that was replaced"));
        }
        if self.app.enter(self.id, call, note) { Err("planned".into()) } else { Ok(()) }
    }

    fn note(&self, note: impl FnOnce(&mut Life)) {
        note(lock(&self.app.book).life(self.id));
    }

    fn broken(&self, what: &str) {
        lock(&self.app.net).fail(format!("socket {}: {what}", self.id));
    }

    pub(super) fn send(&self, cx: &mut Context<'_>, message: Bytes) -> Outcome {
        match self.say(cx, message) {
            Ok(()) => Ok(()),
            Err(SendError::Overflow { .. }) => {
                self.note(|life| life.overflowed = true);
                Err("overflow".into())
            }
            Err(error) => {
                self.broken(&format!("the reply was refused: {error}"));
                Err("refused".into())
            }
        }
    }
}

impl Talker {
    /// Puts another one into its place, whose frames have another width of length: 2 and 4 bytes
    /// in turns.
    fn switch(&self, cx: &mut Context<'_>) {
        let number = self.number + 1;
        self.note(|life| life.switched = number);
        let (app, rest) = (Arc::clone(&self.app), BytesMut::new());
        let successor = Talker { app, id: self.id, number, rest };
        cx.switch(codec(number), successor);
    }
}

/// The codec of the handler with this number.
pub(super) fn codec(number: u32) -> LengthPrefixed {
    if number % 2 == 0 { LengthPrefixed::u16() } else { LengthPrefixed::u32() }
}

/// The timer that ends a pause.
const RESUME: u64 = 9;

impl Talker {
    /// Sets a timer, takes one back, or pauses until one fires.
    fn use_timers(&self, cx: &mut Context<'_>) {
        let mut book = lock(&self.app.book);
        let now = lock(&self.app.net).now;
        let (key, what) = (book.random.next() % 3, book.random.below(24));
        let after = Duration::from_micros(book.random.range(0, 30_000));
        let life = book.life(self.id);
        match what {
            0..3 => self.set_timer(cx, key, after, now, life),
            3 => {
                let told = cx.cancel_timer(key);
                if told != life.timers.remove(&key).is_some() {
                    self.broken("a timer was set and not set");
                }
            }
            4 => {
                self.set_timer(cx, RESUME, after, now, life);
                life.paused = true;
                cx.pause();
            }
            5 => self.change_rates(cx, &mut book.random),
            _ => {}
        }
    }

    /// Changes the rates of a connection that has some.
    fn change_rates(&self, cx: &mut Context<'_>, random: &mut Random) {
        let mut net = lock(&self.app.net);
        let bounds = net.ledger.redraw(self.id, random);
        bounds.read.into_iter().for_each(|rate| cx.set_read_rate(Some(rate)));
        bounds.send.into_iter().for_each(|rate| cx.set_send_rate(Some(rate)));
    }

    fn set_timer(
        &self,
        cx: &mut Context<'_>,
        key: u64,
        after: Duration,
        now: Time,
        life: &mut Life,
    ) {
        let room = life.timers.len() < TIMERS_MAX || life.timers.contains_key(&key);
        if cx.set_timer(key, after).is_ok() != room {
            self.broken("the wrong number of timers");
        }
        if room {
            life.timers.insert(key, now + after);
        }
    }
}

impl Talker {
    /// Does what a frame asks for.
    pub(super) fn take_frame(&mut self, cx: &mut Context<'_>, frame_in: BytesMut) -> Outcome {
        let parsed = parse(&frame_in, self.id);
        let now = lock(&self.app.net).now;
        let (expected, opened, paused) = {
            let mut book = lock(&self.app.book);
            let life = book.life(self.id);
            life.handled_at = now;
            (life.frames, life.opened, life.paused)
        };
        if paused {
            self.broken("a frame while it was paused");
        }
        let (op, number) = match parsed {
            Ok(parsed) => parsed,
            Err(what) => {
                self.broken(&what);
                return Err("not understood".into());
            }
        };
        if number != expected || opened != self.number + 1 {
            self.broken(&format!("frame {number} instead of {expected}; opened {opened} times"));
        }
        self.enter("on_frame", |life| life.frames += 1)?;
        self.use_timers(cx);
        lock(&self.app.book).use_circles(self.id, cx);
        if op == Op::Abort {
            self.note(|life| life.abort_asked = true);
            cx.abort();
            return Ok(());
        }
        self.send(cx, frame_in.freeze())?;
        self.note(|life| life.replies += 1);
        match op {
            Op::Close => {
                self.note(|life| life.close_asked = true);
                cx.close();
            }
            Op::Finish => {
                self.note(|life| life.finish_asked = true);
                cx.finish();
            }
            Op::Flood => {
                for at in 0..FLOOD.0 {
                    self.send(cx, frame(Op::Drop, self.id, at, FLOOD.1))?;
                }
            }
            Op::Share => {
                let handle = cx.handle();
                lock(&self.app.book).handles.push((self.id, handle));
            }
            Op::Switch => self.switch(cx),
            Op::Echo | Op::Abort | Op::Push | Op::Drop | Op::Cast => {}
        }
        Ok(())
    }
}

/// How late a timer may be if nothing takes its time: many steps of many connections.
const LATE_MAX: Duration = Duration::from_millis(60);

/// More than there are keys.
const TIMERS_MAX: usize = 64;

impl Handler for Talker {
    fn on_open(&mut self, cx: &mut Context<'_>) -> Outcome {
        if !lock(&self.app.net).is_at(self.id, id_of(cx.peer())) {
            self.broken("the context is of another connection");
        }
        self.enter("on_open", |life| {
            life.opened += 1;
            life.name = Some(cx.id());
        })?;
        lock(&self.app.book).begin_in_circle(self.id, cx);
        Ok(())
    }

    fn on_frame(&mut self, cx: &mut Context<'_>, input: BytesMut) -> Outcome {
        if self.app.raw { self.take_bytes(cx, &input) } else { self.take_frame(cx, input) }
    }

    fn on_eof(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.enter("on_eof", |life| life.eof = true)?;
        cx.finish();
        Ok(())
    }

    fn on_flushed(&mut self, _: &mut Context<'_>, key: u64) -> Outcome {
        let told = {
            let mut book = lock(&self.app.book);
            let net = lock(&self.app.net);
            book.life(self.id).notices.take(key, &net, self.id)
        };
        told.unwrap_or_else(|what| self.broken(&what));
        self.enter("on_flushed", |_| {})
    }

    fn on_drained(&mut self, _: &mut Context<'_>) -> Outcome {
        self.enter("on_drained", |_| {})
    }

    fn on_lagged(&mut self, _: &mut Context<'_>, lost: u64) -> Outcome {
        if lost == 0 {
            self.broken("told of no losses");
        }
        self.enter("on_lagged", |life| life.lagged += lost)
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, key: u64) -> Outcome {
        self.enter("on_timer", |_| {})?;
        let mut book = lock(&self.app.book);
        let (now, attentive, late_max) = {
            let net = lock(&self.app.net);
            // What was stopped may be so for a while after things went wrong.
            (net.now, net.faults.are_instant(), LATE_MAX + net.longest)
        };
        let life = book.life(self.id);
        let set = life.timers.remove(&key);
        let late = set.map(|at| now.since(at));
        if set.is_none_or(|at| at > now) {
            self.broken(&format!("timer {key} fired early, twice, or after it was cancelled"));
        }
        if late.is_some_and(|late| attentive && late > late_max) {
            self.broken(&format!("timer {key} was {late:?} late"));
        }
        if key != RESUME {
            return Ok(());
        }
        life.paused = false;
        cx.resume();
        drop(book);
        self.take_bytes(cx, &[])
    }

    fn on_drain(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.enter("on_drain", |life| life.drain_told = true)?;
        cx.close();
        Ok(())
    }

    fn on_close(&mut self, reason: &CloseReason) {
        let _fails = self.app.enter(self.id, "on_close", |life| {
            life.closed += 1;
            life.reason = Some(reason.clone());
        });
        let panicked = matches!(reason.cause(), Cause::HandlerPanicked);
        let mut book = lock(&self.app.book);
        if panicked && !book.life(self.id).panicked {
            drop(book);
            self.broken("closed for a panic that nobody had");
        }
    }
}

impl Drop for Talker {
    fn drop(&mut self) {
        // A panic in a drop that unwinding makes would end the process.
        if std::thread::panicking() {
            lock(&self.app.book).life(self.id).dropped += 1;
            return;
        }
        let _fails = self.app.enter(self.id, "drop", |life| life.dropped += 1);
    }
}
