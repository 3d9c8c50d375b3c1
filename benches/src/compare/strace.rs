//! Counts a server's system calls with `strace -c` while a load runs.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::server;
use crate::clock::{self, SECOND};
use crate::sys;

/// A strace attached to a server.
#[derive(Debug)]
pub struct Trace {
    child: Child,
    summary: PathBuf,
}

impl Trace {
    /// Whether there is a strace to be had.
    #[must_use]
    pub fn is_available() -> bool {
        let mut command = Command::new("strace");
        command.arg("-V").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// Attaches to all threads of `pid` and waits until it has.
    ///
    /// # Errors
    /// When strace is missing or may not attach.
    pub fn attach(pid: u32) -> io::Result<Self> {
        let summary = std::env::temp_dir().join(format!("switchboard-bench-strace-{pid}"));
        let mut command = Command::new("strace");
        command.args(["-c", "-f", "-p", &pid.to_string(), "-o"]).arg(&summary);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        sys::die_with_parent(&mut command);
        let mut trace = Self { child: command.spawn()?, summary };
        let deadline = clock::now() + 5 * SECOND;
        while !is_traced(pid) {
            if trace.child.try_wait()?.is_some() || clock::now() >= deadline {
                return Err(io::Error::other("strace could not attach"));
            }
            clock::block(Duration::from_millis(5));
        }
        Ok(trace)
    }

    /// Detaches and reports calls per message by kind.
    ///
    /// # Errors
    /// When strace does not end or its summary cannot be read.
    pub fn finish(mut self, messages: u64) -> io::Result<Value> {
        sys::interrupt(self.child.id())?;
        server::wait(&mut self.child, 5)?;
        let text = fs::read_to_string(&self.summary)?;
        Ok(per_message(&text, messages))
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // Nothing is left to do where these fail: it has ended, or never wrote a summary.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_file(&self.summary));
    }
}

/// Every thread of the process has a tracer.
fn is_traced(pid: u32) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return false;
    };
    tasks.flatten().all(|task| {
        fs::read_to_string(task.path().join("status")).is_ok_and(|status| {
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
            tracer.is_some_and(|tracer| tracer.trim() != "0")
        })
    })
}

fn per_message(summary: &str, messages: u64) -> Value {
    let (mut read, mut write, mut wait, mut other) = (0, 0, 0, 0);
    for (name, count) in summary.lines().filter_map(parse_line) {
        let kind = match name {
            "read" | "readv" | "recvfrom" | "recvmsg" => &mut read,
            "write" | "writev" | "sendto" | "sendmsg" => &mut write,
            "epoll_wait" | "epoll_pwait" | "epoll_pwait2" | "poll" => &mut wait,
            _ => &mut other,
        };
        *kind += count;
    }
    let share = |count: u64| count as f64 / messages.max(1) as f64;
    json!({
        "per_message": share(read + write + wait + other),
        "read": share(read),
        "write": share(write),
        "wait": share(wait),
        "other": share(other),
    })
}

/// `% time  seconds  usecs/call  calls  [errors]  name`; the heading, the rules and the total are
/// no such lines.
fn parse_line(line: &str) -> Option<(&str, u64)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let name = *fields.last()?;
    let count = fields.get(3)?.parse().ok()?;
    (fields.len() >= 5 && name != "total").then_some((name, count))
}

#[cfg(test)]
mod tests {
    use super::per_message;

    #[test]
    fn a_summary_is_summed_by_kind_without_its_total() {
        let summary = "\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.100000          10      1000           sendto
 30.00    0.050000          10      1000        12 recvfrom
  5.00    0.005000          10       250           epoll_wait
  5.00    0.005000          10        50           futex
------ ----------- ----------- --------- --------- ----------------
100.00    0.160000          10      2300        12 total
";
        let trace = per_message(summary, 1_000);
        assert_eq!(trace["read"], 1.0);
        assert_eq!(trace["write"], 1.0);
        assert_eq!(trace["wait"], 0.25);
        assert_eq!(trace["other"], 0.05);
        assert_eq!(trace["per_message"], 2.3);
    }
}
