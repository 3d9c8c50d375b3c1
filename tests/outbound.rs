//! Connections that the program opens itself: answers, addresses, limits, ends; and free jobs.

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::BytesMut;
#[cfg(target_os = "linux")]
use common::dialing::silent_port;
use common::dialing::{client, deaf_port, ear, echo_server, nobody};
use common::{Gate, PATIENCE, builder, hush, wait_for, wait_until};
use switchboard::client::{ConnectCause, ConnectError, ConnectOptions, Connecting};
use switchboard::config::Scheduling;
use switchboard::control::{Control, SpawnError};
use switchboard::group::Group;
use switchboard::{Context, Handle, Handler, Outcome, Raw, Server, handler_fn};

fn wait(connecting: Connecting) -> Result<Handle, ConnectError> {
    wait_until("an answer", || connecting.is_done());
    connecting.wait()
}

#[track_caller]
fn refusal(connecting: Connecting) -> ConnectError {
    wait(connecting).expect_err("there is nobody")
}

#[test]
fn a_connection_that_we_open_is_one_like_every_other() {
    let (server, client) = (echo_server(), client());
    let (ear, heard) = ear();
    let addr = server.local_addr();
    let connecting = client.connect(addr, Raw::new(), move |peer| {
        assert_eq!(peer, addr);
        ear
    });
    let handle = wait(connecting).expect("the server listens");
    handle.try_send("there and back").expect("it is open");
    assert_eq!(&heard.recv_timeout(PATIENCE).expect("an echo")[..], b"there and back");
    let snapshot = wait_for("the connection is counted", &client, |s| s.connections() == 1);
    assert_eq!((snapshot.admitted, snapshot.connecting()), (1, 0));
    assert_eq!(common::sum(&snapshot, |reactor| reactor.dialed), 1);
    let report = client.drain(PATIENCE, Duration::ZERO);
    assert_eq!((report.opened, report.closed_by("drained")), (1, 1));
    server.stop();
}

#[test]
fn a_name_is_looked_up_and_one_that_does_not_exist_is_told() {
    let (server, client) = (echo_server(), client());
    let port = server.local_addr().port();
    let target = format!("localhost:{port}");
    let handle = wait(client.connect(target, Raw::new(), |_| ear().0));
    handle.expect("localhost is this machine").close();

    let label = "x".repeat(64);
    let error = refusal(client.connect((&*label, port), Raw::new(), nobody));
    assert!(matches!(error.cause(), ConnectCause::Resolve(_)), "{error}");
    assert!(error.to_string().starts_with(&format!("connecting to {label}:{port}: ")), "{error}");
    let error = refusal(client.connect(Vec::new(), Raw::new(), nobody));
    assert!(matches!(error.cause(), ConnectCause::NoAddress), "{error}");
    wait_for("all permits are back", &client, |snapshot| snapshot.admitted == 0);
    server.stop();
}

#[test]
fn who_is_refused_is_told_by_whom() {
    let client = client();
    let (_deaf, addr) = deaf_port();
    let error = refusal(client.connect(addr, Raw::new(), nobody));
    assert!(matches!(error.cause(), ConnectCause::Failed), "{error}");
    let [attempt] = error.attempts() else { panic!("one address was tried: {error}") };
    assert_eq!(attempt.addr, addr);
    assert_eq!(attempt.error.kind(), std::io::ErrorKind::ConnectionRefused, "{error}");
    let snapshot = wait_for("it is counted", &client, |snapshot| snapshot.admitted == 0);
    assert_eq!(common::sum(&snapshot, |reactor| reactor.dial_failures), 1);
}

#[test]
fn the_second_address_is_taken_if_the_first_one_refuses() {
    let (server, client) = (echo_server(), client());
    let (_deaf, addr) = deaf_port();
    let target = vec![addr, server.local_addr()];
    let (ear, heard) = ear();
    let handle = wait(client.connect(target, Raw::new(), move |_| ear)).expect("the second");
    handle.try_send("hello").expect("it is open");
    assert_eq!(&heard.recv_timeout(PATIENCE).expect("an echo")[..], b"hello");
    let snapshot = client.snapshot();
    assert_eq!((snapshot.admitted, snapshot.connecting()), (1, 0));
    client.stop();
    server.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn a_silent_address_delays_the_next_one_and_no_more() {
    let (server, client) = (echo_server(), client());
    let (_sockets, silent) = silent_port();
    let options = ConnectOptions::new().timeout(PATIENCE).attempt_delay(Duration::from_millis(20));
    let target = vec![silent, server.local_addr()];
    let connecting = client.control().connect_with(&options, target, Raw::new(), |_| ear().0);
    wait(connecting).expect("the second address answers");
    let snapshot = wait_for("the other socket is closed", &client, |s| s.admitted == 1);
    assert_eq!(snapshot.connecting(), 0);
    client.stop();
    server.stop();
}

#[cfg(target_os = "linux")]
#[test]
fn silence_ends_with_the_timeout_and_is_visible_until_then() {
    let client = client();
    let (_sockets, silent) = silent_port();
    let options = ConnectOptions::new().timeout(Duration::from_millis(80));
    let connecting = client.control().connect_with(&options, silent, Raw::new(), nobody);
    let error = refusal(connecting);
    assert!(matches!(error.cause(), ConnectCause::TimedOut), "{error}");
    assert_eq!(error.attempts()[0].error.kind(), std::io::ErrorKind::TimedOut);

    let connecting = client.connect(silent, Raw::new(), nobody);
    let snapshot = wait_for("it is counted", &client, |snapshot| snapshot.connecting() == 1);
    assert_eq!((snapshot.admitted, snapshot.connections()), (1, 0));
    let report = client.stop();
    let error = refusal(connecting);
    assert!(error.is_final() && matches!(error.cause(), ConnectCause::Stopping), "{error}");
    assert_eq!(report.opened, 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_drain_gives_up_what_is_being_made() {
    let client = client();
    let (_sockets, silent) = silent_port();
    let control = client.control();
    let (sender, answers) = channel();
    let told = move |answer: Result<Handle, ConnectError>| _ = sender.send(answer.is_err());
    client.connect(silent, Raw::new(), nobody).then(told);
    wait_for("it is being made", &client, |snapshot| snapshot.connecting() == 1);
    let report = client.drain(PATIENCE, Duration::ZERO);
    assert_eq!(answers.recv_timeout(PATIENCE), Ok(true));
    assert_eq!((report.stuck, report.unserved), (0, 0));
    let error = refusal(control.connect(silent, Raw::new(), nobody));
    assert!(matches!(error.cause(), ConnectCause::Stopping), "{error}");
    let error = refusal(control.connect("localhost:1", Raw::new(), nobody));
    assert!(matches!(error.cause(), ConnectCause::Stopping), "{error}");
    assert_eq!(control.spawn(|| {}), Err(SpawnError::Stopping));
}

#[test]
fn the_limit_of_connections_holds_for_ours_too() {
    let server = echo_server();
    let client = builder().limits(|limits| limits.connections_max = 2).start().expect("it starts");
    let addr = server.local_addr();
    let open = || wait(client.connect(addr, Raw::new(), |_| ear().0));
    let (first, _second) = (open().expect("room"), open().expect("room"));
    let error = open().expect_err("no room");
    assert!(matches!(error.cause(), ConnectCause::Full), "{error}");
    first.close();
    wait_for("there is room again", &client, |snapshot| snapshot.admitted == 1);
    open().expect("room");
    client.stop();
    server.stop();
}

#[test]
fn options_out_of_range_are_told() {
    let client = client();
    let options = ConnectOptions::new().timeout(Duration::ZERO);
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    let error = refusal(client.control().connect_with(&options, addr, Raw::new(), nobody));
    assert!(matches!(error.cause(), ConnectCause::Options { field: "timeout", .. }), "{error}");
}

/// Hands what it receives to another server, and what that answers back.
struct Proxy {
    control: Arc<OnceLock<Control>>,
    backend: SocketAddr,
    /// What came before the other side was there.
    early: Vec<BytesMut>,
    other: Arc<OnceLock<Handle>>,
}

impl Handler for Proxy {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        let control = self.control.get().ok_or("no control yet")?;
        let (client, other) = (cx.handle(), Arc::clone(&self.other));
        let back = client.clone();
        let answers = move |_| handler_fn(move |_: &mut Context, bytes| back.try_send(bytes));
        control.connect(self.backend, Raw::new(), answers).then(move |answer| match answer {
            Ok(handle) => drop(other.set(handle)),
            Err(_) => client.close(),
        });
        Ok(())
    }

    fn on_frame(&mut self, _: &mut Context, frame: BytesMut) -> Outcome {
        self.early.push(frame);
        // The test sends again until the other side is there.
        let Some(other) = self.other.get() else { return Ok(()) };
        for frame in self.early.drain(..) {
            other.try_send(frame)?;
        }
        Ok(())
    }
}

fn proxy(scheduling: Scheduling, backend: SocketAddr) -> Server {
    let control = Arc::new(OnceLock::new());
    let its = Arc::clone(&control);
    let make = move |_| Proxy {
        control: Arc::clone(&its),
        backend,
        early: Vec::new(),
        other: Arc::default(),
    };
    let proxy = Server::builder()
        .reactors(1)
        .scheduling(scheduling)
        .listen("127.0.0.1:0", Raw::new(), make)
        .start()
        .expect("it starts");
    assert!(control.set(proxy.control()).is_ok());
    proxy
}

#[test]
fn a_handler_connects_whoever_runs_it() {
    let server = echo_server();
    for scheduling in [Scheduling::TakeOver, Scheduling::HandOff, Scheduling::Inline] {
        let proxy = proxy(scheduling, server.local_addr());
        let client = client();
        let (ear, heard) = ear();
        let handle = wait(client.connect(proxy.local_addr(), Raw::new(), move |_| ear));
        let handle = handle.expect("the proxy listens");
        let mut back = Vec::new();
        wait_until("an echo from behind the proxy", || {
            drop(handle.try_send("x"));
            heard.try_iter().for_each(|bytes| back.extend_from_slice(&bytes));
            !back.is_empty()
        });
        assert!(back.iter().all(|&byte| byte == b'x'), "{scheduling:?}");
        client.stop();
        proxy.stop();
    }
}

#[test]
fn permits_are_exactly_restored_after_many_attempts_of_all_kinds() {
    hush();
    let (server, client) = (echo_server(), client());
    let (_deaf, deaf) = deaf_port();
    let addr = server.local_addr();
    let short = ConnectOptions::new().timeout(Duration::from_millis(1));
    let control = client.control();
    let label = "y".repeat(64);
    let attempts: Vec<Connecting> = (0..500)
        .map(|number| match number % 5 {
            0 => control.connect(addr, Raw::new(), |_| ear().0),
            1 => control.connect(deaf, Raw::new(), |_| ear().0),
            2 => control.connect(vec![deaf, addr], Raw::new(), |_| ear().0),
            3 => control.connect_with(&short, vec![addr, deaf], Raw::new(), |_| ear().0),
            _ => control.connect((&*label, 1), Raw::new(), |_| ear().0),
        })
        .collect();
    let (mut opened, mut failed) = (Vec::new(), Vec::new());
    for (number, attempt) in attempts.into_iter().enumerate() {
        match wait(attempt) {
            Ok(handle) => opened.push(handle),
            Err(error) => failed.push(format!("{number}: {error}")),
        }
    }
    assert!(opened.len() >= 200 && failed.len() >= 200, "{} opened; {failed:#?}", opened.len());
    let count = opened.len();
    wait_for("each has its permit", &client, |s| s.admitted == count && s.connecting() == 0);
    opened.iter().for_each(Handle::abort);
    let snapshot = wait_for("all permits are back", &client, |s| s.admitted == 0);
    assert_eq!(snapshot.opened(), u64::try_from(count).expect("few"));
    let report = client.stop();
    assert_eq!(report.closed_count(), report.opened);
    server.stop();
}

#[test]
fn free_jobs_run_while_all_reactors_are_busy() {
    hush();
    let gate = Gate::default();
    let its = gate.clone();
    let blocks = move |_| {
        let gate = its.clone();
        handler_fn(move |cx: &mut Context, bytes| {
            gate.pass();
            cx.send(bytes)
        })
    };
    let server = builder()
        .limits(|limits| limits.jobs_max = 2)
        .listen("127.0.0.1:0", Raw::new(), blocks)
        .start()
        .expect("it starts");
    let control = server.control();
    let addr = server.local_addr();
    let handles: Vec<_> = (0..3)
        .map(|_| wait(control.connect(addr, Raw::new(), |_| ear().0)).expect("it listens"))
        .collect();
    handles.iter().for_each(|handle| handle.try_send("x").expect("it is open"));
    gate.wait_for(3);
    let (sender, done) = channel();
    control.spawn(move || _ = sender.send(())).expect("there is room");
    assert_eq!(done.recv_timeout(PATIENCE), Ok(()));
    control.spawn(|| panic!("{}", common::PLANTED)).expect("there is room");
    wait_for("both are counted", &server, |snapshot| {
        (snapshot.jobs_finished, snapshot.jobs_panicked, snapshot.jobs_waiting) == (2, 1, 0)
    });
    gate.open();
    assert_eq!(server.stop().stuck, 0);
}

#[test]
fn the_queue_of_free_jobs_has_an_end() {
    let gate = Gate::default();
    let server = Server::builder()
        .reactors(1)
        .workers(1)
        .workers_max(1)
        .limits(|limits| limits.jobs_max = 2)
        .start()
        .expect("it starts");
    let control = server.control();
    let pass = || {
        let gate = gate.clone();
        move || gate.pass()
    };
    control.spawn(pass()).expect("there is room");
    gate.wait_for(1);
    control.spawn(pass()).expect("there is room");
    control.spawn(pass()).expect("there is room");
    assert_eq!(control.spawn(pass()), Err(SpawnError::Full));
    let error = refusal(control.connect("localhost:1", Raw::new(), nobody));
    assert!(matches!(error.cause(), ConnectCause::Busy), "{error}");
    gate.open();
    wait_for("all were run", &server, |snapshot| snapshot.jobs_finished == 3);
    assert_eq!(server.stop().unserved, 0);
}

#[test]
fn free_jobs_that_block_make_the_pool_grow_though_all_reactors_sleep() {
    let gate = Gate::default();
    let server = Server::builder().reactors(1).workers(1).workers_max(8).start().expect("starts");
    let control = server.control();
    for count in 1..=6 {
        let its = gate.clone();
        control.spawn(move || its.pass()).expect("there is room");
        if count < 4 {
            gate.wait_for(count);
        }
    }
    gate.wait_for(6);
    gate.open();
    assert_eq!(server.stop().stuck, 0);
}

#[test]
fn without_workers_a_reactor_runs_free_jobs() {
    let server = Server::builder().reactors(1).workers(0).start().expect("it starts");
    let (sender, done) = channel();
    server.control().spawn(move || _ = sender.send(())).expect("there is room");
    assert_eq!(done.recv_timeout(PATIENCE), Ok(()));
    let error = refusal(server.connect("localhost:1", Raw::new(), nobody));
    assert!(matches!(error.cause(), ConnectCause::Failed | ConnectCause::Resolve(_)), "{error}");
    server.stop();
}

#[test]
fn what_was_asked_of_a_reactor_that_hangs_in_a_handler_is_answered_at_the_end() {
    let gate = Gate::default();
    let group = Group::new(Raw::new());
    let (its, members) = (gate.clone(), group.clone());
    let hangs = move |_| {
        let gate = its.clone();
        let hang = handler_fn(move |_: &mut Context, _| -> Outcome {
            gate.pass();
            Ok(())
        });
        hang.joining(&members)
    };
    let server = Server::builder().reactors(1).workers(0).listen("127.0.0.1:0", Raw::new(), hangs);
    let server = server.start().expect("it starts");
    let addr = server.local_addr();
    let mut client = TcpStream::connect(addr).expect("it accepts");
    wait_until("it has joined", || group.len() == 1);
    client.write_all(b"x").expect("it is open");
    gate.wait_for(1);
    let connecting = server.control().connect(addr, Raw::new(), nobody);
    group.broadcast("nobody passes it on").expect("there is room");
    assert!(group.stats().backlog_bytes > 0);
    assert_eq!(server.stop().stuck, 1);
    let error = refusal(connecting);
    assert!(matches!(error.cause(), ConnectCause::Stopping), "{error}");
    assert_eq!(group.stats().backlog_bytes, 0, "no reactor has members any more");
    gate.open();
}
