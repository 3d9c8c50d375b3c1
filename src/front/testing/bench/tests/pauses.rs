//! A paused connection: what still reaches its handler, and what waits until it goes on.

use std::time::Duration;

use super::super::Bench;
use super::parts::{Part, acting, told};
use crate::core::codec::{Fixed, LengthPrefixed};
use crate::core::context::Context;
use crate::words::config::{Idle, Limits};

type Cx<'a, 'b> = &'a mut Context<'b>;

fn pausing(change: impl FnOnce(&mut Limits)) -> (Bench, std::sync::mpsc::Receiver<String>) {
    let (log, calls) = acting(|cx, _, call| {
        match call {
            "frame p" => cx.pause(),
            "frame n" => cx.send_with_notice("n", 1)?,
            "frame q" => {
                cx.pause();
                cx.resume();
            }
            "drain" => cx.close(),
            "eof" => cx.finish(),
            _ => {}
        }
        Ok(())
    });
    let codec = Fixed::new(1).expect("it has a byte");
    (Bench::with_limits(codec, move |_| log.part::<0>(), change), calls)
}

#[test]
fn closures_messages_and_notices_pass_and_frames_wait() {
    let (mut bench, calls) = pausing(|_| {});
    bench.block_output();
    bench.receive(b"nqpxy");
    bench.receive(b"z");
    bench.finish();
    let handle = bench.handle();
    handle.try_send_with_notice("h", 2).expect("it is open");
    handle.run(|_: &mut Part<0>, cx: Cx<'_, '_>| Ok(cx.send("v")?)).expect("it is open");
    bench.turn();
    assert_eq!(told(&calls), ["0 open", "0 frame n", "0 frame q", "0 frame p"]);
    bench.unblock_output();
    assert_eq!(
        (bench.sent(), told(&calls).join(", ")),
        (&b"nhv"[..], "0 flushed 1, 0 flushed 2".into())
    );
    assert!(bench.is_paused() && bench.unread_bytes() == 1);
    let resume = |_: &mut Part<0>, cx: Cx<'_, '_>| {
        cx.resume();
        Ok(())
    };
    handle.run(resume).expect("it is open");
    bench.turn();
    let expected =
        ["0 frame x", "0 frame y", "0 frame z", "0 eof", "0 close peer_finished", "0 drop"];
    assert_eq!(told(&calls), expected);
}

#[test]
fn one_that_goes_on_and_stops_again_in_one_closure_shows_nothing() {
    let (mut bench, calls) = pausing(|_| {});
    bench.receive(b"px");
    let handle = bench.handle();
    let both = |_: &mut Part<0>, cx: Cx<'_, '_>| {
        cx.resume();
        cx.pause();
        Ok(())
    };
    handle.run(both).expect("it is open");
    bench.turn();
    assert_eq!(told(&calls), ["0 open", "0 frame p"]);
    handle.close();
    bench.finish();
    assert_eq!(told(&calls), ["0 close closed", "0 drop"]);
}

#[test]
fn a_switch_by_a_closure_hands_the_waiting_input_on() {
    let (mut bench, calls) = pausing(|_| {});
    bench.receive(b"p\0\x05he");
    let (log, later) = acting(|cx, _, call| {
        match call {
            "open" => cx.resume(),
            "eof" => cx.finish(),
            _ => {}
        }
        Ok(())
    });
    let up = move |_: &mut Part<0>, cx: Cx<'_, '_>| {
        cx.switch(LengthPrefixed::u16(), log.part::<1>());
        Ok(())
    };
    let sender = bench.handle();
    sender.run(up).expect("it is open");
    bench.receive(b"llo\0\x01x");
    assert!(bench.has_handler::<Part<1>>() && !bench.is_paused());
    assert_eq!((bench.unread_bytes(), told(&calls).len()), (0, 3));
    bench.finish();
    let expected = ["1 open", "1 frame hello", "1 frame x", "1 eof", "1 close peer_finished"];
    assert_eq!(told(&later)[..5], expected);
}

#[test]
fn a_drain_waits_for_no_frame_and_silence_is_forgiven() {
    let (mut bench, calls) = pausing(|limits| {
        limits.timeouts.first_frame = None;
        limits.timeouts.idle = Idle::After(Duration::from_secs(5));
    });
    bench.receive(b"px");
    bench.advance(Duration::from_secs(60));
    assert!(bench.end().is_none(), "who is not listened to is not silent");
    bench.drain();
    assert_eq!(told(&calls), ["0 open", "0 frame p", "0 drain"]);
    bench.finish();
    assert_eq!(bench.into_end().cause().label(), "drained");
}
