//! `Varint`: frames behind a length of variable width.

use bytes::{Buf, Bytes, BytesMut};

use super::{Codec, FrameError, Parts};
use crate::parts::buf::Outbox;

/// Frames behind their length as an unsigned LEB128: seven bits to a byte, the lowest first, and
/// the highest bit of a byte says that another follows. Protocol Buffers write it so.
///
/// A frame's payload is cut out of the read buffer without copying; an empty one is a frame. A
/// length beyond the maximum (default: 1 MiB) is an error, which ends the connection before
/// anything is reserved for it and before more of its bytes are read than the largest one needs.
/// A length that is not in its shortest form is an error, too ([`FrameError::Overlong`]).
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{Shutdown, TcpStream};
/// use switchboard::codec::Varint;
/// use switchboard::{Server, handler_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder()
///     .listen("127.0.0.1:0", Varint::new().frame_max(1000), |_peer| {
///         handler_fn(|cx, frame| cx.send(frame))
///     })
///     .start()?;
/// let message = [&[0x80, 0x01][..], &[b'x'; 128]].concat();
/// let mut client = TcpStream::connect(server.local_addr())?;
/// client.write_all(&message)?;
/// client.shutdown(Shutdown::Write)?;
/// let mut reply = Vec::new();
/// client.read_to_end(&mut reply)?;
/// assert_eq!(reply, message);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Varint {
    frame_max: usize,
}

impl Varint {
    /// The largest payload unless [`frame_max`](Varint::frame_max) says otherwise: 1 MiB.
    pub const FRAME_MAX_DEFAULT: usize = 1 << 20;

    /// Payloads of at most 1 MiB.
    #[must_use]
    pub const fn new() -> Self {
        Varint { frame_max: Self::FRAME_MAX_DEFAULT }
    }

    /// The largest payload, in bytes, in either direction. Default: 1 MiB
    /// ([`FRAME_MAX_DEFAULT`](Varint::FRAME_MAX_DEFAULT)). Any value is allowed.
    #[must_use]
    pub const fn frame_max(mut self, bytes: usize) -> Self {
        self.frame_max = bytes;
        self
    }

    /// The length in front of `input`, and how many bytes it has; `None` if it is not complete.
    fn length(self, input: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
        let width_max = width(self.frame_max as u64);
        let mut length = 0;
        for (index, &byte) in input.iter().take(width_max).enumerate() {
            let bits = u64::from(byte & !MORE);
            // Only the tenth byte can have bits that find no place, all but its lowest.
            if bits.leading_zeros() < 7 * u32::try_from(index).unwrap_or(u32::MAX) {
                return Err(FrameError::too_large(u64::MAX, self.frame_max));
            }
            length |= bits << (7 * index);
            if byte & MORE == 0 {
                let is_overlong = byte == 0 && index > 0;
                return if is_overlong {
                    Err(FrameError::Overlong)
                } else {
                    self.check(length).map(|length| Some((length, index + 1)))
                };
            }
        }
        if input.len() < width_max {
            return Ok(None);
        }
        // In its shortest form it has a bit beyond all of those.
        let least = u32::try_from(7 * width_max).ok().and_then(|bits| 1_u64.checked_shl(bits));
        Err(FrameError::too_large(least.unwrap_or(u64::MAX), self.frame_max))
    }

    fn check(self, length: u64) -> Result<usize, FrameError> {
        let allowed = usize::try_from(length).ok().filter(|&length| length <= self.frame_max);
        allowed.ok_or(FrameError::too_large(length, self.frame_max))
    }

    fn put_length(self, length: usize, outbox: &mut Outbox) -> Result<(), FrameError> {
        let mut left = length as u64;
        self.check(left)?;
        let mut bytes = [0; WIDTH_MAX];
        let width = width(left);
        for byte in &mut bytes[..width] {
            *byte = left.to_le_bytes()[0] | MORE;
            left >>= 7;
        }
        bytes[width - 1] &= !MORE;
        outbox.put_slice(&bytes[..width]);
        Ok(())
    }
}

impl Default for Varint {
    fn default() -> Self {
        Varint::new()
    }
}

impl Codec for Varint {
    type Frame = BytesMut;
    type Message = Bytes;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
        let Some((length, width)) = self.length(input)? else { return Ok(None) };
        if input.len() - width < length {
            return Ok(None);
        }
        input.advance(width);
        Ok(Some(input.split_to(length)))
    }

    fn encode(&mut self, message: Bytes, outbox: &mut Outbox) -> Result<(), FrameError> {
        self.put_length(message.len(), outbox)?;
        outbox.put(message);
        Ok(())
    }

    fn encode_parts(
        &mut self,
        parts: Parts<'_>,
        outbox: &mut Outbox,
    ) -> Option<Result<(), FrameError>> {
        Some(self.put_length(parts.len_bytes(), outbox).map(|()| parts.put(outbox)))
    }
}

/// Another byte of the length follows.
const MORE: u8 = 0x80;
/// The bytes of the largest length: 64 bits, seven to a byte.
const WIDTH_MAX: usize = 10;

/// How many bytes `length` has in its shortest form.
fn width(length: u64) -> usize {
    let bits = u64::BITS - (length | 1).leading_zeros();
    usize::try_from(bits.div_ceil(7)).unwrap_or(WIDTH_MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn length(codec: Varint, bytes: &[u8]) -> Result<Option<(usize, usize)>, &'static str> {
        codec.length(bytes).map_err(|error| match error {
            FrameError::TooLarge(_) => "too large",
            FrameError::Overlong => "overlong",
            FrameError::LengthBelowHeader { .. }
            | FrameError::HoldsEndMark
            | FrameError::WrongLength { .. } => "something else",
        })
    }

    #[test]
    fn a_length_is_in_its_shortest_form_and_no_longer_than_the_largest() {
        let codec = Varint::new().frame_max(300);
        assert_eq!(length(codec, b""), Ok(None));
        assert_eq!(length(codec, b"\x00"), Ok(Some((0, 1))));
        assert_eq!(length(codec, b"\x7F"), Ok(Some((127, 1))));
        assert_eq!(length(codec, b"\x80"), Ok(None));
        assert_eq!(length(codec, b"\x80\x01"), Ok(Some((128, 2))));
        assert_eq!(length(codec, b"\xAC\x02"), Ok(Some((300, 2))));
        assert_eq!(length(codec, b"\xAD\x02"), Err("too large"));
        assert_eq!(length(codec, b"\x80\x00"), Err("overlong"));
        assert_eq!(length(codec, b"\x80\x80"), Err("too large"), "no third byte is waited for");
        let unbounded = Varint::new().frame_max(usize::MAX);
        let most = [&[0xFF; 9][..], &[0x01]].concat();
        if cfg!(target_pointer_width = "64") {
            assert_eq!(length(unbounded, &most), Ok(Some((usize::MAX, 10))));
        }
        assert_eq!(length(unbounded, &[0xFF; 10]), Err("too large"));
        assert_eq!(length(unbounded, &[0xFF; 11]), Err("too large"));
        assert_eq!(length(Varint::new().frame_max(0), b"\x80"), Err("too large"));
    }

    proptest! {
        #[test]
        fn every_length_comes_back_in_as_many_bytes_as_it_needs(shift in 0u32..64, low: u64) {
            let wanted = usize::try_from(low >> shift).unwrap_or(usize::MAX);
            let mut outbox = Outbox::new();
            let codec = Varint::new().frame_max(usize::MAX);
            prop_assert_eq!(codec.put_length(wanted, &mut outbox), Ok(()));
            let bytes = outbox.to_vec();
            prop_assert_eq!(length(codec, &bytes), Ok(Some((wanted, bytes.len()))));
            for end in 0..bytes.len() {
                prop_assert_eq!(length(codec, &bytes[..end]), Ok(None));
            }
        }
    }
}
