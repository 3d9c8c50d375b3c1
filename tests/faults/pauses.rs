//! The whole process stopped and continued: time jumps, calls are interrupted, nobody is lost.

use std::io::Write;
use std::time::Duration;

use crate::client::{answered, connect_many, connect_small, push, served};
use crate::process::{pass, run, signal, wait_for};
use crate::server::Server;

#[test]
fn a_pause_longer_than_the_write_stall_loses_no_peer_that_reads() {
    // Once with more news after the pause than one poll tells: what is late comes after all of it.
    for settings in ["write_stall_ms=1500", "write_stall_ms=1500 reactors=1 events_per_turn=1"] {
        peers_that_read_survive_a_pause(&mut Server::start(settings));
    }
}

fn peers_that_read_survive_a_pause(server: &mut Server) {
    let mut clients = connect_many(server.addr, 20);
    assert_eq!(served(&mut clients), 20);
    let mut slow: Vec<_> = (0..8).map(|_| connect_small(server.addr, 64 << 10)).collect();
    let sent = push(&mut slow, 16 << 20);
    let is_stuck = || server.snapshot()["held"] >= 8 * (256 << 10);
    assert!(wait_for(is_stuck), "the server's output is not stuck");
    signal(server.pid, "STOP");
    for client in &mut clients {
        client.write_all(b"while it is away").expect("the system takes it");
    }
    // Longer than the time after which a peer counts as stalled, during which these cannot even
    // be heard: what they take while it is away counts as progress as soon as it is back.
    let readers: Vec<_> = slow
        .into_iter()
        .zip(sent)
        .map(|(mut client, sent)| {
            std::thread::spawn(move || answered(&mut client, &vec![b'p'; sent]))
        })
        .collect();
    pass(Duration::from_millis(2_000));
    signal(server.pid, "CONT");
    assert!(clients.iter_mut().all(|client| answered(client, b"while it is away")));
    for reader in readers {
        assert!(reader.join().expect("it does not panic"), "a peer that reads was given up");
    }
    assert_eq!(served(&mut clients), 20);
}

#[test]
fn a_storm_of_stops_and_continues_interrupts_calls_and_nothing_else() {
    let server = Server::start("");
    let mut clients = connect_many(server.addr, 20);
    let script = format!(
        "for n in $(seq 200); do kill -STOP {pid}; kill -CONT {pid}; done",
        pid = server.pid
    );
    std::thread::scope(|scope| {
        let storm = scope.spawn(|| run("sh", &["-c", &script]));
        while !storm.is_finished() {
            assert_eq!(served(&mut clients), 20);
        }
        assert!(storm.join().expect("it does not panic"));
    });
    assert_eq!(served(&mut clients), 20);
    server.stop();
}
