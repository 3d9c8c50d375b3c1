//! The whole process stopped and continued: time jumps, calls are interrupted, nobody is lost.

use std::io::Write;
use std::time::Duration;

use crate::client::{answered, connect_many, connect_small, push, served};
use crate::process::{pass, run, signal};
use crate::server::Server;

#[test]
fn a_pause_longer_than_the_write_stall_loses_no_peer_that_reads() {
    let server = Server::start("write_stall_ms=1000");
    let mut clients = connect_many(server.addr, 20);
    assert_eq!(served(&mut clients), 20);
    let mut slow: Vec<_> = (0..5).map(|_| connect_small(server.addr, 2048)).collect();
    let sent = push(&mut slow, 400_000);
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
    pass(Duration::from_millis(1_500));
    signal(server.pid, "CONT");
    assert!(clients.iter_mut().all(|client| answered(client, b"while it is away")));
    for reader in readers {
        assert!(reader.join().expect("it does not panic"), "a peer that reads was given up");
    }
    assert_eq!(served(&mut clients), 20);
    server.stop();
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
