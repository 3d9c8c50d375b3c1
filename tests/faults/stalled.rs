//! Peers that do not take what they are sent: bounded in memory, in CPU and in time.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use socket2::SockRef;

use crate::client::{connect, connect_many, connect_small, echoed, finish, push};
use crate::process::{busy_share, descriptors, memory, signal, sockets_in, wait_for};
use crate::server::Server;

fn small_clients(server: &Server, count: usize) -> Vec<TcpStream> {
    (0..count).map(|_| connect_small(server.addr, 2048)).collect()
}

#[test]
fn slow_readers_cost_no_more_than_their_watermarks() {
    let mut server = Server::start("write_stall_ms=60000");
    assert!(server.echoes(b"warm"));
    let baseline = memory(server.pid, "VmRSS");
    let mut clients = small_clients(&server, 60);
    push(&mut clients, 6 << 20);
    // Each may have reached the high watermark and then had one chunk more.
    let held = server.snapshot()["held"];
    let bound = 60 * ((256 << 10) + (64 << 10));
    assert!(held <= bound, "{held} bytes are held, of {bound} allowed");
    let peak = memory(server.pid, "VmHWM");
    let allowed = baseline + usize::try_from(bound).expect("it fits") + (32 << 20);
    assert!(peak <= allowed, "{peak} bytes at the peak, of {allowed} allowed");
    drop(clients);
    assert!(server.is_empty(), "{:?}", server.snapshot());
    server.stop();
}

#[test]
fn stuck_connections_with_news_pending_cost_no_cpu() {
    let server = Server::start("write_stall_ms=60000");
    let mut clients = small_clients(&server, 44);
    push(&mut clients, 6 << 20);
    for (index, client) in clients.iter().enumerate() {
        if index % 2 == 0 {
            finish(client);
        } else {
            // It may find no room behind what is stuck already.
            let _stuck = client.set_nonblocking(true).is_err()
                || SockRef::from(client).send_out_of_band(b"!").is_err();
        }
    }
    let busy = busy_share(server.pid);
    assert!(busy < 0.3, "it is busy with {busy} of a core while all are stuck");
    assert!(server.echoes(b"a fresh one"));
    server.stop();
}

#[test]
fn a_peer_that_takes_nothing_is_reset() {
    let mut server = Server::start("write_stall_ms=2000");
    let before = descriptors(server.pid);
    let mut clients = small_clients(&server, 20);
    push(&mut clients, 6 << 20);
    // Half of them say that they are done, and still take nothing.
    clients.iter().step_by(2).for_each(finish);
    assert!(server.is_empty(), "{:?}", server.snapshot());
    assert_eq!(descriptors(server.pid), before);
    // RST, so that the kernel does not hold the output either.
    let none_left = || sockets_in("01", server.addr) + sockets_in("08", server.addr) == 0;
    assert!(wait_for(none_left), "the kernel still holds some");
    let report = server.stop();
    assert_eq!(report["write_stalled"], 20, "{report:?}");
}

/// A process that holds connections to `addr`; killed when dropped.
struct Holder(std::process::Child);

impl Holder {
    fn new(server: &mut Server, count: usize) -> Self {
        let script = format!(
            "for n in $(seq {count}); do exec {{fd}}<>/dev/tcp/127.0.0.1/{port}; \
             printf 'hello' >&$fd; done; read",
            port = server.addr.port()
        );
        let holder = Command::new("bash")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("bash starts");
        let holder = Holder(holder);
        let all = || server.snapshot()["connections"] == count as u64;
        assert!(wait_for(all), "the connections are not there");
        holder
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ended = self.0.kill().and_then(|()| self.0.wait()).is_err();
    }
}

#[test]
fn a_peer_process_that_is_killed_or_frozen_leaves_nothing_and_harms_nobody() {
    let mut server = Server::start("");
    let before = descriptors(server.pid);
    let holder = Holder::new(&mut server, 150);
    let pid = holder.0.id();
    signal(pid, "STOP");
    let mut others = connect_many(server.addr, 10);
    assert!(others.iter_mut().all(|client| echoed(client, b"while it is frozen")));
    signal(pid, "CONT");
    assert_eq!(server.snapshot()["connections"], 160);
    drop(holder);
    drop(others);
    assert!(server.is_empty(), "{:?}", server.snapshot());
    assert_eq!(descriptors(server.pid), before);
    assert!(connect(server.addr).is_ok_and(|mut client| echoed(&mut client, b"on")));
    server.stop();
}

#[test]
fn a_frozen_reader_of_much_output_is_served_once_it_goes_on() {
    let server = Server::start("write_stall_ms=60000");
    let mut clients = small_clients(&server, 4);
    let sent = push(&mut clients, 1 << 20);
    for (client, sent) in clients.iter_mut().zip(sent) {
        client.set_read_timeout(Some(Duration::from_secs(20))).expect("an option");
        assert!(crate::client::answered(client, &vec![b'p'; sent]));
    }
    server.stop();
}
