//! What no client should send: other protocols, control characters, escape sequences.

use std::fs::{self, File};
use std::io::Write;

use crate::client::{connect, echoed, finish, read_to_end, reset};
use crate::server::Server;

/// Beginnings of other protocols, and what has broken logs and terminals of others.
fn garbage() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\0\x01\0\x02",
        b"SSH-2.0-x\r\n",
        b"\x1b]2;title\x07\x1b[2J\x1b[31m\r\nforged line of a log\r\n",
        b"%s%n%x ${jndi:ldap://x} <script> '; DROP TABLE",
        b"\0",
        b"\xff\xfe\xfd\x80\xc0\xaf\xed\xa0\x80",
    ]
    .into_iter()
    .map(<[u8]>::to_vec)
    .collect();
    all.push((0..=255).collect());
    all.push(vec![0; 5_000]);
    all
}

#[test]
fn garbage_is_echoed_bit_by_bit_or_ends_its_own_connection_and_nobody_prints_it() {
    let path = std::env::temp_dir().join(format!("switchboard-faults-{}", std::process::id()));
    let file = File::create(&path).expect("a file");
    let mut server = Server::start_with_stderr(file, "first_frame_ms=300 frame_ms=300");
    for bytes in garbage() {
        let shown = bytes.escape_ascii();
        let mut client = connect(server.addr).expect("the server listens");
        assert!(echoed(&mut client, &bytes), "{shown}");
        // Whatever it means as frames: too long, never finished, or some that are echoed.
        let mut client = connect(server.frames).expect("the server listens");
        client.write_all(&bytes).expect("the system takes it");
        if bytes.len() % 2 == 0 {
            finish(&client);
        }
        if let Ok(answer) = read_to_end(&mut client) {
            assert!(bytes.starts_with(&answer), "{shown} is answered {}", answer.escape_ascii());
        }
        let mut client = connect(server.frames).expect("the server listens");
        client.write_all(&bytes).expect("the system takes it");
        reset(client);
    }
    assert!(server.is_empty(), "{:?}", server.snapshot());
    assert_eq!(server.snapshot()["panics"], 0);
    server.stop();
    let printed = fs::read(&path).expect("it was written");
    fs::remove_file(&path).expect("it is ours");
    assert!(printed.is_empty(), "{}", printed.escape_ascii());
}
