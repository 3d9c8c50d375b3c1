//! `Fixed`: frames that all have the same length.

use bytes::{Bytes, BytesMut};

use super::{Codec, ConfigError, FrameError, Parts};
use crate::parts::buf::Outbox;

/// Frames of exactly so many bytes, one behind the other.
///
/// A frame is cut out of the read buffer without copying; what is left at the end of input is a
/// truncated one. A message of another length is refused ([`FrameError::WrongLength`]).
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{Shutdown, TcpStream};
/// use switchboard::codec::Fixed;
/// use switchboard::{Server, handler_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder()
///     .listen("127.0.0.1:0", Fixed::new(3)?, |_peer| {
///         handler_fn(|cx, mut frame| {
///             frame.reverse();
///             cx.send(frame)
///         })
///     })
///     .start()?;
/// let mut client = TcpStream::connect(server.local_addr())?;
/// client.write_all(b"abcdef")?;
/// client.shutdown(Shutdown::Write)?;
/// let mut replies = String::new();
/// client.read_to_string(&mut replies)?;
/// assert_eq!(replies, "cbafed");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Fixed {
    frame_len: usize,
}

impl Fixed {
    /// Frames of `frame_len` bytes. A connection may hold back as many less one.
    ///
    /// # Errors
    /// [`ConfigError::ZeroLength`] if that is none: any input would be endlessly many of them.
    pub const fn new(frame_len: usize) -> Result<Self, ConfigError> {
        if frame_len == 0 {
            return Err(ConfigError::ZeroLength);
        }
        Ok(Fixed { frame_len })
    }

    fn check(self, length: usize) -> Result<(), FrameError> {
        if length == self.frame_len {
            return Ok(());
        }
        Err(FrameError::WrongLength { length, expected: self.frame_len })
    }
}

impl Codec for Fixed {
    type Frame = BytesMut;
    type Message = Bytes;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
        Ok((input.len() >= self.frame_len).then(|| input.split_to(self.frame_len)))
    }

    fn encode(&mut self, message: Bytes, outbox: &mut Outbox) -> Result<(), FrameError> {
        self.check(message.len())?;
        outbox.put(message);
        Ok(())
    }

    fn encode_parts(
        &mut self,
        parts: Parts<'_>,
        outbox: &mut Outbox,
    ) -> Option<Result<(), FrameError>> {
        Some(self.check(parts.len_bytes()).map(|()| parts.put(outbox)))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_another_length_is_refused_and_frames_have_bytes() {
        assert!(matches!(Fixed::new(0), Err(ConfigError::ZeroLength)));
        let mut codec = Fixed::new(4).expect("it has bytes");
        let mut outbox = Outbox::new();
        for length in [0, 3, 5] {
            let refused = codec.encode(Bytes::from(vec![0; length]), &mut outbox);
            assert_eq!(refused, Err(FrameError::WrongLength { length, expected: 4 }));
        }
        assert!(outbox.is_empty());
        assert_eq!(codec.encode(Bytes::from_static(b"four"), &mut outbox), Ok(()));
    }
}
