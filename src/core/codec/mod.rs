//! Codecs: how a stream of bytes becomes frames, and messages become bytes.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

use crate::parts::buf::Outbox;
use crate::words::error::BoxError;

/// Cuts a byte stream into frames and turns messages into bytes.
///
/// One value serves one connection, so it may remember what it needs between calls; it is cloned
/// from the one given to [`listen`](crate::Builder::listen). It runs on the thread that runs the
/// handler, never on two at once. A panic in it ends its connection, as one of the handler does.
///
/// ```
/// use bytes::{Bytes, BytesMut};
/// use std::io::{Read, Write};
/// use std::net::{Shutdown, TcpStream};
/// use switchboard::codec::Outbox;
/// use switchboard::error::BoxError;
/// use switchboard::{Codec, Server, handler_fn};
///
/// /// Lines that end with a newline, which is not part of the frame.
/// #[derive(Clone)]
/// struct Lines;
///
/// const LINE_MAX: usize = 1024;
///
/// impl Codec for Lines {
///     type Frame = BytesMut;
///     type Message = Bytes;
///     type Error = BoxError;
///
///     fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, BoxError> {
///         match input.iter().take(LINE_MAX).position(|&byte| byte == b'\n') {
///             Some(end) => {
///                 let mut line = input.split_to(end + 1);
///                 line.truncate(end);
///                 Ok(Some(line))
///             }
///             None if input.len() < LINE_MAX => Ok(None),
///             None => Err("a line is too long".into()),
///         }
///     }
///
///     fn encode(&mut self, line: Bytes, outbox: &mut Outbox) -> Result<(), BoxError> {
///         outbox.put(line);
///         outbox.put_slice(b"\n");
///         Ok(())
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder()
///     .listen("127.0.0.1:0", Lines, |_peer| handler_fn(|cx, line| cx.send(line)))
///     .start()?;
/// let mut client = TcpStream::connect(server.local_addr())?;
/// client.write_all(b"one\ntwo\n")?;
/// client.shutdown(Shutdown::Write)?;
/// let mut replies = String::new();
/// client.read_to_string(&mut replies)?;
/// assert_eq!(replies, "one\ntwo\n");
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
}

/// Bytes as they come: a frame is whatever has arrived, a message goes out as it is.
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
        Ok((!input.is_empty()).then(|| input.split()))
    }

    fn encode(&mut self, message: Bytes, outbox: &mut Outbox) -> Result<(), Infallible> {
        outbox.put(message);
        Ok(())
    }
}

/// Frames behind their length as an unsigned integer of 1 to 8 bytes; big endian by default.
///
/// The length counts the payload alone. A frame's payload is cut out of the read buffer without
/// copying. A length beyond the maximum (default: 1 MiB) is an error ([`FrameTooLarge`]), which
/// ends the connection before anything is reserved for it. An empty payload is a frame.
///
/// ```
/// use switchboard::LengthPrefixed;
/// let codec = LengthPrefixed::u32().frame_max(64 << 10);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LengthPrefixed {
    width: u8,
    little_endian: bool,
    frame_max: usize,
}

impl LengthPrefixed {
    /// The largest payload unless [`frame_max`](LengthPrefixed::frame_max) says otherwise: 1 MiB.
    pub const FRAME_MAX_DEFAULT: usize = 1 << 20;

    fn new(width: u8) -> Self {
        LengthPrefixed { width, little_endian: false, frame_max: Self::FRAME_MAX_DEFAULT }
    }

    /// A length of one byte: payloads of at most 255 bytes.
    #[must_use]
    pub fn u8() -> Self {
        Self::new(1)
    }

    /// A length of two bytes: payloads of at most 65,535 bytes.
    #[must_use]
    pub fn u16() -> Self {
        Self::new(2)
    }

    /// A length of four bytes.
    #[must_use]
    pub fn u32() -> Self {
        Self::new(4)
    }

    /// A length of eight bytes.
    #[must_use]
    pub fn u64() -> Self {
        Self::new(8)
    }

    /// The length's lowest byte comes first.
    #[must_use]
    pub fn little_endian(mut self) -> Self {
        self.little_endian = true;
        self
    }

    /// The largest payload, in bytes, in either direction. Default: 1 MiB
    /// ([`FRAME_MAX_DEFAULT`](LengthPrefixed::FRAME_MAX_DEFAULT)). Any value is allowed; what the
    /// length cannot express is refused all the same.
    #[must_use]
    pub fn frame_max(mut self, bytes: usize) -> Self {
        self.frame_max = bytes;
        self
    }

    fn length(self, prefix: &[u8]) -> u64 {
        let fold = |length: u64, byte: &u8| (length << 8) | u64::from(*byte);
        if self.little_endian {
            prefix.iter().rev().fold(0, fold)
        } else {
            prefix.iter().fold(0, fold)
        }
    }

    fn too_large(self, length: u64) -> FrameTooLarge {
        FrameTooLarge { length, max: self.frame_max as u64 }
    }
}

impl Codec for LengthPrefixed {
    type Frame = BytesMut;
    type Message = Bytes;
    type Error = FrameTooLarge;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, FrameTooLarge> {
        let width = usize::from(self.width);
        let Some(prefix) = input.get(..width) else { return Ok(None) };
        let announced = self.length(prefix);
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if length > self.frame_max {
            return Err(self.too_large(announced));
        }
        if input.len() - width < length {
            return Ok(None);
        }
        input.advance(width);
        Ok(Some(input.split_to(length)))
    }

    fn encode(&mut self, message: Bytes, outbox: &mut Outbox) -> Result<(), FrameTooLarge> {
        let length = message.len() as u64;
        let width = usize::from(self.width);
        let fits = width == 8 || length < 1 << (8 * width);
        if message.len() > self.frame_max || !fits {
            return Err(self.too_large(length));
        }
        if self.little_endian {
            outbox.put_slice(&length.to_le_bytes()[..width]);
        } else {
            outbox.put_slice(&length.to_be_bytes()[8 - width..]);
        }
        outbox.put(message);
        Ok(())
    }
}

/// A frame or message is larger than the codec allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameTooLarge {
    length: u64,
    max: u64,
}

impl fmt::Display for FrameTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a frame of {} bytes, but at most {} are allowed", self.length, self.max)
    }
}

impl StdError for FrameTooLarge {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flatten(outbox: &Outbox) -> BytesMut {
        let mut slices = [std::io::IoSlice::new(&[]); 64];
        let count = outbox.slices(&mut slices);
        slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect()
    }

    proptest! {
        #[test]
        fn frames_survive_encoding_and_every_split(
            width in prop_oneof![Just(2u8), Just(4), Just(8)],
            little: bool,
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..6),
            step in 1usize..40,
        ) {
            let mut codec = LengthPrefixed::new(width);
            codec.little_endian = little;
            let mut outbox = Outbox::default();
            for message in &messages {
                codec.encode(Bytes::from(message.clone()), &mut outbox)?;
            }
            let wire = flatten(&outbox);
            let mut input = BytesMut::new();
            let mut frames = Vec::new();
            for piece in wire.chunks(step) {
                input.extend_from_slice(piece);
                while let Some(frame) = codec.decode(&mut input)? {
                    frames.push(frame.to_vec());
                }
            }
            prop_assert_eq!(frames, messages);
            prop_assert!(input.is_empty());
        }
    }

    #[test]
    fn a_length_beyond_the_maximum_is_refused_and_reserves_nothing() {
        let mut codec = LengthPrefixed::u64().frame_max(10);
        let mut input = BytesMut::from(&u64::MAX.to_be_bytes()[..]);
        let refused = codec.decode(&mut input).expect_err("too large");
        assert_eq!(refused, FrameTooLarge { length: u64::MAX, max: 10 });
        let mut input = BytesMut::from(&10u64.to_be_bytes()[..]);
        assert_eq!(codec.decode(&mut input), Ok(None));
        assert!(input.capacity() < 64, "nothing is reserved for bytes that have not arrived");
    }

    #[test]
    fn a_message_that_the_length_cannot_express_is_refused() {
        let mut outbox = Outbox::default();
        let message = Bytes::from(vec![0; 256]);
        assert!(LengthPrefixed::u8().encode(message.clone(), &mut outbox).is_err());
        assert!(outbox.is_empty());
        assert!(LengthPrefixed::u16().encode(message, &mut outbox).is_ok());
        assert_eq!(outbox.len_bytes(), 258);
    }

    #[test]
    fn raw_takes_what_has_come() {
        let mut input = BytesMut::from("abc");
        assert_eq!(Raw.decode(&mut input), Ok(Some(BytesMut::from("abc"))));
        assert_eq!(Raw.decode(&mut input), Ok(None));
    }
}
