//! Bytes: each connection gets its own, in order, whatever its size, its neighbours or its marks.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::client::{answered, connect, connect_small, echoed, push, reset, served, tagged};
use crate::process::{now, wait_for};
use crate::server::Server;

#[test]
fn churn_mixes_no_bytes_of_different_connections() {
    let mut server = Server::start("");
    let addr = server.addr;
    thread::scope(|scope| {
        for lane in 0..6 {
            scope.spawn(move || {
                for round in 0..500 {
                    let mut client = connect(addr).expect("the server listens");
                    let tag = lane * 1_000 + round;
                    assert!(echoed(&mut client, &tagged(tag, 100 + tag % 3_000)), "{tag}");
                    match round % 3 {
                        // Input that nobody will have read, in a buffer that others get next.
                        0 => {
                            client.write_all(&tagged(tag, 2_000)).expect("the system takes it");
                            reset(client);
                        }
                        1 => reset(client),
                        _ => drop(client),
                    }
                }
            });
        }
    });
    assert!(server.is_empty(), "{:?}", server.snapshot());
    let report = server.stop();
    assert_eq!(report["opened"], 3_000);
}

#[test]
fn urgent_data_stalls_nothing() {
    let server = Server::start("");
    for round in 0..50 {
        let mut client = connect(server.addr).expect("the server listens");
        client.write_all(b"abc").expect("the system takes it");
        SockRef::from(&client).send_out_of_band(b"!").expect("the system takes it");
        client.write_all(b"def").expect("the system takes it");
        assert!(answered(&mut client, b"abcdef"), "round {round}");
        assert!(echoed(&mut client, b"and on"), "round {round}");
    }
    server.stop();
}

#[test]
fn small_segments_and_buffers_change_no_byte() {
    let server = Server::start("");
    let mut client = connect_small(server.addr, 2048);
    assert!(echoed(&mut client, &tagged(7, 300_000)));
    for size in [1, 1_459, 65_536, 65_537, 1 << 20, 4 << 20] {
        let mut client = connect(server.addr).expect("the server listens");
        assert!(echoed(&mut client, &tagged(size, size)), "{size} bytes");
    }
    server.stop();
}

#[test]
fn a_heavy_neighbour_does_not_starve_a_light_one() {
    // One reactor, so that both are on the same.
    let server = Server::start("reactors=1");
    let (addr, end) = (server.addr, AtomicBool::new(false));
    let mut light = connect(addr).expect("the server listens");
    let mut took = thread::scope(|scope| {
        scope.spawn(|| {
            let mut heavy = connect(addr).expect("the server listens");
            let chunk = tagged(1, 4 << 20);
            // Relaxed: the flag stands alone.
            while !end.load(Ordering::Relaxed) {
                assert!(echoed(&mut heavy, &chunk));
            }
        });
        let pings = (0..200).map(|_| {
            let begun = now();
            assert!(echoed(&mut light, b"ping"));
            begun.elapsed()
        });
        let took: Vec<_> = pings.collect();
        end.store(true, Ordering::Relaxed);
        took
    });
    took.sort_unstable();
    assert!(took[100] <= Duration::from_millis(60), "the median is {:?}", took[100]);
    assert!(took[195] <= Duration::from_millis(300), "one of forty takes {:?}", took[195]);
    server.stop();
}

#[test]
fn reading_goes_on_after_back_pressure() {
    let mut server = Server::start("");
    let mut clients: Vec<_> = (0..4).map(|_| connect_small(server.addr, 64 << 10)).collect();
    // What we do not take back fills both buffers of the system, then the server's own queue.
    let sent = push(&mut clients, 16 << 20);
    let is_stuck = || server.snapshot()["held"] >= 4 * (256 << 10);
    assert!(wait_for(is_stuck), "there is no back-pressure: {:?}", server.snapshot());
    for (client, sent) in clients.iter_mut().zip(sent) {
        assert!(answered(client, &vec![b'p'; sent]));
    }
    assert_eq!(served(&mut clients), 4, "they go on after that");
    drop(clients);
    assert!(server.is_empty(), "{:?}", server.snapshot());
    server.stop();
}
