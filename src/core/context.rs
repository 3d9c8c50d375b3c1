//! `Context`: the narrow hand that a protocol has on its connection while one of its calls runs.

use std::any::TypeId;
use std::error::Error as StdError;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use super::codec::{Codec, Parts};
use super::framed::Framed;
use super::handle::{Gate, Handle, Office, Post};
use super::handler::Handler;
use super::session::Session;
use super::shaping::Reshape;
use super::timers::Timers;
use crate::parts::buf::Outbox;
use crate::words::clock::Time;
use crate::words::config::{Overflow, Rate, Shaper, Timeouts};
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
    pub(crate) overflow: Overflow,
    /// Messages that found no room.
    pub(crate) dropped_count: u32,
    /// When the job was made.
    pub(crate) now: Time,
    /// Through which listener the connection came.
    pub(crate) door: u16,
    /// Those of the protocol; here while the session is out.
    pub(crate) timers: Option<Box<Timers>>,
    pub(crate) timers_max: usize,
    /// The connection's own timeouts, if it has any.
    pub(crate) timeouts: Option<Arc<Timeouts>>,
    pub(crate) timeouts_changed: bool,
    /// The protocol does not want to read.
    pub(crate) paused: bool,
    /// It stopped reading before it was shown all of its input.
    pub(crate) unserved: bool,
    /// ... or that its input has ended.
    pub(crate) eof_left: bool,
    /// What the handler has put into its own place.
    pub(crate) successor: Option<Box<dyn Session>>,
    /// Of what type the handler is.
    pub(crate) handler: TypeId,
    /// Where in this job's output a notice is due, and its key.
    pub(crate) marks: Vec<(usize, u64)>,
    /// How much this job had to say.
    pub(crate) said_bytes: usize,
    /// What came for a codec or handler that is not there any more.
    pub(crate) misdirected_count: u32,
    /// Jobs that were off-loaded.
    pub(crate) offloads_count: i16,
    /// Frames that had waited for too long.
    pub(crate) shed_count: u32,
    /// Since when its input has waited, and how long it may.
    pub(crate) ready_since: Time,
    pub(crate) queue_wait_max: Option<Duration>,
    /// ... or that the server drains.
    pub(crate) drain_left: bool,
    /// Frames that were handled.
    pub(crate) frames_count: usize,
    /// How many may be, before others get their turn.
    pub(crate) frames_max: usize,
    /// What was changed of the rates that the connection is held to.
    pub(crate) reshape: Option<Box<Reshape>>,
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
            overflow: Overflow::Close,
            dropped_count: 0,
            now: Time::ZERO,
            door: 0,
            timers: None,
            timers_max: 0,
            timeouts: None,
            timeouts_changed: false,
            paused: false,
            unserved: false,
            eof_left: false,
            successor: None,
            handler: TypeId::of::<()>(),
            marks: Vec::new(),
            said_bytes: 0,
            misdirected_count: 0,
            offloads_count: 0,
            shed_count: 0,
            ready_since: Time::ZERO,
            queue_wait_max: None,
            drain_left: false,
            frames_count: 0,
            frames_max: usize::MAX,
            reshape: None,
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
        self.stays() && self.listens()
    }

    /// Whether the protocol has not closed.
    pub(crate) fn listens(&self) -> bool {
        matches!(self.verdict, Verdict::Open | Verdict::Finish)
    }

    /// Whether the handler goes on, and has not put another one into its place.
    #[inline]
    pub(crate) fn stays(&self) -> bool {
        self.successor.is_none()
    }

    /// The end of what was said up to now is to be told of when the system has taken it.
    pub(crate) fn note_flush(&mut self, key: u64) {
        self.marks.push((self.outbox.len_bytes(), key));
    }

    /// Whether no further frame is shown in this job.
    #[inline]
    pub(crate) fn stops(&self) -> bool {
        let paused = self.paused && !cfg!(switchboard_sim_mutant = "pause_unheeded");
        paused || self.frames_count >= self.frames_max
    }

    /// Takes the next timer that is due, if the protocol is still to hear of it.
    pub(crate) fn pop_timer(&mut self) -> Option<u64> {
        if !self.listens() {
            return None;
        }
        self.timers.as_mut()?.pop_due(self.now)
    }

    pub(crate) fn finish(&mut self) {
        if matches!(self.verdict, Verdict::Open) {
            self.verdict = Verdict::Finish;
        }
    }

    pub(crate) fn close(&mut self, cause: Cause) {
        if self.listens() {
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

    /// A message was encoded behind the first `before` bytes of this job's output. If that is more
    /// than a connection may have queued, the message is taken back or the connection ends.
    #[inline]
    pub(crate) fn check_overflow(&mut self, before: usize) -> Result<(), SendError> {
        let max_bytes = self.send_max_bytes;
        if self.queued_bytes + self.outbox.len_bytes() <= max_bytes {
            return Ok(());
        }
        match self.overflow {
            Overflow::Close => {
                self.abort(Cause::Overflow);
                Err(SendError::Overflow { max_bytes })
            }
            Overflow::DropNewest => {
                self.outbox.truncate(before);
                self.dropped_count += 1;
                Err(SendError::Full { max_bytes })
            }
        }
    }
}

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

    pub(super) fn office_and_id(&self) -> (&'a dyn Office, ConnId) {
        (self.office, self.hand.id)
    }

    pub(super) fn note_offload(&mut self) {
        self.hand.offloads_count += 1;
    }

    /// The connection's name.
    #[must_use]
    pub fn id(&self) -> ConnId {
        self.hand.id
    }

    /// The mailbox of the reactor at hand.
    pub(crate) fn post(&self) -> Arc<dyn Post> {
        self.office.post()
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
    /// [`Overflow::DropNewest`] says that it is not, and the message is dropped.
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

    /// The same for what is written to it, this call's output included.
    pub fn set_send_rate(&mut self, rate: Option<Rate>) {
        self.hand.reshape.get_or_insert_default().send = Some(rate);
    }

    /// Makes this connection one of the group that shares `shaper`, in place of a group that it
    /// has joined before. It belongs to that of its [`Listening`](crate::config::Listening), too.
    pub fn join_shaper(&mut self, shaper: &Shaper) {
        self.hand.reshape.get_or_insert_default().joined = Some(Some(shaper.clone()));
    }

    /// Leaves the group that it has joined, if it has.
    pub fn leave_shaper(&mut self) {
        self.hand.reshape.get_or_insert_default().joined = Some(None);
    }

    /// Stops reading: no further frame is shown to the handler, and what the peer sends waits in
    /// the system, so that it has to wait in the end. That the peer has finished is told once
    /// reading goes on; a reset ends the connection all the same.
    pub fn pause(&mut self) {
        self.hand.paused = true;
    }

    /// Reads again after a [`pause`](Context::pause).
    pub fn resume(&mut self) {
        self.hand.paused = false;
    }

    /// Sends a message, and has [`on_flushed`](crate::Handler::on_flushed) called with `key` once the
    /// system has taken it and all that was sent before. Not called if the connection ends before:
    /// then the close reason tells how much was not taken.
    ///
    /// # Errors
    /// As [`send`](Context::send).
    pub fn send_with_notice(&mut self, message: impl Into<M>, key: u64) -> Result<(), SendError> {
        self.send(message)?;
        self.hand.note_flush(key);
        Ok(())
    }

    /// Goes on with another codec and another handler: an upgrade, STARTTLS, a version that was
    /// agreed on. They take over when this call returns: bytes that were read and not used go to
    /// the new codec, `on_open` of the new handler is called, and the old one is dropped without
    /// its `on_close`. What this call sends is still encoded by the old codec; timers, timeouts and
    /// handles stay. A message of a handle goes to the new codec, or is dropped and counted
    /// ([`misdirected`](crate::control::ReactorSnapshot::misdirected)) if that takes messages of
    /// another type.
    ///
    /// ```
    /// use std::io::{Read, Write};
    /// use std::net::{Shutdown, TcpStream};
    /// use bytes::BytesMut;
    /// use switchboard::codec::Fixed;
    /// use switchboard::{Context, Handler, LengthPrefixed, Outcome, Raw, Server, handler_fn};
    ///
    /// /// Reads one byte that names the version, and speaks that.
    /// struct Version;
    ///
    /// impl Handler for Version {
    ///     fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
    ///         match &frame[..] {
    ///             [1] => cx.switch(Raw::new(), handler_fn(|cx, bytes| cx.send(bytes))),
    ///             [2] => cx.switch(LengthPrefixed::u16(), handler_fn(|cx, frame| cx.send(frame))),
    ///             _ => cx.abort(),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server =
    ///     Server::builder().listen("127.0.0.1:0", Fixed::new(1)?, |_peer| Version).start()?;
    /// let mut client = TcpStream::connect(server.local_addr())?;
    /// client.write_all(b"\x02\x00\x05hello")?;
    /// client.shutdown(Shutdown::Write)?;
    /// let mut reply = Vec::new();
    /// client.read_to_end(&mut reply)?;
    /// assert_eq!(reply, b"\x00\x05hello");
    /// # Ok(())
    /// # }
    /// ```
    pub fn switch<C, H>(&mut self, codec: C, handler: H)
    where
        C: Codec,
        H: Handler<C::Frame, C::Message>,
    {
        self.hand.successor = Some(Box::new(Framed::new(codec, handler)));
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
        let Hand { id, gate, send_max_bytes, handler, .. } = &mut *self.hand;
        let make = || Arc::new(Gate::new(*id, *handler, *send_max_bytes, self.office.post()));
        Handle::new(Arc::clone(gate.get_or_insert_with(make)))
    }
}

impl<M> fmt::Debug for Context<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Context({})", self.hand.id)
    }
}

/// A connection has as many timers as it may have: `timers_max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TimersFull {
    /// The limit.
    pub max: usize,
}

impl fmt::Display for TimersFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} timers are set, as many as one connection may have", self.max)
    }
}

impl StdError for TimersFull {}

/// Why a handler's message was not queued.
#[derive(Debug)]
#[non_exhaustive]
pub enum SendError {
    /// The handler has already finished, closed or aborted its connection.
    Closing,
    /// The codec refused the message; the connection goes on.
    Refused(BoxError),
    /// More output would be queued than a connection may have; the message was dropped and the
    /// connection goes on.
    #[non_exhaustive]
    Full {
        /// The limit, in bytes: `send_max_bytes`.
        max_bytes: usize,
    },
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
            SendError::Overflow { max_bytes } | SendError::Full { max_bytes } => {
                write!(f, "more than {max_bytes} bytes of output would be queued")
            }
        }
    }
}

impl StdError for SendError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            SendError::Refused(error) => Some(&**error),
            SendError::Closing | SendError::Overflow { .. } | SendError::Full { .. } => None,
        }
    }
}
