//! `TokioUtil`: a codec that was written for `tokio_util`, at work here.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Bytes, BytesMut};
use tokio_util::codec::{Decoder, Encoder};

use super::Codec;
use crate::parts::buf::Outbox;
use crate::words::error::BoxError;

/// Makes a [`Codec`] of a [`Decoder`] that is also an [`Encoder`] for messages of type `M`, as
/// those of `tokio_util::codec` are. Needs the feature `tokio-util`; no runtime is involved.
///
/// Its maximum is that of the codec within, which must have one: `LinesCodec::new()` has none, and
/// `LinesCodec::new_with_max_length` is the one to use. What that codec reserves for a length it
/// was told is its own affair, too: `LengthDelimitedCodec` reserves the whole frame at once, 8 MiB
/// unless it is told otherwise; [`LengthPrefixed`](crate::LengthPrefixed) does not.
///
/// Most decoders answer a truncated last frame with an error of their own; then that, and not
/// [`Cause::Truncated`](crate::close::Cause::Truncated), ends the connection. Each message is
/// encoded into a buffer of its own, from which a small one is copied and a large one is shared.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{Shutdown, TcpStream};
/// use switchboard::codec::TokioUtil;
/// use switchboard::{Context, Handler, Outcome, Server};
/// use tokio_util::codec::LinesCodec;
///
/// struct Shout;
///
/// impl Handler<String, String> for Shout {
///     fn on_frame(&mut self, cx: &mut Context<'_, String>, line: String) -> Outcome {
///         Ok(cx.send(line.to_uppercase())?)
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let codec = TokioUtil::new(LinesCodec::new_with_max_length(1024));
/// let server = Server::builder().listen("127.0.0.1:0", codec, |_peer| Shout).start()?;
/// let mut client = TcpStream::connect(server.local_addr())?;
/// client.write_all(b"one\ntwo")?;
/// client.shutdown(Shutdown::Write)?;
/// let mut replies = String::new();
/// client.read_to_string(&mut replies)?;
/// assert_eq!(replies, "ONE\nTWO\n");
/// # Ok(())
/// # }
/// ```
pub struct TokioUtil<C, M = Bytes> {
    codec: C,
    /// It takes messages and holds none.
    message: PhantomData<fn(M)>,
}

impl<C, M> TokioUtil<C, M> {
    /// The codec within, which each connection gets a clone of.
    #[must_use]
    pub fn new(codec: C) -> Self {
        TokioUtil { codec, message: PhantomData }
    }
}

impl<C, M> Codec for TokioUtil<C, M>
where
    C: Decoder<Item: 'static, Error: Into<BoxError>> + Encoder<M, Error: Into<BoxError>>,
    C: Send + 'static,
    M: Send + 'static,
{
    type Frame = C::Item;
    type Message = M;
    type Error = BoxError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<C::Item>, BoxError> {
        self.codec.decode(input).map_err(Into::into)
    }

    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<C::Item>, BoxError> {
        self.codec.decode_eof(input).map_err(Into::into)
    }

    fn encode(&mut self, message: M, outbox: &mut Outbox) -> Result<(), BoxError> {
        let mut bytes = BytesMut::new();
        self.codec.encode(message, &mut bytes).map_err(Into::into)?;
        outbox.put(bytes.freeze());
        Ok(())
    }
}

impl<C: Clone, M> Clone for TokioUtil<C, M> {
    fn clone(&self) -> Self {
        TokioUtil::new(self.codec.clone())
    }
}

impl<C: fmt::Debug, M> fmt::Debug for TokioUtil<C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TokioUtil").field(&self.codec).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use tokio_util::codec::{LengthDelimitedCodec, LinesCodec};

    #[test]
    fn frames_come_out_and_messages_go_in_as_the_codec_within_has_them() {
        let mut codec = TokioUtil::<_, &str>::new(LinesCodec::new_with_max_length(9));
        let mut input = BytesMut::from("one\r\ntwo");
        assert_eq!(codec.decode(&mut input).expect("short enough"), Some("one".to_owned()));
        assert_eq!(codec.decode(&mut input).expect("short enough"), None);
        assert_eq!(codec.decode_eof(&mut input).expect("short enough"), Some("two".to_owned()));
        assert_eq!(codec.decode_eof(&mut input).expect("it has ended"), None);
        let mut outbox = Outbox::new();
        codec.encode("three", &mut outbox).expect("short enough");
        assert_eq!(outbox.to_vec(), b"three\n");
    }

    #[test]
    fn a_truncated_frame_and_a_refused_message_are_errors_of_the_codec_within() {
        let within = LengthDelimitedCodec::builder().max_frame_length(3).new_codec();
        let mut codec = TokioUtil::<_, Bytes>::new(within);
        let mut input = BytesMut::from(&b"\0\0\0\x03ab"[..]);
        assert!(codec.decode(&mut input).expect("it is allowed").is_none());
        let truncated = codec.decode_eof(&mut input).expect_err("a byte is missing");
        assert!(truncated.is::<std::io::Error>(), "{truncated}");
        let mut outbox = Outbox::new();
        let refused = codec.encode(Bytes::from_static(b"four"), &mut outbox);
        assert!(refused.is_err() && outbox.is_empty());
    }
}
