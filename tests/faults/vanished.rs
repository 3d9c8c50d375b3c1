//! A host that is there no more, without a word: its cable is pulled.

use std::io::Write;

use crate::client::{connect_many, connect_small, echoed, push, served};
use crate::process::{descriptors, run, wait_for};
use crate::server::Server;

/// A network of two hosts and a cable. One host is this machine, the other a network namespace,
/// in which the server runs.
struct Cable {
    namespace: String,
    near: String,
}

/// The addresses of the two ends: of a network that is for documentation (RFC 5737).
const NEAR: &str = "198.51.100.61/30";
const FAR: &str = "198.51.100.62";

impl Cable {
    /// `None`, with a reason on the standard error, where there can be no such network.
    fn new() -> Option<Self> {
        let namespace = format!("switchboard-{}", std::process::id());
        let (near, far) = (format!("swb{}a", std::process::id()), "cable");
        let cable = Cable { namespace, near };
        let (namespace, near) = (cable.namespace.as_str(), cable.near.as_str());
        let far_addr = format!("{FAR}/30");
        let steps: [&[&str]; 7] = [
            &["netns", "add", namespace],
            &["link", "add", near, "type", "veth", "peer", "name", far, "netns", namespace],
            &["addr", "add", NEAR, "dev", near],
            &["link", "set", near, "up"],
            &["-n", namespace, "addr", "add", &far_addr, "dev", far],
            &["-n", namespace, "link", "set", far, "up"],
            &["-n", namespace, "link", "set", "lo", "up"],
        ];
        if steps.iter().all(|step| run("ip", step)) {
            return Some(cable);
        }
        eprintln!("left out: no network of our own can be made here");
        None
    }

    /// A server at the far end.
    fn start(&self, settings: &str) -> Server {
        let settings = format!("host={FAR} {settings}");
        Server::start_by("ip", &["netns", "exec", &self.namespace], &settings)
    }

    /// Nothing comes through any more, and nobody is told.
    fn pull(&self) {
        assert!(run("ip", &["link", "set", &self.near, "down"]));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        // Both ends go with either; where nothing was made there is nothing to remove.
        let _removed = run("ip", &["link", "del", &self.near]);
        let _removed = run("ip", &["netns", "del", &self.namespace]);
    }
}

#[test]
fn hosts_that_are_gone_hold_nothing_whatever_they_were_about() {
    const COUNT: usize = 10;
    let Some(cable) = Cable::new() else { return };
    let mut server = cable.start("idle_ms=8000 write_stall_ms=8000 frame_ms=7000 linger_ms=500");
    let before = descriptors(server.pid);
    let mut silent = connect_many(server.addr, COUNT);
    assert_eq!(served(&mut silent), COUNT);
    let mut in_frame = connect_many(server.frames, COUNT);
    for client in &mut in_frame {
        assert!(echoed(client, &[0, 0, 0, 1, b'x']));
        client.write_all(&[0, 0, 1]).expect("the system takes it");
    }
    // Much is on its way to them.
    let mut unread: Vec<_> = (0..COUNT).map(|_| connect_small(server.addr, 2048)).collect();
    push(&mut unread, 6 << 20);
    let now = server.snapshot();
    assert_eq!(now["connections"], 3 * COUNT as u64, "it was too long until here: {now:?}");
    assert!(now["held"] >= (COUNT * (200 << 10)) as u64, "their output is not stuck: {now:?}");
    cable.pull();
    assert!(server.is_empty(), "{:?}", server.snapshot());
    assert!(wait_for(|| descriptors(server.pid) == before));
    let report = server.stop();
    let causes = ["idle_timeout", "frame_timeout", "write_stalled"];
    let counts = causes.map(|cause| report.get(cause).copied());
    assert_eq!(counts, [Some(COUNT as u64); 3], "{report:?}");
}
