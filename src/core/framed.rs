//! `Framed`: a codec and the handler of its frames; the one place that makes a handler's calls.

use std::any::TypeId;
use std::collections::VecDeque;

use bytes::BytesMut;

use super::codec::Codec;
use super::context::{Context, Hand, SendError};
use super::handle::{Office, Parcel};
use super::handler::Handler;
use super::session::{Errand, Session};
use super::visit::Visit;
use crate::words::error::Outcome;
use crate::words::reason::{Cause, CloseReason};

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
            run.call(|handler, cx| handler.on_open(cx))?;
        }
        if let Some(inbox) = &mut errand.inbox {
            run.parcels(&mut inbox.parcels)?;
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

    /// Encodes what other threads sent, and lets in those who visit.
    fn parcels(&mut self, parcels: &mut VecDeque<Parcel>) -> Result<(), Cause> {
        while self.hand.stays() {
            match parcels.pop_front() {
                None => break,
                Some(Parcel::Visit(mut visit)) => match visit.take::<Visit<H, C::Message>>() {
                    Some(visit) => self.call(visit)?,
                    // The handler is another one by now.
                    None => self.hand.misdirected_count += 1,
                },
                Some(Parcel::Noticed(parcel, key)) => {
                    let before = self.hand.outbox.len_bytes();
                    self.encode(*parcel)?;
                    if self.hand.outbox.len_bytes() > before {
                        self.hand.note_flush(key);
                    }
                }
                Some(parcel) => self.encode(parcel)?,
            }
        }
        Ok(())
    }

    fn encode(&mut self, parcel: Parcel) -> Result<(), Cause> {
        let Some(message) = parcel.unpack::<C::Message>() else {
            // The codec is another one by now.
            self.hand.misdirected_count += 1;
            return Ok(());
        };
        let before = self.hand.outbox.len_bytes();
        let encoded = self.codec.encode(message, &mut self.hand.outbox);
        encoded.map_err(|error| Cause::codec_failed(error.into()))?;
        match self.hand.check_overflow(before) {
            // Its sender is gone: the counter alone knows.
            Ok(()) | Err(SendError::Full { .. }) => Ok(()),
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
            for key in std::mem::take(&mut inbox.flushed) {
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
        while self.hand.stays() {
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
            self.call(|handler, cx| handler.on_drain(cx))?;
            self.hand.close_by_drain();
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
                return self.call(|handler, cx| handler.on_eof(cx)).map(|()| false);
            };
            self.frame(frame)?;
        }
        Ok(!self.hand.stays())
    }
}
