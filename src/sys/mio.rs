//! [`MioKernel`]: the calls of a reactor, made through mio and socket2.
#![expect(unsafe_code, reason = "a read fills memory that nobody had to zero")]

use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use ::mio::event::Event as MioEvent;
use ::mio::net::TcpStream;
use ::mio::{Events, Interest, Poll, Token};
use bytes::{BufMut, BytesMut};
use socket2::SockRef;

use super::backend;
use super::listen::{tcp_queue, tune_connected};
use super::{Event, Kernel, Listener};
use crate::parts::mailbox::Wake;
use crate::words::clock::{Clock, Time};

/// The token of the waker's events, which nobody sees; nothing may be watched under it.
pub(crate) const WAKE: usize = usize::MAX;

/// The real system: a `mio::Poll`, and sockets.
#[derive(Debug)]
pub(crate) struct MioKernel {
    poll: Poll,
    /// What the last poll told; kept so that polling allocates nothing.
    told: Events,
    /// mio allows one waker to a poll, so it is made once and shared.
    waker: Arc<::mio::Waker>,
    clock: Clock,
}

impl MioKernel {
    /// A kernel whose [`Kernel::poll`] tells at most about `events_max` events at a time (on
    /// Windows and poll(2), mio takes the number for a hint).
    ///
    /// # Errors
    /// What the system says to a new selector: descriptors or memory are used up.
    pub(crate) fn new(clock: Clock, events_max: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(::mio::Waker::new(poll.registry(), Token(WAKE))?);
        Ok(MioKernel { poll, told: Events::with_capacity(events_max), waker, clock })
    }

    /// What makes [`Kernel::poll`] return early, from any thread, for as long as anybody holds it.
    pub(crate) fn waker(&self) -> Waker {
        Waker { inner: Arc::clone(&self.waker) }
    }
}

impl Kernel for MioKernel {
    type Stream = TcpStream;
    type Listener = Listener;

    const SHORT_READ_DRAINS: bool = backend::SHORT_READ_DRAINS;

    #[inline]
    fn now(&self) -> Time {
        self.clock.now()
    }

    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()> {
        let mut timeout = timeout;
        while let Err(error) = self.poll.poll(&mut self.told, timeout) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            // After SIGCONT the time may be up though input waits: look at it, but wait no more.
            timeout = Some(Duration::ZERO);
        }
        events.extend(self.told.iter().filter(|e| e.token() != Token(WAKE)).map(translate));
        Ok(())
    }

    fn watch_listener(&mut self, listener: &mut Listener, token: usize) -> io::Result<()> {
        debug_assert_ne!(token, WAKE);
        self.poll.registry().register(&mut listener.socket, Token(token), Interest::READABLE)
    }

    fn unwatch_listener(&mut self, listener: &mut Listener) -> io::Result<()> {
        if_still_watched(self.poll.registry().deregister(&mut listener.socket))
    }

    #[inline]
    fn accept(&mut self, listener: &mut Listener) -> io::Result<(TcpStream, SocketAddr)> {
        listener.accept()
    }

    fn waiting(&self, listener: &Listener) -> Option<(u32, u32)> {
        tcp_queue(listener).ok()
    }

    fn connect(&mut self, addr: SocketAddr) -> io::Result<TcpStream> {
        loop {
            match TcpStream::connect(addr) {
                // The connection goes on to be made after a signal, but that socket is lost here.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn watch_connecting(&mut self, stream: &mut TcpStream, token: usize) -> io::Result<()> {
        debug_assert_ne!(token, WAKE);
        self.poll.registry().register(stream, Token(token), Interest::WRITABLE)
    }

    fn connected(&mut self, stream: &mut TcpStream) -> io::Result<bool> {
        if let Some(error) = stream.take_error()? {
            return Err(error);
        }
        let peer = rearming(stream, || stream.peer_addr().map_err(again_if_not_connected));
        match peer {
            // TCP connects a socket to itself if the system chose the very port that it asks for
            // and nobody listens there ("simultaneous open", RFC 9293, 3.5).
            Ok(peer) if stream.local_addr().is_ok_and(|local| local == peer) => {
                Err(io::ErrorKind::ConnectionRefused.into())
            }
            Ok(_) => {
                tune_connected(&SockRef::from(&*stream));
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    #[inline]
    fn watch(&mut self, stream: &mut TcpStream, token: usize) -> io::Result<()> {
        debug_assert_ne!(token, WAKE);
        self.poll.registry().register(stream, Token(token), backend::input_interest())
    }

    fn rewatch(&mut self, stream: &mut TcpStream, token: usize, writable: bool) -> io::Result<()> {
        debug_assert_ne!(token, WAKE);
        let interest = match writable {
            true => backend::input_interest() | Interest::WRITABLE,
            false => backend::input_interest(),
        };
        if_still_watched(self.poll.registry().reregister(stream, Token(token), interest))
    }

    #[inline]
    fn read(&mut self, stream: &mut TcpStream, into: &mut BytesMut) -> io::Result<usize> {
        let spare = into.spare_capacity_mut();
        debug_assert!(!spare.is_empty(), "a read of nothing would look like the end of input");
        let socket = SockRef::from(&*stream);
        let count = rearming(stream, || socket.recv(spare))?;
        // SAFETY: recv() wrote that many bytes from the start of the spare capacity.
        unsafe { into.advance_mut(count) };
        Ok(count)
    }

    #[inline]
    fn write(&mut self, stream: &mut TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        debug_assert!(!parts.is_empty());
        let socket = SockRef::from(&*stream);
        rearming(stream, || match parts {
            // send() costs less than sendmsg() with one part.
            [part] => socket.send_with_flags(part, backend::SEND_FLAGS),
            _ => {
                let parts = &parts[..parts.len().min(PARTS_MAX)];
                socket.send_vectored_with_flags(parts, backend::SEND_FLAGS)
            }
        })
    }

    fn shutdown_write(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        stream.shutdown(Shutdown::Write)
    }

    fn take_error(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        stream.take_error()?.map_or(Ok(()), Err)
    }

    /// No deregistration: epoll and kqueue forget a descriptor that is closed (a system call
    /// saved), and for IOCP and poll(2) mio does it when the stream is dropped.
    fn close(&mut self, stream: TcpStream) {
        drop(stream);
    }

    fn reset(&mut self, stream: TcpStream) {
        // The only error is that the peer was faster and the connection is gone.
        let _gone = SockRef::from(&stream).set_linger(Some(Duration::ZERO)).is_err();
        drop(stream);
    }
}

/// Makes [`Kernel::poll`] of one kernel return; may outlive it.
#[derive(Clone, Debug)]
pub(crate) struct Waker {
    inner: Arc<::mio::Waker>,
}

impl Waker {
    /// Makes the poll that runs, or else the next one, return at once.
    ///
    /// `WouldBlock` means that a wake-up is pending already. The one other error that a sound
    /// kernel object can give is a passing lack of memory in the system (Windows); then this tries
    /// again for a while. If that fails too, the wake-up is lost and debug builds panic: what it
    /// was to announce stays queued until the reactor wakes for another reason.
    pub(crate) fn wake(&self) {
        for _ in 0..WAKE_TRIES_MAX {
            match self.inner.wake() {
                Ok(()) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => thread::yield_now(),
            }
        }
        debug_assert!(false, "the system does not take a wake-up");
    }
}

impl Wake for Waker {
    fn wake(&self) {
        Waker::wake(self);
    }
}

/// Runs `call` on a stream so that mio watches for input again if it would block.
#[inline]
fn rearming<T>(stream: &TcpStream, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let done = stream.try_io(|| {
        loop {
            match call() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    });
    done.map_err(gone_if_forgotten)
}

/// A stream that is still being connected has no peer.
fn again_if_not_connected(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::NotConnected {
        return io::ErrorKind::WouldBlock.into();
    }
    error
}

/// poll(2): once a stream has reported POLLHUP or POLLERR, mio forgets it; a call that would block
/// then answers `NotFound`, since it cannot be watched again. `WouldBlock` would promise an event
/// that never comes, so this is the end of the connection. No system call of a socket says ENOENT.
fn gone_if_forgotten(error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::NotFound {
        return error;
    }
    io::Error::new(io::ErrorKind::ConnectionReset, "the connection ended, as poll(2) had told")
}

/// The same, for changes of what is watched: who is forgotten has had its last event already.
fn if_still_watched(changed: io::Result<()>) -> io::Result<()> {
    match changed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

fn translate(event: &MioEvent) -> Event {
    let (read_closed, write_closed) = (event.is_read_closed(), event.is_write_closed());
    let error = event.is_error();
    Event {
        token: event.token().0,
        readable: event.is_readable() || read_closed || error,
        writable: event.is_writable() || write_closed || error,
        hangup: write_closed || error,
        drain: event.is_priority() || read_closed || write_closed || error,
    }
}

/// Parts of one sendmsg(): far below every IOV_MAX (1024 on most, 16 by POSIX at least), and more
/// would not make a call cheaper per byte.
const PARTS_MAX: usize = 64;

/// How often a wake-up is tried before it is given up.
const WAKE_TRIES_MAX: usize = 1000;

#[cfg(test)]
mod tests;
