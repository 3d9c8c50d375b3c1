//! `Context`: the narrow hand that a protocol has on its connection while one of its calls runs.

use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;

use super::codec::Codec;
use super::handle::{Gate, Handle, Office};
use crate::parts::buf::Outbox;
use crate::words::error::BoxError;
use crate::words::id::ConnId;
use crate::words::reason::Cause;
use crate::words::sync::Arc;

/// What user code may touch of a connection, by value: it travels with the job.
#[derive(Debug)]
pub(crate) struct Hand {
    pub(crate) id: ConnId,
    pub(crate) peer: SocketAddr,
    pub(crate) outbox: Outbox,
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) verdict: Verdict,
    /// Output that was queued before this job.
    pub(crate) queued_bytes: usize,
    /// What the messages of other threads that this job encodes were counted for at the gate.
    pub(crate) posted_bytes: usize,
    pub(crate) send_max_bytes: usize,
}

/// What a job decided about its connection; a stronger one replaces a weaker one.
#[derive(Debug, Default)]
pub(crate) enum Verdict {
    /// Go on.
    #[default]
    Open,
    /// Our side has nothing more to say; the peer may.
    Finish,
    /// Flush, finish, linger.
    Close(Cause),
    /// Reset.
    Abort(Cause),
}

impl Verdict {
    /// Whether user code broke down.
    pub(crate) fn has_failed(&self) -> bool {
        match self {
            Verdict::Open | Verdict::Finish => false,
            Verdict::Close(cause) | Verdict::Abort(cause) => {
                matches!(cause, Cause::HandlerFailed(_) | Cause::HandlerPanicked)
            }
        }
    }
}

impl Hand {
    /// A hand that nobody has put anything into.
    pub(crate) fn blank() -> Self {
        Hand {
            id: ConnId::new(0, 0, 0),
            peer: SocketAddr::from(([0, 0, 0, 0], 0)),
            outbox: Outbox::new(),
            gate: None,
            verdict: Verdict::Open,
            queued_bytes: 0,
            posted_bytes: 0,
            send_max_bytes: 0,
        }
    }

    /// Whether output may still be queued.
    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.verdict, Verdict::Open)
    }

    /// Whether frames are still shown to the handler.
    #[inline]
    pub(crate) fn reads(&self) -> bool {
        matches!(self.verdict, Verdict::Open | Verdict::Finish)
    }

    pub(crate) fn finish(&mut self) {
        if matches!(self.verdict, Verdict::Open) {
            self.verdict = Verdict::Finish;
        }
    }

    pub(crate) fn close(&mut self, cause: Cause) {
        if self.reads() {
            self.verdict = Verdict::Close(cause);
        }
    }

    /// A close that `on_drain` asked for is the operator's doing.
    pub(crate) fn close_by_drain(&mut self) {
        if matches!(self.verdict, Verdict::Close(Cause::Closed)) {
            self.verdict = Verdict::Close(Cause::Drained);
        }
    }

    pub(crate) fn abort(&mut self, cause: Cause) {
        if !matches!(self.verdict, Verdict::Abort(_)) {
            self.verdict = Verdict::Abort(cause);
        }
    }

    /// Ends the connection if more output is queued than a connection may have.
    #[inline]
    pub(crate) fn check_overflow(&mut self) -> Result<(), SendError> {
        if self.queued_bytes + self.outbox.len_bytes() <= self.send_max_bytes {
            return Ok(());
        }
        self.abort(Cause::Overflow);
        Err(SendError::Overflow { max_bytes: self.send_max_bytes })
    }
}

/// A codec with all forgotten but what it encodes.
pub(crate) trait Encode<M> {
    fn encode(&mut self, message: M, outbox: &mut Outbox) -> Result<(), BoxError>;
}

impl<C: Codec> Encode<C::Message> for C {
    fn encode(&mut self, message: C::Message, outbox: &mut Outbox) -> Result<(), BoxError> {
        Codec::encode(self, message, outbox).map_err(Into::into)
    }
}

/// The connection, as one call of its [`Handler`](crate::Handler) sees it.
///
/// No call on it blocks or makes a system call. What is sent leaves when the handler returns, in
/// order. Of `finish`, `close` and `abort` the strongest counts, whichever comes first.
pub struct Context<'a, M = Bytes> {
    hand: &'a mut Hand,
    encoder: &'a mut dyn Encode<M>,
    office: &'a dyn Office,
}

impl<'a, M> Context<'a, M> {
    pub(crate) fn new(
        hand: &'a mut Hand,
        encoder: &'a mut dyn Encode<M>,
        office: &'a dyn Office,
    ) -> Self {
        Context { hand, encoder, office }
    }

    /// The connection's name.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.hand.id
    }

    /// The address of the other end, as it was when the connection was accepted; the one that we
    /// have connected to, if we opened it.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.hand.peer
    }

    /// Output that waits to be handed to the system, in bytes, this call's included; what was
    /// queued before is as of the moment at which the handler was called.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.hand.queued_bytes + self.hand.outbox.len_bytes()
    }

    /// Queues a message; it is written when the handler returns.
    ///
    /// # Errors
    /// [`SendError::Closing`] after `finish`, `close` or `abort`; [`SendError::Refused`] if the
    /// codec cannot encode the message; [`SendError::Overflow`] if the peer is so slow that more
    /// than `send_max_bytes` would be queued: the connection is reset then.
    pub fn send(&mut self, message: impl Into<M>) -> Result<(), SendError> {
        if !self.hand.is_open() {
            return Err(SendError::Closing);
        }
        let encoded = self.encoder.encode(message.into(), &mut self.hand.outbox);
        encoded.map_err(SendError::Refused)?;
        self.hand.check_overflow()
    }

    /// Finishes our side after what was sent: the peer sees the end of our output and may still
    /// send. The connection ends when the peer has finished too.
    pub fn finish(&mut self) {
        self.hand.finish();
    }

    /// Closes the connection after what was sent. No further frame is shown to the handler; input
    /// is read and thrown away until the peer finishes too or the linger time is over, so that the
    /// last output is not destroyed by a reset.
    pub fn close(&mut self) {
        self.hand.close(Cause::Closed);
    }

    /// Resets the connection when the handler returns; output that waits is lost.
    pub fn abort(&mut self) {
        self.hand.abort(Cause::Aborted);
    }

    /// The connection for other threads, or for later; see [`Handle`] for an example.
    ///
    /// The first one of a connection costs an allocation, every further one a counter.
    #[must_use]
    pub fn handle(&mut self) -> Handle<M>
    where
        M: Send + 'static,
    {
        let Hand { id, gate, send_max_bytes, .. } = &mut *self.hand;
        let make = || Arc::new(Gate::new(*id, *send_max_bytes, self.office.post()));
        Handle::new(Arc::clone(gate.get_or_insert_with(make)))
    }
}

impl<M> fmt::Debug for Context<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({})", self.hand.id)
    }
}

/// Why a handler's message was not queued.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The handler has already finished, closed or aborted its connection.
    Closing,
    /// The codec refused the message; the connection goes on.
    Refused(BoxError),
    /// More output would be queued than a connection may have; the connection is being reset.
    #[non_exhaustive]
    Overflow {
        /// The limit, in bytes: `send_max_bytes`.
        max_bytes: usize,
    },
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::Closing => f.write_str("the connection is closing"),
            SendError::Refused(error) => write!(f, "the codec refused the message: {error}"),
            SendError::Overflow { max_bytes } => {
                write!(f, "more than {max_bytes} bytes of output would be queued")
            }
        }
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            SendError::Refused(error) => Some(&**error),
            SendError::Closing | SendError::Overflow { .. } => None,
        }
    }
}
