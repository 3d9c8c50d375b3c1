//! Groups: who has joined is told, whole, in order and once, or is told how much it has missed; and
//! who does not listen costs a bounded amount of memory.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use bytes::{Bytes, BytesMut};
use common::{
    Gate, PATIENCE, builder, connect, connect_narrow, ends_in_reset, frame, frames, read_frame,
    resets_are_told, sum, wait_until,
};
use switchboard::config::Scheduling;
use switchboard::group::{BroadcastError, Group, SlowPolicy};
use switchboard::{Builder, CloseReason, Context, Handle, Handler, Outcome, Server};

/// What happened to a member.
#[derive(Debug)]
enum Event {
    Open(Handle),
    Lagged(u64),
    Close(&'static str),
}

/// Does what its client says, and answers when it is done.
struct Member {
    group: Group,
    events: Sender<Event>,
    gate: Gate,
}

impl Handler for Member {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        Ok(self.events.send(Event::Open(cx.handle()))?)
    }

    fn on_frame(&mut self, cx: &mut Context, word: BytesMut) -> Outcome {
        match &word[..] {
            b"join" => cx.join(&self.group),
            b"leave" => cx.leave(&self.group),
            b"pause" => cx.pause(),
            b"wait" => self.gate.pass(),
            _ => self.group.broadcast(word.clone().freeze())?,
        }
        Ok(cx.send("done")?)
    }

    fn on_lagged(&mut self, _: &mut Context, lost: u64) -> Outcome {
        Ok(self.events.send(Event::Lagged(lost))?)
    }

    fn on_close(&mut self, reason: &CloseReason) {
        // A test that is over does not listen any more.
        drop(self.events.send(Event::Close(reason.cause().label())));
    }
}

/// A server whose connections may become members of `group`.
fn serve(builder: Builder, group: &Group) -> (Server, Receiver<Event>, Gate) {
    let (events, told) = channel();
    let (group, gate) = (group.clone(), Gate::default());
    let pass = gate.clone();
    let member =
        move |_peer| Member { group: group.clone(), events: events.clone(), gate: pass.clone() };
    let server = builder.listen("127.0.0.1:0", frames(), member).start();
    (server.expect("the server starts"), told, gate)
}

fn say(client: &mut TcpStream, word: &str) {
    client.write_all(&frame(word.as_bytes())).expect("the server reads");
}

#[track_caller]
fn hear(client: &mut TcpStream, word: &str) {
    let heard = read_frame(client).expect("it comes");
    assert_eq!(String::from_utf8_lossy(&heard), word);
}

/// Says something and waits until it is done.
#[track_caller]
fn tell(client: &mut TcpStream, word: &str) {
    say(client, word);
    hear(client, "done");
}

fn member(server: &Server) -> TcpStream {
    let mut client = connect(server.local_addr());
    tell(&mut client, "join");
    client
}

#[track_caller]
fn handle(events: &Receiver<Event>) -> Handle {
    match events.recv_timeout(PATIENCE).expect("somebody comes") {
        Event::Open(handle) => handle,
        Event::Lagged(_) | Event::Close(_) => panic!("somebody else goes"),
    }
}

#[track_caller]
fn close_label(events: &Receiver<Event>) -> &'static str {
    loop {
        if let Event::Close(label) = events.recv_timeout(PATIENCE).expect("somebody goes") {
            return label;
        }
    }
}

/// A message with a number.
fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(len.max(4), number.to_le_bytes()[0]);
    bytes
}

#[track_caller]
fn number_of(bytes: &[u8]) -> u32 {
    let number = u32::from_be_bytes(*bytes.first_chunk().expect("four bytes"));
    assert!(bytes == numbered(number, bytes.len()), "message {number} is not as it was sent");
    number
}

/// Broadcasts, again and again while the backlog is full.
fn broadcast(group: &Group, message: impl Into<Bytes>) {
    let mut message = message.into();
    while let Err(error) = group.broadcast(message) {
        message = error.into_message().expect("the codec takes everything here");
        thread::yield_now();
    }
}

#[test]
fn who_joins_by_its_handler_is_told_until_it_leaves() {
    let group = Group::new(frames());
    let (server, _events, _) = serve(builder(), &group);
    let (mut one, mut other) = (member(&server), member(&server));
    wait_until("both have joined", || group.len() == 2);
    tell(&mut one, "join");
    group.broadcast("to both").expect("there is room");
    hear(&mut one, "to both");
    hear(&mut other, "to both");
    tell(&mut one, "leave");
    group.broadcast("to one").expect("there is room");
    hear(&mut other, "to one");
    // A third message, to both again: nothing came in between.
    tell(&mut one, "join");
    group.broadcast("again").expect("there is room");
    hear(&mut one, "again");
    hear(&mut other, "again");
    wait_until("all is counted", || group.stats().delivered == 5);
    assert_eq!((group.len(), group.stats().lost), (2, 0));
    assert!(!group.is_empty() && format!("{group:?}") == "Group(2 members)");
}

#[test]
fn what_a_thread_broadcasts_after_it_had_a_connection_join_reaches_that() {
    let group = Group::new(frames());
    let (server, events, _) = serve(builder(), &group);
    for _ in 0..100 {
        let mut client = connect(server.local_addr());
        let handle = handle(&events);
        handle.join(&group);
        group.broadcast("welcome").expect("there is room");
        hear(&mut client, "welcome");
        handle.join(&group);
        handle.leave(&group);
        group.broadcast("not for you").expect("there is room");
        handle.try_send("for you").expect("there is room");
        hear(&mut client, "for you");
        handle.leave(&group);
        handle.close();
        drop(client);
        assert_eq!(close_label(&events), "closed");
        handle.join(&group);
    }
    wait_until("all is counted", || group.stats().delivered == 100);
}

#[test]
fn a_handler_that_joins_and_broadcasts_hears_itself() {
    struct Newcomer(Group);
    impl Handler for Newcomer {
        fn on_open(&mut self, cx: &mut Context) -> Outcome {
            cx.join(&self.0);
            Ok(self.0.broadcast("somebody has come")?)
        }
        fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
            Ok(())
        }
    }
    let group = Group::new(frames());
    let members = group.clone();
    let builder = builder().listen("127.0.0.1:0", frames(), move |_| Newcomer(members.clone()));
    let server = builder.start().expect("the server starts");
    let mut there: Vec<TcpStream> = Vec::new();
    for _ in 0..20 {
        there.push(connect(server.local_addr()));
        there.iter_mut().for_each(|client| hear(client, "somebody has come"));
    }
}

#[test]
fn who_ends_is_no_member_any_more_and_a_stopped_server_has_none() {
    let group = Group::new(frames());
    let (server, events, _) = serve(builder(), &group);
    let clients: Vec<TcpStream> = (0..30).map(|_| member(&server)).collect();
    wait_until("all have joined", || group.len() == 30);
    drop(clients);
    wait_until("all have left", || group.is_empty());
    let mut rest = member(&server);
    group.broadcast("still there").expect("there is room");
    hear(&mut rest, "still there");
    let handles = events.try_iter().filter_map(|event| match event {
        Event::Open(handle) => Some(handle),
        Event::Lagged(_) | Event::Close(_) => None,
    });
    let last = handles.last().expect("many have come");
    drop(server.stop());
    assert!(group.is_empty());
    last.join(&group);
    group.broadcast("nobody hears").expect("there is always room for nobody");
    assert_eq!((group.len(), group.stats().backlog_bytes), (0, 0));
}

#[test]
fn members_of_two_servers_are_told_the_same() {
    let group = Group::new(frames());
    let (here, _events, _) = serve(builder(), &group);
    let (there, _others, _) = serve(builder(), &group);
    let mut clients = [member(&here), member(&there), member(&there), member(&here)];
    for round in 0..50 {
        let word = format!("round {round}");
        say(&mut clients[round % 4], &word);
        for (at, client) in clients.iter_mut().enumerate() {
            let mut heard = vec![read_frame(client).expect("it comes")];
            if at == round % 4 {
                heard.push(read_frame(client).expect("and what it asked for is done"));
            }
            assert!(heard.contains(&word.clone().into_bytes()), "{heard:?}");
        }
    }
    drop(there.stop());
    wait_until("two are left", || group.len() == 2);
    group.broadcast("here").expect("there is room");
    hear(&mut clients[0], "here");
    hear(&mut clients[3], "here");
}

#[test]
fn each_member_hears_each_publisher_in_order_and_misses_nothing() {
    const EACH: u32 = 2_000;
    const PUBLISHERS: u32 = 3;
    let group = Group::builder(frames()).queue_max_bytes(64 << 20).backlog_max_bytes(10_000);
    let group = group.build();
    let (server, _events, _) =
        serve(builder().limits(|limits| limits.broadcasts_per_turn = 7), &group);
    let clients: Vec<TcpStream> = (0..20).map(|_| member(&server)).collect();
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let group = &group;
            scope.spawn(move || {
                for number in 0..EACH {
                    broadcast(group, numbered(publisher << 16 | number, number as usize % 200));
                }
            });
        }
        for client in clients {
            scope.spawn(move || {
                let mut reader = std::io::BufReader::new(client);
                let mut next = [0; PUBLISHERS as usize];
                for _ in 0..EACH * PUBLISHERS {
                    let heard = number_of(&read_frame(&mut reader).expect("it comes"));
                    let (publisher, number) = ((heard >> 16) as usize, heard & 0xFFFF);
                    assert_eq!(number, next[publisher], "publisher {publisher}");
                    next[publisher] += 1;
                }
            });
        }
    });
    let all = u64::from(EACH * PUBLISHERS) * 20;
    wait_until("all is counted", || group.stats().delivered == all);
}

/// Messages that a client gets that did not listen while there were many, and how many losses its
/// handler was told of.
fn listen_late(policy: SlowPolicy<Bytes>, count: u32) -> (Vec<u32>, u64, Group) {
    const LEN: usize = 16 << 10;
    let group = Group::builder(frames()).policy(policy).queue_max_bytes(256 << 10).build();
    // However long it takes to tell them all; and the system is to take little, whose way to get
    // much through a narrow window takes minutes where a machine is slow.
    let patient = builder().limits(|limits| {
        limits.timeouts.write_stall = None;
        limits.send_buffer_bytes = Some(64 << 10);
    });
    let (server, events, _) = serve(patient, &group);
    // A narrow one, so that the system takes no more of it later on.
    let mut client = connect_narrow(server.local_addr());
    tell(&mut client, "join");
    (0..count).for_each(|number| broadcast(&group, numbered(number, LEN)));
    wait_until("all is fanned out", || group.stats().backlog_bytes == 0);
    let held: usize = sum(&server.snapshot(), |reactor| reactor.held_bytes);
    assert!(held <= (256 << 10) + (16 << 10) + 2 * LEN, "{held} bytes are held");
    let reader = thread::spawn(move || {
        let mut heard = Vec::new();
        loop {
            let number = number_of(&read_frame(&mut client).expect("it comes"));
            if number == u32::MAX {
                return heard;
            }
            heard.push(number);
        }
    });
    // All that was not dropped is on its way: then one more says that this was it.
    let is_settled = || {
        let stats = group.stats();
        stats.delivered + stats.lost == u64::from(count)
    };
    wait_until("the rest is delivered", is_settled);
    broadcast(&group, numbered(u32::MAX, 4));
    let lagged: u64 = sum(&server.snapshot(), |reactor| reactor.lagged);
    assert_eq!(lagged, group.stats().lost);
    let heard = reader.join().expect("it is told everything in the end");
    let lost = group.stats().lost;
    assert_eq!(heard.len() as u64 + lost, u64::from(count));
    let mut told = 0;
    while told < lost {
        if let Event::Lagged(lost) = events.recv_timeout(PATIENCE).expect("losses are told") {
            told += lost;
        }
    }
    (heard, told, group)
}

/// Far more than the system takes for one client.
const MANY: u32 = 1_000;

#[test]
fn who_is_behind_gets_what_came_first_if_the_newest_are_dropped() {
    let (heard, lost, _group) = listen_late(SlowPolicy::DropNewest, MANY);
    assert!(lost > 0 && heard.iter().copied().eq(0..MANY - u32::try_from(lost).expect("few")));
}

#[test]
fn who_is_behind_gets_what_came_last_if_the_oldest_are_dropped() {
    let (heard, lost, _group) = listen_late(SlowPolicy::DropOldest, MANY);
    let gaps: Vec<_> = heard.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert_eq!(gaps.len(), 1, "they are missing in one place");
    assert_eq!(u64::from(gaps[0][1] - gaps[0][0] - 1), lost);
    assert_eq!((heard[0], heard[heard.len() - 1]), (0, MANY - 1));
}

#[test]
fn who_is_behind_gets_the_newest_of_each_kind_if_they_are_conflated() {
    let policy = SlowPolicy::conflate(|message: &Bytes| u64::from(message[3] % 4));
    let (heard, lost, _group) = listen_late(policy, MANY);
    assert!(lost > 0 && heard.is_sorted_by(|one, next| one < next));
    assert!(heard.ends_with(&[MANY - 4, MANY - 3, MANY - 2, MANY - 1]));
    let gaps = heard.windows(2).filter(|pair| pair[1] != pair[0] + 1);
    assert_eq!(gaps.count(), 1, "what came before it was behind, and the last of each kind");
}

#[test]
fn who_is_behind_is_reset_if_that_is_the_rule() {
    let group = Group::builder(frames()).policy(SlowPolicy::Kick).queue_max_bytes(100_000).build();
    let (server, events, _) = serve(builder(), &group);
    let mut slow = connect_narrow(server.local_addr());
    tell(&mut slow, "join");
    let mut quick = member(&server);
    let mut number = 0;
    // The quick one listens, so that it is never behind.
    while group.stats().kicked == 0 {
        group.broadcast(numbered(number, 10_000)).expect("there is room");
        assert_eq!(number_of(&read_frame(&mut quick).expect("it comes")), number);
        number += 1;
    }
    assert_eq!(close_label(&events), "lagged");
    assert!(ends_in_reset(&mut slow) || !resets_are_told());
    let stats = group.stats();
    assert_eq!((stats.members, stats.kicked, stats.lost), (1, 1, 0));
    assert_eq!(server.stop().closed_by("lagged"), 1);
}

#[test]
fn a_member_whose_handler_runs_or_pauses_is_told_meanwhile() {
    let group = Group::new(frames());
    let (server, _events, gate) = serve(builder(), &group);
    let (mut busy, mut pausing) = (member(&server), member(&server));
    say(&mut busy, "wait");
    gate.wait_for(1);
    tell(&mut pausing, "pause");
    for round in 0..10 {
        let word = format!("round {round}");
        group.broadcast(word.clone()).expect("there is room");
        hear(&mut busy, &word);
        hear(&mut pausing, &word);
    }
    gate.open();
    hear(&mut busy, "done");
}

#[test]
fn a_publisher_is_never_blocked_but_refused_when_nobody_passes_its_words_on() {
    let group = Group::builder(frames()).backlog_max_bytes(10_000).build();
    let builder = Server::builder().reactors(1).workers(0).scheduling(Scheduling::Inline);
    let (server, _events, gate) = serve(builder, &group);
    let mut client = member(&server);
    say(&mut client, "wait");
    gate.wait_for(1);
    let mut taken = 0;
    let refused = loop {
        match group.broadcast(numbered(taken, 100)) {
            Ok(()) => taken += 1,
            Err(refused) => break refused,
        }
    };
    assert!(refused.to_string().starts_with("the backlog is full: "), "{refused}");
    assert_eq!(refused.into_message().expect("it is given back"), numbered(taken, 100));
    // Encoded they are 104 bytes long, and each costs 64 more.
    assert_eq!(taken, 10_000_u32.div_ceil(168));
    assert_eq!(group.stats().backlog_bytes, taken as usize * 168);
    gate.open();
    let mut heard = Vec::new();
    while heard.len() < taken as usize {
        let message = read_frame(&mut client).expect("it comes");
        heard.extend((message != b"done").then(|| number_of(&message)));
    }
    assert!(heard.into_iter().eq(0..taken));
}

#[test]
fn what_the_codec_refuses_reaches_nobody() {
    let group = Group::new(switchboard::LengthPrefixed::u16());
    let refused = group.broadcast(vec![0; 1 << 16]).expect_err("too long for its length");
    assert!(matches!(refused, BroadcastError::Refused(_)));
    assert!(std::error::Error::source(&refused).is_some());
    assert!(refused.into_message().is_none());
}

#[test]
fn fifty_who_do_not_listen_cost_what_they_may_and_others_miss_nothing() {
    const STALLED: usize = 50;
    const LEN: usize = 4 << 10;
    const QUEUE: usize = 64 << 10;
    const AHEAD: u32 = 16;
    let group = Group::builder(frames()).queue_max_bytes(QUEUE).build();
    let (server, _events, _) = serve(builder(), &group);
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut client = connect_narrow(server.local_addr());
        tell(&mut client, "join");
        stalled.push(client);
    }
    let mut quick = member(&server);
    let bound = STALLED * (QUEUE + (16 << 10) + 2 * LEN);
    let (mut said, mut heard, mut most) = (0, 0, 0);
    // Until each of them has missed more than it could have waiting.
    while group.stats().lost < 100 * STALLED as u64 {
        while said < heard + AHEAD {
            broadcast(&group, numbered(said, LEN));
            said += 1;
        }
        assert_eq!(number_of(&read_frame(&mut quick).expect("it comes")), heard);
        heard += 1;
        if heard % 64 == 0 {
            most = most.max(sum(&server.snapshot(), |reactor| reactor.held_bytes));
            assert!(most <= bound, "{most} bytes are held, of {bound}");
        }
    }
    assert!(most > STALLED * QUEUE / 2, "they have fallen behind: {most} bytes are held");
    drop(stalled);
    wait_until("they are gone", || group.len() == 1);
    while heard < said {
        assert_eq!(number_of(&read_frame(&mut quick).expect("it comes")), heard);
        heard += 1;
    }
    let held: usize = sum(&server.snapshot(), |reactor| reactor.held_bytes);
    assert_eq!(held, 0, "what waited for them is gone");
    quick.set_nonblocking(true).expect("an option");
    let nothing = quick.read(&mut [0]).expect_err("nothing is left over");
    assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
}
