//! System calls of a running server that fail, lie or take their time; made by strace.

use std::io::Write;
use std::time::Duration;

use crate::client::{answered, connect_small};
use crate::client::{connect, connect_many, echoed, ends, push, served, tagged};
use crate::process::{descriptors, wait_for};
use crate::server::Server;

#[test]
fn interrupted_and_empty_polls_are_nothing() {
    for fault in ["error=EINTR:when=1..16+3", "retval=0:when=2..16+3"] {
        let mut server = Server::start("");
        // Whichever of these the selector and the libc make.
        let calls = "?epoll_wait,?epoll_pwait,?poll,?ppoll";
        if !server.inject(&[&format!("{calls}:{fault}")]) {
            return;
        }
        let mut clients = connect_many(server.addr, 20);
        for _ in 0..5 {
            assert_eq!(served(&mut clients), 20, "{fault}");
        }
        assert!(server.echoes(&tagged(1, 100_000)), "{fault}");
    }
}

#[test]
fn interrupted_reads_and_writes_are_tried_again() {
    let mut server = Server::start("");
    let faults = ["recvfrom:error=EINTR:when=1..30+2", "sendto:error=EINTR:when=1..30+2"];
    if !server.inject(&faults) {
        return;
    }
    let mut clients = connect_many(server.addr, 20);
    for _ in 0..5 {
        assert_eq!(served(&mut clients), 20);
    }
    assert!(server.echoes(&tagged(1, 300_000)));
}

// With poll(2) there is no call that could refuse it.
#[cfg(not(mio_unsupported_force_poll_poll))]
#[test]
fn a_connection_that_cannot_be_watched_is_the_only_one_lost() {
    let mut server = Server::start("");
    let before = descriptors(server.pid);
    if !server.inject(&["epoll_ctl:error=ENOSPC:when=2..10+3"]) {
        return;
    }
    // They say nothing before they are accepted, so that each has to be watched.
    let mut lost = 0;
    for round in 0..40 {
        let mut client = connect(server.addr).expect("the server listens");
        lost += usize::from(!echoed(&mut client, b"hello"));
        assert!(lost <= 2 * 3, "{lost} of {} are lost: more than cannot be watched", round + 1);
    }
    assert!(lost > 0, "nothing was injected");
    assert!(server.is_empty(), "{:?}", server.snapshot());
    assert_eq!(descriptors(server.pid), before);
    assert_eq!(server.snapshot()["panics"], 0);
}

#[test]
fn broken_pipes_raise_no_signal_that_kills() {
    let mut server = Server::start("");
    if !server.inject(&["sendto:error=EPIPE:signal=SIGPIPE:when=1..10+2"]) {
        return;
    }
    let mut lost = 0;
    for _ in 0..40 {
        let mut client = connect(server.addr).expect("the server listens");
        if !echoed(&mut client, b"hello") {
            assert!(ends(&mut client), "it is neither answered nor closed");
            lost += 1;
        }
    }
    assert!((1..=20).contains(&lost), "{lost} of 40 are lost");
    assert!(server.is_empty(), "{:?}", server.snapshot());
}

#[test]
fn connections_reset_under_a_read_are_the_only_ones_lost() {
    let mut server = Server::start("");
    if !server.inject(&["recvfrom:error=ECONNRESET:when=1..10+3"]) {
        return;
    }
    let mut lost = 0;
    for _ in 0..40 {
        let mut client = connect(server.addr).expect("the server listens");
        lost += usize::from(!echoed(&mut client, b"hello"));
    }
    assert!((1..=20).contains(&lost), "{lost} of 40 are lost");
    assert!(server.is_empty(), "{:?}", server.snapshot());
}

#[test]
fn options_and_names_that_a_socket_refuses_cost_nothing() {
    let mut server = Server::start("write_stall_ms=300");
    let before = descriptors(server.pid);
    let faults = [
        "setsockopt:error=EINVAL:when=1..20",
        "getpeername:error=ENOTCONN:when=1..20",
        "shutdown:error=ENOTCONN:when=1..5",
    ];
    if !server.inject(&faults) {
        return;
    }
    // A reset sets an option first.
    let mut stuck: Vec<_> = (0..4).map(|_| connect_small(server.addr, 2048)).collect();
    push(&mut stuck, 4 << 20);
    let mut clients = connect_many(server.addr, 20);
    assert_eq!(served(&mut clients), 20);
    for _ in 0..4 {
        let mut client = connect(server.orders).expect("the server listens");
        client.write_all(b"flood").expect("the system takes it");
        assert!(ends(&mut client));
    }
    assert!(wait_for(|| server.snapshot()["connections"] == 20), "{:?}", server.snapshot());
    drop((clients, stuck));
    assert!(server.is_empty(), "{:?}", server.snapshot());
    assert_eq!(descriptors(server.pid), before);
}

#[test]
fn slow_system_calls_are_no_reason_to_give_anybody_up() {
    let mut server = Server::start("write_stall_ms=1500");
    let faults =
        ["recvfrom:delay_enter=3000", "sendto:delay_enter=3000", "epoll_wait:delay_exit=3000"];
    if !server.inject(&faults) {
        return;
    }
    let mut clients = connect_many(server.addr, 10);
    for _ in 0..3 {
        assert_eq!(served(&mut clients), 10);
    }
    let mut slow = connect_small(server.addr, 2048);
    let bytes = tagged(5, 60_000);
    slow.write_all(&bytes).expect("the system takes it");
    slow.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
    assert!(answered(&mut slow, &bytes));
    assert_eq!(server.snapshot()["closed"], 0);
}
