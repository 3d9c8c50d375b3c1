//! A server in steady state allocates nothing per message, and an idle connection holds no buffer.
#![expect(unsafe_code, reason = "an allocator cannot be written without")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use switchboard::error::SendError;
use switchboard::group::Group;
use switchboard::{Codec, Context, LengthPrefixed, Raw, Server, handler_fn};

/// Counts what all threads allocate, but for those that have said that they belong to the test.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static IS_CLIENT: Cell<bool> = const { Cell::new(false) };
}

fn count() {
    if !IS_CLIENT.try_with(Cell::get).unwrap_or(true) {
        ALLOCATIONS.fetch_add(1, SeqCst);
    }
}

// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// One test at a time: they count together.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    IS_CLIENT.set(true);
    turn
}

fn start<C>(codec: C) -> Server
where
    C: Codec<Frame = BytesMut, Message = Bytes> + Clone + Sync,
{
    let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
    let server = Server::builder().reactors(1).listen("127.0.0.1:0", codec, echo).start();
    server.expect("the server starts")
}

fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.local_addr()).expect("the server listens");
    stream.set_nodelay(true).expect("a fresh socket takes options");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a fresh socket takes options");
    stream
}

/// Rounds until one allocates nothing. What is allocated once in a while, such as the queue of the
/// mailbox when a thread was preempted and lost its reactor, hits some rounds; what is allocated
/// per message hits all of them.
const ROUNDS_MAX: usize = 20;

/// Echoes `wire` again and again; the least that the server allocated in one round.
fn least_allocations(server: &Server, wire: &[u8], messages: usize) -> u64 {
    let mut stream = connect(server);
    let mut back = vec![0; wire.len()];
    let mut echo = |times: usize| {
        for _ in 0..times {
            stream.write_all(wire).expect("the server reads");
            stream.read_exact(&mut back).expect("the server echoes");
            assert!(back == wire, "byte for byte");
        }
    };
    echo(messages);
    let mut least = u64::MAX;
    for _ in 0..ROUNDS_MAX {
        let before = ALLOCATIONS.load(SeqCst);
        echo(messages);
        least = least.min(ALLOCATIONS.load(SeqCst) - before);
        if least == 0 {
            break;
        }
    }
    least
}

fn framed(count: usize) -> Vec<u8> {
    let frame = [&64u32.to_be_bytes()[..], &[b'f'; 64]].concat();
    frame.repeat(count)
}

#[test]
fn the_count_sees_other_threads() {
    let _turn = alone();
    let before = ALLOCATIONS.load(SeqCst);
    let other = std::thread::spawn(|| drop(std::hint::black_box(vec![0u8; 100])));
    other.join().expect("it does not panic");
    assert!(ALLOCATIONS.load(SeqCst) > before);
}

#[test]
fn a_small_raw_echo_allocates_nothing() {
    let _turn = alone();
    assert_eq!(least_allocations(&start(Raw::new()), &[b'x'; 64], 1000), 0);
}

#[test]
fn a_large_raw_echo_allocates_nothing() {
    let _turn = alone();
    assert_eq!(least_allocations(&start(Raw::new()), &vec![b'x'; 64 << 10], 100), 0);
}

#[test]
fn a_framed_echo_allocates_nothing() {
    let _turn = alone();
    assert_eq!(least_allocations(&start(LengthPrefixed::u32()), &framed(1), 1000), 0);
}

#[test]
fn a_reply_from_a_slice_and_one_in_parts_allocate_nothing() {
    let _turn = alone();
    let start = |reply: fn(&mut Context<'_>, BytesMut) -> Result<(), SendError>| {
        let builder = Server::builder().reactors(1);
        let server =
            builder.listen("127.0.0.1:0", LengthPrefixed::u32(), move |_peer| handler_fn(reply));
        server.start().expect("the server starts")
    };
    let slice = start(|cx, frame| cx.send_slice(&frame));
    assert_eq!(least_allocations(&slice, &framed(1), 1000), 0);
    let parts = start(|cx, mut frame| {
        let rest = [frame.split_off(10).freeze()];
        cx.send_parts(&frame, &rest)
    });
    assert_eq!(least_allocations(&parts, &framed(1), 1000), 0);
}

#[test]
fn pipelined_frames_allocate_nothing() {
    let _turn = alone();
    assert_eq!(least_allocations(&start(LengthPrefixed::u32()), &framed(16), 200), 0);
}

#[test]
fn a_broadcast_allocates_for_itself_and_not_for_each_member() {
    const MEMBERS: usize = 100;
    let _turn = alone();
    let group = Group::new(LengthPrefixed::u32());
    let members = group.clone();
    let join = move |_peer| {
        let group = members.clone();
        handler_fn(move |cx, frame| {
            cx.join(&group);
            cx.send(frame)
        })
    };
    let server = Server::builder().reactors(1).listen("127.0.0.1:0", LengthPrefixed::u32(), join);
    let server = server.start().expect("the server starts");
    let mut streams: Vec<TcpStream> = (0..MEMBERS).map(|_| connect(&server)).collect();
    let mut back = framed(1);
    for stream in &mut streams {
        stream.write_all(&framed(1)).expect("the server reads");
        stream.read_exact(&mut back).expect("the server echoes");
    }
    let message = Bytes::from(vec![b'g'; 64]);
    let mut least = u64::MAX;
    for _ in 0..ROUNDS_MAX {
        let before = ALLOCATIONS.load(SeqCst);
        IS_CLIENT.set(false);
        group.broadcast(message.clone()).expect("there is room");
        IS_CLIENT.set(true);
        for stream in &mut streams {
            stream.read_exact(&mut back).expect("every member is told");
            assert!(back[4..] == message[..], "byte for byte");
        }
        least = least.min(ALLOCATIONS.load(SeqCst) - before);
    }
    assert!(least <= 8, "{least} allocations for {MEMBERS} members");
}

#[test]
fn an_idle_connection_holds_no_buffer() {
    let _turn = alone();
    let server = start(Raw::new());
    let streams: Vec<TcpStream> = (0..500).map(|_| connect(&server)).collect();
    for mut stream in &streams {
        let mut back = [0; 5];
        stream.write_all(b"hello").expect("the server reads");
        stream.read_exact(&mut back).expect("the server echoes");
    }
    let snapshot = server.snapshot();
    assert_eq!(snapshot.connections(), streams.len());
    for reactor in &snapshot.reactors {
        assert_eq!((reactor.buffers_leased, reactor.held_bytes), (0, 0));
        // The one that ends it if it is silent for too long.
        assert_eq!(reactor.timers, reactor.connections);
    }
}
