//! Why a connection ended: whose doing it was, in which phase, and what was lost.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use super::error::BoxError;

/// Why a connection ended. The hook, the metrics and the report of a server all say the same.
///
/// ```
/// use std::net::TcpStream;
/// use std::sync::mpsc;
/// use bytes::BytesMut;
/// use switchboard::close::{Blame, Cause};
/// use switchboard::{CloseReason, Context, Handler, Outcome, Raw, Server};
///
/// struct Listener(mpsc::Sender<CloseReason>);
///
/// impl Handler for Listener {
///     fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
///         Ok(())
///     }
///     fn on_close(&mut self, reason: &CloseReason) {
///         let _ = self.0.send(reason.clone());
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (sender, ends) = mpsc::channel();
/// let listener = move |_peer| Listener(sender.clone());
/// let server = Server::builder().listen("127.0.0.1:0", Raw::new(), listener).start()?;
/// drop(TcpStream::connect(server.local_addr())?);
///
/// let reason = ends.recv()?;
/// assert!(matches!(reason.cause(), Cause::PeerFinished));
/// assert_eq!((reason.blame(), reason.unsent_bytes()), (Blame::Peer, 0));
/// assert_eq!(server.stop().closed_by("peer_finished"), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CloseReason {
    cause: Cause,
    phase: ClosePhase,
    unsent_bytes: usize,
}

/// What ended a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Cause {
    /// The peer finished, all of its input was handled and all output was handed to the system.
    PeerFinished,
    /// The peer reset the connection.
    PeerReset,
    /// The peer finished in the middle of a frame.
    Truncated,
    /// The protocol asked for it: `close`, or `finish` and then the peer finished too.
    Closed,
    /// The protocol or another thread asked for an abort.
    Aborted,
    /// A callback answered with this error.
    HandlerFailed(Arc<dyn StdError + Send + Sync>),
    /// A callback, a codec or the drop of a handler panicked.
    HandlerPanicked,
    /// The codec could not make sense of the input, or could not encode a message.
    CodecFailed(Arc<dyn StdError + Send + Sync>),
    /// The first frame did not come within `first_frame`.
    FirstFrameTimeout,
    /// A frame began and did not end within `frame`.
    FrameTimeout,
    /// The peer was silent for longer than `idle` lets it.
    IdleTimeout,
    /// Output waited for `write_stall` without a single byte of progress.
    WriteStalled,
    /// Output of one connection exceeded `send_max_bytes`.
    Overflow,
    /// It was idle and had to make room for another, see
    /// [`WhenFull::EvictIdle`](crate::config::WhenFull).
    Evicted,
    /// The [filter](crate::config::Listening::filter) of its listener did not let it in.
    Refused,
    /// The connections of the server used as much memory as they may, `memory_max`, and this one
    /// held a great part of it.
    OutOfMemory,
    /// A group that it was a member of resets those who do not keep up.
    Lagged,
    /// The server was stopped, or its drain deadline passed.
    ServerStopped,
    /// The server drained, and the connection was closed or finished after it was told so.
    Drained,
    /// The system reported this error, with its error number where there is one.
    Io(io::ErrorKind, Option<i32>),
}

/// Whose doing the end of a connection was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Blame {
    /// The other end.
    Peer,
    /// The protocol that runs on this server.
    App,
    /// A limit of this server.
    Limit,
    /// The operator of this server.
    Operator,
    /// The operating system or the network.
    System,
}

/// How far a connection had come when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClosePhase {
    /// `on_open` had not returned.
    Opening,
    /// In use.
    Open,
    /// Our side had finished, or was about to.
    Closing,
}

impl CloseReason {
    pub(crate) fn new(cause: Cause, phase: ClosePhase, unsent_bytes: usize) -> Self {
        CloseReason { cause, phase, unsent_bytes }
    }

    /// What ended the connection.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.cause
    }

    /// How far the connection had come.
    #[must_use]
    pub fn phase(&self) -> ClosePhase {
        self.phase
    }

    /// Bytes that were sent by the protocol but never handed to the system. What was handed to it
    /// is not counted, whether the peer has received it or not.
    #[must_use]
    pub fn unsent_bytes(&self) -> usize {
        self.unsent_bytes
    }

    /// Whose doing it was.
    #[must_use]
    pub fn blame(&self) -> Blame {
        self.cause.blame()
    }

    /// The system's error number (`errno`, on Windows that of Winsock), if the system is to blame
    /// and gave one.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        if let Cause::Io(_, errno) = self.cause { errno } else { None }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cause)?;
        if self.unsent_bytes > 0 {
            write!(f, " ({} bytes unsent)", self.unsent_bytes)?;
        }
        Ok(())
    }
}

impl Cause {
    /// Every label that [`Cause::label`] can answer, in the order of [`Cause::index`].
    pub(crate) const LABELS: [&'static str; 20] = [
        "peer_finished",
        "peer_reset",
        "truncated",
        "closed",
        "aborted",
        "handler_failed",
        "handler_panicked",
        "codec_failed",
        "first_frame_timeout",
        "frame_timeout",
        "idle_timeout",
        "write_stalled",
        "overflow",
        "evicted",
        "refused",
        "server_stopped",
        "drained",
        "io",
        "out_of_memory",
        "lagged",
    ];

    /// The cause's place in [`Cause::LABELS`].
    pub(crate) fn index(&self) -> usize {
        match self {
            Cause::PeerFinished => 0,
            Cause::PeerReset => 1,
            Cause::Truncated => 2,
            Cause::Closed => 3,
            Cause::Aborted => 4,
            Cause::HandlerFailed(_) => 5,
            Cause::HandlerPanicked => 6,
            Cause::CodecFailed(_) => 7,
            Cause::FirstFrameTimeout => 8,
            Cause::FrameTimeout => 9,
            Cause::IdleTimeout => 10,
            Cause::WriteStalled => 11,
            Cause::Overflow => 12,
            Cause::Evicted => 13,
            Cause::Refused => 14,
            Cause::ServerStopped => 15,
            Cause::Drained => 16,
            Cause::Io(..) => 17,
            Cause::OutOfMemory => 18,
            Cause::Lagged => 19,
        }
    }

    /// The name of this cause in metrics: lower case, words joined by `_`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        Self::LABELS[self.index()]
    }

    /// Whose doing it was.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Cause::PeerFinished | Cause::PeerReset | Cause::Truncated => Blame::Peer,
            Cause::Closed
            | Cause::Aborted
            | Cause::HandlerFailed(_)
            | Cause::HandlerPanicked
            | Cause::CodecFailed(_)
            | Cause::Refused => Blame::App,
            Cause::FirstFrameTimeout
            | Cause::FrameTimeout
            | Cause::IdleTimeout
            | Cause::WriteStalled
            | Cause::Overflow
            | Cause::Evicted
            | Cause::OutOfMemory
            | Cause::Lagged => Blame::Limit,
            Cause::ServerStopped | Cause::Drained => Blame::Operator,
            Cause::Io(..) => Blame::System,
        }
    }

    /// What an error of the system says about a connection.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        let kind = error.kind();
        if matches!(
            kind,
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
        ) {
            return Cause::PeerReset;
        }
        Cause::Io(kind, error.raw_os_error())
    }

    pub(crate) fn handler_failed(error: BoxError) -> Self {
        Cause::HandlerFailed(Arc::from(error))
    }

    pub(crate) fn codec_failed(error: BoxError) -> Self {
        Cause::CodecFailed(Arc::from(error))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::PeerFinished => write!(f, "the peer finished"),
            Cause::PeerReset => write!(f, "the peer reset the connection"),
            Cause::Truncated => write!(f, "the peer finished in the middle of a frame"),
            Cause::Closed => write!(f, "closed by the protocol"),
            Cause::Aborted => write!(f, "aborted"),
            Cause::HandlerFailed(error) => write!(f, "the handler failed: {error}"),
            Cause::HandlerPanicked => write!(f, "the handler panicked"),
            Cause::CodecFailed(error) => write!(f, "the codec failed: {error}"),
            Cause::FirstFrameTimeout => write!(f, "the first frame did not come in time"),
            Cause::FrameTimeout => write!(f, "a frame did not end in time"),
            Cause::IdleTimeout => write!(f, "the peer was silent for too long"),
            Cause::WriteStalled => write!(f, "the peer took no output for too long"),
            Cause::Overflow => write!(f, "too much output was queued"),
            Cause::Evicted => write!(f, "idle, it made room for another"),
            Cause::Refused => write!(f, "the filter did not let it in"),
            Cause::OutOfMemory => write!(f, "too much memory was used"),
            Cause::Lagged => write!(f, "too far behind its group"),
            Cause::ServerStopped => write!(f, "the server was stopped"),
            Cause::Drained => write!(f, "the server drained"),
            Cause::Io(kind, Some(errno)) => write!(f, "{kind} (error {errno})"),
            Cause::Io(kind, None) => write!(f, "{kind}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reset_is_the_peers_doing_and_an_unknown_error_the_systems() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert_eq!(Cause::of_io(&reset).label(), "peer_reset");
        let other = io::Error::from_raw_os_error(5);
        let reason = CloseReason::new(Cause::of_io(&other), ClosePhase::Open, 7);
        assert_eq!((reason.blame(), reason.errno()), (Blame::System, Some(5)));
        assert!(reason.to_string().ends_with("(7 bytes unsent)"));
    }
}
