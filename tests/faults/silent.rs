//! Peers that say nothing, or too little at a time, and hosts that are gone without a word.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::client::{connect, connect_many, ends, served};
use crate::process::{descriptors, now, pass, sockets_in, wait_for};
use crate::server::Server;

/// How long a client may be silent, and the latest that it is to be closed.
const IDLE: Duration = Duration::from_millis(2_500);
const LATEST: Duration = Duration::from_millis(2_500 * 16 / 10 + 1_500);

#[test]
fn a_thousand_silent_clients_are_closed_in_time_and_the_active_ones_stay() {
    const COUNT: usize = 1_000;
    let mut server = Server::start("idle_ms=2500 linger_ms=50");
    let before = descriptors(server.pid);
    let mut active = connect_many(server.addr, 20);
    assert_eq!(served(&mut active), 20);
    let begun = now();
    let mut silent = connect_many(server.addr, COUNT);
    // Half of them have spoken once.
    assert_eq!(served(&mut silent[..COUNT / 2]), COUNT / 2);
    let all_silent = now();
    let mut first = None;
    let over = wait_for(|| {
        assert_eq!(served(&mut active), 20, "the active ones are served all the time");
        let left = sockets_in("01", server.addr);
        if first.is_none() && left < COUNT + 20 {
            first = Some(begun.elapsed());
        }
        left <= 20
    });
    let last = all_silent.elapsed();
    assert!(over, "silent clients are still there after {last:?}");
    assert!(first.is_some_and(|first| first >= IDLE), "one was closed early: {first:?}");
    assert!(last <= LATEST, "the last was closed after {last:?}");
    assert!(wait_for(|| server.snapshot()["connections"] <= 20));
    assert!(silent.iter_mut().all(ends));
    assert_eq!(served(&mut active), 20);
    drop((silent, active));
    assert!(server.is_empty());
    assert!(wait_for(|| descriptors(server.pid) <= before), "descriptors are left");
    let report = server.stop();
    assert_eq!(report["idle_timeout"], COUNT as u64, "{report:?}");
}

#[test]
fn a_byte_every_eighty_milliseconds_is_no_frame() {
    const COUNT: usize = 20;
    let mut server = Server::start("frame_ms=1500 first_frame_ms=1500 linger_ms=50");
    let mut clients = connect_many(server.frames, COUNT);
    // Half of them have sent a whole one before.
    for client in &mut clients[..COUNT / 2] {
        client.write_all(&[0, 0, 0, 1, b'x']).expect("the system takes it");
        assert!(crate::client::answered(client, &[0, 0, 0, 1, b'x']));
    }
    let begun = now();
    let drips: Vec<_> = clients.into_iter().map(|client| thread::spawn(|| drip(client))).collect();
    let cut = wait_for(|| server.snapshot()["connections"] == 0);
    assert!(cut && begun.elapsed() >= Duration::from_millis(1_500), "{:?}", begun.elapsed());
    for drip in drips {
        drip.join().expect("it ends with its connection");
    }
    assert!(server.is_empty());
    let report = server.stop();
    let half = COUNT as u64 / 2;
    assert_eq!((report["frame_timeout"], report["first_frame_timeout"]), (half, half));
}

/// The length of a frame, then a byte now and then, until nobody listens any more.
fn drip(mut client: TcpStream) {
    if client.write_all(&[0, 0, 0xff, 0xff]).is_err() {
        return;
    }
    while client.write_all(b"x").is_ok() {
        pass(Duration::from_millis(80));
    }
}

#[test]
fn clients_that_connect_and_vanish_leave_nothing() {
    let mut server = Server::start("idle_ms=1000 linger_ms=50");
    let before = descriptors(server.pid);
    for round in 0..10 {
        let mut gone = connect_many(server.addr, 200);
        match round % 3 {
            0 => drop(gone),
            1 => gone.into_iter().for_each(crate::client::reset),
            _ => {
                // One word, for whose answer nobody waits.
                gone.iter_mut().for_each(|client| drop(client.write_all(b"hello")));
                drop(gone);
            }
        }
        assert!(server.echoes(b"in between"));
    }
    assert!(server.is_empty());
    assert!(wait_for(|| descriptors(server.pid) <= before), "descriptors are left");
    assert_eq!(server.stop()["stuck"], 0);
}

/// A silent host is asked whether it is there: proc(5) shows the timer of each socket, 02 being
/// that of keep-alive, and when it fires, in hundredths of a second.
#[test]
fn the_system_asks_silent_hosts_whether_they_are_still_there() {
    for (settings, seconds_max) in [("", 60), ("host_check_ms=20000", 20)] {
        is_asked_within(seconds_max, &Server::start(settings));
    }
}

fn is_asked_within(seconds_max: u32, server: &Server) {
    let mut client = connect(server.addr).expect("the server listens");
    assert_eq!(served(std::slice::from_mut(&mut client)), 1);
    let ours = format!("0100007F:{:04X}", server.addr.port());
    let peer = client.local_addr().expect("it is connected");
    let theirs = format!("0100007F:{:04X}", peer.port());
    let mut seen = String::new();
    let armed = wait_for(|| {
        let table = fs::read_to_string("/proc/net/tcp").expect("the kernel tells");
        let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let mut rows = rows.filter(|row| row.len() > 5 && row[1] == ours && row[2] == theirs);
        seen = rows.next().map_or_else(String::new, |row| row[5].to_owned());
        // Until the answer is acknowledged its retransmission has the timer.
        seen.starts_with("02:")
    });
    assert!(armed, "the timer is {seen}");
    let hundredths = u32::from_str_radix(&seen[3..], 16).expect("a number");
    // And no sooner than that: the test has not been going on for half of it.
    let asked = seconds_max * 50..=seconds_max * 100;
    assert!(asked.contains(&hundredths), "it is asked in {hundredths} hundredths of a second");
}
