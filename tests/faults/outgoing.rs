//! Connections that the server opens itself, on a system that refuses this and that.

use crate::process::{descriptors, wait_for};
use crate::server::Server;

/// What is attempted at a time.
const COUNT: usize = 30;

#[test]
fn attempts_that_the_system_refuses_are_told_and_cost_nothing() {
    let other = Server::start("");
    let faults = [
        "socket:error=EMFILE:when=1..5",
        "socket:error=ENOBUFS:when=1..9+3",
        "connect:error=EADDRNOTAVAIL:when=1..9+3",
        "connect:error=ENETUNREACH:when=1..5",
        "connect:error=EINTR:when=1..9+3",
        // With poll(2) no call is made that could refuse to watch one.
        #[cfg(not(mio_unsupported_force_poll_poll))]
        "epoll_ctl:error=ENOSPC:when=1..9+3",
        "getsockopt:error=ENOBUFS:when=1..9+3",
    ];
    for fault in faults {
        let mut server = Server::start("");
        assert_eq!(server.dial(other.addr, COUNT), COUNT as u64, "nothing is wrong yet");
        assert!(server.is_empty(), "{:?}", server.snapshot());
        let before = descriptors(server.pid);
        if !server.inject(&[fault]) {
            return;
        }
        // Each is told of; what is interrupted goes on.
        let opened = server.dial(other.addr, COUNT);
        let is_lost = opened < COUNT as u64;
        assert!(opened > 0 && is_lost != fault.contains("EINTR"), "{fault}: {opened} of {COUNT}");
        let over = || server.dial(other.addr, 1) == 1;
        assert!(wait_for(over), "{fault}");
        assert!(wait_for(|| server.echoes(b"its own clients are served")), "{fault}");
        assert!(server.is_empty(), "{fault}: {:?}", server.snapshot());
        assert!(wait_for(|| descriptors(server.pid) == before), "{fault}");
        assert_eq!(server.snapshot()["panics"], 0);
    }
    other.stop();
}
