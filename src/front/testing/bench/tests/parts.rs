//! `Part`: a handler of many types that tells of every call and does what a test says.

use std::sync::mpsc::{Receiver, Sender, channel};

use bytes::{Bytes, BytesMut};

use crate::core::context::Context;
use crate::core::handler::Handler;
use crate::words::error::Outcome;
use crate::words::reason::CloseReason;
use crate::words::sync::Arc;

/// What it does in a call: `open`, `frame <bytes>`, `timer <key>`, and so on.
pub(super) type Act = Arc<dyn Fn(&mut Context<'_>, &Log, &str) -> Outcome + Send + Sync>;

/// Where the calls are noted.
#[derive(Clone)]
pub(super) struct Log(pub(super) Sender<String>, Act);

/// One handler; those of other numbers are of other types.
pub(super) struct Part<const N: u8>(Log);

/// A log for parts that do this, and what is noted there.
pub(super) fn acting(
    act: impl Fn(&mut Context<'_>, &Log, &str) -> Outcome + Send + Sync + 'static,
) -> (Log, Receiver<String>) {
    let (sender, calls) = channel();
    (Log(sender, Arc::new(act)), calls)
}

impl Log {
    pub(super) fn part<const N: u8>(&self) -> Part<N> {
        Part(self.clone())
    }
}

/// What was noted since the last time.
pub(super) fn told(calls: &Receiver<String>) -> Vec<String> {
    calls.try_iter().collect()
}

impl<const N: u8> Part<N> {
    fn note(&self, call: &str) {
        // A test that is over does not listen any more.
        drop(self.0.0.send(format!("{N} {call}")));
    }

    fn on(&self, cx: &mut Context<'_>, call: &str) -> Outcome {
        self.note(call);
        (self.0.1)(cx, &self.0, call)
    }
}

impl<const N: u8> Handler for Part<N> {
    fn on_open(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.on(cx, "open")
    }

    fn on_frame(&mut self, cx: &mut Context<'_>, frame: BytesMut) -> Outcome {
        self.on(cx, &format!("frame {}", frame.escape_ascii()))
    }

    fn on_eof(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.on(cx, "eof")
    }

    fn on_drained(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.on(cx, "drained")
    }

    fn on_timer(&mut self, cx: &mut Context<'_>, key: u64) -> Outcome {
        self.on(cx, &format!("timer {key}"))
    }

    fn on_flushed(&mut self, cx: &mut Context<'_>, key: u64) -> Outcome {
        self.on(cx, &format!("flushed {key}"))
    }

    fn on_drain(&mut self, cx: &mut Context<'_>) -> Outcome {
        self.on(cx, "drain")
    }

    fn on_close(&mut self, reason: &CloseReason) {
        self.note(&format!("close {}", reason.cause().label()));
    }
}

impl<const N: u8> Drop for Part<N> {
    fn drop(&mut self) {
        self.note("drop");
    }
}

/// Something whose drop panics; the panic is one that the hook does not tell.
pub(super) struct Thorn;

impl Drop for Thorn {
    fn drop(&mut self) {
        std::panic::resume_unwind(Box::new("planted"));
    }
}

/// Another message than bytes.
pub(super) struct Text(pub(super) String);

/// A codec whose messages are of another type.
pub(super) struct Texts;

impl crate::core::codec::Codec for Texts {
    type Frame = BytesMut;
    type Message = Text;
    type Error = crate::words::error::BoxError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, Self::Error> {
        Ok((!input.is_empty()).then(|| input.split()))
    }

    fn encode(
        &mut self,
        Text(text): Text,
        outbox: &mut crate::parts::buf::Outbox,
    ) -> Result<(), Self::Error> {
        outbox.put(Bytes::from(format!("<{text}>")));
        Ok(())
    }
}
