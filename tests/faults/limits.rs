//! The limit of connections: exact, quiet while it is reached, and not worn out by bad ends.

use std::io::Write;
use std::time::Duration;

use crate::client::{answered, connect, connect_many, echoed, finish, order, reset, served};
use crate::process::{busy_share, wait_for};
use crate::server::Server;

const MAX: usize = 40;

/// The server is full of good clients: `MAX` of those that knock are served, others wait.
fn holds_exactly_its_limit(server: &mut Server, measure: bool) {
    let mut clients = connect_many(server.addr, MAX + 60);
    for client in &mut clients {
        client.write_all(b"hello").expect("the system takes it, whoever accepts");
    }
    assert!(wait_for(|| server.snapshot()["connections"] == MAX as u64), "{:?}", server.snapshot());
    if measure {
        let busy = busy_share(server.pid);
        assert!(busy < 0.4, "it is busy with {busy} of a core at its limit");
    }
    let now = server.snapshot();
    assert_eq!((now["connections"], now["admitted"]), (MAX as u64, MAX as u64));
    // Everybody is served in the end, each when another leaves, and never more than the limit.
    let mut left = clients.len();
    while !clients.is_empty() {
        let mut inside = Vec::new();
        clients.retain_mut(|client| {
            client.set_read_timeout(Some(Duration::from_millis(5))).expect("an option");
            let is_in = answered(client, b"hello");
            if is_in {
                inside.push(client.try_clone().expect("a descriptor"));
            }
            !is_in
        });
        assert!(inside.len() <= MAX && !inside.is_empty(), "{} at once", inside.len());
        for mut client in inside {
            client.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
            assert!(echoed(&mut client, b"those inside go on"));
            left -= 1;
        }
        assert!(server.snapshot()["connections"] <= MAX as u64);
    }
    assert_eq!(left, 0);
}

#[test]
fn never_more_than_the_limit_and_exactly_it_after_thousands_of_bad_ends() {
    for placement in ["", "least_loaded=1 "] {
        let mut server = Server::start(&format!("{placement}connections_max={MAX}"));
        holds_exactly_its_limit(&mut server, true);
        assert!(server.is_empty(), "{:?}", server.snapshot());
        for round in 0..2_000 {
            let mut client = connect(server.addr).expect("the server listens");
            match round % 5 {
                0 => reset(client),
                1 => drop(client),
                2 => {
                    client.write_all(&[1; 3_000]).expect("the system takes it");
                    reset(client);
                }
                3 => {
                    finish(&client);
                    drop(client);
                }
                _ => {
                    client.write_all(b"bye").expect("the system takes it");
                    drop(client);
                }
            }
        }
        assert!(server.is_empty(), "{:?}", server.snapshot());
        holds_exactly_its_limit(&mut server, false);
        server.stop();
    }
}

#[test]
fn a_blocked_handler_keeps_nobody_waiting_who_was_accepted() {
    for settings in ["reactors=1 workers=1", "", "least_loaded=1"] {
        let server = Server::start(settings);
        let mut blocked = connect(server.orders).expect("the server listens");
        blocked.write_all(b"block").expect("the system takes it");
        let mut clients = connect_many(server.addr, 64);
        assert_eq!(served(&mut clients), 64, "{settings}");
        assert_eq!(order(server.orders, "release").expect("an answer"), b"done");
        assert!(answered(&mut blocked, b"done"), "{settings}");
        server.stop();
    }
}
