//! What a server may not keep: memory round after round, descriptors and threads after its end.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::thread;

use switchboard::{Raw, handler_fn};

use crate::client::{connect, connect_many, echoed, reset, served, tagged};
use crate::process::{busy_share, memory, raise_descriptor_limit, wait_for};
use crate::server::Server;

#[test]
fn equal_rounds_of_churn_cost_no_more_memory() {
    let mut server = Server::start("");
    let mut sizes = Vec::new();
    for _ in 0..5 {
        let addr = server.addr;
        thread::scope(|scope| {
            for lane in 0..4 {
                scope.spawn(move || {
                    for round in 0..250 {
                        let mut client = connect(addr).expect("the server listens");
                        assert!(echoed(&mut client, &tagged(lane, 1 + 37 * round)));
                        if round % 2 == 0 {
                            reset(client);
                        }
                    }
                });
            }
        });
        assert!(server.is_empty(), "{:?}", server.snapshot());
        sizes.push(memory(server.pid, "VmRSS"));
    }
    let growth = sizes[4].saturating_sub(sizes[1]);
    assert!(growth <= 2 << 20, "it grows by {growth} bytes: {sizes:?}");
    server.stop();
}

#[test]
fn idle_connections_cost_no_cpu() {
    let mut server = Server::start("");
    let mut clients = connect_many(server.addr, 200);
    assert_eq!(served(&mut clients), 200);
    // The first of these looks is over before the second one counts.
    let before = server.snapshot()["turns"];
    let busy = busy_share(server.pid);
    let turns = server.snapshot()["turns"] - before;
    assert!(busy < 0.05, "it is busy with {busy} of a core");
    // One turn of each reactor to answer, and a few that the last clients left.
    assert!(turns <= 10, "{turns} turns while nothing happens");
    assert_eq!(server.snapshot()["held"], 0);
    server.stop();
}

fn count(folder: &str) -> usize {
    fs::read_dir(folder).expect("the kernel tells").count()
}

/// Runs in a process of its own, so that nobody else opens or starts anything meanwhile.
pub(crate) fn start_and_stop(cycles: usize) {
    let one = || {
        let server = switchboard::Server::builder()
            .reactors(2)
            .listen("127.0.0.1:0", Raw::new(), |_| handler_fn(|cx, bytes| cx.send(bytes)))
            .start()
            .expect("it starts");
        let control = server.control();
        let mut client = connect(server.local_addr()).expect("the server listens");
        thread::scope(|scope| {
            // Wakes the reactors while they end, and after.
            let waker = scope.spawn(|| (0..20).for_each(|_| control.resume()));
            client.write_all(b"the last words").expect("the system takes it");
            let report = server.stop();
            assert_eq!(report.opened, report.closed_count());
            waker.join().expect("it does not panic");
        });
    };
    one();
    let before = (count("/proc/self/fd"), count("/proc/self/task"));
    (0..cycles).for_each(|_| one());
    let after = || (count("/proc/self/fd"), count("/proc/self/task"));
    // A thread that is joined may stand in the kernel's list for a moment longer.
    assert!(wait_for(|| after() == before), "{before:?} before, {:?} after", after());
}

#[test]
fn start_and_stop_over_and_over_gives_everything_back() {
    raise_descriptor_limit();
    let mut command = Server::command("cycles=10000");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = child.spawn().and_then(|child| child.wait_with_output()).expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
