//! The connections of one thread of the load generator, and the loop that turns them.

use std::io;
use std::ops::Range;

use crate::conn::{Conn, Received};
use crate::payload::Pattern;
use crate::sys::{self, Epoll, Event};
use crate::tally::{Lane, Pace, Tally, Window};

/// Connections that share an epoll instance, two buffers and a tally.
#[derive(Debug)]
pub struct Swarm {
    epoll: Epoll,
    events: Vec<Event>,
    conns: Vec<Option<Conn>>,
    pattern: Pattern,
    input: Vec<u8>,
    output: Vec<u8>,
    pace: Pace,
    window: Window,
    /// Messages with this first byte are counted apart.
    slow: Option<u8>,
    awaited_count: usize,
    /// From now on the server's FIN is what is waited for.
    finishing: bool,
    open_count: usize,
    tally: Tally,
}

impl Swarm {
    /// An empty swarm.
    ///
    /// # Errors
    /// When there is no epoll instance to be had.
    pub fn new(
        message_bytes: usize,
        pace: Pace,
        window: Window,
        slow: Option<u8>,
    ) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            events: vec![sys::no_event(); EVENTS_MAX],
            conns: Vec::new(),
            pattern: Pattern::new(message_bytes),
            input: vec![0; INPUT_BYTES],
            output: Vec::new(),
            pace,
            window,
            slow,
            awaited_count: 0,
            finishing: false,
            open_count: 0,
            tally: Tally::new(),
        })
    }

    /// Takes a connection in and returns its index.
    ///
    /// # Errors
    /// When it cannot be registered.
    pub fn adopt(&mut self, conn: Conn) -> io::Result<usize> {
        let index = self.conns.len();
        // Both directions at once and for good: an edge costs nothing until the socket was full.
        self.epoll.add(conn.socket_fd(), index as u64, sys::READ_EDGE | sys::WRITE)?;
        self.conns.push(Some(conn));
        self.open_count += 1;
        Ok(index)
    }

    /// Sends one message on a connection; its latency counts from `at`.
    pub fn send(&mut self, index: usize, at: u64) {
        let Some(conn) = self.conns[index].as_mut() else {
            // The connection broke earlier, which was counted; what was due on it never comes.
            self.tally.unanswered += u64::from(self.window.contains(at));
            return;
        };
        conn.enqueue(at);
        self.awaited_count += 1;
        if conn.flush(&self.pattern, &mut self.output).is_err() {
            self.remove(index, Received::Broken);
        }
    }

    /// Waits at most so long for events and treats them.
    ///
    /// # Errors
    /// When the wait itself fails.
    pub fn turn(&mut self, nanoseconds: u64) -> io::Result<()> {
        let count = self.epoll.wait_for(&mut self.events, nanoseconds)?;
        for at in 0..count {
            let Event { events: flags, u64: token } = self.events[at];
            if let Ok(index) = usize::try_from(token) {
                self.handle(index, flags);
            }
        }
        Ok(())
    }

    /// Messages on their way, over all connections.
    #[must_use]
    pub fn awaited_count(&self) -> usize {
        self.awaited_count
    }

    /// Connections not yet ended.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open_count
    }

    /// The part of the run that counts.
    #[must_use]
    pub fn window(&self) -> Window {
        self.window
    }

    /// From now on what is due at `from` or later counts, and its latency is noted; nothing that
    /// was counted before is forgotten.
    pub fn count_from(&mut self, from: u64) {
        self.window = Window { from, until: u64::MAX };
    }

    /// Indices of all connections ever adopted.
    #[must_use]
    pub fn indices(&self) -> Range<usize> {
        0..self.conns.len()
    }

    /// Sends the FIN of these connections; from now on the server's FIN is welcome.
    pub fn finish(&mut self, indices: Range<usize>) {
        self.finishing = true;
        for index in indices {
            let broken = self.conns[index].as_ref().is_some_and(|conn| conn.finish().is_err());
            if broken {
                self.remove(index, Received::Broken);
            }
        }
    }

    /// Closes everything. Messages that were due within the window and are still awaited count
    /// as unanswered, and as late as the moment of giving up: leaving them out would flatter a
    /// server that is stuck.
    #[must_use]
    pub fn into_tally(mut self, now: u64) -> Tally {
        if self.pace == Pace::Scheduled {
            for conn in self.conns.iter().flatten() {
                for at in conn.awaited().filter(|at| self.window.contains(*at)) {
                    self.tally.unanswered += 1;
                    let lane = lane(conn, self.slow);
                    self.tally.record(lane, now.saturating_sub(at));
                }
            }
        }
        self.tally
    }

    fn handle(&mut self, index: usize, flags: u32) {
        let Some(conn) = self.conns[index].as_mut() else {
            return;
        };
        if flags & sys::WRITE != 0 {
            conn.set_writable();
        }
        let mut outcome = Received::Drained;
        if flags & !sys::WRITE != 0 {
            let lane = lane(conn, self.slow);
            let (tally, pace, window) = (&mut self.tally, self.pace, self.window);
            let (mut completed_count, mut last) = (0, 0);
            let to_end = flags & sys::ENDING != 0;
            outcome = conn.receive(&self.pattern, &mut self.input, to_end, |at, now| {
                completed_count += 1;
                last = now;
                tally.complete(lane, pace, window, at, now);
            });
            match self.pace {
                Pace::Closed => (0..completed_count).for_each(|_| conn.enqueue(last)),
                Pace::Scheduled => self.awaited_count -= completed_count,
            }
        }
        if conn.flush(&self.pattern, &mut self.output).is_err() {
            outcome = Received::Broken;
        }
        if outcome != Received::Drained {
            self.remove(index, outcome);
        }
    }

    fn remove(&mut self, index: usize, outcome: Received) {
        let Some(conn) = self.conns[index].take() else {
            return;
        };
        self.open_count -= 1;
        self.awaited_count -= conn.awaited_count();
        let window = self.window;
        let due = conn.awaited().filter(|at| window.contains(*at)).count();
        self.tally.unanswered += if self.pace == Pace::Scheduled { due as u64 } else { 0 };
        match outcome {
            Received::End if self.finishing && conn.awaited_count() == 0 => {}
            Received::Mismatch => self.tally.mismatches += 1,
            Received::End | Received::Broken | Received::Drained => self.tally.errors += 1,
        }
    }
}

fn lane(conn: &Conn, slow: Option<u8>) -> Lane {
    if Some(conn.work()) == slow { Lane::Slow } else { Lane::Ordinary }
}

const EVENTS_MAX: usize = 1_024;
/// Larger than the largest chunk a peer writes at once, so that a full read is rare.
const INPUT_BYTES: usize = 256 * 1024;
