//! Every timeout of a connection, on real sockets: what each one ends, and how; what puts it off;
//! and that `None` means for ever.
//!
//! The close reason is the witness. How long something took is compared in one direction only: not
//! earlier than it may.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the calls it is about")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use common::{
    Adapt, Call, Journal, builder, by_default, connect, connect_narrow, echo, expect_reset, frame,
    frames, name, now, pattern, pause, read_all, read_frame, serve, serve_each, sum, wait_for,
};
use switchboard::close::{Blame, ClosePhase};
use switchboard::config::{Idle, Timeouts};
use switchboard::{Builder, Context, Outcome, Raw, Server};

/// What a test waits out.
const SHORT: Duration = Duration::from_millis(200);
/// What a client can keep within on a busy machine.
const LONG: Duration = Duration::from_millis(1_500);

/// Nobody here waits for long until a client finishes too.
fn with(change: impl FnOnce(&mut Timeouts)) -> Builder {
    builder().limits(|limits| {
        limits.timeouts.linger = Some(SHORT / 4);
        change(&mut limits.timeouts);
    })
}

/// A connection whose first frame was handled.
fn greeted(addr: SocketAddr) -> TcpStream {
    let mut client = connect(addr);
    client.write_all(&frame(b"hello")).expect("write");
    assert_eq!(read_frame(&mut client).expect("a frame"), b"hello");
    client
}

/// Writes one byte after the other until the connection is no more.
fn drip(mut client: TcpStream) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        // The length of a frame that never ends.
        while client.write_all(&[0x00]).is_ok() {
            pause(Duration::from_millis(5));
        }
    })
}

/// The connection was given up for `cause`, before our side had said that it would end.
#[track_caller]
fn given_up(journal: &Journal, peer: SocketAddr, cause: &str) {
    let (calls, reason) = journal.life(peer);
    assert_eq!(reason.cause().label(), cause, "{calls:?}");
    assert_eq!(reason.blame(), Blame::Limit);
}

#[test]
fn a_first_frame_that_does_not_come_in_time_resets_the_connection() {
    let (server, journal) =
        serve(with(|times| times.first_frame = Some(SHORT)), frames(), by_default);
    let addr = server.local_addr();
    let mut friend = greeted(addr);
    let begun = now();
    let mut silent = connect(addr);
    let mut begins = connect(addr);
    begins.write_all(&frame(b"hello")[..7]).expect("write");
    let mut dripping = connect(addr);
    // A length of zero is a frame.
    dripping.write_all(&frame(b"")).expect("write");
    let names = [name(&silent), name(&begins), name(&dripping)];
    let drops = drip(dripping.try_clone().expect("a descriptor"));
    for client in [&mut silent, &mut begins] {
        expect_reset(client);
        assert!(begun.elapsed() >= SHORT, "too early");
    }
    for peer in &names[..2] {
        given_up(&journal, *peer, "first_frame_timeout");
        let (calls, reason) = journal.life(*peer);
        assert_eq!(calls, [Call::Open, Call::Close("first_frame_timeout"), Call::Dropped]);
        assert_eq!(reason.phase(), ClosePhase::Open);
    }
    // That one has spoken, as the friend has.
    assert_eq!(read_frame(&mut dripping).expect("a frame"), b"");
    friend.write_all(&frame(b"still here")).expect("write");
    assert_eq!(read_frame(&mut friend).expect("a frame"), b"still here");
    server.stop();
    drops.join().expect("it ends with the connection");
}

#[test]
fn bytes_that_trickle_in_do_not_put_the_first_frame_off() {
    let (server, journal) =
        serve(with(|times| times.first_frame = Some(SHORT)), frames(), by_default);
    let mut client = connect(server.local_addr());
    client.write_all(&[0, 0, 0xff, 0xff]).expect("write");
    let drops = drip(client.try_clone().expect("a descriptor"));
    given_up(&journal, name(&client), "first_frame_timeout");
    drops.join().expect("it ends with the connection");
}

#[test]
fn a_frame_that_has_begun_must_end_in_time_whatever_trickles_in() {
    let (server, journal) = serve(with(|times| times.frame = Some(SHORT)), frames(), by_default);
    let mut silent = greeted(server.local_addr());
    let mut dripping = greeted(server.local_addr());
    // Between frames it may take its time: a timer of its own would have fired by then.
    let mut resting = greeted(server.local_addr());
    let begun = now();
    silent.write_all(&[0, 0]).expect("write");
    dripping.write_all(&[0, 0, 0xff, 0xff]).expect("write");
    let drops = drip(dripping.try_clone().expect("a descriptor"));
    expect_reset(&mut silent);
    assert!(begun.elapsed() >= SHORT, "too early");
    // Who of the two threads hears of the reset, the system decides.
    for client in [&silent, &dripping] {
        given_up(&journal, name(client), "frame_timeout");
    }
    drops.join().expect("it ends with the connection");
    resting.write_all(&frame(b"well rested")).expect("write");
    assert_eq!(read_frame(&mut resting).expect("a frame"), b"well rested");
}

#[test]
fn a_large_frame_gets_the_time_that_its_bytes_have_earned() {
    const RATE: u32 = 4_096;
    const FRAME: Duration = Duration::from_millis(500);
    let (server, journal) = serve(
        with(|times| (times.frame, times.frame_rate_min) = (Some(FRAME), RATE)),
        frames(),
        by_default,
    );
    let addr = server.local_addr();
    let mut slower = greeted(addr);
    slower.write_all(&[0, 0, 0xff, 0xff]).expect("write");
    let drops = drip(slower.try_clone().expect("a descriptor"));
    // Many times as fast as it has to be, and yet far longer than one frame may take.
    let mut client = greeted(addr);
    let payload = pattern(160 << 10, 1);
    let begun = now();
    for piece in frame(&payload).chunks(4 << 10) {
        client.write_all(piece).expect("write");
        pause(Duration::from_millis(25));
    }
    assert!(begun.elapsed() > FRAME, "it was no slow frame");
    assert!(read_frame(&mut client).expect("a frame") == payload);
    // Its peer sends two hundred bytes a second at most.
    given_up(&journal, name(&slower), "frame_timeout");
    drops.join().expect("it ends with the connection");
}

#[test]
fn silence_closes_in_good_order_and_those_who_speak_stay() {
    let (server, journal) = serve(with(|times| times.idle = Idle::After(LONG)), Raw::new(), {
        |cx, call| match call {
            Call::Frame(word) if word == b"much" => Ok(cx.send(pattern(60_000, 1))?),
            _ => by_default(cx, call),
        }
    });
    let mut silent = connect(server.local_addr());
    let mut speaks = connect(server.local_addr());
    let begun = now();
    silent.write_all(b"much").expect("write");
    let listens = thread::spawn(move || {
        // What was sent before comes first; then FIN, not a reset.
        assert!(read_all(&mut silent) == pattern(60_000, 1));
        silent
    });
    while !listens.is_finished() {
        echo(&mut speaks, b"here I am");
        pause(Duration::from_millis(20));
    }
    let silent = listens.join().expect("a clean end");
    assert!(begun.elapsed() >= LONG, "too early");
    let peer = name(&silent);
    drop(silent);
    let (_, reason) = journal.life(peer);
    assert_eq!((reason.cause().label(), reason.unsent_bytes()), ("idle_timeout", 0));
    assert_eq!((reason.blame(), reason.phase()), (Blame::Limit, ClosePhase::Closing));
    echo(&mut speaks, b"still here");
}

/// Says something every few milliseconds, whoever listens.
fn ticker(cx: &mut Context, call: &Call) -> Outcome {
    const TICK: Duration = Duration::from_millis(20);
    match call {
        Call::Open => Ok(cx.set_timer(1, TICK)?),
        Call::Timer(1) => {
            cx.send("tick")?;
            Ok(cx.set_timer(1, TICK)?)
        }
        _ => by_default(cx, call),
    }
}

#[test]
fn what_we_send_is_a_sign_of_life_only_where_the_settings_say_so() {
    let listeners: Vec<Adapt> = vec![
        Box::new(|strict| strict.timeouts.idle_counts_sent = false),
        Box::new(|lenient| lenient.timeouts.idle_counts_sent = true),
    ];
    let idle = with(|times| (times.idle, times.first_frame) = (Idle::After(LONG), None));
    let (server, journal) = serve_each(idle, Raw::new(), ticker, listeners);
    let mut listens = connect(server.local_addrs()[1]);
    // One after the other: twice the time in which it would have been closed.
    for _ in 0..2 {
        let mut cut = connect(server.local_addrs()[0]);
        let said = read_all(&mut cut);
        assert!(said.starts_with(b"ticktick"), "it was sent something all the time");
        given_up(&journal, name(&cut), "idle_timeout");
        listens.read_exact(&mut [0; 16]).expect("it goes on");
    }
    let calls = journal.calls(name(&listens));
    assert!(!calls.iter().any(|call| matches!(call, Call::Close(_))), "{calls:?}");
}

#[test]
fn the_time_that_is_learned_is_shorter_than_that_of_a_newcomer() {
    let learned =
        Idle::Adaptive { min: SHORT, factor: 1, max: Duration::from_secs(7 * 24 * 60 * 60) };
    let (server, journal) =
        serve(with(|times| (times.idle, times.first_frame) = (learned, None)), Raw::new(), {
            by_default
        });
    let newcomer = connect(server.local_addr());
    let mut habitual = connect(server.local_addr());
    // Messages within a second are one; so this is a word every second and a bit.
    for _ in 0..4 {
        echo(&mut habitual, b"as always");
        pause(Duration::from_millis(1_050));
    }
    // It says no more. That costs it what its habit allows, not a week.
    assert_eq!(read_all(&mut habitual), b"");
    given_up(&journal, name(&habitual), "idle_timeout");
    let calls = journal.calls(name(&newcomer));
    assert_eq!(calls, [Call::Open], "who has shown no habit has all the time there is");
}

#[test]
fn nobody_stays_for_longer_than_the_most_that_may_be_learned() {
    let short = Idle::Adaptive { min: SHORT / 2, factor: 3, max: SHORT };
    let (server, journal) = serve(with(|times| times.idle = short), Raw::new(), by_default);
    let begun = now();
    let mut client = connect(server.local_addr());
    assert_eq!(read_all(&mut client), b"");
    assert!(begun.elapsed() >= SHORT, "too early");
    given_up(&journal, name(&client), "idle_timeout");
}

/// Two listeners, one with `times` and one with `never`. Each round `provoke` makes the same
/// connection to both, and waits until the first has ended for `cause`. The one to the second must
/// have survived all of that.
fn never(
    cause: &'static str,
    times: fn(&mut Timeouts),
    never: fn(&mut Timeouts),
    provoke: fn(SocketAddr) -> TcpStream,
) {
    let act = |cx: &mut Context, call: &Call| match call {
        Call::Frame(word) if word == b"go" => {
            // More than the system takes from a server whose client does not read.
            (0..12).try_for_each(|_| cx.send(pattern(1 << 20, 2)))?;
            Ok(())
        }
        Call::Frame(word) if word == b"close" => {
            cx.close();
            Ok(())
        }
        // Never finishes by itself.
        Call::Eof => Ok(()),
        _ => by_default(cx, call),
    };
    let listeners: Vec<Adapt> = vec![
        Box::new(move |short| times(&mut short.timeouts)),
        Box::new(move |none| never(&mut none.timeouts)),
    ];
    let lasting = with(|times| {
        (times.first_frame, times.frame, times.write_stall) = (None, None, None);
        (times.linger, times.idle) = (None, Idle::Never);
    });
    let (server, journal) = serve_each(lasting, frames(), act, listeners);
    let stays = provoke(server.local_addrs()[1]);
    for _ in 0..2 {
        let ends = provoke(server.local_addrs()[0]);
        let (calls, reason) = journal.life(name(&ends));
        assert_eq!(reason.cause().label(), cause, "{calls:?}");
    }
    let calls = journal.calls(name(&stays));
    assert!(!calls.iter().any(|call| matches!(call, Call::Close(_))), "{cause}: {calls:?}");
    assert_eq!(server.snapshot().connections(), 1, "{cause}");
}

#[test]
fn what_has_no_end_does_not_end() {
    never("first_frame_timeout", |t| t.first_frame = Some(SHORT), |_| {}, connect);
    never(
        "frame_timeout",
        |t| t.frame = Some(SHORT),
        |_| {},
        |addr| {
            let mut client = greeted(addr);
            client.write_all(&[0, 0, 1]).expect("write");
            client
        },
    );
    never(
        "idle_timeout",
        |t| t.idle = Idle::After(SHORT),
        |_| {},
        |addr| {
            let mut client = greeted(addr);
            // So that nobody waits for its end.
            client.shutdown(Shutdown::Write).expect("finish");
            client.set_nodelay(true).expect("an option");
            let _closed_already = client.read(&mut []).is_err();
            client
        },
    );
    never(
        "write_stalled",
        |t| t.write_stall = Some(SHORT),
        |_| {},
        |addr| {
            let mut client = connect_narrow(addr);
            client.write_all(&frame(b"go")).expect("write");
            client
        },
    );
    never(
        "closed",
        |t| t.linger = Some(SHORT),
        |_| {},
        |addr| {
            let mut client = connect(addr);
            client.write_all(&frame(b"close")).expect("write");
            assert_eq!(read_all(&mut client), b"");
            client
        },
    );
}

#[test]
fn a_connection_may_change_its_own_timeouts_at_any_time() {
    let (server, journal) = serve(with(|_| {}), frames(), |cx, call| {
        if let Call::Frame(word) = call {
            cx.set_timeouts(|times| match &word[..] {
                b"patient" => times.idle = Idle::Never,
                b"hasty" => times.idle = Idle::After(SHORT),
                // Brought to the nearer end: a millisecond.
                b"instant" => times.idle = Idle::After(Duration::ZERO),
                b"strict" => times.frame = Some(SHORT),
                _ => {}
            });
        }
        by_default(cx, call)
    });
    let told = |word: &[u8]| {
        let mut client = connect(server.local_addr());
        client.write_all(&frame(word)).expect("write");
        assert_eq!(read_frame(&mut client).expect("a frame"), word);
        client
    };
    let mut patient = told(b"patient");
    let begun = now();
    let mut hasty = told(b"hasty");
    assert_eq!(read_all(&mut hasty), b"");
    assert!(begun.elapsed() >= SHORT, "too early");
    given_up(&journal, name(&hasty), "idle_timeout");
    let mut instant = told(b"instant");
    assert_eq!(read_all(&mut instant), b"");
    given_up(&journal, name(&instant), "idle_timeout");
    // The one whose frame began before it was told to be strict with it.
    let mut strict = connect(server.local_addr());
    strict.write_all(&[&frame(b"strict")[..], &[0, 0]].concat()).expect("write");
    assert_eq!(read_frame(&mut strict).expect("a frame"), b"strict");
    expect_reset(&mut strict);
    given_up(&journal, name(&strict), "frame_timeout");
    // Back to haste, once more.
    patient.write_all(&frame(b"hasty")).expect("write");
    assert_eq!(read_frame(&mut patient).expect("a frame"), b"hasty");
    assert_eq!(read_all(&mut patient), b"");
    given_up(&journal, name(&patient), "idle_timeout");
}

/// Sockets of this server that the peer has finished and we have not.
#[cfg(target_os = "linux")]
fn half_open(addr: SocketAddr) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the kernel tells");
    let local = format!("0100007F:{:04X}", addr.port());
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    // proc(5): 08 is CLOSE_WAIT.
    rows.filter(|row| row.get(1) == Some(&local.as_str()) && row.get(3) == Some(&"08")).count()
}

#[cfg(not(target_os = "linux"))]
fn half_open(_: SocketAddr) -> usize {
    0
}

#[test]
fn a_handler_that_never_finishes_leaves_no_half_open_connection() {
    const COUNT: usize = 50;
    let (server, journal) =
        serve(with(|times| times.idle = Idle::After(LONG)), Raw::new(), |cx, call| match call {
            Call::Eof => Ok(()),
            _ => by_default(cx, call),
        });
    let addr = server.local_addr();
    let mut clients: Vec<_> = (0..COUNT).map(|_| connect(addr)).collect();
    for client in &mut clients {
        echo(client, b"hello");
        client.shutdown(Shutdown::Write).expect("finish");
    }
    for client in &mut clients {
        journal.wait_for(name(client), &Call::Eof);
    }
    for client in &mut clients {
        assert_eq!(read_all(client), b"");
        given_up(&journal, name(client), "idle_timeout");
    }
    wait_for("all are gone", &server, |now| now.connections() == 0);
    assert_eq!(half_open(addr), 0);
}

#[test]
fn output_is_a_sign_of_life_once_the_peer_has_finished() {
    let (server, journal) =
        serve(with(|times| times.idle = Idle::After(LONG)), Raw::new(), |cx, call| match call {
            Call::Eof => Ok(()),
            _ => ticker(cx, call),
        });
    let mut listens = connect(server.local_addr());
    listens.write_all(b"tell me").expect("write");
    listens.shutdown(Shutdown::Write).expect("finish");
    for _ in 0..2 {
        // Silent and not finished: what is sent to it does not count.
        let mut cut = connect(server.local_addr());
        cut.write_all(b"tell me").expect("write");
        assert!(read_all(&mut cut).starts_with(b"tell me"));
        given_up(&journal, name(&cut), "idle_timeout");
        listens.read_exact(&mut [0; 16]).expect("it goes on");
    }
    wait_for("only one is left", &server, |now| now.connections() == 1);
    assert!(sum(&server.snapshot(), |reactor| reactor.timers) > 0);
    stop(server, &journal, &listens);
}

/// Stops the server; only that ends this client's connection.
fn stop(server: Server, journal: &Journal, client: &TcpStream) {
    server.stop();
    assert_eq!(journal.life(name(client)).1.cause().label(), "server_stopped");
}
