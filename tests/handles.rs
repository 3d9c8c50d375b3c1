//! Handles: what any thread sends arrives whole and in order, or the connection's end says why
//! not; and it never arrives at another connection.
#![expect(clippy::wildcard_enum_match_arm, reason = "a test names the calls it is about")]

mod common;

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use common::{
    Call, Gate, Journal, PATIENCE, builder, by_default, connect, echo, frames, name, read_frame,
    reset, resets_are_told, serve, sum, wait_for, wait_until,
};
use switchboard::error::TrySendError;
use switchboard::{Builder, Handle, Raw, Server};

fn with_handles(builder: Builder) -> (Server, Journal, Receiver<Handle>) {
    let (sender, handles) = channel();
    let (server, journal) = serve(builder, frames(), move |cx, call| {
        if *call == Call::Open {
            sender.send(cx.handle())?;
        }
        by_default(cx, call)
    });
    (server, journal, handles)
}

/// A client and the handle of its connection.
fn pair(server: &Server, handles: &Receiver<Handle>) -> (TcpStream, Handle) {
    let client = connect(server.local_addr());
    (client, handles.recv_timeout(PATIENCE).expect("a handle"))
}

/// The number of a sender, and that of its message.
fn numbered(sender: u8, number: u32) -> Vec<u8> {
    [&[sender][..], &number.to_be_bytes(), &vec![sender; number as usize % 100]].concat()
}

/// Takes a message apart; `None` if it is not whole.
fn number_of(message: &[u8]) -> Option<(u8, u32)> {
    let (&sender, rest) = message.split_first()?;
    let number = u32::from_be_bytes(*rest.first_chunk()?);
    (message == numbered(sender, number)).then_some((sender, number))
}

/// Sends again what found the queue full; false if the connection is gone.
fn send(handle: &Handle, message: Vec<u8>) -> bool {
    let mut message = message.into();
    loop {
        match handle.try_send(message) {
            Ok(()) => return true,
            Err(TrySendError::Gone(_)) => return false,
            Err(refused) => {
                message = refused.into_message();
                thread::yield_now();
            }
        }
    }
}

#[test]
fn messages_of_four_threads_arrive_whole_and_in_order_of_each() {
    const EACH: u32 = 3_000;
    let (server, _journal, handles) = with_handles(builder());
    let (mut client, handle) = pair(&server, &handles);
    thread::scope(|scope| {
        for sender in 0..4 {
            let handle = handle.clone();
            scope.spawn(move || {
                for number in 0..EACH {
                    assert!(send(&handle, numbered(sender, number)), "the connection is open");
                }
            });
        }
        let mut expected = [0; 4];
        for _ in 0..4 * EACH {
            let message = read_frame(&mut client).expect("a message");
            let (sender, number) = number_of(&message).expect("a whole message");
            assert_eq!(number, expected[usize::from(sender)], "of sender {sender}");
            expected[usize::from(sender)] += 1;
        }
    });
    wait_until("nothing is counted any more", || handle.queued_bytes() == 0);
}

/// Four threads send until the connection is gone while a fifth ends it after `after` messages
/// have arrived. Answers for each how many were taken and how many arrived.
fn race(client: &mut TcpStream, handle: &Handle, after: u32, abort: bool) -> [(u32, u32); 4] {
    thread::scope(|scope| {
        let senders = [0, 1, 2, 3].map(|sender| {
            let handle = handle.clone();
            let count = move || (0..).take_while(|&n| send(&handle, numbered(sender, n))).count();
            scope.spawn(count)
        });
        let mut arrived = [0; 4];
        // After a close all that lies in the system comes first: megabytes of short messages.
        let mut reader = BufReader::new(&mut *client);
        for total in 0.. {
            if total == after {
                if abort { handle.abort() } else { handle.close() }
            }
            let Ok(message) = read_frame(&mut reader) else { break };
            let (sender, number) = number_of(&message).expect("a whole message");
            assert_eq!(number, arrived[usize::from(sender)], "a gap from sender {sender}");
            arrived[usize::from(sender)] += 1;
        }
        // A lingering connection ends with its client.
        client.shutdown(Shutdown::Both).ok();
        let taken = senders.map(|sender| sender.join().expect("no panic"));
        let taken = taken.map(|count| u32::try_from(count).expect("not so many"));
        [0, 1, 2, 3].map(|i| (taken[i], arrived[i]))
    })
}

#[test]
fn sends_that_race_with_the_end_arrive_in_order_up_to_it() {
    // Short queues, so that the end does not wait behind a hundred thousand messages.
    let limits = builder().limits(|limits| {
        limits.send_max_bytes = 128 << 10;
        limits.send_high_bytes = 64 << 10;
        limits.send_low_bytes = 32 << 10;
    });
    let (server, journal, handles) = with_handles(limits);
    for round in 0..60 {
        let abort = round % 2 == 0;
        let (mut client, handle) = pair(&server, &handles);
        let peer = name(&client);
        let counts = race(&mut client, &handle, round * 7, abort);
        drop(client);
        let (calls, reason) = journal.life(peer);
        let expected = if abort { "aborted" } else { "closed" };
        assert_eq!(reason.cause().label(), expected, "round {round}: {reason}");
        assert_eq!(calls.last(), Some(&Call::Dropped));
        for (taken, arrived) in counts {
            assert!(arrived <= taken, "round {round}: {arrived} of {taken} messages");
        }
        assert!(!handle.is_open());
    }
    assert_eq!(sum(&server.snapshot(), |reactor| reactor.panics), 0);
    let report = server.stop();
    assert_eq!((report.opened, report.closed_count()), (60, 60));
}

#[test]
fn what_a_thread_sends_before_it_closes_arrives() {
    let (server, journal, handles) = with_handles(builder());
    for count in [1, 2, 10, 1_000] {
        let (mut client, handle) = pair(&server, &handles);
        for number in 0..count {
            assert!(send(&handle, numbered(1, number)));
        }
        handle.close();
        for number in 0..count {
            let message = read_frame(&mut client).expect("a message");
            assert_eq!(number_of(&message), Some((1, number)));
        }
        assert_eq!(client.read(&mut [0]).expect("a clean end"), 0);
        client.shutdown(Shutdown::Write).expect("finish");
        assert_eq!(journal.life(name(&client)).1.cause().label(), "closed");
    }
}

#[test]
fn what_is_sent_while_the_handler_runs_waits_for_it_and_is_counted_exactly() {
    let gate = Gate::default();
    let pass = gate.clone();
    let (sender, handles) = channel();
    let limits = builder().limits(|limits| {
        limits.send_max_bytes = 100_000;
        limits.send_high_bytes = 100_000;
        limits.send_low_bytes = 50_000;
    });
    let (server, _journal) = serve(limits, Raw::new(), move |cx, call| {
        match call {
            Call::Open => sender.send(cx.handle())?,
            Call::Frame(_) => pass.pass(),
            _ => {}
        }
        by_default(cx, call)
    });
    let (mut client, handle) = pair(&server, &handles);
    for round in 1..=5 {
        client.write_all(b"first").expect("write");
        gate.wait_for(round);
        let mut taken = 0;
        while handle.try_send([7; 936].as_slice()).is_ok() {
            taken += 936;
        }
        // Nobody else sends, and nothing is taken: 100 messages of 936 bytes and 64 for each.
        assert_eq!((taken, handle.queued_bytes()), (93_600, 100_000), "round {round}");
        gate.let_one_go();
        let mut back = vec![0; 5 + taken];
        client.read_exact(&mut back).expect("all of it");
        assert!(back.starts_with(b"first") && back[5..].iter().all(|&byte| byte == 7));
        wait_until("nothing is counted any more", || handle.queued_bytes() == 0);
    }
    gate.open();
}

#[test]
fn a_handle_to_a_connection_that_has_finished_takes_no_message() {
    let (sender, handles) = channel();
    let (server, journal) = serve(builder(), frames(), move |cx, call| {
        match call {
            Call::Open => sender.send(cx.handle())?,
            Call::Frame(word) if word == b"finish" => cx.finish(),
            _ => {}
        }
        Ok(())
    });
    let (mut client, handle) = pair(&server, &handles);
    client.write_all(&common::frame(b"finish")).expect("write");
    assert_eq!(client.read(&mut [0]).expect("a clean end"), 0);
    wait_until(
        "it takes no message",
        || matches!(handle.try_send("late"), Err(TrySendError::Gone(message)) if message == "late"),
    );
    // The other direction is open still.
    client.write_all(&common::frame(b"more")).expect("write");
    journal.wait_for(name(&client), &Call::Frame(b"more".to_vec()));
    assert!(handle.is_open());
    handle.abort();
    assert_eq!(journal.life(name(&client)).0.last(), Some(&Call::Dropped));
    wait_until("it has ended", || !handle.is_open());
}

#[test]
fn a_stale_handle_never_reaches_the_next_connection_in_its_slot() {
    let (server, _journal, handles) = with_handles(builder().reactors(1));
    let over = AtomicBool::new(false);
    let (stale_sender, stale) = channel::<Handle>();
    thread::scope(|scope| {
        let over = &over;
        scope.spawn(move || {
            let mut all: Vec<Handle> = Vec::new();
            while !over.load(Ordering::Relaxed) {
                all.extend(stale.try_iter());
                let some = all.iter().rev().take(20);
                some.for_each(|handle| drop(handle.try_send("stale")));
                all.iter().rev().take(3).for_each(Handle::abort);
                thread::yield_now();
            }
            assert!(all.iter().all(|handle| !handle.is_open()));
        });
        for round in 0..500u32 {
            let (mut client, handle) = pair(&server, &handles);
            let word = format!("mine {round}");
            handle.try_send(word.clone()).expect("open");
            let frame = read_frame(&mut client).expect("nobody ended it");
            assert_eq!(frame, word.as_bytes());
            echo(&mut client, &common::frame(word.as_bytes()));
            reset(client);
            wait_until("it is gone", || !handle.is_open());
            stale_sender.send(handle).expect("the other thread listens");
        }
        over.store(true, Ordering::Relaxed);
    });
    wait_for("all are gone", &server, |now| now.connections() == 0);
    let report = server.stop();
    assert_eq!((report.opened, report.closed_count()), (500, 500));
    if resets_are_told() {
        assert_eq!(report.closed_by("peer_reset"), 500, "{report}");
    }
}

#[test]
fn ten_thousand_sends_reach_a_reactor_that_sleeps() {
    let (server, _journal, handles) = with_handles(builder().reactors(1));
    let (mut client, handle) = pair(&server, &handles);
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..10_000 {
                assert!(send(&handle, numbered(3, number)), "the connection is open");
            }
        });
        for number in 0..10_000 {
            let message = read_frame(&mut client).expect("a message");
            assert_eq!(number_of(&message), Some((3, number)));
        }
    });
}

#[test]
fn each_send_to_a_reactor_that_sleeps_wakes_it() {
    let (server, _journal, handles) = with_handles(builder().reactors(1));
    let (mut client, handle) = pair(&server, &handles);
    for number in 0..2_000 {
        assert!(send(&handle, numbered(3, number)), "the connection is open");
        let message = read_frame(&mut client).expect("a message");
        assert_eq!(number_of(&message), Some((3, number)));
    }
}
