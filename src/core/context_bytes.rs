//! Sending bytes that are borrowed or in parts, for codecs whose messages are bytes.

use bytes::Bytes;

use super::codec::Parts;
use super::context::Context;
use super::refusal::SendError;

impl Context<'_, Bytes> {
    /// Queues a message that is borrowed: it is copied once, into the output, and needs no memory
    /// of its own. For a large one [`send`](Context::send), which shares it, is cheaper.
    ///
    /// ```
    /// use switchboard::{LengthPrefixed, Server, handler_fn};
    /// let server = Server::builder()
    ///     .listen("127.0.0.1:0", LengthPrefixed::u32(), |_peer| {
    ///         handler_fn(|cx, frame| cx.send_slice(&frame[..frame.len().min(10)]))
    ///     })
    ///     .start()?;
    /// # Ok::<(), switchboard::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`send`](Context::send).
    pub fn send_slice(&mut self, message: &[u8]) -> Result<(), SendError> {
        self.send_parts(message, &[])
    }

    /// Queues one message that begins with `head`, which may be empty, and goes on with `rest`;
    /// they are not joined first. `head` and what is small are copied, large parts are shared: so
    /// a header can be put in front of a large body that many connections are sent.
    ///
    /// A codec that takes whole messages only gets them joined: see
    /// [`Codec::encode_parts`](crate::Codec::encode_parts). All ready-made ones take parts.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use switchboard::{LengthPrefixed, Server, handler_fn};
    ///
    /// let body = [Bytes::from(vec![0; 100_000])];
    /// let server = Server::builder()
    ///     .listen("127.0.0.1:0", LengthPrefixed::u32(), move |_peer| {
    ///         let body = body.clone();
    ///         handler_fn(move |cx, request| cx.send_parts(&request, &body))
    ///     })
    ///     .start()?;
    /// # Ok::<(), switchboard::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`send`](Context::send).
    pub fn send_parts(&mut self, head: &[u8], rest: &[Bytes]) -> Result<(), SendError> {
        let parts = Parts::new(head, rest);
        self.send_with(|encoder, outbox| match encoder.encode_parts(parts, outbox) {
            Some(encoded) => encoded,
            None => encoder.encode(parts.join(), outbox),
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::io::IoSlice;

    use bytes::BytesMut;

    use super::*;
    use crate::core::codec::{Codec, FrameError, LengthPrefixed};
    use crate::core::hand::{Hand, Verdict};
    use crate::core::post::{Command, Office, Post};
    use crate::parts::buf::Outbox;
    use crate::words::clock::Time;
    use crate::words::config::{Overflow, Timeouts};
    use crate::words::sync::Arc;

    struct Nowhere;

    impl Post for Nowhere {
        fn command(&self, _: Command) {}
    }

    impl Office for Nowhere {
        fn spawn(&self, _: crate::core::job::Call) -> Result<(), crate::words::error::SpawnError> {
            Ok(())
        }

        fn post(&self) -> Arc<dyn Post> {
            Arc::new(Nowhere)
        }

        fn now(&self) -> Time {
            Time::ZERO
        }

        fn timeouts(&self, _: u16) -> Timeouts {
            Timeouts::default()
        }
    }

    /// Takes whole messages only.
    struct Whole(LengthPrefixed);

    impl Codec for Whole {
        type Frame = BytesMut;
        type Message = Bytes;
        type Error = FrameError;

        fn decode(&mut self, input: &mut BytesMut) -> Result<Option<BytesMut>, FrameError> {
            self.0.decode(input)
        }

        fn encode(&mut self, message: Bytes, outbox: &mut Outbox) -> Result<(), FrameError> {
            self.0.encode(message, outbox)
        }
    }

    fn hand() -> Hand {
        Hand { send_max_bytes: 5000, ..Hand::blank() }
    }

    #[test]
    fn a_slice_and_parts_leave_as_the_message_that_they_are() {
        let body = [Bytes::from(vec![b'b'; 600]), Bytes::from_static(b"end")];
        let joined = [&b"head"[..], &body[0], &body[1]].concat();
        let mut codec = LengthPrefixed::u16();
        let (mut expected, mut parted, mut whole) = (hand(), hand(), hand());
        let mut cx = Context::new(&mut expected, &mut codec, &Nowhere);
        cx.send(joined).expect("it is open");
        cx.send(&b"slice"[..]).expect("it is open");
        let mut cx = Context::new(&mut parted, &mut codec, &Nowhere);
        cx.send_parts(b"head", &body).expect("it is open");
        cx.send_slice(b"slice").expect("it is open");
        let mut codec = Whole(codec);
        let mut cx = Context::new(&mut whole, &mut codec, &Nowhere);
        cx.send_parts(b"head", &body).expect("it is open");
        cx.send_slice(b"slice").expect("it is open");
        assert_eq!(parted.outbox.to_vec(), expected.outbox.to_vec());
        assert_eq!(whole.outbox.to_vec(), expected.outbox.to_vec());
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(parted.outbox.slices(&mut slices), 3);
        assert_eq!(slices[1].as_ptr(), body[0].as_ptr(), "a large part is not copied");
    }

    #[test]
    fn they_fail_as_a_send_does() {
        let mut codec = LengthPrefixed::u16().frame_max(4000);
        let body = [Bytes::from(vec![0; 3000])];
        let mut hand = hand();
        let mut cx = Context::new(&mut hand, &mut codec, &Nowhere);
        let refused = cx.send_slice(&[0; 4001]);
        assert!(matches!(refused, Err(SendError::Refused(_))), "{refused:?}");
        cx.send_parts(b"", &body).expect("there is room for it");
        let overflow = cx.send_parts(b"", &body);
        assert!(matches!(overflow, Err(SendError::Overflow { .. })), "{overflow:?}");
        let closing = cx.send_slice(b"");
        assert!(matches!(closing, Err(SendError::Closing)), "{closing:?}");
        assert!(matches!(hand.verdict, Verdict::Abort(_)));
    }

    #[test]
    fn what_overflows_may_be_dropped_whole() {
        let mut codec = LengthPrefixed::u16();
        let body = [Bytes::from(vec![0; 3000]), Bytes::from_static(b"end")];
        let mut hand = Hand { overflow: Overflow::DropNewest, ..hand() };
        let mut cx = Context::new(&mut hand, &mut codec, &Nowhere);
        cx.send_parts(b"head", &body).expect("there is room for it");
        let full = cx.send_parts(b"head", &body);
        assert!(matches!(full, Err(SendError::Full { .. })), "{full:?}");
        cx.send_slice(b"more").expect("there is room for it");
        let first = [&3007_u16.to_be_bytes()[..], b"head", &body[0], &body[1]].concat();
        assert_eq!(hand.outbox.to_vec(), [&first[..], b"\0\x04more"].concat());
    }
}
