//! Accepting while descriptors run out, clients die in the queue, and a great many come at once.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::client::{
    answered, connect, connect_at_once, connect_many, echoed, finish, reset, served,
};
use crate::process::{busy_share, descriptors, now, signal, wait_for};
use crate::server::Server;

/// Sends a short message from each, and counts who has its answer within a moment.
fn answered_soon(clients: &mut [TcpStream]) -> Vec<bool> {
    for client in &mut *clients {
        client.write_all(b"hello").expect("the system takes it, whoever accepts");
        client.set_read_timeout(Some(Duration::from_millis(10))).expect("an option");
    }
    // Those who are served at all are served in the time of the first of these tries.
    let mut done = vec![false; clients.len()];
    let begun = now();
    while begun.elapsed() < Duration::from_millis(500) {
        for (client, done) in clients.iter_mut().zip(&mut done) {
            *done |= !*done && answered(client, b"hello");
        }
    }
    done
}

#[test]
fn without_descriptors_clients_wait_quietly_and_are_served_once_some_are_free() {
    let server = Server::start_with_descriptors(40, "");
    let mut clients = connect_many(server.addr, 80);
    let done = answered_soon(&mut clients);
    let inside = done.iter().filter(|&&done| done).count();
    assert!((10..40).contains(&inside), "{inside} are inside");
    let busy = busy_share(server.pid);
    assert!(busy < 0.4, "it is busy with {busy} of a core while it is full");
    // Those inside leave; nobody new knocks.
    let mut waiting = Vec::new();
    for (client, done) in clients.into_iter().zip(done) {
        if !done {
            waiting.push(client);
        }
    }
    while !waiting.is_empty() {
        let count = waiting.len();
        // As many as there is room for, leave as soon as they are served.
        let mut still = Vec::new();
        for mut client in waiting {
            client.set_read_timeout(Some(Duration::from_millis(20))).expect("an option");
            if !answered(&mut client, b"hello") {
                still.push(client);
            }
        }
        waiting = still;
        assert!(waiting.len() < count, "{count} clients are stranded in the queue");
    }
    assert!(wait_for(|| server.echoes(b"a new one")));
    server.stop();
}

#[test]
fn accept_errors_of_the_system_only_pause_it() {
    for error in ["ENFILE", "ENOMEM"] {
        let mut server = Server::start("");
        if !server.inject(&[&format!("accept4:error={error}:when=1..4")]) {
            return;
        }
        let mut clients = connect_many(server.addr, 20);
        assert_eq!(served(&mut clients), 20, "{error}");
        assert!(server.snapshot()["descriptor_pauses"] > 0, "{error}");
    }
}

#[test]
fn accept_errors_of_single_clients_cost_nobody_else() {
    for error in ["ECONNABORTED", "EPROTO", "EPERM", "ENETDOWN"] {
        let mut server = Server::start("");
        if !server.inject(&[&format!("accept4:error={error}:when=1..12+3")]) {
            return;
        }
        let mut clients = connect_many(server.addr, 30);
        assert_eq!(served(&mut clients), 30, "{error}");
        assert!(server.snapshot()["accept_errors"] > 0, "{error}");
        assert!(server.echoes(b"still there"), "{error}");
    }
}

#[test]
fn clients_that_died_in_the_queue_leave_nothing() {
    let mut server = Server::start("");
    let before = descriptors(server.pid);
    signal(server.pid, "STOP");
    connect_many(server.addr, 60).into_iter().for_each(reset);
    let finished = connect_many(server.addr, 20);
    finished.iter().for_each(finish);
    drop(finished);
    let mut live = connect_many(server.addr, 20);
    signal(server.pid, "CONT");
    assert_eq!(served(&mut live), 20);
    drop(live);
    assert!(server.is_empty(), "{:?}", server.snapshot());
    assert_eq!(descriptors(server.pid), before);
    assert_eq!(server.snapshot()["panics"], 0);
    server.stop();
}

/// Pings until told to end; how long each ping took.
fn pings(addr: SocketAddr, end: &AtomicBool) -> Vec<Duration> {
    let mut client = connect(addr).expect("the server listens");
    let mut took = Vec::new();
    // Relaxed: the flag stands alone.
    while !end.load(Ordering::Relaxed) {
        let begun = now();
        assert!(echoed(&mut client, b"ping"), "a ping is lost");
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    took
}

#[test]
fn a_storm_of_connects_is_served_and_starves_nobody() {
    let mut server = Server::start("");
    let (addr, end) = (server.addr, AtomicBool::new(false));
    let (storm, pings) = thread::scope(|scope| {
        let pings = scope.spawn(|| pings(addr, &end));
        let mut served_count = 0;
        for _ in 0..2 {
            let mut clients = connect_at_once(addr, 1_500);
            served_count += served(&mut clients);
        }
        end.store(true, Ordering::Relaxed);
        (served_count, pings.join().expect("the pings are answered"))
    });
    assert_eq!(storm, 3_000);
    let p90 = pings[pings.len() * 9 / 10];
    assert!(p90 < Duration::from_millis(300), "pings take {p90:?} in a storm");
    assert!(server.is_empty(), "{:?}", server.snapshot());
    server.stop();
}

#[test]
fn those_who_came_while_it_was_away_are_served() {
    let server = Server::start("");
    signal(server.pid, "STOP");
    let mut clients = connect_at_once(server.addr, 1_400);
    signal(server.pid, "CONT");
    let count = served(&mut clients);
    assert!(count >= 1_260, "{count} of 1,400 are served");
    server.stop();
}
