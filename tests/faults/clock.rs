//! The clock of the system passes 2³² milliseconds: kernels and libraries have counted with fewer
//! bits than that takes.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::client::{answered, connect_many, ends, served};
use crate::process::{now, pass, run, signal, wait_for};
use crate::server::Server;

/// How long a client may be silent, and how often the others speak.
const IDLE: Duration = Duration::from_millis(1_500);
const BEAT: Duration = Duration::from_millis(100);
/// From the start of the process to the passage: it has to be ready by then on a slow machine.
const AHEAD: Duration = Duration::from_secs(5);
/// 2³² milliseconds.
const PASSAGE_SECONDS: u64 = 4_294_967;

/// A server whose monotonic clock passes 2³² ms at the time that is answered with it; `None`, with
/// a reason on the standard error, where it cannot have a clock of its own.
fn start(settings: &str) -> Option<(Server, Instant)> {
    if !run("unshare", &["-T", "--monotonic", "1", "true"]) {
        eprintln!("left out: a process may not have a clock of its own here");
        return None;
    }
    let uptime = fs::read_to_string("/proc/uptime").expect("the kernel tells");
    let seconds = uptime.split('.').next().and_then(|whole| whole.parse::<u64>().ok());
    let (seconds, begun) = (seconds.expect("seconds"), now());
    let offset = (PASSAGE_SECONDS - seconds - AHEAD.as_secs()).to_string();
    let server = Server::start_by("unshare", &["-T", "--monotonic", &offset], settings);
    // At this time or up to a second before it: the offset is in whole seconds.
    Some((server, begun + AHEAD + Duration::from_secs(1)))
}

/// Keeps talking until that time.
fn talk_until(time: Instant, clients: &mut [TcpStream]) {
    while now() < time {
        assert_eq!(served(clients), clients.len(), "those who speak are served");
        pass(BEAT);
    }
}

#[test]
fn silence_is_measured_alike_before_across_and_after_the_passage() {
    let Some((mut server, passage)) = start("idle_ms=1500 linger_ms=50") else { return };
    let mut active = connect_many(server.addr, 10);
    let mut silent = Vec::new();
    // The first are closed before the passage, the next ones about it, the last ones after it.
    let mut round = 0;
    while now() < passage + Duration::from_secs(1) {
        let mut few = connect_many(server.addr, 5);
        assert_eq!(served(&mut few), 5);
        silent.extend(few.into_iter().map(|client| (now(), client)));
        round += 1;
        talk_until(now() + Duration::from_millis(500), &mut active);
    }
    assert!(round >= 4, "the passage was over when the server was ready");
    talk_until(now() + IDLE, &mut active);
    for (since, client) in &mut silent {
        assert!(ends(client), "it may not take that long");
        assert!(since.elapsed() >= IDLE, "closed early");
    }
    assert_eq!(served(&mut active), 10);
    assert!(wait_for(|| server.snapshot()["connections"] <= 10));
    drop(active);
    assert!(server.is_empty());
    let report = server.stop();
    assert_eq!(report["idle_timeout"], silent.len() as u64, "{report:?}");
}

#[test]
fn a_pause_across_the_passage_loses_nobody_who_has_spoken() {
    let Some((server, passage)) = start("idle_ms=1500 linger_ms=50") else { return };
    let mut clients = connect_many(server.addr, 20);
    talk_until(passage - Duration::from_millis(1_200), &mut clients);
    signal(server.pid, "STOP");
    for client in &mut clients {
        client.write_all(b"while it is away").expect("the system takes it");
    }
    // Longer than silence is granted, so that every deadline is over when it comes back.
    pass((passage + IDLE / 2).saturating_duration_since(now()).max(IDLE + BEAT));
    signal(server.pid, "CONT");
    assert!(clients.iter_mut().all(|client| answered(client, b"while it is away")));
    talk_until(now() + IDLE, &mut clients);
    drop(clients);
    assert_eq!(server.stop().get("idle_timeout"), None, "somebody was taken for silent");
}
