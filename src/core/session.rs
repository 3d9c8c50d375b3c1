//! `Session`: a codec and a handler joined, their types forgotten; it runs what a job asks for.

use std::fmt;
use std::net::SocketAddr;

use bytes::BytesMut;

use super::codec::Codec;
use super::context::{Context, Hand};
use super::handle::{Office, Parcel};
use super::handler::Handler;
use crate::words::reason::{Cause, CloseReason};

/// The user's half of a connection.
pub(crate) trait Session: Send {
    /// Makes the calls that `errand` asks for. `Err` is what ends the connection.
    fn serve(
        &mut self,
        errand: &mut Errand,
        input: &mut BytesMut,
        hand: &mut Hand,
        office: &dyn Office,
    ) -> Result<(), Cause>;

    /// The last call.
    fn close(&mut self, reason: &CloseReason);
}

impl fmt::Debug for dyn Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}

/// What a job has to do beside decoding its input. Most often nothing.
#[derive(Debug, Default)]
pub(crate) struct Errand {
    pub(crate) open: bool,
    pub(crate) eof: bool,
    pub(crate) inbox: Option<Box<Inbox>>,
}

/// What has come for a session from elsewhere than the peer.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) parcels: Vec<Parcel>,
    /// What these were counted for at the gate.
    pub(crate) posted_bytes: usize,
    /// Output has fallen to the low watermark.
    pub(crate) drained: bool,
    /// The server drains.
    pub(crate) drain: bool,
}

#[cfg(test)]
impl Errand {
    pub(crate) fn inbox_mut(&mut self) -> &mut Inbox {
        self.inbox.get_or_insert_default()
    }

    pub(crate) fn is_drained(&self) -> bool {
        self.inbox.as_ref().is_some_and(|inbox| inbox.drained)
    }

    pub(crate) fn is_drain(&self) -> bool {
        self.inbox.as_ref().is_some_and(|inbox| inbox.drain)
    }
}

/// Makes the session of a new connection; user code, hence called in a job.
pub(crate) trait Factory: Send + Sync {
    fn session(&self, peer: SocketAddr) -> Box<dyn Session>;
}

/// A factory from a codec to clone and a closure that makes handlers.
pub(crate) struct Maker<C, N> {
    pub(crate) codec: C,
    pub(crate) handler: N,
}

impl<C, N, H> Factory for Maker<C, N>
where
    C: Codec + Clone + Sync,
    N: Fn(SocketAddr) -> H + Send + Sync,
    H: Handler<C::Frame, C::Message>,
{
    fn session(&self, peer: SocketAddr) -> Box<dyn Session> {
        Box::new(Framed { codec: self.codec.clone(), handler: (self.handler)(peer) })
    }
}

/// A codec and the handler of its frames.
struct Framed<C, H> {
    codec: C,
    handler: H,
}

impl<C, H> Session for Framed<C, H>
where
    C: Codec,
    H: Handler<C::Frame, C::Message>,
{
    fn serve(
        &mut self,
        errand: &mut Errand,
        input: &mut BytesMut,
        hand: &mut Hand,
        office: &dyn Office,
    ) -> Result<(), Cause> {
        let Framed { codec, handler } = self;
        if std::mem::take(&mut errand.open) {
            handler
                .on_open(&mut Context::new(hand, codec, office))
                .map_err(Cause::handler_failed)?;
        }
        let mut inbox = errand.inbox.take();
        if let Some(inbox) = &mut inbox {
            inbox.parcels.drain(..).try_for_each(|parcel| send(codec, parcel, hand))?;
        }
        self.frames(input, hand, office)?;
        let eof = std::mem::take(&mut errand.eof);
        if !eof && inbox.is_none() && hand.timers.is_none() {
            return Ok(());
        }
        let inbox = inbox.unwrap_or_default();
        // Before the end of input, at which most handlers finish: then room is of no use.
        if inbox.drained && hand.is_open() {
            let Framed { codec, handler } = self;
            let mut cx = Context::new(hand, codec, office);
            handler.on_drained(&mut cx).map_err(Cause::handler_failed)?;
        }
        if eof && hand.reads() {
            self.end_of_input(input, hand, office)?;
        }
        let Framed { codec, handler } = self;
        while let Some(key) = hand.pop_timer() {
            let mut cx = Context::new(hand, codec, office);
            handler.on_timer(&mut cx, key).map_err(Cause::handler_failed)?;
        }
        if inbox.drain && hand.unserved && !hand.paused {
            // After the input that has arrived already.
            hand.drain_left = true;
        } else if inbox.drain && hand.reads() {
            let mut cx = Context::new(hand, codec, office);
            handler.on_drain(&mut cx).map_err(Cause::handler_failed)?;
            hand.close_by_drain();
        }
        Ok(())
    }

    fn close(&mut self, reason: &CloseReason) {
        self.handler.on_close(reason);
    }
}

impl<C, H> Framed<C, H>
where
    C: Codec,
    H: Handler<C::Frame, C::Message>,
{
    /// Shows the handler every frame that is whole, until it does not want any more.
    #[inline]
    fn frames(
        &mut self,
        input: &mut BytesMut,
        hand: &mut Hand,
        office: &dyn Office,
    ) -> Result<(), Cause> {
        let Framed { codec, handler } = self;
        while hand.reads() {
            if hand.stops() {
                hand.unserved = !input.is_empty();
                break;
            }
            let decoded = codec.decode(input).map_err(|error| Cause::codec_failed(error.into()))?;
            let Some(frame) = decoded else { break };
            hand.frames_count += 1;
            let mut cx = Context::new(hand, codec, office);
            handler.on_frame(&mut cx, frame).map_err(Cause::handler_failed)?;
        }
        Ok(())
    }

    /// Takes the last frames, then tells the handler that there are no more.
    fn end_of_input(
        &mut self,
        input: &mut BytesMut,
        hand: &mut Hand,
        office: &dyn Office,
    ) -> Result<(), Cause> {
        let Framed { codec, handler } = self;
        while !hand.stops() {
            let decoded = codec.decode_eof(input);
            let decoded = decoded.map_err(|error| Cause::codec_failed(error.into()))?;
            let mut cx = Context::new(hand, codec, office);
            let Some(frame) = decoded else {
                if !input.is_empty() {
                    return Err(Cause::Truncated);
                }
                return handler.on_eof(&mut cx).map_err(Cause::handler_failed);
            };
            handler.on_frame(&mut cx, frame).map_err(Cause::handler_failed)?;
            hand.frames_count += 1;
            if !hand.reads() {
                return Ok(());
            }
        }
        hand.eof_left = true;
        Ok(())
    }
}

/// Encodes what another thread sent.
fn send<C: Codec>(codec: &mut C, parcel: Parcel, hand: &mut Hand) -> Result<(), Cause> {
    let message = parcel.unpack::<C::Message>();
    debug_assert!(message.is_some(), "a handle is made with its codec's message type");
    let Some(message) = message else { return Ok(()) };
    let encoded = codec.encode(message, &mut hand.outbox);
    encoded.map_err(|error| Cause::codec_failed(error.into()))?;
    hand.check_overflow().map_err(|_| Cause::Overflow)
}
