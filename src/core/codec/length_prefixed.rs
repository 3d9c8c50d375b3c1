//! `LengthPrefixed`: frames behind a length of fixed width.

use bytes::{Buf, Bytes, BytesMut};

use super::{Codec, ConfigError, FrameError, Parts};
use crate::parts::buf::Outbox;

/// Frames behind their length as an unsigned integer of 1 to 8 bytes; big endian by default.
///
/// ```text
///   bytes before the length │ length │ payload        on the wire
///        0, or `offset`     │ 1 to 8 │
///   bytes before the length          │ payload        in a frame, and in a message
/// ```
///
/// The length counts the payload alone unless [`counts`](LengthPrefixed::counts) says otherwise. A
/// frame is cut out of the read buffer without copying. A length beyond the maximum (default:
/// 1 MiB) is an error ([`FrameError::TooLarge`]), which ends the connection before anything is
/// reserved for it. An empty payload is a frame.
///
/// ```
/// use switchboard::LengthPrefixed;
/// let codec = LengthPrefixed::u32().frame_max(64 << 10);
/// ```
///
/// PostgreSQL puts the type of a message before its length, and counts the length itself:
///
/// ```
/// use bytes::{Bytes, BytesMut};
/// use std::io::{Read, Write};
/// use std::net::{Shutdown, TcpStream};
/// use switchboard::codec::Counted;
/// use switchboard::{LengthPrefixed, Server, handler_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let codec = LengthPrefixed::u32().offset(1).counts(Counted::LengthAndPayload);
/// let server = Server::builder()
///     .listen("127.0.0.1:0", codec, |_peer| {
///         handler_fn(|cx, query: BytesMut| {
///             assert_eq!(&query[..], b"QSELECT 1\0");
///             cx.send(Bytes::from_static(b"CSELECT 1\0"))
///         })
///     })
///     .start()?;
/// let mut client = TcpStream::connect(server.local_addr())?;
/// client.write_all(b"Q\0\0\0\x0DSELECT 1\0")?;
/// client.shutdown(Shutdown::Write)?;
/// let mut reply = Vec::new();
/// client.read_to_end(&mut reply)?;
/// assert_eq!(reply, b"C\0\0\0\x0DSELECT 1\0");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct LengthPrefixed {
    /// 1 to 8.
    width: usize,
    little_endian: bool,
    offset: usize,
    counted: Counted,
    frame_max: usize,
}

/// What the length of a [`LengthPrefixed`] frame counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Counted {
    /// What comes behind it: the default.
    #[default]
    Payload,
    /// That, and the bytes of the length itself.
    LengthAndPayload,
    /// That, and the bytes before the length.
    Everything,
}

impl LengthPrefixed {
    /// The largest payload unless [`frame_max`](LengthPrefixed::frame_max) says otherwise: 1 MiB.
    pub const FRAME_MAX_DEFAULT: usize = 1 << 20;

    const fn new(width: usize) -> Self {
        LengthPrefixed {
            width,
            little_endian: false,
            offset: 0,
            counted: Counted::Payload,
            frame_max: Self::FRAME_MAX_DEFAULT,
        }
    }

    /// A length of one byte: payloads of at most 255 bytes.
    #[must_use]
    pub const fn u8() -> Self {
        Self::new(1)
    }

    /// A length of two bytes: payloads of at most 65,535 bytes.
    #[must_use]
    pub const fn u16() -> Self {
        Self::new(2)
    }

    /// A length of three bytes: payloads of at most 16,777,215 bytes.
    #[must_use]
    pub const fn u24() -> Self {
        Self::new(3)
    }

    /// A length of four bytes: payloads of at most 1 MiB, unless `frame_max` says otherwise.
    #[must_use]
    pub const fn u32() -> Self {
        Self::new(4)
    }

    /// A length of six bytes: payloads of at most 1 MiB, unless `frame_max` says otherwise.
    #[must_use]
    pub const fn u48() -> Self {
        Self::new(6)
    }

    /// A length of eight bytes: payloads of at most 1 MiB, unless `frame_max` says otherwise.
    #[must_use]
    pub const fn u64() -> Self {
        Self::new(8)
    }

    /// A length of `width` bytes, for a width that is known at run time only.
    ///
    /// # Errors
    /// [`ConfigError::Width`] if that is not 1 to 8.
    pub const fn with_width(width: usize) -> Result<Self, ConfigError> {
        if width == 0 || width > 8 {
            return Err(ConfigError::Width(width));
        }
        Ok(Self::new(width))
    }

    /// The length's lowest byte comes first. By default its highest does, as is usual in networks.
    #[must_use]
    pub const fn little_endian(mut self) -> Self {
        self.little_endian = true;
        self
    }

    /// So many bytes stand before the length, such as the type of the message. Default: 0.
    ///
    /// They belong to the frame: it is those bytes and then the payload, without the length. A
    /// message is the same; one that is shorter is refused ([`FrameError::WrongLength`]). The
    /// length is closed up by moving these bytes, so there should be few. (`tokio_util`'s codec
    /// drops them by default, and keeps them together with the length if it skips nothing.)
    ///
    /// In a message that is sent in parts they should stand in its head; the parts are joined
    /// otherwise.
    #[must_use]
    pub const fn offset(mut self, bytes: usize) -> Self {
        self.offset = bytes;
        self
    }

    /// What the length counts. Default: the payload.
    ///
    /// A length that is less than what it always counts is an error
    /// ([`FrameError::LengthBelowHeader`]).
    #[must_use]
    pub const fn counts(mut self, what: Counted) -> Self {
        self.counted = what;
        self
    }

    /// The largest payload, in bytes, in either direction, whatever the length counts and whatever
    /// stands before it. Default: 1 MiB
    /// ([`FRAME_MAX_DEFAULT`](LengthPrefixed::FRAME_MAX_DEFAULT)). Any value is allowed; what the
    /// length cannot express is refused all the same.
    #[must_use]
    pub const fn frame_max(mut self, bytes: usize) -> Self {
        self.frame_max = bytes;
        self
    }

    fn header(self) -> usize {
        self.offset.saturating_add(self.width)
    }

    /// What the length counts beside the payload.
    fn overhead(self) -> u64 {
        match self.counted {
            Counted::Payload => 0,
            Counted::LengthAndPayload => self.width as u64,
            Counted::Everything => self.header() as u64,
        }
    }

    fn number(self, field: &[u8]) -> u64 {
        let fold = |number: u64, byte: &u8| (number << 8) | u64::from(*byte);
        if self.little_endian {
            field.iter().rev().fold(0, fold)
        } else {
            field.iter().fold(0, fold)
        }
    }

    /// The length of the payload that is announced so.
    fn payload(self, field: &[u8]) -> Result<usize, FrameError> {
        let (length, header) = (self.number(field), self.overhead());
        let payload =
            length.checked_sub(header).ok_or(FrameError::LengthBelowHeader { length, header })?;
        let allowed = usize::try_from(payload).ok().filter(|&length| length <= self.frame_max);
        allowed.ok_or(FrameError::too_large(payload, self.frame_max))
    }

    /// Appends what stands before the payload of a message of `length` bytes that begins with
    /// `front`.
    fn put_header(
        self,
        front: &[u8],
        length: usize,
        outbox: &mut Outbox,
    ) -> Result<(), FrameError> {
        let short = FrameError::WrongLength { length, expected: self.offset };
        let payload = length.checked_sub(self.offset).ok_or(short)?;
        let too_large = FrameError::too_large(payload as u64, self.frame_max);
        let announced = (payload as u64).checked_add(self.overhead()).ok_or(too_large)?;
        let fits = self.width == 8 || announced < 1 << (8 * self.width);
        if payload > self.frame_max || !fits {
            return Err(too_large);
        }
        outbox.put_slice(front);
        if self.little_endian {
            outbox.put_slice(&announced.to_le_bytes()[..self.width]);
        } else {
            outbox.put_slice(&announced.to_be_bytes()[8 - self.width..]);
        }
        Ok(())
    }
}

impl Codec for LengthPrefixed {
    type Frame = BytesMut;
    type Message = Bytes;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
        let header = self.header();
        let Some(field) = input.get(self.offset..header) else { return Ok(None) };
        let payload = self.payload(field)?;
        if input.len() - header < payload {
            return Ok(None);
        }
        if self.offset > 0 {
            input.copy_within(..self.offset, self.width);
        }
        input.advance(self.width);
        Ok(Some(input.split_to(self.offset + payload)))
    }

    fn encode(&mut self, mut message: Bytes, outbox: &mut Outbox) -> Result<(), FrameError> {
        let front = message.get(..self.offset).unwrap_or_default();
        self.put_header(front, message.len(), outbox)?;
        message.advance(self.offset);
        outbox.put(message);
        Ok(())
    }

    fn encode_parts(
        &mut self,
        parts: Parts<'_>,
        outbox: &mut Outbox,
    ) -> Option<Result<(), FrameError>> {
        let (front, rest) = parts.split_head(self.offset)?;
        let header = self.put_header(front, parts.len_bytes(), outbox);
        Some(header.map(|()| rest.put(outbox)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_encoding_and_every_split(
            width in 2usize..9,
            little: bool,
            offset in 0usize..4,
            counted in prop_oneof![
                Just(Counted::Payload),
                Just(Counted::LengthAndPayload),
                Just(Counted::Everything),
            ],
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 4..600), 1..6),
            step in 1usize..40,
        ) {
            let mut codec = LengthPrefixed::with_width(width)?.offset(offset).counts(counted);
            codec.little_endian = little;
            let mut outbox = Outbox::default();
            for message in &messages {
                codec.encode(Bytes::from(message.clone()), &mut outbox)?;
            }
            let mut input = BytesMut::new();
            let mut frames = Vec::new();
            for piece in outbox.to_vec().chunks(step) {
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
        assert_eq!(refused, FrameError::too_large(u64::MAX, 10));
        let mut input = BytesMut::from(&10u64.to_be_bytes()[..]);
        assert_eq!(codec.decode(&mut input), Ok(None));
        assert!(input.capacity() < 64, "nothing is reserved for bytes that have not arrived");
    }

    #[test]
    fn a_message_that_the_length_cannot_express_is_refused() {
        let mut outbox = Outbox::default();
        let message = Bytes::from(vec![0; 256]);
        assert!(LengthPrefixed::u8().encode(message.clone(), &mut outbox).is_err());
        let counting = LengthPrefixed::u8().counts(Counted::LengthAndPayload);
        assert!({ counting }.encode(message.slice(1..), &mut outbox).is_err());
        assert!(outbox.is_empty());
        assert!({ counting }.encode(message.slice(2..), &mut outbox).is_ok());
        assert!(LengthPrefixed::u16().encode(message, &mut outbox).is_ok());
        assert_eq!(outbox.len_bytes(), 255 + 258);
    }

    #[test]
    fn widths_are_one_to_eight() {
        const WIDE: Result<LengthPrefixed, ConfigError> = LengthPrefixed::with_width(7);
        assert_eq!(WIDE.map(|codec| codec.width), Ok(7));
        for width in [0, 9, usize::MAX] {
            let refused = LengthPrefixed::with_width(width).map(|codec| codec.width);
            assert_eq!(refused, Err(ConfigError::Width(width)));
        }
    }

    #[test]
    fn a_length_that_does_not_count_its_own_header_is_refused() {
        let mut codec = LengthPrefixed::u16().offset(1).counts(Counted::Everything);
        let refused = codec.decode(&mut BytesMut::from("T\0\x02"));
        assert_eq!(refused, Err(FrameError::LengthBelowHeader { length: 2, header: 3 }));
        let frame = codec.decode(&mut BytesMut::from("T\0\x03"));
        assert_eq!(frame, Ok(Some(BytesMut::from("T"))));
        let mut outbox = Outbox::new();
        let refused = codec.encode(Bytes::new(), &mut outbox);
        assert_eq!(refused, Err(FrameError::WrongLength { length: 0, expected: 1 }));
        let mut vast = LengthPrefixed::u8().offset(usize::MAX);
        assert_eq!(vast.decode(&mut BytesMut::from("abc")), Ok(None));
    }

    #[test]
    fn a_large_part_is_shared_behind_its_header() {
        let mut codec = LengthPrefixed::u16().offset(1);
        let body = [Bytes::from(vec![7; 1000])];
        let mut outbox = Outbox::new();
        assert_eq!(codec.encode_parts(Parts::new(b"Txy", &body), &mut outbox), Some(Ok(())));
        let mut slices = [std::io::IoSlice::new(&[]); 3];
        assert_eq!(outbox.slices(&mut slices), 2);
        assert_eq!(&slices[0][..], b"T\x03\xEAxy");
        assert_eq!(slices[1].as_ptr(), body[0].as_ptr());
        let whole_only = codec.encode_parts(Parts::new(b"", &body), &mut outbox);
        assert_eq!(whole_only, None, "what stands before the length is not in the head");
    }
}
