//! `Life`: what happens to one connection, and the rules that its end has to keep.
//!
//! After all that comes a calm, in which everything must finish.

use std::time::Duration;

use bytes::Buf;

use super::Next;
use super::halves::SendHalf;
use super::rig::{Rig, byte};
use crate::core::hand::Verdict;
use crate::core::handle::Handle;
use crate::core::post::MESSAGE_OVERHEAD_BYTES;
use crate::core::shaping::{Shape, quantum};
use crate::words::clock::Time;
use crate::words::config::{Listening, Rate};
use crate::words::reason::Cause;

/// One connection, from its opening on.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// What the system takes of output before it says `WouldBlock` for the first time.
    pub(super) room: usize,
    /// What input and output are held to.
    pub(super) rates: (Option<Rate>, Option<Rate>),
    pub(super) ops: Vec<Op>,
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Receive(usize),
    Fin,
    Break,
    Room(usize),
    SpuriousRead(bool),
    SpuriousWrite,
    Pass(u64),
    Done { put: usize, keep: usize, end: End },
    Handle,
    Post(usize),
    PostOrClose(usize),
    ReadMail,
    PostClose,
    PostAbort,
    Drain,
    Throttle,
    ReadOn(bool),
}

/// What a job decides.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    Open,
    Finish,
    Close,
    Abort,
    Panic,
}

/// Plays a life that the bytes decide.
///
/// # Panics
/// If the connection breaks one of its rules.
pub(crate) fn live(bytes: &[u8]) {
    Life::of_bytes(bytes).run();
}

/// Bytes that decide, until they are used up.
struct Tape<'a>(&'a [u8]);

impl Tape<'_> {
    fn next(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// The next one; a tape that has ended says zero.
    fn byte(&mut self) -> u8 {
        self.next().unwrap_or(0)
    }

    fn rate(&mut self) -> Option<Rate> {
        let (rate, burst) = (self.byte(), self.byte());
        (rate & 1 == 1)
            .then(|| Rate::per_second(20 + 20 * u64::from(rate)).burst(1 + u64::from(burst)))
    }

    fn op(&mut self) -> Option<Op> {
        let kind = self.next()?;
        let op = match kind % 24 {
            0..=3 => Op::Receive(usize::from(self.byte()).max(1)),
            4 => Op::Fin,
            5 => Op::Break,
            6..=8 => Op::Room(self.byte().into()),
            9 => Op::SpuriousRead(kind < 128),
            10 => Op::SpuriousWrite,
            11 => Op::Pass(u64::from(self.byte()) * 16),
            12..=15 => {
                let (put, keep) = (self.byte().into(), usize::from(self.byte()));
                Op::Done { put, keep: keep % 10, end: End::of_byte(kind / 24, keep) }
            }
            16 => Op::Handle,
            17 => Op::Post(self.byte().into()),
            18 => Op::PostOrClose(self.byte().into()),
            19 => Op::ReadMail,
            20 => Op::PostClose,
            21 => Op::PostAbort,
            22 => Op::Drain,
            _ => match kind / 24 {
                0..4 => Op::Throttle,
                rest => Op::ReadOn(rest % 2 == 0),
            },
        };
        Some(op)
    }
}

impl End {
    /// Most jobs end nothing.
    fn of_byte(kind: u8, keep: usize) -> End {
        match kind {
            7 if keep >= 128 => End::Finish,
            8 if keep >= 128 => End::Close,
            9 if keep >= 192 => End::Abort,
            10 if keep >= 192 => End::Panic,
            _ => End::Open,
        }
    }
}

impl Life {
    fn of_bytes(bytes: &[u8]) -> Life {
        let mut tape = Tape(bytes);
        let room = match tape.byte() {
            u8::MAX => usize::MAX,
            room => room.into(),
        };
        let rates = (tape.rate(), tape.rate());
        // Bounded: what takes long is of no use to a fuzzer.
        let ops = std::iter::from_fn(|| tape.op()).take(OPS_MAX).collect();
        Life { room, rates, ops }
    }

    /// # Panics
    /// If the connection breaks one of its rules.
    pub(super) fn run(self) {
        let mut rig = Rig::opening();
        rig.limits.send_max_bytes = QUEUE_MAX;
        let mut listening = Listening::of(&rig.limits);
        (listening.read_rate, listening.send_rate) = self.rates;
        rig.conn.set_shape(Shape::of(None, &listening, Time::ZERO));
        rig.peer.room = self.room;
        for op in self.ops {
            apply(&mut rig, op);
            let (read, send) = self.rates;
            assert!(is_within(read, rig.input.0, rig.now), "it reads more than it may");
            assert!(is_within(send, rig.peer.got.len(), rig.now), "it sends more than it may");
        }
        calm(&mut rig);
        check_end(rig);
    }
}

/// Whether so many bytes may have passed since the beginning.
fn is_within(rate: Option<Rate>, count: usize, now: Time) -> bool {
    let Some(rate) = rate else { return true };
    let refilled = u128::from(now.as_nanos()) * u128::from(rate.refill()) / 1_000_000_000;
    count as u128 <= refilled + u128::from(rate.depth() + quantum(rate))
}

fn finish_job(rig: &mut Rig, put: usize, keep: usize, end: End) {
    let from = rig.put.len();
    rig.finish_job(|out| {
        let used = out.input.len() - keep.min(out.input.len());
        out.input.advance(used);
        if out.errand.eof {
            out.input.clear();
            out.hand.finish();
        }
        if out.errand.is_drain() {
            out.hand.close(Cause::Closed);
        }
        if out.hand.is_open() {
            let bytes: Vec<u8> = (from..from + put).map(byte).collect();
            out.hand.outbox.put_slice(&bytes);
        }
        match end {
            End::Open => {}
            End::Finish => out.hand.finish(),
            End::Close => out.hand.close(Cause::Closed),
            End::Abort => out.hand.abort(Cause::Aborted),
            End::Panic => out.hand.verdict = Verdict::Abort(Cause::HandlerPanicked),
        }
    });
}

fn apply(rig: &mut Rig, op: Op) {
    match op {
        Op::Receive(count) if !rig.peer.fin => rig.receive(count),
        Op::Receive(_) => {}
        Op::Fin => rig.receive_fin(),
        Op::Break => {
            rig.peer.broken = true;
            rig.conn.handle_readable(true, rig.now);
            rig.conn.handle_writable();
        }
        Op::Room(count) => rig.make_room(count),
        Op::SpuriousRead(drain) => rig.conn.handle_readable(drain, rig.now),
        Op::SpuriousWrite => rig.conn.handle_writable(),
        Op::Pass(millis) => rig.pass(Duration::from_millis(millis)),
        Op::Done { put, keep, end } => {
            if rig.out.is_some() {
                finish_job(rig, put, keep, end);
            }
        }
        Op::Handle => {
            if rig.out.is_some() {
                rig.make_handle();
            }
        }
        Op::Post(len) => post(rig, len, |handle, bytes| handle.try_send(bytes).is_ok()),
        Op::PostOrClose(len) => {
            post(rig, len, |handle, bytes| handle.send_or_close(bytes).is_ok());
        }
        Op::ReadMail => rig.read_mail(),
        Op::PostClose => rig.handle.iter().for_each(Handle::close),
        Op::PostAbort => rig.handle.iter().for_each(Handle::abort),
        Op::Drain => {
            let closes = rig.conn.flags.dead || rig.conn.flags.discarding;
            assert_ne!(rig.conn.handle_drain(rig.now), closes, "who closes is not asked");
        }
        Op::Throttle => {
            let granted = !rig.conn.throttle();
            assert!(granted || rig.conn.next() != Next::Read, "it is read though memory is short");
        }
        Op::ReadOn(once) if rig.conn.is_throttled() => match once {
            true => rig.conn.grant_read(rig.now, rig.now),
            false => rig.conn.read_on(rig.now),
        },
        Op::ReadOn(_) => {}
    }
    rig.run();
}

/// Posts a message of so many bytes: it is taken if there is room for it, and not else.
fn post(rig: &Rig, len: usize, send: fn(&Handle, Vec<u8>) -> bool) {
    let Some(handle) = &rig.handle else { return };
    let room = QUEUE_MAX.saturating_sub(handle.queued_bytes());
    let fits = handle.takes_messages() && len + MESSAGE_OVERHEAD_BYTES <= room;
    assert_eq!(send(handle, vec![b'p'; len]), fits, "{room} bytes of room for {len}");
}

/// Nothing bad happens any more: it has to come to its end.
fn calm(rig: &mut Rig) {
    rig.make_room(usize::MAX);
    rig.conn.read_on(rig.now);
    rig.receive_fin();
    rig.run();
    rig.read_mail();
    // At the lowest rate the longest life has so much to say.
    for _ in 0..100_000 {
        if rig.out.is_some() {
            finish_job(rig, 0, 0, End::Open);
        } else if rig.conn.holds_input() || rig.conn.holds_output() {
            rig.pass(Duration::from_millis(20));
        } else if rig.conn.flags.dead {
            return;
        }
    }
    panic!("it does not end: {:?}", rig.conn);
}

fn check_end(rig: Rig) {
    let ended_well = ["peer_finished", "closed"];
    let cause = rig.conn.cause().map_or("", |cause| cause.label());
    if ended_well.contains(&cause) && rig.conn.queued_bytes() == 0 {
        assert!(rig.conn.send != SendHalf::Open, "it ended without an end");
    }
    if cause == "peer_finished" {
        assert_eq!(rig.put, rig.peer.got, "all output was written");
        assert_eq!(rig.eofs_seen, 1, "it was told of the end of input");
        assert_eq!(rig.input.0, rig.input.1, "all input was handled");
    }
    assert!(rig.eofs_seen <= 1);
    // Nobody is told once our side has finished.
    assert!(rig.drained_seen <= rig.crossings.1);
    let handle = rig.handle.clone();
    rig.end();
    if let Some(handle) = handle {
        assert!(handle.try_send("x").is_err(), "nothing is taken after the end");
    }
}

/// What handles may queue.
const QUEUE_MAX: usize = 1_500;
/// Things that happen in a life that bytes decide.
const OPS_MAX: usize = 300;
