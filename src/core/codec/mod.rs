//! Codecs: how a stream of bytes becomes frames, and messages become bytes.

mod delimited;
mod error;
mod fixed;
mod length_prefixed;
mod lines;
mod parts;
mod raw;
mod search;
#[cfg(feature = "tokio-util")]
mod tokio_util;
mod varint;

use bytes::BytesMut;

pub use self::delimited::Delimited;
pub use self::error::{ConfigError, FrameError, FrameTooLarge};
pub use self::fixed::Fixed;
pub use self::length_prefixed::{Counted, LengthPrefixed};
pub use self::lines::Lines;
pub use self::parts::Parts;
pub use self::raw::Raw;
#[cfg(feature = "tokio-util")]
pub use self::tokio_util::TokioUtil;
pub use self::varint::Varint;
use crate::parts::buf::Outbox;
use crate::words::error::BoxError;

/// Cuts a byte stream into frames and turns messages into bytes.
///
/// One value serves one connection, so it may remember what it needs between calls; it is cloned
/// from the one given to [`listen`](crate::Builder::listen). It runs on the thread that runs the
/// handler, never on two at once. A panic in it ends its connection, as one of the handler does.
///
/// The ready-made ones stand in [`codec`](crate::codec). An own one is checked with
/// `switchboard::testing` (feature `testing`).
///
/// ```
/// use bytes::{Buf, Bytes, BytesMut};
/// use std::io::{Read, Write};
/// use std::net::{Shutdown, TcpStream};
/// use switchboard::codec::Outbox;
/// use switchboard::error::BoxError;
/// use switchboard::{Codec, Server, handler_fn};
///
/// /// Text behind its length in two decimal digits.
/// #[derive(Clone)]
/// struct Digits;
///
/// impl Codec for Digits {
///     type Frame = BytesMut;
///     type Message = Bytes;
///     type Error = BoxError;
///
///     fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, BoxError> {
///         let Some(digits) = input.get(..2) else { return Ok(None) };
///         if !digits.iter().all(u8::is_ascii_digit) {
///             return Err("a length that is no number".into());
///         }
///         let length = usize::from(digits[0] - b'0') * 10 + usize::from(digits[1] - b'0');
///         if input.len() < 2 + length {
///             return Ok(None);
///         }
///         input.advance(2);
///         Ok(Some(input.split_to(length)))
///     }
///
///     fn encode(&mut self, text: Bytes, outbox: &mut Outbox) -> Result<(), BoxError> {
///         if text.len() > 99 {
///             return Err("a text that is too long".into());
///         }
///         outbox.put_slice(format!("{:02}", text.len()).as_bytes());
///         outbox.put(text);
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder()
///     .listen("127.0.0.1:0", Digits, |_peer| handler_fn(|cx, text| cx.send(text)))
///     .start()?;
/// let mut client = TcpStream::connect(server.local_addr())?;
/// client.write_all(b"03one03two")?;
/// client.shutdown(Shutdown::Write)?;
/// let mut replies = String::new();
/// client.read_to_string(&mut replies)?;
/// assert_eq!(replies, "03one03two");
/// # Ok(())
/// # }
/// ```
pub trait Codec: Send + 'static {
    /// What a handler receives.
    type Frame: 'static;
    /// What a handler sends.
    type Message: Send + 'static;
    /// Why input or a message was refused. It ends the connection and stands in its close reason.
    type Error: Into<BoxError>;

    /// Takes the next frame from the front of `input`, or answers `None` if it is not complete;
    /// what is left in `input` is shown again when more has arrived. It is called until it answers
    /// `None`, so a frame must take at least one byte.
    ///
    /// An implementation must have an upper bound on the size of a frame, and must not reserve
    /// memory on the word of the peer: `input` grows as bytes arrive.
    ///
    /// # Errors
    /// If the input is not what the protocol allows: the connection is closed after what was sent
    /// before, with [`Cause::CodecFailed`](crate::close::Cause::CodecFailed).
    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Self::Frame>, Self::Error>;

    /// Like [`decode`](Codec::decode), after the peer's last byte: a codec whose last frame needs
    /// no end mark takes it here. Bytes that it leaves count as a truncated frame.
    ///
    /// # Errors
    /// As [`decode`](Codec::decode).
    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<Self::Frame>, Self::Error> {
        self.decode(input)
    }

    /// Appends the bytes of `message` to `outbox`.
    ///
    /// # Errors
    /// If the message cannot be encoded; nothing may have been appended then. A handler gets
    /// [`SendError::Refused`](crate::error::SendError::Refused) and may go on; a message of a
    /// [`Handle`](crate::Handle), whose sender is gone by now, ends the connection with
    /// [`Cause::CodecFailed`](crate::close::Cause::CodecFailed).
    fn encode(&mut self, message: Self::Message, outbox: &mut Outbox) -> Result<(), Self::Error>;

    /// Appends the bytes of the message that `parts` are together, without joining them; `None`:
    /// this codec takes whole messages only. Then they are joined and given to
    /// [`encode`](Codec::encode). That is the default; only a codec whose messages are
    /// [`Bytes`](bytes::Bytes) is ever asked.
    ///
    /// What is appended has to be what [`encode`](Codec::encode) appends for the joined message.
    ///
    /// # Errors
    /// As [`encode`](Codec::encode).
    fn encode_parts(
        &mut self,
        parts: Parts<'_>,
        outbox: &mut Outbox,
    ) -> Option<Result<(), Self::Error>> {
        let _ = (parts, outbox);
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::fmt::Debug;

    use bytes::Bytes;

    use super::*;

    #[test]
    fn every_codec_for_bytes_may_be_listened_with() {
        fn check<C>(_: C)
        where
            C: Codec<Frame = BytesMut, Message = Bytes> + Clone + Debug + Sync,
        {
        }
        check(Raw::new());
        check(Lines::default());
        check(Delimited::new("mark").expect("it has bytes"));
        check(Fixed::new(1).expect("it has bytes"));
        check(LengthPrefixed::u48());
        check(Varint::default());
        #[cfg(feature = "tokio-util")]
        check(TokioUtil::new(::tokio_util::codec::LengthDelimitedCodec::new()));
    }
}
