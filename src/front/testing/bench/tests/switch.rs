//! A connection goes on with another codec and another handler, wherever that is asked for.

use std::time::Duration;

use bytes::BytesMut;

use super::super::Bench;
use super::parts::{Log, Part, Text, Texts, Thorn, acting, told};
use crate::core::codec::{Codec, Fixed, LengthPrefixed, Lines, Raw};
use crate::core::context::Context;
use crate::core::handle::TrySendError;
use crate::core::handler::Handler;
use crate::words::config::Limits;
use crate::words::error::Outcome;

fn one() -> Fixed {
    Fixed::new(1).expect("it has a byte")
}

fn wide() -> LengthPrefixed {
    LengthPrefixed::u16()
}

/// A bench whose first handler switches to [`Part<1>`] in the call `call`.
fn switching<C>(codec: C, call: &'static str) -> (Bench, std::sync::mpsc::Receiver<String>)
where
    C: Codec<Frame = BytesMut, Message = bytes::Bytes>,
{
    let switched = std::sync::Mutex::new(false);
    let (log, calls) = acting(move |cx, log, now| {
        let mut done = switched.lock().expect("no panic under the lock");
        if now == call && !*done {
            *done = true;
            cx.switch(wide(), log.part::<1>());
            cx.send("o")?;
        }
        if now == "frame hello" {
            cx.send("new")?;
        }
        if now == "eof" && *done && call != "eof" {
            cx.finish();
        }
        Ok(())
    });
    (Bench::new(codec, move |_| log.part::<0>()), calls)
}

#[test]
fn bytes_that_were_read_go_to_the_new_codec_wherever_they_are_cut() {
    let script = b"u\0\x05hello\0\x05hello";
    for piece in 1..=script.len() {
        let (mut bench, calls) = switching(one(), "frame u");
        bench.receive_in_pieces(script, piece);
        assert_eq!(bench.take_sent(), b"o\0\x03new\0\x03new", "in pieces of {piece}");
        bench.finish();
        assert_eq!(
            told(&calls),
            [
                "0 open",
                "0 frame u",
                "0 drop",
                "1 open",
                "1 frame hello",
                "1 frame hello",
                "1 eof",
                "1 close peer_finished",
                "1 drop"
            ]
        );
    }
}

#[test]
fn it_may_be_done_at_once() {
    let (mut bench, calls) = switching(one(), "open");
    assert_eq!(
        (bench.take_sent(), told(&calls)),
        (b"o".to_vec(), vec_of(&["0 open", "0 drop", "1 open"]))
    );
    bench.receive(b"\0\x05hello");
    assert_eq!(bench.sent(), b"\0\x03new");
}

fn vec_of(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn the_last_frame_may_do_it_and_the_new_handler_sees_the_end() {
    let (mut bench, calls) = switching(Lines::new(), "frame up");
    bench.receive(b"up");
    bench.finish();
    assert_eq!(
        told(&calls),
        ["0 open", "0 frame up", "0 drop", "1 open", "1 eof", "1 close peer_finished", "1 drop"]
    );
}

#[test]
fn at_the_end_of_input_the_new_handler_is_told_of_it_too() {
    let (mut bench, calls) = switching(Raw::new(), "eof");
    bench.finish();
    assert_eq!(told(&calls), ["0 open", "0 eof", "0 drop", "1 open", "1 eof"]);
    assert!(bench.end().is_none(), "it may still send");
    bench.handle().try_send("late").expect("it is open");
    bench.turn();
    assert_eq!(bench.sent(), b"o\0\x04late");
}

#[test]
fn timers_and_notices_that_are_due_go_to_the_new_handler() {
    let ms = Duration::from_millis;
    let (log, calls) = acting(move |cx, log, call| {
        match call {
            "frame t" => {
                for key in [1, 2, 3] {
                    cx.set_timer(key, ms(key / 3 + 1))?;
                }
            }
            "frame n" => {
                for key in [1, 2, 3] {
                    cx.send_with_notice("n", key)?;
                }
            }
            "timer 1" | "flushed 1" => cx.switch(one(), log.part::<1>()),
            _ => {}
        }
        Ok(())
    });
    let mut bench = Bench::new(one(), {
        let log = log.clone();
        move |_| log.part::<0>()
    });
    bench.receive(b"t");
    bench.advance(ms(5));
    assert_eq!(
        told(&calls),
        ["0 open", "0 frame t", "0 timer 1", "0 drop", "1 open", "1 timer 2", "1 timer 3"]
    );
    let mut bench = Bench::new(one(), move |_| log.part::<0>());
    bench.receive(b"n");
    assert_eq!(
        told(&calls),
        ["0 open", "0 frame n", "0 flushed 1", "0 drop", "1 open", "1 flushed 2", "1 flushed 3"]
    );
}

#[test]
fn closures_do_it_and_what_was_sent_behind_them_is_in_the_new_framing() {
    let (log, calls) = acting(|_, _, _| Ok(()));
    let mut bench = Bench::new(one(), move |_| log.part::<0>());
    let handle = bench.handle();
    let old = |_: &mut Part<0>, _: &mut Context<'_>| Ok(());
    let new = |_: &mut Part<1>, cx: &mut Context<'_>| Ok(cx.send("within")?);
    handle.try_send("a").expect("it is open");
    let (log, _) = acting(|_, _, _| Ok(()));
    let up = move |_: &mut Part<0>, cx: &mut Context<'_>| {
        cx.switch(wide(), log.part::<1>());
        Ok(cx.send("b")?)
    };
    handle.run(up).expect("it is open");
    handle.run(old).expect("it is still the old one");
    handle.try_send("c").expect("it is open");
    let wrong = handle.run(new).map_err(|refused| matches!(refused, TrySendError::WrongHandler(_)));
    assert_eq!(wrong, Err(true), "not yet");
    bench.turn();
    assert_eq!((bench.take_sent(), bench.misdirected_count()), (b"ab\0\x01c".to_vec(), 1));
    assert_eq!(told(&calls), ["0 open", "0 drop"]);
    for handle in [handle, bench.handle()] {
        handle.run(new).expect("the handler is of that type by now");
        let wrong =
            handle.run(old).map_err(|refused| matches!(refused, TrySendError::WrongHandler(_)));
        assert_eq!(wrong, Err(true));
    }
    bench.turn();
    assert_eq!((bench.sent(), bench.misdirected_count()), (&b"\0\x06within\0\x06within"[..], 1));
}

#[test]
fn messages_of_another_type_are_counted_and_dropped() {
    struct Bare;
    impl Handler<BytesMut, Text> for Bare {
        fn on_frame(&mut self, cx: &mut Context<'_, Text>, frame: BytesMut) -> Outcome {
            Ok(cx.send(Text(String::from_utf8_lossy(&frame).into_owned()))?)
        }
        fn on_flushed(&mut self, _: &mut Context<'_, Text>, _: u64) -> Outcome {
            Err("nothing of it was sent".into())
        }
    }
    let (log, _calls) = acting(|cx, _, call| {
        if call == "frame u" {
            cx.switch(Texts, Bare);
        }
        Ok(())
    });
    let mut bench = Bench::new(one(), move |_| log.part::<0>());
    let handle = bench.handle();
    bench.receive(b"uxyz");
    assert_eq!(bench.take_sent(), b"<xyz>");
    handle.try_send("bytes").expect("it is open");
    handle.try_send_with_notice("bytes", 7).expect("it is open");
    bench.turn();
    assert_eq!((bench.sent(), bench.misdirected_count()), (&b""[..], 2));
    assert_eq!(handle.queued_bytes(), 0);
    assert!(bench.end().is_none());
}

/// What ends a connection from within a call.
type Ending = fn(&mut Context<'_>, &Log) -> Outcome;

#[test]
fn who_closes_has_no_successor() {
    let acts: [(&str, Ending, &str); 6] = [
        (
            "close, then switch",
            |cx, log| {
                cx.close();
                cx.switch(wide(), log.part::<1>());
                Ok(())
            },
            "closed",
        ),
        (
            "switch, then close",
            |cx, log| {
                cx.switch(wide(), log.part::<1>());
                cx.close();
                Ok(())
            },
            "closed",
        ),
        (
            "abort",
            |cx, log| {
                cx.switch(wide(), log.part::<1>());
                cx.abort();
                Ok(())
            },
            "aborted",
        ),
        (
            "fail",
            |cx, log| {
                cx.switch(wide(), log.part::<1>());
                Err("as told".into())
            },
            "handler_failed",
        ),
        (
            "panic",
            |cx, log| {
                cx.switch(wide(), log.part::<1>());
                std::panic::resume_unwind(Box::new("planted"));
            },
            "handler_panicked",
        ),
        (
            "overflow",
            |cx, log| {
                cx.switch(wide(), log.part::<1>());
                cx.send(vec![0; 20 << 20]).ok();
                Ok(())
            },
            "overflow",
        ),
    ];
    for (name, act, label) in acts {
        let (log, calls) = acting(move |cx, log, call| match call {
            "frame u" => act(cx, log),
            _ => Ok(()),
        });
        let mut bench = Bench::new(Raw::new(), move |_| log.part::<0>());
        bench.receive(b"u");
        bench.finish();
        assert_eq!(bench.into_end().cause().label(), label, "{name}");
        let close = format!("0 close {label}");
        assert_eq!(told(&calls), ["0 open", "0 frame u", "1 drop", &close, "0 drop"], "{name}");
    }
}

#[test]
fn who_finishes_has_one_that_hears_the_rest() {
    let (log, calls) = acting(|cx, log, call| {
        match call {
            "frame u" => {
                cx.finish();
                cx.switch(wide(), log.part::<1>());
            }
            "frame hello" => assert!(cx.send("no").is_err(), "it has finished"),
            _ => {}
        }
        Ok(())
    });
    let mut bench = Bench::new(one(), move |_| log.part::<0>());
    bench.receive(b"u\0\x05hello");
    bench.finish();
    assert_eq!(
        told(&calls),
        [
            "0 open",
            "0 frame u",
            "0 drop",
            "1 open",
            "1 frame hello",
            "1 eof",
            "1 close closed",
            "1 drop"
        ]
    );
}

#[test]
fn who_closes_hears_of_what_was_taken_though_it_named_a_successor() {
    let (log, calls) = acting(|cx, log, call| {
        match call {
            "frame n" => cx.send_with_notice("n", 1)?,
            "frame u" => {
                cx.close();
                cx.switch(wide(), log.part::<1>());
            }
            _ => {}
        }
        Ok(())
    });
    let choke = |limits: &mut Limits| (limits.send_low_bytes, limits.send_high_bytes) = (0, 1);
    let mut bench = Bench::with_limits(one(), move |_| log.part::<0>(), choke);
    bench.block_output();
    bench.receive(b"n");
    bench.receive(b"u");
    assert_eq!((told(&calls).len(), bench.unread_bytes()), (2, 1));
    // The notice and the frame come in one job.
    bench.unblock_output();
    bench.finish();
    assert_eq!(told(&calls), ["0 frame u", "0 flushed 1", "1 drop", "0 close closed", "0 drop"]);
}

#[test]
fn several_in_one_job_and_none_is_left_out() {
    let (log, calls) = acting(|cx, log, call| {
        match call {
            "frame u" => cx.switch(wide(), log.part::<1>()),
            "frame v" => cx.switch(Lines::new(), log.part::<2>()),
            "frame w" => {
                cx.switch(Raw::new(), log.part::<9>());
                cx.switch(one(), log.part::<3>());
            }
            _ => {}
        }
        Ok(())
    });
    let mut bench = Bench::new(one(), move |_| log.part::<0>());
    bench.receive(b"u\0\x01vw\nx");
    assert_eq!(
        told(&calls),
        [
            "0 open",
            "0 frame u",
            "0 drop",
            "1 open",
            "1 frame v",
            "1 drop",
            "2 open",
            "2 frame w",
            "9 drop",
            "2 drop",
            "3 open",
            "3 frame x"
        ]
    );
}

#[test]
fn a_panic_in_the_drop_of_the_old_one_is_told_to_the_new_one() {
    struct Thorny {
        log: Log,
        _thorn: Thorn,
    }
    impl Handler for Thorny {
        fn on_frame(&mut self, cx: &mut Context<'_>, _: BytesMut) -> Outcome {
            cx.switch(wide(), self.log.part::<1>());
            Ok(())
        }
    }
    let (log, calls) = acting(|_, _, _| Ok(()));
    let mut bench = Bench::new(one(), move |_| Thorny { log, _thorn: Thorn });
    bench.receive(b"u\0\x05hello");
    assert_eq!(bench.panic_count(), 1);
    assert_eq!(told(&calls), ["1 open", "1 close handler_panicked", "1 drop"]);
    assert_eq!(bench.into_end().cause().label(), "handler_panicked");
}

#[test]
fn a_pause_and_timers_outlive_it() {
    let (log, calls) = acting(|cx, log, call| {
        match call {
            "frame u" => {
                cx.pause();
                cx.set_timer(5, Duration::from_secs(1))?;
                cx.switch(wide(), log.part::<1>());
            }
            "timer 5" => cx.resume(),
            _ => {}
        }
        Ok(())
    });
    let mut bench = Bench::new(one(), move |_| log.part::<0>());
    bench.receive(b"u\0\x05hello");
    bench.finish();
    assert!(bench.is_paused());
    assert_eq!(told(&calls), ["0 open", "0 frame u", "0 drop", "1 open"]);
    bench.advance(Duration::from_secs(1));
    assert_eq!(told(&calls), ["1 timer 5", "1 frame hello", "1 eof"]);
}
