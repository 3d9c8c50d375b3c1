//! Starts a server as a process of its own, waits until it listens, and ends it.

use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::clock::{self, SECOND};
use crate::sys;

/// A running server; dropping it kills the process, and only that one.
#[derive(Debug)]
pub struct Server {
    child: Child,
    addr: String,
}

impl Server {
    /// Starts it and waits for its line `listening on ADDR`.
    ///
    /// # Errors
    /// When it cannot be started, or does not say in time that it listens.
    pub fn start(binary: &Path, arguments: &[String]) -> io::Result<Self> {
        let mut command = Command::new(binary);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        // Should the runner be killed, no server is left behind.
        sys::die_with_parent(&mut command);
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("no stdout"))?;
        let mut server = Self { child, addr: String::new() };
        let (sender, receiver) = mpsc::channel();
        // Reads on to the end, so that a talkative server never blocks on a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(addr) = line.strip_prefix("listening on ") {
                    drop(sender.send(addr.trim().to_owned()));
                }
            }
        });
        server.addr = receiver
            .recv_timeout(START_TIMEOUT)
            .map_err(|_| io::Error::other("the server ended or never said where it listens"))?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.addr
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only when it has ended by itself, which the run has noticed before.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for a process, but kills it after `seconds`.
///
/// # Errors
/// `TimedOut` when it had to be killed.
pub fn wait(child: &mut Child, seconds: u64) -> io::Result<()> {
    let deadline = clock::now() + seconds * SECOND;
    while child.try_wait()?.is_none() {
        if clock::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, "killed after its time was up"));
        }
        clock::block(POLL);
    }
    Ok(())
}

const START_TIMEOUT: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);
