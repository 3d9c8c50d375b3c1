//! What a protocol decides about time itself: its timers, and when it reads.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the calls it is about")]

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use common::{
    Call, Gate, RESETS_UNTOLD, builder, by_default, connect, echo, frame, frames, name, now,
    read_frame, reset, resets_are_told, serve, wait_for,
};
use switchboard::config::Idle;
use switchboard::{Context, Outcome, Raw};

const MS: Duration = Duration::from_millis(1);
/// The timer after which a test is over; it has the last word.
const LAST: u64 = 99;

fn fired(calls: &[Call]) -> Vec<u64> {
    let keys = calls.iter().filter_map(|call| match call {
        Call::Timer(key) => Some(*key),
        _ => None,
    });
    keys.collect()
}

/// Closes at the last timer.
fn until_last(cx: &mut Context, call: &Call) -> Outcome {
    if *call == Call::Timer(LAST) {
        cx.close();
    }
    by_default(cx, call)
}

/// A timer, and between which moments it was set to be due.
type Set = (u64, Instant, Instant);

#[test]
fn each_fires_once_in_the_order_of_their_times_and_not_early() {
    let sets: Arc<Mutex<Vec<Set>>> = Arc::default();
    let noted = Arc::clone(&sets);
    let (server, journal) = serve(builder(), Raw::new(), move |cx, call| {
        let mut sets = noted.lock().unwrap_or_else(PoisonError::into_inner);
        match call {
            Call::Open => {
                for key in 0..60 {
                    // In no order, three of each time.
                    let after = MS * (u32::try_from(key * 37 % 20)? * 5 + 1);
                    let before = now();
                    cx.set_timer(key, after)?;
                    sets.push((key, before + after, now() + after));
                }
                cx.set_timer(LAST, 200 * MS)?;
            }
            Call::Timer(key) if *key != LAST => {
                let set = sets.iter().find(|(other, ..)| other == key).expect("it was set");
                assert!(now() >= set.1, "timer {key} is early");
            }
            _ => {}
        }
        until_last(cx, call)
    });
    let client = connect(server.local_addr());
    let peer = name(&client);
    journal.wait_for(peer, &Call::Timer(LAST));
    drop(client);
    let (calls, reason) = journal.life(peer);
    assert_eq!(reason.cause().label(), "closed", "no assertion failed in the handler");
    let sets = sets.lock().unwrap_or_else(PoisonError::into_inner);
    let mut fired = fired(&calls);
    assert_eq!(fired.pop(), Some(LAST));
    let order: Vec<&Set> = fired
        .iter()
        .map(|key| sets.iter().find(|(other, ..)| other == key).expect("it was set"))
        .collect();
    assert!(order.windows(2).all(|pair| pair[0].1 <= pair[1].2), "out of order: {fired:?}");
    fired.sort_unstable();
    assert!(fired.into_iter().eq(0..60), "each of them, once");
}

#[test]
fn a_timer_that_is_set_again_fires_at_its_new_time_only() {
    let (server, journal) = serve(builder(), Raw::new(), |cx, call| {
        if *call == Call::Open {
            cx.set_timer(1, 10 * MS)?;
            cx.set_timer(2, 200 * MS)?;
            cx.set_timer(3, 900 * MS)?;
            cx.set_timer(LAST, 600 * MS)?;
            // Later, and earlier than before.
            cx.set_timer(1, 400 * MS)?;
            cx.set_timer(3, 30 * MS)?;
        }
        until_last(cx, call)
    });
    let client = connect(server.local_addr());
    let peer = name(&client);
    journal.wait_for(peer, &Call::Timer(LAST));
    drop(client);
    assert_eq!(fired(&journal.life(peer).0), [3, 2, 1, LAST]);
}

#[test]
fn a_timer_that_was_taken_back_never_fires_even_if_its_time_has_come() {
    let gate = Gate::default();
    let pass = gate.clone();
    let (server, journal) = serve(builder(), frames(), move |cx, call| {
        match call {
            Call::Frame(word) if word == b"block" => {
                cx.set_timer(1, MS)?;
                cx.set_timer(2, 2 * MS)?;
                cx.set_timer(3, 3 * MS)?;
                pass.pass();
            }
            // All three are due by now.
            Call::Timer(1) => {
                assert!(cx.cancel_timer(2), "it has not fired");
                assert!(!cx.cancel_timer(2), "it was taken back already");
                assert!(!cx.cancel_timer(1), "it has fired");
            }
            Call::Timer(3) => cx.set_timer(LAST, MS)?,
            Call::Timer(LAST) => assert!(!cx.cancel_timer(3), "it has fired"),
            _ => {}
        }
        until_last(cx, call)
    });
    let mut blocked = connect(server.local_addr());
    blocked.write_all(&frame(b"block")).expect("write");
    gate.wait_for(1);
    // Another one's timers fire meanwhile, so the time of these has passed too.
    let mut other = connect(server.local_addr());
    other.write_all(&frame(b"block")).expect("write");
    gate.wait_for(2);
    let begun = now();
    common::wait_until("their time has come", || begun.elapsed() > 10 * MS);
    assert_eq!(fired(&journal.calls(name(&blocked))), [], "none fires while its handler runs");
    gate.open();
    for client in [blocked, other] {
        let peer = name(&client);
        journal.wait_for(peer, &Call::Timer(LAST));
        drop(client);
        let (calls, reason) = journal.life(peer);
        assert_eq!(fired(&calls), [1, 3, LAST]);
        assert_eq!(reason.cause().label(), "closed", "no assertion failed in the handler");
    }
}

#[test]
fn a_handler_that_blocks_delays_its_own_timers_only() {
    let gate = Gate::default();
    let pass = gate.clone();
    let one = builder().reactors(1);
    let (server, journal) = serve(one, frames(), move |cx, call| {
        match call {
            Call::Open => cx.set_timer(1, 20 * MS)?,
            Call::Frame(word) if word == b"block" => pass.pass(),
            _ => {}
        }
        by_default(cx, call)
    });
    let mut blocked = connect(server.local_addr());
    blocked.write_all(&frame(b"block")).expect("write");
    gate.wait_for(1);
    for _ in 0..3 {
        let other = connect(server.local_addr());
        journal.wait_for(name(&other), &Call::Timer(1));
    }
    gate.open();
    // It may have fired before the frame came.
    journal.wait_for(name(&blocked), &Call::Timer(1));
    assert_eq!(read_frame(&mut blocked).expect("a frame"), b"block");
    assert_eq!(fired(&journal.calls(name(&blocked))), [1]);
}

#[test]
fn a_connection_has_so_many_timers_and_no_more() {
    let four = builder().limits(|limits| limits.timers_max = 4);
    let (server, journal) = serve(four, Raw::new(), |cx, call| {
        if *call == Call::Open {
            for key in 0..4 {
                cx.set_timer(key, 50 * MS)?;
            }
            let full = cx.set_timer(4, MS).expect_err("there are four");
            assert_eq!(full.max, 4);
            // One of them may be replaced, and one more set in place of another.
            cx.set_timer(3, 60 * MS)?;
            assert!(cx.cancel_timer(0));
            cx.set_timer(4, 100 * MS)?;
            cx.set_timer(LAST, MS).expect_err("there are four again");
        }
        if *call == Call::Timer(4) {
            cx.set_timer(LAST, MS)?;
        }
        until_last(cx, call)
    });
    let client = connect(server.local_addr());
    let peer = name(&client);
    journal.wait_for(peer, &Call::Timer(LAST));
    drop(client);
    let (calls, reason) = journal.life(peer);
    assert_eq!(fired(&calls), [1, 2, 3, 4, LAST]);
    assert_eq!(reason.cause().label(), "closed", "no assertion failed in the handler");
}

#[test]
fn without_room_for_timers_there_are_none() {
    let none = builder().limits(|limits| limits.timers_max = 0);
    let (server, _journal) = serve(none, Raw::new(), |cx, call| {
        if *call == Call::Open {
            let full = cx.set_timer(1, MS).expect_err("there is no room");
            cx.send(full.to_string())?;
        }
        by_default(cx, call)
    });
    let mut said = [0; 7];
    connect(server.local_addr()).read_exact(&mut said).expect("it says so");
    assert_eq!(&said, b"0 timer");
}

#[test]
fn timers_end_with_a_close() {
    let (server, journal) = serve(builder(), Raw::new(), |cx, call| {
        if let Call::Frame(word) = call {
            cx.set_timer(LAST, 60 * MS)?;
            match &word[..] {
                b"close" => cx.close(),
                b"finish" => cx.finish(),
                _ => {}
            }
        }
        by_default(cx, call).or(Ok(()))
    });
    let mut closed = connect(server.local_addr());
    let mut finished = connect(server.local_addr());
    closed.write_all(b"close").expect("write");
    journal.wait_for(name(&closed), &Call::Frame(b"close".to_vec()));
    finished.write_all(b"finish").expect("write");
    // Later than those of the closed one, which still lingers. Our having finished ends none.
    let mut later = connect(server.local_addr());
    later.write_all(b"later").expect("write");
    journal.wait_for(name(&later), &Call::Timer(LAST));
    journal.wait_for(name(&finished), &Call::Timer(LAST));
    assert_eq!(server.snapshot().connections(), 3);
    let peer = name(&closed);
    drop(closed);
    assert_eq!(fired(&journal.life(peer).0), []);
}

/// Stops reading at the word `pause`; goes on when its timer fires, and not before.
fn pausing(cx: &mut Context, call: &Call) -> Outcome {
    match call {
        Call::Frame(word) if word == b"pause" => {
            cx.pause();
            Ok(cx.set_timer(1, 600 * MS)?)
        }
        Call::Frame(word) if word == b"for ever" => {
            cx.pause();
            Ok(())
        }
        Call::Timer(1) => {
            cx.resume();
            Ok(())
        }
        _ => by_default(cx, call),
    }
}

#[test]
fn frames_that_were_read_with_the_one_that_paused_are_shown_after_it() {
    let (server, journal) = serve(builder(), frames(), pausing);
    let mut client = connect(server.local_addr());
    let words: [&[u8]; 4] = [b"pause", b"one", b"two", b"three"];
    client.write_all(&words.map(frame).concat()).expect("write");
    let peer = name(&client);
    // This comes while it is paused.
    journal.wait_for(peer, &Call::Frame(b"pause".to_vec()));
    client.write_all(&frame(b"four")).expect("write");
    for word in [&b"one"[..], b"two", b"three", b"four"] {
        assert_eq!(read_frame(&mut client).expect("a frame"), word);
    }
    client.shutdown(Shutdown::Write).expect("finish");
    let (calls, reason) = journal.life(peer);
    let shown = |word: &[u8]| Call::Frame(word.to_vec());
    assert_eq!(calls[..3], [Call::Open, shown(b"pause"), Call::Timer(1)]);
    assert_eq!(calls[3..7], [shown(b"one"), shown(b"two"), shown(b"three"), shown(b"four")]);
    assert_eq!(calls[7..], [Call::Eof, Call::Close("peer_finished"), Call::Dropped]);
    assert_eq!(reason.unsent_bytes(), 0);
}

#[test]
fn that_the_peer_has_finished_is_told_after_the_pause() {
    let (server, journal) = serve(builder(), frames(), pausing);
    // Once with nothing before the end, once with frames, once with the end in the same segment.
    for words in [&[&b"pause"[..]][..], &[b"pause", b"one"], &[b"pause", b"one", b"two"]] {
        let mut client = connect(server.local_addr());
        let all: Vec<u8> = words.iter().flat_map(|word| frame(word)).collect();
        client.write_all(&all).expect("write");
        client.shutdown(Shutdown::Write).expect("finish");
        let (calls, reason) = journal.life(name(&client));
        let mut expected = vec![Call::Open, Call::Frame(b"pause".to_vec()), Call::Timer(1)];
        expected.extend(words[1..].iter().map(|word| Call::Frame(word.to_vec())));
        expected.extend([Call::Eof, Call::Close("peer_finished"), Call::Dropped]);
        assert_eq!(calls, expected);
        assert_eq!(reason.unsent_bytes(), 0);
        for word in &words[1..] {
            assert_eq!(read_frame(&mut client).expect("a frame"), *word);
        }
    }
}

#[test]
fn a_reset_is_seen_while_nobody_reads() {
    if !resets_are_told() {
        return println!("{RESETS_UNTOLD}");
    }
    let (server, journal) = serve(builder(), frames(), pausing);
    // Once with nothing unread, once with input that is never looked at.
    for unread in [&b""[..], b"never read"] {
        let mut client = connect(server.local_addr());
        client.write_all(&frame(b"for ever")).expect("write");
        let peer = name(&client);
        journal.wait_for(peer, &Call::Frame(b"for ever".to_vec()));
        client.write_all(unread).expect("write");
        reset(client);
        let (calls, reason) = journal.life(peer);
        assert_eq!(reason.cause().label(), "peer_reset", "{calls:?}");
    }
    wait_for("all are gone", &server, |now| now.connections() == 0);
}

#[test]
fn who_is_not_read_owes_nothing() {
    let strict = builder().limits(|limits| {
        limits.timeouts.idle = Idle::After(400 * MS);
        limits.timeouts.frame = Some(400 * MS);
    });
    let (server, journal) = serve(strict, frames(), pausing);
    let mut client = connect(server.local_addr());
    // The pause is longer than either.
    let begins = frame(b"begun before the pause");
    client.write_all(&[&frame(b"pause")[..], &begins[..9]].concat()).expect("write");
    let peer = name(&client);
    journal.wait_for(peer, &Call::Frame(b"pause".to_vec()));
    client.write_all(&begins[9..]).expect("write");
    assert_eq!(read_frame(&mut client).expect("a frame"), b"begun before the pause");
    let calls = journal.calls(peer);
    assert_eq!(calls[2], Call::Timer(1), "{calls:?}");
    // From now on it owes again.
    assert_eq!(journal.life(peer).1.cause().label(), "idle_timeout");
}

#[test]
fn a_pause_harms_nobody_else() {
    let (server, journal) = serve(builder().reactors(1), Raw::new(), pausing);
    let mut paused = connect(server.local_addr());
    paused.write_all(b"for ever").expect("write");
    journal.wait_for(name(&paused), &Call::Frame(b"for ever".to_vec()));
    let mut other = connect(server.local_addr());
    for _ in 0..50 {
        paused.write_all(b"unheard").expect("the system takes it");
        echo(&mut other, b"heard");
    }
    let calls = journal.calls(name(&paused));
    assert_eq!(calls.len(), 2, "{calls:?}");
}
