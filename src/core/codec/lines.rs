//! `Lines`: text, line by line.

use bytes::{Bytes, BytesMut};

use super::{Codec, FrameError, Parts};
use crate::parts::buf::Outbox;

/// Lines that end with a line feed, or with a carriage return and a line feed.
///
/// A frame is a line without what ends it, cut out of the read buffer without copying; an empty
/// line is a frame. At the end of input the rest is the last line, whether it ends or not. A line
/// beyond the maximum (default: 64 KiB) is an error, which ends the connection before more of it
/// is read. Lines are bytes: that they are UTF-8 is for the handler to see.
///
/// A line feed is appended to each message. A message is refused
/// ([`FrameError::HoldsEndMark`]) if a line feed is in it, or if its last byte is a carriage
/// return, which would not arrive.
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::{Shutdown, TcpStream};
/// use switchboard::codec::Lines;
/// use switchboard::{Server, handler_fn};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::builder()
///     .listen("127.0.0.1:0", Lines::new().frame_max(1024), |_peer| {
///         handler_fn(|cx, line| cx.send(line))
///     })
///     .start()?;
/// let mut client = TcpStream::connect(server.local_addr())?;
/// client.write_all(b"one\ntwo\r\n\nthree")?;
/// client.shutdown(Shutdown::Write)?;
/// let mut replies = String::new();
/// client.read_to_string(&mut replies)?;
/// assert_eq!(replies, "one\ntwo\n\nthree\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Lines {
    frame_max: usize,
    /// So many of the first bytes of the input hold no line feed.
    searched: usize,
}

impl Lines {
    /// The longest line unless [`frame_max`](Lines::frame_max) says otherwise: 64 KiB.
    pub const FRAME_MAX_DEFAULT: usize = 64 << 10;

    /// Lines of at most 64 KiB.
    #[must_use]
    pub const fn new() -> Self {
        Lines { frame_max: Self::FRAME_MAX_DEFAULT, searched: 0 }
    }

    /// The longest line, in bytes, without what ends it, in either direction. Default: 64 KiB
    /// ([`FRAME_MAX_DEFAULT`](Lines::FRAME_MAX_DEFAULT)). Any value is allowed.
    #[must_use]
    pub const fn frame_max(mut self, bytes: usize) -> Self {
        self.frame_max = bytes;
        self
    }

    /// What the line that begins so must be too long by, if it must.
    fn check_unfinished(&self, input: &[u8]) -> Result<(), FrameError> {
        // A carriage return may be the first byte of the end of the line.
        let least = input.len() - usize::from(input.last() == Some(&b'\r'));
        self.check_length(least)
    }

    fn check_length(&self, length: usize) -> Result<(), FrameError> {
        if length > self.frame_max {
            return Err(FrameError::too_large(length as u64, self.frame_max));
        }
        Ok(())
    }

    fn check(&self, parts: Parts<'_>) -> Result<(), FrameError> {
        self.check_length(parts.len_bytes())?;
        let last = parts.iter().filter_map(<[u8]>::last).last();
        if last == Some(&b'\r') || parts.iter().any(|part| part.contains(&b'\n')) {
            return Err(FrameError::HoldsEndMark);
        }
        Ok(())
    }
}

impl Default for Lines {
    fn default() -> Self {
        Lines::new()
    }
}

impl Codec for Lines {
    type Frame = BytesMut;
    type Message = Bytes;
    type Error = FrameError;

    fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
        // No line that is short enough ends behind this window.
        let window = &input[..input.len().min(self.frame_max.saturating_add(2))];
        let unsearched = window.get(self.searched..).unwrap_or_default();
        let Some(found) = unsearched.iter().position(|&byte| byte == b'\n') else {
            self.check_unfinished(window)?;
            self.searched = window.len();
            return Ok(None);
        };
        let end = self.searched + found;
        let length = end - usize::from(window[..end].ends_with(b"\r"));
        self.check_length(length)?;
        self.searched = 0;
        let mut line = input.split_to(end + 1);
        line.truncate(length);
        Ok(Some(line))
    }

    fn decode_eof(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
        if let Some(line) = self.decode(input)? {
            return Ok(Some(line));
        }
        self.check_length(input.len())?;
        self.searched = 0;
        Ok((!input.is_empty()).then(|| input.split()))
    }

    fn encode(&mut self, message: Bytes, outbox: &mut Outbox) -> Result<(), FrameError> {
        self.check(Parts::new(&message, &[]))?;
        outbox.put_followed(message);
        outbox.put_slice(b"\n");
        Ok(())
    }

    fn encode_parts(
        &mut self,
        parts: Parts<'_>,
        outbox: &mut Outbox,
    ) -> Option<Result<(), FrameError>> {
        Some(self.check(parts).map(|()| {
            parts.put(outbox);
            outbox.put_slice(b"\n");
        }))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn lines(codec: &mut Lines, wire: &str) -> (Vec<String>, Option<FrameError>) {
        let (mut input, mut lines) = (BytesMut::from(wire), Vec::new());
        loop {
            match codec.decode(&mut input) {
                Ok(Some(line)) => lines.push(String::from_utf8_lossy(&line).into_owned()),
                Ok(None) => break,
                Err(error) => return (lines, Some(error)),
            }
        }
        while let Ok(Some(line)) = codec.decode_eof(&mut input) {
            lines.push(String::from_utf8_lossy(&line).into_owned());
        }
        (lines, None)
    }

    #[test]
    fn either_end_of_line_is_taken_off_and_the_last_line_needs_none() {
        let (found, error) = lines(&mut Lines::new(), "a\r\nb\n\n\r\n\r\r\nc\rd\ne\r");
        assert_eq!(found, ["a", "b", "", "", "\r", "c\rd", "e\r"]);
        assert_eq!(error, None);
    }

    #[test]
    fn what_ends_a_line_does_not_count_and_nothing_beyond_the_maximum_is_waited_for() {
        let mut codec = Lines::new().frame_max(3);
        assert_eq!(lines(&mut codec, "abc\nabc\r\nabc").0, ["abc", "abc", "abc"]);
        for wire in ["abcd", "abcd\n", "abcd\r\n", "abc\rd", "abcdefgh"] {
            let mut codec = Lines::new().frame_max(3);
            let (found, error) = lines(&mut codec, wire);
            assert!(found.is_empty(), "{wire:?} gave {found:?}");
            assert!(matches!(error, Some(FrameError::TooLarge(_))), "{wire:?} gave {error:?}");
        }
        let mut codec = Lines::new().frame_max(3);
        let mut input = BytesMut::from("abc\r");
        assert_eq!(codec.decode(&mut input), Ok(None), "the line feed may come yet");
        let refused = codec.decode_eof(&mut input).expect_err("it did not come");
        assert!(matches!(refused, FrameError::TooLarge(_)));
    }

    #[test]
    fn what_was_searched_is_not_searched_again() {
        let mut codec = Lines::new();
        let mut input = BytesMut::from("abcd");
        assert_eq!(codec.decode(&mut input), Ok(None));
        // A byte that was seen cannot change; here it does, to see whether it is looked at.
        input[1] = b'\n';
        input.extend_from_slice(b"e");
        assert_eq!(codec.decode(&mut input), Ok(None));
        input.extend_from_slice(b"\nf\n");
        assert_eq!(codec.decode(&mut input), Ok(Some(BytesMut::from("a\ncde"))));
        assert_eq!(codec.decode(&mut input), Ok(Some(BytesMut::from("f"))), "from its start on");
    }

    #[test]
    fn a_short_line_and_its_end_leave_in_one_slice() {
        let mut outbox = Outbox::new();
        Lines::new().encode(Bytes::from(vec![b'a'; 10]), &mut outbox).expect("short enough");
        assert_eq!(outbox.only(), Some(&b"aaaaaaaaaa\n"[..]));
    }

    #[test]
    fn a_message_that_would_arrive_as_another_is_refused() {
        let mut codec = Lines::new().frame_max(3);
        let mut outbox = Outbox::new();
        for message in ["\n", "a\n", "a\nb", "a\r"] {
            let refused = codec.encode(Bytes::from(message), &mut outbox);
            assert_eq!(refused, Err(FrameError::HoldsEndMark));
            let parts = [Bytes::from(message), Bytes::new()];
            let refused = codec.encode_parts(Parts::new(b"", &parts), &mut outbox);
            assert_eq!(refused, Some(Err(FrameError::HoldsEndMark)));
        }
        assert!(codec.encode(Bytes::from("abcd"), &mut outbox).is_err());
        assert!(outbox.is_empty());
        assert_eq!(codec.encode(Bytes::from("\rab"), &mut outbox), Ok(()));
    }
}
