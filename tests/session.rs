//! Sessions over real sockets: switches, visits and notices while threads send and close.

mod common;

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use bytes::BytesMut;
use common::{
    Gate, PATIENCE, RESETS_UNTOLD, builder, connect, connect_narrow, expect_reset, read_all,
    read_frame, reset, resets_are_told, sum, wait_for, wait_until,
};
use proptest::prelude::*;
use switchboard::codec::{Fixed, Lines};
use switchboard::error::TrySendError;
use switchboard::{
    Builder, CloseReason, Context, Handle, Handler, LengthPrefixed, Outcome, Raw, Server,
};

/// Speaks lines until it is told "up", then frames.
struct Before(Sender<Told>);

/// Who speaks frames.
struct After(Sender<Told>);

/// What handlers tell a test.
#[derive(Debug)]
enum Told {
    Open(Handle),
    Up,
    Flushed(u64),
    Closed(CloseReason),
}

impl Handler for Before {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        Ok(self.0.send(Told::Open(cx.handle()))?)
    }

    fn on_frame(&mut self, cx: &mut Context, line: BytesMut) -> Outcome {
        match &line[..] {
            b"up" => up(self, cx),
            b"pause" => {
                cx.pause();
                self.0.send(Told::Up)?;
                Ok(())
            }
            _ => Ok(cx.send(line)?),
        }
    }

    fn on_flushed(&mut self, _: &mut Context, key: u64) -> Outcome {
        Ok(self.0.send(Told::Flushed(key))?)
    }

    fn on_close(&mut self, reason: &CloseReason) {
        // A test that is over does not listen any more.
        drop(self.0.send(Told::Closed(reason.clone())));
    }
}

impl Handler for After {
    fn on_open(&mut self, _: &mut Context) -> Outcome {
        Ok(self.0.send(Told::Up)?)
    }

    fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        Ok(cx.send(frame)?)
    }

    fn on_flushed(&mut self, _: &mut Context, key: u64) -> Outcome {
        Ok(self.0.send(Told::Flushed(key))?)
    }

    fn on_close(&mut self, reason: &CloseReason) {
        drop(self.0.send(Told::Closed(reason.clone())));
    }
}

/// The last line, and the switch.
fn up(before: &mut Before, cx: &mut Context) -> Outcome {
    cx.switch(LengthPrefixed::u32(), After(before.0.clone()));
    Ok(cx.send("switched")?)
}

fn start(builder: Builder) -> (Server, Receiver<Told>) {
    let (sender, told) = channel();
    let handler = move |_| Before(sender.clone());
    let server = builder.listen("127.0.0.1:0", Lines::new().frame_max(64 << 20), handler).start();
    (server.expect("the server starts"), told)
}

fn opened(told: &Receiver<Told>) -> Handle {
    match told.recv_timeout(PATIENCE) {
        Ok(Told::Open(handle)) => handle,
        other => panic!("instead of a handle: {other:?}"),
    }
}

/// The cause of the end, and the notices before it.
fn end(told: &Receiver<Told>) -> (&'static str, Vec<u64>) {
    let mut notices = Vec::new();
    loop {
        match told.recv_timeout(PATIENCE).expect("the connection ends") {
            Told::Flushed(key) => notices.push(key),
            Told::Closed(reason) => return (reason.cause().label(), notices),
            Told::Open(_) | Told::Up => {}
        }
    }
}

/// What is in front of the first whole line "switched", and what is behind it.
fn halves(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    const MARK: &[u8] = b"switched\n";
    let at = bytes.windows(MARK.len()).position(|window| window == MARK)?;
    Some((&bytes[..at], &bytes[at + MARK.len()..]))
}

/// The messages of a stream: lines, and frames behind the switch. A part at the end is left out.
fn messages(bytes: &[u8]) -> Vec<String> {
    let (lines, mut frames) = halves(bytes).unwrap_or((bytes, b""));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("a text");
    let whole = lines.split_inclusive(|&byte| byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let mut all: Vec<_> = whole.map(|line| text(&line[..line.len() - 1])).collect();
    while let Ok(frame) = read_frame(&mut frames) {
        all.push(text(&frame));
    }
    all
}

/// What a thread does through its handle.
#[derive(Clone, Copy, Debug)]
enum Act {
    Send,
    Notice,
    Visit,
    Switch,
    Close,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        20 => Just(Act::Send),
        6 => Just(Act::Notice),
        6 => Just(Act::Visit),
        1 => Just(Act::Switch),
    ]
}

/// Does what is asked of one thread; how many of its messages were taken.
fn perform(handle: &Handle, thread: usize, acts: &[Act]) -> usize {
    let mut taken = 0;
    for act in acts {
        let text = format!("{thread}:{taken}");
        let done = match act {
            Act::Send => handle.try_send(text).is_ok(),
            Act::Notice => handle.try_send_with_notice(text, thread as u64).is_ok(),
            // Before the switch one type is right, afterwards the other, and one that is on its
            // way meanwhile is dropped: then the message is sent as every other one.
            Act::Visit => {
                let (again, (sent, ran)) = (text.clone(), channel());
                let before = move |_: &mut Before, cx: &mut Context| {
                    cx.send(text)?;
                    Ok(sent.send(())?)
                };
                match handle.run(before) {
                    Ok(()) if ran.recv_timeout(PATIENCE).is_ok() => true,
                    Ok(()) => handle.try_send(again).is_ok(),
                    Err(TrySendError::WrongHandler(_)) => visit_after(handle, again),
                    Err(_) => false,
                }
            }
            Act::Switch => {
                // Refused once it has been done.
                handle.run(up).ok();
                continue;
            }
            Act::Close => {
                handle.close();
                continue;
            }
        };
        if !done {
            break;
        }
        taken += 1;
    }
    taken
}

/// Has the later handler send a message; whether it did.
fn visit_after(handle: &Handle, text: String) -> bool {
    let (sent, ran) = channel();
    let after = move |_: &mut After, cx: &mut Context| {
        cx.send(text)?;
        Ok(sent.send(())?)
    };
    handle.run(after).is_ok() && ran.recv_timeout(PATIENCE).is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 40, failure_persistence: None, ..ProptestConfig::default()
    })]

    /// Whatever threads do at the same time: the messages of each come whole and in their order,
    /// in the framing that holds where they stand, and up to the end none is missing.
    #[test]
    fn threads_that_send_visit_switch_and_close_keep_their_order(
        acts in prop::collection::vec(prop::collection::vec(act(), 0..120), 1..4),
        closes_early: bool,
    ) {
        let (server, told) = start(builder());
        let mut client = connect(server.local_addr());
        let handle = opened(&told);
        let taken: Vec<usize> = thread::scope(|scope| {
            let threads: Vec<_> = (0..)
                .zip(&acts)
                .map(|(number, acts)| {
                    let handle = handle.clone();
                    let early = closes_early && number == 0;
                    let acts = acts.iter().copied().chain(early.then_some(Act::Close));
                    let acts: Vec<_> = acts.collect();
                    scope.spawn(move || perform(&handle, number, &acts))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
        });
        handle.close();
        client.shutdown(Shutdown::Write).expect("it is connected");
        let messages = messages(&read_all(&mut client));
        let (label, notices) = end(&told);
        prop_assert_eq!(label, "closed");
        let mut came = vec![0; acts.len()];
        for message in &messages {
            let (thread, number) = message.split_once(':').expect("a message of a thread");
            let thread: usize = thread.parse().expect("its number");
            prop_assert_eq!(number, came[thread].to_string(), "of thread {}", thread);
            came[thread] += 1;
        }
        for (thread, &count) in came.iter().enumerate() {
            // What comes after the close of another thread may be taken and not sent.
            let all = !closes_early || thread == 0;
            prop_assert!(count <= taken[thread] && (!all || count == taken[thread]),
                "{} of {} of thread {}", count, taken[thread], thread);
        }
        if !closes_early {
            let wanted: usize =
                acts.iter().flatten().filter(|act| matches!(act, Act::Notice)).count();
            prop_assert_eq!(notices.len(), wanted);
        }
        prop_assert_eq!(sum(&server.snapshot(), |reactor| reactor.panics), 0);
        server.stop();
    }
}

#[test]
fn pipelined_bytes_of_two_protocols_are_told_apart() {
    let (server, told) = start(builder());
    for cut in 0..30 {
        let mut client = connect(server.local_addr());
        let script = b"one\nup\n\0\0\0\x03two\0\0\0\x05three";
        let (head, tail) = script.split_at(cut.min(script.len()));
        client.write_all(head).expect("it reads");
        client.write_all(tail).expect("it reads");
        client.shutdown(Shutdown::Write).expect("it is connected");
        assert_eq!(read_all(&mut client), b"one\nswitched\n\0\0\0\x03two\0\0\0\x05three");
        assert_eq!(end(&told).0, "peer_finished");
    }
    assert_eq!(server.stop().closed_by("peer_finished"), 30);
}

#[test]
fn what_comes_for_the_old_handler_is_counted_and_nothing_else() {
    let (server, told) = start(builder());
    let mut client = connect(server.local_addr());
    let handle = opened(&told);
    let gate = Gate::default();
    let held = gate.clone();
    let wait = move |_: &mut Before, _: &mut Context| {
        held.pass();
        Ok(())
    };
    handle.run(wait).expect("it is open");
    gate.wait_for(1);
    let alive = Arc::new(());
    handle.run(up).expect("it is open");
    let kept = Arc::clone(&alive);
    let late = move |_: &mut Before, _: &mut Context| {
        drop(kept);
        panic!("it runs on another handler")
    };
    handle.run(late).expect("nobody knows yet");
    gate.open();
    wait_until("the closure is dropped", || Arc::strong_count(&alive) == 1);
    wait_for("it is counted", &server, |now| sum(now, |reactor| reactor.misdirected) == 1);
    let wrong = handle.run(|_: &mut Before, _: &mut Context| Ok(()));
    assert!(matches!(wrong, Err(TrySendError::WrongHandler(_))),);
    assert!(handle.stats().is_open && handle.stats().takes_messages);
    client.shutdown(Shutdown::Write).expect("it is connected");
    assert_eq!(read_all(&mut client), b"switched\n");
    assert_eq!(end(&told).0, "peer_finished");
}

#[test]
fn a_notice_waits_for_a_reader_that_takes_its_time() {
    let (server, told) = start(builder().limits(|limits| {
        limits.timeouts.write_stall = None;
        limits.send_max_bytes = 64 << 20;
    }));
    let mut client = connect_narrow(server.local_addr());
    let handle = opened(&told);
    let large = vec![b'x'; 32 << 20];
    handle.try_send_with_notice(large.clone(), 1).expect("there is room");
    handle.try_send_with_notice("small", 2).expect("there is room");
    wait_until("it is stuck", || {
        let stats = handle.stats();
        stats.posted_bytes == 0 && stats.unsent_bytes > 0
    });
    let stuck = handle.stats().unsent_bytes;
    assert!(stuck > 1 << 20, "{stuck} bytes would be no proof");
    assert!(told.try_recv().is_err(), "a notice of what was not taken");
    let mut bytes = vec![0; large.len() + 7];
    client.read_exact(&mut bytes).expect("all of it comes");
    for key in [1, 2] {
        let next = told.recv_timeout(PATIENCE);
        assert!(matches!(next, Ok(Told::Flushed(told)) if told == key), "{next:?}");
    }
    drop(client);
    assert_eq!(end(&told), ("peer_finished", vec![]));
}

#[test]
fn of_a_connection_that_is_reset_no_notice_comes() {
    let (server, told) = start(builder().limits(|limits| limits.send_max_bytes = 64 << 20));
    for aborts in [true, false] {
        let client = connect_narrow(server.local_addr());
        let handle = opened(&told);
        handle.try_send_with_notice(vec![b'x'; 32 << 20], 1).expect("there is room");
        wait_until("it is stuck", || handle.stats().unsent_bytes > 0);
        let expected = if aborts {
            handle.abort();
            "aborted"
        } else {
            reset(client);
            "peer_reset"
        };
        assert_eq!(end(&told), (expected, vec![]));
        assert!(!handle.stats().is_open);
    }
}

#[test]
fn who_has_no_room_is_reset_by_a_message_that_must_not_be_missed() {
    let (server, told) = start(builder().limits(|limits| limits.send_max_bytes = 1 << 20));
    let mut client = connect_narrow(server.local_addr());
    let handle = opened(&told);
    while handle.send_or_close(vec![b'x'; 100_000]).is_ok() {}
    assert_eq!(end(&told).0, "overflow");
    assert!(matches!(handle.send_or_close("late"), Err(TrySendError::Gone(_))));
    expect_reset(&mut client);
}

#[test]
fn a_reset_ends_a_paused_connection_also_with_input_unread() {
    if !resets_are_told() {
        return println!("{RESETS_UNTOLD}");
    }
    let (server, told) = start(builder());
    let mut client = connect(server.local_addr());
    let handle = opened(&told);
    client.write_all(b"pause\n").expect("it reads");
    assert!(matches!(told.recv_timeout(PATIENCE), Ok(Told::Up)));
    client.write_all(&[b'x'; 10_000]).expect("the system takes it");
    // Mail makes it look at its events, those of the input among them.
    for _ in 0..3 {
        let (sender, ran) = channel();
        let look = move |_: &mut Before, _: &mut Context| Ok(sender.send(())?);
        handle.run(look).expect("it is open");
        ran.recv_timeout(PATIENCE).expect("it runs while reading is paused");
    }
    reset(client);
    assert_eq!(end(&told).0, "peer_reset");
}

#[test]
fn a_codec_may_be_left_for_another_one_over_and_over() {
    struct Turn(u8);
    impl Handler for Turn {
        fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
            cx.send(frame)?;
            let next = Turn(self.0.wrapping_add(1));
            match self.0 % 3 {
                0 => cx.switch(LengthPrefixed::u8(), next),
                1 => cx.switch(Lines::new(), next),
                _ => cx.switch(Fixed::new(2)?, next),
            }
            Ok(())
        }
    }
    let turn = |_| Turn(0);
    let server = builder().listen("127.0.0.1:0", Fixed::new(2).expect("it has bytes"), turn);
    let server = server.start().expect("the server starts");
    let mut client = connect(server.local_addr());
    let round = b"ab\x03cdefgh\n";
    let (reader, writer) = (&mut client.try_clone().expect("a socket"), &mut client);
    thread::scope(|scope| {
        scope.spawn(|| {
            let all = round.repeat(2_000);
            all.chunks(7).for_each(|piece| writer.write_all(piece).expect("it reads"));
            writer.shutdown(Shutdown::Write).expect("it is connected");
        });
        let mut back = vec![0; round.len() * 2_000];
        BufReader::new(reader).read_exact(&mut back).expect("all of it comes");
        assert!(back == round.repeat(2_000), "not what was sent");
    });
    let report = server.stop();
    assert_eq!(report.opened, report.closed_count());
}

#[test]
fn a_connection_that_ends_drops_what_waited_for_it() {
    let (server, told) = start(builder());
    let client: TcpStream = connect(server.local_addr());
    let handle = opened(&told);
    let gate = Gate::default();
    let (held, alive) = (gate.clone(), Arc::new(()));
    let wait = move |_: &mut Before, cx: &mut Context| {
        held.pass();
        cx.switch(Raw::new(), switchboard::handler_fn(|cx, bytes| cx.send(bytes)));
        Err("as told".into())
    };
    handle.run(wait).expect("it is open");
    gate.wait_for(1);
    for _ in 0..100 {
        let kept = Arc::clone(&alive);
        let never = move |_: &mut Before, _: &mut Context| {
            drop(kept);
            panic!("it runs behind an error")
        };
        handle.run(never).expect("nobody knows yet");
    }
    gate.open();
    drop(client);
    assert_eq!(end(&told).0, "handler_failed");
    wait_until("all are dropped", || Arc::strong_count(&alive) == 1);
    assert_eq!(sum(&server.snapshot(), |reactor| reactor.panics), 0);
    assert_eq!(handle.queued_bytes(), 0);
}
