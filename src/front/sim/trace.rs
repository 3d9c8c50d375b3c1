//! `Trace`: what happened last, for the reader of a failure, and a digest of all that happened.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::engine::sched::Where;
use crate::words::clock::Time;

/// The last events of a run, and the digest of all of them.
#[derive(Debug, Default)]
pub(super) struct Trace {
    last: VecDeque<(Time, Note)>,
    /// SipHash with fixed keys: two runs of one seed must end with the same.
    digest: DefaultHasher,
}

/// One event.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Note {
    /// A thread went on, and stands there now.
    Thread(usize, Where),
    /// A thread was stopped by the system for so many microseconds.
    Paused(usize, u64),
    /// The sentinel looked.
    Sampled,
    /// A poll of a reactor told this many events.
    Polled(usize, usize),
    /// A poll told of a socket.
    Event { socket: usize, readable: bool, writable: bool, drain: bool },
    /// A listener of a reactor gave this socket.
    Accepted(usize, usize),
    /// It answered with an error instead.
    AcceptFailed(usize, i32),
    /// The server read so much, or what else came of it.
    Read(usize, Outcome),
    /// The server wrote so much, or what else came of it.
    Wrote(usize, Outcome),
    /// What the server did to a socket.
    Server(usize, Verb),
    /// What a client did to its socket.
    Client(usize, Verb, usize),
    /// So many bytes arrived at the server.
    ArrivedUp(usize, usize),
    /// So many bytes arrived at the client.
    ArrivedDown(usize, usize),
    /// A callback of the handler ran.
    Callback(usize, &'static str),
    /// The operator did something.
    Operator(&'static str),
}

/// What came of a read or a write.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Outcome {
    Bytes(usize),
    WouldBlock,
    Error,
}

/// What is done to a socket.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) enum Verb {
    Connect,
    Refused,
    Watch,
    WatchFailed,
    Probe,
    Rewatch,
    Send,
    Receive,
    Finish,
    Close,
    Reset,
    LosePower,
    End,
}

/// How many events a failure shows.
const LAST: usize = 160;

impl Trace {
    /// Notes an event.
    pub(super) fn note(&mut self, now: Time, note: Note) {
        (now.as_nanos(), note).hash(&mut self.digest);
        if self.last.len() == LAST {
            self.last.pop_front();
        }
        self.last.push_back((now, note));
    }

    /// The digest of all of them.
    pub(super) fn digest(&self) -> u64 {
        self.digest.finish()
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, note) in &self.last {
            let micros = at.as_nanos() / 1_000;
            writeln!(f, "{:>8}.{:03} ms  {note:?}", micros / 1_000, micros % 1_000)?;
        }
        Ok(())
    }
}
