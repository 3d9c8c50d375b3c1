//! Random lives of connections, each with a calm end in which everything must finish.

use super::*;
use crate::core::shaping::{Shape, quantum};
use crate::words::config::{Listening, Rate};
use bytes::Buf;
use proptest::collection::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
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
    ReadMail,
    PostClose,
    PostAbort,
    Drain,
    Throttle,
    ReadOn(bool),
}

/// What a job decides.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Open,
    Finish,
    Close,
    Abort,
    Panic,
}

fn op() -> impl Strategy<Value = Op> {
    let end = prop_oneof![
        40 => Just(End::Open),
        2 => Just(End::Finish),
        2 => Just(End::Close),
        1 => Just(End::Abort),
        1 => Just(End::Panic),
    ];
    let done = (0..150usize, 0..10usize, end);
    prop_oneof![
        8 => (1..200usize).prop_map(Op::Receive),
        1 => Just(Op::Fin),
        1 => (0..8u8).prop_map(|lot| if lot == 0 { Op::Break } else { Op::Fin }),
        8 => (0..200usize).prop_map(Op::Room),
        2 => any::<bool>().prop_map(Op::SpuriousRead),
        2 => Just(Op::SpuriousWrite),
        4 => (0..4000u64).prop_map(Op::Pass),
        20 => done.prop_map(|(put, keep, end)| Op::Done { put, keep, end }),
        2 => Just(Op::Handle),
        6 => (0..60usize).prop_map(Op::Post),
        4 => Just(Op::ReadMail),
        2 => Just(Op::Throttle),
        4 => any::<bool>().prop_map(Op::ReadOn),
        1 => Just(Op::PostClose),
        1 => (0..8u8).prop_map(|lot| if lot == 0 { Op::PostAbort } else { Op::Drain }),
    ]
}

fn rate() -> impl Strategy<Value = Option<Rate>> {
    let rate = (20..5_000u64, 1..300u64);
    prop::option::of(rate.prop_map(|(rate, burst)| Rate::per_second(rate).burst(burst)))
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
        Op::Post(count) => {
            if let Some(handle) = &rig.handle {
                // Refused once it has ended: nothing is posted then.
                let _refused = handle.try_send(vec![b'p'; count]).is_err();
            }
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

/// Nothing bad happens any more: it has to come to its end.
fn calm(rig: &mut Rig) {
    rig.make_room(usize::MAX);
    rig.conn.read_on(rig.now);
    rig.receive_fin();
    rig.run();
    rig.read_mail();
    for _ in 0..10_000 {
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

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 4 } else { 1024 }))]
    #[test]
    fn every_life_keeps_the_rules_and_ends(
        room in prop_oneof![Just(0usize), 0..300usize, Just(usize::MAX)],
        ops in vec(op(), 1..120),
        rates in prop::option::of((rate(), rate())),
    ) {
        let mut rig = Rig::opening();
        let mut listening = Listening::of(&rig.limits);
        (listening.read_rate, listening.send_rate) = rates.unwrap_or_default();
        rig.conn.set_shape(Shape::of(None, &listening, Time::ZERO));
        rig.peer.room = room;
        for op in ops {
            apply(&mut rig, op);
            let (read, send) = rates.unwrap_or_default();
            prop_assert!(is_within(read, rig.input.0, rig.now));
            prop_assert!(is_within(send, rig.peer.got.len(), rig.now));
        }
        calm(&mut rig);
        let ended_well = ["peer_finished", "closed"];
        let cause = rig.conn.cause().map_or("", |cause| cause.label());
        if ended_well.contains(&cause) && rig.conn.queued_bytes() == 0 {
            prop_assert!(rig.conn.send != SendHalf::Open, "it ended without an end");
        }
        if cause == "peer_finished" {
            prop_assert_eq!((&rig.put, rig.eofs_seen), (&rig.peer.got, 1));
            prop_assert_eq!(rig.input.0, rig.input.1, "all input was handled");
        }
        prop_assert!(rig.eofs_seen <= 1);
        // Nobody is told once our side has finished.
        prop_assert!(rig.drained_seen <= rig.crossings.1);
        let handle = rig.handle.clone();
        rig.end();
        if let Some(handle) = handle {
            let refused = handle.try_send("x").is_err();
            prop_assert!(refused);
        }
    }
}
