//! The choices that have names: which thread runs a handler, which reactor gets a connection, who
//! goes when memory is used up.

/// Which thread runs a handler.
///
/// ```
/// use switchboard::config::Scheduling;
/// use switchboard::{Error, Raw, Server, handler_fn};
///
/// // Never blocks, and is never to leave the thread of its reactor.
/// let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
/// let server = Server::builder()
///     .scheduling(Scheduling::Inline)
///     .listen("127.0.0.1:0", Raw::new(), echo)
///     .start()?;
/// assert_eq!(server.stop().take_overs, 0);
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheduling {
    /// The thread that holds the reactor runs it, having laid the reactor down; if the handler is
    /// slow, another thread picks the reactor up. Nearly as cheap as `Inline`, and no handler can
    /// delay the others for longer than a few milliseconds (about one, once handlers have been
    /// slow), as long as there are workers left.
    #[default]
    TakeOver,
    /// A pool thread runs it: the classic reactor with a worker pool. It costs a hand-over between
    /// threads for each message; here so that the difference can be measured. The pool keeps its
    /// size: [`workers`](crate::Builder::workers), at least 1.
    HandOff,
    /// The reactor's thread runs it and nobody takes over: a slow handler delays every connection
    /// of its reactor, and the end of the server. For handlers that never block, or to be measured
    /// against.
    Inline,
}

/// What happens to a message that would take a connection's queue beyond `send_max_bytes`.
///
/// Messages of a [`Handle`](crate::Handle) that find no room are given back in any case; this is
/// for those of the handler, and for those that were let in and have become longer as their codec
/// wrote them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The connection is reset ([`Cause::Overflow`](crate::close::Cause)): a peer that does not
    /// listen has lost its place.
    #[default]
    Close,
    /// The message is not sent, which its sender is told
    /// ([`SendError::Full`](crate::error::SendError)) and a counter remembers; the connection goes
    /// on.
    DropNewest,
}

/// Which reactor an accepted connection goes to; it stays there.
///
/// ```
/// use switchboard::config::Placement;
/// use switchboard::{Error, Raw, Server, handler_fn};
///
/// // A few connections that stay for long: an even spread is worth a message for each.
/// let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
/// let server = Server::builder()
///     .placement(Placement::LeastLoaded)
///     .listen("127.0.0.1:0", Raw::new(), echo)
///     .start()?;
/// # server.stop();
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Placement {
    /// Every reactor listens on a socket of its own (`SO_REUSEPORT`) and the system spreads the
    /// connections. No hand-over between threads, but the spread is blind: it is even only for
    /// many connections. Linux only: elsewhere starting answers `ErrorKind::Unsupported`, since
    /// other systems hand all connections to one of the sockets.
    ReusePort,
    /// One reactor accepts and gives each connection to the reactor with the fewest. Even to within
    /// one connection; costs a message between threads for those that go elsewhere.
    LeastLoaded,
}

/// Which connections are ended when those of a server use all the memory that they may:
/// [`Limits::memory_max`](crate::Limits::memory_max).
///
/// ```
/// use switchboard::config::Evict;
/// use switchboard::{Error, Server};
///
/// let server = Server::builder().limits(|limits| {
///     limits.memory_max = 256 << 20;
///     limits.evict = Evict::Never;
/// });
/// server.start()?.stop();
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evict {
    /// Those that hold the most, one after the other until there is room again; they are reset
    /// ([`Cause::OutOfMemory`](crate::close::Cause)). One that holds less than half of what would
    /// be its share, were the memory divided equally, is ended only if all else is of no avail.
    #[default]
    Heaviest,
    /// None: the memory that is used has no firm bound but the sum of those of each connection.
    Never,
}
