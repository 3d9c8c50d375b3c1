//! A server in another process: started, asked, traced and ended.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::child::{SETTINGS, TEST};
use crate::client;
use crate::process::{self, PATIENCE, wait_for};

/// Numbers by their names, as the server tells them.
pub(crate) type Numbers = HashMap<String, u64>;

/// A server in a process of its own; killed when dropped.
pub(crate) struct Server {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    tracer: Option<Child>,
    pub(crate) pid: u32,
    /// Where it echoes.
    pub(crate) addr: SocketAddr,
    /// Where it does as it is told: `panic`, `block`, ...
    pub(crate) orders: SocketAddr,
    /// Where no handler can be made.
    pub(crate) broken: SocketAddr,
    /// Where it echoes frames with a length before them.
    pub(crate) frames: SocketAddr,
}

impl Server {
    /// Starts one with settings such as `"reactors=1 write_stall_ms=500"`.
    pub(crate) fn start(settings: &str) -> Self {
        process::raise_descriptor_limit();
        Self::spawn(Self::command(settings))
    }

    /// Starts one that may open few descriptors.
    pub(crate) fn start_with_descriptors(count: usize, settings: &str) -> Self {
        Self::start_by("prlimit", &[&format!("--nofile={count}:{count}")], settings)
    }

    /// Has a program of the system start one, such as `prlimit` or `unshare`, which becomes it.
    pub(crate) fn start_by(program: &str, args: &[&str], settings: &str) -> Self {
        process::raise_descriptor_limit();
        let inner = Self::command(settings);
        let mut command = Command::new(program);
        command.args(args).arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            command.env(name, value.expect("it is set"));
        }
        Self::spawn(command)
    }

    /// Starts one whose standard error goes to a file.
    pub(crate) fn start_with_stderr(file: File, settings: &str) -> Self {
        process::raise_descriptor_limit();
        Self::spawn_with(Self::command(settings), file.into())
    }

    /// This binary, with the one test selected that is a server then.
    pub(crate) fn command(settings: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        command.args([TEST, "--exact", "--nocapture", "--test-threads=1"]);
        command.env(SETTINGS, settings);
        command
    }

    fn spawn(command: Command) -> Self {
        // Panics that a test provokes are not shown, unless somebody asks for them.
        let stderr = match std::env::var_os("SWITCHBOARD_FAULTS_STDERR") {
            Some(_) => Stdio::inherit(),
            None => Stdio::null(),
        };
        Self::spawn_with(command, stderr)
    }

    fn spawn_with(mut command: Command, stderr: Stdio) -> Self {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr);
        let mut child = command.spawn().expect("the server's process starts");
        let stdin = child.stdin.take().expect("it is a pipe");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is a pipe"));
        let ready = read_answer(&mut stdout, "ready");
        let words: Vec<_> = ready.split_whitespace().collect();
        Server {
            child,
            stdin,
            stdout,
            tracer: None,
            pid: words[0].parse().expect("a process"),
            addr: words[1].parse().expect("an address"),
            orders: words[2].parse().expect("an address"),
            broken: words[3].parse().expect("an address"),
            frames: words[4].parse().expect("an address"),
        }
    }

    /// Changes what its system calls answer, as strace's `-e inject=` says. False, with a reason
    /// on the standard error, where that cannot be done.
    ///
    /// `when` counts for each thread. It goes on until the server ends.
    #[must_use]
    pub(crate) fn inject(&mut self, injections: &[&str]) -> bool {
        let calls: Vec<_> =
            injections.iter().map(|what| what.split(':').next().unwrap_or("")).collect();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-o", "/dev/null", "-p", &self.pid.to_string()]);
        strace.arg("-e").arg(format!("trace={}", calls.join(",")));
        for what in injections {
            strace.arg("-e").arg(format!("inject={what}"));
        }
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match strace.spawn() {
            Ok(tracer) => self.tracer = Some(tracer),
            Err(error) => {
                eprintln!("left out: strace cannot be run: {error}");
                return false;
            }
        }
        let mut refused = false;
        let attached = wait_for(|| {
            refused = self.tracer_is_gone();
            refused || self.is_traced()
        });
        if refused || !attached {
            eprintln!("left out: strace may not attach to a process here");
        }
        !refused && attached
    }

    fn tracer_is_gone(&mut self) -> bool {
        self.tracer.as_mut().is_some_and(|tracer| !matches!(tracer.try_wait(), Ok(None)))
    }

    fn is_traced(&self) -> bool {
        process::tasks(self.pid).iter().all(|task| {
            let status = std::fs::read_to_string(format!("/proc/{}/task/{task}/status", self.pid));
            status.is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
        })
    }

    /// Whether a new client is served.
    pub(crate) fn echoes(&self, bytes: &[u8]) -> bool {
        client::connect(self.addr).is_ok_and(|mut client| client::echoed(&mut client, bytes))
    }

    /// How it is.
    pub(crate) fn snapshot(&mut self) -> Numbers {
        writeln!(self.stdin, "snapshot").expect("the server lives");
        numbers(&read_answer(&mut self.stdout, "snapshot"))
    }

    /// Has it open connections and close them at once; how many of them it could open.
    pub(crate) fn dial(&mut self, addr: SocketAddr, count: usize) -> u64 {
        (0..count).for_each(|_| writeln!(self.stdin, "dial {addr}").expect("the server lives"));
        let answers = (0..count).map(|_| numbers(&read_answer(&mut self.stdout, "dialed")));
        answers.map(|answer| answer["opened"]).sum()
    }

    /// Waits until it holds no connection, and nothing that belongs to one.
    pub(crate) fn is_empty(&mut self) -> bool {
        wait_for(|| {
            let now = self.snapshot();
            now["connections"] == 0
                && now["admitted"] == 0
                && now["opened"] == now["closed"]
                && now["leased"] + now["held"] == 0
        })
    }

    /// Stops it; what it reports. Every connection that was opened was closed, and its process
    /// ended as it should.
    pub(crate) fn stop(mut self) -> Numbers {
        writeln!(self.stdin, "stop").expect("the server lives");
        self.ended()
    }

    /// The same for one that is about to end by itself.
    pub(crate) fn ended(mut self) -> Numbers {
        let report = numbers(&read_answer(&mut self.stdout, "report"));
        assert_eq!(report["opened"], report["ended"], "{report:?}");
        let ended = wait_for(|| !matches!(self.child.try_wait(), Ok(None)));
        assert!(ended, "the process does not end within {PATIENCE:?}");
        let status = self.child.wait().expect("it is ours");
        assert!(status.success(), "{status}");
        report
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The server first: a tracer that leaves in the middle of an injection harms its tracee.
        // Either may have ended already, which is no error.
        for child in [Some(&mut self.child), self.tracer.as_mut()].into_iter().flatten() {
            let _ended = child.kill().and_then(|()| child.wait()).is_err();
        }
    }
}

/// The next answer of this kind.
fn read_answer(from: &mut BufReader<ChildStdout>, kind: &str) -> String {
    let mut line = String::new();
    loop {
        line.clear();
        let count = from.read_line(&mut line).expect("the server speaks");
        assert!(count > 0, "the server has ended and said no {kind}");
        let answer = line.strip_prefix('@').and_then(|line| line.strip_prefix(kind));
        if let Some(answer) = answer {
            return answer.trim().to_owned();
        }
    }
}

fn numbers(line: &str) -> Numbers {
    let pairs = line.split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().expect("a number"))).collect()
}
