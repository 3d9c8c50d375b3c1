//! Closures that run on a connection: when they run, when they do not, and what becomes of them.

use super::super::Bench;
use super::parts::{Part, Thorn, acting, told};
use crate::core::codec::{LengthPrefixed, Raw};
use crate::core::context::Context;
use crate::core::handle::{MESSAGE_OVERHEAD_BYTES, TrySendError};
use crate::words::error::Outcome;
use crate::words::sync::Arc;

type Cx<'a, 'b> = &'a mut Context<'b>;

fn quiet() -> (Bench, std::sync::mpsc::Receiver<String>) {
    let (log, calls) = acting(|_, _, _| Ok(()));
    (Bench::new(LengthPrefixed::u8(), move |_| log.part::<0>()), calls)
}

fn say(text: &'static str) -> impl FnOnce(&mut Part<0>, Cx<'_, '_>) -> Outcome + Send + 'static {
    move |_, cx| Ok(cx.send(text)?)
}

#[test]
fn they_run_in_the_order_of_what_was_sent_and_before_the_next_frame() {
    let (log, calls) = acting(|cx, _, call| Ok(cx.send(call.to_owned())?));
    let mut bench = Bench::new(LengthPrefixed::u8(), move |_| log.part::<0>());
    let handle = bench.handle();
    handle.try_send("one").expect("it is open");
    handle.run(say("two")).expect("it is open");
    handle.try_send("three").expect("it is open");
    handle.run(say("four")).expect("it is open");
    bench.receive(b"\x01x");
    let sent = bench.sent_frames(LengthPrefixed::u8());
    assert_eq!(sent, ["open", "one", "two", "three", "four", "frame x"]);
    assert_eq!((handle.queued_bytes(), told(&calls).len()), (0, 2));
}

#[test]
fn an_error_of_one_closes_and_drops_the_others_soon() {
    let held = Arc::new(());
    for fails in [true, false] {
        let (mut bench, calls) = quiet();
        let handle = bench.handle();
        handle.try_send("before").expect("it is open");
        let fail = move |_: &mut Part<0>, _: Cx<'_, '_>| -> Outcome {
            if fails {
                Err("as told".into())
            } else {
                std::panic::resume_unwind(Box::new("planted"))
            }
        };
        handle.run(fail).expect("it is open");
        let kept = Arc::clone(&held);
        let never = move |_: &mut Part<0>, _: Cx<'_, '_>| -> Outcome {
            drop(kept);
            panic!("it runs behind an error")
        };
        handle.run(never).expect("it is open");
        handle.try_send("after").expect("it is open");
        bench.turn();
        let frames = bench.sent_frames(LengthPrefixed::u8());
        assert_eq!(frames, if fails { vec!["before"] } else { vec![] });
        assert_eq!(Arc::strong_count(&held), 1, "it is dropped with the job");
        assert_eq!(handle.queued_bytes(), if fails { 0 } else { 7 });
        let gone =
            handle.run(say("late")).map_err(|refused| matches!(refused, TrySendError::Gone(_)));
        assert_eq!(gone, Err(true));
        bench.advance(std::time::Duration::from_secs(2));
        let label = if fails { "handler_failed" } else { "handler_panicked" };
        assert_eq!(bench.end().expect("it has lingered").cause().label(), label);
        assert_eq!(told(&calls), ["0 open", &format!("0 close {label}"), "0 drop"]);
    }
}

#[test]
fn behind_the_last_word_of_one_nothing_is_sent() {
    let ends: [fn(&mut Context<'_>); 2] = [|cx| cx.finish(), |cx| cx.close()];
    for end in ends {
        let (mut bench, _calls) = quiet();
        let handle = bench.handle();
        handle
            .run(move |_: &mut Part<0>, cx| {
                cx.send("last")?;
                end(cx);
                Ok(())
            })
            .expect("it is open");
        handle.try_send("too late").expect("nobody knows yet");
        handle.run(say("too late")).expect("nobody knows yet");
        bench.turn();
        assert_eq!(bench.sent_frames(LengthPrefixed::u8()), ["last"]);
        assert!(bench.has_finished());
        assert_eq!(handle.queued_bytes(), 0);
        bench.finish();
        assert_eq!(bench.into_end().cause().label(), "closed");
    }
}

#[test]
fn what_comes_before_a_close_of_the_same_thread_is_said() {
    let (mut bench, calls) = quiet();
    let handle = bench.handle();
    let (log, _) = acting(|cx, _, _| Ok(cx.send("opened")?));
    handle.try_send("one").expect("it is open");
    handle.run(say("two")).expect("it is open");
    let up = move |_: &mut Part<0>, cx: Cx<'_, '_>| {
        cx.switch(LengthPrefixed::u16(), log.part::<1>());
        Ok(())
    };
    handle.run(up).expect("it is open");
    handle.try_send_with_notice("three", 3).expect("it is open");
    handle.close();
    bench.receive(b"\x01x");
    assert_eq!(bench.sent(), b"\x03one\x03two\0\x06opened\0\x05three");
    assert!(bench.has_finished());
    bench.finish();
    assert_eq!(bench.into_end().cause().label(), "closed");
    assert_eq!(told(&calls), ["0 open", "0 drop"], "no frame behind a close");
}

#[test]
fn what_does_not_fit_is_given_back() {
    let (log, _calls) = acting(|_, _, _| Ok(()));
    let max = MESSAGE_OVERHEAD_BYTES + 100;
    let mut bench = Bench::with_limits(
        Raw::new(),
        move |_| log.part::<0>(),
        |limits| {
            (limits.send_low_bytes, limits.send_high_bytes, limits.send_max_bytes) = (1, max, max);
        },
    );
    let handle = bench.handle();
    let large = [7_u8; 101];
    let call = move |_: &mut Part<0>, cx: Cx<'_, '_>| Ok(cx.send(large.to_vec())?);
    let full = handle.run(call).expect_err("it is too large");
    assert!(matches!(full, TrySendError::Full { .. }));
    // It is the closure again.
    assert_eq!(size_of_val(&full.into_message()), 101);
    let small = [7_u8; 100];
    let call = move |_: &mut Part<0>, cx: Cx<'_, '_>| Ok(cx.send(small.to_vec())?);
    handle.run(call).expect("it fits");
    assert_eq!((handle.stats().posted_bytes, handle.stats().unsent_bytes), (max, 0));
    assert!(matches!(handle.try_send(""), Err(TrySendError::Full { .. })));
    bench.block_output();
    bench.turn();
    assert_eq!((handle.stats().posted_bytes, handle.stats().unsent_bytes), (0, 100));
    assert!(handle.send_or_close("").is_ok());
    bench.turn();
    assert!(matches!(handle.send_or_close("yy"), Err(TrySendError::Full { .. })));
    bench.turn();
    assert_eq!(bench.end().expect("it is reset").cause().label(), "overflow");
    let stats = handle.stats();
    assert!(!stats.is_open && !stats.takes_messages && bench.was_reset());
    assert!(matches!(handle.send_or_close("z"), Err(TrySendError::Gone(_))));
}

#[test]
fn those_that_never_run_are_dropped_and_that_may_panic() {
    let ends: [fn(&mut Bench); 3] = [
        |bench| bench.stop(),
        |bench| bench.reset(),
        |bench| {
            bench.handle().abort();
            bench.turn();
        },
    ];
    for end in ends {
        let (mut bench, calls) = quiet();
        // Nothing is served any more where the end comes first.
        let handle = bench.handle();
        let held = Arc::new(());
        let (kept, thorn) = (Arc::clone(&held), Thorn);
        handle
            .run(move |_: &mut Part<0>, cx| {
                cx.abort();
                Ok(())
            })
            .expect("it is open");
        handle
            .run(move |_: &mut Part<0>, _| {
                let _all = (kept, thorn);
                Ok(())
            })
            .expect("it is open");
        end(&mut bench);
        assert_eq!(Arc::strong_count(&held), 1);
        assert!(bench.end().is_some());
        assert_eq!(told(&calls).len(), 3, "open, close and drop");
        assert_eq!(bench.panic_count(), 0, "it is nobody's but the closure's");
    }
}
