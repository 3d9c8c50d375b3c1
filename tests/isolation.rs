//! A handler that blocks or burns CPU delays nobody else: seen in counts, not in times.

mod common;

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use common::{
    Call, Gate, Journal, PATIENCE, builder, by_default, connect, echo, now, serve, sum, wait_for,
};
use switchboard::config::{Placement, Scheduling};
use switchboard::{Builder, Error, Raw, Server};

/// An echo whose handler waits at the gate if the first byte is a `B`.
fn blocking(builder: Builder) -> (Server, Journal, Gate) {
    let gate = Gate::default();
    let its = gate.clone();
    let (server, journal) = serve(builder, Raw::new(), move |cx, call| {
        if matches!(call, Call::Frame(bytes) if bytes.starts_with(b"B")) {
            its.pass();
        }
        by_default(cx, call)
    });
    (server, journal, gate)
}

fn one_reactor() -> Builder {
    builder().reactors(1)
}

fn expect_echo(stream: &mut TcpStream, bytes: &[u8]) {
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).expect("the reply");
    assert_eq!(back, bytes);
}

#[test]
fn a_handler_that_blocks_does_not_stop_the_others_of_its_reactor() {
    let (server, _journal, gate) = blocking(one_reactor());
    let mut blocked = connect(server.local_addr());
    let mut other = connect(server.local_addr());
    echo(&mut other, b"before");
    blocked.write_all(b"Block").expect("write");
    gate.wait_for(1);
    for _ in 0..100 {
        echo(&mut other, b"meanwhile");
    }
    echo(&mut connect(server.local_addr()), b"a new one");
    assert!(server.snapshot().take_overs >= 1);
    wait_for("the operator sees one", &server, |now| sum(now, |r| r.handlers_out as u64) == 1);
    gate.open();
    expect_echo(&mut blocked, b"Block");
    wait_for("and then none", &server, |now| sum(now, |r| r.handlers_out as u64) == 0);
    let after = wait_for("the thread is back", &server, |now| now.lost_races >= 1);
    assert!(sum(&after, |reactor| reactor.overtaken) >= 1);
}

#[test]
fn twenty_handlers_that_block_are_twenty_threads_and_delay_nobody() {
    let (server, _journal, gate) = blocking(one_reactor());
    let mut other = connect(server.local_addr());
    let mut blocked: Vec<_> = (0..20).map(|_| connect(server.local_addr())).collect();
    for (count, stream) in (1..).zip(&mut blocked) {
        stream.write_all(b"B").expect("write");
        gate.wait_for(count);
        echo(&mut other, b"meanwhile");
    }
    let now = server.snapshot();
    assert!(now.threads > 20, "{} threads", now.threads);
    assert!(now.take_overs >= 20, "{} take-overs", now.take_overs);
    gate.open();
    blocked.iter_mut().for_each(|stream| expect_echo(stream, b"B"));
    let report = server.stop();
    assert_eq!((report.opened, report.closed_count(), report.stuck), (21, 21, 0));
}

#[test]
fn no_more_threads_come_than_are_allowed() {
    let (server, _journal, gate) = blocking(one_reactor().workers_max(3));
    let mut blocked: Vec<_> = (0..10).map(|_| connect(server.local_addr())).collect();
    blocked.iter_mut().for_each(|stream| stream.write_all(b"B").expect("write"));
    gate.wait_for(4);
    gate.open();
    blocked.iter_mut().for_each(|stream| expect_echo(stream, b"B"));
    let threads = server.snapshot().threads;
    assert!(threads <= 4, "{threads} threads");
}

#[test]
fn a_connection_that_blocks_twice_goes_to_the_slow_lane_and_comes_back() {
    let (server, _journal, gate) = blocking(one_reactor());
    let mut slow = connect(server.local_addr());
    let mut other = connect(server.local_addr());
    for round in 1..=2 {
        slow.write_all(b"B").expect("write");
        gate.wait_for(round);
        // Served beside it: so its thread has lost the reactor.
        echo(&mut other, b"meanwhile");
        gate.let_one_go();
        expect_echo(&mut slow, b"B");
    }
    wait_for("it counts as slow", &server, |now| sum(now, |reactor| reactor.slowed) >= 1);
    let before = server.snapshot().offloads;
    echo(&mut slow, b"through the slow lane");
    assert!(server.snapshot().offloads > before);
    // A run of quick jobs earns it trust again; on a busy machine some of them are not.
    wait_for("it is trusted again", &server, |now| {
        (0..64).for_each(|_| echo(&mut slow, b"quick"));
        sum(now, |reactor| reactor.trusted_again) >= 1
    });
    gate.open();
}

#[test]
fn without_workers_every_handler_runs_on_its_reactors_thread() {
    let server = builder().workers(0).workers_max(0);
    let (sender, names) = channel();
    let (server, _journal) = serve(server, Raw::new(), move |cx, call| {
        sender.send(thread::current().name().map(str::to_owned))?;
        by_default(cx, call)
    });
    let mut clients: Vec<_> = (0..8).map(|_| connect(server.local_addr())).collect();
    for client in &mut clients {
        echo(client, b"inline");
    }
    let now = server.snapshot();
    assert_eq!((now.threads, now.take_overs), (2, 0));
    drop(clients);
    assert_eq!(server.stop().closed_count(), 8);
    for name in names.try_iter() {
        let name = name.expect("our threads have names");
        assert!(name.starts_with("switchboard-reactor-"), "{name}");
    }
}

#[test]
fn every_scheduling_serves_under_every_placement() {
    for scheduling in [Scheduling::TakeOver, Scheduling::HandOff, Scheduling::Inline] {
        for placement in [Placement::LeastLoaded, Placement::ReusePort] {
            let asked = builder().reactors(4).scheduling(scheduling).placement(placement);
            let started = asked
                .listen("127.0.0.1:0", Raw::new(), |_| {
                    switchboard::handler_fn(|cx, bytes| cx.send(bytes))
                })
                .start();
            let server = match started {
                Ok(server) => server,
                Err(Error::Io { source, .. }) => {
                    // Only Linux balances sockets that share a port.
                    assert_eq!(source.kind(), std::io::ErrorKind::Unsupported);
                    assert!(placement == Placement::ReusePort && !cfg!(target_os = "linux"));
                    continue;
                }
                Err(other) => panic!("{other}"),
            };
            let mut clients: Vec<_> = (0..24).map(|_| connect(server.local_addr())).collect();
            for round in 0..20 {
                let word = format!("{scheduling:?} {placement:?} {round}");
                clients.iter_mut().for_each(|client| echo(client, word.as_bytes()));
            }
            drop(clients);
            wait_for("all are gone", &server, |now| now.connections() == 0);
            let report = server.stop();
            assert_eq!((report.opened, report.closed_by("peer_finished")), (24, 24), "{report}");
        }
    }
}

#[test]
fn least_loaded_balances_to_within_one_connection() {
    let four = builder().reactors(4).placement(Placement::LeastLoaded);
    let (server, _journal) = serve(four, Raw::new(), by_default);
    let mut clients = Vec::new();
    for count in 1..=63 {
        let mut client = connect(server.local_addr());
        echo(&mut client, b"here");
        clients.push(client);
        let now = server.snapshot();
        let counts: Vec<_> = now.reactors.iter().map(|reactor| reactor.connections).collect();
        let (least, most) = (counts.iter().min(), counts.iter().max());
        let spread = most.zip(least).map(|(most, least)| most - least);
        assert!(spread <= Some(1) && now.connections() == count, "{counts:?}");
    }
}

/// Keeps a core busy for some tens of microseconds.
fn burn(micros: u64) {
    let begun = now();
    while begun.elapsed() < Duration::from_micros(micros) {
        black_box((0..100u64).sum::<u64>());
    }
}

#[test]
fn idle_threads_help_a_reactor_whose_handlers_burn_cpu() {
    // More and more of the time, until it is most of it, however slow the system's calls are.
    let burned = Arc::new(AtomicU64::new(60));
    let its = burned.clone();
    let (server, _journal) = serve(one_reactor(), Raw::new(), move |cx, call| {
        burn(its.load(SeqCst));
        by_default(cx, call)
    });
    let mut clients: Vec<_> = (0..64).map(|_| connect(server.local_addr())).collect();
    let deadline = now() + PATIENCE;
    while server.snapshot().steals == 0 {
        assert!(now() < deadline, "nobody helps: {:?}", server.snapshot());
        for _ in 0..10 {
            clients.iter_mut().for_each(|client| client.write_all(b"work").expect("write"));
            clients.iter_mut().for_each(|client| expect_echo(client, b"work"));
        }
        burned.store(10_000.min(2 * burned.load(SeqCst)), SeqCst);
    }
    // What was stolen was served as well as all else.
    clients.iter_mut().for_each(|client| echo(client, b"still"));
    drop(clients);
    wait_for("all are gone", &server, |now| now.connections() == 0);
    let report = server.stop();
    assert_eq!((report.opened, report.closed_count()), (64, 64));
}
