//! Connections that live for one echo: connect, echo, close, and again.
//!
//! A cycle ends when the client, having sent its FIN after the echo, has read the server's FIN.
//! So the server's whole work counts (accept, echo, notice the end, close), and none can gain by
//! putting off its closing. The client closes first in good order, as ordinary clients do: a reset
//! would send each server down its error path instead. The price, ports in TIME_WAIT, is paid by
//! many source addresses, and is the same for all servers.

use std::io;

use serde_json::Value;

use crate::clock;
use crate::conn::{Conn, Received};
use crate::dial::Dialer;
use crate::measure;
use crate::payload::{PLAIN, Pattern, Tag};
use crate::plan::Plan;
use crate::sys::{self, Epoll, Event};
use crate::tally::{Lane, Pace, Tally, Window};

/// `plan.connections` cycles at a time, as many as there is time for.
///
/// # Errors
/// When there is no epoll instance to be had or the server's process cannot be read. Connections
/// that fail are counted instead.
pub fn run(plan: &Plan) -> io::Result<Value> {
    let before = measure::memory(plan)?;
    let window = measure::window(plan);
    let jobs: Vec<_> = (0..plan.threads)
        .map(|thread| {
            // The remainder goes to the first threads.
            let more = u32::from(thread < plan.connections % plan.threads);
            let slots = plan.connections / plan.threads + more;
            move || Churn::new(plan, window, slots)?.run()
        })
        .collect();
    measure::run(plan, before, window, jobs)
}

/// One thread's cycles.
#[derive(Debug)]
struct Churn {
    epoll: Epoll,
    dialer: Dialer,
    pattern: Pattern,
    window: Window,
    slots: Vec<Option<Cycle>>,
    dialled_count: u32,
    input: Vec<u8>,
    output: Vec<u8>,
    tally: Tally,
}

/// One connection from `connect` to the server's FIN.
#[derive(Debug)]
struct Cycle {
    conn: Conn,
    started: u64,
}

impl Churn {
    fn new(plan: &Plan, window: Window, slots: u32) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new()?,
            dialer: Dialer::new(plan.addr, plan.sources)?,
            pattern: Pattern::new(plan.size),
            window,
            slots: (0..slots).map(|_| None).collect(),
            dialled_count: 0,
            input: vec![0; plan.size + 1],
            output: Vec::new(),
            tally: Tally::new(),
        })
    }

    fn run(mut self) -> io::Result<Tally> {
        let mut events = vec![sys::no_event(); self.slots.len()];
        let mut empty: Vec<usize> = (0..self.slots.len()).collect();
        loop {
            let now = clock::now();
            // So many errors in a row mean that the server is gone; do not hammer the port.
            if now >= self.window.until || self.tally.errors > ERRORS_MAX {
                return Ok(self.tally);
            }
            empty.retain(|slot| self.start(*slot).is_err());
            let timeout = if empty.is_empty() { self.window.until - now } else { RETRY };
            let count = self.epoll.wait_for(&mut events, timeout)?;
            for &event in &events[..count] {
                let Event { events: flags, u64: token } = event;
                let Ok(slot) = usize::try_from(token) else {
                    continue;
                };
                if self.handle(slot, flags) {
                    self.slots[slot] = None;
                    empty.push(slot);
                }
            }
        }
    }

    /// Starts the next cycle in an empty slot.
    fn start(&mut self, slot: usize) -> io::Result<()> {
        let result = self.try_start(slot);
        self.tally.errors += u64::from(result.is_err());
        result
    }

    fn try_start(&mut self, slot: usize) -> io::Result<()> {
        let started = clock::now();
        let socket = self.dialer.dial()?;
        self.dialled_count = self.dialled_count.wrapping_add(1);
        let tag = Tag { connection: self.dialled_count, work: PLAIN };
        let mut conn = Conn::new(socket, tag);
        self.epoll.add(conn.socket_fd(), slot as u64, sys::READ_EDGE)?;
        conn.enqueue(started);
        conn.flush(&self.pattern, &mut self.output)?;
        self.slots[slot] = Some(Cycle { conn, started });
        Ok(())
    }

    /// Returns true when the cycle in this slot has ended, well or not.
    fn handle(&mut self, slot: usize, flags: u32) -> bool {
        let Some(Cycle { conn, started }) = self.slots[slot].as_mut() else {
            return false;
        };
        let to_end = flags & sys::ENDING != 0;
        let mut echoed = false;
        let outcome = conn.receive(&self.pattern, &mut self.input, to_end, |_, _| echoed = true);
        match outcome {
            Received::Drained if echoed => {
                let broken = conn.finish().is_err();
                self.tally.errors += u64::from(broken);
                broken
            }
            Received::Drained => false,
            Received::End if conn.awaited_count() == 0 && !echoed => {
                let (window, now) = (self.window, clock::now());
                self.tally.complete(Lane::Ordinary, Pace::Closed, window, *started, now);
                true
            }
            Received::Mismatch => {
                self.tally.mismatches += 1;
                true
            }
            // Among them a server that closes before it has seen our FIN.
            Received::End | Received::Broken => {
                self.tally.errors += 1;
                true
            }
        }
    }
}

const ERRORS_MAX: u64 = 10_000;
/// How soon a failed `connect` is tried again, in nanoseconds.
const RETRY: u64 = 1_000_000;
