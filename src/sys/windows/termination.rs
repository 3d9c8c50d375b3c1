//! Waiting for Ctrl-C, Ctrl-Break, and the end of the console or of the session.
#![expect(unsafe_code, reason = "SetConsoleCtrlHandler")]

use std::collections::VecDeque;
use std::{io, thread};

use crate::sys::Awoken;
use crate::words::sync::{Arc, Condvar, Mutex, lock};

/// Holds the console's control events for as long as it lives; there is one in a process at a time.
#[derive(Debug)]
pub(crate) struct Termination {
    channel: Arc<Channel>,
}

impl Termination {
    /// Takes the events over.
    ///
    /// # Errors
    /// `AlreadyExists` while another one lives; else what the system says.
    pub(crate) fn install() -> io::Result<Self> {
        let mut current = lock(&CURRENT);
        if current.is_some() {
            let message = "another server of this process waits for its signals";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        // SAFETY: the handler is a function that lives for ever and may run on any thread.
        if unsafe { SetConsoleCtrlHandler(on_control, 1) } == 0 {
            return Err(io::Error::last_os_error());
        }
        let channel = Arc::new(Channel::default());
        *current = Some(Arc::clone(&channel));
        Ok(Termination { channel })
    }

    /// Waits for an event or an interruption, one at a time: a second event ends a second wait,
    /// and what came before the call ends it at once.
    ///
    /// # Errors
    /// None here.
    pub(crate) fn wait(&self) -> io::Result<Awoken> {
        let mut queue = lock(&self.channel.queue);
        loop {
            if let Some(reason) = queue.pop_front() {
                return Ok(reason);
            }
            queue = match self.channel.arrived.wait(queue) {
                Ok(queue) => queue,
                Err(poisoned) => poisoned.into_inner(),
            };
        }
    }

    /// What ends a wait from another thread; may outlive `self`.
    pub(crate) fn interrupter(&self) -> Interrupter {
        Interrupter { channel: Arc::clone(&self.channel) }
    }
}

impl Drop for Termination {
    fn drop(&mut self) {
        let mut current = lock(&CURRENT);
        // SAFETY: as above.
        let removed = unsafe { SetConsoleCtrlHandler(on_control, 0) };
        debug_assert_ne!(removed, 0, "what was installed can be removed");
        *current = None;
    }
}

/// Ends one [`Termination::wait`].
#[derive(Clone, Debug)]
pub(crate) struct Interrupter {
    channel: Arc<Channel>,
}

impl Interrupter {
    /// Ends the wait that runs, or else the next one.
    pub(crate) fn interrupt(&self) {
        self.channel.push(Awoken::Interrupt);
    }
}

/// Reasons to wake up, in their order.
#[derive(Debug, Default)]
struct Channel {
    queue: Mutex<VecDeque<Awoken>>,
    arrived: Condvar,
}

impl Channel {
    fn push(&self, reason: Awoken) {
        let mut queue = lock(&self.queue);
        if queue.len() < QUEUE_MAX {
            queue.push_back(reason);
        }
        drop(queue);
        self.arrived.notify_one();
    }
}

/// Runs on a thread of its own that the system makes.
extern "system" fn on_control(event: u32) -> i32 {
    let current = lock(&CURRENT).clone();
    let Some(channel) = current else {
        return 0;
    };
    channel.push(Awoken::Signal);
    if matches!(event, CTRL_C_EVENT | CTRL_BREAK_EVENT) {
        return 1;
    }
    // The console is closed, or the session ends: "when the handler returns, the system terminates
    // the process", and after about five seconds it does so anyway. Until then the server drains.
    loop {
        thread::park();
    }
}

// SAFETY: the signature is that of consoleapi.h, with BOOL as i32 and DWORD as u32.
#[link(name = "kernel32")]
unsafe extern "system" {
    fn SetConsoleCtrlHandler(handler: extern "system" fn(u32) -> i32, add: i32) -> i32;
}

/// The channel of the living [`Termination`].
static CURRENT: Mutex<Option<Arc<Channel>>> = Mutex::new(None);

const CTRL_C_EVENT: u32 = 0;
const CTRL_BREAK_EVENT: u32 = 1;

/// More reasons than this say nothing new.
const QUEUE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// The events belong to the whole process, so their tests take turns.
    static TURN: Mutex<()> = Mutex::new(());

    #[test]
    fn each_event_ends_one_wait() {
        let _turn = lock(&TURN);
        let termination = Termination::install().unwrap();
        assert_eq!(on_control(CTRL_C_EVENT), 1);
        assert_eq!(termination.wait().unwrap(), Awoken::Signal);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| (termination.wait(), termination.wait()));
            assert_eq!(on_control(CTRL_BREAK_EVENT), 1);
            termination.interrupter().interrupt();
            let (first, second) = waiting.join().unwrap();
            assert_eq!(first.unwrap(), Awoken::Signal);
            assert_eq!(second.unwrap(), Awoken::Interrupt);
        });
    }

    #[test]
    fn there_is_one_at_a_time() {
        let _turn = lock(&TURN);
        let first = Termination::install().unwrap();
        let second = Termination::install().unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AlreadyExists);
        let interrupter = first.interrupter();
        drop(first);
        interrupter.interrupt();
        assert_eq!(on_control(CTRL_C_EVENT), 0, "nobody holds the events");
        drop(Termination::install().unwrap());
    }
}
