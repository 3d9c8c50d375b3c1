//! Draining loses nothing: what is in flight is answered, who waits is served, idle connections
//! are asked to end, and the deadline ends the rest.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the calls it is about")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::{
    Call, Gate, PATIENCE, builder, by_default, connect, echo, ends_in_reset, frame, frames, name,
    pattern, pause, read_all, read_frame, serve, sum, try_connect, wait_for,
};
use switchboard::Raw;
use switchboard::close::Blame;
use switchboard::config::Placement;

/// Reads to the end in a thread of its own, then goes.
fn reader(mut stream: TcpStream) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let bytes = read_all(&mut stream);
        stream.shutdown(Shutdown::Write).expect("finish");
        bytes
    })
}

#[test]
fn the_reply_of_a_handler_that_runs_while_the_drain_begins_arrives() {
    let gate = Gate::default();
    let pass = gate.clone();
    let (server, journal) = serve(builder(), frames(), move |cx, call| {
        if matches!(call, Call::Frame(_)) {
            pass.pass();
        }
        by_default(cx, call)
    });
    let addr = server.local_addr();
    let mut busy = connect(addr);
    let idle = connect(addr);
    let peers = [name(&busy), name(&idle)];
    // The second request is read together with the first.
    busy.write_all(&[frame(b"one"), frame(b"two")].concat()).expect("write");
    gate.wait_for(1);
    let idle = reader(idle);
    let releaser = thread::spawn(move || {
        // The idle connection ends first: so the drain has begun.
        assert_eq!(idle.join().expect("the reader ends"), b"");
        gate.open();
    });
    let busy = reader(busy);
    let report = server.drain(PATIENCE, Duration::ZERO);
    releaser.join().expect("the releaser ends");
    let replies = busy.join().expect("the reader ends");
    assert_eq!(replies, [frame(b"one"), frame(b"two")].concat());
    assert_eq!((report.opened, report.closed_by("drained"), report.stuck), (2, 2, 0), "{report}");
    for peer in peers {
        let (calls, reason) = journal.life(peer);
        let last = [Call::Drain, Call::Close("drained"), Call::Dropped];
        assert!(calls.ends_with(&last), "{calls:?}");
        assert_eq!((reason.blame(), reason.unsent_bytes()), (Blame::Operator, 0));
    }
}

#[test]
fn idle_connections_say_goodbye_and_end() {
    let (server, journal) = serve(builder(), Raw::new(), |cx, call| {
        if *call == Call::Drain {
            cx.send("goodbye")?;
        }
        by_default(cx, call)
    });
    let mut clients: Vec<_> = (0..50).map(|_| connect(server.local_addr())).collect();
    clients.iter_mut().for_each(|client| echo(client, b"hello"));
    let peers: Vec<_> = clients.iter().map(name).collect();
    let readers: Vec<_> = clients.into_iter().map(reader).collect();
    let report = server.drain(PATIENCE, Duration::ZERO);
    for reader in readers {
        assert_eq!(reader.join().expect("the reader ends"), b"goodbye");
    }
    assert_eq!((report.opened, report.closed_by("drained")), (50, 50), "{report}");
    for peer in peers {
        let (calls, _) = journal.life(peer);
        let hello = Call::Frame(b"hello".to_vec());
        let end = Call::Close("drained");
        assert_eq!(calls, [Call::Open, hello, Call::Drain, end, Call::Dropped]);
    }
}

#[test]
fn a_request_that_has_arrived_when_the_drain_begins_is_answered() {
    for _ in 0..20 {
        let (server, _journal) = serve(builder(), frames(), by_default);
        let mut clients: Vec<_> = (0..20).map(|_| connect(server.local_addr())).collect();
        for client in &mut clients {
            client.write_all(&frame(b"open")).expect("write");
            assert_eq!(read_frame(client).expect("a frame"), b"open");
        }
        // On their way, over loopback, means: in the system's hands on the server's side.
        clients.iter_mut().for_each(|client| client.write_all(&frame(b"last")).expect("write"));
        let readers: Vec<_> = clients.into_iter().map(reader).collect();
        let report = server.drain(PATIENCE, Duration::ZERO);
        for reader in readers {
            assert_eq!(reader.join().expect("the reader ends"), frame(b"last"));
        }
        assert_eq!((report.opened, report.closed_by("drained")), (20, 20), "{report}");
    }
}

#[test]
fn clients_that_wait_to_be_accepted_are_served_first() {
    for round in 0..40 {
        // Half of them are handed to reactors that have no listener and nothing to wait for.
        let placement = if round % 4 == 0 { Placement::default() } else { Placement::LeastLoaded };
        let four = builder().reactors(4).placement(placement);
        let (server, _journal) = serve(four, frames(), by_default);
        server.suspend();
        assert_eq!(server.snapshot().opened(), 0);
        let mut clients: Vec<_> = (0..20).map(|_| connect(server.local_addr())).collect();
        clients.iter_mut().for_each(|client| client.write_all(&frame(b"served?")).expect("write"));
        assert_eq!(server.snapshot().opened(), 0);
        let readers: Vec<_> = clients.into_iter().map(reader).collect();
        let report = server.drain(PATIENCE, Duration::ZERO);
        for reader in readers {
            assert_eq!(reader.join().expect("the reader ends"), frame(b"served?"));
        }
        assert_eq!((report.opened, report.closed_by("drained")), (20, 20), "{report}");
    }
}

#[test]
fn output_that_is_queued_when_the_drain_begins_arrives() {
    const MUCH: usize = 12 << 20;
    let (server, _journal) = serve(builder(), Raw::new(), |cx, call| match call {
        Call::Frame(_) => Ok(cx.send(pattern(MUCH, 6))?),
        _ => by_default(cx, call),
    });
    let mut client = connect(server.local_addr());
    client.write_all(b"go").expect("write");
    wait_for("output waits", &server, |now| sum(now, |reactor| reactor.held_bytes) > 0);
    let client = reader(client);
    let report = server.drain(PATIENCE, Duration::ZERO);
    assert!(client.join().expect("the reader ends") == pattern(MUCH, 6));
    assert_eq!((report.opened, report.closed_by("drained")), (1, 1), "{report}");
}

#[test]
fn the_deadline_ends_those_that_do_not_end_by_themselves() {
    let (server, journal) = serve(builder(), Raw::new(), |cx, call| match call {
        Call::Drain => Ok(()),
        _ => by_default(cx, call),
    });
    let mut clients: Vec<_> = (0..10).map(|_| connect(server.local_addr())).collect();
    clients.iter_mut().for_each(|client| echo(client, b"here"));
    let peers: Vec<_> = clients.iter().map(name).collect();
    let report = server.drain(Duration::from_millis(100), Duration::ZERO);
    assert_eq!((report.opened, report.closed_by("server_stopped")), (10, 10), "{report}");
    for (peer, mut client) in peers.into_iter().zip(clients) {
        let (calls, _) = journal.life(peer);
        let end = Call::Close("server_stopped");
        assert_eq!(calls[2..], [Call::Drain, end, Call::Dropped]);
        let _either_way = ends_in_reset(&mut client);
    }
}

#[test]
fn those_inside_are_served_until_they_end_and_the_port_refuses() {
    let (server, journal) = serve(builder(), Raw::new(), |cx, call| match call {
        Call::Drain => Ok(()),
        _ => by_default(cx, call),
    });
    let addr = server.local_addr();
    let mut client = connect(addr);
    echo(&mut client, b"before");
    let peer = name(&client);
    let over = AtomicBool::new(false);
    let journal = thread::scope(|scope| {
        let (over, client) = (&over, &mut client);
        let client = scope.spawn(move || {
            journal.wait_for(peer, &Call::Drain);
            // Ours was the last that was accepted.
            while try_connect(addr).is_ok() {
                pause(Duration::from_millis(1));
            }
            for _ in 0..50 {
                echo(client, b"meanwhile");
            }
            over.store(true, Ordering::SeqCst);
            client.shutdown(Shutdown::Write).expect("finish");
            assert_eq!(client.read(&mut [0]).expect("a clean end"), 0);
            journal
        });
        let report = server.drain(PATIENCE, Duration::ZERO);
        assert!(over.load(Ordering::SeqCst), "the drain did not wait");
        assert_eq!(report.opened, report.closed_count());
        client.join().expect("the client ends")
    });
    assert_eq!(journal.life(peer).1.cause().label(), "peer_finished");
    assert!(try_connect(addr).is_err());
}

#[test]
fn a_server_without_connections_has_drained_at_once() {
    let (server, _journal) = serve(builder(), Raw::new(), by_default);
    let report = server.drain(PATIENCE, Duration::ZERO);
    assert_eq!((report.opened, report.stuck), (0, 0));
    assert!(report.elapsed < PATIENCE, "it waited for nobody");
}

#[test]
fn who_ends_later_than_it_is_asked_to_was_drained_all_the_same() {
    for (last, heard) in [("close", "closed"), ("finish", "finished")] {
        let (server, journal) = serve(builder(), Raw::new(), |cx, call| match call {
            Call::Drain => Ok(()),
            Call::Frame(frame) if frame == b"close" => {
                cx.send("closed")?;
                cx.close();
                Ok(())
            }
            Call::Frame(frame) if frame == b"finish" => {
                cx.send("finished")?;
                cx.finish();
                Ok(())
            }
            _ => by_default(cx, call),
        });
        let mut client = connect(server.local_addr());
        echo(&mut client, b"before");
        let peer = name(&client);
        let (report, journal) = thread::scope(|scope| {
            let client = scope.spawn(move || {
                journal.wait_for(peer, &Call::Drain);
                client.write_all(last.as_bytes()).expect("write");
                assert_eq!(read_all(&mut client), heard.as_bytes());
                client.shutdown(Shutdown::Write).expect("finish");
                journal
            });
            (server.drain(PATIENCE, Duration::ZERO), client.join().expect("the client ends"))
        });
        assert_eq!(report.closed_by("drained"), 1);
        assert_eq!(journal.life(peer).1.cause().label(), "drained");
    }
}

#[test]
fn an_operator_drains_a_server_that_somebody_else_waits_for() {
    let (server, journal) = serve(builder(), Raw::new(), by_default);
    let mut client = connect(server.local_addr());
    echo(&mut client, b"before");
    let peer = name(&client);
    let operator = server.control();
    let report = thread::scope(|scope| {
        let waits = scope.spawn(move || server.wait().expect("it ends well"));
        operator.drain();
        operator.drain();
        assert_eq!(read_all(&mut client), b"", "nothing but the end");
        client.shutdown(Shutdown::Write).expect("finish");
        waits.join().expect("no panic")
    });
    assert_eq!((report.asked, report.closed_by("drained")), (1, 1));
    assert_eq!(journal.life(peer).1.cause().label(), "drained");
    operator.drain();
}
