//! More than a server, or a connection, can take: what is dropped, shed or cut short, who is told,
//! and that the rest goes on.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the calls it is about")]

mod common;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use common::{
    Call, Gate, PATIENCE, builder, by_default, connect, connect_narrow, echo, frame, frames, name,
    now, pattern, read_all, read_frame, serve, sum, wait_for, wait_until,
};
use switchboard::config::Overflow;
use switchboard::error::{Overloaded, SendError};
use switchboard::{Context, Handler, Outcome, Raw};

const MS: Duration = Duration::from_millis(1);

#[test]
fn what_finds_no_room_is_dropped_whole_and_the_connection_goes_on() {
    const MAX: usize = 1 << 20;
    const PIECE: usize = 100_000;
    let dropping = builder().limits(|limits| {
        limits.overflow = Overflow::DropNewest;
        limits.send_max_bytes = MAX;
    });
    let taken: Arc<Mutex<Vec<u32>>> = Arc::default();
    let noted = Arc::clone(&taken);
    let (server, journal) = serve(dropping, frames(), move |cx, call| match call {
        // Far more than the queue and the system take.
        Call::Frame(word) if word == b"flood" => {
            for number in 0..200 {
                let before = cx.queued_bytes();
                let piece = [&u32::to_be_bytes(number)[..], &pattern(PIECE, 7)].concat();
                match cx.send(piece) {
                    Ok(()) => noted.lock().unwrap_or_else(PoisonError::into_inner).push(number),
                    Err(SendError::Full { max_bytes, .. }) => {
                        assert_eq!((max_bytes, cx.queued_bytes()), (MAX, before));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            // A small one still has room.
            Ok(cx.send("end")?)
        }
        _ => by_default(cx, call),
    });
    let mut client = connect_narrow(server.local_addr());
    client.write_all(&frame(b"flood")).expect("write");
    let mut come = Vec::new();
    loop {
        let payload = read_frame(&mut client).expect("a whole frame");
        if payload == b"end" {
            break;
        }
        assert!(payload[4..] == pattern(PIECE, 7), "a message is there or not, but never a part");
        come.push(u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]));
    }
    let taken = taken.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert_eq!(come, taken, "those that were taken, in order");
    assert_eq!(come.len(), MAX / PIECE);
    let dropped = wait_for("it is counted", &server, |now| sum(now, |r| r.dropped) > 0);
    assert_eq!(sum(&dropped, |r| r.dropped), 200 - come.len() as u64);
    // It goes on as if nothing had been.
    client.write_all(&frame(b"still here")).expect("write");
    assert_eq!(read_frame(&mut client).expect("a frame"), b"still here");
    client.shutdown(Shutdown::Write).expect("finish");
    assert_eq!(journal.life(name(&client)).1.cause().label(), "peer_finished");
}

#[test]
fn of_too_many_that_linger_those_that_have_waited_longest_are_reset() {
    const MAX: usize = 8;
    const COUNT: usize = 30;
    let few = builder().reactors(1).limits(|limits| {
        limits.lingering_max = MAX;
        limits.timeouts.linger = None;
    });
    let (server, journal) = serve(few, Raw::new(), |cx, call| match call {
        Call::Frame(word) if word == b"close" => {
            cx.send("bye")?;
            cx.close();
            Ok(())
        }
        // Closed in two steps: such a one lingers as well.
        Call::Frame(word) if word == b"finish" => {
            cx.send("bye")?;
            cx.finish();
            Ok(cx.set_timer(1, MS)?)
        }
        Call::Timer(1) => {
            cx.close();
            Ok(())
        }
        _ => by_default(cx, call),
    });
    let mut other = connect(server.local_addr());
    // None of these finishes. One after the other, so that it is known who waits longest.
    let mut clients = Vec::new();
    for number in 0..COUNT {
        let mut client = connect(server.local_addr());
        let word: &[u8] = if number % 2 == 0 { b"close" } else { b"finish" };
        client.write_all(word).expect("write");
        if number % 2 == 1 {
            journal.wait_for(name(&client), &Call::Timer(1));
        }
        assert_eq!(read_all(&mut client), b"bye", "the last word arrives");
        echo(&mut other, b"one of many");
        // Its handler has returned, so the next one waits for a shorter time than it.
        wait_for("it is at rest", &server, |now| sum(now, |r| r.handlers_out) == 0);
        clients.push(client);
    }
    let bounded = wait_for("the bound holds", &server, |now| now.connections() == MAX + 1);
    assert_eq!(sum(&bounded, |r| r.linger_resets), (COUNT - MAX) as u64);
    for client in &clients[..COUNT - MAX] {
        assert_eq!(journal.life(name(client)).1.cause().label(), "closed");
    }
    for client in &clients[COUNT - MAX..] {
        let calls = journal.calls(name(client));
        assert!(!calls.contains(&Call::Dropped), "the newest wait on: {calls:?}");
    }
    // When they finish there is room again, and nobody is reset any more.
    drop(clients);
    wait_for("they are gone", &server, |now| now.connections() == 1);
    for _ in 0..MAX {
        let mut client = connect(server.local_addr());
        client.write_all(b"close").expect("write");
        assert_eq!(read_all(&mut client), b"bye");
    }
    let after = wait_for("all are gone", &server, |now| now.connections() == 1);
    assert_eq!(sum(&after, |r| r.linger_resets), (COUNT - MAX) as u64);
    echo(&mut other, b"not affected");
}

/// Blocks at the word `block`; says how long each frame has waited, and what is too late.
struct Slow {
    gate: Gate,
}

impl Handler for Slow {
    fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        let waited = cx.queue_wait();
        if &frame[..] == b"block" {
            self.gate.pass();
        }
        Ok(cx.send(format!("handled {}", waited < PATIENCE))?)
    }

    fn on_shed(&mut self, cx: &mut Context, _: BytesMut) -> Outcome {
        assert!(cx.queue_wait() > 20 * MS, "it has waited for longer than it may");
        Ok(cx.send("busy")?)
    }
}

#[test]
fn frames_that_wait_too_long_are_shed_and_later_ones_are_handled() {
    let gate = Gate::default();
    let pass = gate.clone();
    let server = builder()
        .reactors(1)
        .limits(|limits| limits.queue_wait_max = Some(20 * MS))
        .listen("127.0.0.1:0", frames(), move |_| Slow { gate: pass.clone() })
        .start()
        .expect("the server starts");
    let mut client = connect(server.local_addr());
    // The first is handled at once and takes its time; those behind it wait meanwhile.
    let burst: Vec<u8> = [&b"block"[..], b"late", b"late"].into_iter().flat_map(frame).collect();
    client.write_all(&burst).expect("write");
    gate.wait_for(1);
    // Another connection does not wait for it, and is not shed.
    let mut other = connect(server.local_addr());
    wait_until("it is served in time", || {
        other.write_all(&frame(b"quick")).expect("write");
        read_frame(&mut other).expect("a frame") == b"handled true"
    });
    let begun = now();
    wait_until("they have waited", || begun.elapsed() > 25 * MS);
    gate.open();
    for expected in [&b"handled true"[..], b"busy", b"busy"] {
        assert_eq!(read_frame(&mut client).expect("a frame"), expected);
    }
    let shed = wait_for("it is counted", &server, |now| sum(now, |r| r.frames) >= 4);
    assert!(sum(&shed, |r| r.shed) >= 2);
    // The next ones come in time again; on a busy machine the first may not.
    wait_until("it is served again", || {
        client.write_all(&frame(b"again")).expect("write");
        read_frame(&mut client).expect("a frame") == b"handled true"
    });
    server.stop();
}

#[test]
fn who_does_not_say_what_to_shed_is_closed_with_the_reason() {
    struct Plain(Gate, std::sync::mpsc::Sender<String>);
    impl Handler for Plain {
        fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
            self.0.pass();
            Ok(cx.send(frame)?)
        }
        fn on_close(&mut self, reason: &switchboard::CloseReason) {
            let switchboard::close::Cause::HandlerFailed(error) = reason.cause() else { return };
            if let Some(overloaded) = error.downcast_ref::<Overloaded>() {
                assert!(overloaded.waited > 20 * MS);
                drop(self.1.send(reason.to_string()));
            }
        }
    }
    let gate = Gate::default();
    let (pass, (sender, ends)) = (gate.clone(), std::sync::mpsc::channel());
    let server = builder()
        .limits(|limits| limits.queue_wait_max = Some(20 * MS))
        .listen("127.0.0.1:0", frames(), move |_| Plain(pass.clone(), sender.clone()))
        .start()
        .expect("the server starts");
    let mut client = connect(server.local_addr());
    client.write_all(&[frame(b"first"), frame(b"late")].concat()).expect("write");
    gate.wait_for(1);
    let begun = now();
    wait_until("it has waited", || begun.elapsed() > 25 * MS);
    gate.open();
    // What was said before arrives; then the end.
    assert_eq!(read_frame(&mut client).expect("a frame"), b"first");
    assert_eq!(read_all(&mut client), b"");
    let said = ends.recv_timeout(PATIENCE).expect("it is told why");
    assert!(said.starts_with("the handler failed: overloaded: a frame waited"), "{said}");
    drop(client);
    assert_eq!(server.stop().closed_by("handler_failed"), 1);
}

#[test]
fn without_a_bound_nothing_is_shed_however_long_it_waits() {
    let gate = Gate::default();
    let pass = gate.clone();
    let (server, journal) = serve(builder(), frames(), move |cx, call| {
        if matches!(call, Call::Frame(word) if word == b"block") {
            pass.pass();
        }
        by_default(cx, call)
    });
    let mut client = connect(server.local_addr());
    client.write_all(&[frame(b"block"), frame(b"late")].concat()).expect("write");
    gate.wait_for(1);
    let begun = now();
    wait_until("it has waited", || begun.elapsed() > 50 * MS);
    gate.open();
    assert_eq!(read_frame(&mut client).expect("a frame"), b"block");
    assert_eq!(read_frame(&mut client).expect("a frame"), b"late");
    let calls = journal.calls(name(&client));
    assert!(!calls.iter().any(|call| matches!(call, Call::Shed(_))), "{calls:?}");
    assert_eq!(sum(&server.snapshot(), |r| r.shed), 0);
}

/// Reads to the end in a thread of its own, then goes.
fn reader(mut stream: TcpStream) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        assert_eq!(read_all(&mut stream), b"");
        drop(stream);
    })
}

#[test]
fn a_drain_asks_each_once_one_after_the_other_within_its_spread() {
    const COUNT: usize = 40;
    const SPREAD: Duration = Duration::from_millis(600);
    let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let noted = Arc::clone(&asked);
    let (server, journal) = serve(builder(), Raw::new(), move |cx, call| {
        if *call == Call::Drain {
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(now());
        }
        by_default(cx, call)
    });
    let mut clients: Vec<_> = (0..COUNT).map(|_| connect(server.local_addr())).collect();
    clients.iter_mut().for_each(|client| echo(client, b"hello"));
    let peers: Vec<_> = clients.iter().map(name).collect();
    let readers: Vec<_> = clients.into_iter().map(reader).collect();
    let begun = now();
    let report = server.drain(PATIENCE, SPREAD);
    readers.into_iter().for_each(|reader| reader.join().expect("a clean end"));
    assert_eq!((report.asked, report.closed_by("drained")), (COUNT as u64, COUNT as u64));
    for peer in peers {
        let drains = journal.life(peer).0.iter().filter(|call| **call == Call::Drain).count();
        assert_eq!(drains, 1, "each is asked once");
    }
    let mut asked = asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
    asked.sort_unstable();
    // Each reactor asks half of them or so, each in a part of the time that is its own: not
    // earlier than its part begins. Whatever the split, of all of them a half, less one for each
    // reactor, have parts in the second half of the time.
    let late = asked.iter().filter(|at| at.duration_since(begun) >= SPREAD / 2).count();
    assert!(late >= COUNT / 2 - 2, "{late} of {COUNT} were asked in the second half");
    assert!(report.elapsed >= SPREAD / 2, "it waited for the last");
}

#[test]
fn who_comes_while_a_drain_is_under_way_is_asked_and_who_has_gone_is_not() {
    const COUNT: usize = 20;
    let (server, journal) = serve(builder().reactors(1), Raw::new(), by_default);
    let mut clients: Vec<_> = (0..COUNT).map(|_| connect(server.local_addr())).collect();
    clients.iter_mut().for_each(|client| echo(client, b"hello"));
    let peers: Vec<_> = clients.iter().map(name).collect();
    // Those that wait to be accepted when it begins.
    server.suspend();
    assert_eq!(server.snapshot().opened(), COUNT as u64);
    let waiting: Vec<_> = (0..3).map(|_| connect(server.local_addr())).collect();
    let names: Vec<_> = waiting.iter().map(name).collect();
    let control = server.control();
    let journal = thread::scope(|scope| {
        let inside = scope.spawn(move || {
            // The newcomers are asked at once: so the drain is under way.
            for (client, peer) in waiting.into_iter().zip(&names) {
                journal.wait_for(*peer, &Call::Drain);
                reader(client).join().expect("a clean end");
            }
            // All but one leave before their turn, as far as it has not come.
            clients.truncate(1);
            let first = clients.remove(0);
            reader(first).join().expect("a clean end");
            journal
        });
        let report = server.drain(PATIENCE, 3 * Duration::from_secs(1));
        assert_eq!(report.opened, COUNT as u64 + 3);
        assert_eq!(report.closed_by("drained"), report.asked, "{report}");
        assert_eq!(report.asked + report.closed_by("peer_finished"), report.opened, "{report}");
        assert!(report.closed_by("peer_finished") > 0, "{report}");
        inside.join().expect("it does not panic")
    });
    drop(control);
    for peer in peers {
        let (calls, reason) = journal.life(peer);
        let drained = calls.contains(&Call::Drain);
        assert_eq!(drained, reason.cause().label() == "drained", "{calls:?}");
    }
}

#[test]
fn who_is_closing_already_is_not_asked() {
    let (server, journal) = serve(builder(), Raw::new(), |cx, call| match call {
        Call::Frame(word) if word == b"close" => {
            cx.close();
            Ok(())
        }
        _ => by_default(cx, call),
    });
    let mut closed = connect(server.local_addr());
    closed.write_all(b"close").expect("write");
    assert_eq!(read_all(&mut closed), b"", "it waits for this one's end from now on");
    let mut open = connect(server.local_addr());
    echo(&mut open, b"hello");
    let client = thread::spawn(move || {
        journal.wait_for(name(&open), &Call::Drain);
        let calls = journal.calls(name(&closed));
        drop(closed);
        reader(open).join().expect("a clean end");
        calls
    });
    let report = server.drain(PATIENCE, Duration::ZERO);
    let calls = client.join().expect("it does not panic");
    assert!(!calls.contains(&Call::Drain), "{calls:?}");
    assert_eq!((report.opened, report.asked, report.closed_by("drained")), (2, 1, 1), "{report}");
}
