//! The server under load: this test binary again, in a process of its own that can be weighed.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Lines, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use switchboard::control::{ReactorSnapshot, Snapshot};
use switchboard::{Context, Handler, Outcome, Raw, handler_fn};

use crate::common::{PLANTED, builder, frames, hush, pause, sum};
use crate::errands::{Common, Errands};

/// Tells the process that it is the server.
const ROLE: &str = "SWITCHBOARD_SOAK_SERVER";
/// Threads that the pool may grow to.
pub(crate) const WORKERS_MAX: usize = 12;
/// Far more than all clients need, far less than they could make it hold.
const MEMORY_MAX: usize = 64 << 20;

/// What a client may ask of the second listener with the first byte of a message.
pub(crate) const PANIC: u8 = b'p';
/// Blocks for as many milliseconds as the second byte says, then echoes.
pub(crate) const BLOCK: u8 = b'b';

/// Echoes, but panics and blocks when it is told so.
struct Rough;

impl Handler for Rough {
    fn on_frame(&mut self, cx: &mut Context<'_>, frame: BytesMut) -> Outcome {
        match frame[0] {
            PANIC => panic!("{PLANTED}"),
            BLOCK => pause(Duration::from_millis(frame.get(1).copied().unwrap_or(1).into())),
            _ => {}
        }
        Ok(cx.send(frame)?)
    }
}

/// True in the child, which has served then.
pub(crate) fn was_the_server() -> bool {
    if std::env::var_os(ROLE).is_none() {
        return false;
    }
    hush();
    let common = Common::new();
    let its = Arc::clone(&common);
    let server = builder()
        .workers_max(WORKERS_MAX)
        .limits(|limits| {
            limits.timeouts.linger = Some(Duration::from_millis(500));
            limits.memory_max = MEMORY_MAX;
        })
        .listen("127.0.0.1:0", Raw::new(), |_| handler_fn(|cx, bytes| cx.send(bytes)))
        .listen("127.0.0.1:0", Raw::new(), |_| Rough)
        .listen("127.0.0.1:0", frames(), move |_| Errands::new(&its))
        .start()
        .expect("the server starts");
    let addrs = server.local_addrs();
    let known = common.control.set((server.control(), addrs[0])).is_ok();
    assert!(known, "it was not known before");
    say(&format!("{} {} {}", addrs[0], addrs[1], addrs[2]));
    // The end of input means stop, and also that the test is gone.
    for line in io::stdin().lock().lines() {
        assert_eq!(line.expect("a line"), "snapshot");
        say(&format!("{} members={}", figures(&server.snapshot()), common.members()));
    }
    let report = server.stop();
    let (ended, stuck) = (report.closed_count(), report.stuck);
    say(&format!("opened={} closed={ended} stuck={stuck}", report.opened));
    true
}

fn figures(snapshot: &Snapshot) -> String {
    let total = |figure: fn(&ReactorSnapshot) -> usize| sum(snapshot, figure);
    let closed: u64 = snapshot.reactors.iter().flat_map(|r| &r.closed).map(|(_, n)| n).sum();
    format!(
        "connections={} admitted={} opened={} closed={closed} panics={} leased={} held={} \
         timers={} connecting={} jobs_waiting={} jobs_finished={} broadcasts={} dialed={} turns={} \
         retained={} output={} partial={} mailed={}",
        snapshot.connections(),
        snapshot.admitted,
        snapshot.opened(),
        sum(snapshot, |reactor| reactor.panics),
        total(|reactor| reactor.buffers_leased),
        total(|reactor| reactor.held_bytes),
        total(|reactor| reactor.timers),
        snapshot.connecting(),
        snapshot.jobs_waiting,
        snapshot.jobs_finished,
        sum(snapshot, |reactor| reactor.broadcasts),
        sum(snapshot, |reactor| reactor.dialed),
        sum(snapshot, |reactor| reactor.turns),
        total(|reactor| reactor.buffers_retained),
        snapshot.memory.output,
        snapshot.memory.partial_frames,
        snapshot.memory.mailboxes,
    )
}

/// The harness prints to the same place, hence the mark.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "\n@{line}").and_then(|()| out.flush()).expect("the test listens");
}

/// The child, seen from the test. It ends with the test, even if that is killed: its input ends.
pub(crate) struct Server {
    child: Child,
    orders: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// The listener that only echoes, the one that panics and blocks, the one that runs errands.
    pub(crate) echo: SocketAddr,
    pub(crate) rough: SocketAddr,
    pub(crate) errands: SocketAddr,
}

/// What the process takes of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    pub(crate) resident_bytes: usize,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Server {
    /// Starts `test` of this binary as the server.
    pub(crate) fn start(test: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("our own path"));
        command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(ROLE, "1");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let orders = child.stdin.take().expect("it is piped");
        let mut answers = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let ready = next(&mut answers);
        let mut addrs = ready.split(' ').map(|addr| addr.parse().expect("an address"));
        let [echo, rough, errands] =
            [addrs.next(), addrs.next(), addrs.next()].map(|addr| addr.expect("three listeners"));
        Self { child, orders, answers, echo, rough, errands }
    }

    pub(crate) fn snapshot(&mut self) -> HashMap<String, u64> {
        writeln!(self.orders, "snapshot").expect("the server lives");
        parse(&next(&mut self.answers))
    }

    pub(crate) fn usage(&self) -> Usage {
        let folder = format!("/proc/{}", self.child.id());
        let count = |name| fs::read_dir(format!("{folder}/{name}")).expect("it lives").count();
        let status = fs::read_to_string(format!("{folder}/status")).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
        Usage {
            resident_bytes: kib.expect("the kernel tells") << 10,
            descriptors: count("fd"),
            threads: count("task"),
        }
    }

    /// Stops it and answers its report.
    pub(crate) fn stop(mut self) -> HashMap<String, u64> {
        drop(self.orders);
        let report = parse(&next(&mut self.answers));
        // Its harness prints its last lines; nobody is to get a broken pipe for it.
        self.answers.by_ref().for_each(drop);
        assert!(self.child.wait().expect("it was started").success());
        report
    }
}

fn next(answers: &mut Lines<BufReader<ChildStdout>>) -> String {
    let mut ours = answers.map(|line| line.expect("text"));
    ours.find_map(|line| line.strip_prefix('@').map(str::to_owned)).expect("the server lives")
}

fn parse(line: &str) -> HashMap<String, u64> {
    let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}
