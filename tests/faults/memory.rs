//! Memory: lengths that promise more than comes, and a process that may not have much.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use crate::client::{connect, connect_many, connect_small, echoed, ends, push, served};
use crate::process::{memory, wait_for};
use crate::server::Server;

#[test]
fn memory_grows_with_what_arrives_and_not_with_what_is_promised() {
    const COUNT: usize = 100;
    let mut server = Server::start("");
    let mut warm = connect_many(server.frames, COUNT);
    for client in &mut warm {
        assert!(echoed(client, &[0, 0, 0, 1, b'x']));
    }
    let before = memory(server.pid, "VmRSS");
    // Beyond the longest frame: closed, though nothing was asked of them but nine bytes.
    for length in [0x0010_0001u32, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        let mut clients = connect_many(server.frames, COUNT);
        for client in &mut clients {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.extend(b"start");
            client.write_all(&bytes).expect("the system takes it");
        }
        assert!(clients.iter_mut().all(ends), "a length of {length} is taken");
    }
    // As long as may be, 100 MiB in all: what has arrived is kept, and no more.
    let mut promised = connect_many(server.frames, COUNT);
    for client in &mut promised {
        client.write_all(b"\x00\x10\x00\x00start").expect("the system takes it");
    }
    assert!(wait_for(|| server.snapshot()["held"] == 9 * COUNT as u64));
    let growth = memory(server.pid, "VmHWM").saturating_sub(before);
    assert!(growth <= COUNT * (64 << 10) + (1 << 20), "{growth} bytes more for {COUNT} promises");
    drop((warm, promised));
    assert!(server.is_empty());
    server.stop();
}

/// A group of processes that may use so much memory; `None`, with a reason on the standard error,
/// where that cannot be had (version 1 or 2 of cgroups, as root).
struct Bounds(PathBuf);

impl Bounds {
    fn new(bytes: usize) -> Option<Self> {
        let name = format!("switchboard-faults-{}", std::process::id());
        let places =
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        for (root, limit) in places {
            let group = Bounds(PathBuf::from(root).join(&name));
            let is_set = fs::create_dir(&group.0)
                .and_then(|()| fs::write(group.0.join(limit), bytes.to_string()));
            if is_set.is_ok() {
                return Some(group);
            }
        }
        eprintln!("left out: the memory of a process cannot be bounded here");
        None
    }

    fn hold(&self, pid: u32) {
        fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the kernel takes it");
    }
}

impl Drop for Bounds {
    fn drop(&mut self) {
        // As soon as the process is gone; where nothing was made there is nothing to remove.
        let _left = !wait_for(|| fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

#[test]
fn a_server_with_a_budget_survives_in_little_memory() {
    let Some(bounds) = Bounds::new(96 << 20) else { return };
    let mut server = Server::start("memory_max=33554432 write_stall_ms=3000 frame_ms=3000");
    bounds.hold(server.pid);
    // What arrives and is not taken back, far more than there is.
    let mut slow: Vec<_> = (0..300).map(|_| connect_small(server.addr, 2048)).collect();
    push(&mut slow, 2 << 20);
    // Frames that are never finished.
    let mut bombs = connect_many(server.frames, 300);
    let mut half = vec![0, 0x0f, 0xff, 0xff];
    half.resize(200_000, b'x');
    for bomb in &mut bombs {
        bomb.set_nonblocking(true).expect("an option");
        // Who is read little by little, or is gone, takes less.
        let _taken = bomb.write(&half).is_ok();
    }
    drop((slow, bombs));
    assert!(server.is_empty(), "{:?}", server.snapshot());
    let mut clients = connect_many(server.addr, 20);
    assert_eq!(served(&mut clients), 20);
    assert!(connect(server.addr).is_ok_and(|mut client| echoed(&mut client, &[7; 300_000])));
    drop(clients);
    server.stop();
}
