//! Connections that are made again whenever they end.

mod common;

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::BytesMut;
use common::dialing::{Ear, client, deaf_port, ear, echo_server, nobody};
use common::{PATIENCE, hush, wait_for, wait_until};
use switchboard::client::{Backoff, ReconnectEvent, ReconnectOptions, ReconnectState};
use switchboard::{Context, Handler, Outcome, Raw};

/// Options whose every event arrives as a word.
fn told(backoff: Backoff) -> (ReconnectOptions, Receiver<&'static str>) {
    let (sender, events) = channel();
    let options = ReconnectOptions::new().backoff(backoff).watch(move |event| {
        let word = match event {
            ReconnectEvent::Connecting(_) => "connecting",
            ReconnectEvent::Connected => "connected",
            ReconnectEvent::Failed(_) => "failed",
            ReconnectEvent::Closed(_) => "closed",
            ReconnectEvent::Waiting(_) => "waiting",
            ReconnectEvent::Stopped => "stopped",
            _ => "unknown",
        };
        // A test that is over does not listen any more.
        let _ = sender.send(word);
    });
    (options, events)
}

#[track_caller]
fn next(events: &Receiver<&'static str>) -> &'static str {
    events.recv_timeout(PATIENCE).expect("one more event")
}

fn quick() -> Backoff {
    Backoff::new().base(Duration::from_millis(1)).max(Duration::from_millis(4))
}

#[test]
fn a_connection_is_made_again_until_it_is_told_to_stop() {
    let client = client();
    let (listener, addr) = deaf_port();
    let (options, events) = told(quick());
    let control = client.control();
    let connection = control.reconnect(options, addr, Raw::new(), |_| ear().0);
    for _ in 0..3 {
        let attempt = [next(&events), next(&events), next(&events)];
        assert_eq!(attempt, ["connecting", "failed", "waiting"]);
    }
    listener.listen(16).expect("it listens from now on");
    for _ in 0..3 {
        wait_until("the server accepts", || next(&events) == "connected");
        assert_eq!(connection.state(), ReconnectState::Connected);
        assert!(connection.handle().expect("there is one").is_open());
        // The server dies.
        drop(listener.accept().expect("it waits"));
        let rest = [next(&events), next(&events), next(&events)];
        assert_eq!(rest, ["closed", "waiting", "connecting"]);
    }
    wait_until("one last connection", || next(&events) == "connected");
    connection.stop();
    assert_eq!(next(&events), "stopped");
    assert_eq!(
        (connection.state(), connection.handle().is_none()),
        (ReconnectState::Stopped, true)
    );
    drop(listener.accept().expect("it waits"));
    assert_eq!(next(&events), "closed");
    let snapshot = wait_for("nothing is left", &client, |snapshot| snapshot.admitted == 0);
    assert_eq!((common::sum(&snapshot, |reactor| reactor.dialed), snapshot.connecting()), (4, 0));
    assert_eq!(client.stop().unserved, 0);
    assert!(events.try_recv().is_err(), "nothing happens after the stop");
}

#[test]
fn what_could_never_be_reconnected_is_told_at_once() {
    let client = client();
    let never = Backoff::new().base(Duration::from_secs(2)).max(Duration::from_secs(1));
    let (options, events) = told(never);
    let addr = SocketAddr::from(([127, 0, 0, 1], 1));
    let connection = client.control().reconnect(options, addr, Raw::new(), nobody);
    assert_eq!([next(&events), next(&events)], ["failed", "stopped"]);
    assert_eq!(connection.state(), ReconnectState::Stopped);
    assert_eq!(client.snapshot().connecting(), 0);
}

#[test]
fn one_that_is_reconnected_hears_like_every_other() {
    let (server, client) = (echo_server(), client());
    let (options, events) = told(quick());
    let (ear, heard) = ear();
    let make = move |_| Ear(ear.0.clone());
    let addr = server.local_addr();
    let connection = client.control().reconnect(options, addr, Raw::new(), make);
    wait_until("it is open", || next(&events) == "connected");
    connection.handle().expect("there is one").try_send("hello").expect("it is open");
    assert_eq!(heard.recv_timeout(PATIENCE).expect("an echo"), "hello");
    client.stop();
    server.stop();
}

#[test]
fn nothing_is_made_again_once_the_server_drains() {
    let (server, client) = (echo_server(), client());
    let (options, events) = told(quick());
    let addr = server.local_addr();
    let connection = client.control().reconnect(options, addr, Raw::new(), |_| ear().0);
    let (options, waiting) = told(Backoff::new().base(PATIENCE * 100).max(PATIENCE * 100));
    let (_deaf, deaf) = deaf_port();
    let other = client.control().reconnect(options, deaf, Raw::new(), |_| ear().0);
    wait_until("it is open", || next(&events) == "connected");
    wait_until("the other one waits", || next(&waiting) == "waiting");
    let report = client.drain(PATIENCE, Duration::ZERO);
    assert_eq!((report.closed_by("drained"), report.stuck, report.unserved), (1, 0, 0));
    wait_until("it has stopped", || next(&events) == "stopped");
    wait_until("the other one has stopped too", || next(&waiting) == "stopped");
    assert_eq!(connection.state(), ReconnectState::Stopped);
    assert_eq!(other.state(), ReconnectState::Stopped);
    server.stop();
}

#[test]
fn a_handler_that_cannot_be_made_is_tried_again_too() {
    hush();
    let (server, client) = (echo_server(), client());
    let (options, events) = told(quick());
    let addr = server.local_addr();
    let panics = |_| -> Ear { panic!("{}", common::PLANTED) };
    let connection = client.control().reconnect(options, addr, Raw::new(), panics);
    let mut count = 0;
    wait_until("it has ended a few times", || {
        count += usize::from(next(&events) == "closed");
        count == 3
    });
    drop(connection);
    wait_until("it has stopped", || next(&events) == "stopped");
    client.stop();
    server.stop();
}

/// Sets a timer, and then makes way for a [`Second`].
struct First(Sender<&'static str>);

struct Second(Sender<&'static str>);

impl Handler for First {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        Ok(cx.set_timer(0, Duration::from_millis(1))?)
    }

    fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
        Ok(())
    }

    fn on_timer(&mut self, cx: &mut Context, _: u64) -> Outcome {
        self.0.send("timer")?;
        cx.switch(Raw::new(), Second(self.0.clone()));
        Ok(())
    }
}

impl Handler for Second {
    fn on_open(&mut self, _: &mut Context) -> Outcome {
        Ok(self.0.send("second")?)
    }

    fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
        Ok(())
    }
}

#[test]
fn a_handler_that_is_made_again_hears_its_timers_and_may_be_replaced() {
    let (server, client) = (echo_server(), client());
    let (sender, words) = channel();
    let (options, events) = told(quick());
    let control = client.control();
    let make = move |_| First(sender.clone());
    let connection = control.reconnect(options, server.local_addr(), Raw::new(), make);
    assert_eq!([next(&events), next(&events)], ["connecting", "connected"]);
    assert_eq!([next(&words), next(&words)], ["timer", "second"]);
    let handle = connection.handle().expect("it is open");
    let visit = |second: &mut Second, _: &mut Context| Ok(second.0.send("visit")?);
    handle.run(visit).unwrap_or_else(|error| panic!("refused: {error}"));
    assert_eq!(next(&words), "visit");
    assert_eq!(connection.state(), ReconnectState::Connected);
    connection.stop();
    // No other one was made meanwhile.
    assert_eq!([next(&events), next(&events)], ["stopped", "closed"]);
    client.stop();
    server.stop();
}
