//! Ends: half-closes, closes with input unread, resets, and peers that vanish.

use std::io::Write;
use std::net::Shutdown;
use std::thread;

use crate::child::FLOOD_BYTES;
use crate::client::{
    answered, connect, connect_many, connect_small, finish, push, read_to_end, reset, served,
    tagged,
};
use crate::process::{descriptors, sockets_in, wait_for};
use crate::server::Server;

#[test]
fn a_half_closed_peer_gets_all_of_its_echo_and_then_the_end() {
    let mut server = Server::start("");
    for size in [1, 34_000, 65_536, 87_380, 131_072, 200_000, 262_144, 400_000, 1 << 20, 4 << 20] {
        for reads_late in [false, true] {
            let bytes = tagged(size, size);
            let mut client = connect(server.addr).expect("the server listens");
            if reads_late {
                // As much as fits is under way, with FIN behind it, before the first read.
                let mut one = [client];
                let sent = push(&mut one, size)[0];
                [client] = one;
                finish(&client);
                let echo = read_to_end(&mut client).expect("a clean end");
                assert!(echo == vec![b'p'; sent], "{} of {sent} bytes", echo.len());
                continue;
            }
            let mut writer = client.try_clone().expect("a descriptor");
            let echo = thread::scope(|scope| {
                scope.spawn(|| {
                    writer.write_all(&bytes).expect("the system takes it");
                    writer.shutdown(Shutdown::Write).expect("it is connected");
                });
                read_to_end(&mut client).expect("a clean end")
            });
            assert!(echo == bytes, "{} of {size} bytes", echo.len());
        }
    }
    assert!(server.is_empty(), "{:?}", server.snapshot());
    server.stop();
}

#[test]
fn peers_that_finish_at_once_all_see_the_end() {
    let mut server = Server::start("");
    let mut clients = connect_many(server.addr, 300);
    assert_eq!(served(&mut clients), 300);
    clients.iter().for_each(finish);
    for client in &mut clients {
        assert!(read_to_end(client).expect("a clean end").is_empty());
    }
    assert_eq!(sockets_in("08", server.addr), 0, "some are in CLOSE_WAIT");
    assert!(server.is_empty(), "{:?}", server.snapshot());
    server.stop();
}

#[test]
fn a_reply_survives_input_that_nobody_reads() {
    let mut server = Server::start("");
    for unread in [0, 1, 70_000, 200_000] {
        for _ in 0..5 {
            let mut client = connect(server.orders).expect("the server listens");
            let mut order = b"flood".to_vec();
            order.resize(order.len() + unread, b'x');
            let mut writer = client.try_clone().expect("a descriptor");
            let reply = thread::scope(|scope| {
                scope.spawn(|| writer.write_all(&order).expect("the system takes it"));
                read_to_end(&mut client).expect("no reset")
            });
            assert_eq!(reply.len(), FLOOD_BYTES, "with {unread} bytes unread");
        }
    }
    assert!(server.is_empty(), "{:?}", server.snapshot());
    server.stop();
}

#[test]
fn a_closed_connection_whose_peer_goes_on_is_bounded() {
    let mut server = Server::start("linger_ms=300 write_stall_ms=1000");
    // One never ends, one never reads, one sends without end.
    let mut clients = connect_many(server.orders, 3);
    for client in &mut clients {
        client.write_all(b"flood").expect("the system takes it");
    }
    assert!(answered(&mut clients[0], &vec![b'f'; FLOOD_BYTES]));
    let endless = clients.pop().expect("there are three");
    push(&mut [endless], 64 << 20);
    assert!(server.is_empty(), "{:?}", server.snapshot());
    server.stop();
}

#[test]
fn peers_that_vanish_under_a_reply_are_closed_once() {
    let mut server = Server::start("");
    let before = descriptors(server.pid);
    for _ in 0..6 {
        for mut client in connect_many(server.addr, 50) {
            client.write_all(&[7; 60_000]).expect("the system takes it");
        }
    }
    assert!(server.is_empty(), "{:?}", server.snapshot());
    assert!(wait_for(|| descriptors(server.pid) == before));
    assert!(server.echoes(b"still there"));
    assert_eq!(server.stop()["opened"], 301);
}

#[test]
fn resets_give_everything_back() {
    let mut server = Server::start("");
    let before = descriptors(server.pid);
    for _ in 0..10 {
        let mut clients = connect_many(server.addr, 200);
        for client in clients.iter_mut().step_by(2) {
            client.write_all(b"half of them have said something").expect("the system takes it");
        }
        clients.into_iter().for_each(reset);
    }
    // And with much output pending.
    let mut clients: Vec<_> = (0..10).map(|_| connect_small(server.addr, 2048)).collect();
    push(&mut clients, 300_000);
    clients.into_iter().for_each(reset);
    assert!(server.is_empty(), "{:?}", server.snapshot());
    assert!(wait_for(|| descriptors(server.pid) == before));
    server.stop();
}
