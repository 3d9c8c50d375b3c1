//! Notices: once for each message, in order, and only when the system has taken it.

use std::time::Duration;

use super::super::Bench;
use super::parts::{Part, acting, told};
use crate::core::codec::{LengthPrefixed, Raw};
use crate::core::context::{Context, SendError};
use crate::words::config::{Limits, Overflow};

/// Sends what it gets, each with a notice: its number is the first byte.
fn noticing(change: impl FnOnce(&mut Limits)) -> (Bench, std::sync::mpsc::Receiver<String>) {
    let (log, calls) = acting(|cx, _, call| {
        match call.strip_prefix("frame ") {
            Some("close") => cx.close(),
            Some("abort") => cx.abort(),
            Some("fail") => return Err("as told".into()),
            Some(text) => {
                let key = text.bytes().next().map_or(0, u64::from) - u64::from(b'0');
                match cx.send_with_notice(text.to_owned(), key) {
                    Ok(()) | Err(SendError::Full { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            None if call == "eof" => {
                cx.send_with_notice("last", 99)?;
                cx.finish();
            }
            None => {}
        }
        Ok(())
    });
    (Bench::with_limits(LengthPrefixed::u8(), move |_| log.part::<0>(), change), calls)
}

fn flushed(calls: &std::sync::mpsc::Receiver<String>) -> Vec<String> {
    told(calls)
        .into_iter()
        .filter(|call| call.contains("flushed") || call.starts_with("0 close"))
        .collect()
}

#[test]
fn each_is_told_once_in_order_when_its_last_byte_is_taken() {
    let (mut bench, calls) = noticing(|_| {});
    bench.receive(b"\x021a");
    assert_eq!(flushed(&calls), ["0 flushed 1"]);
    bench.block_output();
    bench.receive(b"\x032ab\x013");
    let handle = bench.handle();
    handle.try_send("between").expect("it is open");
    handle.try_send_with_notice("four", 4).expect("it is open");
    bench.receive(b"\x015");
    let mut seen = Vec::new();
    // 4 + 2 bytes, 8 without a notice, 5, and 2.
    for taken in 1..=21 {
        bench.peer_takes(1);
        seen.extend(flushed(&calls).into_iter().map(|call| (taken, call)));
    }
    let expected = [(4, 2), (6, 3), (19, 4), (21, 5)];
    assert_eq!(seen, expected.map(|(taken, key)| (taken, format!("0 flushed {key}"))));
    bench.advance(Duration::from_secs(1));
    assert!(flushed(&calls).is_empty());
}

#[test]
fn a_connection_that_is_reset_tells_of_nothing_that_was_not_taken() {
    for end in [Bench::reset as fn(&mut Bench), Bench::stop, |bench| bench.receive(b"\x05abort")] {
        let (mut bench, calls) = noticing(|_| {});
        bench.block_output();
        bench.receive(b"\x041abc\x042abc");
        bench.peer_takes(7);
        assert_eq!(flushed(&calls), ["0 flushed 1"]);
        end(&mut bench);
        let left = flushed(&calls);
        assert!(left.len() == 1 && left[0].starts_with("0 close "), "{left:?}");
        assert!(bench.into_end().unsent_bytes() > 0);
    }
}

#[test]
fn of_a_message_that_was_dropped_there_is_none() {
    let (mut bench, calls) = noticing(|limits| {
        limits.overflow = Overflow::DropNewest;
        (limits.send_low_bytes, limits.send_high_bytes, limits.send_max_bytes) = (1, 10, 10);
    });
    bench.block_output();
    bench.receive(b"\x081abcdefg");
    bench.receive(b"\x032ab\x013\x044abc");
    assert_eq!(bench.unread_bytes(), 0);
    bench.unblock_output();
    assert_eq!(bench.sent(), b"\x081abcdefg");
    assert_eq!(bench.dropped_count(), 3);
    assert_eq!(flushed(&calls), ["0 flushed 1"]);
}

#[test]
fn a_message_without_bytes_is_taken_with_what_was_sent_before() {
    let (log, calls) = acting(|cx, _, call| {
        if call == "frame x" {
            cx.send_with_notice("", 1)?;
        }
        Ok(())
    });
    let mut bench = Bench::new(Raw::new(), move |_| log.part::<0>());
    bench.block_output();
    let handle = bench.handle();
    handle.try_send("text").expect("it is open");
    handle.try_send_with_notice("", 2).expect("it is open");
    bench.receive(b"x");
    assert_eq!(told(&calls), ["0 open", "0 frame x"]);
    bench.unblock_output();
    assert_eq!(told(&calls), ["0 flushed 2", "0 flushed 1"]);
    handle.try_send_with_notice("", 3).expect("it is open");
    bench.turn();
    assert_eq!(told(&calls), ["0 flushed 3"]);
}

#[test]
fn the_last_message_is_told_of_before_the_end() {
    let (mut bench, calls) = noticing(|_| {});
    bench.finish();
    assert_eq!(flushed(&calls), ["0 flushed 99", "0 close peer_finished"]);
    assert_eq!(bench.into_end().unsent_bytes(), 0);
}

#[test]
fn a_close_loses_none() {
    let (mut bench, calls) = noticing(|_| {});
    bench.receive(b"\x021a\x05close");
    assert_eq!(flushed(&calls), ["0 flushed 1"]);
    let (mut bench, calls) = noticing(|_| {});
    bench.block_output();
    bench.receive(b"\x021a\x022b\x05close");
    assert!(flushed(&calls).is_empty() && !bench.has_finished());
    bench.peer_takes(3);
    assert_eq!(flushed(&calls), ["0 flushed 1"]);
    bench.peer_takes(3);
    assert_eq!(flushed(&calls), ["0 flushed 2"]);
    assert!(bench.has_finished());
    bench.finish();
    assert_eq!(flushed(&calls), ["0 close closed"]);
}

#[test]
fn an_error_in_the_same_job_loses_none() {
    let (mut bench, calls) = noticing(|limits| {
        (limits.send_low_bytes, limits.send_high_bytes) = (0, 1);
    });
    bench.block_output();
    bench.receive(b"\x021a");
    bench.receive(b"\x022b\x04fail");
    assert_eq!(bench.unread_bytes(), 8, "too much is queued");
    bench.unblock_output();
    assert_eq!(flushed(&calls), ["0 flushed 1", "0 flushed 2"]);
    bench.finish();
    assert_eq!(flushed(&calls), ["0 close handler_failed"]);
}

#[test]
fn a_close_of_another_thread_loses_none() {
    let (mut bench, calls) = noticing(|_| {});
    let handle = bench.handle();
    let notice = |_: &mut Part<0>, cx: &mut Context<'_>| {
        cx.send_with_notice("x", 5)?;
        Ok(())
    };
    handle.run(notice).expect("it is open");
    let again = bench.handle();
    let close = move |_: &mut Part<0>, _: &mut Context<'_>| {
        again.close();
        Ok(())
    };
    handle.run(close).expect("it is open");
    bench.turn();
    assert_eq!(flushed(&calls), ["0 flushed 5"]);
    assert!(bench.has_finished());
}
