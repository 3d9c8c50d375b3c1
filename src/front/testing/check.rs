//! `Check`: a codec, the messages to try it on, and what is known of it.

use std::fmt;

use bytes::Bytes;

use super::violation::Violation;
use crate::core::codec::Codec;

/// A check of a codec: all its rules, or what a fuzzer makes up.
///
/// `K` is what frames and messages are compared by; for byte codecs the bytes.
///
/// ```
/// use bytes::Bytes;
/// use switchboard::codec::Lines;
/// use switchboard::testing::Check;
///
/// Check::new(Lines::new().frame_max(80))
///     .messages(["", "a line", "another"].map(Bytes::from))
///     .ends_with_input()
///     .frame_max(80, Lines::new())
///     .run();
/// ```
#[must_use = "nothing is checked before it is run"]
pub struct Check<C: Codec, K = Bytes> {
    pub(super) codec: C,
    pub(super) messages: Vec<C::Message>,
    pub(super) frame_key: Key<C::Frame, K>,
    pub(super) message_key: Key<C::Message, K>,
    /// A message of bytes, if there can be one.
    pub(super) made_of: Option<Make<C::Message>>,
    /// The bytes of a message, if it can be encoded in parts.
    pub(super) parts_of: Option<fn(&C::Message) -> Bytes>,
    pub(super) joined: Option<fn(&[K]) -> K>,
    pub(super) ends_with_input: bool,
    pub(super) cap: Option<(usize, C)>,
    pub(super) seed: u64,
}

type Key<T, K> = Box<dyn Fn(&T) -> K>;
type Make<M> = Box<dyn Fn(Vec<u8>) -> M>;

impl<C> Check<C>
where
    C: Codec + Clone,
    C::Frame: AsRef<[u8]>,
    C::Message: AsRef<[u8]> + From<Vec<u8>> + Clone,
{
    /// A check of a codec whose frames and messages are bytes. It has no messages yet.
    pub fn new(codec: C) -> Self {
        let frame_key = |frame: &C::Frame| Bytes::copy_from_slice(frame.as_ref());
        let message_key = |message: &C::Message| Bytes::copy_from_slice(message.as_ref());
        let mut check = Check::comparing(codec, frame_key, message_key);
        check.parts_of = Some(|message| Bytes::copy_from_slice(message.as_ref()));
        check.made_of(C::Message::from)
    }

    /// The codec keeps no boundaries between messages, as [`Raw`](crate::Raw) does not: frames are
    /// compared by their bytes, one behind the other.
    pub fn unframed(mut self) -> Self {
        self.joined = Some(|frames| frames.concat().into());
        self
    }
}

impl<C, K> Check<C, K>
where
    C: Codec + Clone,
    C::Message: Clone,
    K: PartialEq + fmt::Debug,
{
    /// A check of a codec whose frames or messages are more than bytes: `frame_key` of a frame has
    /// to equal `message_key` of the message that it was.
    pub fn comparing(
        codec: C,
        frame_key: impl Fn(&C::Frame) -> K + 'static,
        message_key: impl Fn(&C::Message) -> K + 'static,
    ) -> Self {
        Check {
            codec,
            messages: Vec::new(),
            frame_key: Box::new(frame_key),
            message_key: Box::new(message_key),
            made_of: None,
            parts_of: None,
            joined: None,
            ends_with_input: false,
            cap: None,
            seed: 0,
        }
    }

    /// Adds messages to try it on. It has to accept them all. Some should be empty, some be longer
    /// than a kilobyte, and some hold what means something to the codec.
    pub fn messages(mut self, messages: impl IntoIterator<Item = C::Message>) -> Self {
        self.messages.extend(messages);
        self
    }

    /// How to make a message of bytes that are chosen elsewhere: what
    /// [`frame_max`](Check::frame_max) and [`fuzz`](Check::fuzz) send. Byte codecs know.
    pub fn made_of(mut self, make: impl Fn(Vec<u8>) -> C::Message + 'static) -> Self {
        self.made_of = Some(Box::new(make));
        self
    }

    /// The end of input may end a frame, as it does the last one of
    /// [`Lines`](crate::codec::Lines). Without this no frame may come at the end.
    pub fn ends_with_input(mut self) -> Self {
        self.ends_with_input = true;
        self
    }

    /// The codec takes messages of at most `bytes` bytes, in both directions; `wider`, which is
    /// like it but takes at least twice as many and a kilobyte, writes what it has to refuse.
    ///
    /// # Panics
    /// If it is not known how to make a message of bytes: see [`made_of`](Check::made_of).
    pub fn frame_max(mut self, bytes: usize, wider: C) -> Self {
        assert!(self.made_of.is_some(), "`made_of` says how to make a message of bytes");
        self.cap = Some((bytes, wider));
        self
    }

    /// Another seed for what is made up. Default: 0.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Checks all rules.
    ///
    /// # Panics
    /// If the codec breaks one; the message is the [`Violation`].
    pub fn run(&self) {
        self.try_run().unwrap_or_else(|violation| panic!("{violation}"));
    }

    /// Checks all rules.
    ///
    /// # Errors
    /// The first [`Violation`] that was found.
    pub fn try_run(&self) -> Result<(), Violation> {
        let stream = self.check_stream()?;
        self.check_each()?;
        self.check_cap()?;
        self.check_garbage(&stream)
    }

    /// Checks what `data`, which a fuzzer made up, decides: its first four bytes how input comes,
    /// the others what it is, and what messages are sent.
    ///
    /// # Panics
    /// If the codec breaks a rule; the message is the [`Violation`].
    pub fn fuzz(&self, data: &[u8]) {
        self.try_fuzz(data).unwrap_or_else(|violation| panic!("{violation}"));
    }

    /// As [`fuzz`](Check::fuzz).
    ///
    /// # Errors
    /// The first [`Violation`] that was found.
    pub fn try_fuzz(&self, data: &[u8]) -> Result<(), Violation> {
        let (sizes, input) = data.split_at(data.len().min(4));
        self.check_input(input, sizes)?;
        self.check_messages_of(input, sizes)
    }
}

impl<C: Codec, K> fmt::Debug for Check<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("messages", &self.messages.len())
            .field("ends_with_input", &self.ends_with_input)
            .field("frame_max", &self.cap.as_ref().map(|(max, _)| max))
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}
