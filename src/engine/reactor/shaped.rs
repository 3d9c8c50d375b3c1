//! Serving connections whose rates are bounded: how much may pass now, and what is counted of it.

use std::io;

use bytes::BytesMut;

use super::Entry;
use super::stream::Io;
use crate::core::conn::Connection;
use crate::core::limits::Via;
use crate::core::shaping::{Leave, Shape};
use crate::engine::counters::Counters;
use crate::sys::Kernel;

impl<K: Kernel> Io<K> {
    /// What a newcomer to listener number `door` is held to; most often nothing.
    pub(super) fn shape(&self, via: Via) -> Option<Box<Shape>> {
        let listening = &self.common.listening[via.index()];
        Shape::of(self.common.shaper.as_ref(), listening, self.now)
    }

    /// How much may be read now; `None` if the connection has to wait for its turn.
    #[inline]
    pub(super) fn ask_to_read(&mut self, entry: &mut Entry<K>) -> Option<usize> {
        match entry.conn.ask_to_read(self.common.limits.read_chunk_bytes, self.now) {
            Leave::Go(most) => Some(most),
            Leave::Wait => {
                self.counters.reads_delayed.times += 1;
                None
            }
        }
    }

    /// How much of `wanted` bytes may be written now; `None` if they have to wait for their turn.
    #[inline]
    pub(super) fn ask_to_send(&mut self, entry: &mut Entry<K>, wanted: usize) -> Option<usize> {
        match entry.conn.ask_to_send(wanted, self.now) {
            Leave::Go(most) => Some(most),
            Leave::Wait => {
                self.counters.sends_delayed.times += 1;
                None
            }
        }
    }
}

impl Counters {
    /// A read was made that may have had to wait.
    #[inline]
    pub(super) fn note_read(&mut self, conn: &mut Connection, answer: &io::Result<usize>) {
        let count = answer.as_ref().copied().unwrap_or(0);
        if conn.note_read(count) {
            self.reads_delayed.bytes += count as u64;
        }
    }

    /// A write was made that may have had to wait.
    #[inline]
    pub(super) fn note_written(&mut self, conn: &mut Connection, answer: &io::Result<usize>) {
        let count = answer.as_ref().copied().unwrap_or(0);
        if conn.note_written(count) {
            self.sends_delayed.bytes += count as u64;
        }
    }
}

/// Leaves room for no more than `most` bytes of input. The pool finds the rest again.
#[inline]
pub(super) fn bound_room(input: &mut BytesMut, most: usize) {
    let end = input.len().saturating_add(most);
    if end < input.capacity() {
        drop(input.split_off(end));
    }
}
