//! Off-loaded work: results come back in order to their own connection, whatever happens meanwhile.

mod common;

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::BytesMut;
use common::{PATIENCE, builder, connect, wait_for};
use switchboard::codec::Lines;
use switchboard::control::SpawnError;
use switchboard::{Context, Handler, Outcome, Server};

/// A gate that jobs wait at: each needs a word from the test.
#[derive(Clone)]
struct Gate(Arc<Mutex<Receiver<()>>>);

impl Gate {
    fn new() -> (Sender<()>, Gate) {
        let (open, wait) = channel();
        (open, Gate(Arc::new(Mutex::new(wait))))
    }

    fn pass(&self) {
        let waits = self.0.lock().expect("no panic under the lock");
        waits.recv_timeout(PATIENCE).expect("the test opens the gate");
    }
}

/// Does what its lines say, and answers when that is done.
struct Worker {
    gate: Gate,
    frames: usize,
}

impl Handler for Worker {
    fn on_frame(&mut self, cx: &mut Context, line: BytesMut) -> Outcome {
        self.frames += 1;
        let seen = self.frames;
        let gate = self.gate.clone();
        let reply = move |worker: &mut Worker, cx: &mut Context, word: String| {
            Ok(cx.send(format!("{word} {seen} {}", worker.frames))?)
        };
        match &line[..] {
            b"wait" => cx.offload(
                move || {
                    gate.pass();
                    String::from("waited")
                },
                reply,
            )?,
            b"alone" => cx.offload_paused(
                move || {
                    gate.pass();
                    String::from("alone")
                },
                reply,
            )?,
            b"panic" => cx.offload(|| panic!("as told"), reply)?,
            b"fail" => cx.offload(|| (), |_: &mut Worker, _, ()| Err("as told".into()))?,
            b"other" => cx.offload(|| (), |_: &mut Gate, _, ()| Ok(()))?,
            _ => cx.send(format!("now {seen}"))?,
        }
        Ok(())
    }
}

fn start(change: impl FnOnce(&mut switchboard::Limits)) -> (Server, Sender<()>) {
    let (open, gate) = Gate::new();
    let worker = move |_peer| Worker { gate: gate.clone(), frames: 0 };
    let server = builder().limits(change).listen("127.0.0.1:0", Lines::new(), worker).start();
    (server.expect("it starts"), open)
}

fn talk(server: &Server, said: &str) -> String {
    let mut client = connect(server.local_addr());
    client.write_all(said.as_bytes()).expect("the server reads");
    client.shutdown(Shutdown::Write).expect("it is open");
    let mut replies = String::new();
    client.read_to_string(&mut replies).expect("the server ends it");
    replies
}

#[test]
fn further_frames_are_handled_meanwhile_and_the_end_waits_for_the_result() {
    let (server, open) = start(|_| {});
    let mut client = connect(server.local_addr());
    client.write_all(b"wait\nnow\n").expect("the server reads");
    client.shutdown(Shutdown::Write).expect("it is open");
    let mut first = [0; 6];
    client.read_exact(&mut first).expect("the second frame is answered first");
    assert_eq!(&first, b"now 2\n");
    open.send(()).expect("the job waits");
    let mut rest = String::new();
    client.read_to_string(&mut rest).expect("the result comes before the end");
    assert_eq!(rest, "waited 1 2\n");
    assert_eq!(server.stop().closed_by("peer_finished"), 1);
}

#[test]
fn a_connection_that_pauses_handles_one_frame_at_a_time() {
    let (server, open) = start(|_| {});
    (0..2).for_each(|_| open.send(()).expect("the jobs will come"));
    assert_eq!(talk(&server, "alone\nnow\nalone\nnow\n"), "alone 1 1\nnow 2\nalone 3 3\nnow 4\n");
}

#[test]
fn a_drain_waits_for_the_result() {
    let (server, open) = start(|_| {});
    let mut client = connect(server.local_addr());
    client.write_all(b"wait\n").expect("the server reads");
    wait_for("the frame was handled", &server, |now| {
        now.reactors.iter().map(|reactor| reactor.frames).sum::<u64>() == 1
    });
    let drained = std::thread::spawn(move || server.drain(PATIENCE, Duration::ZERO));
    // The drain has begun when nobody is accepted any more; either way the result comes.
    open.send(()).expect("the job waits");
    let mut reply = String::new();
    client.read_to_string(&mut reply).expect("the result comes before the goodbye");
    assert_eq!(reply, "waited 1 1\n");
    drop(client);
    assert_eq!(drained.join().expect("no panic").closed_by("drained"), 1);
}

#[test]
fn a_panic_and_an_error_of_the_work_end_its_connection_only() {
    let (server, _open) = start(|_| {});
    let mut other = connect(server.local_addr());
    let mut client = connect(server.local_addr());
    client.write_all(b"panic\n").expect("the server reads");
    assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)), "it is reset");
    assert_eq!(talk(&server, "fail\n"), "");
    assert_eq!(talk(&server, "other\n"), "");
    other.write_all(b"now\n").expect("it goes on");
    other.read_exact(&mut [0; 6]).expect("it goes on");
    let report = server.stop();
    assert_eq!([report.closed_by("handler_panicked"), report.closed_by("handler_failed")], [1, 1]);
}

#[test]
fn no_more_work_waits_than_may() {
    let (server, open) = start(|limits| limits.jobs_max = 1);
    let control = server.control();
    let (begun, begins) = channel();
    let mut refused = None;
    // As many as there are threads, each held up, and one more that waits.
    for _ in 0..10_000 {
        let (begun, gate) = (begun.clone(), open.clone());
        let (hold, held) = channel::<()>();
        let job = move || {
            let _gone = begun.send(hold).is_err();
            let _released = held.recv_timeout(PATIENCE).is_err();
            drop(gate);
        };
        if let Err(error) = control.spawn(job) {
            refused = Some(error);
            break;
        }
    }
    assert_eq!(refused, Some(SpawnError::Full));
    drop(begun);
    // Each that has begun is let go; then there is room again.
    begins.iter().for_each(drop);
    wait_for("there is room again", &server, |now| now.jobs_waiting == 0);
    let (done, is_done) = channel();
    let spawned = control.spawn(move || done.send(()).expect("the test waits"));
    assert_eq!(spawned, Ok(()));
    is_done.recv_timeout(PATIENCE).expect("it is run");
}
