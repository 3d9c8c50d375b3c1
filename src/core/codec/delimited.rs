//! `Delimited`: frames that end with a mark.

use std::fmt;

use bytes::{Bytes, BytesMut};

use super::search::Needle;
use super::{Codec, ConfigError, FrameError, Parts};
use crate::parts::buf::Outbox;

/// Frames that each end with the same bytes, such as `\0` or `\r\n\r\n`.
///
/// A frame is what stands before the mark, cut out of the read buffer without copying; an empty
/// one is a frame. Without its mark the last one is truncated. A frame beyond the maximum
/// (default: 64 KiB) is an error, which ends the connection before more of it is read. Each byte
/// is looked at once, however the bytes come and whatever the mark is.
///
/// The mark is appended to each message; a message in which a receiver would find it earlier is
/// refused ([`FrameError::HoldsEndMark`]).
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{Shutdown, TcpStream};
/// use switchboard::codec::Delimited;
/// use switchboard::{Server, handler_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let codec = Delimited::new("--")?.frame_max(100);
/// let server = Server::builder()
///     .listen("127.0.0.1:0", codec, |_peer| handler_fn(|cx, frame| cx.send(frame)))
///     .start()?;
/// let mut client = TcpStream::connect(server.local_addr())?;
/// client.write_all(b"one--a-b--")?;
/// client.shutdown(Shutdown::Write)?;
/// let mut replies = String::new();
/// client.read_to_string(&mut replies)?;
/// assert_eq!(replies, "one--a-b--");
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Delimited {
    mark: Needle,
    frame_max: usize,
    /// So many of the first bytes of the input hold no mark.
    searched: usize,
    /// So many of the bytes searched last are a beginning of one.
    matched: usize,
}

impl Delimited {
    /// The largest frame unless [`frame_max`](Delimited::frame_max) says otherwise: 64 KiB.
    pub const FRAME_MAX_DEFAULT: usize = 64 << 10;

    /// Frames that end with `mark`, of at most 64 KiB.
    ///
    /// # Errors
    /// [`ConfigError::EmptyEndMark`] if the mark has no bytes.
    pub fn new(mark: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let mark = Needle::new(mark.as_ref()).ok_or(ConfigError::EmptyEndMark)?;
        Ok(Delimited { mark, frame_max: Self::FRAME_MAX_DEFAULT, searched: 0, matched: 0 })
    }

    /// The largest frame, in bytes, without its mark, in either direction. Default: 64 KiB
    /// ([`FRAME_MAX_DEFAULT`](Delimited::FRAME_MAX_DEFAULT)). Any value is allowed.
    #[must_use]
    pub fn frame_max(mut self, bytes: usize) -> Self {
        self.frame_max = bytes;
        self
    }

    fn check_length(&self, length: usize) -> Result<(), FrameError> {
        if length > self.frame_max {
            return Err(FrameError::too_large(length as u64, self.frame_max));
        }
        Ok(())
    }

    fn check(&self, parts: Parts<'_>) -> Result<(), FrameError> {
        self.check_length(parts.len_bytes())?;
        let mut matched = 0;
        let mut found = parts.iter().any(|part| self.mark.search(part, &mut matched).is_some());
        // The message's last bytes and the mark's first may be a mark, too.
        let all_but_last = &self.mark.bytes()[..self.mark.bytes().len() - 1];
        found = found || self.mark.search(all_but_last, &mut matched).is_some();
        if found { Err(FrameError::HoldsEndMark) } else { Ok(()) }
    }
}

impl Codec for Delimited {
    type Frame = BytesMut;
    type Message = Bytes;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
        let mark_len = self.mark.bytes().len();
        // No frame that is small enough ends behind this window.
        let window = &input[..input.len().min(self.frame_max.saturating_add(mark_len))];
        let unsearched = window.get(self.searched..).unwrap_or_default();
        let Some(found) = self.mark.search(unsearched, &mut self.matched) else {
            self.searched = window.len();
            // The frame has at least what is no beginning of a mark.
            self.check_length(window.len() - self.matched)?;
            return Ok(None);
        };
        let length = self.searched + found - mark_len;
        (self.searched, self.matched) = (0, 0);
        let mut frame = input.split_to(length + mark_len);
        frame.truncate(length);
        Ok(Some(frame))
    }

    fn encode(&mut self, message: Bytes, outbox: &mut Outbox) -> Result<(), FrameError> {
        self.check(Parts::new(&message, &[]))?;
        outbox.put_followed(message);
        outbox.put_slice(self.mark.bytes());
        Ok(())
    }

    fn encode_parts(
        &mut self,
        parts: Parts<'_>,
        outbox: &mut Outbox,
    ) -> Option<Result<(), FrameError>> {
        Some(self.check(parts).map(|()| {
            parts.put(outbox);
            outbox.put_slice(self.mark.bytes());
        }))
    }
}

impl fmt::Debug for Delimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delimited")
            .field("mark", &format_args!("\"{}\"", self.mark.bytes().escape_ascii()))
            .field("frame_max", &self.frame_max)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn delimited(mark: &str, frame_max: usize) -> Delimited {
        Delimited::new(mark).expect("it has bytes").frame_max(frame_max)
    }

    fn decode(codec: &mut Delimited, wire: &str) -> (Vec<String>, bool, String) {
        let (mut input, mut frames) = (BytesMut::from(wire), Vec::new());
        loop {
            match codec.decode(&mut input) {
                Ok(Some(frame)) => frames.push(String::from_utf8_lossy(&frame).into_owned()),
                end => {
                    let left = String::from_utf8_lossy(&input).into_owned();
                    return (frames, end.is_err(), left);
                }
            }
        }
    }

    #[test]
    fn the_first_mark_ends_a_frame() {
        assert!(matches!(Delimited::new(""), Err(ConfigError::EmptyEndMark)));
        let (frames, refused, left) = decode(&mut delimited("aab", 9), "aaabaabxaaabyaa");
        assert_eq!(frames, ["a", "", "xa"]);
        assert_eq!((refused, &left[..]), (false, "yaa"));
    }

    #[test]
    fn a_mark_does_not_count_and_nothing_beyond_the_maximum_is_waited_for() {
        assert_eq!(decode(&mut delimited("\r\n", 3), "abc\r\n").0, ["abc"]);
        assert_eq!(decode(&mut delimited("\r\n", 3), "abc\r"), (vec![], false, "abc\r".into()));
        for wire in ["abcd", "abcd\r\n", "abc\rd", "abcdefghijk"] {
            let (frames, refused, _) = decode(&mut delimited("\r\n", 3), wire);
            assert!(frames.is_empty() && refused, "{wire:?} gave {frames:?}");
        }
    }

    #[test]
    fn what_was_searched_is_not_searched_again() {
        let mut codec = delimited("ab", 99);
        let mut input = BytesMut::from("xyza");
        assert_eq!(codec.decode(&mut input), Ok(None));
        // Bytes that were seen cannot change; here they do, to see whether they are looked at.
        input[..2].copy_from_slice(b"ab");
        input.extend_from_slice(b"cd");
        assert_eq!(codec.decode(&mut input), Ok(None));
        input.extend_from_slice(b"abab");
        assert_eq!(codec.decode(&mut input), Ok(Some(BytesMut::from("abzacd"))));
        assert_eq!(codec.decode(&mut input), Ok(Some(BytesMut::new())), "from its start on");
    }

    #[test]
    fn a_message_in_which_the_mark_is_found_earlier_is_refused() {
        let mut codec = delimited("abab", 99);
        let mut outbox = Outbox::new();
        for message in ["abab", "xababx", "xab", "ab"] {
            let refused = Err(FrameError::HoldsEndMark);
            assert_eq!(codec.encode(Bytes::from(message), &mut outbox), refused, "{message}");
            let (head, rest) = message.split_at(1);
            let rest = [Bytes::from(rest)];
            let parts = Parts::new(head.as_bytes(), &rest);
            assert_eq!(codec.encode_parts(parts, &mut outbox), Some(refused), "{message}");
        }
        assert!(outbox.is_empty());
        for message in ["", "a", "b", "aba", "abx"] {
            assert_eq!(codec.encode(Bytes::from(message), &mut outbox), Ok(()), "{message}");
        }
    }
}
