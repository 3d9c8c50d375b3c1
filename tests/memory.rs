//! One budget of memory for all connections: each grade of it is reached, does what it is for, and
//! is left again.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use common::{
    Gate, PATIENCE, builder, connect, connect_narrow, echo, expect_reset, frame, pattern,
    read_frame, wait_for, wait_until,
};
use switchboard::close::{Blame, Cause};
use switchboard::config::{Evict, Idle, Placement};
use switchboard::control::{MemorySnapshot, Shortage, Snapshot};
use switchboard::error::TrySendError;
use switchboard::{
    Builder, CloseReason, Context, Handle, Handler, LengthPrefixed, Outcome, Raw, Server,
    handler_fn,
};

const MAX: usize = 16 << 20;
const MESSAGE: usize = 64 << 10;

fn little(max: usize) -> Builder {
    builder().reactors(1).limits(|limits| {
        limits.memory_max = max;
        limits.evict = Evict::Never;
        limits.send_max_bytes = 2 * max;
    })
}

/// Hands out its handle, waits at a gate if it is told to, and sends everything back.
struct Patient {
    handles: Sender<Handle>,
    gate: Gate,
}

impl Handler for Patient {
    fn on_open(&mut self, cx: &mut Context) -> Outcome {
        Ok(self.handles.send(cx.handle())?)
    }

    fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        if frame == b"wait"[..] {
            self.gate.pass();
        }
        Ok(cx.send(frame.freeze())?)
    }
}

/// A server with one connection whose handler waits, so that messages for it pile up.
struct Pile {
    server: Server,
    client: TcpStream,
    handle: Handle,
    gate: Gate,
    messages: usize,
    /// Of those who came later: their handlers must be able to send theirs.
    _handles: Receiver<Handle>,
}

impl Pile {
    fn new(builder: Builder) -> Pile {
        let (handles, opened) = channel();
        let gate = Gate::default();
        let maker = gate.clone();
        let patient = move |_peer| Patient { handles: handles.clone(), gate: maker.clone() };
        let codec = LengthPrefixed::u32().frame_max(MAX);
        let server = builder.listen("127.0.0.1:0", codec, patient).start().expect("it starts");
        let mut client = connect(server.local_addr());
        let handle = opened.recv_timeout(PATIENCE).expect("it is opened");
        client.write_all(&frame(b"wait")).expect("it is read");
        gate.wait_for(1);
        Pile { server, client, handle, gate, messages: 0, _handles: opened }
    }

    fn memory(&self) -> MemorySnapshot {
        self.server.snapshot().memory
    }

    /// Piles up messages until so many per cent of the budget are used.
    fn fill(&mut self, per_cent: usize) -> MemorySnapshot {
        let message = Bytes::from(vec![7; MESSAGE]);
        while self.memory().total < (MAX * per_cent).div_ceil(100) {
            self.handle.try_send(message.clone()).expect("there is room");
            self.messages += 1;
        }
        self.memory()
    }

    /// Lets the handler go on, and takes everything that was sent.
    fn empty(&mut self) {
        self.gate.open();
        for _ in 0..=self.messages {
            read_frame(&mut self.client).expect("every message comes");
        }
        self.messages = 0;
    }

    fn wait_for_grade(&self, grade: usize) -> Snapshot {
        wait_for("the grade", &self.server, |now| now.memory.grade == grade)
    }
}

#[test]
fn each_grade_is_reached_and_left() {
    let labels = ["trim", "hurry", "pause", "refuse", "evict"];
    for (grade, (label, per_cent)) in (1..).zip(labels.into_iter().zip([72, 82, 92, 96, 98])) {
        let mut pile = Pile::new(little(MAX));
        assert_eq!(pile.memory().grade, 0, "nothing is short at first");
        let memory = pile.fill(per_cent);
        assert!(memory.mailboxes >= pile.messages * MESSAGE, "{memory:?}");
        let now = pile.wait_for_grade(grade);
        let reached = labels.map(|label| now.memory.reached(label));
        assert!(reached.iter().take(grade).all(|&count| count == 1), "{label}: {reached:?}");
        assert!(reached.iter().skip(grade).all(|&count| count == 0), "{label}: {reached:?}");
        pile.empty();
        let calm = pile.wait_for_grade(0);
        assert_eq!((calm.memory.mailboxes, calm.memory.output), (0, 0), "{:?}", calm.memory);
        assert!(calm.memory.total < MAX / 20, "{:?}", calm.memory);
        echo(&mut pile.client, &frame(b"as before"));
    }
}

#[test]
fn whoever_wants_to_know_is_told_of_each_grade() {
    let (sender, news) = channel();
    let told = little(MAX).on_shortage(move |news| sender.send(*news).expect("the test listens"));
    let mut pile = Pile::new(told);
    pile.fill(98);
    pile.wait_for_grade(5);
    pile.empty();
    pile.wait_for_grade(0);
    let mut steps = Vec::new();
    while steps.last().is_none_or(|&(_, grade)| grade > 0) {
        let news: Shortage = news.recv_timeout(PATIENCE).expect("it is told");
        assert_eq!(news.max_bytes, MAX);
        assert!(news.grade < news.before || news.used_bytes >= MAX / 10 * 7, "{news:?}");
        steps.push((news.before, news.grade));
    }
    assert_eq!(steps.first().map(|step| step.0), Some(0), "{steps:?}");
    assert!(steps.iter().any(|step| step.1 == 5), "{steps:?}");
}

#[test]
fn idle_buffers_go_first() {
    let mut pile = Pile::new(little(MAX));
    let mut other = connect(pile.server.local_addr());
    echo(&mut other, &frame(b"needs a buffer"));
    let kept = |now: &Snapshot| now.reactors[0].buffers_retained;
    wait_for("a buffer is kept", &pile.server, |now| kept(now) > 0);
    pile.fill(72);
    wait_for("it is freed", &pile.server, |now| kept(now) == 0);
    echo(&mut other, &frame(b"still served"));
    pile.empty();
    pile.wait_for_grade(0);
    echo(&mut other, &frame(b"needs a buffer"));
    wait_for("one is kept again", &pile.server, |now| kept(now) > 0);
}

#[test]
fn newcomers_wait_while_memory_is_short() {
    let mut pile = Pile::new(little(MAX));
    pile.fill(96);
    pile.wait_for_grade(4);
    let mut newcomer = connect(pile.server.local_addr());
    newcomer.write_all(&frame(b"hello")).expect("the system takes it");
    let now = wait_for("it is refused", &pile.server, |now| now.reactors[0].memory_pauses > 0);
    assert_eq!(now.opened(), 1);
    pile.empty();
    assert_eq!(read_frame(&mut newcomer).expect("it is served now"), b"hello");
    pile.wait_for_grade(0);
}

#[test]
fn handles_take_nothing_when_memory_is_used_up() {
    let mut pile = Pile::new(little(MAX));
    pile.fill(98);
    let message = Bytes::from_static(b"one more");
    wait_until("the handle refuses", || match pile.handle.try_send(message.clone()) {
        Ok(()) => {
            pile.messages += 1;
            false
        }
        Err(TrySendError::Full { message: back, .. }) => back == message,
        Err(error) => panic!("neither taken nor full: {error}"),
    });
    pile.empty();
    pile.wait_for_grade(0);
    pile.handle.try_send(message).expect("there is room again");
    assert_eq!(read_frame(&mut pile.client).expect("it comes"), b"one more");
}

#[test]
fn who_holds_much_is_read_little_by_little_until_there_is_room() {
    let mut pile = Pile::new(little(MAX));
    let large = pattern(5 << 20, 4);
    let wire = frame(&large);
    let mut heavy = connect(pile.server.local_addr());
    let mut light = connect(pile.server.local_addr());
    heavy.write_all(&wire[..3 << 20]).expect("it is read");
    wait_for("a part is held", &pile.server, |now| now.memory.partial_frames >= 3 << 20);
    pile.fill(92);
    pile.wait_for_grade(3);
    let mut rest = heavy.try_clone().expect("a second descriptor");
    let rest = std::thread::spawn(move || rest.write_all(&wire[3 << 20..]));
    wait_for("it is not read", &pile.server, |now| now.memory.pauses > 0);
    echo(&mut light, &frame(b"not held up"));
    pile.empty();
    assert!(read_frame(&mut heavy).expect("it is answered") == large, "not what was sent");
    rest.join().expect("it does not panic").expect("all of it is read");
    let now = pile.wait_for_grade(0);
    assert_eq!((now.memory.throttled, now.memory.partial_frames), (0, 0), "{:?}", now.memory);
}

fn adaptive(min: Duration) -> Idle {
    Idle::Adaptive { min, factor: 3, max: Duration::from_secs(3600) }
}

#[test]
fn silent_peers_are_given_less_time_while_memory_is_short() {
    // Those of the other reactor too, which sleeps.
    let short = little(MAX).reactors(2).placement(Placement::LeastLoaded).limits(|limits| {
        limits.timeouts.idle = adaptive(Duration::from_millis(100));
    });
    let mut pile = Pile::new(short);
    let mut silent: Vec<_> = (0..5).map(|_| connect(pile.server.local_addr())).collect();
    silent.iter_mut().for_each(|client| echo(client, &frame(b"hello")));
    let now = pile.server.snapshot();
    assert!(now.reactors.iter().all(|reactor| reactor.connections > 0), "{now:?}");
    pile.fill(96);
    for client in &mut silent {
        assert_eq!(client.read(&mut [0]).expect("it is closed"), 0);
    }
    pile.empty();
    pile.wait_for_grade(0);
}

#[test]
fn silent_peers_are_given_less_time_in_a_crowd() {
    let crowded = builder().reactors(1).limits(|limits| {
        limits.connections_max = 10;
        limits.timeouts.idle = adaptive(Duration::from_millis(100));
        limits.timeouts.linger = Some(Duration::from_millis(1));
    });
    let echoes = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
    let server = crowded.listen("127.0.0.1:0", Raw::new(), echoes).start().expect("it starts");
    let mut clients: Vec<_> = (0..10).map(|_| connect(server.local_addr())).collect();
    clients.iter_mut().for_each(|client| echo(client, b"hello"));
    // One at least: if that one's time is over before the others', there is no such crowd any more.
    let now = wait_for("some have gone", &server, |now| now.connections() < 10);
    assert!(now.reactors[0].closed.iter().all(|&(label, _)| label == "idle_timeout"), "{now:?}");
}

/// Answers the word "much" with more than there may be, and any other with itself.
struct Hog {
    ends: Sender<CloseReason>,
}

impl Handler for Hog {
    fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
        if frame == b"much"[..] {
            return Ok(cx.send(pattern(12 << 20, 1))?);
        }
        Ok(cx.send(frame.freeze())?)
    }

    fn on_close(&mut self, reason: &CloseReason) {
        // Nobody listens any more when the server stops.
        let _gone = self.ends.send(reason.clone()).is_err();
    }
}

fn hogs(max: usize) -> (Server, Receiver<CloseReason>) {
    let (ends, ended) = channel();
    let builder = builder().reactors(1).limits(|limits| limits.memory_max = max);
    let hog = move |_peer| Hog { ends: ends.clone() };
    let server = builder.listen("127.0.0.1:0", Raw::new(), hog).start().expect("it starts");
    (server, ended)
}

#[test]
fn who_needs_more_than_there_is_goes_at_once_and_nobody_else() {
    let (server, ended) = hogs(4 << 20);
    let mut modest = connect(server.local_addr());
    echo(&mut modest, b"before");
    let mut hog = connect_narrow(server.local_addr());
    hog.write_all(b"much").expect("it is read");
    let reason = ended.recv_timeout(PATIENCE).expect("it is ended");
    assert!(matches!(reason.cause(), Cause::OutOfMemory), "{reason}");
    assert_eq!((reason.blame(), reason.cause().label()), (Blame::Limit, "out_of_memory"));
    assert!(reason.unsent_bytes() > 4 << 20, "{reason}");
    expect_reset(&mut hog);
    echo(&mut modest, b"after");
    let now = wait_for("all is calm", &server, |now| now.memory.grade == 0);
    assert_eq!((now.connections(), now.memory.reached("evict")), (1, 1));
    assert_eq!(server.stop().closed_by("out_of_memory"), 1);
}

#[test]
fn the_heaviest_goes_first() {
    // Each holds some 12 MiB less what the system takes: the sixth or so is one too many.
    let (server, ended) = hogs(64 << 20);
    let mut modest = connect(server.local_addr());
    let mut hogs: Vec<_> = (0..8).map(|_| connect_narrow(server.local_addr())).collect();
    for hog in &mut hogs {
        hog.write_all(b"much").expect("it is read");
        echo(&mut modest, b"not held up");
    }
    let reason = ended.recv_timeout(PATIENCE).expect("one is ended");
    assert!(matches!(reason.cause(), Cause::OutOfMemory), "{reason}");
    echo(&mut modest, b"still there");
    let now = server.snapshot();
    assert!(now.memory.total <= (64 << 20) / 16 * 17 + (16 << 20), "{:?}", now.memory);
    drop(hogs);
    let now = wait_for("they are gone", &server, |now| now.connections() == 1);
    assert_eq!((now.memory.output, now.memory.partial_frames), (0, 0), "{:?}", now.memory);
    wait_for("all is calm", &server, |now| now.memory.grade == 0);
}
