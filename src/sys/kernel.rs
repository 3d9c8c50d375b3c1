//! The calls that the engine makes to the kernel; one real implementation, one simulated.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;

use crate::words::clock::Time;

/// What one reactor asks of the system it runs on.
///
/// Generic and inlined: the real build contains no trace of the trait. The contract is mio's
/// weakest: events may be spurious, stale, merged and in any order; a new one for a direction of a
/// source is certain only after a call on the source answered `WouldBlock`. No call blocks but
/// [`Kernel::poll`]. No call answers `ErrorKind::Interrupted`: implementations try again.
pub(crate) trait Kernel: Send + 'static {
    /// A connected byte stream.
    type Stream: Send + fmt::Debug + 'static;
    /// A listening socket.
    type Listener: Send + fmt::Debug + 'static;

    /// Whether a read that fills less than the buffer proves that the stream is empty
    /// (unless its event said [`Event::drain`]).
    const SHORT_READ_DRAINS: bool;

    /// Whether one thread plays all threads, as in a simulation: then a reactor says when it is
    /// about to poll, since nobody would wake the one thread that there is.
    const STEPPED: bool = false;

    /// The present moment.
    fn now(&self) -> Time;

    /// Waits for events and appends them to `events`; returns early for a wake-up, and may return
    /// early for nothing. `None` waits for ever, zero does not wait.
    ///
    /// # Errors
    /// Any error means that this kernel cannot go on.
    fn poll(&mut self, timeout: Option<Duration>, events: &mut Vec<Event>) -> io::Result<()>;

    /// Starts to watch a listener: an event under `token` when connections wait.
    fn watch_listener(&mut self, listener: &mut Self::Listener, token: usize) -> io::Result<()>;

    /// Stops to watch a listener.
    fn unwatch_listener(&mut self, listener: &mut Self::Listener) -> io::Result<()>;

    /// Takes one waiting connection.
    fn accept(&mut self, listener: &mut Self::Listener) -> io::Result<(Self::Stream, SocketAddr)>;

    /// How many connections wait to be accepted and how many may, where the system tells.
    fn waiting(&self, listener: &Self::Listener) -> Option<(u32, u32)>;

    /// Begins to connect to `addr`; what becomes of it, [`Kernel::connected`] tells.
    ///
    /// # Errors
    /// What the system knows at once: no route, no port left, no descriptor.
    fn connect(&mut self, addr: SocketAddr) -> io::Result<Self::Stream>;

    /// Starts to watch a stream that is being connected: a writable event when there is news.
    fn watch_connecting(&mut self, stream: &mut Self::Stream, token: usize) -> io::Result<()>;

    /// Whether a stream that was being connected is; `false`: there is no answer yet, and an event
    /// will tell. From then on [`Kernel::rewatch`] watches it as a connection.
    ///
    /// # Errors
    /// Why it could not be connected.
    fn connected(&mut self, stream: &mut Self::Stream) -> io::Result<bool>;

    /// Starts to watch a stream for input (and urgent input, where the platform tells).
    fn watch(&mut self, stream: &mut Self::Stream, token: usize) -> io::Result<()>;

    /// Watches the stream for input and, if `writable`, for room to write.
    fn rewatch(
        &mut self,
        stream: &mut Self::Stream,
        token: usize,
        writable: bool,
    ) -> io::Result<()>;

    /// Reads once into the spare capacity of `into`; 0 means that the peer has finished.
    fn read(&mut self, stream: &mut Self::Stream, into: &mut BytesMut) -> io::Result<usize>;

    /// Writes once from `parts` (never empty), in order.
    fn write(&mut self, stream: &mut Self::Stream, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Sends FIN after what was written.
    fn shutdown_write(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Answers with the error that has ended the stream, if there is one: once.
    fn take_error(&mut self, stream: &mut Self::Stream) -> io::Result<()>;

    /// Closes the stream; the kernel goes on to deliver what was written.
    fn close(&mut self, stream: Self::Stream);

    /// Closes the stream at once with RST; what was not delivered is lost.
    fn reset(&mut self, stream: Self::Stream);
}

/// One readiness event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// What the source was watched under.
    pub(crate) token: usize,
    /// Input, the end of input, or an error waits.
    pub(crate) readable: bool,
    /// There is room to write, or an error waits.
    pub(crate) writable: bool,
    /// The stream is broken, or both ends have finished.
    pub(crate) hangup: bool,
    /// A short read proves nothing this time: urgent data, the end of input or an error is there.
    pub(crate) drain: bool,
}
