//! Rates on real sockets: never more than they allow, by a clock that was started before, and
//! everything arrives in the end. And that one chunk of many frames keeps nobody waiting.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::{
    Call, Gate, builder, by_default, connect, echo, frame, frames, now, pattern, read_frame, serve,
    sum, wait_for, wait_until,
};
use switchboard::config::{Listening, Rate, Scheduling, Shaper};
use switchboard::{Builder, Context, Limits, Outcome, Raw, Server, handler_fn};

/// 64 KiB per second, 4 KiB of it at once.
const RATE: u64 = 64 << 10;
const BURST: u64 = 4 << 10;
/// A few milliseconds' worth for each connection.
const QUANTUM: u64 = 512;
/// What is sent: half a second's worth beyond the burst.
const MUCH: usize = 36 << 10;

fn rate() -> Option<Rate> {
    Some(Rate::per_second(RATE).burst(BURST))
}

/// The most that may have passed since `begun`, which was before it began.
fn allowed(begun: Instant, connections: u64) -> u64 {
    let nanos = begun.elapsed().as_nanos() * u128::from(RATE) / 1_000_000_000;
    u64::try_from(nanos).expect("a short test") + BURST + connections * QUANTUM
}

/// A server that sends `MUCH` to whoever says something, and takes what it is sent.
fn start(limits: fn(&mut Limits), adapt: impl FnOnce(&mut Listening) + 'static) -> Server {
    let answer = |cx: &mut Context, bytes: BytesMut| -> Outcome {
        if bytes.starts_with(b"go") {
            cx.send(pattern(MUCH, 4))?;
        }
        Ok(())
    };
    // A timeout that would strike if the time counted in which the server holds back.
    let builder = builder().limits(|limits| {
        limits.timeouts.write_stall = Some(Duration::from_millis(100));
    });
    let handler = move |_peer| handler_fn(answer);
    builder
        .limits(limits)
        .listen_with("127.0.0.1:0", Raw::new(), handler, adapt)
        .start()
        .expect("the server starts")
}

/// Sends much, while the server is asked how much of it it has read.
fn upload(server: &Server, begun: Instant, clients: u64) {
    let all = clients * MUCH as u64;
    thread::scope(|scope| {
        for _ in 0..clients {
            let mut client = connect(server.local_addr());
            scope.spawn(move || {
                client.write_all(&pattern(MUCH, 5)).expect("the server reads on in the end");
                // Until all is read, so that it is the rate that ends it.
                client.shutdown(Shutdown::Write).expect("finish");
                assert_eq!(common::read_all(&mut client), b"");
            });
        }
        wait_until("all is read", || {
            let snapshot = server.snapshot();
            let received = sum(&snapshot, |reactor| reactor.received_bytes);
            let most = allowed(begun, clients);
            assert!(received <= most, "{received} bytes were read, {most} are allowed");
            received == all
        });
    });
    let snapshot = server.snapshot();
    assert!(sum(&snapshot, |reactor| reactor.read_delays) > 0);
    assert!(sum(&snapshot, |reactor| reactor.read_delayed_bytes) > 0);
}

/// Takes what the server sends, all clients in turn.
fn download(server: &Server, begun: Instant, clients: usize) {
    let mut clients: Vec<TcpStream> = (0..clients).map(|_| connect(server.local_addr())).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"go").expect("write"));
    let shaped = |reactor: &switchboard::control::ReactorSnapshot| reactor.shaped;
    wait_for("they are shaped", server, |now| sum(now, shaped) == clients.len());
    let total = AtomicUsize::new(0);
    let most = clients.len() as u64;
    thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| {
                let (mut got, mut some) = (Vec::new(), [0; 1024]);
                while got.len() < MUCH {
                    let count = client.read(&mut some).expect("shaping ends nothing");
                    assert!(count > 0, "the end after {} bytes", got.len());
                    got.extend_from_slice(&some[..count]);
                    let sent = (total.fetch_add(count, SeqCst) + count) as u64;
                    let most = allowed(begun, most);
                    assert!(sent <= most, "{sent} bytes were sent, {most} are allowed");
                }
                assert!(got == pattern(MUCH, 4));
            });
        }
    });
    let snapshot = server.snapshot();
    assert!(sum(&snapshot, |reactor| reactor.send_delays) > 0);
    assert!(sum(&snapshot, |reactor| reactor.send_delayed_bytes) > 0);
}

#[test]
fn a_connection_is_held_to_its_rates() {
    let limits = |limits: &mut Limits| (limits.read_rate, limits.send_rate) = (rate(), rate());
    let server = start(limits, |_| {});
    upload(&server, now(), 1);
    wait_for("it has left", &server, |now| now.connections() == 0);
    download(&server, now(), 1);
    let report = server.stop();
    assert_eq!(report.closed_by("write_stalled"), 0, "{report}");
}

#[test]
fn a_group_is_held_to_its_rates_and_so_is_who_joins_it() {
    let shaper = Shaper::new(rate(), rate()).expect("in range");
    let group = shaper.clone();
    let server = start(|_| {}, move |listener| listener.shaper = Some(group));
    upload(&server, now(), 2);
    wait_for("they have left", &server, |now| now.connections() == 0);
    download(&server, now(), 2);
    // Servers of one process know the same time, and so may share a group.
    let (other, _journal) = serve(builder(), Raw::new(), move |cx, call| {
        match call {
            Call::Open => cx.join_shaper(&shaper),
            Call::Frame(_) => cx.send(pattern(MUCH, 4))?,
            Call::Eof => cx.finish(),
            Call::Drained
            | Call::Drain
            | Call::Timer(_)
            | Call::Shed(_)
            | Call::Close(_)
            | Call::Dropped => {}
        }
        Ok(())
    });
    download(&other, now(), 2);
}

#[test]
fn a_server_is_held_to_its_rates() {
    let server = start(
        |limits| (limits.server_read_rate, limits.server_send_rate) = (rate(), rate()),
        |_| {},
    );
    upload(&server, now(), 2);
    wait_for("they have left", &server, |now| now.connections() == 0);
    download(&server, now(), 2);
}

#[test]
fn a_protocol_may_change_the_rates_of_its_connection() {
    let (server, _journal) = serve(builder(), frames(), |cx, call| match call {
        Call::Frame(word) if word == b"slow" => {
            cx.set_send_rate(rate());
            Ok(cx.send(pattern(MUCH, 6))?)
        }
        Call::Frame(word) if word == b"free" => {
            cx.set_send_rate(None);
            Ok(cx.send("free")?)
        }
        Call::Frame(_)
        | Call::Open
        | Call::Eof
        | Call::Drained
        | Call::Drain
        | Call::Timer(_)
        | Call::Shed(_) => by_default(cx, call),
        Call::Close(_) | Call::Dropped => Ok(()),
    });
    let mut client = connect(server.local_addr());
    echo(&mut client, &frame(b"as fast as it goes"));
    let shaped = |now: &switchboard::control::Snapshot| sum(now, |reactor| reactor.shaped);
    assert_eq!(shaped(&server.snapshot()), 0);
    let begun = now();
    client.write_all(&frame(b"slow")).expect("write");
    assert!(read_frame(&mut client).expect("it comes") == pattern(MUCH, 6));
    assert!(allowed(begun, 1) >= MUCH as u64, "faster than its rate");
    assert_eq!(shaped(&server.snapshot()), 1);
    client.write_all(&frame(b"free")).expect("write");
    assert_eq!(read_frame(&mut client).expect("it comes"), b"free");
    wait_for("it is free", &server, |now| shaped(now) == 0);
}

/// What is queued leaves at its rate before the connection ends.
#[test]
fn a_close_flushes_at_the_rate() {
    let (server, _journal) =
        serve(builder().limits(|limits| limits.send_rate = rate()), Raw::new(), |cx, call| {
            by_default(cx, call)?;
            if matches!(call, Call::Frame(_)) {
                cx.send(pattern(MUCH, 7))?;
                cx.close();
            }
            Ok(())
        });
    let begun = now();
    let mut client = connect(server.local_addr());
    client.write_all(b"!").expect("write");
    let got = common::read_all(&mut client);
    assert!(got[1..] == pattern(MUCH, 7), "{} bytes came", got.len());
    assert!(allowed(begun, 1) >= got.len() as u64, "faster than its rate");
}

/// A client that sends a thousand frames at once, and one that sends a single one meanwhile: how
/// many of the thousand went before it, and how many jobs it took.
fn crowd(builder: Builder) -> (usize, u64) {
    const MANY: usize = 1_000;
    let gate = Gate::default();
    let (handled, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let (door, count, at) = (gate.clone(), Arc::clone(&handled), Arc::clone(&seen));
    let builder = builder.reactors(1).scheduling(Scheduling::Inline);
    let (server, _journal) = serve(builder, frames(), move |cx, call| {
        let Call::Frame(word) = call else { return by_default(cx, call) };
        match &word[..] {
            b"first" => door.pass(),
            b"other" => at.store(count.load(SeqCst), SeqCst),
            _ => {
                count.fetch_add(1, SeqCst);
            }
        }
        Ok(cx.send("")?)
    });
    let mut other = connect(server.local_addr());
    echo(&mut other, &frame(b""));
    handled.store(0, SeqCst);
    let mut crowd = connect(server.local_addr());
    let many: Vec<u8> = (0..MANY).flat_map(|_| frame(b"more")).collect();
    crowd.write_all(&[frame(b"first"), many].concat()).expect("write");
    // The only thread that there is waits in the first frame of the first chunk.
    gate.wait_for(1);
    other.write_all(&frame(b"other")).expect("write");
    gate.open();
    assert_eq!(read_frame(&mut other).expect("an answer"), b"");
    (0..=MANY).for_each(|_| assert_eq!(read_frame(&mut crowd).expect("an answer"), b""));
    assert_eq!(handled.load(SeqCst), MANY, "none is lost");
    (seen.load(SeqCst), sum(&server.snapshot(), |reactor| reactor.jobs))
}

#[test]
fn many_frames_in_one_chunk_keep_the_others_waiting_for_a_turn_only() {
    let (before, jobs) = crowd(builder().limits(|limits| limits.frames_per_turn = 10));
    assert!(before < 500, "the other one was served after {before} frames");
    assert!(jobs >= 100, "{jobs} jobs of at most ten frames");
    let (before, jobs) = crowd(builder());
    assert!(before < 1_000 && jobs >= 4, "256 is the default: {before} frames, {jobs} jobs");
}
