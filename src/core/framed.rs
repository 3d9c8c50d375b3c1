//! `Framed`: a codec and the handler of its frames; the one place that makes a handler's calls.

use std::any::TypeId;

use bytes::BytesMut;

use super::codec::Codec;
use super::context::Context;
use super::hand::Hand;
use super::handler::Handler;
use super::post::{Office, Parcel};
use super::refusal::SendError;
use super::session::{Errand, Inbox, Session};
use super::visit::Visit;
use crate::words::error::Outcome;
use crate::words::reason::{Cause, CloseReason};
use crate::words::sync::lock;

/// A codec and the handler of its frames.
pub(super) struct Framed<C, H> {
    codec: C,
    handler: H,
}

/// One run of them.
struct Run<'a, C, H> {
    codec: &'a mut C,
    handler: &'a mut H,
    hand: &'a mut Hand,
    office: &'a dyn Office,
}

impl<C, H> Framed<C, H> {
    pub(super) fn new(codec: C, handler: H) -> Self {
        Framed { codec, handler }
    }
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
        hand.handler = TypeId::of::<H>();
        let Framed { codec, handler } = self;
        let mut run = Run { codec, handler, hand, office };
        if std::mem::take(&mut errand.open) {
            if let Some(gate) = &run.hand.gate {
                *lock(&gate.handler) = run.hand.handler;
            }
            run.call(|handler, cx| handler.on_open(cx))?;
        }
        if let Some(inbox) = &mut errand.inbox {
            run.parcels(inbox)?;
        }
        run.frames(input)?;
        if errand.is_done() && run.hand.timers.is_none() {
            return Ok(());
        }
        run.rest(errand, input)
    }

    fn close(&mut self, reason: &CloseReason) {
        self.handler.on_close(reason);
    }

    #[cfg(any(test, feature = "testing"))]
    fn handler_mut(&mut self) -> Option<&mut dyn std::any::Any> {
        Some(&mut self.handler)
    }
}

impl<C, H> Run<'_, C, H>
where
    C: Codec,
    H: Handler<C::Frame, C::Message>,
{
    #[inline]
    fn call(
        &mut self,
        call: impl FnOnce(&mut H, &mut Context<'_, C::Message>) -> Outcome,
    ) -> Result<(), Cause> {
        let mut cx = Context::new(self.hand, self.codec, self.office);
        call(self.handler, &mut cx).map_err(Cause::handler_failed)
    }

    /// Encodes what other threads sent, and lets in those who visit. Behind the last word of one
    /// of these nothing is said, as behind a close of another thread.
    fn parcels(&mut self, inbox: &mut Inbox) -> Result<(), Cause> {
        while self.hand.stays() && self.hand.is_open() {
            let Some(parcel) = inbox.parcels.pop_front() else { break };
            match parcel {
                Parcel::Visit(mut visit) => match visit.take::<Visit<H, C::Message>>() {
                    Some(visit) => self.call(visit)?,
                    // The handler is another one by now.
                    None => self.hand.misdirected_count += 1,
                },
                Parcel::Noticed(parcel, key) => {
                    if self.encode(*parcel)? {
                        self.hand.note_flush(key);
                    }
                }
                parcel @ (Parcel::Bytes(_) | Parcel::Other(_)) => {
                    self.encode(parcel)?;
                }
            }
        }
        if inbox.closes && self.hand.stays() {
            self.hand.close(Cause::Closed);
        }
        Ok(())
    }

    /// True if it is queued.
    fn encode(&mut self, parcel: Parcel) -> Result<bool, Cause> {
        let Some(message) = parcel.unpack::<C::Message>() else {
            // The codec is another one by now.
            self.hand.misdirected_count += 1;
            return Ok(false);
        };
        let before = self.hand.outbox.len_bytes();
        let encoded = self.codec.encode(message, &mut self.hand.outbox);
        encoded.map_err(|error| Cause::codec_failed(error.into()))?;
        match self.hand.check_overflow(before) {
            // Its sender is gone: the counter alone knows.
            Ok(()) => Ok(true),
            Err(SendError::Full { .. }) => Ok(false),
            Err(_) => Err(Cause::Overflow),
        }
    }

    /// Shows the handler every frame that is whole, until it does not want any more.
    #[inline]
    fn frames(&mut self, input: &mut BytesMut) -> Result<(), Cause> {
        while self.hand.reads() {
            if self.hand.stops() {
                self.hand.unserved = !input.is_empty();
                break;
            }
            let decoded = self.codec.decode(input);
            let decoded = decoded.map_err(|error| Cause::codec_failed(error.into()))?;
            let Some(frame) = decoded else { break };
            self.frame(frame)?;
        }
        Ok(())
    }

    #[inline]
    fn frame(&mut self, frame: C::Frame) -> Result<(), Cause> {
        self.hand.frames_count += 1;
        let waited = |max| self.office.now().since(self.hand.ready_since) > max;
        if self.hand.queue_wait_max.is_some_and(waited) {
            self.hand.shed_count += 1;
            return self.call(|handler, cx| handler.on_shed(cx, frame));
        }
        self.call(|handler, cx| handler.on_frame(cx, frame))
    }

    /// What happens seldom, after the frames.
    fn rest(&mut self, errand: &mut Errand, input: &mut BytesMut) -> Result<(), Cause> {
        if let Some(inbox) = &mut errand.inbox {
            while self.hand.stays() {
                let Some(key) = inbox.flushed.pop_front() else { break };
                self.call(|handler, cx| handler.on_flushed(cx, key))?;
            }
            // Before the end of input, at which most handlers finish: then room is of no use.
            let drained = self.hand.stays() && std::mem::take(&mut inbox.drained);
            if drained && self.hand.is_open() {
                self.call(|handler, cx| handler.on_drained(cx))?;
            }
            let lost = if self.hand.stays() { std::mem::take(&mut inbox.lagged) } else { 0 };
            if lost > 0 && self.hand.is_open() {
                self.call(|handler, cx| handler.on_lagged(cx, lost))?;
            }
        }
        if errand.eof && self.hand.reads() {
            errand.eof = self.end_of_input(input)?;
            self.hand.eof_left = errand.eof;
        }
        // As many as are due by now: one that sets itself anew, due at once, takes its turn.
        let now = self.hand.now;
        let due = self.hand.timers.as_ref().map_or(0, |timers| timers.due_count(now));
        for _ in 0..due {
            if !self.hand.stays() {
                break;
            }
            let Some(key) = self.hand.pop_timer() else { break };
            self.call(|handler, cx| handler.on_timer(cx, key))?;
        }
        if !self.hand.stays() {
            return Ok(());
        }
        errand.inbox = None;
        // After the input that has arrived already.
        self.hand.drain_left = errand.drain && self.hand.unserved && !self.hand.paused;
        if errand.drain && !self.hand.drain_left && self.hand.reads() {
            self.hand.drain_told = true;
            self.call(|handler, cx| handler.on_drain(cx))?;
        }
        Ok(())
    }

    /// Takes the last frames, then tells the handler that there are no more. True if that is still
    /// to be done.
    fn end_of_input(&mut self, input: &mut BytesMut) -> Result<bool, Cause> {
        while self.hand.reads() {
            if self.hand.stops() {
                return Ok(true);
            }
            let decoded = self.codec.decode_eof(input);
            let decoded = decoded.map_err(|error| Cause::codec_failed(error.into()))?;
            let Some(frame) = decoded else {
                if !input.is_empty() {
                    return Err(Cause::Truncated);
                }
                self.call(|handler, cx| handler.on_eof(cx))?;
                // A successor is told, too.
                return Ok(!self.hand.stays());
            };
            self.frame(frame)?;
        }
        Ok(!self.hand.stays())
    }
}

impl<M> Context<'_, M> {
    /// Goes on with another codec and another handler: an upgrade, STARTTLS, a version that was
    /// agreed on. They take over when this call returns: bytes that were read and not used go to
    /// the new codec, `on_open` of the new handler is called, and the old one is dropped without
    /// its `on_close`. What this call sends is still encoded by the old codec; timers, timeouts, a
    /// pause and handles stay, and if the input has ended, the new handler is told of that, too.
    /// After `close` or `abort` nothing is switched. A message of a handle goes to the new codec,
    /// or is dropped and counted
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
        self.hand_mut().successor = Some(Box::new(Framed::new(codec, handler)));
    }
}
