//! The life of a connection: its calls come once and in order, and it ends for the right reason
//! whatever the peer, the handler, the codec or the operator does.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the calls it is about")]

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::BytesMut;
use common::{
    Call, Gate, PLANTED, builder, by_default, connect, connect_narrow, echo, ends_in_reset,
    expect_reset, frame, frames, hush, name, read_all, reset, resets_are_told, serve, sum,
    try_connect, wait_for,
};
use switchboard::close::{Blame, ClosePhase};
use switchboard::config::Scheduling;
use switchboard::{
    Builder, CloseReason, Context, Handle, Handler, LengthPrefixed, Outcome, Raw, Server,
};

fn written(bytes: &[u8]) -> Call {
    Call::Frame(bytes.to_vec())
}

#[test]
fn a_peer_that_finishes_is_answered_and_finished_too() {
    let (server, journal) = serve(builder(), Raw::new(), by_default);
    let mut client = connect(server.local_addr());
    client.write_all(b"abc").expect("write");
    client.shutdown(Shutdown::Write).expect("finish");
    assert_eq!(read_all(&mut client), b"abc");
    let (calls, reason) = journal.life(name(&client));
    let end = Call::Close("peer_finished");
    assert_eq!(calls, [Call::Open, written(b"abc"), Call::Eof, end, Call::Dropped]);
    assert_eq!((reason.blame(), reason.unsent_bytes()), (Blame::Peer, 0));
    let report = server.stop();
    assert_eq!((report.opened, report.closed_count()), (1, 1));
}

#[test]
fn a_peer_that_sends_nothing_and_finishes_is_seen_open_and_gone() {
    let (server, journal) = serve(builder(), Raw::new(), by_default);
    let mut client = connect(server.local_addr());
    client.shutdown(Shutdown::Write).expect("finish");
    assert_eq!(read_all(&mut client), b"");
    let (calls, _) = journal.life(name(&client));
    assert_eq!(calls, [Call::Open, Call::Eof, Call::Close("peer_finished"), Call::Dropped]);
}

#[test]
fn a_peer_that_resets_is_gone_without_an_end_of_input() {
    let (server, journal) = serve(builder(), Raw::new(), by_default);
    let mut client = connect(server.local_addr());
    let peer = name(&client);
    echo(&mut client, b"abc");
    reset(client);
    let (calls, reason) = journal.life(peer);
    assert_eq!((&calls[..2], reason.blame()), (&[Call::Open, written(b"abc")][..], Blame::Peer));
    assert_eq!(calls.last(), Some(&Call::Dropped));
    if resets_are_told() {
        assert_eq!(calls[2..], [Call::Close("peer_reset"), Call::Dropped]);
        assert_eq!(reason.phase(), ClosePhase::Open);
    }
}

/// A handler that ends its connection as the client says, after a reply.
fn by_word(cx: &mut Context, call: &Call) -> Outcome {
    let Call::Frame(word) = call else { return by_default(cx, call) };
    cx.send("reply")?;
    match &word[..] {
        b"close" => cx.close(),
        b"abort" => cx.abort(),
        b"finish" => cx.finish(),
        b"fail" => return Err("the handler has had enough".into()),
        _ => {}
    }
    Ok(())
}

#[test]
fn close_sends_what_was_sent_before_and_shows_no_further_frame() {
    let (server, journal) = serve(builder(), Raw::new(), by_word);
    let mut client = connect(server.local_addr());
    client.write_all(b"close").expect("write");
    assert_eq!(read_all(&mut client), b"reply");
    client.write_all(b"nobody reads this").expect("the connection lingers");
    client.shutdown(Shutdown::Write).expect("finish");
    let (calls, reason) = journal.life(name(&client));
    let end = Call::Close("closed");
    assert_eq!(calls, [Call::Open, written(b"close"), end, Call::Dropped]);
    assert_eq!((reason.blame(), reason.phase()), (Blame::App, ClosePhase::Closing));
}

#[test]
fn an_error_of_the_handler_closes_and_stands_in_the_reason() {
    let (server, journal) = serve(builder(), Raw::new(), by_word);
    let mut client = connect(server.local_addr());
    client.write_all(b"fail").expect("write");
    assert_eq!(read_all(&mut client), b"reply");
    client.shutdown(Shutdown::Write).expect("finish");
    let (calls, reason) = journal.life(name(&client));
    let end = Call::Close("handler_failed");
    assert_eq!(calls, [Call::Open, written(b"fail"), end, Call::Dropped]);
    assert!(reason.to_string().contains("the handler has had enough"), "{reason}");
}

#[test]
fn finish_ends_our_side_only() {
    let (server, journal) = serve(builder(), Raw::new(), |cx, call| match call {
        Call::Frame(word) if word == b"more" => Ok(()),
        _ => by_word(cx, call),
    });
    let mut client = connect(server.local_addr());
    client.write_all(b"finish").expect("write");
    assert_eq!(read_all(&mut client), b"reply");
    client.write_all(b"more").expect("write");
    client.shutdown(Shutdown::Write).expect("finish");
    let (calls, _) = journal.life(name(&client));
    let both = [written(b"finish"), written(b"more")];
    assert_eq!(calls[1..3], both);
    assert_eq!(calls[3..], [Call::Eof, Call::Close("closed"), Call::Dropped]);
}

#[test]
fn abort_resets_at_once() {
    let (server, journal) = serve(builder(), Raw::new(), by_word);
    let mut client = connect(server.local_addr());
    client.write_all(b"abort").expect("write");
    expect_reset(&mut client);
    let (calls, reason) = journal.life(name(&client));
    let end = Call::Close("aborted");
    assert_eq!(calls, [Call::Open, written(b"abort"), end, Call::Dropped]);
    assert_eq!(reason.unsent_bytes(), "reply".len());
}

fn with_handles() -> (Server, common::Journal, Receiver<Handle>) {
    let (sender, handles) = channel();
    let (server, journal) = serve(builder(), Raw::new(), move |cx, call| {
        if *call == Call::Open {
            sender.send(cx.handle())?;
        }
        by_default(cx, call)
    });
    (server, journal, handles)
}

#[test]
fn another_thread_closes_after_what_it_has_sent() {
    let (server, journal, handles) = with_handles();
    let mut client = connect(server.local_addr());
    let handle = handles.recv_timeout(common::PATIENCE).expect("a handle");
    handle.try_send("last words").expect("open");
    handle.close();
    assert_eq!(read_all(&mut client), b"last words");
    client.shutdown(Shutdown::Write).expect("finish");
    let (calls, _) = journal.life(name(&client));
    assert_eq!(calls, [Call::Open, Call::Close("closed"), Call::Dropped]);
    assert!(!handle.is_open());
}

#[test]
fn another_thread_aborts() {
    let (server, journal, handles) = with_handles();
    let mut client = connect(server.local_addr());
    let handle = handles.recv_timeout(common::PATIENCE).expect("a handle");
    handle.abort();
    expect_reset(&mut client);
    let (calls, _) = journal.life(name(&client));
    assert_eq!(calls, [Call::Open, Call::Close("aborted"), Call::Dropped]);
    handle.abort();
    handle.close();
    assert!(!handle.is_open());
}

#[test]
fn input_that_the_codec_refuses_closes_and_stands_in_the_reason() {
    let codec = LengthPrefixed::u32().frame_max(10);
    let (server, journal) = serve(builder(), codec, by_default);
    let mut client = connect(server.local_addr());
    client.write_all(&frame(b"fits")).expect("write");
    client.write_all(&1_000u32.to_be_bytes()).expect("write");
    assert_eq!(read_all(&mut client), frame(b"fits"));
    client.shutdown(Shutdown::Write).expect("finish");
    let (calls, reason) = journal.life(name(&client));
    let end = Call::Close("codec_failed");
    assert_eq!(calls, [Call::Open, written(b"fits"), end, Call::Dropped]);
    assert!(reason.to_string().contains("1000 bytes"), "{reason}");
}

#[test]
fn a_peer_that_finishes_within_a_frame_has_truncated_it() {
    let (server, journal) = serve(builder(), frames(), by_default);
    let mut client = connect(server.local_addr());
    let whole = frame(b"a whole frame");
    client.write_all(&whole).expect("write");
    client.write_all(&whole[..9]).expect("write");
    client.shutdown(Shutdown::Write).expect("finish");
    assert_eq!(read_all(&mut client), whole);
    let (calls, reason) = journal.life(name(&client));
    let end = Call::Close("truncated");
    assert_eq!(calls, [Call::Open, written(b"a whole frame"), end, Call::Dropped]);
    assert_eq!(reason.blame(), Blame::Peer);
}

/// Where a handler panics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Factory,
    Open,
    Frame,
    Eof,
    Drained,
    Drain,
    Close,
    Drop,
}

struct Bomb {
    at: At,
    armed: bool,
}

impl Bomb {
    fn step(&self, at: At) {
        assert!(!self.armed || self.at != at, "{PLANTED}");
    }
}

/// More than the system takes from a server whose client does not read.
const MUCH: usize = 12 << 20;

impl Handler for Bomb {
    fn on_open(&mut self, _: &mut Context) -> Outcome {
        self.step(At::Open);
        Ok(())
    }

    fn on_frame(&mut self, cx: &mut Context, bytes: BytesMut) -> Outcome {
        self.armed |= bytes == "arm";
        self.step(At::Frame);
        if self.armed && self.at == At::Drained {
            cx.send(vec![0; MUCH])?;
        }
        Ok(cx.send(bytes)?)
    }

    fn on_eof(&mut self, cx: &mut Context) -> Outcome {
        self.step(At::Eof);
        cx.finish();
        Ok(())
    }

    fn on_drained(&mut self, _: &mut Context) -> Outcome {
        self.step(At::Drained);
        Ok(())
    }

    fn on_drain(&mut self, cx: &mut Context) -> Outcome {
        self.step(At::Drain);
        cx.close();
        Ok(())
    }

    fn on_close(&mut self, _: &CloseReason) {
        self.step(At::Close);
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.step(At::Drop);
    }
}

/// A server of one reactor with two doors: behind the first are handlers that panic, behind the
/// second an echo.
fn bombs(at: At) -> Server {
    hush();
    let early = at == At::Factory || at == At::Open;
    Builder::workers(Server::builder().reactors(1), 2)
        .listen("127.0.0.1:0", Raw::new(), move |_| {
            assert!(at != At::Factory, "{PLANTED}");
            Bomb { at, armed: early }
        })
        .listen("127.0.0.1:0", Raw::new(), move |_| Bomb { at, armed: false })
        .start()
        .expect("the server starts")
}

/// What it takes to make the handler of `client` panic.
fn provoke(at: At, server: &Server, client: &mut TcpStream) {
    match at {
        At::Factory | At::Open => {}
        At::Drained => {
            client.write_all(b"arm").expect("write");
            // Nothing is read before the output is stuck.
            wait_for("output waits", server, |now| sum(now, |reactor| reactor.held_bytes) > 0);
        }
        At::Frame => client.write_all(b"arm").expect("write"),
        At::Eof | At::Close | At::Drop => {
            echo(client, b"arm");
            client.shutdown(Shutdown::Write).expect("finish");
        }
        At::Drain => echo(client, b"arm"),
    }
}

#[test]
fn a_panic_in_any_call_ends_its_connection_and_nothing_else() {
    for at in [At::Factory, At::Open, At::Frame, At::Eof, At::Drained, At::Close, At::Drop] {
        let server = bombs(at);
        let mut other = connect(server.local_addrs()[1]);
        echo(&mut other, b"before");
        let ends_well = matches!(at, At::Close | At::Drop);
        match try_connect(server.local_addr()) {
            Ok(mut client) => {
                provoke(at, &server, &mut client);
                if ends_well {
                    assert!(!ends_in_reset(&mut client), "{at:?}");
                } else {
                    expect_reset(&mut client);
                }
            }
            Err(error) => {
                // The server was faster than the client's connect.
                assert!(at == At::Factory || at == At::Open, "{at:?}: {error}");
                assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            }
        }
        let counted = wait_for("the panic is counted and the connection gone", &server, |now| {
            sum(now, |reactor| reactor.panics) == 1 && now.connections() == 1
        });
        assert_eq!(counted.admitted, 1, "{at:?}");
        echo(&mut other, b"after");
        echo(&mut connect(server.local_addrs()[1]), b"anew");
        let report = server.stop();
        assert_eq!((report.opened, report.closed_count()), (3, 3), "{at:?}");
        let panicked = report.closed_by("handler_panicked");
        assert_eq!(panicked, u64::from(!ends_well), "{at:?}: {report}");
    }
}

#[test]
fn a_panic_while_draining_does_not_stop_the_drain() {
    let server = bombs(At::Drain);
    let mut other = connect(server.local_addrs()[1]);
    echo(&mut other, b"before");
    let mut client = connect(server.local_addr());
    provoke(At::Drain, &server, &mut client);
    let readers = [client, other].map(|mut stream| {
        thread::spawn(move || {
            let reset = ends_in_reset(&mut stream);
            drop(stream);
            reset
        })
    });
    let report = server.drain(common::PATIENCE, std::time::Duration::ZERO);
    let reset = readers.map(|reader| reader.join().expect("the reader ends"));
    assert_eq!(reset, [resets_are_told() || reset[0], false]);
    assert_eq!((report.opened, report.closed_count(), report.stuck), (2, 2, 0));
    assert_eq!(report.closed_by("handler_panicked"), 1, "{report}");
}

#[test]
fn a_reset_is_survived_right_after_the_connection_was_made() {
    let (server, _journal) = serve(builder(), Raw::new(), by_default);
    for _ in 0..50 {
        reset(connect(server.local_addr()));
    }
    echo(&mut connect(server.local_addr()), b"fresh");
    wait_for("all are gone", &server, |now| now.connections() == 0 && now.opened() > 0);
    let report = server.stop();
    assert_eq!(report.opened, report.closed_count());
}

#[test]
fn a_reset_is_survived_with_unread_input() {
    let gate = Gate::default();
    let pass = gate.clone();
    let (server, journal) = serve(builder(), Raw::new(), move |cx, call| {
        if matches!(call, Call::Frame(_)) {
            pass.pass();
        }
        by_default(cx, call)
    });
    let mut client = connect(server.local_addr());
    let peer = name(&client);
    client.write_all(b"first").expect("write");
    gate.wait_for(1);
    client.write_all(&[7; 50_000]).expect("write");
    reset(client);
    gate.open();
    let (calls, reason) = journal.life(peer);
    assert_eq!(calls.last(), Some(&Call::Dropped));
    assert_eq!(reason.cause().label(), "peer_reset");
    assert_eq!(server.stop().closed_count(), 1);
}

#[test]
fn a_reset_is_survived_while_output_is_queued() {
    let (server, journal) = serve(builder(), Raw::new(), |cx, call| match call {
        Call::Frame(_) => Ok(cx.send(vec![1; MUCH])?),
        _ => by_default(cx, call),
    });
    let mut client = connect_narrow(server.local_addr());
    let peer = name(&client);
    client.write_all(b"go").expect("write");
    wait_for("output waits", &server, |now| sum(now, |reactor| reactor.held_bytes) > 0);
    client.read_exact(&mut [0; 100]).expect("some of it");
    reset(client);
    let (calls, reason) = journal.life(peer);
    assert_eq!(calls, [Call::Open, written(b"go"), Call::Close("peer_reset"), Call::Dropped]);
    assert!(reason.unsent_bytes() > 0);
    assert!(reason.to_string().contains("bytes unsent"), "{reason}");
}

#[test]
fn a_reset_is_survived_while_the_handler_runs() {
    let gate = Gate::default();
    let pass = gate.clone();
    let (server, journal) = serve(builder(), Raw::new(), move |cx, call| {
        if matches!(call, Call::Frame(_)) {
            pass.pass();
        }
        by_default(cx, call)
    });
    let mut client = connect(server.local_addr());
    let peer = name(&client);
    client.write_all(b"go").expect("write");
    gate.wait_for(1);
    reset(client);
    // Others are served meanwhile, and the dead connection keeps its handler until that returns.
    echo_beside(&server, &gate);
    gate.open();
    let (calls, _) = journal.life(peer);
    assert_eq!(calls, [Call::Open, written(b"go"), Call::Close("peer_reset"), Call::Dropped]);
}

/// A second client is served: its handler comes to the gate and is let go.
fn echo_beside(server: &Server, gate: &Gate) {
    let mut other = connect(server.local_addr());
    other.write_all(b"x").expect("write");
    gate.wait_for(2);
    gate.open();
    other.read_exact(&mut [0]).expect("the echo");
}

#[test]
fn a_reset_is_survived_while_lingering_and_the_first_cause_stands() {
    let (server, journal) = serve(builder(), Raw::new(), by_word);
    let mut client = connect(server.local_addr());
    let peer = name(&client);
    client.write_all(b"close").expect("write");
    assert_eq!(read_all(&mut client), b"reply");
    reset(client);
    let (calls, _) = journal.life(peer);
    assert_eq!(calls, [Call::Open, written(b"close"), Call::Close("closed"), Call::Dropped]);
}

#[test]
fn a_handler_stops_its_own_server() {
    let control: Arc<Mutex<Option<switchboard::control::Control>>> = Arc::default();
    let its = Arc::clone(&control);
    let (server, journal) = serve(builder(), Raw::new(), move |_, call| {
        if let (Call::Frame(_), Some(control)) = (call, &*its.lock().expect("not poisoned")) {
            control.stop();
        }
        Ok(())
    });
    *control.lock().expect("not poisoned") = Some(server.control());
    let idle = connect(server.local_addr());
    journal.wait_for(name(&idle), &Call::Open);
    let mut client = connect(server.local_addr());
    client.write_all(b"stop").expect("write");
    let report = server.wait().expect("a sound server");
    assert_eq!((report.opened, report.closed_by("server_stopped"), report.stuck), (2, 2, 0));
    for stream in [&client, &idle] {
        let (calls, reason) = journal.life(name(stream));
        assert_eq!(calls.last(), Some(&Call::Dropped));
        assert_eq!(reason.blame(), Blame::Operator);
    }
}

#[test]
fn a_stop_waits_for_handlers_that_run() {
    let gate = Gate::default();
    let pass = gate.clone();
    let (server, journal) = serve(builder(), Raw::new(), move |cx, call| {
        if matches!(call, Call::Frame(_)) {
            pass.pass();
        }
        by_default(cx, call)
    });
    let mut clients: Vec<_> = (0..5).map(|_| connect(server.local_addr())).collect();
    clients.iter_mut().for_each(|client| client.write_all(b"go").expect("write"));
    gate.wait_for(5);
    let peers: Vec<_> = clients.iter().map(name).collect();
    let releaser = thread::spawn(move || {
        // The sockets are closed as soon as the stop has begun.
        for client in &mut clients {
            let _either_way = ends_in_reset(client);
        }
        gate.open();
    });
    let report = server.stop();
    releaser.join().expect("the releaser ends");
    assert_eq!((report.opened, report.closed_by("server_stopped"), report.stuck), (5, 5, 0));
    for peer in peers {
        assert_eq!(journal.life(peer).0.last(), Some(&Call::Dropped));
    }
}

#[test]
fn a_handler_that_never_returns_is_left_behind_and_counted() {
    let gate = Gate::default();
    let pass = gate.clone();
    let (server, _journal) = serve(builder(), Raw::new(), move |cx, call| {
        if matches!(call, Call::Frame(bytes) if bytes == b"hang") {
            pass.pass();
        }
        by_default(cx, call)
    });
    let mut other = connect(server.local_addr());
    let mut client = connect(server.local_addr());
    client.write_all(b"hang").expect("write");
    gate.wait_for(1);
    echo(&mut other, b"beside it");
    let report = server.stop();
    assert_eq!((report.opened, report.closed_count(), report.stuck), (2, 1, 1));
    assert!(report.to_string().contains("1 threads stuck"), "{report}");
    gate.open();
}

#[test]
fn a_handler_that_keeps_its_reactor_does_not_keep_the_server_from_stopping() {
    let gate = Gate::default();
    let pass = gate.clone();
    let inline = builder().reactors(2).scheduling(Scheduling::Inline);
    let (server, _journal) = serve(inline, Raw::new(), move |cx, call| {
        if matches!(call, Call::Frame(_)) {
            pass.pass();
        }
        by_default(cx, call)
    });
    let mut client = connect(server.local_addr());
    client.write_all(b"hang").expect("write");
    gate.wait_for(1);
    // The report knows of the other reactor only.
    let report = server.stop();
    assert_eq!((report.opened, report.stuck), (0, 1), "{report}");
    gate.open();
}
