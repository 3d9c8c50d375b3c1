//! A peer that is slow, or takes nothing at all, costs a bounded amount of memory and time, and
//! nobody else notices.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the calls it is about")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{
    Call, Journal, PATIENCE, builder, by_default, connect, connect_narrow, echo, expect_reset,
    name, now, pattern, pause, read_all, serve, sum, wait_for, wait_until,
};
use switchboard::close::Blame;
use switchboard::control::Snapshot;
use switchboard::error::{SendError, TrySendError};
use switchboard::{Builder, Context, Handle, Handler, Outcome, Raw, Server};

/// More than the system takes from a server whose client does not read.
const MUCH: usize = 12 << 20;

fn held(snapshot: &Snapshot) -> usize {
    sum(snapshot, |reactor| reactor.held_bytes)
}

fn received(snapshot: &Snapshot) -> u64 {
    sum(snapshot, |reactor| reactor.received_bytes)
}

/// A server that answers the first frame with much; the client reads none of it yet.
fn stuck(builder: Builder) -> (Server, Journal, TcpStream) {
    let (server, journal) = serve(builder, Raw::new(), |cx, call| match call {
        Call::Frame(word) if word == b"go" => Ok(cx.send(pattern(MUCH, 2))?),
        _ => by_default(cx, call),
    });
    let mut client = connect_narrow(server.local_addr());
    client.write_all(b"go").expect("write");
    // Where a stall is short it may be over by the time that we look.
    let is_over = |now: &Snapshot| now.opened() == 1 && now.connections() == 0;
    wait_for("output waits", &server, |now| held(now) > 0 || is_over(now));
    (server, journal, client)
}

#[test]
fn a_client_that_floods_and_does_not_read_is_held_within_bounds() {
    const CHUNK: usize = 16 << 10;
    const HIGH: usize = 64 << 10;
    let builder = builder().reactors(1).limits(|limits| {
        limits.read_chunk_bytes = CHUNK;
        limits.send_high_bytes = HIGH;
        limits.send_low_bytes = HIGH / 2;
    });
    let (server, journal) = serve(builder, Raw::new(), by_default);
    let mut client = connect_narrow(server.local_addr());
    let mut other = connect(server.local_addr());
    let flood = pattern(2 * MUCH, 3);
    let mut writer = client.try_clone().expect("a second descriptor");
    thread::scope(|scope| {
        scope.spawn(|| {
            // In pieces: on Windows the patience of one call is for all of its bytes.
            let mut pieces = flood.chunks(CHUNK);
            let written = pieces.try_for_each(|piece| writer.write_all(piece));
            written.expect("the server reads on in the end");
            writer.shutdown(Shutdown::Write).expect("finish");
        });
        wait_for("reading pauses", &server, |now| held(now) >= HIGH);
        let mut last = 0;
        wait_until("it stays so", || {
            echo(&mut other, b"beside it");
            let now = server.snapshot();
            assert!(held(&now) <= HIGH + CHUNK, "{} bytes are held", held(&now));
            // Nothing has come since the last time but the other's words.
            let was = std::mem::replace(&mut last, received(&now));
            held(&now) >= HIGH && last - was == 9
        });
        assert!(last < flood.len() as u64, "all was read though nothing was taken");
        let mut back = Vec::new();
        client.read_to_end(&mut back).expect("the rest comes");
        assert!(back == flood, "{} of {} bytes came back", back.len(), flood.len());
    });
    let (calls, reason) = journal.life(name(&client));
    assert_eq!(reason.cause().label(), "peer_finished");
    assert!(calls.contains(&Call::Drained));
}

#[test]
fn a_peer_that_takes_nothing_is_reset() {
    let stall =
        builder().limits(|limits| limits.timeouts.write_stall = Some(Duration::from_millis(200)));
    let (server, journal, mut client) = stuck(stall);
    let (calls, reason) = journal.life(name(&client));
    assert_eq!(calls[2..], [Call::Close("write_stalled"), Call::Dropped]);
    assert_eq!(reason.blame(), Blame::Limit);
    assert!(reason.unsent_bytes() > 0);
    expect_reset(&mut client);
    assert_eq!(server.stop().closed_by("write_stalled"), 1);
}

#[test]
fn a_peer_that_takes_a_little_now_and_then_is_not_stalled() {
    const STALL: Duration = Duration::from_millis(600);
    let (server, journal, mut client) =
        stuck(builder().limits(|l| l.timeouts.write_stall = Some(STALL)));
    let begun = now();
    let mut taken = Vec::new();
    while begun.elapsed() < 4 * STALL {
        let mut some = [0; 8_192];
        let count = client.read(&mut some).expect("still connected");
        taken.extend_from_slice(&some[..count]);
        pause(Duration::from_millis(10));
    }
    assert_eq!(server.snapshot().connections(), 1, "it took {} bytes in all", taken.len());
    client.shutdown(Shutdown::Write).expect("finish");
    taken.extend(read_all(&mut client));
    assert!(taken == pattern(MUCH, 2));
    assert_eq!(journal.life(name(&client)).1.cause().label(), "peer_finished");
}

#[test]
fn a_handler_learns_once_that_its_output_has_drained() {
    let (_server, journal, mut client) = stuck(builder());
    client.shutdown(Shutdown::Write).expect("finish");
    assert_eq!(read_all(&mut client).len(), MUCH);
    let (calls, _) = journal.life(name(&client));
    let drained = calls.iter().filter(|call| **call == Call::Drained).count();
    assert_eq!((drained, calls.last()), (1, Some(&Call::Dropped)), "{calls:?}");
}

#[test]
fn a_handler_that_sends_too_much_overflows_its_connection() {
    const MAX: usize = 1 << 20;
    let (sender, sent) = channel();
    let limits = builder().limits(|limits| limits.send_max_bytes = MAX);
    let (server, journal) = serve(limits, Raw::new(), move |cx, call| {
        if matches!(call, Call::Frame(_)) {
            let piece = Bytes::from(vec![0; 60_000]);
            let mut count = 0;
            let refused = loop {
                match cx.send(piece.clone()) {
                    Ok(()) => count += piece.len(),
                    Err(refused) => break refused,
                }
            };
            sender.send((count, refused))?;
            assert!(matches!(cx.send("more"), Err(SendError::Closing)));
        }
        Ok(())
    });
    let mut client = connect(server.local_addr());
    client.write_all(b"go").expect("write");
    let (count, refused) = sent.recv_timeout(PATIENCE).expect("an answer");
    assert!(count <= MAX && count + 60_000 > MAX, "{count} bytes were taken");
    assert!(matches!(refused, SendError::Overflow { max_bytes: MAX, .. }), "{refused}");
    expect_reset(&mut client);
    let (_, reason) = journal.life(name(&client));
    assert_eq!((reason.cause().label(), reason.blame()), ("overflow", Blame::Limit));
}

fn with_handles(builder: Builder) -> (Server, Receiver<Handle>) {
    let (sender, handles) = channel();
    let (server, _journal) = serve(builder, Raw::new(), move |cx, call| {
        if *call == Call::Open {
            sender.send(cx.handle())?;
        }
        by_default(cx, call)
    });
    (server, handles)
}

#[test]
fn a_handle_says_that_the_queue_is_full_and_gives_the_message_back() {
    const MAX: usize = 1 << 20;
    let limits = builder().limits(|limits| limits.send_max_bytes = MAX);
    let (server, handles) = with_handles(limits);
    let mut client = connect_narrow(server.local_addr());
    let handle = handles.recv_timeout(PATIENCE).expect("a handle");
    let message = Bytes::from(pattern(60_000, 4));
    let mut sent = 0;
    let refused = loop {
        match handle.try_send(message.clone()) {
            Ok(()) => sent += message.len(),
            // It is full because nothing is taken, not because we were faster.
            Err(refused) if held(&server.snapshot()) > MAX / 2 => break refused,
            Err(_) => thread::yield_now(),
        }
        assert!(sent < 200 << 20, "it is never full");
    };
    assert!(refused.to_string().contains("of at most 1048576 bytes"), "{refused}");
    let TrySendError::Full { queued_bytes, max_bytes, .. } = &refused else {
        panic!("not full: {refused}");
    };
    assert_eq!(*max_bytes, MAX);
    assert!(*queued_bytes <= MAX && queued_bytes + message.len() + 64 > MAX);
    assert_eq!(refused.into_message(), message);
    assert!(held(&server.snapshot()) <= MAX);
    let mut back = vec![0; sent];
    client.read_exact(&mut back).expect("all that was taken arrives");
    assert!(back.chunks(message.len()).all(|chunk| chunk == message));
    wait_until("there is room again", || handle.queued_bytes() == 0);
    handle.try_send("more").expect("there is room again");
    client.read_exact(&mut [0; 4]).expect("more");
    drop(client);
    wait_until("the connection is gone", || !handle.is_open());
    assert!(
        matches!(handle.try_send("late"), Err(TrySendError::Gone(message)) if message == "late")
    );
}

/// A server that answers with a word and closes.
fn closing(builder: Builder) -> (Server, Journal, TcpStream) {
    let (server, journal) = serve(builder, Raw::new(), |cx, call| {
        if matches!(call, Call::Frame(_)) {
            cx.send("bye")?;
            cx.close();
        }
        Ok(())
    });
    let mut client = connect(server.local_addr());
    client.write_all(b"go").expect("write");
    assert_eq!(read_all(&mut client), b"bye");
    (server, journal, client)
}

#[test]
fn a_closed_connection_lingers_no_longer_than_it_may() {
    let short = builder().limits(|limits| limits.timeouts.linger = Some(Duration::from_millis(50)));
    let (server, journal, client) = closing(short);
    // The client neither finishes nor goes.
    let (_, reason) = journal.life(name(&client));
    assert_eq!(reason.cause().label(), "closed");
    assert_eq!(server.snapshot().connections(), 0);
}

#[test]
fn a_closed_connection_throws_away_no_more_input_than_it_may() {
    let limits = builder().limits(|limits| {
        limits.timeouts.linger = Some(Duration::from_secs(600));
        limits.linger_bytes = 64 << 10;
    });
    let (_server, journal, mut client) = closing(limits);
    let refused = (0..1_000).any(|_| client.write_all(&[9; 16 << 10]).is_err());
    assert!(refused, "16 MB were taken");
    assert_eq!(journal.life(name(&client)).1.cause().label(), "closed");
}

/// Sends as much as may be queued, and goes on when that is gone.
struct Producer {
    left: usize,
}

impl Producer {
    fn produce(&mut self, cx: &mut Context) -> Outcome {
        while self.left > 0 && cx.queued_bytes() < 4_096 {
            let count = self.left.min(1_000);
            cx.send(vec![b'.'; count])?;
            self.left -= count;
        }
        if self.left == 0 {
            cx.finish();
        }
        Ok(())
    }
}

impl Handler for Producer {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        self.produce(cx)
    }
    fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
        Ok(())
    }
    fn on_drained(&mut self, cx: &mut Context) -> Outcome {
        self.produce(cx)
    }
}

#[test]
fn a_producer_that_waits_for_room_goes_on_also_if_the_system_takes_all_at_once() {
    let marks = builder().limits(|limits| {
        (limits.send_high_bytes, limits.send_low_bytes) = (4_096, 1_024);
    });
    let server = marks
        .listen("127.0.0.1:0", Raw::new(), |_peer| Producer { left: 1_000_000 })
        .start()
        .expect("the server starts");
    let mut received = Vec::new();
    let mut client = connect(server.local_addr());
    client.read_to_end(&mut received).expect("the server goes on");
    assert_eq!(received.len(), 1_000_000);
}
