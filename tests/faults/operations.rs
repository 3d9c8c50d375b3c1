//! What an operator does to a process: signals.

use std::io::Write;
use std::thread;
use std::time::Duration;

use crate::client::{answered, connect, connect_many, ends, read_to_end, served};
use crate::process::{now, signal, wait_for};
use crate::server::Server;

#[test]
fn a_termination_signal_asks_all_to_leave_over_the_spread() {
    const COUNT: usize = 40;
    const SPREAD: Duration = Duration::from_millis(1_000);
    let server = Server::start("drain_spread_ms=1000");
    let mut clients = connect_many(server.addr, COUNT);
    assert_eq!(served(&mut clients), COUNT);
    signal(server.pid, "TERM");
    let begun = now();
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                let rest = read_to_end(&mut client).expect("a clean end");
                assert!(rest.is_empty());
                begun.elapsed()
            })
        })
        .collect();
    let mut ends: Vec<_> =
        readers.into_iter().map(|reader| reader.join().expect("it does not panic")).collect();
    ends.sort_unstable();
    // Each reactor gives each of its connections a part of the time: of all, a half or nearly so
    // have theirs in the second half.
    let late = ends.iter().filter(|&&end| end >= SPREAD / 2).count();
    assert!(late >= COUNT / 2 - 2, "{late} of {COUNT} ended in the second half: {ends:?}");
    let report = server.ended();
    assert_eq!((report["opened"], report["drained"]), (COUNT as u64, COUNT as u64));
    assert_eq!((report["asked"], report["stuck"]), (COUNT as u64, 0), "{report:?}");
}

#[test]
fn without_a_spread_a_termination_signal_asks_all_at_once_and_loses_nothing() {
    let server = Server::start("drain_spread_ms=0");
    let mut clients = connect_many(server.addr, 20);
    assert_eq!(served(&mut clients), 20);
    clients.iter_mut().for_each(|client| client.write_all(b"last").expect("it is taken"));
    signal(server.pid, "TERM");
    let readers = clients.into_iter().map(|mut client| {
        thread::spawn(move || {
            assert!(answered(&mut client, b"last"), "what has arrived is answered");
            assert_eq!(read_to_end(&mut client).expect("a clean end"), b"");
        })
    });
    let readers: Vec<_> = readers.collect();
    readers.into_iter().for_each(|reader| reader.join().expect("it does not panic"));
    let report = server.ended();
    assert_eq!((report["drained"], report["asked"]), (20, 20), "{report:?}");
}

#[test]
fn a_second_termination_signal_ends_the_wait() {
    let server = Server::start("drain_spread_ms=600000");
    let mut clients = connect_many(server.addr, 20);
    assert_eq!(served(&mut clients), 20);
    let begun = now();
    signal(server.pid, "TERM");
    // One signal after the other: two of a kind that are pending at once are one.
    let closed = || connect(server.addr).is_err();
    assert!(wait_for(closed), "it accepts while it drains");
    signal(server.pid, "TERM");
    assert!(clients.iter_mut().all(ends));
    let report = server.ended();
    assert_eq!(report["stuck"], 0, "{report:?}");
    assert!(begun.elapsed() < Duration::from_secs(600), "it has waited for its spread");
}
