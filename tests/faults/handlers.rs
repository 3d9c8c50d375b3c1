//! Handlers that panic, that block, and that start other processes.

use std::io::{ErrorKind, Write};

use crate::client::{answered, connect, connect_many, ends, order, served};
use crate::process::{descriptors, wait_for};
use crate::server::Server;

#[test]
fn panics_cost_their_connection_only() {
    let mut server = Server::start("");
    let before = descriptors(server.pid);
    let mut others = connect_many(server.addr, 50);
    for _ in 0..20 {
        let words = ["panic", "bomb", "drop", "close"];
        let mut clients = connect_many(server.orders, 8);
        for (client, word) in clients.iter_mut().zip(words.iter().cycle()) {
            client.write_all(word.as_bytes()).expect("the system takes it");
        }
        // The reset may come so soon that connecting itself tells of it.
        match connect(server.broken) {
            Ok(client) => clients.push(client),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        assert_eq!(served(&mut others), 50, "the others go on");
        assert!(clients.iter_mut().all(ends), "the one that panicked is not closed");
    }
    assert!(wait_for(|| server.snapshot()["connections"] == 50));
    assert!(wait_for(|| server.snapshot()["panics"] == 180), "{:?}", server.snapshot());
    drop(others);
    assert!(server.is_empty(), "{:?}", server.snapshot());
    assert_eq!(descriptors(server.pid), before);
    let report = server.stop();
    assert_eq!(report["handler_panicked"], 100);
}

/// `count` handlers do what `word` says until they are let go; the others do not notice.
fn busy_handlers_leave_the_others_alone(word: &str, count: usize) {
    let mut server = Server::start("");
    let mut inside = connect_many(server.addr, 20);
    let mut busy = connect_many(server.orders, count);
    for client in &mut busy {
        client.write_all(word.as_bytes()).expect("the system takes it");
    }
    // An operator can see them.
    let all_out = || server.snapshot()["handlers_out"] == count as u64;
    assert!(wait_for(all_out), "{word}: {:?}", server.snapshot());
    for _ in 0..10 {
        assert_eq!(served(&mut inside), 20, "{word}");
        assert!(server.echoes(b"a fresh one"), "{word}");
    }
    let now = server.snapshot();
    assert!(now["handlers_out"] == count as u64 && now["take_overs"] > 0, "{word}: {now:?}");
    assert_eq!(order(server.orders, "release").expect("an answer"), b"done");
    assert!(busy.iter_mut().all(|client| answered(client, b"done")), "{word}");
    server.stop();
}

#[test]
fn blocked_handlers_leave_the_others_alone() {
    busy_handlers_leave_the_others_alone("block", 120);
}

#[test]
fn spinning_handlers_leave_the_others_alone() {
    busy_handlers_leave_the_others_alone("spin", 4);
}

#[test]
fn a_process_that_a_handler_starts_inherits_nothing() {
    let server = Server::start("");
    let mut clients = connect_many(server.addr, 5);
    assert_eq!(served(&mut clients), 5);
    let mut client = connect(server.orders).expect("the server listens");
    client.write_all(b"spawn").expect("the system takes it");
    let mut answer = Vec::new();
    while !answer.ends_with(b"done") {
        let mut chunk = [0; 4096];
        let count = std::io::Read::read(&mut client, &mut chunk).expect("an answer");
        assert!(count > 0, "{}", answer.escape_ascii());
        answer.extend_from_slice(&chunk[..count]);
    }
    let answer = String::from_utf8(answer).expect("names");
    let ours =
        answer.lines().filter(|line| line.contains("socket:") || line.contains("anon_inode"));
    assert_eq!(ours.collect::<Vec<_>>(), Vec::<&str>::new(), "in {answer}");
    server.stop();
}
