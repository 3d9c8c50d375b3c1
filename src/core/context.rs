//! `Context`: the narrow hand that a protocol has on its connection while one of its calls runs.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::codec::{Codec, Parts};
use super::hand::Hand;
use super::post::{Office, Post};
use super::refusal::{SendError, TimersFull};
use crate::parts::buf::Outbox;
use crate::words::config::{Rate, Shaper, Timeouts};
use crate::words::error::BoxError;
use crate::words::id::ConnId;
use crate::words::reason::Cause;
use crate::words::sync::Arc;

/// A codec with all forgotten but what it encodes.
pub(crate) trait Encode<M> {
    fn encode(&mut self, message: M, outbox: &mut Outbox) -> Result<(), BoxError>;

    /// As [`Codec::encode_parts`]: `None` if it takes whole messages only.
    fn encode_parts(
        &mut self,
        parts: Parts<'_>,
        outbox: &mut Outbox,
    ) -> Option<Result<(), BoxError>>;
}

impl<C: Codec> Encode<C::Message> for C {
    fn encode(&mut self, message: C::Message, outbox: &mut Outbox) -> Result<(), BoxError> {
        Codec::encode(self, message, outbox).map_err(Into::into)
    }

    fn encode_parts(
        &mut self,
        parts: Parts<'_>,
        outbox: &mut Outbox,
    ) -> Option<Result<(), BoxError>> {
        Codec::encode_parts(self, parts, outbox).map(|encoded| encoded.map_err(Into::into))
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

    /// What belongs to the connection, for those who add to what can be done with it.
    pub(super) fn hand_mut(&mut self) -> &mut Hand {
        self.hand
    }

    pub(super) fn office_and_id(&self) -> (&'a dyn Office, ConnId) {
        (self.office, self.hand.id)
    }

    pub(super) fn note_offload(&mut self) {
        self.hand.offloads_count += 1;
    }

    /// The connection's name, which no other one of this server has: for logs and maps.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.hand.id
    }

    /// The mailbox of the reactor at hand.
    pub(crate) fn post(&self) -> Arc<dyn Post> {
        self.office.post()
    }

    /// The address of the other end, as it was when the connection was accepted.
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

    /// How long the input that is being handled has waited: from when its connection was ready, or
    /// last had its turn, until now. Reads the clock.
    #[must_use]
    pub fn queue_wait(&self) -> Duration {
        self.office.now().since(self.hand.ready_since)
    }

    /// Queues a message; it is written when the handler returns.
    ///
    /// # Errors
    /// [`SendError::Closing`] after `finish`, `close` or `abort`; [`SendError::Refused`] if the
    /// codec cannot encode the message; [`SendError::Overflow`] if the peer is so slow that more
    /// than `send_max_bytes` would be queued: the connection is reset then; [`SendError::Full`] if
    /// [`Overflow::DropNewest`](crate::config::Overflow) says that it is not, and the message is
    /// dropped.
    pub fn send(&mut self, message: impl Into<M>) -> Result<(), SendError> {
        self.send_with(|encoder, outbox| encoder.encode(message.into(), outbox))
    }

    /// Queues what `encode` appends, if output may still be queued.
    #[inline]
    pub(crate) fn send_with(
        &mut self,
        encode: impl FnOnce(&mut dyn Encode<M>, &mut Outbox) -> Result<(), BoxError>,
    ) -> Result<(), SendError> {
        if !self.hand.is_open() {
            return Err(SendError::Closing);
        }
        let before = self.hand.outbox.len_bytes();
        encode(self.encoder, &mut self.hand.outbox).map_err(SendError::Refused)?;
        self.hand.check_overflow(before)
    }

    /// Has [`on_timer`](crate::Handler::on_timer) called with `key` once `after` has passed: never
    /// earlier, and as a rule less than two milliseconds later. A timer with that key that is set
    /// already is replaced. Timers end with the connection, and with [`close`](Context::close).
    ///
    /// ```
    /// use std::io::Read;
    /// use std::net::TcpStream;
    /// use std::time::Duration;
    /// use bytes::BytesMut;
    /// use switchboard::{Context, Handler, Outcome, Raw, Server};
    ///
    /// struct Ticker;
    /// const TICK: u64 = 1;
    ///
    /// impl Handler for Ticker {
    ///     fn on_open(&mut self, cx: &mut Context) -> Outcome {
    ///         Ok(cx.set_timer(TICK, Duration::from_millis(10))?)
    ///     }
    ///     fn on_timer(&mut self, cx: &mut Context, _key: u64) -> Outcome {
    ///         cx.send("tick")?;
    ///         Ok(cx.set_timer(TICK, Duration::from_millis(10))?)
    ///     }
    ///     fn on_frame(&mut self, _: &mut Context, _: BytesMut) -> Outcome {
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder().listen("127.0.0.1:0", Raw::new(), |_peer| Ticker).start()?;
    /// let mut client = TcpStream::connect(server.local_addr())?;
    /// let mut ticks = [0; 8];
    /// client.read_exact(&mut ticks)?;
    /// assert_eq!(&ticks, b"ticktick");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`TimersFull`] if `timers_max` others are set.
    pub fn set_timer(&mut self, key: u64, after: Duration) -> Result<(), TimersFull> {
        let (hand, at) = (&mut *self.hand, self.office.now() + after);
        let max = hand.timers_max;
        let set = hand.timers.get_or_insert_default().set(key, at, max);
        if set { Ok(()) } else { Err(TimersFull { max }) }
    }

    /// Takes the timer `key` back: it does not fire, even if its time has come already. False if it
    /// is not set: it has fired, or never was.
    pub fn cancel_timer(&mut self, key: u64) -> bool {
        self.hand.timers.as_mut().is_some_and(|timers| timers.cancel(key))
    }

    /// Changes the timeouts of this connection; they begin as those of its listener. They count
    /// from when the handler returns. One that is out of its range is brought to the nearer end.
    ///
    /// ```
    /// use std::time::Duration;
    /// use switchboard::config::Idle;
    /// use switchboard::{Raw, handler_fn};
    ///
    /// // Who has said hello may be silent for as long as it likes.
    /// let lenient = handler_fn(|cx, bytes| {
    ///     if bytes.starts_with(b"hello") {
    ///         cx.set_timeouts(|timeouts| timeouts.idle = Idle::Never);
    ///     }
    ///     cx.send(bytes)
    /// });
    /// # drop(lenient);
    /// ```
    pub fn set_timeouts(&mut self, change: impl FnOnce(&mut Timeouts)) {
        let (hand, office) = (&mut *self.hand, self.office);
        let timeouts = hand.timeouts.get_or_insert_with(|| Arc::new(office.timeouts(hand.door)));
        let timeouts = Arc::make_mut(timeouts);
        change(timeouts);
        timeouts.clamp();
        hand.timeouts_changed = true;
    }

    /// Bounds what is read from this connection, in bytes, or no longer; it begins as its listener
    /// says. Counts from when the handler returns. A rate that is out of its range is brought to
    /// the nearer end; what is left of the former one, or owed, stays.
    ///
    /// ```
    /// use switchboard::config::Rate;
    /// use switchboard::handler_fn;
    ///
    /// // Who uploads does so at 1 MiB per second.
    /// let upload = handler_fn(|cx, bytes| {
    ///     if bytes.starts_with(b"upload") {
    ///         cx.set_read_rate(Some(Rate::per_second(1 << 20)));
    ///     }
    ///     cx.send(bytes)
    /// });
    /// # drop(upload);
    /// ```
    pub fn set_read_rate(&mut self, rate: Option<Rate>) {
        self.hand.reshape.get_or_insert_default().read = Some(rate);
    }

    /// Bounds what is written to this connection, in bytes, or no longer, as
    /// [`set_read_rate`](Context::set_read_rate) does for what is read: this call's output waits
    /// for its turn already.
    pub fn set_send_rate(&mut self, rate: Option<Rate>) {
        self.hand.reshape.get_or_insert_default().send = Some(rate);
    }

    /// Makes this connection one of the group that shares `shaper`, in place of a group that it
    /// has joined before. It belongs to that of its [`Listening`](crate::config::Listening), too.
    pub fn join_shaper(&mut self, shaper: &Shaper) {
        self.hand.reshape.get_or_insert_default().joined = Some(Some(shaper.clone()));
    }

    /// Leaves the group that it has joined, if it has; that of its listener stays.
    pub fn leave_shaper(&mut self) {
        self.hand.reshape.get_or_insert_default().joined = Some(None);
    }

    /// Stops reading: no further frame is shown to the handler, and what the peer sends waits in
    /// the system, so that it has to wait in the end. That the peer has finished is told once
    /// reading goes on; a reset ends the connection all the same.
    pub fn pause(&mut self) {
        self.hand.paused = true;
    }

    /// Reads again after a [`pause`](Context::pause), first what was read already and not shown.
    /// From outside of a handler: [`Handle::run`](crate::Handle::run). Nothing happens if it was
    /// not paused.
    pub fn resume(&mut self) {
        self.hand.paused = false;
    }

    /// Sends a message, and has [`on_flushed`](crate::Handler::on_flushed) called with `key` once
    /// the system has taken it and all that was sent before. Not called if the connection ends
    /// before: then the close reason tells how much was not taken.
    ///
    /// # Errors
    /// As [`send`](Context::send).
    pub fn send_with_notice(&mut self, message: impl Into<M>, key: u64) -> Result<(), SendError> {
        self.send(message)?;
        self.hand.note_flush(key);
        Ok(())
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

    /// Resets the connection when the handler returns: output that waits is lost and counted in
    /// the close reason, the peer sees a reset, and no further call but `on_close` comes.
    pub fn abort(&mut self) {
        self.hand.abort(Cause::Aborted);
    }
}

impl<M> fmt::Debug for Context<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({})", self.hand.id)
    }
}
