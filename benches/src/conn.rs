//! One connection of the load generator: what it has sent, what has come back, what is awaited.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::clock;
use crate::payload::{Pattern, Tag};
use crate::sys;

/// The most bytes composed for one `send`.
const SEND_MAX: u64 = 64 * 1024;

/// A connection and its place in the stream it sends and gets back.
#[derive(Debug)]
pub struct Conn {
    socket: OwnedFd,
    tag: Tag,
    /// Messages asked for so far; the stream to send ends there.
    queued_count: u64,
    sent_bytes: u64,
    received_bytes: u64,
    /// When each message that has not come back whole was (meant to be) sent, oldest first.
    awaited: VecDeque<u64>,
    writable: bool,
}

/// What [`Conn::receive`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// Everything that had arrived was right; there may be more later.
    Drained,
    /// The server has closed its half in good order.
    End,
    /// The bytes are not those that were sent.
    Mismatch,
    /// The connection is broken.
    Broken,
}

impl Conn {
    /// A fresh connection.
    #[must_use]
    pub fn new(socket: OwnedFd, tag: Tag) -> Self {
        Self {
            socket,
            tag,
            queued_count: 0,
            sent_bytes: 0,
            received_bytes: 0,
            awaited: VecDeque::new(),
            writable: true,
        }
    }

    /// Its socket, to register.
    #[must_use]
    pub fn socket_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The first byte of its messages.
    #[must_use]
    pub fn work(&self) -> u8 {
        self.tag.work
    }

    /// When the messages still awaited were meant to be sent.
    pub fn awaited(&self) -> impl Iterator<Item = u64> + '_ {
        self.awaited.iter().copied()
    }

    /// Number of messages still awaited.
    #[must_use]
    pub fn awaited_count(&self) -> usize {
        self.awaited.len()
    }

    /// Adds one message whose latency counts from `at`. It leaves with the next [`Conn::flush`].
    pub fn enqueue(&mut self, at: u64) {
        self.queued_count += 1;
        self.awaited.push_back(at);
    }

    /// The socket can take bytes again.
    pub fn set_writable(&mut self) {
        self.writable = true;
    }

    /// Sends what is queued until the socket takes no more.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn flush(&mut self, pattern: &Pattern, scratch: &mut Vec<u8>) -> io::Result<()> {
        let end = self.queued_count * pattern.message_bytes() as u64;
        while self.writable && self.sent_bytes < end {
            let until = end.min(self.sent_bytes + SEND_MAX);
            scratch.clear();
            pattern.write(self.tag, self.sent_bytes..until, scratch);
            match sys::send(&self.socket, scratch) {
                Ok(count) => {
                    self.sent_bytes += count as u64;
                    // A short count means a full buffer; the edge comes when it has drained.
                    self.writable = count == scratch.len();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads until drained, compares every byte, and reports each completed message with the time
    /// it was meant to leave and the time it was back.
    ///
    /// `to_end` says that a short read does not prove that the socket is empty (see `ENDING`).
    pub fn receive(
        &mut self,
        pattern: &Pattern,
        buffer: &mut [u8],
        to_end: bool,
        mut completed: impl FnMut(u64, u64),
    ) -> Received {
        let length = pattern.message_bytes() as u64;
        loop {
            let count = match sys::receive(&self.socket, buffer) {
                Ok(0) => return Received::End,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Received::Drained;
                }
                Err(_) => return Received::Broken,
            };
            let before = self.received_bytes;
            self.received_bytes += count as u64;
            let right = self.received_bytes <= self.sent_bytes
                && pattern.matches(self.tag, before, &buffer[..count]);
            if !right {
                return Received::Mismatch;
            }
            let whole = self.received_bytes / length - before / length;
            if whole > 0 {
                let now = clock::now();
                for _ in 0..whole {
                    let at = self.awaited.pop_front().unwrap_or(now);
                    completed(at, now);
                }
            }
            if count < buffer.len() && !to_end {
                return Received::Drained;
            }
        }
    }

    /// Sends our FIN: no more messages.
    ///
    /// # Errors
    /// When the connection is broken.
    pub fn finish(&self) -> io::Result<()> {
        sys::shutdown_write(self.socket.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use super::{Conn, Received};
    use crate::payload::{Pattern, Tag};
    use crate::sys::{self, Epoll};

    fn pair() -> (Conn, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let near = TcpStream::connect(listener.local_addr().expect("its address"));
        let far = listener.accept().expect("the other end").0;
        let near = OwnedFd::from(near.expect("a connection"));
        (Conn::new(near, Tag { connection: 1, work: 0 }), far)
    }

    /// Echoes `count` messages of 64 bytes; `change` may spoil the bytes on their way back.
    fn echo(count: u64, change: impl FnOnce(&mut Vec<u8>)) -> (Received, Vec<u64>) {
        let (mut conn, mut far) = pair();
        let pattern = Pattern::new(64);
        for at in 0..count {
            conn.enqueue(at);
        }
        conn.flush(&pattern, &mut Vec::new()).expect("room for a few messages");
        let mut bytes = vec![0; 64 * usize::try_from(count).expect("a small count")];
        far.read_exact(&mut bytes).expect("all messages");
        change(&mut bytes);
        far.write_all(&bytes).expect("room for the echo");
        drop(far);
        let mut stamps = Vec::new();
        let epoll = Epoll::new().expect("an epoll instance");
        epoll.add(conn.socket_fd(), 0, sys::READ_EDGE).expect("a registration");
        loop {
            let events = epoll.wait_for(&mut [sys::no_event()], 5_000_000_000);
            assert_eq!(events.expect("a wait"), 1, "nothing arrives any more");
            match conn.receive(&pattern, &mut [0; 100], true, |at, _| stamps.push(at)) {
                Received::Drained => {}
                outcome @ (Received::End | Received::Mismatch | Received::Broken) => {
                    return (outcome, stamps);
                }
            }
        }
    }

    #[test]
    fn whole_messages_are_reported_in_order_and_then_the_end() {
        assert_eq!(echo(5, |_| ()), (Received::End, vec![0, 1, 2, 3, 4]));
    }

    #[test]
    fn a_wrong_byte_and_a_byte_too_many_are_mismatches() {
        assert_eq!(echo(3, |bytes| bytes[70] ^= 1).0, Received::Mismatch);
        assert_eq!(echo(1, |bytes| bytes.push(0)).0, Received::Mismatch);
    }
}
