//! `Raw`: no codec, where frames do not matter.

use std::convert::Infallible;

use bytes::{Bytes, BytesMut};

use super::{Codec, Parts};
use crate::parts::buf::Outbox;

/// Bytes as they come: a frame is whatever has arrived, a message goes out as it is.
///
/// A frame is never larger than what is read at once. An empty message sends nothing.
///
/// ```
/// use switchboard::{Raw, Server, handler_fn};
///
/// let server = Server::builder()
///     .listen("127.0.0.1:0", Raw::new(), |_peer| handler_fn(|cx, bytes| cx.send(bytes)))
///     .start()?;
/// # Ok::<(), switchboard::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

impl Raw {
    /// A raw codec.
    #[must_use]
    pub fn new() -> Self {
        Raw
    }
}

impl Codec for Raw {
    type Frame = BytesMut;
    type Message = Bytes;
    type Error = Infallible;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, Infallible> {
        if cfg!(switchboard_sim_mutant = "raw_cut") {
            input.truncate(1024);
        }
        Ok((!input.is_empty()).then(|| input.split()))
    }

    fn encode(&mut self, message: Bytes, outbox: &mut Outbox) -> Result<(), Infallible> {
        outbox.put(message);
        Ok(())
    }

    fn encode_parts(
        &mut self,
        parts: Parts<'_>,
        outbox: &mut Outbox,
    ) -> Option<Result<(), Infallible>> {
        parts.put(outbox);
        Some(Ok(()))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn raw_takes_what_has_come() {
        let mut input = BytesMut::from("abc");
        assert_eq!(Raw.decode(&mut input), Ok(Some(BytesMut::from("abc"))));
        assert_eq!(Raw.decode(&mut input), Ok(None));
    }
}
