//! What the system tells of a process, and signals to it.

use std::fs;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, Once};
use std::time::{Duration, Instant};

/// How long anything that has to happen may take on a machine that is busy with other things.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "these tests run in real time, against a process")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Lets time pass: to measure what a process does meanwhile, or between two looks at it.
pub(crate) fn pass(time: Duration) {
    let (never, nobody) = (Condvar::new(), Mutex::new(()));
    let guard = nobody.lock().expect("nobody else has it");
    drop(never.wait_timeout_while(guard, time, |()| true));
}

/// Waits for `done`; false if that takes longer than patience lasts.
pub(crate) fn wait_for(mut done: impl FnMut() -> bool) -> bool {
    let begun = now();
    while !done() {
        if begun.elapsed() > PATIENCE {
            return false;
        }
        pass(Duration::from_millis(5));
    }
    true
}

/// Runs a command of the system. True if it succeeds.
pub(crate) fn run(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Sends a signal by its name: `STOP`, `CONT`, `KILL`.
pub(crate) fn signal(pid: u32, name: &str) {
    assert!(run("kill", &[&format!("-{name}"), &pid.to_string()]), "kill -{name} {pid}");
    if name == "STOP" {
        let stopped = || {
            tasks(pid).iter().all(|task| {
                let stat = fs::read_to_string(format!("/proc/{pid}/task/{task}/stat"));
                stat.is_ok_and(|stat| {
                    stat.rsplit(')').next().is_some_and(|s| s.trim().starts_with(['T', 't']))
                })
            })
        };
        assert!(wait_for(stopped), "{pid} does not stop");
    }
}

/// The threads of a process.
pub(crate) fn tasks(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// CPU time that a process has used. The kernel counts it in hundredths of a second for user
/// space on all of its architectures that Rust's std supports.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    // Fields 14 and 15 of proc(5), utime and stime; the first after the name is number 3.
    let ticks = |index: usize| fields[index].parse::<u64>().expect("a number");
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// The share of one core that a process uses in the next second.
pub(crate) fn busy_share(pid: u32) -> f64 {
    let (before, begun) = (cpu(pid), now());
    pass(Duration::from_secs(1));
    (cpu(pid) - before).as_secs_f64() / begun.elapsed().as_secs_f64()
}

/// A memory figure of /proc/PID/status in bytes: `VmRSS`, or `VmHWM`, its peak.
pub(crate) fn memory(pid: u32, name: &str) -> usize {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with(name)).expect("the kernel tells");
    let kib: usize = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib << 10
}

/// How many descriptors a process has open.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").count()
}

/// How many sockets with this local address are in a state of the kernel's list (proc(5); 01 is
/// ESTABLISHED, 08 is CLOSE_WAIT).
pub(crate) fn sockets_in(state: &str, addr: SocketAddr) -> usize {
    let table = fs::read_to_string("/proc/net/tcp").expect("the kernel tells");
    let local = format!("0100007F:{:04X}", addr.port());
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(1) == Some(&local.as_str()) && row.get(3) == Some(&state)).count()
}

/// Lets this process, and those that it starts, have all descriptors that it may have.
pub(crate) fn raise_descriptor_limit() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limits = fs::read_to_string("/proc/self/limits").expect("the kernel tells");
        let line = limits.lines().find(|line| line.starts_with("Max open files"));
        let hard = line.and_then(|line| line.split_whitespace().nth(4)).expect("a hard limit");
        let pid = std::process::id().to_string();
        let (pid, limit) = (format!("--pid={pid}"), format!("--nofile={hard}:{hard}"));
        assert!(run("prlimit", &[&pid, &limit]), "prlimit {pid} {limit}");
    });
}
