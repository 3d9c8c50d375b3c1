//! Every example runs and does what it says. The programs are those that `cargo test` builds; with
//! `--test examples` it builds none: then `cargo build --examples` comes before.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use common::{PATIENCE, connect, echo, frame, read_frame, try_connect, wait_until};

/// An example in a process of its own; killed when dropped.
struct Example {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    /// What it prints.
    lines: Receiver<String>,
    seen: Vec<String>,
}

/// Beside the tests there is a folder with the examples.
fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("a target folder");
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    let path = folder.join("examples").join(file);
    assert!(path.is_file(), "{} is not there: cargo build --examples", path.display());
    path
}

impl Example {
    fn start(name: &'static str, args: &[&str]) -> Example {
        Example::spawn(name, Command::new(binary(name)).args(args))
    }

    fn spawn(name: &'static str, command: &mut Command) -> Example {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().expect("its output"));
        // Ends with the example; a test that is over does not listen any more.
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let input = child.stdin.take();
        Example { name, child, input, lines, seen: Vec::new() }
    }

    /// Waits for a line that contains this.
    #[track_caller]
    fn line(&mut self, what: &str) -> String {
        loop {
            let Ok(line) = self.lines.recv_timeout(PATIENCE) else {
                panic!("{} did not say `{what}`, but:\n{}", self.name, self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if line.contains(what) {
                return line;
            }
        }
    }

    /// The address at which it says that it listens.
    #[track_caller]
    fn addr(&mut self, before: &str) -> SocketAddr {
        let line = self.line(before);
        let rest = line.split_once(before).expect("it is in the line").1;
        let word = rest.split([' ', ';']).next().expect("there is a first word");
        word.parse().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Waits for its end, which has to be a good one.
    #[track_caller]
    fn finish(mut self) {
        drop(self.input.take());
        let mut status = None;
        wait_until("it ends", || {
            status = self.child.try_wait().expect("its status");
            status.is_some()
        });
        let seen: Vec<_> = self.seen.drain(..).chain(self.lines.try_iter()).collect();
        assert!(status.is_some_and(|status| status.success()), "{}", seen.join("\n"));
    }

    /// Presses Ctrl-C, where there is a command for that; else answers false.
    fn interrupt(&self) -> bool {
        let pid = self.child.id().to_string();
        cfg!(unix) && Command::new("kill").args(["-INT", &pid]).status().is_ok_and(|s| s.success())
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended already.
        let _status = self.child.kill().and_then(|()| self.child.wait()).is_err();
    }
}

/// A server whose address is in its source.
fn connect_when_up(addr: &str) -> TcpStream {
    let addr = addr.parse().expect("an address");
    let mut stream = None;
    wait_until("it listens", || {
        stream = try_connect(addr).ok();
        stream.is_some()
    });
    stream.expect("it is connected")
}

#[test]
fn hello_says_what_it_is_told() {
    let _hello = Example::start("hello", &[]);
    echo(&mut connect_when_up("127.0.0.1:7007"), b"hello");
}

#[test]
fn push_answers_and_tells_everybody() {
    let _push = Example::start("push", &[]);
    let mut clients = [0; 3].map(|_| connect_when_up("127.0.0.1:7008"));
    for client in &mut clients {
        client.write_all(&frame(b"hello")).expect("it reads");
        let mut frames = Vec::new();
        while !(frames.contains(&b"HELLO".to_vec()) && frames.contains(&b"tick".to_vec())) {
            frames.push(read_frame(client).expect("an answer, and a tick every second"));
        }
    }
}

#[test]
fn echo_listens_where_it_is_told() {
    let mut example = Example::start("echo", &["--addr", "127.0.0.1:0", "--reactors", "1"]);
    let addr = example.addr("listening on ");
    echo(&mut connect(addr), b"hello");
    if example.interrupt() {
        example.line("1 connections opened, 1 closed");
        example.finish();
    }
}

#[test]
fn rpc_understands_its_verbs() {
    let mut example = Example::start("rpc", &["--addr", "127.0.0.1:0"]);
    let mut client = connect(example.addr("listening on "));
    let requests = [("echo one two", "one two"), ("upper abc", "ABC"), ("reverse abc", "cba")];
    for (request, answer) in requests.into_iter().chain([("jump", "unknown request: jump")]) {
        client.write_all(&frame(request.as_bytes())).expect("it reads");
        assert_eq!(read_frame(&mut client).expect("an answer"), answer.as_bytes());
    }
    client.write_all(&frame(b"quit")).expect("it reads");
    assert_eq!(client.read(&mut [0]).expect("a clean end"), 0);
    drop(client);
    example.line("a client left after 5 requests");
}

#[test]
fn rpc_client_survives_a_restart() {
    let mut example = Example::start("rpc-client", &[]);
    example.line("400 of 400 requests of 4 threads answered, over ");
    example.line("the server has stopped");
    example.line("a request fails: ");
    example.line("a request is answered: ARE YOU THERE?");
    example.finish();
}

#[test]
fn rpc_client_asks_the_rpc_server() {
    let mut server = Example::start("rpc", &["--addr", "127.0.0.1:0"]);
    let addr = server.addr("listening on ").to_string();
    let mut client = Example::start("rpc-client", &["--addr", &addr]);
    let input = client.input.as_mut().expect("its input");
    input.write_all(b"upper hello\nreverse hello\n").expect("it reads");
    client.line("HELLO");
    client.line("olleh");
    client.finish();
}

#[test]
fn blocking_shows_both_ways() {
    let mut example = Example::start("blocking", &[]);
    example.line("Inline ");
    example.line("TakeOver ");
    example.finish();
}

#[test]
fn chat_tells_who_was_too_slow() {
    let mut example = Example::start("chat", &[]);
    example.line("bob reads  ada: hello, bob");
    example.line("bob reads  * here: ada, bob");
    example.line("ada reads  ada: the end");
    example.line("bob reads  * you were too slow: ");
    example.line("ada reads  * bob left");
    example.finish();
}

#[test]
fn chat_serves_people() {
    let mut example = Example::start("chat", &["--addr", "127.0.0.1:0"]);
    let mut client = connect(example.addr("listening on "));
    let mut lines = BufReader::new(client.try_clone().expect("a second handle")).lines();
    let mut hear = |what: &str| {
        assert!(lines.any(|line| line.is_ok_and(|line| line == what)), "`{what}` was not said");
    };
    hear("* your name?");
    for (said, heard) in [("eve", "* eve is here"), ("/who", "* here: eve"), ("hi", "eve: hi")] {
        client.write_all(format!("{said}\n").as_bytes()).expect("it reads");
        hear(heard);
    }
    client.write_all(b"/quit\n").expect("it reads");
    assert_eq!(lines.count(), 0, "a clean end");
}

#[test]
fn the_gateway_loses_nothing() {
    let args = ["--simulate", "120", "--every", "100", "--seconds", "2", "--listen", "127.0.0.1:0"];
    let mut example = Example::start("gateway", &args);
    example.line("gateway on 127.0.0.1:");
    example.line("devices  reports/s ");
    example.line(" B");
    example.line(" answered");
    example.line("  quick ");
    example.line("  slow ");
    let commands = example.line(" confirmed, ");
    assert!(commands.ends_with(", lost = 0"), "{commands}");
    example.line("drained   120 of 120 devices");
    example.finish();
}

#[test]
fn the_gateway_serves_devices_of_another_process() {
    let mut gateway = Example::start("gateway", &["--simulate", "0", "--listen", "127.0.0.1:0"]);
    let addr = gateway.addr("gateway on ").to_string();
    let args = ["--connect", &addr, "--simulate", "40", "--every", "100", "--seconds", "1"];
    let mut devices = Example::start("gateway", &args);
    devices.line("  slow ");
    devices.line("drained   40 of 40 devices");
    devices.finish();
    if gateway.interrupt() {
        let commands = gateway.line(" confirmed, ");
        assert!(commands.ends_with(", lost = 0"), "{commands}");
        gateway.line("40 connections opened, 40 closed");
        gateway.finish();
    }
}

#[cfg(unix)]
#[test]
fn more_devices_than_fit_are_not_tried() {
    let gateway = binary("gateway").display().to_string();
    let script = "ulimit -n 300; exec \"$0\" --simulate 5000 --seconds 2 --listen 127.0.0.1:0";
    let mut example = Example::spawn("gateway", Command::new("sh").args(["-c", script, &gateway]));
    // 300 less a reserve of 64, for two ends each.
    example.line("5000 devices asked for, but this system has room for 118");
    example.line("drained   118 of 118 devices");
    example.finish();
}

#[test]
fn the_gateway_says_what_it_can_be_told() {
    let mut example = Example::start("gateway", &["--help"]);
    example.line("--simulate N");
    example.finish();
}
