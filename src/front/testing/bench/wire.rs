//! `Wire`: the peer of a bench, and the system between it and the connection.

use std::io::{Error, ErrorKind, Result};

use bytes::{Buf, BytesMut};

use crate::core::conn::Farewell;
use crate::parts::buf::Outbox;

/// A socket that is none.
#[derive(Debug)]
pub(super) struct Wire {
    /// What the peer has sent and nobody has read.
    pub(super) incoming: BytesMut,
    /// The peer has finished.
    pub(super) fin: bool,
    /// The peer has reset the connection.
    pub(super) reset: bool,
    /// Bytes that the system takes before it says `WouldBlock`.
    pub(super) room: usize,
    /// What it has taken.
    pub(super) sent: Vec<u8>,
    /// Our side has finished.
    pub(super) finished: bool,
    /// ... or has reset the connection.
    pub(super) was_reset: bool,
}

impl Wire {
    pub(super) fn new() -> Self {
        Wire {
            incoming: BytesMut::new(),
            fin: false,
            reset: false,
            room: usize::MAX,
            sent: Vec::new(),
            finished: false,
            was_reset: false,
        }
    }

    /// Reads at most `room` bytes; 0 is the end of input.
    pub(super) fn read(&mut self, input: &mut BytesMut, room: usize) -> Result<usize> {
        let count = self.incoming.len().min(room);
        if count > 0 {
            input.extend_from_slice(&self.incoming[..count]);
            self.incoming.advance(count);
            return Ok(count);
        }
        if self.reset {
            return Err(ErrorKind::ConnectionReset.into());
        }
        if self.fin { Ok(0) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    /// Writes what there is room for; that is gone from the outbox then.
    pub(super) fn write(&mut self, outbox: &mut Outbox) -> Result<usize> {
        self.error()?;
        let count = outbox.len_bytes().min(self.room);
        if count == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut bytes = outbox.to_vec();
        bytes.truncate(count);
        self.sent.append(&mut bytes);
        outbox.advance(count);
        if self.room != usize::MAX {
            self.room -= count;
        }
        Ok(count)
    }

    /// What is wrong with it.
    pub(super) fn error(&self) -> Result<()> {
        if self.reset { Err(Error::from(ErrorKind::ConnectionReset)) } else { Ok(()) }
    }

    /// The end of the socket.
    pub(super) fn close(&mut self, farewell: Farewell) {
        match farewell {
            Farewell::Close => self.finished = true,
            Farewell::Reset => self.was_reset = true,
        }
    }
}
