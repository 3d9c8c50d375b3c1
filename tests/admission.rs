//! Who is let in: every limit is reached, holds exactly, and is recovered from; each policy does
//! what it says; all of it can be changed while the server runs.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;

use common::{
    PATIENCE, PLANTED, builder, connect, echo, ends_in_reset, expect_reset, frame, frames, hush,
    read_all, reset, sum, try_connect, wait_for, wait_until,
};
use socket2::{Domain, Socket, Type};
use switchboard::config::{Listening, Placement, Rate, WhenFull};
use switchboard::control::Snapshot;
use switchboard::{Builder, Context, Error, Raw, Server, handler_fn};

/// A server that sends back what comes, with a listener that is set up so.
fn echoing(builder: Builder, adapt: impl FnOnce(&mut Listening) + 'static) -> Server {
    let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
    builder.listen_with("127.0.0.1:0", Raw::new(), echo, adapt).start().expect("it starts")
}

/// Clients that are inside: each was answered.
fn enter(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut inside: Vec<_> = (0..count).map(|_| connect(addr)).collect();
    inside.iter_mut().for_each(|client| echo(client, b"inside"));
    inside
}

/// Clients that have said something and wait to be let in.
fn queue(addr: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut waiting: Vec<_> = (0..count).map(|_| connect(addr)).collect();
    waiting.iter_mut().for_each(|client| client.write_all(b"hello").expect("it is queued"));
    waiting
}

#[track_caller]
fn greeted(client: &mut TcpStream) {
    let mut back = [0; 5];
    client.read_exact(&mut back).expect("it is served now");
    assert_eq!(&back, b"hello");
}

/// Those who are inside are served, and nobody else comes in.
#[track_caller]
fn hold(server: &Server, inside: &mut [TcpStream], count: usize) {
    let opened = server.snapshot().opened();
    for _ in 0..10 {
        inside.iter_mut().for_each(|client| echo(client, b"still inside"));
        let now = server.snapshot();
        assert_eq!((now.admitted, now.connections(), now.opened()), (count, count, opened));
    }
}

#[track_caller]
fn empty(server: &Server) {
    wait_for("all are gone", server, |now| now.connections() == 0 && now.admitted == 0);
}

fn closed_by(snapshot: &Snapshot, label: &str) -> u64 {
    sum(snapshot, |reactor| {
        reactor.closed.iter().filter(|(name, _)| *name == label).map(|(_, count)| *count).sum()
    })
}

/// A client that is turned away without a word; it may learn of that while it still connects.
#[track_caller]
fn expect_refusal(addr: SocketAddr) {
    match try_connect(addr) {
        Ok(mut client) => expect_reset(&mut client),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}"),
    }
}

/// A client with this source address; `None` where the system has only 127.0.0.1, or if it was
/// reset at once.
fn connect_from(last: u8, addr: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let source = SocketAddr::from((Ipv4Addr::new(127, 9, 0, last), 0));
    socket.bind(&source.into()).ok()?;
    socket.connect(&addr.into()).ok()?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
    Some(stream)
}

#[test]
fn a_listener_that_is_full_waits_and_the_others_do_not() {
    for placement in [Placement::default(), Placement::LeastLoaded] {
        let other = |_peer| handler_fn(|cx: &mut Context, bytes| cx.send(bytes));
        let builder = builder().placement(placement).listen("127.0.0.1:0", Raw::new(), other);
        let server = echoing(builder, |narrow| narrow.connections_max = Some(3));
        let [wide, narrow] = *server.local_addrs() else { panic!("two listeners") };
        let mut inside = enter(narrow, 3);
        let mut waiting = queue(narrow, 2);
        let full = wait_for("it is met", &server, |now| sum(now, |r| r.listener_pauses) > 0);
        assert_eq!(full.admitted, 3);
        let others = enter(wide, 5);
        assert_eq!(server.snapshot().admitted, 8);
        inside.iter_mut().for_each(|client| echo(client, b"still inside"));
        for come in 1..=2 {
            reset(inside.remove(0));
            let now = wait_for("one comes in", &server, |now| now.opened() == 8 + come);
            assert_eq!(now.admitted, 8);
        }
        waiting.iter_mut().for_each(greeted);
        drop((inside, waiting, others));
        empty(&server);
    }
}

/// One connection that ends somehow, or is turned away before.
fn end_somehow(addr: SocketAddr, number: usize) {
    // One that is turned away may learn of it while it still connects.
    let Ok(mut client) = try_connect(addr) else { return };
    let mut rest = Vec::new();
    match number % 5 {
        0 => {}
        1 => reset(client),
        2 => {
            let _refused = client.write_all(b"word").is_err();
            let _reset = client.shutdown(Shutdown::Write).is_err();
            let _turned_away = client.read_to_end(&mut rest).is_err();
        }
        3 => {
            let _refused = client.write_all(b"word").is_err();
            reset(client);
        }
        _ => drop(client.write_all(b"unread")),
    }
}

#[test]
fn every_limit_is_exact_after_two_thousand_mixed_ends() {
    const CLIENT_MAX: usize = 6;
    const LISTENER_MAX: usize = 9;
    const SERVER_MAX: usize = 11;
    let limited = builder().limits(|limits| {
        limits.connections_max = SERVER_MAX;
        limits.connections_per_client_max = Some(CLIENT_MAX);
    });
    let other = |_peer| handler_fn(|cx: &mut Context, bytes| cx.send(bytes));
    let limited = limited.listen("127.0.0.1:0", Raw::new(), other);
    let server = echoing(limited, |own| own.connections_max = Some(LISTENER_MAX));
    let [wide, narrow] = *server.local_addrs() else { panic!("two listeners") };
    thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                let ends = (0..500).map(|i| 4 * i + thread + i);
                ends.for_each(|i| end_somehow(if i % 3 == 0 { wide } else { narrow }, i));
            });
        }
    });
    empty(&server);
    let mut clients = enter(narrow, CLIENT_MAX);
    let before = sum(&server.snapshot(), |reactor| reactor.rejected_client);
    expect_refusal(narrow);
    expect_refusal(wide);
    assert_eq!(sum(&server.snapshot(), |reactor| reactor.rejected_client), before + 2);
    let control = server.control();
    control.admission(|a| a.connections_per_client_max = None).expect("in range");
    clients.extend(enter(narrow, LISTENER_MAX - CLIENT_MAX));
    let mut waiting = queue(narrow, 1);
    hold(&server, &mut clients, LISTENER_MAX);
    clients.extend(enter(wide, SERVER_MAX - LISTENER_MAX));
    waiting.extend(queue(wide, 1));
    hold(&server, &mut clients, SERVER_MAX);
    drop(clients);
    waiting.iter_mut().for_each(greeted);
    drop(waiting);
    empty(&server);
    let report = server.stop();
    assert_eq!(report.opened, report.closed_count());
}

#[test]
fn who_is_turned_away_is_told_so_even_if_it_has_spoken_already() {
    let limited = builder().limits(|limits| limits.connections_max = 2);
    let server = echoing(limited, |own| {
        own.when_full = WhenFull::Reject;
        own.farewell = "full\n".into();
    });
    let mut inside = enter(server.local_addr(), 2);
    assert_eq!(read_all(&mut connect(server.local_addr())), b"full\n");
    // What they say is there before anybody accepts them.
    server.suspend();
    assert_eq!(server.snapshot().connections(), 2);
    let mut early = queue(server.local_addr(), 3);
    server.resume();
    for client in &mut early {
        assert_eq!(read_all(client), b"full\n");
    }
    let now = server.snapshot();
    assert_eq!((sum(&now, |r| r.rejected_full), now.opened(), now.admitted), (4, 2, 2));
    inside.iter_mut().for_each(|client| echo(client, b"still inside"));
    inside.remove(0);
    wait_for("there is room", &server, |now| now.admitted == 1);
    inside.extend(enter(server.local_addr(), 1));
    assert_eq!(read_all(&mut connect(server.local_addr())), b"full\n");
}

#[test]
fn nobody_is_turned_away_or_evicted_while_there_is_room() {
    for policy in [WhenFull::Reject, WhenFull::EvictIdle] {
        let limited = builder().limits(|limits| {
            limits.connections_max = 8;
            limits.when_full = policy;
        });
        let server = echoing(limited, |_| {});
        let addr = server.local_addr();
        for _ in 0..30 {
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| drop(enter(addr, 2)));
                }
            });
            empty(&server);
        }
        let now = server.snapshot();
        let turned_away = sum(&now, |reactor| reactor.rejected_full) + closed_by(&now, "evicted");
        assert_eq!((now.opened(), turned_away), (240, 0));
    }
}

#[test]
fn who_is_turned_away_without_a_word_is_reset() {
    let limited = builder().limits(|limits| {
        limits.connections_max = 1;
        limits.when_full = WhenFull::Reject;
    });
    let server = echoing(limited, |_| {});
    let inside = enter(server.local_addr(), 1);
    expect_refusal(server.local_addr());
    drop(inside);
    empty(&server);
    enter(server.local_addr(), 1);
}

#[test]
fn one_client_has_so_many_and_the_others_do_not_mind() {
    const MAX: usize = 3;
    let limited = builder().limits(|limits| limits.connections_per_client_max = Some(MAX));
    let server = echoing(limited, |own| own.farewell = "too many".into());
    let addr = server.local_addr();
    let mut inside = enter(addr, MAX);
    for _ in 0..20 {
        assert_eq!(read_all(&mut connect(addr)), b"too many");
    }
    let now = server.snapshot();
    assert_eq!((sum(&now, |r| r.rejected_client), now.admitted), (20, MAX));
    let others: Vec<_> = (1..=4).filter_map(|last| connect_from(last, addr)).collect();
    for mut other in others {
        echo(&mut other, b"another one");
    }
    for _ in 0..10 {
        reset(inside.remove(0));
        wait_for("it is gone", &server, |now| now.admitted == MAX - 1);
        inside.extend(enter(addr, 1));
        assert_eq!(read_all(&mut connect(addr)), b"too many");
    }
}

#[test]
fn a_network_is_one_client_if_it_is_said_to_be() {
    let limited = builder().limits(|limits| {
        limits.connections_per_client_max = Some(2);
        limits.client_prefix_v4 = 24;
    });
    let server = echoing(limited, |_| {});
    let addr = server.local_addr();
    let Some(mut one) = connect_from(1, addr) else { return };
    let mut two = connect_from(2, addr).expect("as the first");
    echo(&mut one, b"one");
    echo(&mut two, b"two");
    if let Some(mut three) = connect_from(3, addr) {
        expect_reset(&mut three);
    }
    echo(&mut connect(addr), b"another network");
    drop(one);
    wait_for("it is gone", &server, |now| now.admitted == 1);
    echo(&mut connect_from(3, addr).expect("as the first"), b"now there is room");
}

#[test]
fn beyond_the_rate_clients_wait_for_their_turn_and_all_get_it() {
    let rate = Rate::per_second(100).burst(2);
    for own in [true, false] {
        let paced = builder().limits(|limits| limits.accept_rate = (!own).then_some(rate));
        let server = echoing(paced, move |it| it.accept_rate = own.then_some(rate));
        server.suspend();
        assert_eq!(server.snapshot().opened(), 0);
        let mut waiting = queue(server.local_addr(), 12);
        server.resume();
        waiting.iter_mut().for_each(greeted);
        let now = server.snapshot();
        assert!(sum(&now, |reactor| reactor.rate_pauses) > 0, "{now:?}");
        assert_eq!((now.opened(), now.admitted), (12, 12));
    }
}

#[test]
fn beyond_the_rate_clients_are_turned_away_if_that_is_wanted() {
    let server = echoing(builder().reactors(1), |own| {
        own.accept_rate = Some(Rate::per_second(1).burst(3));
        own.when_too_fast = WhenFull::Reject;
        own.farewell = "slowly".into();
    });
    server.suspend();
    assert_eq!(server.snapshot().opened(), 0);
    let clients = queue(server.local_addr(), 40);
    server.resume();
    let all = |now: &Snapshot| now.opened() + sum(now, |reactor| reactor.rejected_rate);
    let now = wait_for("all are dealt with", &server, |now| all(now) == 40);
    assert!(now.opened() >= 3 && now.opened() < 40, "{now:?}");
    let mut turned_away = 0;
    for mut client in clients {
        let mut told = [0; 5];
        client.read_exact(&mut told).expect("it is told something");
        turned_away += u64::from(&told == b"slowl");
    }
    assert_eq!(turned_away, 40 - now.opened());
}

#[test]
fn two_limits_that_are_both_met_let_go_when_both_are_over() {
    let limited = builder().limits(|limits| {
        limits.connections_max = 2;
        limits.accept_rate = Some(Rate::per_second(40).burst(2));
    });
    let server = echoing(limited, |_| {});
    let mut inside = enter(server.local_addr(), 2);
    for _ in 0..10 {
        let mut waiting = queue(server.local_addr(), 2);
        drop(inside);
        waiting.iter_mut().for_each(greeted);
        assert_eq!(server.snapshot().admitted, 2);
        inside = waiting;
    }
}

#[test]
fn the_idlest_makes_room() {
    let limited = builder().reactors(1).limits(|limits| {
        limits.connections_max = 3;
        limits.when_full = WhenFull::EvictIdle;
    });
    let server = echoing(limited, |_| {});
    let mut inside = enter(server.local_addr(), 3);
    for round in 1..=5 {
        // The first one speaks: so the second is the idlest.
        echo(&mut inside[0], b"I am here");
        let fresh = enter(server.local_addr(), 1);
        let mut evicted = inside.remove(1);
        assert!(!ends_in_reset(&mut evicted), "a clean end");
        inside.extend(fresh);
        let now = wait_for("it is counted", &server, |now| closed_by(now, "evicted") == round);
        assert_eq!((now.admitted, now.connections()), (3, 3));
        inside.iter_mut().for_each(|client| echo(client, b"still inside"));
    }
}

#[test]
fn a_listener_that_is_full_evicts_its_own() {
    let other = |_peer| handler_fn(|cx: &mut Context, bytes| cx.send(bytes));
    let limited = builder().reactors(1).listen("127.0.0.1:0", Raw::new(), other);
    let server = echoing(limited, |own| {
        own.connections_max = Some(2);
        own.when_full = WhenFull::EvictIdle;
    });
    let [wide, narrow] = *server.local_addrs() else { panic!("two listeners") };
    let mut idlest = enter(wide, 2);
    let mut inside = enter(narrow, 2);
    let fresh = enter(narrow, 1);
    assert!(!ends_in_reset(&mut inside.remove(0)));
    idlest.iter_mut().chain(&mut inside).for_each(|client| echo(client, b"still inside"));
    drop(fresh);
}

#[test]
fn nobody_is_evicted_in_the_middle_of_a_frame_and_room_is_made_once_it_is_whole() {
    let limited = builder().reactors(1).limits(|limits| {
        limits.connections_max = 2;
        limits.when_full = WhenFull::EvictIdle;
    });
    let echo = |_peer| handler_fn(|cx: &mut Context, frame: bytes::BytesMut| cx.send(frame));
    let server = limited.listen("127.0.0.1:0", frames(), echo).start().expect("it starts");
    let mut inside: Vec<_> = (0..2).map(|_| connect(server.local_addr())).collect();
    for client in &mut inside {
        client.write_all(&frame(b"whole")[..7]).expect("a part of it");
    }
    wait_for("it has come", &server, |now| sum(now, |reactor| reactor.held_bytes) == 14);
    let mut waiting = connect(server.local_addr());
    waiting.write_all(&frame(b"hello")).expect("it is queued");
    let pauses = |now: &Snapshot| sum(now, |reactor| reactor.limit_pauses);
    let now = wait_for("nobody can go", &server, |now| pauses(now) > 2);
    assert_eq!((now.opened(), closed_by(&now, "evicted")), (2, 0));
    inside[1].write_all(&frame(b"whole")[7..]).expect("the rest");
    assert_eq!(common::read_frame(&mut inside[1]).expect("it was served"), b"whole");
    assert_eq!(common::read_frame(&mut waiting).expect("it is inside"), b"hello");
    assert!(!ends_in_reset(&mut inside.remove(1)));
    inside[0].write_all(&frame(b"whole")[7..]).expect("the rest");
    assert_eq!(common::read_frame(&mut inside[0]).expect("it was served"), b"whole");
}

#[test]
fn a_filter_decides_before_there_is_a_handler() {
    hush();
    let lets_in = Arc::new(AtomicBool::new(false));
    let (decides, panics) = (Arc::clone(&lets_in), Arc::new(AtomicBool::new(false)));
    let breaks = Arc::clone(&panics);
    let server = echoing(builder(), move |own| {
        own.filter(move |peer| {
            assert!(peer.ip().is_loopback());
            if breaks.load(Ordering::SeqCst) {
                panic!("{PLANTED}");
            }
            decides.load(Ordering::SeqCst)
        });
    });
    for _ in 0..5 {
        expect_refusal(server.local_addr());
    }
    let now = wait_for("they are gone", &server, |now| closed_by(now, "refused") == 5);
    assert_eq!((now.admitted, sum(&now, |reactor| reactor.panics)), (0, 0));
    panics.store(true, Ordering::SeqCst);
    expect_refusal(server.local_addr());
    panics.store(false, Ordering::SeqCst);
    lets_in.store(true, Ordering::SeqCst);
    let inside = enter(server.local_addr(), 3);
    let now = server.snapshot();
    assert_eq!((sum(&now, |reactor| reactor.panics), now.admitted), (1, 3));
    drop(inside);
    let report = server.stop();
    assert_eq!((report.closed_by("refused"), report.closed_by("handler_panicked")), (5, 1));
}

#[test]
fn a_filter_that_takes_its_time_delays_nobody_else() {
    let (open, gate) = mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let slow = Arc::new(AtomicBool::new(false));
    let is_slow = Arc::clone(&slow);
    let server = echoing(builder().reactors(1), move |own| {
        own.filter(move |_| {
            if is_slow.swap(false, Ordering::SeqCst) {
                let gate = gate.lock().expect("nobody panics");
                gate.recv().expect("it is opened");
            }
            true
        });
    });
    let mut inside = enter(server.local_addr(), 2);
    slow.store(true, Ordering::SeqCst);
    let mut screened = connect(server.local_addr());
    screened.write_all(b"hello").expect("it is queued");
    wait_until("it is being screened", || !slow.load(Ordering::SeqCst));
    for _ in 0..10 {
        inside.iter_mut().for_each(|client| echo(client, b"not delayed"));
    }
    enter(server.local_addr(), 2);
    open.send(()).expect("it waits");
    greeted(&mut screened);
}

#[test]
fn limits_are_changed_while_the_server_runs() {
    let limited = builder().limits(|limits| limits.connections_max = 4);
    let server = echoing(limited, |_| {});
    let (addr, control) = (server.local_addr(), server.control());
    let mut inside = enter(addr, 4);
    let mut waiting = queue(addr, 3);
    wait_for("it is full", &server, |now| sum(now, |reactor| reactor.limit_pauses) > 0);
    // Up: those who wait come in.
    control.admission(|a| a.connections_max = 6).expect("in range");
    wait_for("two come in", &server, |now| now.admitted == 6);
    // Down: nobody is cut, and nobody comes in before there is room.
    control.admission(|a| a.connections_max = 2).expect("in range");
    inside.iter_mut().for_each(|client| echo(client, b"still inside"));
    inside.clear();
    wait_for("some leave", &server, |now| now.admitted == 2);
    assert_eq!(server.snapshot().opened(), 6);
    // Another way to deal with those who come now.
    control.admission(|a| a.listeners[0].when_full = WhenFull::Reject).expect("in range");
    wait_for("one is turned away", &server, |now| sum(now, |r| r.rejected_full) == 1);
    control.admission(|a| a.connections_max = 100).expect("in range");
    control.admission(|a| a.listeners[0].connections_max = Some(3)).expect("in range");
    let more = enter(addr, 1);
    expect_refusal(addr);
    let mut served = 0;
    for client in &mut waiting {
        served += u64::from(client.read_exact(&mut [0; 5]).is_ok());
    }
    assert_eq!((served, server.snapshot().admitted), (2, 3));
    drop(more);

    let refused = control.admission(|a| {
        a.connections_max = 7;
        a.accept_rate = Some(Rate::per_second(0));
    });
    assert!(matches!(refused, Err(Error::Config { field: "accept_rate", .. })), "{refused:?}");
    let mut seen = 0;
    control.admission(|a| seen = a.connections_max).expect("as it was");
    assert_eq!(seen, 100, "what was refused has changed nothing");
}

#[test]
fn a_rate_that_is_changed_holds_for_those_who_wait() {
    let server = echoing(builder(), |own| own.accept_rate = Some(Rate::per_second(1).burst(1)));
    server.suspend();
    assert_eq!(server.snapshot().opened(), 0);
    let mut waiting = queue(server.local_addr(), 40);
    server.resume();
    wait_for("it is met", &server, |now| sum(now, |reactor| reactor.rate_pauses) > 0);
    server.control().admission(|a| a.listeners[0].accept_rate = None).expect("in range");
    // At one a second this would take longer than any client has patience.
    waiting.iter_mut().for_each(greeted);
}

#[test]
fn what_a_listener_cannot_do_is_refused_by_name() {
    type Adapt = fn(&mut Listening);
    let cases: &[(&str, &str, Adapt)] = &[
        ("connections_max", "1 to 2147483648", |l| l.connections_max = Some(0)),
        ("accept_rate", "1 to 1000000", |l| l.accept_rate = Some(Rate::per_second(1_000_001))),
        ("accept_rate", "1 to 1000000", |l| l.accept_rate = Some(Rate::per_second(1).burst(0))),
        ("when_too_fast", "Pause or Reject", |l| l.when_too_fast = WhenFull::EvictIdle),
        ("farewell", "0 to 4096", |l| l.farewell = vec![0; 4_097].into()),
    ];
    for &(field, range, adapt) in cases {
        let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
        let asked = builder().listen_with("127.0.0.1:0", Raw::new(), echo, adapt);
        let error = asked.start().expect_err("out of range");
        let text = error.to_string();
        assert!(text.contains(&format!("`{field}` is")) && text.contains(range), "{text}");
    }
}
