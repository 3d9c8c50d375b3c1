//! `Bench`: one handler on a connection that is none, to be tested call by call.
//!
//! The record, the session and the jobs are those of a server; what plays the reactor stands in
//! `engine.rs`, what plays the socket and the peer in `wire.rs`.

mod engine;
mod groups;
mod wire;

#[cfg(test)]
mod tests;

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use self::engine::{Engine, PEER};
use crate::core::codec::Codec;
use crate::core::handle::Handle;
use crate::core::handler::Handler;
use crate::core::session::Once;
use crate::parts::buf::Outbox;
use crate::words::config::Limits;
use crate::words::error::BoxError;
use crate::words::reason::{Cause, CloseReason};
use crate::words::sync::Arc;

/// One handler, tested without sockets, threads and waiting.
///
/// A bench plays the peer, the clock and the operator of one connection; all between them is what
/// runs in a server: the codec is shown what arrives, in the pieces in which it arrives; timers and
/// timeouts fire; output queues up behind a slow peer, and reading stops; half-closed connections
/// live on. A panic of the handler ends its connection and stands in the [`CloseReason`].
///
/// Nothing happens but in a call of the bench, and when that returns, all that follows from it has
/// happened. Time stands still until it is [advanced](Bench::advance).
///
/// ```
/// use std::time::Duration;
/// use bytes::BytesMut;
/// use switchboard::testing::Bench;
/// use switchboard::{Context, Handler, LengthPrefixed, Outcome};
///
/// /// Answers in upper case, and says "?" when it has heard nothing for five seconds.
/// struct Shouter {
///     heard: u32,
/// }
/// const SILENCE: u64 = 1;
///
/// impl Handler for Shouter {
///     fn on_frame(&mut self, cx: &mut Context, frame: BytesMut) -> Outcome {
///         self.heard += 1;
///         cx.set_timer(SILENCE, Duration::from_secs(5))?;
///         Ok(cx.send(frame.to_ascii_uppercase())?)
///     }
///     fn on_timer(&mut self, cx: &mut Context, _key: u64) -> Outcome {
///         Ok(cx.send("?")?)
///     }
/// }
///
/// let mut bench = Bench::new(LengthPrefixed::u16(), |_peer| Shouter { heard: 0 });
/// bench.receive(b"\0\x05he");
/// assert_eq!(bench.sent(), b"", "the frame is not whole");
/// bench.receive(b"llo");
/// assert_eq!(bench.take_sent(), b"\0\x05HELLO");
///
/// bench.advance(Duration::from_secs(3));
/// assert_eq!(bench.timers(), [(SILENCE, Duration::from_secs(2))]);
/// bench.advance(Duration::from_secs(2));
/// assert_eq!(bench.sent_frames(LengthPrefixed::u16()), ["?"]);
///
/// assert_eq!(bench.handler(|shouter: &mut Shouter| shouter.heard), 1);
/// bench.finish();
/// assert_eq!(bench.into_end().cause().label(), "peer_finished");
/// ```
///
/// A handler may be a member of [groups](crate::group::Group), also together with those of other
/// benches; each is told in the next call of its bench, [`turn`](Bench::turn) for one.
///
/// What a bench cannot show: how long a handler takes, what happens while one runs, and where the
/// system cuts what is sent. Timers fire exactly at their time.
pub struct Bench<M = Bytes> {
    engine: Engine,
    message: PhantomData<fn(M)>,
}

impl<M: Send + 'static> Bench<M> {
    /// A connection with the default limits, that has just been opened.
    pub fn new<C, H>(codec: C, handler: impl FnOnce(SocketAddr) -> H + Send + 'static) -> Self
    where
        C: Codec<Message = M>,
        H: Handler<C::Frame, M>,
    {
        Bench::with_limits(codec, handler, |_| {})
    }

    /// A connection under limits that `change` makes of the default ones.
    ///
    /// ```
    /// use std::time::Duration;
    /// use switchboard::testing::Bench;
    /// use switchboard::{Raw, handler_fn};
    ///
    /// let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
    /// let mut bench = Bench::with_limits(Raw::new(), echo, |limits| {
    ///     limits.timeouts.first_frame = Some(Duration::from_secs(2));
    /// });
    /// bench.advance(Duration::from_secs(2));
    /// assert!(bench.was_reset());
    /// assert_eq!(bench.into_end().cause().label(), "first_frame_timeout");
    /// ```
    ///
    /// # Panics
    /// If a limit is out of its range.
    pub fn with_limits<C, H>(
        codec: C,
        handler: impl FnOnce(SocketAddr) -> H + Send + 'static,
        change: impl FnOnce(&mut Limits),
    ) -> Self
    where
        C: Codec<Message = M>,
        H: Handler<C::Frame, M>,
    {
        let mut limits = Limits::for_descriptors(None);
        change(&mut limits);
        if let Err(error) = limits.check() {
            panic!("{error}");
        }
        let engine = Engine::open(limits, Arc::new(Once::new(codec, handler)));
        Bench { engine, message: PhantomData }
    }

    /// The peer's address, as the handler sees it.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        PEER.into()
    }

    /// The peer sends bytes, in one piece. Nothing happens if the connection has ended.
    ///
    /// # Panics
    /// If the peer has [finished](Bench::finish) or [reset](Bench::reset) before; and, as every
    /// call that lets something happen, if the handler never comes to rest.
    pub fn receive(&mut self, bytes: &[u8]) {
        let wire = &mut self.engine.wire;
        assert!(!wire.fin && !wire.reset, "the peer has finished, and sends on");
        wire.incoming.extend_from_slice(bytes);
        self.engine.with(|conn, now| conn.handle_readable(false, now));
    }

    /// The peer sends bytes in pieces of so many; the last one may be shorter.
    ///
    /// # Panics
    /// If `piece` is 0, and as [`receive`](Bench::receive).
    pub fn receive_in_pieces(&mut self, bytes: &[u8], piece: usize) {
        bytes.chunks(piece).for_each(|piece| self.receive(piece));
    }

    /// The peer sends a message, which this codec encodes, in one piece.
    ///
    /// # Panics
    /// If the codec refuses the message, and as [`receive`](Bench::receive).
    pub fn receive_frame<C: Codec>(&mut self, mut codec: C, message: impl Into<C::Message>) {
        let mut outbox = Outbox::new();
        let encoded = codec.encode(message.into(), &mut outbox);
        if let Err(error) = encoded.map_err(Into::<BoxError>::into) {
            panic!("the codec refuses what the peer is to send: {error}");
        }
        self.receive(&outbox.to_vec());
    }

    /// The peer finishes: the handler sees the end of input behind what was sent before.
    pub fn finish(&mut self) {
        self.engine.wire.fin = true;
        self.engine.with(|conn, now| conn.handle_readable(true, now));
    }

    /// The peer resets the connection.
    pub fn reset(&mut self) {
        self.engine.wire.reset = true;
        self.engine.with(|conn, now| {
            conn.handle_readable(true, now);
            conn.handle_hangup();
        });
    }

    /// From now on the system takes nothing more: output queues up. Until this is called it takes
    /// everything at once.
    ///
    /// ```
    /// use switchboard::testing::Bench;
    /// use switchboard::{Raw, handler_fn};
    ///
    /// let echo = |_peer| handler_fn(|cx, bytes| cx.send(bytes));
    /// let mut bench = Bench::with_limits(Raw::new(), echo, |limits| {
    ///     (limits.send_high_bytes, limits.send_low_bytes) = (4, 2);
    /// });
    /// bench.block_output();
    /// bench.receive(b"much");
    /// bench.receive(b"more");
    /// assert_eq!((bench.queued_bytes(), bench.unread_bytes()), (4, 4), "it reads no more");
    /// bench.peer_takes(2);
    /// assert_eq!((bench.sent(), bench.unread_bytes()), (&b"mu"[..], 0), "it reads again");
    /// bench.unblock_output();
    /// assert_eq!(bench.sent(), b"muchmore");
    /// ```
    pub fn block_output(&mut self) {
        self.engine.wire.room = 0;
        self.engine.settle();
    }

    /// The system takes so many bytes more of the output, and then no more.
    pub fn peer_takes(&mut self, count: usize) {
        let room = &mut self.engine.wire.room;
        *room = if *room == usize::MAX { count } else { room.saturating_add(count) };
        self.engine.with(|conn, _| conn.handle_writable());
    }

    /// The system takes everything again.
    pub fn unblock_output(&mut self) {
        self.engine.wire.room = usize::MAX;
        self.engine.with(|conn, _| conn.handle_writable());
    }

    /// Lets time go by: the timers of the handler fire, and the timeouts of the connection, each at
    /// its time and in order.
    ///
    /// # Panics
    /// If a handler sets timers that are due at once, over and over.
    pub fn advance(&mut self, time: Duration) {
        self.engine.advance(time);
    }

    /// Delivers what was asked for through handles; every other call does, too.
    pub fn turn(&mut self) {
        self.engine.settle();
    }

    /// The server drains: the handler is asked to come to an end.
    pub fn drain(&mut self) {
        self.engine.with(|conn, now| {
            conn.handle_drain(now);
        });
    }

    /// The server stops: the connection ends at once.
    pub fn stop(&mut self) {
        self.engine.with(|conn, _| conn.die(Cause::ServerStopped));
    }

    /// A handle of the connection. What is asked for through it happens in the next call of the
    /// bench; it may be used on any thread.
    ///
    /// ```
    /// use switchboard::testing::Bench;
    /// use switchboard::{Raw, handler_fn};
    ///
    /// let mut bench = Bench::new(Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)));
    /// let handle = bench.handle();
    /// handle.try_send("news")?;
    /// assert_eq!(bench.sent(), b"");
    /// bench.turn();
    /// assert_eq!(bench.sent(), b"news");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn handle(&self) -> Handle<M> {
        Handle::new(Arc::clone(&self.engine.gate))
    }

    /// Looks into the handler, which may have changed since: see
    /// [`switch`](crate::Context::switch).
    ///
    /// # Panics
    /// If the connection has ended, or its handler is no `H`.
    pub fn handler<H: 'static, T>(&mut self, look: impl FnOnce(&mut H) -> T) -> T {
        let conn = self.engine.conn.as_mut().expect("the connection has not ended");
        let handler = conn.handler_mut().expect("a connection at rest has a handler");
        look(handler.downcast_mut().expect("the handler is of that type"))
    }

    /// Whether the handler is of this type.
    #[must_use]
    pub fn has_handler<H: 'static>(&mut self) -> bool {
        let handler = self.engine.conn.as_mut().and_then(|conn| conn.handler_mut());
        handler.is_some_and(|handler| handler.is::<H>())
    }

    /// What the system has taken of the output, since the beginning or since it was
    /// [taken](Bench::take_sent).
    #[must_use]
    pub fn sent(&self) -> &[u8] {
        &self.engine.wire.sent
    }

    /// Takes what the system has taken of the output.
    #[must_use]
    pub fn take_sent(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.engine.wire.sent)
    }

    /// Takes what the system has taken of the output, as this codec decodes it.
    ///
    /// # Panics
    /// If that are no whole frames.
    #[must_use]
    pub fn sent_frames<C: Codec>(&mut self, mut codec: C) -> Vec<C::Frame> {
        let mut bytes = BytesMut::from(&self.take_sent()[..]);
        let mut frames = Vec::new();
        loop {
            match codec.decode(&mut bytes).map_err(Into::<BoxError>::into) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => panic!("what was sent is no frame: {error}"),
            }
        }
        assert!(bytes.is_empty(), "behind {} frames {bytes:?} is no frame", frames.len());
        frames
    }

    /// Output that the system has not taken.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.engine.conn.as_ref().map_or(0, |conn| conn.queued_bytes())
    }

    /// Input that the peer has sent and the connection does not read: the handler has
    /// [paused](crate::Context::pause), or too much output is queued.
    #[must_use]
    pub fn unread_bytes(&self) -> usize {
        self.engine.wire.incoming.len()
    }

    /// Whether the handler has paused reading.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.engine.paused
    }

    /// The timers that the handler has set: their keys, and how long each still takes; the next
    /// one first.
    #[must_use]
    pub fn timers(&self) -> Vec<(u64, Duration)> {
        let now = self.engine.now;
        self.engine.conn.as_ref().map(|conn| conn.timers_left(now)).unwrap_or_default()
    }

    /// How long time has gone by.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.engine.now.since(crate::words::clock::Time::ZERO)
    }

    /// Messages and closures that came for another codec or handler; see
    /// [`misdirected`](crate::control::ReactorSnapshot::misdirected).
    #[must_use]
    pub fn misdirected_count(&self) -> u64 {
        self.engine.misdirected_count
    }

    /// Messages that found no room, under
    /// [`Overflow::DropNewest`](crate::config::Overflow::DropNewest).
    #[must_use]
    pub fn dropped_count(&self) -> u64 {
        self.engine.dropped_count
    }

    /// Calls that have panicked.
    #[must_use]
    pub fn panic_count(&self) -> u64 {
        self.engine.panic_count
    }

    /// Whether the peer has seen the end of our output.
    #[must_use]
    pub fn has_finished(&self) -> bool {
        self.engine.wire.finished
    }

    /// Whether we have reset the connection.
    #[must_use]
    pub fn was_reset(&self) -> bool {
        self.engine.wire.was_reset
    }

    /// Why the connection has ended; `None` while it has not. One that was closed ends when its
    /// peer finishes, too, or with the [`linger`](crate::config::Timeouts::linger) time.
    #[must_use]
    pub fn end(&self) -> Option<&CloseReason> {
        self.engine.reason.as_ref()
    }

    /// Why the connection has ended.
    ///
    /// # Panics
    /// If it has not.
    #[must_use]
    pub fn into_end(mut self) -> CloseReason {
        self.engine.reason.take().expect("the connection has ended")
    }
}

impl<M> fmt::Debug for Bench<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bench").field(&self.engine).finish()
    }
}
