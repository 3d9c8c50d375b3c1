//! The attacked process: this test binary again, with one test that is a server when it is told so.

use std::fs;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::process::{self, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bytes::BytesMut;
use switchboard::config::{Idle, Placement};
use switchboard::control::{Control, Report};
use switchboard::error::SendError;
use switchboard::{CloseReason, Context, Handler, LengthPrefixed, Outcome, Raw, handler_fn};

use crate::server::Server;

/// What tells the process that it is a server, and how.
pub(crate) const SETTINGS: &str = "SWITCHBOARD_FAULTS_SERVER";
/// The test to select in the child.
pub(crate) const TEST: &str = "child::a_server_process_serves_and_ends_in_order";
/// What `flood` sends before it closes.
pub(crate) const FLOOD_BYTES: usize = 300_000;

/// Blocked handlers wait here until they are let go.
#[derive(Default)]
struct Barrier {
    open: Mutex<bool>,
    moved: Condvar,
}

/// Does what the first word of its input says.
struct Servant {
    barrier: Arc<Barrier>,
    panics_when_dropped: bool,
    panics_when_closed: bool,
}

/// A value whose drop panics.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("as asked, in the drop of a panic's payload");
    }
}

impl Handler for Servant {
    fn on_frame(&mut self, cx: &mut Context<'_>, frame: BytesMut) -> Outcome {
        match &frame[..] {
            b"panic" => panic!("as asked"),
            b"bomb" => std::panic::panic_any(Bomb),
            b"drop" => {
                self.panics_when_dropped = true;
                cx.close();
            }
            b"close" => {
                self.panics_when_closed = true;
                cx.close();
            }
            b"block" => self.barrier.pass(),
            b"spin" => self.barrier.spin(),
            b"release" => self.barrier.open(),
            b"spawn" => cx.send(descriptors_of_a_child()?)?,
            // The input that follows is never read by us.
            _ if frame.starts_with(b"flood") => {
                cx.send(vec![b'f'; FLOOD_BYTES])?;
                cx.close();
                return Ok(());
            }
            _ => {}
        }
        match cx.send(&b"done"[..]) {
            Ok(()) | Err(SendError::Closing) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn on_close(&mut self, _: &CloseReason) {
        assert!(!self.panics_when_closed, "as asked, in the last call of a handler");
    }
}

impl Drop for Servant {
    fn drop(&mut self) {
        assert!(!self.panics_when_dropped, "as asked, in the drop of a handler");
    }
}

impl Barrier {
    fn pass(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Nobody is kept for ever, should the test fail.
        let patience = Duration::from_secs(60);
        drop(self.moved.wait_timeout_while(open, patience, |open| !*open));
    }

    /// Waits as the worst handlers do.
    fn spin(&self) {
        while !*self.open.lock().unwrap_or_else(PoisonError::into_inner) {
            std::hint::spin_loop();
        }
    }

    fn open(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.moved.notify_all();
    }
}

/// What a process that a handler starts finds open.
fn descriptors_of_a_child() -> io::Result<String> {
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
    let mut found = String::new();
    for entry in fs::read_dir(format!("/proc/{}/fd", child.id()))? {
        let entry = entry?;
        let to = fs::read_link(entry.path()).unwrap_or_default();
        found += &format!("{} -> {}\n", entry.file_name().display(), to.display());
    }
    drop(child.stdin.take());
    child.wait()?;
    Ok(found)
}

/// Serves as `settings` say until the standard input ends or says `stop`.
fn serve(settings: &str) {
    let barrier = Arc::new(Barrier::default());
    let mut builder = switchboard::Server::builder().reactors(2).workers(2);
    let (mut until_signal, mut host) = (false, String::from("127.0.0.1:0"));
    for setting in settings.split_whitespace() {
        let (name, value) = setting.split_once('=').expect("NAME=VALUE");
        if name == "host" {
            host = format!("{value}:0");
            continue;
        }
        let number: usize = value.parse().expect("a number");
        let time = Duration::from_millis(number as u64);
        builder = match name {
            "reactors" => builder.reactors(number),
            "workers" => builder.workers(number),
            "least_loaded" => builder.placement(Placement::LeastLoaded),
            "memory_max" => builder.limits(|l| l.memory_max = number),
            "connections_max" => builder.limits(|l| l.connections_max = number),
            "write_stall_ms" => builder.limits(|l| l.timeouts.write_stall = Some(time)),
            "linger_ms" => builder.limits(|l| l.timeouts.linger = Some(time)),
            "idle_ms" => builder.limits(|l| l.timeouts.idle = Idle::After(time)),
            "host_check_ms" => builder.limits(|l| l.host_check = Some(time)),
            "first_frame_ms" => builder.limits(|l| l.timeouts.first_frame = Some(time)),
            "frame_ms" => builder.limits(|l| l.timeouts.frame = Some(time)),
            "drain_spread_ms" => {
                until_signal = true;
                builder.drain_spread(time)
            }
            "events_per_turn" => builder.limits(|l| l.events_per_turn = number),
            "send_max_bytes" => builder.limits(|l| l.send_max_bytes = number),
            _ => panic!("there is no setting {name}"),
        };
    }
    let builder = builder
        .listen(&*host, Raw::new(), |_| handler_fn(|cx, bytes| cx.send(bytes)))
        .listen(&*host, Raw::new(), {
            let barrier = Arc::clone(&barrier);
            move |_| Servant {
                barrier: Arc::clone(&barrier),
                panics_when_dropped: false,
                panics_when_closed: false,
            }
        })
        .listen(&*host, Raw::new(), |peer| -> Servant {
            panic!("as asked, for {peer}, before there is a handler")
        })
        // Whose frames have a beginning and an end.
        .listen(&*host, LengthPrefixed::u32(), |_| handler_fn(|cx, frame| cx.send(frame)))
        .on_start(tell_addrs);
    if until_signal {
        // Nobody reads orders then, but the end of the test is noticed.
        drop(thread::spawn(|| io::copy(&mut io::stdin().lock(), &mut io::sink()).map(gone)));
        return tell_report(&builder.run().expect("it ends by a signal"));
    }
    let server = builder.start().expect("the server starts");
    let control = server.control();
    let listener = thread::spawn(move || obey(&control));
    let report = server.wait().expect("the server goes on until it is stopped");
    barrier.open();
    drop(listener);
    tell_report(&report);
}

fn tell_addrs(addrs: &[SocketAddr]) {
    let [echo, orders, broken, frames] = addrs else { panic!("four listeners") };
    say(&format!("ready {} {echo} {orders} {broken} {frames}", process::id()));
}

fn gone(_: u64) {
    process::exit(0);
}

/// Reads orders; the end of input means that the test is gone.
fn obey(control: &Control) {
    for line in io::stdin().lock().lines() {
        match line.as_deref() {
            Ok("snapshot") => tell_snapshot(control),
            Ok("stop") => control.stop(),
            Ok(line) if line.starts_with("dial ") => dial(control, &line["dial ".len()..]),
            other => panic!("no order: {other:?}"),
        }
    }
    process::exit(0);
}

/// Opens a connection, tells whether there was one, and closes it.
fn dial(control: &Control, addr: &str) {
    let addr: SocketAddr = addr.parse().expect("an address");
    let echo = |_| handler_fn(|cx: &mut Context<'_>, bytes| cx.send(bytes));
    control.connect(addr, Raw::new(), echo).then(|answer| match answer {
        Ok(handle) => {
            handle.close();
            say("dialed opened=1");
        }
        Err(_) => say("dialed opened=0"),
    });
}

fn tell_snapshot(control: &Control) {
    let snapshot = control.snapshot();
    let sum = |field: fn(&switchboard::control::ReactorSnapshot) -> u64| -> u64 {
        snapshot.reactors.iter().map(field).sum()
    };
    say(&format!(
        "snapshot connections={} admitted={} opened={} closed={} panics={} refused={} turns={} \
         accept_errors={} descriptor_pauses={} leased={} held={} timers={} take_overs={} \
         handlers_out={}",
        snapshot.connections(),
        snapshot.admitted,
        snapshot.opened(),
        snapshot.reactors.iter().flat_map(|r| &r.closed).map(|(_, count)| count).sum::<u64>(),
        sum(|r| r.panics),
        sum(|r| r.refused),
        sum(|r| r.turns),
        sum(|r| r.accept_errors),
        sum(|r| r.descriptor_pauses),
        sum(|r| r.buffers_leased as u64),
        sum(|r| r.held_bytes as u64),
        sum(|r| r.timers as u64),
        snapshot.take_overs,
        sum(|r| r.handlers_out as u64),
    ));
}

fn tell_report(report: &Report) {
    let mut line = format!(
        "report opened={} ended={} stuck={} asked={} elapsed_ms={}",
        report.opened,
        report.closed_count(),
        report.stuck,
        report.asked,
        report.elapsed.as_millis()
    );
    for (label, count) in &report.closed {
        line += &format!(" {label}={count}");
    }
    say(&line);
}

/// The harness of the tests prints to the same place, hence the mark.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // Nobody to tell it to: the test is gone, and so will we be.
    let _gone = writeln!(out, "\n@{line}").and_then(|()| out.flush()).is_err();
}

#[test]
fn a_server_process_serves_and_ends_in_order() {
    if let Ok(settings) = std::env::var(SETTINGS) {
        match settings.strip_prefix("cycles=") {
            Some(count) => crate::resources::start_and_stop(count.parse().expect("a number")),
            None => serve(&settings),
        }
        return;
    }
    let server = Server::start("");
    assert!(server.echoes(b"hello"));
    let report = server.stop();
    assert_eq!((report["opened"], report["ended"], report["stuck"]), (1, 1, 0));
}
