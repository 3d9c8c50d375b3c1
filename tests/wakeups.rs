//! An idle server sleeps: no thread of it wakes up while nothing happens, full or not.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use switchboard::{Raw, Server, handler_fn};

const CONNECTIONS: usize = 200;
/// How long nothing may happen. It is the time that is measured over, not a guess at how long
/// something takes.
const WINDOW: Duration = Duration::from_millis(1500);
/// Windows until one has to be quiet: after the last client some threads have yet to come to rest.
/// What wakes up again and again wakes up in each of them.
const WINDOWS_MAX: usize = 12;

fn start(name: &str) -> Server {
    Server::builder()
        .reactors(2)
        .name(name)
        .limits(|limits| limits.connections_max = CONNECTIONS)
        .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
        .start()
        .expect("the server starts")
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.local_addr()).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a fresh socket takes options");
    stream
}

fn echo(mut stream: &TcpStream) {
    let mut back = [0; 5];
    stream.write_all(b"hello").expect("the server reads");
    stream.read_exact(&mut back).expect("the server echoes");
    assert_eq!(&back, b"hello");
}

/// How often each thread whose name begins with `name` has gone to sleep of its own accord.
fn sleeps(name: &str) -> BTreeMap<String, u64> {
    let tasks = fs::read_dir("/proc/self/task").expect("every process has threads");
    let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status")).ok();
    let field = |status: &str, field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.map(|value| value.trim().to_owned())
    };
    let thread = |status: String| {
        let thread = field(&status, "Name:").filter(|thread| thread.starts_with(name))?;
        let count = field(&status, "voluntary_ctxt_switches:")?;
        Some((thread, count.parse().expect("a number")))
    };
    tasks.flatten().filter_map(status).filter_map(thread).collect()
}

/// Waits until a whole window has gone by in which no thread of the server woke up.
fn assert_quiet(name: &str) {
    let (never, bell) = (Mutex::new(()), Condvar::new());
    let mut before = sleeps(name);
    assert!(before.keys().any(|thread| thread.contains("reactor")), "threads: {before:?}");
    assert!(before.keys().any(|thread| thread.contains("sentinel")), "threads: {before:?}");
    for _ in 0..WINDOWS_MAX {
        let guard = never.lock().expect("nobody else has it");
        drop(bell.wait_timeout_while(guard, WINDOW, |()| true).expect("nobody else has it"));
        let after = sleeps(name);
        if after == before {
            return;
        }
        before = after;
    }
    panic!("somebody wakes up again and again: {before:?}, then {:?}", sleeps(name));
}

#[test]
fn an_idle_server_sleeps() {
    let server = start("idle");
    let streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(&server)).collect();
    streams.iter().for_each(echo);
    assert_quiet("idle");
    streams.iter().for_each(echo);
}

#[test]
fn a_full_server_with_clients_that_wait_sleeps() {
    let server = start("full");
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| connect(&server)).collect();
    streams.iter().for_each(echo);
    let queued: Vec<TcpStream> = (0..60).map(|_| connect(&server)).collect();
    assert_quiet("full");
    assert_eq!(server.snapshot().connections(), CONNECTIONS);
    streams.truncate(CONNECTIONS - queued.len());
    queued.iter().for_each(echo);
}
