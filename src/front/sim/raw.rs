//! Bytes as they come: a simulated handler that cuts its frames out itself, behind `Raw`.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::app::{App, Talker, codec};
use super::kernel::id_of;
use crate::core::codec::Raw;
use crate::core::context::Context;
use crate::core::session::{Factory, Maker};
use crate::words::error::Outcome;
use crate::words::sync::lock;

/// The bytes of a length.
const PREFIX: usize = 2;

impl App {
    /// What makes the sessions of clients.
    pub(super) fn factory(self: &Arc<Self>) -> Arc<dyn Factory> {
        let maker = Arc::clone(self);
        let handler = move |peer| maker.handler(id_of(peer));
        match self.raw {
            true => Arc::new(Maker { codec: Raw::new(), handler }),
            false => Arc::new(Maker { codec: codec(0), handler }),
        }
    }

    /// A message as its codec wants it: one that does nothing gets it with its length.
    pub(super) fn pack(&self, message: Bytes) -> Bytes {
        if !self.raw {
            return message;
        }
        let mut packed = BytesMut::with_capacity(PREFIX + message.len());
        packed.put_u16(u16::try_from(message.len()).unwrap_or(u16::MAX));
        packed.extend_from_slice(&message);
        packed.freeze()
    }
}

impl Talker {
    /// Takes bytes in, and does what the frames in them ask for, until it pauses. What has it close
    /// comes last.
    pub(super) fn take_bytes(&mut self, cx: &mut Context<'_>, input: &[u8]) -> Outcome {
        self.rest.extend_from_slice(input);
        loop {
            let goes_on = !lock(&self.app.book).life(self.id).paused;
            let Some(prefix) = self.rest.first_chunk().filter(|_| goes_on) else { return Ok(()) };
            let end = PREFIX + usize::from(u16::from_be_bytes(*prefix));
            if self.rest.len() < end {
                return Ok(());
            }
            let frame = self.rest.split_to(end).split_off(PREFIX);
            self.take_frame(cx, frame)?;
        }
    }
}
