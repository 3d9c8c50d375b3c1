//! What a bench shows is what a connection does, and a server over a loopback says the same.

mod groups;
mod notices;
mod parts;
mod pauses;
mod switch;
mod visits;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::core::codec::{Fixed, LengthPrefixed, Lines, Raw};
use crate::core::context::Context;
use crate::core::handler::handler_fn;
use crate::front::server::Server;
use crate::words::error::Outcome;
use crate::words::reason::ClosePhase;

const SECOND: Duration = Duration::from_secs(1);

/// Does what lines of text say, and tells of every call.
struct Scribe {
    log: Sender<String>,
}

impl Scribe {
    fn note(&self, call: impl Into<String>) {
        // A test that is over does not listen any more.
        drop(self.log.send(call.into()));
    }
}

impl Handler for Scribe {
    fn on_open(&mut self, _: &mut Context<'_>) -> Outcome {
        self.note("open");
        Ok(())
    }

    fn on_frame(&mut self, cx: &mut Context<'_>, line: BytesMut) -> Outcome {
        let line = String::from_utf8_lossy(&line).into_owned();
        self.note(&line);
        let (word, number) = line.split_once(' ').unwrap_or((&line, "1"));
        let number: u64 = number.parse()?;
        match word {
            "close" => cx.close(),
            "finish" => cx.finish(),
            "abort" => cx.abort(),
            "panic" => std::panic::resume_unwind(Box::new("as told")),
            "timer" => cx.set_timer(number, Duration::from_millis(number))?,
            "pause" => {
                cx.pause();
                cx.set_timer(0, Duration::from_millis(number))?;
            }
            "notice" => cx.send_with_notice("noticed", number)?,
            "frames" => {
                let log = self.log.clone();
                cx.switch(LengthPrefixed::u16(), Scribe { log });
            }
            _ => cx.send(line)?,
        }
        Ok(())
    }

    fn on_eof(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.note("eof");
        cx.send("bye").ok();
        cx.finish();
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, key: u64) -> Outcome {
        self.note(format!("timer {key}"));
        cx.resume();
        Ok(())
    }

    fn on_flushed(&mut self, _: &mut Context<'_>, key: u64) -> Outcome {
        self.note(format!("flushed {key}"));
        Ok(())
    }

    fn on_drained(&mut self, _: &mut Context<'_>) -> Outcome {
        self.note("drained");
        Ok(())
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.note(format!("closed: {reason}"));
    }
}

fn scribe() -> (Bench, Receiver<String>) {
    scribe_with(|_| {})
}

fn scribe_with(change: impl FnOnce(&mut Limits)) -> (Bench, Receiver<String>) {
    let (log, calls) = channel();
    (Bench::with_limits(Lines::new(), |_| Scribe { log }, change), calls)
}

fn told(calls: &Receiver<String>) -> Vec<String> {
    calls.try_iter().collect()
}

#[test]
fn frames_come_in_any_pieces_and_the_answers_are_seen() {
    for piece in 1..12 {
        let (mut bench, calls) = scribe();
        bench.receive_in_pieces(b"one\ntwo\nthree", piece);
        assert_eq!(
            (bench.sent(), told(&calls)),
            (&b"one\ntwo\n"[..], vec_of(&["open", "one", "two"]))
        );
        bench.finish();
        assert_eq!(bench.take_sent(), b"one\ntwo\nthree\nbye\n");
        assert!(bench.has_finished() && !bench.was_reset());
        assert_eq!(told(&calls), ["three", "eof", "closed: the peer finished"]);
        assert_eq!(bench.into_end().cause().label(), "peer_finished");
    }
}

fn vec_of(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

#[test]
fn timers_and_timeouts_come_at_their_time_and_in_order() {
    let (mut bench, calls) = scribe_with(|limits| {
        limits.timeouts.idle = crate::words::config::Idle::After(2 * SECOND);
    });
    bench.receive(b"timer 700\ntimer 300\ntimer 500\n");
    let ms = Duration::from_millis;
    assert_eq!(bench.timers(), [(300, ms(300)), (500, ms(500)), (700, ms(700))]);
    bench.advance(ms(299));
    assert_eq!(bench.timers()[0], (300, ms(1)));
    assert_eq!(told(&calls), ["open", "timer 700", "timer 300", "timer 500"]);
    bench.advance(ms(201));
    assert_eq!(told(&calls), ["timer 300", "timer 500"]);
    bench.advance(ms(1499));
    assert_eq!((told(&calls), bench.end().is_none()), (vec_of(&["timer 700"]), true));
    assert!(bench.timers().is_empty() && !bench.has_finished());
    bench.advance(ms(1));
    assert!(bench.has_finished() && bench.end().is_none(), "it lingers");
    bench.finish();
    assert_eq!(bench.elapsed(), 2 * SECOND);
    assert_eq!(bench.into_end().cause().label(), "idle_timeout");
}

#[test]
fn a_peer_that_takes_nothing_stops_the_reading_and_is_reset_in_the_end() {
    let (mut bench, calls) = scribe_with(|limits| {
        (limits.send_high_bytes, limits.send_low_bytes) = (8, 4);
    });
    bench.block_output();
    bench.receive(b"notice 7\n12345678\n");
    bench.receive(b"later\n");
    assert_eq!((bench.sent(), bench.queued_bytes(), bench.unread_bytes()), (&b""[..], 17, 6));
    bench.peer_takes(12);
    assert_eq!(told(&calls), ["open", "notice 7", "12345678", "flushed 7"]);
    bench.peer_takes(1);
    assert_eq!(told(&calls), ["later", "drained"]);
    assert_eq!((bench.sent(), bench.unread_bytes()), (&b"noticed\n12345"[..], 0));
    bench.advance(Duration::from_secs(10));
    assert!(bench.was_reset() && !bench.has_finished());
    let end = bench.into_end();
    assert_eq!((end.cause().label(), end.unsent_bytes()), ("write_stalled", 10));
}

#[test]
fn panics_errors_aborts_and_resets_stand_in_the_reason() {
    let cases = [("panic", "handler_panicked"), ("fail x", "handler_failed"), ("abort", "aborted")];
    for (line, label) in cases {
        let (mut bench, calls) = scribe();
        bench.receive(format!("first\n{line}\nlost\n").as_bytes());
        assert_eq!(bench.was_reset(), label != "handler_failed", "{label}");
        bench.finish_if_open();
        assert_eq!(bench.panic_count(), u64::from(line == "panic"));
        assert_eq!(bench.end().expect("it is over").cause().label(), label);
        let calls = told(&calls);
        assert_eq!(calls[..3], vec_of(&["open", "first", line])[..]);
        assert!(calls.len() == 4 && calls[3].starts_with("closed: "), "{calls:?}");
    }
    let (mut bench, _calls) = scribe();
    bench.reset();
    assert_eq!(bench.into_end().cause().label(), "peer_reset");
    let broken = |_| -> Scribe { std::panic::resume_unwind(Box::new("as told")) };
    let end = Bench::new(Lines::new(), broken).into_end();
    assert_eq!((end.cause().label(), end.phase()), ("handler_panicked", ClosePhase::Opening));
}

impl Bench {
    fn finish_if_open(&mut self) {
        if self.end().is_none() {
            self.finish();
        }
    }
}

#[test]
fn a_reset_is_seen_while_it_is_paused_and_an_end_when_it_goes_on() {
    let (mut bench, calls) = scribe();
    bench.receive(b"pause 50\nnext\n");
    bench.receive(b"last\n");
    bench.finish();
    assert!(bench.is_paused() && bench.unread_bytes() == 5);
    assert_eq!(told(&calls), ["open", "pause 50"]);
    bench.advance(SECOND);
    assert_eq!(
        told(&calls)[..5],
        vec_of(&["timer 0", "next", "last", "eof", "closed: the peer finished"])[..]
    );
    let (mut bench, _calls) = scribe();
    bench.receive(b"pause 50\n");
    bench.reset();
    assert_eq!(bench.into_end().cause().label(), "peer_reset");
}

#[test]
fn handles_and_operators_work_on_a_bench() {
    let (mut bench, calls) = scribe();
    let handle = bench.handle();
    std::thread::scope(|scope| {
        scope.spawn(|| handle.try_send("from afar").expect("it is open"));
    });
    let (seen, names) = channel();
    let look = move |_: &mut Scribe, cx: &mut Context<'_>| Ok(seen.send(cx.peer())?);
    handle.run(look).expect("it is open");
    assert!(names.try_recv().is_err(), "nothing happens by itself");
    bench.turn();
    assert_eq!(names.try_recv(), Ok(bench.peer()));
    assert_eq!(bench.sent(), b"from afar\n");
    handle.close();
    bench.turn();
    assert!(bench.has_finished() && bench.end().is_none());
    bench.advance(2 * SECOND);
    assert_eq!(bench.end().expect("it has lingered").cause().label(), "closed");
    assert!(!handle.is_open());
    assert_eq!(told(&calls).len(), 2);
    for (end, label) in
        [(Bench::drain as fn(&mut Bench), "drained"), (Bench::stop, "server_stopped")]
    {
        let (mut bench, _calls) = scribe();
        end(&mut bench);
        bench.finish_if_open();
        assert_eq!(bench.into_end().cause().label(), label);
    }
}

#[test]
fn a_handler_can_be_looked_into_also_after_a_switch() {
    struct Count(u32);
    impl Handler for Count {
        fn on_frame(&mut self, cx: &mut Context<'_>, _: BytesMut) -> Outcome {
            self.0 += 1;
            if self.0 == 3 {
                cx.switch(Raw::new(), handler_fn(|cx, bytes| cx.send(bytes)));
            }
            Ok(())
        }
    }
    let mut bench = Bench::new(Fixed::new(1).expect("it has a byte"), |_| Count(0));
    bench.receive(b"ab");
    assert_eq!(bench.handler(|count: &mut Count| std::mem::replace(&mut count.0, 1)), 2);
    bench.receive(b"c");
    assert!(bench.has_handler::<Count>());
    bench.receive(b"defg");
    assert!(!bench.has_handler::<Count>());
    assert_eq!(bench.sent(), b"efg");
}

#[test]
fn a_handler_that_goes_on_by_itself_is_told_so() {
    struct Endless;
    impl Handler for Endless {
        fn on_frame(&mut self, cx: &mut Context<'_>, _: BytesMut) -> Outcome {
            Ok(cx.set_timer(1, Duration::ZERO)?)
        }
        fn on_timer(&mut self, cx: &mut Context<'_>, _: u64) -> Outcome {
            Ok(cx.set_timer(1, Duration::ZERO)?)
        }
    }
    let panicked = std::panic::catch_unwind(|| {
        let mut bench = Bench::new(Raw::new(), |_| Endless);
        bench.receive(b"go");
        bench.advance(SECOND);
    });
    assert!(panicked.is_err());
}

/// What a client of a real server gets, and what its handler is called for.
fn over_loopback(pieces: &[Vec<u8>]) -> (Vec<u8>, Vec<String>) {
    let (log, calls) = channel();
    let handler = move |_| Scribe { log: log.clone() };
    let builder = Server::builder().reactors(1).workers(1);
    let server = builder.listen("127.0.0.1:0", Lines::new(), handler).start();
    let server = server.expect("the server starts");
    let mut client = TcpStream::connect(server.local_addr()).expect("it listens");
    client.set_nodelay(true).expect("a socket");
    client.set_read_timeout(Some(30 * SECOND)).expect("a socket");
    for piece in pieces {
        // Who has been reset cannot write any more.
        if client.write_all(piece).is_err() {
            break;
        }
    }
    client.shutdown(Shutdown::Write).ok();
    let mut replies = Vec::new();
    client.read_to_end(&mut replies).ok();
    let mut told = Vec::new();
    while !told.last().is_some_and(|call: &String| call.starts_with("closed")) {
        told.push(calls.recv_timeout(30 * SECOND).expect("the connection ends"));
    }
    server.stop();
    (replies, told)
}

/// The same on a bench.
fn on_bench(pieces: &[Vec<u8>]) -> (Vec<u8>, Vec<String>) {
    let (mut bench, calls) = scribe();
    for piece in pieces {
        bench.receive(piece);
    }
    bench.finish();
    bench.advance(SECOND);
    (bench.take_sent(), told(&calls))
}

/// Cuts a script at these places.
fn cut(script: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    let mut places: Vec<_> = places.iter().map(|place| place % (script.len() + 1)).collect();
    places.extend([0, script.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| script[pair[0]..pair[1]].to_vec()).collect()
}

const SCRIPTS: [&[u8]; 9] = [
    b"one\ntwo\nthree\n",
    b"one\nthe rest without an end",
    b"one\nclose\nnever shown\n",
    b"one\nfinish\nshown\nclose\nnever\n",
    b"one\nfail x\nnever\n",
    b"pause 3\none\ntwo\npause 2\nthree",
    b"frames\n\0\x05hello\0\x03two",
    b"one\nframes\n\0\x05hello\0\x05close\0\x01x",
    b"one\nframes\n\0\x05hello\0\x50cut",
];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Whatever the script, and wherever it is cut.
    #[test]
    fn a_server_over_a_loopback_says_the_same(
        script in 0..SCRIPTS.len(),
        places in prop::collection::vec(any::<usize>(), 0..4),
    ) {
        let pieces = cut(SCRIPTS[script], &places);
        prop_assert_eq!(over_loopback(&pieces), on_bench(&pieces));
    }
}

#[test]
fn a_server_over_a_loopback_says_the_same_of_each_script() {
    for script in SCRIPTS {
        let pieces = cut(script, &[]);
        assert_eq!(
            over_loopback(&pieces),
            on_bench(&pieces),
            "{:?}",
            script.escape_ascii().to_string()
        );
    }
    // What is lost of the output of an aborted connection, nobody can say.
    for script in [&b"one\nabort\n"[..], b"one\npanic\n"] {
        let pieces = cut(script, &[]);
        let calls = |(_, mut calls): (Vec<u8>, Vec<String>)| {
            (calls.pop().map(|end| end.contains(";")), calls)
        };
        assert_eq!(calls(over_loopback(&pieces)), calls(on_bench(&pieces)));
    }
}
