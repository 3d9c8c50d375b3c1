//! Every byte arrives, once, in order and at the right client, however reads and writes are cut
//! and whichever side finishes first.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the calls it is about")]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::channel;
use std::thread;

use bytes::{Bytes, BytesMut};
use common::{
    Call, PATIENCE, builder, by_default, connect, connect_narrow, frame, frames, name, pattern,
    read_all, read_frame, reset, serve, sum, wait_for,
};
use switchboard::{Context, Handler, Outcome, Raw, Server, handler_fn};

fn echo_server() -> Server {
    builder()
        .listen("127.0.0.1:0", Raw::new(), |_| handler_fn(|cx, bytes| cx.send(bytes)))
        .start()
        .expect("the server starts")
}

/// Sends all of `bytes` in pieces, finishes, and answers what comes back, read in pieces.
fn through(mut stream: TcpStream, bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut writer = stream.try_clone().expect("a second descriptor");
    thread::scope(|scope| {
        scope.spawn(move || {
            for piece in bytes.chunks(piece) {
                writer.write_all(piece).expect("the server reads");
            }
            writer.shutdown(Shutdown::Write).expect("finish");
        });
        let mut back = Vec::with_capacity(bytes.len());
        let mut buffer = vec![0; piece];
        loop {
            match stream.read(&mut buffer).expect("the server answers") {
                0 => return back,
                count => back.extend_from_slice(&buffer[..count]),
            }
        }
    })
}

#[test]
fn every_size_is_echoed_to_the_byte() {
    let server = echo_server();
    let around = |size: usize| [size - 1, size, size + 1];
    let mut sizes = vec![0, 1, 1 << 20, 4 << 20];
    sizes.extend([512, 4_096, 65_536].into_iter().flat_map(around));
    for size in sizes {
        let bytes = pattern(size, size as u64);
        let back = through(connect(server.local_addr()), &bytes, size.max(1));
        assert!(back == bytes, "{size} bytes, of which {} came back", back.len());
    }
    let report = server.stop();
    assert_eq!(report.closed_by("peer_finished"), report.opened, "{report}");
}

#[test]
fn pieces_of_every_size_are_put_together_again() {
    let server = echo_server();
    for piece in [1, 2, 3, 7, 64, 511, 512, 513, 4_095, 4_097, 65_537] {
        let bytes = pattern((piece * 1_500).min(300_000), piece as u64);
        let back = through(connect(server.local_addr()), &bytes, piece);
        assert!(back == bytes, "pieces of {piece}: {} of {} bytes", back.len(), bytes.len());
    }
}

#[test]
fn a_client_with_little_room_gets_every_byte() {
    let server = echo_server();
    for piece in [7, 1_000, 100_000] {
        let bytes = pattern((piece * 500).min(400_000), piece as u64);
        let back = through(connect_narrow(server.local_addr()), &bytes, piece);
        assert!(back == bytes, "pieces of {piece}: {} of {} bytes", back.len(), bytes.len());
    }
}

#[test]
fn a_client_that_has_finished_still_gets_all_that_is_queued() {
    let (server, journal) = serve(builder(), Raw::new(), |cx, call| match call {
        Call::Frame(_) => Ok(cx.send(pattern(4 << 20, 5))?),
        _ => by_default(cx, call),
    });
    for narrow in [false, true] {
        let addr = server.local_addr();
        let mut client = if narrow { connect_narrow(addr) } else { connect(addr) };
        client.write_all(b"go").expect("write");
        client.shutdown(Shutdown::Write).expect("finish");
        journal.wait_for(name(&client), &Call::Frame(b"go".to_vec()));
        assert!(read_all(&mut client) == pattern(4 << 20, 5), "narrow: {narrow}");
        let (_, reason) = journal.life(name(&client));
        assert_eq!((reason.cause().label(), reason.unsent_bytes()), ("peer_finished", 0));
    }
}

#[test]
fn a_server_that_has_finished_still_receives() {
    let (sender, totals) = channel();
    let (server, _journal) = serve(builder(), frames(), move |cx, call| {
        match call {
            Call::Frame(word) if word == b"go" => {
                cx.send("bye")?;
                cx.finish();
            }
            Call::Frame(bytes) => sender.send(bytes.clone())?,
            Call::Eof => sender.send(b"eof".to_vec())?,
            _ => {}
        }
        Ok(())
    });
    let mut client = connect(server.local_addr());
    client.write_all(&frame(b"go")).expect("write");
    assert_eq!(read_all(&mut client), frame(b"bye"));
    let much = pattern(1 << 20, 8);
    for piece in much.chunks(100_000) {
        client.write_all(&frame(piece)).expect("the server still reads");
    }
    client.shutdown(Shutdown::Write).expect("finish");
    let next = || totals.recv_timeout(PATIENCE).expect("more of it");
    let mut got = Vec::new();
    while got.len() < much.len() {
        got.extend(next());
    }
    assert!(got == much);
    assert_eq!(next(), b"eof");
}

#[test]
fn a_reply_before_a_close_arrives_whole_although_input_is_unread() {
    let reply = pattern(200_000, 1);
    let its = Bytes::from(reply.clone());
    let (server, journal) = serve(builder(), Raw::new(), move |cx, call| {
        if matches!(call, Call::Frame(_)) {
            cx.send(its.clone())?;
            cx.close();
        }
        Ok(())
    });
    for unread in [1, 100, 65_535, 65_536, 70_000, 300_000, (1 << 20) - 65_536] {
        let mut client = connect(server.local_addr());
        client.write_all(&vec![3; 1 + unread]).expect("the server reads on");
        assert!(read_all(&mut client) == reply, "{unread} bytes unread");
        client.shutdown(Shutdown::Write).expect("finish");
        let (calls, _) = journal.life(name(&client));
        let frames = calls.iter().filter(|call| matches!(call, Call::Frame(_))).count();
        assert_eq!((frames, calls.last()), (1, Some(&Call::Dropped)), "{unread} bytes unread");
    }
}

#[test]
fn frames_survive_every_split() {
    let (server, _journal) = serve(builder(), frames(), by_default);
    let mut client = connect(server.local_addr());
    let payloads = [&b"first"[..], b"", b"and the third"];
    let wire: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
    let mut before = 0;
    for at in 1..wire.len() {
        client.write_all(&wire[..at]).expect("write");
        // The server has read the first part before the second is sent.
        wait_for("the first part is read", &server, |now| {
            sum(now, |reactor| reactor.received_bytes) == before + at as u64
        });
        client.write_all(&wire[at..]).expect("write");
        for payload in payloads {
            assert_eq!(read_frame(&mut client).expect("an echo"), payload, "split at {at}");
        }
        before += wire.len() as u64;
    }
}

#[test]
fn frames_survive_being_merged() {
    let (server, _journal) = serve(builder(), frames(), by_default);
    let payloads: Vec<_> = (0..2_000).map(|i| pattern(i % 300, i as u64)).collect();
    let wire: Vec<u8> = payloads.iter().flat_map(|payload| frame(payload)).collect();
    let back = through(connect(server.local_addr()), &wire, 50_001);
    assert!(back == wire);
}

/// Complains about every frame that does not repeat the first one of its connection.
#[derive(Default)]
struct Tagged {
    tag: Option<BytesMut>,
}

impl Handler for Tagged {
    fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        let tag = self.tag.get_or_insert_with(|| frame.clone());
        let foreign = frame.chunks(8).any(|chunk| !tag.starts_with(chunk));
        cx.send(if foreign { BytesMut::from("foreign!") } else { frame })?;
        Ok(())
    }
}

/// One short connection whose every byte belongs to `number`, and which leaves something behind.
fn tagged(addr: SocketAddr, number: usize) {
    let mut client = connect(addr);
    let tag = (number as u64 | 1 << 63).to_be_bytes();
    let long = tag.repeat(1 + number % 50);
    for payload in [&tag[..], &long] {
        client.write_all(&frame(payload)).expect("write");
        assert_eq!(read_frame(&mut client).expect("an echo"), payload, "connection {number}");
    }
    // A partial frame, a whole one that nobody waits for, or both.
    let whole = frame(&long);
    match number % 4 {
        0 => client.write_all(&whole[..whole.len() / 2]).expect("write"),
        1 => client.write_all(&whole).expect("write"),
        2 => client.write_all(&[&whole[..], &whole[..7]].concat()).expect("write"),
        _ => {}
    }
    if number % 3 == 0 {
        reset(client);
    }
}

#[test]
fn no_connection_sees_a_byte_of_another() {
    let server = builder()
        .listen("127.0.0.1:0", frames(), |_| Tagged::default())
        .start()
        .expect("the server starts");
    let addr = server.local_addr();
    thread::scope(|scope| {
        for thread in 0..3 {
            scope.spawn(move || (0..1_000).for_each(|i| tagged(addr, thread * 1_000 + i)));
        }
    });
    wait_for("all are gone", &server, |now| now.connections() == 0);
    let report = server.stop();
    assert_eq!((report.opened, report.closed_count()), (3_000, 3_000));
    assert_eq!(report.closed_by("handler_panicked") + report.closed_by("codec_failed"), 0);
}
