//! The whole process stopped and continued: time jumps, calls are interrupted, nobody is lost.

use std::io::Write;
use std::time::Duration;

use crate::client::{answered, connect_many, connect_small, ends, push, served};
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
fn a_pause_longer_than_every_timeout_loses_nobody_who_has_spoken() {
    for settings in ["", "reactors=1 events_per_turn=1"] {
        let times = "idle_ms=1000 frame_ms=1000 first_frame_ms=1000 linger_ms=50";
        let mut server = Server::start(&format!("{times} {settings}"));
        let mut clients = connect_many(server.addr, 50);
        assert_eq!(served(&mut clients), 50);
        let mut silent = connect_many(server.addr, 5);
        assert_eq!(served(&mut silent), 5);
        // A frame that has begun, and a first one that has not come.
        let mut framed = connect_many(server.frames, 20);
        for client in &mut framed[..10] {
            client.write_all(&[0, 0]).expect("the system takes it");
        }
        assert!(wait_for(
            || server.snapshot()["connections"] == 75 && server.snapshot()["held"] == 20
        ));
        signal(server.pid, "STOP");
        for client in &mut clients {
            client.write_all(b"while it is away").expect("the system takes it");
        }
        for (number, client) in framed.iter_mut().enumerate() {
            let rest: &[u8] = if number < 10 { &[0, 1, b'x'] } else { &[0, 0, 0, 1, b'x'] };
            client.write_all(rest).expect("the system takes it");
        }
        pass(Duration::from_millis(1_500));
        signal(server.pid, "CONT");
        assert!(clients.iter_mut().all(|client| answered(client, b"while it is away")));
        assert!(framed.iter_mut().all(|client| answered(client, &[0, 0, 0, 1, b'x'])));
        // Those who have not spoken are gone, and nobody else.
        assert!(silent.iter_mut().all(ends), "it may not take that long");
        assert_eq!(served(&mut clients), 50);
        drop((clients, silent, framed));
        assert!(server.is_empty());
        let report = server.stop();
        assert_eq!(report["idle_timeout"], 5, "{report:?}");
    }
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
