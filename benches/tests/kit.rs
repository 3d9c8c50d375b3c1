//! The binaries together: every mode against every peer, and a server that echoes wrongly.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use serde_json::Value;
use switchboard_bench::compare::server::Server;

const LOAD: &str = env!("CARGO_BIN_EXE_load");
const PEERS: [(&str, &str); 4] = [
    (env!("CARGO_BIN_EXE_peer-raw"), "--threads 2"),
    (env!("CARGO_BIN_EXE_peer-tokio"), "--variant plain"),
    (env!("CARGO_BIN_EXE_peer-tokio"), "--variant blocking"),
    (env!("CARGO_BIN_EXE_peer-tokio"), "--variant lazy"),
];

fn words(line: &str) -> Vec<String> {
    line.split_whitespace().map(str::to_owned).collect()
}

/// Runs a load to its end; it is bounded in time itself.
fn load(line: &str, addr: &str) -> Output {
    let mut command = Command::new(LOAD);
    command.args(words(line)).args(["--addr", addr]).output().expect("the load generator runs")
}

/// Runs a mode against all peers and gives each clean report to `check`.
fn for_all_peers(server: &str, line: &str, check: impl Fn(&Value)) {
    for (binary, variant) in PEERS {
        let arguments = words(&format!("--addr 127.0.0.1:0 {variant} {server}"));
        let server = Server::start(Path::new(binary), &arguments).expect("the peer listens");
        let line = format!("{line} --pid {}", server.pid());
        let output = load(&line, server.addr());
        assert!(output.status.success(), "{binary} {variant}: {output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!(report["errors"], 0, "{binary} {variant}: {report}");
        assert_eq!(report["mismatches"], 0, "{binary} {variant}: {report}");
        check(&report);
    }
}

fn has_messages(report: &Value) {
    assert!(report["messages"].as_u64() > Some(0), "{report}");
    assert!(report["latency_us"]["p99"].as_f64() > Some(0.0), "{report}");
    assert!(report["server"]["rss_peak_kib"].as_u64() > Some(0), "{report}");
}

#[test]
fn every_peer_echoes_in_every_closed_loop() {
    let time = "--seconds 0.2 --warmup 0.05";
    for mode in ["pingpong --threads 2", "pipeline --connections 4", "bulk --depth 2"] {
        for_all_peers("", &format!("{mode} {time}"), has_messages);
    }
}

#[test]
fn every_peer_survives_churn() {
    for_all_peers("", "churn --connections 8 --seconds 0.2 --warmup 0.05", has_messages);
}

#[test]
fn the_open_loop_reports_slow_messages_apart() {
    let line = "open --connections 20 --rate 1000 --seconds 0.3 --warmup 0.05 \
        --slow-share 0.02 --slow-connections 4";
    for_all_peers("--work --sleep-ms 20", line, |report| {
        has_messages(report);
        let slow = report["slow_latency_us"]["count"].as_u64();
        assert!(slow.is_some_and(|count| (5..=7).contains(&count)), "2 % of 300: {report}");
        assert!(report["slow_latency_us"]["p50"].as_f64() >= Some(20_000.0), "{report}");
        let ordinary = report["latency_us"]["count"].as_u64();
        assert!(ordinary.is_some_and(|count| (293..=295).contains(&count)), "the rest: {report}");
    });
}

#[test]
fn idle_connections_are_weighed_and_all_end_well() {
    for_all_peers("", "idle --connections 300 --quiet 0.05 --watch 0.05", |report| {
        assert_eq!(report["alive"], 300, "{report}");
        // Three of them, ten messages each; what all said at first is not among them.
        assert_eq!((&report["active"], &report["active_echoes"]), (&3.into(), &30.into()));
        assert!(report["active_latency_us"]["p99"].as_f64() > Some(0.0), "{report}");
    });
}

/// Serves one connection: echoes after `spoil` has had its way with each chunk.
fn spoiling_server(spoil: impl Fn(&mut [u8]) -> usize + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
    let addr = listener.local_addr().expect("its address");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the load generator comes");
        let mut chunk = [0; 4_096];
        while let Ok(count @ 1..) = stream.read(&mut chunk) {
            let keep = spoil(&mut chunk[..count]);
            if stream.write_all(&chunk[..keep]).is_err() || keep == 0 {
                return;
            }
        }
    });
    addr
}

fn report_against(addr: SocketAddr) -> Value {
    let line = "pingpong --connections 1 --seconds 0.1 --warmup 0";
    let output = load(line, &addr.to_string());
    assert!(!output.status.success(), "a bad echo is no success");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

#[test]
fn a_server_that_changes_a_byte_is_found_out() {
    let addr = spoiling_server(|chunk| {
        chunk[chunk.len() - 1] ^= 1;
        chunk.len()
    });
    let report = report_against(addr);
    assert_eq!((&report["mismatches"], &report["errors"]), (&1.into(), &0.into()), "{report}");
}

#[test]
fn a_server_that_hangs_up_is_an_error() {
    let report = report_against(spoiling_server(|_| 0));
    assert_eq!((&report["mismatches"], &report["errors"]), (&0.into(), &1.into()), "{report}");
}

#[test]
fn every_peer_tells_all_of_its_subscribers() {
    let line = "--subscribers 50 --stalled 2 --window 3 --rounds 1 --seconds 0.1 --warmup 0.02";
    let output = Command::new(env!("CARGO_BIN_EXE_pubsub")).args(words(line)).output();
    let output = output.expect("the bench runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}");
    assert!(told.contains("ours / tokio: ") && told.contains("ours / raw: "), "{told}");
}
