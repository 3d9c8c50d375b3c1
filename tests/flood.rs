//! Two thousand clients that send and never read: what they cost stays within the budget, and
//! nobody else notices. Alone in its file, since it counts the memory of the whole process.
#![expect(unsafe_code, reason = "an allocator cannot be written without")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use common::{builder, connect, connect_narrow, echo, now, wait_for};
use switchboard::{Raw, handler_fn};

/// Knows how much memory is allocated, and how much was at most.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grow(bytes: usize) {
    let now = ALLOCATED.fetch_add(bytes, SeqCst) + bytes;
    PEAK.fetch_max(now, SeqCst);
}

// SAFETY: every call is passed on to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), SeqCst);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        ALLOCATED.fetch_sub(layout.size(), SeqCst);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

const CLIENTS: usize = 2_000;
const MAX: usize = 64 << 20;
/// What is not in the books: large buffers of which a part waits to be written (their read buffer
/// is pinned), blanks of jobs, threads, the harness.
const SLACK: usize = 16 << 20;

/// Sends to all who still listen, as much as goes, for one round.
fn pour(clients: &mut Vec<TcpStream>, bytes: &[u8]) {
    clients.retain_mut(|client| match client.write(bytes) {
        Ok(_) => true,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    });
}

#[test]
fn a_flood_of_clients_that_never_read_stays_within_the_budget() {
    let server = builder()
        .raise_descriptor_limit()
        .limits(|limits| limits.memory_max = MAX)
        .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
        .start()
        .expect("it starts");
    let addr = server.local_addr();
    let mut healthy = connect(addr);
    echo(&mut healthy, b"before");
    let mut flooders: Vec<_> = (0..CLIENTS).map(|_| connect_narrow(addr)).collect();
    let before = ALLOCATED.load(SeqCst);
    for client in &flooders {
        client.set_nonblocking(true).expect("not to block");
    }
    let over = AtomicBool::new(false);
    let mut times = Vec::new();
    thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let bytes = common::pattern(64 << 10, 5);
            while !over.load(SeqCst) {
                pour(&mut flooders, &bytes);
                common::pause(Duration::from_millis(1));
            }
        });
        let word = [7; 100];
        let mut snapshot = server.snapshot();
        // Until memory was so short that everything was tried, and for some time after that.
        let mut since = 0;
        while since < 300 {
            let begun = now();
            echo(&mut healthy, &word);
            times.push(begun.elapsed());
            if times.len() % 50 == 0 {
                snapshot = server.snapshot();
            }
            since += usize::from(snapshot.memory.reached("evict") > 0);
            assert!(times.len() < 200_000, "memory is never short: {:?}", snapshot.memory);
        }
        over.store(true, SeqCst);
        flood.join().expect("it does not panic");
    });
    let memory = server.snapshot().memory;
    let peak = PEAK.load(SeqCst) - before;
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100];
    println!("{} echoes: median {:?}, p99 {:?}, max {:?}", times.len(), at(50), at(99), at(100));
    println!("peak {} KiB beside the sockets; {memory:?}", peak >> 10);
    assert!(peak < MAX + SLACK, "{} MiB at the peak", peak >> 20);
    assert!(memory.total < MAX / 16 * 17 + (1 << 20), "{memory:?}");
    echo(&mut healthy, b"still there");
    drop(flooders);
    let calm = wait_for("they are gone", &server, |now| {
        now.connections() == 1 && now.memory.grade == 0 && now.memory.output == 0
    });
    assert_eq!(
        (calm.memory.partial_frames, calm.memory.mailboxes, calm.memory.throttled),
        (0, 0, 0)
    );
    assert!(calm.memory.total < 16 << 20, "{:?}", calm.memory);
    echo(&mut connect(addr), b"welcome");
    let left = ALLOCATED.load(SeqCst).saturating_sub(before);
    assert!(left < 16 << 20, "{left} bytes are left");
}
