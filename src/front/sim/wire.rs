//! `Pipe` and `Watch`: one direction of a simulated connection, and how a poll watches a source.

use std::collections::VecDeque;

use crate::words::clock::Time;

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    /// Sent, and under way.
    pub(super) wire: VecDeque<u8>,
    pub(super) wire_at: Time,
    /// Arrived.
    pub(super) queue: VecDeque<u8>,
    pub(super) fin_sent: bool,
    pub(super) fin_arrived: bool,
    /// How many bytes are still before the urgent mark, which no read crosses.
    pub(super) mark: Option<usize>,
}

/// How a poll watches a source.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) poll: usize,
    pub(super) token: usize,
    /// Not while it is being connected: then errors are told and no input.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// Edges: something has arrived since the last event.
    pub(super) pending: bool,
    /// Levels: what an event would be told of.
    pub(super) armed_in: bool,
    pub(super) armed_out: bool,
    pub(super) withheld_until: Time,
}

impl Pipe {
    pub(super) fn len(&self) -> usize {
        self.wire.len() + self.queue.len()
    }

    pub(super) fn put(&mut self, bytes: &[u8], at: Time) {
        if self.wire.is_empty() {
            self.wire_at = at;
        }
        self.wire.extend(bytes);
    }

    pub(super) fn finish(&mut self, at: Time) {
        if self.wire.is_empty() && !self.fin_sent {
            self.wire_at = at;
        }
        self.fin_sent = true;
    }

    pub(super) fn arrives_at(&self) -> Option<Time> {
        let under_way = !self.wire.is_empty() || (self.fin_sent && !self.fin_arrived);
        under_way.then_some(self.wire_at)
    }

    pub(super) fn arrive(&mut self, count: usize, next: Time) {
        self.queue.extend(self.wire.drain(..count));
        self.wire_at = next;
        // FIN arrives with the last byte or by itself.
        if self.wire.is_empty() && self.fin_sent {
            self.fin_arrived = true;
        }
    }
}

impl Watch {
    /// A source that is watched from now on.
    pub(super) fn new(poll: usize, token: usize) -> Self {
        Watch {
            poll,
            token,
            readable: true,
            writable: false,
            pending: true,
            armed_in: true,
            armed_out: true,
            withheld_until: Time::ZERO,
        }
    }

    /// A call has answered `WouldBlock`, or what is watched for has changed.
    pub(super) fn rearm(&mut self) {
        self.armed_in = true;
        self.armed_out = true;
    }
}
